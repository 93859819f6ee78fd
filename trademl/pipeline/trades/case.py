"""Four models judged walk-forward, then fitted on everything; one after the other, or at the same time with the same result."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trademl.device import resolve
from trademl.errors import BadDataError
from trademl.pipeline.trades.inputs import TradeInputs
from trademl.settings import Settings
from trademl.trades.models import Machine
from trademl.trades.registry import TradeModel
from trademl.trades.rows import TradeRows
from trademl.trades.scores import CurvePoint, learning_curve
from trademl.trades.walkforward import Fitted, OutOfFold, Recipe, judge_model, ship_model


@dataclass(frozen=True, eq=False)
class TradeCase:
    """What is trained on, and how."""

    inputs: TradeInputs
    rows: TradeRows
    recipe: Recipe
    settings: Settings

    def machine(self) -> Machine:
        """Where one fit runs. All cores (run.threads = 0) means one thread a fit: on 8,000 trades more of them wait for each other.

        `--parallel` grows the four models at once instead, each on one thread.
        """
        threads = 1 if self.inputs.flags.parallel else self.settings.run.threads or 1
        return Machine(threads, resolve("xgboost", self.settings.run.device))


def open_case(inputs: TradeInputs, settings: Settings) -> TradeCase:
    """The case of these inputs. BadDataError where nothing can be learned from them."""
    recipe = Recipe(weights=inputs.flags.weights, bench=inputs.flags.bench, seed=settings.run.seed)
    return TradeCase(inputs, inputs.rows(), recipe, settings)


@dataclass(frozen=True, eq=False)
class JudgedTrades:
    """What the models said of trades that they had not seen."""

    models: Mapping[TradeModel, OutOfFold]
    failed: Mapping[TradeModel, str]  # model -> why it could not be judged


def for_each_model(work: Callable[[TradeModel], object], *, parallel: bool) -> dict[TradeModel, object]:
    """`work` of every model: its result, or the BadDataError that it raised."""

    def safely(model: TradeModel):
        try:
            return work(model)
        except BadDataError as refusal:
            return refusal

    if not parallel:
        return {model: safely(model) for model in TradeModel}
    with ThreadPoolExecutor(len(TradeModel)) as pool:
        return dict(zip(TradeModel, pool.map(safely, TradeModel), strict=True))


def judge_trades(case: TradeCase) -> JudgedTrades:
    """What all four models say walk-forward; no figure is made of it yet, because the look comes first.

    BadDataError when the two that every policy needs cannot be judged.
    """
    machine = case.machine()
    found = for_each_model(lambda model: judge_model(case.rows, model, case.recipe, machine), parallel=case.inputs.flags.parallel)
    failed = {model: str(result) for model, result in found.items() if isinstance(result, BadDataError)}
    for model in (TradeModel.SIGNAL_QUALITY, TradeModel.POSITION_SIZING):
        if model in failed:
            raise found[model]
    return JudgedTrades({model: result for model, result in found.items() if model not in failed}, failed)


def learning_curves(case: TradeCase, judged: JudgedTrades) -> dict[TradeModel, tuple[CurvePoint, ...]]:
    """The judged models' learning curves. They score the last block: only after the look."""
    machine, seed = case.machine(), case.recipe.seed

    def work(model: TradeModel):
        return learning_curve(case.rows, model, case.recipe, machine, seed=seed) if model in judged.models else None

    found = for_each_model(work, parallel=case.inputs.flags.parallel)
    return {model: found[model] for model in judged.models}


def ship_trades(case: TradeCase, judged: JudgedTrades) -> dict[TradeModel, Fitted]:
    """The models that could be judged, fitted on all trades."""
    machine = case.machine()
    wanted = for_each_model(
        lambda model: ship_model(case.rows, model, case.recipe, machine) if model in judged.models else None,
        parallel=case.inputs.flags.parallel,
    )
    refusal = next((result for result in wanted.values() if isinstance(result, BadDataError)), None)
    if refusal is not None:
        raise refusal
    return {model: fit for model, fit in wanted.items() if fit is not None}
