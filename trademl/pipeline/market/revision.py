"""What a revision holds: graphs, native files, out-of-sample table, golden rows, metrics and risk heads; and how it is stored."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from trademl.bot.contract import registry
from trademl.clock import iso_z, utc_now
from trademl.errors import Exit
from trademl.evidence.page import Evidence
from trademl.files import canonical_json, jsonable, npz_bytes, read_npz
from trademl.learn.ensemble import native_files
from trademl.learn.refresh import Spread
from trademl.market.out_of_sample import out_of_sample_frame, parquet_bytes
from trademl.pipeline.choice import store_of
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.evidence import score_signal
from trademl.pipeline.market.explain import with_heads
from trademl.pipeline.market.golden import GOLDEN_FILE
from trademl.pipeline.market.inputs import constant_sentence, describe_features, describe_labels, symbol_sentence
from trademl.pipeline.market.manifest import Trained, build_manifest, rebuild_manifest
from trademl.pipeline.market.parameters import account_spec
from trademl.pipeline.market.risk import fit_heads, kept_trades, risk_files
from trademl.pipeline.stored import Stored
from trademl.settings import Settings
from trademl.ship.contents import SHAP_SUMMARY


def store_revision(case: Case, trained: Trained) -> Stored:
    """Write the revision whole. The pointer moves last, when the run has its report (`commands`), never from a notebook by hand."""
    metrics, trained_at = describe(case, trained), iso_z(utc_now())
    heads, golden = ({}, {}) if trained.heads is None else risk_files(trained.heads, trained.proven.run_id, trained_at)
    files = revision_files(case, trained, metrics) | heads | {GOLDEN_FILE: npz_bytes({**trained.proven.golden, **golden})}
    manifest = build_manifest(case, trained, files, metrics, trained_at)
    return Stored(store_of(case.settings, case.choice.models_dir).write(files, manifest, graphs=True))


def revision_files(case: Case, trained: Trained, metrics: Mapping) -> dict[str, bytes]:
    """Every file of the revision but the manifest, the golden rows and the risk heads, by name."""
    judged, shipped, scaler = trained.judged, trained.shipped, trained.judged.frozen.scaler
    return {
        **trained.proven.graphs,
        **native_files(shipped.signal, "signal"),
        **native_files(shipped.position, "position"),
        "native/scaler.npz": npz_bytes({"mean": scaler.mean, "scale": scaler.scale}),
        "native/spread.npz": Spread.of(case.rows.x[shipped.signal_rows]).to_bytes(),
        "oos.parquet": parquet_bytes(out_of_sample_frame(case.rows, judged, trained.finding.entries, trained.finding.look.start_s)),
        "registry.json": canonical_json(registry(case.round_step)),
        "metrics.json": json.dumps(jsonable(metrics), indent=1, sort_keys=True, ensure_ascii=False).encode(),
        **({} if trained.explained is None else trained.explained.files()),
    }


def describe(case: Case, trained: Trained) -> dict:
    """`metrics.json`: everything that the report's pictures and tables need beside the out-of-sample table."""
    judged, shipped, frozen = trained.judged, trained.shipped, trained.judged.frozen
    signal = score_signal(case, judged)
    return {
        "schema": 1,
        "headline": headline(case, trained),
        "data": {"source": case.choice.sentence(), "issues": [asdict(issue) for issue in case.inputs.issues]},
        "labels": describe_labels(case.rows),
        "features": describe_features(case.rows),
        "complete_rows": int(np.isfinite(case.rows.x).all(axis=1).sum()),
        "signal": signal | {"weights": frozen.signal_blend.weights.tolist(), "rounds": asdict(frozen.signal_rounds)},
        "signal_summary": {key: signal["final"][key] for key in ("n", "log_loss", "prior_log_loss", "accuracy")},
        "position": {
            "rows": judged.position.final_rows,
            "log_loss": judged.position.log_loss,
            "baseline_log_loss": judged.position.baseline_log_loss,
            "rounds": asdict(frozen.position_rounds),
        },
        "trades_summary": _trades_summary(trained.finding.evidence),
        "warmstart": judged.choice.record(),
        "shipped": {"rows": len(shipped.signal_rows), "rounds": asdict(shipped.signal.rounds)},
    }


def _trades_summary(evidence: Evidence) -> dict:
    """What a list of revisions shows of the judged trades; the gate's own figures stand beside it in the manifest."""
    figures = evidence.strategy
    return {"sentence": evidence.sentence, "trades": figures.trades, "expectancy_net_r": figures.expectancy_net_r.value}


def headline(case: Case, trained: Trained) -> str:
    """The report's first line, but for the revision's name (which is the hash of a file that holds this)."""
    look = trained.finding.look
    return f"{case.choice.line}, judged {iso_z(look.start_s)[:10]} to {iso_z(look.end_s)[:10]}: {trained.finding.verdict.sentence}"


def summary_of(stored: Stored, evidence: Evidence, *, gated: bool = False) -> dict:
    """What a run hands back: revision, gate, headline, figures, exit code (3 when the run is `gated` and the gate refused)."""
    refused = gated and not stored.gate.passed
    return {
        "revision": stored.name,
        "line": stored.line,
        "headline": f"revision {stored.name}, {stored.headline}",
        "gate": asdict(stored.gate),
        "looks": stored.look.number,
        "look": stored.look.summary(),
        "status": "refused" if refused else "done",
        "exit": int(Exit.GATE_REFUSED if refused else Exit.DONE),
        "start": stored.start.why,
        "unknown_symbol": symbol_sentence(stored.data.symbol, stored.symbol) or None,
        "constant": constant_sentence(stored.constant_features) or None,
        "leaks": list(stored.leaks.sentences) if stored.leaks.alarms else [],
        "tuning": [f"{role} with {why}" for role, why in stored.studies.items()],
        "devices": stored.devices,
        "metrics": stored.figures,
        "backtest": evidence.to_json(),
        "data": asdict(stored.data),
    }


def store_risk(stored: Stored, settings: Settings) -> Stored:
    """`retrain --risk` alone: new heads on the trades that a revision kept, beside its signal and position, as a new revision."""
    trades = kept_trades(stored)
    stored.revision.check_signature()  # its signal and position are about to be signed again
    heads = fit_heads(trades, stored.costs, account_spec(settings, stored.symbol, settings.account.profile), settings)
    trained_at = iso_z(utc_now())
    files = {file.name: stored.read(file.name) for file in stored.files if "risk_" not in file.name}
    fresh, golden = risk_files(heads, stored.run_id, trained_at)
    kept = {name: rows for name, rows in read_npz(stored.read(GOLDEN_FILE)).items() if not name.startswith("risk_")}
    files |= fresh | {GOLDEN_FILE: npz_bytes(kept | golden)}
    if stored.is_explained:
        files[SHAP_SUMMARY] = with_heads(stored, heads)
    return Stored(stored.store.write(files, rebuild_manifest(stored, heads, files, settings, trained_at), graphs=True))
