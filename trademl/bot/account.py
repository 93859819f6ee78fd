"""What a bot remembers of its account, as one small JSON file that it keeps itself.

    {"schema": 1, "line": "market-btcusd-15min", "profile": 3, "start": 10000.0, "equity": 10120.5, "peak": 10200.0,
     "closed_net_r": [0.91, -1.08, ...]}

`closed_net_r`: net R of the closed trades, oldest first; the newest 500 are kept. `peak` is the highest equity since the start or
since the profile's drawdown halt, as in the replay that the risk heads learned from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trademl.bot.refusals import AccountError
from trademl.files import canonical_json, read_regular, strict_json, write_atomically
from trademl.risk.profiles import profile as profile_of
from trademl.risk.state import HISTORY, equity_state
from trademl.ship.shapes import NUMBER

SCHEMA = 1
MAX_BYTES = 64 * 1024
SHAPE = {"schema": int, "line": str, "profile": int, "start": NUMBER, "equity": NUMBER, "peak": NUMBER, "closed_net_r": [NUMBER]}
MAX_NUMBER = 1e300  # beyond it sums and ratios leave float64
_NUMBERS = ("start", "equity", "peak")


@dataclass(frozen=True)
class AccountState:
    """An account that follows one line under one profile."""

    line: str
    profile: int
    start: float  # account currency
    equity: float
    peak: float
    closed_net_r: tuple[float, ...] = ()

    def __post_init__(self):
        for name in _NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MAX_NUMBER:
                raise AccountError(f"account: {name} = {value!r} must be a finite amount > 0")
        object.__setattr__(self, "closed_net_r", tuple(self.closed_net_r)[-HISTORY:])
        if self.peak < self.equity:
            raise AccountError(f"account: peak = {self.peak!r} is below equity = {self.equity!r}; the peak includes the present equity")
        known = [isinstance(r, int | float) and not isinstance(r, bool) and abs(r) < MAX_NUMBER for r in self.closed_net_r]
        if not all(known):
            where = known.index(False)
            raise AccountError(
                f"account: closed_net_r[{where}] = {self.closed_net_r[where]!r} must be a finite number, the net R of a trade"
            )

    @classmethod
    def opened(cls, line: str, profile: int, start: float) -> "AccountState":
        """An account before its first trade."""
        return cls(line, profile, start, start, start)

    @classmethod
    def of(cls, given: "AccountState | Mapping") -> "AccountState":
        """From a record of `record()`'s shape. AccountError names the key that is missing, unknown or of another kind."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise AccountError(f"account: a {type(given).__name__}, expected the object that `AccountState.record` gives")
        wanted = set(SHAPE)
        if set(given) != wanted:
            missing, unknown = sorted(wanted - set(given)), sorted(map(str, set(given) - wanted))
            raise AccountError(f"account: missing {missing}, unknown {unknown}; `Predictor.replay_account` makes it anew")
        if given["schema"] != SCHEMA or isinstance(given["schema"], bool):
            raise AccountError(
                f"account: schema = {given['schema']!r}, this trademl reads {SCHEMA}; `Predictor.replay_account` makes it anew"
            )
        if not (isinstance(given["line"], str) and type(given["profile"]) is int and isinstance(given["closed_net_r"], list | tuple)):
            raise AccountError("account: line must be text, profile a whole number and closed_net_r a list")
        values = {name: given[name] for name in cls.__dataclass_fields__}
        return cls(**values)

    @classmethod
    def read(cls, path: Path | str) -> "AccountState":
        """From a file. AccountError for a damaged one: it is not guessed what it said."""
        try:
            return cls.of(strict_json(read_regular(path, MAX_BYTES)))
        except (OSError, ValueError) as refusal:
            raise AccountError(f"{path}: {refusal}") from refusal

    def write(self, path: Path | str) -> None:
        """Replace the file in one step."""
        write_atomically(path, canonical_json(self.record()))

    def record(self) -> dict:
        """What JSON holds."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"schema": SCHEMA} | fields | {"closed_net_r": list(self.closed_net_r)}

    def after(self, net_r: float, equity: float) -> "AccountState":
        """The account after a trade closed at this net R and left this equity; the profile's halt starts a new peak."""
        peak = max(self.peak, equity)
        if 1.0 - equity / peak >= profile_of(self.profile).ceiling:
            peak = equity
        return replace(self, equity=equity, peak=peak, closed_net_r=(*self.closed_net_r, net_r))

    def features(self, atr_norm: float) -> np.ndarray:
        """The seven numbers that a risk head sees, float64 (7,); `atr_norm` = ATR / price at the entry."""
        return equity_state(self.closed_net_r, equity=self.equity, start=self.start, peak=self.peak, atr_norm=atr_norm)


def replay_trades(account: AccountState, trades: Iterable[Mapping]) -> AccountState:
    """The account after these trades, oldest first, each with `net_r` and `balance_after`."""
    for number, trade in enumerate(trades):
        try:
            account = account.after(float(trade["net_r"]), float(trade["balance_after"]))
        except (KeyError, TypeError, ValueError) as refusal:
            raise AccountError(f"trade {number}: {refusal!r}; each needs net_r and balance_after, oldest first") from refusal
    return account
