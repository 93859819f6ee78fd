"""The run that a job notebook belongs to: its command's, or its own when a person runs it by hand.

By hand, a notebook works from the project's root, under the store's lock, with a run folder like a command's. Not like a command's:
the notebook itself is the page, and the pointer stays where it is.
"""

import atexit
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

from ..errors import Exit
from ..files import jsonable
from ..settings import Settings
from .folder import PARTIAL, RunFolder, RunStatus, _shown
from .jobs import record_cost, record_summary, write_summary
from .progress import CellLines, Progress, read_events

SETTINGS = "settings.ini"


def enter_project(run_dir: str, folder: Path | str = ".") -> Path:
    """By hand (`run_dir` is empty): the nearest folder upwards that holds a settings.ini becomes the working folder, as for a command.

    JupyterLab starts a kernel in the notebook's own folder, and every path of the settings is seen from the project's root.
    Without such a file the folder stays. Returns the working folder.
    """
    here = Path(folder).resolve()
    root = here if run_dir else next((place for place in (here, *here.parents) if (place / SETTINGS).is_file()), here)
    os.chdir(root)
    return root


class NotebookRun:
    """The run that a notebook belongs to: where its events go (`progress`), and how it ends (`finish`). Make it with `join_run`."""

    def __init__(self, path: Path, progress: Progress):
        self.path, self.progress = path, progress

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.path.name.removeprefix(PARTIAL)

    def finish(self, **fields: Any) -> dict[str, Any]:
        """What the notebook hands back: `summary.json` in the run folder. By hand this is the run's end."""
        return write_summary(self.path, **fields)


class _OwnRun(NotebookRun):
    """A run of a notebook by hand. It ends with `finish`, with the next run in the same kernel, or with the kernel."""

    def __init__(self, folder: RunFolder, held: ExitStack):
        super().__init__(folder.path, Progress(folder.path, CellLines(sys.stdout)))
        self.folder, self._held, self.is_over = folder, held, False

    def finish(self, **fields: Any) -> dict[str, Any]:
        if self.is_over:
            print(f"{self.path} was finished before; run the notebook from its top for a run of its own")
            return jsonable(fields)
        summary = super().finish(**fields)
        record_summary(self.folder, summary)
        self._end(RunStatus(summary["status"]), exit=summary["exit"], message=summary["headline"])
        pointer = f"; the pointer stays: `trademl models activate {summary['revision']}` moves it" if summary.get("revision") else ""
        print(f"run folder: {_shown(self.path)}{pointer}")
        return summary

    def abandon(self) -> None:
        """The run ended before its notebook did: as its last stage failed, else as interrupted."""
        if self.is_over:
            return
        last = next((event for event in reversed(read_events(self.path)) if event.get("stage")), {})
        again = "run the notebook from its top"
        if last.get("event") == "failed":
            text = f"stage {last['stage']}: {last['error']}: {last['message']}"
            self._end(RunStatus.FAILED, exit=last["exit"] or Exit.FAILED, message=text, next_step=f"mend the cause, {again}")
        else:
            self._end(RunStatus.INTERRUPTED, exit=Exit.INTERRUPTED, message="its kernel ended, or began anew", next_step=again)

    def _end(self, status: RunStatus, **how: Any) -> None:
        self.is_over = True
        record_cost(self.folder)
        self.path = self.folder.finish(status, **how)
        self.progress.stop_writing()
        self._held.close()


_own: _OwnRun | None = None  # of this kernel


def join_run(
    job: str,  # name of the notebook, such as retrain
    run_dir: str,  # the folder of the command that executes the notebook; empty: by hand
    settings: Settings,
    parameters: Mapping[str, Any],  # what run.json says was asked for
    lock: AbstractContextManager = nullcontext(),  # noqa: B008 (holds nothing); by hand held until the run is over; a command has it already
) -> NotebookRun:
    """The command's run, or by hand a new one; then an unfinished one of this kernel is finished first. LockedError as `lock` raises it."""
    global _own
    if run_dir:
        return NotebookRun(Path(run_dir), Progress(run_dir))
    if _own is not None:
        _own.abandon()
    with ExitStack() as held:
        held.enter_context(lock)
        folder = RunFolder.create(Path(settings.paths.reports).resolve(), job, dict(parameters), seed=settings.run.seed)
        _own = _OwnRun(folder, held.pop_all())
    atexit.register(_own.abandon)
    return _own
