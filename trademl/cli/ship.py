"""`trademl release` and `trademl onboard`: from a stored revision to the hub, and from the hub to a bot that loads it."""

from typing import Annotated

import typer

from trademl.cli import common

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]
Symbol = Annotated[str | None, typer.Option(help="the market that is meant; default: settings.ini's")]
ModelsDir = Annotated[str | None, typer.Option(help="the local store; default: the market's own")]


def onboard(
    profile: Annotated[int | None, typer.Option(min=1, max=5, help="risk profile 1 (careful) to 5; written into settings.ini")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="ask the hub, fetch and write nothing")] = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Pull what is approved, prove it, load it as a bot would, write the profile into the settings, and say what the bot may load."""
    from trademl.commands.onboard import run_onboard

    record = run_onboard(profile, symbol, models_dir, dry_run=dry_run)
    if json:
        return common.emit(record)
    common.table([("ok" if one["ok"] else "WRONG", one["name"], one["detail"]) for one in record["checks"]])
    if not dry_run:
        common.table([("margin", f"{record['margin_r']:g} R"), ("risk head", record["head"]), ("in the bot", record["code"])])
    for sentence in (*record["remarks"], record["sentence"]):
        print(sentence)
    return None


def release(
    revision: Annotated[str | None, typer.Argument(help="a stored revision, or the start of its name; default: the newest")] = None,
    balance: Annotated[float | None, typer.Option(help="of the backtest: start, account currency")] = None,
    leverage: Annotated[float | None, typer.Option(help="such as 500")] = None,
    spread: Annotated[float | None, typer.Option(help="price units")] = None,
    commission: Annotated[float | None, typer.Option(help="per lot and side")] = None,
    slippage: Annotated[float | None, typer.Option(help="price units, at market fills")] = None,
    risk_pct: Annotated[float | None, typer.Option(help="of equity, lost at the stop; default: the profile's")] = None,
    no_swap: Annotated[bool, typer.Option("--no-swap", help="do not charge nights")] = False,
    profile: Annotated[int | None, typer.Option(min=1, max=5, help="risk profile 1 (careful) to 5")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="publish nothing; the report and the parameters are written here")] = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """After a retrain: prove, replay out of sample, publish, write strategy_params.json, and say what is left to you. Exit 3: refused."""
    from trademl.commands.backtest import ReplayFlags
    from trademl.commands.release import run_release

    asked = ReplayFlags(spread, commission, slippage, balance, leverage, risk_pct, False if no_swap else None, oos_only=True)
    record = run_release(revision, asked, profile=profile, symbol=symbol, models_dir=models_dir, dry_run=dry_run)
    if json:
        common.emit(record)
    else:
        marks = {"done": "[x]", "refused": "[!]", "left to you": "[ ]"}
        common.table([(marks[one["state"]], one["step"], one["detail"]) for one in record["checklist"]])
        print(record["headline"])
        print(f"report: {record['report']}")
    raise typer.Exit(record["exit"])
