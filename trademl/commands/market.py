"""What the market commands do: open a run folder, run the job notebook, write the report, hand back one summary."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from trademl.commands.explain import run_explain
from trademl.commands.hub import open_publication
from trademl.commands.spine import FIGURES, LOOK, REPORT, finish_revision_run, given, open_run, printed, refuse_unknown
from trademl.device import check
from trademl.display import table_html, table_lines
from trademl.errors import UsageError
from trademl.evidence.looks import Look
from trademl.evidence.page import Evidence
from trademl.files import write_json
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import MarketFlags
from trademl.pipeline.market.banners import backtest_head
from trademl.pipeline.market.inputs import Inputs
from trademl.pipeline.market.pages import Pages
from trademl.pipeline.market.replay import IN_SAMPLE
from trademl.pipeline.stored import Stored
from trademl.report import write_report
from trademl.runs import Course, RunFolder, run_job
from trademl.settings import Settings, load_settings
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
    read = MarketFlags(**{name: _plain(value) for name, value in flags.items() if name in market})
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


def _plain(value):
    return str(value) if isinstance(value, Path) else value


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


# ---------------------------------------------------------------- backtest


@dataclass(frozen=True)
class ReplayFlags:
    """What `trademl backtest` was asked for, as a person gave it; None: the settings' or the profile's own."""

    spread: float | None = None  # price units
    commission: float | None = None  # per lot and side
    slippage: float | None = None  # price units, at market fills
    balance: float | None = None
    leverage: float | None = None
    risk_pct: float | None = None  # of equity, lost at the stop
    swap: bool | None = None
    rule: str | None = None  # expected_r or votes; None: the revision's own
    oos_only: bool = False  # the final window, by the probabilities given then: also what nothing else is asked for
    in_sample: bool = False  # allow bars that the models saw

    def varied(self) -> dict:
        """Costs and account that differ from the settings."""
        return given(self._of("spread", "commission", "slippage", "balance", "leverage", "risk_pct", "swap"))

    def _of(self, *names: str) -> dict:
        return {name: getattr(self, name) for name in names}

    def conditions(self, settings: Settings, stored: Stored) -> pipeline.Conditions:
        """The settings' profile and account and the costs that it was judged by, these flags first."""
        profile, symbol = settings.account.profile, stored.symbol
        costs = replace(stored.costs, **given(self._of("spread", "commission", "slippage")))
        account = pipeline.account_spec(settings, symbol, profile, **self._of("balance", "leverage", "risk_pct", "swap"))
        return pipeline.Conditions(profile, costs, account, self.rule)


@dataclass(frozen=True, eq=False)
class Backtested:
    """What a backtest showed, under which look, and what the command prints of it."""

    evidence: Evidence
    look: Look | None  # None: in sample, figures that prove nothing
    summary: dict

    @property
    def trades(self) -> pd.DataFrame:
        """Every judged trade at fixed risk."""
        return self.evidence.trades

    def __repr__(self) -> str:
        """The verdict, the look and the table as text."""
        lines = table_lines([(" ", *row) for row in self.summary["table"]])
        return "\n".join([self.summary["sentence"], *lines, self._told()])

    def _repr_html_(self) -> str:
        header, *rows = self.summary["table"]
        return table_html(self.summary["sentence"], header, rows, self._told())

    def _told(self) -> str:
        return f"{'no look' if self.look is None else self.look.told}; figures: {self.summary['backtest_report']}"


def run_backtest(
    overrides: Mapping[str, object], flags: MarketFlags, asked: ReplayFlags, revision: str | None = None, *, chart: bool = True
) -> Backtested:
    """`trademl backtest`: the final window of a stored revision, or other bars, under any account, cost or profile."""
    settings = load_settings(overrides)
    is_final = not (asked.in_sample or flags.bars or flags.news or flags.no_news or flags.reading)
    if asked.oos_only and not is_final:
        raise UsageError(
            "--oos-only replays the stored final window: it reads no files, so it takes neither --bars, nor --news, nor how "
            "they are read, nor --in-sample"
        )
    stored = pipeline.open_stored(settings, symbol=flags.symbol, models_dir=flags.models_dir, revision=revision)
    varied, conditions = asked.varied(), asked.conditions(settings, stored)
    options = {"revision": stored.name, "oos_only": is_final, "in_sample": asked.in_sample, "rule": asked.rule}
    inputs = None if is_final else _inputs(settings, stored, flags)
    with open_run(settings, "backtest", given(flags.job_parameters() | varied | options)) as run:
        if inputs is None:
            evidence, look = pipeline.replay_final(stored, settings, conditions, run.run_id)
        else:
            evidence, look = pipeline.replay_bars(stored, inputs, settings, conditions, run.run_id, in_sample=asked.in_sample)
        watermark = IN_SAMPLE if asked.in_sample else ""
        _write_figures(run, evidence, watermark)
        page = {"watermark": watermark, "facts": {"run": run.run_id} | ({} if look is None else {LOOK: look.told})}
        page |= backtest_head(stored, evidence, look, in_sample=asked.in_sample)
        summary = _finish_backtest(run, stored, evidence, page if chart else None)
    unknown = pipeline.symbol_sentence(stored.data.symbol if inputs is None else inputs.said_symbol, stored.symbol) or None
    return Backtested(evidence, look, summary | _told(evidence, look, watermark) | {"unknown_symbol": unknown})


def backtest_by_flags(
    revision: str | None = None, *, profile: int | None = None, no_swap: bool = False, no_chart: bool = False, **flags
) -> Backtested:
    """`trademl backtest` with the command's flags, without dashes. UsageError for one that it does not take."""
    market, replay = set(MarketFlags.__dataclass_fields__), {*ReplayFlags.__dataclass_fields__} - {"swap"}
    refuse_unknown("backtest", flags, {*market, *replay, "profile", "no_swap", "no_chart"})
    asked = ReplayFlags(swap=False if no_swap else None, **{name: value for name, value in flags.items() if name in replay})
    read = MarketFlags(**{name: _plain(value) for name, value in flags.items() if name in market})
    return run_backtest({"account.profile": profile, "decision.rule": asked.rule}, read, asked, revision, chart=not no_chart)


def run_look(walked: pipeline.WalkForward) -> Backtested:
    """A recipe that was walked forward in memory, on its final window: a look like the command's. No page: nothing is stored of it."""
    settings = walked.case.settings
    parameters = {"recipe": walked.recipe, "bars": walked.case.choice.bars, "overrides": settings.flags()}
    with open_run(settings, "backtest", parameters) as run:
        finding = pipeline.judge_walk(walked, run.run_id)
        evidence, look = finding.evidence, finding.look
        _write_figures(run, evidence, "")
        folder = run.finish(message=evidence.sentence)
    summary = {"run_id": run.run_id, "revision": None, "status": "done", "exit": 0, "headline": evidence.sentence}
    summary |= {"table": Pages(None, evidence).trade_rows(), "backtest_report": str(folder / FIGURES), "report": None}
    return Backtested(evidence, look, summary | _told(evidence, look, "") | {"unknown_symbol": None})


def _write_figures(run: RunFolder, evidence: Evidence, watermark: str) -> None:
    write_json(run.path / FIGURES, evidence.to_json() | {"watermark": watermark})


def _told(evidence: Evidence, look: Look | None, watermark: str) -> dict:
    """What the command says of its look, and the figures."""
    looks = {"looks": None, "look": None} if look is None else {"looks": look.number, "look": look.summary()}
    sentence = f"{watermark}. {evidence.sentence}" if watermark else evidence.sentence
    return looks | {"watermark": watermark, "sentence": sentence, "metrics": evidence.to_json()["strategy"]}


def _inputs(settings: Settings, stored: Stored, flags: MarketFlags) -> Inputs:
    """The bars and news that the flags mean, for a stored revision."""
    choice = pipeline.choose_market(settings, replace(flags, symbol=stored.symbol, models_dir=str(stored.store.models_dir)))
    return pipeline.load_inputs(settings, choice, flags)


def _finish_backtest(run: RunFolder, stored: Stored, evidence: Evidence, page: Mapping | None) -> dict:
    """Write the page (`page`: what `write_report` shows beside the figures; None: no page), close the folder; returns what is printed."""
    pages = Pages(stored, evidence)
    headline = f"revision {stored.name}, {evidence.window['start_utc'][:10]} to {evidence.window['end_utc'][:10]}: {evidence.sentence}"
    if page is not None:
        status = "passed" if evidence.verdict.passed else "refused"
        write_report(run.path / REPORT, pages.backtest(), status=status, **page)
    folder = run.finish(message=headline)
    return {
        "run_id": run.run_id,
        "revision": stored.name,
        "status": "done",
        "exit": 0,
        "headline": headline,
        "table": pages.trade_rows(),
        "backtest_report": str(folder / FIGURES),
        "report": None if page is None else str(folder / REPORT),
    }
