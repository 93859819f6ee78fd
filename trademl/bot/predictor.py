"""One call per closed bar: a decision, and why. What it computes is what was judged, by the very same functions."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np

from trademl.bot.account import MAX_NUMBER, AccountState, replay_trades
from trademl.bot.policy import Head, Policy
from trademl.bot.refusals import AccountError, TailError, TailFault
from trademl.bot.tail import Calendar, TailRule, read_bars, symbols_of, utc
from trademl.clock import iso_z, utc_now
from trademl.errors import BadDataError
from trademl.market.context import BAR_SECONDS, Bars
from trademl.market.decision import expected_r
from trademl.market.definitions import FEATURE_NAMES, NEWS
from trademl.market.features import last_row
from trademl.market.indicators import atr_newest
from trademl.market.open_trade import OpenTrade
from trademl.market.specs import CLASSES
from trademl.risk.profiles import profile as profile_of

FAR_SPREADS = 3.0  # a feature this many times its middle 80 % beyond them was practically not trained on
SAME_PRICE = 1e-3  # a close that differs by more from what the last call brought for the same bar is another one
_NEWS = [FEATURE_NAMES.index(feature.name) for feature in NEWS]
log = logging.getLogger("trademl.bot")


class Mode(StrEnum):
    """What a decision may be used for."""

    LIVE = "live"
    SHADOW = "shadow"  # watched, never traded


class Reason(StrEnum):
    """Why a decision is what it is, beside its numbers."""

    BELOW_MARGIN = "no side is worth its margin"
    NO_ATR = "the ATR is zero: no stop can be placed"
    UNKNOWN_FEATURES = "a feature is unknown: nothing is opened"
    STALE_CALENDAR = "the calendar does not cover the next day: news features are unknown"
    NO_CALENDAR = "no calendar was given, and the models were trained with one: news features are unknown"
    OUT_OF_RANGE = "features lie far outside of what the models were trained on"
    REVISED_BARS = "bars of the last call have changed since"
    UNPUBLISHED_HEAD = "sized by a risk head that did not pass its test, as the operator asked"
    HEAD_OFF = "sizing by risk heads is switched off: multiplier 1.0"
    NO_HEAD = "the revision holds no risk head for this profile: multiplier 1.0"
    UNSIGNED = "the revision's signature was not asked for"
    SHADOW = "shadow: not to be traded"


@dataclass(frozen=True)
class OpenPosition:
    """A trade that the bot holds."""

    side: int  # +1 long, -1 short
    entry_price: float  # bid at the fill
    stop_distance: float  # of its decision, price units: one R
    decided_bar_s: int  # epoch seconds of the open of the bar that decided it

    def __post_init__(self):
        numbers = (self.side, self.entry_price, self.stop_distance, self.decided_bar_s)
        if not all(isinstance(value, int | float | np.number) and abs(value) < MAX_NUMBER for value in numbers):  # NaN is not below it
            raise AccountError(f"open position {self}: side, entry_price, stop_distance and decided_bar_s must be finite numbers")
        if self.side not in (-1, 1) or not (self.entry_price > 0 and self.stop_distance > 0):
            raise AccountError(f"open position {self}: side must be +1 or -1, entry_price and stop_distance above 0")

    @classmethod
    def of(cls, given: "OpenPosition | Mapping") -> "OpenPosition":
        """From a mapping with the same names."""
        if isinstance(given, cls):
            return given
        try:
            return cls(**given)
        except TypeError as refusal:
            raise AccountError(f"open position: {refusal}; needed: {', '.join(cls.__dataclass_fields__)}") from refusal


@dataclass(frozen=True)
class PositionAdvice:
    """What the position model says of an open trade."""

    exit_probability: float | None  # None: exits are off, or it was not asked yet
    leave: bool  # close at the next open
    bars_held: int
    r_multiple: float  # gross, at this close


@dataclass(frozen=True)
class Decision:
    """What a revision decides at the close of one bar."""

    side: int  # +1 long, -1 short, 0 none
    probabilities: dict[str, float] | None  # calibrated, by class; None: unknown
    votes: dict[str, str] | None  # each model's own class
    expected_r: dict[str, float] | None  # net of cost, by side
    cost_r: float  # round trip
    size_multiplier: float
    effective_risk: float  # of equity, lost at the stop
    atr: float  # price units
    stop_distance: float  # price units
    target_distance: float
    horizon_bars: int
    position: PositionAdvice | None  # None: no open trade was given
    far_features: tuple[str, ...] | None  # outside of what was trained on; None: the revision does not say what that was
    bar_s: int  # epoch seconds of the deciding bar's open
    decided_at: datetime
    revision: str
    line: str
    profile: int
    mode: Mode
    reasons: tuple[Reason, ...]

    @property
    def may_trade(self) -> bool:
        """Whether an order may follow: a side, and not in shadow."""
        return self.side != 0 and self.mode is Mode.LIVE

    @property
    def in_range(self) -> bool | None:
        """Whether the models know such features; None: the revision does not say."""
        return None if self.far_features is None else not self.far_features


@dataclass(frozen=True)
class Loaded:
    """A revision that passed every check, ready to decide."""

    policy: Policy
    profile: int
    head: Head | None
    tail: TailRule
    symbol: str
    round_step: float
    is_news_known: bool  # whether it was trained with a calendar
    limits: tuple[np.ndarray, np.ndarray] | None  # lowest and highest usual value of each feature
    mode: Mode
    standing: tuple[Reason, ...]  # what is to be said of every decision

    @property
    def name(self) -> str:
        """Of the revision, 16 hex."""
        return self.policy.revision.name


@dataclass
class Predictor:
    """A loaded revision. Made by `load_approved`; not for several threads at once."""

    loaded: Loaded
    _load: Callable[[datetime | None], Loaded] = field(repr=False)
    _last: Bars | None = field(default=None, init=False, repr=False)  # of the call before

    @property
    def revision(self) -> str:
        """16 hex."""
        return self.loaded.name

    @property
    def line(self) -> str:
        """Pipeline, symbol, timeframe."""
        return self.loaded.policy.revision.line

    def refresh(self, now: datetime | None = None) -> bool:
        """Load what the pointer names now; True if that is another revision. Call it between bars. `now`: default this machine's clock.

        Until the new one has passed every check the old one stays; when it fails one, LoadError is raised and the old one goes on.
        """
        fresh = self._load(now)
        changed, self.loaded = fresh.name != self.revision, fresh
        if changed:
            log.info("revision %s decides from now on", fresh.name)
        return changed

    def replay_account(self, trades: Iterable[Mapping], start: float) -> AccountState:
        """The account that these trades left, from its start: each with `net_r` and `balance_after`, oldest first."""
        return replay_trades(AccountState.opened(self.line, self.loaded.profile, start), trades)

    def predict(
        self,
        bars_tail,  # the last 2,000 closed bars: `Bars`, or a mapping or frame with time, open, high, low, close, volume
        news_times,  # a Calendar, epoch seconds of scheduled high-impact events, or None
        account_state: AccountState | Mapping | None = None,
        open_position: OpenPosition | Mapping | None = None,
        now: datetime | None = None,
    ) -> Decision:
        """The decision at the close of the last bar. TailError, AccountError or BadDataError where none can be made."""
        loaded, now = self.loaded, utc(now or utc_now())
        bars, changed = self._checked(bars_tail, now)
        x, news = _features(loaded, bars, Calendar.of(news_times))
        atr = atr_newest(bars.high, bars.low, bars.close)
        judged = loaded.policy.judge(x[None], np.array([atr]))
        side, spec = int(judged.side[0]), loaded.policy.spec
        multiplier = self._multiplier(account_state, atr / bars.close[-1])
        far = _far(loaded.limits, x)
        why = [*news, *([Reason.REVISED_BARS] if changed else []), *([Reason.OUT_OF_RANGE] if far else []), *_no_side(side, x, atr)]
        self._last = bars
        return Decision(
            side=side,
            **_answers(loaded.policy, judged),
            size_multiplier=multiplier,
            effective_risk=profile_of(loaded.profile).base_risk * multiplier,
            atr=atr,
            stop_distance=spec.sl_atr * atr,
            target_distance=spec.tp_atr * atr,
            horizon_bars=spec.horizon_bars,
            position=None if open_position is None else _advice(loaded.policy, OpenPosition.of(open_position), x, bars),
            far_features=far,
            bar_s=int(bars.time[-1]),
            decided_at=now,
            revision=self.revision,
            line=self.line,
            profile=loaded.profile,
            mode=loaded.mode,
            reasons=(*why, *loaded.standing),
        )

    def _checked(self, given, now: datetime) -> tuple[Bars, bool]:
        """The bars, and whether some of them are no longer what the last call brought."""
        others = symbols_of(given) - {self.loaded.symbol}
        if others:
            named = ", ".join(sorted(others))
            raise TailError(TailFault.SYMBOL, f"bars of {named}; revision {self.revision} decides on {self.loaded.symbol}")
        bars = read_bars(given)
        self.loaded.tail.check(bars, now)
        return bars, self._last is not None and _differ(self._last, bars)

    def _multiplier(self, account_state, atr_norm: float) -> float:
        """What the risk head says of this account; 1.0 without one."""
        loaded = self.loaded
        account = None if account_state is None else AccountState.of(account_state)
        if account is not None and (account.line, account.profile) != (self.line, loaded.profile):
            raise AccountError(
                f"account of {account.line}, profile {account.profile}; loaded is {self.line}, profile {loaded.profile}: "
                "give that one's account, or `replay_account` its trades"
            )
        if loaded.head is None:
            return 1.0
        if account is None:
            raise AccountError(
                f"revision {self.revision} sizes by a risk head under profile {loaded.profile}: give account_state, "
                "or load with risk_enabled=False"
            )
        return float(loaded.head(account.features(atr_norm)))


def _features(loaded: Loaded, bars: Bars, calendar: Calendar | None) -> tuple[np.ndarray, list[Reason]]:
    """The deciding bar's features, float64 (55,); those of the calendar NaN where it does not know, never "no news"."""
    told, decided_s = [], int(bars.time[-1]) + BAR_SECONDS
    if loaded.is_news_known and calendar is None:
        told = [Reason.NO_CALENDAR]
    elif loaded.is_news_known and not calendar.knows(decided_s):
        told = [Reason.STALE_CALENDAR]
    events = (None, None) if told or not loaded.is_news_known else (calendar.times, calendar.all_day_times)
    try:
        x = last_row(bars, events[0], all_day_times=events[1], round_step=loaded.round_step)
    except BadDataError as refusal:
        raise TailError(TailFault.VALUES, str(refusal)) from refusal
    if told:
        x[_NEWS] = np.nan
    return x, told


def _no_side(side: int, x: np.ndarray, atr: float) -> list[Reason]:
    if side != 0:
        return []
    if not np.isfinite(x).all():
        return [Reason.UNKNOWN_FEATURES]
    return [Reason.BELOW_MARGIN if atr > 0 else Reason.NO_ATR]


def _answers(policy: Policy, judged) -> dict:
    """What the models said, by name; None where a feature was unknown."""
    cost = float(judged.cost_r[0])
    if not np.isfinite(judged.probabilities).all():
        return {"probabilities": None, "votes": None, "expected_r": None, "cost_r": cost}
    worth = expected_r(judged.probabilities, policy.rule.worth, judged.cost_r)[0]
    own = judged.model_probabilities[0].argmax(axis=1)
    return {
        "probabilities": dict(zip(CLASSES, judged.probabilities[0].tolist(), strict=True)),
        "votes": {name: CLASSES[k] for name, k in zip(policy.members, own, strict=True)},
        "expected_r": dict(zip(("long", "short"), worth.tolist(), strict=True)),
        "cost_r": cost,
    }


def _advice(policy: Policy, held: OpenPosition, x: np.ndarray, bars: Bars) -> PositionAdvice:
    """Stay or leave, at this close."""
    at = int(np.searchsorted(bars.time, held.decided_bar_s))
    if at >= len(bars.time) or bars.time[at] != held.decided_bar_s:
        raise AccountError(f"open position: {iso_z(held.decided_bar_s)} is not the open of a bar in this tail; give its deciding bar")
    bars_held = len(bars.time) - 1 - at
    state = OpenTrade(held.side, held.entry_price, held.stop_distance).state(bars_held, bars.close[-1], policy.spec)
    asked = policy.exits is not None and bars_held >= policy.exits.min_bars_held and bool(np.isfinite(x).all())
    probability = float(policy.exit_probability(x[None], state)[0]) if asked else None
    leave = probability is not None and bool(policy.exits.leaves(np.array([probability]))[0])
    return PositionAdvice(probability, leave, bars_held, float(state[0, 2]))


def _far(limits, x: np.ndarray) -> tuple[str, ...] | None:
    if limits is None:
        return None
    outside = (x < limits[0]) | (x > limits[1])  # NaN is neither
    return tuple(FEATURE_NAMES[k] for k in np.flatnonzero(outside))


def _differ(before: Bars, now: Bars) -> bool:
    """Whether bars of the last call have another close now; TailError where most have: those are another symbol's."""
    first = np.searchsorted(before.time, now.time[0])
    shared = len(before.time) - first
    old, new = slice(first, None), slice(shared)  # as after every bar that came alone
    if not np.array_equal(before.time[old], now.time[new]):
        _, old, new = np.intersect1d(before.time, now.time, assume_unique=True, return_indices=True)
        shared = len(old)
    if not shared:
        return False
    was, is_now = before.close[old], now.close[new]
    if np.array_equal(was, is_now):
        return False
    if np.count_nonzero(np.abs(is_now / was - 1) > SAME_PRICE) > shared / 2:
        raise TailError(
            TailFault.SYMBOL,
            f"bars: most of the {shared:,} that the last call brought too have other prices now: another symbol's, or broker's; "
            "if these are right, load the revision anew to go on with them",
        )
    return True
