"""What the market commands do: open a run folder, run the job notebook, write the report, hand back one summary."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from trademl.commands.explain import run_explain
from trademl.commands.hub import open_publication
from trademl.commands.spine import REPORT, finish_revision_run, given, open_run, plain, printed, refuse_unknown
from trademl.device import check
from trademl.errors import UsageError
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import MarketFlags
from trademl.pipeline.stored import Stored
from trademl.report import write_report
from trademl.runs import Course, run_job
from trademl.settings import load_settings
from trademl.ship.store import Store

RETRAIN = Course.of_shares(  # of the first run of a project, after one of the embedded year; from the second on, the one before says it
    {
        "data": 0.005,
        "features": 0.005,
        "labels": 0.01,
        "judge signal": 0.45,
        "judge warm start": 0.0,  # only where there is a parent
        "judge position": 0.18,
        "risk": 0.04,
        "evidence": 0.03,
        "explain": 0.05,
        "ship": 0.18,
        "prove": 0.02,
        "store": 0.01,
        "pages": 0.04,  # no stage: what comes after the last one
    }
)
TUNE = Course.of_shares({"data": 0.02, "features": 0.01, "labels": 0.01, "task": 0.05, "trials": 0.85, "verdict": 0.06})


@dataclass(frozen=True)
class RetrainFlags:
    """What `trademl retrain` was asked for beside its files, as a person gave it; None: not given."""

    ensemble: bool = False
    position: bool = False
    risk: bool = False
    no_warmstart: bool = False
    accept_leak: str | None = None
    profile: int | None = None
    edge: float | None = None
    seed: int | None = None
    device: str | None = None
    shap: bool = True
    shap_only: bool = False
    push_to_hub: bool = False

    @property
    def overrides(self) -> dict:
        """The settings that these flags change."""
        warm = False if self.no_warmstart else None
        changed = {"account.profile": self.profile, "run.seed": self.seed, "synthetic.edge": self.edge, "run.device": self.device}
        return changed | {"warmstart.enabled": warm}

    def beside(self, alone: str) -> dict:
        """Those without effect beside a flag that reads no bars."""
        idle = {"edge": self.edge, "no_warmstart": self.no_warmstart, "accept_leak": self.accept_leak, "no_shap": not self.shap}
        if alone == "--shap-only":
            idle |= {name: getattr(self, name) for name in ("risk", "ensemble", "profile", "seed", "device", "push_to_hub")}
        return idle

    def check(self) -> None:
        """UsageError for what cannot be meant."""
        if self.ensemble != self.position:
            raise UsageError(
                "--ensemble and --position are trained together, always: they share one scaler and one run, and a position model beside "
                "a signal that it was not trained with is how the original lost money. Give both, or neither (which means both)"
            )
        if self.accept_leak is not None and not self.accept_leak.strip():
            raise UsageError(
                "--accept-leak needs a reason, such as --accept-leak 'the volume is made on purpose'; it stays in the manifest"
            )


def retrain_by_flags(*, quiet: bool = False, **flags) -> dict:
    """`trademl retrain` with the command's flags, without dashes: what its --json prints. UsageError for one that it does not take."""
    own, market = RetrainFlags.__dataclass_fields__, MarketFlags.__dataclass_fields__
    refuse_unknown("retrain", flags, {*own, *market, "quiet"})
    asked = RetrainFlags(**{name: value for name, value in flags.items() if name in own})
    read = MarketFlags(**{name: plain(value) for name, value in flags.items() if name in market})
    asked.check()
    place = {"symbol": read.symbol, "models_dir": read.models_dir}
    if asked.shap_only:
        _refuse_beside("--shap-only", asdict(read) | asked.beside("--shap-only"))
        return run_explain(**place)
    if asked.risk and not asked.ensemble:
        _refuse_beside("--risk", asdict(read) | asked.beside("--risk"))
        return run_risk(asked.overrides, push=asked.push_to_hub, quiet=quiet, **place)
    train = {"risk": asked.risk or not asked.ensemble, "shap": asked.shap, "accept_leak": asked.accept_leak}
    return run_retrain(asked.overrides, read, **train, push=asked.push_to_hub, quiet=quiet)


ALONE = {
    "--risk": "learns from the trades that the newest revision kept",
    "--shap-only": "explains the newest revision from what it keeps",
}


def _refuse_beside(alone: str, flags: Mapping[str, object]) -> None:
    unused = [
        f"--{name.replace('_', '-')}"
        for name, value in flags.items()
        if value is not None and value is not False and name not in ("symbol", "models_dir")
    ]
    if unused:
        raise UsageError(
            f"{alone} alone {ALONE[alone]} and reads no bars. "
            f"Without effect beside it: {', '.join(unused)}; leave that out, or train everything with --ensemble --position --risk"
        )


def run_retrain(
    overrides: Mapping[str, object],
    flags: MarketFlags,
    *,
    risk: bool = True,
    shap: bool = True,
    accept_leak: str | None = None,
    push: bool = False,
    quiet: bool = False,
) -> dict:
    """`trademl retrain`: the job, its report, its look at the final window; with `push`, on to the hub. Raises what the job raised."""
    settings = load_settings(overrides)
    check(settings.run.device)
    pipeline.label_spec(settings)  # a contract that contradicts itself is refused before anything is written
    choice = pipeline.choose_market(settings, flags)
    store = pipeline.store_of(settings, choice.models_dir)
    store.check_line(choice.line)
    publication = open_publication(settings, choice.line) if push else None
    parameters = flags.job_parameters() | {"risk": risk, "shap": shap, "overrides": given(overrides)} | given({"accept_leak": accept_leak})
    with store.lock(), open_run(settings, "retrain", parameters) as run:
        result = run_job("retrain", parameters, run=run, course=RETRAIN, quiet=quiet)
        summary = finish_revision_run(run, result, Stored(store.locate(result.summary["revision"])), moves_pointer=True)
    return summary if publication is None else publication.publish(store, summary)


def run_risk(
    overrides: Mapping[str, object], *, symbol: str | None = None, models_dir: str | None = None, push: bool = False, quiet: bool = False
) -> dict:
    """`trademl retrain --risk` alone: new heads beside the newest signal and position."""
    settings = load_settings(overrides)
    parent = pipeline.open_stored(settings, symbol=symbol, models_dir=models_dir)
    publication = open_publication(settings, parent.line) if push else None
    parameters = {"revision": parent.name, "models_dir": str(parent.store.models_dir), "overrides": given(overrides)}
    active = parent.store.active()
    is_next = active is None or active.name == parent.name  # new heads replace their own signal's, never a revision that was put back
    with parent.store.lock(), open_run(settings, "risk", parameters) as run:
        result = run_job("risk", parameters, run=run, quiet=quiet)
        stored = Stored(parent.store.locate(result.summary["revision"]))
        summary = finish_revision_run(run, result, stored, moves_pointer=is_next)
    return summary if publication is None else publication.publish(parent.store, summary, approves=is_next)


def run_tune(role: str, overrides: Mapping[str, object], flags: MarketFlags, *, fresh: bool = False, quiet: bool = False) -> dict:
    """`trademl tune signal|position`: the job and its report. Takes no lock of the store: several may run at once."""
    settings = load_settings(overrides)
    pipeline.label_spec(settings)
    choice = pipeline.choose_market(settings, flags)
    Store(choice.models_dir).check_line(choice.line)
    parameters = flags.job_parameters() | {"role": role, "fresh": fresh, "overrides": given(overrides)}
    with open_run(settings, "tune", parameters) as run:
        result = run_job("tune", parameters, run=run, course=TUNE, quiet=quiet)
        summary = dict(result.summary)
        study, trials = summary["study"], summary["study"]["trials"]
        facts = {"run": run.run_id, "data": study["data"]["source"], "bars sha256": study["data"]["sha256"][:16], "seed": study["seed"]}
        ended = f"{trials['complete']} complete, {trials['pruned']} given up, {trials['fail']} lost"
        facts |= {"trials": f"{settings.tuning.trials} of each of three models: {ended}", "seconds": result.seconds}
        write_report(run.path / REPORT, result.notebook, headline=summary["headline"], facts=facts, status="done")
        return summary | printed(run, result, run.finish(message=summary["headline"]))


def run_report(
    overrides: Mapping[str, object],
    revision: str | None = None,
    *,
    symbol: str | None = None,
    models_dir: str | None = None,
    quiet: bool = False,
) -> dict:
    """`trademl report`: the pages of a stored revision, drawn again."""
    settings = load_settings(overrides)
    stored = pipeline.open_stored(settings, symbol=symbol, models_dir=models_dir, revision=revision)
    parameters = {"revision": stored.name, "models_dir": str(stored.store.models_dir), "overrides": given(overrides)}
    with open_run(settings, "report", parameters) as run:
        return finish_revision_run(run, run_job("report", parameters, run=run, quiet=quiet), stored, moves_pointer=False)
