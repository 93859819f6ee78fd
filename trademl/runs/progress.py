"""Progress of a job: events written inside the kernel, read and shown by the process that started it."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..clock import iso_z, utc_now
from ..errors import TradeMLError
from ..files import jsonable

EVENTS = "events.jsonl"
_WRITE_EVERY_S = 0.25
_SHOW_EVERY_S = 0.5


def peak_memory_mib() -> float | None:
    """Highest resident memory of this process so far, MiB. None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return round(peak / (1024 if sys.platform != "darwin" else 1024 * 1024), 1)


class Stage:
    """One stage under way; `update` says how far it is."""

    def __init__(self, progress: "Progress", name: str, total: float | None):
        self._progress, self.name, self.total, self.done, self.note = progress, name, total, 0.0, ""
        self._began, self._written = time.monotonic(), 0.0

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """So much of the total is done; the note stands beside the bar. Cheap to call often: at most four events a second are written."""
        self.done, self.total, self.note = done, self.total if total is None else total, note
        if time.monotonic() - self._written >= _WRITE_EVERY_S:
            self._written = time.monotonic()
            self._emit("progress")

    def advance(self, by: float = 1) -> None:
        """`by` more is done."""
        self.update(self.done + by)

    def _emit(self, event: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        more |= {"note": self.note} if self.note else {}
        self._progress.emit(
            event, stage=self.name, done=self.done, total=self.total, seconds=seconds, peak_memory_mib=peak_memory_mib(), **more
        )


class Progress:
    """Writes a job's events to `events.jsonl` in its run folder. With no folder (a reader runs the notebook by hand) it writes nothing."""

    def __init__(self, run_dir: Path | str | None):
        self._path = Path(run_dir) / EVENTS if run_dir else None

    def emit(self, event: str, **fields: Any) -> None:
        """Append one event, a line of JSON. One `write` call, so that two processes can append to one file."""
        if self._path is None:
            return
        line = json.dumps({"time": iso_z(utc_now()), "event": event, **jsonable(fields)}, ensure_ascii=False) + "\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Stage]:
        """A named stage of the run; an exception inside is recorded with its type, text and exit code, and goes on."""
        stage = Stage(self, name, total)
        stage._emit("start")
        try:
            yield stage
        except BaseException as error:
            code = int(error.exit_code) if isinstance(error, TradeMLError) else None
            stage._emit("failed", error=type(error).__name__, message=str(error), exit=code)
            raise
        if stage.total is not None:
            stage.done = stage.total
        stage._emit("end")


def read_events(run_dir: Path | str) -> list[dict[str, Any]]:
    """All whole events of a run so far. A torn last line (the process was killed) is left out."""
    path = Path(run_dir) / EVENTS
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n") and line.strip()]


def stage_seconds(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage, in order of appearance; a stage entered twice is summed."""
    seconds: dict[str, float] = {}
    for event in events:
        if event["event"] in ("end", "failed"):
            seconds[event["stage"]] = round(seconds.get(event["stage"], 0.0) + event["seconds"], 3)
    return seconds


class Pace:
    """Time left of a whole run, from the share of time that each stage usually takes, corrected by what has passed.

    Stages may be skipped; stages without a share count nothing. Times are seconds of any monotonic clock.
    """

    def __init__(self, shares: Mapping[str, float]):
        self.shares = dict(shares)
        self.stage: str | None = None
        self.done: float = 0
        self.total: float | None = None
        self._entered = 0.0
        self._seen: dict[str, bool] = {}  # stage -> finished?

    def feed(self, event: Mapping[str, Any], now: float) -> None:
        """Take in one event at time `now`."""
        name = event.get("stage")
        if name is None:
            return
        if event["event"] == "start":
            self._entered = now
        self.stage, self.done, self.total = name, event.get("done") or 0, event.get("total")
        self._seen[name] = event["event"] == "end"

    def time_left(self, elapsed: float, now: float) -> float | None:
        """Seconds still to go when `elapsed` have passed. None until something has been measured."""
        order = list(self.shares)
        reached = max((order.index(name) for name in self._seen if name in self.shares), default=-1)
        finished = sum(self.shares[name] for name, over in self._seen.items() if over and name in self.shares)
        to_come = sum(self.shares[name] for name in order[reached + 1 :])
        part, own = self._part(now, elapsed, finished), self.shares.get(self.stage or "", 0.0)
        running = own if self.stage in self.shares and not self._seen[self.stage] else 0.0
        passed = finished + running * part
        if passed <= 0 or elapsed <= 0:
            return None
        return elapsed / passed * (running * (1 - part) + to_come)

    def _part(self, now: float, elapsed: float, finished: float) -> float:
        """Share of the running stage that is done: counted when it has a total, else judged by the pace so far."""
        if self.total:
            return min(self.done / self.total, 1.0)
        own = self.shares.get(self.stage or "", 0.0)
        before = elapsed - (now - self._entered)
        if finished <= 0 or own <= 0 or before <= 0:
            return 0.0
        return min((now - self._entered) / (before / finished * own), 0.95)


@contextlib.contextmanager
def watch(
    run_dir: Path | str,
    shares: Mapping[str, float] | None = None,  # stage -> usual share of the whole time, in order
    *,
    stream: TextIO | None = None,  # standard error by default
    show: bool | None = None,  # None: only when the stream is a terminal
) -> Iterator[None]:
    """Show stage, progress, elapsed and remaining time of the run while the block runs. Quiet when nobody watches a terminal."""
    stream = stream or sys.stderr
    if not (stream.isatty() if show is None else show):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_show, args=(Path(run_dir) / EVENTS, Pace(shares or {}), stream, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


def _show(path: Path, pace: Pace, stream: TextIO, over: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    left = TextColumn("{task.fields[left]}")
    note = TextColumn("{task.fields[note]}", table_column=Column(no_wrap=False))  # on a narrow terminal the note gives way
    columns = (TextColumn("{task.description:<14}"), BarColumn(32), MofNCompleteColumn(), TimeElapsedColumn(), left, note)
    began, offset, rest = time.monotonic(), 0, b""
    tasks: dict[str, Any] = {}
    with Bars(*columns, console=Console(file=stream), refresh_per_second=4) as bars:
        while True:
            last = over.wait(_SHOW_EVERY_S)
            if path.exists():
                with path.open("rb") as file:
                    file.seek(offset)
                    text = rest + file.read()
                    offset = file.tell()
                *lines, rest = text.split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    pace.feed(event, time.monotonic())
                    _paint(bars, tasks, event)
            now = time.monotonic()
            to_go = pace.time_left(now - began, now)
            for name, task in tasks.items():
                running = name == pace.stage and not bars.tasks[task].finished and to_go is not None
                bars.update(task, left=f"about {duration(to_go)} left" if running else "")
            if last:
                return


def _paint(bars: Any, tasks: dict[str, Any], event: Mapping[str, Any]) -> None:
    name = event.get("stage")
    if name is None:
        return
    if name not in tasks:
        tasks[name] = bars.add_task(name, total=event.get("total"), left="", note="")
    total = event.get("total")
    bars.update(tasks[name], note=event.get("note", ""))
    if event["event"] == "end":
        total = total or 1
        bars.update(tasks[name], total=total, completed=total)
    elif event["event"] == "failed":
        bars.update(tasks[name], description=f"{name} failed")
        bars.stop_task(tasks[name])
    else:
        bars.update(tasks[name], total=total, completed=event.get("done") or 0)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 10 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
