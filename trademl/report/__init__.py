"""Pictures and pages: plotly figures from plain arrays, and one self-contained HTML page from an executed notebook."""

from trademl.lazy import lends

_LENT = {
    "trademl.report.anatomy": ("r_by_clock", "r_by_holding", "r_by_period", "r_histogram", "streak_counts"),
    "trademl.report.blocks": ("Card", "Cards", "Listing"),
    "trademl.report.figures": (
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
        "risk_histogram",
        "study_course",
        "study_importance",
        "windows_timeline",
        "worth_and_drawdown",
    ),
    "trademl.report.page": ("Banner", "notebook_of", "render", "write_report"),
}
__getattr__, __dir__, __all__ = lends(__name__, _LENT)
