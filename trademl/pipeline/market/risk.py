"""The risk heads of a revision: trained on out-of-fold trades of the train part, judged on select, sized on final."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from trademl.clock import epoch_seconds
from trademl.errors import RevisionError
from trademl.learn.ensemble import lightgbm_text
from trademl.learn.readers import from_lightgbm
from trademl.market.backtest import Decisions
from trademl.market.decision import decide
from trademl.market.recipe import MarketRows, Recipe, rule_of, trades_in
from trademl.market.specs import AccountSpec, CostSpec
from trademl.market.walkforward import Judged
from trademl.risk.multiplier import RiskModel, as_input, train_heads
from trademl.risk.profiles import PROFILES
from trademl.risk.profiles import profile as profile_of
from trademl.risk.replay import Objective, replay
from trademl.risk.state import clamp_multiplier
from trademl.risk.trades import LotSpec, TradeSequence
from trademl.risk.verdict import play
from trademl.settings import Settings
from trademl.ship.export import check_parity, regressor_graph
from trademl.ship.revision import Revision
from trademl.ship.runtime import predict_onnx, session
from trademl.validate.lineage import Fit, FitKind

TRADES_FILE, METADATA_FILE = "risk_trades.parquet", "risk_metadata.json"
CLAMP = (0.10, 1.25)
KEPT = ["entry_time", "exit_time", "net_r", "risk_distance", "entry_price", "atr_norm"]


@dataclass(frozen=True)
class RiskTrained:
    """Five heads and the trades behind them."""

    model: RiskModel
    trades: pd.DataFrame  # columns KEPT and `part`: train (out-of-fold) or select
    lots: LotSpec

    def fit(self) -> Fit:
        """The note for the lineage: the last exit that risk labels or verdicts have seen."""
        last = int(epoch_seconds(pd.DatetimeIndex(self.trades["exit_time"]))[-1])
        return Fit(FitKind.RISK_LABELS, "risk heads", None, last, len(self.trades))


def risk_trades(rows: MarketRows, judged: Judged, recipe: Recipe, profile: int) -> pd.DataFrame:
    """Out-of-fold trades of the train part, then those of select: one position at a time, at multiplier 1.0."""
    rule = rule_of(judged.frozen.worth, recipe, profile, judged.frozen.margins[profile].margin_r)
    side = decide(rule, judged.probabilities, rows.cost_r, judged.signal.model_probabilities)
    early = np.concatenate([fold.test_rows for fold in judged.signal.oof])
    parts = {"train": early, "select": judged.windows.rows("select")}
    return pd.concat([trades_in(rows, side, span)[KEPT].assign(part=name) for name, span in parts.items()], ignore_index=True)


def train_risk(trades: pd.DataFrame, costs: CostSpec, account: AccountSpec, settings: Settings) -> RiskTrained:
    """The five heads. Too few trades give unpublished heads, not an error."""
    lots = LotSpec.from_specs(costs, account)
    train, later = (TradeSequence.from_backtest(trades[trades["part"] == part]) for part in ("train", "select"))
    model = train_heads(train, later=later, lots=lots, objective=Objective(settings.risk_model.objective), seed=settings.run.seed)
    return RiskTrained(model, trades, lots)


def risk_files(trained: RiskTrained, run_id: str, trained_at: str) -> dict[str, bytes]:
    """Graphs, native texts, metadata and trades of the heads. Raises ParityError when a graph is not its booster."""
    buffer = io.BytesIO()
    trained.trades.to_parquet(buffer)
    metadata = json.dumps(trained.model.metadata(trained_at), indent=1, sort_keys=True, allow_nan=False)
    files = {TRADES_FILE: buffer.getvalue(), METADATA_FILE: metadata.encode()}
    train = TradeSequence.from_backtest(trained.trades[trained.trades["part"] == "train"])
    for number, booster in trained.model.boosters.items():
        graph = regressor_graph(
            from_lightgbm(booster), clip=CLAMP, metadata={"role": "risk", "profile": str(number), "training_run_id": run_id}
        )
        states = as_input(replay(train, profile_of(number), objective=Objective.WR_PF_SQRT_DD, lots=trained.lots, seed=0).states)
        check_parity(graph, states, clamp_multiplier(booster.predict(states, num_threads=1))[:, None])
        files |= {f"risk_p{number}.onnx": graph, f"native/risk_p{number}.txt": lightgbm_text(booster).encode()}
    return files


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


def sized(rows_bars: pd.DataFrame, decisions: Decisions, trades: pd.DataFrame, ask, profile: int) -> Decisions:
    """Decisions with a published head's multiplier at each trade; `ask(state (7,)) -> multiplier`.

    The states are those of the account that follows the head over exactly these trades.
    """
    played = play(TradeSequence.from_backtest(trades), profile_of(profile), ask)
    multiplier = np.ones(len(rows_bars))
    multiplier[trades["decision_bar"].to_numpy()] = played.multiplier
    return replace(decisions, multiplier=multiplier)


def head_of_model(model: RiskModel, profile: int, settings: Settings):
    """The policy of a trained model for a profile; None when it is 1.0 (unpublished, or switched off)."""
    if not settings.risk_model.enabled or profile not in model.published:
        return None
    return lambda state: float(model.multiplier(profile, state)[0])


def head_of_revision(revision: Revision, profile: int, settings: Settings):
    """The policy of a stored revision for a profile; None when it is 1.0. A head that should be there and is not: RevisionError."""
    listed = {entry["profile"]: entry for entry in revision.manifest["profiles"]}
    if not settings.risk_model.enabled or not listed.get(profile, {}).get("published", False):
        return None
    name = f"risk_p{profile}.onnx"
    if name not in {entry["name"] for entry in revision.manifest["files"]}:
        raise RevisionError(f"revision {revision.name} publishes a risk head for profile {profile}, but holds no {name}")
    runner = session(revision.read(name))
    return lambda state: float(predict_onnx(runner, as_input(state))["value"][0, 0])
