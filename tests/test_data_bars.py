"""Bars of any broker: the awkward inputs of the specification, each with its count and its first row."""

import itertools
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from bars_files import COLUMNS, kinds, lines, market, weekly, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trademl.data.bars import BarsReport, bars_hash, inspect_bars, read_bars, write_bars
from trademl.errors import BadDataError, UsageError


def same(report: BarsReport, frame: pd.DataFrame, spread=False):
    """The report's bars are `frame`, to the last bit."""
    wanted = frame[[*COLUMNS, *(["spread"] if spread else [])]].astype(float)
    pd.testing.assert_frame_equal(report.bars, wanted, check_freq=False, check_exact=True)


def changed(frame, row, **cells):
    """Lines of a CSV with some cells of data row `row` (0-based) replaced."""
    rows = lines(frame)
    fields = rows[row + 1].split(",")
    for name, value in cells.items():
        fields[("time", *COLUMNS).index(name)] = value
    rows[row + 1] = ",".join(fields)
    return rows


# --- the canonical form


def test_the_canonical_frame(tmp_path):
    frame = market()
    report = read_bars(write(tmp_path / "a.csv", lines(frame)))
    same(report, frame)
    assert report.bars.index.name == "time"
    assert str(report.bars.index.dtype) == "datetime64[ns, UTC]"
    assert report.is_clean
    assert report.require_clean() is report
    assert {i.severity for i in report.issues} == {"info"}
    assert (report.source.rows_read, report.source.rows_kept, report.source.tz, report.source.stamp) == (300, 300, "UTC", "open")
    assert inspect_bars(report.bars) == ()


def test_the_hash_is_of_the_bars_and_not_of_the_file(tmp_path):
    frame = market()
    hashes = {bars_hash(frame)}
    for name in ("a.csv", "a.csv.gz", "a.parquet", "a.feather"):
        hashes.add(write_bars(frame, tmp_path / name))
        hashes.add(read_bars(tmp_path / name).sha256)
    assert len(hashes) == 1
    other = frame.copy()
    other.iloc[7, 3] = np.nextafter(other.iloc[7, 3], np.inf)
    assert bars_hash(other) not in hashes
    assert bars_hash(frame.assign(spread=1.0)) not in hashes
    assert bars_hash(frame.set_axis(frame.index + pd.Timedelta("15min"))) not in hashes


def test_imported_bars_that_were_edited_are_refused(tmp_path):
    file = tmp_path / "a.parquet"
    write_bars(market(), file)
    data = pa.parquet.read_table(file)
    pa.parquet.write_table(data.set_column(5, "volume", pa.array(np.ones(len(data)))), file)
    with pytest.raises(BadDataError, match="holds other bars"):
        read_bars(file)


# --- rows that cannot be bars: left out, counted, placed


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    ("value", "kind"), [("", "nan"), ("NaN", "nan"), ("inf", "inf"), ("-inf", "inf"), ("abc", "text"), ("12..5", "text")]
)
def test_cells_that_are_not_numbers(tmp_path, column, value, kind):
    frame = market()
    file = write(tmp_path / "a.csv", changed(frame, 41, **{column: value}))
    report = read_bars(file)
    issue = kinds(report)[kind]
    assert (issue.count, issue.first_row, issue.severity) == (1, 43, "error")  # header is line 1
    assert "a.csv line 43 (row 42)" in issue.message
    assert column in issue.message
    same(report, frame.drop(frame.index[41]))
    assert "gap" not in kinds(report)  # said once
    with pytest.raises(BadDataError, match="line 43"):
        read_bars(file, strict=True)
    with pytest.raises(BadDataError, match=r"trademl data repair .*--dry-run"):
        report.require_clean()


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ({"low": "0"}, "not_positive"),
        ({"close": "-42000"}, "not_positive"),
        ({"high": "1"}, "ohlc"),
        ({"close": "99999"}, "ohlc"),
        ({"open": "1"}, "ohlc"),
        ({"volume": "-3"}, "negative_volume"),
    ],
)
def test_candles_that_cannot_be(tmp_path, cells, kind):
    frame = market()
    file = write(tmp_path / "a.csv", changed(frame, 10, **cells))
    report = read_bars(file)
    assert (kinds(report)[kind].count, kinds(report)[kind].first_row) == (1, 12)
    assert next(iter(cells.values())) in kinds(report)[kind].message
    same(report, frame.drop(frame.index[10]))
    with pytest.raises(BadDataError, match=kind):
        read_bars(file, strict=True)


def test_several_faults_are_counted_and_the_first_is_named(tmp_path):
    frame = market()
    rows = lines(frame)
    for row in (250, 30, 90):
        rows[row] = rows[row].rsplit(",", 1)[0] + ",nan"
    issue = kinds(read_bars(write(tmp_path / "a.csv", rows)))["nan"]
    assert (issue.count, issue.first_row) == (3, 31)


def test_a_file_that_is_mostly_wrong_is_refused(tmp_path):
    rows = lines(market())
    rows = rows[:1] + [r.rsplit(",", 1)[0] + ",nan" if i % 3 else r for i, r in enumerate(rows[1:])]
    with pytest.raises(BadDataError, match="200 of 300 rows cannot be bars"):
        read_bars(write(tmp_path / "a.csv", rows))


# --- kept, and said


def test_gap(tmp_path):
    frame = market()
    report = read_bars(write(tmp_path / "a.csv", lines(frame.drop(frame.index[[50, 51, 120]]))))
    issue = kinds(report)["gap"]
    assert (issue.count, issue.first_row, issue.severity) == (3, 52, "warning")
    assert "3 bars missing in 2 gaps" in issue.message
    assert len(report.bars) == 297  # nothing is filled in


def test_weekends_are_not_gaps(tmp_path):
    frame = weekly()
    report = read_bars(write(tmp_path / "a.csv", lines(frame, decimals=5)))
    assert "gap" not in kinds(report)
    assert kinds(report)["closure"].count == 8
    read_bars(tmp_path / "a.csv", strict=True)
    holed = frame.drop(frame.index[[200, 201]])
    assert kinds(read_bars(write(tmp_path / "b.csv", lines(holed, decimals=5))))["gap"].count == 2


def test_a_weekend_without_bars_in_a_market_that_never_closes_is_a_gap():
    frame = market(96 * 28)
    day = frame.index.day_of_week
    third = (frame.index >= "2024-01-20") & (frame.index < "2024-01-22") & (day >= 5)
    (issue,) = [i for i in inspect_bars(frame[~third]) if i.kind == "gap"]
    assert issue.count == 192


def test_a_daily_break_and_christmas_are_closures():
    frame = weekly(weeks=10, start="2023-11-20")
    ny = frame.index.tz_convert("America/New_York")
    christmas = (frame.index >= "2023-12-25") & (frame.index < "2023-12-26")
    metal = frame[~((ny.hour == 17) | christmas)]
    issues = {i.kind: i for i in inspect_bars(metal)}
    assert "gap" not in issues
    assert issues["closure"].count > 40


def test_halts_and_flat_bars(tmp_path):
    frame = market()
    frame.iloc[100:104, 4] = 0.0
    frame.iloc[200, :4] = 42_000.0
    frame.iloc[200, 4] = 0.0
    report = read_bars(write(tmp_path / "a.csv", lines(frame)))
    found = kinds(report)
    assert (found["zero_volume"].count, found["zero_volume"].first_row) == (5, 102)
    assert "2 runs" in found["zero_volume"].message
    assert (found["zero_range"].count, found["zero_range"].first_row) == (1, 202)
    same(report, frame)


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_a_spike_is_reported_and_kept(tmp_path, factor):
    frame = market()
    frame.iloc[77, :4] = (frame.iloc[77, :4] * factor).round(2)
    report = read_bars(write(tmp_path / "a.csv", lines(frame)))
    assert (kinds(report)["spike"].count, kinds(report)["spike"].first_row) == (1, 79)
    same(report, frame)
    with pytest.raises(BadDataError, match="spike"):
        read_bars(tmp_path / "a.csv", strict=True)


def test_a_crash_of_eleven_percent_is_not_a_spike():
    frame = market()
    frame.iloc[150:, :4] *= 0.891
    frame.iloc[150, 0] = frame.iloc[149, 3]
    frame.iloc[150, 1] = frame.iloc[149, 3]
    assert "spike" not in {i.kind for i in inspect_bars(frame)}


def test_made_up_data_are_called_that():
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, 3000)))
    frame = market(3000)
    frame[["open", "high", "low", "close"]] = np.stack([close, close * 1.001, close * 0.999, close], axis=1)
    assert "synthetic" in {i.kind for i in inspect_bars(frame)}
    assert "synthetic" not in {i.kind for i in inspect_bars(market(3000))}


# --- order and repeats


def test_duplicates_with_the_same_values(tmp_path):
    frame = market()
    rows = lines(frame)
    report = read_bars(write(tmp_path / "a.csv", [*rows[:50], rows[49], *rows[50:]]))
    issue = kinds(report)["duplicate"]
    assert (issue.count, issue.first_row, issue.severity) == (1, 51, "warning")
    assert "repeats line 50" in issue.message
    assert "out_of_order" not in kinds(report)
    same(report, frame)


def test_duplicates_with_other_values_keep_the_last_and_are_errors(tmp_path):
    frame = market()
    rows = lines(frame)
    other = rows[49].rsplit(",", 1)[0] + ",777"
    report = read_bars(write(tmp_path / "a.csv", [*rows, other]))
    issue = kinds(report)["duplicate_differs"]
    assert (issue.count, issue.first_row, issue.severity) == (1, 302, "error")
    frame.iloc[48, 4] = 777.0
    same(report, frame)
    with pytest.raises(BadDataError, match="repeats line 50"):
        report.require_clean()


def test_out_of_order(tmp_path):
    frame = market()
    rows = lines(frame)
    rows[20], rows[21] = rows[21], rows[20]
    report = read_bars(write(tmp_path / "a.csv", rows))
    issue = kinds(report)["out_of_order"]
    assert (issue.count, issue.first_row) == (1, 22)
    same(report, frame)


def test_newest_first(tmp_path):
    frame = market()
    rows = lines(frame)
    report = read_bars(write(tmp_path / "a.csv", rows[:1] + rows[:0:-1]))
    assert "out_of_order" not in kinds(report)
    assert kinds(report)["newest_first"].count == 300
    same(report, frame)


# --- the last bar


def test_the_bar_that_is_still_open_is_dropped(tmp_path):
    frame = market()
    file = write(tmp_path / "a.csv", lines(frame))
    now = frame.index[-1].to_pydatetime().replace(tzinfo=UTC)
    for moment, kept in ((now, 299), (now + pd.Timedelta("14min59s"), 299), (now + pd.Timedelta("15min"), 300)):
        report = read_bars(file, now=moment)
        assert len(report.bars) == kept
        assert ("forming" in kinds(report)) == (kept == 299)
    issue = kinds(read_bars(file, now=now))["forming"]
    assert (issue.count, issue.first_row, issue.severity) == (1, 301, "warning")


def test_the_forming_bar_is_seen_without_being_told_the_time(tmp_path):
    now = pd.Timestamp(datetime.now(UTC)).floor("15min")
    frame = market(100, start=now - 99 * pd.Timedelta("15min"))
    report = read_bars(write(tmp_path / "a.csv", lines(frame)))
    assert len(report.bars) in (99, 100)  # 100 only if the quarter ended meanwhile
    assert report.bars.index[-1] + pd.Timedelta("15min") <= pd.Timestamp(datetime.now(UTC))


def test_a_last_stamp_off_the_grid_is_a_forming_bar_and_one_inside_is_an_error(tmp_path):
    frame = market()
    report = read_bars(write(tmp_path / "a.csv", changed(frame, 299, time="2024-01-11T02:48:13Z")))
    assert kinds(report)["forming"].first_row == 301
    same(report, frame.iloc[:-1])
    report = read_bars(write(tmp_path / "a.csv", changed(frame, 20, time=f"{frame.index[20]:%Y-%m-%dT%H:%M}:07Z")))
    assert (kinds(report)["off_grid"].count, kinds(report)["off_grid"].first_row) == (1, 22)


def test_a_thin_last_bar_is_only_mentioned(tmp_path):
    frame = market()
    frame.iloc[-1, 4] = 0.01
    report = read_bars(write(tmp_path / "a.csv", lines(frame)))
    assert kinds(report)["last_bar"].severity == "info"
    same(report, frame)


def test_bars_after_now_are_mentioned(tmp_path):
    report = read_bars(write(tmp_path / "a.csv", lines(market())), now=datetime(2024, 1, 9, 0, 5, tzinfo=UTC))
    assert kinds(report)["future"].count == 300 - 97


# --- files that are not bars


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["time,open,high,low,close,volume"], "a header and no rows"),
        (["time,open,high,low,volume", "2024-01-02T00:00Z,1,1,1,1"], "no column for 'close'"),
        (["open,high,low,close,volume", "1,2,1,1,1"], "no column for 'time'"),
        (["time,open,high,low,close", "2024-01-02T00:00Z,1,1,1,1"], "no column for 'volume'"),
        (["time,open,high,low,close,close,volume", "2024-01-02T00:00Z,1,1,1,1,1,1"], "2 columns are called 'close'"),
        (["time,open,high,low,close,volume", "2024-01-02T00:00Z,a,b,c,d,e"], "is not a number"),
        (["time,open,high,low,close,volume", "yesterday,1,1,1,1,1", "today,1,1,1,1,1"], "is not a date"),
    ],
)
def test_what_is_not_a_file_of_bars(tmp_path, rows, says):
    with pytest.raises(BadDataError, match=says):
        read_bars(write(tmp_path / "a.csv", rows))


def test_an_extra_column_is_not_read_and_said(tmp_path):
    frame = market()
    rows = [r + (",note" if i == 0 else ",x") for i, r in enumerate(lines(frame))]
    report = read_bars(write(tmp_path / "a.csv", rows))
    assert kinds(report)["unused_columns"].first_value == "note"
    same(report, frame)


@pytest.mark.parametrize(("step", "name"), [("1min", "M1"), ("5min", "M5"), ("30min", "M30"), ("1h", "H1"), ("4h", "H4"), ("1D", "D1")])
def test_other_timeframes_are_refused(tmp_path, step, name):
    with pytest.raises(BadDataError, match=rf"\({name}\).*export the M15 chart"):
        read_bars(write(tmp_path / "a.csv", lines(market(step=step))))


def test_bars_off_the_quarters_are_refused(tmp_path):
    with pytest.raises(BadDataError, match="7 minutes past the quarter"):
        read_bars(write(tmp_path / "a.csv", lines(market(start="2024-01-08 00:07"))))


def test_junk_at_the_edges_goes_and_inside_is_an_error(tmp_path):
    frame = market()
    rows = lines(frame)
    report = read_bars(write(tmp_path / "a.csv", ["Exported by X", "", *rows, "-- end --", "-- x -- 2024-01-11T03:00:00Z,1,1,1,1,1"]))
    issue = kinds(report)["junk"]
    assert (issue.count, issue.first_row, issue.severity) == (3, 1, "warning")
    same(report, frame)
    torn = [*rows[:60], rows[60][:25], *rows[61:]]
    report = read_bars(write(tmp_path / "b.csv", torn))
    assert (kinds(report)["junk_inside"].count, kinds(report)["junk_inside"].first_row) == (1, 61)
    with pytest.raises(BadDataError, match="junk_inside"):
        report.require_clean()


# --- how it is written


@pytest.mark.parametrize(
    ("encoding", "newline"), [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("utf-16-le", "\n")]
)
def test_marks_and_line_ends(tmp_path, encoding, newline):
    frame = market()
    same(read_bars(write(tmp_path / "a.csv", lines(frame), newline, encoding)), frame)


@pytest.mark.parametrize("sep", [";", "\t", "|"])
def test_separators_and_decimal_comma(tmp_path, sep):
    frame = market()
    rows = [r.replace(".", ",") for r in lines(frame, sep=sep)]
    report = read_bars(write(tmp_path / "a.csv", rows))
    assert "decimal comma" in kinds(report)["form"].message
    same(report, frame)


@pytest.mark.parametrize(
    "header",
    [
        "Date,Open,High,Low,Close,Volume",
        "timestamp,O,H,L,C,V",
        "datetime,open_price,high_price,low_price,close_price,vol",
        "Gmt time,Open,High,Low,Close,Volume",
        "time (UTC),BTCUSD.Open,BTCUSD.High,BTCUSD.Low,BTCUSD.Close,BTCUSD.Volume",
        ",open,high,low,close,volume",
        "<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
    ],
)
def test_spellings_of_the_header(tmp_path, header):
    frame = market()
    same(read_bars(write(tmp_path / "a.csv", lines(frame, header=header))), frame)


@pytest.mark.parametrize("order", list(itertools.permutations(range(6)))[::97])
def test_any_order_of_columns(tmp_path, order):
    frame = market(50)
    rows = [",".join(np.array(r.split(","))[list(order)]) for r in lines(frame)]
    same(read_bars(write(tmp_path / "a.csv", rows)), frame)


def test_bid_is_taken_and_not_ask(tmp_path):
    frame = market(50)
    rows = lines(frame, header="time,bid_open,bid_high,bid_low,bid_close,volume")
    rows = [r + (",ask_open,ask_close" if i == 0 else ",1,2") for i, r in enumerate(rows)]
    same(read_bars(write(tmp_path / "a.csv", rows)), frame)


# --- MetaTrader and exchanges


def test_mt4_without_a_header(tmp_path):
    frame = market()
    rows = lines(frame, stamps="%Y.%m.%d,%H:%M", header="")
    report = read_bars(write(tmp_path / "a.csv", rows), tz="UTC")
    same(report, frame)
    assert report.source.tz == "UTC"


def test_mt5_with_tabs_two_volumes_and_a_spread_in_points(tmp_path):
    frame = market()
    frame["volume"] = np.arange(300) + 1.0
    header = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
    rows = [header, *(r + "\t0\t1695" for r in lines(frame, stamps="%Y.%m.%d\t%H:%M:%S", sep="\t", header=""))]
    report = read_bars(write(tmp_path / "a.csv", rows), tz="UTC")
    same(report, frame.assign(spread=1695 * 0.01), spread=True)
    assert "<TICKVOL>" in kinds(report)["volume_column"].message
    assert report.source.point == 0.01
    bare = read_bars(write(tmp_path / "b.csv", rows[1:]), tz="UTC")
    assert bare.sha256 == report.sha256
    assert read_bars(tmp_path / "a.csv", tz="UTC", point=0.1).bars["spread"].iloc[0] == 169.5


def test_real_volume_is_taken_where_there_is_some(tmp_path):
    frame = market()
    rows = [
        r + (",tick_volume,spread" if i == 0 else ",99,16.95")
        for i, r in enumerate(lines(frame, header="time,open,high,low,close,real_volume"))
    ]
    report = read_bars(write(tmp_path / "a.csv", rows))
    same(report, frame.assign(spread=16.95), spread=True)  # a spread with decimals is in price units
    assert report.source.point == 0.0


def test_a_spread_in_points_of_unknown_size_is_not_read(tmp_path):
    frame = market(decimals=0)
    rows = [r + (",spread" if i == 0 else ",17") for i, r in enumerate(lines(frame, decimals=0))]
    report = read_bars(write(tmp_path / "a.csv", rows))
    assert kinds(report)["spread_unknown"].severity == "warning"
    assert "spread" not in report.bars
    assert read_bars(tmp_path / "a.csv", point=1.0).bars["spread"].iloc[0] == 17.0


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("µs", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("header", ["open_time,open,high,low,close,volume", ""])
def test_epochs(tmp_path, unit, per_second, header):
    frame = market()
    stamps = [str(int(t.timestamp()) * per_second) for t in frame.index]
    report = read_bars(write(tmp_path / "a.csv", lines(frame, stamps=stamps, header=header)))
    assert f"epoch {unit}" in kinds(report)["clock"].message
    same(report, frame)


@pytest.mark.parametrize("with_header", [True, False])
@pytest.mark.parametrize("unit", [10**3, 10**6])
def test_exchange_klines(tmp_path, with_header, unit):
    frame = market()
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
    stamps = [str(int(t.timestamp()) * unit) for t in frame.index]
    ends = [str((int(t.timestamp()) + 900) * unit - 1) for t in frame.index]
    rows = [f"{r},{e},12.5,7,3.5,4.5,0" for r, e in zip(lines(frame, stamps=stamps, header=""), ends, strict=True)]
    file = write(tmp_path / "a.csv", ([header] if with_header else []) + rows)
    same(read_bars(file), frame)
    if with_header:
        closed = read_bars(file, stamp="close")  # takes the close_time column: the same bars
        assert closed.source.stamp == "close"
        same(closed, frame)


def test_archives_that_change_their_unit(tmp_path):
    frame = market(start="2024-12-31")
    stamps = [str(int(t.timestamp()) * (10**3 if t.year == 2024 else 10**6)) for t in frame.index]
    report = read_bars(write(tmp_path / "a.csv", lines(frame, stamps=stamps)))
    assert "epoch ms and µs" in kinds(report)["clock"].message
    same(report, frame)


def test_the_year_1970(tmp_path):
    frame = market()
    seconds = [int(t.timestamp()) for t in frame.index]
    with pytest.raises(BadDataError, match="not an epoch"):
        read_bars(write(tmp_path / "a.csv", lines(frame, stamps=[f"{s / 1000:.3f}" for s in seconds])))
    stamps = [pd.Timestamp(s, unit="us", tz="UTC").isoformat() for s in seconds]
    with pytest.raises(BadDataError, match=r"row 1\).*1970"):
        read_bars(write(tmp_path / "b.csv", lines(frame, stamps=stamps)))


def test_date_and_time_as_whole_numbers(tmp_path):
    frame = market()
    same(read_bars(write(tmp_path / "a.csv", lines(frame, stamps="%Y%m%d %H%M%S", header="", sep=";")), tz="UTC"), frame)
    same(read_bars(write(tmp_path / "b.csv", lines(frame, stamps="%Y%m%d%H%M")), tz="UTC"), frame)
    header = "<DTYYYYMMDD>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>"
    same(read_bars(write(tmp_path / "c.csv", lines(frame, stamps="%Y%m%d,%H%M%S", header=header)), tz="UTC"), frame)


def test_unix_and_date_side_by_side(tmp_path):
    frame = market()
    stamps = [f"{int(t.timestamp())},{t:%Y-%m-%d %H:%M:%S},BTC/USD" for t in frame.index]
    header = "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD"
    rows = [r + ("" if i == 0 else ",1") for i, r in enumerate(lines(frame, stamps=stamps, header=header))]
    rows = ["https://www.example.org", rows[0], *rows[:0:-1]]
    same(read_bars(write(tmp_path / "a.csv", rows)), frame)


@pytest.mark.parametrize(
    "stamps", ["%d.%m.%Y %H:%M:%S.000 GMT+0000", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M", "%d-%b-%Y %H:%M", "%b %d, %Y %H:%M"]
)
def test_spellings_of_dates(tmp_path, stamps):
    frame = market(96 * 10)
    tz = None if "GMT" in stamps else "UTC"
    rows = lines(frame, stamps=stamps, sep=";")
    same(read_bars(write(tmp_path / "a.csv", rows), tz=tz), frame)


def test_dates_that_can_be_read_both_ways(tmp_path):
    frame = market(90, start="2024-03-04")
    with pytest.raises(BadDataError, match="day first or month first"):
        read_bars(write(tmp_path / "a.csv", lines(frame, stamps="%d/%m/%Y %H:%M")), tz="UTC")
    longer = market(96 * 4, start="2024-03-03")  # never above 12, and only one reading runs on
    same(read_bars(write(tmp_path / "b.csv", lines(longer, stamps="%d/%m/%Y %H:%M")), tz="UTC"), longer)


# --- clocks


def wall(frame, key, shift="0h", form="%Y.%m.%d %H:%M"):
    return (frame.index.tz_convert(key).tz_localize(None) + pd.Timedelta(shift)).strftime(form)


CLOCKS = {"broker-eu": ("Europe/Athens", "0h"), "broker-us": ("America/New_York", "7h"), "UTC": ("UTC", "0h")}


@pytest.mark.parametrize("clock", [*CLOCKS, "America/New_York", "Europe/Berlin"])
def test_a_market_with_weekends_tells_its_clock(tmp_path, clock):
    frame = weekly(12)
    key, shift = CLOCKS.get(clock, (clock, "0h"))
    file = write(tmp_path / "a.csv", lines(frame, stamps=wall(frame, key, shift), decimals=5))
    with pytest.raises(BadDataError, match=f"--tz {clock}.* fits best: 12 of 12 market closes") as refusal:
        read_bars(file)
    assert "trademl data import" in str(refusal.value)
    report = read_bars(file, tz=clock)
    same(report, frame)
    assert "clock_doubtful" not in kinds(report)
    with pytest.raises(BadDataError, match=f"the clock \\+09:00 is disproved: 0 of 12 .* Read it with --tz {clock}"):
        read_bars(file, tz="+09:00")
    wrong = read_bars(file, tz="+09:00", accept=("clock",))
    assert clock in kinds(wrong)["clock_doubtful"].remedy


def test_a_market_that_never_closes_tells_nothing_and_is_refused(tmp_path):
    frame = market()
    file = write(tmp_path / "a.csv", lines(frame, stamps="%Y-%m-%d %H:%M:%S"))
    with pytest.raises(BadDataError, match=r"carry no zone.*--tz UTC.*--tz broker-eu.*\+02:00"):
        read_bars(file)
    same(read_bars(file, tz="UTC"), frame)
    moved = read_bars(file, tz="+02:00")
    assert moved.bars.index[0] == frame.index[0] - pd.Timedelta("2h")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "broker-eu", "broker-us", "America/New_York", "Europe/London"])
@pytest.mark.parametrize("year", [2023, 2025])
def test_daylight_saving_both_ways(tmp_path, zone, year):
    frame = market(96 * 280, start=f"{year}-02-20")
    key, shift = CLOCKS.get(zone, (zone, "0h"))
    file = write(tmp_path / "a.csv", lines(frame, stamps=wall(frame, key, shift)))
    report = read_bars(file, tz=zone)
    same(report, frame)
    assert not {"gap", "duplicate", "out_of_order", "ambiguous_hour"} & set(kinds(report))
    with pytest.raises(BadDataError, match=f"--tz {zone}"):
        read_bars(file)  # the jumps give it away


def test_an_hour_that_the_clock_skips_proves_the_clock_wrong(tmp_path):
    frame = market(96 * 3, start="2026-03-28")
    file = write(tmp_path / "a.csv", lines(frame, stamps="%Y-%m-%d %H:%M"))
    with pytest.raises(BadDataError, match=r"line 106 \(row 105\).*Europe/Berlin never showed '2026-03-29 02:00'"):
        read_bars(file, tz="Europe/Berlin")


def test_a_repeated_hour_that_is_there_once_is_said(tmp_path):
    frame = market(96 * 3, start="2025-10-25")
    stamps = wall(frame, "Europe/Berlin", form="%Y-%m-%d %H:%M")
    rows = lines(frame, stamps=stamps)
    once = [rows[0], *dict.fromkeys(sorted(rows[1:], key=lambda r: r[:16]))]
    seen, kept = set(), once[:1]
    for row in once[1:]:
        if row[:16] not in seen:
            kept.append(row)
        seen.add(row[:16])
    report = read_bars(write(tmp_path / "a.csv", kept), tz="Europe/Berlin")
    assert kinds(report)["ambiguous_hour"].count == 4


def test_a_zone_beside_the_stamps_wins(tmp_path):
    frame = market()
    stamps = frame.index.tz_convert("Europe/Berlin").strftime("%Y-%m-%d %H:%M:%S%z")
    file = write(tmp_path / "a.csv", lines(frame, stamps=stamps))
    same(read_bars(file), frame)
    same(read_bars(file, tz="Europe/Berlin"), frame)
    ignored = read_bars(file, tz="UTC")
    same(ignored, frame)
    assert kinds(ignored)["tz_ignored"].severity == "warning"
    with pytest.raises(BadDataError, match="tz_ignored"):
        read_bars(file, tz="UTC", strict=True)


def test_an_epoch_of_broker_time(tmp_path):
    frame = weekly(6)
    digits = frame.index.tz_convert("Europe/Athens").tz_localize(None)
    file = write(tmp_path / "a.csv", lines(frame, stamps=[str(t.value // 10**9) for t in digits], decimals=5))
    lied = read_bars(file)
    assert "--tz wall:broker-eu" in kinds(lied)["clock_doubtful"].remedy
    with pytest.raises(BadDataError, match="--tz wall:broker-eu"):
        read_bars(file, tz="broker-eu")
    same(read_bars(file, tz="wall:broker-eu"), frame)


def test_some_rows_with_a_zone_and_some_without(tmp_path):
    rows = lines(market())
    rows[9] = rows[9].replace("Z", "")
    with pytest.raises(BadDataError, match=r"row 9: .*has no zone"):
        read_bars(write(tmp_path / "a.csv", rows))


def test_unknown_choices(tmp_path):
    file = write(tmp_path / "a.csv", lines(market()))
    with pytest.raises(UsageError, match="broker-eu"):
        read_bars(file, tz="Mars/Base")
    with pytest.raises(UsageError, match="open, close"):
        read_bars(file, stamp="middle")
    with pytest.raises(UsageError, match="clock, flat"):
        read_bars(file, accept=["gaps"])


# --- open or close


@pytest.mark.parametrize(
    ("behind", "form"), [("1ms", "%Y-%m-%d %H:%M:%S.%f+00:00"), ("1s", "%Y-%m-%dT%H:%M:%SZ"), ("1us", "%Y-%m-%dT%H:%M:%S.%fZ")]
)
def test_last_instants_are_closes(tmp_path, behind, form):
    frame = market()
    ends = (frame.index + pd.Timedelta("15min") - pd.Timedelta(behind)).strftime(form)
    file = write(tmp_path / "a.csv", lines(frame, stamps=ends))
    report = read_bars(file)
    same(report, frame)
    assert report.source.stamp == "close"
    assert kinds(report)["stamp"].severity == "info"
    same(read_bars(file, stamp="close"), frame)
    with pytest.raises(BadDataError, match="cannot be its open"):
        read_bars(file, stamp="open")


@pytest.mark.parametrize("name", ["close_time", "Close time", "closeTime", "time_close", "end", "close_datetime"])
def test_a_column_of_closes(tmp_path, name):
    frame = market()
    file = write(
        tmp_path / "a.csv", lines(frame.set_axis(frame.index + pd.Timedelta("15min")), header=f"{name},open,high,low,close,volume")
    )
    same(read_bars(file), frame)
    with pytest.raises(BadDataError, match="--stamp open contradicts"):
        read_bars(file, stamp="open")


def test_told_closes(tmp_path):
    frame = market()
    file = write(tmp_path / "a.csv", lines(frame.set_axis(frame.index + pd.Timedelta("15min"))))
    assert read_bars(file).source.stamp == "open"
    same(read_bars(file, stamp="close"), frame)


def test_weeks_tell_the_convention(tmp_path):
    frame = weekly()
    late = frame.set_axis(frame.index + pd.Timedelta("15min"))
    file = write(tmp_path / "a.csv", lines(late, decimals=5))
    with pytest.raises(BadDataError, match="say --stamp close"):
        read_bars(file)
    same(read_bars(file, stamp="close"), frame)
    same(read_bars(file, stamp="open"), late)
    assert "stamp_doubtful" in kinds(read_bars(file, stamp="open"))


def test_full_days_of_closes_are_doubted(tmp_path):
    frame = market(96 * 5).iloc[:-1]
    late = market(96 * 5).set_axis(market(96 * 5).index + pd.Timedelta("15min"))
    assert "stamp_doubtful" in kinds(read_bars(write(tmp_path / "a.csv", lines(late))))
    assert "stamp_doubtful" not in kinds(read_bars(write(tmp_path / "b.csv", lines(frame))))


# --- columnar files


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_typed_stamps_of_any_unit(tmp_path, unit, kind):
    frame = market()
    data = {"time": pa.array(frame.index.as_unit(unit).asi8, pa.timestamp(unit, tz="UTC"))} | {c: frame[c].to_numpy() for c in COLUMNS}
    file = tmp_path / "a"
    (pa.parquet.write_table if kind == "parquet" else pa.feather.write_feather)(pa.table(data), file)
    same(read_bars(file), frame)
    data["time"] = pa.array(frame.index.as_unit(unit).asi8, pa.timestamp(unit))
    (pa.parquet.write_table if kind == "parquet" else pa.feather.write_feather)(pa.table(data), file)
    with pytest.raises(BadDataError, match="carry no zone"):
        read_bars(file)
    same(read_bars(file, tz="UTC"), frame)


def test_frames_that_pandas_wrote(tmp_path):
    frame = market()
    frame.to_parquet(tmp_path / "a.parquet")
    same(read_bars(tmp_path / "a.parquet"), frame)
    frame.reset_index().to_feather(tmp_path / "a.feather")
    same(read_bars(tmp_path / "a.feather"), frame)
    frame.to_csv(tmp_path / "a.csv")
    same(read_bars(tmp_path / "a.csv"), frame)
    frame.rename_axis(None).to_parquet(tmp_path / "b.parquet")
    same(read_bars(tmp_path / "b.parquet"), frame)


def test_nulls_in_parquet(tmp_path):
    frame = market()
    frame.iloc[5, 3] = np.nan
    frame.to_parquet(tmp_path / "a.parquet")
    issue = kinds(read_bars(tmp_path / "a.parquet"))["nan"]
    assert (issue.count, issue.first_row) == (1, 6)


# --- any frame, any dialect


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip_of_any_frame_in_any_dialect(tmp_path, data):
    rows = data.draw(st.integers(1, 60), "rows")
    start = data.draw(st.datetimes(datetime(2001, 1, 1), datetime(2035, 1, 1)), "start").replace(minute=0, second=0, microsecond=0)
    decimals = data.draw(st.integers(1, 5), "decimals")
    frame = market(
        rows, start=start, seed=data.draw(st.integers(0, 9), "seed"), decimals=decimals, price=data.draw(st.sampled_from([1.07, 64_000.0]))
    )
    form = data.draw(st.sampled_from(["csv", "csv.gz", "parquet", "feather"]), "form")
    file = tmp_path / f"a.{form}"
    now = datetime(2040, 1, 1, tzinfo=UTC)
    if form in ("parquet", "feather", "csv.gz"):
        sha256 = write_bars(frame, file)
        report = read_bars(file, now=now)
        assert report.sha256 == sha256
        same(report, frame)
        return
    sep = data.draw(st.sampled_from([",", ";", "\t"]), "separator")
    comma = sep != "," and data.draw(st.booleans(), "decimal comma")
    tz = data.draw(st.sampled_from([None, "UTC", "+05:30", "-03:00", "broker-us", "Asia/Tokyo"]), "clock")
    close = data.draw(st.booleans(), "close stamps")
    stamped = frame.set_axis(frame.index + pd.Timedelta("15min" if close else "0min"))
    if tz is None:
        stamps = stamped.index.strftime("%Y-%m-%dT%H:%M:%SZ")
    else:
        key, shift = {"broker-us": ("America/New_York", "7h"), "+05:30": ("UTC", "330min"), "-03:00": ("UTC", "-180min")}.get(
            tz, (tz, "0h")
        )
        stamps = wall(stamped, key, shift, data.draw(st.sampled_from(["%Y-%m-%d %H:%M", "%Y.%m.%d %H:%M:%S"]), "spelling"))
    body = lines(stamped, stamps=stamps, sep=sep, decimals=decimals)
    if comma:
        body = [
            r if i == 0 else sep.join([f if k == 0 else f.replace(".", ",") for k, f in enumerate(r.split(sep))])
            for i, r in enumerate(body)
        ]
    write(file, body, data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    report = read_bars(file, tz=tz, stamp="close" if close else "open", now=now)
    np.testing.assert_array_equal(report.bars.index.asi8, frame.index.asi8)
    np.testing.assert_allclose(report.bars[list(COLUMNS)], frame[list(COLUMNS)], rtol=1e-5)


# --- the three real files


def test_the_real_mt5_file(shared_data):
    report = read_bars(shared_data / "import/mt5_btcusd_m15_utc.csv.gz")
    found = kinds(report)
    assert len(report.bars) == 36_563
    assert (found["gap"].count, found["gap"].first_row) == (13, 16_578)
    assert "tick_volume" in found["volume_column"].message
    assert report.bars["spread"].min() == 10.0
    assert report.bars["spread"].max() == 36.0


def test_the_real_mt4_file(shared_data):
    file = shared_data / "import/mt4_eurusd_m15_eet_junk_tail.csv.gz"
    with pytest.raises(BadDataError, match="--tz broker-eu fits best: 137 of 138"):
        read_bars(file)
    report = read_bars(file, tz="broker-eu")
    found = kinds(report)
    assert len(report.bars) == 65_534
    assert (found["junk"].count, found["junk"].first_row) == (2, 65_535)
    ny = report.bars.index.tz_convert("America/New_York")
    friday = ny[:-1][(ny[1:] - ny[:-1]) > pd.Timedelta("1D")]
    assert (friday.strftime("%a %H:%M") == "Fri 16:45").mean() > 0.95  # the week's last bar ends at 17:00 New York, all year
    with pytest.raises(BadDataError, match="the clock broker-us is disproved: 127 of 138"):
        read_bars(file, tz="broker-us")
    other = read_bars(file, tz="broker-us", accept=("clock",))
    assert kinds(other)["clock_doubtful"].first_value == "broker-us"


def test_the_real_exchange_file_agrees_with_an_independent_copy(shared_data):
    report = read_bars(shared_data / "import/binance_btcusdt_m15_close_stamped_plus01.csv.gz")
    assert len(report.bars) == 34_945
    assert report.source.stamp == "close"
    truth = read_bars(shared_data / "market/btcusd_m15_2024-04_2026-04.csv.gz")
    assert len(truth.bars) == 70_150
    assert {i.severity for i in truth.issues} == {"info"}
    both = report.bars.index.intersection(truth.bars.index)
    assert len(both) == 25_341
    for name in ("open", "high", "low", "close"):
        assert (report.bars.loc[both, name] == truth.bars.loc[both, name]).mean() > 0.999


def test_a_price_after_the_close_is_not_a_volume(tmp_path):
    rows = [f"{r.rsplit(',', 1)[0]},{r.split(',')[4]},{r.rsplit(',', 1)[1]},17" for r in lines(market(), header="")]
    with pytest.raises(BadDataError, match="such as VWAP"):
        read_bars(write(tmp_path / "a.csv", rows))


@pytest.mark.slow
def test_memory_grows_with_the_numbers_and_not_with_the_text(tmp_path):
    """Two million rows (130 MB of text) in a process of their own: peak below 1 GiB, so ten million fit in 5."""
    script = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.csv
n = 2_000_000
time = np.datetime64("1985-01-01T00:00:00", "s") + np.arange(n) * np.timedelta64(900, "s")
price = 100 + np.round(np.sin(np.arange(n) / 1e4), 2)
names = dict(time=np.char.add(np.datetime_as_string(time), "Z"), open=price, high=price + 1, low=price - 1, close=price, volume=price)
if sys.argv[1] == "write":
    pa.csv.write_csv(pa.table(names), sys.argv[2])
else:
    del time, price, names
    from trademl.data.bars import read_bars
    print(len(read_bars(sys.argv[2]).bars), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    script = script.replace("names = dict", "names = {} if sys.argv[1] == 'read' else dict")
    for job in ("write", "read"):
        done = subprocess.run([sys.executable, "-c", script, job, str(tmp_path / "a.csv")], capture_output=True, text=True, check=True)
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == 2_000_000
    assert kilobytes < 1 << 20
