"""The README's transcript of the hub, command by command, on a small market: two folders, one hub between them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_run

from trademl.bot import Expect, load_approved
from trademl.data.synthetic import synthetic_market
from trademl.files import strict_json
from trademl.pipeline.market.strategy import SHAPE
from trademl.ship.shapes import check_shape
from trademl.ship.signing import KeyFolder

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
TRADEML = Path(sys.executable).with_name("trademl")
SECRET = "transcript-secret-5f4e3d2c1b0a"


def commands(repo) -> list[str]:
    """The lines of the block, without their remarks."""
    section = (repo / "README.md").read_text("utf-8").split("## From a retrain to a bot elsewhere")[1]
    return [line.split("#")[0].strip() for line in re.search(r"```\n(.*?)```", section, re.DOTALL)[1].splitlines()]


class Machine:
    """A folder with its own settings and keys."""

    def __init__(self, folder: Path, hub: Path, keys: str, environment: dict):
        folder.mkdir()
        self.folder, self.environment = folder, environment | {"TRADEML_HUB_URL": str(hub), "TRADEML_PATHS_KEYS": keys}
        self.environment |= {"AWS_ACCESS_KEY_ID": "TRANSCRIPT", "AWS_SECRET_ACCESS_KEY": SECRET}

    def run(self, line: str, code: int = 0) -> subprocess.CompletedProcess:
        words = [str(TRADEML), *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=1_800, check=False)
        assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        return done


def test_the_transcript(repo, tmp_path):
    import os

    own = {name: value for name, value in os.environ.items() if not name.startswith("TRADEML_")}
    hub = tmp_path / "hub"
    hub.mkdir()
    trainer = Machine(tmp_path / "trainer", hub, str(tmp_path / "keys"), own | small_run.environment())
    bot = Machine(tmp_path / "bot", hub, str(tmp_path / "public"), own)
    new, retrain, release, onboard, heads, pull, rollback, log = commands(repo)

    trainer.run(new)
    first = json.loads(trainer.run(f"{retrain} --quiet --json").stdout)
    assert first["hub"]["seq"] == 1

    released = json.loads(trainer.run(f"{release} --json").stdout)
    states = {item["step"]: item["state"] for item in released["checklist"]}
    assert states["manifest"] == states["out of sample"] == states["push"] == states["parameters"] == states["approval"] == "done"
    assert states["the bot"] == "left to you"
    params = strict_json((trainer.folder / released["strategy_params"]).read_bytes())
    check_shape(params, SHAPE, "strategy_params")
    assert params["revision"] == first["revision"]
    assert "Six steps" in (trainer.folder / released["report"]).read_text("utf-8")

    (tmp_path / "public").mkdir()
    shutil.copy(tmp_path / "keys" / "trusted.txt", tmp_path / "public" / "trusted.txt")
    told = bot.run(onboard).stdout
    assert f"a bot may load {first['revision']} of market-synth-15min under profile 3" in told
    assert "profile = 3" in (bot.folder / "settings.ini").read_text()
    assert decision(bot, tmp_path).revision == first["revision"]

    second = json.loads(trainer.run(f"{heads} --quiet --json").stdout)
    assert second["hub"]["seq"] == 2
    blob = max((hub / "trademl").rglob("blobs/sha256/*/*"), key=lambda path: path.stat().st_mtime)  # somebody spoils what came last
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = bot.run(pull, code=1)
    assert "is not what its name says" in refused.stderr
    assert decision(bot, tmp_path).revision == first["revision"]
    blob.write_bytes(whole)
    bot.run(pull)
    assert decision(bot, tmp_path).revision == second["revision"]

    assert f"approval 3: {first['revision']}" in trainer.run(rollback).stdout
    bot.run(pull)
    assert decision(bot, tmp_path).revision == first["revision"]
    assert "two bad days" in trainer.run(log).stdout

    for path in (file for folder in (trainer.folder, bot.folder, hub) for file in folder.rglob("*") if file.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


def decision(bot: Machine, tmp_path: Path):
    """What the bot decides at the close of the embedded market's 2,000th bar."""
    keys = [str(key) for key in KeyFolder(tmp_path / "public").trust().pinned]
    predictor = load_approved(bot.folder / "models" / "synthetic", keys, profile=3, expect=Expect("SYNTH"))
    market = synthetic_market(3_000, edge=0.5, seed=7)
    bars = market.bars.iloc[:2_000]
    from datetime import timedelta

    return predictor.predict(bars, None, now=bars.index[-1].to_pydatetime() + timedelta(minutes=15, seconds=1))
