"""The manifest of a market revision, built from the records of the run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import numpy as np

from trademl import __version__
from trademl.clock import epoch_seconds, iso_z
from trademl.evidence.shap_summary import SHAP_SCHEMA
from trademl.files import canonical_json, digest, jsonable
from trademl.learn.ensemble import MODELS, FittedEnsemble
from trademl.learn.fits import Scaler
from trademl.market.features import FEATURES
from trademl.market.open_trade import POSITION_CLASSES, STATE_FEATURES
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged, Shipped
from trademl.market.warmstart import parameters_of
from trademl.pipeline.code import code_record
from trademl.pipeline.market.alarms import LeakAlarms
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.evidence import Finding
from trademl.pipeline.market.explain import Explanation
from trademl.pipeline.market.golden import GOLDEN_FILE, GOLDEN_ROWS
from trademl.pipeline.market.inputs import Inputs, constant_features
from trademl.pipeline.market.looks import recipe_parts
from trademl.pipeline.market.proof import Proven
from trademl.pipeline.market.risk import METADATA_FILE, RiskHeads, risk_verdicts
from trademl.pipeline.stored import Stored
from trademl.risk.profiles import PROFILES
from trademl.risk.state import MULTIPLIER_CLAMP
from trademl.risk.state import STATE_FEATURES as RISK_FEATURES
from trademl.settings import Settings
from trademl.ship.export import INPUT, OPSET
from trademl.ship.manifest import SCHEMA, TOLERANCE
from trademl.validate.fingerprints import fingerprints
from trademl.validate.lineage import FitKind, Lineage
from trademl.validate.splits import Window


@dataclass(frozen=True)
class Trained:
    """Everything that a retrain made of a case."""

    judged: Judged
    finding: Finding
    shipped: Shipped
    proven: Proven
    heads: RiskHeads | None
    alarms: LeakAlarms
    explained: Explanation | None = None  # None: --no-shap

    @property
    def lineage(self) -> Lineage:
        """Every fit behind what is stored: the shipped models' and the heads'."""
        return self.shipped.lineage if self.heads is None else self.shipped.lineage.add(*self.heads.fits())


def build_manifest(case: Case, trained: Trained, files: Mapping[str, bytes], metrics: Mapping, trained_at: str) -> dict:
    """The full record of a revision that holds these files; `metrics` is the record behind metrics.json."""
    judged, shipped = trained.judged, trained.shipped
    record = {
        "schema": SCHEMA,
        "pipeline": "market",
        "line": case.choice.line,
        "symbols": [case.symbol],
        "timeframe": case.choice.timeframe,
        "trained_at": trained_at,
        "expires_at": expiry_of(trained_at, case.settings),
        **code_record(),
        "models": [*_models(case, shipped, files), *risk_models(files)],
        "trained_together": trained.proven.run_id,
        "parent": judged.parent,
        "seed": case.recipe.seed,
        "lineage": _fits(trained.lineage),
        "data": _data(case.inputs),
        "split": _split(judged, trained.lineage),
        "metrics": {key: metrics[key] for key in ("headline", "signal_summary", "trades_summary")} | {"parity": trained.proven.parity},
        "gate": trained.finding.verdict.to_json(),
        "look": trained.finding.look.to_json(),
        "golden": {"file": GOLDEN_FILE, "rows": GOLDEN_ROWS, "tolerance": TOLERANCE},
        "explained": None if trained.explained is None else {"rows": len(trained.explained.rows.x), "schema": SHAP_SCHEMA},
        "champion": None if trained.finding.champion is None else asdict(trained.finding.champion),
        "market": _section(case, judged, shipped) | {"leaks": trained.alarms.record()} | risk_record(files, case.recipe.seed),
    }
    return jsonable(record)


def _section(case: Case, judged: Judged, shipped: Shipped) -> dict:
    """The market section, but for the risk heads."""
    spec = case.rows.spec
    section = {
        "recipe": recipe_parts(case),
        "position_model": True,
        "exchange": None,
        "round_step": case.round_step,
        "constant_features": list(constant_features(case.rows)),
        "scaler": {"sha256": _scaler_hash(judged.frozen.scaler), "n_features": len(FEATURES)},
        "label_spec": asdict(spec) | {"hash": spec.hash, "dynamic_sltp_required": True},
        "costs": asdict(case.rows.costs),
        "news_covers_until": case.inputs.news_covers_until,
        "decision": _decision(case, judged, shipped),
        "ensemble": parameters_of(case.recipe.ensemble),
        "devices": {role: _devices(fitted) for role, fitted in (("signal", shipped.signal), ("position", shipped.position))},
        "warmstart": judged.choice.record(),
    }
    return section | ({} if case.tuned is None else {"tuning": case.tuned.record()})


def expiry_of(trained_at: str, settings: Settings) -> str | None:
    """When a revision of this moment expires under `[ship] max_age_days`; None: never."""
    days = settings.ship.max_age_days
    return iso_z(datetime.fromisoformat(trained_at) + timedelta(days=days)) if days else None


def rebuild_manifest(stored: Stored, heads: RiskHeads, files: Mapping[str, bytes], settings: Settings, trained_at: str) -> dict:
    """The manifest of a revision that keeps a stored one's signal and position beside new risk heads."""
    before = {key: value for key, value in stored.revision.manifest.items() if key != "files"}
    return before | {
        "trained_at": trained_at,
        "expires_at": min(filter(None, (before["expires_at"], expiry_of(trained_at, settings))), default=None),  # the signal ages on
        "parent": stored.name,
        "lineage": [*(fit for fit in before["lineage"] if fit["kind"] != FitKind.RISK_LABELS), *_fits(Lineage(heads.fits()))],
        "models": [*(model for model in before["models"] if model["role"] != "risk"), *risk_models(files)],
        "market": before["market"] | risk_record(files, settings.run.seed),
    }


# ---------------------------------------------------------------- graphs


def _models(case: Case, shipped: Shipped, files: Mapping[str, bytes]) -> list[dict]:
    signal = [_feature(feature.name, feature.lookback) for feature in FEATURES]
    position = [*signal, *(_feature(name) for name in STATE_FEATURES)]
    return [
        _model("signal", "signal", files, signal, case.feature_hash) | _votes(CLASSES) | _content(shipped.signal),
        _model("position", "position", files, position, hash_of(case.feature_hash, STATE_FEATURES))
        | _votes(POSITION_CLASSES)
        | _content(shipped.position),
    ]


def _votes(classes: Sequence[str]) -> dict:
    """What an ensemble's graph answers: calibrated probabilities, each member's own, and the most probable class."""
    own = _tensor("model_probabilities", len(MODELS) * len(classes))
    label = {"name": "label", "dtype": "int64", "shape": ["N"]}
    return {"outputs": [_tensor("probabilities", len(classes)), own, label], "classes": list(classes), "members": list(MODELS)}


def risk_models(files: Mapping[str, bytes]) -> list[dict]:
    """The entries of the risk graphs among `files`."""
    heads = sorted(name.removesuffix(".onnx") for name in files if name.startswith("risk_p") and name.endswith(".onnx"))
    features = [_feature(name) for name in RISK_FEATURES]
    answer = {"outputs": [_tensor("value", 1)], "classes": None, "members": ["lgb"]}
    return [_model(name, "risk", files, features, hash_of("", RISK_FEATURES)) | answer for name in heads]


def _model(name: str, role: str, files: Mapping[str, bytes], features: list[dict], feature_hash: str) -> dict:
    """A graph's entry, but for what it answers."""
    file = f"{name}.onnx"
    return {
        "name": name,
        "role": role,
        "file": file,
        "format": "onnx",
        "opset": OPSET,
        "sha256": digest(files[file]),
        "input": _tensor(INPUT, len(features), "float64"),
        "features": features,
        "feature_hash": feature_hash,
    }


def _feature(name: str, lookback: int = 0) -> dict:
    """A column of a graph's input; a state of a trade or of an account looks back at no bar."""
    return {"name": name, "dtype": "float64", "lookback": lookback}


def _tensor(name: str, width: int, dtype: str = "float32") -> dict:
    return {"name": name, "dtype": dtype, "shape": ["N", width]}


def hash_of(first: str, names: Sequence[str]) -> str:
    """sha256 over the hash of the features that come first and the names behind them."""
    return digest(canonical_json({"first": first, "names": list(names)}))


def _content(fitted: FittedEnsemble) -> dict:
    """Hash of each member's canonical arrays: equal models, whatever their files look like."""
    return {"content_hash": {name: table.content_hash() for name, table in zip(MODELS, fitted.tables, strict=True)}}


def _devices(fitted: FittedEnsemble) -> dict:
    return {name: asdict(where) for name, where in fitted.devices.items()}


def risk_record(files: Mapping[str, bytes], seed: int) -> dict:
    """`profiles` and `risk`, from the heads' metadata among `files`."""
    if METADATA_FILE in files:
        profiles = risk_verdicts(json.loads(files[METADATA_FILE]))
    else:
        none = {"published": False, "verdict": "no risk head was trained: 1.0"}
        profiles = [{"profile": p.number, "max_total_drawdown_pct": p.max_total_drawdown_pct, **none} for p in PROFILES]
    low, high = MULTIPLIER_CLAMP
    return {"profiles": profiles, "risk": {"multiplier_min": low, "multiplier_max": high, "seed": seed, "trademl_version": __version__}}


# ---------------------------------------------------------------- how they were made and judged


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
        "prints": fingerprints(inputs.bars).to_text(),
        "embedded": inputs.choice.is_synthetic,
        "symbol": inputs.said_symbol,
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
        "judged_profile": case.profile,
        "worth": frozen.worth.tolist(),
        "worth_shipped": shipped.worth.tolist(),
        "margins": {str(number): asdict(margin) for number, margin in frozen.margins.items()},
        "votes_gap": recipe.votes_gap,
        "exits_on": frozen.exits_on,
        "exit_probability": recipe.position.exit_probability,
        "min_bars_held": recipe.position.min_bars_held,
        "exit_gain": asdict(frozen.exit_gain),
    }
