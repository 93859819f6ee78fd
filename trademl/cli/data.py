"""`trademl data`: look at, repair and import bars and calendars, and make sample data."""

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import common
from trademl.errors import Exit, UsageError, choose

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="CSV, CSV.gz, Parquet or Feather: exchange, MetaTrader or generic")]
Kind = Annotated[str, typer.Option(help="auto, bars or news")]
Tz = Annotated[
    str | None, typer.Option(help="clock of the stamps: UTC, broker-eu, broker-us, Europe/Berlin, +02:00; wall:ZONE overrules the file")
]
Stamp = Annotated[str | None, typer.Option(help="what a stamp marks: open or close of its bar")]
Point = Annotated[float | None, typer.Option(help="price units of one point, for a spread in points")]
Symbol = Annotated[str | None, typer.Option(help="goes into the file and names it: btcusd_m15.parquet")]
Strict = Annotated[bool, typer.Option("--strict", help="refuse warnings too")]
Output = Annotated[Path | None, typer.Option(help="default: a Parquet file in the datasets folder")]
Replace = Annotated[bool, typer.Option("--replace", help="replace an output that holds something else")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done and write nothing")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


@app.command()
def check(
    file: File,
    kind: Kind = "auto",
    tz: Tz = None,
    stamp: Stamp = None,
    point: Point = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Read a file and say everything that was found. Exit 4 when it must not be trained on as it is."""
    found = _read(file, kind, tz, stamp, point, None, strict)
    record = _summary(found)
    if not found.is_clean:
        record |= {"status": "failed", "exit": int(Exit.BAD_DATA), "next": f"trademl data repair {file} --dry-run"}
    _show(record, found, json)
    raise typer.Exit(record["exit"])


@app.command("import")
def import_file(
    file: File,
    output: Output = None,
    kind: Kind = "auto",
    tz: Tz = None,
    stamp: Stamp = None,
    point: Point = None,
    symbol: Symbol = None,
    strict: Strict = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Convert a file into the canonical Parquet form in `datasets/` and print its hash. Errors in rows are refused."""
    found = _read(file, kind, tz, stamp, point, symbol, strict).require_clean()
    _store(found, output or _default_output(found, file, symbol), replace, dry_run, json)


@app.command()
def repair(
    file: File,
    output: Output = None,
    kind: Kind = "auto",
    tz: Tz = None,
    stamp: Stamp = None,
    point: Point = None,
    symbol: Symbol = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Leave out the rows that cannot be right, say which and why, and write the rest as `import` does."""
    found = _read(file, kind, tz, stamp, point, symbol, False)
    _store(found, output or _default_output(found, file, symbol), replace, dry_run, json)


@app.command()
def sample(
    output: Annotated[Path, typer.Option(help=".parquet, .feather, .csv or .csv.gz; the calendar goes beside it, as NAME_news")],
    bars: Annotated[int, typer.Option(min=1, max=5_000_000, help="number of 15-minute bars")] = 35_040,
    edge: Annotated[
        float, typer.Option(min=0, max=1, help="0 = nothing to find, 0.5 = clear, 1 = the best classifier is always right")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="equal seeds give equal bytes")] = 7,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a synthetic market with a known edge."""
    from trademl.data.bars import bars_hash, write_bars
    from trademl.data.news import news_hash, write_news
    from trademl.data.synthetic import synthetic_market

    market = synthetic_market(bars, edge, seed)
    news = output.with_name(output.name.replace(".", "_news.", 1))
    made = {"synthetic": True, "edge": edge, "seed": seed}
    record = {"status": "dry run" if dry_run else "done", "exit": 0, "bars": str(output), "rows": len(market.bars), "news": str(news)}
    record |= {"events": len(market.events), "sha256": bars_hash(market.bars), "news_sha256": news_hash(market.events)} | made
    if not dry_run:
        write_bars(market.bars, output, **made)
        write_news(market.events, news, **made)
    if json:
        return common.emit(record)
    verb = "would write" if dry_run else "wrote"
    print(f"{verb} {record['rows']:,} bars to {output} (sha256 {record['sha256'][:16]})")
    print(f"{verb} {record['events']:,} events to {news} (sha256 {record['news_sha256'][:16]})")
    return None


def _read(file: Path, kind: str, tz, stamp, point, symbol, strict):
    """A BarsReport or a NewsReport."""
    from trademl.data.calendar import is_calendar
    from trademl.data.tables import read_names

    choose(("auto", "bars", "news"), kind, "--kind")
    if kind == "news" or (kind == "auto" and is_calendar(read_names(file))):
        from trademl.data.news import read_news

        return read_news(file, tz=tz, strict=strict)
    from trademl.data.bars import read_bars

    return read_bars(file, tz=tz, stamp=stamp, strict=strict, symbol=symbol, point=point)


def _default_output(found, file: Path, symbol: str | None) -> Path:
    from trademl.settings import load_settings

    stem = file.name.split(".")[0].lower()
    name = f"{symbol.lower()}_m15" if symbol and hasattr(found, "bars") else stem
    return Path(load_settings().paths.datasets) / f"{name}.parquet"


def _store(found, output: Path, replace: bool, dry_run: bool, json: bool) -> None:
    """Write a report's frame, unless the same is there already; UsageError when something else is and --replace was not given."""
    from trademl.data.bars import write_bars
    from trademl.data.news import write_news
    from trademl.errors import BadDataError

    record = _summary(found) | {"output": str(output)}
    if output.exists() and not replace:
        try:
            stored = _read(output, "auto", None, None, None, None, False).sha256
        except BadDataError:
            stored = ""
        if stored != found.sha256:
            raise UsageError(f"{output} exists and holds something else; say --replace, or name another --output")
        record["status"] = "unchanged"
    elif dry_run:
        record["status"] = "dry run"
    else:
        (write_bars if hasattr(found, "bars") else write_news)(_frame(found), output, found.source)
    _show(record, found, json)


def _frame(found):
    return found.bars if hasattr(found, "bars") else found.events


def _summary(found) -> dict:
    """What a report says, as one record."""
    from dataclasses import asdict

    from trademl.clock import iso_z

    frame = _frame(found)
    times = frame.index if hasattr(found, "bars") else frame["time"]
    return {
        "status": "done",
        "exit": 0,
        "kind": "bars" if hasattr(found, "bars") else "news",
        "rows": len(frame),
        "first": iso_z(times[0] if hasattr(found, "bars") else times.iloc[0]),
        "last": iso_z(times[-1] if hasattr(found, "bars") else times.iloc[-1]),
        "sha256": found.sha256,
        "source": asdict(found.source),
        "issues": [asdict(issue) for issue in found.issues],
    }


def _show(record: dict, found, json: bool) -> None:
    if json:
        return common.emit(record)
    print(f"{record['source']['path']}: {record['rows']:,} {'bars' if record['kind'] == 'bars' else 'events'},", end=" ")
    print(f"{record['first']} to {record['last']}, clock {record['source']['tz']}")
    for issue in found.issues:
        print(f"  {issue.severity:7}  {issue.kind:17}  {issue.message}")
        if issue.remedy:
            print(f"  {'':7}  {'':17}  -> {issue.remedy}")
    print(f"sha256 {record['sha256']}")
    if "output" in record:
        verb = {"done": "wrote", "dry run": "would write", "unchanged": "already in"}[record["status"]]
        print(f"{verb} {record['output']}")
    if "next" in record:
        print(f"next: {record['next']}")
    return None
