"""The pictures and tables of what drove a revision's answers, from the summary that it keeps."""

from dataclasses import dataclass

import pandas as pd

from trademl import report
from trademl.evidence.shap_summary import ALL, Subject, feature_words, noise_words, subject_words
from trademl.pipeline.stored import Stored
from trademl.report import shap_figures

NONE_KEPT = "This revision was made with --no-shap or by an earlier trademl: it keeps no explanation."
SHOWN, FEW, PAIR_ROWS = 20, 8, 1_024  # features in the ranking and in the drift, rows that the pairs come from


@dataclass(frozen=True)
class ShapPages:
    """One method per picture or table; each returns something that a notebook displays, or says that nothing was kept."""

    stored: Stored

    @property
    def _signal(self) -> Subject | None:
        signal = self.stored.shap_summary.subject("signal") if self.stored.is_explained else None
        return signal if signal and signal.rankings else None

    def sentence(self) -> str:
        """Whose answers on which rows, and where the noise lies."""
        if self._signal is None:
            return NONE_KEPT
        ranking, words = self._signal.ranking(), self.stored.shap_summary.words
        copied = self._signal.noise and ", ".join(self._signal.noise.copied)
        how = f" A fit with shuffled copies of {copied} says where it lies." if copied else ""
        return f"{words[0].upper()}{words[1:]}. In {ranking.unit}, {noise_words(ranking)}.{how}"

    def ranking(self):
        """Mean absolute contributions with intervals over days, beside the noise floor."""
        if self._signal is None:
            return NONE_KEPT
        ranking = self._signal.ranking()
        features, has_interval = ranking.features[:SHOWN], ranking.features[0].low is not None
        mean = [feature.mean for feature in features]
        low, high = ([getattr(feature, end) for feature in features] if has_interval else mean for end in ("low", "high"))
        noise = ranking.noise_floor if has_interval else None
        names = [feature.name for feature in features]
        return report.importance(names, mean, low=low, high=high, noise=noise, n=self._signal.rows, unit=f"mean |SHAP|, {ranking.unit}")

    def classes(self):
        """The strongest features of each class, with the way in which they act."""
        if self._signal is None:
            return NONE_KEPT
        columns = {}
        for ranking in self._signal.rankings:
            if ranking.output != ALL and ranking.unit == self._signal.ranking().unit:
                columns[ranking.output] = [feature_words(feature) for feature in ranking.features[:FEW]]
        return pd.DataFrame(columns, index=range(1, FEW + 1))

    def dependence(self):
        """How the strongest features act."""
        return NONE_KEPT if self._signal is None else shap_figures.shap_dependence(self._signal.dependence, n=self._signal.rows)

    def drift(self):
        """Importance from fold to fold."""
        if self._signal is None:
            return NONE_KEPT
        if self._signal.drift is None:
            return "One fold answered all rows: nothing can drift."
        strongest = [feature.name for feature in self._signal.ranking().features[:FEW]]
        return shap_figures.shap_drift(self._signal.drift, self._signal.features, strongest, n=self._signal.rows)

    def pairs(self):
        """Features that act together."""
        if self._signal is None:
            return NONE_KEPT
        return shap_figures.shap_pairs(self._signal.interactions, n=min(PAIR_ROWS, self._signal.rows))

    def others(self):
        """Position model and risk heads, a line each."""
        if self._signal is None:
            return NONE_KEPT
        others = [subject for subject in self.stored.shap_summary.subjects if subject.name != "signal"]
        return pd.DataFrame({"what it hangs on": {subject.name: subject_words(subject, count=3) for subject in others}})
