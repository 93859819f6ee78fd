"""The golden files of docs/contract: a small store, bars, and what a bot decides on them, for readers in other languages.

`TRADEML_PIN=1 pytest tests/test_contract.py` writes them anew; read the diff before you commit it.
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import make_revision as make
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from trademl.bot import AccountState, Bars, Calendar, Expect, OpenPosition, load_approved
from trademl.bot.contract import DOCUMENTS, contract
from trademl.clock import epoch_seconds, iso_z
from trademl.data.news import high_impact_usd
from trademl.data.synthetic import synthetic_market
from trademl.files import canonical_json, digest, npz_bytes
from trademl.learn.treetable import assemble
from trademl.market.features import FEATURES, feature_hash, feature_matrix, last_row
from trademl.market.open_trade import POSITION_CLASSES, OpenTrade, position_input
from trademl.market.open_trade import STATE_FEATURES as TRADE_STATE
from trademl.market.specs import CLASSES, CostSpec, LabelSpec
from trademl.risk.state import MULTIPLIER_CLAMP
from trademl.risk.state import STATE_FEATURES as ACCOUNT_STATE
from trademl.ship.export import ensemble_graph, regressor_graph
from trademl.ship.runtime import predict_onnx
from trademl.ship.signing import KeyFolder, PublicKey
from trademl.ship.store import Store

BARS, CLOSES = 2_060, 24  # the newest closes are decided on, each with the 2,000 bars up to it
NAMES, MEMBERS = [feature.name for feature in FEATURES], ("rf", "xgb", "lgb")
WIDE = [*NAMES, *TRADE_STATE]
SPEC, COSTS = LabelSpec(), CostSpec(spread=2.0, commission=0.5, slippage=0.25)
TRAINED_AT, NOW = "2024-01-22T00:00:00Z", datetime(2024, 2, 1, tzinfo=UTC)
PHRASE = b"TradeML's golden files: everybody can make this key, so it must never be trusted elsewhere"


def golden_key(folder: Path) -> KeyFolder:
    """A pair that everybody can make: the files that it signs are an example, not a secret."""
    private = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(PHRASE).digest())
    keys = KeyFolder(folder)
    folder.mkdir(parents=True)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    keys.private.touch(0o600)
    keys.private.write_bytes(pem)
    keys.trusted.write_text(f"{PublicKey(private.public_key().public_bytes_raw())}\n")
    return keys


def stumps(width: int, splits, link: str):
    """One tree of two leaves for each (feature, threshold, value below, value above)."""
    parts = [([feature, 0, 0], [threshold, 0, 0], [0 * np.array(low), low, high]) for feature, threshold, low, high in splits]
    first = np.arange(0, 3 * len(parts), 3)
    nodes = {
        "feature": np.concatenate([part[0] for part in parts]),
        "threshold": np.concatenate([part[1] for part in parts]),
        "value": np.concatenate([np.array(part[2], float) for part in parts]),
        "left": np.column_stack([first + 1, *[np.full(len(parts), -1)] * 2]).ravel(),
        "right": np.column_stack([first + 2, *[np.full(len(parts), -1)] * 2]).ravel(),
        "missing_left": [True] * 3 * len(parts),
        "cover": [2, 1, 1] * len(parts),
        "roots": first,
        "tree_output": [-1] * len(parts),
    }
    return assemble(nodes, base=np.zeros(len(splits[0][2])), link=link, n_features=width)


def leaning(*splits):
    """Stumps on the features: above the threshold (of the scaled feature) BUY gains, below it SELL."""
    way = np.array([-1.0, 1.0, 0.0])
    return stumps(len(NAMES), [(NAMES.index(name), at, -by * way, by * way) for name, at, by in splits], "softmax")


def market() -> tuple[Bars, Calendar]:
    """Bars with short numbers, and a calendar that is known far ahead."""
    made = synthetic_market(BARS, edge=0.5, seed=12)
    columns = [np.round(made.bars[name].to_numpy(), 2) for name in ("open", "high", "low", "close", "volume")]
    bars = Bars(epoch_seconds(made.bars.index), *columns)
    timed, all_day = high_impact_usd(made.events)
    return bars, Calendar(timed, all_day, int(bars.time[-1]) + 3 * 86_400)


def golden_models(bars: Bars, calendar: Calendar) -> tuple[dict[str, bytes], tuple[np.ndarray, np.ndarray]]:
    """(files, scaler): three small ensembles on the features, a position model, a risk head, and golden rows of each."""
    x = feature_matrix(*bars, calendar.times, all_day_times=calendar.all_day_times)
    x = x[np.isfinite(x).all(axis=1)]
    scaler = np.round(x.mean(axis=0), 6), np.maximum(np.round(x.std(axis=0), 6), 1e-3)
    rf = leaning(("rsi_14", 0.1, 0.5), ("bb_upper", 0.2, 0.4))
    xgb = leaning(("return_1", -0.2, 0.8), ("ema_slope_5", 0.3, -0.6))
    lgb = leaning(("volume_surge", 0.0, 0.9), ("session_hour_sin", 0.4, 0.3))
    told = {"training_run_id": make.RUN, "features": json.dumps(NAMES)}
    calibration = np.array([1.1, 0.9, 1.0]), np.array([0.05, 0.1, -0.15])
    signal = ensemble_graph(scaler, [rf, xgb, lgb], [0.5, 0.3, 0.2], calibration, names=MEMBERS, classes=CLASSES, metadata=told)
    width, leave = len(WIDE), np.array([-1.0, 1.0])
    held = stumps(width, [(width - 2, 0.3, -0.7 * leave, 0.7 * leave), (width - 4, 0.1, -0.4 * leave, 0.4 * leave)], "softmax")
    wide, told = tuple(np.append(part, [fill] * 4) for part, fill in zip(scaler, (0.0, 1.0))), told | {"features": json.dumps(WIDE)}
    even = np.ones(2), np.zeros(2)
    position = ensemble_graph(wide, [held], [1.0], even, names=("rf",), classes=POSITION_CLASSES, metadata=told)
    drawdown = stumps(len(ACCOUNT_STATE), [(ACCOUNT_STATE.index("drawdown_from_peak"), 0.05, [1.1], [0.35])], "identity")
    risk = regressor_graph(drawdown, clip=MULTIPLIER_CLAMP, metadata={"training_run_id": make.RUN})
    state = np.random.default_rng(3).normal(size=(8, 4))
    rows = {"signal": x[:8], "position": position_input(x[:8], state), "risk_p3": np.random.default_rng(4).uniform(size=(8, 7))}
    graphs = {"signal": signal, "position": position, "risk_p3": risk}
    answers = {
        f"{name}_{answer}": values
        for name, graph in graphs.items()
        for answer, values in predict_onnx(graph, rows[name]).items()
        if answer != "label"
    }
    files = {f"{name}.onnx": graph for name, graph in graphs.items()}
    files["golden.npz"] = npz_bytes({f"{name}_x": row for name, row in rows.items()} | answers)
    files["native/scaler.npz"] = npz_bytes({"mean": scaler[0], "scale": scaler[1]})
    files["registry.json"] = canonical_json(contract("registry"))
    return files, scaler


def golden_manifest(scaler: tuple[np.ndarray, np.ndarray]) -> dict:
    """A whole manifest, as a retrain writes it."""
    lookback = {feature.name: feature.lookback for feature in FEATURES}

    def columns(names):
        return [{"name": name, "dtype": "float64", "lookback": lookback.get(name, 1)} for name in names]

    hashed = {"feature_hash": feature_hash(round_step=1000.0)}
    own = {"name": "model_probabilities", "dtype": "float32", "shape": ["N", 9]}
    signal = make.model("signal", "signal", list(CLASSES), NAMES) | {"features": columns(NAMES), "members": list(MEMBERS)} | hashed
    position = make.model("position", "position", list(POSITION_CLASSES), WIDE) | {"features": columns(WIDE)} | hashed
    head = make.model("risk_p3", "risk", None, ACCOUNT_STATE) | {"features": columns(ACCOUNT_STATE)}
    decision = make.make_manifest()["market"]["decision"] | {"exits_on": True, "exit_probability": 0.6}
    section = {
        "scaler": {"sha256": digest(np.concatenate([part.astype("<f8") for part in scaler]).tobytes()), "n_features": len(NAMES)},
        "label_spec": asdict(SPEC) | {"hash": SPEC.hash, "dynamic_sltp_required": True},
        "costs": asdict(COSTS),
        "news_covers_until": "2024-02-01T00:00:00Z",
        "decision": decision | {"margins": {str(n): {"margin_r": 0.05, "edge_found": True} for n in range(1, 6)}},
        "profiles": [{"profile": 3, "max_total_drawdown_pct": 40, "published": True, "verdict": "an example"}],
    }
    data = {"rows": BARS, "first": "2024-01-01T00:00:00Z", "last": "2024-01-22T10:45:00Z", "sha256": "d" * 64}
    models = [signal | {"outputs": [*signal["outputs"], own]}, position, head]
    return make.make_manifest(trained_at=TRAINED_AT, symbol="SYNTH", models=models, data=data, libraries={}, **section)


def cases(bars: Bars) -> list[dict]:
    """What a bot is asked at the newest closes: accounts that win and lose, trades that are open, one calendar that ends too soon."""
    asked = []
    for number, t in enumerate(range(BARS - CLOSES, BARS)):
        losing = AccountState.opened("market-synth-15min", 3, 10_000.0)
        for k in range(number):
            losing = losing.after(-1.0 if k % 3 else 1.4, losing.equity * (0.985 if k % 3 else 1.021))
        side, held = (1, -1)[number % 2], number % 5
        entry = {"side": side, "entry_price": float(bars.open[t - held + 1]), "stop_distance": 150.0} if held else None
        position = entry and entry | {"decided_bar_s": int(bars.time[t - held])}
        asked.append({"row": t, "account": losing.record(), "open_position": position, "calendar_is_known": number != 7})
    return asked


def decided(predictor, bars: Bars, calendar: Calendar, asked: dict) -> dict:
    """What the code says of a case: what its graphs are given, and what follows from their answers."""
    t, policy = asked["row"], predictor.loaded.policy
    tail = Bars(*(column[t - 1_999 : t + 1] for column in bars))
    known = calendar if asked["calendar_is_known"] else Calendar(calendar.times, calendar.all_day_times, int(bars.time[t]))
    now = datetime.fromtimestamp(int(bars.time[t]) + 901, UTC)
    decision = predictor.predict(tail, known, asked["account"], asked["open_position"], now)
    x = last_row(tail, calendar.times, all_day_times=calendar.all_day_times)
    if not asked["calendar_is_known"]:
        x[-4:] = np.nan
    held = asked["open_position"] and OpenPosition.of(asked["open_position"])
    state = held and OpenTrade(held.side, held.entry_price, held.stop_distance).state(decision.position.bars_held, tail.close[-1], SPEC)
    own = policy.probabilities(x[None])[1][0]
    return asked | {
        "bar_utc": iso_z(decision.bar_s),
        "features": [float(value) if np.isfinite(value) else None for value in x],
        "atr": decision.atr,
        "account_state": AccountState.of(asked["account"]).features(decision.atr / tail.close[-1]).tolist(),
        "trade_state": None if held is None else state[0].tolist(),
        "bars_held": None if held is None else decision.position.bars_held,
        "expected": {
            "probabilities": None if decision.probabilities is None else list(decision.probabilities.values()),
            "model_probabilities": None if decision.probabilities is None else own.tolist(),
            "votes": None if decision.votes is None else list(decision.votes.values()),
            "expected_r": None if decision.expected_r is None else list(decision.expected_r.values()),
            "cost_r": decision.cost_r,
            "side": decision.side,
            "size_multiplier": decision.size_multiplier,
            "effective_risk": decision.effective_risk,
            "stop_distance": decision.stop_distance,
            "target_distance": decision.target_distance,
            "exit_probability": decision.position.exit_probability if held else None,
            "leave": decision.position.leave if held else None,
        },
    }


def load(folder: Path):
    """The golden store, loaded as a bot does; its key is pinned in golden/keys.json."""
    keys = json.loads((folder / "keys.json").read_text())["pinned"]
    return load_approved(folder / "models", keys, profile=3, expect=Expect("SYNTH"), now=NOW)


def write(folder: Path, scratch: Path) -> None:
    """docs/contract, all but its README."""
    for name in DOCUMENTS:
        (folder / file_of(name)).write_text(as_text(contract(name)))
    golden = folder / "golden"
    if golden.exists():
        for path in golden.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(golden)
    golden.mkdir(parents=True)
    keys, (bars, calendar) = golden_key(scratch / "keys"), market()
    (golden / "keys.json").write_text(as_text({"pinned": [str(key) for key in keys.trust().pinned]}))
    columns = {name: column.tolist() for name, column in bars._asdict().items()}
    news = {
        "times": calendar.times.tolist(),
        "all_day_times": list(map(int, calendar.all_day_times)),
        "covers_until": calendar.covers_until,
    }
    (golden / "bars.json").write_text(json.dumps({"symbol": "SYNTH", **columns, "calendar": news}, separators=(",", ":")) + "\n")
    files, scaler = golden_models(bars, calendar)
    store = Store(golden / "models", keys.trust())
    store.activate(store.write(files, golden_manifest(scaler), graphs=True).name, by_gate=True, now=NOW)
    for left in (".staging", ".lock", ".lock.holder"):
        shutil.rmtree(golden / "models" / left, ignore_errors=True)
        (golden / "models" / left).unlink(missing_ok=True)
    rows = [decided(load(golden), bars, calendar, asked) for asked in cases(bars)]
    record = {"profile": 3, "tolerance": 1e-5, "cases": rows}
    (golden / "decisions.json").write_text(json.dumps(record, separators=(",", ":")).replace('{"row"', '\n{"row"') + "\n")


def file_of(name: str) -> str:
    """The file of one of `DOCUMENTS`."""
    return "registry.json" if name == "registry" else f"{name}.schema.json"


def as_text(record: dict) -> str:
    """A document as it lies there."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
