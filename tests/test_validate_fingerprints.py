"""Prices are recognised whatever their stamps and their scale; other prices are not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.data.bars import read_bars
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError, RevisionError
from trademl.validate.fingerprints import (
    STRETCH,
    WINDOW,
    Fingerprints,
    agreement,
    days_moved,
    fingerprints,
    kept_stretches,
    overlap,
    stretch_hashes,
)

pytestmark = pytest.mark.leakage

NOTHING = np.iinfo(np.uint64).max


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(n_bars=20_000, edge=0.0, seed=3).bars


@pytest.fixture(scope="module")
def seen(bars):
    return fingerprints(bars)


@given(st.lists(st.integers(0, 5), min_size=WINDOW, max_size=WINDOW + 120))
def test_kept_stretches_are_the_first_lowest_of_each_window(hashes):
    hashes = np.array(hashes, np.uint64)
    hashes[hashes == 5] = NOTHING
    wanted = set()
    for start in range(len(hashes) - WINDOW + 1):
        window = hashes[start : start + WINDOW].tolist()
        if min(window) < NOTHING:
            wanted.add(start + window.index(min(window)))
    assert kept_stretches(hashes).tolist() == sorted(wanted)


class TestContent:
    @pytest.mark.parametrize("moved", ["365D", "-31D", "3h", "15min"])
    def test_stamps_do_not_matter(self, bars, seen, moved):
        asked = fingerprints(bars.set_axis(bars.index + pd.Timedelta(moved)))
        assert overlap(seen, asked) == 1
        assert days_moved(seen, asked) == pd.Timedelta(moved).days

    @pytest.mark.parametrize("factor", [1.37, 0.01, 100.0])
    def test_the_scale_does_not_matter(self, bars, seen, factor):
        assert overlap(seen, fingerprints(bars * factor)) == 1

    def test_a_scale_that_is_rounded_again_is_recognised(self, bars, seen):
        assert overlap(seen, fingerprints((bars * 1.37).round(1))) > 0.9

    def test_a_part_is_recognised_wherever_it_begins(self, bars, seen):
        assert overlap(seen, fingerprints(bars.iloc[5_003:12_345])) > 0.95

    def test_other_prices_are_not(self, seen):
        other = fingerprints(synthetic_market(n_bars=20_000, edge=0.0, seed=4).bars)
        assert (overlap(seen, other), days_moved(seen, other), agreement(seen, other)) == (0.0, None, 0.0)

    def test_prices_turned_upside_down_are_not(self, bars, seen):
        assert overlap(seen, fingerprints(1e9 / bars)) == 0

    def test_a_lost_bar_costs_only_what_lies_around_it(self, bars, seen):
        assert overlap(seen, fingerprints(bars.drop(bars.index[10_000]))) > 0.97

    def test_a_market_that_stands_still_has_no_content(self, bars):
        still = bars.assign(close=bars["close"].where(np.arange(len(bars)) < 10_000, 7.0))
        assert len(fingerprints(bars.assign(close=7.0))) == 0
        assert fingerprints(still).day.max() <= (bars.index[10_100] - pd.Timestamp(0, tz="UTC")).days

    def test_a_stretch_is_the_signs_of_its_moves_and_nothing_else(self, bars):
        close = bars["close"].to_numpy()[:400]
        hashes = stretch_hashes(close)
        walk = np.cumsum(np.r_[500.0, np.sign(np.diff(close))])  # the same signs, other sizes
        np.testing.assert_array_equal(stretch_hashes(walk), hashes)
        turned = close.copy()
        turned[200] += 2 * (close[199] - close[200]) + (close[199] == close[200])  # another sign of move 199
        assert (stretch_hashes(turned)[: 200 - STRETCH] == hashes[: 200 - STRETCH]).all()
        assert (stretch_hashes(turned)[201:] == hashes[201:]).all()
        assert not np.isin(stretch_hashes(turned)[200 - STRETCH : 200], hashes).any()


class TestSameData:
    def test_a_file_that_grew_or_was_cut_agrees_with_itself(self, bars, seen):
        assert agreement(seen, fingerprints(bars.iloc[:15_000])) == 1
        for start, end in ((3_333, 20_000), (1, 19_999), (7_001, 15_555), (8_192, 10_000)):
            assert agreement(fingerprints(bars.iloc[start:end]), seen) == 1

    def test_revisions_of_two_bars_in_a_thousand_are_the_same_data(self, bars, seen):
        rng = np.random.default_rng(1)
        close = bars["close"].to_numpy().copy()
        at = rng.random(len(close)) < 0.002
        close[at] *= 1 + 1e-4 * rng.standard_normal(at.sum())
        assert agreement(seen, fingerprints(bars.assign(close=close))) > 0.99

    def test_the_same_prices_a_year_later_are_other_data(self, bars, seen):
        long = synthetic_market(n_bars=60_000, edge=0.0, seed=3)
        restamped = fingerprints(long.bars.set_axis(long.bars.index + pd.Timedelta("365D")))
        assert agreement(fingerprints(long.bars), restamped) == 0

    def test_without_common_days_nothing_can_be_said(self, bars, seen):
        assert agreement(seen, fingerprints(bars.set_axis(bars.index + pd.Timedelta("3650D")))) is None
        assert agreement(seen, fingerprints(bars.head(100))) is None


class TestKept:
    def test_two_years_take_eight_kilobytes_of_text(self, seen):
        assert 8 * len(seen) * 4 / 3 <= len(seen.to_text()) <= 8 * len(seen) * 4 / 3 + 4
        assert len(seen) / (20_000 / 96) == pytest.approx(1, abs=0.1)

    def test_a_mark_carries_the_day_of_its_last_bar(self, bars, seen):
        places = kept_stretches(stretch_hashes(bars["close"].to_numpy()))
        last = bars.index[places + STRETCH].tz_localize(None)
        np.testing.assert_array_equal(seen.day, last.to_numpy("M8[D]").astype(np.int64))

    def test_text_keeps_every_day_and_mark(self, seen):
        again = Fingerprints.from_text(seen.to_text())
        np.testing.assert_array_equal(again.day, seen.day)
        np.testing.assert_array_equal(again.mark, seen.mark)
        assert len(Fingerprints.from_text(fingerprints(pd.DataFrame({"close": []}, index=pd.DatetimeIndex([], tz="UTC"))).to_text())) == 0

    @pytest.mark.parametrize("text", ["###", "AAAA", None, 7, "ä"])
    def test_what_is_not_readable_is_refused(self, text):
        with pytest.raises(RevisionError, match=r"fingerprints cannot be read .*; nothing shows which prices were seen: retrain"):
            Fingerprints.from_text(text)

    def test_within_takes_whole_days(self, seen):
        day = int(seen.day[40])
        part = seen.within(day * 86_400, (day + 10) * 86_400)
        assert (part.day.min(), part.day.max()) == (day, day + 9)
        assert day not in seen.within(day * 86_400 + 1, (day + 10) * 86_400).day
        assert overlap(seen, part) == 1

    def test_a_close_that_is_not_finite_is_named(self, bars):
        broken = bars.assign(close=bars["close"].where(np.arange(len(bars)) != 1_233))
        with pytest.raises(BadDataError, match=r"bars row 1,234: close = nan is not a price; `trademl data check` names every such row"):
            fingerprints(broken)


@pytest.mark.slow
def test_real_files_recognise_themselves_and_another_broker_in_part(shared_data):
    def read(file, **options):
        return read_bars(shared_data / file, **options).bars

    btc = read("market/btcusd_m15_2024-04_2026-04.csv.gz")
    seen = fingerprints(btc)
    assert len(seen.to_text()) < 8_000
    same = fingerprints(read("import/binance_btcusdt_m15_close_stamped_plus01.csv.gz"))
    assert agreement(seen, same) > 0.99  # the same exchange
    broker = fingerprints(read("import/mt5_btcusd_m15_utc.csv.gz", tz="UTC", point=0.01))
    assert 0.15 < overlap(seen, broker) < 0.5
    assert agreement(seen, broker) < 0.9
    euro = fingerprints(read("import/mt4_eurusd_m15_eet_junk_tail.csv.gz", tz="broker-eu"))
    assert (overlap(seen, euro), overlap(euro, seen)) == (0, 0)
    later = fingerprints(btc.set_axis(btc.index + pd.Timedelta("365D")))
    assert (overlap(seen, later), days_moved(seen, later)) == (1, 365)
