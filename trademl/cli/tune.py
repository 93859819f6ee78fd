"""`trademl tune signal` and `trademl tune position`: search the ensemble's settings on the tune window."""

from typing import Annotated, Literal

import typer

from trademl.cli import common
from trademl.cli.market import AllowFlat, Bars, Json, ModelsDir, News, NewsTz, NoNews, Quiet, Seed, Stamp, Strict, Symbol, TrustClock, Tz
from trademl.errors import Exit

Of = Annotated[Literal["signal", "position"], typer.Argument(help="the signal first: it decides where the position model's trades begin")]
Trials = Annotated[int | None, typer.Option(min=2, help="trials of each of the three models, those already made included")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes; give the same command again elsewhere to add more")]
Fresh = Annotated[bool, typer.Option("--fresh", help="set the study's journal aside and start anew")]


def tune(
    role: Of,
    trials: Trials = None,
    workers: Workers = None,
    bars: Bars = None,
    news: News = None,
    no_news: NoNews = False,
    symbol: Symbol = None,
    tz: Tz = None,
    news_tz: NewsTz = None,
    stamp: Stamp = None,
    strict: Strict = False,
    trust_clock: TrustClock = False,
    allow_flat: AllowFlat = False,
    models_dir: ModelsDir = None,
    seed: Seed = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Search a model's settings; the next retrain uses what beats the shipped ones by more than noise. Killed: run it again, it goes on."""
    from trademl.commands.market import run_tune
    from trademl.pipeline.choice import MarketFlags

    overrides = {"tuning.trials": trials, "tuning.workers": workers, "run.seed": seed}
    flags = MarketFlags(bars, news, no_news, symbol, models_dir, tz, stamp, strict, news_tz, trust_clock, allow_flat)
    summary = run_tune(role, overrides, flags, fresh=fresh, quiet=quiet)
    if json:
        return common.emit(summary)
    print(summary["headline"])
    if summary["unknown_symbol"]:
        print(summary["unknown_symbol"])
    print(f"parameters: {summary['tuned']}")
    print(f"report: {summary['report']}")
    raise typer.Exit(Exit.DONE)
