"""A stored revision as records. Who wants to know something of a stored revision asks here, or, of how it decides, in `bot/`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from trademl.errors import RevisionError
from trademl.evidence.shap_summary import ShapSummary
from trademl.files import strict_json
from trademl.market.specs import CostSpec, LabelSpec
from trademl.pipeline.judged_rows import JudgedRows
from trademl.ship.contents import JUDGED_ROWS, SHAP_SUMMARY
from trademl.ship.manifest import model_of
from trademl.ship.revision import Revision
from trademl.ship.store import Store
from trademl.validate.lineage import Lineage
from trademl.validate.splits import Span, Window, Windows

_NOT_FIELDS = ("hash", "dynamic_sltp_required")  # what stands in `label_spec` beside the contract's fields


@dataclass(frozen=True)
class StoredData:
    """The data that a revision was trained on."""

    rows: int
    first: str  # UTC, ISO 8601 with Z
    last: str
    sha256: str
    news_sha256: str | None = None
    source: str | None = None  # name of the file
    prints: str | None = None  # fingerprints of its prices
    embedded: bool = False  # the market that the generator makes
    symbol: str | None = None  # what the data say of themselves, or "unknown"; None: an earlier trademl did not ask


@dataclass(frozen=True)
class StoredGate:
    """The gate's verdict."""

    passed: bool
    reasons: tuple[str, ...]
    sentence: str
    level: float  # at which it was judged
    number: int  # the k-th recipe that looked at these days
    is_loose: bool  # settings looser than the limits: a candidate, whatever it shows


@dataclass(frozen=True)
class StoredLook:
    """Its place in the project's chain of looks."""

    number: int  # the k-th recipe that looked at these days
    level: float
    days: Span  # that were judged, decision times
    family_level: float  # chance that any of the first `number` recipes passes, were all worthless
    project: str
    words: str  # for a headline
    hash: str  # of its line in the chain
    record: str  # of the line that opened its recipe's record
    standing: Mapping | None  # the verdict that it repeats: at_utc, passed, words, sentence; None: it was judged itself
    remarks: tuple[str, ...]

    def summary(self) -> dict:
        """For a command's object."""
        standing = self.standing and self.standing["words"]
        return {"number": self.number, "level": self.level, "standing": standing, "family_level": self.family_level}


@dataclass(frozen=True)
class StoredStart:
    """How the training began: from nothing or from a parent."""

    start: str  # cold or warm
    why: str
    generation: int  # warm starts in a row
    log_loss: Mapping[str, Mapping[str, float]]  # window -> candidate -> value; empty where there was one candidate


@dataclass(frozen=True)
class StoredLeaks:
    """What a run found of columns that know the future."""

    alarms: tuple[str, ...]  # one sentence each
    accepted: str | None  # the reason of --accept-leak
    is_planted: bool  # the embedded market
    sentences: tuple[str, ...]  # what a person is told
    figures: Mapping  # `market.leaks` of the manifest; empty where nothing was looked for

    @property
    def note(self) -> str:
        """A word for a list of revisions."""
        if not self.figures:
            return "not looked for"
        if not self.alarms:
            return "none"
        count = f"{len(self.alarms)} alarm{'' if len(self.alarms) == 1 else 's'}"
        return f"{count}, planted" if self.is_planted else f"{count}, accepted: {self.accepted}" if self.accepted else count


@dataclass(frozen=True)
class StoredModel:
    """One graph."""

    name: str
    role: str
    members: tuple[str, ...]
    format: str


@dataclass(frozen=True)
class StoredScore:
    """What it showed on its judged days; None: an earlier trademl did not write it down, or there is no such figure."""

    trades: int | None
    expectancy_r: float | None  # mean R net of cost
    bound_r: float | None  # its lower bound, at the gate's level
    log_loss: float | None  # of the signal on final
    prior_log_loss: float | None  # of the class shares that were known before


@dataclass(frozen=True)
class StoredFile:
    """One file."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Stored:
    """A stored revision, its manifest read as records. RevisionError where the manifest says what this code cannot mean."""

    revision: Revision

    @property
    def _manifest(self) -> Mapping:
        return self.revision.manifest

    # ---------------------------------------------------------------- any pipeline

    @property
    def name(self) -> str:
        """16 hex."""
        return self.revision.name

    @property
    def store(self) -> Store:
        """The store that holds it."""
        return Store(self.revision.folder.parents[1], self.revision.trust)

    @property
    def line(self) -> str:
        """The line that it belongs to, such as market-btcusd-15min."""
        return self._manifest["line"]

    @property
    def symbol(self) -> str:
        """The symbol, as the settings name it; of a market revision, which has one."""
        return self._manifest["symbols"][0]

    @property
    def run_id(self) -> str:
        """`training_run_id` of the run that trained its models, 16 hex."""
        return self._manifest["trained_together"]

    @property
    def parent(self) -> str | None:
        """The revision that it continues or whose models it keeps."""
        return self._manifest["parent"]

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self._manifest["seed"]

    @property
    def code(self) -> str:
        """What trained it: version and commit."""
        commit, changed = self._manifest["git_commit"], " (changed)" if self._manifest["dirty"] else ""
        return f"trademl {self._manifest['trademl_version']}, {f'commit {commit}{changed}' if commit else 'not from a clone'}"

    @property
    def data(self) -> StoredData:
        """The data that it was trained on."""
        record = self._manifest["data"]
        return StoredData(**{name: record[name] for name in StoredData.__dataclass_fields__ if name in record})

    @property
    def gate(self) -> StoredGate:
        """The gate's verdict."""
        gate = self._manifest["gate"]
        said = gate["passed"], tuple(gate["reasons"]), gate["sentence"], gate["level"], gate["terms"]["number"]
        return StoredGate(*said, is_loose=not gate["checks"]["limits"]["passed"])

    @property
    def terms(self) -> Mapping:
        """What the gate was asked."""
        return self._manifest["gate"]["terms"]

    @property
    def look(self) -> StoredLook:
        """Its look at the days that it was judged on."""
        look = self._manifest["look"]
        names = ("number", "level", "family_level", "words", "project", "hash", "record", "standing")
        return StoredLook(days=Span(*look["days"]), remarks=tuple(look["remarks"]), **{name: look[name] for name in names})

    @property
    def figures(self) -> Mapping:
        """What the manifest repeats of `metrics.json`."""
        return self._manifest["metrics"]

    @property
    def score(self) -> StoredScore:
        """What it showed on its judged days."""
        trades, signal = (self.figures.get(part, {}) for part in ("trades_summary", "signal_summary"))
        bound = self._manifest["gate"]["checks"].get("expectancy_lower_bound_r", {}).get("value")
        losses = signal.get("log_loss"), signal.get("prior_log_loss")
        return StoredScore(trades.get("trades"), trades.get("expectancy_net_r"), bound, *losses)

    @property
    def headline(self) -> str | None:
        """The report's first line, without the revision's name."""
        return self.figures.get("headline")

    @cached_property
    def metrics(self) -> dict:
        """`metrics.json`."""
        return json.loads(self.revision.read("metrics.json"))

    @property
    def models(self) -> tuple[StoredModel, ...]:
        """Its graphs."""
        return tuple(StoredModel(m["name"], m["role"], tuple(m["members"]), m["format"]) for m in self._manifest["models"])

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Its files, by name."""
        return tuple(StoredFile(entry["name"], entry["bytes"], entry["sha256"]) for entry in self._manifest["files"])

    def holds(self, file: str) -> bool:
        """Whether it has this file."""
        return any(entry["name"] == file for entry in self._manifest["files"])

    def read(self, file: str) -> bytes:
        """A file's bytes, hash checked. Raises RevisionError."""
        return self.revision.read(file)

    @property
    def golden_file(self) -> str:
        """Name of the file with the golden rows."""
        return self._manifest["golden"]["file"]

    @property
    def lineage(self) -> Lineage:
        """Every fit behind its models. RevisionError when a note cannot be read."""
        return Lineage.from_json(json.dumps(self._manifest["lineage"]))

    @property
    def devices(self) -> Mapping:
        """Where each model was trained, by role and model."""
        return self._manifest[self._manifest["pipeline"]]["devices"]

    @property
    def expires_at(self) -> str | None:
        """From when on it is neither activated nor loaded; None: never."""
        return self._manifest["expires_at"]

    # ---------------------------------------------------------------- what explains it

    @property
    def is_explained(self) -> bool:
        """Whether it keeps its judged rows and its SHAP summary; not with --no-shap, nor from before."""
        return self.holds(JUDGED_ROWS) and self.holds(SHAP_SUMMARY)

    @cached_property
    def judged_rows(self) -> JudgedRows:
        """The rows that its recipe was judged on: features, times, windows. RevisionError where it keeps none."""
        return JudgedRows.from_bytes(self._explaining(JUDGED_ROWS), len(self.feature_names))

    @cached_property
    def shap_summary(self) -> ShapSummary:
        """What drove its recipe's answers. RevisionError where it keeps none."""
        try:
            return ShapSummary.from_json(strict_json(self._explaining(SHAP_SUMMARY)))
        except ValueError as refusal:
            raise RevisionError(f"revision {self.name}: shap_summary.json cannot be read ({refusal}); retrain") from refusal

    def _explaining(self, file: str) -> bytes:
        if not self.is_explained:
            raise RevisionError(
                f"revision {self.name} keeps no judged rows to explain: it was made with --no-shap or by an earlier trademl; "
                "a plain `trademl retrain` makes one that does"
            )
        return self.read(file)

    # ---------------------------------------------------------------- market

    @property
    def _market(self) -> Mapping:
        return self._manifest["market"]

    @property
    def _signal(self) -> Mapping:
        return model_of(self._manifest, "signal")

    @cached_property
    def label_spec(self) -> LabelSpec:
        """The contract that it was made under. RevisionError when this code reads another one out of it."""
        from trademl.bot.records import label_spec_of  # brings all that a bot needs, which few commands do

        return label_spec_of(self.revision)

    @property
    def label_spec_hash(self) -> str:
        """Hash of the contract, 64 hex."""
        return self._market["label_spec"]["hash"]

    @property
    def label_spec_fields(self) -> dict:
        """The contract's fields as they stand, for those who name what differs."""
        return {key: value for key, value in self._market["label_spec"].items() if key not in _NOT_FIELDS}

    @property
    def costs(self) -> CostSpec:
        """What a trade cost when it was judged."""
        from trademl.bot.records import costs_of

        return costs_of(self.revision)

    @property
    def recipe(self) -> dict:
        """What makes its recipe this one and no other."""
        return dict(self._market["recipe"])

    @property
    def judged_profile(self) -> int:
        """The profile whose margin its decisions were judged under."""
        return self._market["decision"]["judged_profile"]

    @property
    def edge_found(self) -> bool:
        """Whether select found a margin with a positive expectancy for that profile."""
        return self._market["decision"]["margins"][str(self.judged_profile)]["edge_found"]

    @property
    def windows(self) -> Windows:
        """Train, tune, select and final, without rows."""
        split = self._manifest["split"]
        spans = (split["windows"][window] for window in Window)
        return Windows(*(Span(span["start_s"], span["end_s"]) for span in spans), split["embargo"])

    @property
    def embargo_s(self) -> int:
        """Distance between the last label seen and the first bar judged, seconds."""
        return self._manifest["split"]["embargo"]

    @property
    def refits(self) -> tuple[int, ...]:
        """When the walk-forward refitted, epoch seconds."""
        return tuple(self._manifest["split"]["refits"])

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The signal's features in the order of its columns."""
        return tuple(feature["name"] for feature in self._signal["features"])

    @property
    def feature_hash(self) -> str:
        """Hash of order, definitions and price grid of the features."""
        return self._signal["feature_hash"]

    @property
    def constant_features(self) -> tuple[str, ...]:
        """Features that never changed in its bars."""
        return tuple(self._market.get("constant_features", ()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The signal's classes in the order of its answer."""
        return tuple(self._signal["classes"])

    @property
    def parameters(self) -> Mapping:
        """The signal ensemble's parameters."""
        return self._market["ensemble"]

    @property
    def start(self) -> StoredStart:
        """How its signal's training began."""
        record = self._market["warmstart"]
        return StoredStart(record["start"], record["why"], record["generation"], record.get("log_loss") or {})

    @property
    def leaks(self) -> StoredLeaks:
        """What its run found of leaks; a revision from before says nothing."""
        record = self._manifest.get("market", {}).get("leaks", {})  # nothing is looked for in trade records
        return StoredLeaks(
            tuple(record.get("alarms", ())),
            record.get("accepted"),
            record.get("planted", False),
            tuple(record.get("sentences", ("no leak was looked for",))),
            record,
        )

    @property
    def studies(self) -> dict[str, str]:
        """Role -> what became of its study, where there was one."""
        return {role: part["why"] for role, part in self._market.get("tuning", {}).items() if "study" in part}
