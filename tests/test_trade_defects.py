"""What went wrong in the original (records-spec 7) and must not here, where no other test says so; docs/trade-defects.md has all 19."""

import inspect
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import xgboost as xgb

from trademl.cli import trades as cli
from trademl.data.record_columns import record_columns
from trademl.data.record_maker import make_records, write_records
from trademl.evidence.treeshap import mean_interactions, tree_base, tree_shap
from trademl.learn.readers import from_xgboost
from trademl.pipeline import trades as pipeline
from trademl.pipeline.trades.improvement import shap_record
from trademl.trades.advice import AdviceRule, Topic, TradeFacts, advise
from trademl.trades.due import LastTraining, decide_due
from trademl.trades.profile import MIN_SAMPLES
from trademl.trades.registry import TradeModel
from trademl.trades.rows import trade_rows
from trademl.trades.walkforward import OutOfFold, Recipe, fit_on, folds_of, thirds_of
from trademl.trades.worth import find_claims, quality_choice

pytestmark = pytest.mark.trades
QUALITY, SIZING, TP, SL = TradeModel


@pytest.fixture(scope="module")
def log():
    """900 records without an edge."""
    made = make_records(900, 0.0, seed=8)
    return trade_rows(record_columns(list(made.records())).values, made.unit)


def said(rows, score):
    """A quality model that says `score` (one value a judged trade), and a sizing model that says what no model would."""
    fold = folds_of(rows, 5)
    at = np.concatenate([one.test_rows for one in fold])
    number = np.concatenate([np.full(len(one.test_rows), k) for k, one in enumerate(fold)])
    answers = {QUALITY: score(at), SIZING: np.full(len(at), 0.1)}
    return {
        model: OutOfFold(model, at, number, answer[:, None].astype(float), np.full((len(at), 1), 0.5), np.full(len(at), 0.1), ())
        for model, answer in answers.items()
    }


# --- 3: a crash that counted as success -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [False, True])
def test_defect_03_a_fit_that_crashes_fails_the_run(small_trades, monkeypatch, parallel):
    """All four fits crashed, no model was there, and the exit code was 0."""
    flags = replace(small_trades.case.inputs.flags, parallel=parallel)
    case = replace(small_trades.case, inputs=replace(small_trades.case.inputs, flags=flags))

    def crash(*_, **__):
        raise TypeError("got an unexpected keyword argument 'fit_params'")

    monkeypatch.setattr("trademl.trades.walkforward.fit_model", crash)
    for step in (lambda: pipeline.judge_trades(case), lambda: pipeline.ship_trades(case, small_trades.judged)):
        with pytest.raises(TypeError, match="fit_params"):
            step()


# --- 4: SHAP ----------------------------------------------------------------------------------------------------------------


def test_defect_04_shap_of_four_levels_adds_up_and_its_pairs_are_interactions(small_trades):
    """It failed on the four levels, was NaN for columns that never change, and called correlations interactions."""
    rows, parts, paired = small_trades.case.rows, small_trades.parts, []
    for model in TradeModel:
        names, table, x = [f.name for f in rows.features(model)], parts.proven.tables[model], rows.inputs(model)
        values = tree_shap(table, x)
        assert values.shape == (len(rows), 4 if model is TP else 1, len(names))
        assert np.isfinite(values).all()
        constant = [place for place in range(len(names)) if len(np.unique(x[:, place][~np.isnan(x[:, place])])) < 2]
        assert constant
        assert not values[:, :, constant].any()
        found = shap_record(parts, model, names)
        assert found["rows"] == len(rows)
        assert list(found["shap_importance"].values()) == sorted(found["shap_importance"].values(), reverse=True)
        pairs = mean_interactions(table, x[-200:]).sum(0)
        np.fill_diagonal(pairs, 0)
        one, other = np.unravel_index(np.abs(pairs).argmax(), pairs.shape)
        assert not pairs.any() or set(found["top_interactions"][0].split(" × ")) == {names[one], names[other]}
        paired.append(pairs.any())
    assert any(paired)
    booster, x = small_trades.shipped[TP].booster, rows.inputs(TP)
    table, native = from_xgboost(booster), booster.predict(xgb.DMatrix(x), output_margin=True)
    assert np.allclose(tree_shap(table, x).sum(2) + tree_base(table), native, atol=1e-4)


# --- 7: what an answer means ------------------------------------------------------------------------------------------------


def test_defect_07_an_answer_is_used_as_what_it_is():
    """The class label was taken for a chance, R for a multiple of size, a level and an excursion for multiples of the ATR."""
    rule = AdviceRule(threshold=0.5, size_scale=0.4, is_target_advised=True, is_stop_advised=True)
    answers = {QUALITY: [0.61], SIZING: [0.6], TP: [0.1, 0.2, 0.3, 0.4], SL: [1.7]}
    facts = TradeFacts("BTC", atr_pct=3.0, targets_pct=(1.5, 3.0, 5.0), stop_pct=3.5)
    found = advise(rule, answers, facts, ["BTC"])
    assert (found.quality, found.accept) == (0.61, True)
    assert found.size_multiplier == pytest.approx(0.6 / 0.4)  # not 0.6
    assert found.tp_level == 2  # 0.7 x 3 % is more than 0.4 x 5 %; the most likely class is 3
    assert found.stop_pct == 1.7  # percent of the entry, not 1.7 ATR
    near = advise(rule, answers | {TP: [0.5, 0.45, 0.03, 0.02]}, facts, ["BTC"])
    assert near.tp_level == 1  # the most likely class is 0: none
    wide = advise(rule, answers | {SIZING: [9.0], SL: [0.2]}, facts, ["BTC"])
    assert (wide.size_multiplier, wide.stop_pct) == (2.0, 1.5)  # half an ATR at least


# --- 11 to 13: what may be chosen where -------------------------------------------------------------------------------------


def test_defect_11_the_threshold_is_chosen_on_calibrated_scores_of_its_own_window(log):
    """It was chosen on the training data, of raw scores, and compared with calibrated ones."""
    rng = np.random.default_rng(1)
    won = log.labels.profitable
    judged = said(log, lambda at: 0.45 + 0.1 * won[at] + rng.normal(0, 0.05, len(at)))  # raw scores of 0.45 and 0.55
    thirds = thirds_of(log, judged[QUALITY].at)
    platt, threshold = quality_choice(log, judged[QUALITY], thirds)
    chosen = judged[QUALITY].at[thirds.choose]
    quality = platt.apply(judged[QUALITY].answer[thirds.choose, 0])
    assert np.ptp(quality) > 0.5  # calibration spreads them
    earned = {limit: log.labels.r_multiple[chosen][quality >= limit].sum() for limit in np.linspace(0.3, 0.8, 51)}
    assert earned[threshold] == pytest.approx(max(earned.values()))
    served = advise(AdviceRule((platt.scale, platt.intercept), threshold), {m: [0.5] * 4 for m in TradeModel}, TradeFacts("BTC"), ["BTC"])
    assert served.quality == pytest.approx(float(platt.apply(0.5)))
    assert served.accept == (served.quality >= threshold)
    turned = log.labels.profitable.copy()
    last = judged[QUALITY].at[thirds.report]
    turned[last] = 1 - turned[last]
    other = replace(log, labels=replace(log.labels, profitable=turned, r_multiple=np.where(turned == won, 1, -1) * log.labels.r_multiple))
    again = quality_choice(other, judged[QUALITY], thirds)
    assert again == (platt, threshold)  # the window that judges has no say


def test_defect_12_scores_that_rank_the_wrong_way_are_not_calibrated(log):
    """A negative slope turned the ranking round, and was served."""
    won = log.labels.profitable
    judged = said(log, lambda at: 0.5 - 0.1 * won[at] + np.random.default_rng(2).normal(0, 0.1, len(at)))
    found = find_claims(log, judged, level=0.01, seed=1)
    assert found.platt.scale < 0
    assert not found.is_given(Topic.CALIBRATION)
    assert not found.is_given(Topic.THRESHOLD)
    assert found.rule(0.4).calibration is None


def test_defect_13_what_chose_is_not_what_proves(log):
    """The proof was taken on the trades that had chosen the thresholds: noise passed in 6 of 9 sets."""
    won = log.labels.profitable

    def score(at):  # knows every outcome but those of the last third
        known = np.arange(len(at)) < 2 * len(at) // 3
        return np.where(known, 0.4 + 0.2 * won[at], np.random.default_rng(3).uniform(0.3, 0.7, len(at)))

    found = find_claims(log, said(log, score), level=0.01, seed=1)
    assert found.is_given(Topic.CALIBRATION)
    assert not found.is_given(Topic.THRESHOLD)
    assert found.claims[Topic.THRESHOLD].gain.n <= len(found.thirds.report)


# --- 15: what a fit knows of later trades ------------------------------------------------------------------------------------


def test_defect_15_no_limit_is_learned_from_later_trades(log):
    """Caps came from the full set, the judged trades included."""
    at = np.arange(200)
    x = log.x.copy()
    x[200:] *= 1_000
    wild = replace(log, x=x)
    for model in (QUALITY, SL):
        one, other = (fit_on(rows, model, at, Recipe()) for rows in (log, wild))
        assert one.booster.save_raw("ubj") == other.booster.save_raw("ubj")


# --- 16, 17: which trades count ----------------------------------------------------------------------------------------------


def test_defect_16_a_restart_loses_nothing_and_nothing_counts_twice(tmp_path):
    """Open trades were kept in memory only, and combined.jsonl counted each trade again."""
    write_records(make_records(150, 0.5, seed=4), tmp_path / "all.jsonl")
    lines = (tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
    whole = pipeline.load_trades(pipeline.TradeFlags(str(tmp_path / "all.jsonl")))
    bot = tmp_path / "bot"
    bot.mkdir()
    records = [json.loads(line) for line in lines]
    opened = [json.dumps({k: v for k, v in record.items() if k not in ("outcome", "labels")}) + "\n" for record in records]
    opened = [line if "avoided" in record else half for line, record, half in zip(lines, records, opened, strict=True)]
    (bot / "features_2025-01-01_1.jsonl").write_text("".join(opened))  # written at the decision; then the bot died
    (bot / "features_2025-01-02_2.jsonl").write_text("".join(lines[:90]))  # written again at the close
    (bot / "combined.jsonl").write_text("".join(lines))
    found = pipeline.load_trades(pipeline.TradeFlags(str(bot)))
    assert (found.records, found.trades) == (whole.records, whole.trades)
    assert found.report.source.repeats == 150 + 90
    assert np.array_equal(found.rows().x, whole.rows().x, equal_nan=True)


def test_defect_17_what_the_bench_limit_leaves_is_counted(tmp_path):
    """The filter ran after the lags, and the count was not taken again."""
    write_records(make_records(300, 0.5, seed=4), tmp_path / "log.jsonl")
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    for at, record in enumerate(record for record in records if "labels" in record):
        record["labels"]["benchScore"] = at % 10
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    every, best = (pipeline.load_trades(pipeline.TradeFlags(str(tmp_path / "log.jsonl"), min_bench_score=low)) for low in (None, 8))
    assert every.is_enough
    assert best.teaching < MIN_SAMPLES < every.teaching
    assert not best.is_enough


# --- 18: one number in one place ---------------------------------------------------------------------------------------------


def test_defect_18_the_least_number_of_trades_is_said_alike_everywhere(repo):
    """90 in the code, 100 in the text."""
    for command in (cli.train, cli.due):
        assert inspect.signature(command).parameters["min_samples"].default == MIN_SAMPLES
    assert pipeline.TradeFlags("x").min_samples == MIN_SAMPLES
    closed, won = 86_400 * np.arange(MIN_SAMPLES), np.ones(MIN_SAMPLES, bool)
    now = int(closed[-1]) + 1
    assert decide_due(closed, won, LastTraining(), now).is_due
    assert not decide_due(closed[1:], won[1:], LastTraining(), now).is_due
    pages = [repo / "README.md", *(repo / "docs").glob("*.md")]
    said = {int(number) for page in pages for number in re.findall(r"--min-samples`?[ =(]+(\d+)", page.read_text("utf-8"))}
    assert said == {MIN_SAMPLES}


# --- the table ----------------------------------------------------------------------------------------------------------------


def test_every_defect_names_its_tests_and_they_name_it(repo):
    """docs/trade-defects.md against the tests: each row's tests exist and say which defect they would catch."""
    text = (repo / "docs" / "trade-defects.md").read_text("utf-8")
    rows = {
        int(number): re.findall(r"`(tests/\w+\.py)::(\w+)`", rest) for number, rest in re.findall(r"^\| (\d+) \|(.*)$", text, re.MULTILINE)
    }
    assert sorted(rows) == list(range(1, 20))
    for number, named in rows.items():
        assert named, number
        for file, test in named:
            found = re.search(rf"^def {test}\(.*?\):\n(    \"\"\".*?\"\"\")?", (repo / file).read_text("utf-8"), re.MULTILINE | re.DOTALL)
            assert found, f"{file}::{test}"
            numbers = [int(n) for n in re.findall(r"\d+", "".join(re.findall(r"defects?([\d, and]+|_\d+|[\d ]+to[\d ]+)", found.group(0))))]
            spans = [range(int(a), int(b) + 1) for a, b in re.findall(r"defects (\d+) to (\d+)", found.group(0))]
            assert number in numbers or any(number in span for span in spans), f"{file}::{test} does not name defect {number}"
