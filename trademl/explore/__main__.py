"""`python -m trademl.explore` compiles what the label explorer needs: the first figure of a new installation does not wait for it."""

from trademl.explore.data import open_market
from trademl.explore.labels import LabelPanel, LabelRoom
from trademl.market.specs import LabelSpec
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.settings import load_settings

if __name__ == "__main__":
    made = open_market(load_settings({"synthetic.bars": 500}), MarketFlags(symbol=SYNTHETIC))
    LabelPanel(LabelRoom(made), LabelSpec())
