"""The order of the steps: features -> probabilities -> side, then for an open trade state -> probability of EXIT -> stay or leave."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trademl.bot.records import costs_of, decision_rule_of, exit_rule_of, label_spec_of
from trademl.errors import RevisionError
from trademl.market.decision import DecisionRule, cost_in_r, decide
from trademl.market.open_trade import EXIT, ExitRule, position_input
from trademl.market.specs import CLASSES, CostSpec, LabelSpec
from trademl.risk.state import head_input
from trademl.ship.manifest import model_of
from trademl.ship.revision import Revision
from trademl.ship.runtime import Graph

_ANSWERS = ("probabilities", "model_probabilities")  # of the signal's graph
Head = Callable[[np.ndarray], float]  # the seven features of an account (7,) -> risk multiplier


@dataclass(frozen=True)
class Judgement:
    """What the models said of n bars, and the sides that follow."""

    side: np.ndarray  # int8 (n,): +1 long, -1 short, 0 none
    probabilities: np.ndarray  # (n, classes) calibrated; NaN where a feature is missing
    model_probabilities: np.ndarray  # (n, models, classes)
    cost_r: np.ndarray  # (n,) of a round trip


@dataclass(frozen=True)
class Policy:
    """What a revision decides by under one profile: numbers out of its manifest, graphs out of its files."""

    revision: Revision
    spec: LabelSpec
    costs: CostSpec
    rule: DecisionRule
    exits: ExitRule | None  # None: trades are left to their bracket

    @classmethod
    def of(cls, revision: Revision, profile: int, *, costs: CostSpec | None = None, rule: str | None = None) -> "Policy":
        """The shipped models' policy; `costs` and `rule` replace what the manifest says."""
        decides = decision_rule_of(revision, profile, is_shipped=True, rule=rule)
        return cls(revision, label_spec_of(revision), costs or costs_of(revision), decides, exit_rule_of(revision))

    def probabilities(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated (n, classes) and each model's own (n, models, classes) for raw features (n, features); NaN where one is missing."""
        members, classes = len(self.members), len(CLASSES)
        known = np.isfinite(x)
        if known.all() and len(x):  # as at every close of a bot: no copies
            answer = self._graphs["signal"].run(x, _ANSWERS)
            blended, own = (answer[name].astype(np.float64) for name in _ANSWERS)
            return blended, own.reshape(len(x), members, classes)
        blended, own = np.full((len(x), classes), np.nan), np.full((len(x), members * classes), np.nan)
        complete = known.all(axis=1)
        if complete.any():
            answer = self._graphs["signal"].run(x[complete], _ANSWERS)
            blended[complete], own[complete] = (answer[name] for name in _ANSWERS)
        return blended, own.reshape(len(x), members, classes)

    def judge(self, x: np.ndarray, atr: np.ndarray) -> Judgement:
        """What is decided at each bar, of raw features (n, features) and the bars' ATR (n,)."""
        blended, own = self.probabilities(x)
        cost = cost_in_r(self.costs, self.spec, atr)
        return Judgement(decide(self.rule, blended, cost, own), blended, own, cost)

    def sides(self, x: np.ndarray, atr: np.ndarray) -> np.ndarray:
        """The side of each bar alone, int8 (n,)."""
        return self.judge(x, atr).side

    @cached_property
    def members(self) -> tuple[str, ...]:
        """The ensemble's models, in the order of their own probabilities."""
        return tuple(model_of(self.revision.manifest, "signal")["members"])

    def exit_probability(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Probability of EXIT (rows,) of open trades: raw features (rows, features) of the bar, state (rows, 4) of the trade."""
        return self._graphs["position"].run(position_input(x, state))["probabilities"][:, EXIT]

    @cached_property
    def _graphs(self) -> dict:
        models = {model["role"]: model["file"] for model in self.revision.manifest["models"]}
        return {role: Graph.of(self.revision.read(models[role])) for role in ("signal", "position") if role in models}


def holds_head(revision: Revision, profile: int) -> bool:
    """Whether a profile's risk head was trained, published or not."""
    return any(model["name"] == f"risk_p{profile}" for model in revision.manifest["models"])


def is_published(revision: Revision, profile: int) -> bool:
    """Whether a profile's risk head passed its test."""
    return any(entry["profile"] == profile and entry["published"] for entry in revision.manifest["market"]["profiles"])


def risk_head_of(revision: Revision, profile: int, *, is_enabled: bool = True, use_unpublished: bool = False) -> Head | None:
    """The published risk head of a profile; None where the multiplier is 1.0. A head that should be there and is not: RevisionError.

    `use_unpublished` takes one that did not pass its test too.
    """
    passed = is_published(revision, profile)
    if not is_enabled or not (passed or use_unpublished):
        return None
    model = next((model for model in revision.manifest["models"] if model["name"] == f"risk_p{profile}"), None)
    if model is None:
        asked = "publishes a risk head" if passed else "was asked for its unpublished risk head"
        raise RevisionError(f"revision {revision.name} {asked} for profile {profile}, but holds no risk_p{profile}")
    graph, answer = Graph.of(revision.read(model["file"])), model["outputs"][0]["name"]
    return lambda state: float(graph.run(head_input(state))[answer][0, 0])
