"""Leak alarms where people meet them: in a retrain, in the manifest and its pages, in `data check`, and on the command line."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bars_files import lines, write
from small_run import SMALL, retrain

from trademl.cli import main
from trademl.data.news import write_news
from trademl.data.releases import ReleaseProfile
from trademl.data.synthetic import synthetic_market
from trademl.market.definitions import FEATURES, Source, columns_of
from trademl.pipeline.market.alarms import LeakAlarms, answers, dependence_of
from trademl.pipeline.market.pages import Pages
from trademl.pipeline.stored import Stored
from trademl.validate.dependence import Dependence, without_each
from trademl.validate.leaks import ColumnLeak, LeakReport

pytestmark = pytest.mark.leakage

HONEST = LeakReport(70_000, (ColumnLeak("rsi_14", "bar 1", 0.05, 70_000),), None)
LEAKING = LeakReport(70_000, (ColumnLeak("volume", "bar 1", 0.68, 70_000),), None)
ALARM = (
    "column volume knows the future: V = 0.68 against the sign of the move of bar 1 from the next open on "
    "(70,000 bars; honest columns stay below 0.14)"
)
SHIFTED = ReleaseProfile(count=437, moved=(0.0, 0.0, 0.0, 0.0, 0.1, 0.4, 0.0, 0.0, 0.0), peak=1, is_clear=True)
JUDGED = Dependence(
    decisions=900,
    edge_r=0.31,
    low_r=0.25,
    without={"prices": 0.02, "volume": 0.28, "time": 0.3, "news": 0.3},
    log_loss=1.088,
    prior_log_loss=1.09,
    win_rate=0.42,
    driftless_win_rate=0.348,
)


@pytest.fixture(scope="module")
def market():
    return synthetic_market(n_bars=9_000, edge=0.0, seed=3)


class TestObject:
    def test_silence_refuses_nothing(self):
        alarms = LeakAlarms(HONEST, None, JUDGED)
        assert (alarms.found, alarms.refusals()) == ((), ())
        assert alarms.sentences == (HONEST.sentence,)
        right = replace(SHIFTED, peak=0)
        assert LeakAlarms(HONEST, right).sentences == (HONEST.sentence, right.sentence)

    def test_every_kind_of_alarm_refuses(self):
        alarms = LeakAlarms(LEAKING, SHIFTED, replace(JUDGED, win_rate=0.6))
        assert alarms.refusals() == alarms.found
        assert alarms.found[0] == ALARM
        assert alarms.found[1].endswith("the stamps are 15 minutes late; export the bars again")
        assert alarms.found[2].startswith("the win rate of 60.0% is 25 points above the driftless 34.8%")
        told = "; find where it comes from, or accept it with --accept-leak REASON"
        assert alarms.sentences == tuple(f"leak alarm: {alarm}{told}" for alarm in alarms.found)

    def test_an_accepted_alarm_refuses_nothing_and_keeps_its_reason(self):
        alarms = LeakAlarms(LEAKING, None, accepted="flow of our own desk")
        assert alarms.refusals() == ()
        assert alarms.sentences == (f"leak accepted (flow of our own desk): {ALARM}",)
        assert (alarms.record()["accepted"], alarms.record()["alarms"]) == ("flow of our own desk", [ALARM])

    def test_a_planted_edge_says_so_and_refuses_nothing(self):
        alarms = LeakAlarms(LEAKING, SHIFTED, is_planted=True)
        assert alarms.refusals() == ()
        assert alarms.sentences == (f"synthetic: a planted edge: {ALARM}; and 1 more alarm",)
        assert LeakAlarms(LEAKING, None, is_planted=True).sentences == (f"synthetic: a planted edge: {ALARM}",)

    def test_the_record_is_json_and_keeps_every_alarmed_column(self):
        many = tuple(ColumnLeak(f"c{k}", "bar 1", 0.5, 70_000) for k in range(20)) + HONEST.columns
        record = LeakAlarms(LeakReport(70_000, many, None), SHIFTED, JUDGED).record()
        assert json.loads(json.dumps(record)) == json.loads(json.dumps(record, allow_nan=False))
        assert [column["column"] for column in record["columns"]] == [f"c{k}" for k in range(20)]
        assert Dependence(**record["dependence"]) == JUDGED


class TestDependence:
    def test_the_sentences(self):
        hangs = replace(JUDGED, without=JUDGED.without | {"time": 0.05}, log_loss=1.01, win_rate=0.58)
        assert hangs.alarms == (
            "the edge hangs on time: +0.31 R a decision before cost, +0.05 R with time shuffled "
            "(half must be left without any one group but prices)",
            "the log loss of 1.010 beats the class prior by 0.080; more than 0.05 is too good for a market",
            "the win rate of 58.0% is 23 points above the driftless 34.8%; more than 20 is too good for a market",
        )

    @pytest.mark.parametrize(
        "honest",
        [
            {},
            {"low_r": 0.0, "without": {"volume": 0.0}},  # no clear edge
            {"low_r": None, "without": {"volume": 0.0}},
            {"decisions": 99, "without": {"volume": 0.0}, "win_rate": 0.9},  # too few to say anything
            {"decisions": 0, "edge_r": None, "low_r": None, "win_rate": None},
            {"without": {"volume": 0.156, "news": 0.31}},  # half is left
            {"win_rate": 0.547, "log_loss": 1.0401},  # just below both limits
        ],
    )
    def test_honest_figures_alarm_nothing(self, honest):
        assert replace(JUDGED, **honest).alarms == ()

    def test_a_shuffled_group_keeps_its_rows_together_and_the_others_in_place(self):
        x = np.arange(40.0).reshape(10, 4)
        seen = {}
        without_each(lambda m: seen.setdefault(len(seen), m).sum(), x, {"a": np.array([1, 3]), "b": np.array([0])}, seed=2)
        np.testing.assert_array_equal(seen[0][:, [0, 2]], x[:, [0, 2]])
        np.testing.assert_array_equal(seen[0][:, 3] - seen[0][:, 1], np.full(10, 2.0))
        assert sorted(seen[0][:, 1]) == sorted(x[:, 1]) and (seen[0][:, 1] != x[:, 1]).any()
        np.testing.assert_array_equal(seen[1][:, 1:], x[:, 1:])
        np.testing.assert_array_equal(x, np.arange(40.0).reshape(10, 4))

    def test_every_feature_has_one_source(self):
        found = np.concatenate([columns_of(source) for source in Source])
        assert sorted(found) == list(range(len(FEATURES)))
        names = [FEATURES[k].name for k in columns_of(Source.VOLUME)]
        assert names == ["volume_ratio", "volume_surge", "volume_trend", "volume_delta", "vwap_dist"]


class TestRetrain:
    def test_the_kept_models_are_those_that_judged_final(self, small_run):
        final = small_run.judged.windows.rows("final")
        again = answers(small_run.judged, small_run.rows.x[final])
        np.testing.assert_array_equal(again, small_run.judged.signal.model_probabilities[final])

    def test_the_planted_edge_hangs_on_volume(self, small_run):
        found = small_run.alarms.dependence
        assert found == dependence_of(small_run.case, small_run.judged)
        assert found.carriers == ("volume",)
        assert found.without["news"] == pytest.approx(found.edge_r, abs=0.05)
        assert small_run.alarms.refusals() == ()

    def test_the_manifest_keeps_the_figures_and_says_planted(self, small_run):
        leaks, record = small_run.stored.leaks, small_run.stored.revision.manifest["market"]["leaks"]
        assert record == json.loads(json.dumps(small_run.alarms.record()))
        assert leaks.is_planted
        assert leaks.note == f"{len(leaks.alarms)} alarms, planted"
        assert leaks.sentences[0].startswith("synthetic: a planted edge: column volume knows the future: V = 0.3")
        assert small_run.summary["leaks"] == list(leaks.sentences)

    def test_the_page_shows_columns_and_what_the_edge_hangs_on(self, small_run):
        pages = Pages(small_run.stored, small_run.finding.evidence)
        table = pages.leaks()
        assert table.loc["volume", "alarm"] == "alarm"
        assert (table["V"].diff().dropna() <= 0).all()
        assert set(pages.dependence().index) == {"as decided", *(f"{source} shuffled" for source in Source)}

    @pytest.mark.parametrize(
        ("record", "note"),
        [
            (..., "not looked for"),
            ({"alarms": [], "accepted": None, "planted": True}, "none"),
            ({"alarms": [ALARM], "accepted": None, "planted": False}, "1 alarm"),
            ({"alarms": [ALARM, ALARM], "accepted": "ours", "planted": False}, "2 alarms, accepted: ours"),
        ],
    )
    def test_a_list_says_it_in_a_word(self, small_run, record, note):
        manifest = small_run.stored.revision.manifest
        section = {key: value for key, value in (manifest["market"] | {"leaks": record}).items() if value is not ...}
        stored = Stored(replace(small_run.stored.revision, manifest=manifest | {"market": section}))
        assert stored.leaks.note == note
        if record is ...:
            pages = Pages(stored, small_run.finding.evidence)
            assert pages.leaks() == "no leak was looked for"
            assert pages.dependence() == "No decision was made in the window: there is nothing that could hang on an input."

    def test_the_reason_comes_in_by_the_job(self, tmp_path):
        run = retrain(tmp_path, SMALL | {"synthetic.bars": 6_000}, until="alarms", accept_leak="flow of our own desk")
        assert run.alarms.accepted == "flow of our own desk"
        assert retrain(tmp_path, SMALL | {"synthetic.bars": 6_000}, until="alarms").alarms.accepted is None

    def test_bars_from_a_file_are_not_planted(self, tmp_path):
        made = synthetic_market(n_bars=6_000, edge=1.0, seed=3).bars
        bars = str(write(tmp_path / "made.csv", lines(made)))
        run = retrain(tmp_path, SMALL, until="alarms", bars=bars, no_news=True, symbol="BTCUSD")
        assert run.alarms.refusals() == run.alarms.found != ()
        assert run.alarms.found[0].startswith("column volume knows the future")
        assert run.alarms.releases is None  # no calendar


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `trademl ...` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["trademl", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


class TestCommands:
    def test_data_check_refuses_a_volume_that_knows_the_future(self, run, market, tmp_path):
        opens = market.bars["open"]
        bars = market.bars.assign(volume=(market.bars["volume"] * np.where(opens.shift(-2) > opens.shift(-1), 1.6, 0.4)).round(4))
        file = write(tmp_path / "leaky.csv", lines(bars))
        code, out, _ = run("data", "check", file)
        assert code == 4
        assert "error    leak" in out
        assert "leaky.csv: column volume knows the future: V = 0.7" in out
        assert "-> export it again, each value in the row of the bar at whose close it was known" in out
        assert "trademl data repair" not in out  # it would mend nothing
        record = json.loads(run("data", "check", file, "--json")[1])
        assert (record["exit"], record["status"]) == (4, "failed")
        (issue,) = [issue for issue in record["issues"] if issue["kind"] == "leak"]
        assert (issue["severity"], issue["count"]) == ("error", 9_000)
        assert run("data", "import", file, "--dry-run")[0] == 0  # the rows themselves are right

    def test_data_check_says_how_near_the_strongest_column_came(self, run, market, tmp_path):
        code, out, _ = run("data", "check", write(tmp_path / "honest.csv", lines(market.bars)))
        assert code == 0
        assert "info     columns" in out
        assert "no column knows the future: the strongest, " in out

    def test_data_check_of_the_embedded_market_says_planted(self, run, tmp_path):
        made = synthetic_market(n_bars=6_000, edge=1.0, seed=3).bars
        file = write(tmp_path / "made.csv", lines(made))
        code, out, _ = run("data", "check", file, "--symbol", "SYNTH")
        assert code == 0
        assert "warning  synthetic          synthetic: a planted edge: column volume knows the future" in out

    def test_rows_that_are_shifted_are_seen_by_the_calendar_though_the_clock_is_trusted(self, run, market, tmp_path):
        moved = market.bars.set_axis(market.bars.index + pd.Timedelta("15min"))
        write_news(market.events, tmp_path / "news.csv")
        file = write(tmp_path / "moved.csv", lines(moved))
        code, out, _ = run("data", "check", file, "--news", "news.csv", "--trust-clock")
        assert code == 4
        assert "moved.csv: at " in out
        assert "the stamps are 15 minutes late; export the bars again" in out

    def test_an_empty_reason_is_not_a_reason(self, run):
        code, _, err = run("retrain", "--accept-leak", " ")
        assert code == 2
        assert "--accept-leak needs a reason" in err
        assert "it stays in the manifest" in err

    def test_risk_alone_reads_no_bars_and_takes_no_reason(self, run):
        code, _, err = run("retrain", "--risk", "--accept-leak", "ours")
        assert code == 2
        assert "Without effect beside it: --accept-leak" in err

    def test_list_and_show_name_the_alarms(self, run, small_run):
        store = small_run.choice.models_dir
        (line,) = json.loads(run("models", "list", "--models-dir", store, "--json")[1])["revisions"]
        assert line["leaks"].endswith("alarms, planted")
        assert "synthetic: a planted edge: column volume knows the future" in run("models", "show", "--models-dir", store)[1]
