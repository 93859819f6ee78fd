"""`trademl backtest`: what a stored revision's decisions earn, on its final window or on bars that it has not seen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from trademl.commands.spine import FIGURES, LOOK, REPORT, given, open_run, plain, refuse_unknown
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
from trademl.runs import RunFolder
from trademl.settings import Settings, load_settings


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
    read = MarketFlags(**{name: plain(value) for name, value in flags.items() if name in market})
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
