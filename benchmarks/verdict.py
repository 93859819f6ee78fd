"""The verdict on simulated decision streams: how often worthless recipes pass by the looks' rules, how often true ones do.

Run: python benchmarks/verdict.py [--families 1000] [--alpha 0.01]. One row a question: share that passes, its 95 % interval, the mark.
When and at which level a recipe is judged is asked of `open_look` itself, once for all families; the bound is the gate's.
A trade wins 1.875 R or loses 1 R, net; ten a day. A recipe passes when the clustered bound lies above zero and
rotating its decisions over all bars gives as much in at most that share of the shifts.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.stats import beta, norm

from trademl.clock import DAY_S
from trademl.evidence.gate import clustered
from trademl.evidence.looks import DataKind, LookRequest, close_look, open_look

WIN, LOSS = 1.875, -1.0
DAY_BARS, WINDOW, FIRST = 96, 146, 20_000


def judgements(days, *, alpha, recipes=1, window=WINDOW):
    """(number, level, days judged) of each judgement that `open_look` grants when all `recipes` are run on each of the `days`."""
    granted = []
    with tempfile.TemporaryDirectory() as folder:
        for day in days:
            for recipe in range(1, recipes + 1):
                end = FIRST + int(day)
                span = {"start_s": (end - window) * DAY_S, "end_s": end * DAY_S, "first_s": 0}
                entries = np.array([(d * DAY_S, 1, 0) for d in range(end - window, end)])
                who = {"line": "market-x-15min", "data": DataKind.MARKET, "recipe": f"{recipe:016x}", "run_id": f"{day}"}
                now = datetime.fromtimestamp(end * DAY_S, UTC)
                look = open_look(Path(folder) / "looks.jsonl", LookRequest(**who, **span, alpha=alpha, prints={}, entries=entries), now=now)
                if look.standing is None:
                    close_look(Path(folder) / "looks.jsonl", look, passed=False, sentence="", now=now)
                    granted.append((look.number, look.level, (look.end_s - look.start_s) // DAY_S))
    return granted


def streams(rng, recipes, days, *, edge=0.0, correlation=0.0, trades=10):
    """Net R of `recipes` on the same days, shape (recipes, days * trades); any two are correlated through the outcomes they share."""
    shared, own = rng.standard_normal((1, days * trades)), rng.standard_normal((recipes, days * trades))
    wins = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own > norm.isf((edge - LOSS) / (WIN - LOSS))
    return np.where(wins, WIN, LOSS)


def rotation_p(rng, net_r, days, trades):
    """Share of the shifts of the decisions, on a market in which every bar has an outcome, that earn as much as no shift at all."""
    bars = days * DAY_BARS
    outcome = np.where(rng.random(bars) < -LOSS / (WIN - LOSS), WIN, LOSS)
    decided = (np.arange(days)[:, None] * DAY_BARS + rng.random((days, DAY_BARS)).argsort(axis=1)[:, :trades]).ravel()
    outcome[decided] = net_r
    taken = np.zeros(bars)
    taken[decided] = 1
    earned = np.fft.irfft(np.fft.rfft(outcome) * np.fft.rfft(taken).conj(), bars)
    return float((earned >= earned[0] - 1e-6).mean())


def passes(rng, net_r, level, days, trades=10):
    """Whether a recipe passes at a level on the first `days` days of its stream."""
    net_r = net_r[: days * trades]
    worth = clustered(net_r, np.repeat(np.arange(days), trades) * DAY_S)
    return worth.bound(level) > 0 and rotation_p(rng, net_r, days, trades) <= level


def row(question, passed, families, mark):
    """One line of the table, with the exact (Clopper-Pearson) interval of the share."""
    low = beta.ppf(0.025, passed, families - passed + 1) if passed else 0.0
    high = beta.ppf(0.975, passed + 1, families - passed) if passed < families else 1.0
    print(f"{question:78}{passed / families:8.1%}   [{low:6.1%}, {high:6.1%}]   {mark}", flush=True)


def first_day_passes(rng, families, granted, **stream):
    """How many families pass at any of the judgements granted to one recipe."""
    longest = max(days for _, _, days in granted)
    made = (streams(rng, 1, longest, **stream)[0] for _ in range(families))
    trades = stream.get("trades", 10)
    return sum(any(passes(rng, net_r, level, days, trades) for _, level, days in granted) for net_r in made)


def peeked(rng, families, weeks, level):
    """How many worthless recipes pass when every weekly retrain is judged on its last window, as before there were records."""
    at = np.arange(0, 7 * weeks + 1, 7)
    made = (streams(rng, 1, WINDOW + int(at[-1]))[0] for _ in range(families))
    windows = ((net_r[day * 10 : (day + WINDOW) * 10] for day in at) for net_r in made)
    return sum(any(passes(rng, window, level, WINDOW) for window in family) for family in windows)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", type=int, default=1000)
    parser.add_argument("--alpha", type=float, default=0.01)
    options = parser.parse_args()
    n, alpha, rng, began = options.families, options.alpha, np.random.default_rng(12), time.perf_counter()
    two_years, year = judgements(range(0, 731, 7), alpha=alpha), judgements(range(0, 366, 7), alpha=alpha)
    print(f"{n:,} families, level of the first recipe {alpha:.3g}; two years of weekly retrains are judged {len(two_years)} times")
    print(f"{'':78}{'pass':>8}   {'95 % interval':>16}   mark")
    row("one worthless recipe, retrained weekly for two years", first_day_passes(rng, n, two_years), n, "<= 5 %")
    weekly = judgements(range(0, 731, 7), alpha=alpha, window=7)
    row(f"the same with a final window of a week: judged {len(weekly)} times", first_day_passes(rng, n, weekly), n, "<= 5 %")
    row("the same without a record: each week's last window is judged", peeked(rng, n // 4, 104, alpha), n // 4, "(before)")
    family = judgements([0], alpha=alpha, recipes=20)
    for correlation in (0.0, 0.5, 0.9):
        made = (streams(rng, 20, WINDOW, correlation=correlation) for _ in range(n))
        found = sum(any(passes(rng, r, level, WINDOW) for r, (_, level, _) in zip(recipes, family, strict=True)) for recipes in made)
        row(f"best of 20 worthless recipes, correlation {correlation}", found, n, "<= 5 %")
    last = [(*family[-1][:2], 100)]
    row("+0.2 R with 1,000 trades as the 20th recipe", first_day_passes(rng, n, last, edge=0.2), n, ">= 90 %")
    row("+0.2 R with 1,460 trades as the 20th recipe", first_day_passes(rng, n, family[-1:], edge=0.2), n, ">= 90 %")
    row("+0.1 R, ten trades a day, at once", first_day_passes(rng, n, year[:1], edge=0.1), n, "spec: 67 %")
    row("+0.1 R, ten trades a day, within a year of weekly retrains", first_day_passes(rng, n, year, edge=0.1), n, ">= 95 %")
    row("+0.1 R, four trades a day, at once", first_day_passes(rng, n, year[:1], edge=0.1, trades=4), n, "spec: 29 %")
    row("+0.1 R, four trades a day, within a year", first_day_passes(rng, n, year, edge=0.1, trades=4), n, "spec: 82 %")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
