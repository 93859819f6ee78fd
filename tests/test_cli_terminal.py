"""What every command of the terminal shares: help, version, completion, and the exit codes of what is not there."""

import os
import subprocess
import sys

import click
import make_revision as make
import pytest
import typer.main
from typer.testing import CliRunner

from trademl import __version__
from trademl.cli import app, main
from trademl.errors import BadDataError, Exit, UnknownRevisionError
from trademl.ship.store import Store

RUNNER = CliRunner()


def commands(group: click.Command = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command by the words that call it, groups too."""
    group = group or typer.main.get_command(app)
    found = {path: group}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands(command, (*path, name))
    return found


COMMANDS = commands()


@pytest.mark.contract
def test_the_version_is_one_line():
    done = RUNNER.invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"trademl {__version__}\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_h_and_says_what_it_is_for(words):
    short, long = (RUNNER.invoke(app, [*words, flag]) for flag in ("-h", "--help"))
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert "Usage:" in short.stdout
    assert COMMANDS[words].help or COMMANDS[words].short_help, "a command without a sentence"


def test_every_option_says_what_it_is():
    """--help of typer's own excepted: an option without help is a riddle."""
    silent = [
        f"trademl {' '.join(words)} {option.opts[0]}"
        for words, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


@pytest.mark.parametrize(("typed", "word", "offered"), [("trademl mod", 1, "models"), ("trademl backtest --oos", 2, "--oos-only")])
def test_a_shell_completes_commands_and_options(typed, word, offered):
    asked = {"_TRADEML_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(word)}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'trademl'; from trademl.cli import main; main()"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [offered], done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["modles"], "trademl: No such command 'modles'. Did you mean 'models'? `trademl --help` shows what it takes\n"),
        (
            ["retrain", "--profile", "9"],
            "trademl: Invalid value for '--profile': must be less than or equal to 5; `trademl retrain --help` ",
        ),
    ],
)
def test_a_slip_of_the_hand_is_one_sentence(words, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["trademl", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == Exit.USAGE
    assert capsys.readouterr().err.startswith(sentence)


NAMED = [  # every way to name a revision
    ["models", "show", "ffff"],
    ["models", "verify", "ffff"],
    ["models", "activate", "ffff"],
    ["models", "diff", "ffff", "eeee"],
    ["backtest", "--revision", "ffff"],
    ["report", "--revision", "ffff"],
    ["backtest", "--revision", "not-hex"],
    ["explain", "--revision", "ffff"],
    ["release", "ffff"],
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with one stored revision."""
    folder = tmp_path_factory.mktemp("project")
    Store(folder / "models").write(make.make_files(), make.make_manifest())
    return folder


@pytest.mark.contract
@pytest.mark.parametrize("words", NAMED, ids=" ".join)
def test_an_unknown_revision_is_exit_2_in_every_command(words, project, monkeypatch):
    monkeypatch.chdir(project)
    refused = RUNNER.invoke(app, words).exception
    assert isinstance(refused, UnknownRevisionError)
    assert refused.exit_code == Exit.USAGE == 2
    assert "trademl models list" in str(refused)
    assert not (project / "reports").exists()


def test_every_command_that_takes_a_revision_is_asked():
    takes = {words for words, command in COMMANDS.items() if any("revision" in (option.name or "") for option in command.params)}
    elsewhere = {("hub",), ("trades", "shadow")}  # what is published, or what a bot's log holds, not what a store does
    assert {words for words in takes if elsewhere.isdisjoint({words, words[:1]})} <= {
        tuple(asked[: len(words)]) for words in takes for asked in NAMED
    }


@pytest.mark.parametrize("words", [["retrain"], ["tune", "signal"], ["backtest"]], ids=" ".join)
@pytest.mark.parametrize("more", [[], ["--no-news"], ["--news", "n.csv"]], ids=" ".join)
def test_missing_bars_are_reported_first_and_leave_nothing(words, more, project, monkeypatch):
    monkeypatch.chdir(project)
    refused = RUNNER.invoke(app, [*words, "--bars", "nope.csv", *more]).exception
    assert (type(refused), refused.exit_code) == (BadDataError, Exit.BAD_DATA)
    assert str(refused) == "nope.csv: no such file; check the path"
    assert not (project / "reports").exists()
