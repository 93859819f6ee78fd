"""Files that are not what they seem: each ends right or is refused, with the sentence that a user reads."""

import contextlib
import gzip
import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from bars_files import COLUMNS, kinds, lines, market, weekly, write

from trademl.data.bars import bars_hash, inspect_bars, read_bars, write_bars
from trademl.data.news import read_news
from trademl.data.tables import read_names
from trademl.errors import BadDataError

DAY = pd.Timedelta("1D")


# --- files that are something else


def xlsx() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    return packed.getvalue()


STRANGERS = [  # what stands in the file, what the refusal says
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1543956\n", "Git LFS pointer.*run `git lfs pull`"),
    (b"/annex/objects/SHA256E-s1543956--4d7a.csv\n", "git-annex pointer.*run `git annex get`"),
    (b"<!DOCTYPE html><html><title>Sign in</title>", "web page"),
    (b"\xef\xbb\xbf<html>", "web page"),
    (xlsx(), "Excel workbook; save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel workbook"),
    (b"BZh91AY&SY", "packed with bzip2"),
    (b"SQLite format 3\0", "SQLite"),
    (b"FEA1" + bytes(40), "Feather file of version 1"),
    (b"PK\x03\x04" + bytes(30), "damaged or cut short"),
]
PACKED = (b"PK", b"\xd0")  # formats that nobody packs once more


@pytest.mark.parametrize(
    ("content", "says", "packed"),
    [(content, says, packed) for content, says in STRANGERS for packed in (False, True) if not (packed and content.startswith(PACKED))],
)
def test_strangers_are_named_with_the_remedy(tmp_path, content, says, packed):
    file = tmp_path / "bars.csv"
    file.write_bytes(gzip.compress(content) if packed else content)
    for reader in (read_bars, read_names, read_news):
        with pytest.raises(BadDataError, match=says):
            reader(file)


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.csv.gz"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_cut_files(tmp_path, name, share):
    whole = tmp_path / name
    write_bars(market(3000), whole)
    data = whole.read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadDataError, match=r"is not a whole (parquet|feather) file|damaged or cut short"):
        read_bars(cut)
    with contextlib.suppress(BadDataError):
        read_names(cut)  # what `--kind auto` asks first: an answer or a refusal


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_parquet_with_damaged_bytes_inside(tmp_path, at):
    file = tmp_path / "a.parquet"
    write_bars(market(3000), file)
    data = bytearray(file.read_bytes())
    start = int(len(data) * at)
    data[start : start + 64] = bytes(64)
    file.write_bytes(data)
    with pytest.raises(BadDataError):
        read_bars(file)


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_that_ends_in_the_middle_of_a_row_is_refused(tmp_path, packed):
    text = "\n".join(lines(market()))
    cut = text[: text.rindex(",") - 9]
    file = tmp_path / "a.csv"
    file.write_bytes(gzip.compress(cut.encode()) if packed else cut.encode())
    with pytest.raises(
        BadDataError, match=r"a.csv line 301: the file ends in the middle of a row: '2024-01-11.*\n.*download or export it again"
    ):
        read_bars(file).require_clean()
    file.write_text(text)  # no line end, and whole
    assert read_bars(file).sha256 == bars_hash(market())


# --- one mark for two things


def comma_rows(frame, decimals=2):
    """Fields by comma, decimals by comma too."""
    return [line.replace(".", ",") if i else line for i, line in enumerate(lines(frame, stamps="%Y-%m-%d %H:%M", decimals=decimals))]


@pytest.mark.parametrize("price", [42_000.0, 1.08])
def test_a_separator_that_is_the_decimal_mark_too(tmp_path, price):
    frame = market(price=price, decimals=5 if price < 2 else 2)
    frame["volume"] = frame["volume"].round() + 1
    rows = comma_rows(frame, decimals=5 if price < 2 else 2)
    with pytest.raises(BadDataError, match=r"line 1: the header names 6 columns and the rows have 10 fields\. Numbers seem to be written"):
        read_bars(write(tmp_path / "a.csv", rows), tz="UTC")
    with pytest.raises(BadDataError, match=r"commas separate the fields and seem to be the decimal mark too.* is one price"):
        read_bars(write(tmp_path / "b.csv", rows[1:]), tz="UTC")
    bare = [row.replace("-", ".").replace(" ", ",", 1) for row in rows[1:]]  # MetaTrader 4: date and time apart
    with pytest.raises(BadDataError, match="export with a decimal point, or with semicolons"):
        read_bars(write(tmp_path / "c.csv", bare), tz="UTC")


def test_thousands_marks_beside_decimal_points(tmp_path):
    frame = market(60)
    frame["volume"] = np.arange(60) + 1000.0
    rows = [line if i == 0 else f"{line.rsplit(';', 1)[0]};{1000 + i - 1:,}" for i, line in enumerate(lines(frame, sep=";"))]
    report = read_bars(write(tmp_path / "a.csv", rows))
    assert report.bars["volume"].tolist() == frame["volume"].tolist()


# --- numbers as text


@pytest.mark.parametrize("style", ["{:.2f}", "{:,.2f}", "comma"])
def test_numbers_as_text_in_parquet_are_converted(tmp_path, style):
    frame = market()
    write_ = (lambda v: f"{v:.2f}".replace(".", ",")) if style == "comma" else style.format
    data = {"time": pa.array(frame.index.asi8, pa.timestamp("ns", tz="UTC"))}
    data |= {name: [write_(v) for v in frame[name]] for name in COLUMNS[:4]} | {"volume": frame["volume"].astype(str).tolist()}
    pa.parquet.write_table(pa.table(data), tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_bars(tmp_path / "a.parquet").bars, frame, check_freq=False, check_exact=True)


@pytest.mark.parametrize("style", ["${:.2f}", "{:.2f} USD", "{:,.0f}"])
def test_numbers_as_text_that_cannot_be_read_in_one_way_are_refused(tmp_path, style):
    frame = market()
    data = {"time": pa.array(frame.index.asi8, pa.timestamp("ns", tz="UTC"))}
    data |= {name: [style.format(v) for v in frame[name]] for name in COLUMNS[:4]} | {"volume": frame["volume"].tolist()}
    pa.parquet.write_table(pa.table(data), tmp_path / "a.parquet")
    with pytest.raises(BadDataError, match=r"open .* is not a number, like most of the column; export prices and volumes as plain numbers"):
        read_bars(tmp_path / "a.parquet")


# --- JSON


def json_events():
    fridays = (pd.date_range("2023-01-01", periods=24, freq="WOM-1FRI") + pd.Timedelta("8h30min")).tz_localize("America/New_York")
    return [
        {"title": "Non-Farm Employment Change", "country": "USD", "date": t.isoformat(), "impact": "High", "actual": None} for t in fridays
    ]


@pytest.mark.parametrize("shape", ["records", "columns", "pandas", "wrapped", "lines"])
@pytest.mark.parametrize("packed", [False, True])
def test_json_calendars(tmp_path, shape, packed):
    events = json_events()
    columns = {key: [event[key] for event in events] for key in events[0]}
    text = {
        "records": json.dumps(events, indent=1),
        "columns": json.dumps(columns),
        "pandas": pd.DataFrame(events).to_json(),
        "wrapped": json.dumps({"status": "ok", "count": 24, "events": events}),
        "lines": "\n".join(json.dumps(event) for event in events),
    }[shape]
    file = tmp_path / "calendar.json"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    report = read_news(file)
    assert len(report.events) == 24
    assert "24 of 24 payroll rows" in kinds(report)["clock"].message
    assert read_names(file)[:2] == ("title", "country")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"date": "2024-01-05", "imp', "line 1: is not whole JSON"),
        ('{"a": [1, 2], "b": [1]}', "must be a list of records"),
        ("[1, 2, 3]", "must be a list of records"),
        ("[]", "must be a list of records"),
        ("[" * 100_000, "nested too deep|not whole JSON"),
    ],
)
def test_json_that_is_not_a_table(tmp_path, text, says):
    file = tmp_path / "calendar.json"
    file.write_text(text)
    for reader in (read_news, read_bars, read_names):
        with pytest.raises(BadDataError, match=says):
            reader(file)


def test_bars_as_json(tmp_path):
    frame = market(50)
    rows = [[int(t.timestamp() * 1000), *(f"{v:.2f}" for v in row[:4]), str(row[4])] for t, *row in frame.itertuples()]
    file = tmp_path / "klines.json"
    file.write_text(json.dumps(rows))
    assert read_bars(file).sha256 == bars_hash(frame)
    file.write_text(json.dumps([dict(zip(("time", *COLUMNS), row, strict=True)) for row in rows]))
    assert read_bars(file).sha256 == bars_hash(frame)


# --- closures and gaps


def test_holidays_and_early_closes_are_closures_and_every_gap_is_listed(tmp_path):
    frame = weekly(weeks=10, start="2024-02-12")
    ny = frame.index.tz_convert("America/New_York")
    good_friday = (ny >= "2024-03-28 17:00") & (ny < "2024-03-31 17:00")
    early_close = (ny >= "2024-02-19 13:00") & (ny < "2024-02-19 17:00")
    holed = frame[~(good_friday | early_close)]
    report = read_bars(write(tmp_path / "a.csv", lines(holed, decimals=5)), strict=True)
    assert "gap" not in kinds(report)
    assert kinds(report)["closure"].count == 11  # ten weekends, one of them long, and the early close
    assert len(report.gaps) == 11
    assert all(gap.is_closure for gap in report.gaps)
    assert ("2024-02-19T17:45:00Z", "2024-02-19T22:00:00Z", 16) in [(gap.last, gap.first, gap.missing) for gap in report.gaps]
    lost = holed.drop(holed.index[200:203])
    report = read_bars(write(tmp_path / "b.csv", lines(lost, decimals=5)))
    assert kinds(report)["gap"].count == 3
    assert [gap.missing for gap in report.gaps if not gap.is_closure] == [3]


def test_a_week_without_bars_is_a_gap_and_not_a_closure():
    frame = weekly(weeks=10, start="2024-02-12")
    ny = frame.index.tz_convert("America/New_York")
    lost = frame[~((ny >= "2024-03-18 17:00") & (ny < "2024-03-25 17:00"))]
    assert "gap" in {issue.kind for issue in inspect_bars(lost)}


def test_nights_of_a_market_with_short_days_are_closures():
    frame = weekly(weeks=8)
    ny = frame.index.tz_convert("America/New_York")
    clock = ny.hour * 60 + ny.minute
    issues = {issue.kind: issue for issue in inspect_bars(frame[(clock >= 570) & (clock < 960) & (ny.day_of_week < 5)])}
    assert "gap" not in issues
    assert issues["closure"].count == 39


# --- bars that somebody filled in


def filled(frame, start, bars):
    frame = frame.copy()
    price = frame["close"].iloc[start - 1]
    frame.iloc[start : start + bars] = [price, price, price, price, 0.0]
    return frame


def test_long_flat_runs_are_refused_and_short_halts_are_kept(tmp_path):
    halt = filled(market(), 100, 7)
    report = read_bars(write(tmp_path / "a.csv", lines(halt)))
    assert report.sha256 == bars_hash(halt)
    assert report.is_clean
    dead = filled(market(), 100, 8)
    file = write(tmp_path / "b.csv", lines(dead))
    report = read_bars(file)
    assert (kinds(report)["flat"].count, kinds(report)["flat"].first_row) == (8, 102)
    assert "gap" not in kinds(report)
    with pytest.raises(BadDataError, match=r"8 bars in runs of 8 or more have no volume and no range.*\n.*--allow-flat"):
        report.require_clean()
    assert report.sha256 == bars_hash(dead.drop(dead.index[100:108]))
    assert read_bars(file, accept=("flat",)).require_clean().sha256 == bars_hash(dead)


def test_weekends_filled_by_the_exporter_are_refused(tmp_path):
    frame = market(96 * 14)
    for day in (4, 11):
        frame = filled(frame, 96 * day + 88, 192)
    with pytest.raises(BadDataError, match="384 bars in runs of 8 or more"):
        read_bars(write(tmp_path / "a.csv", lines(frame))).require_clean()


# --- the last bar


def test_the_last_bar_is_compared_with_its_own_hour(tmp_path):
    frame = market(96 * 10 + 12)  # ends at 02:45
    night = frame.index.hour < 4
    frame.loc[night, "volume"] = (frame.loc[night, "volume"] / 500).round(3) + 0.001
    assert "last_bar" not in kinds(read_bars(write(tmp_path / "a.csv", lines(frame))))  # quiet, as every night
    frame.iloc[-1, 4] = 0.001
    report = read_bars(write(tmp_path / "b.csv", lines(frame)))
    assert "is usual at its hour; it may not be whole" in kinds(report)["last_bar"].message


# --- calendars


def calendar(tmp_path, rows, header="time,currency,impact,event"):
    return write(tmp_path / "calendar.csv", [header, *rows])


def payrolls(impact="high", months=24):
    fridays = (pd.date_range("2023-01-01", periods=months, freq="WOM-1FRI") + pd.Timedelta("8h30min")).tz_localize("America/New_York")
    return [f"{t:%Y-%m-%dT%H:%M:%SZ},USD,{impact},Non-Farm Employment Change" for t in fridays.tz_convert("UTC")]


@pytest.mark.parametrize("stamp", ["2023-02-20T23:59:59Z", "2023-02-20T23:59:00Z", "2023-02-21T04:59:59Z", "2023-02-20T22:59:59.999Z"])
def test_ends_of_days_are_all_day(tmp_path, stamp):
    others = [f"2023-0{month}-03T{stamp[11:]},USD,low,Day {month}" for month in (4, 6)]  # 23:59 alone can be a real release
    report = read_news(calendar(tmp_path, [*payrolls(), *others, f"{stamp},USD,high,Election"]))
    election = report.events[report.events["event"] == "Election"].iloc[0]
    assert election["time_kind"] == "all_day"
    assert election["time"] == pd.Timestamp("2023-02-20", tz="UTC")


@pytest.mark.parametrize(
    ("words", "mapping"),
    [
        ({"high": "2", "medium": "1", "low": "0"}, "change '2' to high, '1' to medium, '0' to low in 'impact'"),
        ({"high": "Medium", "medium": "Low", "low": "None"}, "change 'Medium' to high, 'Low' to medium, 'None' to low in 'impact'"),
        ({"high": "1", "medium": "0", "low": "0"}, "change '1' to high, '0' to medium in 'impact'"),
    ],
)
def test_a_shifted_scale_is_refused_with_the_mapping(tmp_path, words, mapping):
    others = [f"2023-03-0{i}T10:00:00Z,USD,{words[name]},Event {i}" for i, name in enumerate(("medium", "low"), 1)]
    holiday = "2023-02-20T00:00:00Z,USD,Bank Holiday,Presidents Day"
    report = read_news(calendar(tmp_path, [*payrolls(words["high"]), *others, holiday]))
    with pytest.raises(BadDataError, match=r"must be high: the scale of impacts is shifted") as refusal:
        report.require_clean()
    assert mapping in str(refusal.value)
    assert "holidays stay holidays" in str(refusal.value)


def test_a_shifted_scale_without_payrolls_shows_at_the_fed(tmp_path):
    fed = [f"2023-0{month}-01T18:00:00Z,USD,medium,Federal Funds Rate" for month in range(2, 9, 2)]
    report = read_news(calendar(tmp_path, fed), tz="UTC")
    assert "Federal Funds Rate is of medium impact (4 of 4 such rows)" in kinds(report)["impact_shifted"].message


def test_a_release_a_minute_before_midnight_is_a_release(tmp_path):
    rows = [
        *payrolls(),
        "2023-02-20T23:59:00Z,AUD,low,MI Inflation Expectations",
        "2023-03-20T14:59:00Z,USD,low,Richmond Manufacturing Index",
    ]
    assert set(read_news(calendar(tmp_path, rows)).events["time_kind"]) == {"scheduled"}


# --- timeframes


def glued(*parts):
    """Frames one after the other, without repeated times."""
    frame = pd.concat(parts)
    return frame[~frame.index.duplicated()]


@pytest.mark.parametrize("step", ["1min", "5min", "30min", "1h", "4h"])
@pytest.mark.parametrize("first", [True, False])
def test_a_stretch_of_another_timeframe_is_refused_with_counts_and_dates(tmp_path, step, first):
    other = market(300, start="2024-01-01", step=step)
    later = market(96 * 30, start=other.index[-1].ceil("1D") + DAY)
    if not first:
        later = market(96 * 30, start="2023-11-01")
    file = write(tmp_path / "a.csv", lines(glued(*((other, later) if first else (later, other)))))
    minutes = int(pd.Timedelta(step).total_seconds() // 60)
    date = f"{other.index[0]:%Y-%m-%dT%H:%M:%S}"
    with pytest.raises(BadDataError, match=rf"not all of the 3,180 bars are 15 minutes apart: 300 bars {minutes} minutes apart.*{date}"):
        read_bars(file)


def test_a_year_of_hours_before_quarters_is_not_a_file_of_quarters_with_closures(tmp_path):
    hours = weekly(weeks=52, start="2023-01-02")
    hours = hours[hours.index.minute == 0]
    quarters = weekly(weeks=8, start="2024-01-01")
    with pytest.raises(BadDataError, match=r"60 minutes apart \(H1\), from 2023-01-02T00:00:00 to 2023-12-31T23:00:00"):
        read_bars(write(tmp_path / "a.csv", lines(glued(hours, quarters), decimals=5)))


def test_many_missing_bars_are_not_another_timeframe(tmp_path):
    frame = market(4000)
    kept = frame[np.random.default_rng(0).random(4000) < 0.35]  # an illiquid market
    assert len(read_bars(write(tmp_path / "a.csv", lines(kept))).bars) == len(kept)


@pytest.mark.parametrize("step", ["5min", "1h"])
def test_one_other_timeframe_is_counted_and_dated_too(tmp_path, step):
    frame = market(400, step=step)
    with pytest.raises(BadDataError, match=r"400 bars are .* apart \((M5|H1)\), from 2024-01-08T00:00:00 to .*only 15-minute bars"):
        read_bars(write(tmp_path / "a.csv", lines(frame)))


# --- symbols


def with_symbols(frame, symbols, header="time,open,high,low,close,volume"):
    rows = lines(frame, header=header)
    return [f"{rows[0]},symbol", *(f"{row},{symbol}" for row, symbol in zip(rows[1:], symbols, strict=True))]


def test_the_symbol_is_taken_from_the_column_or_the_flag_or_is_unknown(tmp_path):
    frame = market()
    file = write(tmp_path / "a.csv", with_symbols(frame, ["ETH/USD"] * 300))
    assert read_bars(file).symbol == "ETH/USD"
    assert read_bars(file, symbol="ETHUSD").symbol == "ETHUSD"
    with pytest.raises(BadDataError, match=r"the column 'symbol' says ETH/USD, and BTCUSD is asked for; .*--symbol ETH/USD"):
        read_bars(file, symbol="BTCUSD")
    plain = write(tmp_path / "b.csv", lines(frame))
    report = read_bars(plain)
    assert report.symbol == ""
    assert "symbol unknown: no column says whose bars these are; give --symbol" in kinds(report)["symbol"].message
    assert read_bars(plain, symbol="BTCUSD").symbol == "BTCUSD"
    assert report.sha256 == read_bars(file).sha256  # the hash is of the bars


@pytest.mark.parametrize("how", ["after", "woven"])
def test_two_symbols_are_refused_with_the_way_to_split(tmp_path, how):
    rows = lines(market(), header="")
    other = lines(market(seed=9, price=2300.0), header="")
    if how == "after":
        body = [f"{row},BTCUSD" for row in rows] + [f"{row},ETHUSD" for row in other]
    else:
        body = [line for pair in zip(rows, other, strict=True) for line in (f"{pair[0]},BTCUSD", f"{pair[1]},ETHUSD")]
    file = write(tmp_path / "both.csv", ["time,open,high,low,close,volume,symbol", *body])
    line = 302 if how == "after" else 3
    with pytest.raises(
        BadDataError, match=rf"line {line} .*'ETHUSD' after 'BTCUSD'.*2 symbols, BTCUSD \(300 rows\), ETHUSD \(300 rows\)"
    ) as refusal:
        read_bars(file)
    command = str(refusal.value).partition("such as: ")[2]
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    split = read_bars(tmp_path / "btcusd.csv")
    assert (split.symbol, split.sha256) == ("BTCUSD", bars_hash(market()))


def test_the_way_to_split_a_parquet_file(tmp_path):
    frame = pd.concat([market().assign(ticker="BTCUSD"), market(seed=9).assign(ticker="ETHUSD")]).reset_index()
    frame.to_parquet(tmp_path / "both.parquet")
    with pytest.raises(BadDataError, match="'ticker' is 'ETHUSD' after 'BTCUSD'") as refusal:
        read_bars(tmp_path / "both.parquet")
    command = str(refusal.value).partition("such as: python ")[2]
    done = subprocess.run(f"{sys.executable} {command}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_bars(tmp_path / "btcusd.csv").sha256 == bars_hash(market())


def test_two_symbols_without_a_header(tmp_path):
    rows = [f"{name},{row}" for name, seed in (("EURUSD", 3), ("GBPUSD", 9)) for row in lines(market(seed=seed), header="")]
    with pytest.raises(BadDataError, match="'GBPUSD' after 'EURUSD'"):
        read_bars(write(tmp_path / "a.csv", rows))
    assert read_bars(write(tmp_path / "b.csv", rows[:300])).symbol == "EURUSD"


def test_imported_bars_carry_symbol_timeframe_clock_and_origin(tmp_path):
    file = write(tmp_path / "gold.csv", lines(weekly(), stamps="%Y.%m.%d,%H:%M", header="", decimals=5))
    report = read_bars(file, tz="UTC", symbol="XAUUSD")
    write_bars(report.bars, tmp_path / "gold.parquet", report.source)
    stored = read_bars(tmp_path / "gold.parquet")
    assert (stored.symbol, stored.timeframe, stored.source.tz) == ("XAUUSD", "15min", "UTC")
    assert (stored.source.origin.name, stored.source.origin.sha256) == ("gold.csv", report.source.sha256)
    assert stored.origin_sha256 == report.source.sha256
    with pytest.raises(BadDataError, match="the imported file says XAUUSD, and BTCUSD is asked for"):
        read_bars(tmp_path / "gold.parquet", symbol="BTCUSD")
    write_bars(stored.bars, tmp_path / "again.parquet", stored.source)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "gold.parquet").read_bytes()


@pytest.mark.parametrize("about", ["no json", "[]", "{}", '{"sha256": 7}', '{"sha256": "x", "kind": "news"}'])
def test_metadata_that_cannot_be_read(tmp_path, about):
    write_bars(market(), tmp_path / "a.parquet")
    data = pa.parquet.read_table(tmp_path / "a.parquet").replace_schema_metadata({"trademl": about})
    pa.parquet.write_table(data, tmp_path / "a.parquet")
    with pytest.raises(BadDataError, match=r"import the source again|name another file"):
        read_bars(tmp_path / "a.parquet")


@pytest.mark.parametrize("price", [2300.0, 2_000_000.0])
def test_a_price_level_that_jumps_is_named(tmp_path, price):
    frame = pd.concat([market(300), market(300, start="2024-01-11 03:00", price=price, seed=9)])
    report = read_bars(write(tmp_path / "a.csv", lines(frame)))
    assert (kinds(report)["level"].count, kinds(report)["level"].first_row) == (1, 302)
    with pytest.raises(BadDataError, match=r"line 302 .*the price goes from .* and stays there \(1 such jump\): two symbols, a split"):
        report.require_clean()


def test_a_crash_and_a_wild_bar_are_not_levels():
    frame = market(600)
    frame.iloc[300, :4] /= 10
    frame.iloc[400:, :4] *= 0.35
    assert "level" not in {issue.kind for issue in inspect_bars(frame)}


@pytest.mark.parametrize("at", ["head", "tail"])
def test_rows_in_another_dialect_at_the_edges_are_not_junk(tmp_path, at):
    rows = lines(market(1000))
    part = slice(1, 200) if at == "head" else slice(800, None)
    rows[part] = [row.replace(",", "|") for row in rows[part]]
    with pytest.raises(BadDataError, match=r"lost_rows: a.csv line \d+: '2024-.*' is not a row"):
        read_bars(write(tmp_path / "a.csv", rows)).require_clean()


def test_a_late_byte_that_is_not_utf8_in_an_unreadable_line(tmp_path):
    rows = [row.encode() for row in lines(market(3000))]
    rows[2500] = b"caf\xe9"
    file = tmp_path / "a.csv"
    file.write_bytes(b"\n".join(rows) + b"\n")
    report = read_bars(file)
    assert kinds(report)["junk_inside"].first_row == 2501
    assert "café" in kinds(report)["junk_inside"].message
    assert "cp1252" in kinds(report)["form"].message
