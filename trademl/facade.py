"""`import trademl as tm`: what a researcher calls first, each one call into the package. Nothing is computed here.

`settings` is a mapping such as `{"labeling.tp_atr": 2}`: it comes after settings.ini and the environment, as a flag does on the command
line. Errors are the command line's: `trademl.errors.TradeMLError`.
"""

import sys
from collections.abc import Callable, Mapping

import pandas as pd

from trademl.commands.backtest import Backtested, backtest_by_flags, run_look
from trademl.commands.explain import Explained, run_explain, run_explain_walk
from trademl.commands.market import retrain_by_flags
from trademl.commands.spine import refuse_unknown
from trademl.data.bars import BarsReport, read_bars
from trademl.data.news import NewsReport, high_impact_usd, read_news
from trademl.errors import UsageError
from trademl.market.features import compute_features
from trademl.market.labeling import Labels, label_bars
from trademl.market.walkforward import unwatched
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import MarketFlags, open_stored
from trademl.pipeline.market import WalkForward
from trademl.runs import Progress
from trademl.runs.progress import CellLines
from trademl.settings import load_settings
from trademl.ship.revision import Revision

__all__ = ["backtest", "explain", "features", "fit", "label", "load", "read_bars", "read_news", "retrain"]

Bars = BarsReport | pd.DataFrame
News = NewsReport | pd.DataFrame | None  # None: no calendar


def label(bars: Bars, news: News = None, *, settings: Mapping[str, object] | None = None) -> Labels:
    """SELL, BUY or HOLD for each bar, under the contract of the settings (`[labeling]`).

    >>> from trademl.data.synthetic import synthetic_market
    >>> labels = label(synthetic_market(2_000).bars)
    >>> sorted(labels.share())
    ['BUY', 'HOLD', 'SELL']
    >>> label(synthetic_market(2_000).bars, settings={"labeling.horizon_bars": 24}).spec.horizon_bars
    24
    """
    spec = pipeline.label_spec(load_settings(settings))
    return label_bars(getattr(bars, "bars", bars), spec, None if news is None else high_impact_usd(news)[0])


def features(bars: Bars, news: News = None, *, symbol: str | None = None, settings: Mapping[str, object] | None = None) -> pd.DataFrame:
    """The 55 features, a column each, on the price grid of the symbol (the settings' where none is named); NaN in the warm-up.

    >>> from trademl.data.synthetic import synthetic_market
    >>> made = synthetic_market(2_000)
    >>> features(made.bars, made.events).shape
    (2000, 55)
    """
    chosen = load_settings(settings)
    return compute_features(getattr(bars, "bars", bars), news, round_step=chosen.symbol(symbol or chosen.market.symbol).round_step)


def fit(
    bars: BarsReport,
    news: NewsReport | None,  # None: train without a calendar, as with --no-news
    *,
    symbol: str | None = None,  # a symbol of the settings; default: their market's
    accept_leak: str | None = None,  # why a leak alarm does not refuse the gate
    trust_clock: bool = False,  # keep a clock that closes or releases disprove
    settings: Mapping[str, object] | None = None,
    quiet: bool = False,
) -> WalkForward:
    """Judge the settings' recipe walk-forward on what was read. Minutes on years of bars; nothing is stored, and final stays shut.

    Raises BadDataError (bars, calendar, clock, symbol), UsageError (settings), LeakageError (prices that repeat).
    """
    if not isinstance(bars, BarsReport) or not isinstance(news, NewsReport | None):
        raise UsageError("fit takes what read_bars and read_news return: clocks, gaps and hashes stand there and not in a frame")
    chosen, stage = load_settings(settings), _stages(quiet)
    with stage("data"):
        inputs = pipeline.inputs_of(bars, news, chosen, MarketFlags(symbol=symbol, trust_clock=trust_clock))
    with stage("features"):
        x = pipeline.make_features(inputs, chosen)
    return pipeline.walk(inputs, x, chosen, accept_leak, stage)


def backtest(what: WalkForward | Revision | str | None = None, **flags) -> Backtested:
    """Judge trades out of sample: a line in the project's chain of looks, written before a figure exists.

    `what`: what `fit` returned, or a stored revision (its name or the start of it; None: the newest). A revision takes the flags of
    `trademl backtest` without dashes, such as `spread=20` or `bars="later.parquet"`; bars that its models saw are refused.
    """
    if isinstance(what, WalkForward):
        if flags:
            raise UsageError(f"{', '.join(flags)}: a fit is judged under the settings that it was made with; give them to `fit`")
        return run_look(what)
    return backtest_by_flags(getattr(what, "name", what), **flags)


def explain(
    what: WalkForward | Revision | str | None = None,
    decision: str | None = None,  # of a revision, one judged bar instead: its close, UTC, or its number among the judged rows
    **place: str | None,  # of a revision: symbol, models_dir
) -> Explained:
    """What drives the answers, and where noise begins: of what `fit` returned, or of a stored revision as `trademl explain` says it.

    A fit is judged for that, as by `backtest`: a look. A revision was, when it was trained.
    """
    if isinstance(what, WalkForward):
        if decision is not None or place:
            raise UsageError("a decision, a symbol and a store are of a stored revision; a fit is explained as a whole")
        return Explained(run_explain_walk(what))
    refuse_unknown("explain", place, {"symbol", "models_dir"})
    return Explained(run_explain(getattr(what, "name", what), decision, **place))


def retrain(**flags) -> dict:
    """The job `retrain`: store a revision and judge it. Flags as on the command line, without dashes: `profile=3, no_news=True`.

    Returns what `trademl retrain --json` prints; `exit` 3 says that the gate refused. Raises what the job raised. With `shap_only=True`
    nothing is trained: it explains the newest revision and returns what `trademl explain --json` prints.
    """
    return retrain_by_flags(**flags)


def load(revision: str | None = None, *, symbol: str | None = None, models_dir: str | None = None) -> Revision:
    """A stored revision, every check passed: signature, manifest, files, hashes, graphs, golden rows. None: the newest.

    RevisionError names the check that failed. What a bot loads is `trademl.bot.load_approved`, which also asks for approval.
    """
    found = open_stored(load_settings(), symbol=symbol, models_dir=models_dir, revision=revision).revision
    found.verify()
    return found


def _stages(quiet: bool) -> Callable:
    """What opens a stage: told on standard error, a line each, or to nobody."""
    return unwatched if quiet else Progress(None, CellLines(sys.stderr)).stage
