"""Manifest 2: one common part, a section per pipeline; what is too old or too new is refused by name and kept."""

import json
from datetime import UTC, datetime

import make_revision as make
import numpy as np
import pytest

from trademl.errors import RevisionError
from trademl.files import canonical_json, digest, npz_bytes
from trademl.ship.export import regressor_graph
from trademl.ship.manifest import MIN_RUNTIME, SCHEMA, OldSchemaError, parse_manifest
from trademl.ship.revision import version_key
from trademl.ship.runtime import predict_onnx
from trademl.ship.store import State, Store

NOW = datetime(2026, 1, 3, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


# ---------------------------------------------------------------- a revision of the record pipeline


def trade_revision():
    """Four graphs with four lists of features and answers of their own, and the files that such a revision carries."""
    columns = {"quality": ("a", "b"), "sizing": ("a", "c", "d"), "tp": ("b", "d"), "sl": ("a", "b", "c", "d")}
    graphs, golden, models = {}, {}, []
    for name, features in columns.items():
        width = 4 if name == "tp" else 1
        table = make.stump(len(features), width, link="identity")
        graphs[f"{name}.onnx"] = graph = regressor_graph(table, clip=None, metadata={"training_run_id": make.RUN, "role": name})
        x = np.random.default_rng(2).normal(size=(4, len(features)))
        golden |= {f"{name}_x": x, f"{name}_value": predict_onnx(graph, x)["value"]}
        models.append(make.model(name, name, None, features) | {"outputs": [make.tensor("value", width)]})
    files = graphs | {
        "golden.npz": npz_bytes(golden),
        "quality_features.json": b"{}",
        "training_metadata.json": b"{}",
        "improvement_report.md": b"# Report",
        "improvement_report.html": b"<p>",
        "native/quality.ubj": b"{}",
    }
    common = {key: value for key, value in make.make_manifest().items() if key != "market"}
    line = {"pipeline": "trades", "line": "trades-all-records", "symbols": ["BTC", "ETH"], "timeframe": "records"}
    advice = {
        "calibration": None,
        "threshold": 0.55,
        "size_scale": None,
        "is_target_advised": False,
        "is_stop_advised": True,
        "withheld": {},
    }
    section = {"recipe": {}, "assets": ["BTC", "ETH"], "excursion_unit": "usd", "trades": 400, "advice": advice, "devices": {}}
    return files, common | line | {"models": models, "trades": section}


@pytest.mark.contract
def test_a_revision_of_four_trade_models_is_stored_proven_and_activated(store):
    files, manifest = trade_revision()
    revision = store.write(files, manifest, graphs=True)
    assert all(check.ok for check in revision.verify())
    store.activate(revision.name, now=NOW)
    assert store.active(NOW).compat["models"] == ["quality", "sizing", "tp", "sl"]
    assert "features" not in revision.compat  # four lists: which one, only the manifest can say


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"line": "trades-btc-records"}, "trades-all-records"),
        ({"trades": [1]}, "the section of its pipeline"),
        ({"symbols": ["BTC", "BTC"]}, "without repeats"),
        ({"trades": {"recipe": {}}}, "trades.assets is missing"),
    ],
)
def test_a_trade_revision_that_contradicts_itself_is_refused(store, change, says):
    files, manifest = trade_revision()
    with pytest.raises(RevisionError, match=says):
        store.write(files, manifest | change)


# ---------------------------------------------------------------- age


def test_from_its_expiry_on_a_revision_is_neither_activated_nor_loaded(store):
    revision = store.write(make.make_files(), make.make_manifest(expires_at="2026-02-01T00:00:00Z"))
    store.activate(revision.name, now=datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC))
    assert store.active(datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)).name == revision.name
    late = datetime(2026, 2, 1, tzinfo=UTC)
    for act in (lambda: store.activate(revision.name, now=late), lambda: store.active(late)):
        with pytest.raises(RevisionError, match=r"expired at 2026-02-01T00:00:00Z.*trademl retrain"):
            act()
    assert store.state(revision) is State.ACTIVE  # the pointer is what it is; who loads is told


def test_a_revision_that_needs_a_newer_trademl_is_refused_with_what_it_needs(store):
    revision = store.write(make.make_files(), make.make_manifest(min_runtime_version="99.0.0"))
    with pytest.raises(RevisionError, match=r"needs trademl 99\.0\.0 or newer, this is"):
        store.activate(revision.name, now=NOW)
    assert not (store.models_dir / "model_compat.json").exists()


def test_versions_are_compared_as_numbers():
    assert version_key("0.10.0") > version_key("0.9.9") > version_key(MIN_RUNTIME)
    assert version_key("0.3.0rc1") == version_key("0.3.0.dev4") == (0, 3, 0)  # the trademl that runs may be a candidate
    assert version_key("1.2rc1") == (1, 2)


# ---------------------------------------------------------------- an earlier trademl's


@pytest.fixture
def old(store):
    """The folder of a revision of schema 1, as an earlier trademl left it."""
    data = canonical_json(make.make_manifest() | {"schema": 1, "trained_at": "2026-06-01T00:00:00Z"})
    folder = store.folder / digest(data)[:16]
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(data)
    return folder


def test_a_revision_of_an_earlier_schema_is_listed_kept_and_in_nobodys_way(store, old):
    (broken,) = store.scan()[1]
    assert broken.is_old
    assert "written by an earlier trademl" in broken.problem
    assert "`trademl retrain` makes a new revision; this one is kept" in broken.problem
    newer = store.write(make.make_files(), make.make_manifest())
    assert store.locate().name == newer.name  # although the old one says that it is younger
    with store.lock():
        store.sweep()
    assert old.is_dir()


def test_it_is_neither_opened_nor_activated_nor_followed_by_the_pointer(store, old):
    for act in (lambda: store.open(old.name), lambda: store.activate(old.name, "because", now=NOW)):
        with pytest.raises(OldSchemaError):
            act()
    pointer = {"revision": old.name, "manifest_sha256": digest((old / "manifest.json").read_bytes())}
    (store.models_dir / "model_compat.json").write_text(json.dumps(pointer))
    with pytest.raises(OldSchemaError):
        store.active(NOW)
    newer = store.write(make.make_files(), make.make_manifest())
    assert store.activate(newer.name, now=NOW).previous == old.name


def test_a_later_schema_is_not_called_old():
    with pytest.raises(RevisionError, match="a newer one may be needed") as refusal:
        parse_manifest(canonical_json({"schema": SCHEMA + 1}))
    assert not isinstance(refusal.value, OldSchemaError)
