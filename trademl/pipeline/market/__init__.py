"""The market pipeline, assembled. The job notebooks of `nbs/jobs` call these in order; nothing below imports from here."""

from trademl.market.recipe import windows_of
from trademl.market.walkforward import judge, ship
from trademl.pipeline.market.choice import account_spec, choose_market, cost_spec, label_spec, open_store, recipe_of
from trademl.pipeline.market.evidence import reread_evidence, shipped_evidence, weigh
from trademl.pipeline.market.inputs import constant_features, constant_sentence, load_inputs, make_features, make_rows
from trademl.pipeline.market.parent import find_start
from trademl.pipeline.market.proof import prove, run_id_of
from trademl.pipeline.market.revision import store_revision, store_risk, summary_of
from trademl.pipeline.market.risk import risk_trades, train_risk
from trademl.pipeline.market.tuning import with_tuned

__all__ = [
    "account_spec",
    "choose_market",
    "constant_features",
    "constant_sentence",
    "cost_spec",
    "find_start",
    "judge",
    "label_spec",
    "load_inputs",
    "make_features",
    "make_rows",
    "open_store",
    "prove",
    "recipe_of",
    "reread_evidence",
    "risk_trades",
    "run_id_of",
    "ship",
    "shipped_evidence",
    "store_revision",
    "store_risk",
    "summary_of",
    "train_risk",
    "weigh",
    "windows_of",
    "with_tuned",
]
