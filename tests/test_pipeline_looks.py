"""Which recipe a case is, and its entries on their way through the chain."""

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_run import SMALL

from trademl.data.synthetic import synthetic_market
from trademl.evidence.looks import DataKind, day_prints
from trademl.market.backtest import Decisions
from trademl.market.decision import Rule
from trademl.market.recipe import trades_in
from trademl.market.specs import CostSpec, LabelSpec
from trademl.pipeline.choice import MarketChoice
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.looks import (
    NOT_PART,
    carried_looks,
    decisions_of,
    entries_of,
    ledger_file,
    look_request,
    looks_file,
    parts_id,
    recipe_id,
    recipe_parts,
)
from trademl.pipeline.market.parameters import recipe_of
from trademl.settings import load_settings
from trademl.validate.splits import Span

SETTINGS = load_settings(SMALL, environ={})


def case_of(settings=SETTINGS, *, spec=LabelSpec(), costs=CostSpec(16.95), **change) -> Case:  # noqa: B008 (frozen)
    """A case that knows what a recipe is made of, and nothing else."""
    choice = MarketChoice("BTCUSD", "bars.csv", None, True, "models", "15min")
    rows = SimpleNamespace(spec=spec, costs=costs)
    return Case(SimpleNamespace(choice=choice), rows, None, replace(recipe_of(settings), **change), settings)


def other(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value} "
    return value * 2 + 1 if isinstance(value, int | float) else value


def differs(one: Case, two: Case) -> bool:
    return recipe_id(one) != recipe_id(two)


def test_every_field_of_a_recipe_is_part_of_it_or_named_as_not():
    """A field that is added later is part of the recipe until somebody says that it is not."""
    base = case_of()
    changes = {
        "ensemble": replace(base.recipe.ensemble, rf_trees=99),
        "position": replace(base.recipe.position, exit_probability=0.7),
        "rule": Rule.VOTES,
        "margins": (0.0, 0.9),
        "floors": {**base.recipe.floors, base.profile: 0.5},
        "confidence": {**base.recipe.confidence, base.profile: 0.9},
        "position_ensemble": replace(base.recipe.ensemble, rf_trees=99),
        "studies": ("a study",),
        "devices": {"xgb": "cuda"},
        "warm": replace(base.recipe.warm, lgb_decay=0.123),
    }
    assert len(recipe_id(base)) == 16
    for field in fields(base.recipe):
        value = changes.get(field.name, other(getattr(base.recipe, field.name)))
        assert value != getattr(base.recipe, field.name), field.name
        assert differs(base, case_of(**{field.name: value})) == (field.name not in NOT_PART), field.name


@pytest.mark.parametrize("part", ["ensemble", "position", "warm"])
def test_every_parameter_of_a_model_is_part_of_the_recipe(part):
    base = case_of()
    section = getattr(base.recipe, part)
    for field in fields(section):
        changed = replace(section, **{field.name: other(getattr(section, field.name))})
        assert differs(base, case_of(**{part: changed})), field.name


def test_contract_costs_and_features_are_part_of_the_recipe():
    base = case_of()
    for field in fields(CostSpec):
        assert differs(base, case_of(costs=replace(base.rows.costs, **{field.name: 7.5}))), field.name
    for change in ({"tp_atr": 2.0}, {"horizon_bars": 24}, {"tie": "tp_first"}):
        assert differs(base, case_of(spec=LabelSpec(**change)))
    assert differs(base, case_of(load_settings(SMALL | {"symbol.BTCUSD.round_step": 500}, environ={})))


def test_a_case_holds_nothing_else_that_could_be_a_recipe():
    """Whoever gives a case another field decides here whether it makes another recipe."""
    assert {field.name for field in fields(Case)} == {"inputs", "rows", "windows", "recipe", "settings", "tuned"}


@pytest.mark.parametrize(
    "setting",
    [
        {"run.seed": 5},
        {"windows.final_share": 0.3},
        {"windows.select_share": 0.15},
        {"windows.tune_share": 0.2},
        {"windows.embargo_bars": 60},
        {"gate.level": 0.02},
        {"account.balance": 5},
        {"backtest.null_curves": 9},
        {"run.threads": 2},
        {"ship.max_age_days": 9},
        {"synthetic.bars": 9_000},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_would_only_be_another_draw_is_the_same_recipe(setting):
    assert not differs(case_of(), case_of(load_settings(SMALL | setting, environ={})))


def test_equal_recipes_have_one_id():
    base = case_of()
    assert not differs(base, case_of(margins=base.recipe.margins[::-1]))
    assert not differs(base, case_of(position_ensemble=base.recipe.ensemble))
    cold = replace(base.recipe.warm, enabled=False)
    assert not differs(case_of(warm=cold), case_of(warm=replace(cold, lgb_decay=0.9)))
    assert not differs(case_of(warm=cold), case_of(warm=None))
    others = {number: floor + 1 for number, floor in base.recipe.floors.items() if number != base.profile}
    assert not differs(base, case_of(floors=base.recipe.floors | others))  # another profile's floor
    assert differs(base, case_of(load_settings(SMALL | {"account.profile": 1}, environ={})))
    parts = recipe_parts(base)
    assert parts_id(parts | {"rule": "votes"}) == recipe_id(case_of(rule=Rule.VOTES))  # a stored revision under another rule


# --- entries --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decided():
    """Twelve days of bars with a random decision at every fourth bar."""
    bars, spec = synthetic_market(96 * 12, 0.0, 3).bars, LabelSpec()
    rng = np.random.default_rng(1)
    time_s = bars.index.as_unit("s").asi8 + spec.bar_seconds
    rows = SimpleNamespace(bars=bars, spec=spec, costs=CostSpec(16.95), time_s=time_s, first=200)
    side = rng.choice([1, -1, 0, 0, 0, 0, 0, 0], len(bars)).astype(np.int8)
    leave = np.where(rng.random(len(bars)) < 0.5, (np.arange(len(bars)) + 5).clip(max=len(bars) - 1), -1)
    leave[-8:] = -1
    return rows, Decisions(side, leave)


def test_recorded_entries_make_the_same_trades(decided):
    rows, decisions = decided
    span = Span(int(rows.time_s[400]), int(rows.time_s[1000]))
    entries = entries_of(rows.bars, decisions, rows.spec, rows.costs, span)
    assert len(entries) > 20 and (entries[:, 2] > 0).any() and (entries[:, 2] == 0).any()
    made, lost = decisions_of(entries, rows.time_s)
    assert lost == 0
    before = trades_in(rows, decisions.side, np.arange(400, 1000), decisions.exit_bar)
    after = trades_in(rows, made.side, np.arange(len(rows.time_s)), made.exit_bar)
    assert after.net_r.tolist() == before.net_r.tolist()
    assert after.exit_bar.tolist() == before.exit_bar.tolist()


def test_entries_are_found_on_a_longer_and_on_a_damaged_export(decided):
    rows, decisions = decided
    entries = entries_of(rows.bars, decisions, rows.spec, rows.costs, Span(int(rows.time_s[400]), int(rows.time_s[1000])))
    later, _ = decisions_of(entries, rows.time_s[300:])
    assert (np.flatnonzero(later.side) + 300).tolist() == np.flatnonzero(decisions_of(entries, rows.time_s)[0].side).tolist()
    kept = np.delete(rows.time_s, np.searchsorted(rows.time_s, entries[3, 0]))
    assert decisions_of(entries, kept)[1] == 1
    assert decisions_of(entries, rows.time_s[:10])[1] == len(entries)


def test_a_run_asks_for_its_final_window(decided):
    rows, decisions = decided
    span = Span(int(rows.time_s[400]), int(rows.time_s[1000]))
    case = case_of()
    case = replace(case, rows=rows, inputs=SimpleNamespace(choice=replace(case.choice, symbol="SYNTH", bars=None)))
    settings = replace(SETTINGS, symbols=SETTINGS.symbols | {"SYNTH": SETTINGS.symbol("BTCUSD")})
    judged = SimpleNamespace(windows=SimpleNamespace(span=lambda name: span), decisions=lambda *_: decisions)
    request = look_request(replace(case, settings=settings), judged, "run 1")
    assert (request.line, request.data, request.run_id) == ("market-synth-15min", DataKind.EMBEDDED, "run 1")
    assert (request.start_s, request.end_s, request.first_s) == (span.start_s, span.end_s, rows.time_s[200])
    assert request.prints == day_prints(rows.bars) and len(request.prints) >= 6
    assert request.entries.tolist() == entries_of(rows.bars, decisions, rows.spec, rows.costs, span).tolist()


def test_looks_are_kept_beside_the_configured_stores_and_carried_by_revisions():
    assert looks_file(SETTINGS).as_posix() == "models/looks.jsonl"
    assert ledger_file(SETTINGS).as_posix() == "reports/ledger.jsonl"
    look = {"project": "ab", "hash": "cd", "number": 3}
    revisions = [SimpleNamespace(name="r1", manifest={"look": look}), SimpleNamespace(name="r2", manifest={})]
    (carried,) = carried_looks([SimpleNamespace(revisions=lambda: revisions)])
    assert (carried.revision, carried.project, carried.hash, carried.number) == ("r1", "ab", "cd", 3)
