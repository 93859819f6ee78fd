"""Pictures and pages: plotly figures from plain arrays, and one self-contained HTML page from an executed notebook."""

from .figures import (
    NullBand,
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
    worth_and_drawdown,
)
from .page import notebook_of, render, write_report

__all__ = [
    "NullBand",
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
    "worth_and_drawdown",
    "write_report",
]
