"""Faults of a store that stand with no other subject: what is oversized, re-ordered, deleted, and a writer that is killed at random."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import make_revision as make
import numpy as np
import pytest

from trademl.errors import RevisionError, UsageError
from trademl.files import canonical_json, digest
from trademl.ship.manifest import compat_record
from trademl.ship.revision import read_revision
from trademl.ship.signing import MANIFEST_DOMAIN, SIGNATURE, KeyFolder, _private_key
from trademl.ship.store import Store

pytestmark = pytest.mark.fault
FILES = make.make_files()
HERE = str(Path(__file__).parent)


@pytest.fixture
def keys(tmp_path):
    folder = KeyFolder(tmp_path / "keys")
    folder.create()
    return folder


@pytest.fixture
def store(tmp_path, keys):
    return Store(tmp_path / "models", keys.trust())


def unlock(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_manifest_of_a_hundred_megabytes_is_not_read(store):
    revision = store.write(FILES, make.make_manifest())
    unlock(revision.folder)
    with (revision.folder / "manifest.json").open("r+b") as stream:
        stream.truncate(100 << 20)
    with pytest.raises(RevisionError, match="longer than 262,144 bytes"):
        read_revision(revision.folder)


def test_an_oversized_pointer_is_not_read(store):
    store.activate(store.write(FILES, make.make_manifest()).name)
    with (store.models_dir / "model_compat.json").open("ab") as stream:
        stream.truncate(100 << 20)
    with pytest.raises(RevisionError, match="longer than 262,144 bytes"):
        store.active()


def test_a_graph_that_is_longer_than_its_entry_is_not_read_to_its_end(store):
    revision = store.write(FILES, make.make_manifest())
    unlock(revision.folder)
    with (revision.folder / "signal.onnx").open("ab") as stream:
        stream.truncate(1 << 34)  # a sparse 16 GiB: read whole, it would not fit into memory
    with pytest.raises(RevisionError, match=r"signal\.onnx: longer than"):
        store.open(revision.name)


def signed_by_hand(store, keys, data: bytes) -> Path:
    """A revision whose manifest has these bytes, signed by the right key, in a folder of the right name."""
    honest = store.write(FILES, make.make_manifest())
    unlock(honest.folder)
    private, public = _private_key(keys.private)
    (honest.folder / "manifest.json").write_bytes(data)
    signature = canonical_json({"key": public.name, "signature": private.sign(MANIFEST_DOMAIN + data).hex()})
    (honest.folder / SIGNATURE).write_bytes(signature)
    (honest.folder / "model_compat.json").write_bytes(canonical_json(compat_record(honest.manifest, digest(data))))
    return honest.folder.rename(honest.folder.with_name(digest(data)[:16]))


@pytest.mark.parametrize("how", ["reversed keys", "blanks", "a line feed"])
def test_a_manifest_in_another_order_is_refused_whoever_signed_it(store, keys, how):
    """One record has one form: two revisions cannot say the same under two names."""
    record = json.loads((store.write(FILES, make.make_manifest()).folder / "manifest.json").read_bytes())
    data = {
        "reversed keys": json.dumps(dict(reversed(record.items())), separators=(",", ":"), ensure_ascii=False).encode(),
        "blanks": json.dumps(record, sort_keys=True, ensure_ascii=False).encode(),
        "a line feed": canonical_json(record) + b"\n",
    }[how]
    folder = signed_by_hand(store, keys, data)
    with pytest.raises(RevisionError, match="not in canonical form"):
        read_revision(folder, store.trust)


def test_a_signature_over_the_re_ordered_bytes_is_not_one_of_the_manifest(store, keys):
    revision = store.write(FILES, make.make_manifest())
    unlock(revision.folder)
    private, public = _private_key(keys.private)
    other = json.dumps(revision.manifest, ensure_ascii=False).encode()
    (revision.folder / SIGNATURE).write_bytes(
        canonical_json({"key": public.name, "signature": private.sign(MANIFEST_DOMAIN + other).hex()})
    )
    with pytest.raises(RevisionError, match="forged or altered"):
        store.locate(revision.name).verify()


def test_without_its_state_file_a_store_knows_no_approval_and_still_its_pointer(store):
    """What a person approved must be approved again; what is active stays so."""
    first = store.write(FILES, make.make_manifest(passed=False))
    other = store.write(FILES, make.make_manifest(trained_at="2026-01-03T00:00:00Z"))
    store.activate(first.name, "paper only")
    store.activate(other.name)
    store.activate(first.name)  # approved before
    (store.models_dir / "state.json").unlink()
    assert store.active() == first
    store.activate(other.name)
    with pytest.raises(UsageError, match="takes --reason TEXT"):
        store.activate(first.name)


# ---------------------------------------------------------------- killed at random

WRITER = """
import sys, itertools
sys.path[:0] = [{here!r}]
import make_revision as make
from trademl.ship.store import Store
store, files = Store({folder!r}), make.make_files()
print("ready", flush=True)
for n in itertools.count({start}):
    with store.lock():
        store.activate(store.write(files, make.make_manifest(seed=n)).name, by_gate=True)
"""

READER = """
import os
from pathlib import Path
from trademl.ship.store import Store
store, told, parent, reads = Store({folder!r}), Path({told!r}), os.getppid(), 0
while os.getppid() == parent:
    store.active()  # pointer, manifest, and every file's hash
    reads += 1
    if reads % 100 == 0:
        told.write_text(str(reads))
"""


@pytest.mark.slow
def test_fifty_thousand_verified_reads_while_a_writer_is_killed_fifty_times(tmp_path):
    """Whatever is killed when, every read finds a whole revision: a reader that found anything else would have ended."""
    rng, store = np.random.default_rng(12), Store(tmp_path / "models")
    store.activate(store.write(FILES, make.make_manifest()).name)
    told, kills = [tmp_path / f"reader-{k}" for k in range(2)], 0
    readers = [start(READER.format(folder=str(store.models_dir), told=str(path))) for path in told]
    try:
        while kills < 50 or reads_of(told) < 50_000:
            writer = start(WRITER.format(here=HERE, folder=str(store.models_dir), start=1_000 * (kills + 1)))
            assert writer.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.02, 2.0))
            writer.kill()
            assert writer.wait() == -signal.SIGKILL
            kills += 1
            assert [reader.stderr.read() for reader in readers if reader.poll() is not None] == []
            assert store.scan()[1] == []
    finally:
        for process in readers:
            process.kill()
            process.wait()
    revisions = len(store.revisions())
    print(f"{kills} kills, {reads_of(told):,} verified reads, {revisions:,} revisions, 0 bad")
    assert revisions > kills


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def reads_of(told: list[Path]) -> int:
    """What the readers have counted so far."""
    return sum(int(path.read_text() or 0) for path in told if path.exists())
