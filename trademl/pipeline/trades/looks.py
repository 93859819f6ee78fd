"""A trade recipe's place in the project's chain of looks: its id, what it would trade, and the fingerprints of the records."""

import numpy as np

from trademl.clock import DAY_S
from trademl.evidence.looks import DataKind, LookRequest
from trademl.files import canonical_json, digest, jsonable
from trademl.pipeline.trades.case import JudgedTrades, TradeCase
from trademl.pipeline.trades.inputs import LINE
from trademl.trades.labels import REACHED
from trademl.trades.models import QUANTILE, TASKS
from trademl.trades.policy import policy_sizes
from trademl.trades.registry import TradeModel, features_table
from trademl.trades.rows import TradeRows

MARKS_A_DAY = 24
MILLI = 1_000  # sizes stand in the chain in thousandths
RECORD = 10_000  # what the mark of a trade's record is multiplied by, to stand before its size where a market's entry says when it leaves


def recipe_parts(case: TradeCase) -> dict:
    """What makes the recipe this one and no other: registry, flags and label policy. Neither the records nor the seed."""
    flags, trades = case.inputs.flags, case.recipe.teaching(case.rows)
    labels = {"reached": REACHED, "quantile": QUANTILE, "clip": {str(model): task.clip for model, task in TASKS.items()}}
    asked = {"is_real_only": flags.real_only, "bench": flags.bench, "weights": flags.weights, "parts": case.recipe.parts}
    grown = {str(model): vars(case.recipe.grown(model, trades)) for model in TradeModel}
    kept = {"kept": {str(model): names for model, names in case.recipe.kept.items()}} if case.recipe.kept else {}
    chained = {"is_chained": True} if case.rows.is_chained else {}
    return jsonable({"registry": digest(features_table().encode()), "labels": labels, "params": grown} | asked | kept | chained)


def marks_of(rows: TradeRows) -> dict[int, str]:
    """Fingerprints of each UTC day's trades, 12 hex each, at most 24 a day."""
    found: dict[int, list[str]] = {}
    for asset, time in zip(rows.columns["asset"].tolist(), rows.columns["timestamp"].tolist(), strict=True):
        marks = found.setdefault(time // 1_000 // DAY_S, [])
        if len(marks) < MARKS_A_DAY:
            marks.append(digest(f"{asset} {time}".encode())[:12])
    return {day: " ".join(marks) for day, marks in found.items()}


def record_marks(rows: TradeRows, at: np.ndarray) -> np.ndarray:
    """A number for the record of each of the trades `at`, below 2^32: trades of the same second are told apart by it. int64 (len(at),)"""
    return np.array([int(digest(str(name).encode())[:8], 16) for name in rows.columns["id"][at]], np.int64)


def entries_of(rows: TradeRows, at: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The trades `at` that are taken, as the chain keeps them, int64 (n, 3): decision, side, record and size."""
    side = np.where(rows.columns["signal_direction"][at] == "short", -1, 1)
    named = RECORD * record_marks(rows, at) + np.round(MILLI * sizes).astype(np.int64)
    return np.column_stack([rows.time_s[at], side, named])[sizes > 0].astype(np.int64)


def sizes_in(entries: np.ndarray, rows: TradeRows, at: np.ndarray) -> np.ndarray:
    """The sizes (len(at),) of the trades `at` in a chain's entries; 0 = not taken."""
    size_at = {(time, named // RECORD): named % RECORD / MILLI for time, _, named in entries.tolist()}
    keys = zip(rows.time_s[at].tolist(), record_marks(rows, at).tolist(), strict=True)
    return np.array([size_at.get(key, 0.0) for key in keys])


def look_request(case: TradeCase, judged: JudgedTrades, run_id: str) -> LookRequest:
    """What a training is about to judge: the trades of the last third, under sizes that are fixed before any of their outcomes is seen."""
    rows = case.rows
    at, sizes = policy_sizes(rows, judged.models)
    time_s = rows.time_s[at]
    return LookRequest(
        line=LINE,
        data=DataKind.MARKET,
        recipe=digest(canonical_json(recipe_parts(case)))[:16],
        run_id=run_id,
        start_s=int(time_s[0]),
        end_s=int(time_s[-1]) + 1,
        first_s=int(rows.time_s[0]),
        alpha=case.settings.gate.level,
        prints=marks_of(rows),
        entries=entries_of(rows, at, sizes),
        is_one_at_a_time=False,
    )
