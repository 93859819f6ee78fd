"""The market pipeline, assembled. The job notebooks of `nbs/jobs` call these in order; nothing below imports from here.

choice -> parameters -> inputs -> case -> adoption of studies -> parent -> walk-forward -> risk -> alarms
-> evidence -> explanation -> proof -> revision
"""

from trademl.lazy import lends

_LENT = {
    "trademl.pipeline.choice": ("MarketFlags", "choose_market", "open_store", "open_stored", "store_of"),
    "trademl.pipeline.contract": ("label_spec",),
    "trademl.pipeline.market.adoption": ("with_tuned",),
    "trademl.pipeline.market.alarms": ("LeakAlarms", "inspect_decisions", "inspect_inputs"),
    "trademl.pipeline.market.case": ("Case", "judge_recipe", "open_case", "ship_models"),
    "trademl.pipeline.market.decision": ("explain_decision",),
    "trademl.pipeline.market.evidence": ("Finding", "judge_final", "look_at_final"),
    "trademl.pipeline.market.explain": ("explain_recipe", "explain_shipped"),
    "trademl.pipeline.market.inputs": (
        "constant_features",
        "constant_sentence",
        "inputs_of",
        "load_inputs",
        "make_features",
        "make_rows",
        "symbol_sentence",
    ),
    "trademl.pipeline.market.manifest": ("Trained",),
    "trademl.pipeline.market.parameters": ("account_spec", "cost_spec", "recipe_of"),
    "trademl.pipeline.market.parent": ("find_start",),
    "trademl.pipeline.market.proof": ("prove",),
    "trademl.pipeline.market.replay": ("Conditions", "replay_bars", "replay_final", "reread_evidence"),
    "trademl.pipeline.market.revision": ("store_revision", "store_risk", "summary_of"),
    "trademl.pipeline.market.risk": ("train_risk",),
    "trademl.pipeline.market.walks": ("WalkForward", "explain_walk", "judge_walk", "walk"),
}
__getattr__, __dir__, __all__ = lends(__name__, _LENT)
