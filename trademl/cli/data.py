"""`trademl data`: look at, repair and import bars and calendars, and make sample data: a market, or a bot's trade records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import common
from trademl.errors import Exit, UsageError, choose

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="CSV, JSON (plain, gzip, zip), Parquet or Feather: exchange, MetaTrader, calendar or generic")]
Kind = Annotated[str, typer.Option(help="auto, bars or news")]
Tz = Annotated[
    str | None, typer.Option(help="clock of the bars: UTC, broker-eu, broker-us, Europe/Berlin, +02:00; wall:ZONE overrules the file")
]
NewsTz = Annotated[str | None, typer.Option(help="clock of the calendar, in the same words")]
News = Annotated[Path | None, typer.Option(help="a calendar to test the bars' clock with: prices move at releases")]
TrustClock = Annotated[bool, typer.Option("--trust-clock", help="keep a clock that closes or releases disprove")]
AllowFlat = Annotated[bool, typer.Option("--allow-flat", help="keep eight or more bars in a row without volume and range")]
Stamp = Annotated[str | None, typer.Option(help="what a stamp marks: open or close of its bar")]
Point = Annotated[float | None, typer.Option(help="price units of one point, for a spread in points")]
Symbol = Annotated[str | None, typer.Option(help="whose bars; default: a column of the file says it, else unknown")]
Strict = Annotated[bool, typer.Option("--strict", help="refuse warnings too")]
Output = Annotated[Path | None, typer.Option(help="default: a Parquet file in the datasets folder, named by --symbol or like the file")]
Replace = Annotated[bool, typer.Option("--replace", help="replace an output that holds something else")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done and write nothing")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


@dataclass(frozen=True)
class Reading:
    """How a file is to be read."""

    kind: str = "auto"
    tz: str | None = None
    news_tz: str | None = None
    news: Path | None = None
    trust_clock: bool = False
    allow_flat: bool = False
    stamp: str | None = None
    point: float | None = None
    symbol: str | None = None
    strict: bool = False


@app.command()
def check(
    file: File,
    kind: Kind = "auto",
    tz: Tz = None,
    news_tz: NewsTz = None,
    news: News = None,
    trust_clock: TrustClock = False,
    allow_flat: AllowFlat = False,
    stamp: Stamp = None,
    point: Point = None,
    symbol: Symbol = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Read a file and say everything that was found. Exit 4 when it must not be trained on as it is."""
    found, events = _read_both(file, Reading(kind, tz, news_tz, news, trust_clock, allow_flat, stamp, point, symbol, strict))
    if hasattr(found, "bars"):
        from trademl.pipeline.data_check import report_leaks

        found = report_leaks(found, events)
    record = _summary(found)
    if not found.is_clean:
        mends = any(issue.severity == "error" and issue.kind != "leak" for issue in found.issues)
        record |= {"status": "failed", "exit": int(Exit.BAD_DATA)}
        record |= {"next": f"trademl data repair {file} --dry-run"} if mends else {}
    _show(record, found, json)
    raise typer.Exit(record["exit"])


@app.command("import")
def import_file(
    file: File,
    output: Output = None,
    kind: Kind = "auto",
    tz: Tz = None,
    news_tz: NewsTz = None,
    news: News = None,
    trust_clock: TrustClock = False,
    allow_flat: AllowFlat = False,
    stamp: Stamp = None,
    point: Point = None,
    symbol: Symbol = None,
    strict: Strict = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Convert a file into the canonical Parquet form in `datasets/` and print its hash. Errors in rows are refused."""
    found = _read(file, Reading(kind, tz, news_tz, news, trust_clock, allow_flat, stamp, point, symbol, strict)).require_clean()
    _store(found, output or _default_output(found, file, symbol), replace, dry_run, json)


@app.command()
def repair(
    file: File,
    output: Output = None,
    kind: Kind = "auto",
    tz: Tz = None,
    news_tz: NewsTz = None,
    news: News = None,
    trust_clock: TrustClock = False,
    allow_flat: AllowFlat = False,
    stamp: Stamp = None,
    point: Point = None,
    symbol: Symbol = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Leave out the rows that cannot be right, say which and why, and write the rest as `import` does."""
    found = _read(file, Reading(kind, tz, news_tz, news, trust_clock, allow_flat, stamp, point, symbol))
    _store(found, output or _default_output(found, file, symbol), replace, dry_run, json)


@app.command()
def sample(
    output: Annotated[
        Path, typer.Option(help=".parquet, .feather, .csv or .csv.gz, the calendar beside it as NAME_news; .jsonl with --records")
    ],
    bars: Annotated[int | None, typer.Option(min=1, max=5_000_000, help="number of 15-minute bars; default 35,040, a year")] = None,
    records: Annotated[int | None, typer.Option(min=1, max=5_000_000, help="in place of bars: number of a bot's trade records")] = None,
    edge: Annotated[
        float, typer.Option(min=0, max=1, help="0 = nothing to find, 0.5 = clear, 1 = the best classifier is always right")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="equal seeds give equal bytes")] = 7,
    generation: Annotated[str | None, typer.Option(help="form of the records: live (default), older or mixed")] = None,
    excursion_unit: Annotated[str | None, typer.Option(help="usd or pct; default: what that form of the record has")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a synthetic market, or with --records a bot's log, with a known edge."""
    if records is not None:
        if bars is not None:
            raise UsageError("--bars and --records make two different files; give one of them")
        return _sample_records(output, records, edge, seed, generation, excursion_unit, dry_run, json)
    if generation or excursion_unit:
        raise UsageError("--generation and --excursion-unit say how records are written; give --records N with them")
    from trademl.data.bars import bars_hash, write_bars
    from trademl.data.news import news_hash, write_news
    from trademl.data.synthetic import synthetic_market

    market = synthetic_market(bars or 35_040, edge, seed)
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
    if edge:
        print("the volume tells the outcome on purpose: a leak for `data check` and the gate, unless --symbol SYNTH")
    return None


def _sample_records(output: Path, n: int, edge: float, seed: int, generation: str | None, unit: str | None, dry_run: bool, json: bool):
    from trademl.data.record_maker import Generation, make_records, write_records

    if output.suffix != ".jsonl":
        raise UsageError(f"{output}: records are JSON lines; the name must end in .jsonl")
    made = make_records(n, edge, seed, unit, generation or Generation.LIVE)
    record = {"status": "dry run" if dry_run else "done", "exit": 0, "records": str(output), "rows": len(made)}
    record |= {"trades": int(made.is_traded.sum()), "synthetic": True, "edge": edge, "seed": seed}
    record |= {"generation": made.generation, "excursion_unit": made.unit}
    if not dry_run:
        write_records(made, output)
    if json:
        return common.emit(record)
    verb = "would write" if dry_run else "wrote"
    print(f"{verb} {record['rows']:,} records to {output}: {record['trades']:,} trades, excursions in {made.unit}")
    return None


def _read(file: Path, how: Reading):
    """A BarsReport or a NewsReport."""
    return _read_both(file, how)[0]


def _read_both(file: Path, how: Reading):
    """(BarsReport or NewsReport, events of the calendar that the bars' clock was tested with, or None)."""
    from trademl.data.calendar import is_calendar
    from trademl.data.news import read_news
    from trademl.data.tables import read_names

    choose(("auto", "bars", "news"), how.kind, "--kind")
    if how.kind == "news" or (how.kind == "auto" and is_calendar(read_names(file))):
        if how.tz:
            raise UsageError(f"{file.name} is a calendar, and --tz is the clock of bars; give --news-tz {how.tz}")
        return read_news(file, tz=how.news_tz, strict=how.strict, trust_clock=how.trust_clock), None
    from trademl.data.bars import read_bars

    accept = [word for word, given in (("clock", how.trust_clock), ("flat", how.allow_flat)) if given]
    report = read_bars(file, tz=how.tz, stamp=how.stamp, strict=how.strict, symbol=how.symbol, point=how.point, accept=accept)
    if how.news is None:
        return report, None
    from trademl.data.releases import prove_bars_clock

    calendar = read_news(how.news, tz=how.news_tz).require_clean()
    return prove_bars_clock(report, calendar, trust_clock=how.trust_clock), calendar.events


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
            stored = _read(output, Reading()).sha256
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
    bars_only = {"symbol": found.symbol or None, "timeframe": found.timeframe} if hasattr(found, "bars") else {}
    return {
        "status": "done",
        "exit": 0,
        "kind": "bars" if hasattr(found, "bars") else "news",
        **bars_only,
        "rows": len(frame),
        "first": iso_z(times[0] if hasattr(found, "bars") else times.iloc[0]),
        "last": iso_z(times[-1] if hasattr(found, "bars") else times.iloc[-1]),
        "sha256": found.sha256,
        "source": asdict(found.source),
        "issues": [asdict(issue) for issue in found.issues],
        **({"gaps": [asdict(gap) for gap in found.gaps]} if hasattr(found, "bars") else {}),
    }


def _show(record: dict, found, json: bool) -> None:
    if json:
        return common.emit(record)
    print(f"{record['source']['path']}: {record['rows']:,} {'bars' if record['kind'] == 'bars' else 'events'},", end=" ")
    symbol = f", symbol {record['symbol'] or 'unknown'}" if "symbol" in record else ""
    print(f"{record['first']} to {record['last']}, clock {record['source']['tz']}{symbol}")
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
