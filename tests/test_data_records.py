"""Reading trade records: every line is accounted for, and nothing is left out in silence."""

import gzip
import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.data.record_checks import find_repeats, foreign_prices
from trademl.data.record_columns import parts_of, record_columns
from trademl.data.record_fields import FIELDS, Kind
from trademl.data.record_lines import MAX_LINE, read_blocks
from trademl.data.records import Hashed, read_records
from trademl.errors import BadDataError, Exit

pytestmark = pytest.mark.trades
NOW = datetime(2026, 1, 1, tzinfo=UTC)
START = 1_738_000_000_000  # 2025-01-27T17:46:40Z
HOUR = 3_600_000


def record(number: int, **sections) -> dict:
    """A whole closed trade."""
    profit = 20.0 if number % 3 else -25.0
    made = {
        "id": f"r{number}",
        "timestamp": START + number * HOUR,
        "asset": ("BTC", "ETH")[number % 2],
        "market": {"price": (100_000.0, 3_200.0)[number % 2] + number, "atrPct": 2.5, "rsi14": 40 + number % 20},
        "session": {"session": "us", "utcHour": (17 + number) % 24, "dayOfWeek": (START // 86_400_000 + 4) % 7, "isWeekend": False},
        "signal": {"direction": "long", "strength": 60, "confidence": 55, "sources": [{"name": "CoinGlass", "sentiment": 20}]},
        "execution": {"executed": True, "entryPrice": (100_000.0, 3_200.0)[number % 2] + number, "takeProfitDistancesPct": [1.5, 3]},
        "outcome": {"realizedPnl": profit, "exitReason": "stop_loss", "maxAdverseExcursion": 30.0, "maxFavorableExcursion": 12},
    }
    return made | sections


def write(path: Path, lines: list, end: bytes = b"\n") -> Path:
    """A file of lines: bytes as they are, anything else as JSON."""
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + end)
    return path


def read(path: Path):
    return read_records(path, now=NOW)


def found(report, kind: str):
    return [issue for issue in report.issues if issue.kind == kind]


def section(name: str, number: int = 7, **values) -> dict:
    made = record(number)
    return made | {name: made.get(name, {}) | values}


BAD_LINES = {
    "torn": (b'{"id": "x", "timestamp": 17380', "torn", "not whole JSON"),
    "blank": (b"", "blank", "an empty line between records"),
    "a number": (b"42", "not_object", "one JSON object"),
    "a list": (b"[1, 2]", "not_object", "one JSON object"),
    "NaN": (b'{"id": "x", "market": {"price": NaN}}', "nan_literal", "JSON has no such number"),
    "Infinity": (b'{"id": "x", "market": {"price": -Infinity}}', "nan_literal", "JSON has no such number"),
    "overflow": (b'{"id": "x", "market": {"price": 1e999}}', "nan_literal", "JSON has no such number"),
    "half a pair": (b'{"id": "\\ud800"}', "torn", "not JSON: no low surrogate"),
    "NaN as text": (b'{"id": "NaN", "timestamp": ', "torn", "not whole JSON"),
    "bytes": (b'{"id": "\xff\xfe"}', "not_utf8", "must be UTF-8"),
    "too long": (b'{"id": "' + b"x" * MAX_LINE + b'"}', "too_long", "1 MiB"),
    "nested": (b'{"id": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "torn", "too deep"),
    "repeated key": (json.dumps(record(7)).replace('"rsi14"', '"price": 5, "rsi14"').encode(), "repeated_key", "hold a key once"),
    "repeated, spaced": (json.dumps(record(7)).replace('"rsi14":', '"price" : 5, "rsi14":').encode(), "repeated_key", "hold a key once"),
    "repeated deep": (
        json.dumps(record(7)).replace('"sentiment"', '"name": "x", "sentiment"').encode(),
        "repeated_key",
        "hold a key once",
    ),
    "version": (record(7, schemaVersion=9), "schema_version", "reads version 1"),
    "no id": (record(7, id=""), "missing", "needs id, timestamp"),
    "no market": ({k: v for k, v in record(7).items() if k != "market"}, "missing", "needs id, timestamp"),
    "null signal": (record(7, signal=None), "missing", "needs id, timestamp"),
    "seconds": (record(7, timestamp=START // 1000), "clock_unit", "looks like seconds"),
    "microseconds": (record(7, timestamp=START * 1000), "clock_unit", "looks like microseconds"),
    "year 1970": (record(7, timestamp=5), "clock_unit", "from 2009 on"),
    "float time": (record(7, timestamp=START + 0.5), "wrong_type", "whole number"),
    "text price": (section("market", price="100000"), "wrong_type", "must be a number"),
    "true price": (section("market", price=True), "wrong_type", "must be a number"),
    "numeric flag": (section("session", isWeekend=1), "wrong_type", "must be a boolean"),
    "list asset": (record(7, asset=["BTC"]), "wrong_type", "must be a text"),
    "text section": (record(7, regime="bullish"), "wrong_type", "must be an object"),
    "text market": (record(7, market="BTC"), "wrong_type", "must be an object"),
    "zero price": (section("market", price=0), "impossible", "above 0"),
    "rsi": (section("market", rsi14=140), "impossible", "0 to 100"),
    "huge": (section("outcome", realizedPnl=1e300), "impossible", "must lie in -1e+15 to 1e+15"),
    "hour": (section("session", utcHour=24), "impossible", "0 to 23"),
    "stop in dollars": (section("execution", stopLossDistancePct=2_000.0), "impossible", "at most 100"),
    "targets in dollars": (section("execution", takeProfitDistancesPct=[101_500.0]), "impossible", "in percent"),
    "entry of another asset": (section("execution", entryPrice=190.0), "impossible", "20 % away"),
}


@pytest.mark.fault
@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_bad_line_is_left_out_and_named(tmp_path, fault):
    line, kind, rule = BAD_LINES[fault]
    lines = [record(n) for n in range(150)]
    lines[7] = line
    report = read(write(tmp_path / "features.jsonl", lines))
    (issue,) = found(report, kind)
    assert (issue.count, issue.first_row, issue.severity) == (1, 8, "error")
    assert issue.message.startswith("features.jsonl line 8: ")
    assert rule in issue.message
    assert (report.source.lines, report.source.bad, report.source.kept) == (150, 1, 149)
    assert "r7" not in set(report.records["id"])
    assert report.is_usable


def test_good_records_raise_no_error(tmp_path):
    report = read(write(tmp_path / "f.jsonl", [record(n) for n in range(150)]))
    assert [issue.kind for issue in report.issues if issue.severity == "error"] == []
    assert (report.source.kept, report.source.bad) == (150, 0)


@pytest.mark.fault
def test_above_one_percent_the_file_is_refused(tmp_path):
    lines = [record(n) for n in range(200)]
    lines[20] = lines[40] = b"{"
    two = read(write(tmp_path / "two.jsonl", lines))
    assert two.require_usable() is two
    lines[60] = b"{"
    three = read(write(tmp_path / "three.jsonl", lines))
    told = r"3 of 200 lines are bad \(1\.5%; 1% is allowed\)[\s\S]*three\.jsonl line 21.*3 such lines"
    with pytest.raises(BadDataError, match=told) as refusal:
        three.require_usable()
    assert refusal.value.exit_code == Exit.BAD_DATA
    assert "trademl trades doctor" in str(refusal.value)


def test_columns_hold_what_the_records_say(tmp_path):
    lines = [record(n) for n in range(40)]
    lines[5]["wtt"] = {"primary": True, "alignment": 4}
    lines[6]["labels"] = None
    lines[6]["market"]["dvol"] = None
    frame = read(write(tmp_path / "f.jsonl", lines)).records
    for row, source in enumerate(lines):
        for entry in FIELDS:
            value = (source.get(entry.section) or {}).get(entry.key) if entry.section else source.get(entry.key)
            if entry.kind == Kind.LIST:
                continue
            cell = frame[entry.column].iloc[row]
            assert (cell != cell or cell is None) if value is None else cell == value, (row, entry.path)
    assert frame["exec_takeProfitDistancePct_2"].tolist() == [3.0] * 40
    assert frame["signal_avg_sentiment"].tolist() == [20.0] * 40
    assert frame["timestamp"].dtype == np.int64


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers() | st.none() | st.lists(st.integers())), min_size=1))
def test_parts_hold_every_value_once(sections):
    seen = [{} for _ in sections]
    for part in parts_of(sections):
        for key, values in part.values.items():
            for row, value in zip(np.arange(len(sections))[part.rows], values, strict=True):
                seen[row][key] = value
    assert [{k: v for k, v in one.items() if v is not None} for one in seen] == [
        {k: v for k, v in one.items() if v is not None} for one in sections
    ]


def test_records_of_many_shapes_read_the_same():
    rng = np.random.default_rng(0)
    made = []
    for n in range(60):
        one = record(n)
        keys = list(one["market"])
        rng.shuffle(keys)
        made.append(one | {"market": {key: one["market"][key] for key in keys if key == "price" or rng.random() < 0.5}})
    whole, single = record_columns(made).values, [record_columns([one]).values for one in made]
    for name, values in whole.items():
        parts = np.concatenate([one[name] for one in single])
        assert np.array_equal(values, parts, equal_nan=values.dtype != object), name


# --- files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault
def test_gzip_under_a_plain_name_is_read(tmp_path):
    plain = write(tmp_path / "plain.jsonl", [record(n) for n in range(30)])
    packed = tmp_path / "packed.jsonl"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(packed).records.equals(read(plain).records)
    assert "gzip" in found(read(packed), "form")[0].message
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(BadDataError, match="damaged or cut short"):
        read(packed)


@pytest.mark.fault
def test_a_file_that_is_still_being_written(tmp_path):
    whole = [record(n) for n in range(30)]
    path = write(tmp_path / "f.jsonl", [*whole, json.dumps(record(30)).encode()[:200]], end=b"")
    report = read(path)
    assert (report.source.kept, report.source.bad, report.source.lines) == (30, 0, 30)
    assert found(report, "unfinished")[0].first_row == 31
    assert read(write(path, [*whole, record(30)], end=b"")).source.kept == 31  # whole, although its line has no end


@pytest.mark.fault
def test_what_is_appended_while_reading_is_not_read(tmp_path):
    path = write(tmp_path / "f.jsonl", [record(n) for n in range(30)])
    before = path.read_bytes()
    with Hashed(path) as file:
        with path.open("ab") as writer:
            writer.write(b'{"id": "r30"')
        assert file.read() == before
        assert file.sha256.hexdigest() == hashlib.sha256(before).hexdigest()


@pytest.mark.parametrize("form", ["bom", "crlf", "blank end", "spaces"])
def test_harmless_forms_change_nothing(tmp_path, form):
    lines = [record(n) for n in range(20)]
    plain = write(tmp_path / "plain.jsonl", lines)
    data = plain.read_bytes()
    data = {
        "bom": b"\xef\xbb\xbf" + data,
        "crlf": data.replace(b"\n", b"\r\n"),
        "blank end": data + b"\n\n  \n",
        "spaces": b"".join(json.dumps(line, separators=(" , ", " : ")).encode() + b"\n" for line in lines),
    }[form]
    other = tmp_path / "other.jsonl"
    other.write_bytes(data)
    assert read(other).records.equals(read(plain).records)
    assert read(other).source.bad == 0


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "no record"),
        (b"{\n{\n", "2 lines and not one record"),
        (b"PK nothing\n", "not one record"),
        (b"<!doctype html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x00\x01\x02\xff\n" * 9, "not one record"),
    ],
)
def test_no_records_at_all(tmp_path, content, what):
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=what):
        read(path)


@pytest.mark.fault
def test_folders(tmp_path):
    with pytest.raises(BadDataError, match="no such file or folder"):
        read(tmp_path / "none")
    write(tmp_path / "notes.jsonl", [record(1)])
    with pytest.raises(BadDataError, match=r"the folder holds no features_\*\.jsonl"):
        read(tmp_path)
    write(tmp_path / "features_2025-01-27_1.jsonl", [record(n) for n in range(10)])
    write(tmp_path / "synthetic_1.jsonl", [record(n) for n in range(10, 20)])
    write(tmp_path / "combined.jsonl", [record(n) for n in range(5, 25)])
    report = read(tmp_path)
    assert sorted(report.records["id"]) == sorted(f"r{n}" for n in range(25))
    assert (report.source.kept, report.source.repeats, report.source.bad) == (25, 15, 0)
    assert found(report, "duplicate")[0].count == 15


# --- what stands twice, and order ------------------------------------------------------------------------------------------


def test_a_record_counts_with_its_outcome_wherever_it_stands(tmp_path):
    open_ = {k: v for k, v in record(3).items() if k != "outcome"}
    for order in ([open_, record(3)], [record(3), open_]):
        report = read(write(tmp_path / "f.jsonl", [record(1), *order]))
        assert (report.source.kept, report.source.bad) == (2, 0)
        assert not report.records["outcome_realizedPnl"].isna().any()
        assert found(report, "completed")[0].count == 1


@pytest.mark.fault
def test_two_outcomes_under_one_id_are_a_conflict(tmp_path):
    other = section("outcome", 3, realizedPnl=999.0)
    report = read(write(tmp_path / "f.jsonl", [*(record(n) for n in range(150)), other]))
    assert found(report, "conflict")[0].first_row == 4
    assert report.source.bad == 1
    assert report.records.set_index("id").loc["r3", "outcome_realizedPnl"] == 999.0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.booleans())))
def test_every_id_is_left_once(rows):
    ids, contents, complete = (np.array([row[k] for row in rows], kind) for k, kind in enumerate((np.int64, np.int64, bool)))
    repeats = find_repeats(ids, contents, complete)
    left = np.concatenate([repeats.exact, repeats.completed, repeats.conflicts]).astype(int)
    assert len(set(left)) == len(left)
    kept = sorted(set(range(len(rows))) - set(left.tolist()))
    assert sorted(ids[kept]) == sorted(set(ids))
    for row in kept:
        same = np.flatnonzero(ids == ids[row])
        assert complete[row] == complete[same].any()
        assert row == same[complete[same] == complete[row]].max()


def test_records_are_sorted_by_time(tmp_path):
    numbers = [4, 0, 2, 1, 3]
    report = read(write(tmp_path / "f.jsonl", [record(n) for n in numbers]))
    assert report.records["id"].tolist() == [f"r{n}" for n in range(5)]
    assert found(report, "out_of_order")[0].count == 4
    assert found(report, "out_of_order")[0].first_row == 2


# --- what the frame shows ---------------------------------------------------------------------------------------------------


def test_prices_of_another_asset(tmp_path):
    lines = [record(n) for n in range(120)]
    lines[50] = section("market", 50, price=191.0)
    lines[50]["execution"]["entryPrice"] = 191.0
    report = read(write(tmp_path / "f.jsonl", lines))
    assert found(report, "foreign_price")[0].first_row == 51
    assert "BTC" in found(report, "foreign_price")[0].message
    assert report.source.bad == 1
    solana = [record(n) | {"asset": "SOL"} for n in range(0, 60, 2)]
    assert "SOL is priced around" in found(read(write(tmp_path / "g.jsonl", solana)), "asset_price")[0].message


def test_a_real_move_is_not_a_foreign_price():
    month = np.arange(60) * 30 * 86_400_000
    assert len(foreign_prices(np.full(60, "HYPE"), month, 3.0 * 1.2 ** np.arange(60.0))) == 0


def test_warnings(tmp_path):
    lines = [record(n) for n in range(60)]
    lines[3]["session"]["utcHour"] = (lines[3]["session"]["utcHour"] + 1) % 24
    lines[4]["outcome"]["maxFavorableExcursion"] = -1.5
    lines[5]["regime"] = {"marketRegime": "sideways"}
    lines[6]["signal"]["factors"] = ["RSI low"]
    lines[7]["avoided"] = {"reason": "weekend", "timestamp": 5}
    lines[59]["timestamp"] = 1_900_000_000_000
    report = read(write(tmp_path / "f.jsonl", lines))
    first = {issue.kind: issue.first_row for issue in report.issues}
    rows = {"negative_excursion": 5, "unknown_choice": 6, "mixed_generations": 7, "avoided": 8, "future": 60}
    assert {kind: first[kind] for kind in rows} == rows
    assert found(report, "hour_contradicts")[0].first_row == 4
    assert report.source.bad == 0
    frame = report.records.set_index("id")
    assert np.isnan(frame.loc["r4", "outcome_maxFavorableExcursion"])
    assert frame.loc["r6", "decision_drivers"] == "RSI low"


# --- size -------------------------------------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """`size` bytes of one line."""

    def __init__(self, size: int):
        super().__init__()
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = min(len(buffer), self.left)
        self.left -= count
        buffer[:count] = b"x" * count
        return count


def test_an_endless_line_takes_no_memory():
    import tracemalloc

    tracemalloc.start()
    blocks = list(read_blocks(io.BufferedReader(Endless(40 << 20))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(line) for lines, _ in blocks for line in lines] == [MAX_LINE + 1]
    assert peak < 8 << 20


def cut_record(number: int, size: int) -> bytes:
    return json.dumps(record(number)).encode()[:size]


@pytest.mark.fault
@settings(max_examples=40)
@given(st.lists(st.binary(max_size=60) | st.builds(cut_record, st.integers(0, 9), st.integers(0, 900))))
def test_any_bytes_are_read_or_refused(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("fuzz") / "f.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        report = read(path)
    except BadDataError:
        return
    assert report.source.kept + report.source.bad + report.source.repeats >= report.source.kept > 0
    assert report.source.lines >= report.source.kept + report.source.bad


# --- what else a folder may hold --------------------------------------------------------------------------------------------


@pytest.mark.fault
def test_a_file_that_the_bot_has_just_begun_does_not_stop_the_others(tmp_path):
    write(tmp_path / "features_1.jsonl", [record(n) for n in range(10)])
    (tmp_path / "features_2.jsonl").write_bytes(b"")
    report = read(tmp_path)
    assert (report.source.kept, report.source.bad, len(report.source.files)) == (10, 0, 2)
    assert found(report, "unfinished")[0].message == "features_2.jsonl: the file is empty; a bot has just begun it"
    (tmp_path / "features_1.jsonl").write_bytes(b"")
    with pytest.raises(BadDataError, match=r"features_1\.jsonl: the file is empty"):
        read(tmp_path)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04" + b"x" * 500, "is a ZIP archive; unpack it, or pack the lines with gzip"),
        (json.dumps([record(1), record(2)]).encode(), r"an array holds many records: `jq -c '\.\[\]'` writes one a line"),
        (json.dumps({"id": "1", "created_at": "2025-01-01", "payload": record(1)}).encode() + b"\n", "hold the record in `payload`"),
        (b"id,timestamp,asset\nr1,1738000000000,BTC\n", "where most lines are such, the file is not JSON lines"),
    ],
    ids=["zip", "array", "rows of a database", "csv"],
)
def test_what_is_not_json_lines_says_what_to_do(tmp_path, content, what):
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=what):
        read(path)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_how_records_are_stacked_changes_nothing(tmp_path, monkeypatch, is_sorted):
    numbers = range(60) if is_sorted else [*range(30, 60), *range(30)]
    file = write(tmp_path / "features_1.jsonl", [record(n) for n in numbers] + [record(60, regime={"marketRegime": "odd"})])
    whole = read(file)
    monkeypatch.setattr("trademl.data.record_lines.BLOCK_BYTES", 2_048)
    monkeypatch.setattr("trademl.data.records.STACK_ROWS", 7)
    pieces = read(file)
    assert pieces.records.equals(whole.records)
    assert pieces.issues == whole.issues
    assert found(whole, "unknown_choice")


def test_a_folder_of_a_file_a_day_asks_for_no_mappings(tmp_path, monkeypatch):
    """A process may have some 65,000; a mapping for each column of each file stopped at the 744th."""

    def refused(*args):
        raise OSError(12, "Cannot allocate memory")

    for n in range(3):
        write(tmp_path / f"features_{n}.jsonl", [record(n)])
    monkeypatch.setattr("trademl.data.records.mmap.mmap", refused)
    assert len(read(tmp_path).records) == 3
