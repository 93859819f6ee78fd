"""`trademl trades shadow`: what following a revision's suggestions would have earned."""

import os
from pathlib import Path

from trademl.bot.shadow import read_shadow
from trademl.data.records import read_records
from trademl.errors import BadDataError, Exit, UsageError
from trademl.settings import load_settings
from trademl.trades.shadow import check_order, follow, join_outcomes


def run_shadow(log: str | os.PathLike, data: str | os.PathLike, revision: str | None = None, *, seed: int | None = None) -> dict:
    """`trademl trades shadow`: what following the suggestions of a log would have earned, by the bot's own records.

    BadDataError where the log is broken, holds several revisions and none is named, or nothing of it can be judged; UsageError when
    the revision that is named is not in it.
    """
    lines, notes = _shadow_lines(Path(log))
    name, lines = _one_revision(Path(log), lines, revision)
    try:
        check_order(lines)
        records = read_records(data).require_usable().records
        joined = join_outcomes(lines, {column: values.to_numpy() for column, values in records.items()})
        found = follow(joined, seed=load_settings({"run.seed": seed} if seed is not None else {}).run.seed)
    except BadDataError as refusal:
        raise BadDataError(f"{log}, revision {name}: {refusal}") from refusal
    unjoined = [{"reason": str(reason), "count": count, "first_line": first} for reason, (count, first) in joined.unjoined.items()]
    record = {"status": "done", "exit": int(Exit.DONE), "log": str(log), "data": str(data), "revision": name, "notes": notes}
    return record | {"suggestions": len(lines), "joined": len(joined), "unjoined": unjoined} | vars(found)


def _shadow_lines(log: Path) -> tuple[tuple[dict, ...], list[str]]:
    """The suggestions of a log, and what is to be said of it."""
    if not log.is_file():
        raise BadDataError(f"{log}: no such file; name the log that `trademl.bot.ShadowLog` writes")
    report = read_shadow(log)
    if report.problems:
        more = f" ({len(report.problems) - 1:,} more lines are wrong)" if len(report.problems) > 1 else ""
        raise BadDataError(f"{log} {report.problems[0]}{more}; a log that was touched proves nothing: give the one that the bot wrote")
    if not report.records:
        raise BadDataError(f"{log}: the log holds no suggestion; `trademl.bot.ShadowLog` writes one for each decision")
    return report.records, ["the last line has no end: the bot is writing it, or died; it is left out"] if report.torn else []


def _one_revision(log: Path, lines: tuple[dict, ...], asked: str | None) -> tuple[str, tuple[dict, ...]]:
    """The revision that is meant, and its suggestions."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line["revision"]] = counts.get(line["revision"], 0) + 1
    held = ", ".join(f"{name} ({count:,} lines)" for name, count in counts.items())
    if asked is None and len(counts) > 1:
        raise BadDataError(f"{log}: holds suggestions of {len(counts)} revisions: {held}; each is judged by itself, name one by --revision")
    fitting = [name for name in counts if asked is None or (asked and name.startswith(asked))]
    if len(fitting) != 1:
        raise UsageError(f"--revision {asked!r} names {'several' if fitting else 'none'} of the revisions in {log}: {held}")
    return fitting[0], tuple(line for line in lines if line["revision"] == fitting[0])
