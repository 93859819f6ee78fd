"""`trademl explain`: what drives a stored revision, and why one bar is decided as it is. It needs no data file."""

from dataclasses import asdict

from trademl.evidence.shap_summary import ShapSummary, subject_words
from trademl.pipeline import market as pipeline
from trademl.pipeline.market.decision import explain_decision
from trademl.pipeline.stored import Stored
from trademl.settings import load_settings


def run_explain(
    revision: str | None = None, decision: str | None = None, *, symbol: str | None = None, models_dir: str | None = None
) -> dict:
    """The recipe's explanation as it is kept and the shipped models' made anew; with `decision`, that of one bar instead."""
    settings = load_settings()
    stored = pipeline.open_stored(settings, symbol=symbol, models_dir=models_dir, revision=revision)
    told = {"revision": stored.name, "line": stored.line, "status": "done", "exit": 0}
    if decision is not None:
        found = explain_decision(stored, decision)
        return told | {"decision": asdict(found), "words": [_head(stored), found.words()]}
    recipe, shipped = stored.shap_summary, pipeline.explain_shipped(stored, settings)
    words = [_head(stored), *_told(f"The recipe: {recipe.words}", recipe), *_told(shipped.words, shipped)]
    return told | {"recipe": recipe.to_json(), "shipped": shipped.to_json(), "words": words}


def _head(stored: Stored) -> str:
    return f"revision {stored.name}, {stored.line}"


def _told(words: str, summary: ShapSummary) -> list[str]:
    return [f"{words}.", *(f"  {subject_words(subject)}" for subject in summary.subjects)]
