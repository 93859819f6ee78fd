"""The trade-record pipeline, assembled. The job notebook `trades_retrain` calls these in order; nothing below imports from here.

inputs -> case -> studies -> walk-forward -> look and claims -> shipped models -> proof -> revision
"""

from trademl.pipeline.trades.case import TradeCase, judge_trades, open_case, ship_trades
from trademl.pipeline.trades.evidence import judge_policy
from trademl.pipeline.trades.improvement import TradeParts, improvement_report
from trademl.pipeline.trades.inputs import LINE, TradeFlags, TradeInputs, load_trades
from trademl.pipeline.trades.proof import prove_trades
from trademl.pipeline.trades.revision import copy_out, store_trades, summary_of, write_short
from trademl.pipeline.trades.stored import trade_store
from trademl.pipeline.trades.studies import with_studies

__all__ = [
    "LINE",
    "TradeCase",
    "TradeFlags",
    "TradeInputs",
    "TradeParts",
    "copy_out",
    "improvement_report",
    "judge_policy",
    "judge_trades",
    "load_trades",
    "open_case",
    "prove_trades",
    "ship_trades",
    "store_trades",
    "summary_of",
    "trade_store",
    "with_studies",
    "write_short",
]
