"""A stored revision's decisions under other costs, margins, profiles and tie rules, beside random entries; each trade with its reason.

No look is taken, so no figure may be new: on the judged days the entries' rule stays the revision's own, and what costs or the tie rule
change is marked what-if. The margin moves on select only, the days that exist to choose it.
"""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trademl import report
from trademl.bot.policy import holds_head, is_published
from trademl.bot.records import decision_rule_of, exit_rule_of
from trademl.errors import UsageError
from trademl.evidence.anatomy import EXITS
from trademl.evidence.figures import drawdown_r, evenly
from trademl.evidence.nulls import (
    MarketWindow,
    allowed_shifts,
    bars_of_run,
    cut_window,
    drawn_bars,
    run_of,
    traded,
    with_decisions,
)
from trademl.explore.panel import Panel, Shown, picker, slider, stepper, whole
from trademl.explore.revision import RevisionExplorer
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.decision import cost_in_r, expected_r
from trademl.market.rotation import Placed, entries_made, rotate
from trademl.market.specs import CLASSES, CostSpec, Entry, ExitReason, Tie
from trademl.pipeline.market.parameters import account_spec
from trademl.pipeline.market.replay import LOOKBACK, Conditions, out_of_sample, with_head
from trademl.pipeline.stored import Stored
from trademl.report.figures import BLUE, GREY, INK, LEGEND_PX, RED, SAND, TEAL, TITLE_PX, finish
from trademl.risk.profiles import PROFILES
from trademl.settings import Settings
from trademl.validate.splits import Span

ROTATIONS = 200  # of the band, at most: drawn while a slider moves; the verdict rests on every allowed one
REASON_COLOURS = {ExitReason.TP: TEAL, ExitReason.SL: RED, ExitReason.TIMEOUT: SAND, ExitReason.MODEL: BLUE}
JUDGED, SELECT = "judged", "select"
VARIED = ("spread", "commission", "slippage")


@dataclass(frozen=True)
class Asked:
    """What the controls say."""

    window: str  # JUDGED or SELECT
    costs: CostSpec
    margin_r: float  # on select; the judged days keep the revision's own
    profile: int  # of the account
    tie: Tie


@dataclass(frozen=True, eq=False)
class Played:
    """Trades at fixed risk and what random entries made."""

    window: MarketWindow
    placed: Placed
    decisions: Decisions  # one per bar of the table
    at: np.ndarray  # bars that are drawn
    low: np.ndarray  # R of random entries there, 5 %
    median: np.ndarray
    high: np.ndarray
    as_good: float  # share of the random entries that did as well or better; NaN without any
    rotations: int  # placements of the entries that the band and the share come from

    @property
    def trades(self) -> pd.DataFrame:
        """In order of time; bar numbers count from the window's cut."""
        return self.placed.trades


class BacktestRoom:
    """Everything that the backtest explorer draws, from what it is asked."""

    def __init__(self, stored: Stored, settings: Settings):
        self.stored, self.settings = stored, settings
        self.oos = out_of_sample(stored)
        self.spec = stored.label_spec
        self.rule = decision_rule_of(stored.revision, stored.judged_profile, is_shipped=False)
        self.own = Asked(JUDGED, stored.costs, self.rule.margin_r, settings.account.profile, self.spec.tie)
        self.played = lru_cache(maxsize=4)(self._played)

    def span(self, window: str) -> Span:
        """The days of a window, decision times."""
        return self.stored.look.days if window == JUDGED else self.stored.windows.span("select")

    def what_if(self, asked: Asked) -> str:
        """What differs from what was judged, in words; empty: nothing."""
        changed = [
            f"{name} {getattr(asked.costs, name):g}" for name in VARIED if getattr(asked.costs, name) != getattr(self.own.costs, name)
        ]
        changed += [f"margin {asked.margin_r:.2f} R"] if asked.margin_r != self.own.margin_r and asked.window == SELECT else []
        return ", ".join(changed + ([f"tie rule {asked.tie.value}"] if asked.tie != self.own.tie else []))

    def decisions(self, asked: Asked) -> Decisions:
        """Sides and exits: those that were judged, or the rule's under these costs (and, on select, this margin)."""
        is_own = asked.costs == self.own.costs
        if asked.window == JUDGED and is_own:
            return self.oos.entries
        rule = self.rule if asked.window == JUDGED else replace(self.rule, margin_r=asked.margin_r)
        window = "final" if asked.window == JUDGED else "select"
        return self.oos.decisions(rule, asked.costs, window, exits_on=exit_rule_of(self.stored.revision) is not None)

    def _played(self, asked: Asked) -> Played:
        span, decisions = self.span(asked.window), self.decisions(asked)
        window = cut_window(self.oos.bars, decisions, replace(self.spec, tie=asked.tie), span.start_s, span.end_s)
        entries = entries_made(window.prepared, window.decisions, asked.costs)
        placed = traded(window, entries, asked.costs)
        run = run_of(window, placed)
        at = drawn_bars(window, run, points=400)
        shifts = allowed_shifts(window.width, window.prepared.rules.horizon, LOOKBACK)
        if not len(entries) or not len(shifts):
            return Played(window, placed, decisions, at, *(np.empty(0),) * 3, float("nan"), 0)
        some = shifts[evenly(len(shifts), ROTATIONS)]
        turned = rotate(window.prepared, entries, some, asked.costs, start=window.first, stop=window.last, points=at)
        as_good = float((turned.expectancy >= placed.trades["net_r"].mean()).mean())
        return Played(window, placed, decisions, at, *np.quantile(turned.worth_r, (0.05, 0.5, 0.95), axis=0), as_good, len(some))

    # ---------------------------------------------------------------- figures

    def worth(self, asked: Asked) -> go.Figure:
        """R earned and its drawdown, before the band of random entries."""
        played = self.played(asked)
        run, at = run_of(played.window, played.placed), played.at
        band = report.NullBand(played.low, played.high, played.median) if len(played.low) else None
        closes = played.window.prepared.time_s[at] + self.spec.bar_seconds
        inside = at - played.window.first
        figure = report.worth_and_drawdown(
            closes, run.worth_r[inside], drawdown_r(run.worth_r)[inside], band=band, trades=len(played.trades)
        )
        return figure.update_layout(height=490, margin={"t": TITLE_PX + 2 * LEGEND_PX})

    def account(self, asked: Asked) -> go.Figure:
        """What an account under a profile's limits made of the decisions, sized by the profile's head where it is used."""
        played, window = self.played(asked), self.played(asked).window
        account = account_spec(self.settings, self.stored.symbol, asked.profile)
        conditions = Conditions(asked.profile, asked.costs, account)
        sized = with_head(self.stored, self.oos.bars, played.decisions, conditions, self.settings)
        result = run_backtest(window.prepared, with_decisions(window, sized).decisions, window.prepared.spec, asked.costs, account)
        inside = bars_of_run(window, result.trades)
        closes = window.prepared.time_s[inside] + self.spec.bar_seconds
        figure = report.equity_and_drawdown(closes, result.equity[inside], trades=result.counters.trades)
        halted = result.counters.halted_at
        if halted >= 0:
            when = np.datetime64(int(window.prepared.time_s[halted]), "s")
            figure.add_vline(x=str(when), line={"color": RED, "width": 1.5, "dash": "dash"})
        told = f"halted at its {account.max_total_drawdown_pct:g} % limit" if halted >= 0 else "never halted"
        head = self._head_words(asked.profile, is_used=sized is not played.decisions)
        title = {"text": f"The account of profile {asked.profile}", "subtitle": {"text": f"{account.risk_pct:g} % a trade, {head}; {told}"}}
        return figure.update_layout(title=title, height=490, margin={"t": TITLE_PX + 2 * LEGEND_PX})

    def _head_words(self, profile: int, *, is_used: bool) -> str:
        revision = self.stored.revision
        if not holds_head(revision, profile):
            return "no risk head"
        if is_used:
            return "sized by its head" if is_published(revision, profile) else "sized by its unpublished head"
        return "its head switched off" if is_published(revision, profile) else "its head unpublished"

    def results(self, asked: Asked, number: int) -> go.Figure:
        """Each trade's net R by the reason that ended it; the picked one is ringed."""
        trades = self.played(asked).trades
        figure = go.Figure()
        reasons = trades["reason"].to_numpy()
        when = trades["entry_time"].to_numpy("M8[s]")
        for reason in map(ExitReason, np.unique(reasons)):
            hit, words = reasons == reason, EXITS[reason]
            mark = {"size": 7, "color": REASON_COLOURS.get(reason, GREY), "opacity": 0.8}
            hover = f"%{{x|%Y-%m-%d %H:%M}}: %{{y:+.2f}} R<extra>{words}</extra>"
            figure.add_scatter(
                x=when[hit], y=trades["net_r"][hit], mode="markers", marker=mark, name=f"{words} {hit.sum():,}", hovertemplate=hover
            )
        if len(trades):
            ring = {"size": 15, "color": "rgba(0,0,0,0)", "line": {"color": INK, "width": 2}}
            one = trades.iloc[number]
            figure.add_scatter(
                x=when[number : number + 1], y=[one["net_r"]], mode="markers", marker=ring, showlegend=False, hoverinfo="skip"
            )
        figure.add_hline(y=0, line={"color": GREY, "width": 1})
        figure.update_yaxes(title_text="net R")
        return finish(figure, "Every trade", "colour: what ended it; ring: the one on the candles", height=430, hovermode="closest")

    def on_candles(self, asked: Asked, number: int) -> go.Figure:
        """One trade on its candles between its barriers."""
        played = self.played(asked)
        if not len(played.trades):
            raise UsageError("no trade to draw")
        trade, low = played.trades.iloc[number], played.window.offset
        decided, entry, end = (int(trade[name]) for name in ("decision_bar", "entry_bar", "exit_bar"))
        start, stop = max(decided - 14, 0), min(end + 10, len(played.window.prepared))
        side, risk = int(trade["side"]), float(trade["risk_distance"])
        price = float(trade["entry_price"])
        path = report.PathTrade(
            entry=entry - start,
            exit=end - start,
            entry_price=price,
            exit_price=float(trade["exit_price"]),
            target=price + side * risk * self.spec.tp_atr / self.spec.sl_atr,
            stop=price - side * risk,
            horizon=stop - start - 1,
            side="long" if side > 0 else "short",
            reason=EXITS[ExitReason(trade["reason"])],
        )
        figure = report.label_on_path(self.oos.bars.iloc[low + start : low + stop], path)
        told = f"{path.side}, {trade['net_r']:+.2f} R net, ended by {path.reason}"
        count = f"trade {number + 1:,} of {len(played.trades):,}"
        return figure.update_layout(title={"text": count, "subtitle": {"text": told}}, height=430)

    # ---------------------------------------------------------------- words

    def reason(self, asked: Asked, number: int) -> str:
        """Why the trade was made: what the model gave, what each side was expected to earn, and what had to be exceeded."""
        played = self.played(asked)
        trade = played.trades.iloc[number]
        bar = int(trade["decision_bar"]) + played.window.offset
        probability = self.oos.probabilities[bar]
        cost = float(cost_in_r(asked.costs, self.spec, self.oos.frame["atr"].to_numpy()[bar : bar + 1])[0])
        given = ", ".join(f"{name} {100 * p:.0f} %" for name, p in zip(CLASSES, probability))
        side = "long" if trade["side"] > 0 else "short"
        moment = f"{self.oos.bars.index[bar] + pd.Timedelta(seconds=self.spec.bar_seconds):%a %Y-%m-%d %H:%M}"
        if self.rule.rule == "votes":
            why = f"the models' votes agreed at {100 * self.rule.confidence:.0f} % confidence"
        else:
            long, short = expected_r(probability[None], self.rule.worth, np.array([cost]))[0]
            margin = asked.margin_r if asked.window == SELECT else self.rule.margin_r
            why = f"expected {long:+.2f} R long and {short:+.2f} R short, net of {cost:.2f} R cost; more than {margin:.2f} R was asked"
        ended = EXITS[ExitReason(trade["reason"])]
        entry = "the next open" if self.spec.entry is Entry.NEXT_OPEN else "the close"
        held = int(trade["exit_bar"]) - int(trade["entry_bar"]) + 1
        return (
            f"<b>{side} at {moment}</b>, filled at {entry}, because the models gave {given}: {why}. "
            f"Ended by <b>{ended}</b> in bar {held}: <b>{trade['net_r']:+.2f} R net</b>, {trade['gross_r']:+.2f} before cost"
        )

    def sentence(self, asked: Asked) -> Shown:
        """Mean net R beside random entries, and what may be claimed of it."""
        played, what_if = self.played(asked), self.what_if(asked)
        net = played.trades["net_r"].to_numpy()
        if not len(net):
            return Shown("<b>No trade is made</b>: nothing is expected to earn more than the margin after these costs", kind="warn")
        beside = (
            f"{100 * played.as_good:.0f} % of {played.rotations} random placements of the same entries did as well or better"
            if np.isfinite(played.as_good)
            else "too few bars to place the entries at random"
        )
        span = self.span(asked.window)
        days = f"{len(net):,} trades of {_day(span.start_s)} to {_day(span.end_s)}"
        figures = f"<b>{net.mean():+.3f} R a trade</b>, net, over {days} ({100 * (net > 0).mean():.0f} % won); {beside}"
        if asked.window == SELECT:
            varied = f" Varied: {what_if}." if what_if else ""
            return Shown(f"<b>SELECT</b>: on these days the margin was chosen, so they prove nothing. {figures}.{varied}", kind="warn")
        if what_if:
            return Shown(f"<b>WHAT IF</b> ({what_if}): {figures}. They pass no gate: no evidence.", kind="warn")
        return Shown(f"{figures}. <b>The verdict stands:</b> {self.stored.gate.sentence}")


class BacktestPanel(Panel):
    """Costs, margin, profile and tie rule of one revision."""

    def __init__(self, stored: Stored, settings: Settings):
        self.room = room = BacktestRoom(stored, settings)
        own = room.own
        scale = max(own.costs.spread, own.costs.point)
        controls = {
            "window": picker("days", [("judged", JUDGED), ("select", SELECT)], JUDGED),
            "profile": picker("account of", [(f"profile {p.number}", p.number) for p in PROFILES], own.profile),
            "tie": picker("both in one bar", [("stop first", Tie.SL_FIRST), ("target first", Tie.TP_FIRST)], own.tie),
            "spread": slider("spread", own.costs.spread, 0, 4 * scale, scale / 20, form=".5g"),
            "commission": slider("commission", own.costs.commission, 0, 20, 0.25),
            "slippage": slider("slippage", own.costs.slippage, 0, scale, scale / 40, form=".5g"),
            "margin_r": slider("margin, R", own.margin_r, 0, 0.6, 0.01),
            "number": whole("trade", 0, 0, 1),
        }
        groups = {
            "WHICH DAYS, WHOSE ACCOUNT": ["window", "profile", "tie"],
            "COSTS": ["spread", "commission", "slippage"],
            "RULE, AND WHICH TRADE": ["margin_r", "number"],
        }
        self.why = widgets.HTML()
        super().__init__(controls, [["worth", "account"], ["one", "results"]], self._shown, groups=groups)
        self.children = [*self.children, self.why, stepper(self, "number", (("earlier trade", -1), ("next trade", 1)))]

    def _shown(self, values: dict) -> Shown:
        room, is_select = self.room, values["window"] == SELECT
        self.controls["margin_r"].disabled = not is_select
        costs = replace(
            room.own.costs, **{name: _near(values[name], getattr(room.own.costs, name)) for name in ("spread", "commission", "slippage")}
        )
        margin = _near(values["margin_r"], room.own.margin_r) if is_select else room.own.margin_r
        asked = Asked(values["window"], costs, margin, values["profile"], values["tie"])
        n = len(room.played(asked).trades)
        self.controls["number"].max = max(n - 1, 0)
        number = min(values["number"], max(n - 1, 0))
        figures = {"worth": partial(room.worth, asked), "account": partial(room.account, asked)}
        figures |= {"one": partial(room.on_candles, asked, number)} if n else {}
        figures |= {"results": partial(room.results, asked, number)}
        self.why.value = f'<div style="padding:4px 12px;line-height:1.45;font-size:14px">{room.reason(asked, number)}</div>' if n else ""
        return replace(room.sentence(asked), figures=figures)


def _near(value: float, own: float) -> float:
    """The revision's own value where a slider's step can only come near it."""
    return own if abs(value - own) < 1e-6 * max(1.0, abs(own)) else value


def _day(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s").astype("M8[D]"))


def explore(revision: str = "", settings: Settings | None = None) -> RevisionExplorer:
    """The explorer of a stored revision, by default the newest; without one, the embedded market is offered."""
    return RevisionExplorer(BacktestPanel, revision, settings)
