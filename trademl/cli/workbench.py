"""`trademl config show`, `trademl doctor`, `trademl lab`."""

from typing import Annotated

import typer

from trademl.cli import common
from trademl.errors import UsageError

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
    canary: Annotated[int | None, typer.Option(min=1, help="instead: judge so many markets of each worthless kind")] = None,
    bars: Annotated[str | None, typer.Option(help="canary: bars whose outcomes are rotated in time; default: settings.ini's")] = None,
    symbol: Annotated[str | None, typer.Option(help="canary: the symbol of these bars")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="canary: nothing on standard error on the way")] = False,
    json: Json = False,
) -> None:
    """What this machine can do (probed, not guessed); with --canary, whether its pipeline finds skill where there is none (exit 1)."""
    if canary is not None:
        return _canary(canary, bars, symbol, quiet, json)
    if bars or symbol or quiet:
        raise UsageError("--bars, --symbol and --quiet belong to --canary N: the doctor itself reads no market")
    from trademl.device import examine

    report = examine(fresh=fresh)
    if json:
        return common.emit(report)
    return common.table([(key, value) for key, value in report.lines()])


def _canary(runs: int, bars: str | None, symbol: str | None, quiet: bool, json: bool) -> None:
    from trademl.commands.canary import run_canary

    found = run_canary(runs, bars, symbol, quiet=quiet)
    if json:
        common.emit(found)
    else:
        rows = [
            (m["market"], m["runs"], m["passed"], m["expected_at_most"], f"{100 * m['share_low']:.1f} to {100 * m['share_high']:.1f} %")
            for m in found["markets"]
        ]
        common.table(rows, header=("market", "runs", "passed", "expected at most", "95 % interval"))
        print(found["sentence"])
        if found["left_out"]:
            print(f"left out: {found['left_out']}")
    raise typer.Exit(found["exit"])


def lab(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="default: 8888, or the next that is free")] = None,
    ip: Annotated[str, typer.Option(help="address to listen on; the default is reached from this machine only")] = "localhost",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="print the address and open nothing")] = False,
    allow_root: Annotated[bool, typer.Option("--allow-root", help="run although you are root (containers)")] = False,
) -> None:
    """Open the start page of the notebooks in JupyterLab. What follows `--` goes to `jupyter lab` as it is."""
    from pathlib import Path

    from trademl.commands.lab import bring_notebooks, lab_arguments, run_lab

    arguments = lab_arguments(port=port, ip=ip, browser=not no_browser, allow_root=allow_root, more=context.args)
    brought = bring_notebooks(Path())
    if brought:
        print(f"copied {len(brought)} notebooks into nbs/: they are yours to change; `trademl retrain` runs the package's own", flush=True)
    run_lab(arguments)
