"""Which market a command means, and the store that belongs to it. Imports nothing heavy: `trademl models list` needs only this."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from glob import escape as glob_escape
from pathlib import Path

from trademl.errors import BadDataError, UsageError
from trademl.pipeline.stored import Stored
from trademl.settings import Settings
from trademl.ship.signing import key_folder
from trademl.ship.store import Store

SYNTHETIC = "SYNTH"


@dataclass(frozen=True)
class MarketFlags:
    """The flags that say what is read and where revisions are kept, as a person gave them; None: not given."""

    bars: str | None = None
    news: str | None = None
    no_news: bool = False
    symbol: str | None = None
    models_dir: str | None = None
    tz: str | None = None  # clock of the bars file
    stamp: str | None = None  # open or close: what its time stamp means
    strict: bool = False  # refuse where a warning would be given
    news_tz: str | None = None  # clock of the calendar
    trust_clock: bool = False  # keep a clock that closes or releases disprove
    allow_flat: bool = False  # keep long runs of bars without volume and range

    @property
    def reading(self) -> list[str]:
        """The given ones that say how a file is read, as they are typed."""
        names = ("tz", "stamp", "strict", "news_tz", "trust_clock", "allow_flat")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]

    @classmethod
    def of_job(cls, **parameters) -> "MarketFlags":
        """From a job notebook's parameters, where an empty text means: not given."""
        return cls(**{name: value for name, value in parameters.items() if value != ""})

    def job_parameters(self) -> dict:
        """What a job notebook takes: the flags that were given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class MarketChoice:
    """Which market a command works on, and the store that belongs to it."""

    symbol: str
    bars: str | None  # None: the embedded synthetic market
    news: str | None
    no_news: bool
    models_dir: str
    timeframe: str

    @property
    def is_synthetic(self) -> bool:
        """Whether the embedded market is meant."""
        return self.bars is None

    @property
    def line(self) -> str:
        """The line that this market's revisions belong to, such as market-btcusd-15min."""
        return f"market-{self.symbol.lower()}-{self.timeframe}"

    @property
    def source(self) -> str:
        """Name of the bars file (without its folder), or what the embedded market is called."""
        return "embedded synthetic market" if self.is_synthetic else Path(self.bars).name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """The lock of its store. UsageError when the store holds another line, LockedError when another run holds it."""
        store = Store(self.models_dir)
        store.check_line(self.line)
        with store.lock():
            yield

    def sentence(self) -> str:
        """What is trained on, in words."""
        if self.is_synthetic:
            return "the embedded synthetic market (no bars given, and the files that settings.ini names do not exist)"
        return f"{self.bars} with {'no calendar (--no-news)' if self.no_news else self.news}"


def store_of(settings: Settings, models_dir: str | Path) -> Store:
    """The store in a folder, under the keys that the settings name."""
    return Store(models_dir, key_folder(settings.paths.keys).trust())


def store_folder(settings: Settings, symbol: str) -> str:
    """The folder of a market's store: a store holds one line, and SYNTH's is the embedded market's, whatever its bars come from."""
    return f"{settings.paths.models}/synthetic" if symbol == SYNTHETIC else settings.paths.models


def looks_file(settings: Settings) -> Path:
    """The project's chain of looks, whatever store a run writes to."""
    return Path(settings.paths.models) / "looks.jsonl"


def choose_market(settings: Settings, flags: MarketFlags = MarketFlags()) -> MarketChoice:
    """`market_of` flags whose files are there: BadDataError for a missing one, the bars first."""
    for path in filter(None, (flags.bars, flags.news)):
        if not Path(path).exists():
            raise BadDataError(f"{path}: no such file; check the path")
    return market_of(settings, flags)


def market_of(settings: Settings, flags: MarketFlags = MarketFlags()) -> MarketChoice:
    """Flags first, then the files that the settings name, else the embedded market. The store follows the line."""
    market = settings.market
    symbol, bars, news = flags.symbol or market.symbol, flags.bars, flags.news
    if bars is None and Path(market.bars).exists() and symbol == market.symbol:
        bars = market.bars
    if bars is None and flags.symbol not in (None, SYNTHETIC):
        raise UsageError(f"no bars for {symbol}: give --bars FILE, or import it and name it under [market] in settings.ini")
    if bars is None and (news or flags.no_news):
        raise UsageError("--news and --no-news belong to a bars file: give --bars FILE too (the embedded market brings its own calendar)")
    if bars is None and flags.reading:
        raise UsageError(f"{', '.join(flags.reading)}: these say how a file is read, and the embedded market is none: give --bars FILE")
    if flags.no_news and flags.news_tz:
        raise UsageError("--news-tz is the clock of a calendar, and with --no-news none is read: leave one of them out")
    if bars is None:
        return MarketChoice(SYNTHETIC, None, None, False, flags.models_dir or store_folder(settings, SYNTHETIC), market.timeframe)
    if news and flags.no_news:
        raise UsageError("--news and --no-news exclude each other")
    if not news and not flags.no_news:
        if not Path(market.news).exists():
            raise UsageError(f"no calendar for {bars}: give --news FILE, or say --no-news (features 52-55 are then constant)")
        news = market.news
    settings.symbol(symbol)
    return MarketChoice(symbol, bars, news, flags.no_news, flags.models_dir or store_folder(settings, symbol), market.timeframe)


def open_store(settings: Settings, *, symbol: str | None = None, models_dir: str | None = None, revision: str | None = None) -> Store:
    """The store that a command means: the one named, else that of the market a plain `retrain` would train on.

    When a plain `retrain` would take the embedded market only for want of files, both its store and the configured market's
    come into question: then the one that holds `revision`, or the newest revision of all, is meant.
    """
    configured, embedded = (store_of(settings, store_folder(settings, name)) for name in (settings.market.symbol, SYNTHETIC))
    if models_dir is not None or symbol is not None:
        named = store_of(settings, store_folder(settings, symbol) if models_dir is None else models_dir)
        others = sorted({Stored(r).symbol for r in named.revisions()} - {symbol}) if symbol is not None else []
        if others:
            raise UsageError(
                f"{named.models_dir} holds revisions of {', '.join(others)}, not of {symbol}: leave out --symbol, "
                f"or name the folder of the {symbol} revisions with --models-dir"
            )
        return named
    if Path(settings.market.bars).exists():
        return configured
    if revision is not None:  # by the folder's name: a revision that cannot be read is named by its store, with the reason
        holders = [store for store in (configured, embedded) if any(store.folder.glob(f"{glob_escape(revision)}*"))]
        return holders[0] if holders else embedded
    found = [(r.trained_at, r.name, store) for store in (configured, embedded) for r in store.revisions()]
    return max(found, key=lambda candidate: candidate[:2])[2] if found else embedded


def open_stored(settings: Settings, *, symbol: str | None = None, models_dir: str | None = None, revision: str | None = None) -> Stored:
    """The revision that a command means, every file's hash checked; default: the newest of `open_store`'s store."""
    return Stored(open_store(settings, symbol=symbol, models_dir=models_dir, revision=revision).open(revision))
