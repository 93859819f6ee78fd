"""What a revision holds: graphs, native files, out-of-sample table, golden rows, metrics, and the manifest that names them all."""

import hashlib
import io
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from trademl import __version__
from trademl.clock import epoch_seconds, iso_z, utc_now
from trademl.errors import Exit, UsageError
from trademl.evidence.gate import GateVerdict
from trademl.evidence.page import Evidence
from trademl.files import digest, jsonable, npz_bytes
from trademl.learn.ensemble import MODELS, FittedEnsemble, native_files
from trademl.market.features import FEATURES, feature_hash
from trademl.market.out_of_sample import oos_bytes, oos_frame
from trademl.market.position import POSITION_CLASSES, STATE_FEATURES
from trademl.market.recipe import MarketRows, Recipe
from trademl.market.specs import CLASSES, CostSpec
from trademl.market.walkforward import Judged, Shipped
from trademl.market.warmstart import Spread, parameters_of
from trademl.pipeline.market.choice import account_spec
from trademl.pipeline.market.evidence import score_signal
from trademl.pipeline.market.inputs import Inputs, constant_features, constant_sentence, describe_features, describe_labels
from trademl.pipeline.market.proof import GOLDEN_ROWS, Proven
from trademl.pipeline.market.risk import CLAMP, METADATA_FILE, TRADES_FILE, RiskTrained, risk_files, risk_verdicts, train_risk
from trademl.pipeline.market.tuning import Tuned
from trademl.risk.profiles import PROFILES
from trademl.risk.state import STATE_FEATURES as RISK_FEATURES
from trademl.settings import Settings
from trademl.ship.export import INPUT, OPSET
from trademl.ship.manifest import TOLERANCE
from trademl.ship.revision import Revision
from trademl.ship.store import Store
from trademl.validate.lineage import Lineage

LIBRARIES = ("numpy", "scikit-learn", "xgboost", "lightgbm", "onnx", "onnxruntime", "numba", "pandas")


def revision_files(
    rows: MarketRows, judged: Judged, shipped: Shipped, proven: Proven, metrics: Mapping, risk: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Every file of the revision but the manifest, by name; `risk` are the files of the heads."""
    scaler = judged.frozen.scaler
    return {
        **proven.graphs,
        **native_files(shipped.signal, "signal"),
        **native_files(shipped.position, "position"),
        "native/scaler.npz": npz_bytes({"mean": scaler.mean, "scale": scaler.scale}),
        "native/spread.npz": Spread.of(rows.x[shipped.signal_rows]).to_bytes(),
        "oos.parquet": oos_bytes(oos_frame(rows, judged)),
        "golden.npz": proven.golden,
        "metrics.json": json.dumps(jsonable(metrics), indent=1, sort_keys=True, ensure_ascii=False).encode(),
        **risk,
    }


def build_manifest(
    inputs: Inputs,
    rows: MarketRows,
    recipe: Recipe,
    settings: Settings,
    judged: Judged,
    shipped: Shipped,
    proven: Proven,
    verdict: GateVerdict,
    metrics: Mapping,
    files: Mapping[str, bytes],
    *,
    run_id: str,
    trained_at: str,
    parent: str | None = None,
) -> dict:
    """The full record of a revision; `files` are those that `revision_files` made."""
    frozen, choice = judged.frozen, inputs.choice
    step = settings.symbol(choice.symbol).round_step
    times = epoch_seconds(inputs.bars.index)
    record = {
        "schema": 1,
        "line": choice.line,
        "symbol": choice.symbol,
        "timeframe": choice.timeframe,
        "exchange": None,
        "trained_at": trained_at,
        **_code(),
        "trademl_version": __version__,
        "min_runtime_version": __version__,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "models": [
            _model("signal", files, len(FEATURES), CLASSES) | _content(shipped.signal),
            _model("position", files, len(FEATURES) + len(STATE_FEATURES), POSITION_CLASSES) | _content(shipped.position),
            *risk_models(files),
        ],
        "position_model": True,
        "trained_together": run_id,
        "parent": parent,
        "warmstart": judged.choice.record(),
        "ensemble": parameters_of(recipe.ensemble),
        "devices": {role: _devices(fitted) for role, fitted in (("signal", shipped.signal), ("position", shipped.position))},
        "features": [{"name": f.name, "dtype": "float64", "lookback": f.lookback} for f in FEATURES],
        "feature_count": len(FEATURES),
        "feature_hash": feature_hash(round_step=step),
        "constant_features": list(constant_features(rows)),
        "round_step": step,
        "scaler": {"sha256": _scaler_hash(frozen.scaler), "n_features": len(FEATURES)},
        "label_spec": asdict(rows.spec) | {"hash": rows.spec.hash, "dynamic_sltp_required": True},
        "costs": asdict(rows.costs),
        "news_covers_until": inputs.news_covers_until,
        "lineage": json.loads(shipped.lineage.to_json()),
        "data": {
            "rows": len(inputs.bars),
            "first": iso_z(times[0]),
            "last": iso_z(times[-1]),
            "sha256": inputs.bars_sha256,
            "news_sha256": inputs.news_sha256,
            "source": choice.source,
        },
        "split": {
            "scheme": "train | tune | select | final, walk-forward over select and final",
            "purge": "close of each label's exit bar",
            "embargo": judged.windows.embargo_s,
            "windows": {name: asdict(judged.windows.span(name)) for name in ("train", "tune", "select", "final")},
            "refits": [fold.start_s for fold in judged.signal.folds],
            "train_cutoff": {"judged": judged.windows.span("final").start_s, "shipped": shipped.lineage.latest().label_end_s},
        },
        "decision": {
            "rule": recipe.rule,
            "worth": frozen.worth.tolist(),
            "worth_shipped": shipped.worth.tolist(),
            "margins": {str(number): asdict(margin) for number, margin in frozen.margins.items()},
            "votes_gap": recipe.votes_gap,
            "exits_on": frozen.exits_on,
            "exit_probability": recipe.position.exit_probability,
            "exit_gain": asdict(frozen.exit_gain),
        },
        **risk_record(files),
        "seed": recipe.seed,
        "metrics": {key: metrics[key] for key in ("headline", "signal_summary", "trades_summary")} | {"parity": proven.parity},
        "gate": {"passed": verdict.passed, "reasons": list(verdict.reasons), "sentence": verdict.sentence, "checks": verdict.checks},
        "golden": {"file": "golden.npz", "rows": GOLDEN_ROWS, "tolerance": TOLERANCE},
        "expires_at": None,
    }
    return jsonable(record)


def _model(role: str, files: Mapping[str, bytes], width: int, classes, *, name: str | None = None, members=MODELS) -> dict:
    """A graph's entry in the manifest; `classes` is None for a graph that answers with a value."""
    name = name or role
    file = f"{name}.onnx"
    return {
        "name": name,
        "role": role,
        "file": file,
        "format": "onnx",
        "opset": OPSET,
        "sha256": digest(files[file]),
        "input": {"name": INPUT, "dtype": "float64", "shape": ["N", width]},
        "classes": None if classes is None else list(classes),
        "members": list(members),
    }


def _content(fitted: FittedEnsemble) -> dict:
    """Hash of each member's canonical arrays: equal models, whatever their files look like."""
    return {"content_hash": {name: table.content_hash() for name, table in zip(MODELS, fitted.tables, strict=True)}}


def _devices(fitted: FittedEnsemble) -> dict:
    return {name: asdict(where) for name, where in fitted.devices.items()}


def risk_models(files: Mapping[str, bytes]) -> list[dict]:
    """The manifest's entries of the risk graphs among `files`."""
    heads = sorted(name.removesuffix(".onnx") for name in files if name.startswith("risk_p") and name.endswith(".onnx"))
    return [_model("risk", files, len(RISK_FEATURES), None, name=name, members=("lgb",)) for name in heads]


def risk_record(files: Mapping[str, bytes]) -> dict:
    """`profiles` and `risk` of the manifest, from the heads' metadata among `files`."""
    if METADATA_FILE in files:
        profiles = risk_verdicts(json.loads(files[METADATA_FILE]))
    else:
        said = {"published": False, "verdict": "no risk head was trained: 1.0"}
        profiles = [{"profile": p.number, "max_total_drawdown_pct": p.max_total_drawdown_pct, **said} for p in PROFILES]
    return {"profiles": profiles, "risk": {"multiplier_min": CLAMP[0], "multiplier_max": CLAMP[1], "features": list(RISK_FEATURES)}}


def _scaler_hash(scaler) -> str:
    return hashlib.sha256(np.concatenate([scaler.mean, scaler.scale]).astype("<f8").tobytes()).hexdigest()


def _code() -> dict:
    """Commit and cleanliness of the clone that this package is imported from; nulls outside a clone."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return {"git_commit": None, "dirty": None}
    try:
        commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=20)
        status = subprocess.run(["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "dirty": None}
    return {"git_commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def store_revision(
    inputs: Inputs,
    rows: MarketRows,
    recipe: Recipe,
    settings: Settings,
    judged: Judged,
    shipped: Shipped,
    proven: Proven,
    evidence: Evidence,
    verdict: GateVerdict,
    run_id: str,
    risk: RiskTrained | None = None,
    tuned: Tuned | None = None,
) -> Revision:
    """Write the revision whole. The pointer moves last, when the run has its report (`market_jobs`), never from a notebook by hand."""
    store = Store(inputs.choice.models_dir)
    metrics = describe(inputs, rows, judged, shipped, settings, evidence, verdict)
    trained_at = iso_z(utc_now())
    if risk is not None:
        shipped = replace(shipped, lineage=shipped.lineage.add(risk.fit()))
    heads = {} if risk is None else risk_files(risk, run_id, trained_at)
    files = revision_files(rows, judged, shipped, proven, metrics, heads)
    manifest = build_manifest(
        inputs,
        rows,
        recipe,
        settings,
        judged,
        shipped,
        proven,
        verdict,
        metrics,
        files,
        run_id=run_id,
        trained_at=trained_at,
        parent=judged.parent,
    )
    if tuned is not None:
        manifest["tuning"] = jsonable(tuned.record())
    return store.write(files, manifest, graphs=True)


def describe(inputs, rows, judged, shipped, settings, evidence, verdict) -> dict:
    """`metrics.json`: everything that the report's pictures and tables need beside the out-of-sample table."""
    signal = score_signal(rows, judged, settings)
    final = signal["final"]
    return {
        "schema": 1,
        "headline": headline(inputs.choice.line, judged.windows.span("final"), verdict.sentence, edge_found(judged, settings)),
        "data": {"source": inputs.choice.sentence(), "issues": [asdict(issue) for issue in inputs.issues]},
        "labels": describe_labels(rows),
        "features": describe_features(rows),
        "complete_rows": int(np.isfinite(rows.x).all(axis=1).sum()),
        "signal": signal | {"weights": judged.frozen.signal_blend.weights.tolist(), "rounds": asdict(judged.frozen.signal_rounds)},
        "signal_summary": {key: final[key] for key in ("n", "log_loss", "prior_log_loss", "accuracy")},
        "position": {
            "rows": judged.position.final_rows,
            "log_loss": judged.position.log_loss,
            "baseline_log_loss": judged.position.baseline_log_loss,
            "rounds": asdict(judged.frozen.position_rounds),
        },
        "trades_summary": {"sentence": evidence.sentence},
        "warmstart": judged.choice.record(),
        "shipped": {"rows": len(shipped.signal_rows), "rounds": asdict(shipped.signal.rounds)},
    }


def edge_found(judged: Judged, settings: Settings) -> bool:
    """Whether select showed a margin with positive expectancy for the profile in use."""
    return judged.frozen.margins[settings.account.profile].edge_found


def headline(line: str, final, gate_sentence: str, found: bool) -> str:
    """The report's first line, but for the revision's name (which is the hash of a file that holds this)."""
    span = f"{iso_z(final.start_s)[:10]} to {iso_z(final.end_s)[:10]}"
    return f"{line}, judged {span}: {'' if found else 'no edge found; '}{gate_sentence}"


def summary_of(revision: Revision, evidence: Evidence, *, gated: bool = False) -> dict:
    """What a run hands back: revision, gate, headline, figures, exit code (3 when the run is `gated` and the gate refused)."""
    gate, manifest = revision.manifest["gate"], revision.manifest
    refused = gated and not gate["passed"]
    return {
        "revision": revision.name,
        "line": revision.manifest["line"],
        "headline": f"revision {revision.name}, {revision.manifest['metrics']['headline']}",
        "gate": {"passed": gate["passed"], "reasons": gate["reasons"]},
        "status": "refused" if refused else "done",
        "exit": int(Exit.GATE_REFUSED if refused else Exit.DONE),
        "start": manifest["warmstart"]["why"] if "warmstart" in manifest else None,
        "constant": constant_sentence(manifest.get("constant_features", ())) or None,
        "tuning": [f"{role} with {told['why']}" for role, told in manifest.get("tuning", {}).items() if "study" in told],
        "devices": manifest.get("devices", {}),
        "metrics": revision.manifest["metrics"],
        "backtest": evidence.to_json(),
    }


def store_risk(parent: Revision, settings: Settings) -> Revision:
    """`retrain --risk` alone: new heads on the trades that the parent kept, beside its signal and position, as a new revision."""
    kept = {entry["name"] for entry in parent.manifest["files"]}
    if TRADES_FILE not in kept:
        raise UsageError(f"revision {parent.name} holds no {TRADES_FILE}: it was made without risk heads; run a plain `trademl retrain`")
    trades = pd.read_parquet(io.BytesIO(parent.read(TRADES_FILE)))
    costs = CostSpec(**parent.manifest["costs"])
    trained = train_risk(trades, costs, account_spec(settings, parent.manifest["symbol"], settings.account.profile), settings)
    trained_at = iso_z(utc_now())
    files = {name: parent.read(name) for name in kept if "risk_" not in name}
    files |= risk_files(trained, parent.manifest["trained_together"], trained_at)
    lineage = [fit for fit in parent.manifest["lineage"] if fit["kind"] != "risk_labels"]
    manifest = {k: v for k, v in parent.manifest.items() if k != "files"} | risk_record(files)
    manifest |= {"trained_at": trained_at, "parent": parent.name, "lineage": [*lineage, *_fits(trained)]}
    manifest["models"] = [model for model in manifest["models"] if model["role"] != "risk"] + risk_models(files)
    store = Store(parent.folder.parents[1])
    return store.write(files, manifest, graphs=True)


def _fits(trained: RiskTrained) -> list[dict]:
    return json.loads(Lineage((trained.fit(),)).to_json())
