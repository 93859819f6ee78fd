"""Which risk multiplier the replay of a revision's own trades chooses, by objective and limits, and what becomes of the account.

The trades are those that the risk heads were trained on (out-of-fold, of the train part) and judged on (select): no day of final.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trademl import report
from trademl.bot.policy import risk_head_of
from trademl.errors import BadDataError
from trademl.explore.panel import Panel, Shown, picker, slider
from trademl.explore.revision import RevisionExplorer
from trademl.pipeline.market.parameters import account_spec
from trademl.pipeline.market.risk import METADATA_FILE, OBJECTIVE_WORDS, kept_labels, kept_trades
from trademl.pipeline.stored import Stored
from trademl.report.figures import BLUE, GREY, QUIET, RED, SAND, TEAL, finish
from trademl.risk.growth import GROWTH
from trademl.risk.profiles import PROFILES, Profile
from trademl.risk.profiles import profile as profile_of
from trademl.risk.replay import Objective, ReplayResult, replay
from trademl.risk.trades import LotSpec, TradeSequence
from trademl.risk.verdict import PolicyRun, drawdown_rule, simulate_policy
from trademl.settings import Settings

OBJECTIVES = {Objective(name): words for name, words in OBJECTIVE_WORDS.items()}


@dataclass(frozen=True)
class Asked:
    """What the controls say."""

    objective: Objective
    profile: Profile  # with the limits of the sliders
    max_breach: float  # highest share of continuations that may touch the halt
    multiplier: float  # of the constant policy


class RiskRoom:
    """Everything that the risk explorer draws, from what it is asked. UsageError for a revision without risk trades."""

    def __init__(self, stored: Stored, settings: Settings):
        self.stored, self.settings, kept = stored, settings, kept_trades(stored)
        self.metadata = json.loads(stored.read(METADATA_FILE))
        self.parts = {part: TradeSequence.from_backtest(kept[kept["part"] == part]) for part in ("train", "select")}
        self.lots = LotSpec.from_specs(stored.costs, account_spec(settings, stored.symbol, settings.account.profile))
        self.seed = stored.seed
        self.replayed = lru_cache(maxsize=32)(self._replayed)
        self.played = lru_cache(maxsize=32)(self._played)

    def _replayed(self, objective: Objective, profile: Profile, max_breach: float) -> ReplayResult:
        growth = replace(GROWTH, max_breach=max_breach)
        return replay(self.parts["train"], profile, objective=objective, lots=self.lots, spec=growth, seed=self.seed)

    def _played(self, part: str, profile: Profile, policy: str, multiplier: float) -> PolicyRun:
        rules = {
            "constant": lambda: multiplier,
            "drawdown": lambda: drawdown_rule(profile),
            "head": lambda: risk_head_of(self.stored.revision, profile.number),
        }
        return simulate_policy(self.parts[part], profile, rules[policy]())

    @property
    def published(self) -> tuple[int, ...]:
        """Profiles whose head is used."""
        return tuple(self.metadata["published"])

    # ---------------------------------------------------------------- figures

    def chosen(self, asked: Asked) -> go.Figure:
        """Share of the replayed states by the multiplier that was best for each, beside what was stored for the profile."""
        done = self.replayed(asked.objective, asked.profile, asked.max_breach)
        x = [f"{value:.2f}" for value in done.candidates]
        figure = go.Figure()
        hover = "×%{x}: %{y:.1f} %<extra></extra>"
        figure.add_bar(x=x, y=100 * done.histogram, name="these limits", marker_color=BLUE, hovertemplate=hover)
        labels = self.metadata["profiles"][str(asked.profile.number)]["labels"].get(asked.objective)
        if labels:
            stored = 100 * np.array(labels["histogram"])
            figure.add_bar(x=x, y=stored, name=f"profile {asked.profile.number} as stored", marker_color=SAND, hovertemplate=hover)
        figure.update_xaxes(title_text="best risk multiplier", type="category")
        figure.update_yaxes(title_text="share of states, %", range=[0, 105])
        mean = float(done.labels.mean()) if len(done.labels) else float("nan")
        text = f"{len(done.labels):,} states; mean {mean:.2f}, which is {mean * asked.profile.base_risk_pct:.2f} % of equity a trade"
        return finish(figure, f"Best multiplier: {OBJECTIVES[asked.objective]}", text, height=430)

    def by_profile(self) -> go.Figure:
        """Which multiplier each profile's replay chose when the heads were trained, under both objectives."""
        counts = kept_labels(self.metadata)
        if not counts:
            raise BadDataError("too few trades to replay: no profile has labels, and every multiplier is 1.0")
        return report.risk_histogram(counts, self.metadata["candidates"]).update_layout(height=560)

    def equity(self, asked: Asked) -> go.Figure:
        """The account of the profile through the train trades and then those of select, a line a policy, and its drawdown."""
        figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.06)
        policies = {"constant": (f"constant ×{asked.multiplier:.2f}", BLUE), "drawdown": ("drawdown rule", SAND)}
        if asked.profile.number in self.published:
            policies["head"] = ("the head", TEAL)
        lines = ({"1": ("constant ×1.00", GREY)} if f"{asked.multiplier:.2f}" != "1.00" else {}) | policies
        moments = np.concatenate([self.parts[part].exit_s for part in ("train", "select")]).astype("M8[s]")
        for policy, (name, colour) in lines.items():
            growth = self.growth(asked, policy)
            worth = 100 * np.exp(np.cumsum(growth))
            peak = np.maximum.accumulate(np.maximum(worth, 100))
            style = {"mode": "lines", "line": {"color": colour, "width": 1.8}, "name": name, "legendgroup": name}
            figure.add_scatter(x=moments, y=worth, hovertemplate="%{y:,.1f}<extra>" + name + "</extra>", **style, row=1, col=1)
            fall = 100 * (worth / peak - 1)
            figure.add_scatter(x=moments, y=fall, hovertemplate="%{y:.1f} %", showlegend=False, **style, row=2, col=1)
        figure.add_hline(y=-asked.profile.max_total_drawdown_pct, line={"color": RED, "width": 1.2, "dash": "dash"}, row=2, col=1)
        if len(self.parts["select"]):
            figure.add_vline(x=str(moments[len(self.parts["train"])]), line={"color": QUIET, "width": 1, "dash": "dot"})
        figure.update_yaxes(title_text="equity, start 100", type="log", nticks=6, row=1, col=1)
        figure.update_yaxes(title_text="drawdown, %", row=2, col=1)
        text = "after the dotted line: the trades of select; dashed: the halt"
        return finish(figure, "The replayed account", text, height=560, hovermode="x")

    def growth(self, asked: Asked, policy: str) -> np.ndarray:
        """Log growth of each trade, train then select, of a policy: "1", "constant", "drawdown" or "head"."""
        name, multiplier = ("constant", 1.0) if policy == "1" else (policy, asked.multiplier)
        return np.concatenate([self.played(part, asked.profile, name, multiplier).growth for part in self.parts])

    def sentence(self, asked: Asked) -> str:
        """What the limits choose, what the account makes of it, and whether the head is used."""
        done = self.replayed(asked.objective, asked.profile, asked.max_breach)
        if not len(done.labels):
            return "<b>No state can be replayed</b>: no account could open these trades"
        at = int(np.argmax(done.histogram))
        limits = f"at most {100 * asked.max_breach:.0f} % of continuations may reach the {asked.profile.max_total_drawdown_pct:g} % halt"
        if asked.objective is Objective.WR_PF_SQRT_DD:
            limits = "win rate × profit factor / √drawdown: the first two hardly depend on size, drawdown does"
        runs = [self.played(part, asked.profile, "constant", asked.multiplier) for part in self.parts if len(self.parts[part])]
        deepest, times = max(run.max_drawdown for run in runs), sum(run.breaches for run in runs)
        halts = f"halted {times} time{'' if times == 1 else 's'}" if times else "never halted"
        head = self.metadata["profiles"][str(asked.profile.number)]["sentence"]
        return (
            f"<b>×{done.candidates[at]:.2f} is best in {100 * done.histogram[at]:.0f} % of the states</b> ({limits}). "
            f"Constant ×{asked.multiplier:.2f}: deepest drawdown {100 * deepest:.1f} %, {halts}. "
            f"Head of profile {asked.profile.number}: {head}"
        )


class RiskPanel(Panel):
    """Objective and limits of one profile; picking another profile sets its limits."""

    def __init__(self, stored: Stored, settings: Settings):
        self.room, own = RiskRoom(stored, settings), profile_of(settings.account.profile)
        trained = Objective(self.room.metadata["objective"])
        controls = {
            "objective": picker("objective", [(words, name) for name, words in OBJECTIVES.items()], trained),
            "profile": picker("profile", [(f"profile {p.number}", p.number) for p in PROFILES], own.number),
            "halt": slider("halt, %", own.max_total_drawdown_pct, 5, 90, 1, form=".0f"),
            "base_risk": slider("base risk, %", own.base_risk_pct, 0.1, 6, 0.05),
            "max_breach": slider("may reach it, %", 100 * GROWTH.max_breach, 0, 50, 1, form=".0f"),
            "multiplier": slider("constant ×", 1.0, 0.1, 1.25, 0.05),
        }
        groups = {
            "WHAT IS BEST": ["objective", "profile"],
            "LIMITS": ["halt", "base_risk", "max_breach"],
            "THE ACCOUNT": ["multiplier"],
        }
        self._number = own.number
        super().__init__(controls, [["chosen", "equity"], ["by_profile"]], self._shown, groups=groups)

    def _shown(self, values: dict) -> Shown:
        if values["profile"] != self._number:  # its own limits
            self._number = values["profile"]
            picked = profile_of(self._number)
            self.controls["halt"].value, self.controls["base_risk"].value = picked.max_total_drawdown_pct, picked.base_risk_pct
            values = self.values
        limits = {"max_total_drawdown_pct": values["halt"], "base_risk_pct": values["base_risk"]}
        profile = replace(profile_of(values["profile"]), **limits)
        asked = Asked(values["objective"], profile, values["max_breach"] / 100, values["multiplier"])
        room = self.room
        figures = {"chosen": partial(room.chosen, asked), "equity": partial(room.equity, asked), "by_profile": room.by_profile}
        return Shown(room.sentence(asked), figures)


def explore(revision: str = "", settings: Settings | None = None) -> RevisionExplorer:
    """The explorer of a stored revision, by default the newest; without one, the embedded market is offered."""
    return RevisionExplorer(RiskPanel, revision, settings)
