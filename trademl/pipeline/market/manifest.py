"""The manifest of a market revision, built from the records of the run."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from trademl import __version__
from trademl.clock import epoch_seconds, iso_z
from trademl.evidence.gate import GateVerdict
from trademl.files import digest, jsonable
from trademl.learn.ensemble import MODELS, FittedEnsemble
from trademl.learn.fits import Scaler
from trademl.market.features import FEATURES
from trademl.market.open_trade import POSITION_CLASSES, STATE_FEATURES
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged, Shipped
from trademl.market.warmstart import parameters_of
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.evidence import Finding
from trademl.pipeline.market.inputs import Inputs, constant_features
from trademl.pipeline.market.proof import GOLDEN_ROWS, Proven
from trademl.pipeline.market.risk import METADATA_FILE, RiskHeads, risk_verdicts
from trademl.pipeline.stored import Stored
from trademl.risk.profiles import PROFILES
from trademl.risk.state import MULTIPLIER_CLAMP
from trademl.risk.state import STATE_FEATURES as RISK_FEATURES
from trademl.ship.export import INPUT, OPSET
from trademl.ship.manifest import TOLERANCE
from trademl.validate.lineage import FitKind, Lineage
from trademl.validate.splits import Window

LIBRARIES = ("numpy", "scikit-learn", "xgboost", "lightgbm", "onnx", "onnxruntime", "numba", "pandas")


@dataclass(frozen=True)
class Trained:
    """Everything that a retrain made of a case."""

    judged: Judged
    finding: Finding
    shipped: Shipped
    proven: Proven
    heads: RiskHeads | None = None

    @property
    def lineage(self) -> Lineage:
        """Every fit behind what is stored: the shipped models' and the heads'."""
        return self.shipped.lineage if self.heads is None else self.shipped.lineage.add(*self.heads.fits())


def build_manifest(case: Case, trained: Trained, files: Mapping[str, bytes], metrics: Mapping, trained_at: str) -> dict:
    """The full record of a revision that holds these files; `metrics` is the record behind metrics.json."""
    judged, shipped, proven = trained.judged, trained.shipped, trained.proven
    record = {
        "schema": 1,
        "line": case.choice.line,
        "symbol": case.symbol,
        "timeframe": case.choice.timeframe,
        "exchange": None,
        "trained_at": trained_at,
        **_code(),
        "position_model": True,
        "trained_together": proven.run_id,
        "parent": judged.parent,
        "models": [*_models(shipped, files), *risk_models(files)],
        "devices": {role: _devices(fitted) for role, fitted in (("signal", shipped.signal), ("position", shipped.position))},
        "warmstart": judged.choice.record(),
        "ensemble": parameters_of(case.recipe.ensemble),
        **_features(case, judged),
        "label_spec": asdict(case.rows.spec) | {"hash": case.rows.spec.hash, "dynamic_sltp_required": True},
        "costs": asdict(case.rows.costs),
        "news_covers_until": case.inputs.news_covers_until,
        "lineage": _fits(trained.lineage),
        "data": _data(case.inputs),
        "split": _split(judged, trained.lineage),
        "decision": _decision(case, judged, shipped),
        **risk_record(files),
        "seed": case.recipe.seed,
        "metrics": {key: metrics[key] for key in ("headline", "signal_summary", "trades_summary")} | {"parity": proven.parity},
        "gate": _gate(trained.finding.verdict),
        "golden": {"file": "golden.npz", "rows": GOLDEN_ROWS, "tolerance": TOLERANCE},
        "expires_at": None,
    }
    return jsonable(record | ({} if case.tuned is None else {"tuning": case.tuned.record()}))


def rebuild_manifest(stored: Stored, heads: RiskHeads, files: Mapping[str, bytes], trained_at: str) -> dict:
    """The manifest of a revision that keeps a stored one's signal and position beside new risk heads."""
    before = {key: value for key, value in stored.revision.manifest.items() if key != "files"}
    return before | {
        "trained_at": trained_at,
        "parent": stored.name,
        "lineage": [*(fit for fit in before["lineage"] if fit["kind"] != FitKind.RISK_LABELS), *_fits(Lineage(heads.fits()))],
        "models": [*(model for model in before["models"] if model["role"] != "risk"), *risk_models(files)],
        **risk_record(files),
    }


# ---------------------------------------------------------------- graphs


def _models(shipped: Shipped, files: Mapping[str, bytes]) -> list[dict]:
    return [
        _model("signal", files, len(FEATURES), CLASSES) | _content(shipped.signal),
        _model("position", files, len(FEATURES) + len(STATE_FEATURES), POSITION_CLASSES) | _content(shipped.position),
    ]


def risk_models(files: Mapping[str, bytes]) -> list[dict]:
    """The entries of the risk graphs among `files`."""
    heads = sorted(name.removesuffix(".onnx") for name in files if name.startswith("risk_p") and name.endswith(".onnx"))
    return [_model("risk", files, len(RISK_FEATURES), None, name=name, members=("lgb",)) for name in heads]


def _model(role: str, files: Mapping[str, bytes], width: int, classes, *, name: str | None = None, members=MODELS) -> dict:
    """A graph's entry; `classes` is None for a graph that answers with a value."""
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


def risk_record(files: Mapping[str, bytes]) -> dict:
    """`profiles` and `risk`, from the heads' metadata among `files`."""
    if METADATA_FILE in files:
        profiles = risk_verdicts(json.loads(files[METADATA_FILE]))
    else:
        none = {"published": False, "verdict": "no risk head was trained: 1.0"}
        profiles = [{"profile": p.number, "max_total_drawdown_pct": p.max_total_drawdown_pct, **none} for p in PROFILES]
    low, high = MULTIPLIER_CLAMP
    return {"profiles": profiles, "risk": {"multiplier_min": low, "multiplier_max": high, "features": list(RISK_FEATURES)}}


# ---------------------------------------------------------------- how they were made and judged


def _features(case: Case, judged: Judged) -> dict:
    return {
        "features": [{"name": f.name, "dtype": "float64", "lookback": f.lookback} for f in FEATURES],
        "feature_count": len(FEATURES),
        "feature_hash": case.feature_hash,
        "constant_features": list(constant_features(case.rows)),
        "round_step": case.round_step,
        "scaler": {"sha256": _scaler_hash(judged.frozen.scaler), "n_features": len(FEATURES)},
    }


def _scaler_hash(scaler: Scaler) -> str:
    return hashlib.sha256(np.concatenate([scaler.mean, scaler.scale]).astype("<f8").tobytes()).hexdigest()


def _data(inputs: Inputs) -> dict:
    times = epoch_seconds(inputs.bars.index)
    return {
        "rows": len(inputs.bars),
        "first": iso_z(times[0]),
        "last": iso_z(times[-1]),
        "sha256": inputs.bars_sha256,
        "news_sha256": inputs.news_sha256,
        "source": inputs.choice.source,
    }


def _fits(lineage: Lineage) -> list[dict]:
    return json.loads(lineage.to_json())


def _split(judged: Judged, lineage: Lineage) -> dict:
    windows = judged.windows
    return {
        "scheme": "train | tune | select | final, walk-forward over select and final",
        "purge": "close of each label's exit bar",
        "embargo": windows.embargo_s,
        "windows": {str(name): asdict(windows.span(name)) for name in Window},
        "refits": [fold.start_s for fold in judged.signal.folds],
        "train_cutoff": {"judged": windows.span(Window.FINAL).start_s, "shipped": lineage.latest().label_end_s},
    }


def _decision(case: Case, judged: Judged, shipped: Shipped) -> dict:
    frozen, recipe = judged.frozen, case.recipe
    return {
        "rule": recipe.rule,
        "worth": frozen.worth.tolist(),
        "worth_shipped": shipped.worth.tolist(),
        "margins": {str(number): asdict(margin) for number, margin in frozen.margins.items()},
        "votes_gap": recipe.votes_gap,
        "exits_on": frozen.exits_on,
        "exit_probability": recipe.position.exit_probability,
        "exit_gain": asdict(frozen.exit_gain),
    }


def _gate(verdict: GateVerdict) -> dict:
    return {"passed": verdict.passed, "reasons": list(verdict.reasons), "sentence": verdict.sentence, "checks": verdict.checks}


def _code() -> dict:
    return {
        **_commit(),
        "trademl_version": __version__,
        "min_runtime_version": __version__,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }


def _commit() -> dict:
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
