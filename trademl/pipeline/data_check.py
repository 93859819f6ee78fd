"""What `trademl data check` looks at beside the rows: whether columns or stamps know the future. Imports no model library."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from trademl.data.bars import BarsReport
from trademl.data.findings import Findings
from trademl.data.releases import release_profile
from trademl.market.features import compute_features
from trademl.pipeline.choice import SYNTHETIC
from trademl.validate.leaks import LEAST_BARS, inspect_leaks

PLANTED = "synthetic: a planted edge"
REMEDY = (
    "export it again, each value in the row of the bar at whose close it was known; a retrain on this file is refused by the gate until "
    "--accept-leak REASON"
)


def report_leaks(report: BarsReport, events: pd.DataFrame | None = None) -> BarsReport:
    """The report with a `leak` issue for each alarm of its columns, its features and its stamps, or with `columns` where there is none.

    Bars of the embedded market (symbol SYNTH) have their edge planted: `synthetic`. Too few bars: nothing is added.
    """
    enough = len(report.bars) >= LEAST_BARS
    leaks = inspect_leaks(report.bars, compute_features(report.bars, events) if enough else None)
    profile = None if events is None else release_profile(report.bars, events)
    shifted = [profile.sentence] if profile is not None and profile.is_alarmed else []
    findings = Findings(list(report.issues))
    for alarm in (*leaks.alarms, *shifted):
        if report.symbol == SYNTHETIC:
            findings.add("synthetic", f"{PLANTED}: {alarm}", count=len(report.bars), value=SYNTHETIC)
        else:
            findings.add("leak", f"{Path(report.source.path).name}: {alarm}", count=len(report.bars), remedy=REMEDY)
    if enough and not leaks.alarms:
        findings.add("columns", leaks.sentence)
    return replace(report, issues=findings.frozen())
