"""What the studies of a store found: `tuned.json`, one section per role, written by a study and read by the next retrain."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from trademl.errors import BadDataError
from trademl.files import jsonable, write_json
from trademl.market.tuning import Role

SCHEMA = 1
TUNED = "tuned.json"


def tuned_file(models_dir: str | Path) -> Path:
    """Where the verdicts are, for the next retrain."""
    return Path(models_dir) / TUNED


def write_tuned(models_dir: str | Path, role: Role, section: Mapping) -> dict:
    """Put a role's verdict into the store's `tuned.json`, the other role's stays; returns the section as written."""
    path = tuned_file(models_dir)
    with FileLock(path.parent / "studies" / "tuned.flock"):
        record = read_tuned(models_dir) | {"schema": SCHEMA, str(role): jsonable(section)}
        write_json(path, record)
    return record[str(role)]


def read_tuned(models_dir: str | Path) -> dict:
    """The store's `tuned.json`; {} when there is none. BadDataError when it cannot be read."""
    path = tuned_file(models_dir)
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadDataError(f"{path} cannot be read ({error}); {_REMEDY}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BadDataError(f"{path} is not what `trademl tune` of this version writes; {_REMEDY}")
    for role in Role:
        if record.get(role) is not None and (wrong := _misshapen(record[role])):
            raise BadDataError(f"{path} is not what `trademl tune` of this version writes ({role}.{wrong}); {_REMEDY}")
    return record


_REMEDY = (
    "delete it: a retrain then takes the settings' own parameters, and `trademl tune signal` and `trademl tune position` write it anew "
    "from the trials that they have"
)
_SHAPE = {"adopted": bool, "why": str, "values": dict, "line": str, "label_spec": str, "feature_hash": str} | {
    "settings_hash": str, "lineage": list, "at": str, "log_loss": dict, "data": dict,
}  # fmt: skip


def _misshapen(section) -> str:
    """The first thing that a role's section lacks or holds in another kind; empty when it is whole."""
    if not isinstance(section, dict):
        return f" holds {type(section).__name__}"
    for name, kind in _SHAPE.items():
        if not isinstance(section.get(name), kind):
            return f"{name} = {section.get(name)!r}, expected {kind.__name__}"
    loss = section["log_loss"]
    lacking = [name for name in ("best", "shipped") if not is_number(loss.get(name))]
    return f"log_loss.{lacking[0]} = {loss.get(lacking[0])!r}, expected a number" if lacking else ""


def is_number(value) -> bool:
    """Whether a value out of JSON is a finite number (and not a boolean)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Tuned:
    """What a retrain made of the store's studies: per role whether it is used, and why."""

    used: Mapping[str, bool]
    why: Mapping[str, str]
    sections: Mapping[str, Mapping]

    @property
    def sentence(self) -> str:
        """One line for the output."""
        return "; ".join(f"{role}: {self.why[role]}" for role in self.why)

    def record(self) -> dict:
        """For the manifest's key `tuning`."""
        kept = ("values", "log_loss", "gain", "trials", "data", "tune_window", "lineage", "seed", "at")
        return {
            role: {"used": self.used[role], "why": self.why[role]}
            | ({"study": {key: self.sections[role].get(key) for key in kept}} if role in self.sections else {})
            for role in self.why
        }
