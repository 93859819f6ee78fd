"""Run folders, events and jobs: what is left behind when a run ends well, badly, or not at all."""

import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import trademl.runs.jobs as jobs_module
from trademl.commands.market import RETRAIN
from trademl.errors import BadDataError, Exit, LockedError, StageError, UsageError
from trademl.files import jsonable
from trademl.runs import (
    Course,
    Pace,
    Progress,
    RunFolder,
    RunStatus,
    check_parameters,
    enter_project,
    find_job,
    finish_stale,
    job_parameters,
    join_run,
    read_events,
    run_job,
    stage_seconds,
    watch,
)
from trademl.runs.progress import duration
from trademl.settings import load_settings
from trademl.ship.store import Store

pytestmark = pytest.mark.fault


def saved(run: RunFolder) -> dict:
    return json.loads((run.path / "run.json").read_text("utf-8"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- the folder ---------------------------------------------------------------------------------------------------------


def test_a_run_is_partial_until_it_is_whole(tmp_path):
    with RunFolder.create(tmp_path, "retrain", {"seed": 3}) as run:
        assert names(tmp_path) == {f".partial-{run.run_id}"}
        assert saved(run)["status"] == "running"
        assert saved(run)["seed"] == 3
        (run.path / "report.html").write_text("<html>")
        time.sleep(0.02)
    assert names(tmp_path) == {run.run_id}
    assert names(run.path) == {"run.json", "report.html"}
    last = saved(run)
    assert (last["status"], last["exit"], last["job"]) == ("done", 0, "retrain")
    assert last["versions"]["numpy"] == np.__version__
    assert 0.02 <= last["seconds"] < 60


def test_two_runs_in_one_second_get_two_folders(tmp_path):
    now = datetime(2026, 11, 21, 3, 45, 12, tzinfo=UTC)
    runs = [RunFolder.create(tmp_path, "retrain", now=now) for _ in range(20)]
    assert len({run.run_id for run in runs}) == 20
    assert all(run.run_id.startswith("20261121-034512-retrain-") for run in runs)
    assert {run.finish().name for run in runs} == {run.run_id for run in runs} == names(tmp_path)


def test_a_run_id_that_is_taken_is_not_used_again(tmp_path, monkeypatch):
    now = datetime(2026, 11, 21, tzinfo=UTC)
    tokens = iter(["aaaaaa", "aaaaaa", "bbbbbb", "aaaaaa", "bbbbbb", "cccccc"])
    monkeypatch.setattr("trademl.runs.folder.secrets", SimpleNamespace(token_hex=lambda _: next(tokens)))
    first = RunFolder.create(tmp_path, "retrain", now=now)
    second = RunFolder.create(tmp_path, "retrain", now=now)
    second.finish()
    third = RunFolder.create(tmp_path, "retrain", now=now)
    assert [run.run_id[-6:] for run in (first, second, third)] == ["aaaaaa", "bbbbbb", "cccccc"]


@pytest.mark.parametrize(
    ("error", "status", "code", "text"),
    [
        (BadDataError("bars.csv row 5: no close"), "failed", 4, "bars.csv row 5: no close"),
        (LockedError("busy"), "failed", 5, "busy"),
        (ZeroDivisionError("division by zero"), "failed", 1, "ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), "interrupted", 130, "interrupted from outside"),
    ],
)
def test_a_failed_run_is_renamed_too_and_says_what_to_do(tmp_path, error, status, code, text):
    with pytest.raises(type(error)), RunFolder.create(tmp_path, "retrain") as run:
        raise error
    last = saved(run)
    assert run.path == tmp_path / run.run_id
    assert (last["status"], last["exit"], last["message"]) == (status, code, text)
    assert "start the same command again" in last["next_step"]


def test_a_refused_gate_is_a_finished_run_with_exit_3(tmp_path):
    with RunFolder.create(tmp_path, "retrain") as run:
        run.finish(RunStatus.REFUSED, exit=Exit.GATE_REFUSED, message="no edge found")
    assert (saved(run)["status"], saved(run)["exit"], saved(run)["message"]) == ("refused", 3, "no edge found")


@pytest.mark.parametrize("job", ["", "Retrain", "../up", "a b"])
def test_a_job_name_that_makes_no_folder_name_is_refused(tmp_path, job):
    with pytest.raises(UsageError, match="lower-case"):
        RunFolder.create(tmp_path, job)


def test_run_json_masks_everything_under_a_secret_looking_name(tmp_path):
    given = {"api_key": "AKIA-1", "hub": {"SecretAccess": "s3cr3t", "token": "tok-1", "bucket": "models"}, "users": [{"password": "pw-1"}]}
    with RunFolder.create(tmp_path, "hub", given) as run:
        run.record(upload={"signing_key": "k-9"})
    text = (run.path / "run.json").read_text()
    assert not [word for word in ("AKIA-1", "s3cr3t", "tok-1", "pw-1", "k-9") if word in text]
    assert '"bucket": "models"' in text


def test_a_failing_write_leaves_the_old_run_json(tmp_path):
    run = RunFolder.create(tmp_path, "retrain")
    with pytest.raises(TypeError, match="object cannot be written"):
        run.record(thing=object())
    assert saved(run)["status"] == "running"
    assert not list(run.path.glob(".run.json-*"))


def test_jsonable_turns_what_runs_hold_into_json():
    class Device(StrEnum):
        CPU = "cpu"

    @dataclass(frozen=True)
    class Row:
        name: str
        value: float

    value = {
        1: np.float64(0.5),
        "nan": float("nan"),
        "inf": np.array([1.0, np.inf]),
        "row": Row("a", 1.0),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "at": Path("a/b"),
        "device": Device.CPU,
        "set": {2, 1},
        "flag": np.bool_(True),
    }
    expected = {"1": 0.5, "nan": None, "inf": [1.0, None], "row": {"name": "a", "value": 1.0}, "when": "2026-01-02T00:00:00Z"}
    assert jsonable(value) == expected | {"at": "a/b", "device": "cpu", "set": [1, 2], "flag": True}


# --- folders of dead processes --------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from trademl.runs import Progress, RunFolder
run = RunFolder.create(sys.argv[1], "retrain", {"seed": 1})
with Progress(run.path).stage("fit", total=10) as stage:
    stage.update(4)
    (run.path / ".partial-retrain.ipynb").write_text("{}")
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_of_a_killed_run_is_finished_as_failed_at_the_next_start(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    run_id = killed.stdout.strip()
    assert names(tmp_path) == {f".partial-{run_id}"}
    live = RunFolder.create(tmp_path, "retrain")
    assert names(tmp_path) == {run_id, f".partial-{live.run_id}"}
    last = json.loads((tmp_path / run_id / "run.json").read_text())
    assert (last["status"], last["exit"], last["parameters"]) == ("failed", 1, {"seed": 1})
    assert "ended without finishing" in last["message"]
    assert "retrain.ipynb" in names(tmp_path / run_id)
    assert read_events(tmp_path / run_id)[-1]["done"] == 4


def test_a_live_run_is_never_finished_by_another(tmp_path):
    alive = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "sys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", alive, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        run_id = process.stdout.readline().strip()
        (tmp_path / f".partial-{run_id}" / ".pid").write_text("1\n")  # a pid proves nothing: containers have their own
        assert finish_stale(tmp_path) == []
        own = RunFolder.create(tmp_path, "retrain")
        assert finish_stale(tmp_path) == []
        assert names(tmp_path) == {f".partial-{run_id}", f".partial-{own.run_id}"}
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in finish_stale(tmp_path)] == [run_id]


def test_a_folder_killed_before_its_first_write_is_finished_too(tmp_path):
    (tmp_path / ".partial-20260101-000000-retrain-abcdef").mkdir()
    (tmp_path / ".partial-20260101-000001-retrain-abcdef").mkdir()
    (tmp_path / ".partial-20260101-000001-retrain-abcdef" / "run.json").write_text('{"run_id": ')
    assert len(finish_stale(tmp_path)) == 2
    assert json.loads((tmp_path / "20260101-000001-retrain-abcdef" / "run.json").read_text())["status"] == "failed"


# --- events, pace ---------------------------------------------------------------------------------------------------------


def test_events_say_stage_progress_seconds_and_memory(tmp_path):
    progress = Progress(tmp_path)
    with progress.stage("features", total=55) as stage:
        stage.update(20)
        time.sleep(0.02)
    with pytest.raises(BadDataError), progress.stage("labels"):
        raise BadDataError("no bars")
    events = read_events(tmp_path)
    assert [(e["stage"], e["event"], e["done"]) for e in events] == [
        ("features", "start", 0),
        ("features", "progress", 20),
        ("features", "end", 55),
        ("labels", "start", 0),
        ("labels", "failed", 0),
    ]
    assert events[0]["seconds"] + 0.019 <= events[2]["seconds"] < 60  # since the stage began
    assert all(e["peak_memory_mib"] > 1 for e in events)
    assert (events[-1]["error"], events[-1]["message"], events[-1]["exit"]) == ("BadDataError", "no bars", 4)
    assert list(stage_seconds(events)) == ["features", "labels"]


def test_many_updates_write_few_events(tmp_path):
    with Progress(tmp_path).stage("fit", total=100_000) as stage:
        for _ in range(100_000):
            stage.advance()
    assert len(read_events(tmp_path)) < 100


def test_a_torn_last_event_is_left_out_and_no_folder_means_no_events(tmp_path):
    Progress(tmp_path).emit("note", stage=None)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "prog')
    assert len(read_events(tmp_path)) == 1
    with Progress("").stage("fit") as stage:
        stage.update(1)
    assert read_events(tmp_path / "nowhere") == []


def event(kind, stage, done=0, total=None):
    return {"event": kind, "stage": stage, "done": done, "total": total}


@pytest.mark.parametrize(
    ("events", "elapsed", "left"),
    [
        ([], 5.0, None),
        ([(0, event("start", "a"))], 5.0, None),  # nothing measured yet
        ([(0, event("start", "a", 0, 10)), (5, event("progress", "a", 5, 10))], 5.0, 95.0),  # half of 10 % took 5 s
        ([(0, event("start", "a")), (10, event("end", "a"))], 10.0, 90.0),
        ([(0, event("start", "a")), (20, event("end", "a"))], 20.0, 180.0),  # twice as slow as usual
        (
            [(0, event("start", "a")), (10, event("end", "a")), (10, event("start", "b", 0, 4)), (30, event("progress", "b", 2, 4))],
            30.0,
            70.0,
        ),
        ([(0, event("start", "a")), (10, event("end", "a")), (10, event("start", "b"))], 30.0, 70.0),  # no total: judged by the pace
        ([(0, event("start", "a")), (10, event("end", "a")), (10, event("start", "c", 0, 2))], 10.0, 50.0),  # b was skipped
        ([(0, event("start", "a")), (10, event("end", "a")), (10, event("start", "c")), (60, event("end", "c"))], 60.0, 0.0),
    ],
)
def test_time_left_follows_the_shares_and_what_has_passed(events, elapsed, left):
    pace = Pace(Course.of_shares({"a": 0.1, "b": 0.4, "c": 0.5}))
    for now, item in events:
        pace.feed(item, now)
    found = pace.time_left(elapsed)
    assert found == (None if left is None else pytest.approx(left))


# A run that is simulated: (stage, seconds of each of its steps; of one step where it does not count; seconds until the next begins).
EMBEDDED = (  # the embedded year, measured on two cores that others shared: the time of two steps of a stage differs by half
    ("data", [0.3], 0.1),
    ("features", [0.6], 0.1),
    ("labels", [1.1], 0.5),
    ("judge signal", [118, 140, 61, 63, 132], 4.0),
    ("judge position", [141, 102], 2.0),
    ("risk", [25], 0.5),
    ("evidence", [5], 0.5),
    ("ship", [140, 152], 1.0),
    ("prove", [21], 0.1),
    ("store", [6], 49.0),
)
SMALL = (  # a small market in a fresh checkout, measured: kernels are compiled on the way
    ("data", [0.1], 0.0),
    ("labels", [8.2], 0.0),
    ("judge signal", [3.8, 0.6, 0.3, 0.2, 0.4], 5.6),
    ("judge position", [0.4, 0.3], 1.2),
    ("risk", [6.9], 0.1),
    ("evidence", [2.7], 0.1),
    ("ship", [0.5, 0.2], 0.1),
    ("prove", [0.2], 0.1),
    ("store", [0.3], 4.8),
)


def timeline(run, first_s=0.0):
    """(events with their times, length) of a simulated run."""
    events, now = [], first_s
    for name, steps, gap in run:
        total = len(steps) if len(steps) > 1 else None
        events.append((now, event("start", name, 0, total)))
        for done, seconds in enumerate(steps, start=1):
            now += seconds
            events.append((now, event("progress" if done < len(steps) else "end", name, done if total else 0, total)))
        now += gap
    return events, now - first_s


def worst_factor(course, run, after: float) -> float:
    """How far the estimate strays from the truth at its worst, up or down: asked each second until the last tenth of the run."""
    events, whole = timeline(run, first_s=7.0)  # the kernel takes its time before the first stage
    pace, worst = Pace(course), 1.0
    for second in range(int(7 + after * whole), int(7 + 0.9 * whole)):
        while events and events[0][0] <= second:
            pace.feed(events[0][1], events.pop(0)[0])
        left, truth = pace.time_left(second), 7 + whole - second
        if left is not None or course.seconds:  # after an earlier run something is always said
            worst = max(worst, math.inf if not left else max(left / truth, truth / left))
    return worst


def stored_run(reports, run, number=1, status="done"):
    """The folder of a simulated run that has ended."""
    events, whole = timeline(run)
    folder, began = reports / f"20260101-00000{number}-retrain-abcdef", datetime(2026, 1, 1, tzinfo=UTC)
    folder.mkdir(parents=True)
    lines, entered = [], 0.0
    for now, item in events:
        entered = now if item["event"] == "start" else entered
        stamp = (began + timedelta(seconds=int(now))).isoformat().replace("+00:00", "Z")  # whole seconds, as events have them
        lines.append(json.dumps(item | {"time": stamp, "seconds": now - entered}) + "\n")
    (folder / "events.jsonl").write_text("".join(lines))
    ended = (began + timedelta(seconds=whole)).isoformat().replace("+00:00", "Z")
    (folder / "run.json").write_text(json.dumps({"status": status, "finished": ended}))
    return folder


def stretched(run, factors):
    return tuple((name, [seconds * factors.get(name, 1) for seconds in steps], gap) for name, steps, gap in run)


def test_the_first_run_s_estimate_is_not_twice_the_truth():
    """Nothing is said before the first fit has ended."""
    assert worst_factor(RETRAIN, EMBEDDED, after=0.0) < 2
    assert worst_factor(RETRAIN, stretched(EMBEDDED, {"evidence": 8, "risk": 2, "judge position": 0.6}), after=0.0) < 2


@pytest.mark.parametrize(
    ("last", "now"),
    [
        (EMBEDDED, EMBEDDED),
        (SMALL, SMALL),
        (SMALL, tuple((name, [s * 1.4 for s in steps], gap * 0.7) for name, steps, gap in SMALL)),
        (EMBEDDED, stretched(EMBEDDED, {"judge signal": 1.5, "evidence": 0.6})),
        (EMBEDDED, stretched(EMBEDDED, {"judge position": 2, "risk": 0.3, "ship": 1.5})),
        (EMBEDDED, tuple((name, [s * 1.8 for s in steps], gap * 1.8) for name, steps, gap in EMBEDDED)),
        (EMBEDDED, tuple(stage for stage in EMBEDDED if stage[0] != "judge position")),
        (EMBEDDED, (*EMBEDDED[:5], ("a new stage", [120], 0.0), *EMBEDDED[5:])),
    ],
    ids=["the same", "small", "small, slower", "uneven", "more uneven", "longer", "a stage less", "a stage more"],
)
def test_every_further_run_s_estimate_follows_the_last_one(last, now, tmp_path):
    stored_run(tmp_path, last)
    assert worst_factor(Course.of_last(tmp_path, "retrain"), now, after=0.1) < 2


def test_a_run_that_was_broken_off_or_is_damaged_says_nothing_of_the_next(tmp_path):
    whole = stored_run(tmp_path, EMBEDDED, 1)
    stored_run(tmp_path, EMBEDDED[:3], 2, status="failed")
    (stored_run(tmp_path, EMBEDDED, 3) / "events.jsonl").write_text("not JSON\n")
    (stored_run(tmp_path, EMBEDDED, 4) / "events.jsonl").unlink()
    assert Course.of_last(tmp_path, "retrain") == Course.of_run(whole)
    assert Course.of_last(tmp_path, "tune") is None
    assert Course.of_last(tmp_path / "nowhere", "retrain") is None


def test_durations_read_as_people_say_them():
    assert [duration(s) for s in (0.4, 42, 190, 7500)] == ["0 s", "42 s", "3 min 10 s", "2 h 05 min"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watched(folder, stream, **how) -> str:
    """What is shown of two stages, the first of which counts."""
    folder.mkdir(exist_ok=True)
    progress = Progress(folder)
    with watch(folder, Course.of_shares({"fit": 1.0, "store": 3.0}), stream=stream, **how):
        with progress.stage("fit", total=40) as stage:
            for done in range(40):
                stage.update(done, note="0.98 so far")
                time.sleep(0.01)
        with progress.stage("store"):
            pass
    return stream.getvalue()


def test_a_terminal_is_shown_a_bar_and_a_pipe_one_plain_line_a_stage(tmp_path):
    assert "━" in watched(tmp_path / "a", Terminal())
    assert re.fullmatch(r"fit: \d s\nstore: \d s\n", watched(tmp_path / "b", io.StringIO()))
    for name, stream in (("c", Terminal()), ("d", io.StringIO())):
        assert watched(tmp_path / name, stream, quiet=True) == ""


def test_a_long_stage_that_counts_is_told_at_its_tenths(tmp_path, monkeypatch):
    for name in ("_WRITE_EVERY_S", "_SHOW_EVERY_S", "_TELL_EVERY_S"):
        monkeypatch.setattr(f"trademl.runs.progress.{name}", 0.0)
    lines = watched(tmp_path, io.StringIO()).splitlines()
    told = [re.fullmatch(r"fit: (\d+) of 40, 0.98 so far, about \d s left", line) for line in lines[:-2]]
    assert all(told)
    tenths = [int(line[1]) // 4 for line in told]
    assert 5 <= len(tenths) == len(set(tenths)) <= 9
    assert [line.split(":")[0] for line in lines[-2:]] == ["fit", "store"]


def test_a_failed_stage_is_left_to_the_command_to_tell(tmp_path):
    stream = io.StringIO()
    with pytest.raises(BadDataError), watch(tmp_path, stream=stream), Progress(tmp_path).stage("data"):
        raise BadDataError("no bars")
    assert stream.getvalue() == ""


# --- a notebook by hand ---------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project whose notebook is run by hand: a kernel's working folder is the notebook's own."""
    (tmp_path / "nbs" / "jobs").mkdir(parents=True)
    (tmp_path / "settings.ini").write_text("[run]\nseed = 11\n")
    monkeypatch.chdir(tmp_path / "nbs" / "jobs")
    yield tmp_path
    os.chdir("/")


def by_hand(lock=None, **parameters):
    enter_project("")
    return join_run("retrain", "", load_settings(), parameters, lock or contextlib.nullcontext())


@pytest.mark.parametrize(("run_dir", "folder"), [("", "."), ("reports/.partial-1", "nbs/jobs")])
def test_by_hand_the_working_folder_is_the_one_of_settings_ini(project, run_dir, folder):
    assert enter_project(run_dir) == Path.cwd() == project / folder
    assert enter_project(run_dir) == project / folder  # the cell is run again


def test_without_settings_the_folder_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert enter_project("") == tmp_path


def test_a_notebook_by_hand_has_a_run_folder_and_the_lock_until_its_end(project, capsys):
    store = Store(project / "models")
    run = by_hand(store.lock(), risk=True)
    with pytest.raises(LockedError), Store(project / "models").lock():
        pass
    with run.progress.stage("fit", total=4) as stage:
        stage.update(1)
    (partial,) = (project / "reports").iterdir()
    assert json.loads((partial / "run.json").read_text())["status"] == "running"
    assert [event["event"] for event in read_events(partial)] == ["start", "progress", "end"]
    summary = run.finish(revision="1a2b", status="refused", exit=3, headline="no edge", gate={"passed": False})
    with store.lock():
        pass
    assert summary["headline"] == "no edge"
    assert names(project / "reports") == {run.run_id}
    record = json.loads((project / "reports" / run.run_id / "run.json").read_text())
    assert (record["status"], record["exit"], record["seed"], record["message"]) == ("refused", 3, 11, "no edge")
    assert (record["parameters"], record["revision"], list(record["stages"])) == ({"risk": True}, "1a2b", ["fit"])
    shown = capsys.readouterr().out
    assert "\rfit: 1 of 4, about 0 s left" in shown or "\rfit: …" in shown
    assert f"run folder: reports/{run.run_id}; the pointer stays: `trademl models activate 1a2b` moves it" in shown
    with run.progress.stage("fit"):  # a cell further up is run once more
        pass
    assert run.finish(status="done", exit=0, headline="again")["headline"] == "again"
    assert "run the notebook from its top" in capsys.readouterr().out
    assert json.loads((project / "reports" / run.run_id / "run.json").read_text())["message"] == "no edge"


def test_a_first_cell_that_is_run_again_ends_the_run_before(project):
    store = Store(project / "models")
    first = by_hand(store.lock())
    with pytest.raises(BadDataError), first.progress.stage("data"):
        raise BadDataError("row 5")
    second = by_hand(store.lock())
    third = by_hand(store.lock())
    last = [json.loads((project / "reports" / run.run_id / "run.json").read_text()) for run in (first, second)]
    assert [(r["status"], r["exit"]) for r in last] == [("failed", 4), ("interrupted", 130)]
    assert last[0]["message"] == "stage data: BadDataError: row 5"
    third.finish(status="done", exit=0, headline="")
    assert names(project / "reports") == {first.run_id, second.run_id, third.run_id}


def test_a_run_by_hand_ends_with_its_kernel(project):
    code = """
import contextlib
from trademl.runs import enter_project, join_run
from trademl.settings import load_settings
from trademl.ship.store import Store
enter_project("")
print(join_run("tune", "", load_settings(), {}, Store("models").lock()).run_id)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    record = json.loads((project / "reports" / done.stdout.strip() / "run.json").read_text())
    assert (record["status"], record["message"]) == ("interrupted", "its kernel ended, or began anew")
    with Store(project / "models").lock():
        pass


def test_a_command_s_notebook_writes_into_the_command_s_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder.create("reports", "retrain") as command:
        run = join_run("retrain", str(command.path), load_settings(), {}, Store("models").lock())
        with run.progress.stage("fit"):
            pass
        run.finish(headline="whole")
        assert names(command.path) >= {"events.jsonl", "summary.json"}
        assert run.run_id == command.run_id
    assert not Path("models").exists(), "the lock is the command's"


# --- parameters -----------------------------------------------------------------------------------------------------------


def test_parameters_are_read_with_their_types_and_defaults(notebooks):
    found = {p.name: (p.kind, p.default) for p in job_parameters(notebooks / "finishes.ipynb").values()}
    assert found == {
        "run_dir": ("str", ""),
        "seed": ("int", 7),
        "spread": ("float", 16.95),
        "symbol": ("str | None", None),
        "device": ("Literal['auto', 'cpu', 'cuda']", "auto"),
        "members": ("list[str]", ["rf", "xgb"]),
        "shap": ("bool", False),
        "note": ("str", "a=b"),
    }


def test_papermill_agrees_on_every_parameter_that_it_can_read(notebooks):
    papermill = pytest.importorskip("papermill")
    theirs = papermill.inspect_notebook(notebooks / "finishes.ipynb")
    ours = job_parameters(notebooks / "finishes.ipynb")
    assert {"run_dir", "seed", "spread", "shap"} <= set(theirs) <= set(ours)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"seed": np.int64(9)}, {"seed": 9}),
        ({"spread": 3}, {"spread": 3}),
        ({"symbol": None}, {"symbol": None}),
        ({"symbol": Path("a/b")}, {"symbol": str(Path("a/b"))}),
        ({"device": "cuda"}, {"device": "cuda"}),
        ({"members": ("rf",)}, {"members": ["rf"]}),
    ],
)
def test_values_that_fit_pass_in_plain_types(notebooks, given, plain):
    assert check_parameters(notebooks / "finishes.ipynb", given) == plain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 7}, "no parameter 'seeds'; it takes: device, members, note, seed, shap, spread, symbol"),
        ({"seed": "7"}, r"parameter seed = '7' \(str\) must be int"),
        ({"seed": 7.0}, "must be int"),
        ({"seed": True}, "must be int"),
        ({"shap": 1}, "must be bool"),
        ({"spread": "16.95"}, "must be float"),
        ({"spread": None}, "must be float"),
        ({"symbol": 3}, r"must be str \| None"),
        ({"device": "tpu"}, "must be Literal"),
        ({"members": [1]}, r"must be list\[str\]"),
        ({"note": 3}, "must be str"),
    ],
)
def test_an_unknown_name_or_a_wrong_type_is_refused_before_anything_runs(notebooks, given, message):
    with pytest.raises(UsageError, match=message):
        check_parameters(notebooks / "finishes.ipynb", given)


def test_a_lost_parameters_tag_is_refused(notebooks):
    with pytest.raises(UsageError, match="allowed_cell_metadata_keys"):
        check_parameters(notebooks / "tag_lost.ipynb", {"seed": 8})


def test_a_secret_is_never_a_parameter(tmp_path):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ['hub_token: str = ""']}
    (tmp_path / "job.ipynb").write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(UsageError, match="pass it in the environment"):
        check_parameters(tmp_path / "job.ipynb", {"hub_token": "abc"})


def test_an_unknown_job_lists_the_right_ones(repo):
    known = sorted(path.stem for path in (repo / "nbs" / "jobs").glob("*.ipynb"))
    with pytest.raises(UsageError, match="does not exist; there are: .*" + ".*".join(known)):
        find_job("retrian")
    for job in known:
        assert find_job(job) == repo / "nbs" / "jobs" / f"{job}.ipynb"


# --- jobs in a real kernel ------------------------------------------------------------------------------------------------


def test_a_job_runs_in_this_interpreter_and_gives_back_its_summary(tmp_path, notebooks, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "none"))
    start_up = tmp_path / "ipython" / "profile_default" / "startup"
    start_up.mkdir(parents=True)
    (start_up / "00.py").write_text("raise SystemExit('a start-up file of the person reached the job')")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with RunFolder.create("reports", "finishes") as run:
        given = {"seed": 11, "spread": 0.0, "symbol": "BTCUSD", "members": ["lgb"], "shap": True}
        result = run_job(notebooks / "finishes.ipynb", given, run=run, course=Course.of_shares({"features": 1, "fit": 2}))
        assert result.notebook.is_file()
    assert result.summary["seen"] == [0.0, "BTCUSD", "auto", ["lgb"], True, "a=b"]
    assert result.summary["python"] == sys.executable
    assert list(result.stages) == ["features", "fit"]
    assert result.peak_memory_mib > 10
    assert names(run.path) == {"run.json", "summary.json", "events.jsonl", "finishes.ipynb"}
    last = saved(run)
    assert (last["status"], last["seed"], last["revision"]) == ("done", 11, "1a2b3c")
    text = (run.path / "finishes.ipynb").read_text()
    assert "fitted" in text
    assert str(tmp_path) not in text + json.dumps(last)


@pytest.mark.parametrize(
    ("notebook", "kind", "code", "message"),
    [
        ("broken_stage", StageError, 1, "stage labels: IndexError: list index out of range; the traceback is in .*broken_stage.ipynb"),
        ("raises_bad_data", BadDataError, 4, "row 5,030;\n`trademl data repair"),
        ("raises_private_error", StageError, 5, "models/ is in use by pid 5"),
        ("kernel_dies", StageError, 1, "stage fit: the kernel died .killed by signal 9: most often the machine ran out of memory"),
    ],
)
def test_a_broken_job_is_told_plainly_and_keeps_its_notebook(tmp_path, notebooks, notebook, kind, code, message):
    with pytest.raises(kind, match=message) as caught, RunFolder.create(tmp_path, notebook) as run:
        run_job(notebooks / f"{notebook}.ipynb", run=run)
    assert caught.value.exit_code == code
    assert run.path == tmp_path / run.run_id
    last = saved(run)
    assert (last["status"], last["exit"], last["message"]) == ("failed", code, str(caught.value))
    executed = json.loads((run.path / f"{notebook}.ipynb").read_text())
    outputs = [out for cell in executed["cells"] for out in cell.get("outputs", [])]
    assert notebook == "kernel_dies" or any(out["output_type"] == "error" and out["traceback"] for out in outputs)


def test_a_cell_that_takes_too_long_is_stopped(tmp_path, notebooks):
    with pytest.raises(StageError, match="stage fit: a cell ran longer than 1 s"), RunFolder.create(tmp_path, "waits") as run:
        run_job(notebooks / "waits.ipynb", run=run, cell_timeout_s=1)
    assert gone(int((run.path / "kernel.pid").read_text()))


def test_a_secret_of_the_environment_is_scrubbed_out_of_the_whole_folder(tmp_path, notebooks, monkeypatch):
    secret = 'wJalrXUtnFEMI/K7MDENG"x'
    monkeypatch.setenv("HUB_SECRET_ACCESS", secret)
    with pytest.raises(StageError), RunFolder.create(tmp_path, "prints_secret") as run:
        run_job(notebooks / "prints_secret.ipynb", run=run)
    texts = [path.read_text("utf-8") for path in run.path.iterdir()]
    assert not [text for text in texts if "wJalrXUtnFEMI" in text]
    assert any("refused for ***" in text for text in texts)
    assert json.loads((run.path / "prints_secret.ipynb").read_text())["cells"]


def gone(pid: int, within_s: float = 8.0) -> bool:
    """Is this process gone (or a zombie that nobody reaps yet) soon?"""
    for _ in range(int(within_s / 0.1)):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def kernel_pid(reports: Path) -> int:
    for _ in range(300):
        for path in reports.glob(".partial-*/kernel.pid"):
            if path.read_text():
                return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError("the kernel never started")


WAITS = """
import sys
from pathlib import Path
from trademl.runs import RunFolder, run_job
with RunFolder.create(sys.argv[1], "waits") as run:
    run_job(Path(sys.argv[2]), run=run)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_no_kernel_behind(tmp_path, notebooks, number):
    process = subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path), str(notebooks / "waits.ipynb")], stderr=subprocess.PIPE)
    try:
        pid = kernel_pid(tmp_path)
        process.send_signal(number)
        process.communicate(timeout=90)
    finally:
        process.kill()
    assert gone(pid)
    if number == signal.SIGKILL:
        assert len(finish_stale(tmp_path)) == 1
    (folder,) = tmp_path.iterdir()
    last = json.loads((folder / "run.json").read_text())
    assert (last["status"], last["exit"]) == (("failed", 1) if number == signal.SIGKILL else ("interrupted", 130))
    assert {"waits.ipynb", "events.jsonl"} <= names(folder)


def test_jobs_run_side_by_side_in_threads(tmp_path, notebooks):
    found = []

    def one():
        with RunFolder.create(tmp_path, "finishes") as run:
            found.append(run_job(notebooks / "finishes.ipynb", run=run).summary["revision"])

    threads = [threading.Thread(target=one) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert found == ["1a2b3c", "1a2b3c"]
    assert not list(tmp_path.glob(".partial-*"))


def test_the_notebook_side_needs_no_papermill():
    code = "import sys, trademl.runs; print([m for m in ('papermill', 'jupyter_client', 'rich', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert out.stdout.strip() == "[]"
    assert jobs_module.SUMMARY == "summary.json"
