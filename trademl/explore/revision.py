"""The stored revision that an explorer works on; where there is none, the embedded market is offered instead of a traceback."""

import html
import subprocess
import sys
import threading
from collections.abc import Callable

import ipywidgets as widgets

from trademl.errors import TradeMLError
from trademl.explore.panel import WIDE_NAME, sentence_html
from trademl.explore.project import project_settings
from trademl.pipeline.choice import SYNTHETIC, open_store, store_folder, store_of
from trademl.pipeline.stored import Stored
from trademl.settings import Settings
from trademl.ship.store import Store

RETRAIN = [sys.executable, "-P", "-c", "from trademl.cli import main; main()", "retrain", "--symbol", SYNTHETIC]


class RevisionExplorer(widgets.VBox):
    """A picker of revisions above the panel of the one that is picked. `make(stored, settings)` builds the panel."""

    def __init__(self, make: Callable[[Stored, Settings], widgets.Widget], revision: str = "", settings: Settings | None = None):
        self._make, self._settings = make, settings or project_settings()
        self.picker = widgets.Dropdown(description="revision", style=WIDE_NAME, layout=widgets.Layout(width="min(100%, 720px)"))
        self.picker.observe(lambda _: self._open(), names="value")
        self.panel: widgets.Widget | None = None
        super().__init__()
        try:
            self._list(revision)
        except TradeMLError as refusal:
            self.children = [widgets.HTML(sentence_html(html.escape(str(refusal)), "refused"))]

    def _list(self, revision: str = "") -> None:
        """Fill the picker from the store that a command would open, and open the newest or the named one."""
        store = open_store(self._settings, revision=revision or None)
        found = store.revisions()
        if not found:
            self._offer()
            return
        self._store = store
        found = sorted(found, key=lambda one: not (revision and one.name.startswith(revision)))  # the named one, else the newest
        self.picker.options = [(_told(store, Stored(one)), one.name) for one in found]
        self.picker.value = found[0].name
        if self.panel is None:
            self._open()

    def _open(self) -> None:
        try:
            self.panel = self._make(Stored(self._store.open(self.picker.value)), self._settings)
        except TradeMLError as refusal:
            self.panel = widgets.HTML(sentence_html(html.escape(str(refusal)), "refused"))
        self.children = [self.picker, self.panel]

    # ---------------------------------------------------------------- nothing stored yet

    def _offer(self) -> None:
        text = (
            "<b>No revision is stored yet.</b> <code>trademl retrain</code> makes one of your data. Or train on the embedded market now "
            "(made, not real; one to two minutes on two cores): everything here then works on it"
        )
        self.button = widgets.Button(
            description="Train on the embedded market", button_style="primary", layout=widgets.Layout(width="auto")
        )
        self.told = widgets.HTML(sentence_html(text, "warn"))
        self.button.on_click(lambda _: self._train())
        self.children = [self.told, self.button]

    def _train(self) -> None:
        """`trademl retrain` in a process of its own, its last line shown while it runs."""
        self.button.disabled = True
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with subprocess.Popen(RETRAIN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            last = ""
            for line in run.stdout:
                last = line.strip() or last
                self.told.value = sentence_html(f"training on the embedded market: {html.escape(last)}")
        if store_of(self._settings, store_folder(self._settings, SYNTHETIC)).revisions():
            self._list()
        else:
            self.told.value = sentence_html(f"the training failed: {html.escape(last)}", "refused")
            self.button.disabled = False


def _told(store: Store, stored: Stored) -> str:
    when, passed = stored.revision.trained_at[:16].replace("T", " "), "passed" if stored.gate.passed else "refused"
    return f"{stored.name[:8]}, {when}, {stored.line}: {store.state(stored.revision)}, gate {passed}"
