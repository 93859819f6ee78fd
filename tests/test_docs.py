"""The documentation names tests that exist."""

import ast
import re

import pytest

from trademl.evidence.looks import family_level
from trademl.pipeline.market.replay import LOOKBACK

PAGES = [
    "README.md",
    "docs/what-it-refuses.md",
    "docs/what-the-bot-refuses.md",
    "docs/hub-faults.md",
    "docs/contract/README.md",
    "docs/shadow.md",
    "docs/trade-defects.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_test_that_is_named_exists(repo, page):
    text = (repo / page).read_text("utf-8")
    named = re.findall(r"`((?:tests|benchmarks|nbs|examples)/[\w/]+\.(?:py|ipynb))(?:::(\w+))?`", text)
    assert len(named) > 1
    for file, test in named:
        assert (repo / file).is_file(), file
        if test:
            assert re.search(rf"^\s*def {test}\(", (repo / file).read_text("utf-8"), re.MULTILINE), f"{file}::{test}"


def test_what_the_bot_refuses_is_marked_as_a_fault(repo):
    """So `pytest -m fault` runs every row."""
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (repo / "docs/what-the-bot-refuses.md").read_text("utf-8"))
    assert len(named) > 40
    for file in sorted({file for file, _ in named}):
        text = (repo / file).read_text("utf-8")
        functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        for test in (test for where, test in named if where == file):
            marks = [ast.unparse(decorator) for decorator in functions[test].decorator_list]
            assert "pytest.mark.fault" in marks or "pytestmark = pytest.mark.fault" in text, f"{file}::{test}"


def test_every_row_of_the_hub_under_faults_runs_as_one(repo):
    """Its tests are marked, by themselves, their class or their file."""
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (repo / "docs/hub-faults.md").read_text("utf-8"))
    assert len(named) > 40
    for file in sorted({file for file, _ in named}):
        text = (repo / file).read_text("utf-8")
        marked = set()
        for node in ast.parse(text).body:
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            functions = [one for one in inside if isinstance(one, ast.FunctionDef)]
            for one in functions:
                said = " ".join(ast.unparse(decorator) for decorator in (*one.decorator_list, *getattr(node, "decorator_list", ())))
                if "mark.fault" in said or "mark.contract" in said or "pytestmark = pytest.mark.fault" in text:
                    marked.add(one.name)
        assert {test for where, test in named if where == file} <= marked, file


def test_links_lead_somewhere(repo):
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (repo / page).read_text("utf-8")):
            assert ((repo / page).parent / target).exists(), f"{page}: {target}"


def test_the_figures_of_the_gate_in_the_readme_are_the_gates(repo):
    text = (repo / "README.md").read_text("utf-8")
    assert f"twenty worthless ones pass with {100 * family_level(0.01, 20):.1f} % at most" in text
    assert f"the longest look-back ({LOOKBACK:,} bars)" in text
