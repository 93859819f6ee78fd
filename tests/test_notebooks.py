"""Notebooks: the library's lessons run, sources are clean and in step with the package, jobs are shaped as papermill needs them."""

import ast
import importlib
import json
import linecache
import re
import shutil
import statistics
import subprocess
import sys
import types
from pathlib import Path

import pytest

from trademl.runs import job_parameters

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "nbs").glob("*.ipynb"))
JOBS = sorted((ROOT / "nbs" / "jobs").glob("*.ipynb"))
EXPLORE = sorted((ROOT / "nbs" / "explore").glob("*.ipynb"))
FLAG = re.compile(r"^#\|\s*(\w+)(?::?\s*(.*))?$", re.MULTILINE)


def cells(path: Path) -> list[dict]:
    found = json.loads(path.read_text("utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found]


def flags(source: str) -> dict[str, str]:
    return {name: (value or "").strip() for name, value in FLAG.findall(source)}


def run_lessons(path: Path) -> int:
    """Run a notebook's cells in one fresh namespace; returns how many ran.

    An exported cell is not run a second time: its names come from the exported module, so that a lesson tests what people import.
    Last expressions that are plotly figures are serialised as a notebook would.
    """
    module = types.ModuleType(f"lesson_{path.stem}")
    names = module.__dict__ | {"display": lambda *_: None}
    sys.modules[module.__name__] = module
    ran = 0
    exported = None
    try:
        for number, cell in enumerate(cells(path)):
            if cell["cell_type"] != "code":
                continue
            said = flags(cell["source"])
            if "default_exp" in said:
                exported = importlib.import_module(f"trademl.{said['default_exp']}")
                names.update({k: v for k, v in vars(exported).items() if not k.startswith("__")})
            if said.get("eval") == "false" or "default_exp" in said or {"export", "exporti", "exports"} & set(said):
                continue
            run_cell(cell["source"], f"<{path.name} cell {number}>", names)
            ran += 1
    finally:
        sys.modules.pop(module.__name__, None)
    return ran


def run_cell(source: str, where: str, names: dict) -> None:
    linecache.cache[where] = (len(source), None, source.splitlines(keepends=True), where)
    tree = ast.parse(source, where)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    value = eval(compile(last, where, "eval"), names) if last else None
    if hasattr(value, "to_plotly_json"):
        assert json.loads(value.to_json())["data"], f"{where} shows an empty figure"


STUDIES = {"39_market_tuning"}  # whose lessons take half a minute


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in STUDIES)) for path in LIBRARY + EXPLORE],
    ids=lambda path: path.stem,
)
def test_lessons_run_against_the_exported_package(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_lessons(path) > 0


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    """A copy of the sources, exported and cleaned anew."""
    copy = tmp_path_factory.mktemp("clone")
    for folder in ("nbs", "trademl"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    for command in ("nbdev-export", "nbdev-clean"):
        done = subprocess.run([str(Path(sys.executable).parent / command)], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return copy


def test_the_package_is_what_the_notebooks_export(rebuilt):
    stale = [p for p in sorted((rebuilt / "trademl").rglob("*.py")) if p.read_bytes() != (ROOT / p.relative_to(rebuilt)).read_bytes()]
    assert [str(path.relative_to(rebuilt)) for path in stale] == [], "run `nbdev-export`"


def test_notebooks_are_clean(rebuilt):
    dirty = [p for p in sorted((rebuilt / "nbs").rglob("*.ipynb")) if p.read_bytes() != (ROOT / p.relative_to(rebuilt)).read_bytes()]
    assert [str(path.relative_to(rebuilt)) for path in dirty] == [], "run `nbdev-clean`"


def test_exported_cells_are_short():
    """A cell that needs a second screen holds a second idea."""
    lines = {
        (path.name, cell["id"]): len(cell["source"].splitlines())
        for path in LIBRARY
        for cell in cells(path)
        if cell["cell_type"] == "code" and "export" in flags(cell["source"])
    }
    assert {where: count for where, count in lines.items() if count > 60} == {}
    assert statistics.median(lines.values()) <= 20


def test_every_generated_module_still_has_its_notebook():
    """Export never deletes: a renamed notebook would leave its old module behind."""
    sources = {flags(cell["source"]).get("default_exp") for path in LIBRARY for cell in cells(path)} - {None}
    generated = {
        ".".join(path.relative_to(ROOT / "trademl").with_suffix("").parts)
        for path in (ROOT / "trademl").rglob("*.py")
        if "AUTOGENERATED" in path.read_text("utf-8")[:2000] and path.name not in ("_modidx.py", "__init__.py")
    }
    assert generated == sources


@pytest.mark.parametrize("path", LIBRARY + JOBS + EXPLORE, ids=lambda path: path.stem)
def test_no_outputs_and_no_metadata_but_tags(path):
    for cell in cells(path):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert set(cell["metadata"]) <= {"tags"}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_a_library_notebook_opens_as_one(path):
    found = cells(path)
    opening = found[0]["source"]
    assert found[0]["cell_type"] == "markdown"
    assert opening.startswith("# ")
    assert re.search(r"^> ", opening, re.MULTILINE), "a `>` subtitle below the title"
    code = [cell["source"] for cell in found if cell["cell_type"] == "code"]
    module = flags(code[0]).get("default_exp") if code else None
    number, domain, *_ = path.stem.split("_")
    assert re.fullmatch(r"\d\d[a-z]?", number)
    assert module == f"{domain}.{'_'.join(path.stem.split('_')[2:])}"
    exported = [source for source in code if "export" in flags(source)]
    assert exported
    assert not re.search(r"^from \S+ import \*", "\n".join(exported), re.MULTILINE)


@pytest.mark.e2e
@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_has_typed_parameters_and_nothing_worth_a_test(path):
    parameters = job_parameters(path)
    assert "run_dir" in parameters
    (tagged,) = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    for node in ast.parse(tagged["source"]).body:
        assert isinstance(node, ast.AnnAssign), f"line {node.lineno} of the parameters needs a type"
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert not [node for node in ast.walk(ast.parse(cell["source"])) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
