"""The bot's log: a chain that shows every change, and restarts that lose and repeat nothing."""

import json
import multiprocessing
import os
import signal
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from trademl.bot import Bars, Decision, DecisionLog, Mode, Reason, read_log
from trademl.bot.chained import GENESIS
from trademl.errors import BadDataError, UsageError
from trademl.files import digest

START = 1_775_001_600  # 2026-04-01T00:00Z


def tail(bar_s, n=20):
    time = bar_s - 900 * np.arange(n - 1, -1, -1)
    return Bars(time, *(np.full(n, price) for price in (100.0, 101.5, 99.25, 100.5, 7.0)))


def decision(bar_s=START, **changes):
    fields = {
        "side": 1, "probabilities": {"SELL": 0.2, "BUY": 0.5, "HOLD": 0.3}, "votes": {"rf": "BUY"},
        "expected_r": {"long": 0.21, "short": -0.4}, "cost_r": 0.05, "size_multiplier": 1.0, "effective_risk": 0.015, "atr": 2.0,
        "stop_distance": 1.6, "target_distance": 3.0, "horizon_bars": 48, "position": None, "far_features": (), "bar_s": bar_s,
        "decided_at": datetime.fromtimestamp(bar_s + 901, UTC), "revision": "0123456789abcdef", "line": "market-btcusd-15min",
        "profile": 3, "mode": Mode.LIVE, "reasons": (Reason.UNSIGNED,),
    }  # fmt: skip
    return Decision(**fields | changes)


def filled(path, bars=5):
    """A log with this many decisions, and a fill and an exit of the first."""
    log = DecisionLog(path)
    for k in range(bars):
        made = decision(START + 900 * k)
        seq = log.decision(made, tail(made.bar_s))
        if k == 0:
            log.fill(made, seq, 100.75, 0.02, made.decided_at)
            log.exit(made, seq, 103.5, 0.02, made.decided_at, "tp")
    return log


@pytest.mark.contract
def test_a_line_says_what_was_decided_on_what(tmp_path):
    log = filled(tmp_path / "log.jsonl", 1)
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    first, fill, exit_ = map(json.loads, lines)
    arrays = tail(START)
    assert first == {
        "schema": 1, "seq": 0, "prev": GENESIS, "kind": "decision", "line": "market-btcusd-15min", "revision": "0123456789abcdef",
        "mode": "active", "bar_utc": "2026-04-01T00:00:00Z", "at_utc": "2026-04-01T00:15:01Z", "bar": [100.0, 101.5, 99.25, 100.5, 7.0],
        "tail_sha256": digest(b"".join(column.tobytes() for column in arrays)), "p": [0.2, 0.5, 0.3], "expected_r": [0.21, -0.4],
        "cost_r": 0.05, "side": 1, "stop": 1.6, "target": 3.0, "multiplier": 1.0, "reason": ["unsigned"],
    }  # fmt: skip
    assert (fill["kind"], fill["decision_seq"], fill["price"], fill["lots"]) == ("fill", 0, 100.75, 0.02)
    assert (exit_["kind"], exit_["reason"]) == ("exit", "tp")
    assert [fill["prev"], exit_["prev"], log.head] == [digest(line) for line in lines]
    assert len(lines[0]) < 520
    assert read_log(tmp_path / "log.jsonl").is_whole


def test_what_was_unknown_is_null(tmp_path):
    log = DecisionLog(tmp_path / "log.jsonl")
    log.decision(decision(probabilities=None, expected_r=None, votes=None, cost_r=float("inf"), side=0, mode=Mode.SHADOW), tail(START))
    (record,) = read_log(log.path).records
    assert (record["p"], record["expected_r"], record["cost_r"], record["mode"]) == (None, None, None, "shadow")


def test_a_restart_goes_on_and_knows_what_is_decided(tmp_path):
    filled(tmp_path / "whole.jsonl", 6)
    filled(tmp_path / "log.jsonl", 3)
    log = DecisionLog(tmp_path / "log.jsonl")
    assert log.seq_of(START) == 0
    assert log.seq_of(START + 900) == 3
    assert log.seq_of(START + 2_700) is None
    for k in range(3, 6):
        log.decision(decision(START + 900 * k), tail(START + 900 * k))
    assert (tmp_path / "log.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"100.75", b"100.70"), *lines[2:]], 3),
        (lambda lines: lines[:2] + lines[3:], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
        (lambda lines: [lines[0], b"not json", *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b'"lots":0.02,', b""), *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b'"schema":1', b'"schema":2'), *lines[2:]], 2),
    ],
    ids=["changed", "removed", "first removed", "repeated", "swapped", "not JSON", "a key gone", "another schema"],
)
def test_a_line_that_was_touched_is_named(tmp_path, spoil, line):
    path = filled(tmp_path / "log.jsonl").path
    path.write_bytes(b"\n".join(spoil(path.read_bytes().splitlines())) + b"\n")
    report = read_log(path)
    assert report.problems[0].startswith(f"line {line}: ")
    with pytest.raises(BadDataError, match=f"line {line}: .*it is evidence"):
        DecisionLog(path)


@pytest.mark.fault
@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_last_line_is_set_aside_and_the_log_goes_on(tmp_path, cut):
    path = filled(tmp_path / "log.jsonl").path
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    report = read_log(path)
    assert report.torn
    assert not report.problems
    log = DecisionLog(path)
    assert (tmp_path / "log.jsonl.torn-0").read_bytes() == report.torn
    log.decision(decision(START + 900 * 4), tail(START + 900 * 4))  # decided again: the torn one was not whole
    assert path.read_bytes() == data
    assert read_log(path).is_whole


def test_two_bots_do_not_keep_one_log(tmp_path):
    one = filled(tmp_path / "log.jsonl")
    other = DecisionLog(one.path)
    other.decision(decision(START + 9_000), tail(START + 9_000))
    with pytest.raises(BadDataError, match="another process"):
        one.decision(decision(START + 9_900), tail(START + 9_900))
    assert read_log(one.path).is_whole


def test_what_does_not_belong_together_is_refused(tmp_path):
    log = filled(tmp_path / "log.jsonl")
    with pytest.raises(UsageError, match="do not end with the deciding bar"):
        log.decision(decision(START + 9_000), tail(START))
    with pytest.raises(UsageError, match="decision_seq = 99"):
        log.fill(decision(), 99, 1.0, 1.0, datetime.now(UTC))


@pytest.mark.fault
def test_what_the_log_would_not_read_again_is_not_written(tmp_path):
    """One such line, and the log could not be continued after a restart."""
    log, made = filled(tmp_path / "log.jsonl"), decision()
    now, before = made.decided_at, log.path.read_bytes()
    for call, said in (
        (lambda: log.exit(made, 0, 1.0, 1.0, now, 5), "exit.reason = 5"),
        (lambda: log.exit(made, 0, 1.0, 1.0, now, "\ud800"), "surrogates"),
        (lambda: log.fill(made, 0, float("nan"), 1.0, now), "not JSON compliant"),
        (lambda: log.fill(made, 0, "much", 1.0, now), "'much' is not a number"),
        (lambda: log.fill(made, 0, 1.0, 10**400, now), "is not a number"),
        (lambda: log.fill(made, False, 1.0, 1.0, now), "decision_seq = False"),
        (lambda: log.fill(made, 0, 1.0, 1.0, now.replace(tzinfo=None)), "no time zone"),
        (lambda: log.decision(decision(START, side="long"), tail(START)), "side = 'long'"),
    ):
        with pytest.raises(UsageError, match=said):
            call()
    assert log.path.read_bytes() == before
    assert DecisionLog(log.path).head == log.head


def _write_for_ever(path):
    log = DecisionLog(path)
    k = len(read_log(path).records)
    while True:
        log.decision(decision(START + 900 * k), tail(START + 900 * k))
        k += 1


@pytest.mark.fault
def test_killed_at_any_moment_the_log_is_whole_but_for_its_last_line(tmp_path):
    path, seen, rng = tmp_path / "log.jsonl", 0, np.random.default_rng(3)
    for _ in range(6):
        before = path.stat().st_size if path.exists() else 0
        writer = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path,))
        writer.start()
        while writer.is_alive() and (not path.exists() or path.stat().st_size <= before):  # each writes, on the busiest machine too
            time.sleep(0.01)
        time.sleep(rng.uniform(0.02, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        report = read_log(path)
        assert not report.problems
        assert len(report.records) >= seen
        seen = len(report.records)
    assert seen > 6
