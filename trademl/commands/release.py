"""What `trademl release` does after a retrain: six steps, a checklist, and what only a person can do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from trademl.clock import utc_now
from trademl.commands.backtest import ReplayFlags, run_backtest
from trademl.commands.hub import Place, check_verdict, open_place
from trademl.commands.spine import REPORT, open_run
from trademl.errors import Exit
from trademl.files import write_json
from trademl.pipeline.choice import MarketFlags, open_store
from trademl.pipeline.market.pages import Pages
from trademl.pipeline.market.strategy import strategy_params
from trademl.pipeline.stored import Stored
from trademl.report import notebook_of, write_report
from trademl.runs import RunStatus
from trademl.settings import Settings, load_settings
from trademl.ship.revision import Revision
from trademl.ship.store import State, Store

PARAMS = "strategy_params.json"


@dataclass(frozen=True)
class Item:
    """One line of the checklist."""

    step: str
    state: str  # done, refused, left to you
    detail: str


def run_release(
    revision: str | None,
    asked: ReplayFlags,  # the account and costs of the backtest
    *,
    profile: int | None = None,
    symbol: str | None = None,
    models_dir: str | None = None,
    dry_run: bool = False,  # publish nothing
) -> dict:
    """Prove the revision, look at its heads, replay its final window, publish it, write its parameters, and say what is left.

    Exit 3 when its gate refused it: it is published as a candidate all the same. RevisionError for one that cannot be proven.
    """
    overrides = {"account.profile": profile}
    settings = load_settings(overrides)
    store = open_store(settings, symbol=symbol, models_dir=models_dir, revision=revision)
    found = store.locate(revision)
    items = [_proven(settings, found), *_heads(found)]
    replayed = run_backtest(overrides, MarketFlags(models_dir=str(store.models_dir)), asked, found.name)
    account = replayed.evidence.profile_account.sentence  # what the flags change
    items.append(Item("out of sample", "done" if found.gate_passed else "refused", f"{replayed.summary['sentence']} {account}"))
    place = None if settings.hub.url == "off" else open_place(models_dir=str(store.models_dir), revision=found.name)
    items.append(_published(place, found, dry_run))
    params = strategy_params(found)
    with open_run(settings, "release", {"revision": found.name, "models_dir": str(store.models_dir), "dry_run": dry_run}) as run:
        write_json(run.path / PARAMS, params)
        items.append(Item("parameters", "done", f"{PARAMS} in {run.final_path}: brackets, costs, margins and heads for the bot's operator"))
        items += _left(place, store, found)
        headline = f"Release of {found.name} ({found.line}): " + (
            "every step done" if found.gate_passed else "its gate refused it, a candidate"
        )
        run.record(revision=found.name)
        write_report(
            run.path / REPORT,
            _page(items, params, Pages(Stored(found), replayed.evidence)),
            headline=headline,
            facts={"revision": found.name, "line": found.line},
        )
        exit_code = Exit.DONE if found.gate_passed else Exit.GATE_REFUSED
        status = RunStatus.DONE if found.gate_passed else RunStatus.REFUSED
        folder = run.finish(status, exit=exit_code, message=headline)
    return {
        "run_id": run.run_id,
        "revision": found.name,
        "status": str(status),
        "exit": int(exit_code),
        "headline": headline,
        "checklist": [asdict(item) for item in items],
        "strategy_params": str(folder / PARAMS),
        "backtest_report": replayed.summary["backtest_report"],
        "report": str(folder / REPORT),
    }


def _proven(settings: Settings, found: Revision) -> Item:
    """Step 1: the manifest and everything that it binds together."""
    checks = found.verify()
    verdict = check_verdict(settings, found)
    return Item("manifest", "done", f"{len(checks)} checks passed, trained together as {found.manifest['trained_together']}; {verdict}")


def _heads(found: Revision) -> list[Item]:
    """Step 2: what sizes a trade under each profile."""
    entries: list[Mapping] = found.manifest["market"]["profiles"]
    published = [str(entry["profile"]) for entry in entries if entry["published"]]
    others: dict[str, list[str]] = {}  # profiles by verdict: often all five have the same
    for entry in entries:
        if not entry["published"]:
            others.setdefault(entry["verdict"], []).append(str(entry["profile"]))
    detail = f"published for profile {', '.join(published)}" if published else "no head is published: every trade at multiplier 1.0"
    return [Item("risk heads", "done", "; ".join((detail, *(f"profile {', '.join(who)}: {verdict}" for verdict, who in others.items()))))]


def _published(place: Place | None, found: Revision, dry_run: bool) -> Item:
    """Step 4: on the hub, as a candidate until somebody approves it."""
    if place is None:
        return Item("push", "left to you", "[hub] url = off: name a bucket or a folder, then `trademl hub push`")
    done = place.hub.push(found, now=utc_now(), dry_run=dry_run)
    sent = f"{'would send' if dry_run else 'sent'} {len(done.sent)} files, {done.bytes_sent:,} bytes"
    return Item("push", "done", f"{sent}, to {place.hub.objects.where}")


def _left(place: Place | None, store: Store, found: Revision) -> list[Item]:
    """Step 6: what only a person can do."""
    items = []
    standing = None if place is None else place.hub.standing()
    if standing is not None and standing.pointer.revision == found.name:
        items.append(Item("approval", "done", f"approval {standing.pointer.seq} by key {standing.pointer.approved_by}"))
    elif place is not None:
        reason = "" if found.gate_passed else " --reason TEXT"
        items.append(Item("approval", "left to you", f"read the page, then `trademl hub promote {found.name}{reason}`"))
    if store.state(found) is not State.ACTIVE:
        items.append(Item("activation here", "left to you", f"`trademl models activate {found.name}`, where a bot reads this folder"))
    items.append(Item("the bot", "left to you", "`trademl onboard --profile N` on its machine; paper trading first, then small"))
    return items


def _page(items: list[Item], params: Mapping, pages: Pages) -> dict:
    """The checklist, the parameters, and the trades."""
    rows = pd.DataFrame([asdict(item) for item in items]).set_index("step")
    profiles = pd.DataFrame(params["profiles"]).set_index("profile")
    page = notebook_of([("# Release\n\n> Six steps, and what is left to you.", [rows]), ("## What a bot is told, by profile", [profiles])])
    return {"cells": page["cells"] + pages.backtest()["cells"]}
