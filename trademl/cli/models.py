"""`trademl models`: list, show, verify, activate, compare and collect stored revisions."""

import re
from dataclasses import asdict
from typing import Annotated

import typer

from trademl.cli import common
from trademl.clock import iso_z, utc_now
from trademl.errors import Exit, RevisionError

app = typer.Typer(no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]
Symbol = Annotated[str | None, typer.Option(help="the market whose store is meant; default: as retrain chooses")]
ModelsDir = Annotated[str | None, typer.Option(help="the store to use; default: the market's own")]
Name = Annotated[str | None, typer.Argument(help="a revision, or the start of its name; default: the newest")]


@app.command("list")
def list_revisions(symbol: Symbol = None, models_dir: ModelsDir = None, json: Json = False) -> None:
    """Stored revisions, newest first, with their state."""
    store = _store(symbol, models_dir)
    found, broken = store.scan()
    rows = [_line_of(store, _stored(revision)) for revision in found]
    record = {
        "models_dir": str(store.models_dir),
        "revisions": rows,
        "broken": [{"folder": str(one.folder), "problem": one.problem, "is_old": one.is_old} for one in broken],
    }
    if json:
        return common.emit(record)
    lines = f", {', '.join(sorted({row['line'] for row in rows}))}" if rows else "; `trademl retrain` makes one"
    print(f"{store.models_dir}: {len(rows)} revision{'' if len(rows) == 1 else 's'}{lines}")
    common.table([_shown(row) for row in rows], header=_HEADER if rows else ())
    for one in broken:
        print(f"{'old' if one.is_old else 'not readable'}: {one.folder.name}: {one.problem}")
    return None


@app.command()
def show(revision: Name = None, symbol: Symbol = None, models_dir: ModelsDir = None, json: Json = False) -> None:
    """What a revision is: its manifest, and what it may be used for."""
    store = _store(symbol, models_dir, revision)
    stored = _stored(store.open(revision))
    if json:
        return common.emit(_line_of(store, stored) | {"folder": str(stored.revision.folder), "manifest": stored.revision.manifest})
    common.table(list(_facts(store, stored).items()))
    print()
    return common.table([(file.name, f"{file.size:,}", file.sha256[:16]) for file in stored.files], ("file", "bytes", "sha256"))


@app.command()
def verify(revision: Name = None, symbol: Symbol = None, models_dir: ModelsDir = None, json: Json = False) -> None:
    """Prove a revision: signature, manifest, files, hashes, graphs, golden rows, and its verdict from its own trades. Exit 1 if wrong."""
    store = _store(symbol, models_dir, revision)
    found = store.locate(revision)
    done = found.checks()
    if done[-1].ok:
        done = [*done, _verdict_check(_stored(found))]
    whole = done[-1].ok
    record = {
        "revision": found.name,
        "ok": whole,
        "exit": int(Exit.DONE if whole else Exit.FAILED),
        "checks": [{"name": one.name, "ok": one.ok, "detail": one.detail} for one in done],
    }
    if json:
        common.emit(record)
    else:
        common.table([("ok" if one.ok else "WRONG", one.name, one.detail) for one in done])
        print(f"{found.name}: {'every check passed' if whole else 'do not use it; checks after the failed one were not made'}")
    raise typer.Exit(record["exit"])


@app.command()
def activate(
    revision: Annotated[str, typer.Argument(help="a stored revision, or the start of its name")],
    reason: Annotated[str | None, typer.Option(help="why; a candidate takes one, and it stands in the pointer")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything and move nothing")] = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Prove a revision and let the pointer name it: what a bot on this machine loads next."""
    store = _store(symbol, models_dir, revision)
    done = store.activate(revision, reason, dry_run=True)  # what is missing is asked for before anything is computed
    verdict = _verdict_check(_stored(store.open(revision)))
    if not verdict.ok:
        raise RevisionError(verdict.detail)
    if not dry_run:
        with store.lock():
            done = store.activate(revision, reason)
    record = {"revision": done.revision, "previous": done.previous, "by": done.by, "reason": done.reason, "moved": done.moved}
    if json:
        return common.emit(record)
    return print(f"{'active' if done.moved else 'would be active'}: {done.revision} (before: {done.previous or 'none'})")


@app.command()
def contract(name: Annotated[str, typer.Argument(help="manifest, pointer, signature, log, account (JSON Schemas) or registry")]) -> None:
    """What readers in other languages hold on to, as one JSON document."""
    from trademl.bot.contract import contract as document

    common.emit(document(name))


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="a revision")],
    other: Annotated[str, typer.Argument(help="another one")],
    everything: Annotated[bool, typer.Option("--all", help="show the details of files and lineage too")] = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """What two revisions are, and where their manifests differ."""
    from trademl.ship.manifest import differences

    store = _store(symbol, models_dir, one)
    left, right = store.open(one), store.open(other)
    found = differences(left.manifest, right.manifest)
    if json:
        return common.emit({"one": left.name, "other": right.name, "differences": [{"key": k, "one": a, "other": b} for k, a, b in found]})
    if not found:
        return print(f"{left.name} and {right.name} are the same")
    for revision in (left, right):
        print(f"{revision.name}  {_start_of(_stored(revision))}\n{'':18}{_verdict_of(_stored(revision))}")
    shown = [row for row in found if everything or not _DETAIL.match(row[0])]
    common.table([(key, _short(key, a), _short(key, b)) for key, a, b in shown], ("key", left.name, right.name))
    if len(shown) < len(found):
        print(f"and {len(found) - len(shown)} details of files and lineage (--all shows them)")
    return None


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and remove nothing")] = False,
    symbol: Symbol = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Remove revisions older than [hub] grace_hours, beyond the newest [hub] keep, that nothing here or on the hub names."""
    from trademl.commands.hub import run_models_gc

    record = run_models_gc(symbol, models_dir, dry_run=dry_run)
    if json:
        return common.emit(record)
    for name in record["revisions"]:
        print(name)
    return print(record["sentence"])


def _store(symbol: str | None, models_dir: str | None, revision: str | None = None):
    """The store that is meant, by the rule of every command."""
    from trademl.pipeline.choice import open_store
    from trademl.settings import load_settings

    return open_store(load_settings(), symbol=symbol, models_dir=models_dir, revision=revision)


def _verdict_check(stored):
    """Whether the verdict follows from the trades that the revision keeps."""
    from trademl.commands.hub import check_verdict
    from trademl.settings import load_settings
    from trademl.ship.revision import Check

    try:
        return Check("verdict", True, check_verdict(load_settings(), stored.revision))
    except RevisionError as refusal:
        return Check("verdict", False, str(refusal))


def _stored(revision):
    from trademl.pipeline.stored import Stored

    return Stored(revision)


def _line_of(store, stored) -> dict:
    expired = stored.expires_at is not None and stored.expires_at <= iso_z(utc_now())
    return {
        "revision": stored.name,
        "state": f"{store.state(stored.revision)}{', expired' if expired else ''}",
        "trained_at": stored.revision.trained_at,
        "line": stored.line,
        "gate": _gate_note(stored),
        "leaks": stored.leaks.note,
        **asdict(stored.score),
        "models": "+".join(model.name for model in stored.models),
    }


_HEADER = ("revision", "state", "trained at", "gate", "trades", "expectancy R", "bound", "log loss", "prior", "leaks")


def _shown(row: dict) -> tuple:
    """A revision's row of the table; the figures that it does not have are dashes."""
    figures = [_number(row[name], form) for name, form in _FIGURES.items()]
    return (row["revision"], row["state"], row["trained_at"], row["gate"], *figures, row["leaks"])


_FIGURES = {"trades": ",", "expectancy_r": "+.3f", "bound_r": "+.3f", "log_loss": ".4f", "prior_log_loss": ".4f"}


def _number(value, form: str) -> str:
    return "-" if value is None else format(value, form)


def _score_of(stored) -> dict:
    score = {name: _number(value, _FIGURES[name]) for name, value in asdict(stored.score).items()}
    worth = f"{score['expectancy_r']} R net of cost on {score['trades']} trades, lower bound {score['bound_r']} at {_level(stored)}"
    return {"expectancy": worth, "log loss": f"{score['log_loss']} on final, class prior {score['prior_log_loss']}"}


def _level(stored) -> str:
    return f"{100 * stored.gate.level:.2g} %"


def _facts(store, stored) -> dict:
    return {
        "revision": stored.name,
        "state": store.state(stored.revision),
        "line": stored.line,
        "trained at": stored.revision.trained_at,
        "expires at": stored.expires_at or "never",
        "gate": _gate_note(stored) + (": " if stored.gate.reasons else "") + "; ".join(stored.gate.reasons),
        **_score_of(stored),
        "look": "; ".join((stored.look.words, *stored.look.remarks)),
        "leaks": "; ".join(stored.leaks.sentences),
        "signature": _signature_of(stored.revision),
        "trained together": stored.run_id,
        "models": ", ".join(f"{model.name} ({'+'.join(model.members) or model.format})" for model in stored.models),
        **_learned_from(stored),
        "code": stored.code,
        "folder": stored.revision.folder,
    }


def _learned_from(stored) -> dict:
    """What it was trained on."""
    told = f"{stored.data.rows:,} from {stored.data.first} to {stored.data.last}"
    if not stored.line.startswith("market-"):
        return {"records": told}
    return {"features": len(stored.feature_names), "label spec": stored.label_spec_hash[:16], "bars": told}


def _gate_note(stored) -> str:
    """The verdict and the level it was reached at; settings looser than the limits are named."""
    words = "passed" if stored.gate.passed else "refused"
    note = ", judged looser than the limits" if stored.gate.is_loose else ""
    stands = " (stands)" if stored.look.standing else ""
    return f"{words} at {_level(stored)}{stands}{note}"


def _signature_of(revision) -> str:
    try:
        return revision.check_signature()
    except RevisionError as refusal:
        return f"REFUSED: {refusal}"


def _start_of(stored) -> str:
    return stored.start.why if stored.line.startswith("market-") else "trained from nothing, as every trade revision"


def _verdict_of(stored) -> str:
    return stored.headline or ("gate passed" if stored.gate.passed else "gate refused")


_DETAIL = re.compile(
    r"files\.|models\..*\.sha256$|lineage\..*\.(kind|name|revision|rows)$|gate\.(reasons|sentence)$|market\.warmstart\.why$"
)


def _short(key: str, value) -> str:
    if key.endswith("_s") and type(value) is int:
        value = iso_z(value)
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 48 else f"{text[:45]}..."
