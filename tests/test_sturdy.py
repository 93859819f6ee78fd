"""What a stranger's folder and a market too small may do: end in a plain refusal, and nothing else."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from make_revision import make_files, make_manifest

from trademl import device
from trademl.errors import BadDataError, RevisionError
from trademl.files import canonical_json, digest
from trademl.learn.ensemble import fit_ensemble
from trademl.learn.fits import Batch, Target
from trademl.pipeline.choice import SYNTHETIC, MarketFlags, choose_market, open_store
from trademl.pipeline.market.parameters import account_spec, cost_spec
from trademl.pipeline.market.risk import KEPT, fit_heads, risk_files
from trademl.runs import RunFolder, run_job
from trademl.settings import load_settings
from trademl.ship.store import Store

TRADEML = Path(sys.executable).with_name("trademl")
ROOT = Path(device.__file__).parents[1]
HEAVY = ("pandas", "numba", "scipy", "sklearn", "xgboost", "lightgbm", "optuna", "plotly", "onnxruntime", "shap", "papermill")
HOSTILE = ("numpy", "pandas", "trademl", "typer", "ipykernel_launcher", "IPython", "xgboost", "lightgbm", "json", "sitecustomize")


def environment(**more: str) -> dict[str, str]:
    """This process's variables without its TradeML settings; the package is this clone's, wherever it is called from."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TRADEML_")}
    return own | {"PYTHONPATH": str(ROOT)} | more


def loaded_by(*words: str, cwd: Path) -> tuple[set[str], str]:
    """Top-level modules that a command leaves loaded, and what it wrote on standard output."""
    code = (
        "import sys, trademl.cli\n"
        f"sys.argv = {['trademl', *words]!r}\n"
        "try:\n    trademl.cli.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split()), done.stdout


class TestWhatACommandLoads:
    def test_a_list_of_models_loads_no_library_that_trains(self, tmp_path):
        store = Store(tmp_path / "models")
        store.write(make_files(), make_manifest())
        modules, out = loaded_by("models", "list", "--models-dir", "models", "--json", cwd=tmp_path)
        assert len(json.loads(out)["revisions"]) == 1
        assert modules & set(HEAVY) == set()

    @pytest.mark.parametrize("words", [["--help"], ["models", "--help"], ["retrain", "--help"], ["config", "show"]])
    def test_help_and_settings_need_no_arrays_either(self, tmp_path, words):
        modules, out = loaded_by(*words, cwd=tmp_path)
        assert out
        assert modules & {*HEAVY, "numpy"} == set()


class TestAHostileFolder:
    """Modules that lie beside somebody's bars are never imported."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for name in HOSTILE:
            (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + '\\n')\nraise SystemExit(99)\n")
        return tmp_path

    @pytest.mark.parametrize("words", [["models", "list"], ["config", "show"], ["data", "sample", "--bars", "300", "--output", "b.csv"]])
    def test_a_command(self, folder, words):
        done = subprocess.run([TRADEML, *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr, (folder / "ran").exists()) == (0, "", False)

    def test_the_probe_of_an_accelerator(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        device.probe.cache_clear()
        assert device.probe("xgboost")[0] in ("cpu", "cuda")
        device.probe.cache_clear()
        assert not (folder / "ran").exists()

    def test_the_kernel_of_a_job_and_the_processes_that_it_starts(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        child = "import json, numpy, sys; print(json.dumps(sys.path))"
        work = f"""import json, subprocess, sys
import numpy, pandas, trademl
from trademl.runs import write_summary
child = subprocess.run([sys.executable, "-c", {child!r}], capture_output=True, text=True, check=True)
write_summary(run_dir, here=sys.path, child=json.loads(child.stdout))"""
        parameters = nbformat.v4.new_code_cell('run_dir: str = ""', metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(work)]), folder / "job.ipynb")
        with RunFolder.create(folder / "reports", "job", {}) as run:
            summary = run_job(folder / "job.ipynb", run=run).summary
        assert not (folder / "ran").exists()
        assert {"", ".", str(folder)} & {*summary["here"], *summary["child"]} == set()


class TestOneStore:
    @pytest.mark.parametrize("symbol", [SYNTHETIC, "XAUUSD", "BTCUSD"])
    def test_a_symbol_has_one_store_in_every_command(self, tmp_path, monkeypatch, symbol):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "bars.csv").touch()
        settings = load_settings()
        trained = choose_market(settings, MarketFlags(bars="bars.csv", no_news=True, symbol=symbol)).models_dir
        assert str(open_store(settings, symbol=symbol).models_dir) == trained

    def test_also_when_the_settings_name_it(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "bars.csv").touch()
        settings = load_settings({"market.symbol": SYNTHETIC, "market.bars": "bars.csv"})
        trained = choose_market(settings, MarketFlags(no_news=True)).models_dir
        assert str(open_store(settings).models_dir) == trained == "models/synthetic"

    def test_a_revision_that_is_named_is_looked_for_where_it_lies_readable_or_not(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        data = canonical_json(make_manifest() | {"schema": 1})
        old = tmp_path / "models" / "revisions" / digest(data)[:16]
        old.mkdir(parents=True)
        (old / "manifest.json").write_bytes(data)
        with pytest.raises(RevisionError, match="written by an earlier trademl"):
            open_store(load_settings(), revision=old.name[:6]).open(old.name[:6])


class TestNothingToLearnFrom:
    @pytest.mark.parametrize(("rows", "later"), [(40, 0), (2, 40)])
    def test_too_few_rows_for_a_booster_are_bad_data(self, rows, later):
        def made(n):
            return Batch(np.zeros((n, 3), np.float32), np.arange(n) % 2, np.ones(n))

        params = replace(load_settings().ensemble, lgb_subsample=0.05)
        with pytest.raises(BadDataError, match=rf"position: {rows} rows to learn from and {later} to stop on are too few"):
            fit_ensemble(made(rows), params, Target("position", ("HOLD", "EXIT")), until=made(later), seed=1)

    def test_risk_heads_without_trades_have_seen_nothing(self):
        settings = load_settings()
        none = pd.DataFrame({name: pd.Series(dtype="datetime64[ns, UTC]" if name.endswith("time") else float) for name in KEPT})
        table = none.assign(part=pd.Series(dtype=str))
        heads = fit_heads(table, cost_spec(settings, SYNTHETIC), account_spec(settings, SYNTHETIC, 3), settings)
        assert heads.fits() == ()
        assert heads.model.published == ()
        files, golden = risk_files(heads, "0" * 16, "2026-01-02T03:04:05Z")
        assert set(files) == {"risk_trades.parquet", "risk_metadata.json"}
        assert golden == {}


@pytest.mark.e2e
class TestTheCommandLine:
    """Refusals as a person meets them: an exit code, one sentence, no traceback."""

    def said(self, *words: object, cwd: Path, **settings: object) -> tuple[int, str]:
        more = {f"TRADEML_{name.upper()}": str(value) for name, value in settings.items()}
        done = subprocess.run([TRADEML, *map(str, words)], cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        assert "fault in TradeML" not in done.stderr
        assert len(re.findall(r"^trademl: ", done.stderr, re.MULTILINE)) == (done.returncode not in (0, 3))
        return done.returncode, done.stdout + done.stderr

    @pytest.mark.parametrize("words", [["--bars", 0], ["--bars", 10**12], ["--seed", -1], ["--edge", 2], ["--edge", "nan"]])
    def test_a_sample_that_cannot_be_made(self, tmp_path, words):
        code, text = self.said("data", "sample", "--output", "bars.csv", *words, cwd=tmp_path)
        assert (code, list(tmp_path.iterdir())) == (2, [])
        assert words[0] in text or "edge" in text

    def test_a_setting_is_refused_before_anything_is_written(self, tmp_path):
        code, text = self.said("retrain", cwd=tmp_path, backtest_null_curves=-1)
        assert (code, list(tmp_path.iterdir())) == (2, [])
        assert "backtest.null_curves = -1 (from environment TRADEML_BACKTEST_NULL_CURVES) must lie between 0 and" in text

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("bars", "edge", "more", "ends"),
        [
            (1_500, 0.5, {}, 4),
            (2_500, 0, {}, 4),
            (3_600, 0.5, {"labeling_horizon_bars": 400}, 4),
            (3_600, 0.5, {"labeling_tp_atr": 0.01, "labeling_sl_atr": 0.01}, 4),
            (6_000, 0, {}, 3),
        ],
    )
    def test_a_market_too_small_or_without_an_edge(self, tmp_path, bars, edge, more, ends):
        small = {"synthetic_bars": bars, "backtest_null_curves": 50, "backtest_bootstrap_draws": 200, "run_threads": 1, **more}
        code, text = self.said("retrain", "--edge", edge, cwd=tmp_path, **small)
        assert code == ends, text
        later = {"retrain --risk": ends, "report": 0, "backtest --oos-only": 0} if ends == 3 else {"report": 1}
        for command, expected in later.items():
            assert self.said(*command.split(), cwd=tmp_path, **small)[0] == expected, command
