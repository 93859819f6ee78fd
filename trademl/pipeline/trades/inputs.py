"""A bot's log as the pipeline takes it: read, refused where it must be, and turned into rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trademl.data.records import RecordsReport, read_records
from trademl.errors import BadDataError, UsageError
from trademl.trades.labels import UnitVerdict, judge_unit
from trademl.trades.profile import MIN_SAMPLES
from trademl.trades.rows import RecordFilter, TradeRows, WeightRule, kept_records, taken, trade_rows

LINE = "trades-all-records"


@dataclass(frozen=True)
class TradeFlags:
    """What `trademl trades train` was asked for."""

    data: str
    min_samples: int = MIN_SAMPLES
    recency_decay: float = 0.0
    balance_assets: bool = False
    real_only: bool = False
    parallel: bool = False
    bench_score_weight: bool = False
    min_bench_score: float | None = None
    bench_score_quantile: float | None = None
    excursion_unit: str = "auto"
    models_dir: str | None = None

    def __post_init__(self):
        if self.min_samples < 30:
            raise UsageError(f"--min-samples = {self.min_samples} must be at least 30: five walk-forward blocks need trades")

    @property
    def filter(self) -> RecordFilter:
        """Which records are used."""
        return RecordFilter(self.real_only, self.min_bench_score, self.bench_score_quantile)

    @property
    def weights(self) -> WeightRule:
        """How much each counts."""
        return WeightRule(self.recency_decay, self.balance_assets, self.bench_score_weight)

    def job_parameters(self) -> dict:
        """What the job notebook takes: the flags that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, eq=False)
class TradeInputs:
    """A log that may be trained on, or is too short to."""

    flags: TradeFlags
    report: RecordsReport
    columns: Mapping[str, np.ndarray]  # of the records that are used
    unit: UnitVerdict

    @property
    def records(self) -> int:
        """Records that are used, trades and others."""
        return len(self.columns["timestamp"])

    @cached_property
    def trades(self) -> int:
        """Trades with an outcome among them."""
        return int((~np.isnan(self.columns["outcome_realizedPnl"])).sum())

    @property
    def is_enough(self) -> bool:
        """Whether there are as many trades as asked for."""
        return self.trades >= self.flags.min_samples

    def rows(self) -> TradeRows:
        """The rows to learn from. BadDataError where the unit of the excursions cannot be told, or every trade ended alike."""
        pnl = self.columns["outcome_realizedPnl"]
        won = pnl[~np.isnan(pnl)] > 0
        if won.all() or not won.any():
            word = "profitable" if won.all() else "unprofitable"
            raise BadDataError(f"{self.flags.data}: all {len(won):,} trades are {word}: one class only, nothing to learn")
        return trade_rows(self.columns, self.unit.require())


def load_trades(flags: TradeFlags) -> TradeInputs:
    """Read the log that the flags name. BadDataError above 1 % bad lines; a unit that cannot be told is refused by `rows`."""
    report = read_records(flags.data).require_usable()
    every = {name: values.to_numpy() for name, values in report.records.items()}
    keep = kept_records(every, flags.filter)
    columns = every if keep.all() else taken(every, np.flatnonzero(keep))
    if not len(columns["timestamp"]):
        raise BadDataError(f"{flags.data}: no record is left after the filter; loosen --real-only or the bench score flags")
    return TradeInputs(flags, report, columns, judge_unit(columns, flags.excursion_unit))
