"""What the label explorer draws: labels beside a market without drift, by hour and the like, their overlap, any one on its candles.

Imports no widget: the lab gets a kernel ready with it, and a kernel that has widgets when its notebook opens is asked for them in vain.
"""

from functools import lru_cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trademl import report
from trademl.clock import epoch_seconds
from trademl.evidence.anatomy import EXITS
from trademl.explore.data import Market, open_market
from trademl.market.definitions import volume_surge_of
from trademl.market.labeling import Labels, label_bars, near_news
from trademl.market.specs import CLASSES, Entry, ExitReason, Label, LabelSpec
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.report.figures import CLASS_COLOURS, GREY, INK, QUIET, finish
from trademl.settings import load_settings

TOSSES = (1, 2)  # seeds of the driftless paths; each is walked with its mirror image
SESSIONS = {"Asia 0-7": (0, 7), "Europe 7-13": (7, 13), "America 13-21": (13, 21), "late 21-24": (21, 24)}  # hours UTC
GROUPS = {
    "hour": "hour of the close, UTC",
    "weekday": "weekday, UTC",
    "session": "session, UTC hours",
    "volatility": "fifth of the bars by ATR / price",
    "news": "distance to high-impact USD news",
    "month": "month",
}
KINDS = ("any", *CLASSES, "tie")
CHANCE = 1.96  # standard errors of a 95 % interval


def coin_toss(bars: pd.DataFrame, seed: int, *, mirrored: bool = False) -> pd.DataFrame:
    """The same bars with the direction of each decided by a coin: every range and volume stays in its place, the drift is gone."""
    log = np.log(bars[["open", "high", "low", "close"]].to_numpy(np.float64))
    before = np.r_[log[0, 0], log[:-1, 3]]
    sign = np.where(np.random.default_rng(seed).random(len(bars)) < 0.5, -1.0, 1.0) * (-1 if mirrored else 1)
    moved = (log - before[:, None]) * sign[:, None]
    path = moved + (log[0, 0] + np.r_[0.0, np.cumsum(moved[:, 3])[:-1]])[:, None]
    open_, one, other, close = np.exp(path).T
    return bars.assign(open=open_, high=np.maximum(one, other), low=np.minimum(one, other), close=close)


def groups_of(market: Market, atr: np.ndarray) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Name of a grouping -> (group of each bar, int (n,); -1 in none, names of the groups)."""
    close = market.bars.index + pd.Timedelta(minutes=15)
    hour = close.hour.to_numpy()
    session = np.select([(hour >= a) & (hour < b) for a, b in SESSIONS.values()], range(len(SESSIONS)))
    ratio = atr / market.bars["close"].to_numpy()
    edges = np.nanquantile(ratio, (0.2, 0.4, 0.6, 0.8))
    quiet = np.where(np.isfinite(ratio), np.searchsorted(edges, ratio), -1)
    month, months = pd.factorize(close.strftime("%Y-%m"))
    news = np.zeros(0) if market.news_s is None else market.news_s
    near = near_news(epoch_seconds(close), news).astype(int)
    return {
        "hour": (hour, [str(h) for h in range(24)]),
        "weekday": (close.day_of_week.to_numpy(), ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]),
        "session": (session, list(SESSIONS)),
        "volatility": (quiet, ["calmest", "calm", "middle", "lively", "liveliest"]),
        "news": (near, ["away from news", "within 30 minutes"]),
        "month": (month, list(months)),
    }


class LabelRoom:
    """Everything that the label explorer draws, from (contract, whether the news rule is on)."""

    def __init__(self, market: Market):
        self.market = market
        self._surge = volume_surge_of(market.bars["volume"].to_numpy(np.float64))
        self._tossed = [coin_toss(market.bars, seed, mirrored=mirrored) for seed in TOSSES for mirrored in (False, True)]
        self.labels = lru_cache(maxsize=4)(self._labels)
        self.driftless = lru_cache(maxsize=4)(self._driftless)
        self._groups = lru_cache(maxsize=1)(lambda: groups_of(market, label_bars(market.bars, LabelSpec()).atr))

    def _labels(self, spec: LabelSpec, news: bool) -> Labels:
        return self._of(self.market.bars, spec, news)

    def _of(self, bars: pd.DataFrame, spec: LabelSpec, news: bool) -> Labels:
        times = self.market.news_s if news else None
        return label_bars(bars, spec, times, volume_surge=self._surge)

    def _driftless(self, spec: LabelSpec, news: bool) -> np.ndarray:
        """Labels of the paths without drift, int8 (paths, n)."""
        return np.stack([self._of(bars, spec, news).label for bars in self._tossed])

    # ---------------------------------------------------------------- figures

    def mix(self, spec: LabelSpec, news: bool) -> go.Figure:
        """Share of each class beside the driftless one."""
        labels, free = self.labels(spec, news), self.driftless(spec, news)
        even = {name: float((free[free >= 0] == k).mean()) if (free >= 0).any() else float("nan") for k, name in enumerate(CLASSES)}
        n = int((labels.label >= 0).sum())
        figure = report.label_distribution(labels.share(), even, n, effective_n=labels.effective_n)
        top = 100 * max(*labels.share().values(), *even.values(), 0.4)
        return figure.update_yaxes(range=[0, 110 if top > 70 else 75 if top > 45 else 50]).update_layout(height=430)

    def shares_by(self, spec: LabelSpec, news: bool, by: str) -> pd.DataFrame:
        """Share of each class in each group, its driftless share, and half of the 95 % interval by the group's independent labels."""
        labels, free = self.labels(spec, news), self.driftless(spec, news)
        code, names = self._groups()[by]
        known = (labels.label >= 0) & (code >= 0)
        count = np.bincount(code[known], minlength=len(names))
        worth = np.bincount(code[known], labels.weight[known], minlength=len(names))
        tossed = [(code[hit], row[hit]) for row in free for hit in [(row >= 0) & (code >= 0)]]
        of_free = sum(np.bincount(group, minlength=len(names)) for group, _ in tossed)
        rows = []
        for k, name in enumerate(CLASSES):
            won = np.bincount(code[known], labels.label[known] == k, minlength=len(names))
            even = sum(np.bincount(group, value == k, minlength=len(names)) for group, value in tossed)
            with np.errstate(divide="ignore", invalid="ignore"):
                share, base = won / count, even / of_free
                half = CHANCE * np.sqrt(share * (1 - share) / worth)
            rows += [
                {"class": name, "group": g, "share": s, "driftless": b, "half": h, "n": c}
                for g, s, b, h, c in zip(names, share, base, half, count)
            ]
        return pd.DataFrame(rows)

    def by(self, spec: LabelSpec, news: bool, by: str) -> go.Figure:
        """Shares by a grouping, a panel a class, each beside what the same bars without drift give."""
        table = self.shares_by(spec, news, by)
        figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05)
        for row, name in enumerate(("BUY", "SELL", "HOLD"), 1):
            part = table[table["class"] == name]
            where = {"row": row, "col": 1}
            bar = {"marker_color": CLASS_COLOURS[name], "name": "these bars", "showlegend": False, "customdata": part["n"]}
            spread = {"type": "data", "array": 100 * part["half"], "color": QUIET, "thickness": 1.2, "width": 0}
            hover = f"%{{x}}: {name} %{{y:.1f}} %, %{{customdata:,}} bars<extra></extra>"
            figure.add_bar(x=part["group"], y=100 * part["share"], error_y=spread, hovertemplate=hover, opacity=0.75, **bar, **where)
            mark = {"symbol": "line-ew", "size": 15 if len(part) < 13 else 9, "line": {"color": INK, "width": 2.4}}
            even = {"mode": "markers", "marker": mark, "showlegend": False}
            figure.add_scatter(
                x=part["group"], y=100 * part["driftless"], hovertemplate="driftless %{y:.1f} %<extra></extra>", **even, **where
            )
            figure.update_yaxes(title_text=f"{name}, %", rangemode="tozero", nticks=4, **where)
        figure.update_xaxes(type="category", tickangle=0, tickfont={"size": 10})
        figure.update_xaxes(title_text=f"{GROUPS[by]} (dashes: driftless)", row=3, col=1)
        off = (np.abs(table["share"] - table["driftless"]) > table["half"]).sum()
        text = f"{off} of {len(table)} shares beyond chance; chance alone makes about {0.05 * len(table):.0f}"
        return finish(figure, f"By {by}", text, height=430)

    def overlap(self, spec: LabelSpec, news: bool) -> go.Figure:
        """How many labels span a bar, and how long they live."""
        labels = self.labels(spec, news)
        known = labels.label >= 0
        life = (labels.end_bar - np.arange(len(labels.label)))[known]
        figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
        for column, (values, axis) in enumerate(
            ((labels.concurrency[known], "labels that span a bar"), (life, "bars until a label is known")), 1
        ):
            count = np.bincount(values) if len(values) else np.zeros(1)
            share = 100 * count / max(count.sum(), 1)
            hover = "%{x}: %{y:.2f} %<extra></extra>"
            figure.add_bar(x=np.arange(len(count)), y=share, marker_color=GREY, showlegend=False, hovertemplate=hover, row=1, col=column)
            figure.update_xaxes(title_text=axis, row=1, col=column)
        figure.update_yaxes(title_text="share of bars, %", row=1, col=1)
        mean = labels.effective_n / max(known.sum(), 1)
        text = f"{known.sum():,} labels share their bars: worth {labels.effective_n:,.0f} independent ones ({100 * mean:.1f} %)"
        return finish(figure, "How much labels overlap", text, height=380, bargap=0.05)

    # ---------------------------------------------------------------- one label

    def of_kind(self, spec: LabelSpec, news: bool, kind: str) -> np.ndarray:
        """Bars whose label is of a class, or decided by the tie rule, or any; int64, ascending."""
        labels = self.labels(spec, news)
        if kind == "tie":
            return np.flatnonzero(labels.ambiguous & (labels.label >= 0))
        return np.flatnonzero(labels.label >= 0 if kind == "any" else labels.label == CLASSES.index(kind))

    def on_candles(self, spec: LabelSpec, news: bool, at: int) -> go.Figure:
        """The label decided at bar `at` on its candles: the trade of its class; for HOLD the one that would have been long."""
        labels, bars = self.labels(spec, news), self.market.bars
        is_short = labels.label[at] == Label.SELL
        side = labels.short if is_short else labels.long
        entry = at + (spec.entry is Entry.NEXT_OPEN)
        price = float(bars["open"].iloc[entry]) if entry > at else float(bars["close"].iloc[at])
        end, sign = int(side.exit_bar[at]), -1 if is_short else 1
        start, stop = max(at - 12, 0), max(end, int(labels.end_bar[at])) + 9
        trade = report.PathTrade(
            entry=entry - start,
            exit=end - start,
            entry_price=price,
            exit_price=float(side.exit_price[at]),
            target=price + sign * spec.tp_atr * labels.atr[at],
            stop=price - sign * spec.sl_atr * labels.atr[at],
            horizon=entry - start + spec.horizon_bars - 1,
            side="short" if is_short else "long",
            reason=EXITS[ExitReason(side.reason[at])],
        )
        name = CLASSES[labels.label[at]]
        both = f"long: {EXITS[ExitReason(labels.long.reason[at])]}, short: {EXITS[ExitReason(labels.short.reason[at])]}"
        subtitle = f"decided {bars.index[at]:%a %Y-%m-%d %H:%M}; {both}; weight {labels.weight[at]:.3f}"
        figure = report.label_on_path(bars.iloc[start:stop], trade)
        return figure.update_layout(title={"text": f"{name}, a label on its candles", "subtitle": {"text": subtitle}}, height=430)

    def sentence(self, spec: LabelSpec, news: bool) -> str:
        """What the mix says, and whether it differs from a market without drift by more than chance."""
        labels, free = self.labels(spec, news), self.driftless(spec, news)
        known = labels.label >= 0
        if not known.any():
            return "<b>No bar has a label</b>: the bars are fewer than the horizon and the 14 bars of the ATR"
        share, effective = labels.share(), max(labels.effective_n, 1)
        told, beyond = [], []
        for k, name in enumerate(CLASSES):
            even, half = (free[free >= 0] == k).mean(), CHANCE * np.sqrt(share[name] * (1 - share[name]) / effective)
            told.append(f"{name} {100 * share[name]:.1f} % (driftless {100 * even:.1f})")
            beyond += [name] if abs(share[name] - even) > half else []
        differs = f"{' and '.join(beyond)} differ{'' if len(beyond) > 1 else 's'} from" if beyond else "No class differs from"
        return (
            f"<b>{differs} a market without drift by more than chance.</b> {', '.join(told)}. {known.sum():,} labels are worth "
            f"<b>{labels.effective_n:,.0f}</b> independent ones; the tie rule decided {100 * labels.ambiguous[known].mean():.1f} %; "
            f"with no time limit a driftless market wins {100 * spec.driftless_win_rate:.1f} %"
        )


def warm_up() -> None:
    """Load, or in a new installation compile, what the first figure needs, on a small market and without a widget."""
    room, spec = LabelRoom(open_market(load_settings({"synthetic.bars": 500}), MarketFlags(symbol=SYNTHETIC))), LabelSpec()
    for figure in (room.mix(spec, True), room.by(spec, True, "hour"), room.on_candles(spec, True, 100), room.overlap(spec, True)):
        figure.to_plotly_json()
