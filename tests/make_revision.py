"""A small, real revision: two stump graphs, golden rows, a complete manifest. For tests of the store, the hub and the bot."""

import json

import numpy as np

from trademl.files import npz_bytes
from trademl.learn.treetable import assemble
from trademl.ship.export import ensemble_graph, regressor_graph
from trademl.ship.runtime import predict_onnx

RUN = "0123456789abcdef"
FEATURES = ("alpha", "beta", "gamma")
CLASSES = {"signal": ["SELL", "BUY", "HOLD"], "position": ["HOLD", "EXIT"]}
WIDTH = {"signal": len(FEATURES), "position": len(FEATURES) + 4}


def stump(width, columns, cut=0.5, link="softmax"):
    """One tree: the first feature decides between two leaves."""
    leaves = np.vstack([np.zeros(columns), np.linspace(-1, 1, columns), np.linspace(1, -1, columns)])
    nodes = {
        "feature": [0, 0, 0],
        "threshold": [cut, 0, 0],
        "left": [1, -1, -1],
        "right": [2, -1, -1],
        "missing_left": [True] * 3,
        "value": leaves,
        "cover": [2, 1, 1],
        "roots": [0],
        "tree_output": [-1],
    }
    return assemble(nodes, base=np.zeros(columns), link=link, n_features=width)


def graph(role, run=RUN, cut=0.5, classes=None, width=None, columns=None):
    """signal.onnx or position.onnx; `columns` are the features that it names."""
    classes, width = classes or CLASSES[role], width or WIDTH[role]
    k = len(classes)
    table = stump(width, k, cut)
    metadata = {"training_run_id": run, "role": role} | ({} if columns is None else {"features": json.dumps(columns)})
    scaler, calibration = (np.zeros(width), np.ones(width)), (np.ones(k), np.zeros(k))
    return ensemble_graph(scaler, [table], [1.0], calibration, names=("rf",), classes=classes, metadata=metadata)


def golden(graphs):
    """Rows and answers of both roles."""
    arrays = {}
    for role in CLASSES:
        x = np.random.default_rng(1).normal(size=(8, WIDTH[role]))
        arrays |= {f"{role}_x": x, f"{role}_probabilities": predict_onnx(graphs[role], x)["probabilities"]}
    return npz_bytes(arrays)


def make_files(run=RUN, cut=0.5, **changes):
    """name -> bytes."""
    graphs = {role: graph(role, run, cut) for role in CLASSES}
    files = {f"{role}.onnx": data for role, data in graphs.items()}
    risk = regressor_graph(stump(7, 1, link="identity"), clip=(0.1, 1.25), metadata={"training_run_id": run, "role": "risk"})
    files |= {
        "risk_p1.onnx": risk,
        "golden.npz": golden(graphs),
        "metrics.json": b"{}",
        "native/signal_rf.npz": npz_bytes({"x": np.arange(3.0)}),
    }
    return files | changes


def model(name, role, classes, width):
    """A `models` entry."""
    return {
        "name": name,
        "role": role,
        "file": f"{name}.onnx",
        "format": "onnx",
        "opset": 17,
        "input": {"name": "features", "dtype": "float64", "shape": ["N", width]},
        "classes": classes,
        "members": ["rf"] if classes else [],
    }


def make_manifest(run=RUN, trained_at="2026-01-02T03:04:05Z", passed=True, symbol="BTCUSD", timeframe="15min", **changes):
    """Complete but for what `Store.write` fills in."""
    record = {
        "schema": 1,
        "line": f"market-{symbol.lower()}-{timeframe}",
        "trained_at": trained_at,
        "git_commit": None,
        "dirty": None,
        "trademl_version": "0.1.0",
        "python": "3.11.7",
        "libraries": {"xgboost": "3.2.0"},
        "models": [*(model(role, role, CLASSES[role], WIDTH[role]) for role in CLASSES), model("risk_p1", "risk", None, 7)],
        "position_model": True,
        "trained_together": run,
        "features": [{"name": name, "dtype": "float64", "lookback": 14} for name in FEATURES],
        "feature_count": len(FEATURES),
        "feature_hash": "a" * 64,
        "scaler": {"sha256": "b" * 64, "n_features": len(FEATURES)},
        "label_spec": {"hash": "c" * 64, "dynamic_sltp_required": True, "tp_atr": 1.5},
        "news_covers_until": None,
        "lineage": [{"kind": "trees", "name": "rf", "revision": None, "label_end_s": 1_767_225_600, "rows": 5}],
        "decision": {"rule": "expected_r", "margins": {"1": {"margin_r": 0.1}}, "exits_on": False, "exit_probability": 0.5},
        "symbol": symbol,
        "timeframe": timeframe,
        "exchange": None,
        "data": {"rows": 5, "first": "2025-01-01T00:00:00Z", "last": "2026-01-01T00:00:00Z", "sha256": "d" * 64},
        "split": {"scheme": "walk-forward", "purge": "true exits", "embargo": 48},
        "profiles": [{"profile": 1, "max_total_drawdown_pct": 20, "verdict": "unpublished"}],
        "risk": {"multiplier_min": 0.1, "multiplier_max": 1.25, "features": ["equity_ratio"]},
        "metrics": {"log_loss": 1.08},
        "gate": {"passed": passed, "reasons": [] if passed else ["lower bound below zero"]},
        "golden": {"file": "golden.npz", "rows": 8, "tolerance": 1e-5},
        "min_runtime_version": "0.1.0",
        "expires_at": None,
    }
    return record | changes
