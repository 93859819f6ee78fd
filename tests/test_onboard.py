"""`trademl onboard`: from an approval on the hub to a bot that loads it, with what the extra `hub` installs."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from trademl.bot import Expect, load_approved
from trademl.bot.refusals import LoadError
from trademl.cli import app
from trademl.clock import utc_now
from trademl.commands.onboard import with_setting
from trademl.files import canonical_json
from trademl.settings import load_settings
from trademl.ship.hub.hub import Hub
from trademl.ship.hub.objects import FolderObjects
from trademl.ship.signing import KeyFolder
from trademl.ship.store import Store

LINE = "market-synth-15min"
BLOCKED = (
    "pandas",
    "numba",
    "sklearn",
    "lightgbm",
    "xgboost",
    "optuna",
    "shap",
    "papermill",
    "plotly",
    "onnx",
    "pyarrow",
    "arch",
    "orjson",
)


@pytest.fixture(scope="module")
def approved(repo, tmp_path_factory):
    """A hub that approved the golden revision, and the trainer's keys."""
    folder = tmp_path_factory.mktemp("approved")
    keys = KeyFolder(folder / "keys")
    keys.create()
    shutil.copytree(repo / "docs" / "contract" / "golden" / "models", folder / "trainer")
    revision = Store(folder / "trainer", keys.trust()).locate()
    (revision.folder / "manifest.sig").write_bytes(keys.trust().sign(canonical_json(revision.manifest)))
    (folder / "hub").mkdir()
    hub = Hub(FolderObjects(folder / "hub"), LINE, keys.trust(), keys.trust())
    hub.push(revision, now=utc_now())
    hub.promote(revision.name, now=utc_now())
    return folder, revision, keys


@pytest.fixture
def machine(approved, tmp_path, monkeypatch):
    """A bot's machine: the public key, the hub's address, and nothing else."""
    folder, _, keys = approved
    (tmp_path / "keys").mkdir()
    shutil.copy(keys.trusted, tmp_path / "keys" / "trusted.txt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.ini").write_text(f"# mine\n[hub]\nurl = {folder / 'hub'}\n[paths]\nkeys = keys\n")
    return tmp_path


def onboard(*words):
    return CliRunner().invoke(app, ["onboard", *words], catch_exceptions=False)


def test_three_steps_become_one(approved, machine):
    _, revision, keys = approved
    told = json.loads(onboard("--profile", "2", "--symbol", "SYNTH", "--json").stdout)
    assert (told["revision"], told["line"], told["profile"], told["seq"]) == (revision.name, LINE, 2, 1)
    assert len(told["checks"]) == 10 and all(one["ok"] for one in told["checks"])
    assert "# mine" in (machine / "settings.ini").read_text()
    assert load_settings().account.profile == 2
    made = eval(told["code"], {"load_approved": load_approved, "Expect": Expect})  # the very line that is printed
    assert (made.revision, made.loaded.profile) == (revision.name, 2)
    assert str(keys.signer()) in told["code"]
    text = onboard("--symbol", "SYNTH").stdout  # again: nothing is fetched, the profile is the settings'
    assert "under profile 2: 10 checks passed" in text
    assert "risk head   multiplier 1.0: none is kept" in text
    assert "risk head   sizes every trade" in onboard("--profile", "3", "--symbol", "SYNTH").stdout


def test_a_dry_run_writes_nothing(machine):
    before = (machine / "settings.ini").read_text()
    assert "would pull" in onboard("--profile", "4", "--symbol", "SYNTH", "--dry-run").stdout
    assert (machine / "settings.ini").read_text() == before
    assert not (machine / "models").exists()


def test_another_bracket_than_the_settings_execute_is_refused_and_nothing_is_written(machine, monkeypatch):
    monkeypatch.setenv("TRADEML_LABELING_TP_ATR", "2")
    with pytest.raises(LoadError, match="execute what was learned, or retrain"):
        onboard("--profile", "2", "--symbol", "SYNTH")
    assert "profile" not in (machine / "settings.ini").read_text()


def test_a_profile_that_the_environment_overrides_is_said(machine, monkeypatch):
    monkeypatch.setenv("TRADEML_ACCOUNT_PROFILE", "1")
    told = json.loads(onboard("--profile", "5", "--symbol", "SYNTH", "--json").stdout)
    assert "environment TRADEML_ACCOUNT_PROFILE says 1 and wins" in told["remarks"][-1]


def test_the_extra_hub_is_enough(machine):
    """In a process without pandas, numba and the rest of the workbench."""
    code = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r})); from trademl.cli import main; main()"
    words = [sys.executable, "-c", code, "onboard", "--profile", "3", "--symbol", "SYNTH", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["profile"] == 3


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", "[account]\nprofile = 4\n"),
        ("[gate]\nlevel = 0.01", "[gate]\nlevel = 0.01\n\n[account]\nprofile = 4\n"),
        ("# x\n[account]\n# which\nprofile=1\nswap = true\n", "# x\n[account]\n# which\nprofile = 4\nswap = true\n"),
        ("[account]\nswap = true\n[run]\nseed = 1\n", "[account]\nprofile = 4\nswap = true\n[run]\nseed = 1\n"),
        ("[run]\nprofile = 1\n[account]\nprofile : 2\n", "[run]\nprofile = 1\n[account]\nprofile = 4\n"),
    ],
)
def test_one_line_of_the_settings_changes(text, written):
    assert with_setting(text, "account", "profile", "4") == written
