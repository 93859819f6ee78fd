"""Profiles, the seven state features, lots and trade sequences: edges and refusals."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import BadDataError, UsageError
from trademl.risk.profiles import PROFILES, Profile, profile
from trademl.risk.state import STATE_FEATURES, clamp_multiplier, consecutive_losses, equity_state, profit_factor
from trademl.risk.trades import LotSpec, TradeSequence, sequence_of

ACCOUNT = {"equity": 450.0, "start": 500.0, "peak": 600.0, "atr_norm": 0.004}


@pytest.mark.contract
def test_the_list_of_features():
    assert STATE_FEATURES == (
        "equity_ratio",
        "drawdown_from_peak",
        "rolling_wr_10",
        "rolling_wr_20",
        "rolling_pf_10",
        "consecutive_losses",
        "atr_norm",
    )


@pytest.mark.contract
def test_the_five_profiles():
    table = [(p.number, p.max_total_drawdown_pct, p.weekly_pause_pct, p.base_risk_pct, p.confidence, p.margin_r) for p in PROFILES]
    assert table == [
        (1, 20, 8, 0.75, 0.65, 0.10),
        (2, 30, 10, 1.0, 0.63, 0.08),
        (3, 40, 12, 1.5, 0.60, 0.05),
        (4, 50, 15, 2.0, 0.58, 0.03),
        (5, 65, 20, 3.0, 0.55, 0.00),
    ]


@pytest.mark.parametrize("number", [0, 6, "bold", None, 1.5])
def test_unknown_profile_lists_the_right_ones(number):
    with pytest.raises(UsageError, match=r"1: halt 20 %.*5: halt 65 %"):
        profile(number)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_total_drawdown_pct": 0},
        {"max_total_drawdown_pct": 100},
        {"base_risk_pct": float("nan")},
        {"weekly_pause_pct": -1},
        {"confidence": 1.1},
        {"margin_r": -0.1},
    ],
)
def test_impossible_profile(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(PROFILES[0], **wrong)


def test_profile_fractions():
    assert Profile(9, 25, 5, 2, 0.5, 0).ceiling == 0.25
    assert Profile(9, 25, 5, 2, 0.5, 0).base_risk == 0.02


def test_a_bot_can_import_the_state_with_numpy_alone():
    code = "import sys; import trademl.risk.state; print(sorted({'numba','pandas','lightgbm','sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("wins", range(5))
def test_below_five_trades_is_neutral(wins):
    state = equity_state([1.0] * wins, **ACCOUNT)
    assert state[2:5].tolist() == [0.5, 0.5, 1.0]


def test_five_trades_count():
    state = equity_state([1.875, -1, -1, 1.875, -1], **ACCOUNT)
    assert state == pytest.approx([0.9, 0.25, 0.4, 0.4, 3.75 / 3, 1, 0.004])


def test_windows_of_ten_and_twenty():
    history = [9.0] * 5 + [-1.0] * 10 + [2.0] * 8 + [-1.0] * 2
    state = equity_state(history, **ACCOUNT)
    assert state[2] == 0.8
    assert state[3] == 8 / 20
    assert state[4] == 8.0
    assert state[5] == 2


def test_profit_factor_is_bounded_in_the_state():
    assert equity_state([5.0] * 9 + [-0.1], **ACCOUNT)[4] == 10.0
    assert profit_factor([5.0] * 9 + [-0.1]) == pytest.approx(450)
    assert equity_state([1.0] * 10, **ACCOUNT)[4] == 10.0
    assert equity_state([0.0] * 10, **ACCOUNT)[2:5].tolist() == [0, 0, 1.0]


def test_a_zero_ends_the_losing_run():
    assert consecutive_losses([-1, 0.0]) == 0
    assert consecutive_losses([0.0, -1, -1]) == 2
    assert consecutive_losses([]) == 0


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"equity": 0.0}, "equity = 0.0"),
        ({"equity": -5.0}, "equity"),
        ({"start": 0.0}, "start = 0.0"),
        ({"peak": float("inf")}, "peak"),
        ({"peak": 449.0}, "below equity"),
        ({"atr_norm": float("nan")}, "atr_norm"),
        ({"atr_norm": -0.1}, "atr_norm"),
    ],
)
def test_impossible_account(wrong, names):
    with pytest.raises(UsageError, match=names):
        equity_state([1.0], **(ACCOUNT | wrong))


def test_history_must_be_finite():
    with pytest.raises(UsageError, match="closed_net_r"):
        equity_state([1.0, np.nan], **ACCOUNT)


def test_clamp():
    assert clamp_multiplier([-3, 0.1, 0.7, 9]).tolist() == [0.10, 0.10, 0.7, 1.25]
    with pytest.raises(UsageError, match="not a finite number"):
        clamp_multiplier([0.5, np.nan])


# --- lots


@given(
    money=st.floats(0.01, 1e5),
    distance=st.floats(0.01, 1e4),
    lots=st.builds(LotSpec, contract_size=st.sampled_from([1.0, 100.0]), lot_step=st.sampled_from([0.001, 0.01]), min_lot=st.just(0.01)),
)
def test_lots_never_risk_more_than_asked(money, distance, lots):
    size = lots.lots(money, distance)
    assert size == 0 or lots.min_lot * (1 - 1e-9) <= size <= lots.max_lot * (1 + 1e-9)
    assert size * distance * lots.contract_size <= money * (1 + 1e-6) + 1e-9 * distance * lots.contract_size
    assert abs(size / lots.lot_step - round(size / lots.lot_step)) < 1e-6


def test_lots_on_the_edge():
    assert LotSpec().lots(2.0, 200.0) == 0.01  # exactly the minimum lot, in spite of floating point
    assert LotSpec().lots(1.99, 200.0) == 0.0
    assert LotSpec(lot_step=0.1, min_lot=0.1).lots(0.3 * 200, 200.0) == pytest.approx(0.3)
    assert LotSpec(max_lot=0.5).lots(1e9, 200.0) == 0.5
    assert LotSpec(lot_step=0.5, min_lot=0.1).lots(0.4 * 200, 200.0) == 0.0  # one step is more than the account may risk


@pytest.mark.parametrize("wrong", [{"lot_step": 0}, {"min_lot": -1}, {"contract_size": float("nan")}, {"max_lot": 0.001}])
def test_impossible_lots(wrong):
    with pytest.raises(UsageError):
        LotSpec(**wrong)


def test_lot_step_that_leaves_no_size():
    with pytest.raises(UsageError, match="leaves no size"):
        LotSpec(lot_step=0.3, min_lot=0.35, max_lot=0.5)


# --- sequences


def columns(**changed):
    base = {
        "entry_s": [0, 100, 200],
        "exit_s": [50, 200, 250],
        "net_r": [1.0, -1.0, 1.0],
        "risk_distance": [1.0, 1.0, 1.0],
        "entry_price": [100.0, 100.0, 100.0],
        "atr_norm": [0.01, 0.01, 0.01],
    }
    return TradeSequence(**(base | changed))


def test_a_trade_may_open_as_the_other_closes():
    assert len(columns()) == 3


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"entry_s": [100, 0, 200], "exit_s": [150, 50, 250]}, r"trade 2 of 3: entry_s .* sort by entry"),
        ({"entry_s": [0, 100, 199]}, r"trade 3 of 3: entry_s .* one position at a time"),
        ({"exit_s": [50, 99, 250]}, r"trade 2 of 3: exit_s .* own entry"),
        ({"net_r": [1.0, np.nan, 1.0]}, r"trade 2 of 3: net_r = nan"),
        ({"net_r": [1.0, np.inf, np.nan]}, r"trade 2 .*\(2 such\)"),
        ({"risk_distance": [0.0, 1, 1]}, r"risk_distance = 0.0 must be > 0"),
        ({"entry_price": [1.0, 1, -1]}, r"trade 3 .*entry_price"),
        ({"atr_norm": [0.0, 0, -1]}, r"atr_norm"),
        ({"net_r": [1.0, 2.0]}, r"net_r has shape \(2,\)"),
    ],
)
def test_sequence_refuses(changed, names):
    with pytest.raises(BadDataError, match=names):
        columns(**changed)


def test_sequence_cannot_be_changed_from_outside():
    mine = np.array([1.0, -1.0, 1.0])
    sequence = columns(net_r=mine)
    mine[0] = 99
    assert sequence.net_r[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        sequence.net_r[0] = 2


def test_hash_is_of_the_content():
    assert columns().hash == columns().hash != columns(net_r=[1.0, -1.0, 1.1]).hash
    assert sequence_of(np.arange(5.0)).part(1, 3).hash == sequence_of(np.arange(5.0)).part(1, 3).hash


def table():
    times = pd.to_datetime(["2026-01-05T10:00Z", "2026-01-05T14:00Z"])
    return pd.DataFrame(
        {
            "entry_time": times,
            "exit_time": times + pd.Timedelta("1h"),
            "net_r": [1.8, -1.1],
            "risk_distance": [200.0, 160.0],
            "entry_price": 50_000.0,
        }
    )


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_from_backtest_reads_any_time_unit(unit):
    frame = table()
    for name in ("entry_time", "exit_time"):
        frame[name] = frame[name].astype(f"datetime64[{unit}, UTC]")
    sequence = TradeSequence.from_backtest(frame)
    assert sequence.entry_s.tolist() == [1767607200, 1767621600]
    assert sequence.exit_s.tolist() == [1767610800, 1767625200]


def test_from_backtest_atr_comes_from_the_best_column():
    assert TradeSequence.from_backtest(table()).atr_norm == pytest.approx([250 / 50_000, 200 / 50_000])
    assert TradeSequence.from_backtest(table().assign(atr=100.0)).atr_norm == pytest.approx([0.002, 0.002])
    assert TradeSequence.from_backtest(table().assign(atr_norm=0.7)).atr_norm == pytest.approx([0.7, 0.7])


def test_from_backtest_names_missing_columns():
    with pytest.raises(BadDataError, match="lacks net_r, risk_distance"):
        TradeSequence.from_backtest(table().drop(columns=["net_r", "risk_distance"]))


def test_from_backtest_empty():
    assert len(TradeSequence.from_backtest(table().iloc[:0])) == 0


def test_from_backtest_names_missing_times_and_other_zones():
    with pytest.raises(BadDataError, match="row 2: exit_time is missing"):
        TradeSequence.from_backtest(table().assign(exit_time=lambda t: t.exit_time.where(t.index == t.index[0])))
    with pytest.raises(BadDataError, match=r"entry_time \(datetime64.*\) does not hold times in UTC"):
        TradeSequence.from_backtest(table().assign(entry_time=lambda t: t.entry_time.dt.tz_localize(None)))


def test_from_backtest_never_sorts():
    with pytest.raises(BadDataError, match="trade 2 of 2: entry_s = 2026-01-05T10:00:00Z"):
        TradeSequence.from_backtest(table().iloc[::-1])
