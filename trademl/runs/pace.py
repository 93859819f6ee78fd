"""How long a run still takes: how the last one of its job spent its time, corrected by what has passed of this one."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .folder import PARTIAL, RunStatus

_PRIOR = 0.03  # an earlier run's length counts as much as this share of the present one
_ENOUGH = 0.05  # of the run must have passed before anything is said without an earlier run: the first stages are short and uneven
_SLACK = 0.95  # a stage that does not count is never thought further than this


@dataclass(frozen=True)
class Course:
    """How a whole run spends its time, from its first event to its end."""

    stages: Mapping[str, tuple[tuple[float, float], ...]]  # stage -> (share of its work, share of the run's time), (0, start) to (1, end)
    seconds: float | None = None  # length of the run that this was read from

    @classmethod
    def of_shares(cls, shares: Mapping[str, float]) -> "Course":
        """Stages one after another, each with its share of the time."""
        stages, at, whole = {}, 0.0, sum(shares.values())
        for name, share in shares.items():
            stages[name] = ((0.0, at / whole), (1.0, (at + share) / whole))
            at += share
        return cls(stages)

    @classmethod
    def of_run(cls, folder: Path) -> "Course | None":
        """How a finished run spent its time; None when it was broken off or cannot be read."""
        try:
            record = json.loads((folder / "run.json").read_text("utf-8"))
            events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
            if record["status"] not in (RunStatus.DONE, RunStatus.REFUSED) or not events:
                return None
            first = _seconds(events[0]["time"])
            whole = _seconds(record["finished"]) - first
            return cls(_knots(events, first, whole), whole) if whole > 0 else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def of_last(cls, reports: Path, job: str) -> "Course | None":
        """How the newest finished run of a job spent its time; None when there is none."""
        folders = sorted((path for path in Path(reports).glob(f"*-{job}-*") if not path.name.startswith(PARTIAL)), reverse=True)
        return next((course for folder in folders[:5] if (course := cls.of_run(folder)) is not None), None)

    def span(self, stage: str) -> tuple[float, float]:
        """Shares of the run's time at which a stage begins and ends."""
        return self.stages[stage][0][1], self.stages[stage][-1][1]

    def at(self, stage: str, work: float) -> float:
        """Share of the run's time when this share of a stage's work is done."""
        knots = self.stages[stage]
        right = min(bisect_right([knot[0] for knot in knots], work), len(knots) - 1)
        (a, from_), (b, to) = knots[right - 1], knots[right]
        return from_ + (to - from_) * (work - a) / (b - a) if b > a else to


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _knots(events: Iterable[Mapping], first: float, whole: float) -> dict:
    """Stage -> (share of its work, share of the time) of its last time through."""
    found: dict[str, list] = {}
    for event in events:
        name, began = event.get("stage"), _seconds(event["time"]) - event.get("seconds", 0.0)
        if event["event"] == "start":
            found[name] = [(0.0, (began - first) / whole)]
        elif name in found:
            start = found[name][0][1]
            work = 1.0 if event["event"] == "end" else event["done"] / event["total"] if event.get("total") else None
            if work is not None and (work > found[name][-1][0]):
                found[name].append((min(work, 1.0), start + event["seconds"] / whole))
    return {name: tuple(knots) for name, knots in found.items() if len(knots) > 1 and knots[-1][0] == 1.0}


class Pace:
    """Time left of a run: fed with its events, asked at any time. Times are seconds of any monotonic clock.

    Stages may be skipped; the time of a stage that the course does not know counts for nothing.
    """

    def __init__(self, course: Course):
        self.course = course
        self.stage: str | None = None
        self._seen: dict[str, bool] = {}  # stage -> finished?
        self._first = self._entered = self._told = self._unknown = 0.0
        self._work = 0.0  # share of the running stage's work; 0 too where it does not count

    def feed(self, event: Mapping[str, Any], now: float) -> None:
        """Take in one event at time `now`."""
        name = event.get("stage")
        if name is None:
            return
        if not self._seen:
            self._first = now
        if event["event"] == "start":
            self._entered = now
        elif event["event"] == "end" and name not in self.course.stages:
            self._unknown += now - self._entered
        total = event.get("total")
        self.stage, self._told, self._seen[name] = name, now, event["event"] == "end"
        self._work = min((event.get("done") or 0) / total, 1.0) if total else 0.0

    def time_left(self, now: float) -> float | None:
        """Seconds still to go. None until something has been measured."""
        known = [name for name in self._seen if name in self.course.stages]
        if not known:
            return None
        if self.stage in self.course.stages and not self._seen[self.stage]:
            return self._within(now)
        reached = max(self.course.span(name)[1] for name in known)
        until = self._told if self._seen[self.stage] else self._entered
        scale = self._scale(until - self._first - self._unknown, reached - self._skipped(reached))
        return None if scale is None else max((1 - reached) * scale - (now - self._told if self._seen[self.stage] else 0.0), 0.0)

    def _within(self, now: float) -> float | None:
        """While a stage runs that the course knows: its own pace, the more the further it is, and the run's for what comes after it."""
        start, end = self.course.span(self.stage)
        passed, before = start - self._skipped(start), self._entered - self._first - self._unknown
        scale, own = self._scale(before, passed), now - self._entered
        done = (self.course.at(self.stage, self._work) - start) / (end - start) if end > start else 1.0
        expected = None if scale is None else scale * (end - start)
        if done > 0:
            own = self._told - self._entered
            trust = 1.0 if expected is None else min(1.0, 2 * done)
            whole = trust * own / done + (1 - trust) * (expected or 0.0)
            left = max(whole * (1 - done) - (now - self._told), 0.0)
        elif expected is None:
            return None
        else:
            whole = max(expected, own / _SLACK)
            left = whole - own
        return left + (1 - end) * self._scale(before + whole, passed + end - start)

    def _scale(self, seconds: float, passed: float) -> float | None:
        """Seconds of the whole run, where this share of it took so long."""
        prior = self.course.seconds
        if prior is not None:
            return (seconds + _PRIOR * prior) / (passed + _PRIOR)
        return seconds / passed if passed >= _ENOUGH else None

    def _skipped(self, position: float) -> float:
        """Share of the stages before a position that this run left out."""
        spans = (self.course.span(name) for name in self.course.stages if name not in self._seen)
        return sum(min(end, position) - start for start, end in spans if start < position)
