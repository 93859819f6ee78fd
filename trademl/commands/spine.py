"""What every command that runs a job shares: the run folder, the job, its report, the pointer, the look at the final window."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from trademl.clock import utc_now
from trademl.evidence.ledger import append_look, look_at, read_ledger
from trademl.files import write_json
from trademl.pipeline.stored import Stored
from trademl.report import write_report
from trademl.runs import JobResult, RunFolder, RunStatus
from trademl.settings import Settings

REPORT = "report.html"


def given(values: Mapping[str, object]) -> dict:
    """The values that were given; None: not given."""
    return {key: value for key, value in values.items() if value is not None}


def open_run(settings: Settings, job: str, parameters: Mapping[str, object]) -> RunFolder:
    """A run folder for a job with these parameters."""
    return RunFolder.create(settings.paths.reports, job, dict(parameters), seed=settings.run.seed)


def finish_revision_run(run: RunFolder, result: JobResult, stored: Stored, *, moves_pointer: bool, look: int | None = None) -> dict:
    """Write the run's files and page, move the store's pointer if the gate passed, close the folder; returns what the command prints."""
    summary = dict(result.summary)
    write_json(run.path / "backtest_report.json", summary.pop("backtest"))
    write_json(run.path / "metrics.json", stored.metrics)
    status = "passed" if stored.gate.passed else "refused"
    facts = _facts(run, result, stored) | look_fact(look)
    write_report(run.path / REPORT, result.notebook, headline=summary["headline"], facts=facts, status=status)
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


def look_fact(look: int | None) -> dict:
    """Which look at the final window a page shows; empty where it shows none."""
    return {} if look is None else {"look at the final window": look}


def printed(run: RunFolder, result: JobResult, folder: Path) -> dict:
    """What every command prints of its run."""
    return {"run_id": run.run_id, "seconds": result.stages, "total_seconds": result.seconds, "report": str(folder / REPORT)}


def _facts(run: RunFolder, result: JobResult, stored: Stored) -> dict:
    """The facts at the head of a revision's report."""
    return {
        "run": run.run_id,
        "revision": stored.name,
        "data": stored.data.source,
        "bars": stored.data.rows,
        "bars sha256": stored.data.sha256[:16],
        "seed": stored.seed,
        "label spec": stored.label_spec_hash[:16],
        "features": f"{len(stored.feature_names)} ({stored.feature_hash[:16]})",
        "seconds": result.seconds,
    }


def record_look(settings: Settings, stored: Stored, run_id: str, evidence: Mapping, varied: str) -> int:
    """One line in the ledger for this look at the final window; returns how many there are now. `evidence` as JSON has it."""
    ledger, span, strategy = Path(settings.paths.reports) / "ledger.jsonl", stored.windows.span("final"), evidence["strategy"]
    figures = {"trades": strategy["trades"]} | {name: strategy[name]["value"] for name in ("expectancy_net_r", "win_rate", "total_r")}
    more = {"run_id": run_id, "revision": stored.name, "varied": varied, "figures": figures}
    look = look_at(utc_now(), stored.line, stored.data.sha256, span.start_s, span.end_s, **more)
    append_look(ledger, look)
    return read_ledger(ledger).looks(look.window_hash)
