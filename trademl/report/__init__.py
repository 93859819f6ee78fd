"""Pictures and pages: plotly figures from plain arrays, and one self-contained HTML page from an executed notebook."""

from .figures import (
    EquityBand,
    PathTrade,
    calibration,
    candles,
    confusion,
    cost_curve,
    equity_and_drawdown,
    feature_coverage,
    importance,
    label_distribution,
    label_on_path,
    risk_histogram,
    study_course,
    study_importance,
    windows_timeline,
)
from .page import notebook_of, render, write_report

__all__ = [
    "EquityBand",
    "PathTrade",
    "calibration",
    "candles",
    "confusion",
    "cost_curve",
    "equity_and_drawdown",
    "feature_coverage",
    "importance",
    "label_distribution",
    "label_on_path",
    "notebook_of",
    "render",
    "risk_histogram",
    "study_course",
    "study_importance",
    "windows_timeline",
    "write_report",
]
