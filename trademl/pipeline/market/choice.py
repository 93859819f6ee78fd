"""Which market a command works on, and the settings as the records that the domain takes."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trademl.device import resolve_models
from trademl.errors import UsageError
from trademl.market.decision import Rule
from trademl.market.specs import AccountSpec, CostSpec, LabelSpec
from trademl.risk.profiles import PROFILES
from trademl.risk.profiles import profile as profile_of
from trademl.settings import Settings
from trademl.ship.store import Store

if TYPE_CHECKING:
    from trademl.market.recipe import Recipe

SYNTHETIC = "SYNTH"


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

    def sentence(self) -> str:
        """What is trained on, in words."""
        if self.is_synthetic:
            return "the embedded synthetic market (no bars given, and the files that settings.ini names do not exist)"
        return f"{self.bars} with {'no calendar (--no-news)' if self.no_news else self.news}"


def store_folder(settings: Settings, symbol: str) -> str:
    """The folder of a market's store: a store holds one line, and SYNTH's is the embedded market's, whatever its bars come from."""
    return f"{settings.paths.models}/synthetic" if symbol == SYNTHETIC else settings.paths.models


def choose_market(
    settings: Settings,
    *,
    bars: str | None = None,
    news: str | None = None,
    no_news: bool = False,
    symbol: str | None = None,
    models_dir: str | None = None,
) -> MarketChoice:
    """Flags first, then the files that the settings name, else the embedded market. The store follows the line."""
    named = settings.market
    wanted = symbol or named.symbol
    if bars is None and Path(named.bars).exists() and wanted == named.symbol:
        bars = named.bars
    if bars is None and symbol not in (None, SYNTHETIC):
        raise UsageError(f"no bars for {symbol}: give --bars FILE, or import it and name it under [market] in settings.ini")
    if bars is None and (news or no_news):
        raise UsageError("--news and --no-news belong to a bars file: give --bars FILE too (the embedded market brings its own calendar)")
    if bars is None:
        return MarketChoice(SYNTHETIC, None, None, False, models_dir or store_folder(settings, SYNTHETIC), named.timeframe)
    if news and no_news:
        raise UsageError("--news and --no-news exclude each other")
    if not news and not no_news:
        if not Path(named.news).exists():
            raise UsageError(f"no calendar for {bars}: give --news FILE, or say --no-news (features 52-55 are then constant)")
        news = named.news
    settings.symbol(wanted)
    return MarketChoice(wanted, bars, news, no_news, models_dir or store_folder(settings, wanted), named.timeframe)


def label_spec(settings: Settings) -> LabelSpec:
    """The contract that the settings describe; refuses labels that nobody executes."""
    section = settings.labeling
    if section.method == "sltp_aware":
        why = (
            "dynamic_sltp.enabled = true executes ATR brackets, and fixed-percentage labels would not be what is traded: "
            "set labeling.method = atr_aware"
            if settings.dynamic_sltp.enabled
            else "it was removed: fixed percentages ignore volatility, and mixing them with ATR execution cost the original "
            "most of its win rate; set labeling.method = atr_aware"
        )
        raise UsageError(f"labeling.method = sltp_aware is refused; {why}")
    if section.method != "atr_aware":
        raise UsageError(f"labeling.method = {section.method!r} is not known; the one method is atr_aware")
    fields = {k: v for k, v in asdict(section).items() if k != "method"}
    return LabelSpec(**fields, timeframe=settings.market.timeframe)


def cost_spec(settings: Settings, symbol: str, **given) -> CostSpec:
    """A symbol's costs; `given` (spread, commission, slippage ...) wins where it is not None."""
    record = asdict(settings.symbol(symbol))
    fields = {name: record[name] for name in ("spread", "commission", "slippage", "swap_long", "swap_short", "contract_size", "point")}
    return CostSpec(**(fields | {k: v for k, v in given.items() if v is not None}))


def account_spec(settings: Settings, symbol: str, profile: int, **given) -> AccountSpec:
    """The account of the settings under a profile's limits; `given` wins where it is not None."""
    chosen, lots, section = profile_of(profile), settings.symbol(symbol), settings.account
    fields = {
        "balance": section.balance,
        "leverage": section.leverage,
        "margin_call_pct": section.margin_call_pct,
        "swap": section.swap,
        "risk_pct": chosen.base_risk_pct,
        "max_total_drawdown_pct": chosen.max_total_drawdown_pct,
        "weekly_pause_pct": chosen.weekly_pause_pct,
        "lot_step": lots.lot_step,
        "min_lot": lots.min_lot,
        "max_lot": lots.max_lot,
    }
    return AccountSpec(**(fields | {k: v for k, v in given.items() if v is not None}))


def recipe_of(settings: Settings) -> "Recipe":
    """The recipe that the settings describe."""
    from trademl.market.recipe import Recipe  # here: the commands that only look for a store need no library that trains

    return Recipe(
        ensemble=settings.ensemble,
        position=settings.position,
        rule=Rule(settings.decision.rule),
        margins=settings.decision.margins,
        floors={p.number: p.margin_r for p in PROFILES},
        confidence={p.number: p.confidence for p in PROFILES},
        votes_gap=settings.decision.votes_gap,
        refit_every_s=round(settings.windows.refit_every_days * 86_400),
        oof_parts=settings.windows.oof_parts,
        min_trades=settings.gate.min_trades,
        bootstrap_draws=settings.backtest.bootstrap_draws,
        seed=settings.run.seed,
        threads=settings.run.threads,
        devices=resolve_models(settings.run.device),
        warm=settings.warmstart,
    )


def open_store(settings: Settings, *, symbol: str | None = None, models_dir: str | None = None, revision: str | None = None) -> Store:
    """The store that a command means: the one named, else that of the market a plain `retrain` would train on.

    When a plain `retrain` would take the embedded market only for want of files, both its store and the configured market's
    come into question: then the one that holds `revision`, or the newest revision of all, is meant.
    """
    own, embedded = (Store(store_folder(settings, one)) for one in (settings.market.symbol, SYNTHETIC))
    if models_dir is not None or symbol is not None:
        named = Store(store_folder(settings, symbol) if models_dir is None else models_dir)
        others = sorted({r.manifest["symbol"] for r in named.revisions()} - {symbol}) if symbol is not None else []
        if others:
            raise UsageError(
                f"{named.models_dir} holds revisions of {', '.join(others)}, not of {symbol}: leave out --symbol, "
                f"or name the folder of the {symbol} revisions with --models-dir"
            )
        return named
    if Path(settings.market.bars).exists():
        return own
    found = [(r.trained_at, r.name, store) for store in (own, embedded) for r in store.revisions() if r.name.startswith(revision or "")]
    return max(found, key=lambda one: one[:2])[2] if found else embedded
