"""`trademl explain`: what drives a stored revision."""

from typing import Annotated

import typer

from trademl.cli import common
from trademl.cli.market import Json, ModelsDir, RevisionName, Symbol

Decision = Annotated[
    str | None, typer.Option(help="one judged bar instead: its close, UTC, or its number among the judged rows (-1: the last)")
]


def explain(
    revision: RevisionName = None, decision: Decision = None, symbol: Symbol = None, models_dir: ModelsDir = None, json: Json = False
) -> None:
    """Say what drives a stored revision, and where noise begins. Needs no data file."""
    from trademl.commands.explain import run_explain

    tell(run_explain(revision, decision, symbol=symbol, models_dir=models_dir), json=json)


def tell(found: dict, *, json: bool) -> None:
    """Print an explanation, in words or as an object."""
    if json:
        return common.emit({name: value for name, value in found.items() if name != "words"})
    return print(*found["words"], sep="\n")
