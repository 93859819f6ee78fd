"""A small market through all that a retrain computes, in a temporary project: numba keeps what it compiled on the way."""

import contextlib
import tempfile

from trademl.pipeline.choice import SYNTHETIC, MarketFlags, choose_market
from trademl.pipeline.market.alarms import inspect_inputs
from trademl.pipeline.market.canary import SMALL
from trademl.pipeline.market.case import judge_recipe, open_case
from trademl.pipeline.market.evidence import judge_final, look_at_final
from trademl.pipeline.market.explain import explain_recipe
from trademl.pipeline.market.inputs import load_inputs, make_features, make_rows
from trademl.pipeline.market.risk import train_risk
from trademl.settings import load_settings

RUN_ID = "rehearsal"


def rehearse() -> None:
    """Judge, size and explain; nothing is kept but the compiled kernels."""
    with tempfile.TemporaryDirectory(prefix="trademl-rehearsal-") as project, contextlib.chdir(project):
        settings = load_settings(SMALL)
        inputs = load_inputs(settings, choose_market(settings, MarketFlags(symbol=SYNTHETIC)))
        x = make_features(inputs, settings)
        alarms, case = inspect_inputs(inputs, x), open_case(inputs, make_rows(inputs, x, settings), settings)
        judged = judge_recipe(case)
        heads, look = train_risk(case, judged), look_at_final(case, judged, RUN_ID)
        judge_final(case, judged, look, alarms, heads)
        explain_recipe(case, judged, look, heads)
