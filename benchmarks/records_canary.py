"""Advice where there is nothing to advise: generated logs with edge 0, and how many of them were given any.

python benchmarks/records_canary.py [--seeds 100] [--records 800] [--edge 0] [--first 0]

A correct family of tests at 1 % gives advice on one log of a hundred, and on more than three with a chance of 2 %. Mark: at most three of
a hundred at edge 0. With `--edge 0.5` or `1` the same table says how often each topic is found. Ten seeds are a slow test.
"""

import argparse
from collections import Counter

from trademl.data.record_columns import record_columns
from trademl.data.record_maker import make_records
from trademl.trades.advice import Topic
from trademl.trades.registry import TradeModel
from trademl.trades.rows import trade_rows
from trademl.trades.walkforward import Recipe, judge_model
from trademl.trades.worth import Findings, find_claims

LEVEL, MARK = 0.01, 0.03


def findings(seed: int, records: int, edge: float) -> Findings:
    """What a generated log is advised."""
    made = make_records(records, edge, seed=10_000 + seed)
    rows = trade_rows(record_columns(list(made.records())).values, made.unit)
    judged = {model: judge_model(rows, model, Recipe()) for model in TradeModel}
    return find_claims(rows, judged, level=LEVEL, seed=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--records", type=int, default=800)
    parser.add_argument("--edge", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    given, advised = Counter(), 0
    for seed in range(asked.first, asked.first + asked.seeds):
        found = [topic for topic, claim in findings(seed, asked.records, asked.edge).claims.items() if claim.is_given]
        given.update(found)
        advised += bool(found)
        print(f"seed {seed}: {', '.join(found) or 'nothing'}", flush=True)
    print(f"\n{asked.seeds} logs of {asked.records:,} records, edge {asked.edge:g}, family level {LEVEL:.0%}")
    for topic in Topic:
        print(f"  {topic:12} {given[topic]:4}")
    verdict = "" if asked.edge else f" (mark: at most {MARK:.0%})"
    print(f"any advice     {advised:4}{verdict}")


if __name__ == "__main__":
    main()
