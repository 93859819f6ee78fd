"""Jobs: notebooks that papermill executes in this interpreter, with their parameters checked and their failures told plainly."""

import ast
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import Exit, MissingExtraError, StageError, TradeMLError, UsageError
from ..files import jsonable, write_json
from .folder import PARTIAL, RunFolder, _shown, is_secret_name
from .pace import Course
from .progress import read_events, stage_seconds, watch

SUMMARY = "summary.json"
_RECORDED = ("revision", "data", "seed", "device", "gate")  # keys of summary.json that run.json repeats
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Parameter:
    """One line of a job's `parameters` cell."""

    name: str
    kind: str  # annotation as written, or the type of the default
    default: Any


@dataclass(frozen=True)
class JobResult:
    """What a finished job left: its executed notebook, its summary, and its cost."""

    job: str
    notebook: Path  # executed, inside the run folder
    summary: dict[str, Any]  # what the job wrote to summary.json; empty when it wrote none
    stages: dict[str, float]  # seconds by stage
    seconds: float
    peak_memory_mib: float | None


def find_job(job: str) -> Path:
    """The job's notebook: `nbs/jobs/` of the clone that this package runs from, else the copy inside the installed wheel."""
    package = Path(str(resources.files("trademl")))
    folders = [package.parent / "nbs" / "jobs", package / "jobs"]
    for folder in folders:
        if (folder / f"{job}.ipynb").is_file():
            return folder / f"{job}.ipynb"
    known = sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.ipynb")})
    raise UsageError(f"job {job!r} does not exist; there are: {', '.join(known) or 'none (is this installation whole?)'}")


def job_parameters(notebook: Path) -> dict[str, Parameter]:
    """Names, annotations and defaults of the cell tagged `parameters`, read from its syntax tree: nothing is run.

    `papermill.inspect_notebook` reads the same cell with a regular expression and loses `a: str | None = None` and values with "=".
    """
    cells = json.loads(Path(notebook).read_text("utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if not tagged:
        raise UsageError(
            f"{_shown(Path(notebook))} has no cell tagged `parameters`, so papermill would silently run the defaults; "
            'tag the cell again and keep `allowed_cell_metadata_keys = ["tags"]` in pyproject.toml'
        )
    found = {}
    for node in ast.parse("".join(tagged[0]["source"])).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = Parameter(node.target.id, ast.unparse(node.annotation), _literal(node.value))
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = _literal(node.value)
            found[node.targets[0].id] = Parameter(node.targets[0].id, "Any" if value is None else type(value).__name__, value)
    return found


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters as papermill takes them (plain JSON types). Refuses unknown names, wrong types and secrets."""
    known = job_parameters(notebook)
    unknown = sorted(set(given) - set(known))
    if unknown:
        right = ", ".join(sorted(set(known) - {"run_dir"}))
        raise UsageError(f"{Path(notebook).stem} has no parameter {', '.join(map(repr, unknown))}; it takes: {right}")
    plain = {}
    for name, value in given.items():
        try:
            value = jsonable(value)
        except TypeError as refusal:
            raise UsageError(f"{Path(notebook).stem}: parameter {name} = {value!r}: {refusal}") from refusal
        if not _fits(value, ast.parse(known[name].kind, mode="eval").body):
            raise UsageError(f"{Path(notebook).stem}: parameter {name} = {value!r} ({type(value).__name__}) must be {known[name].kind}")
        if is_secret_name(name) and isinstance(value, str) and value:
            raise UsageError(f"parameter {name} looks like a secret and would stay in the executed notebook; pass it in the environment")
        plain[name] = value
    return plain


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _fits(value: Any, kind: ast.expr) -> bool:
    """Does a plain value fit an annotation: int, float, str, bool, list[...], dict[...], Literal[...], None and unions of these?"""
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return _fits(value, kind.left) or _fits(value, kind.right)
    if isinstance(kind, ast.Constant):
        return value is None if kind.value is None else _fits(value, ast.parse(kind.value, mode="eval").body)
    if isinstance(kind, ast.Subscript):
        name, inner = ast.unparse(kind.value), kind.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Literal":
            return any(value == ast.literal_eval(part) and type(value) is type(ast.literal_eval(part)) for part in parts)
        if name == "Optional":
            return value is None or _fits(value, inner)
        if name in ("list", "tuple"):
            return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[-1]) for k, v in value.items())
    name = ast.unparse(kind)
    if name == "Any":
        return True
    if name in ("int", "float") and isinstance(value, bool):
        return False
    kinds = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "tuple": list, "dict": dict, "NoneType": type(None)}
    return isinstance(value, kinds.get(name, object))


def run_job(
    job: str | Path,  # name of a job, or a notebook's path
    parameters: Mapping[str, Any] | None = None,
    *,
    run: RunFolder,
    course: Course | None = None,  # how such a run spends its time, where no earlier run of the job is at hand
    quiet: bool = False,  # nothing on standard error; else a bar on a terminal, plain lines elsewhere
    cell_timeout_s: int | None = None,  # longest time for one cell; None: no limit
) -> JobResult:
    """Execute a job notebook into the run folder. `run_dir` is passed to a notebook that has that parameter.

    Raises the job's own TradeMLError when it raised one (type, text and exit code kept), StageError for any other failure,
    KeyboardInterrupt when stopped from outside. The kernel never outlives the call, nor this process by more than a second or two.
    The notebook stays in the run folder in each case. The folder itself is finished by its owner, not here.
    """
    source = job if isinstance(job, Path) else find_job(job)
    given = check_parameters(source, parameters or {})
    if "run_dir" in job_parameters(source):
        given["run_dir"] = _shown(run.path)
    partial, final = run.path / f"{PARTIAL}{source.stem}.ipynb", run.path / f"{source.stem}.ipynb"
    began = time.monotonic()
    course = Course.of_last(run.path.parent, source.stem) or course
    with _kernel(run.path) as kernel, _stoppable(kernel), watch(run.path, course, quiet=quiet):
        try:
            _execute(source, partial, given, kernel, cell_timeout_s)
        except TradeMLError:
            raise
        except Exception as error:
            if kernel.is_stopped:
                raise KeyboardInterrupt from error
            raise _told(error, run, final, kernel, cell_timeout_s) from error
        finally:
            kernel.kill()
            if partial.exists():
                _tidy(partial, source)
                partial.replace(final)
            record_cost(run)
    summary = _summary(run.path)
    record_summary(run, summary)
    events = read_events(run.path)
    seconds = round(time.monotonic() - began, 3)
    return JobResult(source.stem, final, summary, stage_seconds(events), seconds, _peak(events))


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """While the block runs, an optional module counts as not installed, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # what `import` takes for missing
    try:
        yield
    finally:
        del sys.modules[module]


def _execute(source: Path, target: Path, parameters: dict[str, Any], kernel: "_Kernel", cell_timeout_s: int | None) -> None:
    try:
        with _without("rfc3987_syntax"):  # two processor seconds of grammars, for a format that no notebook's schema asks for
            import papermill

            from . import engine
    except ImportError as error:
        raise MissingExtraError("jobs need papermill: pip install 'trademl[lab]'") from error
    log = logging.getLogger("papermill")
    before = log.level
    log.setLevel(logging.CRITICAL)  # what it logs is in the exceptions, and standard error belongs to the progress
    try:
        papermill.execute_notebook(
            str(source).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            str(target).replace("{", "{{").replace("}", "}}"),
            parameters,
            kernel_name="python3",
            language="python",
            engine_name=engine.NAME,
            progress_bar=False,
            execution_timeout=cell_timeout_s,
            kernel_manager_class=kernel.manager_class,
            shutdown_kernel="immediate",  # after the last cell it holds nothing that is not on disk
        )
    finally:
        log.setLevel(before)


class _Kernel:
    """The kernel process of one job: this interpreter, private sockets and configuration, output kept in `kernel.log`."""

    def __init__(self, private: Path, log: Path):
        self.managers: list[Any] = []
        self.stream = log.open("ab")
        self.exit_status: int | None = None
        self.is_stopped = False  # from outside
        self.manager_class = self._manager_class(private)

    def _manager_class(self, private: Path) -> type:
        from jupyter_client import AsyncKernelManager
        from jupyter_client.kernelspec import KernelSpec

        kernel = self
        short = os.name == "posix" and len(str(private)) < 80  # a socket's path holds 107 characters

        class ThisInterpreter(AsyncKernelManager):
            """Ignores installed kernelspecs: a machine may have none, or one that points at another environment."""

            def __init__(self, **kw: Any):
                super().__init__(**kw)
                self.connection_file = str(private / "kernel.json")
                self.transport = "ipc" if short else "tcp"
                self.shutdown_wait_time = 2.0
                kernel.managers.append(self)

            @property
            def kernel_spec(self) -> KernelSpec:
                # a pandas.py beside somebody's bars must not run: -P for Python, the flag for an IPython older than 9.7
                safe = "--InteractiveShellApp.ignore_cwd=True"
                argv = [sys.executable, "-P", "-m", "trademl.runs.kernel", safe, "-f", "{connection_file}"]
                return KernelSpec(argv=argv, display_name="Python 3", language="python", name="python3")

            async def _async_pre_start_kernel(self, **kw: Any):
                # IPYTHONDIR: a person's start-up files must not reach a job. JPY_PARENT_PID is set by the launcher: the kernel polls it.
                # OMP_WAIT_POLICY: threads that spin while they wait made runs beside other work five times slower.
                kw["env"] = {
                    "OMP_WAIT_POLICY": "PASSIVE",
                    **os.environ,
                    "IPYTHONDIR": str(private),
                    "PYTHONSAFEPATH": "1",  # for the processes that a job starts
                    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                    "PLOTLY_RENDERER": "plotly_mimetype",
                    # OpenMP threads that spin long while they wait slow each other down on a busy machine; short spins cost nothing
                    "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000"),
                }
                kw["stdout"] = kw["stderr"] = kernel.stream
                if kernel.is_stopped:
                    raise KeyboardInterrupt
                return await super()._async_pre_start_kernel(**kw)

            async def _async_is_alive(self) -> bool:
                status = await self.provisioner.poll() if self.has_kernel and self.provisioner else None
                kernel.exit_status = status if status is not None else kernel.exit_status
                return await super()._async_is_alive()

            pre_start_kernel = _async_pre_start_kernel
            is_alive = _async_is_alive

        return ThisInterpreter

    def kill(self) -> None:
        """End the kernel's process group at once, if anything of it is left."""
        for manager in self.managers:
            process = getattr(manager.provisioner, "process", None)
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
                process.wait(timeout=10)


# What a slow kernel says when the manager's interrupt, sent before every shutdown, reaches it outside a cell.
_INTERRUPTED_AT_SHUTDOWN = b"[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel."


@contextlib.contextmanager
def _kernel(run_dir: Path) -> Iterator[_Kernel]:
    private = Path(tempfile.mkdtemp(prefix="trademl-kernel-"))
    log = run_dir / "kernel.log"
    kernel = _Kernel(private, log)
    try:
        yield kernel
    finally:
        kernel.stream.close()
        shutil.rmtree(private, ignore_errors=True)
        if log.exists() and log.read_bytes().strip() in (b"", _INTERRUPTED_AT_SHUTDOWN):
            log.unlink()


@contextlib.contextmanager
def _stoppable(kernel: _Kernel) -> Iterator[None]:
    """Ctrl-C and SIGTERM (systemd stop) end a run: kernel ended, folder finished as interrupted.

    A KeyboardInterrupt that is raised inside a callback of the event loop can get lost; the dead kernel then ends the run.
    """

    def handler(number, frame):
        kernel.is_stopped = True
        kernel.kill()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def _told(error: Exception, run: RunFolder, notebook: Path, kernel: _Kernel, cell_timeout_s: int | None) -> Exception:
    """The exception that the caller should see for what papermill raised."""
    failed = next((e for e in reversed(read_events(run.path)) if e["event"] == "failed"), {})
    stage = _stage(run.path)
    where = f"{_shown(run.final_path)}/{notebook.name}"
    name = type(error).__name__
    if name == "PapermillExecutionError":
        if error.ename in ("KeyboardInterrupt",):
            return StageError(f"{stage}: the kernel was interrupted; {where} holds what was done; start the same command again")
        own = _own_error(error.ename, error.evalue, failed)
        if own is not None:
            return own
        line = _ANSI.sub("", f"{error.ename}: {error.evalue}").strip().splitlines()[0][:500]
        return StageError(f"{stage}: {line}; the traceback is in {where}; mend the cause and start the same command again")
    if name == "CellTimeoutError":
        return StageError(f"{stage}: a cell ran longer than {cell_timeout_s} s; {where} shows which; allow more time or give it less work")
    if name == "DeadKernelError":
        return StageError(f"{stage}: the kernel died{_how(kernel.exit_status)}; {where} shows how far it came, kernel.log its last words")
    return StageError(f"{stage}: {name}: {error}; {_shown(run.final_path)}/run.json holds the versions")


def _own_error(ename: str, evalue: str, failed: Mapping[str, Any]) -> TradeMLError | None:
    """The TradeMLError that the notebook raised, rebuilt here: by its class, else by the exit code that its stage recorded."""
    kind = getattr(errors, ename, None)
    if isinstance(kind, type) and issubclass(kind, TradeMLError):
        return kind(failed["message"] if failed.get("error") == ename else evalue)
    if failed.get("error") == ename and failed.get("exit") is not None:
        other = StageError(failed["message"])
        other.exit_code = Exit(failed["exit"])
        return other
    return None


def _how(status: int | None) -> str:
    if status is None:
        return ""
    if status == -signal.SIGKILL:
        return " (killed by signal 9: most often the machine ran out of memory; use fewer bars or close other programs)"
    return f" (signal {signal.Signals(-status).name})" if status < 0 else f" (it left with code {status})"


def _stage(run_dir: Path) -> str:
    """The stage that a failed run was in, as the start of a sentence."""
    last = next((e for e in reversed(read_events(run_dir)) if e.get("stage")), None)
    if last is None:
        return "before the first stage"
    return f"stage {last['stage']}" if last["event"] != "end" else f"after stage {last['stage']}"


def _tidy(path: Path, source: Path) -> None:
    """Take machine paths out of the metadata that papermill leaves."""
    notebook = json.loads(path.read_text("utf-8"))
    notebook.get("metadata", {}).get("papermill", {}).update(input_path=source.name, output_path=source.name)
    notebook["metadata"].get("papermill", {}).get("environment_variables", {}).clear()
    write_json(path, notebook)


def _summary(run_dir: Path) -> dict[str, Any]:
    path = run_dir / SUMMARY
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _peak(events: list[dict[str, Any]]) -> float | None:
    return max((e["peak_memory_mib"] for e in events if e.get("peak_memory_mib")), default=None)


def record_summary(run: RunFolder, summary: Mapping[str, Any]) -> None:
    """What `run.json` repeats of a job's summary."""
    run.record(**{key: summary[key] for key in _RECORDED if summary.get(key) is not None})


def record_cost(run: RunFolder) -> None:
    """Seconds by stage and peak memory into `run.json`."""
    events = read_events(run.path)
    run.record(stages=stage_seconds(events), peak_memory_mib=_peak(events))


def write_summary(run_dir: Path | str | None, **fields: Any) -> dict[str, Any]:
    """Called by a job at its end: `summary.json` in the run folder, given back as `JobResult.summary`."""
    summary = jsonable(fields)
    if run_dir:
        write_json(Path(run_dir) / SUMMARY, summary)
    return summary
