"""The contract between labels and execution that the settings describe. Imports nothing heavy: a bot's machine asks for it too."""

from dataclasses import asdict

from trademl.errors import UsageError
from trademl.market.specs import LabelSpec
from trademl.settings import Settings


def label_spec(settings: Settings) -> LabelSpec:
    """The contract that the settings describe; refuses labels that nobody executes."""
    section = settings.labeling
    if section.method == "sltp_aware":
        why = (
            "dynamic_sltp.enabled = true executes ATR brackets, and fixed-percentage labels would not be what is traded: "
            "set labeling.method = atr_aware"
            if settings.dynamic_sltp.enabled
            else "it was removed: fixed percentages ignore volatility, and mixing them with ATR execution cost the original "
            "most of its win rate; set labeling.method = atr_aware"
        )
        raise UsageError(f"labeling.method = sltp_aware is refused; {why}")
    if section.method != "atr_aware":
        raise UsageError(f"labeling.method = {section.method!r} is not known; the one method is atr_aware")
    fields = {k: v for k, v in asdict(section).items() if k != "method"}
    return LabelSpec(**fields, timeframe=settings.market.timeframe)
