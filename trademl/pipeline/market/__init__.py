"""The market pipeline, assembled. The job notebooks of `nbs/jobs` call these in order; nothing below imports from here.

Each name is loaded when it is first asked for: `trademl models list` needs the store and no library that trains.
"""

from importlib import import_module

_HOMES = {
    "trademl.market.recipe": ("windows_of",),
    "trademl.market.walkforward": ("judge", "ship"),
    "trademl.pipeline.market.choice": ("account_spec", "choose_market", "cost_spec", "label_spec", "open_store", "recipe_of"),
    "trademl.pipeline.market.evidence": ("reread_evidence", "shipped_evidence", "weigh"),
    "trademl.pipeline.market.inputs": ("constant_features", "constant_sentence", "load_inputs", "make_features", "make_rows"),
    "trademl.pipeline.market.parent": ("find_start",),
    "trademl.pipeline.market.proof": ("prove", "run_id_of"),
    "trademl.pipeline.market.revision": ("store_revision", "store_risk", "summary_of"),
    "trademl.pipeline.market.risk": ("risk_trades", "train_risk"),
    "trademl.pipeline.market.tuning": ("with_tuned",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
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


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
