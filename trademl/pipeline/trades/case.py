"""Four models judged walk-forward, then fitted on everything; one after the other, or at the same time with the same result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from trademl.device import resolve
from trademl.errors import BadDataError
from trademl.learn.ensemble import side_by_side
from trademl.pipeline.trades.inputs import TradeInputs
from trademl.settings import Settings
from trademl.trades.models import Machine
from trademl.trades.registry import TradeModel
from trademl.trades.rows import TradeRows
from trademl.trades.scores import CurvePoint, learning_curve
from trademl.trades.selection import Selected
from trademl.trades.tuning import Tuned
from trademl.trades.walkforward import Fitted, OutOfFold, Recipe, judge_model, ship_model


@dataclass(frozen=True, eq=False)
class Studies:
    """What was searched on the log's first half before anything of the rest was judged."""

    off: str = ""  # why nothing was searched; empty where something was
    tuned: Mapping[TradeModel, Tuned] = field(default_factory=dict)
    selected: Mapping[TradeModel, Selected] = field(default_factory=dict)
    failed: Mapping[TradeModel, str] = field(default_factory=dict)  # model -> why it could not be searched
    seen: np.ndarray | None = None  # int64: trades that were looked at

    @property
    def is_used(self) -> bool:
        """Whether anything that was found makes the recipe another one."""
        return any(found.is_used for found in (*self.tuned.values(), *self.selected.values()))


@dataclass(frozen=True, eq=False)
class TradeCase:
    """What is trained on, and how."""

    inputs: TradeInputs
    rows: TradeRows
    recipe: Recipe
    settings: Settings
    studies: Studies | None = None  # what was searched on this log; None: nothing was asked for

    def machine(self) -> Machine:
        """Where one fit runs: on one thread, because a booster of several classes differs in its last bits on more."""
        return Machine(1, resolve("xgboost", self.settings.run.device))

    def workers(self) -> int:
        """Fits at the same time; 0 = one for each core."""
        return self.settings.run.threads if self.inputs.flags.parallel else 1


def open_case(inputs: TradeInputs, settings: Settings) -> TradeCase:
    """The case of these inputs. BadDataError where nothing can be learned from them."""
    recipe = Recipe(weights=inputs.flags.weights, bench=inputs.flags.bench, seed=settings.run.seed)
    return TradeCase(inputs, inputs.rows(), recipe, settings)


@dataclass(frozen=True, eq=False)
class JudgedTrades:
    """What the models said of trades that they had not seen."""

    models: Mapping[TradeModel, OutOfFold]
    failed: Mapping[TradeModel, str]  # model -> why it could not be judged


BY_COST = (TradeModel.TP_OPTIMIZER, TradeModel.SIGNAL_QUALITY, TradeModel.POSITION_SIZING, TradeModel.SL_OPTIMIZER)  # longest first


def for_each_model(work: Callable[[TradeModel], object], *, workers: int) -> dict[TradeModel, object]:
    """`work` of every model: its result, or the BadDataError that it raised; so many `workers` at a time, 0 = one for each core."""

    def safely(model: TradeModel):
        try:
            return work(model)
        except BadDataError as refusal:
            return refusal

    found = dict(zip(BY_COST, side_by_side(safely, BY_COST, workers), strict=True))
    return {model: found[model] for model in TradeModel}


def judge_trades(case: TradeCase) -> JudgedTrades:
    """What all four models say walk-forward; no figure is made of it yet, because the look comes first.

    BadDataError when the two that every policy needs cannot be judged.
    """
    machine = case.machine()
    found = for_each_model(lambda model: judge_model(case.rows, model, case.recipe, machine), workers=case.workers())
    failed = {model: str(result) for model, result in found.items() if isinstance(result, BadDataError)}
    for model in (TradeModel.SIGNAL_QUALITY, TradeModel.POSITION_SIZING):
        if model in failed:
            raise found[model]
    return JudgedTrades({model: result for model, result in found.items() if model not in failed}, failed)


def learning_curves(case: TradeCase, judged: JudgedTrades) -> dict[TradeModel, tuple[CurvePoint, ...]]:
    """The judged models' learning curves. They score the last block: only after the look."""
    machine, seed = case.machine(), case.recipe.seed

    def work(model: TradeModel):
        own = judged.models.get(model)
        return None if own is None else learning_curve(case.rows, own, case.recipe, machine, seed=seed)

    found = for_each_model(work, workers=case.workers())
    return {model: found[model] for model in judged.models}


def ship_trades(case: TradeCase, judged: JudgedTrades) -> dict[TradeModel, Fitted]:
    """The models that could be judged, fitted on all trades."""
    machine = case.machine()
    wanted = for_each_model(
        lambda model: ship_model(case.rows, model, case.recipe, machine) if model in judged.models else None,
        workers=case.workers(),
    )
    refusal = next((result for result in wanted.values() if isinstance(result, BadDataError)), None)
    if refusal is not None:
        raise refusal
    return {model: fit for model, fit in wanted.items() if fit is not None}
