"""A market recipe's place in the project's chain of looks: its id, the entries it made, and what the stores at hand carry."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from trademl.clock import epoch_seconds, utc_now
from trademl.evidence.gate import GateVerdict, standing_verdict
from trademl.evidence.looks import CarriedLook, DataKind, Look, LookRequest, close_look, day_prints, open_look
from trademl.evidence.page import Evidence
from trademl.files import canonical_json, digest, jsonable
from trademl.market.backtest import Decisions, prepare
from trademl.market.rotation import entries_made
from trademl.market.specs import CostSpec, LabelSpec
from trademl.market.walkforward import Judged
from trademl.pipeline.choice import SYNTHETIC, looks_file, store_folder
from trademl.pipeline.market.case import Case
from trademl.pipeline.stored import Stored
from trademl.settings import Settings
from trademl.ship.store import Store
from trademl.validate.splits import Span

# Fields of a Recipe that change its models by chance, by place or by name only: another value is the same recipe.
NOT_PART = ("seed", "bootstrap_draws", "threads", "devices", "studies")


def ledger_file(settings: Settings) -> Path:
    """The ledger of an older version."""
    return Path(settings.paths.reports) / "ledger.jsonl"


# ---------------------------------------------------------------- which recipe


def recipe_parts(case: Case) -> dict:
    """What makes a recipe this one and no other, as JSON has it: a manifest keeps it, and a replay under another rule changes it.

    Not part are what `NOT_PART` names, the data and the calendar, and the windows: with them a recipe would be judged anew at will.
    """
    recipe, profile = case.recipe, case.profile
    parts = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__ if name not in NOT_PART}
    parts |= {"margins": sorted({*recipe.margins}), "floors": recipe.floors[profile], "confidence": recipe.confidence[profile]}
    parts["position_ensemble"] = recipe.position_ensemble or recipe.ensemble
    parts["warm"] = recipe.warm if recipe.warm is not None and recipe.warm.enabled else None
    return jsonable(parts | {"features": case.feature_hash, "label_spec": case.rows.spec.hash, "costs": case.rows.costs})


def parts_id(parts: dict) -> str:
    """The id of a recipe made of these parts, 16 hex."""
    return digest(canonical_json(parts))[:16]


def recipe_id(case: Case) -> str:
    """The id of a case's recipe, 16 hex."""
    return parts_id(recipe_parts(case))


# ---------------------------------------------------------------- which entries


def entries_of(bars: pd.DataFrame, decisions: Decisions, spec: LabelSpec, costs: CostSpec, span: Span) -> np.ndarray:
    """The entries that decisions make within a span, int64 (n, 3): decision time, side, when the position rule leaves (0: it does not).

    One position at a time, without halts; what the trades earn is not asked.
    """
    closes = epoch_seconds(bars.index) + spec.bar_seconds
    inside = (closes >= span.start_s) & (closes < span.end_s)
    made = entries_made(prepare(bars, spec), replace(decisions, side=np.where(inside, decisions.side, 0)), costs)
    leave_s = np.where(made.hold > 0, closes[np.minimum(made.at + made.hold, len(closes) - 1)], 0)
    return np.column_stack([closes[made.at], made.side, leave_s]).astype(np.int64)


def decisions_of(entries: np.ndarray, time_s: np.ndarray) -> tuple[Decisions, int]:
    """Recorded entries as decisions on bars with these decision times (n,), and how many fall on a bar that is not there."""
    side, exit_bar = np.zeros(len(time_s), np.int8), np.full(len(time_s), -1, np.int64)
    at = np.searchsorted(time_s, entries[:, 0]).clip(max=len(time_s) - 1)
    known = time_s[at] == entries[:, 0]
    at, entries = at[known], entries[known]  # a bar may be missing from a later export
    side[at] = entries[:, 1]
    leave = np.searchsorted(time_s, entries[:, 2])
    exit_bar[at] = np.where((entries[:, 2] > 0) & (leave < len(time_s)), leave, -1)
    return Decisions(side, exit_bar), int((~known).sum())


# ---------------------------------------------------------------- the request


def look_request(case: Case, judged: Judged, run_id: str) -> LookRequest:
    """What a retrain is about to judge."""
    rows, span = case.rows, judged.windows.span("final")
    return LookRequest(
        line=case.choice.line,
        data=DataKind.EMBEDDED if case.choice.is_synthetic else DataKind.MARKET,
        recipe=recipe_id(case),
        run_id=run_id,
        start_s=span.start_s,
        end_s=span.end_s,
        first_s=int(rows.time_s[rows.first]),
        alpha=case.settings.gate.level,
        prints=day_prints(rows.bars),
        entries=entries_of(rows.bars, judged.decisions(rows, case.recipe, case.profile), rows.spec, rows.costs, span),
    )


def stored_request(
    stored: Stored,
    bars: pd.DataFrame,
    entries: np.ndarray,
    span: Span,
    *,
    run_id: str,
    alpha: float,
    rule: str | None = None,  # another rule than its own is another recipe
    note: str = "",  # what was varied without being another recipe
) -> LookRequest:
    """What a backtest of a stored revision is about to judge."""
    closes = epoch_seconds(bars.index) + stored.label_spec.bar_seconds
    return LookRequest(
        line=stored.line,
        data=DataKind.EMBEDDED if stored.data.embedded else DataKind.MARKET,
        recipe=parts_id(stored.recipe | ({"rule": str(rule)} if rule else {})),
        run_id=run_id,
        start_s=span.start_s,
        end_s=span.end_s,
        first_s=int(closes[0]),
        alpha=alpha,
        prints=day_prints(bars),
        entries=entries,
        note=note,
    )


# ---------------------------------------------------------------- the look


def take_look(settings: Settings, models_dir: str | Path, request: LookRequest) -> Look:
    """Write the look into the project's chain, before any figure of it is shown; LooksError: none may be shown."""
    stores = {Path(folder) for folder in (models_dir, store_folder(settings, settings.market.symbol), store_folder(settings, SYNTHETIC))}
    carried = carried_looks(Store(folder) for folder in sorted(stores))
    return open_look(looks_file(settings), request, now=utc_now(), carried=carried, ledger=ledger_file(settings))


def under_look(settings: Settings, look: Look, evidence: Evidence) -> Evidence:
    """The evidence under the look's verdict: its own, which the chain then keeps, or the one that stands."""
    if look.standing is None:
        verdict = evidence.verdict
        close_look(looks_file(settings), look, passed=verdict.record_passed, sentence=verdict.record_sentence, now=utc_now())
        return evidence
    return evidence.under(stands_for(evidence.verdict, look.to_json()["standing"]))


def stands_for(now: GateVerdict, standing: Mapping) -> GateVerdict:
    """The verdict that stands in place of the one that was just made; `standing` as a manifest keeps it."""
    return standing_verdict(now, **{name: standing[name] for name in ("passed", "level", "words", "sentence")})


def carried_looks(stores: Iterable[Store]) -> list[CarriedLook]:
    """The looks that the readable revisions of these stores carry, under `look` in their manifests."""
    found = ((revision.name, revision.manifest.get("look")) for store in stores for revision in store.revisions())
    return [CarriedLook(name, look["project"], look["hash"], look["number"]) for name, look in found if look]
