"""The house rules that a machine can check: style, layers, public names, imports, what may stand in a file."""

import ast
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import SURFACE, own_files, surface

import trademl

BIN = Path(sys.executable).parent
PROMISED = {
    "trademl.data.bars": ["read_bars", "BarsReport"],
    "trademl.data.news": ["read_news", "NewsReport"],
    "trademl.market.specs": ["LabelSpec", "CostSpec", "AccountSpec"],
    "trademl.market.features": ["compute_features", "feature_matrix", "FEATURES"],
    "trademl.market.labeling": ["label_bars"],
    "trademl.market.backtest": ["run_backtest"],
    "trademl.risk.replay": ["replay"],
    "trademl.bot": ["load_approved", "Predictor", "Decision"],
    "trademl.evidence.treeshap": ["tree_shap"],
    "trademl.runs": ["RunFolder", "Progress", "run_job"],
    "trademl.report": ["render", "write_report"],
}


def tool(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, check=False)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- style and layers -----------------------------------------------------------------------------------------------------


def test_ruff_finds_nothing(repo):
    done = tool("ruff", "check", "--output-format", "concise", ".", cwd=repo)
    assert done.returncode == 0, done.stdout


def test_generated_modules_define_every_name_they_use(repo):
    """A notebook's own cells may run although the exported module lacks an import: F821 sees that."""
    done = tool("ruff", "check", "--isolated", "--select", "F821,F822", "--output-format", "concise", "trademl", cwd=repo)
    assert done.returncode == 0, done.stdout


def test_everything_is_formatted(repo):
    done = tool("ruff", "format", "--check", ".", cwd=repo)
    assert done.returncode == 0, done.stdout


def test_data_flows_one_way(repo):
    done = tool("lint-imports", "--no-cache", cwd=repo)
    assert done.returncode == 0, done.stdout


def functions(repo):
    """(where, function) of every function of the package."""
    for path in sorted((repo / "trademl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(repo / "trademl").as_posix(), node


def test_no_function_takes_more_than_eight_arguments(repo):
    """Records cross rooms, not dozens of arguments. Not so: the command line, compiled kernels, and the one promised signature."""
    many = []
    for where, function in functions(repo):
        asked = function.args
        count = len(asked.posonlyargs) + len(asked.args) + len(asked.kwonlyargs)
        compiled = any("njit" in ast.unparse(decorator) for decorator in function.decorator_list)
        if count > 8 and not compiled and not where.startswith("cli/") and function.name != "feature_matrix":
            many.append(f"{where}: {function.name} takes {count}")
    assert many == []


# --- public names ---------------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_the_public_surface_is_the_pinned_one(repo):
    """`TRADEML_PIN=1 pytest tests/test_house.py -k surface` pins what there is now; read the diff before you commit it."""
    now = surface(repo)
    if os.environ.get("TRADEML_PIN") == "1":
        SURFACE.write_text(json.dumps(now, indent=1) + "\n")
    pinned = json.loads(SURFACE.read_text())
    changed = {name: (pinned.get(name), now.get(name)) for name in sorted({*pinned, *now}) if pinned.get(name) != now.get(name)}
    lines = [f"{m}: gone {sorted(set(a or []) - set(b or []))}, new {sorted(set(b or []) - set(a or []))}" for m, (a, b) in changed.items()]
    assert not changed, "\n".join([*lines, "meant so? TRADEML_PIN=1 pytest tests/test_house.py -k surface"])


@pytest.fixture(scope="module")
def missing() -> dict[str, list[str]]:
    """For each promised module the names that it lacks when it is the first of the package that a process imports."""
    code = f"""
import json, os
import numba, numpy, onnxruntime, pandas, papermill, plotly.graph_objects, sklearn  # once for all the children
for module, names in {PROMISED!r}.items():
    if not os.fork():
        found = __import__(module, fromlist=names)
        print(json.dumps([module, [name for name in names if not hasattr(found, name)]]), flush=True)
        os._exit(0)
    os.wait()
"""
    return dict(json.loads(line) for line in python(code).splitlines())


@pytest.mark.contract
@pytest.mark.parametrize("module", PROMISED)
def test_names_that_other_people_hold_on_to_are_there(missing, module):
    assert missing[module] == []


@pytest.mark.contract
def test_a_kernel_calls_only_kernels_of_its_own_module():
    """numba's cache on disk looks at a kernel's own file: it would go on serving what another module no longer says."""
    from numba.core.dispatcher import Dispatcher

    strangers, seen = [], 0
    for found in pkgutil.walk_packages(trademl.__path__, "trademl."):
        if found.name.split(".")[1] not in ("data", "validate", "learn", "market", "risk", "trades", "evidence"):
            continue
        module = importlib.import_module(found.name)
        for name, kernel in vars(module).items():
            if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.__name__:
                seen += 1
                for used in kernel.py_func.__code__.co_names:
                    other = vars(module).get(used)
                    if isinstance(other, Dispatcher) and other.py_func.__module__ != module.__name__:
                        strangers.append(f"{module.__name__}.{name} calls {other.py_func.__module__}.{used}")
    assert seen > 15
    assert strangers == []


# --- imports --------------------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_importing_trademl_does_nothing_and_takes_no_time():
    code = """
import logging, os, sys, threading, time, warnings
before = (set(sys.modules), dict(os.environ), list(logging.root.handlers), list(warnings.filters), threading.active_count())
began = time.perf_counter()
import trademl
took = time.perf_counter() - began
after = (dict(os.environ), list(logging.root.handlers), list(warnings.filters), threading.active_count())
print(took, after == before[1:], sorted(set(sys.modules) - before[0]))
"""
    runs = [python(code).split(" ", 2) for _ in range(5)]
    assert all(run[1] == "True" for run in runs)
    assert {run[2].strip() for run in runs} == {"['trademl']"}
    assert min(float(run[0]) for run in runs) < 0.050


@pytest.mark.contract
def test_nothing_imports_a_pickle_by_any_name(repo):
    """Package, job notebooks and examples: what runs code when it is read is neither written nor read here."""
    forbidden = {"pickle", "_pickle", "cPickle", "joblib", "cloudpickle", "dill", "shelve", "marshal"}
    texts = {}
    for path in own_files(repo):
        text = path.read_text("utf-8") if path.suffix in (".py", ".ipynb") and "tests" not in path.parts else ""
        if re.search("pickle|joblib|dill|shelve|marshal", text):  # parsing every file would take seconds
            cells = (
                [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"] if path.suffix == ".ipynb" else [text]
            )
            texts[path] = "\n".join("".join(source) for source in cells if not "".join(source).startswith(("%", "!")))
    assert len(texts) > 1
    found = []
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.relative_to(repo)}: {name}" for name in names if name.split(".")[0] in forbidden]
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                found.append(f"{path.relative_to(repo)}: allow_pickle={ast.unparse(node.value)}")
    assert found == []


@pytest.mark.contract
@pytest.mark.parametrize(
    "module",
    [
        "trademl.market.features",
        "trademl.market.specs",
        "trademl.market.decision",
        "trademl.market.open_trade",
        "trademl.risk.state",
        "trademl.trades.features",
        "trademl.bot.records",
        "trademl.bot.policy",
        "trademl.bot",
    ],
)
def test_what_a_live_bot_computes_with_needs_numpy_alone(module):
    own = "set(sys.modules) | set(sys.stdlib_module_names)"  # a distribution's Python may start with a sitecustomize of its own
    code = f"import sys; own = {own}; import {module}; print(sorted({{m.split('.')[0] for m in sys.modules}} - own))"
    heavy = [name for name in json.loads(python(code).replace("'", '"')) if not name.startswith("_")]
    assert set(heavy) <= {"numpy", "trademl"}


TRAINING = {"numba", "scipy", "sklearn", "xgboost", "lightgbm", "optuna", "shap", "onnxruntime", "trademl.bot", "trademl.learn"}


@pytest.mark.contract
@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("trademl.cli", TRAINING | {"numpy", "pandas", "plotly"}),
        ("trademl.pipeline.stored", TRAINING | {"pandas", "pyarrow", "plotly"}),  # `trademl models list`
        ("trademl.commands.market", TRAINING | {"pandas", "pyarrow", "papermill"}),  # the job's kernel loads what trains
        ("trademl.commands.trades", TRAINING | {"papermill"}),
    ],
)
def test_a_command_loads_only_what_it_calls(module, unneeded):
    code = f"import sys, {module}; print(sorted({unneeded} & set(sys.modules)))"
    assert python(code).strip() == "[]"


@pytest.mark.contract
def test_a_job_s_kernel_shows_a_figure_without_building_grammars():
    code = """
import sys, ipykernel.kernelapp
from trademl.runs import kernel
ipykernel.kernelapp.launch_new_instance = lambda: None
kernel.main()
import plotly.io._renderers
print("jsonschema" in sys.modules, "lark" in sys.modules)
"""
    assert python(code).strip() == "True False"


# --- what may stand in a file ---------------------------------------------------------------------------------------------

FORBIDDEN = {
    "absolute path": re.compile(r"(?<![\w.:/<~-])/(?:work|home|root|Users)/[\w.-]+"),
    "Windows path": re.compile(r"\b[A-Z]:\\\\?(?:Users|work)"),
    "registry host": re.compile(r"pypi\.org|pythonhosted\.org|(?:extra-)?index-url|registry\.npmjs|proxy\.golang"),
    "private key": re.compile(r"BEGIN (?:[A-Z]+ )?PRIVATE KEY"),
    "access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bxox[bap]-[\w-]{20,}"),
    "merge mark": re.compile(r"^(?:<<<<<<<|>>>>>>>) ", re.MULTILINE),
}


@pytest.mark.skipif(not (Path(__file__).parents[1] / ".git").exists(), reason="not a clone")
def test_no_file_holds_a_machine_path_a_registry_or_a_secret(repo):
    found = []
    for path in own_files(repo):
        if path == Path(__file__) or path.suffix in {".png", ".gz", ".parquet", ".onnx", ".npz"}:
            continue
        text = path.read_text("utf-8", errors="replace")
        found += [f"{path.relative_to(repo)}: {what}: {hit[0]}" for what, rule in FORBIDDEN.items() if (hit := rule.search(text))]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "text", "hit"),
    [
        ("absolute path", f'open("/{"work"}/somewhere/x")', True),
        ("absolute path", f"see /{'home'}/ann/bars.csv", True),
        ("absolute path", "https://example.org/home/ann", False),
        ("absolute path", "docs/work/main", False),
        ("registry host", "--index-url https://x", True),
        ("private key", "-----BEGIN PRIVATE KEY-----", True),
        ("access key", "AKIA" + "A" * 16, True),
        ("access key", "AKIA-1", False),
    ],
)
def test_the_forbidden_things_are_recognised(rule, text, hit):
    assert bool(FORBIDDEN[rule].search(text)) == hit


@pytest.mark.skipif(not (Path(__file__).parents[1] / ".git").exists(), reason="not a clone")
def test_what_runs_make_is_ignored_and_what_people_write_is_not(repo):
    run = "reports/20260101-000000-retrain-abcdef"
    made = f"""
        .venv/bin/python trademl/__pycache__/x.pyc trademl.egg-info/PKG-INFO build/lib/x.py dist/x.whl trademl/jobs/retrain.ipynb
        models/revisions/1a2b/manifest.json models/model_compat.json datasets/bars.csv {run}/run.json reports/.partial-1/run.json
        .pytest_cache/x .hypothesis/x nbs/.ipynb_checkpoints/a.ipynb""".split()
    written = [
        "models/README.md",
        "datasets/README.md",
        "reports/README.md",
        "nbs/jobs/retrain.ipynb",
        "settings.ini",
        "tests/test_x.py",
        ".ci/run",
    ]
    ask = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(ask, cwd=repo, input="\n".join(made + written), capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == sorted(made)


@pytest.mark.skipif(not (Path(__file__).parents[1] / ".git").exists(), reason="not a clone")
def test_no_file_is_large(repo):
    large = {str(path.relative_to(repo)): path.stat().st_size for path in own_files(repo) if path.stat().st_size > 500_000}
    assert large == {}
