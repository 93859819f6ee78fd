"""Calendars: the clock is proven or refused, and nothing of the future comes in early."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from bars_files import kinds, market, write
from hypothesis import given
from hypothesis import strategies as st

from trademl.data.calendar import PAYROLL, currency_codes, doubled_januaries, impact_words, wrong_years
from trademl.data.news import NewsReport, check_coverage, high_impact_usd, news_covers_until, news_hash, read_news, write_news
from trademl.errors import BadDataError

NY = "America/New_York"


def events(first="2023-01", months=30, per_week=3, seed=1):
    """Payrolls on first Fridays at 08:30 New York, and other events in between: time (UTC), currency, impact, event."""
    rng = np.random.default_rng(seed)
    fridays = pd.date_range(first, periods=months, freq="WOM-1FRI") + pd.Timedelta("8h30min")
    rows = [(t, "USD", "high", "Non-Farm Employment Change") for t in fridays.tz_localize(NY).tz_convert("UTC")]
    span = pd.date_range(fridays[0].floor("D"), fridays[-1], freq="7D", tz="UTC")
    for week in span:
        for k in range(per_week):
            moment = week + pd.Timedelta(days=int(rng.integers(0, 5)), hours=int(rng.integers(7, 19)), minutes=15 * k)
            rows.append((moment, ("EUR", "GBP", "USD")[k], ("low", "medium", "high")[k], f"Event {k}"))
    return pd.DataFrame(sorted(rows, key=lambda r: r[0]), columns=["time", "currency", "impact", "event"])


def calendar(path, frame, stamps="%Y-%m-%dT%H:%M:%SZ", header="time,currency,impact,event", tz="UTC"):
    times = pd.DatetimeIndex(frame["time"]).tz_convert(tz).strftime(stamps) if isinstance(stamps, str) else stamps
    rows = [",".join(map(str, row)) for row in zip(times, frame["currency"], frame["impact"], frame["event"], strict=True)]
    return write(path, [header, *rows])


# --- the canonical form


def test_the_canonical_calendar(tmp_path):
    frame = events()
    report = read_news(calendar(tmp_path / "a.csv", frame))
    assert list(report.events.columns) == ["time", "currency", "impact", "event", "time_kind"]
    assert str(report.events["time"].dtype) == "datetime64[ns, UTC]"
    assert report.events["time"].is_monotonic_increasing
    assert len(report.events) == len(frame)
    assert "30 of 30 payroll rows" in kinds(report)["clock"].message
    assert report.is_clean
    assert report.covers_until == frame["time"].iloc[-1].to_pydatetime() == news_covers_until(report.events)
    assert report.covers_from == frame["time"].iloc[0].to_pydatetime()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.feather"])
def test_written_calendars_come_back(tmp_path, name):
    report = read_news(calendar(tmp_path / "x.csv", events()))
    assert write_news(report.events, tmp_path / name, report.source) == report.sha256
    assert read_news(tmp_path / name).sha256 == report.sha256 == news_hash(report.events)


def test_an_imported_calendar_without_payrolls_keeps_its_proof(tmp_path):
    frame = events()
    report = read_news(calendar(tmp_path / "x.csv", frame[frame["currency"] != "USD"]), tz="UTC")
    write_news(report.events, tmp_path / "a.parquet", report.source)
    assert read_news(tmp_path / "a.parquet").sha256 == report.sha256


# --- the clock


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Europe/Berlin", "America/Chicago"])
def test_a_calendar_without_a_zone_names_the_clock_that_fits(tmp_path, zone):
    frame = events()
    file = calendar(tmp_path / "a.csv", frame, "%Y-%m-%d %H:%M", tz=zone)
    with pytest.raises(BadDataError, match=f"carry no zone.*--news-tz {zone}.* 30 of 30 do"):
        read_news(file)
    report = read_news(file, tz=zone)
    assert report.sha256 == read_news(calendar(tmp_path / "b.csv", frame)).sha256
    with pytest.raises(BadDataError, match=f"08:30; .*--news-tz {zone}.* 30 of 30 do"):
        read_news(file, tz="Asia/Tokyo")


@pytest.mark.parametrize("zone", ["America/New_York", "+02:00", "Europe/London"])
def test_a_zone_that_lies_is_refused_or_overruled(tmp_path, zone):
    frame = events()
    key = "Etc/GMT-2" if zone == "+02:00" else zone
    file = calendar(tmp_path / "a.csv", frame, "%Y-%m-%dT%H:%M:%SZ", tz=key)  # local digits with a Z
    with pytest.raises(BadDataError, match=r"US payrolls at \d\d:30 New York under UTC") as refusal:
        read_news(file)
    assert f"--news-tz {zone}" in str(refusal.value).replace("Etc/GMT-2", "+02:00")
    report = read_news(file, tz=zone)
    assert kinds(report)["relabelled"].severity == "warning"
    assert report.sha256 == read_news(calendar(tmp_path / "b.csv", frame)).sha256
    with pytest.raises(BadDataError, match="relabelled"):
        read_news(file, tz=zone, strict=True)


def test_a_proven_zone_is_not_overruled(tmp_path):
    file = calendar(tmp_path / "a.csv", events())
    report = read_news(file, tz="Asia/Tokyo")
    assert "tz_ignored" in kinds(report)
    assert report.sha256 == read_news(file).sha256


def test_mixed_clocks_are_refused(tmp_path):
    frame = events()
    half = len(frame) // 2
    frame.loc[half:, "time"] = frame.loc[half:, "time"] + pd.Timedelta("3h")
    with pytest.raises(BadDataError, match="the file mixes clocks"):
        read_news(calendar(tmp_path / "a.csv", frame))


def test_no_payroll_no_proof(tmp_path):
    frame = events()
    file = calendar(tmp_path / "a.csv", frame[~frame["event"].str.contains("Non-Farm")])
    with pytest.raises(BadDataError, match="clock not verified"):
        read_news(file)
    report = read_news(file, tz="UTC")
    assert kinds(report)["not_verified"].severity == "warning"
    with pytest.raises(BadDataError, match="not verified"):
        read_news(file, tz="UTC", strict=True)


@pytest.mark.parametrize(
    ("name", "is_payroll"),
    [
        ("Non-Farm Employment Change", True),
        ("Nonfarm Payrolls", True),
        ("Non Farm Payrolls", True),
        ("U.S. Nonfarm Payrolls", True),
        ("NFP", True),
        ("Nonfarm Payrolls (Dec)", True),
        ("Change in Nonfarm Payrolls", True),
        ("ADP Non-Farm Employment Change", False),
        ("Nonfarm Private Payrolls", False),
        ("Prelim Nonfarm Productivity q/q", False),
        ("Nonfarm Payrolls Benchmark Revision", False),
        ("Prelim Benchmark Payrolls Revision", False),
    ],
)
def test_what_is_a_payroll_row(name, is_payroll):
    assert bool(PAYROLL.match(name)) == is_payroll


# --- words and columns


@pytest.mark.parametrize(
    ("header", "high", "usd"),
    [
        ("Date,Currency,Impact,Event", "High", "USD"),
        ("datetime,country,importance,title", "3", "United States"),
        ("time_utc,ccy,volatility,name", "High Volatility Expected", "US"),
        ("Start,Region,stars,event_name", "***", "usd"),
        ("timestamp,symbol,priority,description", "red", "USA"),
    ],
)
def test_spellings(tmp_path, header, high, usd):
    frame = events()
    words = {"high": high, "medium": "2" if high == "3" else "medium", "low": "1" if high == "3" else "low"}
    if high == "***":
        words |= {"medium": "**", "low": "*"}
    written = frame.assign(impact=frame["impact"].map(words), currency=frame["currency"].replace("USD", usd))
    report = read_news(calendar(tmp_path / "a.csv", written, header=header))
    assert report.sha256 == read_news(calendar(tmp_path / "b.csv", frame)).sha256


def test_epochs_and_parquet(tmp_path):
    frame = events()
    whole = read_news(calendar(tmp_path / "a.csv", frame)).sha256
    assert read_news(calendar(tmp_path / "b.csv", frame, [str(t.value // 10**9) for t in frame["time"]])).sha256 == whole
    data = {"time": pa.array([t.value // 10**6 for t in frame["time"]], pa.timestamp("ms", tz="UTC"))}
    pa.parquet.write_table(pa.table(data | {c: frame[c].tolist() for c in ("currency", "impact", "event")}), tmp_path / "c.parquet")
    assert read_news(tmp_path / "c.parquet").sha256 == whole


def test_month_first_dates_with_am_and_pm_in_two_columns(tmp_path):
    frame = events()
    file = calendar(tmp_path / "a.csv", frame, "%m-%d-%Y,%I:%M%p", header="Date,Time,Country,Impact,Title", tz=NY)
    assert read_news(file, tz=NY).sha256 == read_news(calendar(tmp_path / "b.csv", frame)).sha256


@given(st.sampled_from(["high", "medium", "low"]), st.sampled_from(["{}", "{} impact", "{} Impact Expected", " {} "]), st.booleans())
def test_impacts_however_dressed(word, dress, upper):
    text = dress.format(word)
    assert impact_words(np.array([text.upper() if upper else text], object))[0] == word


def test_unknown_words(tmp_path):
    assert currency_codes(np.array(["All", "Narnia"], object)).tolist() == ["ALL", "NARNIA"]
    frame = events()
    frame.loc[4, "impact"] = "huge"
    frame.loc[6, "currency"] = "Narnia"
    report = read_news(calendar(tmp_path / "a.csv", frame))
    assert (kinds(report)["impact_unknown"].count, kinds(report)["impact_unknown"].first_row) == (1, 6)
    assert (kinds(report)["currency_unknown"].count, kinds(report)["currency_unknown"].first_row) == (1, 8)
    assert len(report.events) == len(frame) - 1
    with pytest.raises(BadDataError, match=r"impact 'huge'.*\n.*trademl data repair"):
        report.require_clean()


def test_impacts_off_by_one(tmp_path):
    frame = events()
    frame["impact"] = frame["impact"].map({"high": "2", "medium": "1", "low": "0"})
    report = read_news(calendar(tmp_path / "a.csv", frame))
    assert kinds(report)["impact_shifted"].count == 30
    assert not report.is_clean


@pytest.mark.parametrize("missing", ["currency", "impact", "event"])
def test_missing_columns(tmp_path, missing):
    header = "time,currency,impact,event".replace(missing, "other")
    with pytest.raises(BadDataError, match=f"no column for '{missing}'"):
        read_news(calendar(tmp_path / "a.csv", events(), header=header))


# --- all-day and tentative


def test_all_day_and_tentative_rows_keep_their_day(tmp_path):
    frame = events()
    local = pd.DatetimeIndex(frame["time"]).tz_convert(NY)
    stamps = [f"{t:%Y-%m-%d},{t:%H:%M}" for t in local]
    stamps[5], stamps[7] = f"{local[5]:%Y-%m-%d},All Day", f"{local[7]:%Y-%m-%d},Tentative"
    frame.loc[[5, 7], ["currency", "impact", "event"]] = ["USD", "high", "Election"]
    report = read_news(calendar(tmp_path / "a.csv", frame, stamps, header="date,time,currency,impact,event"), tz=NY)
    loose = report.events[report.events["time_kind"] != "scheduled"]
    assert set(loose["time_kind"]) == {"all_day", "tentative"}
    assert (loose["time"].dt.strftime("%H:%M") == "00:00").all()
    assert set(loose["time"].dt.date) == {local[5].date(), local[7].date()}
    timed, untimed = high_impact_usd(report)
    assert len(untimed) == 2
    assert not set(timed) & set(untimed)
    assert kinds(report)["unscheduled"].count == 2


def test_a_scrape_with_times_left_out_is_refused(tmp_path):
    frame = events()
    stamps = [f"{t:%Y-%m-%d},{t:%H:%M}" if i % 4 else f"{t:%Y-%m-%d}," for i, t in enumerate(frame["time"])]
    with pytest.raises(BadDataError, match="Fill it down"):
        read_news(calendar(tmp_path / "a.csv", frame, stamps, header="date,time,currency,impact,event"), tz="UTC")


def test_high_impact_dollar_events():
    frame = pd.DataFrame(
        {
            "time": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"], utc=True).as_unit("ns"),
            "currency": ["USD", "USD", "EUR", "USD"],
            "impact": ["high", "high", "high", "low"],
            "event": list("abcd"),
            "time_kind": ["scheduled", "all_day", "scheduled", "scheduled"],
        }
    )
    timed, untimed = high_impact_usd(frame)
    assert timed.tolist() == [1704067200]
    assert untimed.tolist() == [1704153600]
    assert timed.dtype == np.int64


# --- Januaries, order, repeats, silence


def shifted(frame, year):
    """January rows of `year` carry the year before."""
    wrong = frame.copy()
    january = (wrong["time"].dt.year == year) & (wrong["time"].dt.month == 1)
    wrong.loc[january, "time"] = wrong.loc[january, "time"] - pd.DateOffset(years=1)
    return wrong, january


def test_januaries_of_the_wrong_year_in_file_order(tmp_path):
    frame, january = shifted(events(), 2024)
    report = read_news(calendar(tmp_path / "a.csv", frame))
    issue = kinds(report)["wrong_year"]
    assert (issue.count, issue.severity) == (january.sum(), "error")
    assert issue.first_row == int(np.flatnonzero(january)[0]) + 2
    assert len(report.events) == len(frame) - january.sum()
    with pytest.raises(BadDataError, match="wrong_year"):
        report.require_clean()


def test_januaries_of_the_wrong_year_after_sorting(tmp_path):
    frame, _ = shifted(events(), 2024)
    report = read_news(calendar(tmp_path / "a.csv", frame.sort_values("time", kind="stable")))
    assert "January 2023 has two payroll days and January 2024 none" in kinds(report)["wrong_year"].message
    assert not report.is_clean


def test_good_januaries_are_left_alone():
    time = pd.date_range("2015-01-01", "2026-12-31", freq="D").as_unit("ns").asi8
    assert not wrong_years(time).any()
    by_currency = np.concatenate([time, time])  # one currency after the other
    assert not wrong_years(by_currency).any()
    assert doubled_januaries(time, np.zeros(len(time), bool)) == []


def test_order_and_repeats(tmp_path):
    frame = events()
    twice = pd.concat([frame.iloc[:9], frame.iloc[[8]], frame.iloc[9:]], ignore_index=True)
    report = read_news(calendar(tmp_path / "a.csv", twice))
    assert (kinds(report)["duplicate"].count, kinds(report)["duplicate"].first_row) == (1, 11)
    assert len(report.events) == len(frame)
    moved = pd.concat([frame.iloc[1:30], frame.iloc[[0]], frame.iloc[30:]], ignore_index=True)
    report = read_news(calendar(tmp_path / "b.csv", moved))
    assert (kinds(report)["out_of_order"].count, kinds(report)["out_of_order"].first_row) == (1, 31)
    assert report.sha256 == read_news(calendar(tmp_path / "c.csv", frame)).sha256


def test_repeats_that_disagree_keep_the_higher_impact(tmp_path):
    frame = events()
    other = frame.iloc[[3]].assign(impact="low" if frame["impact"][3] == "high" else "high")
    report = read_news(calendar(tmp_path / "a.csv", pd.concat([frame, other])))
    assert kinds(report)["duplicate_differs"].severity == "error"
    kept = report.events[(report.events["time"] == frame["time"][3]) & (report.events["event"] == frame["event"][3])]
    assert kept["impact"].tolist() == ["high"]


def test_a_calendar_that_falls_silent(tmp_path):
    frame = events()
    silent = frame[(frame["time"] < "2024-03-03") | (frame["time"] > "2024-04-03")]
    assert kinds(read_news(calendar(tmp_path / "a.csv", silent)))["quiet"].count == 1
    assert "quiet" not in kinds(read_news(calendar(tmp_path / "b.csv", frame)))


# --- coverage


def test_coverage():
    frame = events().assign(time_kind="scheduled")
    first, last = frame["time"].iloc[0], frame["time"].iloc[-1]
    bars = market(96 * 10, start="2024-01-08")
    check_coverage(bars, frame)
    check_coverage(bars.set_axis(pd.date_range(first - pd.Timedelta("24h"), periods=len(bars), freq="15min")), frame)
    early = bars.set_axis(pd.date_range(first - pd.Timedelta("24h15min"), periods=len(bars), freq="15min"))
    with pytest.raises(BadDataError, match=r"1 of 960 bars are not covered.*--no-news"):
        check_coverage(early, frame)
    late = bars.set_axis(pd.date_range(end=last + pd.Timedelta("30min"), periods=len(bars), freq="15min"))
    with pytest.raises(BadDataError, match="2 of 960 bars are not covered"):
        check_coverage(late, frame)
    with pytest.raises(BadDataError, match="no event"):
        check_coverage(bars, frame.iloc[:0])


# --- the real calendar


def test_the_real_calendar(shared_data):
    report = read_news(shared_data / "market/news_2015_2026.csv.gz")
    assert isinstance(report, NewsReport)
    assert len(report.events) == 46_565
    assert "143 of 143 payroll rows" in kinds(report)["clock"].message
    assert {i.severity for i in report.issues} == {"info"}
    timed, untimed = high_impact_usd(report)
    assert (len(timed), len(untimed)) == (3718, 7)
    assert report.covers_until.year == 2026


def test_the_real_calendar_with_its_clock_broken(shared_data, tmp_path):
    real = read_news(shared_data / "market/news_2015_2026.csv.gz").events
    usd = real[(real["currency"] == "USD") & (real["time_kind"] == "scheduled")]
    file = calendar(tmp_path / "a.csv", usd.assign(event=usd["event"].str.replace(",", " ")), "%Y.%m.%d %H:%M", tz="Europe/Athens")
    with pytest.raises(BadDataError, match=r"--news-tz broker-eu.*143 of 143 do"):
        read_news(file)
    assert read_news(file, tz="broker-eu").events["time"].tolist() == usd["time"].tolist()
