"""What the command line promises, tried as a person tries it: the script, in a folder of its own, on a small market."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import small_run
from browser_page import CLIPPED, DESK, PHONE, chromium, opened
from filelock import FileLock

from trademl.cli import main

pytestmark = pytest.mark.e2e

TRADEML = Path(sys.executable).with_name("trademl")
PROMISED = {"run_id", "revision", "status", "exit", "gate", "seconds", "report", "metrics"}
RUN_FILES = {"retrain.ipynb", "report.html", "metrics.json", "backtest_report.json", "shap_summary.json", "events.jsonl", "run.json"}
STORE = "models/synthetic"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one object on standard output."""
        return json.loads(self.out)


def environment(small: bool = True, **more: object) -> dict[str, str]:
    """This process's, without its own TradeML settings, with those of a small market."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TRADEML_")}
    return own | (small_run.environment() if small else {}) | {name: str(value) for name, value in more.items()}


def script(*words: object, cwd: Path, small: bool = True, timeout: int = 600, **more: object) -> Done:
    """Run the script in `cwd`; `more` are environment variables."""
    command = [TRADEML, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment(small, **more), capture_output=True, text=True, check=False, timeout=timeout)
    return Done(done.returncode, done.stdout, done.stderr)


def trademl(*words: object, cwd: Path, **more: object) -> Done:
    """What the script does, in this process: Python and the libraries have been started already. Jobs have their kernel all the same."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in ("stdout", "stderr")}
    wanted = environment(**more)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        for name in os.environ.keys() - wanted.keys():
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["trademl", *map(str, words)])
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as left:
            main()
    for stream in streams.values():
        stream.flush()
    return Done(int(left.value.code), *(stream.buffer.getvalue().decode() for stream in streams.values()))


def model_files(store: Path, revision: str) -> dict[str, bytes]:
    """Bytes of every file of a revision that is a model."""
    folder = store / "revisions" / revision
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in [*folder.glob("*.onnx"), *folder.glob("native/*")]}


def stored(store: Path) -> dict[str, bytes]:
    """Every file of a store that a reader sees."""
    names = [path for path in store.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in names}


def run_folders(work: Path) -> list[Path]:
    """Finished and unfinished run folders, oldest first."""
    return sorted((path for path in (work / "reports").glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)


def plain(done: Done) -> str:
    """The one sentence on standard error, after the stages that ended; fails when there is more."""
    *stages, line = done.err.splitlines()
    assert all(re.match(r"[a-z ]+: \d", stage) for stage in stages)
    assert line.startswith("trademl: ")
    assert "Traceback" not in done.err
    return line


@pytest.fixture(scope="session")
def origin(tmp_path_factory) -> tuple[Path, Done]:
    """A folder in which the embedded market was trained once, and what the command said. Not to be written to."""
    work = tmp_path_factory.mktemp("origin")
    done = script("retrain", "--json", cwd=work)
    assert done.code == 0, done.out + done.err
    return work, done


@pytest.fixture
def work(origin, tmp_path) -> Path:
    """A copy of that folder."""
    shutil.copytree(origin[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def candidate(origin, tmp_path_factory) -> tuple[Path, Done]:
    """A copy of that folder in which a market without an edge was trained beside it, under another contract, and what was printed."""
    work = tmp_path_factory.mktemp("candidate")
    shutil.copytree(origin[0], work, dirs_exist_ok=True)
    return work, trademl("retrain", "--edge", 0, "--no-shap", "--quiet", cwd=work, TRADEML_LABELING_TP_ATR=2)


@pytest.fixture
def revision(origin) -> str:
    return origin[1].json["revision"]


class TestRetrain:
    def test_the_object_says_what_was_stored_and_where_the_report_is(self, origin):
        work, done = origin
        told = done.json
        assert told.keys() >= PROMISED
        assert (told["status"], told["exit"], told["gate"]["passed"]) == ("done", 0, True)
        assert {"data", "features", "labels", "judge signal", "judge position", "evidence", "ship", "prove", "store"} <= told[
            "seconds"
        ].keys()
        assert not Path(told["report"]).is_absolute()
        folder = (work / told["report"]).parent
        assert {path.name for path in folder.iterdir()} >= RUN_FILES
        assert folder.name == told["run_id"]
        record = json.loads((folder / "run.json").read_text())
        assert (record["status"], record["exit"], record["revision"]) == ("done", 0, told["revision"])
        assert record["peak_memory_mib"] > 0
        assert json.loads((work / STORE / "model_compat.json").read_text())["revision"] == told["revision"]
        assert not list((work / STORE / ".staging").iterdir())

    def test_where_nobody_watches_each_stage_is_one_plain_line(self, origin):
        lines = origin[1].err.splitlines()
        assert list(dict.fromkeys(line.split(": ")[0] for line in lines)) == list(origin[1].json["seconds"])
        assert sum(bool(re.fullmatch(r"[a-z ]+: \d+ (s|min \d\d s)", line)) for line in lines) == len(origin[1].json["seconds"])

    def test_no_edge_is_refused_stored_as_candidate_and_said_first(self, origin, candidate, revision):
        work, done = candidate
        assert (done.code, done.err) == (3, "")
        first, last = done.out.splitlines()[0], done.out.splitlines()[-1]
        assert "no edge found" in first or "Gate refused" in first
        assert last.startswith("report: ")
        page = (work / last.removeprefix("report: ")).read_text()
        assert first.split(":")[0] in page
        record = json.loads((run_folders(work)[-1] / "run.json").read_text())
        assert (record["status"], record["exit"], record["message"]) == ("refused", 3, first)
        assert (work / STORE / "model_compat.json").read_bytes() == (origin[0] / STORE / "model_compat.json").read_bytes()
        states = {row["revision"]: row["state"] for row in trademl("models", "list", "--json", cwd=work).json["revisions"]}
        assert states == {revision: "active", record["revision"]: "candidate"}

    def test_an_active_revision_of_another_contract_is_not_continued(self, candidate, revision):
        work, done = candidate
        why = f"cold: revision {revision} cannot be continued: it was trained under another label spec (tp_atr 1.5 there, 2.0 here)"
        assert done.out.splitlines()[1].startswith(why)
        shown = trademl(
            "models", "diff", revision, trademl("models", "list", "--json", cwd=work).json["revisions"][0]["revision"], cwd=work
        )
        assert shown.code == 0
        assert why in shown.out
        assert [line.split() for line in shown.out.splitlines() if line.startswith("market.label_spec.tp_atr")] == [
            ["market.label_spec.tp_atr", "1.5", "2"]
        ]

    def test_a_stage_that_fails_leaves_its_traceback_and_the_earlier_revision(self, work):
        before = stored(work / STORE)
        break_with(work, "import trademl.pipeline.market.inputs as stage", "stage.label_bars = lambda *_: 1 // 0")
        done = trademl("retrain", "--json", cwd=work, PYTHONPATH=path_with(work))
        assert done.code == 1
        assert "stage labels: ZeroDivisionError" in plain(done)
        told = done.json
        assert told.keys() >= PROMISED
        assert (told["status"], told["exit"], told["revision"], told["report"]) == ("failed", 1, None, None)
        folder = work / told["folder"]
        assert folder.name == told["run_id"]
        assert "ZeroDivisionError" in (folder / "retrain.ipynb").read_text()
        assert json.loads((folder / "run.json").read_text())["status"] == "failed"
        assert stored(work / STORE) == before

    @pytest.mark.slow
    def test_a_graph_that_says_something_else_stores_nothing(self, tmp_path):
        break_with(
            tmp_path,
            "import trademl.pipeline.market.proof as stage",
            "true = stage.ensemble_graph",
            "stage.ensemble_graph = lambda scaler, tables, weights, calibration, **rest: "
            "true(scaler, tables, weights, ([1.05 * a for a in calibration[0]], calibration[1]), **rest)",
        )
        done = script("retrain", "--json", cwd=tmp_path, PYTHONPATH=path_with(tmp_path))
        assert done.code == 1, done.out
        assert "ParityError" in (tmp_path / done.json["folder"] / "retrain.ipynb").read_text()
        assert not (tmp_path / STORE / "revisions").exists()
        assert not (tmp_path / STORE / "model_compat.json").exists()

    @pytest.mark.slow
    def test_a_report_that_cannot_be_drawn_leaves_the_pointer(self, work):
        pointer = (work / STORE / "model_compat.json").read_bytes()
        break_with(work, "import trademl.commands.spine as jobs", "jobs.write_report = lambda *_, **__: 1 // 0")
        done = script("retrain", "--seed", 8, "--no-warmstart", "--json", cwd=work, PYTHONPATH=path_with(work))
        assert (done.code, done.json["exit"]) == (1, 1)
        assert (work / STORE / "model_compat.json").read_bytes() == pointer


def break_with(work: Path, *lines: str) -> None:
    """Python runs these lines before a command, and before its kernel."""
    folder = work / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")


def path_with(work: Path) -> str:
    return os.pathsep.join([str(work / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])])


GARBAGE = "this is\x00 no table of bars\n1;2;;3\n"
REFUSED = {  # words, environment, exit code, what the sentence names
    "ensemble alone": (["--ensemble"], {}, 2, "--position"),
    "position alone": (["--position"], {}, 2, "--ensemble"),
    "unknown flag": (["--shap-only-please"], {}, 2, "--shap-only-please"),
    "profile 9": (["--profile", 9], {}, 2, "--profile"),
    "negative seed": (["--seed", -1], {}, 2, "run.seed"),
    "no trees": ([], {"TRADEML_ENSEMBLE_RF_TREES": 0}, 2, "ensemble.rf_trees"),
    "no number": (["--seed", "x"], {}, 2, "--seed"),
    "unknown setting": ([], {"TRADEML_ENSEMBLE_RF_TREE": 3}, 2, "TRADEML_ENSEMBLE_RF_TREES"),
    "setting of another kind": ([], {"TRADEML_ENSEMBLE_RF_TREES": "many"}, 2, "ensemble.rf_trees"),
    "sltp_aware": ([], {"TRADEML_LABELING_METHOD": "sltp_aware"}, 2, "atr_aware"),
    "no calendar": (["--bars", "garbage.csv"], {}, 2, "--no-news"),
    "symbol without section": (["--bars", "garbage.csv", "--no-news", "--symbol", "DOGE"], {}, 2, "[symbol.DOGE]"),
    "another line": (["--bars", "garbage.csv", "--no-news", "--models-dir", STORE], {}, 2, "--models-dir"),
    "risk without a warm start": (["--risk", "--no-warmstart"], {}, 2, "--no-warmstart"),
    "risk with edge 0": (["--risk", "--edge", 0], {}, 2, "--edge"),
    "risk with bars": (["--risk", "--bars", "garbage.csv", "--no-news"], {}, 2, "--bars"),
}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_before_anything_is_written(self, work, case):
        words, more, code, named = REFUSED[case]
        (work / "garbage.csv").write_text(GARBAGE)
        before, runs = stored(work / "models"), run_folders(work)
        done = trademl("retrain", *words, "--json", cwd=work, **more)
        assert done.code == code, done.out
        assert named in plain(done)
        assert done.json.keys() >= PROMISED | {"error"}
        assert (done.json["status"], done.json["exit"], done.json["revision"]) == ("failed", code, None)
        assert stored(work / "models") == before
        assert run_folders(work) == runs

    def test_the_script_says_the_same(self, work):
        words = ["retrain", "--symbol", "DOGE", "--json"]
        assert script(*words, cwd=work) == trademl(*words, cwd=work)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("gar bage.csv", GARBAGE),
            pytest.param("empty.csv", "", marks=pytest.mark.slow),
        ],
    )
    def test_a_bars_file_that_is_none(self, work, name, text):
        (work / name).write_text(text)
        before = stored(work / STORE)
        done = trademl("retrain", "--bars", name, "--no-news", "--json", cwd=work)
        assert done.code == 4
        assert name in plain(done)
        folder = work / done.json["folder"]
        assert "BadDataError" in (folder / "retrain.ipynb").read_text()
        assert json.loads((folder / "run.json").read_text())["exit"] == 4
        assert stored(work / STORE) == before
        assert not (work / "models" / "revisions").exists()

    def test_labels_without_a_class(self, work):
        """scikit-learn would learn two classes in silence and answer two columns where three are expected."""
        before = stored(work / STORE)
        done = trademl("retrain", "--no-warmstart", "--json", cwd=work, TRADEML_LABELING_TP_ATR=60)
        assert (done.code, done.json["exit"]) == (4, 4)
        assert "SELL: 0, BUY: 0, HOLD: " in plain(done)
        assert "[labeling] tp_atr, sl_atr, horizon_bars" in done.err
        assert stored(work / STORE) == before

    @pytest.mark.slow
    def test_a_file_of_tuned_settings_that_is_torn(self, work):
        (work / STORE / "tuned.json").write_text('{"schema": 1, "signal": {"adopted": tr')
        done = trademl("retrain", "--json", cwd=work)
        assert (done.code, done.json["exit"]) == (4, 4)
        assert "tuned.json cannot be read" in plain(done)
        assert "delete it" in done.err

    @pytest.mark.slow
    def test_bars_whose_clock_cannot_be_known_name_the_flag(self, work):
        rows = [
            f"2024.01.{day:02d},{hour:02d}:{minute:02d},1,2,0.5,1,9"
            for day in (2, 3, 4)
            for hour in range(24)
            for minute in (0, 15, 30, 45)
        ]
        (work / "EURUSD15.csv").write_text("\n".join(rows))
        done = trademl("retrain", "--bars", "EURUSD15.csv", "--no-news", "--symbol", "EURUSD", "--json", cwd=work)
        assert done.code == 4
        assert "--tz" in plain(done)

    def test_while_another_run_holds_the_lock(self, work):
        before = stored(work / STORE)
        with FileLock(work / STORE / ".lock"):
            done = trademl("retrain", "--json", cwd=work)
        assert (done.code, done.json["exit"]) == (5, 5)
        assert "another run holds the lock" in plain(done)
        assert done.json.keys() >= PROMISED
        assert stored(work / STORE) == before


class TestBacktest:
    FLAGS = ("--balance", 500, "--no-swap", "--leverage", 500, "--spread", 16.95)

    def test_the_flags_of_the_original(self, work, revision):
        done = trademl("backtest", *self.FLAGS, "--oos-only", "--no-chart", "--json", cwd=work)
        assert (done.code, done.err) == (0, "")
        told = done.json
        assert (told["revision"], told["status"], told["report"], told["watermark"]) == (revision, "done", None, "")
        page = json.loads((work / told["backtest_report"]).read_text())
        account = page["profile_account"]["account"]
        assert (account["balance"], account["leverage"], account["swap"]) == (500, 500, False)
        assert page["costs"]["spread"] == 16.95
        assert told["metrics"]["trades"] == page["strategy"]["trades"] > 30

    def test_after_a_retrain_no_flag_is_needed(self, work, revision):
        done = trademl("backtest", cwd=work)
        assert (done.code, done.err) == (0, "")
        columns = re.split(r"  +", done.out.splitlines()[0].strip())
        assert columns == ["these decisions", "random entries, 5 to 95 %", "all long", "all short"]
        bare, asked = (trademl("backtest", *words, "--no-chart", "--json", cwd=work).json for words in ((), ("--oos-only",)))
        assert (bare["revision"], bare["metrics"], bare["looks"]) == (revision, asked["metrics"], 1)

    @pytest.mark.leakage
    def test_bars_that_the_models_saw_are_refused(self, work):
        made = trademl("data", "sample", "--bars", 11_500, "--output", "seen.parquet", cwd=work)
        done = trademl("backtest", "--bars", "seen.parquet", "--no-news", "--json", cwd=work)
        assert (done.code, done.json["exit"]) == (2, 2), made.err
        assert "--oos-only" in plain(done) and "--in-sample" in done.err

    def test_in_sample_is_written_on_everything(self, work):
        done = trademl("backtest", "--in-sample", cwd=work)
        assert done.code == 0, done.err
        assert "In-sample" in done.out
        page = work / done.out.splitlines()[-1].removeprefix("report: ")
        assert "In-sample: the models have seen these bars" in page.read_text()
        assert "In-sample" in json.loads((page.parent / "backtest_report.json").read_text())["watermark"]

    @pytest.mark.parametrize("words", [["--oos-only", "--in-sample"], ["--oos-only", "--rule", "magic"], ["--oos-only", "--spread", -1]])
    def test_what_cannot_be_meant(self, work, words):
        done = trademl("backtest", *words, "--json", cwd=work)
        assert (done.code, done.json["exit"]) == (2, 2), done.out
        plain(done)


class TestReading:
    def test_a_report_of_a_stored_revision(self, work, revision):
        done = trademl("report", "--revision", revision[:6], "--json", cwd=work)
        assert (done.code, done.json["revision"]) == (0, revision)
        assert revision in (work / done.json["report"]).read_text()

    def test_models(self, work, revision):
        assert [row["revision"] for row in trademl("models", "list", "--json", cwd=work).json["revisions"]] == [revision]
        assert trademl("models", "show", "--json", cwd=work).json["manifest"]["seed"] == 7
        proof = trademl("models", "verify", revision, "--json", cwd=work)
        assert (proof.code, proof.json["ok"]) == (0, True)
        assert trademl("models", "diff", revision, revision, "--json", cwd=work).json["differences"] == []
        assert trademl("models", "activate", revision, "--dry-run", "--json", cwd=work).json["moved"] is False

    def test_a_store_that_was_tampered_with(self, work, revision):
        graph = work / STORE / "revisions" / revision / "signal.onnx"
        graph.parent.chmod(0o755)
        graph.chmod(0o644)
        graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
        assert trademl("models", "verify", "--json", cwd=work).json["ok"] is False
        for words in (["backtest", "--oos-only"], ["report"], ["models", "activate", revision]):
            done = trademl(*words, "--json", cwd=work)
            assert (done.code, done.json["exit"]) == (1, 1)
            assert "signal.onnx" in plain(done)

    def test_settings_and_machine(self, tmp_path):
        shown = trademl("config", "show", "--json", cwd=tmp_path).json
        assert shown["run.threads"] == {"value": 1, "origin": "environment TRADEML_RUN_THREADS"}
        assert shown["market.symbol"]["origin"] == "default"
        machine = trademl("doctor", "--json", cwd=tmp_path).json
        assert machine["cores"] >= 1
        assert machine["devices"]

    def test_a_reader_that_stops_reading(self, work):
        command = f"'{TRADEML}' config show | head -1"
        done = subprocess.run(["bash", "-c", command], cwd=work, env=environment(), capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""

    @pytest.mark.parametrize("more", [{"LC_ALL": "C", "PYTHONUTF8": 0}, {"PYTHONIOENCODING": "ascii"}])
    def test_a_terminal_that_knows_ascii_only(self, work, more):
        (work / "größe.csv").write_text(GARBAGE)
        done = script("data", "check", "größe.csv", "--json", cwd=work, **more)
        assert (done.code, done.json["exit"]) == (4, 4)
        plain(done)
        shown = script("models", "show", cwd=work, **more)
        assert (shown.code, shown.err) == (0, "")


@pytest.mark.slow
@pytest.mark.fault
def test_kill_9_at_any_moment_leaves_the_earlier_revision(work, revision):
    rng = random.Random(20)
    before = stored(work / STORE / "revisions" / revision)
    for _ in range(5):
        process = subprocess.Popen([TRADEML, "retrain"], cwd=work, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1.5, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert stored(work / STORE / "revisions" / revision) == before
        assert script("models", "verify", revision, cwd=work).code == 0
        assert wait_for_no_kernel(work)
    last = script("retrain", "--json", cwd=work)
    assert last.code in (0, 3), last.err
    assert not list((work / STORE / ".staging").iterdir())
    assert not list((work / "reports").glob(".partial-*"))


def wait_for_no_kernel(work: Path, seconds: float = 15) -> bool:
    """Whether no process works in this folder any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(works_in(process, work) for process in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.3)
    return False


def works_in(process: Path, work: Path) -> bool:
    try:
        return (process / "cwd").resolve(strict=True) == work.resolve() and b"ipykernel" in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_at_any_number_of_threads(tmp_path):
    made = []
    for name, words, threads in (("a", [], 1), ("b", [], 2), ("c", ["--seed", 11], 1)):
        done = script("retrain", "--no-warmstart", *words, "--models-dir", name, "--json", cwd=tmp_path, TRADEML_RUN_THREADS=threads)
        assert done.code in (0, 3), done.err
        made.append(model_files(tmp_path / name, done.json["revision"]))
    one, other, reseeded = made
    assert {"signal.onnx", "position.onnx"} < one.keys()
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert all(one[name] != reseeded[name] for name in ("signal.onnx", "position.onnx"))


def final_scores(store: Path, done: Done) -> dict:
    """Scores of the final window that a retrain stored with its revision."""
    return json.loads((store / "revisions" / done.json["revision"] / "metrics.json").read_text())["signal"]["final"]


@pytest.mark.slow
def test_the_embedded_year_passes_and_without_its_edge_it_is_refused(tmp_path):
    found = script("retrain", "--json", cwd=tmp_path, small=False)
    assert (found.code, found.json["gate"]["passed"]) == (0, True), found.err
    nothing = script("retrain", "--edge", 0, "--no-warmstart", "--json", cwd=tmp_path, small=False)
    assert (nothing.code, nothing.json["gate"]["passed"]) == (3, False), nothing.err
    with_edge, without = (final_scores(tmp_path / STORE, done) for done in (found, nothing))
    assert with_edge["log_loss_minus_prior"]["high"] < -0.1
    assert with_edge["log_loss"] <= min(with_edge["log_loss_by_model"].values()) + 0.004
    assert without["log_loss_minus_prior"]["high"] > 0
    assert -0.001 < without["log_loss_minus_prior"]["point"] < 0.004
    assert json.loads((tmp_path / STORE / "model_compat.json").read_text())["revision"] == found.json["revision"]


@pytest.mark.slow
def test_the_real_file(shared_data, tmp_path):
    market = shared_data / "market"
    files = ["--bars", market / "btcusd_m15_2024-04_2026-04.csv.gz", "--news", market / "news_2015_2026.csv.gz"]
    done = script("retrain", *files, "--profile", 3, "--json", cwd=tmp_path, small=False, timeout=1_500)
    assert done.code in (0, 3), done.err
    folder = (tmp_path / done.json["report"]).parent
    assert {path.name for path in folder.iterdir()} >= RUN_FILES
    assert json.loads((folder / "run.json").read_text())["peak_memory_mib"] < 2_048
    final = final_scores(tmp_path / "models", done)
    assert final["log_loss"] <= final["prior_log_loss"] + 0.004
    assert final["log_loss_minus_prior"]["point"] == pytest.approx(final["log_loss"] - final["prior_log_loss"])
    assert script("models", "verify", cwd=tmp_path, small=False).code == 0


@pytest.mark.parametrize("size", [pytest.param(DESK, marks=pytest.mark.slow), PHONE])
def test_the_report_in_a_browser(origin, size):
    work, done = origin
    report = (work / done.json["report"]).resolve()
    with chromium() as browser:
        page, said, asked = opened(browser, report, size)
        assert page.locator(".plot").count() >= 8
        assert said == []
        assert asked == [report.as_uri()]
        assert page.evaluate(CLIPPED) == []
        assert done.json["revision"] in page.inner_text("body")
