"""The start page: what data, revisions, runs and looks this project has, read without opening a bars file or a model."""

import html
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trademl.clock import iso_z, utc_now
from trademl.errors import LooksError, TradeMLError
from trademl.evidence.chain import Kind, read_chain
from trademl.explore.project import project_settings
from trademl.pipeline.choice import SYNTHETIC, looks_file, store_folder, store_of
from trademl.pipeline.stored import Stored
from trademl.settings import Settings

FEW = 6  # revisions and runs that are listed


@dataclass(frozen=True)
class Row:
    """One line of the page: text, HTML where it holds a link."""

    what: str
    told: str


@dataclass(frozen=True)
class StartPage:
    """The state of a project; a notebook shows it."""

    sections: dict[str, list[Row]]
    now_utc: str

    def _repr_html_(self) -> str:
        cell = "text-align:left;vertical-align:top;padding:3px 18px 3px 0;font-size:13.5px"
        parts = []
        for title, rows in self.sections.items():
            lines = "".join(
                f'<tr><td style="{cell};white-space:nowrap"><b>{r.what}</b></td><td style="{cell}">{r.told}</td></tr>' for r in rows
            )
            parts.append(f'<h3 style="margin:14px 0 4px">{title}</h3><table style="border:0;margin:0">{lines}</table>')
        parts.append(f'<p style="opacity:.6">as of {self.now_utc}; run the cell again for the state now</p>')
        return f'<div class="trademl-start">{"".join(parts)}</div>'


def start_page(settings: Settings | None = None) -> StartPage:
    """The state of the project of these settings, by default that of the notebook's folder."""
    settings = settings or project_settings()
    sections = {
        "Data": data_rows(settings),
        "Revisions": revision_rows(settings),
        "Last runs": run_rows(Path(settings.paths.reports)),
        "Looks": look_rows(looks_file(settings)),
    }
    return StartPage(sections, iso_z(utc_now()))


def data_rows(settings: Settings) -> list[Row]:
    """The files that the settings name, and what is used where they are missing."""
    market = settings.market
    bars, news = Path(market.bars), Path(market.news)
    rows = [
        Row("bars", _file(bars) if bars.is_file() else f"{_code(bars)} is not there yet: <code>trademl data import FILE</code> writes it")
    ]
    rows.append(
        Row("calendar", _file(news) if news.is_file() else f"{_code(news)} is not there yet: <code>trademl data import FILE</code> too")
    )
    if not bars.is_file():
        made = f"{settings.synthetic.bars:,} bars, edge {settings.synthetic.edge:g}, seed {settings.synthetic.seed}"
        rows.append(Row("until then", f"every command and explorer uses <b>the embedded market</b>, made and not real ({made})"))
    return rows


def _file(path: Path) -> str:
    about = path.stat()
    return f"{_code(path)}, {about.st_size / 2**20:.1f} MiB, written {datetime.fromtimestamp(about.st_mtime, UTC):%Y-%m-%d %H:%M} UTC"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _code(text: object) -> str:
    return f"<code>{html.escape(str(text))}</code>"


def revision_rows(settings: Settings) -> list[Row]:
    """The newest revisions of the market's store and of the embedded market's: state, day and verdict."""
    found = []
    for symbol in dict.fromkeys((settings.market.symbol, SYNTHETIC)):
        store = store_of(settings, store_folder(settings, symbol))
        found += [(revision.trained_at, store, revision) for revision in store.revisions()]
    rows = []
    for trained_at, store, revision in sorted(found, key=lambda one: one[0], reverse=True)[:FEW]:
        try:
            stored = Stored(revision)
            about = f"{store.state(revision)}, {stored.line}, {trained_at[:16].replace('T', ' ')}"
            words = f"<b>{about}</b><br>{html.escape(stored.headline or stored.gate.sentence)}"
        except (TradeMLError, KeyError) as refusal:
            words = f"cannot be read: {html.escape(str(refusal))}"
        rows.append(Row(_code(revision.name), words))
    return rows or [Row("none yet", "<code>trademl retrain</code> makes one; so does <a href='../jobs/retrain.ipynb'>its notebook</a>")]


def run_rows(reports: Path) -> list[Row]:
    """The newest runs: status and sentence, and the report where there is one."""
    rows = []
    for path in sorted(reports.glob("*/run.json"), reverse=True)[:FEW]:
        try:
            run = json.loads(path.read_text("utf-8"))
            told = f"{run['status']}: {html.escape(run.get('message') or run.get('job', ''))}"
        except (OSError, ValueError, KeyError):
            continue  # a folder that is not a run's, or one that is being written
        page = path.parent / "report.html"
        link = (
            f" (<a href='../../{html.escape(page.as_posix(), quote=True)}'>report</a>)" if page.is_file() and not page.is_absolute() else ""
        )
        rows.append(Row(_code(path.parent.name), told + link))
    return rows or [Row("none yet", "a run folder with its report appears here after every command that trains or judges")]


def look_rows(path: Path) -> list[Row]:
    """How often days have been judged, from the project's chain of looks."""
    if not path.is_file():
        return [Row("none yet", "no recipe has been judged on any day")]
    try:
        lines = read_chain(path.read_bytes(), str(path)).lines
    except (OSError, LooksError) as refusal:
        return [Row("damaged", html.escape(str(refusal)))]
    looks = [line for line in lines if line["kind"] == Kind.LOOK]
    passed = sum(bool(line["passed"]) for line in lines if line["kind"] == Kind.VERDICT)
    recipes = len({line["recipe"] for line in looks})
    told = f"{_count(len(looks), 'judgement')} of {_count(recipes, 'recipe')}, {passed} passed"
    return [Row(_code(path), f"{told}. The k-th recipe on the same days is judged at a k-th of the level; explorers take no look")]
