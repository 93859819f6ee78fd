"""Train equals serve: a bot that is asked one close at a time decides, sizes and leaves as the batch pipeline does."""

import pandas as pd
import pytest
from live import Batch, Recorded, assert_serves_the_batch, ready
from small_run import SMALL, retrain

from trademl.bot import Expect, load_approved
from trademl.pipeline.market.inputs import make_features
from trademl.ship.store import Store

BARS = 11_500  # of the real file, the newest: room for a small walk-forward


def serve(run, models_dir, bars: int, **decision):
    """Counts of what the newest `bars` of a run's bars came to, asked one by one; its revision made ready and activated."""
    store = Store(models_dir)
    store.activate(store.write(*ready(run.stored.revision, **decision)).name, "a test")
    predictor = load_approved(store.models_dir, None, profile=3, expect=Expect(run.inputs.choice.symbol))
    loaded, n = predictor.loaded, len(run.inputs.bars)
    rows = range(n - bars, n)
    x = make_features(run.inputs, run.settings)
    batch = Batch.of(loaded.policy, loaded.head, 3, run.inputs, run.settings, x, rows)
    assert {int(side) for side in batch.side[rows]} == {-1, 0, 1}
    assert (batch.trades["exit_bar"] == n - 1).any()  # the newest trade is still open: no label, and exits all the same
    return assert_serves_the_batch(predictor, Recorded.of(run.inputs), batch, rows)


def test_one_close_at_a_time_is_the_batch(small_run, tmp_path):
    counts = serve(small_run, tmp_path / "models", 100, exit_probability=0.45)
    assert counts["trades"] > 5
    assert counts["left by model"] > 0


@pytest.mark.slow
def test_two_thousand_closes_of_the_embedded_market_are_the_batch(small_run, tmp_path):
    counts = serve(small_run, tmp_path / "models", 2_000, exit_probability=0.6)
    assert counts["trades"] > 100 < counts["trades"] - counts["left by model"]


@pytest.fixture(scope="module")
def real_run(shared_data, tmp_path_factory):
    """A small retrain on the newest bars of the real file."""
    folder = tmp_path_factory.mktemp("real")
    files = {}
    for kind in ("btcusd_m15_2024-04_2026-04", "news_2015_2026"):
        table = pd.read_csv(shared_data / "market" / f"{kind}.csv.gz")
        files[kind] = folder / f"{kind}.csv"
        (table.iloc[-BARS:] if kind.startswith("btc") else table).to_csv(files[kind], index=False)
    bars, news = map(str, files.values())
    return retrain(folder / "models", SMALL, until="stored", symbol="BTCUSD", bars=bars, news=news)


@pytest.mark.slow
def test_two_thousand_closes_of_the_real_file_are_the_batch(real_run, tmp_path):
    """No edge was found there, so the margin is set where trades are: what is compared is whether they are the same ones."""
    margins = {str(profile): {"margin_r": -0.25, "edge_found": True} for profile in range(1, 6)}
    counts = serve(real_run, tmp_path / "models", 2_000, exit_probability=0.55, margins=margins)
    print(counts)
    assert counts["trades"] > 100
    assert counts["sizes"] > 5
