"""`trademl tune signal` and `trademl tune position`: search the ensemble's settings on the tune window."""

from typing import Annotated

import typer

from trademl.cli import common
from trademl.cli.market import Bars, Json, ModelsDir, News, NoNews, Stamp, Symbol, Tz
from trademl.errors import Exit

app = typer.Typer(no_args_is_help=True)
Trials = Annotated[int | None, typer.Option(min=2, help="trials of each of the three models, those already made included")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes; give the same command again elsewhere to add more")]
Fresh = Annotated[bool, typer.Option("--fresh", help="set the study's journal aside and start anew")]
Seed = Annotated[int | None, typer.Option(help="seed of everything random")]


@app.callback()
def _tune() -> None:
    """Search the ensemble's settings on the tune window; the next retrain uses what beats the shipped ones by more than noise."""


@app.command()
def signal(
    trials: Trials = None,
    workers: Workers = None,
    bars: Bars = None,
    news: News = None,
    no_news: NoNews = False,
    symbol: Symbol = None,
    tz: Tz = None,
    stamp: Stamp = None,
    models_dir: ModelsDir = None,
    seed: Seed = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Search the signal's settings. Killed or interrupted: give the same command again, and it goes on."""
    where = {"bars": bars, "news": news, "no_news": no_news, "symbol": symbol, "models_dir": models_dir}
    _run("signal", {"tuning.trials": trials, "tuning.workers": workers, "run.seed": seed}, where, tz, stamp, fresh, json)


@app.command()
def position(
    trials: Trials = None,
    workers: Workers = None,
    bars: Bars = None,
    news: News = None,
    no_news: NoNews = False,
    symbol: Symbol = None,
    tz: Tz = None,
    stamp: Stamp = None,
    models_dir: ModelsDir = None,
    seed: Seed = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Search the position model's settings; tune the signal first, since it decides the entries."""
    where = {"bars": bars, "news": news, "no_news": no_news, "symbol": symbol, "models_dir": models_dir}
    _run("position", {"tuning.trials": trials, "tuning.workers": workers, "run.seed": seed}, where, tz, stamp, fresh, json)


def _run(role, overrides, where, tz, stamp, fresh: bool, json: bool) -> None:
    from trademl.market_jobs import run_tune

    summary = run_tune(role, overrides, where, tz=tz, stamp=stamp, fresh=fresh)
    if json:
        return common.emit(summary)
    print(summary["headline"])
    print(f"parameters: {summary['tuned']}")
    print(f"report: {summary['report']}")
    raise typer.Exit(Exit.DONE)
