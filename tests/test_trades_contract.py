"""What the original's readers read, by their own few lines (records-spec 4 and 5): names, shapes and meaning."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from trademl.pipeline.trades.improvement import improvement_report
from trademl.pipeline.trades.revision import json_bytes, training_metadata
from trademl.trades.advice import Topic
from trademl.trades.registry import TradeModel
from trademl.validate.platt import Platt

pytestmark = [pytest.mark.trades, pytest.mark.contract]
THRESHOLD = 0.6  # the consumer's own, part 5


@pytest.fixture(scope="module")
def files(small_trades):
    """Report and metadata as they lie on the disk, of a training whose every claim held."""
    found = small_trades.finding.findings
    claims = {topic: replace(claim, p_value=1e-4, needed=1e-3, obstacle="") for topic, claim in found.claims.items()}
    given = replace(found, claims=claims, platt=Platt(4.0, -2.0), threshold=0.55, tuning=(57, 52))
    parts = replace(small_trades.parts, finding=replace(small_trades.finding, findings=given))
    report = json.loads(json_bytes(improvement_report(parts)))
    metadata = json.loads(json_bytes(training_metadata(parts, report, "2026-01-01T00:00:00Z")))
    withheld = json.loads((small_trades.folder / "out" / "improvement_report.json").read_text())
    return SimpleNamespace(report=report, metadata=metadata, withheld=withheld)


def quality_of(report: dict, probability: float) -> float:
    """mlInference: the graph's own probability through `signal_quality_calibration`, when there is one."""
    found = report.get("signal_quality_calibration")
    return probability if found is None else 1 / (1 + math.exp(-(found["scale"] * probability + found["intercept"])))


def confidence_change(report: dict, probability: float) -> int:
    """mlInference: +10 from 0.7 on, -15 and refused below the threshold (part 5)."""
    quality = quality_of(report, probability)
    threshold = report.get("suggested_signal_quality_threshold", THRESHOLD)
    return 10 if quality >= 0.7 else -15 if quality < threshold else 0


def source_weight(report: dict, model: str, feature: str, weight: float) -> float:
    """The weight tuner (VINCE_APPLY_IMPROVEMENT_WEIGHTS): weight x (0.85 + 0.3 importance / max), clamped to 0.5 to 2.0."""
    shares = report["feature_importances"][model]["feature_importances"]
    top = max(shares.values())
    return min(2.0, max(0.5, weight * (0.85 + 0.3 * shares.get(feature, 0.0) / top)))


def worst_level(report: dict) -> int | None:
    """The level that is skipped: of 1 to 3 the worst with a win rate below 45 % on at least five trades."""
    levels = {k: v for k, v in report["tp_level_performance"].items() if k in "123" and v["count"] >= 5 and v["win_rate"] < 0.45}
    return int(min(levels, key=lambda k: levels[k]["win_rate"])) if levels else None


def test_quality_reader(files):
    assert confidence_change(files.report, 0.8) == 10  # 1 / (1 + exp(-1.2)) = 0.77
    assert confidence_change(files.report, 0.4) == -15  # 0.40 < 0.55
    assert confidence_change(files.withheld, 0.65) == 0  # nothing published: the raw chance and the reader's own 0.6
    assert confidence_change(files.withheld, 0.55) == -15


def test_weight_tuner(files):
    names = files.report["feature_importances"]["signal_quality"]["feature_names"]
    weights = [source_weight(files.report, "signal_quality", name, 1.0) for name in names]
    assert max(weights) == pytest.approx(1.15)
    assert min(weights) >= 0.85
    assert source_weight(files.report, "signal_quality", names[0], 9.0) == 2.0


def test_level_reader(files):
    assert worst_level(files.report) is None  # a level is reached by winners alone
    files_with_losers = {"tp_level_performance": {"0": {"win_rate": 0.1, "count": 90}, "2": {"win_rate": 0.4, "count": 5}}}
    assert worst_level(files_with_losers) == 2
    for found in files.report["tp_level_performance"].values():
        assert set(found) == {"win_rate", "count"}
        assert found["win_rate"] == round(found["win_rate"], 3)


def test_tuner_of_least_signals(files):
    assert files.report["suggested_tuning"] == {"min_strength": 57, "min_confidence": 52}
    assert "suggested_tuning" not in files.withheld


def test_metadata_reader(files):
    """The original kept the report inside training_metadata.json."""
    assert files.metadata["improvement_report"]["signal_quality_calibration"] == {"scale": 4.0, "intercept": -2.0}
    assert files.metadata["improvement_report"]["feature_importances"]["signal_quality"]["suggested_threshold"] == 0.55
    assert {"trained_at", "data_file", "total_records", "trades_with_outcomes", "models_trained", "models_fit", "onnx_hashes"} <= set(
        files.metadata
    )
    assert set(files.metadata["onnx_hashes"]) == {str(model) for model in TradeModel}
    assert all(len(found) == 64 for found in files.metadata["onnx_hashes"].values())


def test_every_topic_says_given_or_withheld(files):
    assert {found["status"] for found in files.report["advice"].values()} == {"given"}
    assert set(files.withheld["advice"]) == {str(topic) for topic in Topic}
