"""`trademl hub`: publish, approve, pull and put back what bots load."""

from typing import Annotated

import typer

from trademl.cli import common
from trademl.errors import Exit, choose

app = typer.Typer(no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check everything and change nothing")]
Symbol = Annotated[str | None, typer.Option(help="the market that is meant; default: as retrain chooses, else settings.ini's")]
ModelsDir = Annotated[str | None, typer.Option(help="the local store; default: the market's own")]
ChannelName = Annotated[str, typer.Option("--channel", help="approved or candidate")]


@app.command()
def push(
    revision: Annotated[str | None, typer.Argument(help="a stored revision, or the start of its name; default: the newest")] = None,
    heal: Annotated[bool, typer.Option("--heal", help="replace a file on the hub that is not what its name says")] = False,
    dry_run: DryRun = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Publish a stored revision as the candidate; what lies there already is not sent again."""
    from trademl.commands.hub import run_push

    _say(run_push(revision, symbol, models_dir, heal=heal, dry_run=dry_run), json)


@app.command()
def promote(
    revision: Annotated[str | None, typer.Argument(help="a published revision, or the start of its name; default: the candidate")] = None,
    reason: Annotated[str | None, typer.Option(help="why; a revision that its gate refused takes one, and it is kept")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="give the approved revision another term")] = False,
    seen: Annotated[int | None, typer.Option(min=0, help="number of the approval that you saw; a newer one ends this with exit 3")] = None,
    dry_run: DryRun = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Approve a published revision: what every bot pulls next. Exit 3: somebody else was first, nothing was written."""
    from trademl.commands.hub import run_promote

    _say(run_promote(revision, symbol, models_dir, reason=reason, renew=renew, seen=seen, dry_run=dry_run), json)


@app.command()
def pull(
    channel: ChannelName = "approved",
    dry_run: DryRun = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Fetch what is approved, prove it on this machine, and make it what a bot here loads."""
    from trademl.commands.hub import run_pull

    _say(run_pull(symbol, models_dir, _channel(channel), dry_run=dry_run), json)


@app.command()
def rollback(
    revision: Annotated[str | None, typer.Argument(help="which one; default: the one approved before the present one")] = None,
    reason: Annotated[str, typer.Option(help="why; it stands in the log")] = "",
    dry_run: DryRun = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Approve an earlier revision again, under a higher number; nothing is deleted."""
    from trademl.commands.hub import run_rollback

    _say(run_rollback(revision, reason, symbol, models_dir, dry_run=dry_run), json)


@app.command()
def log(
    channel: ChannelName = "approved",
    last: Annotated[int, typer.Option(min=1, help="so many, newest first")] = 20,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Who approved what, and when."""
    from trademl.commands.hub import run_log

    record = run_log(symbol, models_dir, _channel(channel), last)
    if json:
        return common.emit(record)
    good = [one for one in record["entries"] if not one["problem"]]
    rows = [
        (one["seq"], one["approved_at"], one["revision"], one["approved_by"], one["expires_at"] or "-", one["reason"] or "-")
        for one in good
    ]
    common.table(rows, ("number", "approved at", "revision", "by key", "until", "reason"))
    for one in record["entries"]:
        if one["problem"]:
            print(f"not believed: {one['key']}: {one['problem']}")
    return print(record["sentence"])


@app.command()
def verify(symbol: Symbol = None, models_dir: ModelsDir = None, json: Json = False) -> None:
    """Read and prove everything of a line that lies on the hub. Exit 1: something is wrong."""
    from trademl.commands.hub import run_verify

    record = run_verify(symbol, models_dir)
    record["exit"] = int(Exit.DONE if record["ok"] else Exit.FAILED)
    if json:
        common.emit(record)
    else:
        for sentence in (*record["wrong"], record["sentence"]):
            print(sentence)
    raise typer.Exit(record["exit"])


@app.command()
def gc(dry_run: DryRun = False, symbol: Symbol = None, models_dir: ModelsDir = None, json: Json = False) -> None:
    """Remove from the hub what no pointer and none of the newest approvals names, once it is old enough ([hub] keep, grace_hours)."""
    from trademl.commands.hub import run_gc

    _say(run_gc(symbol, models_dir, dry_run=dry_run), json)


def _channel(name: str) -> str:
    from trademl.ship.hub.pointer import Channel

    return choose(Channel, name, "--channel")


def _say(record: dict, json: bool) -> None:
    if json:
        return common.emit(record)
    for sentence in (record["sentence"], *record["remarks"]):
        print(sentence)
    return None
