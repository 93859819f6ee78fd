"""What trades came to: against the generator's exact truth, and with each mistake of the original made on purpose."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.data.record_columns import record_columns
from trademl.data.record_maker import make_records
from trademl.data.records import read_records
from trademl.errors import BadDataError, UsageError
from trademl.trades.features import trade_matrix
from trademl.trades.labels import ExcursionUnit, compare_labels, judge_unit, label_trades
from trademl.trades.profile import profile_trades, unit_smells
from trademl.trades.registry import registry

pytestmark = pytest.mark.trades
FORMS = [("live", "usd"), ("live", "pct"), ("older", "pct"), ("older", "usd"), ("mixed", "pct")]


def columns_of(made) -> dict[str, np.ndarray]:
    return record_columns(list(made.records())).values


@pytest.mark.parametrize(("generation", "unit"), FORMS)
def test_the_unit_is_found_and_labels_are_the_truth(generation, unit):
    made = make_records(500, 0.7, seed=4, unit=unit, generation=generation)
    columns, traded, ended = columns_of(made), made.is_traded, made.outcomes
    verdict = judge_unit(columns)
    assert (verdict.unit, verdict.losing_trades) == (unit, int((traded & ~ended.is_win).sum()))
    labels = label_trades(columns, verdict.require())
    assert np.array_equal(labels.is_trade, traded)
    assert np.array_equal(labels.profitable[traded] == 1, ended.is_win[traded])
    assert np.array_equal(labels.tp_level[traded], ended.level[traded])
    assert np.allclose(labels.r_multiple[traded], (ended.r - 0.05 / made.truth.stop_pct)[traded], atol=1e-6)
    assert np.allclose(labels.adverse_pct[traded], ended.adverse_pct[traded], atol=1e-6)
    assert np.allclose(labels.winner_adverse_pct[traded & ended.is_win], ended.adverse_pct[traded & ended.is_win], atol=1e-6)
    assert np.array_equal(labels.was_stopped[traded], (~ended.is_win & ~ended.is_early)[traded])
    for name in ("profitable", "r_multiple", "tp_level", "adverse_pct", "winner_adverse_pct"):
        assert np.isnan(getattr(labels, name)[~traded]).all()  # what was avoided has no outcome
    assert np.isnan(labels.winner_adverse_pct[~ended.is_win]).all()  # a stop hides how far a loser would have gone


def test_mixed_units_are_refused_and_a_flag_overrules():
    """Part 7, defect 8: dollars were compared with percent."""
    pct, usd = (columns_of(make_records(300, 0.5, seed=1, unit=unit)) for unit in ("pct", "usd"))
    mixed = {name: np.concatenate([pct[name], usd[name]]) for name in pct}
    verdict = judge_unit(mixed)
    assert verdict.unit is None
    assert 0.4 < verdict.usd_share < 0.6
    assert 0.4 < verdict.pct_share < 0.6
    assert judge_unit(usd).pct_share < 0.05  # dollars do not pass for percent
    with pytest.raises(BadDataError, match=r"fit dollars and \d+% percent \(95% must\); split the log where its unit changes"):
        judge_unit(mixed).require()
    shallow = usd | {"outcome_maxAdverseExcursion": usd["outcome_maxAdverseExcursion"] / 1_000}
    with pytest.raises(BadDataError, match=r"0% fit dollars and 0% percent \(95% must\); give --excursion-unit usd or pct"):
        judge_unit(shallow).require()
    assert judge_unit(shallow, "usd").require() == ExcursionUnit.USD
    with pytest.raises(UsageError, match="--excursion-unit = 'points' is not one of auto, usd, pct"):
        judge_unit(usd, "points")


def test_without_losing_trades_the_unit_cannot_be_told():
    columns = columns_of(make_records(60, 0.5, seed=1))
    won = columns | {"outcome_realizedPnl": np.abs(columns["outcome_realizedPnl"])}
    assert judge_unit(won).unit is None
    assert "no losing trade" in judge_unit(won).sentence
    labels = label_trades(won, None)
    assert np.isnan(labels.tp_level).all()
    assert np.isnan(labels.winner_adverse_pct).all()
    assert not np.isnan(labels.r_multiple[labels.is_trade]).any()  # needs no excursion
    with pytest.raises(UsageError, match="auto is not a unit"):
        label_trades(won, ExcursionUnit.AUTO)


ONE = record_columns(list(make_records(1, 0.5, seed=3).records())).values


@given(st.floats(0.1, 5), st.floats(1_000, 1e5), st.floats(1, 20), st.floats(-3, 3))
def test_r_is_what_was_made_of_what_was_at_risk(stop, notional, leverage, r):
    """Part 7, defect 9: the leverage must not matter, the notional holds it already."""
    changes = {"exec_stopLossDistancePct": stop, "exec_positionSizeUsd": notional, "exec_leverage": leverage}
    changes["outcome_realizedPnl"] = r * stop / 100 * notional
    labels = label_trades(ONE | {name: np.array([value]) for name, value in changes.items()}, ExcursionUnit.USD)
    assert labels.r_multiple[0] == pytest.approx(r, abs=1e-9)


@pytest.mark.parametrize(
    ("favorable", "targets", "level"),
    [
        (1.34, (1.5, 3.0, 5.0), 0),
        (1.351, (1.5, 3.0, 5.0), 1),
        (2.701, (1.5, 3.0, 5.0), 2),
        (9.0, (1.5, 3.0, 5.0), 3),
        (9.0, (1.5, 3.0, np.nan), 2),
        (9.0, (np.nan, np.nan, np.nan), np.nan),
        (np.nan, (1.5, 3.0, 5.0), np.nan),
    ],
)
def test_nine_tenths_of_a_target_reach_it(favorable, targets, level):
    columns = columns_of(make_records(1, 0.5, seed=3, unit="pct")) | {"outcome_maxFavorableExcursion": np.array([favorable])}
    columns |= {f"exec_takeProfitDistancePct_{k + 1}": np.array([target]) for k, target in enumerate(targets)}
    assert np.array_equal(label_trades(columns, ExcursionUnit.PCT).tp_level, [level], equal_nan=True)


def test_the_files_own_labels_are_compared_not_used():
    columns = columns_of(make_records(300, 0.5, seed=1))
    labels = label_trades(columns, ExcursionUnit.USD)
    lied = columns | {"label_profitable": 1 - columns["label_profitable"], "label_rMultiple": columns["outcome_realizedPnl"] / 100}
    again = label_trades(lied, ExcursionUnit.USD)
    assert np.array_equal(labels.profitable, again.profitable, equal_nan=True)
    profitable, r, level = compare_labels(lied, again)
    assert profitable.differing == profitable.compared == labels.is_trade.sum()
    assert r.reason == "the file divides the PnL by 100, whatever was at risk"
    assert level.reason == "the file compares dollars with percent"
    right = columns | {"label_rMultiple": labels.r_multiple, "label_optimalTpLevel": labels.tp_level}
    assert [label.differing for label in compare_labels(right, labels)] == [0, 0, 0]


def test_columns_by_state_and_units():
    columns = columns_of(make_records(400, 0.5, seed=1))
    columns["market_atrPct"] = columns["market_atrPct"] / 100
    profile = profile_trades(columns)
    dead, constant, sparse = ({c.path for c in profile.columns_that_are(state)} for state in ("dead", "constant", "sparse"))
    assert {"regime.sentiment", "news.etfFlowBtc", "wtt.primary"} <= dead
    assert {"market.priceChange1h", "signal.conflictingCount", "regime.oiCapRisk", "signal.strategyName"} <= constant
    assert {"market.bookImbalance", "market.bidAskSpread"} <= sparse
    assert not {"market.price", "session.utcHour", "execution.streakMultiplier"} & (dead | constant | sparse)
    assert [smell.split()[0] for smell in profile.smells] == ["market_atrPct"]
    assert unit_smells({"market_atrPct": columns["market_atrPct"][:19]}) == ()  # too few to tell
    assert (profile.records, profile.trades + profile.avoided) == (400, 400)
    assert next(iter(profile.assets)) == "BTC"


STRANGE = (None, True, -1, 1e308, 2.0**70, "x", "", 0, [], {}, [[{}]], {"a": {"b": 1}})


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(12))
def test_a_log_with_strange_values_is_profiled_without_a_warning(tmp_path, seed):
    """Whatever stands in a field: the record is left out, or what is made of it is a number or missing."""
    rng = np.random.default_rng(seed)
    rows = list(make_records(60, 0.5, seed=1).records())
    for row in rows[:30]:
        name = rng.choice(list(row))
        if isinstance(row[name], dict) and row[name]:
            row[name][rng.choice(list(row[name]))] = STRANGE[rng.integers(len(STRANGE))]
        else:
            row[name] = STRANGE[rng.integers(len(STRANGE))]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = read_records(path)
    assert report.source.bad > 0
    assert report.source.kept + report.source.bad == 60
    profile_trades(report.records)
    assert not np.isinf(trade_matrix(list(registry().values()), report.records)).any()


def test_what_a_model_cannot_be_trained_on():
    columns = columns_of(make_records(600, 0.5, seed=1))
    won = columns["outcome_realizedPnl"] > 0
    winners = {name: values[won] for name, values in columns.items()}
    said = {rows.model: rows.obstacle for rows in profile_trades(winners, "usd").models}
    assert said["signal_quality"] == "one class only: nothing to learn"
    assert said["position_sizing"] == said["tp_optimizer"] == said["sl_optimizer"] == ""
    few = {name: values[np.flatnonzero(won)[:89]] for name, values in columns.items()}
    assert {rows.obstacle for rows in profile_trades(few, "usd").models} == {"too few: 90 are needed"}
