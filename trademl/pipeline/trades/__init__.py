"""The trade-record pipeline, assembled. The job notebook `trades_retrain` calls these in order; nothing below imports from here.

inputs -> case -> studies -> walk-forward -> look and claims -> shipped models -> proof -> revision
"""

from trademl.lazy import lends

_LENT = {
    "trademl.pipeline.trades.case": ("TradeCase", "judge_trades", "open_case", "ship_trades"),
    "trademl.pipeline.trades.evidence": ("judge_policy",),
    "trademl.pipeline.trades.improvement": ("TradeParts", "improvement_report"),
    "trademl.pipeline.trades.inputs": ("LINE", "TradeFlags", "TradeInputs", "load_trades"),
    "trademl.pipeline.trades.proof": ("prove_trades",),
    "trademl.pipeline.trades.revision": ("copy_out", "store_trades", "summary_of", "write_short"),
    "trademl.pipeline.trades.stored": ("trade_store",),
    "trademl.pipeline.trades.studies": ("with_studies",),
}
__getattr__, __dir__, __all__ = lends(__name__, _LENT)
