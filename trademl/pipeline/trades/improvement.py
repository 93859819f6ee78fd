"""The improvement report: the original's keys and shapes (records-spec 4), each figure with its evidence or left out with its reason."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from trademl.data.record_fields import field_at
from trademl.evidence.explain import top_interactions
from trademl.evidence.treeshap import mean_interactions, tree_shap
from trademl.files import digest
from trademl.pipeline.trades.case import JudgedTrades, TradeCase, learning_curves
from trademl.pipeline.trades.evidence import TradeFinding
from trademl.pipeline.trades.inputs import TradeInputs
from trademl.pipeline.trades.proof import ProvenTrades
from trademl.pipeline.trades.studies import studies_record
from trademl.trades.advice import Topic
from trademl.trades.models import ENOUGH, LEVELS
from trademl.trades.profile import SPARSE, health_of
from trademl.trades.registry import TradeModel
from trademl.trades.scores import CurvePoint, figures_of, scored
from trademl.trades.walkforward import CHANCE, Fitted, seen_by, thirds_of
from trademl.validate.bootstrap import Interval

SCHEMA = 1
SHAP_ROWS = 2_000  # newest trades
FIGURES = {  # the original's names of ours
    TradeModel.SIGNAL_QUALITY: {"auc": "holdout_auc", "accuracy": "holdout_accuracy"},
    TradeModel.POSITION_SIZING: {"mae": "holdout_mae"},
    TradeModel.TP_OPTIMIZER: {"accuracy": "holdout_accuracy", "log_loss": "holdout_log_loss"},
    TradeModel.SL_OPTIMIZER: {"mae": "holdout_mae", "quantile_loss": "holdout_quantile_loss"},
}
FACTORS = (  # path, what it would tell
    ("market.fundingDelta", "whether funding builds up or fades"),
    ("market.bookImbalance", "who waits in the order book"),
    ("market.bidAskSpread", "what a trade costs to open"),
    ("market.rsi14", "how far a move has run"),
    ("market.priceVsSma20", "how far the price is from its mean"),
    ("market.dvol", "what options expect of volatility"),
    ("market.oiChange24h", "whether positions are opened or closed"),
    ("news.nasdaqChange", "what stocks do"),
    ("news.etfFlowBtc", "what funds buy"),
    ("news.macroRiskEnvironment", "whether risk is sought or avoided"),
    ("signal.avgSentiment", "what the sources feel"),
    ("execution.streakMultiplier", "how the last trades went"),
    ("signal.hasOICap", "whether a market is full"),
    ("signal.hasFundingExtreme", "whether one side pays too much"),
    ("market.longShortRatio", "how the crowd stands"),
    ("wtt.alignment", "how well a thesis fits the trade"),
    ("wtt.edge", "how strong a thesis is"),
)


@dataclass(frozen=True, eq=False)
class TradeParts:
    """Everything a training made, for its report."""

    case: TradeCase
    judged: JudgedTrades
    finding: TradeFinding
    shipped: Mapping[TradeModel, Fitted]
    proven: ProvenTrades

    @cached_property
    def curves(self) -> Mapping[TradeModel, tuple[CurvePoint, ...]]:
        """Each judged model's learning curve."""
        return learning_curves(self.case, self.judged)

    @cached_property
    def scores(self) -> Mapping[TradeModel, dict[str, Interval]]:
        """Each judged model's figures over all folds."""
        return {model: scored(self.case.rows, judged, seed=self.case.recipe.seed) for model, judged in self.judged.models.items()}

    @cached_property
    def holdout(self) -> Mapping[TradeModel, dict]:
        """Each judged model's `holdout_metrics`."""
        return {model: holdout_metrics(self, model) for model in self.judged.models}


# ---------------------------------------------------------------- whole reports


def improvement_report(parts: TradeParts) -> dict:
    """`improvement_report.json`. What is withheld has no key of its own: `advice` says why."""
    case, found = parts.case, parts.finding.findings
    report = {
        "schema": SCHEMA,
        "data_summary": data_summary(case.inputs),
        "feature_importances": {str(model): model_report(parts, model) for model in parts.judged.models},
        "failed": {str(model): {"status": "failed", "reason": why} for model, why in parts.judged.failed.items()},
        "tp_level_performance": level_performance(case),
        "decision_drivers_by_direction": drivers_by_direction(case),
        "suggested_signal_factors": signal_factors(case.inputs),
        "holdout_metrics": {str(model): figures for model, figures in parts.holdout.items() if figures},
        "look": parts.finding.look.told,
        "advice": {str(topic): advice_record(claim) for topic, claim in found.claims.items()},
        "by_asset": group_table(case, "asset"),
        "by_session": group_table(case, "session_session"),
        "positive_rate": float(case.rows.labels.profitable.mean()),
    }
    if found.is_given(Topic.CALIBRATION):
        report["signal_quality_calibration"] = found.platt.record()
    if found.is_given(Topic.THRESHOLD):
        report["suggested_signal_quality_threshold"] = found.threshold
    if found.is_given(Topic.TUNING):
        report["suggested_tuning"] = dict(zip(("min_strength", "min_confidence"), found.tuning, strict=True))
    if searched := studies_record(case):
        report["studies"] = searched
    wtt = wtt_performance(case)
    return report | ({"wtt_performance": wtt} if wtt else {}) | {"action_items": action_items(parts, report)}


def short_report(inputs: TradeInputs) -> dict:
    """The report of a log that is too short to train on."""
    missing = inputs.flags.min_samples - inputs.teaching
    limit = " within the bench score limit" if inputs.flags.bench.is_set else ""
    items = [f"{missing:,} more closed trades{limit} are needed before anything is trained"]
    summary = data_summary(inputs)
    return {"schema": SCHEMA, "data_summary": summary, "suggested_signal_factors": signal_factors(inputs), "action_items": items}


def data_summary(inputs: TradeInputs) -> dict:
    """How much there is. Under a bench limit also how many trades may teach; the others are judged like them."""
    found = {"total_records": inputs.records, "trades_with_outcomes": inputs.trades, "min_samples_required": inputs.flags.min_samples}
    return found | ({"trades_learned_from": inputs.teaching} if inputs.flags.bench.is_set else {})


def advice_record(claim) -> dict:
    """One claim as plain values."""
    return {
        "status": "given" if claim.is_given else "withheld",
        "reason": claim.sentence,
        "p_value": claim.p_value,
        "gain": asdict(claim.gain),
    }


# ---------------------------------------------------------------- models


def model_report(parts: TradeParts, model: TradeModel) -> dict:
    """One model's entry under `feature_importances`."""
    names = [feature.name for feature in parts.case.rows.features(model)]
    names += [CHANCE] if parts.shipped[model].quality is not None else []
    gain = parts.shipped[model].booster.get_score(importance_type="gain")
    total = sum(gain.values()) or 1.0
    found = {
        "feature_importances": {name: gain.get(f"f{place}", 0.0) / total for place, name in enumerate(names)},
        "feature_names": names,
        "onnx_exported": True,
        "onnx_sha256": digest(parts.proven.graphs[model]),
        "rounds": parts.shipped[model].rounds,
        "trades": len(parts.shipped[model].at),
        "parity": parts.proven.parity[model],
        "holdout_metrics": parts.holdout[model],
        "shap": shap_record(parts, model, names),
        "walk_forward": walk_forward_record(parts, model),
        "learning_curve": [{"trades": point.trades, "gain": asdict(point.gain)} for point in parts.curves[model]],
    }
    findings = parts.finding.findings
    if model is TradeModel.SIGNAL_QUALITY and findings.is_given(Topic.CALIBRATION):
        found["signal_quality_calibration"] = findings.platt.record()
    if model is TradeModel.SIGNAL_QUALITY and findings.is_given(Topic.THRESHOLD):
        found["suggested_threshold"] = findings.threshold
    return found


def holdout_metrics(parts: TradeParts, model: TradeModel) -> dict:
    """Figures of the last third of the judged trades, which nothing was chosen on; {} below 300 trades, which have no such third."""
    if len(parts.case.rows) < ENOUGH:
        return {}
    judged, seed = parts.judged.models[model], parts.case.recipe.seed
    places = thirds_of(parts.case.rows, judged.at).report
    figures = scored(parts.case.rows, judged, places, seed=seed)
    named = {ours: figures[name].point for name, ours in FIGURES[model].items() if figures[name].point is not None}
    return named | {
        "n": max(figure.n for figure in figures.values()),
        "intervals": {name: asdict(figure) for name, figure in figures.items()},
    }


def walk_forward_record(parts: TradeParts, model: TradeModel) -> dict:
    """Figures by fold, and over all folds with intervals."""
    rows, judged = parts.case.rows, parts.judged.models[model]
    folds = []
    for number, fit in zip(np.unique(judged.fold).tolist(), judged.fits, strict=True):
        places = np.flatnonzero(judged.fold == number)
        figures, times = figures_of(rows, judged, places)
        shown = {name: None if np.isnan(figures[name]).any() or not len(times) else float(figures[name].mean()) for name in FIGURES[model]}
        folds.append({"fold": number + 1, "train_size": len(fit.at), "test_size": len(times), **shown})
    first = next(iter(FIGURES[model]))
    known = [fold[first] for fold in folds if fold[first] is not None]
    overall = {name: asdict(figure) for name, figure in parts.scores[model].items()}
    spread = {f"mean_{first}": float(np.mean(known)), f"std_{first}": float(np.std(known))} if known else {}
    return {"n_folds": len(folds), "folds": folds, **spread, "overall": overall}


def shap_record(parts: TradeParts, model: TradeModel, names: list[str]) -> dict:
    """Exact TreeSHAP on the newest trades: what each feature moved on average, and which pairs interact."""
    rows = parts.case.rows
    x = seen_by(parts.shipped[model], rows, np.arange(max(0, len(rows) - SHAP_ROWS), len(rows)))
    weight = np.abs(tree_shap(parts.proven.tables[model], x)).mean(axis=(0, 1))
    pairs = top_interactions(mean_interactions(parts.proven.tables[model], x[-200:]).sum(0), names, count=3)
    order = np.argsort(-weight, kind="stable")[:15]
    return {
        "shap_importance": {names[place]: float(weight[place]) for place in order},
        "top_features": [names[place] for place in order[:5]],
        "top_interactions": [f"{one} × {other}" for one, other, _ in pairs],
        "rows": len(x),
    }


# ---------------------------------------------------------------- tables


def level_performance(case: TradeCase) -> dict:
    """Win rate and number of trades by the level they reached."""
    level, won = case.rows.labels.tp_level, case.rows.labels.profitable
    found = {}
    for k in range(LEVELS):
        own = level == k
        if own.any():
            found[str(k)] = {"win_rate": round(float(won[own].mean()), 3), "count": int(own.sum())}
    return found


def group_table(case: TradeCase, name: str) -> dict:
    """Trades, win rate and mean R by the words of a column."""
    words, labels = case.rows.columns[name].astype(str), case.rows.labels
    found = {}
    for word in np.unique(words).tolist():
        own = words == word
        net = labels.r_multiple[own]
        mean = float(np.nanmean(net)) if not np.isnan(net).all() else None
        found[word] = {"trades": int(own.sum()), "win_rate": float(labels.profitable[own].mean()), "mean_r": mean}
    return found


def drivers_by_direction(case: TradeCase) -> dict:
    """The most frequent drivers of long and short trades."""
    found = {}
    for side in ("long", "short"):
        own = np.flatnonzero(case.rows.columns["signal_direction"] == side)
        words = [line for text in case.rows.columns["decision_drivers"][own] if isinstance(text, str) for line in text.split("\n")]
        names, counts = np.unique(np.array(words, object).astype(str), return_counts=True)
        top = names[np.argsort(-counts, kind="stable")][:8].tolist()
        found[side] = {"sample_drivers": top, "trade_count": len(own), "total_factor_mentions": len(words)}
    return found


def signal_factors(inputs: TradeInputs) -> list[dict]:
    """Values that would help and that the bot never or hardly ever writes."""
    found = []
    for path, told in FACTORS:
        name = field_at(path).column
        filled = health_of(name, path, inputs.columns[name]).filled
        if filled < SPARSE:
            reason = "missing" if not filled else f"filled in {filled:.0%} of the records"
            found.append({"name": path, "reason": reason, "description": told})
    return found


def wtt_performance(case: TradeCase) -> dict:
    """Trades with a thesis beside the others; {} with fewer than five."""
    rows, won = case.rows, case.rows.labels.profitable
    has = rows.column("wtt_primary") == 1
    if has.sum() < 5 or has.all():
        return {}
    inside, outside = float(won[has].mean()), float(won[~has].mean())
    found = {"wtt_trades": int(has.sum()), "wtt_win_rate": inside, "non_wtt_win_rate": outside, "delta": inside - outside}
    for key in ("alignment", "edge", "payoffShape", "timingForgiveness"):
        values = rows.column(f"wtt_{key}")[has]
        known = ~np.isnan(values)
        if known.sum() > 2 and values[known].std() > 0 and won[has][known].std() > 0:
            found[f"wtt_{key}_corr"] = float(np.corrcoef(values[known], won[has][known])[0, 1])
    return found


def action_items(parts: TradeParts, report: Mapping) -> list[str]:
    """What a person may do next, in words."""
    items = [f"{topic}: {claim.sentence}" for topic, claim in parts.finding.findings.claims.items() if claim.is_given]
    if not items:
        items.append("nothing is advised: no gain was clear on trades that the models had not seen")
    if len(parts.case.rows) < ENOUGH:
        items.append(f"collect {ENOUGH - len(parts.case.rows):,} more closed trades: calibration, threshold and tuning need {ENOUGH}")
    missing = [factor["name"] for factor in report["suggested_signal_factors"]]
    return items + ([f"let the bot write {', '.join(missing)}"] if missing else [])
