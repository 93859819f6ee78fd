"""Columns that know the future are alarmed, honest ones are not, on generated and on real markets."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, spearmanr

from trademl.data.bars import read_bars
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError
from trademl.market.features import compute_features
from trademl.validate.leaks import (
    LEAST_BARS,
    LEAST_LEAD_BARS,
    ColumnLeak,
    LeakReport,
    VolumeLead,
    cramers_v,
    inspect_leaks,
    next_moves,
    quantile_bins,
    raw_columns,
    volume_lead,
)

pytestmark = pytest.mark.leakage

REAL = {
    "market/btcusd_m15_2024-04_2026-04.csv.gz": {},
    "import/mt5_btcusd_m15_utc.csv.gz": {"tz": "UTC", "point": 0.01},
    "import/mt4_eurusd_m15_eet_junk_tail.csv.gz": {"tz": "broker-eu"},
    "import/binance_btcusdt_m15_close_stamped_plus01.csv.gz": {},
}


@pytest.fixture(scope="module")
def bars():
    """Bars whose volume goes with their range, as in real markets."""
    made = synthetic_market(n_bars=12_000, edge=0.0, seed=3).bars
    noise = np.random.default_rng(4).uniform(0.5, 2, len(made))
    return made.assign(volume=1e6 * (made["high"] / made["low"] - 1) * noise)


def ahead(bars: pd.DataFrame, column: str, by: int) -> pd.DataFrame:
    """The bars with one column that holds the value of a later bar."""
    return bars.assign(**{column: bars[column].shift(-by).ffill()})


def knowing(bars: pd.DataFrame, by: int) -> pd.DataFrame:
    """The bars with a volume that is high where the price rises over the next `by` bars."""
    opens = bars["open"]
    return bars.assign(volume=bars["volume"] * np.where(opens.shift(-1 - by) > opens.shift(-1), 1.6, 0.4))


class TestStatistic:
    @given(st.lists(st.tuples(st.integers(-1, 9), st.integers(-1, 1)), min_size=4, max_size=60))
    def test_v_is_chi_square_of_the_table_of_counts(self, rows):
        bins, sign = (np.array(part, np.int8) for part in zip(*rows, strict=True))
        v, counted = cramers_v(bins, sign)
        kept = (bins >= 0) & (sign != 0)
        table = pd.crosstab(bins[kept], sign[kept])
        assert counted == kept.sum()
        if table.shape[1] < 2:
            assert v == 0
        else:
            chi2 = chi2_contingency(table, correction=False).statistic
            assert v**2 == pytest.approx(max(0, chi2 - (len(table) - 1)) / counted, abs=1e-9)

    @given(st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(np.nan), st.just(np.inf)), max_size=80))
    def test_equal_values_share_a_bin_and_bins_keep_the_order(self, values):
        values = np.array(values, float)
        bins = quantile_bins(values)
        known = np.isfinite(values)
        assert ((bins == -1) == ~known).all()
        for a, b in zip(values[known], bins[known], strict=True):
            assert (bins[known][values[known] > a] >= b).all()
            assert (bins[known][values[known] == a] == b).all()

    def test_targets_begin_at_the_next_open(self):
        price = np.array([9.0, 1.0, 2.0, 1.5, 1.5, 3.0, 1.0, 1.0, 1.0, 1.0, 0.5])
        moves = next_moves(price)
        assert list(moves) == [*(f"bar {k}" for k in range(1, 9)), "bars 1 to 2", "bars 1 to 4", "bars 1 to 8"]
        assert moves["bar 1"].tolist() == [1, -1, 0, 1, -1, 0, 0, 0, -1, 0, 0]
        for t in range(len(price)):
            for k in range(1, 9):
                assert moves[f"bar {k}"][t] == (np.sign(price[t + k + 1] - price[t + k]) if t + k + 1 < len(price) else 0)
            for total in (2, 4, 8):
                assert moves[f"bars 1 to {total}"][t] == (np.sign(price[t + 1 + total] - price[t + 1]) if t + 1 + total < len(price) else 0)

    def test_raw_columns_take_nothing_from_later_bars(self, bars):
        cut = raw_columns(bars.head(500))
        for name, values in raw_columns(bars).items():
            np.testing.assert_array_equal(values[:500], cut[name])

    def test_the_lead_is_a_rank_correlation(self, bars):
        lead, spread = volume_lead(bars), (bars["high"] / bars["low"]).to_numpy()
        volume = bars["volume"].to_numpy()
        for k in (0, 3):
            assert lead.correlation[k] == pytest.approx(spearmanr(volume[: len(volume) - k], spread[k:]).statistic, abs=1e-3)


class TestAttacks:
    @pytest.mark.parametrize("column", ["high", "low", "close"])
    @pytest.mark.parametrize("by", [1, 4, 8])
    def test_a_price_column_from_a_later_bar(self, bars, column, by):
        report = inspect_leaks(ahead(bars, column, by))
        assert any(leak.column == column and leak.is_alarmed and leak.v > 0.25 for leak in report.columns)

    @pytest.mark.parametrize("by", [4, 8])
    def test_an_open_from_a_later_bar(self, bars, by):
        report = inspect_leaks(ahead(bars, "open", by))
        assert [leak.column for leak in report.columns if leak.is_alarmed] == ["open"]

    def test_the_next_open_says_no_more_than_the_close(self, bars):
        assert inspect_leaks(ahead(bars, "open", 1)).alarms == ()

    @pytest.mark.parametrize("by", [1, 4, 8])
    def test_a_volume_that_knows_the_next_bars(self, bars, by):
        (alarm,) = inspect_leaks(knowing(bars, by)).alarms
        assert alarm.startswith("column volume knows the future: V = 0.")
        assert f"the move of {'bar 1' if by == 1 else f'bars 1 to {by}'} from the next open on" in alarm

    @pytest.mark.parametrize("by", [1, 4, 8])
    def test_a_volume_from_a_later_bar(self, bars, by):
        (alarm,) = inspect_leaks(ahead(bars, "volume", by)).alarms
        assert alarm.startswith(f"column volume stands {by} bar{'' if by == 1 else 's'} early: its rank correlation with the range of ")

    def test_a_late_volume_leaks_nothing(self, bars):
        assert inspect_leaks(ahead(bars, "volume", -1).bfill()).alarms == ()

    def test_the_edge_of_a_generated_market_is_such_a_leak(self):
        report = inspect_leaks(synthetic_market(n_bars=12_000, edge=0.5, seed=7).bars)
        assert [leak.column for leak in report.columns if leak.is_alarmed] == ["volume"]

    @pytest.mark.parametrize("edge", [0.0, 0.05, 0.1])
    def test_a_small_edge_stays_unseen(self, edge):
        assert inspect_leaks(synthetic_market(n_bars=20_000, edge=edge, seed=8).bars).alarms == ()


class TestWords:
    VOLUME = ColumnLeak("volume", "bar 1", 0.68, 70_000)
    EARLY = VolumeLead((0.55, 0.70, 0.61, 0.55, 0.52, 0.50, 0.48, 0.46, 0.45))

    def test_each_raw_column_has_a_sentence_and_features_stand_behind(self):
        surge, ratio, honest = (ColumnLeak(name, "bar 1", v, 70_000) for name, v in (("surge", 0.6), ("ratio", 0.5), ("rsi_14", 0.05)))
        against = "against the sign of the move of bar 1 from the next open on (70,000 bars; honest columns stay below 0.14)"
        report = LeakReport(70_000, (self.VOLUME, surge, ratio, honest), self.EARLY)
        assert report.alarms == (
            f"column volume knows the future: V = 0.68 {against}; so do surge (0.60), ratio (0.50)",
            "column volume stands 1 bar early: its rank correlation with the range of the next bar is 0.70, with its own bar's 0.55 "
            "(it may not be higher by more than 0.05)",
        )
        assert report.sentence == "; ".join(report.alarms)
        assert report.table()["alarm"].tolist() == [True, True, True, False]
        assert LeakReport(70_000, (surge, ratio, honest), None).alarms == (
            f"column surge knows the future: V = 0.60 {against}; so do ratio (0.50)",
        )
        close = ColumnLeak("close", "bar 1", 0.9, 70_000)
        assert [alarm[:20] for alarm in LeakReport(70_000, (close, self.VOLUME), None).alarms] == [
            "column close knows t",
            "column volume knows ",
        ]

    def test_silence_says_how_near_the_strongest_column_came(self):
        report = LeakReport(70_000, (ColumnLeak("rsi_14", "bar 1", 0.05, 70_000),), None)
        assert report.alarms == ()
        assert report.sentence == "no column knows the future: the strongest, rsi_14, has V = 0.05 where 0.14 is allowed"

    def test_four_bars_early(self):
        lead = VolumeLead((0.3, 0.3, 0.3, 0.3, 0.55, 0.3, 0.3, 0.3, 0.3))
        assert lead.sentence.startswith(
            "column volume stands 4 bars early: its rank correlation with the range of the bar 4 later is 0.55, "
        )


class TestBadInput:
    def test_too_few_bars_say_so_and_alarm_nothing(self, bars):
        report = inspect_leaks(knowing(bars, 1).head(LEAST_BARS - 1))
        assert report.alarms == ()
        assert report.sentence == "4,999 bars are too few to look for columns that know the future; it takes 5,000"
        assert volume_lead(bars.head(LEAST_LEAD_BARS - 1)) is None

    def test_a_missing_column_is_named(self, bars):
        with pytest.raises(BadDataError, match=r"bars: no column high, volume; a leak is looked for in open, high, low, close and volume"):
            inspect_leaks(bars.drop(columns=["volume", "high"]))

    @pytest.mark.parametrize("value", [0.0, 5.0])
    def test_a_volume_that_never_changes(self, bars, value):
        report = inspect_leaks(bars.assign(volume=value))
        assert report.volume is None
        assert report.alarms == ()

    def test_a_price_that_never_moves(self, bars):
        flat = bars.assign(open=7.0, high=7.0, low=7.0, close=7.0)
        assert inspect_leaks(flat).alarms == ()

    def test_gaps_in_a_feature_are_left_out(self, bars):
        feature = np.full(len(bars), np.nan)
        feature[5_000:9_000] = np.sign(np.diff(bars["open"].to_numpy()))[5_001:9_001]
        (leak,) = [leak for leak in inspect_leaks(bars, {"mine": feature}).columns if leak.column == "mine"]
        assert leak.rows <= 4_000
        assert leak.is_alarmed


@pytest.mark.slow
@pytest.mark.parametrize("file", REAL)
def test_real_files_are_silent_and_every_attack_on_them_is_alarmed(shared_data, file):
    bars = read_bars(shared_data / file, **REAL[file]).bars
    report = inspect_leaks(bars)
    assert report.alarms == ()
    assert report.columns[0].v < 0.08
    assert report.volume.excess < -0.06
    attacks = [ahead(bars, column, by) for column in ("high", "low", "close", "volume") for by in (1, 4, 8)]
    attacks += [knowing(bars, by) for by in (1, 4, 8)]
    assert all(inspect_leaks(attacked).alarms for attacked in attacks)


@pytest.mark.slow
@pytest.mark.parametrize("edge", [0.0, 0.1])
def test_generated_years_are_silent_with_all_features(edge):
    for seed in range(10):
        made = synthetic_market(edge=edge, seed=seed)
        report = inspect_leaks(made.bars, compute_features(made.bars, made.events))
        assert report.alarms == ()
        assert max(leak.v / leak.limit for leak in report.columns) < 0.75
