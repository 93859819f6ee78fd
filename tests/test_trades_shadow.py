"""Shadow mode: a log that cannot be rewritten, and an analysis that claims no more than its interval."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from trademl.bot import Mode, ShadowLog, TradeAdvisor, read_shadow
from trademl.cli.trades import app
from trademl.commands.shadow import run_shadow
from trademl.data.record_maker import make_records, write_records
from trademl.errors import BadDataError, Exit, UsageError
from trademl.trades.advice import Advice

pytestmark = pytest.mark.trades
ADVISOR = SimpleNamespace(name="c0ffee0000000000", line="trades-all-records", mode=Mode.SHADOW)  # what a log asks of an advisor
OTHER = SimpleNamespace(name="decaf00000000000", line="trades-all-records", mode=Mode.SHADOW)


def advice(accept=None, size=None):
    return Advice(0.55, 0.1, accept, size, None, None, {})


def after(record, seconds=5):
    return datetime.fromtimestamp(record["timestamp"] // 1_000 + seconds, UTC)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A log of records, and its trades in the order of their decisions."""
    path = tmp_path_factory.mktemp("shadow") / "records.jsonl"
    write_records(make_records(300, 1.0, seed=2), path)
    records = [json.loads(line) for line in path.open()]
    return SimpleNamespace(path=path, records=records, trades=[record for record in records if "outcome" in record])


def write(path, trades, suggest, advisor=ADVISOR):
    log = ShadowLog(path)
    for record in trades:
        log.suggestion(advisor, record, suggest(record), record["execution"]["positionSizeUsd"], at=after(record))
    return log


def won(record):
    return record["outcome"]["realizedPnl"] > 0


@pytest.mark.contract
def test_a_line_says_what_was_suggested_and_what_was_done(tmp_path, kept):
    log, record = ShadowLog(tmp_path / "log"), kept.trades[0]
    log.suggestion(ADVISOR, record, advice(True, 1.5), 1_000.0, at=after(record))
    log.suggestion(OTHER, record, advice(False, 2.0), 1_000.0, actual_usd=400.0, at=after(record))
    log.suggestion(ADVISOR, kept.trades[1], Advice(np.nan, np.nan, None, None, None, None, {}), 10, at=after(kept.trades[1]))
    first, second, third = map(json.loads, log.path.read_bytes().splitlines())
    assert {name: first[name] for name in ("kind", "line", "revision", "mode", "id", "asset", "decided_ms")} == {
        "kind": "suggestion", "line": "trades-all-records", "revision": "c0ffee0000000000", "mode": "shadow",
        "id": record["id"], "asset": record["asset"], "decided_ms": record["timestamp"],
    }  # fmt: skip
    sizes = [[line[name] for name in ("size_usd", "suggested_usd", "actual_usd")] for line in (first, second, third)]
    assert sizes == [[1_000, 1_500, 1_000], [1_000, 0, 400], [10, 10, 10]]
    assert (third["quality"], third["accept"], third["multiplier"]) == (None, None, None)
    assert read_shadow(log.path).is_whole
    assert ShadowLog(log.path).seq_of(OTHER, record["id"]) == 1  # a bot that was started again


@pytest.mark.fault
def test_what_cannot_be_joined_or_believed_later_is_not_logged(tmp_path, kept):
    log, (early, late) = ShadowLog(tmp_path / "log"), kept.trades[:2]
    late = late | {"asset": early["asset"]}
    log.suggestion(ADVISOR, late, advice(), 100.0, at=after(late))
    for record, sizes, at, why in [
        (late, (100.0,), after(late), "is logged in line 1; after a restart ask `seq_of` first"),
        (early, (100.0,), after(late), f"lies before {late['timestamp']}, the newest one of {late['asset']}"),
        (late | {"id": "other"}, (0.0,), after(late), "size_usd = 0.0, actual_usd = 0.0: the bot's own size must be above 0"),
        (late | {"id": "other"}, (1.0, -1.0), after(late), "actual_usd = -1.0"),
        (late | {"id": "other"}, (float("nan"),), after(late), "size_usd = nan"),
        (late | {"id": None}, (1.0,), after(late), "needs id, asset and timestamp .* it has id None"),
        (late | {"id": "other"}, (1.0,), after(late, -60), "timestamps are epoch milliseconds"),
        (late | {"id": "other"}, ("much",), after(late), "'much' is not a number"),
        (late | {"id": "other"}, (1.0,), after(late).replace(tzinfo=None), "no time zone"),
        (late | {"id": "other"}, (1.0,), "today", "'today' has no time zone"),
    ]:
        with pytest.raises(UsageError, match=why):
            log.suggestion(ADVISOR, record, advice(), *sizes, at=at)
    assert len(read_shadow(log.path).records) == 1


@pytest.mark.fault
def test_a_torn_last_line_is_set_aside_and_the_log_goes_on(tmp_path, kept):
    path = write(tmp_path / "log", kept.trades[:3], lambda _: advice()).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    write(path, kept.trades[2:3], lambda _: advice())
    assert path.read_bytes() == whole
    assert (tmp_path / "log.torn-0").read_bytes() == whole.splitlines()[-1][:-29]


def test_the_analysis_is_the_arithmetic_of_the_records(tmp_path, kept):
    log = write(tmp_path / "log", kept.trades, lambda record: advice(won(record), 1.5)).path
    found = run_shadow(log, kept.path)
    pnl = np.array([record["outcome"]["realizedPnl"] for record in kept.trades])
    risk = np.array([record["execution"]["positionSizeUsd"] * record["execution"]["stopLossDistancePct"] / 100 for record in kept.trades])
    followed = 1.5 * np.maximum(pnl, 0)
    assert (found["exit"], found["joined"], found["unjoined"]) == (Exit.DONE, len(pnl), [])
    assert found["actual_usd"] == pytest.approx(pnl.sum())
    assert found["suggested_usd"] == pytest.approx(followed.sum())
    assert found["difference_usd"].point == pytest.approx((followed - pnl).mean())
    assert found["difference_r"].point == pytest.approx(((followed - pnl) / risk).mean())
    assert found["left_out"] == (pnl <= 0).sum()
    assert found["sentence"].startswith(
        f"Following would have earned more than what was done: {found['difference_r'].point:+.3f} R a trade"
    )


def test_no_more_is_claimed_than_the_interval_says(tmp_path, kept):
    """Sizes that are drawn by lot; the opposite of what was right; nothing advised at all; too few days."""
    dice = np.random.default_rng(1)
    random = run_shadow(write(tmp_path / "random", kept.trades, lambda _: advice(None, dice.choice([0.5, 1.5]))).path, kept.path)
    assert random["difference_r"].low < 0 < random["difference_r"].high
    assert random["sentence"].startswith("Following cannot be told from what was done: ")
    wrong = run_shadow(write(tmp_path / "wrong", kept.trades, lambda record: advice(not won(record))).path, kept.path)
    assert wrong["sentence"].startswith("Following would have earned less than what was done: -")
    idle = run_shadow(write(tmp_path / "idle", kept.trades, lambda _: advice()).path, kept.path)
    assert idle["sentence"] == "Nothing was advised on these trades: following is what was done."
    assert (idle["difference_r"].point, idle["advised"]) == (0, 0)
    few = run_shadow(write(tmp_path / "few", kept.trades[:4], lambda record: advice(won(record))).path, kept.path)
    assert few["sentence"].startswith("Nothing can be said: values on ")


def test_what_is_not_joined_is_counted_with_its_reason(tmp_path, kept):
    """Suggestions that hindsight may have written do not count, nor do those that the records cannot judge."""
    log, trades, advised = ShadowLog(tmp_path / "log"), kept.trades[:30], advice(None, 1.2)
    passed = next(record for record in kept.records if "avoided" in record and record["timestamp"] > trades[-1]["timestamp"])
    for at, record in enumerate(trades):
        size, changes = record["execution"]["positionSizeUsd"], {}
        late = 3 * 86_400 if at == 29 else 5
        changes = {3: {"id": "nobody"}, 4: {"asset": "DOGE"}, 5: {"timestamp": record["timestamp"] + 1}}.get(at, {})
        actual = {6: 0.0, 7: 0.5 * size}.get(at)
        log.suggestion(ADVISOR, record | changes, advised, size, actual, after(record, late))
    log.suggestion(ADVISOR, passed, advised, 100.0, at=max(after(passed), after(trades[-1], 4 * 86_400)))
    found = run_shadow(log.path, kept.path)
    reasons = {one["reason"]: (one["count"], one["first_line"]) for one in found["unjoined"]}
    assert reasons == {
        "no record has its id": (1, 4), "no record is of its asset": (1, 5), "the record of its id is of another asset or time": (1, 6),
        "the bot did not trade it, so nothing came of it": (1, 7), "the record says another size than the log": (1, 8),
        "it was logged after the trade was closed": (1, 30), "its record has no outcome yet": (1, 31),
    }  # fmt: skip
    assert found["joined"] == 24


SPOILED = {
    "a line in the middle is torn": (lambda lines: [*lines[:3], lines[3][:90], *lines[4:]], r"line 4: not strict JSON.*1 more lines"),
    "a size was changed": (lambda lines: [lines[0].replace(b'"multiplier":1.5', b'"multiplier":1.9'), *lines[1:]], "line 2: the chain"),
    "a line was left out": (lambda lines: lines[:2] + lines[3:], "line 3: the chain is broken here"),
    "another log": (lambda _: [b'{"schema":1,"kind":"decision"}'], "line 1: schema 1, kind 'decision'; .* reads schema 1 and suggestion"),
    "another schema": (lambda lines: [lines[0].replace(b'"schema":1', b'"schema":7'), *lines[1:]], "line 1: schema 7"),
    "nothing in it": (lambda _: [], "the log holds no suggestion"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", SPOILED)
def test_a_log_that_was_touched_is_refused(tmp_path, kept, what):
    path = write(tmp_path / "log", kept.trades[:8], lambda _: advice(None, 1.5)).path
    spoil, why = SPOILED[what]
    lines = spoil(path.read_bytes().splitlines())
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(BadDataError, match=why) as refused:
        run_shadow(path, kept.path)
    assert refused.value.exit_code == Exit.BAD_DATA


@pytest.mark.fault
def test_a_line_that_is_being_written_is_left_out_and_said(tmp_path, kept):
    path = write(tmp_path / "log", kept.trades, lambda _: advice(None, 1.5)).path
    path.write_bytes(path.read_bytes()[:-40])
    found = run_shadow(path, kept.path)
    assert found["joined"] == len(kept.trades) - 1
    assert found["notes"] == ["the last line has no end: the bot is writing it, or died; it is left out"]


@pytest.mark.fault
def test_revisions_are_not_mixed(tmp_path, kept):
    path = write(tmp_path / "log", kept.trades[:40], lambda _: advice(None, 1.5)).path
    write(path, kept.trades[40:80], lambda _: advice(False), OTHER)
    with pytest.raises(
        BadDataError, match=r"2 revisions: c0ffee0000000000 \(40 lines\), decaf00000000000 \(40 lines\).*name one by --revision"
    ):
        run_shadow(path, kept.path)
    assert run_shadow(path, kept.path, "decaf")["left_out"] == 40
    with pytest.raises(UsageError, match="'beef' names none of the revisions in"):
        run_shadow(path, kept.path, "beef")


@pytest.mark.fault
def test_two_logs_put_together_in_the_wrong_order_are_seen(tmp_path, kept):
    """A chain that somebody makes anew is whole; its times are not."""
    path, lines = tmp_path / "log", []
    log = ShadowLog(path)
    for record in (kept.trades[5], kept.trades[2]):
        log._newest.clear()
        log.suggestion(ADVISOR, record | {"asset": "BTC"}, advice(), 1.0, at=after(kept.trades[9]))
        lines.append(record["timestamp"])
    with pytest.raises(BadDataError, match=rf"line 2: decided_ms {lines[1]} lies before {lines[0]}, the BTC decision above it"):
        run_shadow(path, kept.path)
    back = ShadowLog(tmp_path / "back")
    back.suggestion(ADVISOR, kept.trades[0], advice(), 1.0, at=after(kept.trades[9]))
    back.suggestion(ADVISOR, kept.trades[1], advice(), 1.0, at=after(kept.trades[1]))
    with pytest.raises(BadDataError, match=r"line 2: at_utc .* lies before .*; was the clock set back\?"):
        run_shadow(back.path, kept.path)


@pytest.mark.fault
def test_records_of_another_bot_join_nothing(tmp_path, kept):
    log = write(tmp_path / "log", kept.trades[:20], lambda _: advice(None, 1.5)).path
    write_records(make_records(120, 0.0, seed=77), tmp_path / "others.jsonl")
    with pytest.raises(BadDataError, match=r"no suggestion can be judged: .*no record has its id \(first: line 1\)"):
        run_shadow(log, tmp_path / "others.jsonl")
    with pytest.raises(BadDataError, match="no such file; name the log"):
        run_shadow(tmp_path / "nowhere", kept.path)


def test_the_command_prints_the_figures_and_one_object_under_json(tmp_path, kept):
    log = write(tmp_path / "log", kept.trades, lambda record: advice(won(record))).path
    asked = ["shadow", "--log", str(log), "--data", str(kept.path)]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0
    assert f"{len(kept.trades):,} suggestions, {len(kept.trades):,} joined with an outcome" in shown.output
    assert shown.output.splitlines()[-1].startswith("Following would have earned more than what was done: +")
    record = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert (record["exit"], record["status"], record["revision"]) == (0, "done", ADVISOR.name)
    assert set(record["difference_r"]) >= {"low", "high", "point", "n", "blocks", "reason"}


def test_a_candidate_in_shadow_logs_what_it_says(tmp_path, small_trades):
    advisor = TradeAdvisor.load(small_trades.store, None, mode="shadow")
    log, records = ShadowLog(tmp_path / "log"), small_trades.lines
    for at in range(60, 120):
        record = {name: part for name, part in records[at].items() if name not in ("outcome", "labels")}
        log.suggestion(
            advisor,
            record,
            advisor.advise(record, records[:at]),
            record["execution"]["positionSizeUsd"] if "execution" in record else 1.0,
            at=after(record),
        )
    found = run_shadow(log.path, small_trades.folder / "log.jsonl")
    assert (found["revision"], found["suggestions"], found["advised"]) == (advisor.name, 60, 0)
    assert found["joined"] == sum("outcome" in record for record in records[60:120])
    assert {line["mode"] for line in read_shadow(log.path).records} == {"shadow"}


@pytest.mark.contract
def test_a_bots_machine_advises_and_logs_with_numpy_and_onnxruntime(tmp_path, small_trades):
    """Load, advise and log in a fresh process: nothing else of the workbench is imported on the way."""
    (tmp_path / "records.json").write_text(json.dumps(small_trades.lines[:40]))
    code = f"""
import json, sys
from trademl.bot import ShadowLog, TradeAdvisor
advisor = TradeAdvisor.load({str(small_trades.store)!r}, None, mode="shadow")
*history, record = json.load(open({str(tmp_path / "records.json")!r}))
print(ShadowLog({str(tmp_path / "log")!r}).suggestion(advisor, record, advisor.advise(record, history), 500.0))
print(*sorted({{name.split(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seq, modules = done.stdout.splitlines()
    third = {name for name in modules.split() if not name.startswith("_")}
    assert seq == "0"
    assert third <= {"trademl", "numpy", "onnxruntime", "cryptography", "sitecustomize"}
    assert read_shadow(tmp_path / "log").records[0]["suggested_usd"] == 500
