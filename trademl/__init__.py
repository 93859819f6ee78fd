"""A training workbench for traders' bots: honest labels, judged walk-forward, verified revisions.

Modules:

- `trademl.bot.account`: What a bot remembers of its account, as one small JSON file that it keeps itself.
- `trademl.bot.chained`: A log whose every line holds the sha256 of the line before it: a line that was changed, removed or inserted later shows.
- `trademl.bot.log`: The bot's log: one line of JSON a decision, fill or exit, each bound to the one before by its hash.
- `trademl.bot.shadow`: What a revision suggested for each trade, and what the bot did: one line of JSON a decision, for `trademl trades shadow`.
- `trademl.errors`: One root for everything that TradeML refuses, with the exit code that the command line gives for it.
- `trademl.explore.backtest`: A stored revision's decisions under other costs, margins, profiles and tie rules, beside random entries; each trade with its reason.
- `trademl.explore.trades`: What four models see in a bot's trades: whether they rank and calibrate, what they hang on, and how far trades ran.
- `trademl.facade`: `import trademl as tm`: what a researcher calls first, each one call into the package. Nothing is computed here.
- `trademl.files`: Durable writes and careful reads, once for everybody; and arrays as bytes.
- `trademl.pipeline.market.canary`: The null canary: markets in which there is nothing to find go through the whole pipeline.
- `trademl.report.figures`: Figures of the reports: plotly, from plain arrays and mappings, in one quiet style.
- `trademl.report.page`: One HTML page from an executed notebook: self-contained, plotly.js embedded once, nothing fetched.
- `trademl.runs.by_hand`: The run that a job notebook belongs to: its command's, or its own when a person runs it by hand.
- `trademl.settings`: Frozen run settings and where each value came from.
- `trademl.ship.export`: The shipped graph: raw features in, calibrated probabilities out, one ONNX file per role.
- `trademl.ship.hub.hub`: Publish, approve and put back: what the trainer's machine does on the hub of one line.
- `trademl.ship.hub.kept`: What a pull that was cut off keeps: each file that came whole, under its hash, so that the next pull fetches only the rest.
- `trademl.ship.hub.objects`: What the hub asks of a store of objects, and a folder that does it.
- `trademl.ship.hub.pointer`: The pointer of a channel: a signed record that says which revision the channel names, and since when.
- `trademl.ship.hub.pull`: The bot's read-only side of the hub: from a channel into a local store, each thing proven before the next.
- `trademl.ship.hub.room`: What lies on the hub of one line, and what of it may be believed: where it is, and the reading of it.
- `trademl.ship.hub.s3`: Objects on S3-compatible storage, with the conditional writes that the hub rests on.
- `trademl.ship.lock`: Who may write to a store: the run that holds its lock, and the processes which that run started.
- `trademl.ship.manifest`: The manifest: one canonical JSON file that says what a revision is, and whose hash is its name.
- `trademl.ship.revision`: One stored revision: its manifest, its files, and the ten checks that prove it.
- `trademl.ship.shapes`: Shapes of records that others read: one table checks a record here and writes its JSON Schema for everybody else.
- `trademl.ship.signing`: Ed25519 signatures: who made a revision, and whose revisions count on this machine.
- `trademl.ship.store`: The local store: whole revisions that never change, and one pointer that moves last."""

__version__ = "0.3.0"

# Of `trademl.facade`, which loads on first use.
_CALLED_FIRST = ("backtest", "explain", "features", "fit", "label", "load", "read_bars", "read_news", "retrain")


def __getattr__(name: str):
    if name not in _CALLED_FIRST:
        raise AttributeError(f"module 'trademl' has no attribute {name!r}; it has {', '.join(_CALLED_FIRST)}")
    from importlib import import_module

    return getattr(import_module("trademl.facade"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_CALLED_FIRST})
