"""Labels while their contract is moved: sliders of the contract, and the figures that change with them."""

import html
from dataclasses import replace
from functools import partial

import ipywidgets as widgets
import numpy as np
import pandas as pd

from trademl.clock import epoch_seconds
from trademl.errors import TradeMLError
from trademl.explore.data import open_market
from trademl.explore.label_room import GROUPS, KINDS, LabelRoom
from trademl.explore.panel import WIDE_NAME, WIDTH, Panel, Shown, picker, sentence_html, slider, stepper, whole
from trademl.explore.project import project_settings
from trademl.market.specs import LabelSpec, PricePath, Tie
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.pipeline.contract import label_spec
from trademl.settings import Settings


def explore(settings: Settings | None = None) -> "LabelExplorer":
    """The explorer of the market that the project's settings name, or of the embedded one where they name no file that is there."""
    return LabelExplorer(settings or project_settings())


class LabelExplorer(widgets.VBox):
    """The panel of the project's market; where its files are refused, the reason and the embedded market as a way on."""

    def __init__(self, settings: Settings):
        super().__init__()
        self._settings, self.panel = settings, None
        self.button = widgets.Button(description="Open the embedded market", button_style="primary", layout=widgets.Layout(width="auto"))
        self.button.on_click(lambda _: self.open_market(MarketFlags(symbol=SYNTHETIC)))
        self.open_market()

    def open_market(self, flags: MarketFlags = MarketFlags()) -> None:  # noqa: B008 (frozen)
        """Draw the market that these flags mean, or say why not."""
        try:
            self.panel = LabelPanel(LabelRoom(open_market(self._settings, flags)), label_spec(self._settings))
            self.children = [self.panel]
        except TradeMLError as refusal:
            self.children = [widgets.HTML(sentence_html(html.escape(str(refusal)), "refused")), self.button]


class LabelPanel(Panel):
    """Sliders of the contract, pickers of what is shown."""

    def __init__(self, room: LabelRoom, own: LabelSpec):
        self.room, self._own = room, own
        has_news = room.market.news_s is not None
        n = len(room.market.bars)
        controls = {
            "tp_atr": slider("target, ATR", own.tp_atr, 0.2, 5.0, 0.05),
            "sl_atr": slider("stop, ATR", own.sl_atr, 0.2, 5.0, 0.05),
            "horizon_bars": whole("horizon, bars", own.horizon_bars, 1, 192),
            "tie": picker("both in one bar", [("stop first", Tie.SL_FIRST), ("target first", Tie.TP_FIRST)], own.tie),
            "price_path": picker("seen by", [("high and low", PricePath.OHLC), ("closes only", PricePath.CLOSE)], own.price_path),
            "news": widgets.Checkbox(has_news, description="news rule", disabled=not has_news, indent=True, style=WIDE_NAME),
            "news_surge": slider("volume surge >", own.news_surge, 0.5, 10.0, 0.25),
            "by": picker("split by", [(name, name) for name in GROUPS], "hour"),
            "kind": picker("show a label", [(name, name) for name in KINDS], "BUY"),
            "number": whole("which one", 0, 0, max(n - 1, 0)),
        }
        groups = {
            "THE CONTRACT": ["tp_atr", "sl_atr", "horizon_bars"],
            "ITS RULES": ["tie", "price_path", "news", "news_surge"],
            "WHAT IS SHOWN": ["by", "kind", "number"],
        }
        self.date = widgets.DatePicker(description="or on the day", style=WIDE_NAME, layout=WIDTH)
        self.date.observe(self._jump, names="value")
        head = widgets.HTML(f'<div style="opacity:.8">{room.market.sentence}</div>')
        super().__init__(controls, [["mix", "by"], ["one", "overlap"]], self._shown, heads=[head], groups=groups)
        steps = stepper(self, "number", (("earlier label", -1), ("next label", 1)))
        self.children = [*self.children, widgets.HBox([steps, self.date])]

    def _contract(self, values: dict) -> LabelSpec:
        names = ("tp_atr", "sl_atr", "horizon_bars", "tie", "price_path", "news_surge")
        given = {name: values[name] for name in names}
        # a browser hands back 1.5000000000000002
        return replace(self._own, **{name: round(value, 6) if isinstance(value, float) else value for name, value in given.items()})

    def _shown(self, values: dict) -> Shown:
        room, spec, news = self.room, self._contract(values), values["news"]
        found = room.of_kind(spec, news, values["kind"])
        self.controls["number"].max = max(len(found) - 1, 0)
        figures = {"mix": partial(room.mix, spec, news), "by": partial(room.by, spec, news, values["by"])}
        if len(found):
            figures["one"] = partial(room.on_candles, spec, news, int(found[min(values["number"], len(found) - 1)]))
        figures["overlap"] = partial(room.overlap, spec, news)
        is_own = spec == self._own
        told = "These are the settings' own labels" if is_own else "<b>Not the settings' contract</b>: nothing that is stored changes"
        return Shown(f"{room.sentence(spec, news)}. {told}.", figures)

    def _jump(self, change: dict) -> None:
        """To the first label of the kind on or after the day."""
        if change["new"] is None:
            return
        found = self.room.of_kind(self._contract(self.values), self.values["news"], self.values["kind"])
        day = int(pd.Timestamp(change["new"], tz="UTC").timestamp())
        number = int(np.searchsorted(epoch_seconds(self.room.market.bars.index)[found], day))
        self.put(number=min(number, max(len(found) - 1, 0)))
