"""The chain of looks: when a recipe is judged, at which number, and what no hand may do to the file."""

import json
import multiprocessing
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trademl.clock import DAY_S
from trademl.errors import LooksError, UsageError
from trademl.evidence.looks import AGREEMENT, CarriedLook, DataKind, LookRequest, close_look, day_prints, family_level, open_look

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
FIRST = 20_000  # day number on which the first window of these tests ends
WINDOW = 146
A, B, C = ("aa" * 8, "bb" * 8, "cc" * 8)


def ask(day=0, recipe=A, *, window=WINDOW, seed=0, market="btc", **more) -> LookRequest:
    """A run whose bars end `day` days after the first one's: the last `window` days are its final window, with an entry a day."""
    end = FIRST + day
    days = range(end - window, end)
    entries = np.array([(d * DAY_S + 900 * (1 + seed % 90), 1, 0) for d in days])
    prints = {d: f"{market}{d}" for d in range(end - 600, end)}
    common = {"line": "market-btcusd-15min", "data": DataKind.MARKET, "run_id": f"day {day}", "alpha": 0.01, "first_s": 0}
    made = LookRequest(recipe=recipe, start_s=days[0] * DAY_S, end_s=end * DAY_S, prints=prints, entries=entries, **common)
    return replace(made, **more)


def at(day) -> datetime:
    return NOW + timedelta(days=day)


def judge(path, request, day=0, *, passed=False, **more):
    """A run that ends well: it looks and, if it is to judge, says its verdict."""
    look = open_look(path, request, now=at(day), **more)
    if look.standing is None:
        close_look(path, look, passed=passed, sentence="because", now=at(day))
    return look


@pytest.fixture
def path(tmp_path):
    return tmp_path / "models" / "looks.jsonl"


# --- when a recipe is judged ----------------------------------------------------------------------------------------------


def test_the_first_look(path):
    look = judge(path, ask(), passed=True)
    assert (look.number, look.level, look.words) == (1, 0.01, "look 1 at these days, judged at 1 %")
    assert [json.loads(line)["kind"] for line in path.read_bytes().splitlines()] == ["project", "look", "verdict"]
    assert json.loads(path.read_bytes().splitlines()[1])["at_utc"] == "2026-02-03T04:05:06Z"


@pytest.mark.parametrize("again", [{"seed": 7}, {"window": 90}, {"window": 300}, {"day": 7}, {"day": 7, "seed": 3, "window": 40}])
def test_another_seed_share_or_week_is_no_new_judgement(path, again):
    first = judge(path, ask(), passed=True)
    look = open_look(path, ask(**again), now=at(9))
    assert look.standing.passed and look.standing.sentence == "because" and look.number == 1
    assert look.start_s == first.start_s  # a longer window reaches back: days before the record are not judged
    kept = look.entries(end_s=first.end_s)
    assert kept.tolist() == first.entries().tolist()  # the days first judged keep their entries
    assert len(look.entries()) == WINDOW + again.get("day", 0)
    needed = max(WINDOW, again.get("window", 0) if again.get("day") else 0)
    assert look.words == f"standing verdict of 2026-02-03; {again.get('day', 0)} of {needed} new days"


def test_weekly_retrains_are_judged_after_each_whole_window(path):
    judged = [day for day in range(0, 730, 7) if judge(path, ask(day, seed=day), day).standing is None]
    assert judged == [0, 147, 294, 441, 588]
    look = open_look(path, ask(735), now=at(735))
    assert look.number == 1 and len(look.entries()) == WINDOW + 735  # the whole record, not the last window


def test_a_replay_of_old_days_changes_nothing(path):
    """A backtest of the stored days asks for all of them: that is no longer window to wait for."""
    judge(path, ask())
    judge(path, ask(140), 140)
    replayed = open_look(path, ask(140, window=WINDOW + 140), now=at(141))
    assert replayed.words.endswith("140 of 146 new days")
    assert open_look(path, ask(147), now=at(147)).standing is None


def test_a_tiny_window_does_not_bring_weekly_judgements(path):
    judged = [day for day in range(0, 210, 7) if judge(path, ask(day, window=7), day).standing is None]
    assert judged == [0, 63, 126, 189]


@given(runs=st.lists(st.tuples(st.integers(0, 60), st.integers(20, 200), st.integers(0, 9), st.booleans()), min_size=2, max_size=12))
@hypothesis_settings(max_examples=30)
def test_no_history_of_runs_shops(tmp_path_factory, runs):
    """Against a plain model: judged only when the record has grown enough; entries, start and number never take a step back."""
    path = tmp_path_factory.mktemp("looks") / "looks.jsonl"
    day, known, open_end, judged_end, longest, longest_before = 0, {}, None, None, 0, 0
    for step, window, seed, survives in runs:
        day += step
        look = open_look(path, ask(day, window=window, seed=seed), now=at(day))
        end = FIRST + day
        longest = max(longest, window) if look.standing is None else longest  # who does not look moves nothing
        before = max(longest_before, 60)
        if judged_end is None and open_end is None:
            start = end - window
            assert look.standing is None
            open_end = end
        elif open_end is not None:
            assert look.standing is None and look.end_s == open_end * DAY_S  # taken up again on the same days
        elif look.standing is None:
            gained = sum(first < d <= end for first in [judged_end] for d in range(first + 1, end + 1))
            assert gained >= before
            open_end = end
        assert look.start_s == start * DAY_S and look.number >= 1
        now = {row[0] // DAY_S: tuple(row) for row in look.all_entries.tolist()}
        assert all(now[d] == entry for d, entry in known.items())
        known = now
        if open_end is not None and look.standing is None and survives:
            close_look(path, look, passed=False, sentence="", now=at(day))
            judged_end, open_end = open_end, None
        longest_before = longest


def test_asking_for_a_longer_window_puts_no_judgement_off(path):
    """Else one could watch the standing record's page week by week, and be judged in the week that looks best."""
    judge(path, ask())
    judged = [day for day in range(7, 300, 7) if judge(path, ask(day, window=day + 20), day).standing is None]
    assert judged[0] == 147
    judged = [day for day in range(301, 400, 7) if judge(path, ask(day, window=60), day).standing is None]
    assert len(judged) <= 1


def test_a_look_whose_run_died_is_taken_up_on_the_same_days(path):
    """Who sees bad figures and pulls the plug before the verdict gains no extra week and no other level."""
    died = open_look(path, ask(), now=at(0))
    look = open_look(path, ask(21, seed=5, alpha=0.05), now=at(21))
    assert look.standing is None and (look.start_s, look.end_s, look.level) == (died.start_s, died.end_s, 0.01)
    assert look.entries().tolist() == died.entries().tolist()
    assert "ended without a verdict" in look.remarks[0]
    close_look(path, look, passed=False, sentence="", now=at(21))
    assert open_look(path, ask(28), now=at(28)).standing.words.endswith("28 of 146 new days")


@pytest.mark.parametrize(("first_day", "number"), [(-600, 1), (-100, 2)])
def test_days_that_the_bars_no_longer_price_cost_a_look(path, first_day, number):
    judge(path, ask())
    look = open_look(path, ask(146, first_s=(FIRST + first_day) * DAY_S + 900), now=at(146))
    assert look.standing is None and look.number == number
    assert look.start_s == (FIRST - WINDOW if number == 1 else FIRST + first_day + 1) * DAY_S


def test_days_that_were_skipped_cost_a_look(path):
    judge(path, ask())
    look = open_look(path, ask(300), now=at(300))  # its window begins 154 days after the record's end
    assert look.standing is None and look.number == 2 and "never judged" in look.remarks[0]


# --- the number -----------------------------------------------------------------------------------------------------------


def test_the_kth_recipe_on_the_same_days_is_judged_at_a_kth(path):
    looks = [judge(path, ask(recipe=f"{k:016x}")) for k in range(1, 8)]
    assert [look.number for look in looks] == [1, 2, 3, 4, 5, 6, 7]
    assert looks[-1].words == "look 7 at these days, judged at 0.14 %"
    assert looks[-1].to_json()["family_level"] == pytest.approx(family_level(0.01, 7)) == pytest.approx(0.02593, abs=1e-5)
    assert open_look(path, ask(7, recipe=f"{7:016x}"), now=at(7)).number == 7  # while its verdict stands
    assert judge(path, ask(146, recipe=f"{3:016x}"), 146).number == 3  # and when it is judged again


def test_one_shared_day_counts_and_none_does_not(path):
    judge(path, ask(0))
    assert judge(path, ask(WINDOW, B)).number == 1
    assert judge(path, ask(WINDOW - 1, C)).number == 3  # shares a day with both


def test_growing_into_days_of_an_earlier_recipe_raises_the_number(path):
    judge(path, ask(0))
    judge(path, ask(-200, B))
    assert judge(path, ask(-54, B), 160).number == 2


def test_other_data_are_another_record(path):
    judge(path, ask())
    assert judge(path, ask(market="eth")).number == 2
    few = ask().prints | dict.fromkeys(range(FIRST - WINDOW, FIRST - WINDOW + 1), "revised")
    assert judge(path, ask(prints=few)).standing is not None  # 145 of 146 days agree
    many = ask().prints | dict.fromkeys(range(FIRST - WINDOW, FIRST - WINDOW + 3), "revised")
    assert AGREEMENT > 143 / 146 and judge(path, ask(prints=many)).number == 3


def test_the_same_days_under_another_name_are_the_same_data(path):
    judge(path, ask())
    assert open_look(path, ask(line="market-xbt-15min"), now=NOW).standing is not None
    assert open_look(path, ask(recipe=B, line="market-xbt-15min"), now=NOW).number == 2
    assert open_look(path, ask(recipe=B, line="market-ethusd-15min", data=DataKind.MARKET, prints={}), now=NOW).number == 1
    moved = {day + 365: seen for day, seen in ask().prints.items()}  # the same prices, stamped a year later
    assert open_look(path, ask(365, C, line="market-new-15min", prints=moved), now=NOW).number == 3


def test_embedded_markets_are_told_apart_by_their_days_alone(path):
    market = {"line": "market-synth-15min", "data": DataKind.EMBEDDED}
    one, two = ({day: f"{seed}-{day}" for day in range(FIRST - 600, FIRST)} for seed in "12")
    assert judge(path, ask(prints=one, **market)).number == 1
    assert judge(path, ask(prints=two, **market)).number == 1  # another seed of the generator: other days
    assert judge(path, ask(recipe=B, prints=one, **market)).number == 2
    assert open_look(path, ask(prints=one, **market), now=NOW).standing is not None


def test_a_note_is_written_and_counts_nothing(path):
    judge(path, ask())
    look = open_look(path, ask(note="spread 30"), now=at(1))
    assert look.standing is not None and look.number == 1
    assert json.loads(path.read_bytes().splitlines()[-1])["text"] == "spread 30"
    assert judge(path, ask(recipe=B)).number == 2
    with pytest.raises(UsageError, match="under its own costs first"):
        open_look(path, ask(recipe=C, note="spread 30"), now=NOW)


def test_days_are_known_by_their_moves():
    rng = np.random.default_rng(4)
    time = pd.date_range("2026-01-01", periods=96 * 30, freq="15min", tz="UTC")
    frame = pd.DataFrame({"close": 100 * np.exp(0.002 * rng.standard_normal(len(time)).cumsum())}, index=time)
    prints = day_prints(frame)
    days = sorted(prints)[3:-3]
    assert len(days) > 12
    for same in (frame.iloc[50:], frame * 10, frame.iloc[:-70]):
        assert [day_prints(same)[day] for day in days] == [prints[day] for day in days]
    restamped = day_prints(frame.set_axis(time + pd.Timedelta(days=365)))
    assert [restamped[day + 365] for day in days] == [prints[day] for day in days]
    assert day_prints(pd.DataFrame({"close": np.ones(500)}, index=time[:500])) == {}
    assert day_prints(frame.iloc[:1]) == {}


def test_a_small_revision_of_the_prices_is_the_same_data(path):
    """Another rounding, or one bar in five hundred corrected: the record goes on."""
    rng = np.random.default_rng(4)
    time = pd.date_range("2026-01-01", periods=96 * 200, freq="15min", tz="UTC")
    frame = pd.DataFrame({"close": 60_000 * np.exp(0.002 * rng.standard_normal(len(time)).cumsum())}, index=time)
    end = int(time[-1].timestamp()) // DAY_S
    asked = {"start_s": (end - 100) * DAY_S, "end_s": end * DAY_S, "entries": np.array([[(end - 50) * DAY_S, 1, 0]])}
    judge(path, ask(prints=day_prints(frame), **asked))
    revised = frame.where(rng.random(len(time))[:, None] > 0.002, frame * 1.0005)
    for other in ((frame * 1.0001).round(2), revised):
        assert judge(path, ask(prints=day_prints(other), **asked)).standing is not None
    strange = frame.assign(close=100 * np.exp(0.002 * rng.standard_normal(len(time)).cumsum()))
    assert judge(path, ask(prints=day_prints(strange), **asked)).standing is None


# --- what nobody may do to the file ---------------------------------------------------------------------------------------


@pytest.fixture
def chain(path):
    """Three recipes, each with its verdict: seven lines."""
    for recipe in (A, B, C):
        judge(path, ask(recipe=recipe))
    return path


@pytest.mark.fault
@pytest.mark.parametrize(
    ("harm", "where", "what"),
    [
        (lambda lines: lines[:3] + lines[4:], "line 4", "a line between them is gone"),
        (lambda lines: lines[1:], "line 1", "the beginning was cut off"),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], "line 5", "repeats line 4"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "line 3", "a line between them is gone|out of order"),
        (lambda lines: [*lines[:3], lines[5], *lines[3:5], *lines[6:]], "line 4", "out of order: it was written after line 6"),
        (lambda lines: [*lines[:3], lines[3].replace(b'"number":2', b'"number":1'), *lines[4:]], "line 4", "was edited"),
        (lambda lines: [*lines[:2], lines[2].replace(b"false", b"true"), *lines[3:]], "line 3", "was edited"),
        (lambda lines: [*lines[:3], lines[3][:50], *lines[4:]], "line 4", "is not a line of JSON"),
        (lambda lines: [*lines[:3], b"", *lines[3:]], "line 4", "is not a line of JSON"),
        (lambda lines: [*lines, lines[0]], "line 8", "begins another chain"),
        (lambda lines: [b"[1, 2]", *lines], "line 1", "is not a line of JSON"),
    ],
)
def test_a_damaged_chain_shows_no_figures(chain, harm, where, what):
    lines = chain.read_bytes().splitlines()
    assert len(lines) == 7
    chain.write_bytes(b"".join(line + b"\n" for line in harm(lines)))
    before = chain.read_bytes()
    with pytest.raises(LooksError, match=f"{where}: .*({what}).*(move the file away|update)") as refusal:
        open_look(chain, ask(9), now=NOW)
    assert refusal.value.exit_code == 1
    assert chain.read_bytes() == before


def carried(look, revision="1234abcd"):
    return CarriedLook(revision, look.project, look.hash, look.number)


@pytest.mark.fault
def test_a_chain_cut_at_its_end_is_seen_by_the_revisions(chain):
    looks = [carried(open_look(chain, ask(day), now=at(day))) for day in (7, 14)]
    whole = chain.read_bytes()
    assert open_look(chain, ask(21), now=at(21), carried=looks).number == 1
    chain.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(LooksError, match="line 9: is gone: revision 1234abcd carries look"):
        open_look(chain, ask(21), now=at(21), carried=looks)


@pytest.mark.fault
def test_another_projects_chain_is_refused(chain, tmp_path):
    other = judge(tmp_path / "other" / "looks.jsonl", ask())
    with pytest.raises(
        LooksError, match=f"line 1: is of project [0-9a-f]{{16}}, but the revisions here carry looks of project {other.project}"
    ):
        open_look(chain, ask(), now=NOW, carried=[carried(other)])
    ours = carried(open_look(chain, ask(), now=NOW))
    assert open_look(chain, ask(), now=NOW, carried=[carried(other), ours]).standing  # a pulled revision beside our own


@pytest.mark.fault
def test_a_lost_chain_begins_above_the_highest_number(chain):
    looks = [carried(judge(chain, ask(recipe=f"{k:016x}"))) for k in range(20)]
    assert looks[-1].number == 23
    for lost, number in ((1, 24), (2, 25)):  # each loss counts
        chain.unlink()
        look = judge(chain, ask(recipe=A), carried=looks)
        assert look.number == number, lost
        assert "was lost" in look.remarks[0]
        looks.append(carried(look))
    assert judge(chain, ask(recipe=B), carried=looks).number == 26
    assert judge(chain, ask(recipe=C, line="market-ethusd-15min", prints={}), carried=looks).number == 25


@pytest.mark.fault
@pytest.mark.parametrize("cut", [1, 20, -2])
def test_a_torn_last_line_counts_as_a_look_and_blocks_nobody(chain, cut):
    torn = chain.read_bytes()
    open_look(chain, ask(recipe="dd" * 8), now=NOW)
    chain.write_bytes(chain.read_bytes()[: len(torn) + cut] if cut > 0 else chain.read_bytes()[:cut])
    before = chain.read_bytes()
    look = judge(chain, ask(recipe="dd" * 8))
    assert chain.read_bytes().startswith(before)  # nothing was rewritten
    assert look.number == 5 and "line 8 is torn" in look.remarks[0]
    again = judge(chain, ask(recipe="ee" * 8, line="market-ethusd-15min", prints={}))
    assert again.number == 2 and not again.remarks  # said once; nobody knows which days it judged


@pytest.mark.fault
@pytest.mark.parametrize("rest", [b"\0" * 40, b"{}", b"[1]", b'{"kind":"look"}'], ids=["zeros", "empty", "list", "unsealed"])
def test_rubbish_behind_the_last_line_is_a_torn_line(chain, rest):
    chain.write_bytes(chain.read_bytes() + rest)
    assert judge(chain, ask(recipe="dd" * 8)).number == 5
    assert judge(chain, ask(recipe="dd" * 8)).standing


@pytest.mark.fault
def test_a_line_that_lacks_only_its_line_feed_is_whole(chain):
    chain.write_bytes(chain.read_bytes()[:-1])
    look = judge(chain, ask(recipe="dd" * 8))
    assert look.number == 4 and not look.remarks
    assert judge(chain, ask(7)).standing


@pytest.mark.fault
@pytest.mark.parametrize("rest", [b"", b'{"alpha'])
def test_a_first_line_that_was_never_finished_is_no_chain(path, rest):
    path.parent.mkdir()
    path.write_bytes(rest)
    assert judge(path, ask()).number == 1


@pytest.mark.fault
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_file_as_it_was(chain, monkeypatch, failure):
    before, write = chain.read_bytes(), os.write

    def half(handle, data):
        if len(data) < 100:
            raise failure
        return write(handle, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(LooksError if isinstance(failure, OSError) else KeyboardInterrupt):
        open_look(chain, ask(recipe="dd" * 8), now=NOW)
    monkeypatch.undo()
    assert chain.read_bytes() == before


@pytest.mark.fault
def test_a_file_that_cannot_be_written_shows_no_figures(chain, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LooksError, match=r"cannot be written.*no figures are shown"):
        open_look(chain, ask(), now=NOW)
    monkeypatch.undo()
    link = tmp_path / "link.jsonl"
    link.symlink_to(chain)
    with pytest.raises(LooksError):
        open_look(link, ask(), now=NOW)
    (tmp_path / "hard.jsonl").hardlink_to(chain)
    with pytest.raises(LooksError, match="regular file of its own"):
        open_look(chain, ask(), now=NOW)
    with pytest.raises(LooksError):
        open_look(chain / "looks.jsonl", ask(), now=NOW)  # its folder is a file


def test_a_clock_that_went_back_is_said_and_never_written(path):
    judge(path, ask(), 30)
    look = open_look(path, ask(recipe=B), now=at(0))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["at_utc"] for line in lines] == ["2026-03-05T04:05:06Z"] * 4
    assert lines[-1]["clock_utc"] == "2026-02-03T04:05:06Z" and "clock went back" in look.remarks[0]
    assert "clock_utc" not in lines[-2]


def _look_at_once(path, worker, results):
    results.put([open_look(path, ask(recipe=f"{worker:08x}{k:08x}"), now=NOW).number for k in range(8)])


@pytest.mark.fault
def test_runs_at_once_get_distinct_numbers(path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_look_at_once, args=(path, number, results)) for number in range(3)]
    for worker in workers:
        worker.start()
    numbers = sorted(number for _ in workers for number in results.get(timeout=60))
    for worker in workers:
        worker.join()
    assert numbers == list(range(1, 25))


def test_what_is_absurd_writes_nothing(path):
    for change in ({"alpha": 0.5}, {"end_s": 0}, {"recipe": ""}, {"entries": np.zeros((2, 2), int)}, {"entries": np.array([[0, 1, 0]])}):
        with pytest.raises(UsageError):
            open_look(path, replace(ask(), **change), now=NOW)
    assert not path.parent.exists()


def test_a_verdict_is_given_once_and_only_for_a_look(path):
    look = judge(path, ask())
    with pytest.raises(LooksError, match="has a verdict already"):
        close_look(path, look, passed=True, sentence="", now=NOW)
    with pytest.raises(UsageError, match="no verdict of its own"):
        close_look(path, open_look(path, ask(7), now=NOW), passed=True, sentence="", now=NOW)
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:1]) + b"\n")
    with pytest.raises(LooksError, match="does not hold"):
        close_look(path, look, passed=True, sentence="", now=NOW)


# --- an older version's ledger --------------------------------------------------------------------------------------------


def test_an_older_ledger_is_read_once_and_kept(path, tmp_path):
    ledger = tmp_path / "reports" / "ledger.jsonl"
    ledger.parent.mkdir()
    window = {"start_s": (FIRST - 300) * DAY_S, "end_s": (FIRST - 1) * DAY_S, "schema": 1}
    told = [("market-btcusd-15min", "r1"), ("market-btcusd-15min", "r1"), ("market-btcusd-15min", "r2"), ("market-ethusd-15min", "r3")]
    ledger.write_text("".join(json.dumps({"line": line, "revision": name} | window) + "\n" for line, name in told))
    before = ledger.read_bytes()
    assert judge(path, ask(), ledger=ledger).number == 3  # r1 and r2
    ledger.write_bytes(before + before.replace(b"r1", b"r9"))
    assert judge(path, ask(recipe=B), ledger=ledger).number == 4  # read once
    path.unlink()
    ledger.write_bytes(before + b'{"line": "mar')
    assert judge(path, ask(), ledger=ledger).number == 4  # a look that cannot be read was a look
    assert ledger.read_bytes() == before + b'{"line": "mar'
