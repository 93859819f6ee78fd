"""`trademl models gc`: what nobody names goes after its grace, and nothing else."""

import json
from datetime import UTC, datetime, timedelta

import make_revision as make
import pytest
from hub_rooms import rooms
from typer.testing import CliRunner

from trademl.cli import app
from trademl.errors import HubError, LockedError, RevisionError, UsageError
from trademl.ship.collect import collect
from trademl.ship.store import Store

FILES = make.make_files()
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.fixture
def store(tmp_path):
    """Five revisions, the third one active after the second; the highest look is the first's."""
    store = Store(tmp_path / "models")
    for number in range(1, 6):
        look = make.make_manifest()["look"] | {"number": 9 if number == 1 else number}
        store.write(FILES, make.make_manifest(trained_at=f"2026-01-0{number}T00:00:00Z", look=look))
    first_to_last = store.revisions()[::-1]
    for revision in first_to_last[1:3]:
        store.activate(revision.name)
    return store


def sweep(store, **words):
    return collect(store, **{"now": NOW + 2 * DAY, "grace": DAY, "keep": 1} | words)


def test_only_what_nothing_names_goes(store):
    one, two, three, four, five = store.revisions()[::-1]
    dry = sweep(store, dry_run=True)
    assert (dry.revisions, dry.kept, dry.is_done) == ((four.name,), 4, False)
    assert len(store.revisions()) == 5
    done = sweep(store)
    assert (done.revisions, done.is_done) == ((four.name,), True)
    assert done.bytes_freed == sum(entry["bytes"] for entry in four.files().values())
    assert {revision.name for revision in store.revisions()} == {one.name, two.name, three.name, five.name}
    assert list((store.models_dir / ".staging").iterdir()) == []
    assert store.active().name == three.name


def test_what_is_young_stays(store):
    assert sweep(store, now=NOW + DAY / 2).revisions == ()


def test_what_is_named_or_approved_by_hand_stays(store):
    four = store.revisions()[1]
    assert sweep(store, named=[four.name]).revisions == ()
    store.activate(four.name, "a reason")
    store.activate(store.revisions()[0].name)
    store.activate(store.revisions()[2].name)
    assert four.name not in sweep(store, keep=1).revisions


def test_a_pointer_that_cannot_be_read_stops_it(store):
    (store.models_dir / "model_compat.json").write_bytes(b"{")
    with pytest.raises(RevisionError, match="strict JSON"):
        sweep(store)
    assert len(store.revisions()) == 5


def test_another_run_stops_it(store):
    with store.lock(), pytest.raises(LockedError):
        sweep(store)


def test_the_active_one_cannot_be_removed(store):
    with pytest.raises(UsageError, match="it stays"):
        store.remove(store.active().name)


def test_what_the_hubs_log_names_stays(tmp_path, monkeypatch):
    room = rooms(tmp_path, is_standing=True)  # revisions 1 and 2 were approved, 3 was not
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PATHS_MODELS": tmp_path / "trainer",
        "PATHS_KEYS": tmp_path / "keys",
        "HUB_URL": tmp_path / "hub",
        "HUB_KEEP": 1,
        "HUB_GRACE_HOURS": 1,
    }.items():
        monkeypatch.setenv(f"TRADEML_{name}", str(value))
    monkeypatch.setattr("trademl.commands.hub.utc_now", lambda: NOW + DAY)
    four = room.revision(4)
    words = ["models", "gc", "--json", "--dry-run"]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert told["revisions"] == [room.revision(3).name]  # never pushed
    assert four.name not in told["revisions"]
    monkeypatch.setenv("TRADEML_HUB_URL", "off")
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert len(told["revisions"]) == 3
    monkeypatch.setenv("TRADEML_HUB_URL", "gone")
    with pytest.raises(HubError, match="is not a folder"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert len(room.store.revisions()) == 4
