"""`python -m trademl.explore` compiles what the label explorer needs: the first figure of a new installation does not wait for it."""

from trademl.explore.data import open_market
from trademl.explore.labels import explore
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.settings import load_settings

if __name__ == "__main__":
    settings = load_settings({"synthetic.bars": 500})
    explore(open_market(settings, MarketFlags(symbol=SYNTHETIC)), settings)
