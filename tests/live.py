"""A stored revision as a bot runs it: bars asked one at a time, an account kept over its trades, and the batch's answer beside it."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from trademl.bot import AccountState, Bars, Calendar, Decision, OpenPosition, Predictor
from trademl.clock import DAY_S, epoch_seconds
from trademl.data.news import high_impact_usd
from trademl.market.account import exits_of
from trademl.market.backtest import run_backtest
from trademl.market.barriers import prices_of
from trademl.market.rotation import EVIDENCE_ACCOUNT
from trademl.market.specs import ExitReason
from trademl.pipeline.market.replay import shipped_decisions
from trademl.pipeline.market.risk import sized
from trademl.risk.growth import log_growth
from trademl.risk.profiles import profile as profile_of


def ready(revision, **decision) -> tuple[dict, dict]:
    """A revision as (files, manifest): its gate passed, exits switched on, every head published, `decision` changed."""
    section = revision.manifest["market"]
    decision = section["decision"] | {"exits_on": True} | decision
    profiles = [entry | {"published": True} for entry in section["profiles"]]
    gate = revision.manifest["gate"] | {"passed": True, "reasons": []}
    manifest = revision.manifest | {"gate": gate, "market": section | {"decision": decision, "profiles": profiles}}
    return {name: revision.read(name) for name in revision.files()}, manifest


def close_of(tail: Bars, after_s=1) -> datetime:
    """So long after the close of the last bar."""
    return datetime.fromtimestamp(int(tail.time[-1]) + 900 + after_s, UTC)


@dataclass(frozen=True)
class Recorded:
    """A market's bars and calendar as a bot gets them, and an account that is just opened."""

    bars: Bars
    calendar: Calendar
    account: AccountState

    @classmethod
    def of(cls, inputs) -> "Recorded":
        """From a run's inputs; the calendar is known three days ahead."""
        columns = (inputs.bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
        bars = Bars(epoch_seconds(inputs.bars.index), *columns)
        timed, all_day = high_impact_usd(inputs.events)
        calendar = Calendar(timed, all_day, int(bars.time[-1]) + 3 * DAY_S)
        return cls(bars, calendar, AccountState.opened(inputs.choice.line, 3, 10_000.0))

    def tail(self, last=-1, bars=2_000) -> Bars:
        """The bars up to and with this row."""
        stop = len(self.bars.time) if last == -1 else last + 1
        return Bars(*(column[max(0, stop - bars) : stop] for column in self.bars))


def decide(predictor: Predictor, market: Recorded, tail: Bars | None = None, **changes) -> Decision:
    """A decision one second after the close of the tail's last bar."""
    tail = market.tail() if tail is None else tail
    given = {"news_times": market.calendar, "account_state": market.account} | changes
    return predictor.predict(tail, **{"now": given.get("now") or close_of(tail)} | given)


# ---------------------------------------------------------------- the batch, and a bot beside it


@dataclass(frozen=True)
class Batch:
    """What the pipeline makes of a stretch of bars at once."""

    side: np.ndarray  # int8 (n,)
    exit_bar: np.ndarray  # int64 (n,): at whose close the position model leaves a trade decided here; -1 never
    probabilities: np.ndarray  # (n, 3)
    model_probabilities: np.ndarray  # (n, models, 3)
    trades: pd.DataFrame  # by decision bar
    ends: np.ndarray  # int64 (2, n): last bar of the bracket, long and short

    @classmethod
    def of(cls, policy, head, profile: int, inputs, settings, x: np.ndarray, rows: range) -> "Batch":
        """Decisions, trades and sizes of the rows, by the code that backtests."""
        made = shipped_decisions(policy, inputs, settings)
        bars = np.arange(len(inputs.bars))
        within = replace(made, side=np.where((bars >= rows.start) & (bars < rows.stop), made.side, 0).astype(np.int8))
        trades = run_backtest(inputs.bars, within, policy.spec, policy.costs, EVIDENCE_ACCOUNT).trades
        multiplier = sized(within, trades, head, profile).multiplier
        trades = trades.assign(multiplier=multiplier[trades["decision_bar"]]).set_index("decision_bar")
        ends = exits_of(prices_of(inputs.bars, policy.spec)[0], policy.spec, policy.costs.spread).bar
        return cls(made.side, made.exit_bar, *policy.probabilities(x), trades, ends)


def assert_serves_the_batch(predictor: Predictor, market: Recorded, batch: Batch, rows: range) -> dict[str, int]:
    """Asked one close at a time, with its account and its open trade, a bot decides, sizes and leaves as the batch; returns counts."""
    account = AccountState.opened(predictor.line, predictor.loaded.profile, 1.0)
    last = len(market.bars.time) - 1
    trade = entered = None  # the open trade, the bar that decided it
    left_by_model, taken = 0, []
    for t in rows:
        if trade is not None and t == batch.ends[0 if trade.side > 0 else 1, entered]:  # the broker closed it within this bar
            told, trade = batch.trades.loc[entered], None
            assert (told.exit_bar, told.reason == ExitReason.MODEL) == (t, False)
            account = _closed(account, told)
        decision = decide(predictor, market, market.tail(t), account_state=account, open_position=trade)
        if trade is not None:
            assert decision.position.leave == (batch.exit_bar[entered] == t)
            if decision.position.leave:  # at the next open; only then is it known what the account has become
                told, trade = batch.trades.loc[entered], None
                assert (told.exit_bar, told.reason) == (t + 1, ExitReason.MODEL)
                account, left_by_model = _closed(account, told), left_by_model + 1
                decision = decide(predictor, market, market.tail(t), account_state=account)
        assert decision.side == batch.side[t]
        assert list(decision.probabilities.values()) == batch.probabilities[t].tolist()
        votes = batch.model_probabilities[t].argmax(axis=1)
        assert [list(decision.probabilities).index(vote) for vote in decision.votes.values()] == votes.tolist()
        if trade is None and decision.side and t < last:
            told, taken = batch.trades.loc[t], [*taken, t]
            assert (told.side, told.multiplier) == (decision.side, decision.size_multiplier)
            assert told.risk_distance == decision.stop_distance
            trade = OpenPosition(decision.side, market.bars.open[t + 1], decision.stop_distance, int(market.bars.time[t]))
            entered = t
    assert taken == batch.trades.index.tolist()
    return {"trades": len(taken), "left by model": left_by_model, "sizes": len(set(batch.trades["multiplier"]))}


def _closed(account: AccountState, trade: pd.Series) -> AccountState:
    """The account after a trade, as the replay of the heads goes on."""
    growth = log_growth(trade.net_r, profile_of(account.profile).base_risk * trade.multiplier)
    return account.after(trade.net_r, account.equity * math.exp(growth))
