"""What the trade-record commands do."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from trademl.clock import utc_now
from trademl.commands.spine import finish_revision_run, given, open_run
from trademl.data.records import MAX_BAD_SHARE, RecordsReport, read_records
from trademl.device import check
from trademl.errors import Exit
from trademl.pipeline import trades as pipeline
from trademl.pipeline.stored import Stored
from trademl.pipeline.trades.stored import newest_tuning
from trademl.runs import Course, run_job
from trademl.settings import Settings, load_settings
from trademl.trades.due import Due, LastTraining, decide_due
from trademl.trades.labels import ExcursionUnit, label_trades, unlearnable
from trademl.trades.profile import MIN_SAMPLES, TradesProfile, profile_trades
from trademl.trades.registry import TradeModel
from trademl.trades.rows import closed_at


@dataclass(frozen=True)
class Examination:
    """A log as it was read, and what is in it."""

    report: RecordsReport
    profile: TradesProfile

    @cached_property
    def refusals(self) -> tuple[str, ...]:
        """Why nothing may be trained on these records as they are; empty when something may."""
        source, found = self.report.source, []
        if not self.report.is_usable:
            share = f"{source.bad:,} of {source.lines:,} lines are bad ({source.bad_share:.1%}; {MAX_BAD_SHARE:.0%} is allowed)"
            found.append(f"{share}: mend the lines named above")
        found += filter(None, [unlearnable(label_trades(self.report.records, None))])
        if self.profile.unit.unit is None:
            found.append(self.profile.unit.sentence)
        return tuple(found)

    def summary(self) -> dict:
        """Everything as one record."""
        profile = self.profile
        record = {"status": "failed" if self.refusals else "done", "exit": int(Exit.BAD_DATA if self.refusals else Exit.DONE)}
        record |= {"refusals": self.refusals, "source": self.report.source, "issues": self.report.issues}
        record |= {"records": profile.records, "trades": profile.trades, "avoided": profile.avoided, "stopped": profile.stopped}
        record |= {"assets": {name: {"records": count, "trades": trades} for name, (count, trades) in profile.assets.items()}}
        record |= {"excursion_unit": profile.unit, "min_samples": MIN_SAMPLES, "labels": profile.labels}
        record["models"] = [vars(rows) | {"obstacle": rows.obstacle} for rows in profile.models]
        columns = {state: profile.columns_that_are(state) for state in ("dead", "constant", "sparse")}
        return record | {"columns": columns, "smells": profile.smells}


def examine(path: str | os.PathLike, unit: ExcursionUnit | str = ExcursionUnit.AUTO) -> Examination:
    """`trademl trades doctor`: read a file or folder and profile it. Raises BadDataError when it holds no record at all."""
    report = read_records(path)
    return Examination(report, profile_trades(report.records, unit))


# ---------------------------------------------------------------- train

SHARES = {"data": 0.08, "features": 0.02, "search": 0.0, "judge": 0.60, "evidence": 0.05, "ship": 0.10, "prove": 0.05, "store": 0.10}
SEARCHES = 10.0  # times the rest of a run, at 50 trials
UNSIGNED = "carries no signature: nobody can tell whether it was changed since; a bot that can read a revision loads that instead"


def last_training(settings: Settings, models_dir: str | None = None) -> LastTraining:
    """What the trade store knows of earlier trainings."""
    stored = pipeline.trade_store(settings, models_dir).revisions()  # newest first
    if not stored:
        return LastTraining()
    refused = next((at for at, revision in enumerate(stored) if revision.gate_passed), len(stored))
    tuned = newest_tuning(stored)
    return LastTraining(_epoch_s(stored[0].trained_at), refused, None if tuned is None else _epoch_s(tuned["at"]))


def _epoch_s(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def is_due(inputs: pipeline.TradeInputs, settings: Settings) -> Due:
    """Whether these trades are a reason to train now."""
    pnl = inputs.columns["outcome_realizedPnl"]
    closed = ~np.isnan(pnl)
    last = last_training(settings, inputs.flags.models_dir)
    return decide_due(closed_at(inputs.columns)[closed], pnl[closed] > 0, last, int(utc_now().timestamp()), inputs.flags.min_samples)


def run_due(flags: pipeline.TradeFlags) -> dict:
    """`trademl trades due`: the decision and its reason; exit 0 when it is time, 3 when it is not."""
    found = is_due(pipeline.load_trades(flags), load_settings())
    return vars(found) | {"status": "due" if found.is_due else "not_due", "exit": int(Exit.DONE if found.is_due else Exit.GATE_REFUSED)}


def run_train(
    overrides: Mapping[str, object],
    flags: pipeline.TradeFlags,
    output: str | None = None,
    *,
    if_due: bool = False,
    quiet: bool = False,
) -> dict:
    """`trademl trades train`: the job, its report, its look, and a plain copy in `output`. Raises what the job raised.

    With `if_due` it trains only when `trades due` says so. BadDataError before anything is written when the log must not be trained
    on. Too few trades are no error: the short report is written.
    """
    settings = load_settings(overrides)
    check(settings.run.device)
    untrained = _before_training(settings, flags, output, if_due=if_due)
    if untrained is not None:
        return untrained
    store = pipeline.trade_store(settings, flags.models_dir)
    store.check_line(pipeline.LINE)
    parameters = flags.job_parameters() | {"overrides": given(overrides)}
    with store.lock(), open_run(settings, "trades_retrain", parameters) as run:
        course = Course.of_shares(SHARES | ({"search": SEARCHES * flags.trials / 50} if flags.tune_hyperparams else {}))
        result = run_job("trades_retrain", parameters, run=run, course=course, quiet=quiet)
        stored = Stored(store.locate(result.summary["revision"]))
        summary = finish_revision_run(run, result, stored, moves_pointer=True)
    return summary | _copied(stored, output)


def _before_training(settings: Settings, flags: pipeline.TradeFlags, output: str | None, *, if_due: bool) -> dict | None:
    """What the command ends with where nothing is to be trained; None where it goes on. BadDataError as `run_train`.

    The job is a process of its own and reads the log again: what is read here is let go before it starts.
    """
    inputs = pipeline.load_trades(flags)
    due = is_due(inputs, settings) if if_due else None
    if due is not None and not due.is_due:
        nothing = dict.fromkeys(("run_id", "revision", "report", "output", "note", "gate"))
        return nothing | {"status": "not_due", "exit": int(Exit.DONE), "headline": f"nothing was trained: {due.reason}", "advice": {}}
    if not inputs.is_enough:
        return _too_few(settings, inputs, output)
    inputs.require_trainable()
    return None


def _copied(stored: Stored, output: str | None) -> dict:
    """The plain copy, when one is asked for and all four models are there."""
    if output is None:
        return {"output": None, "note": None}
    missing = [str(model) for model in TradeModel if not stored.holds(f"{model}.onnx")]
    if missing:
        return {"output": None, "note": f"nothing was copied to {output}: {', '.join(missing)} could not be trained"}
    pipeline.copy_out(stored, output)
    return {"output": output, "note": f"{output} holds revision {stored.name} as plain files; the folder {UNSIGNED}"}


def _too_few(settings: Settings, inputs: pipeline.TradeInputs, output: str | None) -> dict:
    """Nothing is trained; the short report says what is missing."""
    needed = inputs.flags.min_samples
    limit = f", {inputs.teaching:,} of them within the bench score limit" if inputs.flags.bench.is_set else ""
    headline = f"{inputs.trades:,} trades with an outcome{limit}, {needed:,} are needed: nothing was trained"
    with open_run(settings, "trades_retrain", inputs.flags.job_parameters()) as run:
        pipeline.write_short(inputs, run.path)
        folder = run.finish(message=headline, next_step="train again when the bot has closed more trades, or lower --min-samples")
    if output is not None:
        pipeline.write_short(inputs, output)
    report = str(Path(folder) / "improvement_report.md")
    record = {"run_id": run.run_id, "revision": None, "status": "done", "exit": int(Exit.DONE), "headline": headline, "models_trained": []}
    return record | {"report": report, "output": output, "note": None, "gate": None, "advice": {}}
