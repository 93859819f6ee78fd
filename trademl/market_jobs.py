"""What the market commands do: open a run folder, run the job notebook, write the report, hand back one summary."""

import json
from collections.abc import Mapping
from pathlib import Path

from trademl import pipeline
from trademl.clock import utc_now
from trademl.evidence.ledger import append_look, look_at, read_ledger
from trademl.report import write_report
from trademl.runs import JobResult, RunFolder, RunStatus, run_job, write_json
from trademl.settings import Settings, load_settings
from trademl.ship.store import Revision, Store

STAGE_SHARES = {  # of a run's time, for the estimate of the time left
    "data": 0.03,
    "features": 0.02,
    "labels": 0.02,
    "judge signal": 0.45,
    "judge position": 0.20,
    "evidence": 0.06,
    "ship": 0.14,
    "prove": 0.05,
    "store": 0.03,
}


def run_retrain(overrides: Mapping[str, object], where: Mapping[str, object], *, tz=None, stamp=None, strict=False) -> dict:
    """`trademl retrain`: the job, its report, its look at the final window. Raises what the job raised."""
    settings = load_settings(overrides)
    pipeline.label_spec(settings)  # a contract that cannot be meant is refused before anything is written
    choice = pipeline.choose_market(settings, **where)
    store = Store(choice.models_dir)
    store.check_line(choice.line)
    parameters = _given({**where, "tz": tz, "stamp": stamp, "strict": strict, "overrides": _given(overrides)})
    with store.lock(), RunFolder.create(settings.paths.reports, "retrain", parameters, seed=settings.run.seed) as run:
        result = run_job("retrain", parameters, run=run, shares=STAGE_SHARES)
        revision = store.open(result.summary["revision"])
        summary = _finish(run, result, revision, settings)
        _look(settings, revision, run.run_id, summary)
    return summary | {"report": str(run.path / "report.html")}


def run_report(overrides: Mapping[str, object], revision: str | None, *, symbol=None, models_dir=None) -> dict:
    """`trademl report`: the pages of a stored revision, drawn again."""
    settings = load_settings(overrides)
    stored = pipeline.open_store(settings, symbol=symbol, models_dir=models_dir).open(revision)
    parameters = _given({"revision": stored.name, "symbol": symbol, "models_dir": models_dir, "overrides": _given(overrides)})
    with RunFolder.create(settings.paths.reports, "report", parameters, seed=settings.run.seed) as run:
        result = run_job("report", parameters, run=run)
        summary = _finish(run, result, stored, settings)
    return summary | {"report": str(run.path / "report.html")}


def _given(values: Mapping[str, object]) -> dict:
    return {key: value for key, value in values.items() if value is not None}


def _finish(run: RunFolder, result: JobResult, revision: Revision, settings: Settings) -> dict:
    """Write the run's files and page, close the folder, and return what the command prints."""
    summary = dict(result.summary)
    write_json(run.path / "backtest_report.json", summary.pop("backtest"))
    write_json(run.path / "metrics.json", json.loads(revision.read("metrics.json")))
    manifest = revision.manifest
    facts = {
        "run": run.run_id,
        "revision": revision.name,
        "data": manifest["data"]["source"],
        "bars": manifest["data"]["rows"],
        "bars sha256": manifest["data"]["sha256"][:16],
        "seed": manifest["seed"],
        "label spec": manifest["label_spec"]["hash"][:16],
        "features": f"{manifest['feature_count']} ({manifest['feature_hash'][:16]})",
        "seconds": result.seconds,
    }
    status = "passed" if summary["gate"]["passed"] else "refused"
    write_report(run.path / "report.html", result.notebook, headline=summary["headline"], facts=facts, status=status)
    run.record(revision=revision.name, data=manifest["data"])
    refused = summary["exit"] != 0
    run.finish(
        RunStatus.REFUSED if refused else RunStatus.DONE,
        exit=summary["exit"],
        message=summary["headline"],
        next_step="read why in report.html; the earlier active revision still stands" if refused else "",
    )
    return summary | {"run_id": run.run_id, "seconds": result.stages, "total_seconds": result.seconds}


def _look(settings: Settings, revision: Revision, run_id: str, summary: Mapping) -> int:
    """One line in the ledger for this look at the final window; returns how many there are now."""
    ledger = Path(settings.paths.reports) / "ledger.jsonl"
    span, manifest = revision.manifest["split"]["windows"]["final"], revision.manifest
    figures = {"gate_passed": summary["gate"]["passed"]}
    look = look_at(utc_now(), manifest["line"], manifest["data"]["sha256"], span["start_s"], span["end_s"], run_id=run_id, figures=figures)
    append_look(ledger, look)
    return read_ledger(ledger).looks(look.window_hash)
