"""`strategy_params.json`: what whoever operates a bot needs to know of a revision, in one short file.

It repeats what the signed manifest says, for people and their scripts; a bot decides by the manifest.
"""

from trademl.risk.profiles import PROFILES
from trademl.ship.revision import Revision
from trademl.ship.shapes import HEX16, HEX64, NUMBER, UTC

SCHEMA = 1
SHAPE = {
    "schema": int,
    "revision": HEX16,
    "manifest_sha256": HEX64,
    "line": str,
    "symbol": str,
    "timeframe": str,
    "trained_at": UTC,
    "expires_at": (UTC, None),
    "gate": {"passed": bool, "sentence": str},
    "brackets": {"tp_atr": NUMBER, "sl_atr": NUMBER, "horizon_bars": int, "atr": str, "entry": str, "tie": str, "hash": HEX64},
    "rule": str,
    "exits": {"are_on": bool, "probability": NUMBER, "min_bars_held": int},
    "costs": {str: NUMBER},
    "multiplier": {"min": NUMBER, "max": NUMBER},
    "profiles": [
        {
            "profile": int,
            "margin_r": NUMBER,
            "edge_found": bool,
            "base_risk_pct": NUMBER,
            "max_total_drawdown_pct": NUMBER,
            "head": (str, None),
            "verdict": (str, None),
        }
    ],
}


def strategy_params(revision: Revision) -> dict:
    """The content of `strategy_params.json`: brackets, costs, and per profile the margin, the risk and the head that sizes.

    `head` names the graph of a published head; null: every trade is sized at multiplier 1.0.
    """
    manifest, section = revision.manifest, revision.manifest["market"]
    decision = section["decision"]
    return {
        "schema": SCHEMA,
        "revision": revision.name,
        "manifest_sha256": revision.manifest_sha256,
        "line": manifest["line"],
        "symbol": manifest["symbols"][0],
        "timeframe": manifest["timeframe"],
        "trained_at": manifest["trained_at"],
        "expires_at": manifest["expires_at"],
        "gate": {"passed": manifest["gate"]["passed"], "sentence": manifest["gate"]["sentence"]},
        "brackets": {name: section["label_spec"][name] for name in SHAPE["brackets"]},
        "rule": decision["rule"],
        "exits": {
            "are_on": decision["exits_on"],
            "probability": decision["exit_probability"],
            "min_bars_held": decision["min_bars_held"],
        },
        "costs": dict(section["costs"]),
        "multiplier": {"min": section["risk"]["multiplier_min"], "max": section["risk"]["multiplier_max"]},
        "profiles": [_profile(section, one) for one in PROFILES],
    }


def _profile(section: dict, profile) -> dict:
    entry = next((one for one in section["profiles"] if one["profile"] == profile.number), None)
    margin = section["decision"]["margins"][str(profile.number)]
    return {
        "profile": profile.number,
        "margin_r": margin["margin_r"],
        "edge_found": margin["edge_found"],
        "base_risk_pct": profile.base_risk_pct,
        "max_total_drawdown_pct": profile.max_total_drawdown_pct,
        "head": f"risk_p{profile.number}.onnx" if entry and entry["published"] else None,
        "verdict": entry and entry["verdict"],
    }
