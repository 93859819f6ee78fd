"""A bot's log as the pipeline takes it: read, refused where it must be, and turned into rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trademl.data.records import RecordsReport, read_records
from trademl.errors import BadDataError, UsageError
from trademl.trades.labels import UnitVerdict, column, judge_unit, label_trades, unlearnable
from trademl.trades.profile import MIN_SAMPLES
from trademl.trades.rows import BenchLimit, TradeRows, WeightRule, is_live_id, taken, trade_rows

LINE = "trades-all-records"
TRIALS = 50  # of each model, where parameters are searched


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
    tune_hyperparams: bool = False
    optuna_trials: int | None = None  # of each model; None: 50
    select_features: bool = False
    chain_quality: bool = False

    def __post_init__(self):
        if self.optuna_trials is not None and not self.tune_hyperparams:
            raise UsageError("--optuna-trials without --tune-hyperparams searches nothing; give both, or neither")
        if self.chain_quality and self.select_features:
            raise UsageError("--chain-quality fixes what position sizing splits on, --select-features searches for it; give one of them")
        if self.optuna_trials is not None and self.optuna_trials < 2:
            raise UsageError(f"--optuna-trials = {self.optuna_trials} must be at least 2: the first one is the defaults' own")
        if self.min_samples < 30:
            raise UsageError(f"--min-samples = {self.min_samples} must be at least 30: five walk-forward blocks need trades")

    @property
    def bench(self) -> BenchLimit:
        """Which trades a fit learns from. The log, its lags and the judged trades are the same with it and without."""
        return BenchLimit(self.min_bench_score, self.bench_score_quantile)

    @property
    def trials(self) -> int:
        """Trials of each model's search."""
        return TRIALS if self.optuna_trials is None else self.optuna_trials

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

    @cached_property
    def teaching(self) -> int:
        """Trades with an outcome that the bench limit lets a fit learn from."""
        closed = ~np.isnan(self.columns["outcome_realizedPnl"])
        return int(self.flags.bench.lets_teach(column(self.columns, "label_benchScore")[closed]).sum())

    @property
    def is_enough(self) -> bool:
        """Whether there are as many trades to learn from as asked for."""
        return self.teaching >= self.flags.min_samples

    def require_trainable(self) -> "TradeInputs":
        """Itself. BadDataError where the unit of the excursions cannot be told, or the outcomes teach nothing."""
        if why := unlearnable(label_trades(self.columns, None)):
            raise BadDataError(f"{self.flags.data}: {why}")
        self.unit.require()
        return self

    def rows(self) -> TradeRows:
        """The rows to learn from. BadDataError as `require_trainable`."""
        return trade_rows(self.require_trainable().columns, self.unit.require(), is_chained=self.flags.chain_quality)


def load_trades(flags: TradeFlags) -> TradeInputs:
    """Read the log that the flags name. BadDataError above 1 % bad lines; a unit that cannot be told is refused by `rows`.

    UsageError where a bench limit is asked for and no trade has a score.
    """
    report = read_records(flags.data).require_usable()
    every = {name: values.to_numpy() for name, values in report.records.items()}
    columns = taken(every, np.flatnonzero(is_live_id(every["id"]))) if flags.real_only else every
    if not len(columns["timestamp"]):
        raise BadDataError(f"{flags.data}: a generator wrote all of its records; leave --real-only out")
    if flags.bench.is_set and np.isnan(column(columns, "label_benchScore")).all():
        raise UsageError("no trade has a labels.benchScore, so none can be chosen by it; leave the bench score flags out")
    return TradeInputs(flags, report, columns, judge_unit(columns, flags.excursion_unit))
