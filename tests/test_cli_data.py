"""`trademl data`: exit codes, JSON in every case, nothing half-written."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from bars_files import lines, market, weekly, write

from trademl.cli import main
from trademl.data.bars import bars_hash, read_bars


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `trademl data ...` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["trademl", "data", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "btc.csv", lines(market()))


@pytest.fixture
def bad(tmp_path):
    rows = lines(market())
    rows[9] = rows[9].rsplit(",", 1)[0] + ",nan"
    return write(tmp_path / "bad.csv", rows)


@pytest.fixture
def naive(tmp_path):
    return write(tmp_path / "eurusd.csv", lines(weekly(), stamps="%Y.%m.%d,%H:%M", header="", decimals=5))


def test_check_says_what_was_found(run, good, bad, naive):
    code, out, _ = run("check", good)
    assert code == 0
    assert "300 bars" in out
    assert bars_hash(market()) in out
    code, out, _ = run("check", bad)
    assert code == 4
    assert "bad.csv line 10 (row 9)" in out
    assert "trademl data repair" in out
    code, out, err = run("check", naive)
    assert (code, out) == (4, "")
    assert "--tz UTC" in err
    assert "Traceback" not in err
    assert run("check", naive, "--tz", "UTC")[0] == 0


def test_every_command_answers_in_json_whatever_happens(run, good, bad, tmp_path):
    code, out, _ = run("check", good, "--json")
    record = json.loads(out)
    assert (code, record["exit"], record["status"], record["kind"], record["rows"]) == (0, 0, "done", "bars", 300)
    for words, wanted in (
        (("check", bad, "--json"), 4),
        (("check", tmp_path / "none.csv", "--json"), 4),
        (("import", bad, "--json"), 4),
        (("check", good, "--tz", "Mars", "--json"), 2),
        (("check", good, "--kind", "jam", "--json"), 2),
    ):
        code, out, _ = run(*words)
        assert (code, json.loads(out)["exit"]) == (wanted, wanted)


def test_strict(run, tmp_path):
    frame = market()
    file = write(tmp_path / "gap.csv", lines(frame.drop(frame.index[40])))
    assert run("check", file)[0] == 0
    code, _, err = run("check", file, "--strict")
    assert code == 4
    assert "gap" in err


def test_import_writes_the_canonical_file_once(run, good, tmp_path):
    code, out, _ = run("import", good, "--symbol", "BTCUSD")
    assert code == 0
    stored = tmp_path / "datasets" / "btcusd_m15.parquet"
    assert str(stored.relative_to(tmp_path)) in out
    assert read_bars(stored).sha256 == bars_hash(market())
    first = stored.read_bytes()
    assert "already in" in run("import", good, "--symbol", "BTCUSD")[1]
    assert stored.read_bytes() == first


def test_import_does_not_replace_other_bars(run, good, tmp_path):
    run("import", good)
    other = write(tmp_path / "other.csv", lines(market(seed=9)))
    code, _, err = run("import", other, "--output", "datasets/btc.parquet")
    assert code == 2
    assert "--replace" in err
    assert read_bars("datasets/btc.parquet").sha256 == bars_hash(market())
    assert run("import", other, "--output", "datasets/btc.parquet", "--replace")[0] == 0
    assert read_bars("datasets/btc.parquet").sha256 == bars_hash(market(seed=9))


def test_dry_runs_write_nothing(run, good, bad, tmp_path):
    before = sorted(tmp_path.iterdir())
    for words in (("import", good), ("repair", bad), ("sample", "--bars", "50", "--output", "s.csv")):
        code, out, _ = run(*words, "--dry-run")
        assert code == 0
        assert "would write" in out
    assert sorted(tmp_path.iterdir()) == before


def test_import_refuses_what_repair_mends(run, bad, tmp_path):
    code, _, err = run("import", bad)
    assert code == 4
    assert "trademl data repair" in err
    assert not (tmp_path / "datasets").exists()
    code, out, _ = run("repair", bad)
    assert code == 0
    assert "line 10" in out
    assert len(read_bars("datasets/bad.parquet").bars) == 299
    assert read_bars("datasets/bad.parquet").is_clean


def test_samples_can_be_read_back_and_are_calendars_and_bars(run):
    code, out, _ = run("sample", "--bars", "6000", "--edge", "1", "--seed", "3", "--output", "s.csv.gz")
    assert (code, "the volume tells the outcome on purpose: a leak for `data check` and the gate, unless --symbol SYNTH" in out) == (
        0,
        True,
    )
    assert "on purpose" not in run("sample", "--bars", "400", "--edge", "0", "--output", "n.csv")[1]
    assert run("check", "s.csv.gz")[0] == 4  # its volume knows the outcome
    code, out, _ = run("check", "s.csv.gz", "--symbol", "SYNTH", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 6000)
    code, out, _ = run("check", "s_news.csv.gz", "--json")
    assert (code, json.loads(out)["kind"]) == (0, "news")
    again = json.loads(run("sample", "--bars", "6000", "--edge", "1", "--seed", "3", "--output", "t.parquet", "--json")[1])
    assert again["sha256"] == read_bars("s.csv.gz").sha256 == read_bars("t.parquet").sha256


def test_a_sample_that_cannot_be(run):
    assert run("sample", "--bars", "10", "--edge", "2", "--output", "s.csv")[0] == 2
    assert run("sample", "--bars", "10", "--output", "s.xls")[0] == 2


def test_the_real_mt4_file_is_imported_by_the_remedy_that_its_refusal_names(run, shared_data):
    file = shared_data / "import/mt4_eurusd_m15_eet_junk_tail.csv.gz"
    code, _, err = run("import", file)
    assert code == 4
    assert "--tz broker-eu" in err
    code, out, _ = run("import", file, "--tz", "broker-eu", "--symbol", "EURUSD", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 65_534
    assert read_bars("datasets/eurusd_m15.parquet").sha256 == json.loads(out)["sha256"]


# --- clocks, symbols and gaps on the command line


def test_the_calendar_has_a_clock_of_its_own(run):
    assert run("sample", "--bars", "40000", "--edge", "0", "--output", "s.csv")[0] == 0
    text = Path("s_news.csv").read_text().replace("Z", "")
    Path("naive.csv").write_text(text)
    code, _, err = run("check", "naive.csv")
    assert (code, "--news-tz UTC" in err) == (4, True)
    code, _, err = run("check", "naive.csv", "--tz", "UTC")
    assert code == 2
    assert "naive.csv is a calendar, and --tz is the clock of bars; give --news-tz UTC" in err
    assert run("check", "naive.csv", "--news-tz", "UTC")[0] == 0
    code, out, _ = run("check", "s.csv", "--news", "naive.csv", "--news-tz", "UTC")
    assert code == 0
    assert "which agrees with it" in out
    bars = read_bars("s.csv").bars
    moved = bars.set_axis(bars.index + pd.Timedelta("3h"))
    write(Path("moved.csv"), lines(moved))
    code, _, err = run("import", "moved.csv", "--news", "s_news.csv")
    assert code == 4
    assert "the clock UTC is disproved" in err
    assert "Read it with --tz wall:+03:00, or insist on UTC with --trust-clock" in err
    assert not Path("datasets").exists()
    assert run("import", "moved.csv", "--news", "s_news.csv", "--trust-clock")[0] == 0
    assert run("import", "moved.csv", "--news", "s_news.csv", "--tz", "wall:+03:00", "--output", "right.parquet")[0] == 0
    assert read_bars("right.parquet").sha256 == bars_hash(bars)


def test_the_symbol_and_every_gap_stand_in_the_object(run, tmp_path):
    frame = market()
    file = write(tmp_path / "gap.csv", lines(frame.drop(frame.index[40:43])))
    record = json.loads(run("check", file, "--symbol", "BTCUSD", "--json")[1])
    assert (record["symbol"], record["timeframe"]) == ("BTCUSD", "15min")
    (gap,) = record["gaps"]
    assert gap == {"last": "2024-01-08T09:45:00Z", "first": "2024-01-08T10:45:00Z", "missing": 3, "is_closure": False}
    assert json.loads(run("check", file, "--json")[1])["symbol"] is None
    assert "symbol unknown" in run("check", file)[1]
    run("import", file, "--symbol", "BTCUSD")
    code, _, err = run("check", "datasets/btcusd_m15.parquet", "--symbol", "XAUUSD")
    assert code == 4
    assert "says BTCUSD, and XAUUSD is asked for" in err


def test_flat_bars_need_a_word(run, tmp_path):
    frame = market()
    frame.iloc[100:110] = [42_000.0, 42_000.0, 42_000.0, 42_000.0, 0.0]
    file = write(tmp_path / "flat.csv", lines(frame))
    code, _, err = run("import", file)
    assert code == 4
    assert "--allow-flat keeps them" in err
    assert run("import", file, "--allow-flat")[0] == 0
    assert read_bars("datasets/flat.parquet").sha256 == bars_hash(frame)


@pytest.mark.parametrize(
    "content", [b"PAR1", b"PAR1 and then the download broke off PAR1", b"ARROW1\0\0", b"version https://git-lfs.github.com/spec/v1\n"]
)
@pytest.mark.parametrize("command", ["check", "import", "repair"])
def test_no_file_ends_in_a_traceback(run, tmp_path, content, command):
    file = tmp_path / "bars.parquet"
    file.write_bytes(content)
    code, out, err = run(command, file)
    assert (code, out) == (4, "")
    assert "Traceback" not in err
    assert "bars.parquet" in err


IMPORT = {
    "binance_btcusdt_m15_close_stamped_plus01.csv.gz": (
        (),
        0,
        "34,945 bars, 2023-12-31T23:00:00Z to 2024-12-29T23:00:00Z, clock +01:00, +02:00, symbol unknown",
        "stamps mark the close of their bars (a stamp 59.999 s into the minute, such as '2024-01-01 00:14:59.999000+01:00', says so); "
        "15 minutes were taken off",
    ),
    "mt5_btcusd_m15_utc.csv.gz": (
        (),
        0,
        "36,563 bars, 2025-06-02T17:00:00Z to 2026-06-18T16:45:00Z, clock UTC, symbol unknown",
        "13 bars missing in 4 gaps; the first, 1 bars, between 2025-11-22T08:45:00Z and mt5_btcusd_m15_utc.csv.gz line 16,578",
        "volume is the column 'tick_volume'; real_volume is zero throughout",
        "the spread is in points of 0.01 (prices have 2 decimals; --point settles it) and was converted to price units",
    ),
    "mt4_eurusd_m15_eet_junk_tail.csv.gz": (
        (),
        4,
        "trademl: mt4_eurusd_m15_eet_junk_tail.csv.gz: the stamps ('2023.03.13 21:00') carry no zone",
        "--tz broker-eu fits best: 137 of 138 market closes fall at 17:00 New York (127 under broker-us, 0 under UTC)",
    ),
    "mt4_eurusd_m15_eet_junk_tail.csv.gz with its clock": (
        ("--tz", "broker-eu"),
        0,
        "65,534 bars, 2023-03-13T19:00:00Z to 2025-10-31T06:15:00Z, clock broker-eu, symbol unknown",
        "line 65,535: '-- Suite (98%) -- 2025.10.31 08:30' is not a row (2 such lines)",
        "stamps mark the open of their bars (weeks open at :00 and close at :45)",
        "141 closures (weekends, breaks, holidays), the longest 72 h",
    ),
}


@pytest.mark.parametrize("name", IMPORT)
def test_the_real_exports(run, shared_data, name):
    words, exit_code, *sentences = IMPORT[name]
    code, out, err = run("check", shared_data / "import" / name.split(" ")[0], *words)
    assert code == exit_code
    for sentence in sentences:
        assert sentence in (err if exit_code else out)
    assert "Traceback" not in err
