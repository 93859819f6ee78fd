"""Small retrains by the job notebook's own cells: the order of the steps is said there, and nowhere else."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd

from trademl.data.bars import bars_hash
from trademl.pipeline.market.inputs import Inputs
from trademl.runs import check_parameters, find_job

SMALL = {  # settings of a market that is trained in seconds
    "run.threads": 1,  # many small fits: threads only wait for each other
    "synthetic.bars": 11_500,
    "windows.final_share": 0.35,  # room to rotate the entries beyond the longest look-back
    "windows.refit_every_days": 20,
    "ensemble.rf_trees": 12,
    "ensemble.xgb_max_rounds": 40,
    "ensemble.lgb_max_rounds": 40,
    "warmstart.refresh_bars": 3_000,
    "warmstart.max_drift_psi": 1,  # three months: slow features have hardly been anywhere
    "backtest.null_curves": 50,
    "backtest.bootstrap_draws": 300,
}


def environment(settings: Mapping = SMALL) -> dict[str, str]:
    """The settings as environment variables, for another process."""
    return {f"TRADEML_{name.upper().replace('.', '_')}": str(value) for name, value in settings.items()}


def first_bars(inputs: Inputs, n: int = 11_000) -> Inputs:
    """The inputs as they were when the market had this many bars."""
    bars = inputs.bars.iloc[:n]
    return replace(inputs, bars=bars, bars_sha256=bars_hash(bars))


def retrain(
    models_dir,
    settings: Mapping = SMALL,
    *,
    until: str = "summary",  # the name after whose cell the run ends
    change: Mapping[str, Callable] | None = None,  # name -> what becomes of it as soon as a cell has made it
    **parameters,  # further parameters of the notebook
) -> SimpleNamespace:
    """Run the cells of the job `retrain` on the embedded market, without explanations; returns every name that they made."""
    notebook, change = find_job("retrain"), dict(change or {})
    names: dict = {}
    with (
        tempfile.TemporaryDirectory() as run_dir,  # a command's, as it were
        pd.option_context("display.max_colwidth", None),  # the notebook sets it for its reader
    ):
        own = {"paths.models": str(models_dir)} | dict(settings)  # a project's chain of looks lies beside its stores
        asked = {"run_dir": run_dir, "symbol": "SYNTH", "models_dir": str(models_dir), "overrides": own, "shap": False}
        given = check_parameters(notebook, asked | parameters)
        for number, cell in enumerate(json.loads(notebook.read_text("utf-8"))["cells"]):
            if cell["cell_type"] != "code":
                continue
            exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names |= given
            for name in change.keys() & names.keys():
                names[name] = change.pop(name)(names[name])
            if until in names:
                return SimpleNamespace(**names)
    raise AssertionError(f"no cell of {notebook.name} makes {until!r}")
