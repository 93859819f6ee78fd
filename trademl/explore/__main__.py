"""`python -m trademl.explore` compiles what the label explorer needs: the first figure of a new installation does not wait for it."""

from trademl.explore.labels import LabelExplorer
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.settings import load_settings

if __name__ == "__main__":
    LabelExplorer(load_settings({"synthetic.bars": 500})).open(MarketFlags(symbol=SYNTHETIC))
