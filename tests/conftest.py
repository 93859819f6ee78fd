"""Fixtures that every test may use."""

import os
import re
import tempfile
from pathlib import Path

# Threads that spin long while they wait make the boosters several times slower when something else runs on the machine.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# The developer's own keys neither sign nor refuse what the tests store.
os.environ["XDG_CONFIG_HOME"] = str(Path(tempfile.gettempdir()) / "trademl-tests-have-no-keys")

import pytest
from hypothesis import settings

settings.register_profile("trademl", deadline=None)  # a deadline would be a timed assertion
settings.load_profile("trademl")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """The longest file first: it compiles the kernels. Beside it, in the other worker, files that need none; then the rest by name."""
    items.sort(key=lambda item: 0 if item.path.name == "test_commands.py" else 1 if item.path.name.startswith("test_data_") else 2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadfile`, and all files with tests of the small run in one worker, which makes it once."""
    from xdist.scheduler import LoadFileScheduling

    texts = {path: path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py")}
    together = {f"tests/{path.name}" for path, text in texts.items() if re.search(r"^ *def \w+\(.*\bsmall_run\b", text, re.MULTILINE)}

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "small_run" if file in together else file

    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def repo() -> Path:
    """The clone's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the clone; its tests are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside this clone (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def notebooks() -> Path:
    """Job notebooks for tests, each named by what it does."""
    return ROOT / "tests" / "notebooks"


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """One whole small retrain by hand, as every name of the job notebook. All tests share it: copy its store before you write to it."""
    from small_run import first_bars, retrain

    return retrain(tmp_path_factory.mktemp("small_run"), change={"inputs": first_bars}, shap=True)


@pytest.fixture(scope="session")
def s3_server():
    """A real S3 server on loopback, with a bucket and a trainer's and a bot's credentials (`hub_server.py`)."""
    import hub_server

    with hub_server.running() as server:
        yield server


@pytest.fixture(scope="session")
def small_trades(tmp_path_factory):
    """One whole small training on 260 trade records, too few for advice. All tests share it: copy its store before you write to it."""
    from small_trades import train

    return train(tmp_path_factory.mktemp("small_trades"))
