"""Which revision may decide: every question is asked before the first bar, and each has its own answer."""

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from trademl.bot.policy import Head, Policy, holds_head, risk_head_of
from trademl.bot.predictor import FAR_SPREADS, Loaded, Mode, Predictor, Reason
from trademl.bot.records import check_features
from trademl.bot.refusals import LoadCheck, LoadError
from trademl.bot.tail import TailRule
from trademl.clock import DAY_S, iso_z, utc_now
from trademl.errors import RevisionError, UsageError, choose
from trademl.files import read_npz
from trademl.market.features import BAR_SECONDS, warmup_bars
from trademl.market.specs import CLASSES, LabelSpec
from trademl.risk.profiles import profile as profile_of
from trademl.ship.manifest import model_of
from trademl.ship.revision import Revision
from trademl.ship.signing import NO_TRUST, Trust
from trademl.ship.store import Store

SKEW_S = 300  # how far the trainer's clock may be ahead of this machine's
SPREAD_FILE = "native/spread.npz"
log = logging.getLogger("trademl.bot")


@dataclass(frozen=True)
class Expect:
    """What the bot trades and executes; a revision made for anything else is refused."""

    symbol: str
    label_spec: LabelSpec = field(default_factory=LabelSpec)  # the bracket that the bot executes
    timeframe: str = "15min"
    round_step: float | None = None  # price grid of the symbol; None: the revision's own
    max_age_days: float | None = None  # since it was trained; None: as long as it has not expired
    missing_share: float | None = None  # of the bars, usual for this market; None: as in the revision's data

    def __post_init__(self):
        if not (self.missing_share is None or 0 <= self.missing_share < 1):
            raise UsageError(f"missing_share = {self.missing_share!r} must be a share of the bars, 0 to 1, or None")


def load_approved(
    models_dir: Path | str,
    keys: Iterable[str] | None,  # public keys that count, `ed25519:…`; None: an unsigned local store, said of every decision
    *,
    profile: int,
    expect: Expect,
    risk_enabled: bool = True,
    use_unpublished: bool = False,  # size by a head that did not pass its test, said of every decision
    mode: str = "live",  # shadow: the newest revision, approved or not, watched and never traded
    now: datetime | None = None,
) -> Predictor:
    """The active revision, after every check of `LoadCheck`, ready to decide. LoadError names the one that failed."""
    trust = NO_TRUST if keys is None else Trust.of(keys)
    mode, profile = choose(Mode, mode, "mode"), profile_of(profile).number

    def load(now: datetime | None) -> Loaded:
        revision = find_revision(Store(models_dir, trust), mode)
        check_standing(revision, expect.max_age_days, now)
        _check_contract(revision, expect)
        for one in revision.checks():
            if not one.ok:
                raise LoadError(LoadCheck(one.name), one.detail)
        with asking(LoadCheck.HEAD):
            head, said = _head(revision, profile, is_enabled=risk_enabled, use_unpublished=use_unpublished)
        standing = (*said, *([Reason.UNSIGNED] if keys is None else []), *([Reason.SHADOW] if mode is Mode.SHADOW else []))
        return _loaded(revision, profile, head, expect, mode, standing)

    return Predictor(load(now), load)


@contextmanager
def asking(check: LoadCheck) -> Iterator[None]:
    """A refusal inside is the answer to this question."""
    try:
        yield
    except LoadError:
        raise
    except (RevisionError, UsageError) as refusal:
        raise LoadError(check, str(refusal)) from refusal


def find_revision(store: Store, mode: Mode) -> Revision:
    """The revision that may decide: the active one and an approved one; in shadow the newest."""
    with asking(LoadCheck.POINTER):
        if mode is Mode.SHADOW:
            return store.locate()
        record = store.pointer()
        if record is None:
            raise RevisionError(f"{store.models_dir}: no revision is active; `trademl models activate REV` makes one so")
    with asking(LoadCheck.MANIFEST):
        revision = store.locate(record["revision"])
    with asking(LoadCheck.POINTER):
        said = {key: value for key, value in record.items() if key != "activation"}
        if revision.manifest_sha256 != record["manifest_sha256"] or said != revision.compat:
            raise RevisionError(f"{store.models_dir}: the pointer does not say what revision {revision.name} says; activate it anew")
    if not revision.gate_passed and not (record.get("activation") or {}).get("reason"):
        raise LoadError(
            LoadCheck.APPROVAL,
            f"revision {revision.name} is a candidate: its gate refused it and nobody approved it; load it with mode='shadow', "
            "or `trademl models activate` it with a reason",
        )
    return revision


def check_standing(revision: Revision, max_age_days: float | None, now: datetime | None) -> None:
    """Who made it, for whom, and when. `now`: None is this machine's clock."""
    now = utc_now() if now is None else now
    if not isinstance(now, datetime) or now.tzinfo is None:
        raise UsageError(f"now = {now!r} has no time zone; give datetime.now(UTC)")
    if not (max_age_days is None or 0 < max_age_days < math.inf):
        raise UsageError(f"max_age_days = {max_age_days!r} must be a number of days above 0, or None")
    with asking(LoadCheck.SIGNATURE):
        revision.check_signature()
    with asking(LoadCheck.RUNTIME):
        revision.check_runtime()
    trained_at = datetime.fromisoformat(revision.trained_at)
    if (trained_at - now).total_seconds() > SKEW_S:
        raise LoadError(
            LoadCheck.CLOCK, f"revision {revision.name} was trained at {revision.trained_at}, here it is {iso_z(now)}: this clock is behind"
        )
    with asking(LoadCheck.AGE):
        revision.check_age(now)
        if max_age_days is not None and (now - trained_at).total_seconds() > max_age_days * DAY_S:
            raise RevisionError(
                f"revision {revision.name} was trained at {revision.trained_at}, more than {max_age_days:g} days ago; retrain"
            )


def _check_contract(revision: Revision, expect: Expect) -> None:
    """What it decides on, and under which rules."""
    manifest = revision.manifest
    for check, theirs, ours in (
        (LoadCheck.PIPELINE, manifest["pipeline"], "market"),
        (LoadCheck.SYMBOL, manifest["symbols"][0], expect.symbol),
        (LoadCheck.TIMEFRAME, manifest["timeframe"], expect.timeframe),
    ):
        if theirs != ours:
            raise LoadError(check, f"revision {revision.name} is of {check} {theirs}, the bot expects {ours}")
    section, classes = manifest["market"], model_of(manifest, "signal")["classes"]
    if classes != list(CLASSES):
        raise LoadError(LoadCheck.CLASSES, f"revision {revision.name} answers {classes}, this code reads {list(CLASSES)}; retrain")
    with asking(LoadCheck.FEATURES):
        check_features(revision, section["round_step"] if expect.round_step is None else expect.round_step)
    if section["label_spec"]["hash"] != expect.label_spec.hash:
        fields = {
            key: section["label_spec"].get(key)
            for key, value in _fields(expect.label_spec).items()
            if section["label_spec"].get(key) != value
        }
        raise LoadError(
            LoadCheck.LABEL_SPEC,
            f"revision {revision.name} was labelled under {section['label_spec']['hash'][:16]}, the bot executes "
            f"{expect.label_spec.hash[:16]} (it was made with {fields}): execute what was learned, or retrain",
        )


def _fields(spec: LabelSpec) -> dict:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def _head(revision: Revision, profile: int, *, is_enabled: bool, use_unpublished: bool) -> tuple[Head | None, list[Reason]]:
    """The risk head that sizes, and what is to be said of it. An unpublished one counts as 1.0, a missing one too, with a warning."""
    if not is_enabled:
        return None, [Reason.HEAD_OFF]
    entry = next((one for one in revision.manifest["market"]["profiles"] if one["profile"] == profile), None)
    if entry is None or (use_unpublished and not entry["published"] and not holds_head(revision, profile)):
        log.warning("revision %s holds no risk head for profile %d: every trade is sized at multiplier 1.0", revision.name, profile)
        return None, [Reason.NO_HEAD]
    if entry["published"]:
        return risk_head_of(revision, profile), []
    if not use_unpublished:
        return None, []
    head = risk_head_of(revision, profile, use_unpublished=True)
    log.warning("revision %s: profile %d is sized by an unpublished head: %s", revision.name, profile, entry["verdict"])
    return head, [Reason.UNPUBLISHED_HEAD]


def _loaded(revision: Revision, profile: int, head: Head | None, expect: Expect, mode: Mode, standing: tuple[Reason, ...]) -> Loaded:
    with asking(LoadCheck.LABEL_SPEC):
        policy = Policy.of(revision, profile)
    section, data = revision.manifest["market"], revision.manifest["data"]
    first, last = (datetime.fromisoformat(data[key]).timestamp() for key in ("first", "last"))
    missing = max(0.0, 1.0 - data["rows"] / ((last - first) / BAR_SECONDS + 1))
    rule = TailRule(warmup_bars() + 1, missing if expect.missing_share is None else expect.missing_share)
    is_news_known = section["news_covers_until"] is not None
    return Loaded(policy, profile, head, rule, expect.symbol, section["round_step"], is_news_known, _limits(revision), mode, standing)


def _limits(revision: Revision) -> tuple[np.ndarray, np.ndarray] | None:
    """Between which values each feature usually lay: `FAR_SPREADS` times its middle 80 % around them. None where it is not kept."""
    if SPREAD_FILE not in revision.files():
        return None
    edges = read_npz(revision.read(SPREAD_FILE))["edges"]  # deciles (features, 9)
    low, high = edges[:, 0], edges[:, -1]
    reach = np.where(high > low, FAR_SPREADS * (high - low), np.inf)  # a flag that is nearly always 0 may be 1
    return low - reach, high + reach
