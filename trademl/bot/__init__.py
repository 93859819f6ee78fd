"""The promise to a live bot: nothing loads unproven, and what it computes is what was judged.

    predictor = load_approved("models", keys=["ed25519:..."], profile=3, expect=Expect("BTCUSD"))
    decision = predictor.predict(bars_tail, news_times, account_state)

    advisor = TradeAdvisor.load("models/trades", keys=["ed25519:..."])
    advice = advisor.advise(record, earlier_records)
    ShadowLog("shadow.jsonl").suggestion(advisor, record, advice, size_usd=1_000.0)

The pipelines' replay decides by the same code. Everything here imports numpy, onnxruntime when a graph is run, cryptography when a
signature is checked, and nothing else.
"""

from trademl.bot.account import AccountState
from trademl.bot.advisor import TradeAdvisor
from trademl.bot.loader import Expect, load_approved
from trademl.bot.log import DecisionLog, read_log
from trademl.bot.predictor import Decision, Mode, OpenPosition, PositionAdvice, Predictor, Reason
from trademl.bot.refusals import AccountError, LoadCheck, LoadError, TailError, TailFault
from trademl.bot.shadow import ShadowLog, read_shadow
from trademl.bot.tail import Calendar
from trademl.market.context import Bars
from trademl.trades.advice import Advice, Topic

__all__ = [
    "AccountError",
    "AccountState",
    "Advice",
    "Bars",
    "Calendar",
    "Decision",
    "DecisionLog",
    "Expect",
    "LoadCheck",
    "LoadError",
    "Mode",
    "OpenPosition",
    "PositionAdvice",
    "Predictor",
    "Reason",
    "ShadowLog",
    "TailError",
    "TailFault",
    "Topic",
    "TradeAdvisor",
    "load_approved",
    "read_log",
    "read_shadow",
]
