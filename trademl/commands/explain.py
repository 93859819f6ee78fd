"""`trademl explain`: what drives a stored revision, and why one bar is decided as it is. It needs no data file."""

from dataclasses import asdict, dataclass

from trademl.commands.spine import open_run
from trademl.display import table_html
from trademl.evidence.shap_summary import ShapSummary, subject_words
from trademl.files import write_json
from trademl.pipeline import market as pipeline
from trademl.pipeline.stored import Stored
from trademl.settings import load_settings
from trademl.ship.contents import SHAP_SUMMARY


@dataclass(frozen=True, eq=False)
class Explained:
    """An explanation, told in words."""

    summary: dict  # of a revision, what `trademl explain --json` prints; of a fit, its look and the recipe's part

    def __repr__(self) -> str:
        """The words."""
        return "\n".join(self.summary["words"])

    def _repr_html_(self) -> str:
        head, *words = (line for text in self.summary["words"] for line in text.splitlines())
        return table_html(head, (), [(line.strip(),) for line in words])


def run_explain_walk(walked: "pipeline.WalkForward") -> dict:
    """What drove a recipe that was walked forward in memory. It is judged for that: a look like the command's."""
    settings = walked.case.settings
    with open_run(settings, "explain", {"recipe": walked.recipe, "bars": walked.case.choice.bars, "overrides": settings.flags()}) as run:
        look, recipe = pipeline.explain_walk(walked, run.run_id)
        write_json(run.path / SHAP_SUMMARY, recipe.to_json())
        folder = run.finish(message=recipe.words)
    words = [f"recipe {walked.recipe}, {walked.case.choice.line}", *_told(f"The recipe: {recipe.words}", recipe), look.told]
    told = {
        "run_id": run.run_id,
        "line": walked.case.choice.line,
        "status": "done",
        "exit": 0,
        "looks": look.number,
        "look": look.summary(),
    }
    return told | {"recipe": recipe.to_json(), "shap_summary": str(folder / SHAP_SUMMARY), "words": words}


def run_explain(
    revision: str | None = None, decision: str | None = None, *, symbol: str | None = None, models_dir: str | None = None
) -> dict:
    """The recipe's explanation as it is kept and the shipped models' made anew; with `decision`, that of one bar instead."""
    settings = load_settings()
    stored = pipeline.open_stored(settings, symbol=symbol, models_dir=models_dir, revision=revision)
    told = {"revision": stored.name, "line": stored.line, "status": "done", "exit": 0}
    if decision is not None:
        found = pipeline.explain_decision(stored, decision)
        return told | {"decision": asdict(found), "words": [_head(stored), found.words()]}
    recipe, shipped = stored.shap_summary, pipeline.explain_shipped(stored, settings)
    words = [_head(stored), *_told(f"The recipe: {recipe.words}", recipe), *_told(shipped.words, shipped)]
    return told | {"recipe": recipe.to_json(), "shipped": shipped.to_json(), "words": words}


def _head(stored: Stored) -> str:
    return f"revision {stored.name}, {stored.line}"


def _told(words: str, summary: ShapSummary) -> list[str]:
    return [f"{words}.", *(f"  {subject_words(subject)}" for subject in summary.subjects)]
