"""Controls above figures: when a control moves, one function is called with all values, and what it returns is shown."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from trademl.errors import TradeMLError
from trademl.explore.view import FigureView

NOTE = {"plain": "#2b5c8a", "warn": "#c9a24b", "refused": "#bf5340"}  # colour of the line beside a sentence


@dataclass(frozen=True)
class Shown:
    """What one setting of the controls gives."""

    sentence: str  # HTML
    figures: Mapping[str, Callable[[], go.Figure]] = field(default_factory=dict)  # by place, in the order in which they are drawn
    kind: str = "plain"  # of NOTE


def sentence_html(text: str, kind: str = "plain") -> str:
    """A sentence as the box above the figures."""
    style = f"border-left:4px solid {NOTE[kind]};padding:6px 12px;margin:4px 0 8px;line-height:1.45;font-size:14px"
    return f'<div class="trademl-sentence" style="{style}">{text}</div>'


class Panel(widgets.VBox):
    """One explorer. `draw(values)` is called at once and at every move; what TradeML refuses is shown as a sentence."""

    def __init__(
        self,
        controls: Mapping[str, widgets.Widget],
        places: Sequence[Sequence[str]],  # names of the figures, row by row
        draw: Callable[[dict[str, Any]], Shown],
        *,
        heads: Sequence[widgets.Widget] = (),  # above the controls
        groups: Mapping[str, Sequence[str]] | None = None,  # title -> names of the controls under it; None: one group
    ):
        self.controls, self._draw, self._busy = dict(controls), draw, False
        self.sentence = widgets.HTML()
        self.figures = {name: FigureView(layout=_wide()) for row in places for name in row}
        boxes = [_group(title, [self.controls[name] for name in names]) for title, names in (groups or {"": list(controls)}).items()]
        bar = widgets.HBox(boxes, layout=widgets.Layout(flex_flow="row wrap", grid_gap="4px 16px"))
        rows = [
            widgets.HBox([self.figures[name] for name in row], layout=widgets.Layout(flex_flow="row wrap", width="100%")) for row in places
        ]
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self.refresh(), names="value")
        super().__init__([*heads, bar, self.sentence, *rows])
        self.refresh()

    @property
    def values(self) -> dict[str, Any]:
        """What the controls say."""
        return {name: control.value for name, control in self.controls.items()}

    def put(self, **values: Any) -> None:
        """Move controls together, and draw once."""
        self._busy = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._busy = False
        self.refresh()

    def refresh(self) -> None:
        """Draw what the controls say."""
        if self._busy:
            return
        self._busy = True  # a control that `draw` bounds anew does not draw again
        try:
            shown = self._draw(self.values)
        except TradeMLError as refusal:
            shown = Shown(html.escape(str(refusal)), kind="refused")
        finally:
            self._busy = False
        self.sentence.value = sentence_html(shown.sentence, shown.kind)
        for name, figure in shown.figures.items():
            self.figures[name].show(figure())  # the first is on the screen while the next is made


def _wide() -> widgets.Layout:
    return widgets.Layout(flex="1 1 440px", min_width="0", width="auto")


def _group(title: str, controls: Sequence[widgets.Widget]) -> widgets.Widget:
    head = [widgets.HTML(f'<div style="font-size:12px;opacity:.65;margin-bottom:2px">{title}</div>')] if title else []
    return widgets.VBox([*head, *controls])


WIDE_NAME = {"description_width": "105px"}
WIDTH = widgets.Layout(width="310px")


def slider(name: str, value: float, low: float, high: float, step: float, *, form: str = ".2f") -> widgets.FloatSlider:
    """A slider that answers while it is moved."""
    value = min(max(value, low), high)
    return widgets.FloatSlider(
        value, min=low, max=high, step=step, description=name, readout_format=form, style=WIDE_NAME, layout=WIDTH, continuous_update=True
    )


def whole(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    """A slider of whole numbers."""
    return widgets.IntSlider(min(max(value, low), high), min=low, max=high, description=name, style=WIDE_NAME, layout=WIDTH)


def picker(name: str, options: Any, value: Any) -> widgets.Dropdown:
    """One of a few."""
    return widgets.Dropdown(options=options, value=value, description=name, style=WIDE_NAME, layout=WIDTH)


def stepper(panel: Panel, control: str, words: Sequence[tuple[str, int]]) -> widgets.HBox:
    """Buttons that add to a whole-number control of the panel, within its bounds."""

    def button(word: str, step: int) -> widgets.Button:
        made = widgets.Button(description=word, layout=widgets.Layout(width="auto"))
        made.on_click(lambda _: panel.put(**{control: _within(panel.controls[control], step)}))
        return made

    return widgets.HBox([button(word, step) for word, step in words])


def _within(control: widgets.IntSlider, step: int) -> int:
    return min(max(control.value + step, control.min), control.max)
