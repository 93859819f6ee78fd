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
STATES = {"signal": (), "position": ("held", "pnl", "r", "direction")}
COLUMNS = {role: (*FEATURES, *states) for role, states in STATES.items()}
WIDTH = {role: len(columns) for role, columns in COLUMNS.items()}
ACCOUNT = ("ratio", "drawdown", "wr10", "wr20", "pf10", "losses", "atr")


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
    """Rows and answers of every graph."""
    arrays = {}
    for name, data in graphs.items():
        answer = "value" if name.startswith("risk") else "probabilities"
        x = np.random.default_rng(1).normal(size=(8, WIDTH.get(name, len(ACCOUNT))))
        arrays |= {f"{name}_x": x, f"{name}_{answer}": predict_onnx(data, x)[answer]}
    return npz_bytes(arrays)


def make_files(run=RUN, cut=0.5, **changes):
    """name -> bytes."""
    graphs = {role: graph(role, run, cut) for role in CLASSES}
    table = stump(len(ACCOUNT), 1, link="identity")
    graphs["risk_p1"] = regressor_graph(table, clip=(0.1, 1.25), metadata={"training_run_id": run, "role": "risk"})
    files = {f"{name}.onnx": data for name, data in graphs.items()}
    files |= {"golden.npz": golden(graphs), "metrics.json": b"{}", "native/signal_rf.npz": npz_bytes({"x": np.arange(3.0)})}
    return files | changes


def tensor(name, width, dtype="float32"):
    """An input or output of a graph."""
    return {"name": name, "dtype": dtype, "shape": ["N", width]}


def model(name, role, classes, columns):
    """A `models` entry."""
    answer = tensor("value", 1) if classes is None else tensor("probabilities", len(classes))
    return {
        "name": name,
        "role": role,
        "file": f"{name}.onnx",
        "format": "onnx",
        "opset": 17,
        "input": tensor("features", len(columns), "float64"),
        "outputs": [answer],
        "features": [{"name": column, "dtype": "float64", "lookback": 14} for column in columns],
        "feature_hash": "a" * 64,
        "classes": classes,
        "members": ["rf"] if classes else [],
    }


def make_manifest(run=RUN, trained_at="2026-01-02T03:04:05Z", passed=True, symbol="BTCUSD", timeframe="15min", **changes):
    """Complete but for what `Store.write` fills in; a change of the market section is given by its key alone."""
    section = {
        "position_model": True,
        "exchange": None,
        "recipe": {"rule": "expected_r"},
        "scaler": {"sha256": "b" * 64, "n_features": len(FEATURES)},
        "label_spec": {"hash": "c" * 64, "dynamic_sltp_required": True, "tp_atr": 1.5},
        "round_step": 1000,
        "costs": {"spread": 1.0},
        "ensemble": {"rf_trees": 1},
        "warmstart": {"start": "cold", "why": "trained from nothing, as asked", "generation": 0},
        "devices": {},
        "news_covers_until": None,
        "decision": {
            "rule": "expected_r",
            "worth": [[-1.0, 1.875, -1.0], [1.875, -1.0, -1.0]],
            "worth_shipped": [[-1.0, 1.875, -1.0], [1.875, -1.0, -1.0]],
            "judged_profile": 3,
            "margins": {str(profile): {"margin_r": 0.1, "edge_found": True} for profile in range(1, 6)},
            "votes_gap": 0.1,
            "exits_on": False,
            "exit_probability": 0.5,
            "min_bars_held": 1,
        },
        "profiles": [{"profile": 1, "max_total_drawdown_pct": 20, "published": False, "verdict": "unpublished"}],
        "risk": {"multiplier_min": 0.1, "multiplier_max": 1.25},
    }
    record = {
        "schema": 3,
        "pipeline": "market",
        "line": f"market-{symbol.lower()}-{timeframe}",
        "symbols": [symbol],
        "timeframe": timeframe,
        "trained_at": trained_at,
        "git_commit": None,
        "dirty": None,
        "trademl_version": "0.3.0",
        "min_runtime_version": "0.3.0",
        "python": "3.11.7",
        "libraries": {"xgboost": "3.2.0"},
        "models": [*(model(role, role, CLASSES[role], COLUMNS[role]) for role in CLASSES), model("risk_p1", "risk", None, ACCOUNT)],
        "trained_together": run,
        "parent": None,
        "seed": 7,
        "lineage": [{"kind": "trees", "name": "rf", "revision": None, "label_end_s": 1_767_225_600, "rows": 5}],
        "data": {"rows": 5, "first": "2025-01-01T00:00:00Z", "last": "2026-01-01T00:00:00Z", "sha256": "d" * 64},
        "split": {
            "scheme": "walk-forward",
            "purge": "true exits",
            "embargo": 48,
            "refits": [2],
            "windows": {name: {"start_s": n, "end_s": n + 1} for n, name in enumerate(("train", "tune", "select", "final"))},
        },
        "metrics": {"log_loss": 1.08},
        "look": {
            "number": 1,
            "level": 0.01,
            "days": [0, 86_400],
            "project": "ab",
            "hash": "d" * 64,
            "record": "d" * 64,
            "words": "look 1 at these days, judged at 1 %",
            "family_level": 0.01,
            "standing": None,
            "remarks": [],
        },
        "gate": {
            "passed": passed,
            "reasons": [] if passed else ["lower bound below zero"],
            "sentence": f"Gate {'passed' if passed else 'refused'} at 1 %.",
            "level": 0.01,
            "checks": {"limits": {"passed": True}},
            "terms": {"level": 0.01, "min_trades": 30, "number": 1, "objections": []},
        },
        "golden": {"file": "golden.npz", "rows": 8, "tolerance": 1e-5},
        "expires_at": None,
    }
    inside = {key: value for key, value in changes.items() if key in section}
    return record | {"market": section | inside} | {key: value for key, value in changes.items() if key not in section}
