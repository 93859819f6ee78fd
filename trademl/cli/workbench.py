"""`trademl config show`, `trademl doctor`, `trademl lab`."""

from typing import Annotated

import typer

from trademl.cli import common
from trademl.errors import MissingExtraError

config = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]


@config.callback()
def _config() -> None:
    """The settings and where each came from."""


@config.command()
def show(json: Json = False) -> None:
    """Every setting, its value and its origin (default, file, environment, flag)."""
    from trademl.settings import load_settings

    rows = list(load_settings().items())
    if json:
        return common.emit({key: {"value": value, "origin": origin} for key, value, origin in rows})
    return common.table([(key, " ".join(map(str, v)) if isinstance(v, tuple) else v, origin) for key, v, origin in rows])


def doctor(
    fresh: Annotated[bool, typer.Option("--fresh", help="probe the accelerators again, whatever an earlier call found")] = False,
    json: Json = False,
) -> None:
    """What this machine can do: Python, libraries, cores, memory, accelerators (probed, not guessed)."""
    from trademl.device import examine

    report = examine(fresh=fresh)
    if json:
        return common.emit(report)
    return common.table([(key, value) for key, value in report.lines()])


def lab() -> None:
    """Open the notebooks in JupyterLab."""
    import os
    import sys
    from importlib.util import find_spec
    from pathlib import Path

    if find_spec("jupyterlab") is None:
        raise MissingExtraError("JupyterLab is not installed; pip install 'trademl[lab]'")
    os.execv(sys.executable, [sys.executable, "-P", "-m", "jupyterlab", "nbs" if Path("nbs").is_dir() else "."])
