"""The thin shell: parse, call one library function, print, exit code. Heavy imports wait until a command runs."""

import sys

import typer

from trademl.cli import common, data, market, models, workbench
from trademl.errors import Exit, TradeMLError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="TradeML: honest labels, walk-forward judgement, verified revisions. It decides and advises; it never sends an order.",
)
app.command()(market.retrain)
app.command()(market.backtest)
app.command()(market.report)
app.add_typer(data.app, name="data", help="Look at, repair and import bars and calendars.")
app.add_typer(models.app, name="models", help="List, prove and activate stored revisions.")
app.add_typer(workbench.config, name="config", help="The settings and where each came from.")
app.command()(workbench.doctor)
app.command()(workbench.lab)


def main() -> None:
    """Run a command; a refusal is one plain sentence on standard error, and its exit code."""
    try:
        app()
    except TradeMLError as refusal:
        common.fail(str(refusal), refusal.exit_code)
    except KeyboardInterrupt:
        common.fail("interrupted; nothing that was stored before has changed", 130)
    except SystemExit as end:
        if end.code == Exit.USAGE and common.wants_json():
            common.emit({"status": "failed", "exit": int(Exit.USAGE), "error": "the command line cannot be understood; see standard error"})
        raise
    except BrokenPipeError:
        sys.exit(Exit.DONE)
