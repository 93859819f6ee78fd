"""The risk heads of a revision: trained on out-of-fold trades of the train part, judged on select, sized on final."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from trademl.bot.policy import Head
from trademl.bot.predictor import Reason
from trademl.clock import epoch_seconds
from trademl.errors import UsageError
from trademl.evidence.page import Evidence
from trademl.learn.fits import lightgbm_text
from trademl.learn.readers import from_lightgbm
from trademl.market.backtest import Decisions
from trademl.market.decision import decide
from trademl.market.recipe import rule_of, trades_in
from trademl.market.specs import AccountSpec, CostSpec
from trademl.market.walkforward import Judged
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.golden import golden_rows
from trademl.pipeline.stored import Stored
from trademl.risk.multiplier import RiskModel, TrainingSpec, train_heads
from trademl.risk.profiles import PROFILES
from trademl.risk.profiles import profile as profile_of
from trademl.risk.replay import Objective, replay
from trademl.risk.state import MULTIPLIER_CLAMP, clamp_multiplier, head_input
from trademl.risk.trades import LotSpec, TradeSequence
from trademl.risk.verdict import simulate_policy
from trademl.settings import Settings
from trademl.ship.export import check_parity, regressor_graph
from trademl.validate.lineage import Fit, FitKind

TRADES_FILE, METADATA_FILE = "risk_trades.parquet", "risk_metadata.json"
OBJECTIVE_WORDS = {"constrained_growth": "growth, drawdown limited", "wr_pf_sqrt_dd": "the original's score"}
KEPT = ["entry_time", "exit_time", "net_r", "risk_distance", "entry_price", "atr_norm"]


@dataclass(frozen=True)
class RiskHeads:
    """Five heads and the trades behind them."""

    model: RiskModel
    trades: pd.DataFrame  # columns KEPT and `part`: train (out-of-fold) or select
    lots: LotSpec

    def fits(self) -> tuple[Fit, ...]:
        """The note for the lineage: the last exit that risk labels or verdicts have seen. Without trades nothing was seen: no note."""
        if self.trades.empty:
            return ()
        last = int(epoch_seconds(pd.DatetimeIndex(self.trades["exit_time"]))[-1])
        return (Fit(FitKind.RISK_LABELS, "risk heads", None, last, len(self.trades)),)


def risk_trades(case: Case, judged: Judged) -> pd.DataFrame:
    """Out-of-fold trades of the train part, then those of select: one position at a time, at multiplier 1.0."""
    rows, profile = case.rows, case.profile
    rule = rule_of(judged.frozen.worth, case.recipe, profile, judged.frozen.margins[profile].margin_r)
    side = decide(rule, judged.probabilities, rows.cost_r, judged.signal.model_probabilities)
    early = np.concatenate([fold.test_rows for fold in judged.signal.oof])
    parts = {"train": early, "select": judged.windows.rows("select")}
    return pd.concat([trades_in(rows, side, span)[KEPT].assign(part=name) for name, span in parts.items()], ignore_index=True)


def kept_trades(stored: Stored) -> pd.DataFrame:
    """The trades that a revision's heads learned from and were judged on. UsageError for one that was made without heads."""
    if not stored.holds(TRADES_FILE):
        raise UsageError(f"revision {stored.name} holds no {TRADES_FILE}: it was made without risk heads; run a plain `trademl retrain`")
    return pd.read_parquet(io.BytesIO(stored.read(TRADES_FILE)))


def kept_labels(metadata: Mapping) -> dict[str, dict[str, np.ndarray]]:
    """Profile -> objective in words -> replayed states by the multiplier that was best for each; without the profiles that had none."""
    return {
        number: {OBJECTIVE_WORDS.get(name, name): np.array(of["histogram"]) * of["rows"] for name, of in profile["labels"].items()}
        for number, profile in metadata["profiles"].items()
        if profile["labels"]
    }


def train_risk(case: Case, judged: Judged) -> RiskHeads:
    """The five heads on the judged recipe's trades."""
    return fit_heads(risk_trades(case, judged), case.rows.costs, case.account, case.settings)


def fit_heads(trades: pd.DataFrame, costs: CostSpec, account: AccountSpec, settings: Settings) -> RiskHeads:
    """The five heads on these trades (columns KEPT and `part`). Too few trades give unpublished heads, not an error."""
    lots = LotSpec.from_specs(costs, account)
    train, later = (TradeSequence.from_backtest(trades[trades["part"] == part]) for part in ("train", "select"))
    own = {"seed": settings.run.seed, "threads": settings.run.threads}
    spec = TrainingSpec(objective=Objective(settings.risk_model.objective), lots=lots, **own)
    model = train_heads(train, later=later, spec=spec)
    return RiskHeads(model, trades, lots)


def risk_files(heads: RiskHeads, run_id: str, trained_at: str) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """(files, golden rows) of the heads: graphs, native texts, metadata, trades. Raises ParityError when a graph is not its booster."""
    buffer = io.BytesIO()
    heads.trades.to_parquet(buffer)
    metadata = json.dumps(heads.model.metadata(trained_at), indent=1, sort_keys=True, allow_nan=False)
    files, golden = {TRADES_FILE: buffer.getvalue(), METADATA_FILE: metadata.encode()}, {}
    train = TradeSequence.from_backtest(heads.trades[heads.trades["part"] == "train"])
    for number, booster in heads.model.boosters.items():
        graph = regressor_graph(
            from_lightgbm(booster), clip=MULTIPLIER_CLAMP, metadata={"role": "risk", "profile": str(number), "training_run_id": run_id}
        )
        states = head_input(replay(train, profile_of(number), objective=Objective.WR_PF_SQRT_DD, lots=heads.lots, seed=0).states)
        answer = clamp_multiplier(booster.predict(states, num_threads=1))[:, None]
        check_parity(graph, states, answer)
        few = golden_rows(len(states))
        golden |= {f"risk_p{number}_x": states[few], f"risk_p{number}_value": answer[few]}
        files |= {f"risk_p{number}.onnx": graph, f"native/risk_p{number}.txt": lightgbm_text(booster).encode()}
    return files, golden


def risk_verdicts(metadata: Mapping) -> list[dict]:
    """The manifest's `profiles`: ceiling and verdict of each head."""
    return [
        {
            "profile": p.number,
            "max_total_drawdown_pct": p.max_total_drawdown_pct,
            "published": metadata["profiles"][str(p.number)]["published"],
            "verdict": metadata["profiles"][str(p.number)]["sentence"],
        }
        for p in PROFILES
    ]


# ---------------------------------------------------------------- sizing


def sized(decisions: Decisions, trades: pd.DataFrame, head: Head | None, profile: int) -> Decisions:
    """Decisions with a published head's multiplier at each of their trades; without a head, as they are.

    The states are those of the account that follows the head over exactly these trades.
    """
    if head is None:
        return decisions
    played = simulate_policy(TradeSequence.from_backtest(trades), profile_of(profile), head)
    multiplier = np.ones(len(decisions.side))
    multiplier[trades["decision_bar"].to_numpy()] = played.multiplier
    return replace(decisions, multiplier=multiplier)


def head_of(heads: RiskHeads | None, profile: int, settings: Settings) -> Head | None:
    """The trained head of a profile; None where the multiplier is 1.0 (none trained, switched off, or unpublished and not insisted on)."""
    if heads is None or not settings.risk_model.enabled or profile not in heads.model.boosters:
        return None
    head = heads.model.heads[profile]
    if not (head.verdict.published or settings.risk_model.uses_unpublished(profile)):
        return None
    return lambda state: float(head.raw_multiplier(state)[0])


def said_of_head(evidence: Evidence, *, is_unpublished: bool) -> Evidence:
    """The evidence, its account's sentence saying that an unpublished head sized it."""
    if not is_unpublished:
        return evidence
    account = evidence.profile_account
    said = str(Reason.UNPUBLISHED_HEAD)
    return replace(evidence, profile_account=replace(account, sentence=f"{account.sentence} {said[0].upper()}{said[1:]}."))
