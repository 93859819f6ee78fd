"""The verdict on simulated decision streams: how often worthless recipes pass by the looks' rules, how often true ones do.

Run: python benchmarks/verdict.py [--families 1000] [--alpha 0.01]. One row a question: share that passes, its 95 % interval, the mark.
When and at which level a recipe is judged is asked of `open_look` itself, once for all families; the bound is the gate's.
A trade wins 1.875 R or loses 1 R, net; ten a day. A recipe passes when the clustered bound lies above zero and
rotating its decisions over all bars gives as much in at most that share of the shifts.

The second table judges the brackets of generated markets, with overlapping trades and at no cost; the third lets trialgate judge
families of 20 recipes beside us, on the same trades: it is given the sums of each day and told of all 20.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.stats import beta, norm

from trademl.clock import DAY_S
from trademl.data.synthetic import BAR_S, HORIZON_BARS, synthetic_market
from trademl.evidence.looks import DataKind, LookRequest, close_look, open_look
from trademl.evidence.nulls import allowed_shifts
from trademl.market.account import bracket_r, money_of
from trademl.market.backtest import prepare
from trademl.market.rotation import EVIDENCE_ACCOUNT
from trademl.market.specs import CostSpec
from trademl.pipeline.market.canary import DRIFT_PCT, REGIMES
from trademl.pipeline.market.replay import LOOKBACK
from trademl.validate.clusters import clustered

try:
    import trialgate
except ImportError:
    trialgate = None

WIN, LOSS = 1.875, -1.0
DAY_BARS, WINDOW, FIRST, RECIPES = 96, 146, 20_000, 20
PEER_LIMITS = {  # of trialgate's gates, from the loosest on; what is not named is its own default
    "DSR alone": {"min_observations": 1, "max_pbo": 1.0},
    "DSR and PBO": {"min_observations": 1},
    "as it is": {},
}
PBO_BLOCKS = 8  # its default of 16 takes a second a family


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


def above_zero(net_r, level, days, trades=10):
    """Whether the bound at a level lies above zero."""
    return clustered(net_r, np.repeat(np.arange(days), trades) * DAY_S).bound(level) > 0


def passes(rng, net_r, level, days, trades=10):
    """Whether a recipe passes at a level on the first `days` days of its stream."""
    net_r = net_r[: days * trades]
    return above_zero(net_r, level, days, trades) and rotation_p(rng, net_r, days, trades) <= level


def interval(passed, families):
    """The exact (Clopper-Pearson) 95 % interval of a share, as text."""
    low = beta.ppf(0.025, passed, families - passed + 1) if passed else 0.0
    high = beta.ppf(0.975, passed + 1, families - passed) if passed < families else 1.0
    return f"[{low:6.1%}, {high:6.1%}]"


def row(question, passed, families, mark):
    """One line of the table."""
    print(f"{question:78}{passed / families:8.1%}   {interval(passed, families)}   {mark}", flush=True)


def beside(question, passed, families):
    """One line of the table beside a peer: a share and its interval for each judge."""
    print(f"{question:42}" + "".join(f"{count / families:10.1%} {interval(count, families)}" for count in passed), flush=True)


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


def bracket_market(seed, days, **dials):
    """Net R of a long and of a short decided at each bar of a generated market, shape (2, days * DAY_BARS)."""
    prepared = prepare(synthetic_market((days + 2) * DAY_BARS, 0.0, seed, **dials).bars)
    outcome = bracket_r(prepared.prices, prepared.market, prepared.exits(), money_of(CostSpec(), EVIDENCE_ACCOUNT))
    return outcome[:, DAY_BARS:-DAY_BARS]  # every trade has an ATR and a full horizon


def decide(rng, outcome, *, long_share=0.5, edge=0.0, trades=10):
    """Decisions, 1 where one is made, in the shape of `outcome`: bars at random, and the better side as often as the edge in R needs."""
    days = outcome.shape[1] // DAY_BARS
    at = (np.arange(days)[:, None] * DAY_BARS + rng.random((days, DAY_BARS)).argsort(axis=1)[:, :trades]).ravel()
    side = (rng.random(at.size) >= long_share).astype(int)
    known = rng.random(at.size) < edge / (outcome.max(axis=0) - outcome.mean(axis=0)).mean()
    taken = np.zeros(outcome.shape)
    taken[np.where(known, outcome[:, at].argmax(axis=0), side), at] = 1
    return taken


def judged(outcome, taken, level):
    """Whether the bound lies above zero, and whether the allowed rotations leave the decisions ahead."""
    at, bars = np.flatnonzero(taken.any(axis=0)), outcome.shape[1]
    worth = clustered((outcome * taken).sum(axis=0)[at], at * BAR_S)
    earned = np.fft.irfft(np.fft.rfft(outcome) * np.fft.rfft(taken).conj(), bars).sum(axis=0)
    rivals = earned[allowed_shifts(bars, HORIZON_BARS, LOOKBACK)]
    p = (1 + (rivals >= earned[0] - 1e-6).sum()) / (1 + rivals.size)
    return worth.bound(level) > 0, p <= level


def bracket_table(rng, families, level):
    """Print how often the gate passes on generated markets, and what market-spec 12 says of that."""
    markets = {"plain": {}, "drift": {"drift_pct": DRIFT_PCT}, "regimes": {"regimes": REGIMES}}
    cases = {  # question: (market, least share of longs, edge in R, what the spec says)
        "no edge": ("plain", 0.5, 0.0, "0.3 %"),
        f"+{DRIFT_PCT} % a day, sides at random": ("drift", 0.5, 0.0, "0.4 %"),
        f"+{DRIFT_PCT} % a day, 90 to 100 % long": ("drift", 0.9, 0.0, "1.0 to 1.1 %"),
        f"volatility regimes of about 20 days, log spread {REGIMES}": ("regimes", 0.5, 0.0, "0.7 %"),
        "+0.05 R": ("plain", 0.5, 0.05, "12 %"),
        "+0.1 R": ("plain", 0.5, 0.1, "63 %"),
        "+0.2 R": ("plain", 0.5, 0.2, "100 %"),
    }
    found = {question: [] for question in cases}
    for seed in range(families):
        outcomes = {name: bracket_market(seed, WINDOW, **dials) for name, dials in markets.items()}
        for question, (name, longs, edge, _) in cases.items():
            share = rng.uniform(longs, 1.0) if longs > 0.5 else longs
            taken = decide(rng, outcomes[name], long_share=share, edge=edge)
            found[question].append(judged(outcomes[name], taken, level))
    print(f"brackets of generated markets, {WINDOW} days, ten trades a day")
    for question, (_, longs, _, spec) in cases.items():
        if longs > 0.5:
            row(f"{question}: the bound alone", sum(above for above, _ in found[question]), families, "spec: 97 to 100 %")
        row(question, sum(above and ahead for above, ahead in found[question]), families, f"spec: {spec}")


def peer_passes(daily_r, candidate):
    """Whether trialgate lets the candidate pass under each of PEER_LIMITS; `daily_r` (recipes, days) are all that it is told of."""
    returns = daily_r.tolist()
    sharpes = [trialgate.sharpe_ratio(one, periods_per_year=365) for one in returns]
    settings = {"periods_per_year": 365, "effective_trials": len(returns), "autocorrelation": "ignore"}  # the verdict of its default
    dsr = trialgate.deflated_sharpe_ratio(returns[candidate], trial_sharpes=sharpes, **settings).deflated_sharpe_ratio
    if dsr < trialgate.DEFAULT_MIN_DSR:
        return np.zeros(len(PEER_LIMITS), int)
    pbo = trialgate.probability_of_backtest_overfitting(daily_r.T.tolist(), block_count=PBO_BLOCKS).pbo
    given = {"observations": daily_r.shape[1], "pbo": pbo, "deflated_sharpe": dsr}
    return np.array([int(trialgate.evaluate_gates(**given, **limits).passed) for limits in PEER_LIMITS.values()])


def family_passes(rng, families, granted, *, correlation, edge=0.0):
    """How many families pass by our rule, by its bound alone, and by trialgate under each of PEER_LIMITS where it is installed.

    Without an edge: any of the recipes passes ours, the one of the best Sharpe trialgate's. With one, a single recipe has it,
    the first as often as any other, and that one must pass.
    """
    passed, days, trades = np.zeros(2 + len(PEER_LIMITS) * bool(trialgate), int), granted[0][2], 10
    levels = [level for _, level, _ in granted]
    for one in range(families):
        true = one % len(levels) if edge else None
        worth = np.where(np.arange(len(levels)) == true, edge, 0.0)[:, None]
        net_r = streams(rng, len(levels), days, edge=worth, correlation=correlation, trades=trades)
        asked = [true] if edge else range(len(levels))
        above = [k for k in asked if above_zero(net_r[k], levels[k], days, trades)]
        passed[0] += any(rotation_p(rng, net_r[k], days, trades) <= levels[k] for k in above)
        passed[1] += bool(above)
        if trialgate:
            daily_r = net_r.reshape(len(levels), days, trades).sum(axis=2)
            best = int((daily_r.mean(axis=1) / daily_r.std(axis=1)).argmax())
            passed[2:] += peer_passes(daily_r, true if edge else best)
    return passed


def peer_table(rng, families, sizes, granted):
    """Print size and power beside trialgate's; `sizes` are the counts of worthless families by correlation, `granted` the looks by days."""
    print(f"best of {RECIPES}, {WINDOW} days unless said, ours beside trialgate {trialgate.__version__}: deflated Sharpe >= ", end="")
    print(f"{trialgate.DEFAULT_MIN_DSR} alone; and PBO <= {trialgate.DEFAULT_MAX_PBO} in {PBO_BLOCKS} blocks; ", end="")
    print(f"as it is, with its floor of {trialgate.DEFAULT_MIN_OBSERVATIONS:,} days")
    print(f"{'':42}" + "".join(f"{name:>11}{'':17}" for name in ("ours", "our bound", *PEER_LIMITS)))
    for correlation, passed in sizes.items():
        beside(f"worthless, correlation {correlation}", passed, families)
    for days, looks in granted.items():
        for edge in (0.1, 0.2):
            for correlation in sizes:
                passed = family_passes(rng, families, looks, correlation=correlation, edge=edge)
                beside(f"one true +{edge} R, {days} days, correlation {correlation}", passed, families)


def main():
    """Print the tables."""
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
    family, sizes = judgements([0], alpha=alpha, recipes=RECIPES), {}
    for correlation in (0.0, 0.5, 0.9):
        sizes[correlation] = family_passes(rng, n, family, correlation=correlation)
        row(f"best of 20 worthless recipes, correlation {correlation}", sizes[correlation][0], n, "<= 5 %")
    last = [(*family[-1][:2], 100)]
    row("+0.2 R with 1,000 trades as the 20th recipe", first_day_passes(rng, n, last, edge=0.2), n, ">= 90 %")
    row("+0.2 R with 1,460 trades as the 20th recipe", first_day_passes(rng, n, family[-1:], edge=0.2), n, ">= 90 %")
    row("+0.1 R, ten trades a day, at once", first_day_passes(rng, n, year[:1], edge=0.1), n, "spec: 67 %")
    row("+0.1 R, ten trades a day, within a year of weekly retrains", first_day_passes(rng, n, year, edge=0.1), n, ">= 95 %")
    row("+0.1 R, four trades a day, at once", first_day_passes(rng, n, year[:1], edge=0.1, trades=4), n, "spec: 29 %")
    row("+0.1 R, four trades a day, within a year", first_day_passes(rng, n, year, edge=0.1, trades=4), n, "spec: 82 %")
    bracket_table(np.random.default_rng([12, 1]), n, alpha)
    if trialgate:
        longer = judgements([0], alpha=alpha, recipes=RECIPES, window=365)
        peer_table(np.random.default_rng([12, 2]), n, sizes, {WINDOW: family, 365: longer})
    else:
        print("left out: trialgate, beside which families of 20 are judged; `pip install trialgate` installs it")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
