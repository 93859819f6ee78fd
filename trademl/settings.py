"""Frozen run settings and where each value came from.

Order: the shipped settings.ini < a settings.ini in the working folder (or the file that TRADEML_SETTINGS names)
< environment variables TRADEML_<SECTION>_<KEY> < flags. A later file may hold only what it changes.
"""

import configparser
import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_args

from trademl.errors import UsageError

PREFIX = "TRADEML_"
FILE_VARIABLE = "TRADEML_SETTINGS"


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; with `above`, `low` itself is left out. What is not a number lies nowhere."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"must be above {self.low} and at most {self.high}" if self.above else f"must lie between {self.low} and {self.high}"


@dataclass(frozen=True)
class OneOf:
    """The words that a setting may be."""

    words: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"must be {' or '.join(self.words)}"


@dataclass(frozen=True)
class SymbolName:
    """The names that a symbol may have: a stored line holds them lower-cased, as in market-gbpusd.m-15min."""

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(r"[A-Za-z0-9.]+", value) is not None

    def __str__(self) -> str:
        return "must be letters, digits and dots, such as US500 or GBPUSD.m: the name of a stored line holds nothing else"


@dataclass(frozen=True)
class ProfileNumbers:
    """No profile, every one, or some."""

    def __contains__(self, value: str) -> bool:
        return value in ("true", "false") or set(value.split()) <= set("12345")

    def __str__(self) -> str:
        return "must be false, true (every profile), or numbers of profiles from 1 to 5, such as 3 5"


_POSITIVE = Range(1e-9, 10**12)
_NOT_NEGATIVE = Range(0, 10**12)
_FRACTION = Range(0, 1, above=True)  # of something that must not be empty
_SAMPLED = Range(0.05, 1)  # of the rows or the features that a tree sees: with fewer, some tree sees none
_SEED = Range(0, 2**32 - 1)
_COUNT = Range(1, 1_000_000)
_ROUNDS = Range(1, 100_000)  # trees or boosting rounds
_DEPTH = Range(1, 30)
_BINS = Range(2, 65_535)


@dataclass(frozen=True)
class Paths:
    models: str
    datasets: str
    reports: str
    keys: str


@dataclass(frozen=True)
class Market:
    symbol: Annotated[str, SymbolName()]
    bars: str
    news: str
    timeframe: Annotated[str, OneOf(("15min",))]  # readers and features know no other


@dataclass(frozen=True)
class Synthetic:
    bars: Annotated[int, Range(1, 5_000_000)]
    edge: Annotated[float, Range(0, 1)]
    seed: Annotated[int, _SEED]


@dataclass(frozen=True)
class Labeling:
    method: Annotated[str, OneOf(("atr_aware", "sltp_aware"))]  # the second is refused with the reason
    tp_atr: Annotated[float, Range(0.01, 1_000)]
    sl_atr: Annotated[float, Range(0.01, 1_000)]
    horizon_bars: Annotated[int, _COUNT]
    atr: Annotated[str, OneOf(("sma_tr_14",))]
    entry: Annotated[str, OneOf(("next_open", "close"))]
    tie: Annotated[str, OneOf(("sl_first", "tp_first"))]
    price_path: Annotated[str, OneOf(("ohlc", "close"))]
    news_surge: Annotated[float, _POSITIVE]


@dataclass(frozen=True)
class DynamicSltp:
    enabled: bool


@dataclass(frozen=True)
class Windows:
    final_share: Annotated[float, _FRACTION]
    select_share: Annotated[float, _FRACTION]
    tune_share: Annotated[float, _FRACTION]
    embargo_bars: Annotated[int, Range(0, 1_000_000)]
    refit_every_days: Annotated[float, Range(0.25, 36_500)]
    oof_parts: Annotated[int, Range(1, 100)]

    def conflict(self) -> tuple[tuple[str, ...], str] | None:
        """Shares that leave nothing for train."""
        if self.tune_share + self.select_share + self.final_share < 1:
            return None
        return ("tune_share", "select_share", "final_share"), "must sum to less than 1: the rest of the bars is for train"


@dataclass(frozen=True)
class Ensemble:
    rf_engine: Annotated[str, OneOf(("hist", "sklearn"))]
    rf_trees: Annotated[int, _ROUNDS]
    rf_max_depth: Annotated[int, _DEPTH]
    rf_min_samples_leaf: Annotated[int, _COUNT]
    rf_max_samples: Annotated[float, _SAMPLED]
    rf_max_features: Annotated[float, _SAMPLED]
    xgb_max_rounds: Annotated[int, _ROUNDS]
    xgb_max_depth: Annotated[int, _DEPTH]
    xgb_learning_rate: Annotated[float, _FRACTION]
    xgb_min_child_weight: Annotated[float, _NOT_NEGATIVE]
    xgb_subsample: Annotated[float, _SAMPLED]
    xgb_colsample: Annotated[float, _SAMPLED]
    xgb_reg_lambda: Annotated[float, _NOT_NEGATIVE]
    xgb_max_bin: Annotated[int, _BINS]
    lgb_max_rounds: Annotated[int, _ROUNDS]
    lgb_num_leaves: Annotated[int, Range(2, 4_096)]
    lgb_learning_rate: Annotated[float, _FRACTION]
    lgb_min_data_in_leaf: Annotated[int, _COUNT]
    lgb_subsample: Annotated[float, _SAMPLED]
    lgb_colsample: Annotated[float, _SAMPLED]
    lgb_reg_lambda: Annotated[float, _NOT_NEGATIVE]
    lgb_max_bin: Annotated[int, _BINS]
    early_stopping_rounds: Annotated[int, _ROUNDS]
    recency_half_life_bars: Annotated[float, _NOT_NEGATIVE]
    class_weight: Annotated[str, OneOf(("none", "balanced"))]


@dataclass(frozen=True)
class WarmStart:
    enabled: bool
    refresh_bars: Annotated[int, Range(1, 100_000_000)]
    lgb_decay: Annotated[float, Range(0, 1)]
    rf_replace_share: Annotated[float, _FRACTION]
    max_generations: Annotated[int, Range(0, 1_000_000)]
    max_drift_psi: Annotated[float, _NOT_NEGATIVE]


@dataclass(frozen=True)
class Tuning:
    use: bool
    trials: Annotated[int, Range(2, 100_000)]
    workers: Annotated[int, Range(1, 1_024)]
    prune_after: Annotated[int, Range(0, 100_000)]
    tail_share: Annotated[float, Range(0, 0.9, above=True)]
    level: Annotated[float, Range(0.5, 0.999)]


@dataclass(frozen=True)
class Position:
    exit_gap_r: Annotated[float, Range(0, 1_000)]
    min_bars_held: Annotated[int, _COUNT]
    exit_probability: Annotated[float, _FRACTION]
    entry_share: Annotated[float, _FRACTION]


@dataclass(frozen=True)
class Decision:
    rule: Annotated[str, OneOf(("expected_r", "votes"))]
    votes_gap: Annotated[float, Range(0, 1)]
    margins: Annotated[tuple, Range(0, 1_000)]


@dataclass(frozen=True)
class RiskModel:
    enabled: bool
    objective: Annotated[str, OneOf(("constrained_growth", "wr_pf_sqrt_dd"))]
    use_unpublished: Annotated[str, ProfileNumbers()]

    def uses_unpublished(self, profile: int) -> bool:
        """Whether a profile is sized by its head although that did not pass its test."""
        return self.use_unpublished == "true" or str(profile) in self.use_unpublished.split()


@dataclass(frozen=True)
class Account:
    profile: Annotated[int, Range(1, 5)]
    balance: Annotated[float, _POSITIVE]
    leverage: Annotated[float, _POSITIVE]
    margin_call_pct: Annotated[float, _NOT_NEGATIVE]
    swap: bool


@dataclass(frozen=True)
class Backtest:
    null_curves: Annotated[int, Range(0, 10_000)]
    bootstrap_draws: Annotated[int, _COUNT]


@dataclass(frozen=True)
class Gate:
    min_trades: Annotated[int, Range(2, 1_000_000)]
    level: Annotated[float, Range(0.0001, 0.499)]


@dataclass(frozen=True)
class Ship:
    max_age_days: Annotated[int, Range(0, 36_500)]


@dataclass(frozen=True)
class HubSettings:
    url: str
    endpoint: str
    region: str
    approvers: str
    approval_days: Annotated[int, Range(0, 36_500)]
    refuse_expired: bool
    keep: Annotated[int, Range(1, 100_000)]
    grace_hours: Annotated[float, Range(1, 876_000)]

    def __post_init__(self):
        for name, value in (("url", self.url.partition("://")[2]), ("endpoint", self.endpoint)):
            if set("@?#") & set(value):  # user:secret@host, a presigned address: settings are shown, and kept with every run
                raise UsageError(
                    f"[hub] {name}: takes no '@', '?' or '#': credentials stand in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                    "or in the shared credentials file. The value is not repeated here"
                )


@dataclass(frozen=True)
class Run:
    seed: Annotated[int, _SEED]
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))]
    threads: Annotated[int, Range(0, 4_096)]


@dataclass(frozen=True)
class Symbol:
    round_step: Annotated[float, _POSITIVE]
    contract_size: Annotated[float, _POSITIVE]
    point: Annotated[float, _POSITIVE]
    spread: Annotated[float, _NOT_NEGATIVE]
    commission: Annotated[float, _NOT_NEGATIVE]
    slippage: Annotated[float, _NOT_NEGATIVE]
    swap_long: Annotated[float, Range(-(10**12), 10**12)]
    swap_short: Annotated[float, Range(-(10**12), 10**12)]
    lot_step: Annotated[float, _POSITIVE]
    min_lot: Annotated[float, _POSITIVE]
    max_lot: Annotated[float, _POSITIVE]

    def conflict(self) -> tuple[tuple[str, ...], str] | None:
        """Lots between which there is no size."""
        if math.floor(self.max_lot / self.lot_step + 1e-9) >= max(1, math.ceil(self.min_lot / self.lot_step - 1e-9)):
            return None
        return ("lot_step", "min_lot", "max_lot"), "must leave at least one size: a multiple of lot_step from min_lot to max_lot"


SECTIONS = {
    "paths": Paths,
    "market": Market,
    "synthetic": Synthetic,
    "labeling": Labeling,
    "dynamic_sltp": DynamicSltp,
    "windows": Windows,
    "ensemble": Ensemble,
    "warmstart": WarmStart,
    "tuning": Tuning,
    "position": Position,
    "decision": Decision,
    "risk_model": RiskModel,
    "account": Account,
    "backtest": Backtest,
    "gate": Gate,
    "ship": Ship,
    "hub": HubSettings,
    "run": Run,
}
SYMBOL_PREFIX = "symbol."


@dataclass(frozen=True)
class Settings:
    """All sections, each a frozen record; `origin["market.symbol"]` says who set a value."""

    paths: Paths
    market: Market
    synthetic: Synthetic
    labeling: Labeling
    dynamic_sltp: DynamicSltp
    windows: Windows
    ensemble: Ensemble
    warmstart: WarmStart
    tuning: Tuning
    position: Position
    decision: Decision
    risk_model: RiskModel
    account: Account
    backtest: Backtest
    gate: Gate
    ship: Ship
    hub: HubSettings
    run: Run
    symbols: Mapping[str, Symbol]
    origin: Mapping[str, str]

    def conflict(self) -> tuple[tuple[str, ...], str] | None:
        """Settings of different sections that cannot both hold."""
        if self.position.min_bars_held < self.labeling.horizon_bars:
            return None
        return ("position.min_bars_held", "labeling.horizon_bars"), "must be in this order: at the horizon every trade is over"

    def symbol(self, name: str) -> Symbol:
        """Costs, lots and grid of a symbol; UsageError names the missing section."""
        if name not in self.symbols:
            _check_symbol(name, f"symbol = {name!r}")
            raise UsageError(
                f"no section [symbol.{name}] in the settings; known: {', '.join(sorted(self.symbols))}. "
                f"Copy one in settings.ini and set round_step, contract_size, point and spread for {name}"
            )
        return self.symbols[name]

    def items(self):
        """("section.key", value, origin) of every setting, in the order of the file."""
        for section in SECTIONS:
            record = getattr(self, section)
            for field in fields(record):
                key = f"{section}.{field.name}"
                yield key, getattr(record, field.name), self.origin[key]
        for name, record in self.symbols.items():
            for field in fields(record):
                key = f"{SYMBOL_PREFIX}{name}.{field.name}"
                yield key, getattr(record, field.name), self.origin[key]

    def flags(self) -> dict:
        """The settings that a flag gave, as `load_settings` takes them."""
        return {key: value for key, value, origin in self.items() if origin == "flag"}


def shipped_file() -> Path:
    """The settings.ini that ships: the clone's, or the copy inside an installed wheel."""
    package = Path(__file__).parent
    inside = package / "settings.ini"
    return inside if inside.exists() else package.parent / "settings.ini"


def load_settings(overrides: Mapping[str, object] | None = None, *, environ: Mapping[str, str] | None = None, folder=".") -> Settings:
    """Read the settings. `overrides` maps "section.key" to a value given by a flag (None = not given)."""
    environ = os.environ if environ is None else environ
    text: dict[str, str] = {}
    origin: dict[str, str] = {}
    for path, label in _files(environ, Path(folder)):
        for key, value in _read(path).items():
            text[key], origin[key] = value, label
    known = _known(text)
    for name, key in _from_environment(environ, known).items():
        text[key], origin[key] = environ[name], f"environment {name}"
    for key, value in (overrides or {}).items():
        if value is not None:
            _check_known(key, known, "a flag")
            text[key], origin[key] = _as_text(value), "flag"
    return _build(text, origin)


def _files(environ, folder):
    shipped = shipped_file()
    yield shipped, "default"
    named = environ.get(FILE_VARIABLE)
    local = Path(named) if named else folder / "settings.ini"
    if named and not local.exists():
        raise UsageError(f"{FILE_VARIABLE} names {named}, which does not exist")
    if local.exists() and local.resolve() != shipped.resolve():
        yield local, str(local)


def _read(path):
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", inline_comment_prefixes=None)
    parser.optionxform = str
    try:
        parser.read_string(path.read_text("utf8"), source=str(path))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as settings: {' '.join(str(error).split())}") from None
    found = {}
    for section in parser.sections():
        record = SECTIONS.get(section) or (Symbol if section.startswith(SYMBOL_PREFIX) else None)
        if record is None:
            raise UsageError(f"{path} has a section [{section}] that TradeML does not know{_hint(section, SECTIONS)}")
        names = [f.name for f in fields(record)]
        for key, value in parser[section].items():
            if key not in names:
                raise UsageError(f"{path} [{section}] has a key {key!r} that TradeML does not know{_hint(key, names)}")
            found[f"{section}.{key}"] = value
    return found


def _known(text):
    symbols = {key.rsplit(".", 1)[0] for key in text if key.startswith(SYMBOL_PREFIX)}
    keys = [f"{section}.{f.name}" for section, record in SECTIONS.items() for f in fields(record)]
    return keys + [f"{section}.{f.name}" for section in sorted(symbols) for f in fields(Symbol)]


def _from_environment(environ, known):
    by_name = {PREFIX + key.replace(".", "_").upper(): key for key in known}
    found = {}
    for name in environ:
        if name.startswith(PREFIX) and name != FILE_VARIABLE:
            if name not in by_name:
                raise UsageError(f"environment variable {name} names no setting{_hint(name, by_name)}")
            found[name] = by_name[name]
    return found


def _check_known(key, known, where):
    if key not in known:
        raise UsageError(f"{where} names the setting {key!r}, which does not exist{_hint(key, known)}")


def _hint(word, words):
    close = difflib.get_close_matches(word, list(words), 3, 0.6)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(words)}"


def _as_text(value):
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _build(text, origin):
    def record(kind, section):
        values = {}
        for field in fields(kind):
            key = f"{section}.{field.name}"
            if key not in text:
                raise UsageError(f"[{section}] lacks {field.name}; every key of a section must be set")
            values[field.name] = _parse(field.type, text[key], key, origin[key])
        return _agreed(kind(**values), f"{section}.", text, origin)

    sections = {key.rsplit(".", 1)[0]: origin[key] for key in text if key.startswith(SYMBOL_PREFIX)}
    symbols = sorted(section.removeprefix(SYMBOL_PREFIX) for section in sections)
    _check_cases(symbols, sections)
    for name in symbols:
        _check_symbol(name, f"[{SYMBOL_PREFIX}{name}] (from {sections[SYMBOL_PREFIX + name]}): a symbol's name")
    made = Settings(
        **{section: record(kind, section) for section, kind in SECTIONS.items()},
        symbols={name: record(Symbol, SYMBOL_PREFIX + name) for name in symbols},
        origin=origin,
    )
    return _agreed(made, "", text, origin)


def _check_cases(symbols, sections):
    """A stored line holds a symbol lower-cased, and so does an environment variable: two names must differ in more than case."""
    names = {}
    for name in symbols:
        other = names.setdefault(name.lower(), name)
        if other != name:
            both = (f"[{SYMBOL_PREFIX}{one}] (from {sections[SYMBOL_PREFIX + one]})" for one in (other, name))
            raise UsageError(f"{' and '.join(both)} differ only in case, and a stored line has one name, market-{name.lower()}: rename one")


def _check_symbol(name, what):
    if name not in (rule := SymbolName()):
        raise UsageError(f"{what} {rule}")


def _agreed(record, prefix, text, origin):
    """The record, unless its own settings contradict each other."""
    found = record.conflict() if hasattr(record, "conflict") else None
    if found:
        names, rule = found
        shown = (f"{prefix}{name} = {text[prefix + name].strip()} (from {origin[prefix + name]})" for name in names)
        raise UsageError(f"{', '.join(shown)} {rule}")
    return record


def _parse(kind, text, key, where):
    """The value of a setting; `kind` is bool, str, or Annotated[type, Range or OneOf]."""
    base, *rules = get_args(kind) or (kind,)
    text = text.strip()
    try:
        value = _READERS[base](text)
    except (ValueError, KeyError):
        raise UsageError(f"{key} = {text!r} (from {where}) must be {_WANTED[base]}") from None
    for rule in rules:
        if not all(one in rule for one in (value if base is tuple else (value,))):
            shown = repr(text) if base is str else text
            raise UsageError(f"{key} = {shown} (from {where}) {'each ' if base is tuple else ''}{rule}")
    return value


def _numbers(text):
    found = tuple(float(word) for word in text.replace(",", " ").split())
    if not found:
        raise ValueError(text)
    return found


def _word(text):
    if not text:
        raise ValueError(text)
    return text


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_READERS = {bool: lambda text: _BOOLEANS[text.lower()], tuple: _numbers, int: int, float: float, str: _word}
_WANTED = {
    bool: "true or false",
    tuple: "numbers with blanks between",
    int: "a whole number",
    float: "a number",
    str: "set: it must not be empty",
}
