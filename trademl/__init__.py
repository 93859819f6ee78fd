"""A training workbench for traders' bots: honest labels, judged walk-forward, verified revisions.

Modules:

- `trademl.bot.account`: What a bot remembers of its account, as one small JSON file that it keeps itself.
- `trademl.bot.log`: The bot's log: one line of JSON a decision, fill or exit, each bound to the one before by its hash.
- `trademl.errors`: One root for everything that TradeML refuses, with the exit code that the command line gives for it.
- `trademl.files`: Durable writes and careful reads, once for everybody; and arrays as bytes.
- `trademl.pipeline.market.canary`: The null canary: markets in which there is nothing to find go through the whole pipeline.
- `trademl.report.figures`: Figures of the reports: plotly, from plain arrays and mappings, in one quiet style.
- `trademl.report.page`: One HTML page from an executed notebook: self-contained, plotly.js embedded once, nothing fetched.
- `trademl.runs.by_hand`: The run that a job notebook belongs to: its command's, or its own when a person runs it by hand.
- `trademl.settings`: Frozen run settings and where each value came from.
- `trademl.ship.export`: The shipped graph: raw features in, calibrated probabilities out, one ONNX file per role.
- `trademl.ship.lock`: Who may write to a store: the run that holds its lock, and the processes which that run started.
- `trademl.ship.manifest`: The manifest: one canonical JSON file that says what a revision is, and whose hash is its name.
- `trademl.ship.revision`: One stored revision: its manifest, its files, and the ten checks that prove it.
- `trademl.ship.signing`: Ed25519 signatures: who made a revision, and whose revisions count on this machine.
- `trademl.ship.store`: The local store: whole revisions that never change, and one pointer that moves last."""

__version__ = "0.3.0"
