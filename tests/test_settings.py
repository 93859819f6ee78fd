"""Settings: order of sources, origins, and refusals that name the right word."""

import pytest

from trademl.errors import UsageError
from trademl.settings import load_settings


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
