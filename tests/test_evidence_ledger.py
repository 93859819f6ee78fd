"""The ledger only grows: under threads and processes, after a torn line, and for years."""

import json
import multiprocessing
from datetime import UTC, datetime

import pytest

from trademl.errors import UsageError
from trademl.evidence.ledger import append_look, look_at, read_ledger, window_hash

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
LINE = "market-BTCUSD-15min"


def a_look(number=0, **more):
    return look_at(NOW, LINE, f"data{number}", 100, 200, **more)


def test_one_line_a_look(tmp_path):
    path = tmp_path / "reports" / "ledger.jsonl"
    append_look(path, a_look(run_id="r1", varied="first", figures={"expectancy_r": 0.1, "trades": 40}))
    append_look(path, a_look(run_id="r2"))
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["at_utc"] == "2026-02-03T04:05:06Z"
    ledger = read_ledger(path)
    assert [entry.run_id for entry in ledger.entries] == ["r1", "r2"]
    assert ledger.entries[0].figures == {"expectancy_r": 0.1, "trades": 40}
    assert read_ledger(path).looks(window_hash("data0", 100, 200)) == 2
    assert read_ledger(path).looks(window_hash("data0", 100, 201)) == 0


def test_no_file_no_looks(tmp_path):
    assert read_ledger(tmp_path / "none.jsonl").looks("x") == 0


@pytest.mark.fault
@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_torn_last_line_costs_nothing_else(tmp_path, cut):
    path = tmp_path / "ledger.jsonl"
    append_look(path, a_look(1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    before = path.read_bytes()
    torn = read_ledger(path)
    append_look(path, a_look(2))
    after = read_ledger(path)
    assert path.read_bytes().startswith(before)  # nothing was rewritten
    assert len(after.entries) == len(torn.entries) + 1
    assert after.unreadable == torn.unreadable
    if cut == -1:  # only the line feed is missing: that look is whole
        assert torn.unreadable == ()
        assert len(after.entries) == 3
    else:
        assert torn.unreadable == (2,)


def _append_many(path, worker):
    for k in range(20):
        append_look(path, a_look(worker, run_id=f"{worker}-{k}", varied="x" * 5000))


@pytest.mark.fault
def test_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledger = read_ledger(path)
    assert ledger.unreadable == ()
    assert {entry.run_id for entry in ledger.entries} == {f"{w}-{k}" for w in range(3) for k in range(20)}


def test_overlap_counts_half_open_windows_of_the_same_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append_look(path, a_look())
    ledger = read_ledger(path)
    assert ledger.overlapping(LINE, 199, 300) == 1
    assert ledger.overlapping(LINE, 200, 300) == 0
    assert ledger.overlapping(LINE, 0, 100) == 0
    assert ledger.overlapping("market-ETHUSD-15min", 100, 200) == 0


def test_unknown_keys_and_foreign_lines_are_survived(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append_look(path, a_look())
    record = json.loads(path.read_text()) | {"from_the_future": 1}
    path.write_text(json.dumps(record) + '\n[1, 2]\n"text"\n{}\n')
    ledger = read_ledger(path)
    assert len(ledger.entries) == 1
    assert ledger.unreadable == (2, 3, 4)


def test_refusals(tmp_path):
    with pytest.raises(UsageError):
        look_at(NOW, LINE, "d", 200, 200)
    with pytest.raises(UsageError, match="finite"):
        append_look(tmp_path / "l.jsonl", a_look(figures={"expectancy_r": float("nan")}))
    assert not (tmp_path / "l.jsonl").exists()
