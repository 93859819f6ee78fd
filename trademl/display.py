"""What a notebook shows of a record: a small table, escaped, in the colours of the page around it, light or dark. And tables as text."""

from collections.abc import Mapping, Sequence
from html import escape

_LINE = "border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent)"
_CELL = f"padding:.15em .8em .15em 0;text-align:left;vertical-align:top;{_LINE}"


def table_lines(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows in aligned columns, a line each."""
    cells = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def facts_html(title: str, facts: Mapping[str, object], note: str = "") -> str:
    """A title, a row for each fact, and a closing sentence as HTML. Everything is escaped; no colour is set."""
    rows = [(escape(str(name)), escape(str(value))) for name, value in facts.items()]
    cells = [f'<tr><td style="{_CELL};opacity:.75">{name}</td><td style="{_CELL}">{value}</td></tr>' for name, value in rows]
    return _boxed(title, cells, note)


def table_html(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A title, a table under a header (none where it is empty), and a closing sentence as HTML. Everything is escaped; no colour is set."""
    head = "".join(f'<th style="{_CELL};opacity:.75;font-weight:normal">{escape(str(name))}</th>' for name in header)
    lines = ["".join(f'<td style="{_CELL}">{escape(str(cell))}</td>' for cell in row) for row in rows]
    return _boxed(title, [*([f"<tr>{head}</tr>"] if header else []), *(f"<tr>{line}</tr>" for line in lines)], note)


def _boxed(title: str, rows: Sequence[str], note: str) -> str:
    said = f'<div style="margin-top:.4em;max-width:60em">{escape(note)}</div>' if note else ""
    table = f'<table style="border-collapse:collapse;background:transparent;color:inherit;font-size:inherit">{"".join(rows)}</table>'
    return f'<div style="color:inherit;font-size:.95em"><strong>{escape(title)}</strong>{table}{said}</div>'
