"""One HTML page from an executed notebook: self-contained, plotly.js embedded once, nothing fetched.

nbconvert drops plotly figures, so the page is made here: markdown, figures, tables, text and tracebacks; code behind one switch.
A section goes where its heading's tag says: `first` onto the first screen, below the headline; `last` to the end, before the run's
facts; without a tag, in between and in order. A tag of a single cell moves that cell alone.
A content security policy forbids every request; what a cell printed is escaped, and tables are rebuilt from a list of allowed tags.
"""

import ast
import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np

from trademl.evidence.figures import MAX_POINTS, thin

from ..files import write_atomically
from .figures import PAGE_COLOURS

PLOTLY = "application/vnd.plotly.v1+json"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ALLOWED = {
    *("table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption", "div", "span", "p", "b", "strong", "i", "em", "code", "pre", "br"),
    *("ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "sub", "sup", "small", "details", "summary", "hr", "dl", "dt", "dd"),
}
_VOID = {"br", "hr"}
_DROPPED = {"script", "style", "iframe", "object", "template", "noscript", "svg", "math", "title"}  # with all that is inside
LONG_ROWS = 24  # a longer table is folded
PLACES = ("first", "", "last")  # tags that move a cell or a section; without one: in between
_STATES = {"done": "good", "passed": "good", "refused": "warn", "failed": "bad", "interrupted": "bad"}


@dataclass(frozen=True)
class Banner:
    """A word that changes how everything below it is read."""

    label: str  # such as SYNTHETIC
    text: str = ""  # one sentence, shown with it
    state: str = "plain"  # good, warn, bad, plain: its colour


def render(
    notebook_path: Path | str | Mapping,  # executed notebook: its file, or its content (see `notebook_of`)
    *,
    headline: str,  # first visible line: the verdict
    subtitle: str = "",  # a second, quieter line: revision and dates
    banners: Sequence[Banner] = (),  # shown beside the mark
    facts: Mapping[str, Any] | None = None,  # where it comes from, as a table at the end: run id, seed, data hashes, device, seconds
    status: str = "done",  # done, passed, refused, failed, interrupted: the mark below the headline
    watermark: str = "",  # e.g. "in-sample: not evidence"; printed large and faint behind the page
) -> str:
    """The whole page as text."""
    notebook = notebook_path if isinstance(notebook_path, Mapping) else json.loads(Path(notebook_path).read_text("utf-8"))
    page = _Page()
    for cell in notebook["cells"]:
        page.cell(cell)
    body = Template(resources.files("trademl.report").joinpath("page.html").read_text("utf-8"))
    first, between, last = ("\n".join(page.parts[place]) for place in PLACES)
    headings = [h for place in PLACES for h in page.headings[place]] + ([("provenance", "Provenance")] if facts else [])
    return body.substitute(
        title=html.escape(f"{subtitle}: {headline}" if subtitle else headline),
        headline=_headline(headline),
        subtitle=f'<p class="subtitle">{html.escape(subtitle)}</p>' if subtitle else "",
        marks=_marks([Banner(status, "", _STATES.get(status, "plain")), *banners]),
        watermark=f'<div class="watermark" aria-hidden="true">{html.escape(watermark)}</div>' if watermark else "",
        first=f'<div class="first">{first}</div>' if first else "",
        facts=_provenance(facts or {}),
        contents="".join(f'<li><a href="#{anchor}">{html.escape(text)}</a></li>' for anchor, text in headings),
        body=between + last,
        colours=json.dumps(PAGE_COLOURS),
        plotly=f'<script type="text/plain" id="plotly">{_plotly_js()}</script>' if page.figures else "",
    )


def _headline(text: str) -> str:
    """The first sentence large, what follows it smaller."""
    claim, stop, more = text.partition(". ")
    if not stop or not more[:1].isupper():
        return html.escape(text)
    return f'{html.escape(claim)}. <span class="more">{html.escape(more)}</span>'


def _marks(banners: Sequence[Banner]) -> str:
    marks = "".join(f'<span class="mark {b.state}">{html.escape(b.label)}</span>' for b in banners)
    notes = "".join(f'<p class="note {b.state}"><b>{html.escape(b.label)}</b> {html.escape(b.text)}</p>' for b in banners if b.text)
    return f'<div class="marks">{marks}</div>{notes}'


def _provenance(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    rows = "".join(f"<div><dt>{html.escape(str(k))}</dt><dd>{html.escape(_fact(v))}</dd></div>" for k, v in facts.items())
    return f'<section class="prose"><h2 id="provenance">Provenance</h2></section><dl class="facts">{rows}</dl>'


def notebook_of(parts: Sequence[tuple[str, Sequence[Any]]]) -> dict:
    """A page without a notebook run: each part is a text (markdown) and what a notebook would show below it. The first one comes first."""
    cells = []
    for number, (text, shown) in enumerate(parts):
        metadata = {"tags": ["first"]} if not number else {}
        cells += [{"cell_type": "markdown", "metadata": metadata, "source": text}] if text else []
        for thing in shown:
            output = {"output_type": "display_data", **_bundle(thing)}
            cells.append({"cell_type": "code", "metadata": metadata, "source": "# drawn by trademl backtest", "outputs": [output]})
    return {"cells": cells}


def _bundle(thing: Any) -> dict:
    """What a notebook keeps of a figure, a frame, a sentence or a block."""
    if isinstance(thing, str):
        return {"data": {"text/plain": thing}, "metadata": {}}
    if hasattr(thing, "to_plotly_json"):
        return {"data": {PLOTLY: json.loads(thing.to_json())}, "metadata": {}}
    if hasattr(thing, "to_html"):
        return {"data": {"text/html": thing.to_html()}, "metadata": {}}
    if hasattr(thing, "_repr_html_"):
        return {"data": {"text/html": thing._repr_html_()}, "metadata": {}}
    data, metadata = thing._repr_mimebundle_()
    return {"data": data, "metadata": metadata}


def write_report(path: Path | str, notebook_path: Path | str | Mapping, **page: Any) -> Path:
    """`render` into a file that is whole or not there at all."""
    write_atomically(path, render(notebook_path, **page).encode())
    return Path(path)


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _plotly_js() -> str:
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8").replace("</script", "<\\/script")


class _Page:
    """Collects the page's parts cell by cell."""

    def __init__(self):
        from markdown_it import MarkdownIt

        self.parts: dict[str, list[str]] = {place: [] for place in PLACES}
        self._place = ""  # of the section that the last heading began
        self.headings: dict[str, list[tuple[str, str]]] = {place: [] for place in PLACES}
        self.figures = 0
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])

    def cell(self, cell: Mapping[str, Any]) -> None:
        source = _text(cell["source"])
        tags = set(cell.get("metadata", {}).get("tags", []))
        own = next((place for place in PLACES if place in tags), None)
        if cell["cell_type"] == "markdown" and re.search(r"^#{1,2} ", source, re.MULTILINE):
            self._place = own or ""
        part = self._markdown_part(source, tags) if cell["cell_type"] == "markdown" else self._code_part(cell, source)
        if part:
            self.parts[self._place if own is None else own].append(part)

    def _markdown_part(self, source: str, tags: set) -> str:
        return "" if "papermill-error-cell-tag" in tags else f'<section class="prose">{self.markdown(source)}</section>'

    def _code_part(self, cell: Mapping[str, Any], source: str) -> str:
        if cell["cell_type"] != "code" or not source.strip():
            return ""
        outputs = [part for part in map(self.output, cell.get("outputs", [])) if part]
        failed = any(out["output_type"] == "error" for out in cell.get("outputs", []))
        code = f'<details class="code"{" open" if failed else ""}><summary>code</summary><pre>{html.escape(source)}</pre></details>'
        shown = "".join(outputs)
        if not shown:
            return _silent(code)
        kind = "drawn" if "<figure>" in shown else "carded" if 'class="cards"' in shown else "told"
        return f'<section class="cell {kind}{" failed" if failed else ""}">{code + shown if failed else shown + code}</section>'

    def markdown(self, source: str) -> str:
        tokens = self._markdown.parse(source)
        for number, token in enumerate(tokens):
            if token.type == "heading_open" and token.tag in ("h1", "h2") and self._place != "first":
                anchor = f"s{sum(map(len, self.headings.values())) + 1}"
                token.attrSet("id", anchor)
                self.headings[self._place].append((anchor, re.sub(r"[*`_]", "", tokens[number + 1].content)))
            for child in token.children or []:  # a picture from elsewhere would be fetched
                if child.type == "image" and not str(child.attrs.get("src", "")).startswith("data:image/"):
                    child.type, child.content = "text", f"[{child.content}]"
        return fitted(self._markdown.renderer.render(tokens, self._markdown.options, {}))

    def output(self, out: Mapping[str, Any]) -> str:
        kind = out["output_type"]
        if kind == "stream":
            text = html.escape(_ANSI.sub("", _text(out["text"])))
            quiet = f'<details class="quiet"><summary>messages</summary><pre class="out">{text}</pre></details>'
            return quiet if out["name"] == "stderr" else f'<pre class="out">{text}</pre>'
        if kind == "error":
            trace = html.escape(_ANSI.sub("", "\n".join(out.get("traceback", []))))
            return f'<div class="error"><p>{html.escape(out["ename"])}: {html.escape(out["evalue"])}</p><pre>{trace}</pre></div>'
        data = out.get("data", {})
        if PLOTLY in data:
            return self.figure(data[PLOTLY])
        if "text/html" in data:
            return _download(out, fitted(clean_html(_text(data["text/html"]))))
        for mime in ("image/png", "image/jpeg", "image/svg+xml"):
            if mime in data:
                raw = _text(data[mime])
                packed = base64.b64encode(raw.encode()).decode() if mime.endswith("xml") else re.sub(r"\s", "", raw)
                return f'<img alt="" src="data:{mime};base64,{html.escape(packed)}">'
        if "text/markdown" in data:
            return f'<div class="prose">{self.markdown(_text(data["text/markdown"]))}</div>'
        return f'<pre class="out">{html.escape(_unquoted(_text(data["text/plain"])))}</pre>' if "text/plain" in data else ""

    def figure(self, figure: Mapping[str, Any]) -> str:
        """A figure with its title as text of the page, so that it wraps on a phone."""
        figure = lighter(figure)
        layout = figure["layout"]
        title = layout.pop("title", None) or {}
        title = {"text": title} if isinstance(title, str) else title
        head, sub = title.get("text", ""), (title.get("subtitle") or {}).get("text", "")
        if head:
            margin = (layout.get("template", {}).get("layout", {}).get("margin") or {}) | (layout.get("margin") or {})
            top = margin.get("t", 92)
            layout["margin"] = margin | {"t": max(20, top - 50)}
            if layout.get("height"):
                layout["height"] -= top - layout["margin"]["t"]
        layout.pop("width", None)
        self.figures += 1
        packed = json.dumps(figure, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        caption = f"<figcaption><b>{_inline(head)}</b>{f'<span>{_inline(sub)}</span>' if sub else ''}</figcaption>" if head else ""
        height = int(layout.get("height") or layout.get("template", {}).get("layout", {}).get("height") or 400)
        return (
            f'<figure>{caption}<div class="plot" style="height:{height}px"></div><script type="application/json">{packed}</script></figure>'
        )


def _download(out: Mapping[str, Any], shown: str) -> str:
    """A table and, where the output brings one, a link to its file: the page holds it, nothing is fetched."""
    data, about = out.get("data", {}), out.get("metadata", {}).get("text/csv", {})
    if "text/csv" not in data or not about.get("file"):
        return shown
    link = f"data:text/csv;charset=utf-8,{quote(_text(data['text/csv']), safe=',:/ ')}"
    text = f"{about['file']}: all {about['rows']:,} rows"
    return f'{shown}<a class="download" download="{html.escape(about["file"])}" href="{html.escape(link)}">{html.escape(text)}</a>'


def _silent(code: str) -> str:
    """A cell without output is hidden until the code is shown."""
    return f'<section class="cell silent">{code}</section>'


def _text(source: Any) -> str:
    return "".join(source) if isinstance(source, list) else str(source)


def _unquoted(text: str) -> str:
    """A cell that ends in a sentence shows it as Python writes strings."""
    try:
        value = ast.literal_eval(text) if text[:1] in ("'", '"') else text
    except (SyntaxError, ValueError):
        return text
    return value if isinstance(value, str) else text


def _inline(text: str) -> str:
    """Plotly's titles may hold <br> and <b>; here they become plain text."""
    return html.escape(re.sub(r"<br\s*/?>", " ", re.sub(r"</?[bi]>|</?su[bp]>", "", text)))


def clean_html(text: str) -> str:
    """HTML with only the allowed tags and the attributes colspan, rowspan and class. Scripts and styles go with their content."""
    cleaner = _Cleaner()
    cleaner.feed(text)
    cleaner.close()
    clean = "".join(cleaner.parts) + "".join(f"</{tag}>" for tag in reversed(cleaner.open))
    clean = re.sub(r"<td>(?=[^<]{50,}</td>)", '<td class="words">', clean)  # a sentence wraps
    number = r"(?:[\s\d.,+\-−%–±×\[\]]| to )*</td>|nan|inf|none"
    return re.sub(rf"<td>(?!{number})", '<td class="text">', clean)  # words to the left, numbers to the right


def fitted(text: str) -> str:
    """Clean HTML whose tables fit a narrow page: each cell knows its column, an interval stands below its value, long tables are folded."""
    return re.sub(r"<table.*?</table>", lambda found: _fitted_table(found[0]), text, flags=re.DOTALL)


def _fitted_table(table: str) -> str:
    table = _one_header(table)
    head = re.search(r"<thead>(.*?)</thead>", table, re.DOTALL)
    titles = re.findall(r"<th[^>]*>(.*?)</th>", head[1], re.DOTALL) if head and head[1].count("<tr") == 1 else []
    rows = re.findall(r"<tr[^>]*>.*?</tr>", table[head.end() :] if head else table, re.DOTALL)
    for row in rows if titles else ():
        table = table.replace(row, _labelled(row, titles), 1)
    table = re.sub(r"(<td[^>]*>)([^<\[\]]+) \[([^<\[\]]+), ([^<\[\]]+)\]</td>", r'\1\2<small class="interval">\3 to \4</small></td>', table)
    if titles:
        table = _aligned(table, titles).replace("<table", '<table data-fits="yes"', 1)
    whole = f'<div class="wide">{table}</div>'
    return whole if len(rows) <= LONG_ROWS else f'<details class="rows"><summary>show {len(rows):,} rows</summary>{whole}</details>'


def _aligned(table: str, titles: Sequence[str]) -> str:
    """A column of words has its title on the left, as its cells are."""
    rows = [re.findall(r"<t[dh]([^>]*)>", row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)]
    worded = [any('class="' in row[k] for row in rows[1:] if k < len(row)) for k in range(len(titles))]
    heads = iter(worded)
    end = table.index("</thead>")
    return re.sub(r"<th(?=[ >])", lambda th: '<th class="text"' if next(heads, False) else th[0], table[:end]) + table[end:]


def _one_header(table: str) -> str:
    """A frame whose index has a name brings a second header row for it: it goes into the first."""
    head = re.search(
        r"<thead>\s*<tr[^>]*>\s*<th></th>(.*?)</tr>\s*<tr[^>]*>\s*(<th[^>]*>[^<]+</th>)((?:\s*<th></th>)*)\s*</tr>", table, re.DOTALL
    )
    return table if head is None else table.replace(head[0], f"<thead><tr>{head[2]}{head[1]}</tr>", 1)


def _labelled(row: str, titles: Sequence[str]) -> str:
    """A table's row whose data cells say what their column is."""
    numbers = iter(range(len(titles)))

    def labelled(cell: re.Match) -> str:
        title = titles[next(numbers, -1)]
        text = re.sub(r"<[^>]*>", "", title).strip()
        return f'{cell[0]} data-label="{html.escape(html.unescape(text))}"' if text and cell[1] == "d" else cell[0]

    return re.sub(r"<t([dh])(?=[ >])", labelled, row)


class _Cleaner(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.open: list[str] = []
        self._inside = 0  # depth inside dropped elements

    def handle_starttag(self, tag, attrs):
        if tag in _DROPPED:
            self._inside += 1
        elif not self._inside and tag in _ALLOWED:
            kept = [f' {k}="{html.escape(v)}"' for k, v in attrs if v and k in ("colspan", "rowspan", "class")]
            self.parts.append(f"<{tag}{''.join(kept)}>")
            if tag not in _VOID:
                self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag in _VOID and not self._inside:
            self.parts.append(f"<{tag}>")

    def handle_endtag(self, tag):
        if tag in _DROPPED:
            self._inside = max(0, self._inside - 1)
        elif not self._inside and tag in self.open:
            while True:
                last = self.open.pop()
                self.parts.append(f"</{last}>")
                if last == tag:
                    break

    def handle_data(self, data):
        if not self._inside:
            self.parts.append(html.escape(data))


# --- figures, made lighter ------------------------------------------------------------------------------------------------


def lighter(figure: Mapping[str, Any], limit: int = MAX_POINTS) -> dict[str, Any]:
    """A copy of a plotly figure for the page: long line and marker traces thinned, WebGL traces drawn as SVG, nothing from the network."""
    figure = json.loads(json.dumps({"data": figure.get("data", []), "layout": figure.get("layout", {})}), parse_constant=lambda _: None)
    for trace in figure["data"]:
        if trace.get("type", "scatter") in ("scattergl", "scatter"):
            trace["type"] = "scatter"  # WebGL needs `eval`, which the page forbids
            _thin_trace(trace, limit)
    layout = figure["layout"]
    images = [image for image in layout.get("images", []) if str(image.get("source", "")).startswith("data:")]
    layout.pop("images", None)
    return figure | {"layout": layout | ({"images": images} if images else {})}


def _thin_trace(trace: dict[str, Any], limit: int) -> None:
    y = _array(trace.get("y"))
    if y is None or len(y) <= limit:
        return
    try:
        keep = thin(y.astype(np.float64), limit=limit)
    except (TypeError, ValueError):  # not numbers: every k-th
        keep = np.arange(0, len(y), math.ceil(len(y) / limit))
    _pick(trace, len(y), keep)


def _pick(node: dict[str, Any], n: int, keep: np.ndarray) -> None:
    """Take the rows `keep` of every array of length n below a trace: x, y, text, customdata, error bars, marker sizes."""
    for key, value in node.items():
        if isinstance(value, dict) and "bdata" not in value:
            _pick(value, n, keep)
        elif (array := _array(value)) is not None and len(array) == n:
            node[key] = (
                [None if item != item else item for item in array[keep].tolist()] if array.dtype.kind in "fiu" else array[keep].tolist()
            )


def _array(value: Any) -> np.ndarray | None:
    """A trace's attribute as an array: a list, or plotly's base64 form. None for anything else."""
    if isinstance(value, dict) and "bdata" in value:
        array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]).newbyteorder("<"))
        shape = [int(part) for part in str(value["shape"]).split(",")] if "shape" in value else [-1]
        return array.reshape(shape)
    if isinstance(value, list):
        try:
            array = np.asarray(value)
        except ValueError:
            array = None
        return array if array is not None and array.dtype.kind in "fiu" else np.array([*value, None], dtype=object)[:-1]
    return None
