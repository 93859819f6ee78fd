"""The bars that a recipe was judged on, as a revision keeps them: what `trademl explain` needs instead of the data files.

judged_rows.npz   x, time_s, window, position_row, position_state, and each ensemble's weights, scale and shift
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from trademl.clock import iso_z
from trademl.errors import RevisionError, UsageError
from trademl.files import npz_bytes, read_npz

_KINDS = {"x": "float32", "time_s": "int64", "window": "int8", "position_row": "int32", "position_state": "float32"}
BLENDS = [f"{role}_{part}" for role in ("signal", "position") for part in ("weights", "scale", "shift")]


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """Rows of select and final that the recipe was asked about, in the order of time."""

    x: np.ndarray  # float32 (n, features): not scaled, in the order of the revision's `feature_names`
    time_s: np.ndarray  # int64 (n,): decision time, the bar's close
    window: np.ndarray  # int8 (n,): 1 select, 2 final
    position_row: np.ndarray  # int32 (m,): of these rows, the bar at whose close the position model was asked
    position_state: np.ndarray  # float32 (m, 4): the trade's state there
    blends: Mapping[str, np.ndarray]  # by the names BLENDS: weights by model, the calibration's scale and shift by class

    @property
    def position_x(self) -> np.ndarray:
        """float32 (m, features + 4): what the position model was asked."""
        return np.column_stack([self.x[self.position_row], self.position_state])

    def at(self, decision: str) -> int:
        """The row of a decision: a number (negative: from the end), or its time, UTC. UsageError says what there is."""
        span = "there is no row"
        if len(self.x):
            span = f"there are {len(self.x):,} rows, from {iso_z(self.time_s[0])} to {iso_z(self.time_s[-1])}"
        try:
            number = int(decision)
        except ValueError:
            return self._at_time(decision, span)
        if not -len(self.x) <= number < len(self.x):
            raise UsageError(f"no decision {number}: {span}")
        return number % len(self.x)

    def _at_time(self, decision: str, span: str) -> int:
        try:
            moment = datetime.fromisoformat(decision.strip())
        except ValueError:
            raise UsageError(f"decision {decision!r} is neither a row's number nor a time such as 2026-03-02T14:15Z: {span}") from None
        second = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        found = int(np.searchsorted(self.time_s, second))
        if found < len(self.time_s) and self.time_s[found] == second:
            return found
        around = [iso_z(self.time_s[row]) for row in (found - 1, found) if 0 <= row < len(self.time_s)]
        near = f"the nearest are at {' and '.join(around)}; " if around else ""
        raise UsageError(f"no decision at {iso_z(second)} (a bar decides at its close): {near}{span}")

    def to_bytes(self) -> bytes:
        """`judged_rows.npz`."""
        arrays = {name: np.asarray(getattr(self, name), kind) for name, kind in _KINDS.items()}
        return npz_bytes(arrays | {name: np.asarray(values, np.float64) for name, values in self.blends.items()})

    @classmethod
    def from_bytes(cls, data: bytes, n_features: int) -> "JudgedRows":
        """The rows of `to_bytes()`. RevisionError names what does not fit."""
        try:
            arrays = read_npz(data)
            own = {name: np.asarray(arrays[name], kind) for name, kind in _KINDS.items()}
            blends = {name: np.asarray(arrays[name], np.float64) for name in BLENDS}
        except (ValueError, KeyError, TypeError) as refusal:
            raise RevisionError(f"judged_rows.npz cannot be read ({refusal}); retrain to make a new revision") from refusal
        rows = cls(**own, blends=blends)
        if problem := rows._problem(n_features):
            raise RevisionError(f"judged_rows.npz: {problem}; retrain to make a new revision")
        return rows

    def _problem(self, n_features: int) -> str:
        n, m = len(self.x), len(self.position_row)
        if self.x.shape != (n, n_features):
            return f"x has shape {self.x.shape}, the revision has {n_features} features"
        if self.time_s.shape != (n,) or self.window.shape != (n,) or (np.diff(self.time_s) <= 0).any():
            return f"{n:,} rows need as many windows and as many times, each later than the one before"
        if self.position_state.shape != (m, 4) or (m and not 0 <= self.position_row.min() <= self.position_row.max() < n):
            return f"{m:,} position rows need states of shape ({m}, 4) and must name one of {n:,} rows"
        return ""
