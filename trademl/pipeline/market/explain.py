"""What drives a recipe's answers: each fold's models on the bars that they were asked about; and the shipped models on the same bars.

The recipe's explanation is part of the judging: it shows figures of the final window, so its look comes first.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import pandas as pd

from trademl.errors import BadDataError, LooksError
from trademl.evidence.explain import ensemble_shaps, with_shuffled_copies
from trademl.evidence.figures import evenly
from trademl.evidence.looks import Look
from trademl.evidence.shap_subjects import Contributions, View, floors, joined, pair_shares, subject_of
from trademl.evidence.shap_summary import SHAP_KIND, SHAP_SCHEMA, Noise, ShapSummary, Subject, Whose
from trademl.evidence.treeshap import tree_base, tree_shap
from trademl.files import jsonable
from trademl.learn.ensemble import Blend, FittedEnsemble
from trademl.learn.readers import from_lightgbm
from trademl.market.features import FEATURE_NAMES
from trademl.market.open_trade import POSITION_CLASSES, STATE_FEATURES, position_input
from trademl.market.out_of_sample import WINDOWS
from trademl.market.position import HeldRows, held_rows, position_matrix
from trademl.market.recipe import fit_signal
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged
from trademl.market.warmstart import read_lightgbm, read_models, read_signal
from trademl.pipeline.judged_rows import JudgedRows
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.parameters import account_spec
from trademl.pipeline.market.risk import TRADES_FILE, RiskHeads, kept_trades
from trademl.pipeline.stored import Stored
from trademl.risk.profiles import profile as profile_of
from trademl.risk.replay import Objective, replay
from trademl.risk.state import STATE_FEATURES as RISK_FEATURES
from trademl.risk.state import head_input
from trademl.risk.trades import LotSpec, TradeSequence
from trademl.settings import Settings
from trademl.ship.contents import JUDGED_ROWS, SHAP_SUMMARY
from trademl.validate.calibration import Calibration

MOST_ROWS = 32_768  # of the judged bars that are explained and kept: 7 MB
POSITION_ROWS = 8_192  # closes of open trades
RISK_ROWS = 4_096
PAIR_ROWS = 1_024  # that interactions are computed of
NOISE_FIT_ROWS, NOISE_ROWS = 20_000, 8_192  # that the fit with shuffled copies learns from, and is explained on
COPIES = 5  # shuffled, of the strongest features


@dataclass(frozen=True)
class Explanation:
    """What drove the recipe's answers, and the rows that they were given on."""

    summary: ShapSummary
    rows: JudgedRows

    def files(self) -> dict[str, bytes]:
        """What a revision keeps of it."""
        return {SHAP_SUMMARY: summary_bytes(self.summary), JUDGED_ROWS: self.rows.to_bytes()}


def summary_bytes(summary: ShapSummary) -> bytes:
    """`shap_summary.json`."""
    return json.dumps(jsonable(summary), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# ---------------------------------------------------------------- rows


@dataclass(frozen=True, eq=False)
class _Asked:
    """Rows that one model was asked about."""

    x: np.ndarray  # (n, features), as people know them
    z: np.ndarray  # float32 (n, features), as the model was asked
    time_s: np.ndarray
    count: int  # of which these are all or some


def _held(case: Case, bars: np.ndarray) -> HeldRows:
    """Closes of the trades that the position model is asked about where `bars` decide: long and short ones, in the order of time."""
    rows = case.rows
    bars = bars[rows.labels.label[bars] >= 0]
    prices = rows.bars["open"].to_numpy(), rows.bars["close"].to_numpy()
    least = case.recipe.position.min_bars_held
    long, short = (held_rows(*prices, rows.labels, bars, np.full(len(bars), side, np.int8), min_bars_held=least) for side in (1, -1))
    parts = {name: np.concatenate([getattr(long, name), getattr(short, name)]) for name in ("entry", "bar", "state", "final_r")}
    return _taken(HeldRows(**parts), np.argsort(parts["bar"], kind="stable"))


def _taken(held: HeldRows, at: np.ndarray) -> HeldRows:
    return HeldRows(*(part[at] for part in (held.entry, held.bar, held.state, held.final_r)))


def _shares(counts: Iterable[int], most: int) -> list[int]:
    """How many of `most` rows each part gives: its share, the largest remainders rounded up, and at least one of what it has."""
    counts = np.array(list(counts), dtype=np.int64)
    total = int(counts.sum())
    if total <= most:
        return counts.tolist()
    share, over = np.divmod(most * counts, total)
    share[np.argsort(-over, kind="stable")[: most - share.sum()]] += 1
    return np.minimum(counts, np.maximum(share, 1)).tolist()


# ---------------------------------------------------------------- contributions

_ROLES = {"signal": (CLASSES, FEATURE_NAMES), "position": (POSITION_CLASSES, (*FEATURE_NAMES, *STATE_FEATURES))}


@dataclass(frozen=True, eq=False)
class _Answered:
    """Models of one role, each with the rows that it was asked about, and how they are blended."""

    role: str
    models: tuple[FittedEnsemble, ...]
    asked: tuple[_Asked, ...]
    blend: Blend
    threads: int

    def contributions(self) -> Contributions:
        """In probability and in margin, of all rows."""
        return joined([self._of(model, rows) for model, rows in zip(self.models, self.asked, strict=True)])

    def _of(self, model: FittedEnsemble, rows: _Asked) -> Contributions:
        made = ensemble_shaps(model.tables, self.blend.weights, self.blend.calibration, rows.z, threads=self.threads)
        views = tuple(View(str(shap.unit), shap.values, shap.base) for shap in made)
        return Contributions(self.role, *_ROLES[self.role], rows.x, rows.time_s, views, (len(rows.z),), rows.count)

    def pairs(self) -> np.ndarray:
        """Shares of the interactions (features, features), of some rows of each model."""
        counts = _shares((len(rows.z) for rows in self.asked), PAIR_ROWS)
        mixed = np.zeros((len(_ROLES[self.role][1]),) * 2)
        for model, rows, count in zip(self.models, self.asked, counts, strict=True):
            few = rows.z[evenly(len(rows.z), count)]
            mixed += count / max(sum(counts), 1) * pair_shares(model.tables, self.blend.weights, few, threads=self.threads)
        return mixed


def _head_subjects(boosters: Mapping[int, lgb.Booster], trades: pd.DataFrame, lots: LotSpec, seed: int) -> list[Subject]:
    """The risk heads on the states before the trades of select, which came after those that they learned from."""
    later, subjects = TradeSequence.from_backtest(trades[trades["part"] == "select"]), []
    for number, booster in boosters.items():
        name, table = f"risk_p{number}", from_lightgbm(booster)
        try:
            done = replay(later, profile_of(number), objective=Objective.WR_PF_SQRT_DD, lots=lots, seed=0)  # its states alone are used
        except BadDataError:  # too few trades for one state
            states, time_s = np.empty((0, len(RISK_FEATURES))), np.empty(0, np.int64)
        else:
            at = evenly(len(done.states), RISK_ROWS)
            states, time_s = done.states[at], later.entry_s[done.trade_index[at]]
        z = head_input(states).astype(np.float32)
        view = View("multiplier", tree_shap(table, z), tree_base(table))
        found = Contributions(name, ("multiplier",), RISK_FEATURES, states, time_s, (view,), (len(z),), len(z))
        subjects.append(subject_of(found, pairs=pair_shares([table], [1.0], z[evenly(len(z), PAIR_ROWS)]), seed=seed))
    return subjects


# ---------------------------------------------------------------- the recipe


def explain_recipe(case: Case, judged: Judged, look: Look, heads: RiskHeads | None = None) -> Explanation:
    """What drove the answers of the walk-forward: for one who has taken the look at the final window."""
    final = judged.windows.span("final")
    if look.end_s <= final.start_s:
        raise LooksError("the look is not at this run's final window; take it with `look_at_final`")
    rows, frozen, recipe = case.rows, judged.frozen, case.recipe
    folds, z = [fold.test_rows for fold in judged.signal.folds], frozen.scaler.transform(rows.x)
    bars = np.concatenate(folds)
    bars = bars[evenly(len(bars), MOST_ROWS)]
    parts = [np.intersect1d(fold, bars) for fold in folds]
    asked = tuple(_Asked(rows.x[at], z[at], rows.time_s[at], len(fold)) for at, fold in zip(parts, folds))
    signal = _Answered("signal", tuple(judged.signal.models), asked, frozen.signal_blend, recipe.threads)
    held, counts = _some_held(case, folds, bars)
    states = tuple(
        _Asked(position_input(rows.x[of.bar], of.state), position_matrix(z, of), rows.time_s[of.bar], count)
        for of, count in zip(held, counts)
    )
    position = _Answered("position", tuple(judged.position.models), states, frozen.position_blend, recipe.threads)
    found = signal.contributions()
    noise, floor = _noise(case, judged, z, found)
    subjects = (
        subject_of(found, pairs=signal.pairs(), noise=noise, floor=floor, seed=recipe.seed),
        subject_of(position.contributions(), pairs=position.pairs(), seed=recipe.seed),
        *([] if heads is None else _head_subjects(heads.model.boosters, heads.trades, heads.lots, recipe.seed)),
    )
    words = f"the models of {len(folds)} walk-forward folds, each on the bars that it was asked about and had not seen"
    summary = ShapSummary(SHAP_SCHEMA, SHAP_KIND, Whose.RECIPE, f"{words}{_days(subjects[0])}", recipe.seed, subjects)
    kept = JudgedRows(
        x=rows.x[bars].astype(np.float32),
        time_s=rows.time_s[bars],
        window=np.where(rows.time_s[bars] >= final.start_s, WINDOWS.index("final"), WINDOWS.index("select")).astype(np.int8),
        position_row=np.concatenate([np.searchsorted(bars, of.bar) for of in held]).astype(np.int32),
        position_state=np.concatenate([of.state for of in held]).astype(np.float32),
        blends={**_blend_arrays("signal", frozen.signal_blend), **_blend_arrays("position", frozen.position_blend)},
    )
    return Explanation(summary, kept)


def _some_held(case: Case, folds: list[np.ndarray], bars: np.ndarray) -> tuple[list[HeldRows], list[int]]:
    """Of each fold, evenly spread closes of open trades that lie on `bars`; and how many the position model was asked about."""
    held = [_held(case, fold) for fold in folds]
    counts = [len(of.bar) for of in held]
    held = [_taken(of, np.flatnonzero(np.isin(of.bar, bars))) for of in held]
    shares = _shares((len(of.bar) for of in held), POSITION_ROWS)
    return [_taken(of, evenly(len(of.bar), share)) for of, share in zip(held, shares)], counts


def _noise(case: Case, judged: Judged, z: np.ndarray, found: Contributions) -> tuple[Noise | None, dict]:
    """How far shuffled copies of the strongest features reach in a fit that also learned from them, on the rows of select.

    It learns from the newest rows before select: fewer than the folds, so that the floor lies rather too high than too low.
    """
    strongest = np.argsort(-np.abs(found.views[0].values).mean(axis=(0, 1)), kind="stable")[:COPIES]
    select, past = judged.windows.rows("select"), judged.signal.past[-NOISE_FIT_ROWS:]
    matrix = with_shuffled_copies(z[: select[-1] + 1], strongest, seed=case.recipe.seed)
    try:
        model = fit_signal(case.rows, matrix, past, case.recipe, rounds=judged.frozen.signal_rounds)
    except BadDataError:  # the newest rows lack a class
        return None, {}
    at, blend = select[evenly(len(select), NOISE_ROWS)], judged.frozen.signal_blend
    made = ensemble_shaps(model.tables, blend.weights, blend.calibration, matrix[at], threads=case.recipe.threads)
    copied = tuple(found.features[column] for column in strongest)
    names = (*found.features, *(f"shuffled {name}" for name in copied))
    views = tuple(View(str(shap.unit), shap.values, shap.base) for shap in made)
    noise = Contributions("signal", found.outputs, names, matrix[at], case.rows.time_s[at], views, (len(at),), len(at))
    return Noise(copied, len(past), len(at)), floors(noise, len(copied), seed=case.recipe.seed)


def _blend_arrays(role: str, blend: Blend) -> dict[str, np.ndarray]:
    return {f"{role}_weights": blend.weights, f"{role}_scale": blend.calibration.scale, f"{role}_shift": blend.calibration.shift}


def _days(subject: Subject) -> str:
    return f" ({subject.start_utc[:10]} to {subject.end_utc[:10]})" if subject.rows else ""


# ---------------------------------------------------------------- the shipped models


def explain_shipped(stored: Stored, settings: Settings) -> ShapSummary:
    """The shipped models on the judged rows that the revision keeps. They have seen them: it describes, and proves nothing."""
    rows, own = stored.judged_rows, stored.shap_summary
    scaler, fitted, _ = read_signal(stored.read, len(stored.feature_names), len(stored.classes))
    x = rows.x.astype(np.float64)
    z = scaler.transform(x)
    asked = _Asked(x, z, rows.time_s, len(x))
    signal = _Answered("signal", (fitted,), (asked,), _blend_of(rows, "signal"), settings.run.threads)
    state, at = rows.position_state, rows.position_row
    asked = _Asked(rows.position_x, np.column_stack([z[at], state]), rows.time_s[at], len(at))
    leaving = read_models(stored.read, "position", x.shape[1] + len(STATE_FEATURES), len(POSITION_CLASSES))
    position = _Answered("position", (leaving,), (asked,), _blend_of(rows, "position"), settings.run.threads)
    told = own.subject("signal")
    floor = {(ranking.output, ranking.unit): ranking.noise_floor for ranking in told.rankings}
    subjects = (
        subject_of(signal.contributions(), pairs=signal.pairs(), noise=told.noise, floor=floor, seed=own.seed),
        subject_of(position.contributions(), pairs=position.pairs(), seed=own.seed),
        *(stored_heads(stored, settings) if stored.holds(TRADES_FILE) else ()),
    )
    words = f"The shipped models on the same bars{_days(subjects[0])}, which they have seen: a description, not evidence"
    return ShapSummary(SHAP_SCHEMA, SHAP_KIND, Whose.SHIPPED, words, own.seed, subjects)


def _blend_of(rows: JudgedRows, role: str) -> Blend:
    weights, scale, shift = (rows.blends[f"{role}_{part}"] for part in ("weights", "scale", "shift"))
    return Blend(weights, Calibration(scale, shift))


def stored_heads(stored: Stored, settings: Settings) -> list[Subject]:
    """The risk heads that a revision holds, published or not."""
    files = {number: f"native/risk_p{number}.txt" for number in range(1, 6)}
    boosters = {number: read_lightgbm(stored.read(file)) for number, file in files.items() if stored.holds(file)}
    lots = LotSpec.from_specs(stored.costs, account_spec(settings, stored.symbol, settings.account.profile))
    return _head_subjects(boosters, kept_trades(stored), lots, stored.seed)


def with_heads(stored: Stored, heads: RiskHeads) -> bytes:
    """A revision's `shap_summary.json` with other risk heads in it."""
    fresh = _head_subjects(heads.model.boosters, heads.trades, heads.lots, stored.seed)
    return summary_bytes(stored.shap_summary.with_subjects(*fresh, dropping="risk_"))
