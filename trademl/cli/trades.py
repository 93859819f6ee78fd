"""`trademl trades`: a bot's own decisions: look at its log, and at what the models see of it."""

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import common
from trademl.errors import UsageError

app = typer.Typer(no_args_is_help=True)

Records = Annotated[Path, typer.Argument(help="a JSON lines file (plain or gzip), or the folder that the bot writes to")]
ExcursionUnit = Annotated[str, typer.Option(help="what excursions are written in: auto, usd or pct")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


@app.callback()
def _trades() -> None:
    """A bot's own decisions."""


@app.command()
def doctor(path: Records, excursion_unit: ExcursionUnit = "auto", json: Json = False) -> None:
    """Say what is wrong with a bot's log. Exit 4 when it must not be trained on as it is."""
    from trademl.commands.trades import examine

    found = examine(path, excursion_unit)
    record = found.summary()
    if json:
        common.emit(record)
    else:
        _show(found)
    raise typer.Exit(record["exit"])


@app.command()
def train(
    data: Annotated[str, typer.Option(help="a JSON lines file (plain or gzip), or the folder that the bot writes to")],
    output: Annotated[str | None, typer.Option(help="a folder for a plain, unsigned copy of the models and reports")] = None,
    min_samples: Annotated[int, typer.Option(help="trades with an outcome, at least")] = 90,
    recency_decay: Annotated[float, typer.Option(help="the oldest trade counts exp(-decay) of the newest")] = 0.0,
    balance_assets: Annotated[bool, typer.Option("--balance-assets", help="rare assets count as much as common ones")] = False,
    real_only: Annotated[bool, typer.Option("--real-only", help="leave out what a generator wrote")] = False,
    parallel: Annotated[bool, typer.Option("--parallel", help="the four models at once, with the same result")] = False,
    bench_score_weight: Annotated[bool, typer.Option("--bench-score-weight", help="weigh trades by labels.benchScore")] = False,
    min_bench_score: Annotated[float | None, typer.Option(help="learn only from trades with this labels.benchScore")] = None,
    bench_score_quantile: Annotated[float | None, typer.Option(help="the same as a quantile of each fit's trades, 0 to 1")] = None,
    excursion_unit: ExcursionUnit = "auto",
    tune_hyperparams: Annotated[bool, typer.Option("--tune-hyperparams", help="search the boosters' parameters first")] = False,
    optuna_trials: Annotated[int | None, typer.Option(help="trials of each model's search; default: 50")] = None,
    select_features: Annotated[bool, typer.Option("--select-features", help="leave out features that only add noise")] = False,
    chain_quality: Annotated[bool, typer.Option("--chain-quality", help="position sizing sees what signal quality says")] = False,
    models_dir: Annotated[str | None, typer.Option(help="the store to use; default: models/trades")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of everything random")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    if_due: Annotated[bool, typer.Option("--if-due", help="train only when `trademl trades due` says so")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="say why each topic is advised or withheld")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="nothing on standard error on the way")] = False,
    json: Json = False,
) -> None:
    """A bot's log in; four models, a verified revision and an improvement report out. Exit 3: stored, but not to be used."""
    from trademl.commands.trades import run_train
    from trademl.device import notes
    from trademl.pipeline.trades import TradeFlags

    flags = TradeFlags(
        data=data,
        min_samples=min_samples,
        recency_decay=recency_decay,
        balance_assets=balance_assets,
        real_only=real_only,
        parallel=parallel,
        bench_score_weight=bench_score_weight,
        min_bench_score=min_bench_score,
        bench_score_quantile=bench_score_quantile,
        excursion_unit=excursion_unit,
        models_dir=models_dir,
        tune_hyperparams=tune_hyperparams,
        optuna_trials=optuna_trials,
        select_features=select_features,
        chain_quality=chain_quality,
    )
    summary = run_train({"run.seed": seed, "run.device": device}, flags, output, if_due=if_due, quiet=quiet)
    if json:
        common.emit(summary)
    else:
        print(summary["headline"])
        for line in _searched(summary.get("studies") or {}):
            print(f"  {line}")
        for topic, why in summary["advice"].items():
            print(f"  {topic:12} {why if verbose else why.split(':')[0]}")
        places = notes(summary.get("devices", {}))
        for line in filter(None, (summary["note"], *places, summary["report"] and f"report: {summary['report']}")):
            print(line)
    raise typer.Exit(summary["exit"])


@app.command()
def due(
    path: Records,
    min_samples: Annotated[int, typer.Option(help="closed trades of the last year, at least")] = 90,
    models_dir: Annotated[str | None, typer.Option(help="the store that knows of earlier trainings; default: models/trades")] = None,
    json: Json = False,
) -> None:
    """Say whether it is time to train again, and why. Exit 0 when it is, 3 when it is not."""
    from trademl.commands.trades import run_due
    from trademl.pipeline.trades import TradeFlags

    found = run_due(TradeFlags(str(path), min_samples=min_samples, models_dir=models_dir))
    if json:
        common.emit(found)
    else:
        print(f"{'train now' if found['is_due'] else 'not now'}: {found['reason']}")
        if found["is_tuning_suggested"]:
            print("500 trades or more have been closed since the parameters were last tuned")
    raise typer.Exit(found["exit"])


@app.command()
def shadow(
    log: Annotated[Path, typer.Option(help="the log of suggestions that `trademl.bot.ShadowLog` writes")],
    data: Annotated[Path, typer.Option(help="the bot's records: a JSON lines file, or the folder that it writes to")],
    revision: Annotated[str | None, typer.Option(help="whose suggestions, where the log holds several; its first characters do")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the intervals")] = None,
    json: Json = False,
) -> None:
    """Say what following a revision's suggestions would have earned. Exit 4 when the log cannot be judged."""
    from trademl.commands.shadow import run_shadow

    found = run_shadow(log, data, revision, seed=seed)
    if json:
        common.emit(found)
    else:
        _show_shadow(found)
    raise typer.Exit(found["exit"])


def _show_shadow(found: dict) -> None:
    counts = f"{found['suggestions']:,} suggestions, {found['joined']:,} joined with an outcome, {found['advised']:,} of these advised"
    print(f"revision {found['revision']}: {counts}")
    for one in found["unjoined"]:
        print(f"  {one['count']:,} not joined: {one['reason']} (first: line {one['first_line']})")
    for note in found["notes"]:
        print(f"  {note}")
    sizes = f"{found['larger']:,} larger, {found['smaller']:,} smaller, {found['left_out']:,} left out"
    print(f"sizes: {sizes}; {found['mean_ratio']:.2f} of the traded size in the mean\n")
    rows = [("as it was done", str(found["actual_r"]), f"{found['actual_usd']:+,.2f}")]
    rows += [("as suggested", str(found["suggested_r"]), f"{found['suggested_usd']:+,.2f}")]
    rows += [("difference", str(found["difference_r"]), f"{found['suggested_usd'] - found['actual_usd']:+,.2f}")]
    rows += [("of it, by choosing", str(found["choice_r"]), "")]
    common.table(rows, ("", "R a trade, net of fees", "USD in all"))
    if found["with_exit"]:
        print(f"{found['with_exit']:,} suggestions name a target or a stop too: a record cannot replay these")
    print(f"\n{found['sentence']}")


@app.command()
def features(
    asset: Annotated[list[str] | None, typer.Option(help="an asset of the training records; repeat it for each")] = None,
    typescript: Annotated[bool, typer.Option("--typescript", help="print the module for a bot in TypeScript")] = False,
    json: Json = False,
) -> None:
    """Print what the four models look at: where each feature comes from, and its place in each model's input."""
    from trademl.trades.registry import TradeModel, features_table, manifest, table_rows, typescript_table

    if typescript and json:
        raise UsageError("--typescript and --json are two forms of the same table; give one of them")
    assets = asset or []
    if json:
        models = [manifest(model, assets) for model in TradeModel]
        return common.emit({"status": "done", "exit": 0, "models": models, "features": table_rows(assets)})
    return print(typescript_table(assets) if typescript else features_table(assets))


def _searched(studies: dict) -> list[str]:
    """What was searched before anything was judged, a line each."""
    if "reason" in studies:
        return [studies["reason"]]
    parts = (("parameters of ", "hyperparameters"), ("features of ", "features"), ("", "failed"))
    return [f"{word}{model}: {one['reason']}" for word, part in parts for model, one in studies.get(part, {}).items()]


def _show(found) -> None:
    source, profile = found.report.source, found.profile
    files = f"{len(source.files):,} files, " if len(source.files) > 1 else ""
    print(f"{source.path}: {files}{source.lines:,} lines, {source.kept:,} records, {source.bad:,} bad, {source.repeats:,} repeated")
    for issue in found.report.issues:
        print(f"  {issue.severity:7}  {issue.kind:18}  {issue.message}")
        if issue.remedy:
            print(f"  {'':7}  {'':18}  -> {issue.remedy}")
    print(f"\n{profile.trades:,} trades ({profile.stopped:.0%} stopped out), {profile.avoided:,} decisions avoided")
    assets = [(f"  {name}", f"{count:,}", f"{trades:,}") for name, (count, trades) in profile.assets.items()]
    common.table(assets, ("  asset", "records", "trades"))
    print(f"{profile.unit.sentence}\n")
    models = [(f"  {rows.model}", f"{rows.rows:,}", "; ".join(filter(None, (rows.target, rows.obstacle)))) for rows in profile.models]
    common.table(models, ("  model", "rows", "target"))
    _show_columns(profile)
    for label in profile.labels:
        if label.differing:
            reason = f": {label.reason}" if label.reason else ""
            print(f"labels.{label.name} differs from what prices and money say in {label.differing:,} of {label.compared:,} trades{reason}")
    for refusal in found.refusals:
        print(f"must not be trained on: {refusal}")


def _show_columns(profile) -> None:
    print()
    for state, meaning in (("dead", "never filled"), ("sparse", "filled in under 20 % of the records"), ("constant", "never change")):
        columns = profile.columns_that_are(state)
        if columns:
            more = {"dead": "", "sparse": " ({:.0%})", "constant": " ({})"}[state]
            names = [column.path + more.format(column.filled if state == "sparse" else column.value) for column in columns]
            print(f"{meaning}: {', '.join(names)}")
    for smell in profile.smells:
        print(f"unit: {smell}")
