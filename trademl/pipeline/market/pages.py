"""The pictures and tables of a revision, from what the revision itself holds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from trademl import report
from trademl.evidence.anatomy import EXITS, trade_list
from trademl.evidence.figures import Figure
from trademl.evidence.nulls import Band
from trademl.evidence.page import Evidence
from trademl.learn.ensemble import MODELS
from trademl.market.labeling import Labels, label_bars
from trademl.market.out_of_sample import OutOfSample
from trademl.market.specs import CLASSES, Entry, ExitReason
from trademl.pipeline.market.replay import out_of_sample
from trademl.pipeline.market.risk import METADATA_FILE, kept_labels
from trademl.pipeline.stored import Stored
from trademl.validate.splits import Window

TRADE_ROWS = {  # at fixed risk
    "trades": "trades",
    "expectancy_net_r": "expectancy, R net of cost",
    "win_rate": "win rate",
    "profit_factor_r": "profit factor, in R",
    "total_r": "R earned in all",
    "max_drawdown_r": "deepest drawdown, R",
    "sharpe": "Sharpe, annualised from daily results",
}
ACCOUNT_ROWS = {
    "trades": "trades that the account made",
    "net_pnl": "net result, account currency",
    "return_pct": "return, %",
    "profit_factor": "profit factor, in money",
    "max_drawdown_equity_pct": "deepest drawdown of equity, %",
}
FIRST_FIGURES = {  # on the first screen
    "expectancy_net_r": ("expectancy", "{} R"),
    "trades": ("trades", "{}"),
    "win_rate": ("win rate", "{} %"),
    "max_drawdown_r": ("deepest drawdown", "{} R"),
    "longest_under_water": ("longest under water", "{} days"),
    "cost_share": ("cost, of what trades gained", "{} %"),
}
AGREED = 0.75  # share of states that make one multiplier a profile's answer
UNTESTED = "These groups describe; nothing in them was tested. Of 24 hours one stands out by chance."
NO_TRADE = "No trade was made in the window: there is nothing to draw."
FEW_DAYS = 90  # an annualised ratio of fewer daily returns is a number about luck


def _shown(value) -> str:
    if not isinstance(value, Figure):
        return f"{value:,}"
    if value.value is None:
        return "none"
    percent = " %" if value.unit.startswith("share") else ""
    interval = "" if value.low is None else f" [{_of(value, value.low)}, {_of(value, value.high)}{percent}]"
    return f"{_of(value, value.value)}{percent}{interval}"


def _of(figure: Figure, number: float) -> str:
    """A number of a figure's kind: shares in percent, R a trade as the verdict says it."""
    if figure.unit == "R a trade":
        return f"{number:+.3f}"
    return _short(100 * number if figure.unit.startswith("share") else number)


def _span(figure: Figure, low: float, high: float) -> str:
    """A range of a figure's kind."""
    return f"{_of(figure, low)} to {_of(figure, high)}{' %' if figure.unit == 'share' else ''}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


@dataclass(frozen=True)
class Pages:
    """One method per picture or table; each returns something that a notebook displays."""

    stored: Stored | None  # None: a recipe of which nothing is stored; then only what the evidence holds
    evidence: Evidence

    @property
    def metrics(self) -> dict:
        """The revision's metrics.json."""
        return self.stored.metrics

    @cached_property
    def oos(self) -> OutOfSample:
        """The revision's out-of-sample table."""
        return out_of_sample(self.stored)

    @cached_property
    def _labels(self) -> Labels:
        return label_bars(self.oos.bars, self.oos.spec)

    def labels(self):
        """The label mix beside the driftless one."""
        facts = self.metrics["labels"]
        return report.label_distribution(facts["shares"], facts["driftless"], facts["n"], effective_n=facts["effective_n"])

    def label_on_path(self):
        """A BUY of the final window on its price path: the first whose trade lived for a while."""
        labels, bars, spec = self._labels, self.oos.bars, self.oos.spec
        final = self.oos.labelled("final")
        life = labels.long.exit_bar[final] - final
        wins = (labels.long.reason[final] == ExitReason.TP) & (life >= 5) & (life <= 24)
        at = int(final[wins][0]) if wins.any() else int(final[0])
        start, entry = max(at - 8, 0), at + (spec.entry is Entry.NEXT_OPEN)
        end = int(labels.long.exit_bar[at])
        stretch = bars.iloc[start : end + 9]
        price = bars["open"].iloc[entry] if spec.entry is Entry.NEXT_OPEN else bars["close"].iloc[at]
        trade = report.PathTrade(
            entry=entry - start,
            exit=end - start,
            entry_price=price,
            exit_price=labels.long.exit_price[at],
            target=price + spec.tp_atr * labels.atr[at],
            stop=price - spec.sl_atr * labels.atr[at],
            reason=EXITS[ExitReason(labels.long.reason[at])],
        )
        return report.label_on_path(stretch, trade)

    def windows(self):
        """Train, tune, select and final, with the purged gaps and the refits."""
        windows = self.stored.windows
        spans = {w.value: {"start": windows.span(w).start_s, "end": windows.span(w).end_s} for w in Window}
        gaps = [(windows.span(w).start_s - windows.embargo_s, windows.span(w).start_s) for w in list(Window)[1:]]
        return report.windows_timeline(spans, refits=list(self.stored.refits), gaps=gaps)

    def cards(self) -> report.Cards:
        """Six figures of the judged trades, each with its interval and the same figure of random entries."""
        return report.Cards([self._card(name) for name in FIRST_FIGURES])

    def _card(self, name: str) -> report.Card:
        title, form = FIRST_FIGURES[name]
        figure, luck = getattr(self.evidence.strategy, name), self.evidence.random_entries
        if name == "trades":
            rivals = f"{luck.trades:,}, as many" if luck.runs else "none"
            return report.Card(title, f"{figure:,}", [*self._pace(), f"random entries {rivals}"])
        if figure.value is None:
            return report.Card(title, "none", [figure.reason])
        span = f"{100 * figure.level:g} % interval {_span(figure, figure.low, figure.high)}" if figure.low is not None else "no interval"
        band = getattr(luck, name)
        rivals = "none" if band.low is None else _span(figure, band.low, band.high)
        return report.Card(title, form.format(_of(figure, figure.value)), [span, f"random entries {rivals}"])

    def _pace(self) -> list[str]:
        """Trades a week of the judged days, and how much of the time one was open."""
        start, end = (np.datetime64(self.evidence.window[edge][:19]) for edge in ("start_utc", "end_utc"))
        figures, weeks = self.evidence.strategy, (end - start) / np.timedelta64(7, "D")
        return [f"{figures.trades / weeks:.3g} a week, exposure {100 * figures.exposure.value:.0f} %"] if figures.trades else []

    def equity(self):
        """R earned in the final window and its drawdown, with the band of random entries (5 to 95 %)."""
        if not self.evidence.strategy.trades:
            return NO_TRADE
        curve = self.evidence.curve
        band = report.NullBand(curve["null_low"], curve["null_high"], curve["null_median"]) if curve["null_low"] else None
        return report.worth_and_drawdown(
            curve["time_utc"], curve["worth_r"], curve["drawdown_r"], band=band, trades=self.evidence.strategy.trades
        )

    def r_by_period(self):
        """R by week and month of the judged days."""
        return report.r_by_period(self.evidence.anatomy) if self.evidence.strategy.trades else NO_TRADE

    def r_histogram(self):
        """How many trades ended with how much R."""
        if not self.evidence.strategy.trades:
            return NO_TRADE
        return report.r_histogram(self.evidence.anatomy, self.evidence.strategy.expectancy_net_r.value)

    def groups_table(self) -> pd.DataFrame:
        """Long against short, and what ended the trades."""
        anatomy, rows = self.evidence.anatomy, {}
        for part in (*anatomy.by_side, *anatomy.by_exit):
            error = "" if part.error_r is None else f" ± {part.error_r:.3f}"
            rows[part.name if part in anatomy.by_side else f"ended by: {part.name}"] = {
                "trades": f"{part.trades:,}",
                "win rate": "none" if part.win_rate is None else f"{_short(100 * part.win_rate)} %",
                "R a trade": "none" if part.expectancy_net_r is None else f"{part.expectancy_net_r:+.3f}{error}",
                "R earned in all": f"{part.total_r:+,.1f}",
            }
        return pd.DataFrame(rows).T

    def r_by_clock(self):
        """Mean R by hour and weekday of entry."""
        return report.r_by_clock(self.evidence.anatomy) if self.evidence.strategy.trades else NO_TRADE

    def r_by_holding(self):
        """Mean R by bars held."""
        return report.r_by_holding(self.evidence.anatomy) if self.evidence.strategy.trades else NO_TRADE

    def streaks(self):
        """Trades won and lost in a row."""
        return report.streak_counts(self.evidence.anatomy) if self.evidence.strategy.trades else NO_TRADE

    def trade_list(self):
        """Every judged trade, with its file."""
        days = f"{self.evidence.window['start_utc'][:10]}_{self.evidence.window['end_utc'][:10]}"
        return report.Listing(trade_list(self.evidence.trades), f"trades_{days}.csv") if self.evidence.strategy.trades else NO_TRADE

    def account_equity(self):
        """Equity and drawdown of the profile's account."""
        account = self.evidence.profile_account
        if not account.figures.trades:
            return "The account made no trade: its equity never moved."
        curve = account.curve
        trades = account.figures.trades
        return report.equity_and_drawdown(curve["time_utc"], curve["equity"], drawdown_pct=curve["drawdown_pct"], trades=trades)

    def cost_curve(self):
        """Expectancy at several spreads."""
        if not self.evidence.strategy.trades:
            return NO_TRADE
        points = self.evidence.cost_curve
        worth = [point.expectancy_net_r for point in points]
        return report.cost_curve(
            [point.multiple for point in points],
            [np.nan if w.value is None else w.value for w in worth],
            low=[np.nan if w.low is None else w.low for w in worth],
            high=[np.nan if w.high is None else w.high for w in worth],
            spread=self.evidence.costs.spread,
            trades=self.evidence.strategy.trades,
        )

    def assumptions_table(self) -> pd.DataFrame:
        """What the figures rest on: the spread that they survive, both tie rules, shorts that leave their label."""
        ties = self.evidence.tie_bounds
        figures = {
            "break-even spread, price units": self.evidence.break_even_spread,
            "win rate, where a bar that touches both barriers counts as stop": ties.win_rate_sl_first,
            "win rate, where it counts as target": ties.win_rate_tp_first,
            "expectancy, R net of cost, counted as stop": ties.expectancy_net_r_sl_first,
            "expectancy, R net of cost, counted as target": ties.expectancy_net_r_tp_first,
            "share of trades whose last bar touched both": ties.ambiguous_share,
            "share of shorts that ended otherwise than their label": self.evidence.shorts_off_label_share,
        }
        rows = {meaning: {"value": _shown(figure), "n": f"{figure.n:,}", "note": figure.reason} for meaning, figure in figures.items()}
        return pd.DataFrame(rows).T

    def _meaning(self, name: str) -> str:
        """What a row of the table is; a Sharpe says from how many days, and whether that is enough."""
        days = self.evidence.strategy.sharpe.n
        if name != "sharpe" or not days:
            return TRADE_ROWS[name]
        return f"{TRADE_ROWS[name].replace('daily', f'{days:,} daily')}{' (too few to be believed)' if days < FEW_DAYS else ''}"

    def trade_rows(self) -> list[tuple]:
        """Header and rows for a terminal: the judged trades beside chance and both sides, then what the account made of them."""
        table, account = self.trades_table(), self.evidence.profile_account.figures
        rows = [("", *table.columns), *((meaning, *row) for meaning, row in zip(table.index, table.to_numpy(), strict=True))]
        return rows + [(meaning, _shown(getattr(account, name)), "", "", "") for name, meaning in ACCOUNT_ROWS.items()]

    def account_table(self) -> pd.DataFrame:
        """What the profile's account made of the decisions, in money."""
        account = self.evidence.profile_account.figures
        return pd.DataFrame({"this account": {meaning: _shown(getattr(account, name)) for name, meaning in ACCOUNT_ROWS.items()}})

    def trades_table(self) -> pd.DataFrame:
        """The figures at fixed risk beside every rotation of the same entries, and the same entries all long and all short."""
        luck = self.evidence.random_entries
        columns = {"these decisions": self.evidence.strategy}
        columns |= {name: self.evidence.baselines[key] for name, key in (("all long", "always_long"), ("all short", "always_short"))}
        rows = {}
        for name in TRADE_ROWS:
            row = {column: _shown(getattr(figures, name)) for column, figures in columns.items()}
            band = getattr(luck, name, None)
            known = isinstance(band, Band) and band.low is not None
            row["random entries, 5 to 95 %"] = _span(getattr(self.evidence.strategy, name), band.low, band.high) if known else ""
            rows[self._meaning(name)] = row
        rows[TRADE_ROWS["trades"]]["random entries, 5 to 95 %"] = f"{luck.trades:,}" if luck.runs else ""
        order = ["these decisions", "random entries, 5 to 95 %", *list(columns)[1:]]
        return pd.DataFrame(rows).T[order]

    def backtest(self) -> dict:
        """The page of `trademl backtest`: the trades under another account or cost."""
        account = f"## What the account made of it\n\n{self.evidence.profile_account.sentence}"
        parts = [
            ("", [self.cards(), self.trades_table(), self.equity()]),
            ("## The trades, by week and month", [self.r_by_period()]),
            (f"## How they ended, and when\n\n{UNTESTED}", [self.groups_table(), self.r_histogram(), self.r_by_clock()]),
            ("## Holding time and streaks", [self.r_by_holding(), self.streaks(), self.trade_list()]),
            (account, [self.account_table(), self.account_equity()]),
            ("## What the spread does", [self.cost_curve()]),
            (f"## What the figures rest on\n\nSpread: {self.evidence.costs.spread:g} price units.", [self.assumptions_table()]),
        ]
        return report.notebook_of(parts)

    def calibration(self):
        """Reliability on final of the probabilities that were calibrated on select."""
        table = pd.DataFrame(self.metrics["signal"]["final"]["reliability"]["bins"])
        bins = {}
        for k, name in enumerate(CLASSES):
            mine = table[table.class_index == k]
            bins[name] = {"predicted": mine.forecast, "observed": mine.observed, "count": mine.n}
        return report.calibration(bins, n=self.metrics["signal"]["final"]["n"])

    def confusion(self):
        """True class against the most probable one, on final."""
        return report.confusion(self.metrics["signal"]["final"]["confusion"], CLASSES)

    def log_loss_table(self) -> pd.DataFrame:
        """Log loss of the blend, of each model and of the class prior, on select and final."""
        rows = {}
        for window in ("select", "final"):
            s = self.metrics["signal"][window]
            gain = s["log_loss_minus_prior"]
            rows[window] = {
                "labels": f"{s['n']:,}",
                "effective": f"{s['effective_n']:,.0f}",
                "class prior": f"{s['prior_log_loss']:.4f}",
                "blend": f"{s['log_loss']:.4f}",
                **{name: f"{s['log_loss_by_model'][name]:.4f}" for name in MODELS},
                "blend - prior": "none" if gain["low"] is None else f"{gain['point']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]",
            }
        return pd.DataFrame(rows).T

    def leaks(self) -> pd.DataFrame | str:
        """The columns that know most of the moves after them, the strongest first; a sentence where none was looked at."""
        columns = self.stored.leaks.figures.get("columns")
        if not columns:
            return " ".join(self.stored.leaks.sentences)
        table = pd.DataFrame(columns).assign(alarm=lambda t: np.where(t["v"] > t["limit"], "alarm", ""))
        table["rows"] = table["rows"].map("{:,}".format)
        return table.set_index("column")[["target", "v", "limit", "rows", "alarm"]].rename(columns={"v": "V", "rows": "bars"}).round(3)

    def dependence(self) -> pd.DataFrame | str:
        """Mean R of the judged decisions before cost, as they were and with each source of inputs shuffled; a sentence without them."""
        found = self.stored.leaks.figures.get("dependence")
        if not found or found["edge_r"] is None:
            return "No decision was made in the window: there is nothing that could hang on an input."
        rows = {"as decided": found["edge_r"]} | {f"{name} shuffled": left for name, left in found["without"].items()}
        return pd.DataFrame({"mean R a decision, before cost": {name: f"{value:+.3f}" for name, value in rows.items()}})

    def warm_or_cold(self):
        """Log loss of both candidates on select (which decided) and final; a sentence where there was but one."""
        start = self.stored.start
        if not start.log_loss:
            return start.why
        rows = {window: {name: f"{value:.4f}" for name, value in both.items()} for window, both in start.log_loss.items()}
        table = pd.DataFrame(rows).T[["cold", "warm"]]
        table.loc["decided on select"] = ["shipped" if start.start == name else "" for name in table.columns]
        return table

    @cached_property
    def _risk(self) -> dict | None:
        return json.loads(self.stored.read(METADATA_FILE)) if self.stored.holds(METADATA_FILE) else None

    def risk_histogram(self):
        """Which multiplier each profile's replay chose, under both objectives."""
        if self._risk is None:
            return "This revision was made without risk heads: every trade is sized at the profile's base risk."
        counts = kept_labels(self._risk)
        if not counts:
            return "Too few trades to replay: no profile has labels, and every multiplier is 1.0."
        return agreement(counts, self._risk["candidates"]) or report.risk_histogram(counts, self._risk["candidates"])

    def risk_table(self) -> pd.DataFrame:
        """Verdict of each head, with the label entropy and the share of labels at the grid's edges."""
        rows = {}
        for number, profile in (self._risk or {"profiles": {}})["profiles"].items():
            labels = profile["labels"].get(self._risk["objective"], {})
            rows[f"profile {number}"] = {
                "base risk, %": profile["base_risk_pct"],
                "halt, %": profile["max_total_drawdown_pct"],
                "multiplier": profile["multiplier"],
                "label entropy, bits": f"{labels['entropy_bits']:.2f}" if labels else "-",
                "at the grid's edge": f"{labels['edge_share']:.0%}" if labels else "-",
                "verdict": profile["sentence"],
            }
        return pd.DataFrame(rows).T

    def features(self) -> pd.DataFrame:
        """Coverage and spread of every feature."""
        columns = {"finite": "finite, %", "low": "1 % lie below", "median": "median", "high": "1 % lie above"}
        table = pd.DataFrame(self.metrics["features"]).set_index("name")[list(columns)].rename(columns=columns)
        table["finite, %"] *= 100
        return table.map("{:.4g}".format).rename_axis(None)


def agreement(counts: Mapping[str, Mapping[str, np.ndarray]], candidates: Sequence[float]) -> str:
    """One sentence where the replay of every profile gives the same answer under each objective; empty where they differ."""
    told = []
    for name in next(iter(counts.values())):
        shares = np.array([of[name] / max(of[name].sum(), 1) for of in counts.values()])
        best = shares.argmax(axis=1)
        if (best != best[0]).any() or shares.max(axis=1).min() < AGREED:
            return ""
        told.append(f"×{candidates[best[0]]:.2f} for {math.floor(100 * shares.max(axis=1).min())} % of the states or more under {name}")
    return f"All {len(counts)} profiles agree which multiplier was best: {'; '.join(told)}."
