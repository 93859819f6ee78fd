"""A plotly figure as a widget that is drawn anew within a frame or two. plotly's own `FigureWidget` takes seconds to import."""

from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import orjson
import plotly
import plotly.graph_objects as go
import traitlets

from trademl.report.figures import PAGE_COLOURS

PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def figure_json(figure: go.Figure) -> str:
    """The figure as JSON; a NaN is null."""
    return orjson.dumps(figure.to_plotly_json(), default=_plain, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


class FigureView(anywidget.AnyWidget):
    """Shows a figure; `show` exchanges it."""

    _esm = resources.files("trademl.explore").joinpath("view.js").read_text("utf-8")
    figure = traitlets.Unicode("").tag(sync=True)
    serial = traitlets.Int(0).tag(sync=True)  # of the figure, for those who wait for the next one
    colours = traitlets.Dict(PAGE_COLOURS).tag(sync=True)  # theme -> colour of a figure -> the theme's

    def __init__(self, **options):
        super().__init__(**options)
        self.on_msg(self._answer)

    def show(self, figure: go.Figure) -> None:
        """Draw this figure instead."""
        with self.hold_sync():
            self.serial += 1
            self.figure = figure_json(figure)

    def _answer(self, _, message, buffers) -> None:
        if message.get("want") == "plotly":
            self.send({"plotly": plotly.__version__}, [PLOTLY_JS.read_bytes()])
