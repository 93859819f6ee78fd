"""What the house checks share: which files belong to the clone, and what the package shows to the world."""

import ast
import subprocess
from pathlib import Path

SURFACE = Path(__file__).with_name("public_surface.json")


def own_files(repo: Path) -> list[Path]:
    """Files that git tracks or would track. `git` is asked, so that build products and data never count."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=repo, capture_output=True, text=True, check=True)
    return sorted(repo / line for line in listed.stdout.splitlines() if (repo / line).is_file())


def public_names(source: str) -> list[str]:
    """`__all__` or what a package lends, else the public names defined at top level. Read from the syntax tree: nothing is imported."""
    defined: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if names == ["__all__"]:
                return sorted(ast.literal_eval(node.value))
            if names == ["_LENT"]:  # see trademl.lazy
                return sorted(name for lent in ast.literal_eval(node.value).values() for name in lent)
            defined += names
    return sorted({name for name in defined if not name.startswith("_")})


def surface(repo: Path) -> dict[str, list[str]]:
    """Module -> its public names, for every module of the package."""
    found = {}
    for path in own_files(repo):
        if path.suffix == ".py" and path.is_relative_to(repo / "trademl") and not path.name.startswith("_m"):
            parts = path.relative_to(repo).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            if names := public_names(path.read_text("utf-8")):
                found[name] = names
    return found
