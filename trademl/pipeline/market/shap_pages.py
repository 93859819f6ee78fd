"""The pictures and tables of what drove a revision's answers, from the summary that it keeps."""

from dataclasses import dataclass

import pandas as pd

from trademl.evidence.shap_summary import ALL, Subject, feature_words, noise_words, subject_words
from trademl.pipeline.market.explain import PAIR_ROWS
from trademl.pipeline.stored import Stored
from trademl.report import shap_figures

NONE_KEPT = "This revision was made with --no-shap or by an earlier trademl: it keeps no explanation."
NOTHING_ASKED = "No row was explained: the models of the recipe were asked about none."
SHOWN, FEW = 20, 8  # features in the ranking and in the drift


@dataclass(frozen=True)
class ShapPages:
    """One method per picture or table; where nothing was kept, `sentence` says so and the others show nothing."""

    stored: Stored

    @property
    def _signal(self) -> Subject | None:
        signal = self.stored.shap_summary.subject("signal") if self.stored.is_explained else None
        return signal if signal and signal.rankings else None

    def sentence(self) -> str:
        """Whose answers on which rows, and where the noise lies."""
        if self._signal is None:
            return NOTHING_ASKED if self.stored.is_explained else NONE_KEPT
        ranking, words = self._signal.ranking(), self.stored.shap_summary.words
        copied = self._signal.noise and ", ".join(self._signal.noise.copied)
        how = f" A fit with shuffled copies of {copied} says where it lies." if copied else ""
        return f"{words[0].upper()}{words[1:]}. In {ranking.unit}, {noise_words(ranking)}.{how}"

    def ranking(self):
        """Mean absolute contributions with intervals over days, beside the noise floor."""
        if self._signal is None:
            return None
        return shap_figures.shap_ranking(self._signal.ranking(), SHOWN, n=self._signal.rows)

    def classes(self):
        """The strongest features of each class, with the way in which they act."""
        if self._signal is None:
            return None
        columns = {}
        for ranking in self._signal.rankings:
            if ranking.output != ALL and ranking.unit == self._signal.ranking().unit:
                columns[ranking.output] = [feature_words(feature) for feature in ranking.features[:FEW]]
        return pd.DataFrame(columns, index=range(1, FEW + 1))

    def dependence(self):
        """How the strongest features act."""
        return None if self._signal is None else shap_figures.shap_dependence(self._signal.dependence, n=self._signal.rows)

    def drift(self):
        """Importance from fold to fold."""
        if self._signal is None:
            return None
        if self._signal.drift is None:
            return "One fold answered all rows: nothing can drift."
        strongest = [feature.name for feature in self._signal.ranking().features[:FEW]]
        return shap_figures.shap_drift(self._signal.drift, self._signal.features, strongest, n=self._signal.rows)

    def pairs(self):
        """Features that act together."""
        if self._signal is None:
            return None
        return shap_figures.shap_pairs(self._signal.interactions, n=min(PAIR_ROWS, self._signal.rows))

    def others(self):
        """Position model and risk heads, a line each."""
        if self._signal is None:
            return None
        others = [subject for subject in self.stored.shap_summary.subjects if subject.name != "signal"]
        return pd.DataFrame({"what it hangs on": {subject.name: subject_words(subject, count=3) for subject in others}})
