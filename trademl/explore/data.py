"""The bars to explore: those that the settings name, else the embedded market, and a sentence that says which."""

import html
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from trademl.data.bars import read_bars
from trademl.data.news import high_impact_usd, read_news
from trademl.data.synthetic import synthetic_market
from trademl.pipeline.choice import SYNTHETIC, MarketChoice, MarketFlags, choose_market, store_folder
from trademl.settings import Settings


@dataclass(frozen=True, eq=False)
class Market:
    """Bars and calendar that an explorer works on."""

    choice: MarketChoice
    bars: pd.DataFrame  # canonical
    news_s: np.ndarray | None  # epoch seconds of scheduled high-impact USD releases; None: no calendar

    @property
    def sentence(self) -> str:
        """Which market it is, HTML."""
        span = f"{len(self.bars):,} bars, {self.bars.index[0]:%Y-%m-%d} to {self.bars.index[-1]:%Y-%m-%d}"
        if not self.choice.is_synthetic:
            return f"<b>{self.choice.symbol}</b>, {html.escape(self.choice.source)}: {span}"
        return (
            f"<b>The embedded market</b> (made, not real: there is no bars file yet): {span}. "
            "<code>trademl data import FILE</code> brings your own"
        )


def open_market(settings: Settings, flags: MarketFlags = MarketFlags()) -> Market:  # noqa: B008 (frozen)
    """The market that `trademl retrain` would train on, without its calendar where there is none: labels can be seen without one.

    BadDataError as the readers raise it, UsageError for flags that do not go together.
    """
    if flags.symbol == SYNTHETIC:
        choice = MarketChoice(SYNTHETIC, None, None, False, store_folder(settings, SYNTHETIC), settings.market.timeframe)
    else:
        is_without = flags.news is None and not Path(settings.market.news).exists() and Path(flags.bars or settings.market.bars).exists()
        choice = choose_market(settings, replace(flags, no_news=True) if is_without else flags)
    if choice.is_synthetic:
        made = synthetic_market(settings.synthetic.bars, settings.synthetic.edge, settings.synthetic.seed)
        return Market(choice, made.bars, high_impact_usd(made.events)[0])
    report = read_bars(choice.bars, tz=flags.tz, stamp=flags.stamp, symbol=flags.symbol).require_clean()
    news = None if choice.no_news else high_impact_usd(read_news(choice.news, tz=flags.news_tz).require_clean())[0]
    return Market(choice, report.bars, news)
