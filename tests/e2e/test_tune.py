"""`trademl tune` as people use it: killed, resumed, run twice at once, asked about other data; and the retrain after it."""

import configparser
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import SMALL

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TRADEML = Path(sys.executable).with_name("trademl")
TRIALS = 9  # the shipped settings and as many as a verdict needs
FEW = 3  # where nothing is adopted


def write_settings(folder):
    """The small market's settings.ini; no trial is given up, so that every one counts for a verdict."""
    ini = configparser.ConfigParser()
    for name, value in (SMALL | {"tuning.prune_after": 20}).items():
        section, key = name.split(".")
        if not ini.has_section(section):
            ini.add_section(section)
        ini[section][key] = str(value)
    with (folder / "settings.ini").open("w") as file:
        ini.write(file)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    write_settings(folder)
    return folder


def start(desk, *words):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TRADEML_")}
    return subprocess.Popen([str(TRADEML), *words], cwd=desk, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(desk, *words, code=0):
    process = start(desk, *words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err
    return out, err


def finished(desk, role="signal"):
    """Trials that have ended so far, read from the journal's own events."""
    path = desk / "models" / "synthetic" / "studies" / f"{role}.journal"
    text = path.read_text() if path.exists() else ""
    events = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return sum(event["op_code"] == 6 and event["state"] in (1, 2) for event in events)


def tuned(desk, role):
    return json.loads((desk / "models" / "synthetic" / "tuned.json").read_text())[role]


@pytest.fixture(scope="module")
def resumed(desk):
    """A study that was killed with SIGKILL after a few trials and resumed: (trials before, object that the resumed command printed)."""
    command = ("tune", "signal", "--trials", str(TRIALS), "--json")
    process = start(desk, *command)
    deadline = time.monotonic() + 300
    while finished(desk) < 4 and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = finished(desk)
    return before, json.loads(run(desk, *command)[0])


@pytest.mark.fault
def test_killed_and_resumed_loses_at_most_the_running_trial(desk, resumed):
    before, summary = resumed
    assert 4 <= before < 3 * TRIALS
    trials = summary["study"]["trials"]
    assert trials["complete"] + trials["pruned"] == 3 * TRIALS
    assert trials["fail"] <= 1
    assert summary["study"] == tuned(desk, "signal")
    assert summary["headline"] == summary["study"]["why"]
    assert (desk / summary["report"]).stat().st_size > 100_000
    assert not list((desk / "models" / "synthetic" / "studies").glob("*.alive"))


def test_a_finished_study_is_only_judged_again(desk, resumed):
    again = json.loads(run(desk, "tune", "signal", "--trials", str(TRIALS), "--json")[0])
    assert {k: v for k, v in again["study"].items() if k != "at"} == {k: v for k, v in resumed[1]["study"].items() if k != "at"}


def test_a_study_of_other_data_is_refused_and_fresh_sets_it_aside(desk, resumed):
    _, err = run(desk, "tune", "signal", "--trials", "2", "--seed", "8", code=2)
    assert [line.split(": ")[0] for line in err.splitlines()] == ["data", "features", "labels", "trademl"]  # one line a stage
    assert "seed: 7 there, 8 here" in err
    assert "--fresh" in err
    copy = desk.parent / "other"
    (copy / "models" / "synthetic" / "studies").mkdir(parents=True)
    write_settings(copy)
    journal = copy / "models" / "synthetic" / "studies" / "signal.journal"
    journal.write_text("no journal at all\n")
    _, err = run(copy, "tune", "signal", "--trials", "2", code=4)
    assert "line 1 is not an event of a study" in err
    run(copy, "tune", "signal", "--trials", "2", "--fresh")
    assert journal.with_name("signal.journal.1").read_text() == "no journal at all\n"
    assert finished(copy) == 6


def test_two_commands_share_one_study(desk, resumed):
    command = ("tune", "position", "--trials", str(FEW), "--json")
    both = [start(desk, *command) for _ in range(2)]
    told = [json.loads(process.communicate(timeout=600)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert finished(desk, "position") == 3 * FEW
    one, two = ({k: v for k, v in summary["study"].items() if k != "at"} for summary in told)
    assert one == two
    assert not one["adopted"]
    assert tuned(desk, "signal")["journal"] == "studies/signal.journal"  # the other role's verdict stays


def test_two_workers_of_one_command(desk, resumed):
    summary = json.loads(run(desk, "tune", "signal", "--trials", str(TRIALS + 2), "--workers", "2", "--json")[0])
    assert summary["study"]["trials"]["complete"] + summary["study"]["trials"]["pruned"] == 3 * (TRIALS + 2)


def test_the_next_retrain_reads_it_and_says_so(desk, resumed):
    section = tuned(desk, "signal")
    assert section["adopted"], section["why"]  # 60 rounds at the shipped rate are far too few for an edge that is there
    out, _ = run(desk, "retrain")
    assert "signal with parameters of the study of" in out
    (folder,) = (desk / "models" / "synthetic" / "revisions").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["market"]["tuning"]["signal"]["used"]
    assert manifest["market"]["tuning"]["signal"]["study"]["values"] == section["values"]
    assert section["values"].items() <= manifest["market"]["ensemble"].items()
    assert [fit["name"] for fit in manifest["lineage"] if fit["kind"] == "study"][-1:] == ["signal study"]
    assert manifest["split"]["windows"]["select"]["start_s"] >= section["lineage"][0]["label_end_s"] + manifest["split"]["embargo"]
    assert manifest["market"]["warmstart"]["start"] == "cold"
