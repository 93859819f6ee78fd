"""Blocks of a page that are neither picture nor plain table: figures on cards, and a list that can be taken away as a file."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

MOST_ROWS = 500  # of a list on a page; its file holds all

# A notebook has no style sheet of ours: the cards bring theirs, and the page has its own.
_STYLE = (
    "<style>.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px}"
    ".card span{display:block;opacity:.75;font-size:.85em}.card b{font-size:1.5em}</style>"
)


@dataclass(frozen=True)
class Card:
    """One figure to be read at a glance."""

    name: str
    value: str  # with its unit
    details: Sequence[str] = ()  # interval, rivals: one short line each


@dataclass(frozen=True)
class Cards:
    """Figures side by side."""

    cards: Sequence[Card]

    def _repr_html_(self) -> str:
        """HTML of allowed tags, and a style that a page drops."""
        told = "".join(f'<div class="card">{_card(card)}</div>' for card in self.cards)
        return f'{_STYLE}<div class="cards">{told}</div>'


def _card(card: Card) -> str:
    lines = "".join(f'<span class="detail">{html.escape(line)}</span>' for line in card.details)
    return f'<span class="name">{html.escape(card.name)}</span><b>{html.escape(card.value)}</b>{lines}'


@dataclass(frozen=True, eq=False)
class Listing:
    """Rows with their file: a page offers the whole frame as a download and shows the newest rows."""

    frame: pd.DataFrame
    file: str  # name of the download
    digits: int = 4  # significant ones, of floats in the file and on the page

    def csv(self) -> str:
        """The file's content: comma-separated, one header line, UTC times as they stand."""
        return self.frame.to_csv(index=False, float_format=f"%.{self.digits + 4}g", lineterminator="\n")

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """What a notebook keeps: a table of the last rows, the whole file, and its name."""
        table = self.frame.tail(MOST_ROWS).to_html(index=False, float_format=lambda value: f"{value:,.{self.digits}g}")
        return {"text/html": table, "text/csv": self.csv()}, {"text/csv": {"file": self.file, "rows": len(self.frame)}}
