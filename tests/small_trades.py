"""One small training on a bot's log by the job notebook's steps."""

import json
from types import SimpleNamespace

from trademl.data.record_maker import make_records, write_records
from trademl.pipeline import trades as pipeline
from trademl.settings import load_settings


def train(folder, records: int = 260, **flags) -> SimpleNamespace:
    """Train on generated records with a clear edge; store the revision and copy it out. Everything that was made, by name."""
    log = folder / "log.jsonl"
    write_records(make_records(records, 1.0, seed=5), log)
    settings = load_settings({"paths.models": str(folder / "models"), "paths.reports": str(folder / "reports")})
    case = pipeline.open_case(pipeline.load_trades(pipeline.TradeFlags(str(log), **flags)), settings)
    judged = pipeline.judge_trades(case)
    finding = pipeline.judge_policy(case, judged, "a-run")
    shipped = pipeline.ship_trades(case, judged)
    proven = pipeline.prove_trades(case, shipped)
    parts = pipeline.TradeParts(case, judged, finding, shipped, proven)
    stored = pipeline.store_trades(parts)
    copied = pipeline.copy_out(stored, folder / "out")
    lines = [json.loads(line) for line in log.open()]
    store = folder / "models" / "trades"
    return SimpleNamespace(**{name: value for name, value in locals().items() if name not in ("flags", "records", "log")})
