"""Settings: order of sources, origins, and refusals that name the right word."""

import math
from dataclasses import fields
from typing import get_args

import pytest

from trademl.device import DEVICES
from trademl.errors import UsageError
from trademl.market.decision import Rule
from trademl.market.specs import Entry, PricePath, Tie
from trademl.risk.replay import Objective
from trademl.settings import SECTIONS, OneOf, Range, Symbol, SymbolName, load_settings, shipped_file
from trademl.ship.manifest import _LINE


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def test_a_later_source_wins_and_is_named(folder):
    (folder / "settings.ini").write_text(
        "[run]\nseed = 11\n\n[symbol.GOLD]\nround_step = 10\ncontract_size = 1\npoint = 1\nspread = 0\ncommission = 0\n"
        "slippage = 0\nswap_long = 0\nswap_short = 0\nlot_step = 1\nmin_lot = 1\nmax_lot = 9\n"
    )
    plain = load_settings(environ={}, folder=folder)
    assert (plain.run.seed, plain.origin["run.seed"]) == (11, str(folder / "settings.ini"))
    assert plain.origin["account.profile"] == "default"
    assert plain.symbol("GOLD").max_lot == 9
    from_environment = load_settings(environ={"TRADEML_RUN_SEED": "12"}, folder=folder)
    assert (from_environment.run.seed, from_environment.origin["run.seed"]) == (12, "environment TRADEML_RUN_SEED")
    flagged = load_settings({"run.seed": 13, "account.profile": None}, environ={"TRADEML_RUN_SEED": "12"}, folder=folder)
    assert (flagged.run.seed, flagged.origin["run.seed"], flagged.origin["account.profile"]) == (13, "flag", "default")


def test_symbols_that_differ_only_in_case_are_one_line(folder):
    shipped = shipped_file().read_text()
    section = shipped[shipped.index("[symbol.BTCUSD]") : shipped.index("[symbol.SYNTH]")]
    (folder / "settings.ini").write_text(section.replace("BTCUSD", "btcUSD"))
    both = r"\[symbol.BTCUSD\] \(from default\) and \[symbol.btcUSD\] \(from .*settings.ini\) differ only in case"
    with pytest.raises(UsageError, match=f"{both}.* market-btcusd: rename one"):
        load_settings(environ={}, folder=folder)


def test_every_setting_is_listed_once_with_its_origin(folder):
    settings = load_settings(environ={}, folder=folder)
    keys = [key for key, _, _ in settings.items()]
    assert len(keys) == len(set(keys)) == len(settings.origin)
    assert {origin for _, _, origin in settings.items()} == {"default"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\nsead = 1\n", "'sead'.*seed"),
        ("[ran]\nseed = 1\n", r"\[ran\].*run"),
        ("[run]\nseed = many\n", "run.seed = 'many'.*whole number"),
        ("[account]\nswap = maybe\n", "true or false"),
        ("[decision]\nmargins = 0.1 much\n", "numbers"),
        ("[DEFAULT]\nlib_name = x\n", "DEFAULT"),
        ("[symbol.GOLD]\nround_step = 10\n", r"symbol.GOLD\] lacks contract_size"),
        ("seed = 1\n", "cannot be read"),
        ("[run]\nseed = 1\nseed = 2\n", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, text, said):
    (folder / "settings.ini").write_text(text)
    with pytest.raises(UsageError, match=said):
        load_settings(environ={}, folder=folder)


def test_misspelt_variables_and_flags_are_refused(folder):
    with pytest.raises(UsageError, match="TRADEML_RUN_SEED"):
        load_settings(environ={"TRADEML_RUN_SED": "1"}, folder=folder)
    with pytest.raises(UsageError, match=r"run\.seed"):
        load_settings({"run.sed": 1}, environ={}, folder=folder)
    with pytest.raises(UsageError, match="does not exist"):
        load_settings(environ={"TRADEML_SETTINGS": str(folder / "none.ini")}, folder=folder)


def test_a_named_file_takes_the_place_of_the_local_one(folder):
    (folder / "settings.ini").write_text("[run]\nseed = 11\n")
    (folder / "other.ini").write_text("[run]\nseed = 99\n")
    assert load_settings(environ={"TRADEML_SETTINGS": str(folder / "other.ini")}, folder=folder).run.seed == 99


def test_an_unknown_symbol_says_how_to_add_it(folder):
    with pytest.raises(UsageError, match=r"symbol\.DOGE.*round_step"):
        load_settings(environ={}, folder=folder).symbol("DOGE")


def section_of(symbol: str) -> str:
    values = {field.name: 1 for field in fields(Symbol)} | {"max_lot": 9}
    return f"[symbol.{symbol}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def test_a_symbol_may_have_dots_in_its_name(folder):
    (folder / "settings.ini").write_text(section_of("GBPUSD.m") + section_of("GBPUSD"))
    given = {"market.symbol": "GBPUSD.m", "symbol.GBPUSD.m.commission": 3}
    settings = load_settings(given, environ={"TRADEML_SYMBOL_GBPUSD_M_SPREAD": "2"}, folder=folder)
    dotted, plain = settings.symbol("GBPUSD.m"), settings.symbol("GBPUSD")
    assert (dotted.spread, dotted.commission, plain.spread, plain.commission) == (2, 3, 1, 1)
    assert ("symbol.GBPUSD.m.spread", 2, "environment TRADEML_SYMBOL_GBPUSD_M_SPREAD") in settings.items()


@pytest.mark.parametrize("name", ["US_500", "BTC-USD", "EUR/USD", "GER 40", "ÖL"])
def test_a_symbol_that_no_stored_line_could_hold_is_refused_at_once(folder, name):
    rule = r"must be letters, digits and dots, such as US500 or GBPUSD\.m"
    with pytest.raises(UsageError, match=rf"market\.symbol = '{name}' \(from flag\) {rule}"):
        load_settings({"market.symbol": name}, environ={}, folder=folder)
    with pytest.raises(UsageError, match=rf"symbol = '{name}' {rule}"):
        load_settings(environ={}, folder=folder).symbol(name)
    (folder / "settings.ini").write_text(section_of(name), "utf8")
    with pytest.raises(UsageError, match=rf"\[symbol\.{name}\] \(from .*settings\.ini\): a symbol's name {rule}"):
        load_settings(environ={}, folder=folder)


def test_what_a_symbol_may_be_called_is_what_a_line_can_hold():
    for name in ("GBPUSD.m", "US500", "#US500", "US_500", "EUR/USD", ""):
        assert (name in SymbolName()) == bool(_LINE.fullmatch(f"market-{name.lower()}-15min")), name


RULES = {  # "section.key" -> (type, rule or None)
    f"{section}.{field.name}": (get_args(field.type) or (field.type, None))
    for section, record in {**SECTIONS, "symbol.BTCUSD": Symbol}.items()
    for field in fields(record)
}
FREE = {
    "paths.models",
    "paths.datasets",
    "paths.reports",
    "paths.keys",
    "market.bars",
    "market.news",
    *(f"hub.{name}" for name in ("url", "endpoint", "region", "approvers")),
}
NUMBERS = {key: pair for key, pair in RULES.items() if pair[0] in (int, float, tuple)}


def outside(kind: type, rule: Range) -> list[float]:
    """The nearest values that a rule refuses, and what is not a number at all."""
    if kind is int:
        return [rule.low - 1, rule.high + 1]
    below = rule.low if rule.above else math.nextafter(rule.low, -math.inf)
    return [below, math.nextafter(rule.high, math.inf), math.nan, math.inf, -math.inf]


def refusal(given: dict, folder) -> str:
    """What a refusal of these flags says; empty when they are taken."""
    try:
        load_settings(given, environ={}, folder=folder)
    except UsageError as refused:
        return str(refused)
    return ""


def test_every_setting_has_its_rule_beside_it():
    assert {key for key, (kind, rule) in RULES.items() if kind is not bool and rule is None} == FREE
    assert all(isinstance(rule, Range) for _, rule in NUMBERS.values())


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_just_outside_its_range_is_refused_and_named(folder, key):
    kind, rule = NUMBERS[key]
    for value in outside(kind, rule):
        with pytest.raises(UsageError) as refused:
            load_settings({key: value}, environ={}, folder=folder)
        assert str(refused.value) == f"{key} = {value} (from flag) {'each ' if kind is tuple else ''}{rule}"


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_at_the_end_of_its_range_is_taken_unless_it_contradicts_another(folder, key):
    rule = NUMBERS[key][1]
    lowest = rule.low if not rule.above else math.nextafter(rule.low, math.inf)
    for value in (lowest, rule.high):
        said = refusal({key: value}, folder)
        assert not said or (key in CONTRADICTED and said.count(" = ") > 1), said


CONTRADICTED = {"windows.final_share", "windows.select_share", "windows.tune_share", "position.min_bars_held", "labeling.horizon_bars"}
CONTRADICTED |= {"symbol.BTCUSD.lot_step", "symbol.BTCUSD.min_lot", "symbol.BTCUSD.max_lot"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"windows.final_share": 0.8}, r"tune_share = 0.10 \(from default\).*final_share = 0.8 \(from flag\) must sum to less than"),
        ({"labeling.horizon_bars": 1}, r"min_bars_held = 1 \(from default\), labeling.horizon_bars = 1 \(from flag\) must be in"),
        ({"symbol.XAUUSD.min_lot": 200}, r"symbol.XAUUSD.lot_step = 0.01.*symbol.XAUUSD.min_lot = 200 \(from flag\).*at least one size"),
        ({"symbol.BTCUSD.lot_step": 150}, r"at least one size"),
    ],
)
def test_settings_that_contradict_each_other_are_named_together(folder, given, said):
    with pytest.raises(UsageError, match=said):
        load_settings(given, environ={}, folder=folder)


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("labeling.entry", Entry),
        ("labeling.tie", Tie),
        ("labeling.price_path", PricePath),
        ("decision.rule", Rule),
        ("risk_model.objective", Objective),
        ("run.device", DEVICES),
    ],
)
def test_the_words_of_a_setting_are_those_of_the_code_that_reads_it(folder, key, choices):
    rule = RULES[key][1]
    assert isinstance(rule, OneOf)
    assert set(rule.words) == set(map(str, choices))
    with pytest.raises(UsageError, match=f"{key} = 'neither' .* must be {rule.words[0]}"):
        load_settings({key: "neither"}, environ={}, folder=folder)


def test_a_setting_without_a_value_is_refused(folder):
    for key in ("paths.models", "decision.margins", "run.seed"):
        with pytest.raises(UsageError, match=rf"{key} = '' \(from environment"):
            load_settings(environ={f"TRADEML_{key.replace('.', '_').upper()}": " "}, folder=folder)
