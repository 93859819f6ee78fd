"""The market pipeline, assembled. The job notebooks of `nbs/jobs` call these in order; nothing below imports from here.

choice -> parameters -> inputs -> case -> adoption of studies -> parent -> walk-forward -> risk -> alarms
-> evidence -> explanation -> proof -> revision
"""

from trademl.pipeline.choice import MarketFlags, choose_market, open_store, open_stored, store_of
from trademl.pipeline.contract import label_spec
from trademl.pipeline.market.adoption import with_tuned
from trademl.pipeline.market.alarms import LeakAlarms, inspect_decisions, inspect_inputs
from trademl.pipeline.market.case import Case, judge_recipe, open_case, ship_models
from trademl.pipeline.market.evidence import Finding, judge_final, look_at_final
from trademl.pipeline.market.explain import explain_recipe, explain_shipped
from trademl.pipeline.market.inputs import (
    constant_features,
    constant_sentence,
    inputs_of,
    load_inputs,
    make_features,
    make_rows,
    symbol_sentence,
)
from trademl.pipeline.market.manifest import Trained
from trademl.pipeline.market.parameters import account_spec, cost_spec, recipe_of
from trademl.pipeline.market.parent import find_start
from trademl.pipeline.market.proof import prove
from trademl.pipeline.market.replay import Conditions, replay_bars, replay_final, reread_evidence
from trademl.pipeline.market.revision import store_revision, store_risk, summary_of
from trademl.pipeline.market.risk import train_risk
from trademl.pipeline.market.walk import WalkForward, explain_walk, judge_walk, walk

__all__ = [
    "Case",
    "Conditions",
    "Finding",
    "LeakAlarms",
    "MarketFlags",
    "Trained",
    "WalkForward",
    "account_spec",
    "choose_market",
    "constant_features",
    "constant_sentence",
    "cost_spec",
    "explain_recipe",
    "explain_shipped",
    "explain_walk",
    "find_start",
    "inputs_of",
    "inspect_decisions",
    "inspect_inputs",
    "judge_final",
    "judge_recipe",
    "judge_walk",
    "label_spec",
    "load_inputs",
    "look_at_final",
    "make_features",
    "make_rows",
    "open_case",
    "open_store",
    "open_stored",
    "prove",
    "recipe_of",
    "replay_bars",
    "replay_final",
    "reread_evidence",
    "ship_models",
    "store_of",
    "store_revision",
    "store_risk",
    "summary_of",
    "symbol_sentence",
    "train_risk",
    "walk",
    "with_tuned",
]
