"""Progress of a job: events written inside the kernel, read and shown by the process that started it."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..clock import iso_z, utc_now
from ..errors import TradeMLError
from ..files import jsonable
from .pace import Course, Pace

EVENTS = "events.jsonl"
_WRITE_EVERY_S = 0.25
_SHOW_EVERY_S = 0.5
_TELL_EVERY_S = 5.0  # without a terminal: at most so often, and once for each tenth of a counted stage


def peak_memory_mib() -> float | None:
    """Highest resident memory of this process so far, MiB. None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return round(peak / (1024 if sys.platform != "darwin" else 1024 * 1024), 1)


class Stage:
    """One stage under way; `update` says how far it is."""

    def __init__(self, progress: "Progress", name: str, total: float | None):
        self._progress, self.name, self.total, self.done, self.note = progress, name, total, 0.0, ""
        self._began, self._written = time.monotonic(), 0.0

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """So much of the total is done; the note stands beside the bar. Cheap to call often: at most four events a second are written."""
        self.done, self.total, self.note = done, self.total if total is None else total, note
        if time.monotonic() - self._written >= _WRITE_EVERY_S:
            self._written = time.monotonic()
            self._emit("progress")

    def advance(self, by: float = 1) -> None:
        """`by` more is done."""
        self.update(self.done + by)

    def _emit(self, event: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        more |= {"note": self.note} if self.note else {}
        self._progress.emit(
            event, stage=self.name, done=self.done, total=self.total, seconds=seconds, peak_memory_mib=peak_memory_mib(), **more
        )


class Progress:
    """Writes a job's events to `events.jsonl` in its run folder, and tells each to `tell`. With no folder it writes nothing."""

    def __init__(self, run_dir: Path | str | None, tell: Callable[[Mapping[str, Any]], None] | None = None):
        self._path, self._tell = Path(run_dir) / EVENTS if run_dir else None, tell

    def stop_writing(self) -> None:
        """The run folder is finished: further stages are told and no longer written."""
        self._path = None

    def emit(self, event: str, **fields: Any) -> None:
        """Append one event, a line of JSON. One `write` call, so that two processes can append to one file."""
        record = {"time": iso_z(utc_now()), "event": event, **jsonable(fields)}
        if self._tell is not None:
            self._tell(record)
        if self._path is None:
            return
        line = json.dumps(record, ensure_ascii=False) + "\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Stage]:
        """A named stage of the run; an exception inside is recorded with its type, text and exit code, and goes on."""
        stage = Stage(self, name, total)
        stage._emit("start")
        try:
            yield stage
        except BaseException as error:
            code = int(error.exit_code) if isinstance(error, TradeMLError) else None
            stage._emit("failed", error=type(error).__name__, message=str(error), exit=code)
            raise
        if stage.total is not None:
            stage.done = stage.total
        stage._emit("end")


def read_events(run_dir: Path | str) -> list[dict[str, Any]]:
    """All whole events of a run so far. A torn last line (the process was killed) is left out."""
    path = Path(run_dir) / EVENTS
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n") and line.strip()]


def stage_seconds(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage, in order of appearance; a stage entered twice is summed."""
    seconds: dict[str, float] = {}
    for event in events:
        if event["event"] in ("end", "failed"):
            seconds[event["stage"]] = round(seconds.get(event["stage"], 0.0) + event["seconds"], 3)
    return seconds


@contextlib.contextmanager
def watch(
    run_dir: Path | str,
    course: Course | None = None,  # how such a run usually spends its time: for the estimate of the time left
    *,
    stream: TextIO | None = None,  # standard error by default
    quiet: bool = False,  # show nothing
) -> Iterator[None]:
    """Show the run while the block runs: on a terminal bars with the time left, elsewhere one plain line a stage."""
    stream = stream or sys.stderr
    if quiet:
        yield
        return
    over = threading.Event()
    show = _show if stream.isatty() else _tell_lines
    thread = threading.Thread(target=show, args=(_Tail(Path(run_dir) / EVENTS), Pace(course or Course({})), stream, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


class _Tail:
    """A file of events that is still written to."""

    def __init__(self, path: Path):
        self._path, self._offset, self._rest = path, 0, b""

    def events(self) -> list[dict[str, Any]]:
        """The whole events since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = self._rest + file.read()
            self._offset = file.tell()
        *lines, self._rest = text.split(b"\n")
        return [json.loads(line) for line in lines]


def _tell_lines(tail: _Tail, pace: Pace, stream: TextIO, over: threading.Event) -> None:
    """One line at a stage's end, and one now and then inside a long stage that counts. A failure is told by the command itself."""
    told_at, tenth = time.monotonic(), 0
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed: the run goes on
        while True:
            last = over.wait(_SHOW_EVERY_S)
            for event in tail.events():
                now = time.monotonic()
                pace.feed(event, now)
                further = int(10 * event["done"] / event["total"]) if event.get("total") else 0
                if event["event"] == "start":
                    tenth = 0
                elif event["event"] == "end" or (further > tenth and now - told_at >= _TELL_EVERY_S):
                    told_at, tenth = now, further
                    print(stage_line(event, pace.time_left(now)), file=stream, flush=True)
            if last:
                return


class CellLines:
    """Tells events below a notebook's cell: one line a stage, written over until the stage ends."""

    def __init__(self, stream: TextIO):
        self._stream, self._width = stream, 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        part = event["done"] / event["total"] if event.get("total") else 0
        line = stage_line(event, event["seconds"] / part * (1 - part) if part else None)
        blank, end = " " * max(0, self._width - len(line)), "\n" if event["event"] in ("end", "failed") else ""
        self._width = 0 if end else len(line)
        print(f"\r{line}{blank}", end=end, file=self._stream, flush=True)


def stage_line(event: Mapping[str, Any], left_s: float | None = None) -> str:
    """A stage as one plain line: how long it took, or how far it is and what is left."""
    name, took = event["stage"], duration(event["seconds"])
    if event["event"] in ("end", "failed"):
        return f"{name}: {took}" if event["event"] == "end" else f"{name}: failed after {took}"
    counted = f"{event['done']:,.0f} of {event['total']:,.0f}" if event.get("total") else ""
    left = f"about {duration(left_s)} left" if left_s is not None else ""
    return f"{name}: " + (", ".join(filter(None, (counted, event.get("note"), left))) or "…")


def _show(tail: _Tail, pace: Pace, stream: TextIO, over: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    left = TextColumn("{task.fields[left]}")
    note = TextColumn("{task.fields[note]}", table_column=Column(no_wrap=False))  # on a narrow terminal the note gives way
    columns = (TextColumn("{task.description:<14}"), BarColumn(32), MofNCompleteColumn(), TimeElapsedColumn(), left, note)
    tasks: dict[str, Any] = {}
    with Bars(*columns, console=Console(file=stream), refresh_per_second=4) as bars:
        while True:
            last = over.wait(_SHOW_EVERY_S)
            for event in tail.events():
                pace.feed(event, time.monotonic())
                _paint(bars, tasks, event)
            now = time.monotonic()
            to_go = pace.time_left(now)
            for name, task in tasks.items():
                running = name == pace.stage and not bars.tasks[task].finished and to_go is not None
                bars.update(task, left=f"about {duration(to_go)} left" if running else "")
            if last:
                return


def _paint(bars: Any, tasks: dict[str, Any], event: Mapping[str, Any]) -> None:
    name = event.get("stage")
    if name is None:
        return
    if name not in tasks:
        tasks[name] = bars.add_task(name, total=event.get("total"), left="", note="")
    total = event.get("total")
    bars.update(tasks[name], note=event.get("note", ""))
    if event["event"] == "end":
        total = total or 1
        bars.update(tasks[name], total=total, completed=total)
    elif event["event"] == "failed":
        bars.update(tasks[name], description=f"{name} failed")
        bars.stop_task(tasks[name])
    else:
        bars.update(tasks[name], total=total, completed=event.get("done") or 0)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 10 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
