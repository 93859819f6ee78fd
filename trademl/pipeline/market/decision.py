"""One decision explained: why the shipped models would buy, sell or stay out at one of the judged bars."""

from dataclasses import dataclass

import numpy as np

from trademl.bot.policy import Policy
from trademl.clock import epoch_seconds, iso_z
from trademl.errors import UsageError
from trademl.evidence.decision_shap import decision_shap
from trademl.market.decision import Rule, cost_in_r, expected_r
from trademl.market.out_of_sample import PROBABILITIES, WINDOWS
from trademl.pipeline.market.replay import out_of_sample
from trademl.pipeline.stored import Stored

BACKGROUND, ROUNDS = 16, 2  # rows that "not known" is taken from, and pairs of orders for each
SIDES = {1: "BUY", -1: "SELL", 0: "no trade"}


@dataclass(frozen=True)
class Reason:
    """One feature's part in a decision."""

    feature: str
    value: float  # as the feature is defined
    contribution_r: float  # to the expected R of the side
    error_r: float  # standard error over the orders of the features


@dataclass(frozen=True)
class DecisionExplained:
    """Why the shipped models decide as they do at one bar. `base_r` and all contributions add up to `expected_r`."""

    row: int  # of the revision's judged rows
    time_utc: str  # the bar's close
    window: str
    side: str  # what the shipped models decide
    explained_side: str  # whose expected R is shared out: that side, or the better one where there is no trade
    expected_r: float  # net of cost
    rule: str  # what decides: expected_r or votes
    margin_r: float | None  # that it must exceed; None under votes, which ask for no expected R
    base_r: float  # mean expected R of the background
    reasons: tuple[Reason, ...]  # largest first, all features
    pairs: int  # orders, each taken forwards and backwards
    seed: int
    judged_side: str  # what the recipe decided at the time, without having seen the bar
    judged_probabilities: dict[str, float]  # and what it said, by class

    def words(self, count: int = 6) -> str:
        """The decision in a few lines."""
        head = f"{self.side} at {self.time_utc} ({self.window}): expected {self.expected_r:+.3f} R net of cost for {self.explained_side}"
        asked = "but the models' votes decide" if self.margin_r is None else f"and more than {self.margin_r:+.3f} R are asked"
        parts = "; ".join(f"{r.feature} = {r.value:.4g}: {r.contribution_r:+.3f} ± {r.error_r:.3f} R" for r in self.reasons[:count])
        told = ", ".join(f"{name} {p:.0%}" for name, p in self.judged_probabilities.items())
        rest = sum(reason.contribution_r for reason in self.reasons[count:])
        return "\n".join(
            (
                f"{head}, {asked}. Other bars give {self.base_r:+.3f} R; what made the difference:",
                f"{parts}; the other {len(self.reasons[count:])} features together {rest:+.3f} R.",
                f"These are the shipped models, which have seen this bar. At the time the recipe said {told}: {self.judged_side}.",
            )
        )


def explain_decision(stored: Stored, decision: str) -> DecisionExplained:
    """Shares the expected R of one judged bar out among its features, through the shipped graph. UsageError for a bar that is not there."""
    rows, oos, policy = stored.judged_rows, out_of_sample(stored), Policy.of(stored.revision, stored.judged_profile)
    at = rows.at(decision)
    x = rows.x[at].astype(np.float64)
    if missing := [name for name, value in zip(stored.feature_names, x) if not np.isfinite(value)]:
        raise UsageError(f"nothing is decided at {iso_z(rows.time_s[at])}: {', '.join(missing)} has no value there")
    bar = int(np.searchsorted(epoch_seconds(oos.frame.index) + oos.spec.bar_seconds, rows.time_s[at]))
    atr = oos.frame["atr"].to_numpy()[bar : bar + 1]
    cost, side = cost_in_r(policy.costs, policy.spec, atr), int(policy.sides(x[None, :], atr)[0])

    def worth(asked: np.ndarray) -> np.ndarray:
        return expected_r(policy.probabilities(asked)[0].astype(np.float64), policy.rule.worth, np.broadcast_to(cost, len(asked)))

    column = {1: 0, -1: 1}.get(side, int(worth(x[None, :])[0].argmax()))
    complete = np.flatnonzero(np.isfinite(rows.x).all(axis=1))
    drawn = np.random.default_rng(stored.seed).choice(complete, min(BACKGROUND, len(complete)), replace=False)
    found = decision_shap(lambda asked: worth(asked)[:, column], x, rows.x[drawn].astype(np.float64), rounds=ROUNDS, seed=stored.seed)
    order = np.argsort(-np.abs(found.values), kind="stable")
    parts = zip(np.array(stored.feature_names)[order], x[order], found.values[order], found.error[order])
    judged = oos.frame.iloc[bar]
    return DecisionExplained(
        row=at,
        time_utc=iso_z(rows.time_s[at]),
        window=WINDOWS[rows.window[at]],
        side=SIDES[side],
        explained_side=SIDES[1 if column == 0 else -1],
        expected_r=found.answer,
        rule=str(policy.rule.rule),
        margin_r=None if policy.rule.rule is Rule.VOTES else policy.rule.margin_r,
        base_r=found.base,
        reasons=tuple(Reason(str(name), float(value), float(part), float(error)) for name, value, part, error in parts),
        pairs=found.pairs,
        seed=stored.seed,
        judged_side=SIDES[int(judged["judged_side"])],
        judged_probabilities={name: float(judged[column]) for name, column in zip(stored.classes, PROBABILITIES)},
    )
