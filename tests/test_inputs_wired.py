"""What `retrain`, `tune` and `backtest` ask of their files: whose bars, on which clock, and the calendar's own."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bars_files import kinds, lines, market, write
from small_run import SMALL

from trademl.clock import iso_z
from trademl.commands.backtest import ReplayFlags, run_backtest
from trademl.data.bars import bars_hash, read_bars, write_bars
from trademl.data.clocks import to_wall, zone
from trademl.data.news import news_hash, write_news
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import MarketFlags
from trademl.pipeline.market.inputs import UNKNOWN_SYMBOL
from trademl.pipeline.market.manifest import _data
from trademl.settings import load_settings


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads the inputs that flags mean, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings()

    def call(**given):
        flags = MarketFlags(**({} if "news" in given else {"no_news": True}) | given)
        return pipeline.load_inputs(settings, pipeline.choose_market(settings, flags), flags)

    return call


@pytest.fixture
def gold(tmp_path):
    """Imported bars that say they are gold."""
    report = read_bars(write(tmp_path / "gold.csv", lines(market(price=2_300.0))), symbol="XAUUSD")
    write_bars(report.bars, tmp_path / "gold.parquet", report.source)
    return str(tmp_path / "gold.parquet")


@pytest.fixture(scope="module")
def made():
    return synthetic_market(35_040)


class TestWhoseBars:
    def test_gold_is_not_trained_as_bitcoin(self, load, gold, tmp_path):
        with pytest.raises(BadDataError, match=r"gold.parquet: the bars are of XAUUSD, and BTCUSD is asked for; .*give --symbol XAUUSD"):
            load(bars=gold)  # BTCUSD by the settings
        with pytest.raises(BadDataError, match="says XAUUSD, and BTCUSD is asked for"):
            load(bars=gold, symbol="BTCUSD")
        inputs = load(bars=gold, symbol="XAUUSD")
        assert (inputs.symbol, inputs.timeframe) == ("XAUUSD", "15min")
        assert inputs.origin_sha256 == read_bars(tmp_path / "gold.csv").source.sha256
        assert inputs.overview().found["read as"] == "XAUUSD, 15min: the bars are of XAUUSD"

    def test_bars_that_do_not_say_it_are_read_and_it_is_said(self, load, tmp_path):
        inputs = load(bars=str(write(tmp_path / "a.csv", lines(market()))))
        assert inputs.symbol == ""
        assert "symbol unknown" in kinds(inputs)["symbol"].message
        assert inputs.overview().found["read as"] == "BTCUSD, 15min: the bars do not say whose they are"
        assert inputs.said_symbol == UNKNOWN_SYMBOL == "unknown"

    def test_it_is_said_and_recorded_that_nobody_says_whose_bars_they_are(self, small_run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        bars = str(write(tmp_path / "a.csv", lines(market(6_000))))
        asked = MarketFlags(bars=bars, no_news=True, models_dir=str(small_run.choice.models_dir))
        sentence = "symbol unknown: the bars do not say whose they are, and were taken for SYNTH; "
        sentence += "`trademl data import --symbol SYNTH` records it"
        summary = run_backtest(SMALL, asked, ReplayFlags(in_sample=True), chart=False).summary
        assert summary["unknown_symbol"] == sentence
        named = run_backtest(SMALL, replace(asked, symbol="SYNTH"), ReplayFlags(in_sample=True), chart=False)
        assert named.summary["unknown_symbol"] is None
        assert _data(replace(small_run.inputs, symbol=""))["symbol"] == "unknown"

    def test_a_tether_pair_passes_for_the_dollar_pair(self, load, tmp_path):
        rows = [f"{row},{'symbol' if i == 0 else 'BTCUSDT'}" for i, row in enumerate(lines(market()))]
        assert load(bars=str(write(tmp_path / "a.csv", rows))).symbol == "BTCUSDT"

    def test_the_embedded_market_is_its_own_symbol(self, load):
        settings = load_settings({"synthetic.bars": 2_000})
        inputs = pipeline.load_inputs(settings, pipeline.choose_market(settings))
        assert (inputs.symbol, inputs.origin_sha256) == ("SYNTH", None)
        assert "read as" not in inputs.overview().index

    def test_a_revision_is_not_replayed_on_another_symbols_bars(self, small_run, gold, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = str(small_run.choice.models_dir)
        with pytest.raises(BadDataError, match="the bars are of XAUUSD, and SYNTH is asked for"):
            run_backtest({}, MarketFlags(bars=gold, no_news=True, models_dir=store), ReplayFlags(), chart=False)
        assert not (tmp_path / "reports").exists()

    def test_a_revision_is_replayed_with_its_own_symbols_files(self, small_run, tmp_path, monkeypatch):
        """Not with those that the settings name for another symbol."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "btc.csv").write_text("never read")
        overrides = {"market.bars": "btc.csv", "synthetic.bars": 2_000}
        made = run_backtest(overrides, MarketFlags(models_dir=str(small_run.choice.models_dir)), ReplayFlags(in_sample=True), chart=False)
        assert made.evidence.window["bars"] == 2_000


class TestClocks:
    def test_the_calendar_has_a_clock_of_its_own(self, load, made, tmp_path):
        wall = pd.DatetimeIndex(to_wall(made.bars.index.as_unit("ns").asi8, zone("broker-eu")).view("M8[ns]"))
        bars = str(write(tmp_path / "bars.csv", lines(made.bars, stamps=list(wall.strftime("%Y-%m-%d %H:%M")))))
        write_news(made.events, tmp_path / "news.csv")
        news = str(tmp_path / "news.csv")
        Path(news).write_text(Path(news).read_text().replace("Z", ""))  # stamps without a zone
        with pytest.raises(BadDataError, match=r"news.csv.*--news-tz UTC"):
            load(bars=bars, news=news, tz="broker-eu")
        inputs = load(bars=bars, news=news, tz="broker-eu", news_tz="UTC")
        assert (inputs.bars_sha256, inputs.news_sha256) == (bars_hash(made.bars), news_hash(made.events))
        assert inputs.news_covers_until == iso_z(made.events["time"].iloc[-1])
        assert "which agrees with it" in kinds(inputs)["releases"].message

    def test_a_clock_that_releases_disprove_needs_a_word(self, load, made, tmp_path):
        moved = made.bars.iloc[:-12].set_axis(made.bars.index[:-12] + pd.Timedelta("3h"))
        files = {"bars": str(write(tmp_path / "moved.csv", lines(moved))), "news": str(tmp_path / "news.csv")}
        write_news(made.events, files["news"])
        with pytest.raises(BadDataError, match=r"moved.csv: the clock UTC is disproved.*--tz wall:\+03:00.*--trust-clock"):
            load(**files)
        trusted = load(**files, trust_clock=True)
        assert trusted.bars_sha256 == bars_hash(moved)
        assert kinds(trusted)["clock_doubtful"].severity == "warning"
        with pytest.raises(BadDataError, match="strict reading refuses"):
            load(**files, trust_clock=True, strict=True)
        assert load(**files, tz="wall:+03:00").bars_sha256 == bars_hash(made.bars.iloc[:-12])


def test_flat_bars_need_a_word(load, tmp_path):
    frame = market()
    frame.iloc[100:110] = [42_000.0, 42_000.0, 42_000.0, 42_000.0, 0.0]
    file = str(write(tmp_path / "flat.csv", lines(frame)))
    with pytest.raises(BadDataError, match="--allow-flat keeps them"):
        load(bars=file)
    assert load(bars=file, allow_flat=True).bars_sha256 == bars_hash(frame)
