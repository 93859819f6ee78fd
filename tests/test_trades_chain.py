"""Position sizing that asks signal quality first: one graph that agrees, one vector that a bot can fill, a recipe of its own."""

import json

import numpy as np
import onnxruntime
import pytest
from small_trades import train

from trademl.bot import TradeAdvisor
from trademl.errors import UsageError
from trademl.learn.readers import from_xgboost
from trademl.pipeline import trades as pipeline
from trademl.pipeline.trades.looks import recipe_parts
from trademl.pipeline.trades.proof import LEAST_ROWS
from trademl.ship.export import chained_graph
from trademl.trades.features import serving_row
from trademl.trades.registry import TradeModel, features_of
from trademl.trades.walkforward import CHANCE, Recipe, chances_before, said_by

pytestmark = [pytest.mark.trades, pytest.mark.slow]
SIZING, QUALITY = TradeModel.POSITION_SIZING, TradeModel.SIGNAL_QUALITY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small chained training."""
    return train(tmp_path_factory.mktemp("chained"), records=420, chain_quality=True)


def test_one_graph_asks_quality_and_then_sizes(run):
    path = run.folder / "out" / "position_sizing.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = json.loads((run.folder / "out" / "position_sizing_features.json").read_text())
    assert session.get_inputs()[0].shape == ["N", told["n_features"]]
    assert {*told["features"]} >= {feature.name for feature in features_of(QUALITY, run.case.rows.assets)}
    found = run.proven.parity[SIZING]
    assert found["rows"] >= LEAST_ROWS
    assert found["max_abs"] <= 1e-5
    splits = run.shipped[SIZING].booster.get_score()
    assert f"f{told['n_features']}" in splits  # the chance is split on
    quality_only = set(told["features"][len(features_of(SIZING, run.case.rows.assets)) :])
    assert not quality_only & {[*told["features"], CHANCE][int(name[1:])] for name in splits}


def test_what_the_bot_sends_is_the_training_row_and_its_answer_the_replays(run):
    rows = run.case.rows
    advisor = TradeAdvisor.load(run.store, None, mode="shadow")
    at = {name: place for place, name in enumerate(rows.columns["id"])}
    checked = 0
    for place, record in enumerate(run.lines[-60:], len(run.lines) - 60):
        if record["id"] in at:
            row = at[record["id"]]
            sent = serving_row(advisor.features[SIZING], record, run.lines[:place])
            assert np.array_equal(sent[0], rows.inputs(SIZING)[row], equal_nan=True)
            said = said_by(run.shipped[SIZING], rows, np.array([row]))[0, 0]
            assert advisor.advise(record, run.lines[:place]).expected_r == pytest.approx(said, abs=1e-5)
            checked += 1
    assert checked > 20


def test_no_trade_teaches_the_chance_that_it_is_given(run):
    rows, at = run.case.rows, np.arange(150)
    before = chances_before(rows, at, Recipe())
    original = rows.labels.profitable.copy()
    rows.labels.profitable[100:] = 1 - rows.labels.profitable[100:]
    try:
        after = chances_before(rows, at, Recipe())
    finally:
        rows.labels.profitable[:] = original
    assert np.array_equal(before[:100], after[:100], equal_nan=True)
    assert np.isnan(before[150:]).all()


def test_it_is_another_recipe_and_the_report_names_the_chance(run, small_trades):
    assert recipe_parts(run.case)["is_chained"] is True
    assert "is_chained" not in recipe_parts(small_trades.case)
    report = json.loads((run.folder / "out" / "improvement_report.json").read_text())["feature_importances"]
    assert report[SIZING]["feature_names"][-1] == CHANCE
    assert CHANCE not in report[QUALITY]["feature_names"]


def test_what_cannot_be_chained_is_refused(run):
    with pytest.raises(UsageError, match="give one of them"):
        pipeline.TradeFlags("log.jsonl", chain_quality=True, select_features=True)
    sizing, quality = from_xgboost(run.shipped[SIZING].booster), from_xgboost(run.shipped[QUALITY].booster)
    with pytest.raises(UsageError, match="cannot be chained"):
        chained_graph(sizing, range(sizing.n_features), quality, metadata={})
    with pytest.raises(UsageError, match="cannot be chained"):
        chained_graph(quality, range(3), sizing, metadata={})
