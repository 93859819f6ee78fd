"""The improvement report for a person to read, in the original's order of sections."""

from collections.abc import Mapping


def markdown_report(report: Mapping) -> str:
    """`improvement_report.md`."""
    parts = ["# Improvement report", "Every R and every dollar is net of fees.", *_data(report)]
    if "feature_importances" in report:
        parts += [*_studies(report), *_drivers(report), *_threshold(report), *_importances(report), *_levels(report), *_holdout(report)]
        parts += [*_shap(report), *_walk_forward(report)]
    return "\n\n".join([*parts, *_factors(report), *_actions(report)]) + "\n"


def _data(report: Mapping) -> list[str]:
    found = report["data_summary"]
    trades = f"{found['trades_with_outcomes']:,} of them trades with an outcome (at least {found['min_samples_required']:,} are asked)"
    taught = found.get("trades_learned_from")
    bench = "" if taught is None else f" The fits learn from the {taught:,} that the bench score limit lets through; all are judged."
    return ["## Data summary", f"{found['total_records']:,} records, {trades}.{bench}"]


def _studies(report: Mapping) -> list[str]:
    found = report.get("studies")
    if not found:
        return []
    lines = [
        f"- {model}: {one['reason']}" for part in ("hyperparameters", "features", "failed") for model, one in found.get(part, {}).items()
    ]
    return ["## Searched before anything was judged", found.get("reason") or "\n".join(lines)]


def _drivers(report: Mapping) -> list[str]:
    lines = [
        f"- {side}: {found['trade_count']:,} trades; {', '.join(found['sample_drivers']) or 'no drivers written'}"
        for side, found in report["decision_drivers_by_direction"].items()
    ]
    return ["## Decision drivers", "\n".join(lines)]


def _threshold(report: Mapping) -> list[str]:
    lines = [f"- {topic}: {found['status']}. {found['reason']}" for topic, found in report["advice"].items()]
    chosen = report.get("suggested_signal_quality_threshold")
    head = "No signal quality threshold is suggested." if chosen is None else f"Suggested signal quality threshold: {chosen:.2f}."
    return ["## Suggested threshold and other advice", f"Tested together: {report['look']}.", head, "\n".join(lines)]


def _importances(report: Mapping) -> list[str]:
    parts = ["## Feature importances"]
    for model, found in report["feature_importances"].items():
        top = sorted(found["feature_importances"].items(), key=lambda item: -item[1])[:8]
        parts += [f"### {model}", _table(("feature", "share of the gain"), [(name, f"{share:.3f}") for name, share in top])]
    return parts


def _levels(report: Mapping) -> list[str]:
    rows = [(level, f"{found['win_rate']:.1%}", f"{found['count']:,}") for level, found in report["tp_level_performance"].items()]
    return ["## TP level performance", _table(("level", "win rate", "trades"), rows)]


def _holdout(report: Mapping) -> list[str]:
    rows = [
        (model, name, _interval(interval))
        for model, found in report["holdout_metrics"].items()
        for name, interval in found["intervals"].items()
    ]
    none = "Too few trades for a window of their own: see the walk-forward."
    return ["## Holdout metrics", _table(("model", "figure", "value"), rows) if rows else none]


def _shap(report: Mapping) -> list[str]:
    parts = ["## SHAP"]
    for model, found in report["feature_importances"].items():
        top = list(found["shap"]["shap_importance"].items())[:10]
        pairs = ", ".join(found["shap"]["top_interactions"]) or "none"
        parts += [
            f"### {model}",
            _table(("feature", "mean |SHAP|"), [(name, f"{value:.4g}") for name, value in top]),
            f"Interactions: {pairs}.",
        ]
    return parts


def _walk_forward(report: Mapping) -> list[str]:
    parts = ["## Walk-forward"]
    for model, found in report["feature_importances"].items():
        record = found["walk_forward"]
        names = [name for name in record["folds"][0] if name not in ("fold", "train_size", "test_size")]
        rows = [
            (str(f["fold"]), f"{f['train_size']:,}", f"{f['test_size']:,}", *(_number(f[name]) for name in names)) for f in record["folds"]
        ]
        overall = "; ".join(f"{name} {_interval(interval)}" for name, interval in record["overall"].items())
        parts += [f"### {model}", _table(("fold", "trained on", "judged", *names), rows), f"All folds: {overall}."]
    return parts


def _factors(report: Mapping) -> list[str]:
    lines = [f"- `{found['name']}` ({found['reason']}): {found['description']}" for found in report["suggested_signal_factors"]]
    return ["## Suggested signal factors", "\n".join(lines) or "None is missing."]


def _actions(report: Mapping) -> list[str]:
    return ["## Action items", "\n".join(f"- {item}" for item in report["action_items"])]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _interval(found: Mapping) -> str:
    if found["point"] is None:
        return f"none ({found['reason']})"
    bounds = f" [{found['low']:.4g}, {found['high']:.4g}]" if found["low"] is not None else f" (no interval: {found['reason']})"
    return f"{found['point']:.4g}{bounds}, n = {found['n']:,}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
