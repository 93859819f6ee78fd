"""Bars and calendar in, rows out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from trademl.clock import epoch_seconds, iso_z, utc_now
from trademl.data.bars import BarsReport, bars_hash, inspect_bars, read_bars, refuse_doubts
from trademl.data.news import NewsReport, check_coverage, high_impact_usd, news_covers_until, news_hash, read_news
from trademl.data.releases import prove_bars_clock
from trademl.data.symbols import same_symbol
from trademl.data.synthetic import SyntheticMarket, synthetic_market
from trademl.errors import BadDataError
from trademl.market.features import FEATURE_NAMES, feature_matrix
from trademl.market.labeling import label_bars
from trademl.market.recipe import MarketRows, market_rows
from trademl.pipeline.choice import MarketChoice, MarketFlags, market_of
from trademl.pipeline.contract import label_spec
from trademl.pipeline.market.parameters import cost_spec
from trademl.settings import Settings

UNKNOWN_SYMBOL = "unknown"  # what is recorded where neither the file nor --symbol says it


@dataclass(frozen=True)
class Inputs:
    """Bars and calendar as they came in, with what was found."""

    choice: MarketChoice
    bars: pd.DataFrame
    events: pd.DataFrame | None
    issues: tuple  # of data.bars.Issue, bars first
    bars_sha256: str
    news_sha256: str | None
    news_covers_until: str | None
    symbol: str = ""  # whose bars the data say these are; "" = unknown
    timeframe: str = "15min"
    origin_sha256: str | None = None  # of the file that the bars first came from; None: the embedded market

    @property
    def said_symbol(self) -> str:
        """The symbol that the data carry, or UNKNOWN_SYMBOL."""
        return self.symbol or UNKNOWN_SYMBOL

    def overview(self) -> pd.DataFrame:
        """What came in and what was found, one line each."""
        span = f"{iso_z(epoch_seconds(self.bars.index[:1])[0])} to {iso_z(epoch_seconds(self.bars.index[-1:])[0])}"
        calendar = "none (--no-news)" if self.events is None else f"{len(self.events):,} events, until {self.news_covers_until}"
        rows = [("bars", f"{len(self.bars):,}", span), ("calendar", "", calendar), ("bars sha256", "", self.bars_sha256[:16])]
        if self.origin_sha256 is not None:
            told = f"the bars are of {self.symbol}" if self.symbol else "the bars do not say whose they are"
            rows += [("read as", "", f"{self.choice.symbol}, {self.timeframe}: {told}"), ("source sha256", "", self.origin_sha256[:16])]
        rows += [(issue.kind, f"{issue.count:,}", issue.message) for issue in self.issues]
        return pd.DataFrame(rows, columns=["what", "count", "found"]).set_index("what")


def load_inputs(
    settings: Settings,
    choice: MarketChoice,
    flags: MarketFlags = MarketFlags(),  # noqa: B008 (frozen); how the files are read
    *,
    now: datetime | None = None,
) -> Inputs:
    """Read and check the inputs of the chosen market. BadDataError also for bars of another symbol; nothing is repaired."""
    if choice.is_synthetic:
        made = synthetic_market(settings.synthetic.bars, settings.synthetic.edge, settings.synthetic.seed)
        return made_inputs(choice, made)
    return _about(choice, *_read_files(choice, flags, now or utc_now()))


def made_inputs(choice: MarketChoice, made: SyntheticMarket) -> Inputs:
    """A made market as inputs."""
    return _inputs(choice, made.bars, made.events, inspect_bars(made.bars), {"symbol": choice.symbol})


def _inputs(choice: MarketChoice, bars: pd.DataFrame, events: pd.DataFrame | None, issues: Sequence, about: Mapping) -> Inputs:
    return Inputs(
        choice,
        bars,
        events,
        tuple(issues),
        bars_hash(bars),
        None if events is None else news_hash(events),
        None if events is None else iso_z(news_covers_until(events)),
        **about,
    )


def _read_files(choice: MarketChoice, flags: MarketFlags, now: datetime) -> tuple[BarsReport, pd.DataFrame | None, tuple]:
    """(report on the bars, events, issues) of the chosen files; every error in them is refused, and a clock that releases disprove."""
    accept = [word for word, given in (("clock", flags.trust_clock), ("flat", flags.allow_flat)) if given]
    report = read_bars(choice.bars, tz=flags.tz, stamp=flags.stamp, strict=flags.strict, now=now, symbol=flags.symbol, accept=accept)
    _check_bars(report, choice)
    news = None if choice.no_news else read_news(choice.news, tz=flags.news_tz, strict=flags.strict, trust_clock=flags.trust_clock)
    return _check_both(report, news, flags)


def _check_bars(report: BarsReport, choice: MarketChoice) -> None:
    """BadDataError for rows that cannot be bars, and for bars of another symbol than the one that is asked for."""
    report.require_clean()
    _check_symbol(report, choice)


def _check_both(report: BarsReport, news: NewsReport | None, flags: MarketFlags) -> tuple[BarsReport, pd.DataFrame | None, tuple]:
    """(report, events, issues) of bars beside their calendar; BadDataError when they cannot be trained on together."""
    if news is None:
        return report, None, report.issues
    news.require_clean()
    check_coverage(report.bars, news.events)
    report = prove_bars_clock(report, news, trust_clock=flags.trust_clock)
    if flags.strict:
        refuse_doubts(report)
    return report, news.events, (*report.issues, *news.issues)


def inputs_of(bars: BarsReport, news: NewsReport | None, settings: Settings, flags: MarketFlags) -> Inputs:
    """What was read before as inputs, under the checks of `load_inputs`; without a calendar (None) as with --no-news."""
    named = replace(flags, bars=bars.source.path, news=news and news.source.path, no_news=news is None)
    choice = market_of(settings, named)  # the file was read before, from wherever that was
    _check_bars(bars, choice)
    return _about(choice, *_check_both(bars, news, flags))


def _about(choice: MarketChoice, report: BarsReport, events: pd.DataFrame | None, issues: Sequence) -> Inputs:
    about = {name: getattr(report, name) for name in ("symbol", "timeframe", "origin_sha256")}
    return _inputs(choice, report.bars, events, issues, about)


def _check_symbol(report: BarsReport, choice: MarketChoice) -> None:
    """BadDataError when the bars say that they are of another symbol than is asked for; bars that say nothing pass."""
    if report.symbol and not same_symbol(report.symbol, choice.symbol):
        raise BadDataError(
            f"{choice.source}: the bars are of {report.symbol}, and {choice.symbol} is asked for; "
            f"name the file of {choice.symbol}, or give --symbol {report.symbol}"
        )


def make_features(inputs: Inputs, settings: Settings) -> np.ndarray:
    """The feature matrix (n, 55) of the inputs."""
    timed, all_day = (None, None) if inputs.events is None else high_impact_usd(inputs.events)
    columns = [inputs.bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
    step = settings.symbol(inputs.choice.symbol).round_step
    return feature_matrix(inputs.bars.index, *columns, timed, all_day_times=all_day, round_step=step)


def make_rows(inputs: Inputs, x: np.ndarray, settings: Settings) -> MarketRows:
    """Labels, joined with bars and features."""
    timed = None if inputs.events is None else high_impact_usd(inputs.events)[0]
    labels = label_bars(inputs.bars, label_spec(settings), timed)
    return market_rows(inputs.bars, x, labels, cost_spec(settings, inputs.choice.symbol))


def describe_labels(rows: MarketRows) -> dict:
    """The label mix beside the driftless one, ambiguity, uniqueness and the effective number of labels."""
    labels = rows.labels
    known = labels.label >= 0
    win = rows.spec.driftless_win_rate
    return {
        "n": int(known.sum()),
        "shares": labels.share(),
        "driftless": {"SELL": win, "BUY": win, "HOLD": 1 - 2 * win},
        "ambiguous_share": float(labels.ambiguous[known].mean()),
        "mean_uniqueness": float(np.nanmean(labels.weight[known])),
        "effective_n": float(labels.effective_n),
        "unlabelled": int((~known).sum()),
    }


def constant_features(rows: MarketRows) -> tuple[str, ...]:
    """Features that hold one value in every complete row: nothing can be learned from them."""
    x = rows.x[np.isfinite(rows.x).all(axis=1)]
    return tuple(name for name, column in zip(FEATURE_NAMES, x.T, strict=True) if column.min() == column.max())


def constant_sentence(names: Sequence[str]) -> str:
    """What to make of them; empty when there are none."""
    if not names:
        return ""
    few = f"{', '.join(names[:6])}{' and others' if len(names) > 6 else ''}"
    one = len(names) == 1
    return (
        f"{len(names)} feature{'' if one else 's'} never change{'s' if one else ''} in these bars ({few}): nothing is learned from "
        f"{'it' if one else 'them'}; volume features need a volume column, news features a calendar (--news)"
    )


def symbol_sentence(said: str | None, symbol: str) -> str:
    """What to know when the bars do not say whose they are (`said` is UNKNOWN_SYMBOL); empty when they do, or when nobody asked them."""
    if said != UNKNOWN_SYMBOL:
        return ""
    remedy = f"`trademl data import --symbol {symbol}` records it"
    return f"symbol unknown: the bars do not say whose they are, and were taken for {symbol}; {remedy}"


def describe_features(rows: MarketRows) -> list[dict]:
    """Coverage and spread of each feature over the bars after the warm-up."""
    table = []
    for name, column in zip(FEATURE_NAMES, rows.x[rows.first :].T, strict=True):
        finite = column[np.isfinite(column)]
        low, median, high = np.quantile(finite, (0.01, 0.5, 0.99))
        table.append({"name": name, "finite": len(finite) / len(column), "low": low, "median": median, "high": high})
    return table
