"""One root for everything that TradeML refuses, with the exit code that the command line gives for it.

A message says what, where, value, rule and next step, in that order:
"bars.csv row 5,031: time 2026-03-29T02:15Z repeats row 5,030; `trademl data repair --dry-run` shows all 4".
"""

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    GATE_REFUSED = 3
    BAD_DATA = 4
    LOCKED = 5
    INTERRUPTED = 130


class TradeMLError(Exception):
    """Root of all errors that TradeML raises on purpose."""

    exit_code = Exit.FAILED


class UsageError(TradeMLError, ValueError):
    """An invalid value, or one that contradicts another."""

    exit_code = Exit.USAGE


class BadDataError(TradeMLError, ValueError):
    """An input file or frame that breaks its contract; nothing was repaired or written."""

    exit_code = Exit.BAD_DATA


class LeakageError(TradeMLError):
    """A figure would be called out-of-sample although an ancestor fit has seen its bars."""


class RevisionError(TradeMLError):
    """A stored revision that is missing, altered, or does not fit what is asked of it."""


class UnknownRevisionError(RevisionError):
    """A revision was named that the store does not hold, or that the name does not settle."""

    exit_code = Exit.USAGE


class LooksError(TradeMLError):
    """The project's chain of looks is damaged, cut, another project's, or cannot be written: no figures."""


class ParityError(TradeMLError):
    """An exported model does not reproduce its native twin; the run fails and stores nothing."""


class StageError(TradeMLError):
    """A stage of a run failed; the run folder keeps the notebook with the traceback."""


class LockedError(TradeMLError):
    """Another run holds the lock of this store."""

    exit_code = Exit.LOCKED


class HubError(TradeMLError):
    """The hub cannot be reached, refuses, or holds what must not be used."""


class RollbackError(HubError):
    """A hub shows an older approval than was seen before, or another one under the same number."""


class SupersededError(HubError):
    """Somebody else moved the channel in the meantime; nothing was written."""

    exit_code = Exit.GATE_REFUSED


class MissingExtraError(TradeMLError, ImportError):
    """An optional tool is not installed; the message names the pip line."""

    exit_code = Exit.USAGE


def choose(choices: Iterable, value: object, name: str):
    """The one of `choices` (an enumeration, or plain values) that equals `value`. UsageError lists the right ones."""
    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{name} = {value!r} is not one of {', '.join(str(choice) for choice in choices)}")
