"""`trademl retrain`, `trademl backtest`, `trademl report`: the market pipeline's commands."""

from typing import Annotated

import typer

from trademl.cli import common

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]
Bars = Annotated[str | None, typer.Option(help="bars file (canonical or unambiguous); default: settings.ini, else the embedded market")]
News = Annotated[str | None, typer.Option(help="calendar file")]
NoNews = Annotated[bool, typer.Option("--no-news", help="train without a calendar: features 52-55 are constant, and the revision says so")]
Symbol = Annotated[str | None, typer.Option(help="a symbol of settings.ini (its section symbol.X): costs, lots, price grid")]
Seed = Annotated[int | None, typer.Option(help="seed of everything random")]
Profile = Annotated[int | None, typer.Option(min=1, max=5, help="risk profile 1 (careful) to 5")]
ModelsDir = Annotated[str | None, typer.Option(help="the store to use; default: the market's own")]
Tz = Annotated[str | None, typer.Option(help="clock of the bars file: an IANA name, an offset, broker-eu or broker-us")]
NewsTz = Annotated[str | None, typer.Option(help="clock of the calendar file, in the same words")]
TrustClock = Annotated[bool, typer.Option("--trust-clock", help="keep a clock that closes or releases disprove")]
AllowFlat = Annotated[bool, typer.Option("--allow-flat", help="keep eight or more bars in a row without volume and range")]
Stamp = Annotated[str | None, typer.Option(help="open or close: what the bars' time stamp means")]
Strict = Annotated[bool, typer.Option("--strict", help="refuse where a warning would be given")]
Quiet = Annotated[bool, typer.Option("--quiet", help="nothing on standard error on the way: no bar, no line a stage")]
RevisionName = Annotated[str | None, typer.Option("--revision", help="a stored revision (or the start of its name); default: the newest")]


def retrain(
    ensemble: Annotated[bool, typer.Option("--ensemble", help="train the signal ensemble (only together with --position)")] = False,
    position: Annotated[bool, typer.Option("--position", help="train the position model (only together with --ensemble)")] = False,
    risk: Annotated[bool, typer.Option("--risk", help="train the risk heads; alone: beside the newest signal and position")] = False,
    no_warmstart: Annotated[bool, typer.Option("--no-warmstart", help="train from nothing, whatever is active")] = False,
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
    accept_leak: Annotated[str | None, typer.Option(help="why a leak alarm does not refuse the gate; stays in the manifest")] = None,
    profile: Profile = None,
    edge: Annotated[float | None, typer.Option(min=0, max=1, help="edge of the embedded market: 0 nothing to find, 0.5 clear")] = None,
    models_dir: ModelsDir = None,
    seed: Seed = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda (ROCm builds too); what a GPU cannot do is done on the CPU")] = None,
    shap: Annotated[bool, typer.Option("--shap/--no-shap", help="explain the judged models, and keep what `explain` needs")] = True,
    shap_only: Annotated[bool, typer.Option("--shap-only", help="train nothing: explain the newest stored revision")] = False,
    push_to_hub: Annotated[
        bool, typer.Option("--push-to-hub", help="publish what was stored, and approve it if its gate passed and your key may")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Bars in, a verified revision, a true backtest and a report out. Exit 3: stored, but the gate refused it."""
    from trademl.commands.market import retrain_by_flags
    from trademl.device import notes

    summary = retrain_by_flags(
        ensemble=ensemble,
        position=position,
        risk=risk,
        no_warmstart=no_warmstart,
        bars=bars,
        news=news,
        no_news=no_news,
        symbol=symbol,
        tz=tz,
        news_tz=news_tz,
        stamp=stamp,
        strict=strict,
        trust_clock=trust_clock,
        allow_flat=allow_flat,
        accept_leak=accept_leak,
        profile=profile,
        edge=edge,
        models_dir=models_dir,
        seed=seed,
        device=device,
        shap=shap,
        shap_only=shap_only,
        push_to_hub=push_to_hub,
        quiet=quiet,
    )
    if shap_only:
        from trademl.cli.explain import tell

        return tell(dict.fromkeys(common.RETRAIN_KEYS) | summary, json=json)
    if json:
        common.emit(summary)
    else:
        print(summary["headline"])
        more = (summary["unknown_symbol"], summary["start"], summary["constant"], *summary["leaks"], *summary["tuning"])
        for sentence in filter(None, (*more, *notes(summary["devices"]))):
            print(sentence)
        if push_to_hub:
            print(summary["hub"]["sentence"])
        print(f"report: {summary['report']}")
    raise typer.Exit(summary["exit"])


def report(
    revision: RevisionName = None,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    profile: Profile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the report of a stored revision again, from what the revision itself holds."""
    from trademl.commands.market import run_report

    summary = run_report({"account.profile": profile}, revision, symbol=symbol, models_dir=models_dir, quiet=quiet)
    if json:
        return common.emit(summary)
    print(summary["headline"])
    return print(f"report: {summary['report']}")


def backtest(
    balance: Annotated[float | None, typer.Option(help="start, account currency")] = None,
    leverage: Annotated[float | None, typer.Option(help="such as 500")] = None,
    spread: Annotated[float | None, typer.Option(help="price units: 16.95 is 16.95 dollars on one bitcoin")] = None,
    commission: Annotated[float | None, typer.Option(help="per lot and side")] = None,
    slippage: Annotated[float | None, typer.Option(help="price units, at market fills")] = None,
    risk_pct: Annotated[float | None, typer.Option(help="of equity, lost at the stop; default: the profile's")] = None,
    no_swap: Annotated[bool, typer.Option("--no-swap", help="do not charge nights")] = False,
    oos_only: Annotated[
        bool, typer.Option("--oos-only", help="the final window, by the probabilities given then: the default without --bars")
    ] = False,
    in_sample: Annotated[bool, typer.Option("--in-sample", help="allow bars that the models saw; the report is watermarked")] = False,
    rule: Annotated[str | None, typer.Option(help="expected_r or votes")] = None,
    bars: Bars = None,
    news: News = None,
    no_news: NoNews = False,
    tz: Tz = None,
    news_tz: NewsTz = None,
    stamp: Stamp = None,
    strict: Strict = False,
    trust_clock: TrustClock = False,
    allow_flat: AllowFlat = False,
    no_chart: Annotated[bool, typer.Option("--no-chart", help="figures only, no report.html")] = False,
    revision: RevisionName = None,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """Replay a stored revision under any account, cost or profile: its final window, or with --bars what came later."""
    from trademl.commands.backtest import backtest_by_flags

    summary = backtest_by_flags(
        revision,
        balance=balance,
        leverage=leverage,
        spread=spread,
        commission=commission,
        slippage=slippage,
        risk_pct=risk_pct,
        no_swap=no_swap,
        oos_only=oos_only,
        in_sample=in_sample,
        rule=rule,
        bars=bars,
        news=news,
        no_news=no_news,
        tz=tz,
        news_tz=news_tz,
        stamp=stamp,
        strict=strict,
        trust_clock=trust_clock,
        allow_flat=allow_flat,
        no_chart=no_chart,
        symbol=symbol,
        models_dir=models_dir,
        profile=profile,
    ).summary
    if json:
        return common.emit(summary)
    common.table(summary["table"])
    print(summary["sentence"])
    if summary["unknown_symbol"]:
        print(summary["unknown_symbol"])
    print(f"figures: {summary['backtest_report']}")
    if summary.get("report"):
        print(f"report: {summary['report']}")
    return None
