"""What the hub's commands do: which hub, which line, which keys; then one call. Needs nothing of the workbench, unless it publishes."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from trademl.clock import utc_now
from trademl.errors import Exit, HubError, RevisionError, SupersededError, UsageError
from trademl.pipeline.choice import open_store, store_folder, store_of
from trademl.settings import Settings, load_settings
from trademl.ship.collect import collect
from trademl.ship.hub.hub import Hub, Promotion
from trademl.ship.hub.objects import FolderObjects, Objects
from trademl.ship.hub.pointer import Channel
from trademl.ship.hub.pull import pull
from trademl.ship.hub.s3 import open_bucket
from trademl.ship.revision import Revision
from trademl.ship.signing import Trust, key_folder
from trademl.ship.store import Store


@dataclass(frozen=True)
class Place:
    """A market's room on the hub, and the local store that belongs to it."""

    settings: Settings
    store: Store
    hub: Hub


def open_place(symbol: str | None = None, models_dir: str | None = None, revision: str | None = None) -> Place:
    """The hub that the settings name, for the line that is meant: that of the store, else of the symbol. Sends nothing."""
    settings = load_settings()
    store = open_store(settings, symbol=symbol, models_dir=models_dir, revision=revision)
    lines = sorted({one.line for one in store.revisions()})
    if not lines and models_dir is None:
        store = store_of(settings, store_folder(settings, symbol or settings.market.symbol))
    line = lines[0] if lines else f"market-{(symbol or settings.market.symbol).lower()}-{settings.market.timeframe}"
    return Place(settings, store, open_hub(settings, line))


def open_hub(settings: Settings, line: str) -> Hub:
    """The hub under the keys that count here. UsageError where the settings name none, or no credentials are there."""
    folder = key_folder(settings.paths.keys)
    makers, words = folder.trust(), settings.hub.approvers
    approvers = makers if words == "auto" else replace(Trust.of(words.split()), signs_with=_private(folder))
    return Hub(_objects(settings), line, makers, approvers)


def _private(folder) -> Path | None:
    return folder.private if folder.signer() is not None else None


def _objects(settings: Settings) -> Objects:
    url, endpoint = settings.hub.url, settings.hub.endpoint
    if url == "off":
        raise UsageError("[hub] url = off: no hub is set; name a bucket (s3://BUCKET, with [hub] endpoint) or a folder in settings.ini")
    scheme, found, rest = url.partition("://")
    if not found:
        return FolderObjects(Path(url).expanduser())
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise UsageError(f"[hub] url = {url!r}: expected s3://BUCKET, the path of a folder, or off")
    return open_bucket(
        bucket, None if endpoint == "auto" else endpoint, region=settings.hub.region, prefix=f"{prefix.strip('/')}/" if prefix else ""
    )


# ---------------------------------------------------------------- one command each


def run_push(revision: str | None, symbol: str | None, models_dir: str | None, *, heal: bool = False, dry_run: bool = False) -> dict:
    """`trademl hub push`: the newest stored revision, or the one named."""
    place = open_place(symbol, models_dir, revision)
    found = place.store.locate(revision)
    check_verdict(place.settings, found)
    done = place.hub.push(found, now=utc_now(), heal=heal, dry_run=dry_run)
    sentence = (
        f"{'pushed' if done.is_done else 'would push'} {done.revision} to {place.hub.objects.where}: "
        f"{len(done.sent)} files, {done.bytes_sent:,} bytes; {done.present} were there"
    )
    return _said(place, asdict(done), sentence)


def run_promote(
    revision: str | None,
    symbol: str | None,
    models_dir: str | None,
    *,
    reason: str | None = None,
    renew: bool = False,
    seen: int | None = None,
    dry_run: bool = False,
) -> dict:
    """`trademl hub promote`: a published revision, default the candidate."""
    place = open_place(symbol, models_dir)
    name = _published_name(place.hub, revision)
    remarks = _judged_again(place, name)
    days = place.settings.hub.approval_days
    done = place.hub.promote(name, now=utc_now(), reason=reason, expires_days=days, renew=renew, seen=seen, dry_run=dry_run)
    return _said(place, asdict(done), _moved(done, dry_run), remarks)


def run_rollback(revision: str | None, reason: str, symbol: str | None, models_dir: str | None, *, dry_run: bool = False) -> dict:
    """`trademl hub rollback`: what was approved before, or the one named, under a higher number."""
    place = open_place(symbol, models_dir)
    done = place.hub.rollback(revision, now=utc_now(), reason=reason, expires_days=place.settings.hub.approval_days, dry_run=dry_run)
    return _said(place, asdict(done), _moved(done, dry_run))


def run_pull(symbol: str | None, models_dir: str | None, channel: str, *, dry_run: bool = False) -> dict:
    """`trademl hub pull`: what the channel names, into the store, proven; an approved one is active then."""
    place = open_place(symbol, models_dir)
    done = pull(place.hub, place.store, now=utc_now(), channel=channel, refuse_expired=place.settings.hub.refuse_expired, dry_run=dry_run)
    what = "would be active" if dry_run else "active" if done.activated else "stored, not active"
    sentence = f"{what}: {done.revision}, approval {done.seq} of {place.hub.line} ({done.fetched:,} bytes fetched)"
    if channel == Channel.CANDIDATE:
        sentence = (
            f"{'would be stored' if dry_run else 'stored'}: {done.revision}, the candidate of {place.hub.line}, never active by a pull"
        )
    return _said(place, asdict(done), sentence, done.remarks)


def run_log(symbol: str | None, models_dir: str | None, channel: str, last: int) -> dict:
    """`trademl hub log`: a channel's approvals, newest first."""
    place = open_place(symbol, models_dir)
    entries = place.hub.log(channel, last)[:last]
    rows = [{"key": one.key, "problem": one.problem} | (asdict(one.pointer) if one.pointer else {"seq": None}) for one in entries]
    return _said(place, {"channel": channel, "entries": rows}, f"{len(rows)} entries of channel {channel}, {place.hub.line}")


def run_verify(symbol: str | None, models_dir: str | None) -> dict:
    """`trademl hub verify`: every pointer, log entry and file of the line, read and proven."""
    place = open_place(symbol, models_dir)
    names, wrong = place.hub.verify()
    sentence = f"{len(names)} revisions of {place.hub.line}: " + (f"{len(wrong)} things are wrong" if wrong else "every check passed")
    return _said(place, {"revisions": names, "wrong": wrong, "ok": not wrong}, sentence)


def run_gc(symbol: str | None, models_dir: str | None, *, dry_run: bool = False) -> dict:
    """`trademl hub gc`: what nobody names and is old enough goes."""
    place = open_place(symbol, models_dir)
    terms = place.settings.hub
    done = place.hub.collect(now=utc_now(), grace=timedelta(hours=terms.grace_hours), keep=terms.keep, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    sentence = f"{verb} {len(done.revisions)} revisions and {done.blobs} files, {done.bytes_freed:,} bytes, of {place.hub.line}"
    return _said(place, asdict(done), sentence)


def run_models_gc(symbol: str | None, models_dir: str | None, *, dry_run: bool = False) -> dict:
    """`trademl models gc`: old revisions of the local store that neither it nor the hub's newest approvals name."""
    settings = load_settings()
    store = open_store(settings, symbol=symbol, models_dir=models_dir)
    terms, named = settings.hub, set()
    lines = sorted({one.line for one in store.revisions()})
    if terms.url != "off" and lines:
        named = open_hub(settings, lines[0]).named(terms.keep)
    done = collect(store, now=utc_now(), grace=timedelta(hours=terms.grace_hours), keep=terms.keep, named=named, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    sentence = f"{store.models_dir}: {verb} {len(done.revisions)} revisions, {done.bytes_freed:,} bytes; {done.kept} stay"
    return asdict(done) | {"models_dir": str(store.models_dir), "sentence": sentence}


# ---------------------------------------------------------------- a retrain publishes


@dataclass(frozen=True)
class Publication:
    """Where a retrain publishes, and what was approved when it began."""

    hub: Hub
    approval_days: int
    seen: int  # number of the approval that stood; 0: none

    def publish(self, store: Store, summary: dict, *, approves: bool = True) -> dict:
        """The run's summary with `hub`: pushed, and with `approves` approved where its gate passed and the key that signs here may.

        HubError carries what the run made: the revision is stored, whatever the hub answers.
        """
        name, now = summary["revision"], utc_now()
        try:
            push = self.hub.push(store.locate(name), now=now)
            seq, why = self._promote(name, now, store.locate(name).gate_passed, approves)
        except (HubError, RevisionError, UsageError) as refusal:
            error = HubError(f"{refusal}; revision {name} is stored here, and `trademl hub push {name}` publishes it")
            error.run = {key: summary[key] for key in ("run_id", "revision", "gate", "seconds", "report", "metrics")}
            raise error from refusal
        state = f"approval {seq}" if seq else f"a candidate: {why}"
        sentence = f"on {self.hub.objects.where}: {name} is {state} ({len(push.sent)} files, {push.bytes_sent:,} bytes sent)"
        told = {
            "hub": {"url": self.hub.objects.where, "seq": seq, "sent": len(push.sent), "bytes_sent": push.bytes_sent, "sentence": sentence}
        }
        return summary | told | ({"exit": int(Exit.GATE_REFUSED)} if seq is None and summary["exit"] == 0 and why == _LATE else {})

    def _promote(self, name: str, now: datetime, gate_passed: bool, approves: bool) -> tuple[int | None, str]:
        """(number of the approval, empty), or None and who or what stands against it."""
        if not gate_passed:
            return None, "its gate refused it"
        if not approves:
            return None, "another revision is active here; `trademl hub promote` decides"
        trust = self.hub.approvers
        if trust.signer() not in trust.pinned:
            return None, f"key {' or '.join(key.name for key in trust.pinned)} must approve it, by `trademl hub promote {name}`"
        try:
            done = self.hub.promote(name, now=now, expires_days=self.approval_days, renew=True, seen=self.seen)
        except SupersededError:
            return None, _LATE
        return done.seq, ""


_LATE = "somebody approved another one while it trained; `trademl hub log`, then `trademl hub promote`"


def open_publication(settings: Settings, line: str) -> Publication:
    """Asked before a run begins, so that a long training does not end at a wrong key. Raises HubError, UsageError."""
    hub = open_hub(settings, line)
    signer = hub.makers.signer()
    if signer is None or signer not in hub.makers.pinned:
        raise UsageError("no key signs here, and the hub takes signed revisions alone; `trademl keys new` makes one")
    standing = hub.standing()
    return Publication(hub, settings.hub.approval_days, standing.pointer.seq if standing else 0)


# ---------------------------------------------------------------- what they share


def _said(place: Place, record: dict, sentence: str, remarks: tuple[str, ...] | list[str] = ()) -> dict:
    return record | {"hub": place.hub.objects.where, "line": place.hub.line, "remarks": list(remarks), "sentence": sentence}


def _moved(done: Promotion, dry_run: bool) -> str:
    until = f", until {done.expires_at}" if done.expires_at else ""
    if dry_run:
        return f"would be approval {done.seq}: {done.revision} (before: {done.previous or 'none'}{until})"
    if not done.moved:
        return f"{done.revision} is approved already, as number {done.seq}{until}; --renew gives it another term"
    return f"approval {done.seq}: {done.revision} (before: {done.previous or 'none'}{until})"


def _published_name(hub: Hub, revision: str | None) -> str:
    """The whole name of a published revision; None: the candidate."""
    if revision is not None:
        return hub.find(revision)
    standing = hub.standing(Channel.CANDIDATE)
    if standing is None:
        raise HubError(f"{hub.objects.where}: nothing of the line {hub.line} was pushed yet; `trademl hub push` publishes")
    return standing.pointer.revision


def _judged_again(place: Place, name: str) -> list[str]:
    """Check the verdict where the revision is at hand; else say that it was not."""
    try:
        found = place.store.locate(name)
    except RevisionError:
        return [f"its verdict was not judged again: {name} is not in {place.store.models_dir} (`trademl hub pull --channel candidate`)"]
    check_verdict(place.settings, found)
    return []


def check_verdict(settings: Settings, revision: Revision) -> str:
    """Judge the trades again that a revision keeps, in words. RevisionError when its verdict does not follow from them."""
    from trademl.pipeline.choice import looks_file
    from trademl.pipeline.market import recompute
    from trademl.pipeline.stored import Stored
    from trademl.pipeline.trades import LINE
    from trademl.pipeline.trades import recompute as of_trades

    judge = of_trades if revision.line == LINE else recompute
    return judge.check_verdict(Stored(revision), looks_file(settings))
