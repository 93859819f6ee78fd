"""What stands above the page of a backtest."""

from typing import Any

from trademl.evidence.looks import Look
from trademl.evidence.page import Evidence
from trademl.pipeline.market.replay import IN_SAMPLE
from trademl.pipeline.page_head import data_banners, look_banner
from trademl.pipeline.stored import Stored
from trademl.report import Banner


def backtest_head(stored: Stored, evidence: Evidence, look: Look | None, *, in_sample: bool) -> dict[str, Any]:
    """`headline`, `subtitle` and `banners` of the page of a backtest, by its own verdict."""
    days = " to ".join(evidence.window[edge][:10] for edge in ("start_utc", "end_utc"))
    banners = data_banners(stored)
    if in_sample:
        banners.append(Banner("in-sample", f"{IN_SAMPLE}.", "bad"))
    banners += [Banner("what-if", f"{why}.", "warn") for why in evidence.verdict.terms.objections if why.startswith("what-if")]
    banners += [] if look is None else [look_banner(look)]
    return {"headline": evidence.sentence, "subtitle": f"backtest of revision {stored.name}, {stored.line}, {days}", "banners": banners}
