"""Which market a command means, what the settings become, and what a whole run on a small market leaves behind."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from trademl.pipeline.market.choice import SYNTHETIC

from trademl.errors import BadDataError, LeakageError, UsageError
from trademl.market.features import FEATURE_NAMES
from trademl.market.out_of_sample import LEAD_BARS
from trademl.market.walkforward import unwatched
from trademl.pipeline import market as pipeline
from trademl.pipeline.market.evidence import out_of_sample
from trademl.settings import load_settings
from trademl.validate.leakage import assert_no_leakage
from trademl.validate.lineage import Lineage

SMALL = {
    "run.threads": 1,  # many small fits: threads only wait for each other
    "synthetic.bars": 9_000,
    "windows.refit_every_days": 20,
    "ensemble.rf_trees": 20,
    "ensemble.xgb_max_rounds": 60,
    "ensemble.lgb_max_rounds": 60,
    "backtest.null_runs": 50,
    "backtest.bootstrap_draws": 300,
}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_settings()


class TestWhichMarket:
    def test_without_anything_the_embedded_market_and_its_own_store(self, settings):
        choice = pipeline.choose_market(settings)
        assert (choice.symbol, choice.line, choice.models_dir) == (SYNTHETIC, "market-synth-15min", "models/synthetic")
        assert "embedded synthetic market" in choice.sentence()

    def test_files_that_the_settings_name_are_used_when_they_exist(self, settings, tmp_path):
        for name in (settings.market.bars, settings.market.news):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        choice = pipeline.choose_market(settings)
        assert (choice.bars, choice.news, choice.line) == (settings.market.bars, settings.market.news, "market-btcusd-15min")

    def test_bars_need_a_calendar_or_the_word_that_there_is_none(self, settings):
        with pytest.raises(UsageError, match="--no-news"):
            pipeline.choose_market(settings, bars="x.csv")
        assert pipeline.choose_market(settings, bars="x.csv", no_news=True).models_dir == "models"
        with pytest.raises(UsageError, match="exclude"):
            pipeline.choose_market(settings, bars="x.csv", news="n.csv", no_news=True)

    @pytest.mark.parametrize("given", [{"news": "n.csv"}, {"no_news": True}])
    def test_a_calendar_without_bars_is_refused(self, settings, given):
        with pytest.raises(UsageError, match="--bars"):
            pipeline.choose_market(settings, **given)

    def test_another_symbol_needs_bars_and_a_section(self, settings):
        with pytest.raises(UsageError, match="XAUUSD"):
            pipeline.choose_market(settings, symbol="XAUUSD")
        with pytest.raises(UsageError, match=r"\[symbol.DOGE\]"):
            pipeline.choose_market(settings, symbol="DOGE", bars="x.csv", no_news=True)


class TestContract:
    def test_fixed_percentage_labels_are_refused_and_the_fix_is_named(self, settings):
        asked = replace(settings, labeling=replace(settings.labeling, method="sltp_aware"))
        with pytest.raises(UsageError, match=r"dynamic_sltp\.enabled = true.*atr_aware"):
            pipeline.label_spec(asked)
        off = replace(asked, dynamic_sltp=replace(asked.dynamic_sltp, enabled=False))
        with pytest.raises(UsageError, match="removed"):
            pipeline.label_spec(off)
        with pytest.raises(UsageError, match="atr_aware"):
            pipeline.label_spec(replace(settings, labeling=replace(settings.labeling, method="magic")))

    def test_costs_and_account_of_a_profile(self, settings):
        assert pipeline.cost_spec(settings, "BTCUSD").spread == 16.95
        assert pipeline.cost_spec(settings, "BTCUSD", spread=0.0).spread == 0.0
        account = pipeline.account_spec(settings, "BTCUSD", 1, balance=500)
        assert (account.balance, account.risk_pct, account.max_total_drawdown_pct) == (500, 0.75, 20.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole run on a small embedded market, by hand."""
    settings = load_settings(SMALL)
    choice = pipeline.choose_market(settings, symbol=SYNTHETIC, models_dir=str(tmp_path_factory.mktemp("models")))
    inputs = pipeline.load_inputs(settings, choice)
    rows = pipeline.make_rows(inputs, pipeline.make_features(inputs, settings), settings)
    recipe, windows = pipeline.recipe_of(settings), pipeline.windows_of(rows, settings.windows)
    judged = pipeline.judge(rows, windows, recipe, 3)
    shipped = pipeline.ship(rows, judged, recipe)
    run_id = pipeline.run_id_of(inputs, rows, recipe, settings)
    proven = pipeline.prove(rows, judged, shipped, run_id)
    evidence, verdict = pipeline.weigh(rows, judged, recipe, settings, choice.symbol, 3)
    revision = pipeline.store_revision(inputs, rows, recipe, settings, judged, shipped, proven, evidence, verdict, run_id)
    return {name: value for name, value in locals().items() if name != "tmp_path_factory"}


@pytest.mark.leakage
class TestNothingLeaks:
    def test_every_judged_bar_lies_after_every_label_that_its_model_saw(self, run):
        rows, judged = run["rows"], run["judged"]
        for fold in [*judged.signal.folds, *judged.signal.oof]:
            assert_no_leakage(fold.fit_rows, fold.test_rows, rows.time_s, rows.end_s, embargo_s=judged.windows.embargo_s)
            assert rows.end_s[fold.fit_rows].max() + judged.windows.embargo_s <= rows.time_s[fold.test_rows].min()

    def test_the_shipped_models_cannot_be_scored_on_the_final_window(self, run):
        lineage = run["shipped"].lineage
        with pytest.raises(LeakageError, match="shipped"):
            lineage.check(run["windows"].span("final").start_s, run["windows"].embargo_s)
        run["judged"].lineage.check(run["windows"].span("final").start_s, run["windows"].embargo_s)

    def test_the_future_of_the_final_window_changes_nothing_that_was_chosen(self, run):
        """Corrupt labels and features of the final window: what was frozen on select stays the same, bit for bit."""
        rows, windows = run["rows"], run["windows"]
        start = windows.bars("final")[0]
        x = rows.x.copy()
        x[start:] = np.random.default_rng(0).permutation(x[start:])
        again = pipeline.judge(replace(rows, x=x), windows, run["recipe"], 3, unwatched).frozen
        first = run["judged"].frozen
        assert again.signal_rounds == first.signal_rounds
        assert again.margins == first.margins
        assert (again.worth == first.worth).all()
        assert (again.signal_blend.weights == first.signal_blend.weights).all()
        assert again.signal_blend.calibration == first.signal_blend.calibration
        assert (again.scaler.mean == first.scaler.mean).all()


class TestRevision:
    def test_it_verifies_and_names_its_contract(self, run):
        revision, manifest = run["revision"], run["revision"].manifest
        assert all(check.ok for check in revision.verify())
        assert manifest["label_spec"]["hash"] == run["rows"].spec.hash
        assert manifest["line"] == "market-synth-15min"
        assert manifest["feature_count"] == 55
        assert manifest["data"]["sha256"] == run["inputs"].bars_sha256
        assert Lineage.from_json(json.dumps(manifest["lineage"])) == run["shipped"].lineage

    def test_parity_was_proven_on_all_rows(self, run):
        complete = np.isfinite(run["rows"].x).all(axis=1).sum()
        signal = run["proven"].parity["signal"]
        assert (signal["rows"], signal["flips"]) == (complete, 0)
        assert signal["max_abs"] <= 1e-5
        assert run["proven"].parity["position"]["rows"] == len(run["shipped"].position_held.bar)

    def test_the_stored_table_replays_the_run(self, run):
        oos, judged = out_of_sample(run["revision"]), run["judged"]
        final = judged.windows.bars("final")
        offset = judged.windows.bars("select")[0] - LEAD_BARS
        assert (oos.rows("final") + offset == final).all()
        again = pipeline.reread_evidence(run["revision"], run["settings"], profile=3)
        assert again.to_json() == run["evidence"].to_json()

    def test_a_sharpe_says_from_how_many_days(self, run):
        from trademl.pipeline.market.pages import FEW_DAYS, Pages

        days = run["evidence"].strategy.sharpe.n
        rows = dict(Pages(run["revision"], run["evidence"], run["settings"], 3).trade_rows())
        told = "" if days >= FEW_DAYS else " (too few to be believed)"
        assert days > 1 and f"Sharpe, annualised from {days} daily returns{told}" in rows
        assert rows["trades"] == f"{run['evidence'].strategy.trades:,}"

    def test_a_run_by_hand_moves_no_pointer(self, run):
        from trademl.ship.store import State, Store

        store = Store(run["choice"].models_dir)
        assert store.active() is None
        assert store.state(run["revision"]) == (State.APPROVED if run["verdict"].passed else State.CANDIDATE)

    def test_a_second_run_makes_the_same_files(self, run):
        shipped = pipeline.ship(run["rows"], run["judged"], replace(run["recipe"], threads=2))
        proven = pipeline.prove(run["rows"], run["judged"], shipped, run["run_id"])
        assert proven.graphs == run["proven"].graphs
        assert proven.golden == run["proven"].golden

    def test_metrics_say_what_the_report_draws(self, run):
        metrics = json.loads(run["revision"].read("metrics.json"))
        assert sum(metrics["labels"]["shares"].values()) == pytest.approx(1)
        assert {row["name"] for row in metrics["features"]} == {f["name"] for f in run["revision"].manifest["features"]}
        final = metrics["signal"]["final"]
        assert final["n"] == len(run["windows"].rows("final"))
        assert final["log_loss"] < final["prior_log_loss"]  # the embedded market has an edge
        assert asdict(run["verdict"])["passed"] == run["revision"].manifest["gate"]["passed"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An embedded market without volume and without a calendar."""
    settings = load_settings(SMALL | {"synthetic.bars": 7_000})
    choice = pipeline.choose_market(settings, symbol=SYNTHETIC, models_dir=str(tmp_path_factory.mktemp("models")))
    inputs = pipeline.load_inputs(settings, choice)
    inputs = replace(inputs, bars=inputs.bars.assign(volume=0.0), events=None, news_sha256=None, news_covers_until=None)
    return settings, inputs, pipeline.make_rows(inputs, pipeline.make_features(inputs, settings), settings)


class TestConstantColumns:
    """Bars without volume, a run without a calendar: handled, and said."""

    def test_they_are_named(self, bare, run):
        names = pipeline.constant_features(bare[2])
        assert {"volume_surge", "vwap_dist", "is_news_near", "news_minutes_away"} < set(names)
        assert len(names) == 9
        assert pipeline.constant_sentence(names).startswith("9 features never change in these bars (volume_ratio, ")
        assert pipeline.constant_sentence(names[:1]).startswith(
            "1 feature never changes in these bars (volume_ratio): nothing is learned from it"
        )
        assert pipeline.constant_sentence(pipeline.constant_features(run["rows"])) == ""
        assert run["revision"].manifest["constant_features"] == []

    def test_nobody_asks_them_and_parity_holds_on_all_rows(self, bare):
        settings, _, rows = bare
        recipe, windows = pipeline.recipe_of(settings), pipeline.windows_of(rows, settings.windows)
        judged = pipeline.judge(rows, windows, recipe, 3)
        shipped = pipeline.ship(rows, judged, recipe)
        proven = pipeline.prove(rows, judged, shipped, "0" * 16)
        assert proven.parity["signal"]["flips"] == 0
        assert proven.parity["signal"]["max_abs"] <= 1e-5
        dead = {FEATURE_NAMES.index(name) for name in pipeline.constant_features(rows)}
        for table in (*shipped.signal.tables, *shipped.position.tables):
            assert dead.isdisjoint(table.feature.tolist())

    def test_prices_that_do_not_move_have_no_label(self, bare):
        settings, inputs, _ = bare
        still = replace(inputs, bars=inputs.bars.assign(open=1.0, high=1.0, low=1.0, close=1.0))
        with pytest.raises(BadDataError, match=r"none of 7,000 bars has a label: their ATR is zero.*trademl data check"):
            pipeline.make_rows(still, pipeline.make_features(still, settings), settings)
