"""What the bot refuses, each by a name that a caller can act on."""

from enum import StrEnum

from trademl.errors import BadDataError, RevisionError, UsageError


class LoadCheck(StrEnum):
    """What is asked before a revision may decide, in this order."""

    POINTER = "pointer"
    SIGNATURE = "signature"
    RUNTIME = "runtime"
    CLOCK = "clock"
    AGE = "age"
    APPROVAL = "approval"
    PIPELINE = "pipeline"
    SYMBOL = "symbol"
    TIMEFRAME = "timeframe"
    CLASSES = "classes"
    FEATURES = "features"
    LABEL_SPEC = "label spec"
    MANIFEST = "manifest"
    FILES = "files"
    HASHES = "hashes"
    SCALER = "scaler"
    EXPLANATION = "explanation"
    MODEL_COMPAT = "model_compat"
    GRAPHS = "graphs"
    TRAINED_TOGETHER = "trained together"
    GOLDEN_ROWS = "golden rows"
    HEAD = "head"


class LoadError(RevisionError):
    """A revision that may not decide; `check` says which question it failed."""

    def __init__(self, check: LoadCheck, message: str):
        super().__init__(f"{message} (check: {check})")
        self.check = check


class TailFault(StrEnum):
    """What can be wrong with the bars of one call."""

    VALUES = "values"
    CLOCK = "clock"
    TIMEFRAME = "timeframe"
    SYMBOL = "symbol"
    SHORT = "short"
    HOLE = "hole"
    FORMING = "forming"
    STALE = "stale"


class TailError(BadDataError):
    """Bars that nothing may be decided on; `fault` says why."""

    def __init__(self, fault: TailFault, message: str):
        super().__init__(message)
        self.fault = fault


class AccountError(UsageError):
    """An account or an open position that cannot be the bot's own."""
