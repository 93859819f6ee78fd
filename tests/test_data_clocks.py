"""Clocks that the file itself disproves: weekly closes, releases, and dates that a spreadsheet has rewritten."""

import re

import numpy as np
import pandas as pd
import pytest
from bars_files import kinds, lines, market, weekly, write

from trademl.data.bars import read_bars, write_bars
from trademl.data.clocks import localise, to_wall, zone
from trademl.data.news import read_news, write_news
from trademl.data.releases import ReleaseProfile, prove_bars_clock, release_profile
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError

CLOCKS = ("broker-eu", "broker-us", "America/New_York", "Europe/Berlin", "Asia/Tokyo", "+05:30", "-03:00")


def digits(frame, clock, form="%Y-%m-%d %H:%M"):
    """What a clock showed at the frame's times, as text."""
    return list(pd.DatetimeIndex(to_wall(frame.index.as_unit("ns").asi8, zone(clock)).view("M8[ns]")).strftime(form))


# --- weekly closes


@pytest.mark.parametrize("clock", ["broker-eu", "broker-us", "Asia/Tokyo"])
def test_twelve_closes_disprove_a_clock_and_fewer_do_not(tmp_path, clock):
    frame = weekly(13)
    file = write(tmp_path / "a.csv", lines(frame, stamps=digits(frame, clock), decimals=5))
    fits = "+09:00" if clock == "Asia/Tokyo" else clock
    with pytest.raises(BadDataError, match=r"the clock UTC is disproved: 0 of 13 market closes") as refusal:
        read_bars(file, tz="UTC")
    assert "or insist on UTC with --trust-clock" in str(refusal.value)
    if clock != "Asia/Tokyo":
        assert f"Read it with --tz {fits}" in str(refusal.value)
    insisted = read_bars(file, tz="UTC", accept=("clock",))
    assert kinds(insisted)["clock_doubtful"].severity == "warning"
    few = frame[frame.index < frame.index[0] + pd.Timedelta("60D")]
    file = write(tmp_path / "b.csv", lines(few, stamps=digits(few, clock), decimals=5))
    doubted = read_bars(file, tz="UTC")
    assert "12 closes would prove it" in kinds(doubted)["clock_doubtful"].message
    with pytest.raises(BadDataError, match="12 closes would prove it"):
        read_bars(file)


def test_a_label_that_closes_disprove(tmp_path):
    frame = weekly(20)
    file = write(tmp_path / "a.csv", lines(frame, stamps=digits(frame, "broker-eu", "%Y-%m-%dT%H:%M:%SZ"), decimals=5))
    with pytest.raises(BadDataError, match=r"the clock UTC is disproved.*Read it with --tz wall:broker-eu"):
        read_bars(file)
    pd.testing.assert_index_equal(read_bars(file, tz="wall:broker-eu").bars.index, frame.index, check_names=False)


def joined(frame, first, then, share, form="%Y-%m-%d %H:%M"):
    """Digits of two exports that were joined: the first share of the bars on one clock, the rest on another; and the day between."""
    cut = int(share * len(frame))
    return digits(frame, first, form)[:cut] + digits(frame, then, form)[cut:], str(frame.index[cut].date())


@pytest.mark.parametrize(("first", "then", "share"), [("UTC", "broker-eu", 0.6), ("broker-us", "UTC", 0.6), ("broker-eu", "UTC", 0.45)])
def test_closes_that_leave_the_clock_in_mid_file(tmp_path, first, then, share):
    frame = weekly(40)
    stamps, day = joined(frame, first, then, share)
    file = write(tmp_path / "a.csv", lines(frame, stamps=stamps, decimals=5))
    with pytest.raises(BadDataError, match=rf"the clock {first} is disproved: from .* on, \d+ market closes fall at 17:00") as refusal:
        read_bars(file, tz=first)
    assert f"under {then} and not under {first}; the file holds two clocks: split it there" in str(refusal.value)
    named = pd.Timestamp(str(refusal.value).partition("from ")[2][:10])
    assert abs(named - pd.Timestamp(day)) <= pd.Timedelta("8D")
    with pytest.raises(BadDataError, match=rf"the clock {then} is disproved: before .* under {first} and not under {then}"):
        read_bars(file, tz=then)
    assert "clock_doubtful" in kinds(read_bars(file, tz=first, accept=("clock",)))


@pytest.mark.parametrize("zone_key", ["America/New_York", "Europe/Berlin"])
def test_an_exchange_with_short_days_closes_when_it_closes(tmp_path, zone_key):
    frame = weekly(20)
    local = frame.index.tz_convert(zone_key)
    clock = local.hour * 60 + local.minute
    frame = frame[(clock >= 540) & (clock < 960) & (local.day_of_week < 5)]
    report = read_bars(write(tmp_path / "a.csv", lines(frame, decimals=5)))
    assert "clock_doubtful" not in kinds(report)


# --- releases, for markets that never close


@pytest.fixture(scope="module")
def made():
    return synthetic_market(35_040)


def stamped(made, clock):
    """The market's bars with a clock's digits, as a file without a zone would hold them."""
    return lines(made.bars, stamps=digits(made.bars, clock))


@pytest.mark.parametrize("clock", CLOCKS)
def test_releases_disprove_the_clock_of_a_market_that_never_closes(tmp_path, made, clock):
    file = write(tmp_path / "a.csv", stamped(made, clock))
    wrong = read_bars(file, tz="UTC", accept=("clock",))
    with pytest.raises(
        BadDataError, match=r"the clock UTC is disproved: at \d+ dollar releases prices move x.* under UTC and x.* with --tz"
    ) as refusal:
        prove_bars_clock(wrong, made.events)
    flag = str(refusal.value).partition("Read it with --tz ")[2].partition(",")[0]
    right = read_bars(file, tz=flag)
    assert (right.bars.index == made.bars.index).mean() > 0.85  # the clock itself, or one that differs for a few weeks only
    assert "which agrees with it" in kinds(prove_bars_clock(read_bars(file, tz=clock), made.events))["releases"].message
    assert "clock_doubtful" in kinds(prove_bars_clock(wrong, made.events, trust_clock=True))


@pytest.mark.parametrize(("first", "then", "share"), [("UTC", "+02:00", 0.7), ("broker-us", "UTC", 0.3), ("UTC", "+05:30", 0.55)])
def test_releases_that_leave_the_clock_in_mid_file(tmp_path, made, first, then, share):
    stamps, day = joined(made.bars, first, then, share)
    report = read_bars(write(tmp_path / "a.csv", lines(made.bars, stamps=stamps)), tz=first, accept=("clock",))
    reports = [report, read_bars(tmp_path / "a.csv", tz=then, accept=("clock",))]
    seen = []
    for clock, report in zip((first, then), reports, strict=True):
        with pytest.raises(BadDataError, match=f"the clock {clock} is disproved".replace("+", r"\+")) as refusal:
            prove_bars_clock(report, made.events)
        seen += [str(refusal.value)] if "the file holds two clocks" in str(refusal.value) else []
    assert seen, "one of the two holds for most releases and is left on the other side"
    for text in seen:
        assert abs(pd.Timestamp(text.partition("about ")[2][:10]) - pd.Timestamp(day)) <= pd.Timedelta("14D")
        assert "Split the file there and read each part on its own clock" in text


@pytest.mark.parametrize("shift", [1, -1])
def test_stamps_that_are_one_bar_off(tmp_path, made, shift):
    moved = made.bars.set_axis(made.bars.index + shift * pd.Timedelta("15min"))
    report = read_bars(write(tmp_path / "a.csv", lines(moved)))
    with pytest.raises(BadDataError, match="--stamp close" if shift > 0 else "stamps 15 minutes later"):
        prove_bars_clock(report, made.events)


def test_an_imported_file_is_to_be_imported_again(tmp_path, made):
    file = write(tmp_path / "a.csv", stamped(made, "broker-eu"))
    wrong = read_bars(file, tz="UTC")
    write_bars(wrong.bars, tmp_path / "a.parquet", wrong.source)
    with pytest.raises(BadDataError, match=r"the clock UTC is disproved.*Import it again with --tz broker-eu"):
        prove_bars_clock(read_bars(tmp_path / "a.parquet"), made.events)


def test_fewer_than_twelve_releases_prove_nothing(tmp_path, made):
    few = made.bars.iloc[: 96 * 6]
    report = read_bars(write(tmp_path / "a.csv", lines(few, stamps=digits(few, "broker-eu"))), tz="UTC")
    assert "12 would test their clock" in kinds(prove_bars_clock(report, made.events))["releases"].message


def test_prices_that_know_of_no_release_say_nothing(tmp_path):
    made = synthetic_market(20_000)
    report = read_bars(write(tmp_path / "a.csv", lines(market(20_000, start="2024-01-01"))))
    assert "which says nothing about it" in kinds(prove_bars_clock(report, made.events))["releases"].message


@pytest.mark.parametrize("tz", ["broker-eu", "broker-us", "America/New_York", "Europe/Berlin", "+02:00"])
def test_the_real_files_agree_with_the_real_calendar_and_not_with_a_shifted_clock(shared_data, tz):
    news = read_news(shared_data / "market/news_2015_2026.csv.gz")
    report = read_bars(shared_data / "market/btcusd_m15_2024-04_2026-04.csv.gz")
    assert "at 437 dollar releases prices move x1.50 under UTC" in kinds(prove_bars_clock(report, news))["releases"].message
    wall = to_wall(report.bars.index.as_unit("ns").asi8, zone(tz))
    late = np.r_[report.bars.index.as_unit("ns").asi8[: len(wall) // 2], wall[len(wall) // 2 :]]
    two = report.bars.set_axis(pd.DatetimeIndex(late.view("M8[ns]"), tz="UTC", name="time"))
    with pytest.raises(BadDataError, match="the file holds two clocks"):
        prove_bars_clock(type(report)(two[~two.index.duplicated()].sort_index(), (), report.source), news)
    bars = report.bars.set_axis(pd.DatetimeIndex(wall.view("M8[ns]"), tz="UTC", name="time"))
    moved = type(report)(bars[~bars.index.duplicated()].sort_index(), (), report.source)
    with pytest.raises(BadDataError, match=f"with --tz wall:{tz}".replace("+", r"\+")):
        prove_bars_clock(moved, news)


# --- dates that a spreadsheet has rewritten


def swapped(index):
    """Day and month exchanged where both are at most 12."""
    return [t.replace(day=t.month, month=t.day) if t.day <= 12 else t for t in index]


@pytest.mark.parametrize("rows", [96 * 20, 96 * 60, 96 * 400])
@pytest.mark.parametrize("newest_first", [False, True])
def test_half_swapped_dates_are_refused(tmp_path, rows, newest_first):
    frame = market(rows, start="2023-01-03")
    body = lines(frame, stamps=[f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in swapped(frame.index)])
    body = body[:1] + body[:0:-1] if newest_first else body
    with pytest.raises(BadDataError, match=r"the dates are half swapped: .*export the file again and do not open it in between"):
        read_bars(write(tmp_path / "a.csv", body))


def test_half_swapped_in_the_spelling_of_the_country(tmp_path):
    frame = market(96 * 60, start="2023-01-03")
    texts = [f"{t:%d/%m/%Y %H:%M}" for t in swapped(frame.index)]
    with pytest.raises(BadDataError, match=r"half swapped|day first or month first"):
        read_bars(write(tmp_path / "a.csv", lines(frame, stamps=texts)), tz="UTC")


def test_a_calendar_with_half_swapped_dates(tmp_path):
    made = synthetic_market(35_040)
    events = made.events.assign(time=swapped(made.events["time"]))
    rows = [f"{t:%Y-%m-%dT%H:%M:%SZ},{c},{i},{e}" for t, c, i, e, _ in events.itertuples(index=False)]
    with pytest.raises(BadDataError, match="the dates are half swapped"):
        read_news(write(tmp_path / "a.csv", ["time,currency,impact,event", *rows]))


@pytest.mark.parametrize("order", ["sorted", "halves exchanged", "one row early", "shuffled"])
def test_honest_disorder_is_not_taken_for_swapped_dates(tmp_path, order):
    frame = market(96 * 90, start="2023-01-03")
    rows = lines(frame)
    body = rows[1:]
    if order == "halves exchanged":
        body = body[4000:] + body[:4000]
    elif order == "one row early":
        body.insert(96 * 5, body.pop(96 * 40))
    elif order == "shuffled":
        body = [body[i] for i in np.random.default_rng(0).permutation(len(body))]
    assert len(read_bars(write(tmp_path / "a.csv", rows[:1] + body)).bars) == len(frame)


# --- calendars


def test_a_few_payrolls_neither_prove_nor_disprove(tmp_path):
    made = synthetic_market(96 * 120)
    write_news(made.events, tmp_path / "a.csv")
    assert "(12 would prove it)" in kinds(read_news(tmp_path / "a.csv"))["clock"].message
    text = (tmp_path / "a.csv").read_text().replace("Z", "")
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(BadDataError, match=r"rows do \(12 would settle it\):.*--news-tz UTC.*--trust-clock insists on Asia/Tokyo"):
        read_news(tmp_path / "b.csv", tz="Asia/Tokyo")
    insisted = read_news(tmp_path / "b.csv", tz="Asia/Tokyo", trust_clock=True)
    assert kinds(insisted)["clock_doubtful"].severity == "warning"


def test_to_wall_is_the_way_back():
    utc = pd.date_range("2023-01-01", "2024-12-31", freq="15min").as_unit("ns").asi8
    for clock in CLOCKS:
        assert (localise(to_wall(utc, zone(clock)), zone(clock)).utc == utc).all()


class TestBesideTheRelease:
    @pytest.mark.leakage
    @pytest.mark.parametrize("shift", [-3, -1, 1, 2])
    def test_rows_that_are_shifted_by_whole_bars_are_seen(self, made, shift):
        profile = release_profile(made.bars.set_axis(made.bars.index + shift * pd.Timedelta("15min")), made.events)
        assert profile.is_alarmed
        assert profile.peak == shift
        bars, when = (
            f"{abs(shift)} bar{'s' * (abs(shift) > 1)} {'after' if shift > 0 else 'before'} it (x",
            "late" if shift > 0 else "early",
        )
        assert profile.sentence.startswith(f"at {profile.count} dollar releases prices move most {bars}")
        assert profile.sentence.endswith(f": the stamps are {15 * abs(shift)} minutes {when}; export the bars again")

    @pytest.mark.leakage
    def test_true_stamps_peak_at_the_release(self, made):
        profile = release_profile(made.bars, made.events)
        assert (profile.peak, profile.is_alarmed) == (0, False)
        assert re.fullmatch(
            r"at \d+ dollar releases prices move most in the bar of the release \(x1\.\d+\), as they do where the stamps are right",
            profile.sentence,
        )

    def test_a_peak_that_is_not_clear_alarms_nothing(self):
        profile = ReleaseProfile(count=14, moved=(0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.0, 0.0, 0.0), peak=1, is_clear=False)
        assert not profile.is_alarmed
        assert profile.sentence == (
            "at 14 dollar releases prices move most 1 bar after it (x1.22), in the bar of the release x1.11: "
            "not clear enough to say anything"
        )

    def test_few_releases_and_no_bars_give_no_profile(self, made):
        assert release_profile(made.bars.head(1_000), made.events) is None
        assert release_profile(made.bars.head(0), made.events) is None

    @pytest.mark.slow
    @pytest.mark.leakage
    def test_the_real_file_peaks_at_the_release_and_beside_it_when_it_is_shifted(self, shared_data):
        bars = read_bars(shared_data / "market/btcusd_m15_2024-04_2026-04.csv.gz").bars
        news = read_news(shared_data / "market/news_2015_2026.csv.gz")
        assert release_profile(bars, news).peak == 0
        for shift in (-1, 1):
            profile = release_profile(bars.set_axis(bars.index + shift * pd.Timedelta("15min")), news)
            assert (profile.peak, profile.is_alarmed) == (shift, True)
