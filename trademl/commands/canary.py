"""`trademl doctor --canary N`: the whole pipeline on markets that hold nothing, in a temporary project."""

import tempfile
from pathlib import Path

from trademl.errors import Exit
from trademl.pipeline.choice import MarketFlags, choose_market
from trademl.pipeline.market.canary import Kind, Passes, count_passes
from trademl.pipeline.market.inputs import Inputs, load_inputs
from trademl.runs import Course, Progress, watch
from trademl.settings import Settings, load_settings

NULLS = (Kind.NO_EDGE, Kind.DRIFT, Kind.REGIMES)


def run_canary(runs: int, bars: str | None = None, symbol: str | None = None, *, quiet: bool = False) -> dict:
    """So many markets of each kind that holds nothing: how many passed the gate, how many may, and whether that is too many.

    The bars are those of the file that is given or that the settings name, without a calendar. No such file: that kind is left out.
    """
    settings = load_settings()
    inputs = _own_bars(settings, bars, symbol)
    kinds = NULLS if inputs is None else (*NULLS, Kind.ROTATED)
    course = Course.of_shares(dict.fromkeys(kinds, 1.0))
    with tempfile.TemporaryDirectory(prefix="trademl-canary-") as folder, watch(folder, course, quiet=quiet):
        progress = Progress(folder)
        found = []
        for kind in kinds:
            with progress.stage(kind, total=runs) as stage:
                found.append(count_passes(kind, runs, bars=inputs, progress=stage.update))
    failed = [one for one in found if not one.is_alive]
    return {
        "status": "failed" if failed else "done",
        "exit": int(Exit.FAILED if failed else Exit.DONE),
        "markets": [_record(one) for one in found],
        "sentence": _sentence(failed, sum(one.passed for one in found), sum(one.expected for one in found)),
        "left_out": None if inputs else "your own bars: give --bars FILE, or name it in settings.ini",
    }


def _own_bars(settings: Settings, bars: str | None, symbol: str | None) -> Inputs | None:
    if bars is None and not Path(settings.market.bars).exists():
        return None
    flags = MarketFlags(bars=bars or settings.market.bars, no_news=True, symbol=symbol)
    return load_inputs(settings, choose_market(settings, flags), flags)


def _record(one: Passes) -> dict:
    low, high = one.interval
    expected, share = {"expected_at_most": round(one.expected, 4)}, {"share_low": low, "share_high": high}
    return {"market": str(one.kind), "runs": one.runs, "passed": one.passed} | expected | share | {"alive": one.is_alive}


def _sentence(failed: list[Passes], passed: int, expected: float) -> str:
    if not failed:
        return f"{passed} passed, at most {expected:.2g} expected: the pipeline finds no more in these markets than chance allows"
    named = ", ".join(f"{one.kind} ({one.passed} of {one.runs} passed, at most {one.expected:.2g} expected)" for one in failed)
    return f"{named}: skill is found where there is none. Trust no verdict of this installation and these settings until that is explained"
