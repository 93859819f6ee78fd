"""A training workbench for traders' bots: honest labels, judged walk-forward, verified revisions.

Modules:

- `trademl.errors`: One root for everything that TradeML refuses, with the exit code that the command line gives for it.
- `trademl.settings`: Frozen run settings and where each value came from."""

__version__ = "0.1.0"
