"""What the market commands do: open a run folder, run the job notebook, write the report, hand back one summary."""

import json
from collections.abc import Mapping
from pathlib import Path

from trademl.clock import utc_now
from trademl.device import check
from trademl.errors import UsageError
from trademl.evidence.ledger import append_look, look_at, read_ledger
from trademl.files import write_json
from trademl.pipeline import market as pipeline
from trademl.pipeline.market.pages import Pages
from trademl.report import write_report
from trademl.runs import JobResult, RunFolder, RunStatus, run_job
from trademl.settings import Settings, load_settings
from trademl.ship.revision import Revision
from trademl.ship.store import Store

STAGE_SHARES = {  # of a run's time, for the estimate of the time left
    "data": 0.03,
    "features": 0.02,
    "labels": 0.02,
    "judge signal": 0.40,
    "judge warm start": 0.0,  # only where there is a parent
    "judge position": 0.20,
    "risk": 0.05,
    "evidence": 0.06,
    "ship": 0.14,
    "prove": 0.05,
    "store": 0.03,
}


def run_retrain(overrides: Mapping[str, object], where: Mapping[str, object], *, tz=None, stamp=None, strict=False, risk=True) -> dict:
    """`trademl retrain`: the job, its report, its look at the final window. Raises what the job raised."""
    settings = load_settings(overrides)
    check(settings.run.device)
    pipeline.label_spec(settings)  # a contract that cannot be meant is refused before anything is written
    choice = pipeline.choose_market(settings, **where)
    store = Store(choice.models_dir)
    store.check_line(choice.line)
    parameters = _given({**where, "tz": tz, "stamp": stamp, "strict": strict, "risk": risk, "overrides": _given(overrides)})
    with store.lock(), RunFolder.create(settings.paths.reports, "retrain", parameters, seed=settings.run.seed) as run:
        result = run_job("retrain", parameters, run=run, shares=STAGE_SHARES)
        revision = store.open(result.summary["revision"])
        looks = _look(settings, revision, run.run_id, result.summary["backtest"], "retrain")
        summary = _finish(run, result, revision, store)
    return summary | {"looks": looks, "report": str(run.path / "report.html")}


def run_risk(overrides: Mapping[str, object], *, symbol=None, models_dir=None) -> dict:
    """`trademl retrain --risk` alone: new heads beside the newest signal and position."""
    settings = load_settings(overrides)
    store = pipeline.open_store(settings, symbol=symbol, models_dir=models_dir)
    parent = store.open()
    parameters = {"revision": parent.name, "models_dir": str(store.models_dir), "overrides": _given(overrides)}
    with store.lock(), RunFolder.create(settings.paths.reports, "risk", parameters, seed=settings.run.seed) as run:
        result = run_job("risk", parameters, run=run)
        summary = _finish(run, result, store.open(result.summary["revision"]), store)
    return summary | {"report": str(run.path / "report.html")}


TUNE_SHARES = {"data": 0.02, "features": 0.01, "labels": 0.01, "task": 0.05, "trials": 0.85, "verdict": 0.06}


def run_tune(role: str, overrides: Mapping[str, object], where: Mapping[str, object], *, tz=None, stamp=None, fresh=False) -> dict:
    """`trademl tune signal|position`: the job and its report. Takes no lock of the store: several may run at once."""
    settings = load_settings(overrides)
    pipeline.label_spec(settings)
    choice = pipeline.choose_market(settings, **where)
    Store(choice.models_dir).check_line(choice.line)
    parameters = _given({**where, "role": role, "tz": tz, "stamp": stamp, "fresh": fresh, "overrides": _given(overrides)})
    with RunFolder.create(settings.paths.reports, "tune", parameters, seed=settings.run.seed) as run:
        result = run_job("tune", parameters, run=run, shares=TUNE_SHARES)
        summary = dict(result.summary)
        study = summary["study"]
        facts = {"run": run.run_id, "data": study["data"]["source"], "bars sha256": study["data"]["sha256"][:16], "seed": study["seed"]}
        ended = study["trials"]
        facts |= {"trials": f"{ended['complete']} complete, {ended['pruned']} given up, {ended['fail']} lost", "seconds": result.seconds}
        write_report(run.path / "report.html", result.notebook, headline=summary["headline"], facts=facts, status="done")
        folder = run.finish(message=summary["headline"])
    seconds = {"seconds": result.stages, "total_seconds": result.seconds}
    return summary | {"run_id": run.run_id, "report": str(folder / "report.html")} | seconds


def run_report(overrides: Mapping[str, object], revision: str | None, *, symbol=None, models_dir=None) -> dict:
    """`trademl report`: the pages of a stored revision, drawn again."""
    settings = load_settings(overrides)
    stored = pipeline.open_store(settings, symbol=symbol, models_dir=models_dir, revision=revision).open(revision)
    parameters = {"revision": stored.name, "models_dir": str(stored.folder.parents[1]), "overrides": _given(overrides)}
    with RunFolder.create(settings.paths.reports, "report", parameters, seed=settings.run.seed) as run:
        result = run_job("report", parameters, run=run)
        summary = _finish(run, result, stored)
    return summary | {"report": str(run.path / "report.html")}


def run_backtest_job(
    overrides: Mapping[str, object],
    where: Mapping[str, object],
    given: Mapping[str, Mapping[str, object]],  # "costs" and "account": what the flags said
    revision: str | None,
    *,
    oos_only: bool,
    in_sample: bool,
    rule: str | None,
    chart: bool,
) -> dict:
    """`trademl backtest`: the final window of a stored revision, or other bars, under any account, cost or profile."""
    settings = load_settings(overrides)
    if oos_only and (in_sample or where["bars"]):
        raise UsageError("--oos-only replays the stored final window: it takes neither --bars nor --in-sample")
    stored = pipeline.open_store(settings, symbol=where["symbol"], models_dir=where["models_dir"], revision=revision).open(revision)
    symbol, profile = stored.manifest["symbol"], settings.account.profile
    options = {
        "profile": profile,
        "costs": pipeline.cost_spec(settings, symbol, **given["costs"]),
        "account": pipeline.account_spec(settings, symbol, profile, **given["account"]),
        "rule": rule,
    }
    if oos_only:
        evidence, watermark = pipeline.reread_evidence(stored, settings, **options), ""
    else:
        choice = pipeline.choose_market(settings, **(dict(where) | {"models_dir": str(stored.folder.parents[1])}))
        inputs = pipeline.load_inputs(settings, choice)
        evidence, watermark = pipeline.shipped_evidence(stored, inputs, settings, in_sample=in_sample, **options)
    pages = Pages(stored, evidence, settings, profile)
    flags = {k: v for part in given.values() for k, v in part.items() if v is not None}
    parameters = _given({**where, **flags, "revision": stored.name, "oos_only": oos_only, "in_sample": in_sample, "rule": rule})
    with RunFolder.create(settings.paths.reports, "backtest", parameters, seed=settings.run.seed) as run:
        write_json(run.path / "backtest_report.json", evidence.to_json() | {"watermark": watermark})
        varied = ", ".join(f"{key} {value}" for key, value in flags.items()) or f"profile {profile}"
        looks = _look(settings, stored, run.run_id, evidence.to_json(), f"backtest: {varied}") if oos_only else None
        headline = f"revision {stored.name}, {evidence.window['start_utc'][:10]} to {evidence.window['end_utc'][:10]}: {evidence.sentence}"
        if chart:
            write_report(run.path / "report.html", pages.backtest(), headline=headline, watermark=watermark, facts={"run": run.run_id})
        folder = run.finish(message=headline)
    return {
        "run_id": run.run_id,
        "revision": stored.name,
        "status": "done",
        "exit": 0,
        "look": looks,
        "watermark": watermark,
        "headline": headline,
        "sentence": f"{f'{watermark}. ' if watermark else ''}{evidence.sentence}" + (f" Look {looks} at this window." if looks else ""),
        "table": pages.trade_rows(),
        "backtest_report": str(folder / "backtest_report.json"),
        "report": str(folder / "report.html") if chart else None,
        "metrics": evidence.to_json()["strategy"],
    }


def _given(values: Mapping[str, object]) -> dict:
    return {key: value for key, value in values.items() if value is not None}


def _finish(run: RunFolder, result: JobResult, revision: Revision, store: Store | None = None) -> dict:
    """Write the run's files and page, move the store's pointer if the gate passed, close the folder; returns what the command prints."""
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
    if store is not None and revision.gate_passed:  # last of all: a run that fails before leaves the earlier revision active
        store.activate(revision.name, by_gate=True)
    refused = summary["exit"] != 0
    run.finish(
        RunStatus.REFUSED if refused else RunStatus.DONE,
        exit=summary["exit"],
        message=summary["headline"],
        next_step="read why in report.html; the earlier active revision still stands" if refused else "",
    )
    return summary | {"run_id": run.run_id, "seconds": result.stages, "total_seconds": result.seconds}


def _look(settings: Settings, revision: Revision, run_id: str, evidence: Mapping, varied: str) -> int:
    """One line in the ledger for this look at the final window; returns how many there are now."""
    ledger = Path(settings.paths.reports) / "ledger.jsonl"
    span, manifest = revision.manifest["split"]["windows"]["final"], revision.manifest
    strategy = evidence["strategy"]
    figures = {"trades": strategy["trades"]} | {name: strategy[name]["value"] for name in ("expectancy_net_r", "win_rate", "return_pct")}
    more = {"run_id": run_id, "revision": revision.name, "varied": varied, "figures": figures}
    look = look_at(utc_now(), manifest["line"], manifest["data"]["sha256"], span["start_s"], span["end_s"], **more)
    append_look(ledger, look)
    return read_ledger(ledger).looks(look.window_hash)
