"""Frozen run settings and where each value came from.

Order: the shipped settings.ini < a settings.ini in the working folder (or the file that TRADEML_SETTINGS names)
< environment variables TRADEML_<SECTION>_<KEY> < flags. A later file may hold only what it changes.
"""

import configparser
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from trademl.errors import UsageError

PREFIX = "TRADEML_"
FILE_VARIABLE = "TRADEML_SETTINGS"


@dataclass(frozen=True)
class Paths:
    models: str
    datasets: str
    reports: str


@dataclass(frozen=True)
class Market:
    symbol: str
    bars: str
    news: str
    timeframe: str


@dataclass(frozen=True)
class Synthetic:
    bars: int
    edge: float
    seed: int


@dataclass(frozen=True)
class Labeling:
    method: str
    tp_atr: float
    sl_atr: float
    horizon_bars: int
    atr: str
    entry: str
    tie: str
    price_path: str
    news_surge: float


@dataclass(frozen=True)
class DynamicSltp:
    enabled: bool


@dataclass(frozen=True)
class Windows:
    final_share: float
    select_share: float
    tune_share: float
    embargo_bars: int
    refit_every_days: float
    oof_parts: int


@dataclass(frozen=True)
class Ensemble:
    rf_trees: int
    rf_max_depth: int
    rf_min_samples_leaf: int
    rf_max_samples: float
    rf_max_features: float
    xgb_max_rounds: int
    xgb_max_depth: int
    xgb_learning_rate: float
    xgb_min_child_weight: float
    xgb_subsample: float
    xgb_colsample: float
    xgb_reg_lambda: float
    xgb_max_bin: int
    lgb_max_rounds: int
    lgb_num_leaves: int
    lgb_learning_rate: float
    lgb_min_data_in_leaf: int
    lgb_subsample: float
    lgb_colsample: float
    lgb_reg_lambda: float
    lgb_max_bin: int
    early_stopping_rounds: int
    recency_half_life_bars: float
    class_weight: str


@dataclass(frozen=True)
class WarmStart:
    enabled: bool
    refresh_bars: int
    lgb_decay: float
    rf_replace_share: float
    max_generations: int
    max_drift_psi: float


@dataclass(frozen=True)
class Tuning:
    use: bool
    trials: int
    workers: int
    prune_after: int
    tail_share: float
    level: float


@dataclass(frozen=True)
class Position:
    exit_gap_r: float
    min_bars_held: int
    exit_probability: float
    entry_share: float


@dataclass(frozen=True)
class Decision:
    rule: str
    votes_gap: float
    margins: tuple


@dataclass(frozen=True)
class RiskModel:
    enabled: bool
    objective: str


@dataclass(frozen=True)
class Account:
    profile: int
    balance: float
    leverage: float
    margin_call_pct: float
    swap: bool


@dataclass(frozen=True)
class Backtest:
    null_runs: int
    bootstrap_draws: int


@dataclass(frozen=True)
class Gate:
    min_trades: int
    level: float


@dataclass(frozen=True)
class Run:
    seed: int
    device: str
    threads: int


@dataclass(frozen=True)
class Symbol:
    round_step: float
    contract_size: float
    point: float
    spread: float
    commission: float
    slippage: float
    swap_long: float
    swap_short: float
    lot_step: float
    min_lot: float
    max_lot: float


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
    "run": Run,
}
SYMBOL_PREFIX = "symbol."
RANGES = {  # both ends included; what a wrong number would otherwise break only minutes later
    "run.seed": (0, 2**32 - 1),
    "synthetic.seed": (0, 2**32 - 1),
    "synthetic.edge": (0, 1),
    "account.profile": (1, 5),
    "ensemble.rf_trees": (1, 100_000),
    "ensemble.xgb_max_rounds": (1, 100_000),
    "ensemble.lgb_max_rounds": (1, 100_000),
    "run.threads": (0, 4_096),
}
CHOICES = {"decision.rule": ("expected_r", "votes")}


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
    run: Run
    symbols: Mapping[str, Symbol]
    origin: Mapping[str, str]

    def symbol(self, name: str) -> Symbol:
        """Costs, lots and grid of a symbol; UsageError names the missing section."""
        if name not in self.symbols:
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
            values[field.name] = _in_range(key, _parse(field.type, text[key], key, origin[key]), origin[key])
        return kind(**values)

    symbols = sorted({key.split(".")[1] for key in text if key.startswith(SYMBOL_PREFIX)})
    return Settings(
        **{section: record(kind, section) for section, kind in SECTIONS.items()},
        symbols={name: record(Symbol, SYMBOL_PREFIX + name) for name in symbols},
        origin=origin,
    )


def _in_range(key, value, where):
    low, high = RANGES.get(key, (value, value))
    if key in RANGES and not low <= value <= high:
        raise UsageError(f"{key} = {value} (from {where}) must lie between {low} and {high}")
    if key in CHOICES and value not in CHOICES[key]:
        raise UsageError(f"{key} = {value!r} (from {where}) must be {' or '.join(CHOICES[key])}")
    return value


def _parse(kind, text, key, where):
    text = text.strip()
    try:
        if kind is bool:
            return {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}[text.lower()]
        if kind is tuple:
            return tuple(float(word) for word in text.replace(",", " ").split())
        return kind(text)
    except (ValueError, KeyError):
        wanted = {bool: "true or false", tuple: "numbers with blanks between", int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"{key} = {text!r} (from {where}) must be {wanted}") from None
