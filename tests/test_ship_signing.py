"""Signatures: who made a revision, whose count here, and what a forger without the key comes to."""

import json
import shutil
import stat
from types import SimpleNamespace

import make_revision as make
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from typer.testing import CliRunner

from trademl.cli import keys as keys_cli
from trademl.cli import models as models_cli
from trademl.errors import RevisionError, UsageError
from trademl.files import canonical_json, digest
from trademl.pipeline.choice import open_store, store_of
from trademl.settings import load_settings
from trademl.ship.revision import read_revision
from trademl.ship.signing import MANIFEST_DOMAIN, NO_TRUST, SIGNATURE, KeyFolder, PublicKey, Trust, key_folder, user_key_folder
from trademl.ship.store import Store

RUNNER = CliRunner()
FILES = make.make_files()


@pytest.fixture
def keys(tmp_path):
    """A folder with a pair of keys."""
    folder = KeyFolder(tmp_path / "user" / "keys")
    folder.create()
    return folder


@pytest.fixture
def store(tmp_path, keys):
    return Store(tmp_path / "models", keys.trust())


def write(store, **changes):
    return store.write(FILES, make.make_manifest(**changes))


def message(revision):
    return MANIFEST_DOMAIN + (revision.folder / "manifest.json").read_bytes()


def signature_of(private, data, key=None):
    """manifest.sig as a forger would write it."""
    public = PublicKey(private.public_key().public_bytes_raw())
    return canonical_json({"key": key or public.name, "signature": private.sign(MANIFEST_DOMAIN + data).hex()})


def forge(revision, signature=None):
    """The revision with another signal, every hash made anew, its folder renamed; as whoever may write there would do it."""
    folder = revision.folder.parent / "forged"
    shutil.copytree(revision.folder, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    graph = make.graph("signal", cut=0.9)
    (folder / "signal.onnx").write_bytes(graph)
    files = {name: graph if name == "signal.onnx" else (folder / name).read_bytes() for name in revision.files()}
    files["golden.npz"] = make.golden({name.removesuffix(".onnx"): data for name, data in files.items() if name.endswith(".onnx")})
    (folder / "golden.npz").write_bytes(files["golden.npz"])
    forged = Store(revision.folder.parents[2] / "workshop").write(files, revision.manifest)
    for name in ("manifest.json", "model_compat.json"):
        (folder / name).write_bytes((forged.folder / name).read_bytes())
    data = (folder / "manifest.json").read_bytes()
    if signature is not None:
        (folder / SIGNATURE).write_bytes(signature(data))
    return folder.rename(folder.with_name(digest(data)[:16]))


# ---------------------------------------------------------------- signing


@pytest.mark.contract
def test_a_revision_is_signed_where_a_key_is(store, keys):
    revision = write(store)
    record = json.loads((revision.folder / SIGNATURE).read_bytes())
    assert record.keys() == {"key", "signature"}
    assert record["key"] == keys.signer().name
    public = ed25519.Ed25519PublicKey.from_public_bytes(keys.signer().raw)
    public.verify(bytes.fromhex(record["signature"]), message(revision))  # by the library alone, as another language would
    assert revision.check_signature() == f"signed by key {record['key']}, which is pinned here"
    assert revision.verify()[0].name == "signature"
    assert store.activate(revision.name).moved
    assert store.active() == revision
    assert SIGNATURE not in revision.files()


@pytest.mark.contract
def test_without_a_key_a_store_works_and_says_so(tmp_path, store):
    plain = Store(tmp_path / "plain")
    revision = write(plain)
    assert not (revision.folder / SIGNATURE).exists()
    assert revision.verify()[0].detail.startswith("not signed, and no key is pinned here")
    assert plain.activate(revision.name).moved
    signed = write(store)
    assert "the signature was not checked" in Store(store.models_dir).open(signed.name).check_signature()


@pytest.mark.fault
@pytest.mark.parametrize("how", ["signature kept", "signature removed", "stranger", "stranger under the pinned name", "garbage", "empty"])
def test_a_forged_and_rehashed_revision_is_refused(store, keys, how):
    stranger = ed25519.Ed25519PrivateKey.generate()
    made = {
        "signature kept": None,
        "signature removed": None,
        "stranger": lambda data: signature_of(stranger, data),
        "stranger under the pinned name": lambda data: signature_of(stranger, data, keys.signer().name),
        "garbage": lambda data: b"\x00" * 90,
        "empty": lambda data: b"",
    }[how]
    honest = write(store)
    folder = forge(honest, made)
    if how == "signature removed":
        (folder / SIGNATURE).unlink()
    if how not in ("garbage", "empty"):
        assert read_revision(folder).verify()  # without a pinned key nothing shows it
    said = {
        "signature kept": "forged or altered",
        "signature removed": "is not signed",
        "stranger": "is signed by key",
        "stranger under the pinned name": "forged or altered",
        "garbage": "cannot be read",
        "empty": "cannot be read",
    }[how]
    for look in (
        lambda: store.locate(folder.name).verify(),
        lambda: store.activate(folder.name, "because"),
        lambda: store.activate(folder.name, by_gate=True, dry_run=True),
    ):
        with pytest.raises(RevisionError, match=said):
            look()
    assert store.pointer() is None
    (store.models_dir / "model_compat.json").write_bytes(
        canonical_json(json.loads((folder / "model_compat.json").read_bytes()) | {"activation": {}})
    )
    with pytest.raises(RevisionError, match=said):
        store.active()


def test_a_signature_speaks_of_a_manifest_and_of_nothing_else(keys):
    data, trust = canonical_json({"a": 1}), keys.trust()
    private = serialization.load_pem_private_key(keys.private.read_bytes(), None)
    bare = canonical_json({"key": keys.signer().name, "signature": private.sign(data).hex()})
    with pytest.raises(RevisionError, match="forged"):
        trust.check(data, bare)  # the same bytes, signed for another purpose
    good = trust.sign(data)
    assert trust.sign(data) == good
    assert "pinned" in trust.check(data, good)
    with pytest.raises(RevisionError, match="forged"):
        trust.check(canonical_json({"a": 2}), good)
    for bad in (good + b"\n", good.replace(b'"key"', b'"Key"'), canonical_json(json.loads(good) | {"more": 1})):
        with pytest.raises(RevisionError, match="cannot be read"):
            trust.check(data, bad)


def test_a_key_file_cannot_grow_the_revision(store):
    revision = write(store)
    revision.folder.chmod(0o755)
    (revision.folder / SIGNATURE).chmod(0o644)
    (revision.folder / SIGNATURE).write_bytes(b" " * 100_000)
    with pytest.raises(RevisionError, match="longer than 1,024 bytes"):
        store.locate(revision.name).verify()


# ---------------------------------------------------------------- keys


def test_keys_are_made_for_their_owner_alone(keys):
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o700
    assert keys.trust().pinned == (keys.signer(),)
    secret = keys.private.read_text().splitlines()[1]
    assert secret not in repr(keys.trust()) + repr(keys) + str(keys.signer())
    with pytest.raises(UsageError, match="keys rotate"):
        keys.create()


@pytest.mark.fault
def test_during_a_rotation_two_keys_count_and_then_one(store, keys):
    old, before = write(store), keys.signer()
    after = keys.rotate()
    both = Store(store.models_dir, keys.trust())
    assert both.trust.pinned == (after, before)
    new = write(both, trained_at="2026-01-05T00:00:00Z")
    assert [both.locate(one.name).check_signature()[-40:] for one in (old, new)] == [
        f"by key {key.name}, which is pinned here"[-40:] for key in (before, after)
    ]
    with pytest.raises(UsageError, match="rotate --finish"):
        keys.rotate()
    assert keys.finish() == (before,)
    one = Store(store.models_dir, keys.trust())
    with pytest.raises(RevisionError, match=f"is signed by key {before.name}, and the key {after.name} is pinned here"):
        one.activate(old.name)
    assert one.activate(new.name).moved
    assert keys.finish() == ()


def test_a_rotation_that_was_cut_still_signs(keys, monkeypatch):
    monkeypatch.setattr(KeyFolder, "_write", lambda self, path, data, mode: path == self.private or path.write_bytes(data))
    before = keys.signer()
    keys.rotate()  # the private key was not replaced
    monkeypatch.undo()
    assert keys.signer() == before
    assert "pinned" in keys.trust().check(b"{}", keys.trust().sign(b"{}"))
    keys.finish()
    assert keys.trust().pinned == (before,)


def pem(private):
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.fault
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda keys: keys.private.chmod(0o644), "others may read it"),
        (lambda keys: keys.private.write_bytes(b"not a key"), "not an unencrypted private key"),
        (lambda keys: keys.private.write_bytes(pem(rsa.generate_private_key(65537, 2048))), "of another kind than Ed25519"),
        (lambda keys: keys.private.write_bytes(pem(ed25519.Ed25519PrivateKey.generate())), "is not in trusted.txt"),
        (lambda keys: keys.trusted.unlink(), "trusted.txt beside it is missing"),
        (lambda keys: keys.trusted.write_text("ed25519:abc\n"), "is not a public key"),
        (lambda keys: keys.trusted.write_text(keys.trusted.read_text() * 2), "without repeats"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(keys, break_it, said):
    break_it(keys)
    with pytest.raises(UsageError, match=said) as caught:
        keys.trust().sign(b"{}")
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("pinned", "said"),
    [
        ([], "trademl keys show"),
        (["ssh-ed25519 AAAA"], "is not a public key"),
        ([f"ed25519:{'g' * 64}"], "is not a public key"),
        (["-----BEGIN " + "PRIVATE KEY-----\nMC4CAQ"], "a private key is not a public key"),
        ([f"ed25519:{number:064x}" for number in range(3)], "3 keys are pinned"),
        ([f"ed25519:{1:064x}"] * 2, "without repeats"),
    ],
)
def test_what_cannot_be_pinned_is_refused(pinned, said):
    with pytest.raises(UsageError, match=said):
        Trust.of(pinned)


def test_a_pinned_key_that_is_no_key_verifies_nothing(store):
    revision = write(store)
    nobody = Trust((PublicKey(b"\xff" * 32),))
    forged = canonical_json({"key": nobody.pinned[0].name, "signature": "00" * 64})
    with pytest.raises(RevisionError, match="forged"):
        nobody.check(canonical_json(revision.manifest), forged)


@pytest.mark.fault
def test_a_private_key_does_not_lie_in_a_clone(tmp_path):
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    with pytest.raises(UsageError, match="lies in the clone"):
        KeyFolder(tmp_path / "clone" / "models" / "keys").create()


def test_the_folder_follows_the_settings_and_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert key_folder("auto").path == user_key_folder() == tmp_path / "trademl" / "keys"
    assert key_folder(str(tmp_path / "mine")).path == tmp_path / "mine"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert user_key_folder().parts[-3:] == (".config", "trademl", "keys")
    assert KeyFolder(tmp_path / "none").trust() == NO_TRUST


# ---------------------------------------------------------------- the pipeline and the command line


def test_every_way_to_a_store_brings_the_users_keys(keys):
    settings = load_settings({"paths.keys": str(keys.path)}, environ={})
    assert store_of(settings, "anywhere").trust == keys.trust()
    assert open_store(settings).trust == open_store(settings, models_dir="anywhere").trust == keys.trust()


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """The commands, for a user without keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def call(app, *words):
        return RUNNER.invoke(app, words)

    return SimpleNamespace(keys=lambda *words: call(keys_cli.app, *words), models=lambda *words: call(models_cli.app, *words))


@pytest.mark.contract
def test_keys_new_show_rotate_and_what_verify_says_of_it(shell, tmp_path):
    store = ["--models-dir", str(tmp_path / "models")]
    unsigned = write(Store(tmp_path / "models"))
    assert "no key signs here" in shell.keys("show").stdout
    assert "not signed" in shell.models("verify", *store).stdout
    made = json.loads(shell.keys("new", "--json").stdout)
    (key,) = made["keys"]
    assert key["public"].startswith("ed25519:")
    assert key["signs"] is True
    refused = shell.models("verify", *store)
    assert refused.exit_code == 1
    assert f"the key {key['key']} is pinned" in refused.stdout
    assert "is not signed" in str(shell.models("activate", unsigned.name, *store).exception)
    assert "REFUSED" in shell.models("show", *store).stdout
    signed = write(Store(tmp_path / "models", key_folder("auto").trust()), trained_at="2026-01-06T00:00:00Z")
    (first, *_) = json.loads(shell.models("verify", signed.name, *store, "--json").stdout)["checks"]
    assert (first["name"], first["ok"]) == ("signature", True)
    rotated = json.loads(shell.keys("rotate", "--json").stdout)
    assert [one["signs"] for one in rotated["keys"]] == [True, False]
    assert "are refused from now on" in shell.keys("rotate", "--finish").stdout
    secret = (tmp_path / "config" / "trademl" / "keys" / "signing.key").read_text().splitlines()[1]
    told = "".join(shell.keys(*words).stdout for words in (["show"], ["show", "--json"]))
    assert secret not in told
    refused = shell.models("verify", signed.name, *store)
    assert f"is signed by key {key['key']}" in refused.stdout
    assert refused.exit_code == 1
