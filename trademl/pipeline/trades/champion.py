"""The active revision beside the one that is being judged, on the judged records that neither had seen."""

from datetime import UTC, datetime

import numpy as np

from trademl.clock import DAY_S
from trademl.errors import RevisionError
from trademl.evidence.champion import Comparison, compare, r_by_day
from trademl.evidence.looks import Look
from trademl.pipeline.trades.case import TradeCase
from trademl.pipeline.trades.looks import recipe_parts
from trademl.pipeline.trades.stored import answers_of, rule_of, section_of, trade_store
from trademl.ship.revision import Revision
from trademl.trades.advice import calibrated, size_multipliers
from trademl.trades.policy import Replay
from trademl.trades.registry import TradeModel

ANY_AGE = datetime(1970, 1, 1, tzinfo=UTC)  # a champion that has expired is compared like any other


def beside_champion(case: TradeCase, replay: Replay, look: Look) -> Comparison | None:
    """The comparison with the active revision; None where there is none. One that cannot be compared holds the new one back."""
    name = "the active revision"
    try:
        revision = trade_store(case.settings, case.inputs.flags.models_dir).active(ANY_AGE)
        if revision is None:
            return None
        name = f"revision {revision.name}"
        return _compared(revision, case, replay, look)
    except (RevisionError, KeyError, TypeError, ValueError) as refusal:
        return not_comparable(name, str(refusal), look.level)


def not_comparable(name: str, why: str, level: float) -> Comparison:
    """What stands for a comparison that cannot be made: nothing is activated in the champion's place but by a person."""
    remedy = "a person may activate the new one: `trademl models activate REV --reason TEXT`"
    return Comparison(0, None, None, level, False, True, f"held back by {name}: no comparison with it is possible ({why}); {remedy}")


def _compared(revision: Revision, case: TradeCase, replay: Replay, look: Look) -> Comparison:
    seen_until = max(fit["label_end_s"] for fit in revision.manifest["lineage"])
    later = replay.trades.time_s >= seen_until
    time_s, net_r = replay.trades.time_s[later], replay.trades.net_r[later]
    theirs = champion_sizes(revision, case, replay.rows[later])
    first = int(time_s[0] // DAY_S) if later.any() else 0
    days = int(time_s[-1] // DAY_S) - first + 1 if later.any() else 0
    by_day = (r_by_day(sizes * net_r, time_s, first, days) for sizes in (replay.trades.size[later], theirs))
    same = section_of(revision)["recipe"] == recipe_parts(case)
    return compare(*by_day, is_same_recipe=same, level=look.level, name=f"revision {revision.name}")


def champion_sizes(revision: Revision, case: TradeCase, at: np.ndarray) -> np.ndarray:
    """What a stored revision would have traded of the trades `at`: sizes (m,), 0 = not taken. RevisionError as `answers_of`."""
    rule, said = rule_of(revision), answers_of(revision, case, at)
    sizes = np.ones(len(at))
    if rule.size_scale is not None:
        sizes = size_multipliers(said[TradeModel.POSITION_SIZING][:, 0], rule.size_scale)
    if rule.threshold is not None:
        sizes = np.where(calibrated(said[TradeModel.SIGNAL_QUALITY][:, 0], rule) >= rule.threshold, sizes, 0.0)
    return sizes
