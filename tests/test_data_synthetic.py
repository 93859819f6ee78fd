"""The embedded market: reproducible, shaped like a market, and exactly as predictable as its edge says."""

import hashlib
import io

import numpy as np
import pandas as pd
import pytest

from trademl.data.synthetic import HORIZON_BARS, SyntheticMarket, first_passage, synthetic_events, synthetic_market
from trademl.errors import UsageError

N = 20_000


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(N, edge=0.5)


def volume_surge(bars):
    volume = bars["volume"].to_numpy()
    surge = np.full(len(volume), np.nan)
    surge[96:] = volume[96:] / np.lib.stride_tricks.sliding_window_view(volume, 96)[:-1].mean(1)
    return surge


def read_code(surge):
    return np.where(surge < 0.7, 0, np.where(surge > 1.3, 1, 2))


def test_frames_are_canonical(market):
    bars, events = market.bars, market.events
    assert list(bars.columns) == ["open", "high", "low", "close", "volume"]
    assert set(map(str, bars.dtypes)) == {"float64"}
    assert bars.index.name == "time"
    assert str(bars.index.dtype) == "datetime64[ns, UTC]"
    assert (np.diff(bars.index.asi8) == 900 * 10**9).all()
    assert list(events.columns) == ["time", "currency", "impact", "event", "time_kind"]
    assert str(events["time"].dtype) == "datetime64[ns, UTC]"
    assert events["time"].is_monotonic_increasing
    assert set(events["time_kind"]) == {"scheduled", "all_day", "tentative"}
    assert {"high", "medium", "low", "holiday"} <= set(events["impact"])
    assert market.truth.dtype == np.int8
    assert market.truth.shape == (N,)


def test_bars_hold_together(market):
    bars = market.bars
    body = bars[["open", "close"]]
    assert (bars["high"] >= body.max(axis=1)).all()
    assert (bars["low"] <= body.min(axis=1)).all()
    assert (bars > 0).all().all()
    assert (bars["open"].to_numpy()[1:] == bars["close"].to_numpy()[:-1]).all()


def test_calendar_covers_the_bars_and_keeps_new_york_time(market):
    day = pd.Timedelta(days=1)
    assert market.events["time"].iloc[0] <= market.bars.index[0] - day
    assert market.events["time"].iloc[-1] >= market.bars.index[-1] + 28 * day
    year = synthetic_events(pd.Timestamp("2025-01-01", tz="UTC"), pd.Timestamp("2026-01-01", tz="UTC"), np.random.default_rng(1))
    payrolls = year.loc[year["event"] == "Non-Farm Employment Change", "time"]
    assert set(payrolls.dt.tz_convert("America/New_York").dt.strftime("%H:%M %a")) == {"08:30 Fri"}
    assert set(payrolls.dt.strftime("%H:%M")) == {"12:30", "13:30"}  # daylight saving moves the UTC hour
    assert set(payrolls.dt.day) <= set(range(1, 8))
    assert ((year["time"] >= "2025-01-01") & (year["time"] < "2026-01-01")).all()


def test_same_arguments_same_bits_and_edge_moves_volume_only(market):
    again = synthetic_market(N, edge=0.5)
    pd.testing.assert_frame_equal(market.bars, again.bars, check_exact=True)
    pd.testing.assert_frame_equal(market.events, again.events)
    other = synthetic_market(N, edge=0.0)
    prices = ["open", "high", "low", "close"]
    assert other.bars[prices].equals(market.bars[prices])
    assert not other.bars["volume"].equals(market.bars["volume"])
    assert not synthetic_market(500, seed=8).bars.equals(synthetic_market(500).bars)


def test_csv_round_trip_is_exact(market):
    text = market.bars.to_csv()
    back = pd.read_csv(io.StringIO(text), index_col="time", parse_dates=["time"])
    assert (back.to_numpy() == market.bars.to_numpy()).all()


def test_looks_like_a_market(market):
    returns = np.diff(np.log(market.bars["close"]))
    kurtosis = ((returns - returns.mean()) ** 4).mean() / returns.var() ** 2
    assert kurtosis > 5
    size = np.abs(returns) - np.abs(returns).mean()
    assert min((size[k:] * size[:-k]).mean() for k in range(1, 51)) > 0
    hours = pd.Series(np.abs(returns)).groupby(market.bars.index[1:].hour).mean()
    assert hours.max() > 1.3 * hours.min()
    spans = (market.bars["high"] - market.bars["low"]).rank().corr(market.bars["volume"].rank())
    assert spans > 0.15
    releases = market.bars.index.isin(market.events.loc[market.events["event"] == "Unemployment Claims", "time"])
    relative = np.abs(returns) / pd.Series(np.abs(returns)).rolling(96, center=True, min_periods=1).mean().to_numpy()
    assert relative[releases[1:]].mean() > 1.3  # a burst at the release


def test_outcomes_are_those_of_a_driftless_path():
    truth = np.concatenate([synthetic_market(N, seed=seed).truth for seed in range(5)])
    truth = truth[truth >= 0]
    shares = np.bincount(truth, minlength=3) / len(truth)
    noise = 3 * np.sqrt(0.35 * 0.65 / (len(truth) / 6))  # neighbours overlap: about six bars carry one outcome
    assert abs(shares[0] - 0.348) < noise
    assert abs(shares[1] - 0.348) < noise


@pytest.mark.parametrize("edge", [0.0, 0.25, 0.5, 1.0])
def test_accuracy_rises_linearly_with_the_edge(edge):
    market = synthetic_market(N, edge=edge, seed=3)
    surge = volume_surge(market.bars)
    judged = (market.truth >= 0) & np.isfinite(surge)
    prior = np.max(np.bincount(market.truth[judged])) / judged.sum()
    accuracy = (read_code(surge) == market.truth)[judged].mean()
    assert abs(accuracy - (prior + edge * (1 - prior))) < 0.025
    if edge == 1.0:
        assert accuracy > 0.99


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_the_news_override_never_fires(edge):
    assert max(np.nanmax(volume_surge(synthetic_market(40_000, edge=edge, seed=seed).bars)) for seed in range(3)) < 3.0


def test_at_edge_zero_the_code_is_independent_of_the_outcome():
    market = synthetic_market(60_000, edge=0.0)
    surge = volume_surge(market.bars)
    judged = (market.truth >= 0) & np.isfinite(surge)
    table = np.zeros((3, 3))
    np.add.at(table, (read_code(surge)[judged], market.truth[judged]), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 18.5  # chi-square, 4 degrees of freedom, 0.1 %


def test_first_passage_agrees_with_a_walk_bar_by_bar(market):
    path = {name: market.bars[name].to_numpy()[:1_500] for name in ("open", "high", "low", "close")}
    outcome = first_passage(path)
    o, h, low, c = path.values()
    for t in range(len(o)):
        if t < 14 or t + HORIZON_BARS >= len(o):
            assert outcome[t] == -1
            continue
        atr = np.mean([max(h[i] - low[i], abs(h[i] - c[i - 1]), abs(low[i] - c[i - 1])) for i in range(t - 13, t + 1)])
        wins = []
        for side in (1, -1):
            won = False
            for j in range(t + 1, t + 1 + HORIZON_BARS):
                best, worst = (h[j], low[j]) if side > 0 else (low[j], h[j])
                if side * (worst - o[t + 1]) <= -0.8 * atr:
                    break
                if side * (best - o[t + 1]) >= 1.5 * atr:
                    won = True
                    break
            wins.append(won)
        assert outcome[t] == (1 if wins[0] else 0 if wins[1] else 2)


def test_truth_is_what_the_labels_say(market):
    labeling = pytest.importorskip("trademl.market.labeling")
    labels = labeling.label_bars(market.bars)
    both = (labels.label >= 0) & (market.truth >= 0)
    assert both.sum() >= N - 14 - HORIZON_BARS
    assert (labels.label[both] == market.truth[both]).all()
    assert (market.truth[-HORIZON_BARS:] >= 0).all()  # the path ran on past the last bar


@pytest.mark.parametrize("n_bars", [1, 14, 15, 97])
def test_short_markets(n_bars):
    market = synthetic_market(n_bars)
    assert len(market.bars) == len(market.truth) == n_bars
    assert np.isfinite(market.bars.to_numpy()).all()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"edge": -0.1}, "edge"),
        ({"edge": float("nan")}, "edge"),
        ({"n_bars": 0}, "n_bars"),
        ({"n_bars": 10.5}, "n_bars"),
        ({"start": "2024-01-01T00:07"}, "start"),
    ],
)
def test_refusals(arguments, word):
    with pytest.raises(UsageError, match=word):
        synthetic_market(**({"n_bars": 100} | arguments))


@pytest.mark.leakage
@pytest.mark.parametrize("seed", [7, 11])
def test_null_canary_no_model_beats_the_prior(seed):
    lightgbm = pytest.importorskip("lightgbm")
    from trademl.data.news import high_impact_usd
    from trademl.market.features import feature_matrix

    market = synthetic_market(50_000, edge=0.0, seed=seed)
    timed, all_day = high_impact_usd(market.events)
    columns = [market.bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
    x = feature_matrix(market.bars.index, *columns, timed, all_day_times=all_day)
    usable, cut = np.isfinite(x).all(1) & (market.truth >= 0), 35_000
    train, judged = np.flatnonzero(usable[: cut - 2 * HORIZON_BARS]), cut + np.flatnonzero(usable[cut:])
    prior = np.bincount(market.truth[train], minlength=3) / len(train)
    options = {"objective": "multiclass", "num_class": 3, "num_leaves": 7, "min_data_in_leaf": 500, "learning_rate": 0.03}
    model = lightgbm.train(options | {"verbose": -1, "num_threads": 1, "seed": 0}, lightgbm.Dataset(x[train], market.truth[train]), 40)
    given = model.predict(x[judged])[np.arange(len(judged)), market.truth[judged]]
    gain = np.log(given) - np.log(prior[market.truth[judged]])
    days = np.array([part.mean() for part in np.array_split(gain, len(gain) // 96)])
    assert days.mean() < 2.5 * days.std(ddof=1) / np.sqrt(len(days))


@pytest.mark.contract
def test_the_embedded_market_stays_what_it_is():
    """Published figures of the default market rest on these bars: a change here is a change of the product's example."""
    digest = hashlib.sha256(synthetic_market(2_000).bars.to_numpy().tobytes()).hexdigest()
    assert digest[:16] == "de32af02d041c0d8"
