"""`trademl onboard`: what stands between an approval on the hub and a bot that loads it."""

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
