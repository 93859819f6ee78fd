"""The null canary: markets in which there is nothing to find go through the whole pipeline.

What passes there passed by chance, or by a fault of the pipeline, the machine or the settings. Every market is a project of its
own in a temporary folder: no store, no chain of looks and no run folder of the user's is touched.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from trademl.data.bars import bars_hash
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError
from trademl.pipeline.choice import SYNTHETIC, MarketChoice
from trademl.pipeline.market.inputs import Inputs, made_inputs, make_features
from trademl.pipeline.market.replay import LOOKBACK
from trademl.pipeline.market.walks import judge_walk, walk
from trademl.settings import Settings, load_settings

SMALL = {  # settings under which a market is judged in seconds; everything else is the user's
    "run.threads": 1,
    "synthetic.bars": 17_520,  # half a year
    "windows.final_share": 0.30,  # long enough to rotate its entries clear of the longest look-back
    "windows.refit_every_days": 30,
    "ensemble.rf_trees": 12,
    "ensemble.xgb_max_rounds": 40,
    "ensemble.lgb_max_rounds": 40,
    "backtest.null_curves": 20,
    "backtest.bootstrap_draws": 200,
}
DRIFT_PCT = 1.45  # a day: always long makes a fortune
REGIMES = 0.6  # log-volatility between regimes
PLANTED_EDGE = 0.5
ROTATED_BARS = 17_520  # of the user's bars, in each run


class Kind(StrEnum):
    """Which market a canary is sent into. EDGE is the control: there is something to find, and most of them must pass."""

    NO_EDGE = "no edge"
    DRIFT = "drift, no edge"
    REGIMES = "volatility regimes, no edge"
    ROTATED = "your bars, outcomes rotated"
    EDGE = "an edge"


@dataclass(frozen=True)
class Passes:
    """How many markets of a kind passed the gate."""

    kind: Kind
    runs: int
    passed: int
    level: float  # of the gate: the share that may pass by chance

    @property
    def expected(self) -> float:
        """The highest number of passes that is expected where there is nothing to find."""
        return self.level * self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the share that passes (Clopper and Pearson 1934)."""
        from scipy.stats import beta

        low = beta.ppf(0.025, self.passed, self.runs - self.passed + 1) if self.passed else 0.0
        high = beta.ppf(0.975, self.passed + 1, self.runs - self.passed) if self.passed < self.runs else 1.0
        return float(low), float(high)

    @property
    def is_alive(self) -> bool:
        """No more passed than chance explains."""
        return self.interval[0] <= self.level


def count_passes(
    kind: Kind,
    runs: int,
    overrides: Mapping[str, object] | None = None,  # settings, after the small ones
    bars: Inputs | None = None,  # what ROTATED rotates
    progress: Callable = lambda done, total, note: None,
) -> Passes:
    """Judge so many markets of a kind; the k-th is made from seed k."""
    passed, level = 0, load_settings(overrides).gate.level
    for done in range(runs):
        progress(done, runs, f"{passed} passed")
        passed += passes_gate(kind, done + 1, overrides, bars)
    return Passes(kind, runs, passed, level)


def passes_gate(kind: Kind, seed: int, overrides: Mapping[str, object] | None = None, bars: Inputs | None = None) -> bool:
    """Whether one market passes the gate: the steps of the notebook `retrain`, without what comes after its verdict."""
    with tempfile.TemporaryDirectory(prefix="trademl-canary-") as project:
        own = {f"paths.{name}": f"{project}/{name}" for name in ("models", "datasets", "reports")}
        settings = load_settings(SMALL | dict(overrides or {}) | own)
        inputs = _inputs(kind, seed, settings, bars)
        x = make_features(inputs, settings)
        if kind is Kind.ROTATED:
            x = rotated(x, settings.labeling.horizon_bars, np.random.default_rng([seed, 1]))
        return judge_walk(walk(inputs, x, settings), f"canary-{seed}").verdict.passed


def _inputs(kind: Kind, seed: int, settings: Settings, bars: Inputs | None) -> Inputs:
    """What a market of this kind brings; its store is that of the settings."""
    if kind is Kind.ROTATED:
        first = int(np.random.default_rng([seed, 0]).integers(max(1, len(bars.bars) - ROTATED_BARS)))
        part = bars.bars.iloc[first : first + ROTATED_BARS]
        return replace(bars, choice=replace(bars.choice, models_dir=settings.paths.models), bars=part, bars_sha256=bars_hash(part))
    dials = {Kind.DRIFT: {"drift_pct": DRIFT_PCT}, Kind.REGIMES: {"regimes": REGIMES}}.get(kind, {})
    made = synthetic_market(settings.synthetic.bars, PLANTED_EDGE if kind is Kind.EDGE else 0.0, seed, **dials)
    choice = MarketChoice(SYNTHETIC, None, None, False, settings.paths.models, settings.market.timeframe)
    return made_inputs(choice, made)


def rotated(x: np.ndarray, horizon_bars: int, rng: np.random.Generator) -> np.ndarray:
    """The complete rows of features (n, 55), each moved to a bar far from its own: what they know says nothing about what follows there.

    They keep their order, and clear of their own bars by the longest look-back and two horizons. BadDataError for too few bars.
    """
    first = int(np.isfinite(x).all(axis=1).argmax())
    clear, n = LOOKBACK + 2 * horizon_bars, len(x) - first
    if n <= 2 * clear:
        raise BadDataError(f"{len(x):,} bars are too few to rotate their outcomes: {first + 2 * clear + 1:,} are needed; give more bars")
    return np.concatenate([x[:first], np.roll(x[first:], int(rng.integers(clear, n - clear)), axis=0)])
