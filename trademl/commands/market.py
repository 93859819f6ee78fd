"""What the market commands do: open a run folder, run the job notebook, write the report, hand back one summary."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trademl.commands.spine import LOOK, REPORT, finish_revision_run, given, open_run, printed
from trademl.device import check
from trademl.errors import UsageError
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
from trademl.runs import RunFolder, run_job
from trademl.settings import Settings, load_settings
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
TUNE_SHARES = {"data": 0.02, "features": 0.01, "labels": 0.01, "task": 0.05, "trials": 0.85, "verdict": 0.06}


def run_retrain(
    overrides: Mapping[str, object], flags: MarketFlags, *, risk: bool = True, accept_leak: str | None = None, quiet: bool = False
) -> dict:
    """`trademl retrain`: the job, its report, its look at the final window. Raises what the job raised."""
    settings = load_settings(overrides)
    check(settings.run.device)
    pipeline.label_spec(settings)  # a contract that contradicts itself is refused before anything is written
    choice = pipeline.choose_market(settings, flags)
    store = pipeline.store_of(settings, choice.models_dir)
    store.check_line(choice.line)
    parameters = flags.job_parameters() | {"risk": risk, "overrides": given(overrides)} | given({"accept_leak": accept_leak})
    with store.lock(), open_run(settings, "retrain", parameters) as run:
        result = run_job("retrain", parameters, run=run, shares=STAGE_SHARES, quiet=quiet)
        return finish_revision_run(run, result, Stored(store.locate(result.summary["revision"])), moves_pointer=True)


def run_risk(overrides: Mapping[str, object], *, symbol: str | None = None, models_dir: str | None = None, quiet: bool = False) -> dict:
    """`trademl retrain --risk` alone: new heads beside the newest signal and position."""
    settings = load_settings(overrides)
    parent = pipeline.open_stored(settings, symbol=symbol, models_dir=models_dir)
    parameters = {"revision": parent.name, "models_dir": str(parent.store.models_dir), "overrides": given(overrides)}
    active = parent.store.active()
    is_next = active is None or active.name == parent.name  # new heads replace their own signal's, never a revision that was put back
    with parent.store.lock(), open_run(settings, "risk", parameters) as run:
        result = run_job("risk", parameters, run=run, quiet=quiet)
        stored = Stored(parent.store.locate(result.summary["revision"]))
        return finish_revision_run(run, result, stored, moves_pointer=is_next)


def run_tune(role: str, overrides: Mapping[str, object], flags: MarketFlags, *, fresh: bool = False, quiet: bool = False) -> dict:
    """`trademl tune signal|position`: the job and its report. Takes no lock of the store: several may run at once."""
    settings = load_settings(overrides)
    pipeline.label_spec(settings)
    choice = pipeline.choose_market(settings, flags)
    Store(choice.models_dir).check_line(choice.line)
    parameters = flags.job_parameters() | {"role": role, "fresh": fresh, "overrides": given(overrides)}
    with open_run(settings, "tune", parameters) as run:
        result = run_job("tune", parameters, run=run, shares=TUNE_SHARES, quiet=quiet)
        summary = dict(result.summary)
        study, trials = summary["study"], summary["study"]["trials"]
        facts = {"run": run.run_id, "data": study["data"]["source"], "bars sha256": study["data"]["sha256"][:16], "seed": study["seed"]}
        facts |= {"trials": f"{trials['complete']} complete, {trials['pruned']} given up, {trials['fail']} lost", "seconds": result.seconds}
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
    oos_only: bool = False  # the final window, by the probabilities given then
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


def run_backtest(
    overrides: Mapping[str, object], flags: MarketFlags, asked: ReplayFlags, revision: str | None = None, *, chart: bool = True
) -> dict:
    """`trademl backtest`: the final window of a stored revision, or other bars, under any account, cost or profile."""
    settings = load_settings(overrides)
    if asked.oos_only and (asked.in_sample or flags.bars or flags.news or flags.no_news or flags.reading):
        raise UsageError(
            "--oos-only replays the stored final window: it reads no files, so it takes neither --bars, nor --news, nor how "
            "they are read, nor --in-sample"
        )
    stored = pipeline.open_stored(settings, symbol=flags.symbol, models_dir=flags.models_dir, revision=revision)
    varied, conditions = asked.varied(), asked.conditions(settings, stored)
    options = {"revision": stored.name, "oos_only": asked.oos_only, "in_sample": asked.in_sample, "rule": asked.rule}
    inputs = None if asked.oos_only else _inputs(settings, stored, flags)
    with open_run(settings, "backtest", given(flags.job_parameters() | varied | options)) as run:
        if inputs is None:
            evidence, look = pipeline.replay_final(stored, settings, conditions, run.run_id)
        else:
            evidence, look = pipeline.replay_bars(stored, inputs, settings, conditions, run.run_id, in_sample=asked.in_sample)
        watermark, figures = IN_SAMPLE if asked.in_sample else "", evidence.to_json()
        write_json(run.path / "backtest_report.json", figures | {"watermark": watermark})
        page = {"watermark": watermark, "facts": {"run": run.run_id} | ({} if look is None else {LOOK: look.told})}
        page |= backtest_head(stored, evidence, look, in_sample=asked.in_sample)
        summary = _finish_backtest(run, stored, evidence, page if chart else None)
    sentence = f"{watermark}. {evidence.sentence}" if watermark else evidence.sentence
    unknown = pipeline.symbol_sentence(stored.data.symbol if inputs is None else inputs.said_symbol, stored.symbol) or None
    looks = {"looks": None, "look": None} if look is None else {"looks": look.number, "look": look.summary()}
    told = looks | {"watermark": watermark, "sentence": sentence, "unknown_symbol": unknown}
    return summary | told | {"metrics": figures["strategy"]}


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
        "backtest_report": str(folder / "backtest_report.json"),
        "report": None if page is None else str(folder / REPORT),
    }
