"""What may be said of a recipe: its probabilities against the prior, its trades against chance, and the gate."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from trademl.clock import epoch_seconds, iso_z
from trademl.errors import LeakageError, RevisionError, UsageError
from trademl.evidence.gate import GateVerdict, gate_expectancy
from trademl.evidence.page import Evidence
from trademl.evidence.page import judge as judge_trades
from trademl.learn.ensemble import MODELS
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.decision import DecisionRule, Rule, decide
from trademl.market.features import FEATURE_NAMES, feature_hash
from trademl.market.labeling import label_bars
from trademl.market.out_of_sample import OutOfSample, read_oos
from trademl.market.position import EXIT, first_exit, held_rows
from trademl.market.recipe import EVIDENCE_ACCOUNT, MarketRows, Recipe, trades_in
from trademl.market.specs import CLASSES, AccountSpec, CostSpec, LabelSpec
from trademl.market.walkforward import Judged
from trademl.pipeline.market.choice import account_spec
from trademl.pipeline.market.inputs import Inputs, make_features
from trademl.pipeline.market.risk import RiskTrained, head_of_model, head_of_revision, sized
from trademl.risk.profiles import profile as profile_of
from trademl.settings import Settings
from trademl.ship.revision import Revision
from trademl.ship.runtime import predict_onnx
from trademl.validate.calibration import reliability
from trademl.validate.lineage import Lineage
from trademl.validate.metrics import accuracy, class_prior, confusion, log_loss, log_loss_difference, prior_log_loss


def score_signal(rows: MarketRows, judged: Judged, settings: Settings) -> dict:
    """Log loss against the class prior on select and final, each model's own, confusion and reliability."""
    label, weight = rows.labels.label, rows.labels.weight
    prior = class_prior(label[judged.signal.past], len(CLASSES), weight[judged.signal.past])
    scores = {}
    for window in ("select", "final"):
        at = judged.windows.rows(window)
        p, y, w = judged.probabilities[at], label[at], weight[at]
        by_model = judged.signal.model_probabilities[at]
        gain = log_loss_difference(
            p, y, rows.time_s[at], prior, w, draws=settings.backtest.bootstrap_draws, level=0.95, seed=settings.run.seed
        )
        scores[window] = {
            "n": len(at),
            "effective_n": float(w.sum()),
            "log_loss": log_loss(p, y, w),
            "prior_log_loss": prior_log_loss(prior, y, w),
            "log_loss_minus_prior": asdict(gain),
            "log_loss_by_model": {name: log_loss(by_model[:, m], y, w) for m, name in enumerate(MODELS)},
            "accuracy": accuracy(p, y, w),
            "confusion": confusion(y, p.argmax(axis=1), len(CLASSES)).tolist(),
            "reliability": asdict(reliability(p, y, w=w)),
            "class_shares": class_prior(y, len(CLASSES), w).tolist(),
        }
    return scores | {"prior": prior.tolist()}


def weigh(
    rows: MarketRows,
    judged: Judged,
    recipe: Recipe,
    settings: Settings,
    symbol: str,
    profile: int,
    risk: RiskTrained | None = None,
) -> tuple[Evidence, GateVerdict]:
    """The honest page of the final window under the account, and the gate over every decision of it."""
    decisions = judged.decisions(rows, recipe, profile)
    final = judged.windows.bars("final")
    trades = trades_in(rows, decisions.side, final, decisions.exit_bar)
    ask = None if risk is None else head_of_model(risk.model, profile, settings)
    if ask is not None:
        decisions = sized(rows.bars, decisions, trades, ask, profile)
    span = judged.windows.span("final")
    evidence = judge_trades(
        rows.bars,
        decisions,
        rows.spec,
        rows.costs,
        account_spec(settings, symbol, profile),
        seed=recipe.seed,
        null_runs=settings.backtest.null_runs,
        bootstrap_draws=recipe.bootstrap_draws,
        window=(span.start_s, span.end_s),
    )
    verdict = gate_expectancy(
        trades.net_r.to_numpy(),
        trades.entry_time,
        min_trades=settings.gate.min_trades,
        level=settings.gate.level,
        draws=recipe.bootstrap_draws,
        seed=recipe.seed,
    )
    return evidence, verdict


def reread_evidence(
    revision: Revision,
    settings: Settings,
    *,
    profile: int,
    costs: CostSpec | None = None,
    account: AccountSpec | None = None,
    rule: str | None = None,
) -> Evidence:
    """The honest page of a stored revision's final window, under any account, cost or profile."""
    manifest = revision.manifest
    oos = out_of_sample(revision)
    costs = costs or CostSpec(**manifest["costs"])
    decision = manifest["decision"] | ({"rule": rule} if rule else {})
    decisions = oos.decisions(stored_rule(decision, profile), costs, "final", exits_on=decision["exits_on"])
    ask = head_of_revision(revision, profile, settings)
    if ask is not None:
        trades = run_backtest(oos.bars, decisions, oos.spec, costs, EVIDENCE_ACCOUNT).trades
        decisions = sized(oos.bars, decisions, trades, ask, profile)
    span = manifest["split"]["windows"]["final"]
    return judge_trades(
        oos.bars,
        decisions,
        oos.spec,
        costs,
        account or account_spec(settings, symbol_of(revision), profile),
        seed=settings.run.seed,
        null_runs=settings.backtest.null_runs,
        bootstrap_draws=settings.backtest.bootstrap_draws,
        window=(span["start_s"], span["end_s"]),
    )


def symbol_of(revision: Revision) -> str:
    """The symbol as the settings name it."""
    return revision.manifest["symbol"]


def contract_of(revision: Revision) -> LabelSpec:
    """The contract that a revision was made under. RevisionError when this code reads another one out of it."""
    told = revision.manifest["label_spec"]
    try:
        spec = LabelSpec(**{key: value for key, value in told.items() if key in LabelSpec.__dataclass_fields__})
    except (TypeError, ValueError) as refusal:
        raise RevisionError(f"revision {revision.name}: its label spec cannot be read ({refusal}); {_OWN_TRADEML}") from refusal
    if spec.hash != told["hash"]:
        raise RevisionError(
            f"revision {revision.name}: its label spec is {told['hash'][:16]}, and its fields make {spec.hash[:16]} here: "
            f"it was labelled under rules that this code does not know; {_OWN_TRADEML}"
        )
    return spec


_OWN_TRADEML = "use the trademl that trained it, or retrain"


def out_of_sample(revision: Revision) -> OutOfSample:
    """A revision's out-of-sample table, under its own contract."""
    return read_oos(revision.read("oos.parquet"), contract_of(revision))


def stored_rule(decision: Mapping, profile: int) -> DecisionRule:
    """A profile's rule out of a manifest's `decision` record."""
    margin = decision["margins"][str(profile)]["margin_r"]
    return DecisionRule(np.array(decision["worth"]), margin, Rule(decision["rule"]), profile_of(profile).confidence, decision["votes_gap"])


# ---------------------------------------------------------------- the shipped models, on bars that they have not seen


def shipped_evidence(
    revision: Revision,
    inputs: Inputs,
    settings: Settings,
    *,
    profile: int,
    costs: CostSpec,
    account: AccountSpec,
    rule: str | None = None,
    in_sample: bool = False,
) -> tuple[Evidence, str]:
    """The honest page of the shipped models on bars after everything that they saw, and a watermark.

    Earlier bars serve as history only. Without a later bar, or on all bars with `in_sample`: refused, or watermarked.
    """
    manifest = revision.manifest
    check_face(revision, settings)
    revision.verify()
    spec, bars = contract_of(revision), inputs.bars
    decided = epoch_seconds(bars.index) + spec.bar_seconds
    lineage, embargo = Lineage.from_json(json.dumps(manifest["lineage"])), manifest["split"]["embargo"]
    seen = lineage.latest()  # of all ancestors: a warm start has seen what its parent saw
    if seen is None:
        raise LeakageError(f"revision {revision.name} keeps no lineage: nothing shows which bars its models saw; retrain")
    unseen_from = seen.label_end_s + embargo
    unseen = np.flatnonzero(decided >= unseen_from)
    if not len(unseen) and not in_sample:
        raise UsageError(
            f"the shipped models saw labels up to {iso_z(seen.label_end_s)} ({seen}) and the bars end at "
            f"{iso_z(decided[-1])}: nothing here is out of sample. Use --oos-only for the probabilities that were given at the time, "
            f"give --bars that go on after {iso_z(unseen_from)}, or --in-sample for figures that prove nothing"
        )
    span = (int(decided[0]), int(decided[-1]) + 1) if in_sample else (int(decided[unseen[0]]), int(decided[-1]) + 1)
    if not in_sample:
        lineage.check(span[0], embargo)
    decision = manifest["decision"] | {"worth": manifest["decision"]["worth_shipped"]} | ({"rule": rule} if rule else {})
    decisions = shipped_decisions(revision, inputs, settings, stored_rule(decision, profile), spec, costs)
    options = {"seed": settings.run.seed, "null_runs": settings.backtest.null_runs, "bootstrap_draws": settings.backtest.bootstrap_draws}
    return judge_trades(bars, decisions, spec, costs, account, window=span, **options), IN_SAMPLE if in_sample else ""


def check_face(revision: Revision, settings: Settings) -> None:
    """RevisionError unless the revision's signal asks for this code's features in this order, and answers in this order of classes."""
    manifest = revision.manifest
    step = settings.symbol(manifest["symbol"]).round_step
    names = tuple(feature["name"] for feature in manifest["features"])
    classes = next(model["classes"] for model in manifest["models"] if model["role"] == "signal")
    where = f"revision {revision.name} was trained on"
    if len(names) != len(FEATURE_NAMES):
        raise RevisionError(f"{where} {len(names)} features, this code makes {len(FEATURE_NAMES)}; {_OWN_TRADEML}")
    for column, (one, own) in enumerate(zip(names, FEATURE_NAMES, strict=True)):
        if one != own:
            raise RevisionError(f"{where} {one} in column {column}, where this code makes {own}; {_OWN_TRADEML}")
    if feature_hash(round_step=step) != manifest["feature_hash"]:
        raise RevisionError(
            f"{where} features {manifest['feature_hash'][:16]}, this code and round_step = {step:g} make "
            f"{feature_hash(round_step=step)[:16]}; use the trademl and the settings that trained it, or retrain"
        )
    if classes != list(CLASSES):
        raise RevisionError(f"{where} the classes {classes}, this code's are {list(CLASSES)}; {_OWN_TRADEML}")


IN_SAMPLE = "In-sample: the models have seen these bars, and the figures prove nothing"


def shipped_decisions(revision, inputs: Inputs, settings: Settings, rule: DecisionRule, spec: LabelSpec, costs: CostSpec) -> Decisions:
    """What the shipped graphs decide at each bar, with the position model's exits if they are on."""
    bars, x = inputs.bars, make_features(inputs, settings)
    complete = np.isfinite(x).all(axis=1)
    p, by_model = np.full((len(bars), 3), np.nan), np.full((len(bars), 9), np.nan)
    if complete.any():
        answer = predict_onnx(revision.read("signal.onnx"), x[complete])
        p[complete], by_model[complete] = answer["probabilities"], answer["model_probabilities"]
    labels = label_bars(bars, spec)
    with np.errstate(divide="ignore", invalid="ignore"):
        cost_r = np.where(labels.atr > 0, costs.in_r(spec.sl_atr * labels.atr), np.inf)
    side = decide(rule, p, cost_r, by_model.reshape(len(bars), len(MODELS), 3))
    if not revision.manifest["decision"]["exits_on"]:
        return Decisions(side)
    entry = np.flatnonzero((side != 0) & (labels.label >= 0))
    held = held_rows(bars["open"].to_numpy(), bars["close"].to_numpy(), labels, entry, side[entry])
    leave = predict_onnx(revision.read("position.onnx"), np.column_stack([x[held.bar], held.state]))["probabilities"][:, EXIT]
    exit_bar = np.full(len(bars), -1, np.int64)
    exit_bar[entry] = first_exit(held, leave, len(entry), revision.manifest["decision"]["exit_probability"])
    return Decisions(side, exit_bar)
