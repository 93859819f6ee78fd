"""Any file becomes columns, and every row keeps the line that it stands on."""

import gzip
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.data.dialect import choose_delimiter, sniff, to_numbers
from trademl.data.tables import read_names, read_table, write_table
from trademl.errors import BadDataError, UsageError

PLAIN = "time,open,close\n2024-01-02T00:00Z,1.5,2.5\n2024-01-02T00:15Z,2.5,3.5\n"


def numbers(table, column):
    return table.columns[column].numbers.tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    text = PLAIN.replace("close", "clôse" if encoding == "cp1252" else "close").replace("\n", newline)
    file = tmp_path / "a.csv"
    file.write_bytes(text.encode(encoding))
    table = read_table(file)
    assert [c.name for c in table.columns][:2] == ["time", "open"]
    assert numbers(table, 1) == [1.5, 2.5]
    assert table.line_of(1) == 3


def test_a_late_byte_that_is_not_utf8(tmp_path):
    file = tmp_path / "a.csv"
    rows = b"".join(b"2024,%d,plain\n" % i for i in range(9000))
    file.write_bytes(b"year,n,word\n" + rows + b"2024,1,caf\xe9\n")
    table = read_table(file)
    assert table.rows == 9001
    assert table.columns[2].text[9000].as_py() == "café"


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_separators(tmp_path, sep):
    file = tmp_path / "a.csv"
    file.write_text(PLAIN.replace(",", sep))
    assert read_table(file).delimiter == sep


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("1,5", "2,25"), [1.5, 2.25]),
        (("1.234,5", "2.345,25"), [1234.5, 2345.25]),
        (("1234", "2345"), [1234.0, 2345.0]),
    ],
)
def test_decimal_comma(tmp_path, cells, values):
    file = tmp_path / "a.csv"
    file.write_text("".join(f"2024.01.0{i + 1};{cell};7\n" for i, cell in enumerate(cells)))
    assert numbers(read_table(file), 1) == values


def test_thousands_in_quotes(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('time,open,close\n2024-01-02,"42,150.5",1\n2024-01-03,"43,150.5",1\n')
    assert numbers(read_table(file), 1) == [42150.5, 43150.5]


@pytest.mark.parametrize("pack", ["csv.gz", "csv.zip"])
def test_packed_files_are_known_by_their_bytes(tmp_path, pack):
    file = tmp_path / "named.txt"
    if pack == "csv.gz":
        file.write_bytes(gzip.compress(PLAIN.encode()))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("inside.csv", PLAIN)
    table = read_table(file)
    assert table.format == pack
    assert table.rows == 2


def test_columnar_files(tmp_path):
    data = pa.table({"time": pa.array([0, 900], pa.timestamp("s", tz="UTC")), "open": [1.5, 2.5], "word": ["a", "b"], "text": ["1", "2"]})
    pa.parquet.write_table(data, tmp_path / "a")
    pa.feather.write_feather(data, tmp_path / "b")
    for name, kind in (("a", "parquet"), ("b", "feather")):
        table = read_table(tmp_path / name)
        assert table.format == kind
        assert table.columns[0].stamps is not None
        assert numbers(table, 3) == [1.0, 2.0]  # text that holds numbers is numbers
        assert table.place(1) == f"{name} row 2"
        assert read_names(tmp_path / name) == ("time", "open", "word", "text")


def test_lines_are_exact_over_blank_lines_junk_and_block_borders(tmp_path):
    rows, expected = ["t,a,b"], []
    for i in range(60_000):
        if i % 977 == 0:
            rows += ["", "torn"]
        rows.append(f"2024-01-01,{i},{'x' * 150}")
        expected.append(len(rows))
    file = tmp_path / "long.csv"
    file.write_text("\n".join(rows))
    table = read_table(file)  # about 10 MB: more than one block
    assert table.rows == 60_000
    assert numbers(table, 1) == list(range(60_000))
    assert [table.line_of(i) for i in range(0, 60_000, 311)] == expected[::311]
    assert [j.line for j in table.junk] == [line - 1 for line in expected[::977]]
    assert {j.place for j in table.junk[1:]} == {"inside"}


def test_faults_keep_their_text_and_row(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("time,open\n2024-01-01,1\n2024-01-02,abc\n2024-01-03,\n2024-01-04,inf\n2024-01-05,2\n2024-01-06,NaN\n")
    column = read_table(file).columns[1]
    assert column.faults == {1: "abc"}
    assert column.cell(1) == "abc"
    np.testing.assert_array_equal(column.numbers, [1, np.nan, np.nan, np.inf, 2, np.nan])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=30))
def test_numbers_are_read_to_the_last_bit(values):
    read, faults = to_numbers(pa.array([repr(v) for v in values]))
    assert read.tolist() == values
    assert not faults


def test_a_header_without_rows_and_rows_without_a_header(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("time,open,close\n")
    table = read_table(file)
    assert (table.rows, table.has_header) == (0, True)
    file.write_text("2024.01.02,00:00,1.5,2.5\n2024.01.02,00:15,1.5,2.5\n")
    table = read_table(file)
    assert (table.rows, table.has_header, table.line_of(0)) == (2, False, 1)
    assert read_names(file) == ()


def test_an_index_without_a_name_and_a_trailing_comma(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("open,close\n2024-01-02,1.5,2.5\n2024-01-03,1.5,2.5\n")
    assert [c.name for c in read_table(file).columns] == ["", "open", "close"]
    file.write_text("time,open\n2024-01-02,1.5,\n2024-01-03,1.5,\n")
    assert [c.name for c in read_table(file).columns] == ["time", "open", ""]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n\n  \n", "blank lines only"),
        (b"just a sentence\nand another\n", "is not a row of a table"),
        (b"PAR1 but no more", "not a whole parquet file"),
        (gzip.compress(PLAIN.encode() * 9, mtime=0)[:40], "damaged or cut short"),
        (b'a,b,c\n1,2,"x"\n1,"2,3\n1,2,3\n', "quote opens and never closes"),
    ],
)
def test_refusals(tmp_path, content, says):
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(BadDataError, match=says):
        read_table(file)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(BadDataError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(BadDataError, match="is a folder"):
        read_table(tmp_path)


def test_sniffing_prefers_the_separator_that_leaves_decimals_alone():
    assert choose_delimiter(["2024.01.01 00:00;1,1;1,2;1,0;1,1;5"] * 3)[0] == ";"
    assert sniff("sep=;\na;b\n1,5;2\n", "x").names == ("a", "b")


def test_a_name_without_a_known_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot tell the format"):
        write_table(pa.table({"a": [1]}), tmp_path / "a.xlsx")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.feather"])
def test_equal_tables_give_equal_bytes(tmp_path, name):
    data = pa.table({"time": ["2024-01-02T00:00:00Z"], "x": [0.1 + 0.2]})
    written = []
    for folder in ("one", "two"):
        write_table(data, tmp_path / folder / name)
        written.append((tmp_path / folder / name).read_bytes())
    assert written[0] == written[1]
    assert read_table(tmp_path / "one" / name).columns[1].numbers[0] == 0.1 + 0.2
