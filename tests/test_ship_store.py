"""The store: whole revisions or none, nothing altered goes unseen, and one pointer that moves last."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import make_revision as make
import numpy as np
import onnx
import pytest

from trademl.errors import Exit, LockedError, RevisionError, UsageError
from trademl.files import canonical_json, digest, npz_bytes, read_npz
from trademl.ship import contents
from trademl.ship import manifest as m
from trademl.ship.lock import StoreLock
from trademl.ship.revision import Revision, read_revision
from trademl.ship.runtime import check_graph
from trademl.ship.store import State, Store

FILES = make.make_files()
NOW = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


def write(store, **changes):
    return store.write(FILES, make.make_manifest(**changes))


def unlock(folder):
    """Make a sealed folder writable, as somebody with the rights would."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


# ---------------------------------------------------------------- what a revision is


@pytest.mark.contract
def test_a_revision_is_written_whole_named_by_its_hash_and_read_only(store):
    revision = write(store)
    folder = store.models_dir / "revisions" / revision.name
    assert revision.folder == folder
    assert revision.name == digest((folder / "manifest.json").read_bytes())[:16]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {*FILES, "manifest.json", "model_compat.json"}
    for path in (folder, *folder.rglob("*")):
        assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    assert list((store.models_dir / ".staging").iterdir()) == []
    for name, data in FILES.items():
        assert revision.read(name) == data


@pytest.mark.contract
def test_model_compat_holds_the_originals_keys(store):
    revision = write(store)
    compat = json.loads((revision.folder / "model_compat.json").read_bytes())
    assert compat["feature_count"] == 3
    assert compat["feature_hash"] == "a" * 64
    assert compat["features"] == ["alpha", "beta", "gamma"]
    assert compat["trained_at"] == "2026-01-02T03:04:05Z"
    assert compat["models"] == ["rf"]
    assert compat["position_model"] is True
    assert compat["line"] == "market-btcusd-15min"
    assert compat["revision"] == revision.name
    assert compat["manifest_sha256"] == revision.manifest_sha256


@pytest.mark.contract
def test_every_check_is_made_and_named(store):
    done = write(store).verify()
    assert [check.name for check in done] == [
        "signature", "manifest", "files", "hashes", "scaler", "explanation", "model_compat", "graphs", "trained together", "golden rows",
    ]  # fmt: skip
    assert all(check.ok and check.detail for check in done)


def test_the_same_revision_twice_is_the_same_folder(store):
    first = write(store)
    inode = first.folder.stat().st_ino
    assert write(store) == first
    assert first.folder.stat().st_ino == inode
    assert len(store.revisions()) == 1


def test_revisions_come_newest_first_and_open_by_prefix(store):
    old, new = write(store, trained_at="2026-01-02T00:00:00Z"), write(store, trained_at="2026-01-03T00:00:00Z")
    assert [r.name for r in store.revisions()] == [new.name, old.name]
    assert store.open() == new
    assert store.open(old.name[:8]) == old
    for rev in ("", "zz", "../" + old.name, old.name + "0", "f" * 16, old.name.upper() + "X"):
        with pytest.raises(RevisionError, match="revision"):
            store.open(rev)


def test_an_ambiguous_prefix_is_refused(store):
    write(store)
    for name in ("abc0" * 4, "abc1" * 4):
        (store.folder / name).mkdir()
    with pytest.raises(RevisionError, match="2 revisions named abc"):
        store.open("abc")


def test_an_empty_store_says_what_to_do(store):
    assert store.revisions() == []
    assert store.active() is None
    with pytest.raises(RevisionError, match="trademl retrain"):
        store.open()
    assert not store.models_dir.exists()  # reading makes nothing


def test_an_unreadable_folder_is_shown_and_never_skipped_over(store):
    revision = write(store)
    (store.folder / "feedfeedfeedfeed").mkdir()
    good, broken = store.scan()
    assert good == [revision]
    assert broken[0].folder.name == "feedfeedfeedfeed"
    with pytest.raises(RevisionError, match="cannot be determined"):
        store.open()
    assert store.open(revision.name) == revision


def test_one_store_holds_one_line(store):
    write(store)
    with pytest.raises(UsageError, match="--models-dir") as refusal:
        write(store, symbol="XAUUSD")
    assert refusal.value.exit_code == Exit.USAGE
    with pytest.raises(UsageError, match="market-btcusd-15min"):
        store.check_line("market-btcusd-1h")
    store.check_line("market-btcusd-15min")


# ---------------------------------------------------------------- the manifest


@pytest.mark.contract
def test_every_field_of_the_manifest_is_required():
    whole = json.loads(canonical_json(complete()))
    m.check_manifest(whole)
    for key in (*m.COMMON, "market"):
        with pytest.raises(RevisionError, match=key):
            m.check_manifest({k: v for k, v in whole.items() if k != key})
    for key in m.MARKET:
        with pytest.raises(RevisionError, match=f"market.{key} is missing"):
            m.check_manifest(whole | {"market": {k: v for k, v in whole["market"].items() if k != key}})
    m.check_manifest(whole | {"a_later_addition": 1, "market": whole["market"] | {"another": 2}})
    for key in (*m.COMMON, *(f"market.{key}" for key in m.MARKET)):
        assert f"`{key}`" in m.field_table()


def complete(**changes):
    files = [{"name": n, "sha256": digest(d), "bytes": len(d)} for n, d in sorted(FILES.items())]
    record = make.make_manifest(**changes) | {"files": files}
    models = [entry | {"sha256": digest(FILES[entry["file"]])} for entry in record["models"]]
    return record | {"models": models} | {key: value for key, value in changes.items() if key not in (record["market"] or ())}


@pytest.mark.parametrize(
    "changes",
    [
        {"scaler": {"sha256": "b" * 64, "n_features": 2}},
        {"symbols": []},
        {"symbols": ["BTCUSD", "ETHUSD"]},
        {"pipeline": "dreams"},
        {"pipeline": "trades"},
        {"market": None},
        {"min_runtime_version": "new"},
        {"trained_at": "2026-01-02 03:04:05"},
        {"line": "market-ethusd-15min"},
        {"line": "../x"},
        {"position_model": False},
        {"trained_together": "short"},
        {"models": []},
        {"golden": {"file": "other.npz", "rows": 8, "tolerance": 1e-5}},
        {"golden": {"file": "golden.npz", "rows": 8}},
        {"data": {"rows": 1.5, "first": "2025-01-01T00:00:00Z", "last": "2026-01-01T00:00:00Z", "sha256": "d" * 64}},
        {"gate": {"passed": 1, "reasons": []}},
        {"libraries": {"numpy": 2}},
        {"files": []},
        {"files": [{"name": "../x.json", "sha256": "a" * 64, "bytes": 1}]},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes):
    with pytest.raises(RevisionError, match=r"manifest.json|file name"):
        m.check_manifest(complete(**changes))


@pytest.mark.fault
@pytest.mark.parametrize(
    "data",
    [
        b'{"schema":1,"schema":1}',
        b'{"schema":NaN}',
        b'{"schema":Infinity}',
        b'{"schema":1e999}',
        b"[1]",
        b'"text"',
        b"",
        b"{",
        b'\xef\xbb\xbf{"schema":1}',
        b'{"schema":"\xff"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"a":"' + b"x" * (300 * 1024) + b'"}',
        b'{"schema":1}',
        b'{"schema":3}',
        b'{"schema":1.0}',
        b'{"schema":true}',
        b"{}",
    ],
    ids=lambda data: data[:24].decode("latin1"),
)
def test_bytes_that_are_not_a_strict_manifest_are_refused(data):
    with pytest.raises(RevisionError, match=r"manifest\.json"):
        m.parse_manifest(data)


def test_only_the_canonical_bytes_are_the_manifest():
    record = complete()
    data = canonical_json(record)
    assert m.parse_manifest(data) == record
    assert canonical_json(dict(reversed(record.items()))) == data
    for other in (json.dumps(record).encode(), data + b"\n", json.dumps(record, separators=(",", ":")).encode()):
        with pytest.raises(RevisionError, match="canonical"):
            m.parse_manifest(other)
    for value in (float("nan"), {1, 2}, "\ud800"):
        with pytest.raises(UsageError, match="canonical"):
            m.manifest_bytes({"x": value})


def test_the_training_run_id_depends_on_its_inputs_and_on_nothing_else():
    one = m.training_run_id({"bars": "x", "seed": 1})
    assert one == m.training_run_id({"seed": 1, "bars": "x"})
    assert one != m.training_run_id({"seed": 2, "bars": "x"})
    assert len(one) == 16


HOSTILE = [
    "../x.json",
    "/etc/x.json",
    "C:/x.json",
    "a\\b.json",
    "a\0b.json",
    "con.json",
    "native/nul.txt",
    "Signal.onnx",
    "a//b.json",
    "x" * 64 + ".json",
    ".hidden.json",
    "a/b/c.json",
    "native/../x.json",
    "",
    "é.json",
    "e\u0301.json",
    "a.json ",
    "a.json.",
    "model.pkl",
    "model.joblib",
    "a\n.json",
    "~/x.json",
    "-rf.json",
    "manifest.json",
    "manifest.sig",
    "model_compat.json",
    "ﬁle.json",
]


@pytest.mark.fault
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_names_are_refused_in_writing_and_in_a_manifest(store, name):
    with pytest.raises(RevisionError, match="not allowed"):
        store.write(FILES | {name: b"x"}, make.make_manifest())
    with pytest.raises(RevisionError, match=r"not allowed|manifest.json: files"):
        m.check_manifest(complete() | {"files": [{"name": name, "sha256": "a" * 64, "bytes": 1}]} | {"models": complete()["models"]})
    assert not store.models_dir.exists()


@pytest.mark.fault
def test_too_many_files_are_refused(store):
    with pytest.raises(RevisionError, match="at most 64"):
        store.write(FILES | {f"f{n}.json": b"{}" for n in range(64)}, make.make_manifest())


def test_a_manifest_that_names_a_file_nobody_gave_is_refused(store):
    with pytest.raises(RevisionError, match=r"signal|golden"):
        store.write({k: v for k, v in FILES.items() if k != "signal.onnx"}, make.make_manifest())
    with pytest.raises(RevisionError, match="bytes, at most"):
        store.write(FILES, make.make_manifest(metrics={"x": "y" * 300_000}))
    assert not store.models_dir.exists()


# ---------------------------------------------------------------- tampering


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def as_symlink(path):
    elsewhere = path.parents[3] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def as_folder_link(folder):
    elsewhere = folder.parents[2] / "elsewhere"
    (folder / "native").rename(elsewhere)
    (folder / "native").symlink_to(elsewhere, target_is_directory=True)


TAMPER = {
    "flipped byte in a graph": lambda f: flip(f / "signal.onnx"),
    "flipped byte in the golden rows": lambda f: flip(f / "golden.npz"),
    "flipped byte in the manifest": lambda f: flip(f / "manifest.json"),
    "flipped byte in model_compat": lambda f: flip(f / "model_compat.json"),
    "cut short": lambda f: (f / "signal.onnx").write_bytes((f / "signal.onnx").read_bytes()[:-1]),
    "grown": lambda f: (f / "signal.onnx").write_bytes((f / "signal.onnx").read_bytes() + b"x"),
    "missing file": lambda f: (f / "position.onnx").unlink(),
    "missing manifest": lambda f: (f / "manifest.json").unlink(),
    "missing model_compat": lambda f: (f / "model_compat.json").unlink(),
    "extra pickle": lambda f: (f / "model.pkl").write_bytes(b"x"),
    "extra pickle inside": lambda f: (f / "native" / "model.pkl").write_bytes(b"x"),
    "extra folder": lambda f: (f / "more").mkdir(),
    "deeper folder": lambda f: (f / "native" / "more").mkdir(),
    "edited manifest": lambda f: (f / "manifest.json").write_bytes((f / "manifest.json").read_bytes().replace(b'"rows":5', b'"rows":6')),
    "symlink for a file": lambda f: as_symlink(f / "signal.onnx"),
    "symlink for the manifest": lambda f: as_symlink(f / "manifest.json"),
    "symlink for a folder": as_folder_link,
    "hard link from outside": lambda f: os.link(f / "signal.onnx", f.parents[2] / "outside"),
    "folder for a file": lambda f: ((f / "metrics.json").unlink(), (f / "metrics.json").mkdir()),
    "pipe for a file": lambda f: ((f / "metrics.json").unlink(), os.mkfifo(f / "metrics.json")),
    "ten thousand files": lambda f: [(f / f"x{n}.json").touch() for n in range(10_000)],
}


@pytest.mark.fault
@pytest.mark.parametrize("what", TAMPER)
def test_nothing_altered_goes_unseen(store, what):
    revision = write(store)
    store.activate(revision.name, now=NOW)
    unlock(revision.folder)
    TAMPER[what](revision.folder)
    name = revision.name
    looks = (
        lambda: store.open(name),
        store.active,
        lambda: store.activate(name),
        lambda: read_revision(revision.folder).verify(),
    )
    for look in looks:
        with pytest.raises(RevisionError, match=r"revision|manifest"):
            look()


@pytest.mark.fault
def test_a_folder_under_another_revisions_name_is_refused(store):
    revision = write(store)
    other = "f" * 16
    revision.folder.rename(store.folder / other)
    with pytest.raises(RevisionError, match="renamed or the manifest altered"):
        store.open(other)
    (store.folder / revision.name).symlink_to(store.folder / other)
    with pytest.raises(RevisionError, match="is a link"):
        store.open(revision.name)


@pytest.mark.fault
def test_writing_over_a_damaged_revision_says_so(store):
    revision = write(store)
    unlock(revision.folder)
    flip(revision.folder / "signal.onnx")
    with pytest.raises(RevisionError, match=r"move .* away"):
        write(store)


class Reads:
    """Counts how often each file of a revision is read from the disk."""

    def __init__(self, monkeypatch):
        self.count, real = Counter(), contents.read_regular

        def read(path, limit):
            self.count[Path(path).name] += 1
            return real(path, limit)

        monkeypatch.setattr(contents, "read_regular", read)

    def of(self, names):
        return {name: self.count[Path(name).name] for name in names}


def test_each_file_is_read_once_when_it_is_written_and_once_when_it_is_activated(store, monkeypatch):
    manifest = bound(**SCALER)
    files = FILES | {"native/scaler.npz": npz_bytes(SCALER)}
    every = (*files, "manifest.json")
    reads = Reads(monkeypatch)
    revision = store.write(files, manifest, graphs=True)
    assert reads.of(every) == dict.fromkeys(every, 1)
    revision.verify()  # what this object proved is remembered
    assert reads.of(every) == dict.fromkeys(every, 1)
    store.activate(revision.name, by_gate=True)
    assert reads.of(files) == dict.fromkeys(files, 2)
    opened = store.open(revision.name)
    assert reads.of(files) == dict.fromkeys(files, 3)
    opened.verify(graphs=False)
    assert reads.of(files) == dict.fromkeys(files, 3)


def test_a_failed_check_is_not_remembered(store):
    revision = read_revision(write(store).folder)
    unlock(revision.folder)
    flip(revision.folder / "signal.onnx")
    assert [check.ok for check in revision.checks()] == [True, True, True, False]
    flip(revision.folder / "signal.onnx")
    assert len(revision.verify()) == 10


@pytest.mark.fault
def test_reading_a_file_checks_the_bytes_that_are_handed_out(store):
    revision = store.open(write(store).name)
    unlock(revision.folder)
    flip(revision.folder / "signal.onnx")
    with pytest.raises(RevisionError, match="sha256 differs"):
        revision.read("signal.onnx")
    with pytest.raises(RevisionError, match="does not hold a file"):
        revision.read("../manifest.json")


# ---------------------------------------------------------------- graphs that do not belong


def with_external_data(data):
    model = onnx.load_from_string(data)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def with_hidden_external_data(data):
    """Inside an attribute of a constant, inside a branch of an if."""
    model = onnx.load_from_string(data)
    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "branch", [], [onnx.helper.make_tensor_value_info("c", 1, [3])]
    )
    model.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    return model.SerializeToString()


def with_domain(data):
    model = onnx.load_from_string(data)
    model.opset_import.add(domain="com.evil", version=1)
    return model.SerializeToString()


def with_node_of_a_domain(data):
    model = onnx.load_from_string(data)
    model.graph.node.append(onnx.helper.make_node("Anything", ["label"], ["z2"], domain="com.microsoft"))
    return model.SerializeToString()


def with_function(data):
    model = onnx.load_from_string(data)
    model.functions.add(name="f", domain="")
    return model.SerializeToString()


ALIEN = {
    "external data": (with_external_data, "outside the file"),
    "external data in a branch": (with_hidden_external_data, "outside the file"),
    "a custom domain": (with_domain, "com.evil"),
    "a node of another domain": (with_node_of_a_domain, "com.microsoft"),
    "a function": (with_function, "functions"),
    "no ONNX": (lambda _: b"\x07\x07", "not a readable ONNX"),
    "cut short": (lambda d: d[:-20], "not a readable ONNX"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", ALIEN)
def test_a_graph_that_reaches_outside_itself_is_refused_before_it_is_opened(store, what):
    change, says = ALIEN[what]
    data = change(FILES["signal.onnx"])
    with pytest.raises(RevisionError, match=says):
        check_graph(data)
    revision = store.write(FILES | {"signal.onnx": data}, make.make_manifest())
    with pytest.raises(RevisionError, match=says):
        revision.verify()
    with pytest.raises(RevisionError, match=says):
        store.activate(revision.name)
    assert store.active() is None
    check_graph(FILES["signal.onnx"])


RENAMED = make.model("risk_p1", "risk", None, make.ACCOUNT) | {"outputs": [make.tensor("multiplier", 1)]}
STRANGE = {
    "another run's position": ({"position.onnx": make.graph("position", run="f" * 16)}, {}, "not trained together"),
    "classes permuted": ({"signal.onnx": make.graph("signal", classes=["BUY", "SELL", "HOLD"])}, {}, "orders classes"),
    "54 of 55 features": ({"signal.onnx": make.graph("signal", width=2)}, {}, "takes"),
    "two classes": ({"signal.onnx": make.graph("signal", classes=["SELL", "BUY"])}, {}, "gives .*the manifest says"),
    "another model than the golden rows": ({"signal.onnx": make.graph("signal", cut=-2.0)}, {}, "misses its golden rows"),
    "golden rows gone": ({"golden.npz": npz_bytes({"other_x": np.zeros((1, 3))})}, {}, "no golden rows for signal"),
    "golden answers gone": ({"golden.npz": npz_bytes({"signal_x": np.zeros((1, 3))})}, {}, "no golden probabilities for signal"),
    "golden rows of another shape": (
        {"golden.npz": npz_bytes({"signal_x": np.zeros((1, 3)), "signal_probabilities": np.zeros((1, 2))})},
        {},
        "misses its golden rows by inf",
    ),
    "golden rows of another width": (
        {"golden.npz": npz_bytes(read_npz(FILES["golden.npz"]) | {"signal_x": np.zeros((8, 2))})},
        {},
        r"the rows of signal.onnx have shape \(8, 2\), it takes 3 columns",
    ),
    "columns in another order": (
        {"signal.onnx": make.graph("signal", columns=["beta", "alpha", "gamma"])},
        {},
        "takes 'beta' in column 0, the manifest lists 'alpha' there",
    ),
    "golden rows of the risk head gone": (
        {"golden.npz": npz_bytes({k: v for k, v in read_npz(FILES["golden.npz"]).items() if not k.startswith("risk")})},
        {},
        "no golden rows for risk_p1",
    ),
    "an answer that the graph does not give": (
        {},
        {"models": [make.make_manifest()["models"][0], make.make_manifest()["models"][1], RENAMED]},
        "gives .*the manifest says .*multiplier",
    ),
    "one column fewer": ({"signal.onnx": make.graph("signal", columns=["alpha", "beta"])}, {}, "takes 'nothing' in column 2.*'gamma'"),
    "columns that are no list": ({"signal.onnx": make.graph("signal", columns="alpha")}, {}, "takes 'a' in column 0"),
    "golden rows unreadable": ({"golden.npz": b"PK\x03\x04 nonsense"}, {}, "not readable"),
    "manifest of another width": (
        {},
        {"models": [*make.make_manifest()["models"][1:], make.model("signal", "signal", ["SELL", "BUY", "HOLD"], ("a", "b", "c", "d"))]}
        | {"scaler": None},
        "takes",
    ),
    "not ONNX": ({"risk_p1.onnx": b""}, {}, "does not load"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", STRANGE)
def test_models_that_do_not_fit_together_are_refused(store, what):
    files, changes, says = STRANGE[what]
    revision = store.write(FILES | files, make.make_manifest(**changes))
    with pytest.raises(RevisionError, match=says):
        revision.verify()
    assert [check.ok for check in revision.checks()][-1] is False


SCALER = {"mean": np.arange(3.0), "scale": np.ones(3)}
OTHER_SCALERS = {
    "another width": (npz_bytes({name: part[:2] for name, part in SCALER.items()}), r"has shapes \[\(2,\), \(2,\)\].*take 3 features"),
    "no columns": (npz_bytes({name: part[0] for name, part in SCALER.items()}), "has shapes"),
    "other values": (npz_bytes(SCALER | {"mean": np.arange(3.0) + 1e-9}), "not the scaler that the manifest binds"),
    "unreadable": (b"PK nonsense", "scaler.npz is not readable"),
    "no scale": (npz_bytes({"mean": SCALER["mean"]}), "scaler.npz is not readable"),
}


def bound(**scaler):
    """A manifest that binds this scaler."""
    sha256 = hashlib.sha256(np.concatenate([scaler["mean"], scaler["scale"]]).astype("<f8").tobytes()).hexdigest()
    return make.make_manifest(scaler={"sha256": sha256, "n_features": 3})


def test_the_scaler_is_the_one_that_the_manifest_binds(store):
    revision = store.write(FILES | {"native/scaler.npz": npz_bytes(SCALER)}, bound(**SCALER))
    assert next(check.detail for check in revision.verify() if check.name == "scaler").startswith("3 columns")


@pytest.mark.fault
@pytest.mark.parametrize("what", OTHER_SCALERS)
def test_another_scaler_is_refused(store, what):
    data, says = OTHER_SCALERS[what]
    with pytest.raises(RevisionError, match=says):
        store.write(FILES | {"native/scaler.npz": data}, bound(**SCALER))


def test_a_revision_that_misses_its_golden_rows_is_not_stored(store):
    arrays = read_npz(FILES["golden.npz"])
    wrong = FILES | {"golden.npz": npz_bytes(arrays | {"position_probabilities": arrays["position_probabilities"] + 1e-3})}
    with pytest.raises(RevisionError, match=r"position\.onnx misses its golden rows"):
        store.write(wrong, make.make_manifest(), graphs=True)
    assert store.scan() == ([], []) and list((store.models_dir / ".staging").iterdir()) == []
    assert store.write(FILES, make.make_manifest(), graphs=True).name


@pytest.mark.fault
def test_golden_rows_off_by_a_thousandth_are_refused(store):
    arrays = read_npz(FILES["golden.npz"])
    arrays["position_probabilities"] = arrays["position_probabilities"] + np.float32(1e-3)
    revision = store.write(FILES | {"golden.npz": npz_bytes(arrays)}, make.make_manifest())
    with pytest.raises(RevisionError, match=r"position\.onnx misses its golden rows by 0\.001"):
        revision.verify()


# ---------------------------------------------------------------- the pointer


@pytest.mark.contract
def test_the_gate_moves_the_pointer_only_to_what_it_passed(store):
    good, bad = write(store), write(store, passed=False)
    done = store.activate(good.name, by_gate=True, now=NOW)
    assert (done.previous, done.by, done.moved) == (None, "gate", True)
    assert store.active() == good
    with pytest.raises(RevisionError, match="only a person"):
        store.activate(bad.name, by_gate=True)
    assert store.active() == good
    assert store.state(good) is State.ACTIVE
    assert store.state(bad) is State.CANDIDATE


@pytest.mark.contract
def test_a_candidate_goes_active_by_hand_with_a_reason_that_is_kept(store):
    good, bad = write(store), write(store, passed=False)
    for reason in (None, "", "  "):
        with pytest.raises(UsageError, match="--reason"):
            store.activate(bad.name, reason)
    store.activate(bad.name, "paper account only", now=NOW)
    pointer = json.loads((store.models_dir / "model_compat.json").read_bytes())
    assert pointer["activation"] == {"at": "2026-02-03T00:00:00Z", "by": "hand", "previous": None, "reason": "paper account only"}
    assert {k: v for k, v in pointer.items() if k != "activation"} == bad.compat
    assert store.active() == bad
    store.activate(good.name, now=NOW)
    assert store.pointer()["activation"]["previous"] == bad.name
    assert store.state(bad) is State.APPROVED  # a person approved it, and that outlives the pointer
    assert store.activate(bad.name, now=NOW).reason == "paper account only"
    assert store.active() == bad


def test_other_keys_of_the_state_file_survive(store):
    bad = write(store, passed=False)
    (store.models_dir / "state.json").write_text('{"channels":{"approved":{"seq":7}}}')
    store.activate(bad.name, "because", now=NOW)
    state = json.loads((store.models_dir / "state.json").read_bytes())
    assert state["channels"] == {"approved": {"seq": 7}}
    assert state["approvals"][bad.name]["reason"] == "because"


def test_a_dry_run_checks_everything_and_moves_nothing(store):
    good = write(store)
    before = sorted(store.models_dir.rglob("*"))
    assert store.activate(good.name, dry_run=True).moved is False
    assert store.active() is None
    assert sorted(store.models_dir.rglob("*")) == before
    with pytest.raises(UsageError, match="--reason"):
        store.activate(write(store, passed=False).name, dry_run=True)


@pytest.mark.fault
@pytest.mark.parametrize(
    "change",
    [
        lambda r: r | {"revision": "f" * 16},
        lambda r: r | {"manifest_sha256": "f" * 64},
        lambda r: r | {"feature_count": 54},
        lambda r: r | {"features": r["features"][::-1]},
        lambda r: {k: v for k, v in r.items() if k != "revision"},
        lambda r: {k: v for k, v in r.items() if k != "label_spec_hash"},
        lambda r: r | {"revision": "../../../etc"},
        lambda r: r | {"extra": 1},
    ],
)
def test_an_edited_pointer_is_refused(store, change):
    revision = write(store)
    store.activate(revision.name, now=NOW)
    path = store.models_dir / "model_compat.json"
    path.write_bytes(canonical_json(change(json.loads(path.read_bytes()))))
    with pytest.raises(RevisionError):
        store.active()
    store.activate(revision.name, now=NOW)  # and activating mends it
    assert store.active() == revision


@pytest.mark.fault
def test_a_linked_or_torn_pointer_is_refused(store):
    revision = write(store)
    store.activate(revision.name, now=NOW)
    path = store.models_dir / "model_compat.json"
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(RevisionError, match="strict JSON"):
        store.active()
    path.unlink()
    (store.models_dir / "other.json").write_bytes(data)
    path.symlink_to("other.json")
    with pytest.raises(RevisionError, match="link"):
        store.active()
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(RevisionError, match="link"):
        store.active()


@pytest.mark.fault
def test_a_pointer_replaced_while_it_is_read_is_read_whole(store, monkeypatch):
    one, other = write(store), write(store, trained_at="2026-01-09T00:00:00Z")
    store.activate(one.name, now=NOW)
    real = os.fstat

    def replaced_first(handle):
        monkeypatch.setattr(os, "fstat", real)
        store.activate(other.name, now=NOW)
        return real(handle)

    monkeypatch.setattr(os, "fstat", replaced_first)
    assert store.pointer()["revision"] == one.name
    assert store.pointer()["revision"] == other.name


# ---------------------------------------------------------------- locks, left-overs, full disks


@pytest.mark.fault
def test_a_second_run_is_told_at_once(store):
    with store.lock():
        code = f"from trademl.ship.store import Store\nwith Store({str(store.models_dir)!r}).lock(): pass"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "LockedError" in child.stderr
        assert "another run holds the lock" in child.stderr
    assert LockedError.exit_code == 5
    with store.lock():
        pass


@pytest.mark.fault
def test_the_lock_is_free_after_its_holder_is_killed(store):
    code = (
        f"import time\nfrom trademl.ship.store import Store\nwith Store({str(store.models_dir)!r}).lock():\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(LockedError), store.lock():
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with store.lock():
        pass


WRITER = """
import sys
sys.path[:0] = {path!r}
import make_revision as make
from trademl.ship.store import Store
store, files = Store({folder!r}), make.make_files()
print("ready", flush=True)
sys.stdin.readline()
try:
    revision = store.write(files, make.make_manifest(trained_at="2026-07-01T00:00:00Z"))
    store.activate(revision.name, by_gate=True)
    print("stored")
except Exception as refusal:
    print(type(refusal).__name__, refusal)
"""
PARENT = """
import subprocess, sys
from trademl.ship.store import Store
with Store({folder!r}).lock():
    child = subprocess.Popen([sys.executable, "-c", {writer!r}], stdin={stdin}, stdout={stdout})
    print(child.pid, flush=True)
    child.wait()
"""


@contextlib.contextmanager
def a_run_with_a_child(store):
    """A process that holds the lock, and a child of it that writes once `release` is called; `release` gives what it said."""
    (command, give), (take, answer) = os.pipe(), os.pipe()
    writer = WRITER.format(path=[str(Path(__file__).parent)], folder=str(store.models_dir))
    code = PARENT.format(folder=str(store.models_dir), writer=writer, stdin=command, stdout=answer)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, pass_fds=(command, answer))
    os.close(command)
    os.close(answer)
    with parent, os.fdopen(take) as told, os.fdopen(give, "w") as orders:
        assert int(parent.stdout.readline()) > 0
        assert told.readline() == "ready\n"

        def release():
            orders.write("go\n")
            orders.flush()
            return told.read()

        yield parent, release


@pytest.mark.fault
def test_a_child_of_the_run_that_holds_the_lock_may_write(store):
    write(store)
    with a_run_with_a_child(store) as (_, release):
        with pytest.raises(LockedError, match="another run holds the lock"):
            write(store, trained_at="2026-08-01T00:00:00Z")  # this process belongs to no run
        assert release() == "stored\n"
    assert store.active().trained_at == "2026-07-01T00:00:00Z"


@pytest.mark.fault
@pytest.mark.parametrize("next_run", [False, True], ids=["the lock is free", "another run holds the lock"])
def test_a_child_that_outlives_its_run_stores_nothing(store, next_run):
    old = write(store)
    store.activate(old.name, now=NOW)
    with a_run_with_a_child(store) as (parent, release):
        parent.kill()
        parent.wait()
        with store.lock() if next_run else contextlib.nullcontext():
            told = release()
    assert told.startswith("LockedError"), told
    assert "has ended, and its lock with it; nothing was stored" in told
    assert store.revisions() == [old] and store.active() == old
    assert list((store.models_dir / ".staging").iterdir()) == []


def test_a_lock_that_is_lost_while_a_revision_is_proven_stores_nothing(store, monkeypatch):
    write(store)
    real = Revision.verify

    def slow(self, **options):
        (store.models_dir / ".lock.holder").write_text("another run")
        return real(self, **options)

    monkeypatch.setattr(Revision, "verify", slow)
    with pytest.raises(LockedError, match="nothing was stored"):
        write(store, trained_at="2026-07-01T00:00:00Z")
    assert len(store.revisions()) == 1
    assert list((store.models_dir / ".staging").iterdir()) == []


def test_a_held_lock_leaves_the_environment_as_it_was(store):
    before = dict(os.environ)
    with store.lock():
        assert len(os.environ) == len(before) + 1
        store.activate(write(store).name)
        with pytest.raises(LockedError), store.lock():
            pass
        write(Store(store.models_dir.parent / "other"))  # another store has a lock of its own
    assert dict(os.environ) == before
    assert not (store.models_dir / ".lock.holder").exists()


@pytest.mark.fault
def test_where_locks_do_nothing_a_run_can_still_write(store, monkeypatch):
    import filelock

    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, **_: None)
    monkeypatch.setattr(filelock.FileLock, "release", lambda self: None)
    with store.lock():
        store.activate(write(store).name)
    assert store.active() is not None


@pytest.mark.fault
def test_the_sweep_takes_what_the_dead_left_and_never_a_live_runs(store):
    write(store)
    staging = store.models_dir / ".staging"
    host = os.uname().nodename
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, live, foreign, old = (
        staging / name for name in (f"{host}~{ended.pid}~a", f"{host}~{os.getpid()}~b", "elsewhere~1~c", "elsewhere~1~d")
    )
    for path in (dead, live, foreign, old):
        (path / "native").mkdir(parents=True)
        (path / "native" / "x").touch()
    (staging / f"{host}~{ended.pid}~file").touch()
    outside = store.models_dir / "outside"
    outside.mkdir()
    (staging / f"{host}~{ended.pid}~link").symlink_to(outside)
    os.utime(old, (time.time() - 90_000,) * 2)
    with store.lock():
        assert sorted(path.name for path in staging.iterdir()) == sorted([live.name, foreign.name])
    assert outside.is_dir()


@pytest.mark.fault
def test_two_writers_without_a_lock_do_each_other_no_harm(store):
    """flock may be a no-op: both write the same revision and their own, and both pointers are whole."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=write_many, args=(str(store.models_dir), number)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert len(store.revisions()) == 1 + 2 * 4
    for revision in store.revisions():
        revision.verify(graphs=False)
    assert store.active() is not None
    assert list((store.models_dir / ".staging").iterdir()) == []


def write_many(folder, number):
    store = Store(folder)
    StoreLock.writing, StoreLock.check = lambda self: contextlib.nullcontext(), lambda self: None
    for turn in range(4):
        write(store)  # the same one, by both
        mine = write(store, trained_at=f"2026-01-0{turn + 1}T00:00:0{number}Z")
        store.activate(mine.name)


@pytest.mark.fault
def test_a_full_disk_leaves_the_old_and_an_empty_staging(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small tmpfs: {done.stderr.strip()}")
    try:
        store = Store(mount / "models")
        old = write(store)
        store.activate(old.name, now=NOW)
        with pytest.raises(RevisionError, match="nothing was changed"):
            store.write(FILES | {"big.npz": bytes(2 << 20)}, make.make_manifest())
        assert store.active() == old
        assert len(store.revisions()) == 1
        assert list((store.models_dir / ".staging").iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.fault
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")], ids=["full", "permission"]
)
def test_a_disk_that_fails_at_any_sync_leaves_the_old(store, monkeypatch, error):
    old = write(store)
    store.activate(old.name, now=NOW)
    real = os.fsync
    for at in range(40):
        calls = iter(range(1_000))

        def fsync(handle, at=at, calls=calls):
            if next(calls) == at:
                raise error
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        new, told = old, error.strerror
        try:
            new = write(store, trained_at=f"2026-03-01T00:00:{at:02}Z")
            store.activate(new.name, now=NOW)
        except RevisionError as refusal:
            told = str(refusal)
        monkeypatch.setattr(os, "fsync", real)
        assert error.strerror in told
        assert store.active().name in (old.name, new.name)
        assert list((store.models_dir / ".staging").iterdir()) == []
        for revision in store.revisions():
            revision.verify(graphs=False)
        if next(calls) <= at:
            break
    assert at > 8  # every sync of a write and an activation had its turn


READ_ONLY = """
import os, sys
import filelock  # an unprivileged user may not read the interpreter
sys.path[:0] = {path!r}
import make_revision as make
from trademl.ship.store import Store
from trademl.errors import RevisionError
files, manifest = make.make_files(), make.make_manifest(trained_at="2026-05-01T00:00:00Z")
store = Store({folder!r})
old = store.active()
old.verify()  # loads whatever the interpreter loads late, while it still may
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
for act in (lambda: store.write(files, manifest), lambda: store.activate(old.name), lambda: store.lock().__enter__()):
    try:
        act()
        print("done")
    except RevisionError as refusal:
        print("refused", "written" in str(refusal))
print(Store({folder!r}).active() == old)
"""


@pytest.mark.fault
def test_a_read_only_store_can_be_read_and_says_that_it_cannot_be_written(store):
    old = write(store)
    store.activate(old.name, now=NOW)
    for path in [store.models_dir, *store.models_dir.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in store.models_dir.parents:
        if parent.stat().st_uid == os.getuid() and parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    code = READ_ONLY.format(path=[str(Path(__file__).parent)], folder=str(store.models_dir))
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout.split("\n")[:4] == ["refused True"] * 3 + ["True"], child.stderr
    unlock(store.models_dir)


# ---------------------------------------------------------------- kill -9


CHILD = """
import os, signal, sys
sys.path[:0] = {path!r}
import make_revision as make
from pathlib import Path
from trademl import files as module
from trademl.ship.store import Store

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

count = -1
def failpoint(name, before=False):
    "Kill at the n-th call of a primitive, before or after it."
    owner, attribute = {{"write": (module, "_finish"), "sync": (module, "sync_folder"), "rename": (Path, "rename"),
                        "replace": (Path, "replace"), "chmod": (Path, "chmod")}}[name]
    real = getattr(owner, attribute)
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if before and count == {at}:
            die()
        result = real(*args, **kwargs)
        if not before and count == {at}:
            die()
        return result
    setattr(owner, attribute, wrapped)

store = Store({folder!r})
with store.lock():
    files, manifest = make.make_files(), make.make_manifest(trained_at="2026-06-01T00:00:00Z")
    if {phase!r} == "write":
        failpoint({name!r}, {before!r})
    revision = store.write(files, manifest)
    if {phase!r} == "activate":
        failpoint({name!r}, {before!r})
    store.activate(revision.name)
"""
NURSERY = """
import json, os, sys
sys.path[:0] = {path!r}
import filelock, make_revision, trademl.ship.store
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        exec(json.loads(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

LAST = len(FILES) + 1  # files are written by name; the manifest and model_compat come last
STEPS = [
    ("write", "write", 0, False),
    *(pytest.param("write", "write", at, False, marks=pytest.mark.slow) for at in range(1, LAST - 1)),  # after each further file
    ("write", "write", LAST - 1, False),
    ("write", "write", LAST, False),
    pytest.param("write", "sync", 0, True, marks=pytest.mark.slow),
    ("write", "sync", 0, False),  # native/
    ("write", "sync", 1, False),  # the whole folder
    pytest.param("write", "rename", 0, True, marks=pytest.mark.slow),
    ("write", "rename", 0, False),
    pytest.param("write", "chmod", 0, False, marks=pytest.mark.slow),
    pytest.param("write", "chmod", 1, False, marks=pytest.mark.slow),
    pytest.param("write", "sync", 2, True, marks=pytest.mark.slow),  # revisions/
    ("write", "sync", 2, False),
    ("activate", "write", 0, False),  # the pointer's temporary file stands
    pytest.param("activate", "replace", 0, True, marks=pytest.mark.slow),
    ("activate", "replace", 0, False),
    ("activate", "sync", 0, False),
]


@pytest.fixture(scope="module")
def run_child():
    """Run CHILD in a process of its own, forked from one that has imported everything already; gives its exit code."""
    path = [str(Path(__file__).parent)]
    command = [sys.executable, "-c", NURSERY.format(path=path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdout.readline() == "ready\n"

        def run(folder, phase, name, at, before):
            code = CHILD.format(path=path, folder=str(folder), phase=phase, name=name, at=at, before=before)
            nursery.stdin.write(json.dumps(code) + "\n")
            nursery.stdin.flush()
            return int(nursery.stdout.readline())

        yield run


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What an undisturbed run leaves."""
    store = Store(tmp_path_factory.mktemp("reference"))
    revision = store.write(FILES, make.make_manifest(trained_at="2026-06-01T00:00:00Z"))
    return revision.name


@pytest.mark.fault
@pytest.mark.parametrize(("phase", "name", "at", "before"), STEPS, ids=lambda v: str(v))
def test_killed_at_any_step_a_reader_sees_the_old_or_the_new_and_a_rerun_ends_well(store, reference, run_child, phase, name, at, before):
    old = write(store)
    store.activate(old.name, now=NOW)
    assert run_child(store.models_dir, phase, name, at, before) == -signal.SIGKILL
    good, broken = store.scan()
    assert broken == []
    assert {revision.name for revision in good} <= {old.name, reference}
    for revision in good:
        revision.verify()
    pointed = store.active().name
    replaced = phase == "activate" and (name == "sync" or (name == "replace" and not before))
    assert pointed == (reference if replaced else old.name)
    with store.lock():
        store.activate(store.write(FILES, make.make_manifest(trained_at="2026-06-01T00:00:00Z")).name, now=NOW)
    assert list((store.models_dir / ".staging").iterdir()) == []
    assert store.active().name == reference


LOOP = """
import sys, itertools
sys.path[:0] = {path!r}
import make_revision as make
from trademl.ship.store import Store
store, files = Store({folder!r}), make.make_files()
print("ready", flush=True)
for n in itertools.count({start}):
    stamp = f"2026-01-{{1 + n // 86400:02}}T{{n // 3600 % 24:02}}:{{n // 60 % 60:02}}:{{n % 60:02}}Z"
    with store.lock():
        store.activate(store.write(files, make.make_manifest(trained_at=stamp)).name, by_gate=True)
    print(n, flush=True)
"""


@pytest.mark.fault
@pytest.mark.slow
def test_random_kills_under_a_reader_never_show_a_broken_store(store):
    rng = np.random.default_rng(7)
    first = write(store)
    store.activate(first.name, now=NOW)
    reads = written = 0
    for _ in range(5):
        code = LOOP.format(path=[str(Path(__file__).parent)], folder=str(store.models_dir), start=written)
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        end = time.monotonic() + rng.uniform(0.05, 0.5)
        while time.monotonic() < end or written == 0:
            assert store.active() is not None
            reads += 1
            written = max(written, len(store.revisions()) - 1)
        child.kill()
        child.communicate()
        good, broken = store.scan()
        assert broken == []
        for revision in good:
            revision.verify(graphs=False)
        assert store.active() in good
    assert reads > 5
    assert written > 1
    with store.lock():
        assert list((store.models_dir / ".staging").iterdir()) == []


# ---------------------------------------------------------------- what a bot may import


@pytest.mark.contract
def test_reading_needs_nothing_but_numpy():
    code = (
        "import sys\nfrom trademl.ship.store import Store\n"
        "heavy = {'numba', 'pandas', 'onnx', 'onnxruntime', 'sklearn', 'xgboost', 'lightgbm', 'filelock', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_a_revision_reads_from_a_plain_copy(store, tmp_path):
    import shutil

    revision = write(store)
    copy = tmp_path / revision.name
    shutil.copytree(revision.folder, copy)
    assert read_revision(copy).verify()
