"""Pictures and pages: plotly figures from plain arrays, and one self-contained HTML page from an executed notebook."""

from .anatomy import r_by_clock, r_by_holding, r_by_period, r_histogram, streak_counts
from .blocks import Card, Cards, Listing
from .figures import (
    NullBand,
    PathTrade,
    calibration,
    candles,
    confusion,
    cost_curve,
    equity_and_drawdown,
    importance,
    label_distribution,
    label_on_path,
    risk_histogram,
    study_course,
    study_importance,
    windows_timeline,
    worth_and_drawdown,
)
from .page import Banner, notebook_of, render, write_report

__all__ = [
    "Banner",
    "Card",
    "Cards",
    "Listing",
    "NullBand",
    "PathTrade",
    "calibration",
    "candles",
    "confusion",
    "cost_curve",
    "equity_and_drawdown",
    "importance",
    "label_distribution",
    "label_on_path",
    "notebook_of",
    "r_by_clock",
    "r_by_holding",
    "r_by_period",
    "r_histogram",
    "render",
    "risk_histogram",
    "streak_counts",
    "study_course",
    "study_importance",
    "windows_timeline",
    "worth_and_drawdown",
    "write_report",
]
