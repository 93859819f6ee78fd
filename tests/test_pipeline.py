"""Which market a command means, what the settings become, and what a whole run on a small market leaves behind."""

import re
import shutil
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from small_run import SMALL, retrain

from trademl.cli import app
from trademl.errors import BadDataError, LeakageError, RevisionError, UsageError
from trademl.files import npz_bytes
from trademl.learn.ensemble import native_files
from trademl.market.features import FEATURE_NAMES
from trademl.market.out_of_sample import LEAD_BARS
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.pipeline.market.pages import FEW_DAYS, Pages
from trademl.pipeline.market.replay import out_of_sample
from trademl.pipeline.page_head import head_of
from trademl.pipeline.stored import Stored
from trademl.runs import find_job, job_parameters
from trademl.settings import load_settings
from trademl.ship.manifest import TOLERANCE
from trademl.ship.signing import KeyFolder
from trademl.ship.store import State, Store
from trademl.validate.leakage import assert_no_leakage


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

    def test_missing_bars_are_reported_before_the_calendar(self, settings, tmp_path):
        for more in ({}, {"no_news": True}, {"news": "n.csv"}):
            with pytest.raises(BadDataError, match=r"x\.csv: no such file") as refused:
                pipeline.choose_market(settings, MarketFlags(bars="x.csv", **more))
            assert refused.value.exit_code == 4
        (tmp_path / "x.csv").touch()
        with pytest.raises(BadDataError, match=r"n\.csv: no such file"):
            pipeline.choose_market(settings, MarketFlags(bars="x.csv", news="n.csv"))

    def test_bars_need_a_calendar_or_the_word_that_there_is_none(self, settings, tmp_path):
        for name in ("x.csv", "n.csv"):
            (tmp_path / name).touch()
        with pytest.raises(UsageError, match="--no-news"):
            pipeline.choose_market(settings, MarketFlags(bars="x.csv"))
        assert pipeline.choose_market(settings, MarketFlags(bars="x.csv", no_news=True)).models_dir == "models"
        with pytest.raises(UsageError, match="exclude"):
            pipeline.choose_market(settings, MarketFlags(bars="x.csv", news="n.csv", no_news=True))

    @pytest.mark.parametrize("given", [{"news": "n.csv"}, {"no_news": True}])
    def test_a_calendar_without_bars_is_refused(self, settings, tmp_path, given):
        (tmp_path / "n.csv").touch()
        with pytest.raises(UsageError, match="--bars"):
            pipeline.choose_market(settings, MarketFlags(**given))

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"tz": "UTC"}, "--tz"),
            ({"stamp": "close", "strict": True}, "--stamp, --strict"),
            ({"trust_clock": True}, "--trust-clock"),
            ({"allow_flat": True, "symbol": "SYNTH"}, "--allow-flat"),
            ({"news_tz": "UTC"}, "--news-tz"),
        ],
    )
    def test_how_a_file_is_read_says_nothing_without_a_file(self, settings, tmp_path, given, named):
        with pytest.raises(UsageError, match=f"^{named}: these say how a file is read, .*give --bars FILE"):
            pipeline.choose_market(settings, MarketFlags(**given))
        (tmp_path / "datasets").mkdir()
        (tmp_path / settings.market.bars).touch()  # the file that the settings name is read so
        if "symbol" not in given and "news_tz" not in given:
            assert pipeline.choose_market(settings, MarketFlags(no_news=True, **given)).bars == settings.market.bars

    def test_a_clock_for_no_calendar_is_refused(self, settings, tmp_path):
        (tmp_path / "x.csv").touch()
        with pytest.raises(UsageError, match="--news-tz is the clock of a calendar, and with --no-news none is read"):
            pipeline.choose_market(settings, MarketFlags(bars="x.csv", no_news=True, news_tz="UTC"))

    def test_another_symbol_needs_bars_and_a_section(self, settings, tmp_path):
        (tmp_path / "x.csv").touch()
        with pytest.raises(UsageError, match="XAUUSD"):
            pipeline.choose_market(settings, MarketFlags(symbol="XAUUSD"))
        with pytest.raises(UsageError, match=r"\[symbol.DOGE\]"):
            pipeline.choose_market(settings, MarketFlags(symbol="DOGE", bars="x.csv", no_news=True))


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


class TestFlags:
    def test_an_empty_text_of_a_job_means_not_given(self):
        flags = MarketFlags.of_job(bars="", news="n.csv", no_news=False, strict=True)
        assert flags == MarketFlags(news="n.csv", strict=True)
        switches = {"no_news": False, "strict": True, "trust_clock": False, "allow_flat": False}
        assert flags.job_parameters() == {"news": "n.csv"} | switches

    @pytest.mark.parametrize("words", [["retrain"], ["tune", "signal"], ["backtest"]], ids=" ".join)
    def test_every_command_that_reads_bars_takes_them_all(self, monkeypatch, words):
        every = MarketFlags("b.csv", "n.csv", True, "XAUUSD", "m", "UTC", "open", True, "UTC", True, True)
        for name, value in asdict(every).items():
            words = [*words, f"--{name.replace('_', '-')}", *([] if value is True else [value])]

        def stop(*arguments, **options):
            raise UsageError(f"flags: {next(a for a in arguments if isinstance(a, MarketFlags))}")

        monkeypatch.setattr(f"trademl.commands.{'backtest' if words[0] == 'backtest' else 'market'}.run_{words[0]}", stop)
        with pytest.raises(UsageError, match=re.escape(f"flags: {every}")):
            app(words, standalone_mode=False)

    @pytest.mark.parametrize("job", ["retrain", "tune"])
    def test_every_flag_is_a_parameter_of_the_jobs_that_read_bars(self, job):
        every = {field.name for field in fields(MarketFlags)}
        assert every <= job_parameters(find_job(job)).keys()


class TestStored:
    """What a manifest does not say matters only to those who ask for it."""

    def stored(self, small_run, **changes):
        manifest = small_run.stored.revision.manifest
        section = {key: value for key, value in (manifest["market"] | changes).items() if value is not ...}
        return Stored(replace(small_run.stored.revision, manifest=manifest | {"market": section}))

    def test_it_says_what_the_run_was_made_of(self, small_run):
        stored, case = small_run.stored, small_run.case
        assert (stored.label_spec, stored.costs) == (case.rows.spec, case.rows.costs)
        assert (stored.windows, stored.embargo_s) == (case.windows, case.windows.embargo_s)  # rows are not compared
        assert (stored.symbol, stored.line, stored.seed) == (case.symbol, case.choice.line, case.recipe.seed)
        assert (stored.feature_hash, stored.run_id) == (case.feature_hash, small_run.proven.run_id)
        assert (stored.data.rows, stored.data.symbol) == (len(small_run.inputs.bars), "SYNTH")
        assert stored.gate.passed == small_run.finding.verdict.passed
        assert {model.role for model in stored.models} >= {"signal", "position"}
        assert stored.holds("signal.onnx") and not stored.holds("signal")


@pytest.mark.leakage
class TestNothingLeaks:
    def test_every_judged_bar_lies_after_every_label_that_its_model_saw(self, small_run):
        rows, judged = small_run.case.rows, small_run.judged
        for fold in [*judged.signal.folds, *judged.signal.oof]:
            assert_no_leakage(fold.fit_rows, fold.test_rows, rows.time_s, rows.end_s, embargo_s=judged.windows.embargo_s)
            assert rows.end_s[fold.fit_rows].max() + judged.windows.embargo_s <= rows.time_s[fold.test_rows].min()

    def test_the_shipped_models_cannot_be_scored_on_the_final_window(self, small_run):
        lineage = small_run.shipped.lineage
        with pytest.raises(LeakageError, match="shipped"):
            lineage.check(small_run.case.windows.span("final").start_s, small_run.case.windows.embargo_s)
        small_run.judged.lineage.check(small_run.case.windows.span("final").start_s, small_run.case.windows.embargo_s)

    def test_the_future_of_the_final_window_changes_nothing_that_was_chosen(self, small_run):
        """Corrupt labels and features of the final window: what was frozen on select stays the same, bit for bit."""
        rows, windows = small_run.case.rows, small_run.case.windows
        start = windows.bars("final")[0]
        x = rows.x.copy()
        x[start:] = np.random.default_rng(0).permutation(x[start:])
        again = pipeline.judge_recipe(replace(small_run.case, rows=replace(rows, x=x))).frozen
        first = small_run.judged.frozen
        assert again.signal_rounds == first.signal_rounds
        assert again.margins == first.margins
        assert (again.worth == first.worth).all()
        assert (again.signal_blend.weights == first.signal_blend.weights).all()
        assert again.signal_blend.calibration == first.signal_blend.calibration
        assert (again.scaler.mean == first.scaler.mean).all()


class TestRevision:
    def test_it_verifies_and_names_its_contract(self, small_run):
        revision, manifest = small_run.stored.revision, small_run.stored.revision.manifest
        assert all(check.ok for check in revision.verify())
        assert manifest["market"]["label_spec"]["hash"] == small_run.case.rows.spec.hash
        assert manifest["line"] == "market-synth-15min"
        assert len(manifest["models"][0]["features"]) == 55
        assert manifest["data"]["sha256"] == small_run.inputs.bars_sha256
        assert small_run.stored.lineage == small_run.shipped.lineage.add(*small_run.heads.fits())

    def test_parity_was_proven_on_all_rows(self, small_run):
        complete = np.isfinite(small_run.case.rows.x).all(axis=1).sum()
        signal = small_run.proven.parity["signal"]
        assert (signal["rows"], signal["flips"]) == (complete, 0)
        assert signal["max_abs"] <= TOLERANCE
        assert small_run.proven.parity["position"]["rows"] == len(small_run.shipped.position_held.bar)

    def test_the_stored_table_replays_the_run(self, small_run):
        oos, judged = out_of_sample(small_run.stored), small_run.judged
        final = judged.windows.bars("final")
        offset = judged.windows.bars("select")[0] - LEAD_BARS
        assert (oos.rows("final") + offset == final).all()
        again = pipeline.reread_evidence(small_run.stored, small_run.settings)
        assert again.to_json() == small_run.evidence.to_json()

    def test_a_sharpe_says_from_how_many_days(self, small_run):
        days = small_run.evidence.strategy.sharpe.n
        rows = {row[0]: row[1] for row in Pages(small_run.stored, small_run.evidence).trade_rows()}
        told = "" if days >= FEW_DAYS else " (too few to be believed)"
        assert days > 1 and f"Sharpe, annualised from {days} daily results{told}" in rows
        assert rows["trades"] == f"{small_run.evidence.strategy.trades:,}"

    def test_the_page_begins_with_the_verdict_of_the_one_object(self, small_run):
        head = head_of(small_run.stored)
        assert head["headline"] == small_run.finding.verdict.sentence == small_run.evidence.verdict.sentence
        assert small_run.stored.name in head["subtitle"]
        assert [banner.label for banner in head["banners"]] == ["synthetic", "look 1"]

    def test_a_run_by_hand_moves_no_pointer(self, small_run):
        store = Store(small_run.choice.models_dir)
        assert store.active() is None
        assert store.state(small_run.stored.revision) == (State.APPROVED if small_run.finding.verdict.passed else State.CANDIDATE)

    def test_a_second_run_makes_the_same_files(self, small_run):
        case = replace(small_run.case, recipe=replace(small_run.case.recipe, threads=2))
        proven = pipeline.prove(case, small_run.judged, pipeline.ship_models(case, small_run.judged))
        assert proven.run_id == small_run.proven.run_id
        assert proven.graphs == small_run.proven.graphs
        assert npz_bytes(proven.golden) == npz_bytes(small_run.proven.golden)

    @pytest.mark.slow
    def test_folds_that_are_fitted_side_by_side_are_judged_the_same(self, small_run):
        case = replace(small_run.case, recipe=replace(small_run.case.recipe, threads=2))
        judged, alone = pipeline.judge_recipe(case), small_run.judged
        assert judged.probabilities.tobytes() == alone.probabilities.tobytes()
        assert judged.position.exit_bar.tobytes() == alone.position.exit_bar.tobytes()
        assert (judged.position.log_loss, judged.position.baseline_log_loss) == (alone.position.log_loss, alone.position.baseline_log_loss)
        for mine, theirs in zip(judged.signal.models + judged.position.models, alone.signal.models + alone.position.models, strict=True):
            assert native_files(mine, "x") == native_files(theirs, "x")

    def test_new_risk_heads_stand_beside_the_same_signal_and_position(self, small_run, tmp_path):
        shutil.copytree(small_run.choice.models_dir, tmp_path / "models")
        first = Stored(Store(tmp_path / "models").open())
        then = pipeline.store_risk(first, small_run.settings)
        assert (then.parent, then.run_id, then.lineage) == (first.name, first.run_id, first.lineage)
        assert all(check.ok for check in then.revision.verify())
        assert {file.name for file in then.files} == {file.name for file in first.files}
        kept = [file.name for file in first.files if "risk" not in file.name and file.name != "golden.npz"]
        assert all(then.read(name) == first.read(name) for name in kept)
        assert (
            pipeline.reread_evidence(then, small_run.settings).to_json() == small_run.evidence.to_json()
        )  # the same trades: the same heads

    def test_where_a_key_is_a_retrain_signs_and_heads_are_not_signed_onto_a_stranger(self, small_run, tmp_path):
        keys = KeyFolder(tmp_path / "keys")
        keys.create()
        settings = load_settings(SMALL | {"paths.keys": str(keys.path)}, environ={})
        choice = replace(small_run.choice, models_dir=str(tmp_path / "models"))
        case = replace(small_run.case, settings=settings, inputs=replace(small_run.inputs, choice=choice))
        parts = ("judged", "finding", "shipped", "proven", "heads", "alarms")
        stored = pipeline.store_revision(case, pipeline.Trained(**{name: getattr(small_run, name) for name in parts}))
        assert stored.revision.check_signature() == f"signed by key {keys.signer().name}, which is pinned here"
        assert stored.store.trust == keys.trust()
        unsigned = replace(small_run.stored.revision, trust=keys.trust())
        with pytest.raises(RevisionError, match="is not signed"):
            pipeline.store_risk(Stored(unsigned), settings)

    def test_metrics_say_what_the_report_draws(self, small_run):
        metrics = small_run.stored.metrics
        assert sum(metrics["labels"]["shares"].values()) == pytest.approx(1)
        assert {row["name"] for row in metrics["features"]} == {
            f["name"] for f in small_run.stored.revision.manifest["models"][0]["features"]
        }
        final = metrics["signal"]["final"]
        assert final["n"] == len(small_run.case.windows.rows("final"))
        assert final["log_loss"] < final["prior_log_loss"]  # the embedded market has an edge
        assert asdict(small_run.finding.verdict)["passed"] == small_run.stored.revision.manifest["gate"]["passed"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An embedded market without volume and without a calendar."""

    def strip(inputs):
        return replace(inputs, bars=inputs.bars.assign(volume=0.0), events=None, news_sha256=None, news_covers_until=None)

    models_dir, settings = tmp_path_factory.mktemp("models"), SMALL | {"synthetic.bars": 7_000}
    return retrain(models_dir, settings, until="proven", change={"inputs": strip}, risk=False)


class TestConstantColumns:
    """Bars without volume, a run without a calendar: handled, and said."""

    def test_they_are_named(self, bare, small_run):
        names = pipeline.constant_features(bare.rows)
        assert {"volume_surge", "vwap_dist", "is_news_near", "news_minutes_away"} < set(names)
        assert len(names) == 9
        assert pipeline.constant_sentence(names).startswith("9 features never change in these bars (volume_ratio, ")
        assert pipeline.constant_sentence(names[:1]).startswith(
            "1 feature never changes in these bars (volume_ratio): nothing is learned from it"
        )
        assert pipeline.constant_sentence(pipeline.constant_features(small_run.case.rows)) == ""
        assert small_run.stored.revision.manifest["market"]["constant_features"] == []

    def test_nobody_asks_them_and_parity_holds_on_all_rows(self, bare):
        assert bare.proven.parity["signal"]["flips"] == 0
        assert bare.proven.parity["signal"]["max_abs"] <= TOLERANCE
        dead = {FEATURE_NAMES.index(name) for name in pipeline.constant_features(bare.rows)}
        for table in (*bare.shipped.signal.tables, *bare.shipped.position.tables):
            assert dead.isdisjoint(table.feature.tolist())

    def test_prices_that_do_not_move_have_no_label(self, bare):
        still, settings = replace(bare.inputs, bars=bare.inputs.bars.assign(open=1.0, high=1.0, low=1.0, close=1.0)), bare.settings
        with pytest.raises(BadDataError, match=r"none of 7,000 bars has a label: their ATR is zero.*trademl data check"):
            pipeline.make_rows(still, pipeline.make_features(still, settings), settings)
