"""What the trade-record commands do."""

import os
from dataclasses import dataclass

from trademl.data.records import MAX_BAD_SHARE, RecordsReport, read_records
from trademl.errors import Exit
from trademl.trades.labels import ExcursionUnit
from trademl.trades.profile import MIN_SAMPLES, TradesProfile, profile_trades


@dataclass(frozen=True)
class Examination:
    """A log as it was read, and what is in it."""

    report: RecordsReport
    profile: TradesProfile

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why nothing may be trained on these records as they are; empty when something may."""
        source, found = self.report.source, []
        if not self.report.is_usable:
            share = f"{source.bad:,} of {source.lines:,} lines are bad ({source.bad_share:.1%}; {MAX_BAD_SHARE:.0%} is allowed)"
            found.append(f"{share}: mend the lines named above")
        if self.profile.unit.unit is None:
            found.append(self.profile.unit.sentence)
        return tuple(found)

    def summary(self) -> dict:
        """Everything as one record."""
        profile = self.profile
        record = {"status": "failed" if self.refusals else "done", "exit": int(Exit.BAD_DATA if self.refusals else Exit.DONE)}
        record |= {"refusals": self.refusals, "source": self.report.source, "issues": self.report.issues}
        record |= {"records": profile.records, "trades": profile.trades, "avoided": profile.avoided, "stopped": profile.stopped}
        record |= {"assets": {name: {"records": count, "trades": trades} for name, (count, trades) in profile.assets.items()}}
        record |= {"excursion_unit": profile.unit, "min_samples": MIN_SAMPLES, "labels": profile.labels}
        record["models"] = [vars(rows) | {"obstacle": rows.obstacle} for rows in profile.models]
        columns = {state: profile.columns_that_are(state) for state in ("dead", "constant", "sparse")}
        return record | {"columns": columns, "smells": profile.smells}


def examine(path: str | os.PathLike, unit: ExcursionUnit | str = ExcursionUnit.AUTO) -> Examination:
    """`trademl trades doctor`: read a file or folder and profile it. Raises BadDataError when it holds no record at all."""
    report = read_records(path)
    return Examination(report, profile_trades(report.records, unit))
