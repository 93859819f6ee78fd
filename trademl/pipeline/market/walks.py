"""A recipe walked forward in memory: a retrain's steps up to its verdict, without models to ship and without a store.

What the recipe earned on final stays shut until `judge_walk` has written the look into the project's chain.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from trademl.clock import DAY_S
from trademl.display import facts_html
from trademl.evidence.looks import Look
from trademl.evidence.shap_summary import ShapSummary
from trademl.market.walkforward import Judged, unwatched
from trademl.pipeline.market.adoption import with_tuned
from trademl.pipeline.market.alarms import LeakAlarms, inspect_decisions, inspect_inputs
from trademl.pipeline.market.case import Case, judge_recipe, open_case
from trademl.pipeline.market.evidence import Finding, judge_final, look_at_final, score_window
from trademl.pipeline.market.explain import explain_recipe
from trademl.pipeline.market.inputs import Inputs, make_rows
from trademl.pipeline.market.looks import recipe_id
from trademl.pipeline.market.parent import find_start
from trademl.settings import Settings


@dataclass(frozen=True, eq=False)
class WalkForward:
    """A recipe after its walk-forward: what select says of it. Its trades on final are asked for with `judge_walk`, which is a look."""

    case: Case
    alarms: LeakAlarms
    _judged: Judged = field(repr=False)  # holds the answers for final: nothing of them is shown before the look

    @property
    def recipe(self) -> str:
        """Id of the recipe, 16 hex: the chain of looks counts by it."""
        return recipe_id(self.case)

    @cached_property
    def select(self) -> dict:
        """Log loss on select against the class prior, each model's own, confusion and reliability."""
        return score_window(self.case, self._judged, "select")

    def facts(self) -> dict[str, str]:
        """What a person is told of it before the look."""
        case, scores = self.case, self.select
        margin = self._judged.frozen.margins[case.profile]
        final = self._judged.windows.span("final")
        return {
            "market": f"{case.choice.line}, {len(case.rows.bars):,} bars",
            "recipe": self.recipe,
            "log loss on select": f"{scores['log_loss']:.4f} (class prior {scores['prior_log_loss']:.4f}; n = {scores['n']:,})",
            "edge on select": f"found, at a margin of {margin.margin_r:g} R" if margin.edge_found else "none found",
            "leaks": "; ".join(self.alarms.sentences),
            "final": f"{(final.end_s - final.start_s) / DAY_S:.0f} days, not looked at: `backtest` writes the look and shows them",
        }

    def __repr__(self) -> str:
        """The facts as text."""
        return "\n".join(["WalkForward", *(f"  {name}: {value}" for name, value in self.facts().items())])

    def _repr_html_(self) -> str:
        return facts_html("Walk-forward", self.facts())


def walk(inputs: Inputs, x: np.ndarray, settings: Settings, accepted: str | None = None, stage: Callable = unwatched) -> WalkForward:
    """Judge the settings' recipe on features (n, 55) of the inputs; `accepted` is the reason of --accept-leak.

    Raises as a retrain does: BadDataError (bars), UsageError (settings), LeakageError (prices that repeat).
    """
    with stage("labels"):
        alarms, rows = inspect_inputs(inputs, x, accepted), make_rows(inputs, x, settings)
    case = with_tuned(open_case(inputs, rows, settings))
    return WalkForward(case, alarms, judge_recipe(case, find_start(case), stage))


def judge_walk(walked: WalkForward, run_id: str) -> Finding:
    """The recipe's trades on final under the gate, after its look was written; LooksError: none may be shown."""
    return _judge(walked, look_at_final(walked.case, walked._judged, run_id))


def _judge(walked: WalkForward, look: Look) -> Finding:
    case, judged = walked.case, walked._judged
    return judge_final(case, judged, look, inspect_decisions(case, judged, look, walked.alarms))


def explain_walk(walked: WalkForward, run_id: str) -> tuple[Look, ShapSummary]:
    """What drove the recipe's answers, after its trades were judged: the answers for final belong to its look."""
    look = look_at_final(walked.case, walked._judged, run_id)
    if look.standing is None:  # a look that was opened is closed with its verdict before a figure is shown
        _judge(walked, look)
    return look, explain_recipe(walked.case, walked._judged, look).summary
