"""JSON Schemas of what lies in a store, written from the very tables that check it here."""

import re
from collections.abc import Mapping

from trademl.ship.manifest import COMMON, SCHEMA, SECTIONS
from trademl.ship.shapes import DIALECT, HEX16, HEX64, UTC, schema_of_object

SIGNATURE = {"key": HEX16, "signature": re.compile("[0-9a-f]{128}")}
POINTER = {
    "pipeline": str,
    "line": str,
    "trained_at": UTC,
    "trained_together": HEX16,
    "models": [str],
    "revision": HEX16,
    "manifest_sha256": HEX64,
}
MARKET_POINTER = {"feature_count": int, "features": [str], "feature_hash": HEX64, "position_model": bool, "label_spec_hash": HEX64}
ACTIVATION = {"at": UTC, "by": re.compile("gate|hand"), "previous": (HEX16, None), "reason": (str, None)}


def document(title: str, schema: Mapping) -> dict:
    """A schema as a document of its own."""
    return {"$schema": DIALECT, "title": title} | dict(schema)


def manifest_schema() -> dict:
    """Of `manifest.json`: the common part, and the section that belongs to the pipeline."""
    common = _table(COMMON)
    common["properties"]["schema"] |= {"const": SCHEMA}
    common["properties"]["pipeline"] |= {"enum": list(SECTIONS)}
    sections = [_where("pipeline", name, {"required": [name], "properties": {name: _table(rows)}}) for name, rows in SECTIONS.items()]
    return document("TradeML manifest", common | {"allOf": sections})


def pointer_schema() -> dict:
    """Of `model_compat.json`, in the store (with `activation`: when, by whom, why) and in a revision (without)."""
    pointer = schema_of_object(POINTER)
    pointer["properties"]["activation"] = schema_of_object(ACTIVATION)
    return document("TradeML pointer", pointer | {"allOf": [_where("pipeline", "market", schema_of_object(MARKET_POINTER))]})


def signature_schema() -> dict:
    """Of `manifest.sig`."""
    return document("TradeML signature", schema_of_object(SIGNATURE, is_closed=True))


def _table(rows: Mapping) -> dict:
    return schema_of_object({key: shape for key, (shape, _) in rows.items()}, {key: meaning for key, (_, meaning) in rows.items()})


def _where(key: str, value: str, schema: Mapping) -> dict:
    return {"if": {"properties": {key: {"const": value}}}, "then": dict(schema)}
