"""Explorers without a browser: every figure from its parameters, every control moves one, and what is missing is said."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_run import SMALL

from trademl.commands.lab import bring_notebooks, lab_arguments
from trademl.data.synthetic import synthetic_market
from trademl.errors import RevisionError, UsageError
from trademl.explore import backtest, label_room, labels, revision, risk, shap, start, trades
from trademl.explore.data import Market, open_market
from trademl.explore.panel import Panel, Shown, slider
from trademl.explore.view import FigureView, figure_json
from trademl.market.labeling import label_bars
from trademl.market.specs import LabelSpec, PricePath, Tie
from trademl.pipeline.choice import MarketChoice
from trademl.pipeline.stored import Stored
from trademl.settings import load_settings


@pytest.fixture(scope="module")
def market():
    made = synthetic_market(3_000, 0.0, 3)
    news = pd.DatetimeIndex(made.events["time"]).as_unit("s").asi8
    return Market(MarketChoice("SYNTH", None, None, False, "models", "15min"), made.bars, np.sort(news))


@pytest.fixture(scope="module")
def room(market):
    return label_room.LabelRoom(market)


# ---------------------------------------------------------------- labels


def test_a_coin_toss_keeps_ranges_and_takes_the_drift(market):
    bars = market.bars
    rising = bars * np.linspace(1, 3, len(bars))[:, None]
    one, other = (label_room.coin_toss(rising, 5, mirrored=mirrored) for mirrored in (False, True))
    width = np.log(rising["high"] / rising["low"])
    assert np.allclose(np.log(one["high"] / one["low"]), width)
    assert (one["high"] >= one[["open", "close"]].max(axis=1)).all()
    assert (one["low"] <= one[["open", "close"]].min(axis=1)).all()
    moved = np.log(one["close"] / one["close"].iloc[0])
    assert np.allclose(moved, -np.log(other["close"] / other["close"].iloc[0]))
    assert abs(moved.iloc[-1]) < 0.3 < np.log(rising["close"].iloc[-1] / rising["close"].iloc[0])


def test_the_driftless_share_of_wide_horizons_is_the_ratio_of_the_barriers(room):
    spec = LabelSpec(tp_atr=1.5, sl_atr=0.8, horizon_bars=192)
    free = room.driftless(spec, False)
    shares = [(free[free >= 0] == k).mean() for k in range(3)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)  # a path and its mirror image
    assert shares[0] == pytest.approx(spec.driftless_win_rate, abs=0.04)


def test_shares_by_hour_add_up_to_the_labels(room, market):
    spec = LabelSpec()
    table = room.shares_by(spec, False, "hour")
    known = label_bars(market.bars, spec).share()
    for name, part in table.groupby("class"):
        assert np.average(part["share"], weights=part["n"]) == pytest.approx(known[name])
    assert (table["half"] > 0).all()


@pytest.mark.parametrize("by", label_room.GROUPS)
def test_every_split_draws(room, by):
    drawn = json.loads(figure_json(room.by(LabelSpec(), True, by)))
    assert len(drawn["data"]) == 6
    assert {tuple(trace["x"]) for trace in drawn["data"]} == {tuple(room._groups()[by][1])}


@pytest.mark.parametrize("kind", label_room.KINDS)
def test_a_label_is_drawn_on_its_candles(room, kind):
    spec = LabelSpec(tp_atr=0.5, sl_atr=0.3)
    found = room.of_kind(spec, False, kind)
    assert len(found) > 3
    drawn = json.loads(figure_json(room.on_candles(spec, False, int(found[2]))))
    assert {"candlestick", "scatter"} <= {trace["type"] for trace in drawn["data"]}


def test_a_moved_slider_exchanges_the_figures_and_the_settings_label_stays_named(room):
    panel = labels.LabelPanel(room, LabelSpec())
    assert "settings' own labels" in panel.sentence.value
    before = {name: view.figure for name, view in panel.figures.items()}
    panel.controls["tp_atr"].value = 2.5
    assert all(panel.figures[name].figure != before[name] for name in before)
    assert "Not the settings' contract" in panel.sentence.value
    mix = json.loads(panel.figures["mix"].figure)["data"][0]
    expected = room.labels(replace(LabelSpec(), tp_atr=2.5), True).share()
    assert dict(zip(mix["x"], mix["y"])) == pytest.approx({name: 100 * share for name, share in expected.items()})


@pytest.fixture(scope="module")
def tight(room):
    """A panel of barriers so near that every rule decides something."""
    return labels.LabelPanel(room, LabelSpec(tp_atr=0.4, sl_atr=0.3, news_surge=1.0))


@pytest.mark.parametrize(
    ("control", "value"),
    [("tie", Tie.TP_FIRST), ("price_path", PricePath.CLOSE), ("horizon_bars", 6), ("sl_atr", 0.4), ("news_surge", 0.5), ("news", False)],
)
def test_every_rule_of_the_contract_moves_the_mix(tight, control, value):
    before, kept = tight.figures["mix"].figure, tight.controls[control].value
    tight.controls[control].value = value
    moved = tight.figures["mix"].figure
    tight.controls[control].value = kept
    assert moved != before == tight.figures["mix"].figure


def test_a_day_and_the_next_button_find_a_label(room):
    panel = labels.LabelPanel(room, LabelSpec())
    day = room.market.bars.index[1_500].date()
    panel.date.value = day
    found = room.of_kind(LabelSpec(), True, "BUY")
    assert room.market.bars.index[found[panel.controls["number"].value]].date() >= day
    assert room.market.bars.index[found[panel.controls["number"].value - 1]].date() < day


def test_too_few_bars_are_said_and_not_thrown(market):
    few = replace(market, bars=market.bars.iloc[:30])
    panel = labels.LabelPanel(label_room.LabelRoom(few), LabelSpec())
    assert "No bar has a label" in panel.sentence.value


def test_without_files_the_embedded_market_is_opened_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = open_market(load_settings({"synthetic.bars": 500}))
    assert len(found.bars) == 500
    assert "embedded market" in found.sentence
    assert "trademl data import" in found.sentence


# ---------------------------------------------------------------- backtest


@pytest.fixture(scope="module")
def settings(small_run):
    return load_settings({"paths.models": str(small_run.stored.store.models_dir)} | SMALL)


@pytest.fixture(scope="module")
def traded(small_run, settings):
    return backtest.BacktestRoom(small_run.stored, settings)


def test_unmoved_the_judged_days_are_the_revisions_own_evidence(traded, small_run):
    played = traded.played(traded.own)
    assert len(played.trades) == small_run.evidence.strategy.trades
    assert played.trades["net_r"].mean() == pytest.approx(small_run.evidence.strategy.expectancy_net_r.value)
    said = traded.sentence(traded.own)
    assert small_run.stored.gate.sentence in said.sentence
    assert "WHAT IF" not in said.sentence


def test_other_costs_on_the_judged_days_are_marked_and_cost_something(traded):
    dear = replace(traded.own, costs=replace(traded.own.costs, spread=3 * traded.own.costs.spread))
    said = traded.sentence(dear)
    assert said.kind == "warn"
    assert "WHAT IF" in said.sentence
    assert "no evidence" in said.sentence
    assert traded.stored.gate.sentence not in said.sentence
    same_entries = traded.played(traded.own).trades["net_r"].mean()
    assert traded.played(dear).trades["net_r"].mean() != same_entries


def test_the_margin_moves_on_select_only(traded, small_run, settings):
    panel = backtest.BacktestPanel(small_run.stored, settings)
    assert panel.controls["margin_r"].disabled
    judged = panel.figures["worth"].figure
    panel.controls["margin_r"].value = 0.6
    assert panel.figures["worth"].figure == judged  # another margin on judged days is another recipe
    panel.controls["window"].value = backtest.SELECT
    assert not panel.controls["margin_r"].disabled
    strict = traded.played(replace(traded.own, window=backtest.SELECT, margin_r=0.6)).trades
    lax = traded.played(replace(traded.own, window=backtest.SELECT, margin_r=0.0)).trades
    assert len(strict) < len(lax)
    assert "prove nothing" in panel.sentence.value


def test_no_decision_lies_outside_days_that_were_judged_or_chosen_on(traded):
    closes = traded.oos.bars.index.asi8 // 10**9 if traded.oos.bars.index.unit == "ns" else traded.oos.bars.index.as_unit("s").asi8
    for window in (backtest.JUDGED, backtest.SELECT):
        span = traded.span(window)
        for change in ({}, {"costs": replace(traded.own.costs, spread=1.0)}):
            played = traded.played(replace(traded.own, window=window, **change))
            decided = closes[played.trades["decision_bar"] + played.window.offset] + traded.spec.bar_seconds
            assert ((decided >= span.start_s) & (decided < span.end_s)).all()


def test_exploring_writes_no_look(traded, small_run, settings, tmp_path):
    chain = small_run.stored.store.models_dir / "looks.jsonl"
    before = chain.read_bytes()
    panel = backtest.BacktestPanel(small_run.stored, settings)
    panel.controls["spread"].value = panel.controls["spread"].max
    assert chain.read_bytes() == before


def test_a_trades_reason_adds_up(traded):
    said = traded.reason(traded.own, 0)
    trade = traded.played(traded.own).trades.iloc[0]
    assert f"{trade['net_r']:+.2f} R net" in said
    assert ("long at" if trade["side"] > 0 else "short at") in said
    assert f"more than {traded.rule.margin_r:.2f} R was asked" in said


@pytest.mark.parametrize("figure", ["worth", "account"])
def test_the_figures_of_the_trades_draw(traded, figure):
    assert json.loads(figure_json(getattr(traded, figure)(traded.own)))["data"]


@pytest.mark.parametrize("figure", ["on_candles", "results"])
def test_the_figures_of_one_trade_draw(traded, figure):
    assert json.loads(figure_json(getattr(traded, figure)(traded.own, 1)))["data"]


# ---------------------------------------------------------------- risk


@pytest.fixture(scope="module")
def risked(small_run, settings):
    return risk.RiskPanel(small_run.stored, settings)


def test_unmoved_the_replay_is_what_the_heads_were_trained_on(risked):
    room, values = risked.room, risked.values
    stored = room.metadata["profiles"][str(values["profile"])]["labels"]
    for objective in risk.Objective:
        profile = risk.profile_of(values["profile"])
        done = room.replayed(objective, profile, values["max_breach"] / 100)
        assert done.histogram == pytest.approx(stored[objective]["histogram"])


def test_another_profile_brings_its_limits_and_a_slider_moves_the_choice(risked):
    risked.controls["profile"].value = 1
    assert risked.controls["halt"].value == 20
    assert risked.controls["base_risk"].value == 0.75
    before = risked.figures["equity"].figure
    risked.controls["multiplier"].value = 0.3
    assert risked.figures["equity"].figure != before
    assert "Head of profile 1" in risked.sentence.value


# ---------------------------------------------------------------- SHAP


@pytest.fixture(scope="module")
def explained(small_run, settings):
    return shap.ShapPanel(small_run.stored, settings)


def test_the_ranking_is_the_kept_summarys(explained, small_run):
    kept = small_run.stored.shap_summary.subject("signal").ranking()
    drawn = json.loads(explained.figures["ranking"].figure)["data"][0]
    assert sorted(drawn["y"]) == sorted(feature.name for feature in kept.features[: len(drawn["y"])])
    assert kept.features[0].name in explained.sentence.value


def test_every_subject_class_and_unit_is_drawn(explained, small_run):
    for subject in small_run.stored.shap_summary.subjects:
        if subject.rankings:
            explained.controls["subject"].value = subject.name
            for output in {ranking.output for ranking in subject.rankings}:
                explained.controls["output"].value = output
                title = json.loads(explained.figures["ranking"].figure)["layout"]["title"]["text"]
                assert subject.name in title
                assert output in title
    explained.controls["subject"].value = "signal"
    assert explained.controls["output"].value in ("all", *small_run.stored.classes)


def test_the_parts_of_a_decision_add_up_to_its_expected_r(explained):
    explained.put(decision=3)
    drawn = explained.room.one(3)
    found = explained.room.decision(3)
    assert float(np.sum(drawn.data[0].x)) + found.base_r == pytest.approx(found.expected_r, abs=1e-6)
    assert found.time_utc in explained.why.value


def test_a_day_finds_its_judged_bar(explained):
    times = explained.room.stored.judged_rows.time_s
    explained.date.value = pd.Timestamp(times[len(times) // 2], unit="s").date()
    found = times[explained.controls["decision"].value]
    assert pd.Timestamp(found, unit="s").date() == explained.date.value


def test_a_feature_without_a_curve_is_said_and_a_revision_without_a_summary_refused(explained, settings, monkeypatch):
    asked = shap.Asked(shap.Whose.RECIPE, "signal", "all", "probability", 5, "no such feature", 0)
    assert "strongest features" in explained.room.dependence(asked).layout.annotations[0].text
    monkeypatch.setattr(Stored, "is_explained", False)
    with pytest.raises(RevisionError, match="--no-shap"):
        shap.ShapPanel(Stored(explained.room.stored.revision), settings)


@pytest.mark.slow
def test_the_shipped_model_is_marked_as_a_description(explained):
    explained.controls["whose"].value = shap.Whose.SHIPPED
    assert "not evidence" in explained.sentence.value


# ---------------------------------------------------------------- trades


@pytest.fixture(scope="module")
def logged():
    """The panel of 1,500 generated records."""
    return trades.TradesPanel(trades.TradesRoom(trades.sample_log(), seed=7))


@pytest.mark.trades
def test_the_last_third_of_the_answered_trades_stays_shut(logged):
    """It is what `trademl trades train` judges on; an explorer takes no look."""
    room, asked = logged.room, trades.Asked(**logged.values)
    at = room.judged(asked.model).at
    shut = room.rows.time_s[at[-(len(at) // 3)]]
    assert room.rows.time_s[room.picked(asked)].max() < shut
    judged, places = room.answered(asked)
    assert room.rows.time_s[judged.at[places]].max() < shut
    assert room.rows.time_s[room.shap(asked.model)[1]].max() < shut
    drawn = sum(len(trace.x) for trace in room.excursions(asked).data)
    assert drawn == room.picked(asked).sum() < len(room.rows)


@pytest.mark.trades
def test_the_drivers_are_the_generators_and_the_answer_ranks_the_trades(logged):
    assert logged.controls["feature"].options[0].startswith("market_longShortRatio")
    bars = logged.room.quality(trades.Asked(**logged.values)).data[0].y
    assert bars[-1] > bars[0]
    assert "Better than no model" in logged.sentence.value
    assert "made, not real" in logged.sentence.value


@pytest.mark.trades
def test_a_tighter_stop_costs_winners_and_an_asset_leaves_fewer_trades(logged):
    room, asked = logged.room, trades.Asked(**logged.values)
    before = {name: view.figure for name, view in logged.figures.items()}
    logged.controls["stop"].value = 0.5
    assert {name for name, view in logged.figures.items() if view.figure != before[name]} == {"excursions", "survivors"}
    share = (room.winners(asked) < 0.5).mean()
    assert f"A stop of 0.50 % lets {share:.0%} of {len(room.winners(asked)):,} winners live" in logged.sentence.value
    logged.controls["asset"].value = "BTC"
    own = room.picked(trades.Asked(**logged.values))
    assert set(room.rows.columns["asset"][own]) == {"BTC"}
    assert f"{own.sum():,} are drawn" in logged.sentence.value
    logged.put(asset=trades.EVERY, stop=2.0)


@pytest.mark.slow
@pytest.mark.trades
@pytest.mark.parametrize("model", list(trades.NAMES))
def test_every_model_is_drawn_of_all_and_of_one_session(logged, model):
    logged.controls["model"].value = model
    for session in logged.controls["session"].options[:2]:
        logged.controls["session"].value = session
        assert all(json.loads(view.figure)["layout"]["title"]["text"] for view in logged.figures.values())
    logged.put(session=trades.EVERY)
    assert trades.NAMES[model] in logged.sentence.value


@pytest.mark.trades
def test_a_log_that_is_refused_offers_generated_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").write_text("not a record\n")
    refused = trades.explore("log.jsonl", settings=load_settings())
    assert "1 lines and not one record" in refused.children[0].value
    assert refused.button.description == "Open generated records"


# ---------------------------------------------------------------- the notebooks

CONTROLS = {
    "labels": {"tp_atr", "sl_atr", "horizon_bars", "tie", "price_path", "news", "by", "kind", "number"},
    "backtest": {"spread", "commission", "slippage", "margin_r", "profile", "tie", "number"},
    "risk": {"objective", "profile", "halt", "max_breach", "multiplier"},
    "shap": {"whose", "subject", "output", "unit", "feature", "decision"},
    "trades": {"model", "feature", "asset", "session", "stop"},
}


@pytest.mark.parametrize("name", CONTROLS)
def test_an_explorer_runs_and_has_its_widgets(name, repo, small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEML_SYNTHETIC_BARS", "1500")
    monkeypatch.setenv("TRADEML_PATHS_MODELS", str(small_run.stored.store.models_dir))
    names = {}
    for cell in json.loads((repo / "nbs" / "explore" / f"{name}.ipynb").read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    if name == "trades":  # there is no log here: generated records are offered
        assert "explore(data=…) names no log" in names["explorer"].children[0].value
        names["explorer"].button.click()
    panel = names["explorer"].panel
    assert set(panel.controls) >= CONTROLS[name]
    assert all(json.loads(view.figure)["data"] or view.figure.count("annotations") for view in panel.figures.values())


# ---------------------------------------------------------------- a revision, or none


def test_without_a_revision_the_embedded_market_is_offered(tmp_path):
    empty = load_settings({"paths.models": str(tmp_path / "models")})
    for explorer in (backtest, risk, shap):
        shown = explorer.explore(settings=empty)
        assert "embedded market" in shown.button.description
        assert shown.panel is None


def test_the_offer_trains_and_then_opens(tmp_path, small_run, settings, monkeypatch):
    shown = backtest.explore(settings=load_settings({"paths.models": str(tmp_path / "models")}))
    copy = f"import shutil; shutil.copytree({str(small_run.stored.store.models_dir)!r}, {str(tmp_path / 'models' / 'synthetic')!r})"
    monkeypatch.setattr(revision, "RETRAIN", [sys.executable, "-c", copy])
    shown._watch()
    assert isinstance(shown.panel, backtest.BacktestPanel)
    assert small_run.stored.name[:8] in shown.picker.options[0][0]


def test_a_training_that_fails_says_its_last_line(tmp_path, monkeypatch):
    shown = risk.explore(settings=load_settings({"paths.models": str(tmp_path / "models")}))
    monkeypatch.setattr(revision, "RETRAIN", [sys.executable, "-c", "print('no <memory> left'); raise SystemExit(1)"])
    shown._watch()
    assert "no &lt;memory&gt; left" in shown.told.value
    assert not shown.button.disabled


def test_bars_that_are_refused_offer_the_embedded_market(tmp_path):
    (tmp_path / "bars.csv").write_text("time,open\n1,2\n")
    shown = labels.explore(load_settings({"market.bars": str(tmp_path / "bars.csv"), "synthetic.bars": 400}))
    assert shown.panel is None
    assert "bars.csv" in shown.children[0].value
    shown.button.click()
    assert "embedded market" in shown.panel.children[0].value


def test_labels_that_nobody_executes_are_refused_as_by_a_retrain():
    shown = labels.explore(load_settings({"labeling.method": "sltp_aware", "synthetic.bars": 400}))
    assert shown.panel is None
    assert "labeling.method = sltp_aware is refused" in shown.children[0].value


def test_a_store_that_cannot_be_opened_is_a_sentence(tmp_path):
    shown = risk.explore("no hex", settings=load_settings({"paths.models": str(tmp_path / "models")}))
    assert shown.panel is None


# ---------------------------------------------------------------- panel and view


def test_a_refusal_is_a_sentence_and_the_figures_stay():
    def draw(values):
        if values["x"] > 1:
            raise UsageError("x <is> too large")
        return Shown("fine")

    panel = Panel({"x": slider("x", 0.5, 0, 2, 0.1)}, [["one"]], draw)
    panel.controls["x"].value = 2
    assert "x &lt;is&gt; too large" in panel.sentence.value


def test_the_view_hands_out_plotly_when_it_is_asked():
    view, sent = FigureView(), []
    view.send = lambda content, buffers: sent.append((content, buffers))
    view._answer(view, {"want": "plotly"}, [])
    assert sent[0][1][0].lstrip().startswith(b"/**")


# ---------------------------------------------------------------- start page and command


def test_the_start_page_of_an_empty_project_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = start.start_page(load_settings())
    shown = page._repr_html_()
    for words in ("embedded market", "trademl data import FILE", "trademl retrain", "none yet"):
        assert words in shown


def test_the_start_page_links_every_job_and_explorer(repo):
    text = (repo / "nbs" / "explore" / "00_start.ipynb").read_text("utf-8")
    for folder, prefix in (("explore", ""), ("jobs", "../jobs/")):
        names = {path.name for path in (repo / "nbs" / folder).glob("*.ipynb")} - {"00_start.ipynb"}
        assert [name for name in sorted(names) if f"]({prefix}{name})" not in text] == []


def test_the_start_page_lists_revisions_runs_and_looks(small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = small_run.stored.store.models_dir
    run = tmp_path / "reports" / "20260101-000000-retrain-abc"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "done", "message": "a <sentence>"}))
    (run / "report.html").write_text("page")
    shown = start.start_page(
        load_settings({"paths.models": str(models), "paths.reports": "reports", "market.symbol": "SYNTH"})
    )._repr_html_()
    assert "1 judgement of 1 recipe," in shown
    assert "a &lt;sentence&gt;" in shown
    assert "../../reports/20260101-000000-retrain-abc/report.html" in shown


def test_the_lab_passes_on_what_follows_and_refuses_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    made = lab_arguments(port=9999, ip="localhost", browser=False, allow_root=False, more=["--ServerApp.token=x"])
    assert {"--ServerApp.port=9999", "--no-browser", "--ServerApp.ip=localhost"} <= set(made)
    assert made[-1] == "--ServerApp.token=x"
    served = next(argument.split("=", 1)[1] for argument in made if argument.startswith("--ServerApp.extra_static_paths="))
    assert (Path(served) / "plotly.min.js").is_file()
    assert "--LabApp.default_url=/lab/tree/nbs/explore/00_start.ipynb" in made
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    with pytest.raises(UsageError, match="--allow-root"):
        lab_arguments(port=None, ip="localhost", browser=True, allow_root=False, more=[])
    assert "--allow-root" in lab_arguments(port=None, ip="localhost", browser=True, allow_root=True, more=[])


@pytest.mark.slow
def test_what_gets_a_kernel_ready_imports_no_widget():
    """A kernel that has widgets when its notebook opens is asked for them, and the figure waits twenty seconds."""
    asked = "import sys, trademl.explore.label_room as r; r.warm_up(); print([m for m in ('ipywidgets', 'anywidget') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_notebooks_are_brought_once_and_never_overwritten(tmp_path):
    brought = bring_notebooks(tmp_path)
    assert {"nbs/explore/labels.ipynb", "nbs/jobs/retrain.ipynb"} <= {path.relative_to(tmp_path).as_posix() for path in brought}
    assert (tmp_path / "settings.ini").is_file()  # the mark that notebooks look for
    (tmp_path / "nbs/explore/labels.ipynb").write_text("mine")
    assert bring_notebooks(tmp_path) == []
    assert (tmp_path / "nbs/explore/labels.ipynb").read_text() == "mine"
