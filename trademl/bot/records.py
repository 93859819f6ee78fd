"""What a revision's manifest says about deciding, as the records that the deciding core takes."""

from collections.abc import Mapping

import numpy as np

from trademl.errors import RevisionError
from trademl.market.decision import DecisionRule
from trademl.market.features import FEATURE_NAMES, feature_hash
from trademl.market.open_trade import ExitRule
from trademl.market.specs import CLASSES, CostSpec, LabelSpec
from trademl.risk.profiles import profile as profile_of
from trademl.ship.manifest import model_of
from trademl.ship.revision import Revision

OWN_TRADEML = "use the trademl that trained it, or retrain"


def label_spec_of(revision: Revision) -> LabelSpec:
    """The contract that a revision was made under. RevisionError when this code reads another one out of it."""
    record = revision.manifest["market"]["label_spec"]
    try:
        spec = LabelSpec(**{key: value for key, value in record.items() if key in LabelSpec.__dataclass_fields__})
    except (TypeError, ValueError) as refusal:
        raise RevisionError(f"revision {revision.name}: its label spec cannot be read ({refusal}); {OWN_TRADEML}") from refusal
    if spec.hash != record["hash"]:
        raise RevisionError(
            f"revision {revision.name}: its label spec is {record['hash'][:16]}, and its fields make {spec.hash[:16]} here: "
            f"it was labelled under rules that this code does not know; {OWN_TRADEML}"
        )
    return spec


def costs_of(revision: Revision) -> CostSpec:
    """What a trade was assumed to cost when the revision was judged."""
    try:
        return CostSpec(**revision.manifest["market"]["costs"])
    except (TypeError, ValueError) as refusal:
        raise RevisionError(f"revision {revision.name}: its costs cannot be read ({refusal}); {OWN_TRADEML}") from refusal


def decision_rule_of(revision: Revision, profile: int, *, is_shipped: bool, rule: str | None = None) -> DecisionRule:
    """A profile's rule: with the class worths of the shipped models, or of those that were judged. `rule` replaces the stored kind."""
    decision: Mapping = revision.manifest["market"]["decision"]
    return DecisionRule(
        worth=np.array(decision["worth_shipped" if is_shipped else "worth"]),
        margin_r=decision["margins"][str(profile)]["margin_r"],
        rule=rule or decision["rule"],
        confidence=profile_of(profile).confidence,
        gap=decision["votes_gap"],
    )


def exit_rule_of(revision: Revision) -> ExitRule | None:
    """When the position model's answer closes a trade; None where its exits did not earn their cost and are off."""
    decision = revision.manifest["market"]["decision"]
    return ExitRule(decision["exit_probability"], decision["min_bars_held"]) if decision["exits_on"] else None


def check_features(revision: Revision, round_step: float) -> None:
    """RevisionError unless the signal asks for this code's features in this order, and answers in this order of classes."""
    signal = model_of(revision.manifest, "signal")
    names, classes = tuple(feature["name"] for feature in signal["features"]), signal["classes"]
    where = f"revision {revision.name} was trained on"
    if len(names) != len(FEATURE_NAMES):
        raise RevisionError(f"{where} {len(names)} features, this code makes {len(FEATURE_NAMES)}; {OWN_TRADEML}")
    for column, (theirs, ours) in enumerate(zip(names, FEATURE_NAMES, strict=True)):
        if theirs != ours:
            raise RevisionError(f"{where} {theirs} in column {column}, where this code makes {ours}; {OWN_TRADEML}")
    if feature_hash(round_step=round_step) != signal["feature_hash"]:
        raise RevisionError(
            f"{where} features {signal['feature_hash'][:16]}, this code and round_step = {round_step:g} make "
            f"{feature_hash(round_step=round_step)[:16]}; use the trademl and the settings that trained it, or retrain"
        )
    if classes != list(CLASSES):
        raise RevisionError(f"{where} the classes {classes}, this code's are {list(CLASSES)}; {OWN_TRADEML}")
