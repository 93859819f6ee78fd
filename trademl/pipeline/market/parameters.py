"""The settings as the records that the domain takes: contract, costs, account, recipe."""

from dataclasses import asdict

from trademl.clock import DAY_S
from trademl.device import resolve_models
from trademl.market.decision import Rule
from trademl.market.recipe import Recipe
from trademl.market.specs import AccountSpec, CostSpec
from trademl.risk.profiles import PROFILES
from trademl.risk.profiles import profile as profile_of
from trademl.settings import Settings


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


def recipe_of(settings: Settings) -> Recipe:
    """The recipe that the settings describe."""
    return Recipe(
        ensemble=settings.ensemble,
        position=settings.position,
        rule=Rule(settings.decision.rule),
        margins=settings.decision.margins,
        floors={p.number: p.margin_r for p in PROFILES},
        confidence={p.number: p.confidence for p in PROFILES},
        votes_gap=settings.decision.votes_gap,
        refit_every_s=round(settings.windows.refit_every_days * DAY_S),
        oof_parts=settings.windows.oof_parts,
        min_trades=settings.gate.min_trades,
        bootstrap_draws=settings.backtest.bootstrap_draws,
        seed=settings.run.seed,
        threads=settings.run.threads,
        devices=resolve_models(settings.run.device, settings.ensemble.rf_engine),
        warm=settings.warmstart,
    )
