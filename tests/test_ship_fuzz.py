"""A manifest that was altered and hashed anew: refused with one plain error, or valid; nothing else ever comes out."""

import contextlib
import copy
import json
import shutil

import make_revision as make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.bot.policy import Policy, risk_head_of
from trademl.errors import RevisionError, TradeMLError
from trademl.files import canonical_json, digest
from trademl.ship.manifest import TOLERANCE, compat_record, differences, parse_manifest
from trademl.ship.revision import read_revision
from trademl.ship.store import Store

FILES = make.make_files()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The manifest and the folder of a valid revision that may be written to."""
    store = Store(tmp_path_factory.mktemp("fuzz") / "models")
    revision = store.write(FILES, make.make_manifest())
    folder = tmp_path_factory.mktemp("altered") / "revisions" / "copy"
    shutil.copytree(revision.folder, folder, copy_function=shutil.copyfile)
    for path in (folder, folder / "native"):
        path.chmod(0o755)
    return revision.manifest, folder


def paths(value, at=()):
    """Every place inside a record."""
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from paths(value[key], (*at, key))


def altered(record, at, change):
    """A copy with one place deleted (`change` is None) or replaced by `change[0]`."""
    record = copy.deepcopy(record)
    inner = record
    for key in at[:-1]:
        inner = inner[key]
    if change is None:
        del inner[at[-1]]
    else:
        inner[at[-1]] = change[0]
    return record


def renamed(folder, record):
    """The folder with this manifest, under its own hash; model_compat.json says the same where that can be said."""
    data = canonical_json(record)
    target = folder.with_name(digest(data)[:16])
    (folder / "manifest.json").write_bytes(data)
    try:
        compat = canonical_json(compat_record(record, digest(data)))
    except (LookupError, TypeError, AttributeError, RevisionError):
        compat = b"{}"
    (folder / "model_compat.json").write_bytes(compat)
    folder.rename(target)
    return target


ODD = [[], {}, "", "x", None, True, 0, -1, 1, 10**30, 1e300, 0.5, [1], [[]], [{}], {"a": {}}, "2026-02-31T00:00:00Z", "٢", "\x00", "../x"]


@settings(max_examples=200)
@given(st.data())
@pytest.mark.fault
def test_an_altered_manifest_ends_in_a_plain_refusal_or_is_valid(whole, data):
    manifest, folder = whole
    record = manifest
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from([one for one in paths(record) if one]))
        change = data.draw(st.one_of(st.none(), st.tuples(st.sampled_from(ODD))))
        record = altered(record, at, change)
        if not record:
            return
    look(renamed(folder, record), folder, record)


def look(target, folder, record):
    """Everything that a reader does, up to an activation, and whether that came to its end; the folder gets its old name back."""
    store, active = Store(target.parents[1]), None
    try:
        with contextlib.suppress(RevisionError):
            parse_manifest(canonical_json(record))
        with contextlib.suppress(RevisionError):
            revision = read_revision(target)
            assert isinstance(revision.compat, dict) and differences(revision.manifest, revision.manifest) == []
            assert all(isinstance(check.detail, str) for check in revision.checks())
            assert store.state(revision)
            for profile in range(1, 6):
                assert Policy.of(revision, profile).rule.margin_r is not None
                risk_head_of(revision, profile)
        good, broken = store.scan()
        assert len(good) + len(broken) == 1
        with contextlib.suppress(RevisionError):
            store.activate(target.name, "fuzz")
            active = store.active()
            assert active == good[0]
    finally:
        target.rename(folder)
        (store.models_dir / "model_compat.json").unlink(missing_ok=True)
    return active is not None


def test_what_the_fuzz_looks_at_passes_for_an_unaltered_manifest(whole):
    manifest, folder = whole
    assert look(renamed(folder, manifest), folder, manifest)
    fewer = altered(manifest, ("models", 0, "features"), ([],))
    assert not look(renamed(folder, fewer), folder, fewer)


FUTURE = "2999-01-01T00:00:00Z"
IMPOSSIBLE = {
    "no worth": (("market", "decision", "worth_shipped"), [], "decision.worth_shipped"),
    "a margin in words": (("market", "decision", "margins", "3", "margin_r"), "wide", "margins.3.margin_r"),
    "costs of another kind": (("market", "costs"), [1], "market.costs"),
    "a published head without a graph": (
        ("market", "profiles"),
        [{"profile": 2, "max_total_drawdown_pct": 20, "published": True, "verdict": "published"}],
        "a graph risk_pN among models",
    ),
    "a warm start without its number": (("market", "warmstart", "generation"), None, "warmstart.generation"),
    "parameters of another kind": (("market", "ensemble"), [1], "market.ensemble"),
    "an embargo in words": (("split", "embargo"), "two days", "split.embargo"),
    "a window gone": (("split", "windows", "final"), None, "split.windows.final"),
    "a class list gone": (("models", 0, "classes"), None, "models signal"),
    "empty input shape": (("models", 0, "input", "shape"), [], "input.shape"),
    "input without columns": (("models", 0, "input", "shape"), ["N", 0], "input.shape"),
    "no models": (("models",), [], "at least one"),
    "one class": (("models", 0, "classes"), ["BUY"], "two and more"),
    "two models of one name": (("models", 1, "name"), "signal", "without repeats"),
    "tolerance above the product's": (("golden", "tolerance"), TOLERANCE * 1.01, "golden.tolerance = 1.01"),
    "tolerance zero": (("golden", "tolerance"), 0, "golden.tolerance = 0, expected above 0"),
    "no golden rows": (("golden", "rows"), 0, "golden.rows"),
    "empty lineage": (("lineage",), [], "at least one fit"),
    "lineage of text": (("lineage",), ["rf"], r"lineage\[0\]"),
    "a fit that saw nothing": (("lineage", 0, "rows"), 0, r"lineage\[0\].rows"),
    "a fit that saw the year 10000": (("lineage", 0, "label_end_s"), 10**12, "label_end_s"),
    "a fit without a label end": (("lineage", 0, "label_end_s"), None, "label_end_s"),
    "a decision without margins": (("market", "decision", "margins"), {}, "decision.margins"),
    "a decision of another kind": (("market", "decision"), ["votes"], "decision"),
    "31 February": (("trained_at",), "2026-02-31T00:00:00Z", "trained_at.*a moment that exists"),
    "25 o'clock": (("data", "last"), "2026-02-01T25:00:00Z", "data.last.*a moment that exists"),
    "digits of another script": (("trained_at",), "٢٠٢٦-01-01T00:00:00Z", "trained_at"),
    "data back to front": (("data", "first"), "2026-01-01T00:00:01Z", "not before data.first"),
    "expired before it was trained": (("expires_at",), "2026-01-02T03:04:05Z", "after trained_at"),
    "news until a day that is not": (("market", "news_covers_until"), "2026-13-01T00:00:00Z", "news_covers_until"),
    "trained in the future": (("trained_at",), FUTURE, "lies in the future"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_is_refused_by_name(whole, what):
    manifest, folder = whole
    at, value, says = IMPOSSIBLE[what]
    target = renamed(folder, altered(manifest, at, (value,)))
    try:
        with pytest.raises(RevisionError, match=says):
            read_revision(target).verify(graphs=False)
    finally:
        target.rename(folder)


@pytest.mark.fault
def test_a_missing_decision_is_refused(whole):
    manifest, folder = whole
    target = renamed(folder, altered(manifest, ("market", "decision"), None))
    with pytest.raises(RevisionError, match="decision is missing"):
        read_revision(target)
    target.rename(folder)


@pytest.mark.fault
@pytest.mark.parametrize(
    "state",
    [
        b'{"approvals": [1]}',
        b'{"approvals": null}',
        b'{"approvals": {"0123456789abcdef": "yes"}}',
        b'{"approvals": {"0123456789abcdef": {"reason": 1, "at": "2026-01-01T00:00:00Z"}}}',
        b'{"approvals": {"0123456789abcdef": {"reason": "x"}}}',
        b'{"approvals": {"any": {"reason": "x", "at": "2026-01-01T00:00:00Z"}}}',
        b"[]",
        b"{",
        b"",
        b'{"approvals": {"a": ' + b"[" * 100_000,
    ],
    ids=lambda state: state[:24].decode(),
)
def test_a_malformed_state_file_is_told_plainly_and_stays(tmp_path, state):
    store = Store(tmp_path)
    revision = store.write(FILES, make.make_manifest(passed=False))
    (tmp_path / "state.json").write_bytes(state)
    for act in (lambda: store.state(revision), lambda: store.activate(revision.name), lambda: store.activate(revision.name, "because")):
        with pytest.raises(RevisionError, match=r"state\.json.*expected.*models activate REV --reason|state\.json.*JSON.*--reason"):
            act()
    assert (tmp_path / "state.json").read_bytes() == state
    assert store.active() is None


@pytest.mark.parametrize("models", [None, [], ["signal"], [{}], [{"file": []}], {"file": "signal.onnx"}])
def test_a_writer_with_malformed_models_is_refused(tmp_path, models):
    with pytest.raises(TradeMLError, match="models"):
        Store(tmp_path / "models").write(FILES, make.make_manifest(models=models))
    assert json.dumps(models) and not (tmp_path / "models").exists()
