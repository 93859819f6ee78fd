"""The claim of a market that closes weekly stands whatever the account does, and every figure of the page rests on the same trades."""

import json

import numpy as np
import pandas as pd
import pytest
from test_commands import trademl

from trademl.data.synthetic import synthetic_market

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def gold_hours(n):
    """The first n quarter hours of 2023 in which gold trades: Sunday 18:00 to Friday 17:00 in New York, an hour's break a day."""
    index = pd.date_range("2023-01-01", periods=2 * n, freq="15min", tz="UTC")
    new_york = index.tz_convert("America/New_York")
    day, hour = new_york.day_of_week.to_numpy(), new_york.hour.to_numpy()
    is_open = (hour != 17) & (day != 5) & ~((day == 4) & (hour > 17)) & ~((day == 6) & (hour < 18))
    return index[is_open][:n]


@pytest.fixture(scope="module")
def gold(tmp_path_factory):
    """A project with a revision of gold-like bars without an edge, big enough to rotate its trades."""
    work = tmp_path_factory.mktemp("gold")
    bars = synthetic_market(17_520, edge=0.0, seed=5).bars
    bars = bars.set_axis(gold_hours(len(bars)))
    prices = ["open", "high", "low", "close"]
    bars[prices] = (bars[prices] * (1_900 / bars["open"].iloc[0])).round(2)
    bars["volume"] = bars["volume"].round() + 1
    bars.rename_axis("time").reset_index().to_csv(work / "xauusd.csv", index=False)
    bars_flags = ("--bars", "xauusd.csv", "--no-news", "--symbol", "XAUUSD", "--tz", "UTC", "--stamp", "open")
    more = {"TRADEML_WINDOWS_FINAL_SHARE": 0.3, "TRADEML_DECISION_MARGINS": "0.0", "TRADEML_GATE_MIN_TRADES": 30}
    done = trademl("retrain", *bars_flags, "--json", cwd=work, **more)
    assert done.code in (0, 3), done.err
    return work, done.json


def page_of(work, *flags):
    done = trademl("backtest", "--symbol", "XAUUSD", "--oos-only", "--json", *flags, cwd=work)
    assert done.code == 0, done.err
    page = json.loads((work / done.json["backtest_report"]).read_text())
    account = page.pop("profile_account")
    return page, account, done.json


def test_the_claim_does_not_change_with_the_account(gold):
    work, told = gold
    first, _, own = page_of(work)
    halted = 0
    for flags in (
        ("--balance", 150),
        ("--profile", 1),
        ("--profile", 5),
        ("--risk-pct", 25),
        ("--leverage", 2),
        ("--risk-pct", 40, "--profile", 1),
    ):
        page, account, said = page_of(work, *flags)
        assert page == first, flags
        assert said["sentence"] == own["sentence"]
        halted += account["halted_at_utc"] is not None
        if account["halted_at_utc"]:
            assert account["sentence"].startswith(f"Halted on {account['halted_at_utc'][:10]} at its ")
    assert halted
    assert first["sentence"] == told["gate"]["sentence"]
    assert told["gate"]["passed"] is first["is_skill_found"] is False


def test_every_figure_of_the_claim_rests_on_the_same_trades(gold):
    page, account, _ = page_of(gold[0])
    n = page["strategy"]["trades"]
    assert n > 100
    counts = {page["random_entries"]["trades"], page["break_even_spread"]["n"], int(page["verdict"]["checks"]["trades"]["value"])}
    counts |= {point["trades"] for point in page["cost_curve"]} | {rival["trades"] for rival in page["baselines"].values()}
    assert counts == {n}
    assert f"On {n:,} trades" in page["sentence"]
    assert f"{n:,} were judged" in account["sentence"]
    assert np.isclose(page["random_entries"]["expectancy_net_r"]["observed"], page["strategy"]["expectancy_net_r"]["value"])
    assert page["strategy"]["periods_per_year"] == 313  # Sundays count, Saturdays do not
