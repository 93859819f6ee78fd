"""The evidence page: right beside a slow reference, whole on any input, and not fooled by chance."""

import json
import math
import re
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from trademl.clock import epoch_seconds
from trademl.data.synthetic import synthetic_market
from trademl.errors import UsageError
from trademl.evidence.anatomy import trade_list
from trademl.evidence.costs import ambiguous_trades, cost_curve, short_label_mismatch
from trademl.evidence.figures import AccountFigures, Run, TradeFigures, annual_periods, figure, schema_table, trade_figures
from trademl.evidence.gate import Terms
from trademl.evidence.nulls import allowed_shifts, cut_window, null_band, random_entries, run_of, traded
from trademl.evidence.page import Evidence, Judging, json_schema_tables, make_evidence
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.rotation import EVIDENCE_ACCOUNT, entries_made, rotate
from trademl.market.specs import AccountSpec, CostSpec, LabelSpec
from trademl.pipeline.market.pages import Pages

N = 3_000
SPEC, COSTS, ACCOUNT = LabelSpec(), CostSpec(spread=16.95), AccountSpec(risk_pct=0.05)
QUICK = Judging(seed=7, lookback=96, null_curves=60, bootstrap_draws=100)


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(N, edge=0.0).bars


def blind(seed, n=N, share=0.1):
    return Decisions(np.random.default_rng(seed).choice([-1, 0, 1], n, p=[share / 2, 1 - share, share / 2]).astype(np.int8))


def window_of(bars, first, last):
    """Decision times of the bars first..last-1."""
    decided = epoch_seconds(bars.index) + 900
    return int(decided[first]), int(decided[last - 1]) + 1


def strict(page):
    return json.loads(json.dumps(page.to_json(), allow_nan=False))


def traded_of(window, costs=COSTS):
    return traded(window, entries_made(window.prepared, window.decisions, costs), costs).trades


def test_trades_are_those_of_the_full_backtest_with_the_rest_silenced(bars):
    made = blind(1)
    page = make_evidence(bars, made, SPEC, COSTS, ACCOUNT, window=window_of(bars, 800, 2_500), judging=QUICK)
    side = made.side.copy()
    side[:800] = 0
    side[2_500:] = 0
    whole = run_backtest(bars, Decisions(side), SPEC, COSTS, ACCOUNT)
    same = ["decision_bar", "entry_bar", "exit_bar", "entry_time", "exit_time", "side", "entry_price", "exit_price", "reason"]
    pd.testing.assert_frame_equal(page.trades[same], whole.trades[same], check_exact=True)
    np.testing.assert_allclose(page.trades["net_r"], whole.trades["net_r"], rtol=1e-9)
    assert page.window["bars"] == 1_700
    assert page.strategy.trades == page.profile_account.figures.trades == len(whole.trades)
    assert page.profile_account.figures.return_pct.value == pytest.approx(100 * (whole.equity[-1] / ACCOUNT.balance - 1))


ACCOUNTS = [
    replace(ACCOUNT, risk_pct=3.0, max_total_drawdown_pct=20.0),  # halts early
    replace(ACCOUNT, balance=50.0, risk_pct=0.1, min_lot=1.0),  # cannot afford a lot
    replace(ACCOUNT, risk_pct=3.0, weekly_pause_pct=2.0),
    replace(ACCOUNT, risk_pct=60.0, leverage=1_000.0, margin_call_pct=0.0),  # ruined
]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_no_account_changes_the_claim(bars, account):
    made = blind(3, share=0.3)
    first, other = (make_evidence(bars, made, SPEC, COSTS, one, judging=QUICK) for one in (ACCOUNT, account))
    one, two = strict(first), strict(other)
    assert one.pop("profile_account") != two.pop("profile_account")
    assert one == two
    assert other.profile_account.figures.trades < first.strategy.trades


def test_how_much_the_account_risks_changes_nothing_of_the_claim(bars):
    made = blind(3, share=0.3)
    sized = replace(made, multiplier=np.where(made.side > 0, 0.1, 1.2))
    one, two = (make_evidence(bars, made, SPEC, COSTS, ACCOUNT, on_account=on, judging=QUICK) for on in (None, sized))
    assert one.sentence == two.sentence
    assert one.strategy == two.strategy
    assert one.profile_account.figures.net_pnl != two.profile_account.figures.net_pnl


@pytest.mark.parametrize("seed", range(3))
def test_one_page_rests_on_one_number_of_trades(bars, seed):
    page = make_evidence(bars, blind(seed, share=0.4), SPEC, COSTS, ACCOUNTS[0], judging=QUICK)
    n = page.strategy.trades
    ties = page.tie_bounds
    counts = [page.random_entries.trades, page.break_even_spread.n, ties.win_rate_sl_first.n, ties.win_rate_tp_first.n, len(page.trades)]
    counts += [point.trades for point in page.cost_curve] + [rival.trades for rival in page.baselines.values()]
    assert set(counts) == {n}
    assert f"On {n:,} trades" in page.sentence
    assert page.verdict.checks["trades"].value == n
    assert page.random_entries.expectancy_net_r.observed == pytest.approx(page.strategy.expectancy_net_r.value, abs=1e-12)
    assert ties.expectancy_net_r_sl_first.value == pytest.approx(page.strategy.expectancy_net_r.value, abs=1e-12)
    assert f"{n:,} were judged" in page.profile_account.sentence


@pytest.mark.parametrize("share", [0.0, 0.001, 0.4])
def test_every_group_of_trades_sums_to_the_page_s_result(bars, share):
    page = make_evidence(bars, blind(5, share=share), SPEC, COSTS, ACCOUNT, window=window_of(bars, 500, 2_500), judging=QUICK)
    anatomy, n = page.anatomy, page.strategy.trades
    assert (n == 0) == (share == 0)
    for name in (f.name for f in fields(anatomy) if f.name.startswith("by_")):
        parts = getattr(anatomy, name)
        assert sum(part.trades for part in parts) == n, name
        assert sum(part.total_r for part in parts) == pytest.approx(page.strategy.total_r.value, abs=1e-9), name
    assert sum(bin.trades for bin in anatomy.outcomes) == n
    assert sum(streak.length * (streak.won + streak.lost) for streak in anatomy.streaks) == n
    lost = max((streak.length for streak in anatomy.streaks if streak.lost), default=0)
    assert lost == (page.strategy.longest_losing_run.value or 0)
    listed = trade_list(page.trades)
    assert len(listed) == n
    assert listed["R so far"].iloc[-1:].sum() == pytest.approx(page.strategy.total_r.value)


def test_the_path_figures_agree_with_a_slow_reference(bars):
    made = blind(2)
    page = make_evidence(bars, made, SPEC, COSTS, ACCOUNT, judging=QUICK)
    window = cut_window(bars, made, SPEC, *window_of(bars, 0, N))
    run = run_of(window, traded(window, entries_made(window.prepared, window.decisions, COSTS), COSTS))
    peak, since, longest = 0.0, int(run.time_s[0]), 0
    for second, worth in zip(run.time_s.tolist(), run.worth_r.tolist(), strict=True):
        if worth >= peak - 1e-9:
            longest, since, peak = max(longest, second - since), second, max(peak, worth)
    longest = max(longest, int(run.time_s[-1]) - since)
    assert page.strategy.longest_under_water.value == pytest.approx(longest / 86_400)
    trades = page.trades
    gains = sum(r for r in trades["gross_r"] if r > 0)
    assert page.strategy.cost_share.value == pytest.approx((trades["gross_r"] - trades["net_r"]).sum() / gains)
    for name in ("max_drawdown_r", "longest_under_water", "cost_share"):
        stated, band = getattr(page.strategy, name), getattr(page.random_entries, name)
        assert stated.low <= stated.high and stated.level == 0.95
        assert band.observed == stated.value and band.n == QUICK.null_curves
        assert band.low <= band.median <= band.high


def test_window_is_half_open_in_decision_time_and_takes_datetimes(bars):
    side = np.zeros(N, np.int8)
    side[1_000] = 1
    at = int(epoch_seconds(bars.index)[1_000]) + 900
    for window, trades in (((at, at + 1), 1), ((at - 900, at), 0), ((at + 1, at + 901), 0)):
        assert make_evidence(bars, Decisions(side), SPEC, window=window, judging=QUICK).strategy.trades == trades
    moments = tuple(datetime.fromtimestamp(second, UTC) for second in (at, at + 1))
    assert make_evidence(bars, Decisions(side), SPEC, window=moments, judging=QUICK).strategy.trades == 1


def test_figures_agree_with_a_slow_reference(bars):
    page = make_evidence(bars, blind(2), SPEC, COSTS, ACCOUNT, judging=QUICK)
    trades, found, account = page.trades, page.strategy, page.profile_account.figures
    r = trades["net_r"]
    assert found.win_rate.value == pytest.approx((r > 0).mean())
    assert found.profit_factor_r.value == pytest.approx(r[r > 0].sum() / -r[r < 0].sum())
    assert found.expectancy_net_r.value == pytest.approx(r.mean())
    assert found.total_r.value == pytest.approx(r.sum())
    assert found.cost_r.value == pytest.approx((trades["gross_r"] - r).mean())
    whole = run_backtest(bars, blind(2), SPEC, COSTS, ACCOUNT)
    pnl, deepest = whole.trades["pnl"], _deepest(whole.equity, ACCOUNT.balance)
    assert account.profit_factor.value == pytest.approx(pnl[pnl > 0].sum() / -pnl[pnl < 0].sum())
    assert account.net_pnl.value == pytest.approx(pnl.sum())
    assert account.max_drawdown_equity_pct.value == pytest.approx(100 * deepest)
    assert account.score.value == pytest.approx(found.win_rate.value * account.profit_factor.value / math.sqrt(max(deepest, 0.01)))
    assert account.score_inputs["formula"] == "wr_pf_sqrt_dd"
    fixed = run_backtest(bars, blind(2), SPEC, COSTS, EVIDENCE_ACCOUNT)
    worth = (fixed.equity - EVIDENCE_ACCOUNT.balance) / (EVIDENCE_ACCOUNT.balance * EVIDENCE_ACCOUNT.risk_pct / 100)
    assert found.max_drawdown_r.value == pytest.approx((np.maximum.accumulate(np.maximum(worth, 0)) - worth).max(), abs=1e-2)
    held = np.zeros(N, bool)
    for trade in trades.itertuples():
        held[trade.entry_bar : trade.exit_bar + 1] = True
    assert found.exposure.value >= held.mean()
    assert found.exposure.value == pytest.approx(held.mean(), abs=0.02)  # a bar that ends one trade and begins the next counts twice


def _deepest(equity, start):
    peak, deepest = start, 0.0
    for value in equity:
        peak = max(peak, value)
        deepest = max(deepest, 1 - value / peak)
    return deepest


@pytest.mark.parametrize("seed", range(6))
def test_the_curves_drawn_reach_the_stated_figures(bars, seed):
    rng = np.random.default_rng(seed)
    account = replace(ACCOUNT, risk_pct=float(rng.uniform(0.05, 3)), max_total_drawdown_pct=float(rng.choice([0, 40])))
    window = window_of(bars, int(rng.integers(0, 1_500)), int(rng.integers(1_600, N)))  # trades run past its end
    page = make_evidence(bars, blind(seed, share=rng.uniform(0.01, 0.5)), SPEC, COSTS, account, window=window, judging=QUICK)
    found, curve = page.strategy, page.curve
    assert len(curve["time_utc"]) <= 800
    assert max(curve["drawdown_r"]) == pytest.approx(found.max_drawdown_r.value, abs=1e-4)
    assert curve["worth_r"][-1] == pytest.approx(found.total_r.value, abs=1e-4)
    money, drawn = page.profile_account.figures, page.profile_account.curve
    assert max(drawn["drawdown_pct"]) == pytest.approx(money.max_drawdown_equity_pct.value, abs=1e-4)
    assert 100 * (drawn["equity"][-1] / account.balance - 1) == pytest.approx(money.return_pct.value, abs=0.01)
    for one in (curve, drawn):
        assert len({len(values) for values in one.values() if values}) == 1


def test_the_pictures_and_the_table_of_assumptions_show_the_stated_figures(bars):
    account = replace(ACCOUNT, risk_pct=1.5)
    evidence = make_evidence(bars, blind(3, share=0.3), SPEC, COSTS, account, judging=QUICK)
    pages = Pages(stored=None, evidence=evidence)
    stated = evidence.strategy.max_drawdown_r.value
    assert -min(pages.equity().data[-1].y) == pytest.approx(stated, abs=1e-4)
    assert f"deepest drawdown {stated:.1f} R" in pages.equity().layout.title.subtitle.text
    stated = evidence.profile_account.figures.max_drawdown_equity_pct.value
    assert -min(pages.account_equity().data[-1].y) == pytest.approx(stated, abs=1e-4)
    assert f"deepest drawdown {stated:.1f} %" in pages.account_equity().layout.title.subtitle.text
    rows = pages.assumptions_table()["value"]
    assert rows["break-even spread, price units"] in ("none", f"{evidence.break_even_spread.value or 0:.3g}")
    assert rows["win rate, where it counts as target"] == f"{100 * evidence.tie_bounds.win_rate_tp_first.value:.3g} %"
    cards, figures, luck = pages.cards().cards, evidence.strategy, evidence.random_entries
    names = ["expectancy", "trades", "win rate", "deepest drawdown", "longest under water", "cost, of what trades gained"]
    assert [card.name for card in cards] == names
    assert cards[0].value == f"{figures.expectancy_net_r.value:+.3f} R"
    assert f"{cards[0].value} net of cost" in evidence.sentence  # the figure that the verdict names
    assert cards[0].details[0] == f"95 % interval {figures.expectancy_net_r.low:+.3f} to {figures.expectancy_net_r.high:+.3f}"
    assert cards[1].value == f"{figures.trades:,}" and cards[1].details[-1] == f"random entries {luck.trades:,}, as many"
    assert cards[2].value == f"{100 * figures.win_rate.value:.3g} %"
    assert all(card.details[-1].startswith("random entries ") and any(c.isdigit() for c in card.details[-1]) for card in cards)
    printed = {row[0]: row[1] for row in pages.trade_rows()}
    assert printed["trades"] == f"{evidence.strategy.trades:,}"
    assert printed["trades that the account made"] == f"{evidence.profile_account.figures.trades:,}"


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_trades_give_a_page(bars, count):
    side = np.zeros(N, np.int8)
    side[500 : 500 + 100 * count : 100] = 1
    page = make_evidence(bars, Decisions(side), SPEC, COSTS, ACCOUNT, judging=QUICK)
    assert page.strategy.trades == count
    assert not page.is_skill_found
    written = strict(page)
    assert (written["strategy"]["win_rate"]["value"] is None) == (count == 0)
    assert "no trade was made, 30 are needed" in page.sentence if count == 0 else f"{count} trade" in page.sentence


def test_short_window_has_no_null_and_says_so(bars):
    page = make_evidence(bars, blind(3, share=0.9), SPEC, COSTS, ACCOUNT, window=window_of(bars, 1_000, 1_150), judging=QUICK)
    assert page.random_entries.runs == 0
    assert "leave no room to rotate" in page.random_entries.reason
    assert "no random entries to compare with" in page.sentence
    assert not page.is_skill_found
    assert page.curve["null_low"] == []
    strict(page)


def test_one_bar_and_a_ruined_account(bars):
    page = make_evidence(bars.iloc[:30], Decisions(np.ones(30, np.int8)), SPEC, window=window_of(bars, 20, 21), judging=QUICK)
    assert page.window["bars"] == 1
    strict(page)
    ruin = AccountSpec(balance=500, risk_pct=60, leverage=1000, margin_call_pct=0)
    ruined = make_evidence(bars, Decisions(np.ones(N, np.int8)), SPEC, CostSpec(spread=400), ruin, judging=QUICK)
    assert ruined.profile_account.figures.return_pct.value < -50
    assert ruined.profile_account.figures.var_95_daily_pct.reason
    strict(ruined)


def test_the_account_says_first_on_which_day_it_halted_and_what_that_skipped(bars):
    tight = replace(ACCOUNT, risk_pct=3, max_total_drawdown_pct=10)
    page = make_evidence(bars, Decisions(np.ones(N, np.int8)), SPEC, COSTS, tight, judging=QUICK)
    account = page.profile_account
    assert re.fullmatch(r"2024-\d\d-\d\dT\d\d:\d\d:00Z", account.halted_at_utc)
    skipped, made = account.counters["skipped_halted"], account.figures.trades
    assert skipped > 0
    opening = f"Halted on {account.halted_at_utc[:10]} at its 10 % drawdown limit, which skipped {skipped:,} signals: "
    assert account.sentence.startswith(f"{opening}{made:,} trades were made where {page.strategy.trades:,} were judged.")


def test_same_seed_same_json(bars):
    first, again, other = (make_evidence(bars, blind(4), SPEC, COSTS, ACCOUNT, judging=replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    assert json.dumps(first.to_json()) == json.dumps(again.to_json())
    assert json.dumps(first.to_json()) != json.dumps(other.to_json())


def test_shifts_keep_clear_of_the_strategy_and_of_its_look_back():
    shifts = allowed_shifts(1_000, horizon=48, lookback=300)
    assert shifts.min() == 96
    assert 1_000 - shifts.max() == 96 + 300


def test_decisions_that_read_the_past_gain_nothing_from_rotations_that_are_allowed():
    """Moved back by less than their look-back, decisions carry prices that lie ahead: the reason for the rule."""
    bars = synthetic_market(N, edge=0.0, seed=3).bars
    close = bars["close"].to_numpy()
    past = np.r_[np.zeros(96), close[96:] - close[:-96]]  # the last day's move
    window = cut_window(bars, Decisions(np.sign(past).astype(np.int8)), SPEC, *window_of(bars, 200, N))
    entries = entries_made(window.prepared, window.decisions, CostSpec())
    observed = traded(window, entries, CostSpec())
    kept, _ = random_entries(window, entries, observed, CostSpec(), lookback=96, curves=0)
    back = {"start": window.first, "stop": window.last}
    knowing = rotate(window.prepared, entries, window.width - np.arange(48, 60), CostSpec(), **back)  # 48 to 59 bars back
    assert knowing.expectancy.mean() > kept.expectancy_net_r.high + 0.02


def test_band_counts_itself():
    drawn = np.array([0.0, 1.0, 2.0, np.nan])
    assert null_band(1.0, drawn).p_value == (1 + 2) / (1 + 3)
    assert null_band(9.0, drawn).p_value == 1 / 4
    assert null_band(-1.0, drawn).p_value == 1.0
    assert null_band(np.nan, drawn).p_value is None
    assert null_band(1.0, np.array([np.nan])).reason == "no random run"


def test_p_value_is_uniform_without_skill():
    values = []
    for k in range(40):
        bars = synthetic_market(1_200, edge=0.0, seed=100 + k).bars
        window = cut_window(bars, blind(k, 1_200, share=0.05), SPEC, *window_of(bars, 100, 1_200))
        entries = entries_made(window.prepared, window.decisions, COSTS)
        null, _ = random_entries(window, entries, traded(window, entries, COSTS), COSTS, lookback=0, curves=0)
        values.append(null.expectancy_net_r.p_value)
    values = np.sort(values)
    gap = np.abs(values - np.arange(1, 41) / 40).max()
    assert gap < 1.63 / np.sqrt(40) + 1 / 40  # Kolmogorov, 1 %, and the grid of the p values
    assert (values <= 0.05).sum() <= 7


def test_a_clear_edge_is_claimed_and_none_is_not():
    def read(bars):
        volume = bars["volume"].to_numpy()
        surge = np.ones(len(volume))
        surge[96:] = volume[96:] / np.lib.stride_tricks.sliding_window_view(volume, 96)[:-1].mean(1)
        return Decisions(np.where(surge > 1.3, 1, np.where(surge < 0.7, -1, 0)))

    for edge, found in ((0.5, True), (0.0, False)):
        bars = synthetic_market(N, edge=edge, seed=5).bars
        page = make_evidence(bars, read(bars), SPEC, COSTS, ACCOUNT, judging=replace(QUICK, bootstrap_draws=400))
        assert page.is_skill_found == found
        assert page.sentence.startswith("Gate passed" if found else "Gate refused")


def test_a_rising_market_is_not_skill(bars):
    lift = np.exp(np.arange(N) * 4e-4)
    rising = bars.copy()
    for name in ("open", "high", "low", "close"):
        rising[name] = bars[name] * lift
    rising["low"] = rising[["open", "low", "close"]].min(axis=1)
    rising["high"] = rising[["open", "high", "close"]].max(axis=1)
    long_only = Decisions((np.random.default_rng(8).random(N) < 0.15).astype(np.int8))
    page = make_evidence(rising, long_only, SPEC, CostSpec(), ACCOUNT, judging=replace(QUICK, bootstrap_draws=400))
    assert page.strategy.expectancy_net_r.low > 0
    assert page.baselines["always_long"].expectancy_net_r.value > 0
    assert not page.is_skill_found
    assert page.verdict.checks["expectancy_lower_bound_r"].passed  # the bound alone would credit it
    assert not page.verdict.checks["rotation_p"].passed
    assert page.sentence.startswith("Gate refused")


def test_cost_curve_falls_and_breaks_even_where_it_says(bars):
    window = window_of(bars, 100, N)
    winners = synthetic_market(N, edge=1.0)
    side = np.where(winners.truth == 1, 1, np.where(winners.truth == 0, -1, 0))
    side = np.where(np.random.default_rng(1).random(N) < 0.4, side, -side).astype(np.int8)  # wins about half of its trades
    window = cut_window(bars, Decisions(side), SPEC, *window)
    entries = entries_made(window.prepared, window.decisions, COSTS)
    points, even = cost_curve(window, entries, COSTS, seed=1, draws=50)
    worth = [point.expectancy_net_r.value for point in points]
    assert worth == sorted(worth, reverse=True)
    assert [point.spread for point in points] == [0.0, 16.95, 33.9, 16.95 * 3]
    if even.value is not None:
        assert abs(traded(window, entries, replace(COSTS, spread=even.value)).trades["net_r"].mean()) < 0.06
    free, none = cost_curve(window, entries, CostSpec(), seed=1, draws=50)
    assert len({point.expectancy_net_r.value for point in free}) == 1
    assert none.value is None or none.value > 0


def test_ties_stand_on_the_right_side_and_ambiguous_trades_are_those_that_flip(bars):
    wide = bars.copy()
    middle = (wide["high"] + wide["low"]) / 2
    every = np.arange(N) % 7 == 0  # loud bars that span both barriers
    wide["high"] = np.where(every, middle + 3 * (wide["high"] - middle), wide["high"])
    wide["low"] = np.where(every, middle - 3 * (middle - wide["low"]), wide["low"])
    page = make_evidence(wide, blind(9), SPEC, COSTS, ACCOUNT, judging=QUICK)
    ties = page.tie_bounds
    assert ties.win_rate_sl_first.value < ties.win_rate_tp_first.value
    assert ties.override == {"tie": "tp_first", "contract_tie": "sl_first", "label_spec_hash": SPEC.hash}
    assert ties.win_rate_sl_first.value == page.strategy.win_rate.value
    window = cut_window(wide, blind(9), SPEC, *window_of(wide, 100, N))
    low = traded_of(window).set_index("decision_bar")
    high = traded_of(cut_window(wide, blind(9), replace(SPEC, tie="tp_first"), *window_of(wide, 100, N)))
    common = low.index.intersection(high["decision_bar"])
    flips = (low.loc[common, "reason"] != high.set_index("decision_bar").loc[common, "reason"]).to_numpy()
    unclear = ambiguous_trades(window, low.loc[common].reset_index(), COSTS.spread)
    assert flips.any()
    assert (flips == unclear).all()


def test_shorts_meet_their_label_without_a_spread(bars):
    window = cut_window(bars, blind(10), SPEC, *window_of(bars, 100, N))
    assert short_label_mismatch(traded_of(window, CostSpec())).value == 0.0
    assert short_label_mismatch(traded_of(window, CostSpec(spread=80))).value > 0
    longs = entries_made(window.prepared, window.decisions, COSTS).on_side(1)
    assert short_label_mismatch(traded(window, longs, COSTS).trades).value is None


@pytest.mark.parametrize(
    ("first", "last", "weekdays", "periods"),
    [
        ("2024-01-01", "2024-12-31", range(7), 365),
        ("2024-01-01", "2024-12-31", range(5), 261),
        ("2024-01-03", "2024-02-28", range(5), 261),  # a broken week at either end changes nothing
        ("2024-01-01", "2024-12-31", (0, 1, 2, 3, 4, 6), 313),  # a week that opens on Sunday evening
        ("2024-01-01", "2024-01-05", range(5), 252),  # too short to be measured
        ("2024-01-05", "2024-01-07", range(7), 365),
    ],
)
def test_a_year_has_the_days_that_the_bars_show(first, last, weekdays, periods):
    index = pd.date_range(first, pd.Timestamp(last) + pd.Timedelta("23h45min"), freq="15min", tz="UTC")
    assert annual_periods(epoch_seconds(index[np.isin(index.day_of_week, list(weekdays))])) == periods


def test_holidays_shorten_the_year():
    index = pd.date_range("2024-01-01", "2024-12-31 23:45", freq="15min", tz="UTC")
    index = index[(index.day_of_week < 5) & ~index.normalize().isin(pd.to_datetime(["2024-07-04", "2024-12-25"], utc=True))]
    assert annual_periods(epoch_seconds(index)) == 259


def test_no_losing_trade_is_a_stated_convention():
    trades = pd.DataFrame({"entry_bar": [1, 200], "exit_bar": [3, 203], "gross_r": [1.0, 1.0], "net_r": [0.9, 0.9], "pnl": [9.0, 9.0]})
    time_s = 1_704_067_200 + 900 * np.arange(300)
    found = trade_figures(Run(trades, time_s[[1, 200]], time_s, np.linspace(0, 1.8, 300), 300), seed=1)
    assert found.profit_factor_r.value == 10.0
    assert "counts as 10" in found.profit_factor_r.reason
    assert found.longest_losing_run.value == 0


def test_every_figure_carries_its_n_and_a_reason_when_empty(bars):
    def walk(value):
        if isinstance(value, dict):
            if {"value", "n", "unit"} <= value.keys():
                yield value
            else:
                for item in value.values():
                    yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    for made in (blind(11), Decisions(np.zeros(N, np.int8))):
        found = list(walk(strict(make_evidence(bars, made, SPEC, COSTS, ACCOUNT, judging=QUICK))))
        assert len(found) > 60
        for entry in found:
            assert isinstance(entry["n"], int)
            assert entry["unit"]
            assert entry["value"] is not None or entry["reason"]


def test_figure_refuses_what_is_not_finite():
    assert figure(float("inf"), 3, "ratio").value is None
    assert figure(float("nan"), 3, "ratio").reason


@pytest.mark.contract
def test_the_report_has_these_keys_and_the_tables_name_them(bars):
    written = strict(make_evidence(bars, blind(12), SPEC, COSTS, ACCOUNT, judging=QUICK))
    assert list(written) == [
        *("schema", "kind", "sentence", "is_skill_found", "verdict", "window", "label_spec", "label_spec_hash", "costs", "seed"),
        *("strategy", "random_entries", "baselines", "cost_curve", "break_even_spread", "tie_bounds", "shorts_off_label_share"),
        *("curve", "anatomy", "profile_account"),
    ]
    assert list(written["strategy"]) == [
        *("trades", "win_rate", "expectancy_net_r", "expectancy_gross_r", "cost_r", "profit_factor_r", "total_r", "max_drawdown_r"),
        *("sharpe", "sortino", "var_95_daily_r", "cvar_95_daily_r", "var_95_trade_r", "cvar_95_trade_r", "exposure"),
        *("longest_losing_run", "cost_share", "longest_under_water", "periods_per_year"),
    ]
    assert list(written["random_entries"]) == [
        *("runs", "trades", "beside_share", "expectancy_net_r", "win_rate", "profit_factor_r", "total_r"),
        *("max_drawdown_r", "longest_under_water", "cost_share", "method", "reason"),
    ]
    groups = ["by_week", "by_month", "by_side", "by_exit", "by_hour", "by_weekday", "by_holding"]
    assert list(written["anatomy"]) == [*groups, "outcomes", "streaks"]
    assert list(written["profile_account"]) == ["sentence", "account", "halted_at_utc", "figures", "counters", "curve"]
    assert list(written["profile_account"]["figures"]) == [
        *("trades", "net_pnl", "return_pct", "profit_factor", "max_drawdown_equity_pct", "max_drawdown_balance_pct"),
        *("var_95_daily_pct", "cvar_95_daily_pct", "score", "score_inputs"),
    ]
    assert not set(written["strategy"]) & set(written["profile_account"]["figures"]) - {"trades"}  # one number per quantity
    assert list(written["baselines"]) == ["always_long", "always_short"]
    assert [point["multiple"] for point in written["cost_curve"]] == [0.0, 1.0, 2.0, 3.0]
    assert (written["schema"], written["kind"]) == (2, "backtest_report")
    tables = json_schema_tables()
    for key in (*written, *written["strategy"], *written["random_entries"], *written["tie_bounds"], *written["cost_curve"][0]):
        assert f"| `{key}` |" in tables
    for record in (TradeFigures, AccountFigures):
        assert schema_table(record).count("\n") == len(fields(record)) + 1
    assert "| `trades` |" not in schema_table(Evidence)


def test_an_account_without_trades_says_what_became_of_the_signals(bars):
    made = blind(11)
    for account, why in ((replace(ACCOUNT, balance=0.01), "below the smallest lot"), (replace(ACCOUNT, leverage=1e-6), "leverage allows")):
        page = make_evidence(bars, made, SPEC, COSTS, account, judging=QUICK)
        assert re.search(
            rf"Never halted: 0 trades were made where [\d,]+ were judged \(.* signals .*{why}\)", page.profile_account.sentence
        )
    nothing = make_evidence(bars, Decisions(np.zeros(N, np.int8)), SPEC, COSTS, ACCOUNT, judging=QUICK)
    assert nothing.sentence == "Gate refused at 1 %: no trade was made, 30 are needed."
    assert not nothing.is_skill_found


def test_what_is_asked_comes_from_outside(bars):
    page = make_evidence(bars, blind(2), SPEC, COSTS, ACCOUNT, judging=replace(QUICK, terms=Terms(number=3, objections=("a leak",))))
    assert "a leak" in page.sentence
    assert "look 3" in page.sentence
    assert page.verdict.level == 0.01 / 3


def test_refusals(bars):
    made = blind(13)
    for window in ((5, 5), (10, 20)):
        with pytest.raises(UsageError, match="window"):
            make_evidence(bars, made, SPEC, window=window, judging=QUICK)
    with pytest.raises(UsageError):
        make_evidence(bars.iloc[:10], made, SPEC, judging=QUICK)
    with pytest.raises(UsageError, match="bars"):
        make_evidence(bars.iloc[:0], Decisions(np.zeros(0, np.int8)), SPEC, judging=QUICK)


def test_a_window_is_as_wide_as_its_trades_need(bars):
    side = np.zeros(N, np.int8)
    side[1_199] = 1
    window = cut_window(bars, Decisions(side), SPEC, *window_of(bars, 1_000, 1_200))
    placed = traded(window, entries_made(window.prepared, window.decisions, COSTS), COSTS)
    run = run_of(window, placed)
    assert len(placed.trades) == 1
    assert run.worth_r[-1] == placed.trades["net_r"].item() != run.worth_r[0]
    assert run.time_s[0] == epoch_seconds(bars.index)[1_000]
