"""A case: everything that one retrain works on. It is passed whole from step to step."""

from collections.abc import Callable
from dataclasses import dataclass

from trademl.market import walkforward
from trademl.market.features import feature_hash
from trademl.market.recipe import MarketRows, Recipe, windows_of
from trademl.market.specs import AccountSpec
from trademl.market.walkforward import Judged, Shipped, unwatched
from trademl.market.warmstart import COLD, Start
from trademl.pipeline.choice import MarketChoice
from trademl.pipeline.market.inputs import Inputs
from trademl.pipeline.market.parameters import account_spec, recipe_of
from trademl.pipeline.market.seen import refuse_repeats
from trademl.pipeline.market.tuned import Tuned
from trademl.settings import Settings
from trademl.validate.splits import Windows


@dataclass(frozen=True)
class Case:
    """What a retrain works on: the inputs and what was made of them, the recipe, and the settings behind all of it."""

    inputs: Inputs
    rows: MarketRows
    windows: Windows
    recipe: Recipe
    settings: Settings
    tuned: Tuned | None = None  # what was made of the store's studies; None: nobody asked

    @property
    def choice(self) -> MarketChoice:
        """The market and its store."""
        return self.inputs.choice

    @property
    def symbol(self) -> str:
        """The symbol, as the settings name it."""
        return self.choice.symbol

    @property
    def profile(self) -> int:
        """The risk profile in use, 1 to 5."""
        return self.settings.account.profile

    @property
    def account(self) -> AccountSpec:
        """The account of the settings under the profile's limits."""
        return account_spec(self.settings, self.symbol, self.profile)

    @property
    def round_step(self) -> float:
        """The symbol's grid of round prices, price units."""
        return self.settings.symbol(self.symbol).round_step

    @property
    def feature_hash(self) -> str:
        """Hash of order, definitions and price grid of the features."""
        return feature_hash(round_step=self.round_step)


def open_case(inputs: Inputs, rows: MarketRows, settings: Settings) -> Case:
    """The case that the settings describe: their windows over these rows, and their recipe. LeakageError for prices that repeat."""
    windows = windows_of(rows, settings.windows)
    refuse_repeats(rows.bars, windows)
    return Case(inputs, rows, windows, recipe_of(settings), settings)


def judge_recipe(case: Case, start: Start = COLD, stage: Callable = unwatched) -> Judged:
    """Judge the case's recipe walk-forward; with a parent in `start`, select decides between warm and cold."""
    return walkforward.judge(case.rows, case.windows, case.recipe, case.profile, stage, start)


def ship_models(case: Case, judged: Judged, stage: Callable = unwatched) -> Shipped:
    """Refit the judged recipe on all labelled bars."""
    return walkforward.ship(case.rows, judged, case.recipe, stage)
