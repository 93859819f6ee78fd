"""What every command that runs a job shares: the run folder, the job, its report, the pointer, the look at the final window."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

from trademl.errors import UsageError
from trademl.files import write_atomically, write_json
from trademl.pipeline.page_head import head_of
from trademl.pipeline.stored import Stored
from trademl.report import write_report
from trademl.runs import JobResult, RunFolder, RunStatus
from trademl.settings import Settings
from trademl.ship.contents import SHAP_SUMMARY

REPORT = "report.html"
LOOK = "look"
FIGURES = "backtest_report.json"


def given(values: Mapping[str, object]) -> dict:
    """The values that were given; None: not given."""
    return {key: value for key, value in values.items() if value is not None}


def plain(value: object) -> object:
    """A flag as a job's parameters take it: a path as text."""
    return str(value) if isinstance(value, Path) else value


def refuse_unknown(command: str, flags: Iterable[str], known: Iterable[str]) -> None:
    """UsageError for flags, as names without dashes, that a command does not take."""
    for name in sorted({*flags} - {*known}):
        near = get_close_matches(name, sorted(known), 1)
        meant = f"; did you mean {near[0]}?" if near else f": {', '.join(sorted(known))}"
        raise UsageError(f"{name} is not a flag of `trademl {command}`{meant}")


def open_run(settings: Settings, job: str, parameters: Mapping[str, object]) -> RunFolder:
    """A run folder for a job with these parameters."""
    return RunFolder.create(settings.paths.reports, job, dict(parameters), seed=settings.run.seed)


def finish_revision_run(run: RunFolder, result: JobResult, stored: Stored, *, moves_pointer: bool) -> dict:
    """Write the run's files and page, move the store's pointer if the gate passed, close the folder; returns what the command prints."""
    summary = dict(result.summary)
    write_json(run.path / FIGURES, summary.pop("backtest"))
    write_json(run.path / "metrics.json", stored.metrics)
    if stored.is_explained:
        write_atomically(run.path / SHAP_SUMMARY, stored.read(SHAP_SUMMARY))
    status = "passed" if stored.gate.passed else "refused"
    facts = _facts(run, result, stored)
    write_report(run.path / REPORT, result.notebook, facts=facts, status=status, **head_of(stored))
    run.record(revision=stored.name, data=asdict(stored.data))
    if moves_pointer and stored.gate.passed:  # last of all: a run that fails before leaves the earlier revision active
        stored.store.activate(stored.name, by_gate=True)
    refused = summary["exit"] != 0
    folder = run.finish(
        RunStatus.REFUSED if refused else RunStatus.DONE,
        exit=summary["exit"],
        message=summary["headline"],
        next_step=f"read why in {REPORT}; the earlier active revision still stands" if refused else "",
    )
    return summary | printed(run, result, folder)


def printed(run: RunFolder, result: JobResult, folder: Path) -> dict:
    """What every command prints of its run."""
    return {"run_id": run.run_id, "seconds": result.stages, "total_seconds": result.seconds, "report": str(folder / REPORT)}


def _facts(run: RunFolder, result: JobResult, stored: Stored) -> dict:
    """The facts at the head of a revision's report."""
    is_market = stored.line.startswith("market-")
    what = "bars" if is_market else "records"
    more = (
        {"label spec": stored.label_spec_hash[:16], "features": f"{len(stored.feature_names)} ({stored.feature_hash[:16]})"}
        if is_market
        else {}
    )
    return {
        "run": run.run_id,
        "revision": stored.name,
        LOOK: "; ".join((stored.look.words, *stored.look.remarks)),
        "data": stored.data.source,
        what: stored.data.rows,
        f"{what} sha256": stored.data.sha256[:16],
        "seed": stored.seed,
        **more,
        "seconds": result.seconds,
    }
