"""Advice to a live bot: the record it writes, through a proven revision, gives what the training matrix gave."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from trademl.bot import LoadCheck, LoadError, TradeAdvisor
from trademl.errors import UsageError
from trademl.pipeline.trades.stored import answers_of
from trademl.ship.store import Store
from trademl.trades.advice import Topic
from trademl.trades.registry import TradeModel

pytestmark = pytest.mark.trades


@pytest.fixture
def bot(small_trades):
    """The shared small training's candidate in shadow, and the records as the bot wrote them."""
    advisor = TradeAdvisor.load(small_trades.store, None, mode="shadow")
    return SimpleNamespace(case=small_trades.case, stored=small_trades.stored, records=small_trades.lines, advisor=advisor)


def test_what_is_served_is_what_was_trained_on(bot):
    """Part 7, defect 5: trained on raw units, served normalised, rsi and lags as 0."""
    trades = [at for at, record in enumerate(bot.records) if "outcome" in record]
    said = answers_of(bot.stored.revision, bot.case, np.arange(len(trades)))
    for row in (0, 1, 40, len(trades) - 1):
        at = trades[row]
        live = {name: part for name, part in bot.records[at].items() if name not in ("outcome", "labels")}
        found = bot.advisor.advise(live, bot.records[:at])
        assert found.quality == pytest.approx(said[TradeModel.SIGNAL_QUALITY][row, 0], abs=1e-6)
        assert found.expected_r == pytest.approx(said[TradeModel.POSITION_SIZING][row, 0], abs=1e-6)
    assert len({round(bot.advisor.advise(bot.records[at], bot.records[:at]).quality, 6) for at in trades[:40]}) > 20


def test_what_became_of_a_trade_changes_no_advice(bot):
    """Part 7, defect 19: a value that is known at close was a feature."""
    record = dict(bot.records[-1])
    later = record | {"wtt": {"primary": True, "alignment": 3, "edge": 2, "invalidateHit": True}}
    earlier = record | {"wtt": {"primary": True, "alignment": 3, "edge": 2}}
    assert bot.advisor.advise(later, bot.records[:-1]) == bot.advisor.advise(earlier, bot.records[:-1])


def test_every_topic_is_withheld_with_its_reason_and_the_standing_is_said(bot):
    found = bot.advisor.advise(bot.records[-1], bot.records[:-1])
    assert (found.accept, found.size_multiplier, found.tp_level, found.stop_pct) == (None, None, None, None)
    assert all(found.reasons[topic].startswith("withheld: ") for topic in Topic)
    assert found.reasons["mode"] == "shadow: not to be traded by"
    assert "signature" in found.reasons
    other = bot.advisor.advise(bot.records[-1] | {"asset": "DOGE"}, bot.records[:-1])
    assert "DOGE was not among the training records" in other.reasons["asset"]


def test_a_record_that_cannot_be_is_refused(bot):
    spoiled = bot.records[-1] | {"market": bot.records[-1]["market"] | {"rsi14": 180}}
    with pytest.raises(UsageError, match=r"market\.rsi14 180: must lie in 0 to 100; nothing is advised on it"):
        bot.advisor.advise(spoiled, bot.records[:-1])


def test_a_candidate_is_not_loaded_to_trade(bot, tmp_path):
    store = Store(shutil.copytree(bot.stored.store.models_dir, tmp_path / "trades"))
    with pytest.raises(LoadError) as refused:
        TradeAdvisor.load(store.models_dir, None)
    assert refused.value.check is LoadCheck.POINTER  # the gate refused it, so nothing is active
    store.activate(bot.stored.name, "a person looked at it")
    assert TradeAdvisor.load(store.models_dir, None).name == bot.stored.name
