"""What readers in other languages hold on to: the features as data, and JSON Schemas of every file that they meet.

`trademl models contract NAME` prints one; docs/contract has them all beside golden files, and a second reader of them in JavaScript.
"""

import math

from trademl.bot.account import SHAPE as ACCOUNT
from trademl.bot.log import SHAPES as LOG
from trademl.bot.shadow import SHADOW_SHAPES
from trademl.errors import choose
from trademl.market import definitions
from trademl.market.context import BAR_SECONDS, COLUMNS
from trademl.market.definitions import DEFINITIONS_VERSION, FEATURES, Feature
from trademl.market.features import MIN_HISTORY_BARS, feature_hash
from trademl.market.open_trade import POSITION_CLASSES
from trademl.market.open_trade import STATE_FEATURES as TRADE_STATE
from trademl.market.specs import CLASSES
from trademl.risk.profiles import PROFILES
from trademl.risk.state import MULTIPLIER_CLAMP
from trademl.risk.state import STATE_FEATURES as ACCOUNT_STATE
from trademl.ship.schemas import document, manifest_schema, pointer_schema, signature_schema
from trademl.ship.shapes import schema_of_object

SCHEMA = 1  # of the registry
_TABLES = {name: rows for name, rows in vars(definitions).items() if name != "FEATURES" and isinstance(rows, tuple)}


def registry(round_step: float = 1000.0) -> dict:
    """`registry.json`: every input of the market's graphs in the order of its column, from the definitions that compute it."""
    return {
        "schema": SCHEMA,
        "pipeline": "market",
        "definitions_version": DEFINITIONS_VERSION,
        "bar_seconds": BAR_SECONDS,
        "bars": ["time", *COLUMNS],
        "bars_to_keep": MIN_HISTORY_BARS,
        "round_step": float(round_step),
        "feature_hash": feature_hash(round_step=round_step),
        "features": [_entry(column, feature) for column, feature in enumerate(FEATURES)],
        "trade_state": list(TRADE_STATE),  # the position model's columns after the features
        "account_state": list(ACCOUNT_STATE),  # a risk head's columns
        "classes": {"signal": list(CLASSES), "position": list(POSITION_CLASSES)},
        "multiplier": list(MULTIPLIER_CLAMP),
        "profiles": [{"profile": one.number, "base_risk": one.base_risk, "confidence": one.confidence} for one in PROFILES],
    }


def _entry(column: int, feature: Feature) -> dict:
    table = next(name for name, rows in _TABLES.items() if feature in rows)
    return {
        "column": column,
        "name": feature.name,
        "dtype": "float64",
        "lookback": feature.lookback,
        "unit": feature.unit,
        "low": feature.low if math.isfinite(feature.low) else None,
        "high": feature.high if math.isfinite(feature.high) else None,
        "source": str(feature.source),
        "formula": feature.meaning,
        "reference": f"{definitions.__name__}.{table}",
    }


def log_schema() -> dict:
    """Of a line of the bot's log."""
    return document("TradeML decision log, one line", {"oneOf": [_line_schema(kind, shape) for kind, shape in LOG.items()]})


def shadow_schema() -> dict:
    """Of a line of the log of suggestions on trades."""
    ((kind, shape),) = SHADOW_SHAPES.items()
    return document("TradeML shadow log, one line", _line_schema(kind, shape))


def _line_schema(kind: str, shape: dict) -> dict:
    schema = schema_of_object(shape, is_closed=True)
    schema["properties"]["kind"] = {"const": kind}
    return schema


def account_schema() -> dict:
    """Of the account that a bot keeps over restarts."""
    return document("TradeML account", schema_of_object(ACCOUNT, is_closed=True))


DOCUMENTS = {
    "manifest": manifest_schema,
    "pointer": pointer_schema,
    "signature": signature_schema,
    "log": log_schema,
    "shadow": shadow_schema,
    "account": account_schema,
    "registry": registry,
}


def contract(name: str) -> dict:
    """One of `DOCUMENTS`. UsageError lists them."""
    return DOCUMENTS[choose(DOCUMENTS, name, "document")]()
