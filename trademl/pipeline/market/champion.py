"""The active revision beside the one that is being judged, on the days that both were judged on."""

from trademl.clock import DAY_S
from trademl.errors import RevisionError
from trademl.evidence.champion import Comparison, compare, r_by_day
from trademl.evidence.looks import AGREEMENT, Look
from trademl.evidence.nulls import entry_seconds
from trademl.market.backtest import run_backtest
from trademl.market.recipe import trades_in
from trademl.market.rotation import EVIDENCE_ACCOUNT
from trademl.market.walkforward import Judged
from trademl.pipeline.choice import store_of
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.looks import recipe_parts
from trademl.pipeline.market.replay import Conditions, decided, out_of_sample
from trademl.pipeline.stored import Stored
from trademl.validate.fingerprints import Fingerprints, agreement, fingerprints


def beside_champion(case: Case, judged: Judged, look: Look) -> Comparison | None:
    """The comparison with the active revision; None where there is none that can be read, or it was judged on other prices."""
    try:
        revision = store_of(case.settings, case.choice.models_dir).active()
        if revision is None:
            return None
        champion = Stored(revision)
        theirs = _trades_of(champion, case)
    except RevisionError:
        return None
    same_data = agreement(Fingerprints.from_text(champion.data.prints or ""), fingerprints(case.rows.bars))
    if same_data is None or same_data < AGREEMENT:
        return None  # other prices: no day in common
    final, before = judged.windows.span("final"), champion.windows.span("final")
    first = -(-max(final.start_s, before.start_s) // DAY_S)
    days = max(0, min(final.end_s, before.end_s) // DAY_S - first)
    rows, decisions = case.rows, judged.decisions(case.rows, case.recipe, case.profile)
    ours = trades_in(rows, decisions.side, judged.windows.bars("final"), decisions.exit_bar)
    by_day = (r_by_day(trades["net_r"].to_numpy(), entry_seconds(trades), first, days) for trades in (ours, theirs))
    same = champion.recipe == recipe_parts(case)
    return compare(*by_day, is_same_recipe=same, level=look.level, name=f"revision {champion.name}")


def _trades_of(champion: Stored, case: Case):
    """What a stored revision's own decisions made in its final window, at fixed risk."""
    oos = out_of_sample(champion)
    decisions = decided(champion, oos, Conditions(champion.judged_profile, champion.costs, case.account))
    return run_backtest(oos.bars, decisions, oos.spec, champion.costs, EVIDENCE_ACCOUNT).trades
