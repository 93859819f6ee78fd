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
from trademl.evidence.costs import ambiguous_trades, cost_curve, short_label_mismatch
from trademl.evidence.figures import Run, TradeFigures, annual_periods, figure, schema_table, trade_figures
from trademl.evidence.nulls import (
    Band,
    allowed_shifts,
    backtest_window,
    constant_decisions,
    cut_window,
    null_band,
    random_entries,
    run_of_window,
)
from trademl.evidence.page import Evidence, Resampling, claim, json_schema_tables, make_evidence
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.specs import AccountSpec, CostSpec, LabelSpec
from trademl.pipeline.market.pages import Pages

N = 3_000
SPEC, COSTS, ACCOUNT = LabelSpec(), CostSpec(spread=16.95), AccountSpec(risk_pct=0.05)
QUICK = Resampling(seed=7, null_runs=60, bootstrap_draws=100)


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


def test_trades_are_those_of_the_full_backtest_with_the_rest_silenced(bars):
    made = blind(1)
    page = make_evidence(bars, made, SPEC, COSTS, ACCOUNT, window=window_of(bars, 800, 2_500), resampling=QUICK)
    side = made.side.copy()
    side[:800] = 0
    side[2_500:] = 0
    whole = run_backtest(bars, Decisions(side), SPEC, COSTS, ACCOUNT)
    pd.testing.assert_frame_equal(page.trades, whole.trades, check_exact=True)
    assert page.window["bars"] == 1_700
    assert page.strategy.trades == len(whole.trades)
    assert page.strategy.return_pct.value == pytest.approx(100 * (whole.equity[-1] / ACCOUNT.balance - 1))


def test_window_is_half_open_in_decision_time_and_takes_datetimes(bars):
    side = np.zeros(N, np.int8)
    side[1_000] = 1
    at = int(epoch_seconds(bars.index)[1_000]) + 900
    for window, trades in (((at, at + 1), 1), ((at - 900, at), 0), ((at + 1, at + 901), 0)):
        assert make_evidence(bars, Decisions(side), SPEC, window=window, resampling=QUICK).strategy.trades == trades
    moments = tuple(datetime.fromtimestamp(second, UTC) for second in (at, at + 1))
    assert make_evidence(bars, Decisions(side), SPEC, window=moments, resampling=QUICK).strategy.trades == 1


def test_figures_agree_with_a_slow_reference(bars):
    page = make_evidence(bars, blind(2), SPEC, COSTS, ACCOUNT, resampling=QUICK)
    trades, found = page.trades, page.strategy
    gains, losses = trades["pnl"][trades["pnl"] > 0].sum(), -trades["pnl"][trades["pnl"] < 0].sum()
    assert found.win_rate.value == pytest.approx((trades["net_r"] > 0).mean())
    assert found.profit_factor.value == pytest.approx(gains / losses)
    assert found.expectancy_net_r.value == pytest.approx(trades["net_r"].mean())
    assert found.cost_r.value == pytest.approx((trades["gross_r"] - trades["net_r"]).mean())
    assert found.net_pnl.value == pytest.approx(trades["pnl"].sum())
    whole = run_backtest(bars, blind(2), SPEC, COSTS, ACCOUNT)
    peak, deepest = ACCOUNT.balance, 0.0
    for value in whole.equity:
        peak = max(peak, value)
        deepest = max(deepest, 100 * (1 - value / peak))
    assert found.max_drawdown_equity_pct.value == pytest.approx(deepest)
    rated = found.win_rate.value * found.profit_factor.value / math.sqrt(max(deepest / 100, 0.01))
    assert found.score.value == pytest.approx(rated)
    assert found.score_inputs["formula"] == "wr_pf_sqrt_dd"
    held = np.zeros(N, bool)
    for trade in trades.itertuples():
        held[trade.entry_bar : trade.exit_bar + 1] = True
    assert found.exposure.value >= held.mean()
    assert found.exposure.value == pytest.approx(held.mean(), abs=0.02)  # a bar that ends one trade and begins the next counts twice


@pytest.mark.parametrize("seed", range(6))
def test_the_curve_drawn_reaches_the_stated_figures(bars, seed):
    rng = np.random.default_rng(seed)
    account = replace(ACCOUNT, risk_pct=float(rng.uniform(0.05, 3)), max_total_drawdown_pct=float(rng.choice([0, 40])))
    window = window_of(bars, int(rng.integers(0, 1_500)), int(rng.integers(1_600, N)))  # trades run past its end
    page = make_evidence(bars, blind(seed, share=rng.uniform(0.01, 0.5)), SPEC, COSTS, account, window=window, resampling=QUICK)
    found, curve = page.strategy, page.curve
    assert len(curve["time_utc"]) <= 800
    assert max(curve["drawdown_pct"]) == pytest.approx(found.max_drawdown_equity_pct.value, abs=1e-4)
    assert 100 * (curve["equity"][-1] / account.balance - 1) == pytest.approx(found.return_pct.value, abs=0.01)
    assert {len(values) for values in curve.values()} == {len(curve["time_utc"])}


def test_the_picture_and_the_table_of_assumptions_show_the_stated_figures(bars):
    account = replace(ACCOUNT, risk_pct=1.5)
    evidence = make_evidence(bars, blind(3, share=0.3), SPEC, COSTS, account, resampling=QUICK)
    pages = Pages(stored=None, evidence=evidence)
    stated = evidence.strategy.max_drawdown_equity_pct.value
    assert -min(pages.equity().data[-1].y) == pytest.approx(stated, abs=1e-4)
    assert f"deepest drawdown {stated:.1f} %" in pages.equity().layout.title.subtitle.text
    rows = pages.assumptions_table()["value"]
    assert rows["break-even spread, price units"] in ("none", f"{evidence.break_even_spread.value or 0:.3g}")
    assert rows["win rate, where it counts as target"] == f"{evidence.tie_bounds.win_rate_tp_first.value:.3g}"


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_trades_give_a_page(bars, count):
    side = np.zeros(N, np.int8)
    side[500 : 500 + 100 * count : 100] = 1
    page = make_evidence(bars, Decisions(side), SPEC, COSTS, ACCOUNT, resampling=QUICK)
    assert page.strategy.trades == count
    assert not page.is_skill_found
    written = strict(page)
    assert (written["strategy"]["win_rate"]["value"] is None) == (count == 0)
    assert "nothing to judge" in page.sentence if count == 0 else "Too few" in page.sentence


def test_short_window_has_no_null_and_says_so(bars):
    page = make_evidence(bars, blind(3, share=0.9), SPEC, COSTS, ACCOUNT, window=window_of(bars, 1_000, 1_150), resampling=QUICK)
    assert page.random_entries.runs == 0
    assert "shifts" in page.random_entries.reason
    assert not page.is_skill_found
    assert page.curve["null_low"] == []
    strict(page)


def test_one_bar_and_a_ruined_account(bars):
    page = make_evidence(bars.iloc[:30], Decisions(np.ones(30, np.int8)), SPEC, window=window_of(bars, 20, 21), resampling=QUICK)
    assert page.window["bars"] == 1
    strict(page)
    ruin = AccountSpec(balance=500, risk_pct=60, leverage=1000, margin_call_pct=0)
    ruined = make_evidence(bars, Decisions(np.ones(N, np.int8)), SPEC, CostSpec(spread=400), ruin, resampling=QUICK)
    assert ruined.strategy.return_pct.value < -50
    strict(ruined)


def test_a_halt_is_given_as_a_time(bars):
    tight = replace(ACCOUNT, risk_pct=3, max_total_drawdown_pct=10)
    page = make_evidence(bars, Decisions(np.ones(N, np.int8)), SPEC, COSTS, tight, resampling=QUICK)
    assert re.fullmatch(r"2024-\d\d-\d\dT\d\d:\d\d:00Z", page.counters["halted_at_utc"])
    assert page.counters["skipped_halted"] > 0


def test_same_seed_same_json(bars):
    first, again, other = (make_evidence(bars, blind(4), SPEC, COSTS, ACCOUNT, resampling=replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    assert json.dumps(first.to_json()) == json.dumps(again.to_json())
    assert json.dumps(first.to_json()) != json.dumps(other.to_json())


def test_shifts_keep_clear_of_the_strategy(bars):
    window = cut_window(bars, blind(6), SPEC, *window_of(bars, 500, 1_500))
    shifts = allowed_shifts(window)
    assert shifts.min() == 96
    assert shifts.max() == 1_000 - 96


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
        null, _ = random_entries(window, backtest_window(window, COSTS, ACCOUNT), runs=39, seed=k)
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
        page = make_evidence(bars, read(bars), SPEC, COSTS, ACCOUNT, resampling=replace(QUICK, bootstrap_draws=400))
        assert page.is_skill_found == found
        assert page.sentence.startswith("On " if found else "No skill was found")


def test_a_rising_market_is_not_skill(bars):
    lift = np.exp(np.arange(N) * 4e-4)
    rising = bars.copy()
    for name in ("open", "high", "low", "close"):
        rising[name] = bars[name] * lift
    rising["low"] = rising[["open", "low", "close"]].min(axis=1)
    rising["high"] = rising[["open", "high", "close"]].max(axis=1)
    long_only = Decisions((np.random.default_rng(8).random(N) < 0.15).astype(np.int8))
    page = make_evidence(rising, long_only, SPEC, CostSpec(), ACCOUNT, resampling=replace(QUICK, bootstrap_draws=400))
    assert page.strategy.expectancy_net_r.low > 0
    assert page.baselines["always_long"].expectancy_net_r.value > 0
    assert not page.is_skill_found
    assert page.sentence.startswith("No skill was found: on ")


def test_cost_curve_falls_and_breaks_even_where_it_says(bars):
    window = window_of(bars, 100, N)
    winners = synthetic_market(N, edge=1.0)
    side = np.where(winners.truth == 1, 1, np.where(winners.truth == 0, -1, 0))
    side = np.where(np.random.default_rng(1).random(N) < 0.4, side, -side).astype(np.int8)  # wins about half of its trades
    window = cut_window(bars, Decisions(side), SPEC, *window)
    points, even = cost_curve(window, COSTS, ACCOUNT, seed=1, draws=50)
    worth = [point.expectancy_net_r.value for point in points]
    assert worth == sorted(worth, reverse=True)
    assert [point.spread for point in points] == [0.0, 16.95, 33.9, 16.95 * 3]
    if even.value is not None:
        at_even = backtest_window(window, replace(COSTS, spread=even.value), ACCOUNT).trades["net_r"].mean()
        assert abs(at_even) < 0.06
    free, none = cost_curve(window, CostSpec(), ACCOUNT, seed=1, draws=50)
    assert len({point.expectancy_net_r.value for point in free}) == 1
    assert none.value is None or none.value > 0


def test_ties_stand_on_the_right_side_and_ambiguous_trades_are_those_that_flip(bars):
    wide = bars.copy()
    middle = (wide["high"] + wide["low"]) / 2
    every = np.arange(N) % 7 == 0  # loud bars that span both barriers
    wide["high"] = np.where(every, middle + 3 * (wide["high"] - middle), wide["high"])
    wide["low"] = np.where(every, middle - 3 * (middle - wide["low"]), wide["low"])
    page = make_evidence(wide, blind(9), SPEC, COSTS, ACCOUNT, resampling=QUICK)
    ties = page.tie_bounds
    assert ties.win_rate_sl_first.value < ties.win_rate_tp_first.value
    assert ties.override == {"tie": "tp_first", "contract_tie": "sl_first", "label_spec_hash": SPEC.hash}
    assert ties.win_rate_sl_first.value == page.strategy.win_rate.value
    window = cut_window(wide, blind(9), SPEC, *window_of(wide, 100, N))
    low = backtest_window(window, COSTS, ACCOUNT).trades.set_index("decision_bar")
    high = backtest_window(
        replace(window, prepared=cut_window(wide, blind(9), replace(SPEC, tie="tp_first"), *window_of(wide, 100, N)).prepared),
        COSTS,
        ACCOUNT,
    )
    common = low.index.intersection(high.trades["decision_bar"])
    flips = (low.loc[common, "reason"] != high.trades.set_index("decision_bar").loc[common, "reason"]).to_numpy()
    unclear = ambiguous_trades(window, low.loc[common].reset_index(), COSTS.spread)
    assert flips.any()
    assert (flips == unclear).all()


def test_shorts_meet_their_label_without_a_spread(bars):
    window = cut_window(bars, blind(10), SPEC, *window_of(bars, 100, N))
    assert short_label_mismatch(backtest_window(window, CostSpec(), ACCOUNT).trades).value == 0.0
    dear = short_label_mismatch(backtest_window(window, CostSpec(spread=80), ACCOUNT).trades)
    assert dear.value > 0
    assert short_label_mismatch(backtest_window(window, COSTS, ACCOUNT, constant_decisions(window, 1)).trades).value is None


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
    curve = np.linspace(1_000, 1_018, 300)
    found = trade_figures(Run(trades, time_s[[1, 200]], time_s, curve, curve, 1_000.0, 300), seed=1)
    assert found.profit_factor.value == 10.0
    assert "counts as 10" in found.profit_factor.reason
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
        found = list(walk(strict(make_evidence(bars, made, SPEC, COSTS, ACCOUNT, resampling=QUICK))))
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
    written = strict(make_evidence(bars, blind(12), SPEC, COSTS, ACCOUNT, resampling=QUICK))
    assert list(written) == [
        *("schema", "kind", "sentence", "is_skill_found", "window", "label_spec", "label_spec_hash", "costs", "account", "seed"),
        *("strategy", "random_entries", "baselines", "cost_curve", "break_even_spread", "tie_bounds", "shorts_off_label_share"),
        *("counters", "curve"),
    ]
    assert list(written["strategy"]) == [
        *("trades", "win_rate", "profit_factor", "profit_factor_r", "net_pnl", "return_pct", "max_drawdown_equity_pct"),
        *("max_drawdown_balance_pct", "sharpe", "sortino", "var_95_daily_pct", "cvar_95_daily_pct", "var_95_trade_r"),
        *("cvar_95_trade_r", "expectancy_gross_r", "expectancy_net_r", "cost_r", "exposure", "longest_losing_run", "score"),
        *("score_inputs", "periods_per_year"),
    ]
    assert list(written["baselines"]) == ["always_long", "always_short"]
    assert [point["multiple"] for point in written["cost_curve"]] == [0.0, 1.0, 2.0, 3.0]
    assert (written["schema"], written["kind"]) == (1, "backtest_report")
    tables = json_schema_tables()
    for key in (*written, *written["strategy"], *written["random_entries"], *written["tie_bounds"], *written["cost_curve"][0]):
        assert f"| `{key}` |" in tables
    assert schema_table(TradeFigures).count("\n") == len(fields(TradeFigures)) + 1
    assert "| `trades` |" not in schema_table(Evidence)


def test_sentences():
    none = Band(None, None, None, None, 0, 0, None, "no trade")
    empty = trade_figures(_empty_run(), seed=1)
    assert claim(empty, none) == "No trade was made in the window: there is nothing to judge."


def test_a_page_without_trades_says_what_became_of_the_decisions(bars):
    made = blind(11)
    wanted = f"Decisions to trade: {int((made.side != 0).sum()):,}"
    for account, why in ((replace(ACCOUNT, balance=0.01), "below the smallest lot"), (replace(ACCOUNT, leverage=1e-6), "leverage allows")):
        assert re.search(
            rf"nothing to judge\. {wanted} \(.*{why}", make_evidence(bars, made, SPEC, COSTS, account, resampling=QUICK).sentence
        )
    nothing = make_evidence(bars, Decisions(np.zeros(N, np.int8)), SPEC, COSTS, ACCOUNT, resampling=QUICK).sentence
    assert nothing.endswith("nothing to judge. Decisions to trade: 0.")


def _empty_run():
    frame = pd.DataFrame({name: np.empty(0) for name in ("entry_bar", "exit_bar", "gross_r", "net_r", "pnl")})
    return Run(frame, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0), 1_000.0, 0)


def test_refusals(bars):
    made = blind(13)
    for window in ((5, 5), (10, 20)):
        with pytest.raises(UsageError, match="window"):
            make_evidence(bars, made, SPEC, window=window, resampling=QUICK)
    with pytest.raises(UsageError):
        make_evidence(bars.iloc[:10], made, SPEC, resampling=QUICK)
    with pytest.raises(UsageError, match="bars"):
        make_evidence(bars.iloc[:0], Decisions(np.zeros(0, np.int8)), SPEC, resampling=QUICK)


def test_a_window_is_as_wide_as_its_trades_need(bars):
    side = np.zeros(N, np.int8)
    side[1_199] = 1
    window = cut_window(bars, Decisions(side), SPEC, *window_of(bars, 1_000, 1_200))
    result = backtest_window(window, COSTS, ACCOUNT)
    run = run_of_window(window, result)
    assert len(result.trades) == 1
    assert run.equity[-1] == result.balance[-1]
    assert run.time_s[0] == epoch_seconds(bars.index)[1_000]
