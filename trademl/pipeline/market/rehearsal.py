"""A small market through all that a retrain computes, in a temporary project: numba keeps what it compiled on the way."""

import contextlib
import tempfile

from trademl.data.synthetic import synthetic_market
from trademl.pipeline.choice import SYNTHETIC, MarketChoice
from trademl.pipeline.market.alarms import inspect_inputs
from trademl.pipeline.market.canary import SMALL
from trademl.pipeline.market.case import judge_recipe, open_case
from trademl.pipeline.market.evidence import judge_final, look_at_final
from trademl.pipeline.market.explain import explain_recipe
from trademl.pipeline.market.inputs import made_inputs, make_features, make_rows
from trademl.pipeline.market.risk import train_risk
from trademl.settings import load_settings

RUN_ID = "rehearsal"


def rehearse() -> None:
    """Judge, size and explain; nothing is kept but the compiled kernels."""
    with tempfile.TemporaryDirectory(prefix="trademl-rehearsal-") as project, contextlib.chdir(project):
        settings = load_settings(SMALL)
        choice = MarketChoice(SYNTHETIC, None, None, False, settings.paths.models, settings.market.timeframe)
        inputs = made_inputs(choice, synthetic_market(settings.synthetic.bars, settings.synthetic.edge, settings.synthetic.seed))
        x = make_features(inputs, settings)
        alarms, case = inspect_inputs(inputs, x), open_case(inputs, make_rows(inputs, x, settings), settings)
        judged = judge_recipe(case)
        heads, look = train_risk(case, judged), look_at_final(case, judged, RUN_ID)
        judge_final(case, judged, look, alarms, heads)
        explain_recipe(case, judged, look, heads)
