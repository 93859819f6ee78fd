"""What `trademl onboard` does: everything that a regular user needs between an approval on the hub and a bot that loads it."""

import os
import re
from pathlib import Path

from trademl.bot import Expect, load_approved
from trademl.clock import utc_now
from trademl.commands.hub import Place, open_place
from trademl.errors import UsageError
from trademl.files import write_atomically
from trademl.pipeline.contract import label_spec
from trademl.risk.profiles import profile as profile_of
from trademl.settings import FILE_VARIABLE, load_settings
from trademl.ship.hub.pull import pull


def run_onboard(profile: int | None, symbol: str | None, models_dir: str | None, *, dry_run: bool = False) -> dict:
    """Pull what is approved, prove it, load it as the bot will, and only then write the profile into the settings."""
    place = open_place(symbol, models_dir)
    number = profile_of(place.settings.account.profile if profile is None else profile).number
    now, terms = utc_now(), place.settings.hub
    done = pull(place.hub, place.store, now=now, refuse_expired=terms.refuse_expired, dry_run=dry_run)
    record = {"revision": done.revision, "seq": done.seq, "line": place.hub.line, "profile": number, "hub": place.hub.objects.where}
    record |= {"models_dir": str(place.store.models_dir), "fetched": done.fetched, "remarks": list(done.remarks)}
    record |= {"settings": str(settings_file()), "dry_run": dry_run, "checks": [], "head": None, "margin_r": None, "code": None}
    if dry_run:
        return record | {"sentence": f"would pull {done.revision} of {place.hub.line} and write profile {number} into {settings_file()}"}
    checks = place.store.locate(done.revision).verify()
    loaded = _load(place, number)
    if profile is not None:
        write_profile(settings_file(), number)
        if load_settings().account.profile != number:
            origin = load_settings().origin["account.profile"]
            record["remarks"].append(f"profile {number} was written, and {origin} says {load_settings().account.profile} and wins")
    return record | {
        "checks": [{"name": one.name, "ok": one.ok, "detail": one.detail} for one in checks],
        "head": loaded["head"],
        "margin_r": loaded["margin_r"],
        "code": loaded["code"],
        "sentence": f"a bot may load {done.revision} of {place.hub.line} under profile {number}: {len(checks)} checks passed",
    }


def _load(place: Place, profile: int) -> dict:
    """Load as a bot does, and say what it got: the head that sizes, the margin, and the lines that load it. Raises LoadError."""
    revision = place.store.active()
    symbol, keys = revision.manifest["symbols"][0], [str(key) for key in place.hub.makers.pinned]
    predictor = load_approved(place.store.models_dir, keys, profile=profile, expect=Expect(symbol, label_spec(place.settings)))
    head = predictor.loaded.head
    entry = next((one for one in revision.manifest["market"]["profiles"] if one["profile"] == profile), None)
    why = "none is kept" if entry is None else entry["verdict"]
    return {
        "head": "sizes every trade" if head is not None else f"multiplier 1.0: {why}",
        "margin_r": revision.manifest["market"]["decision"]["margins"][str(profile)]["margin_r"],
        "code": f'load_approved({str(place.store.models_dir)!r}, {keys!r}, profile={profile}, expect=Expect("{symbol}"))',
    }


# ---------------------------------------------------------------- one line of settings.ini


def settings_file() -> Path:
    """The file of this folder's own settings: what TRADEML_SETTINGS names, else settings.ini."""
    return Path(os.environ.get(FILE_VARIABLE) or "settings.ini")


def write_profile(path: Path, profile: int) -> None:
    """Set `[account] profile` in a settings file, every other line as it was; a file that is not there is made. Raises UsageError."""
    text = path.read_text("utf8") if path.exists() else ""
    written = with_setting(text, "account", "profile", str(profile))
    try:
        write_atomically(path, written.encode())
    except OSError as refusal:
        raise UsageError(f"{path}: cannot be written ({refusal.strerror}); set [account] profile = {profile} by hand") from refusal


def with_setting(text: str, section: str, key: str, value: str) -> str:
    """The text of a settings file with one value set; comments and order are kept."""
    lines, inside, begin = text.splitlines(), None, None
    for number, line in enumerate(lines):
        header = re.fullmatch(r"\s*\[(.+)\]\s*", line)
        inside = header[1] if header else inside
        if header and inside == section:
            begin = number
        elif inside == section and re.match(rf"{re.escape(key)}\s*[=:]", line.strip()):
            return _text([*lines[:number], f"{key} = {value}", *lines[number + 1 :]])
    if begin is not None:
        return _text([*lines[: begin + 1], f"{key} = {value}", *lines[begin + 1 :]])
    return _text([*lines, *([""] if lines else []), f"[{section}]", f"{key} = {value}"])


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
