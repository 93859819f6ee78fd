"""The thin shell: parse, call one library function, print, exit code. Heavy imports wait until a command runs."""

import traceback
from typing import Annotated

import typer

from trademl import __version__
from trademl.cli import common, data, explain, hub, keys, market, models, ship, trades, tune, workbench
from trademl.errors import Exit, TradeMLError

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # every command below inherits them
    pretty_exceptions_enable=False,
    help="TradeML: honest labels, walk-forward judgement, verified revisions. It decides and advises; it never sends an order.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"trademl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")] = False,
) -> None:
    """Options that stand before a command."""


app.command()(market.retrain)
app.command()(market.backtest)
app.command()(market.report)
app.command()(explain.explain)
app.command()(tune.tune)
app.add_typer(data.app, name="data", help="Look at, repair and import bars and calendars; make sample data.")
app.add_typer(trades.app, name="trades", help="Look at a bot's own decisions, and at what models see of them.")
app.add_typer(models.app, name="models", help="List, prove and activate stored revisions.")
app.add_typer(keys.app, name="keys", help="The pair that signs revisions, and whose signatures count.")
app.add_typer(hub.app, name="hub", help="Publish, approve, pull and put back what bots load.")
app.add_typer(workbench.config, name="config", help="The settings and where each came from.")
app.command()(ship.release)
app.command()(ship.onboard)
app.command()(workbench.doctor)
app.command(context_settings={"allow_extra_args": True})(workbench.lab)


def main() -> None:
    """Run a command; a refusal is one plain sentence on standard error, and its exit code."""
    common.print_anywhere()
    try:
        code = app(standalone_mode=False, prog_name="trademl")
    except TradeMLError as refusal:
        _fail(refusal, str(refusal), refusal.exit_code)
    except BrokenPipeError:
        common.leave(Exit.DONE)
    except OSError as error:
        _fail(error, f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", Exit.FAILED)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for a command line that it cannot read
            traceback.print_exc()
            _fail(error, f"{type(error).__name__}: {error}. This is a fault in TradeML; nothing that was stored has changed", Exit.FAILED)
        _misread(error)
    if code == Exit.INTERRUPTED:
        common.fail("interrupted; nothing that was stored before has changed", Exit.INTERRUPTED, status="interrupted")
    common.leave(code if isinstance(code, int) else Exit.DONE)


def _fail(error: Exception, sentence: str, code: int) -> None:
    common.fail(sentence, code, **getattr(error, "run", {}))


def _misread(error: Exception) -> None:
    """A command line that cannot be read: what is wrong, and where the help is. A bare `trademl` is shown the help itself."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        common.leave(Exit.USAGE)
    said = " ".join(error.format_message().replace("Value error, ", "").replace("Input should be", "must be").split()).rstrip(".")
    help_of = f"{'' if said.endswith('?') else ';'} `{context.command_path} --help` shows what it takes" if context else ""
    common.fail(said + help_of, error.exit_code)
