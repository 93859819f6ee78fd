"""Advice on one trade of a bot that logs its decisions: from the same JSON object that it writes, and the asset's earlier ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from trademl.bot.loader import asking, check_standing, find_revision
from trademl.bot.predictor import Mode
from trademl.bot.refusals import LoadCheck, LoadError
from trademl.errors import RevisionError, choose
from trademl.ship.revision import Revision
from trademl.ship.runtime import Graph
from trademl.ship.signing import NO_TRUST, Trust
from trademl.ship.store import Store
from trademl.trades.advice import Advice, AdviceRule, TradeFacts, advise
from trademl.trades.features import serving_row
from trademl.trades.registry import Feature, TradeModel, features_of

UNSIGNED = "the revision's signature was not asked for"
SHADOW = "shadow: not to be traded by"


@dataclass(frozen=True, eq=False)
class TradeAdvisor:
    """A trade revision that passed every check. Make one with `load`."""

    name: str  # of the revision, 16 hex
    rule: AdviceRule
    assets: tuple[str, ...]  # of the training records
    features: Mapping[TradeModel, tuple[Feature, ...]]
    graphs: Mapping[TradeModel, Graph]
    standing: Mapping[str, str]  # what is said of every piece of advice
    line: str  # that the revision is of
    mode: Mode

    @classmethod
    def load(
        cls,
        models_dir: Path | str,  # the store of the line trades-all-records
        keys: Iterable[str] | None,  # public keys that count; None: an unsigned local store, said of every piece of advice
        *,
        mode: str = "live",  # shadow: the newest revision, approved or not
        max_age_days: float | None = None,  # since it was trained
        now: datetime | None = None,
    ) -> "TradeAdvisor":
        """The active revision after every check. LoadError names the one that failed."""
        mode = choose(Mode, mode, "mode")
        revision = find_revision(Store(models_dir, NO_TRUST if keys is None else Trust.of(keys)), mode)
        check_standing(revision, max_age_days, now)
        if revision.manifest["pipeline"] != "trades":
            why = f"revision {revision.name} is of pipeline {revision.manifest['pipeline']}, a trade advisor loads trades"
            raise LoadError(LoadCheck.PIPELINE, f"{why}; `load_approved` loads a market's")
        for one in revision.checks():
            if not one.ok:
                raise LoadError(LoadCheck(one.name), one.detail)
        standing = ({"signature": UNSIGNED} if keys is None else {}) | ({"mode": SHADOW} if mode is Mode.SHADOW else {})
        return cls(revision.name, *_contract(revision), standing, revision.line, mode)

    def advise(self, record: Mapping, history: Sequence[Mapping] = ()) -> Advice:
        """Advice on one decision. `history`: earlier records of any kind, oldest first; what is missing stays missing.

        UsageError names what is wrong with the record; nothing is advised on it.
        """
        said = {}
        for model, features in self.features.items():
            x = serving_row(features, dict(record), history)
            said[model] = np.asarray(self.graphs[model].run(x)["output"][0], np.float64)
        found = advise(self.rule, said, TradeFacts.of(record), self.assets)
        return replace(found, reasons={**found.reasons, **self.standing})


def _contract(revision: Revision) -> tuple:
    """Rule, assets, features and graphs. LoadError where this code reads other features than the revision was trained on."""
    section, models = revision.manifest["trades"], {model["name"]: model for model in revision.manifest["models"]}
    assets = tuple(section["assets"])
    features = {model: features_of(model, assets, is_chained=section.get("is_chained", False)) for model in TradeModel}
    with asking(LoadCheck.FEATURES):
        for model, own in features.items():
            if model not in models:
                raise RevisionError(f"revision {revision.name} holds no {model}: {', '.join(models)}; train on a longer log")
            theirs = [feature["name"] for feature in models[model]["features"]]
            if theirs != [feature.name for feature in own]:
                at = next((n for n, (a, b) in enumerate(zip(theirs, own)) if a != b.name), min(len(theirs), len(own)))
                raise RevisionError(f"revision {revision.name}: {model} was trained on other features from column {at} on; retrain")
    with asking(LoadCheck.MANIFEST):
        rule = AdviceRule.of(section["advice"])
    graphs = {model: Graph.of(revision.read(models[model]["file"])) for model in TradeModel}
    return rule, assets, features, graphs
