"""The run folder `reports/<run_id>/`: written under a partial name, renamed when whole, also when the run failed."""

import contextlib
import errno
import json
import os
import platform
import re
import secrets
import time
from datetime import datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from ..clock import iso_z, utc_now
from ..errors import Exit, TradeMLError, UsageError
from ..files import jsonable, write_json

try:
    import fcntl
except ImportError:  # Windows: folders of dead processes stay partial there
    fcntl = None

PARTIAL = ".partial-"
_NEW = ".new-"
PID_FILE = ".pid"
_ERA = ("numpy", "pandas", "scikit-learn", "xgboost", "lightgbm", "numba", "optuna", "onnx", "onnxruntime", "papermill", "plotly")
_SECRET_NAME = re.compile(r"key|secret|token|password|passwd|credential", re.IGNORECASE)
_TEXT = {".ipynb", ".json", ".jsonl", ".html", ".txt", ".log", ".csv", ".md"}
_MASK = "***"


class RunStatus(StrEnum):
    """How a run stands. REFUSED: it ran to its end and the gate said no (exit 3)."""

    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


def is_secret_name(name: str) -> bool:
    """Does this name suggest a value that must not reach a file?"""
    return bool(_SECRET_NAME.search(name))


def masked(value: Any) -> Any:
    """A copy of JSON data in which everything under a secret-looking key is `***`."""
    if isinstance(value, dict):
        return {k: _MASK if is_secret_name(k) and v not in (None, "", False) else masked(v) for k, v in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def library_versions(names: tuple[str, ...] = _ERA) -> dict[str, str]:
    """Installed versions, read from package metadata: nothing is imported."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class RunFolder:
    """One run's folder. Make it with `create`, use it as a context manager; leaving the block finishes it.

    `path` is where the folder is now (partial while the run lives), `final_path` where it will be.
    """

    def __init__(self, path: Path, run_id: str, lock: int | None, record: dict[str, Any]):
        self.path, self.run_id, self._lock, self._record = path, run_id, lock, record
        self.final_path = path.parent / run_id
        self._began = time.monotonic()

    @classmethod
    def create(
        cls,
        reports: Path | str,  # folder that holds all runs; made when missing
        job: str,  # what runs: part of the run id
        parameters: dict[str, Any] | None = None,  # as asked for; values under secret-looking names are masked
        *,
        seed: int | None = None,
        now: datetime | None = None,  # for tests; the clock otherwise
        **record: Any,  # further fields of run.json, e.g. device=..., data=...
    ) -> "RunFolder":
        """A new partial folder with its first `run.json`. Finishes stale folders of dead processes on the way."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", job):
            raise UsageError(f"job {job!r} must be lower-case letters, digits and underscores")
        reports = Path(reports)
        reports.mkdir(parents=True, exist_ok=True)
        finish_stale(reports)
        now = now or utc_now()
        while True:
            run_id = f"{now:%Y%m%d-%H%M%S}-{job}-{secrets.token_hex(3)}"
            fresh, partial = reports / f"{_NEW}{run_id}", reports / f"{PARTIAL}{run_id}"
            if partial.exists() or (reports / run_id).exists():
                continue
            try:
                fresh.mkdir()
            except FileExistsError:
                continue
            break
        lock = None
        with contextlib.suppress(OSError):  # a file system without locks: then nobody calls this folder stale either
            lock = _hold(fresh)  # before the folder gets the name that finish_stale looks for
        (fresh / PID_FILE).write_text(f"{os.getpid()}\n")
        fresh.rename(partial)
        first = {
            "run_id": run_id,
            "job": job,
            "status": RunStatus.RUNNING,
            "exit": None,
            "started": iso_z(now),
            "parameters": parameters or {},
            "seed": seed if seed is not None else (parameters or {}).get("seed"),
            "revision": None,
            "data": {},
            "device": None,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": library_versions(),
            "pid": os.getpid(),
        }
        run = cls(partial, run_id, lock, first)
        run.record(**record)
        return run

    @property
    def status(self) -> RunStatus:
        """How the run stands."""
        return RunStatus(self._record["status"])

    @property
    def json(self) -> dict[str, Any]:
        """What `run.json` holds (a copy, secrets masked)."""
        return masked(jsonable(self._record))

    def record(self, **fields: Any) -> None:
        """Add or replace fields of `run.json`; the file is rewritten atomically."""
        self._record.update(fields)
        write_json(self.path / "run.json", self.json)

    def finish(
        self,
        status: RunStatus = RunStatus.DONE,
        *,
        exit: int = Exit.DONE,
        message: str = "",  # one plain sentence: what happened
        next_step: str = "",  # one plain sentence: what to do now
    ) -> Path:
        """Write the last `run.json`, remove secrets, take the final name. Returns the final path; a second call does nothing."""
        if self.path == self.final_path:
            return self.final_path
        fields = {"status": status, "exit": int(exit), "finished": iso_z(utc_now()), "seconds": round(time.monotonic() - self._began, 3)}
        self.record(**fields, message=message, next_step=next_step)
        self.path = _seal(self.path, self.final_path, self._lock)
        return self.path

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        if error is not None:  # what `--json` tells of a failed run
            error.run = {"run_id": self.run_id, "folder": _shown(self.final_path), "seconds": self._record.get("stages")}
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish(
                RunStatus.INTERRUPTED, exit=Exit.INTERRUPTED, message="interrupted from outside", next_step="start the same command again"
            )
        else:
            code = error.exit_code if isinstance(error, TradeMLError) else Exit.FAILED
            text = str(error) if isinstance(error, TradeMLError) else f"{kind.__name__}: {error}"
            self.finish(RunStatus.FAILED, exit=code, message=text, next_step=self.next_step())
        return False

    def next_step(self) -> str:
        """What a person does about a failed run: where to look."""
        found = sorted(p.name for p in self.path.glob("*.ipynb"))
        where = f"{_shown(self.final_path)}/{found[0]}" if found else f"{_shown(self.final_path)}/run.json"
        return f"read the traceback at the end of {where}, mend the cause, start the same command again"


def finish_stale(reports: Path | str) -> list[Path]:
    """Finish the partial folders whose process is gone (its lock is free) as failed. A live run's folder is never touched."""
    finished = []
    for partial in sorted(Path(reports).glob(f"{PARTIAL}*")):
        try:
            lock = _hold(partial)
        except OSError:  # no locks here, or the folder took its final name meanwhile: nobody can tell, so it stays
            continue
        if lock is None:
            continue
        run_id = partial.name.removeprefix(PARTIAL)
        try:
            record = json.loads((partial / "run.json").read_text("utf-8"))
        except (OSError, ValueError):  # killed before its first write
            record = {"run_id": run_id}
        message = (
            f"the process that ran it (pid {record.get('pid', 'unknown')}) ended without finishing: killed, out of memory, or power lost"
        )
        record |= {"status": RunStatus.FAILED, "exit": int(Exit.FAILED), "message": message, "finished": iso_z(utc_now())}
        record["next_step"] = "events.jsonl names the last stage; start the same command again"
        write_json(partial / "run.json", record)
        finished.append(_seal(partial, partial.parent / run_id, lock))
    return finished


def _seal(partial: Path, final: Path, lock: int | None) -> Path:
    for notebook in partial.glob(f"{PARTIAL}*.ipynb"):
        notebook.replace(notebook.with_name(notebook.name.removeprefix(PARTIAL)))
    _scrub(partial)
    partial.rename(final)
    (final / PID_FILE).unlink(missing_ok=True)
    if lock is not None:
        os.close(lock)
    return final


def _scrub(folder: Path) -> None:
    """Replace every value of a secret-looking environment variable in the folder's text files, e.g. one inside a traceback."""
    values = {v.encode() for k, v in os.environ.items() if is_secret_name(k) and len(v) >= 8}
    values |= {json.dumps(v.decode())[1:-1].encode() for v in values}
    for path in folder.rglob("*") if values else ():
        if path.is_file() and path.suffix in _TEXT:
            text = before = path.read_bytes()
            for value in sorted(values, key=len, reverse=True):
                text = text.replace(value, _MASK.encode())
            if text != before:
                path.write_bytes(text)


def _hold(folder: Path) -> int | None:
    """Take the lock on the folder's pid file: a descriptor, or None when another process lives in there.

    A lock and not the pid alone, since pids are used again and mean nothing in another container. The kernel frees it with its holder.
    """
    if fcntl is None:
        raise OSError("this system has no file locks")
    handle = os.open(folder / PID_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return handle


def _shown(path: Path) -> str:
    """A path as a person would type it: relative when it lies below the working folder."""
    path = path.absolute()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()
