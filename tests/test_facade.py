"""`import trademl as tm`: what is there, what it costs, and that nothing of final is shown before its look is written."""

import doctest
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small_run as small
from typer.testing import CliRunner

import trademl as tm
from trademl.cli import app
from trademl.data.bars import write_bars
from trademl.data.news import write_news
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError, LooksError, RevisionError, UsageError
from trademl.pipeline.market import WalkForward
from trademl.settings import load_settings

CALLS = {"read_bars", "read_news", "label", "features", "fit", "backtest", "explain", "retrain", "load"}
TINY = small.SMALL | {"ensemble.rf_trees": 4, "ensemble.xgb_max_rounds": 8, "ensemble.lgb_max_rounds": 8, "windows.refit_every_days": 40}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with a market's files in it, and the settings of a small run."""
    monkeypatch.chdir(tmp_path)
    for name, value in small.environment(TINY).items():
        monkeypatch.setenv(name, value)
    market = synthetic_market(9_000, edge=0.0, seed=5)
    write_bars(market.bars, tmp_path / "bars.parquet")
    write_news(market.events, tmp_path / "news.parquet")
    return tmp_path


@pytest.fixture
def walked(small_run, tmp_path):
    """The small run's walk-forward, in a project of its own where nobody has looked yet."""
    return in_project(small_run, tmp_path)


def in_project(small_run, folder: Path, **recipe) -> WalkForward:
    paths = {f"paths.{name}": str(folder / name) for name in ("models", "reports")}
    choice = replace(small_run.case.choice, models_dir=str(folder / "models" / "synthetic"))
    case = small_run.case
    case = replace(case, inputs=replace(case.inputs, choice=choice), settings=load_settings(small.SMALL | paths))
    return WalkForward(replace(case, recipe=replace(case.recipe, **recipe)), small_run.alarms, small_run.judged)


def chain(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "models" / "looks.jsonl").read_text().splitlines()]


# --- what is there --------------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_the_calls_are_shown_and_loaded_on_first_use():
    code = "import sys, trademl as tm; print(dir(tm), {'numpy', 'pandas', 'trademl.facade'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("set()")
    assert set(re.findall(r"'(\w+)'", done.stdout)) >= CALLS
    with pytest.raises(AttributeError, match="no attribute 'labels'; it has backtest, "):
        tm.labels  # noqa: B018


@pytest.mark.parametrize(
    "module", ["trademl.facade", "trademl.data.bars", "trademl.data.news", "trademl.market.labeling", "trademl.market.backtest"]
)
def test_the_examples_are_true(module, project):
    found = doctest.testmod(sys.modules.get(module) or __import__(module, fromlist=["x"]))
    assert (found.failed, found.attempted > 1) == (0, True)


def test_the_six_lines_of_the_readme_run(project, repo, capsys):
    section = (repo / "README.md").read_text("utf-8").split("## Six lines\n")[1].split("\n## ")[0]
    lines = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    assert len([line for line in lines.splitlines() if line and not line.startswith("import")]) <= 6
    names = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert names["result"].look.number == 1
    assert [line["kind"] for line in chain(project)].count("look") == 1  # the explanation repeats the verdict
    assert "judge signal" in capsys.readouterr().err


# --- the look -------------------------------------------------------------------------------------------------------------


def final_figures(walked: WalkForward) -> set[str]:
    """What nobody may read before the look: the log losses of final, as they are printed."""
    from trademl.pipeline.market.evidence import score_window

    scores = score_window(walked.case, walked._judged, "final")
    values = [scores["log_loss"], scores["accuracy"], walked._judged.position.log_loss]
    return {f"{value:.4f}"[:6] for value in values if value is not None}


def test_a_fit_shows_select_and_nothing_of_final(walked, tmp_path):
    shown = repr(walked) + walked._repr_html_() + json.dumps(walked.select) + json.dumps(walked.facts())
    assert f"{walked.select['log_loss']:.4f}" in shown
    assert "not looked at" in shown
    assert not any(figure in shown for figure in final_figures(walked))
    assert not (tmp_path / "models").exists()


def test_a_changed_recipe_is_the_second_look_and_the_same_one_stands(walked, small_run, tmp_path):
    first = tm.backtest(walked)
    assert (first.look.number, first.look.standing) == (1, None)
    assert first.evidence.to_json() == small_run.evidence.to_json()  # what the retrain said, trade by trade
    margin = small_run.case.recipe.margins[0]
    other = tm.backtest(in_project(small_run, tmp_path, margins=(margin, 0.9)))
    assert (other.look.number, other.look.level) == (2, pytest.approx(first.look.level / 2))
    again = tm.backtest(in_project(small_run, tmp_path, seed=99))
    assert (again.look.number, again.look.standing.passed) == (1, first.evidence.verdict.passed)
    assert [line["kind"] for line in chain(tmp_path)] == ["project", "look", "verdict", "look", "verdict", "days"]


def test_no_line_in_the_chain_means_no_figures(walked, tmp_path):
    tm.backtest(walked)
    looks = tmp_path / "models" / "looks.jsonl"
    looks.write_text(looks.read_text().replace('"number":1', '"number":0', 1))
    with pytest.raises(LooksError):
        tm.backtest(walked)
    assert len(list((tmp_path / "reports").rglob("backtest_report.json"))) == 1


def test_an_explanation_of_a_fit_is_a_look_too(walked, tmp_path):
    found = tm.explain(walked)
    assert (found.summary["looks"], found.summary["recipe"]["whose"]) == (1, "recipe")
    assert [line["kind"] for line in chain(tmp_path)] == ["project", "look", "verdict"]
    assert json.loads(Path(found.summary["shap_summary"]).read_text()) == found.summary["recipe"]
    assert repr(found).splitlines()[0] == f"recipe {walked.recipe}, market-synth-15min"
    assert "walk-forward folds" in repr(found) and "look 1 at these days" in repr(found)
    with pytest.raises(UsageError, match="are of a stored revision; a fit is explained as a whole"):
        tm.explain(walked, "-1")


def test_days_that_were_judged_are_not_judged_again_for_an_explanation(walked, monkeypatch):
    tm.backtest(walked)
    monkeypatch.setattr(sys.modules["trademl.pipeline.market.walks"], "judge_final", None)
    assert tm.explain(walked).summary["looks"] == 1


def test_a_chain_that_cannot_be_read_means_no_explanation(walked, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "looks.jsonl").write_text("not a chain\n")
    with pytest.raises(LooksError):
        tm.explain(walked)
    assert not list((tmp_path / "reports").rglob("shap_summary.json"))


@pytest.mark.slow
def test_fitting_again_under_other_settings_is_the_second_look(project):
    bars, news = tm.read_bars("bars.parquet"), tm.read_news("news.parquet")
    numbers = [
        tm.backtest(tm.fit(bars, news, settings=settings, quiet=True)).look.number
        for settings in ({}, {"labeling.tp_atr": 2}, {"run.seed": 5}, {"ensemble.rf_trees": 5})
    ]
    assert numbers == [1, 2, 1, 3]


# --- what is refused, in the command's words ------------------------------------------------------------------------------


@pytest.fixture
def seen(small_run, tmp_path, monkeypatch):
    """Bars that the small run's models saw, as a file."""
    monkeypatch.chdir(tmp_path)
    write_bars(small_run.inputs.bars, tmp_path / "seen.parquet")
    return {"bars": "seen.parquet", "no_news": True, "models_dir": str(small_run.choice.models_dir)}


def test_bars_that_the_models_saw_are_refused_as_on_the_command_line(seen, small_run, tmp_path):
    name = small_run.stored.name
    with pytest.raises(UsageError, match="nothing here is out of sample") as refusal:
        tm.backtest(name, **seen)
    words = ["backtest", "--revision", name, "--bars", "seen.parquet", "--no-news", "--models-dir", seen["models_dir"]]
    done = CliRunner().invoke(app, words)
    assert (type(done.exception), str(done.exception)) == (type(refusal.value), str(refusal.value))
    assert not list(tmp_path.rglob("backtest_report.json"))


def test_a_flag_that_the_command_does_not_take_is_named(seen, walked):
    with pytest.raises(UsageError, match=r"in_sampl is not a flag of `trademl backtest`; did you mean in_sample\?"):
        tm.backtest(**seen, in_sampl=True)
    with pytest.raises(UsageError, match="spread: a fit is judged under the settings that it was made with"):
        tm.backtest(walked, spread=3)


def test_every_flag_of_the_command_is_taken(monkeypatch):
    """The command hands all of its flags on by name: one that is added to it and not to the call is refused here."""
    asked = {}
    monkeypatch.setattr("trademl.commands.backtest.run_backtest", lambda *given, **more: asked.update(given=given) or 1 / 0)
    assert isinstance(CliRunner().invoke(app, ["backtest", "--spread", "3", "--profile", "2", "--no-swap"]).exception, ZeroDivisionError)
    overrides, _, replay, _ = asked["given"]
    assert (overrides["account.profile"], replay.spread, replay.swap) == (2, 3.0, False)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ensemble": True}, ["--ensemble"]),
        ({"accept_leak": " "}, ["--accept-leak", " "]),
        ({"risk": True, "seed": 3, "no_news": True}, ["--risk", "--seed", "3", "--no-news"]),
        ({"shap_only": True, "profile": 3}, ["--shap-only", "--profile", "3"]),
        ({"bars": Path("nope.csv")}, ["--bars", "nope.csv"]),
        ({"profile": 9}, None),
    ],
)
def test_a_retrain_refuses_what_the_command_refuses(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, BadDataError)) as refusal:
        tm.retrain(**flags)
    assert words is None or str(CliRunner().invoke(app, ["retrain", *words]).exception) == str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_retrain_is_the_command_s_job(monkeypatch):
    asked = []
    monkeypatch.setattr("trademl.commands.market.run_retrain", lambda *given, **more: asked.append((given, more)) or {"exit": 3})
    assert tm.retrain(bars=Path("b.csv"), no_news=True, profile=2, no_warmstart=True, shap=False, quiet=True) == {"exit": 3}
    CliRunner().invoke(app, ["retrain", *["--bars", "b.csv", "--no-news", "--profile", "2", "--no-warmstart", "--no-shap", "--quiet"]])
    assert len(asked) == 2 and asked[0] == asked[1]
    with pytest.raises(UsageError, match=r"warmstart is not a flag of `trademl retrain`; did you mean no_warmstart\?"):
        tm.retrain(warmstart=False)


def test_a_frame_is_not_fitted_and_bars_of_another_symbol_are_not(project):
    bars = tm.read_bars("bars.parquet")
    with pytest.raises(UsageError, match="fit takes what read_bars and read_news return"):
        tm.fit(bars.bars, None)
    gold = tm.read_bars("bars.parquet", symbol="XAUUSD")
    with pytest.raises(BadDataError, match="the bars are of XAUUSD, and BTCUSD is asked for"):
        tm.fit(gold, None, quiet=True)


# --- revisions ------------------------------------------------------------------------------------------------------------


def test_a_stored_revision_is_explained_as_on_the_command_line(small_run):
    place = {"models_dir": str(small_run.choice.models_dir)}
    found = tm.explain(small_run.stored.revision, "-1", **place)
    done = CliRunner().invoke(app, ["explain", "--decision", "-1", "--models-dir", place["models_dir"]])
    assert (done.exit_code, done.stdout.rstrip()) == (0, repr(found))
    with pytest.raises(UsageError, match=r"model_dir is not a flag of `trademl explain`; did you mean models_dir\?"):
        tm.explain(model_dir="x")


def test_a_loaded_revision_was_verified(small_run, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run.choice.models_dir, tmp_path / "store")
    revision = tm.load(small_run.stored.name[:8], models_dir="store")
    assert revision.name == small_run.stored.name
    graph = revision.folder / "signal.onnx"
    graph.chmod(0o644)
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(RevisionError, match=r"signal.onnx"):
        tm.load(models_dir="store")


# --- what a notebook shows ------------------------------------------------------------------------------------------------


def test_what_a_notebook_shows_is_compact_escaped_and_without_colours(small_run, walked, project):
    bars = tm.read_bars("bars.parquet")
    nasty = replace(bars, source=replace(bars.source, path="<script>alert(1)</script>.csv"))
    shown = [
        bars,
        nasty,
        tm.read_news("news.parquet"),
        tm.label(bars),
        small_run.stored.revision,
        walked,
        tm.backtest(walked),
        tm.explain(walked),
    ]
    for thing in shown:
        page = thing._repr_html_()
        assert "<script" not in page
        assert len(page) < 12_000
        assert not re.search(
            r"#[0-9a-f]{3,6}\b|rgb\(|(?<!current)color:(?!inherit)|background:(?!transparent)", page.replace("currentColor", "")
        )
        assert page.count("<div") == page.count("</div>") and page.count("<tr") == page.count("</tr>")
