"""Mutated exports: each ends right or is refused. None is accepted wrong, none ends in anything but a refusal."""

import contextlib
import gzip
import random

import pytest
from bars_files import COLUMNS, lines, market, weekly

from trademl.data.bars import bars_hash, read_bars, write_bars
from trademl.data.tables import read_names
from trademl.errors import BadDataError, TradeMLError

COINS, FOREX = market(96 * 20), weekly(14)
FRAMES = {"coins": COINS, "forex": FOREX}


def iso(frame, decimals):
    return lines(frame, decimals=decimals), None


def metatrader4(frame, decimals):
    return lines(frame, stamps="%Y.%m.%d,%H:%M", header="", decimals=decimals), "UTC"


def metatrader5(frame, decimals):
    header = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>"
    return [header, *lines(frame, stamps="%Y.%m.%d\t%H:%M:%S", sep="\t", header="", decimals=decimals)], "UTC"


def spreadsheet(frame, decimals):
    return [row.replace(".", ",") for row in lines(frame, stamps="%Y-%m-%d %H:%M", sep=";", decimals=decimals)], "UTC"


def exchange(frame, decimals):
    stamps = [str(int(t.timestamp()) * 1000) for t in frame.index]
    return lines(frame, stamps=stamps, header="open_time,open,high,low,close,volume", decimals=decimals), None


DIALECTS = (iso, metatrader4, metatrader5, spreadsheet, exchange)


# --- what can happen to a file: text rows in, bytes out


def untouched(rows, rng):
    return "\n".join(rows).encode() + b"\n"


def other_encoding(rows, rng):
    return ("\r\n".join(rows) + "\r\n").encode(rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "cp1252", "latin-1"]))


def cut_between_lines(rows, rng):
    return "\n".join(rows[: rng.randrange(2, len(rows))]).encode() + b"\n"


def cut_anywhere(rows, rng):
    data = "\n".join(rows).encode()
    return data[: rng.randrange(len(data) // 20, len(data))]


def cut_packed(rows, rng):
    data = gzip.compress("\n".join(rows).encode())
    return data[: rng.randrange(1, len(data))]


def torn_line(rows, rng):
    at = rng.randrange(2, len(rows) - 1)
    return untouched([*rows[:at], rows[at][: rng.randrange(1, len(rows[at]) // 2)], *rows[at + 1 :]], rng)


def columns_exchanged(rows, rng):
    """Two of the last five cells change places in every row, and not in the header."""
    mark = next(m for m in "\t;," if m in rows[-1])
    i, j = rng.sample(range(-5, 0), 2)

    def exchange_cells(row):
        cells = row.split(mark)
        cells[i], cells[j] = cells[j], cells[i]
        return mark.join(cells)

    first = 0 if rows[0][:1].isdigit() else 1
    return untouched(rows[:first] + [exchange_cells(row) for row in rows[first:]], rng)


def columns_reordered(rows, rng):
    """The same, in the header too: nothing is wrong, where there is a header."""
    mark = next(m for m in "\t;," if m in rows[-1])
    i, j = rng.sample(range(-5, 0), 2)
    cells = [row.split(mark) for row in rows]
    for row in cells:
        row[i], row[j] = row[j], row[i]
    return untouched([mark.join(row) for row in cells], rng)


def mixed_separators(rows, rng):
    mark = next(m for m in "\t;," if m in rows[-1])
    other = rng.choice([m for m in "\t;|" if m != mark])
    start = rng.randrange(2, len(rows) // 2)
    stop = start + rng.randrange(1, len(rows) // 3)
    return untouched([row.replace(mark, other) if start <= i < stop else row for i, row in enumerate(rows)], rng)


def comma_for_everything(rows, rng):
    return untouched([row.replace("\t", ",").replace(";", ",").replace(".", ",") for row in rows], rng)


def doubled_hour(rows, rng):
    at = rng.randrange(2, len(rows) - 5)
    return untouched([*rows[: at + 4], *rows[at : at + 4], *rows[at + 4 :]], rng)


def doubled_hour_that_differs(rows, rng):
    at = rng.randrange(2, len(rows) - 5)
    again = [row[:-1] + str((int(row[-1]) + 1) % 10) for row in rows[at : at + 4]]
    return untouched([*rows[: at + 4], *again, *rows[at + 4 :]], rng)


def rows_exchanged(rows, rng):
    at = rng.randrange(2, len(rows) - 1)
    return untouched([*rows[:at], rows[at + 1], rows[at], *rows[at + 2 :]], rng)


def words_for_numbers(rows, rng):
    rows = list(rows)
    for at in rng.sample(range(2, len(rows)), 5):
        mark = next(m for m in "\t;," if m in rows[at])
        rows[at] = rows[at].rpartition(mark)[0] + mark + rng.choice(["", "nan", "inf", "abc", "-1", "#N/A"])
    return untouched(rows, rng)


def header_again(rows, rng):
    """Two files of one export, one after the other."""
    at = rng.randrange(2, len(rows) - 2)
    return untouched([*rows[:at], rows[0], *rows[at:]], rng)


def noise(rows, rng):
    data = bytearray(untouched(rows, rng))
    for _ in range(3):
        data[rng.randrange(200, len(data))] = rng.randrange(128, 256)
    return bytes(data)


def merged_with_hours(rows, rng):
    return untouched([*rows[: len(rows) // 2], *rows[len(rows) // 2 :: 4]], rng)


def merged_with_another_price(rows, rng):
    half = len(rows) // 2
    mark = next(m for m in "\t;," if m in rows[-1])

    def dearer(row):
        cells = row.split(mark)
        return mark.join([*cells[:-5], *(f"1{cell}" if cell[0].isdigit() else cell for cell in cells[-5:-1]), cells[-1]])

    return untouched([*rows[:half], *map(dearer, rows[half:])], rng)


MUTATIONS = (
    untouched,
    other_encoding,
    cut_between_lines,
    cut_anywhere,
    cut_packed,
    torn_line,
    columns_exchanged,
    columns_reordered,
    mixed_separators,
    comma_for_everything,
    doubled_hour,
    doubled_hour_that_differs,
    rows_exchanged,
    words_for_numbers,
    header_again,
    noise,
    merged_with_hours,
    merged_with_another_price,
)
RIGHT = (untouched, other_encoding, doubled_hour, rows_exchanged)  # must be read, not refused


def judge(seed, tmp_path):
    """One mutation: None when it ends as it must, else what is wrong."""
    rng = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    name, dialect = rng.choice(sorted(FRAMES)), rng.choice(DIALECTS)
    frame = FRAMES[name]
    rows, tz = dialect(frame, 5 if name == "forex" else 2)
    file = tmp_path / "export.csv"
    file.write_bytes(mutate(rows, rng))
    told = f"seed {seed}: {mutate.__name__} of {dialect.__name__} {name}"
    report, refusal = None, None
    try:
        read_names(file)
        report = read_bars(file, tz=tz).require_clean()
    except TradeMLError as problem:
        refusal = problem
    if refusal is not None:
        assert isinstance(refusal, BadDataError), f"{told}: {refusal!r}"
        assert mutate not in RIGHT, f"{told} was refused: {refusal}"
        return
    bars = report.bars
    if mutate is cut_anywhere:  # the last number of the last line may have lost digits without leaving a trace
        bars = bars.iloc[:-1]
    assert bars_hash(bars) in {bars_hash(f[list(COLUMNS)]) for f in (frame, frame.iloc[: len(bars)])}, f"{told}: accepted wrong"


@pytest.mark.parametrize("seed", range(60))
def test_a_mutated_export_ends_right_or_is_refused(tmp_path, seed):
    judge(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(60, 500, 44))
def test_many_mutated_exports(tmp_path, start):
    for seed in range(start, min(start + 44, 500)):
        judge(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["export.parquet", "export.feather"])
def test_imported_files_with_flipped_bits(tmp_path, name):
    """An imported file carries the hash of its bars: what was flipped is either harmless or refused."""
    write_bars(COINS, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for seed in range(200):
        rng = random.Random(seed)
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(bytes(flipped))
        report = None
        with contextlib.suppress(BadDataError):
            report = read_bars(tmp_path / name).require_clean()
        assert report is None or report.sha256 == bars_hash(COINS), f"{name}, seed {seed}"
