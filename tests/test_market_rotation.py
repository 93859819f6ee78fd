"""Rotations: every run has the strategy's number of trades, at the strategy's own R, and no account touches them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.data.synthetic import synthetic_market
from trademl.errors import UsageError
from trademl.market.backtest import Decisions, prepare, run_backtest
from trademl.market.rotation import EVIDENCE_ACCOUNT, entries_made, place_entries, rotate
from trademl.market.specs import CostSpec, ExitReason, LabelSpec

N = 700
COSTS = CostSpec(spread=9, commission=2, slippage=1.5, swap_long=-3, swap_short=1, contract_size=10)
PREPARED = prepare(synthetic_market(N, edge=0.0).bars)


def decisions_of(seed, share=0.2, leaves=True):
    rng = np.random.default_rng(seed)
    side = np.where(rng.random(N) < share, rng.choice([-1, 1], N), 0)
    leave = np.where(rng.random(N) < 0.5, np.arange(N) + rng.integers(1, 30, N), -1)
    return Decisions(side, np.where(leave < N, leave, -1) if leaves else None)


def trade_alone(t, side, hold):
    """The one trade of a backtest that decides nothing else."""
    sides, leave = np.zeros(N, np.int8), np.full(N, -1)
    sides[t] = side
    if hold > 0 and t + hold < N:
        leave[t] = t + hold
    return run_backtest(PREPARED, Decisions(sides, leave), PREPARED.spec, COSTS, EVIDENCE_ACCOUNT).trades.iloc[0]


def placed_slowly(entries, start, stop, shift):
    """(decision bars, net R), one backtest a trade."""
    moved = sorted(
        (start + (at - start + shift) % (stop - start), side, hold) for at, side, hold in zip(*vars(entries).values(), strict=True)
    )
    can_open = [PREPARED.atr[t] > 0 and t + 1 < N for t in range(N)]
    free, found = start, []
    for own, side, hold in moved:
        waiting = [t for t in range(max(own, free), stop) if can_open[t]]
        anywhere = [t for t in (*range(own, stop), *range(start, own)) if can_open[t]]
        t = waiting[0] if waiting else anywhere[0]
        one = trade_alone(t, side, hold)
        found.append((t, one.net_r))
        if waiting:
            free = one.exit_bar - (one.reason == ExitReason.MODEL and PREPARED.rules.at_next_open)
    return found


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 200), st.integers(300, N), st.integers(-900, 900), st.sampled_from([0.03, 0.2, 0.9]))
def test_each_entry_goes_where_a_slow_walk_puts_it(seed, start, stop, shift, share):
    made = decisions_of(seed, share)
    side = np.where((np.arange(N) >= start) & (np.arange(N) < stop), made.side, 0)
    entries = entries_made(PREPARED, Decisions(side, made.exit_bar), COSTS)
    placed = place_entries(PREPARED, entries, COSTS, start, stop, shift=shift)
    expected = sorted(placed_slowly(entries, start, stop, shift), key=lambda one: one[0])
    assert placed.trades.decision_bar.tolist() == [t for t, _ in expected]
    np.testing.assert_allclose(placed.trades.net_r, [r for _, r in expected], rtol=1e-6, atol=1e-9)
    one = rotate(PREPARED, entries, [shift], COSTS, start=start, stop=stop, points=np.arange(N))
    if len(entries):
        assert one.expectancy[0] == pytest.approx(placed.trades.net_r.mean(), abs=1e-9)
        assert one.win_rate[0] == (placed.trades.net_r > 0).mean()
    np.testing.assert_allclose(one.worth_r[0], placed.worth_r, atol=1e-9)


@pytest.mark.parametrize("entry", ["next_open", "close"])
@pytest.mark.parametrize("seed", range(4))
def test_unmoved_entries_are_the_strategys_own_trades_and_marks(seed, entry):
    prepared = prepare(synthetic_market(N, edge=0.0).bars, LabelSpec(entry=entry))
    made = decisions_of(seed)
    alone = run_backtest(prepared, made, prepared.spec, COSTS, EVIDENCE_ACCOUNT)
    entries = entries_made(prepared, made, COSTS)
    placed = place_entries(prepared, entries, COSTS, 0, N)
    for name in ("decision_bar", "entry_bar", "exit_bar", "side", "reason", "label_reason", "entry_price", "exit_price"):
        assert (placed.trades[name] == alone.trades[name]).all(), name
    np.testing.assert_allclose(placed.trades[["gross_r", "net_r"]], alone.trades[["gross_r", "net_r"]], rtol=1e-6, atol=1e-9)
    one_r = EVIDENCE_ACCOUNT.balance * EVIDENCE_ACCOUNT.risk_pct / 100
    np.testing.assert_allclose(placed.worth_r, (alone.equity - EVIDENCE_ACCOUNT.balance) / one_r, atol=2e-3)


def test_every_run_has_the_observed_number_even_where_there_is_hardly_room():
    entries = entries_made(PREPARED, Decisions(np.ones(N, np.int8)), COSTS)  # always in a trade
    every = rotate(PREPARED, entries, np.arange(N), COSTS, start=0, stop=N)
    assert every.left_over.max() > 0
    np.testing.assert_allclose(every.expectancy * len(entries), every.total_r)
    assert np.isfinite(every.total_r).all()


def test_how_much_is_risked_changes_nothing():
    made = decisions_of(5)
    shrunk = Decisions(made.side, made.exit_bar, np.where(made.side > 0, 0.0, 1.25))
    one, other = (entries_made(PREPARED, decisions, COSTS) for decisions in (made, shrunk))
    assert all((a == b).all() for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_without_an_entry_there_is_nothing():
    none = entries_made(PREPARED, Decisions(np.zeros(N, np.int8)), COSTS)
    runs = rotate(PREPARED, none, np.arange(5), COSTS, start=0, stop=N, points=[3])
    assert np.isnan(runs.expectancy).all()
    assert (runs.worth_r == 0).all()
    assert not len(place_entries(PREPARED, none, COSTS, 0, N).trades)


def test_refusals():
    entries = entries_made(PREPARED, decisions_of(1), COSTS)
    for start, stop in ((5, 5), (0, N + 1), (-1, 9)):
        with pytest.raises(UsageError, match="window"):
            rotate(PREPARED, entries, [1], COSTS, start=start, stop=stop)
    with pytest.raises(UsageError, match="shifts"):
        rotate(PREPARED, entries, [0.5], COSTS, start=0, stop=N)
    for points in ([N], [3, 3]):
        with pytest.raises(UsageError, match="points"):
            rotate(PREPARED, entries, [1], COSTS, start=0, stop=N, points=points)
    with pytest.raises(UsageError, match="do not lie within"):
        rotate(PREPARED, entries, [1], COSTS, start=N - 20, stop=N)
