"""What a trade revision holds, how it is stored, and the plain copy for a bot that reads a folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from trademl.clock import iso_z, utc_now
from trademl.errors import Exit
from trademl.files import digest, jsonable, make_folders, npz_bytes, write_atomically
from trademl.pipeline.code import code_record
from trademl.pipeline.market.golden import GOLDEN_FILE, GOLDEN_ROWS
from trademl.pipeline.market.manifest import expiry_of
from trademl.pipeline.stored import Stored
from trademl.pipeline.trades.improvement import TradeParts, improvement_report, short_report
from trademl.pipeline.trades.inputs import LINE, TradeInputs
from trademl.pipeline.trades.looks import recipe_parts
from trademl.pipeline.trades.markdown import markdown_report
from trademl.pipeline.trades.recompute import JUDGED_TRADES, judged_bytes
from trademl.pipeline.trades.stored import registry_hash, trade_store
from trademl.pipeline.trades.studies import last_tuning, studies_record
from trademl.ship.export import OPSET, RAW_INPUT
from trademl.ship.manifest import SCHEMA, TOLERANCE
from trademl.trades.advice import AdviceRule
from trademl.trades.models import TASKS
from trademl.trades.policy import Policy
from trademl.trades.registry import TradeModel, manifest
from trademl.trades.walkforward import mean_positive, said_by
from trademl.validate.lineage import Fit, FitKind, Lineage


def json_bytes(record: Mapping) -> bytes:
    """JSON as a person reads it; no NaN."""
    return json.dumps(jsonable(record), indent=1, ensure_ascii=False, allow_nan=False).encode()


def advice_rule(parts: TradeParts) -> AdviceRule:
    """What a bot advises by: the size is seen against what the shipped model expects of its own good trades."""
    fit = parts.shipped[TradeModel.POSITION_SIZING]
    return parts.finding.findings.rule(mean_positive(said_by(fit, parts.case.rows, fit.at)[:, 0]))


# ---------------------------------------------------------------- files


def revision_files(parts: TradeParts, trained_at: str, tuning: Mapping | None) -> dict[str, bytes]:
    """Every file of the revision but its manifest. `tuning`: the last one."""
    report, rows = improvement_report(parts), parts.case.rows
    claims = [claim.record() for claim in parts.finding.findings.claims.values()]
    files = {f"{model}.onnx": graph for model, graph in parts.proven.graphs.items()}
    files |= {f"native/{model}.ubj": bytes(fit.booster.save_raw("ubj")) for model, fit in parts.shipped.items()}
    files |= {f"{model}_features.json": json_bytes(manifest(model, rows.assets, is_chained=rows.is_chained)) for model in parts.shipped}
    files |= {
        GOLDEN_FILE: npz_bytes(parts.proven.golden),
        "improvement_report.json": json_bytes(report),
        "improvement_report.md": markdown_report(report).encode(),
        "training_metadata.json": json_bytes(training_metadata(parts, report, trained_at) | {"last_tuning": tuning}),
        "backtest_report.json": json_bytes(backtest_report(parts)),
        "metrics.json": json_bytes({"schema": 1, "headline": headline(parts), "advice": report["advice"], "claims": claims}),
        JUDGED_TRADES: judged_bytes(parts.finding.replay),
    }
    return files


def training_metadata(parts: TradeParts, report: Mapping, trained_at: str) -> dict:
    """The original's metadata, and whether this may be used."""
    flags, names = parts.case.inputs.flags, [feature.name for feature in parts.case.rows.features(TradeModel.SIGNAL_QUALITY)]
    bench = {"bench_score_used": flags.bench.is_set or flags.bench_score_weight, "bench_score_weight_enabled": flags.bench_score_weight}
    bench |= {"trades_learned_from": parts.case.inputs.teaching}
    bench |= {name: getattr(flags, name) for name in ("min_bench_score", "bench_score_quantile") if getattr(flags, name) is not None}
    return {
        "status": "approved" if parts.finding.verdict.passed else "candidate",
        "trained_at": trained_at,
        "data_file": Path(flags.data).name,
        "total_records": parts.case.inputs.records,
        "trades_with_outcomes": parts.case.inputs.trades,
        "models_trained": [str(model) for model in parts.proven.graphs],
        "models_fit": [str(model) for model in parts.shipped],
        "onnx_hashes": {str(model): digest(graph) for model, graph in parts.proven.graphs.items()},
        "signal_quality_input_dim": len(names),
        "signal_quality_feature_names": names,
        "training_run_id": parts.proven.run_id,
        "improvement_report": report,
    } | (bench if bench["bench_score_used"] else {})


def backtest_report(parts: TradeParts) -> dict:
    """The judged policy beside every trade, the rule of thumb and random sizing, in R and in USD net of fees."""
    replay = parts.finding.replay
    versus = [{"other": one.other, "difference_r_a_trade": asdict(one.difference)} for one in replay.versus]
    results = {str(policy): asdict(result) for policy, result in replay.results.items()}
    return {"schema": 1, "trades": len(replay.rows), "policies": results, "model_versus": versus, "random_p": replay.random_p}


def headline(parts: TradeParts) -> str:
    """The report's first line, but for the revision's name."""
    look = parts.finding.look
    return f"{LINE}, judged {iso_z(look.start_s)[:10]} to {iso_z(look.end_s)[:10]}: {parts.finding.verdict.sentence}"


# ---------------------------------------------------------------- manifest


def build_manifest(parts: TradeParts, files: Mapping[str, bytes], trained_at: str, tuning: Mapping | None) -> dict:
    """The record of a revision that holds these files."""
    case, look = parts.case, parts.finding.look
    rows, source = case.rows, case.inputs.report.source
    times = case.inputs.columns["timestamp"] // 1_000
    record = {
        "schema": SCHEMA,
        "pipeline": "trades",
        "line": LINE,
        "symbols": list(rows.assets),
        "timeframe": "records",
        "trained_at": trained_at,
        "expires_at": expiry_of(trained_at, case.settings),
        **code_record(),
        "models": [_model(parts, model, files) for model in parts.proven.graphs],
        "trained_together": parts.proven.run_id,
        "parent": None,
        "seed": case.recipe.seed,
        "lineage": json.loads(lineage_of(parts).to_json()),
        "data": {
            "rows": case.inputs.records,
            "first": iso_z(times[0]),
            "last": iso_z(times[-1]),
            "sha256": source.sha256,
            "source": Path(source.path).name,
        },
        "split": {"scheme": "walk-forward; calibrate | choose | report", "purge": "close of each trade", "embargo": 0},
        "metrics": {"headline": headline(parts), "parity": {str(model): found for model, found in parts.proven.parity.items()}},
        "gate": parts.finding.verdict.to_json(),
        "look": look.to_json(),
        "golden": {"file": GOLDEN_FILE, "rows": GOLDEN_ROWS, "tolerance": TOLERANCE},
        "champion": None if parts.finding.champion is None else asdict(parts.finding.champion),
        "trades": section(parts) | {"last_tuning": tuning},
    }
    return jsonable(record)


def section(parts: TradeParts) -> dict:
    """What belongs to trade revisions alone."""
    case = parts.case
    return {
        "recipe": recipe_parts(case),
        "assets": list(case.rows.assets),
        "excursion_unit": str(case.rows.unit),
        "trades": len(case.rows),
        "is_chained": case.rows.is_chained,
        "advice": advice_rule(parts).record(),
        "devices": devices_of(parts),
    }


def devices_of(parts: TradeParts) -> dict:
    """Where each shipped model really trained, as a market's manifest says it."""
    return {str(model): {"xgb": asdict(fit.where)} for model, fit in parts.shipped.items()}


def lineage_of(parts: TradeParts) -> Lineage:
    """What every shipped model, and what was chosen for it, has seen."""
    end_s, thirds = parts.case.rows.end_s, parts.finding.findings.thirds
    at = parts.judged.models[TradeModel.SIGNAL_QUALITY].at
    fits = [Fit.of_rows(FitKind.TREES, str(model), fit.at, end_s) for model, fit in parts.shipped.items()]
    for kind, name, places in ((FitKind.CALIBRATION, "platt", thirds.calibrate), (FitKind.SELECTION, "threshold", thirds.choose)):
        fits += [Fit.of_rows(kind, name, at[places], end_s)] if len(places) else []
    studies = parts.case.studies
    if studies is not None and studies.is_used:
        fits.append(Fit.of_rows(FitKind.STUDY, "parameters and features", studies.seen, end_s))
    return Lineage(tuple(fits))


def _model(parts: TradeParts, model: TradeModel, files: Mapping[str, bytes]) -> dict:
    names = [feature.name for feature in parts.case.rows.features(model)]
    tensor = {"dtype": "float32"}
    return {
        "name": str(model),
        "role": str(model),
        "file": f"{model}.onnx",
        "format": "onnx",
        "opset": OPSET,
        "sha256": digest(files[f"{model}.onnx"]),
        "input": tensor | {"name": RAW_INPUT, "shape": ["N", len(names)]},
        "outputs": [tensor | {"name": "output", "shape": ["N", TASKS[model].columns]}],
        "features": [{"name": name, "dtype": "float32", "lookback": 0} for name in names],
        "feature_hash": registry_hash(parts.case.rows, model),
        "classes": None,
        "members": ["xgb"],
        "content_hash": {"xgb": parts.proven.tables[model].content_hash()},
    }


# ---------------------------------------------------------------- storing


def store_trades(parts: TradeParts) -> Stored:
    """Write the revision whole. The pointer moves last, when the run has its report."""
    trained_at = iso_z(utc_now())
    tuning = last_tuning(parts.case, trained_at)
    files = revision_files(parts, trained_at, tuning)
    store = trade_store(parts.case.settings, parts.case.inputs.flags.models_dir)
    return Stored(store.write(files, build_manifest(parts, files, trained_at, tuning), graphs=True))


def summary_of(parts: TradeParts, stored: Stored) -> dict:
    """What a run hands back."""
    verdict = parts.finding.verdict
    return {
        "revision": stored.name,
        "line": stored.line,
        "headline": f"revision {stored.name}, {headline(parts)}",
        "gate": asdict(verdict),
        "looks": stored.look.number,
        "look": stored.look.summary(),
        "status": "done" if verdict.passed else "refused",
        "exit": int(Exit.DONE if verdict.passed else Exit.GATE_REFUSED),
        "advice": {
            str(topic): ("given: " if claim.is_given else "withheld: ") + claim.sentence
            for topic, claim in parts.finding.findings.claims.items()
        },
        "policies": {str(policy): result.total_r for policy, result in parts.finding.replay.results.items()},
        "better_than_every_trade": parts.finding.replay.results[Policy.MODEL].total_r
        - parts.finding.replay.results[Policy.EVERY_TRADE].total_r,
        "models_trained": [str(model) for model in parts.proven.graphs],
        "studies": studies_record(parts.case),
        "failed": {str(model): why for model, why in parts.judged.failed.items()},
        "backtest": backtest_report(parts),
        "data": asdict(stored.data),
        "devices": devices_of(parts),
    }


# ---------------------------------------------------------------- plain copies

COPIED = (".onnx", "_features.json", "improvement_report.json", "improvement_report.md", "training_metadata.json", "backtest_report.json")


def copy_out(stored: Stored, folder: str | os.PathLike) -> list[str]:
    """The files that a bot reads, into a folder, each in one step and the graphs before the metadata. The folder carries no signature."""
    names = sorted(
        (file.name for file in stored.files if "/" not in file.name and file.name.endswith(COPIED)), key=lambda n: n == COPIED[4]
    )
    make_folders(Path(folder))
    for name in names:
        write_atomically(Path(folder) / name, stored.read(name))
    return names


def write_short(inputs: TradeInputs, folder: str | os.PathLike) -> list[str]:
    """The report and metadata of a log that is too short: nothing was trained."""
    report = short_report(inputs)
    metadata = {
        "status": "too_few_trades",
        "trained_at": iso_z(utc_now()),
        "data_file": Path(inputs.flags.data).name,
        "total_records": inputs.records,
        "trades_with_outcomes": inputs.trades,
        "models_trained": [],
        "models_fit": [],
        "onnx_hashes": {},
        "improvement_report": report,
    }
    files = {"improvement_report.json": json_bytes(report), "improvement_report.md": markdown_report(report).encode()}
    files |= {"training_metadata.json": json_bytes(metadata)}
    make_folders(Path(folder))
    for name, data in files.items():
        write_atomically(Path(folder) / name, data)
    return list(files)
