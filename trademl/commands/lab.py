"""`trademl lab`: JupyterLab on this project, opened on the start page, with explorers that run when they are opened."""

import os
import shutil
import sys
from asyncio import gather, to_thread
from collections.abc import Sequence
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path

from trademl.errors import MissingExtraError, UsageError

NOTEBOOKS = ("explore", "jobs")  # folders of nbs/ that a lab needs
START = "nbs/explore/00_start.ipynb"
READY = {  # notebook -> what its kernel does before it is opened
    START: "import trademl.explore.start as _start; del _start",
    "nbs/explore/labels.ipynb": "import trademl.explore.label_room as _room; _room.warm_up(); del _room",
}
SETTINGS = "settings.ini"
MARK = "# This folder is a TradeML project: its notebooks work from here. `trademl config show` lists what can be set in this file.\n"


def notebook_folder(name: str) -> Path:
    """`nbs/explore` or `nbs/jobs` of the clone that this package runs from, else the copy inside the installed wheel."""
    package = Path(str(resources.files("trademl")))
    inside = package / "jobs" if name == "jobs" else package / "explore" / "notebooks"
    return inside if inside.is_dir() else package.parent / "nbs" / name


def bring_notebooks(folder: Path) -> list[Path]:
    """Copy the notebooks that `folder` lacks into its `nbs/`; those that are there stay as they are. Returns the new files.

    A notebook's kernel starts in the notebook's folder and looks upwards for a settings.ini: a folder without one gets an empty one.
    """
    brought = []
    for name in NOTEBOOKS:
        target = folder / "nbs" / name
        for source in sorted(notebook_folder(name).glob("*.ipynb")):
            if not (target / source.name).exists():
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target / source.name)
                brought.append(target / source.name)
    if brought and not any((place / SETTINGS).is_file() for place in (folder.resolve(), *folder.resolve().parents)):
        (folder / SETTINGS).write_text(MARK, "utf-8")
    return brought


def lab_arguments(*, port: int | None, ip: str, browser: bool, allow_root: bool, more: Sequence[str]) -> list[str]:
    """What JupyterLab is called with. MissingExtraError without it; UsageError for root without --allow-root."""
    if find_spec("jupyterlab") is None:
        raise MissingExtraError("JupyterLab is not installed; pip install 'trademl[lab]'")
    if hasattr(os, "geteuid") and os.geteuid() == 0 and not allow_root and "--allow-root" not in more:
        raise UsageError(
            "the lab would run as root, and whoever reaches it would be root: start it as another user, "
            "or say `trademl lab --allow-root` (in a container, say)"
        )
    extensions = Path(str(resources.files("trademl"))) / "explore" / "lab"
    arguments = [f"--ServerApp.ip={ip}", f"--LabApp.default_url=/lab/tree/{START}", f"--LabApp.extra_labextensions_path={extensions}"]
    # no search for language servers, which the first page would wait for
    arguments += [f"--ServerApp.extra_static_paths={_plotly_folder()}", "--LanguageServerManager.autodetect=False"]
    arguments += [f"--ServerApp.port={port}"] if port is not None else []
    arguments += [] if browser else ["--no-browser"]
    arguments += ["--allow-root"] if allow_root else []
    return [*arguments, *more]


def _plotly_folder() -> Path:
    """Where plotly.min.js lies: a page that has it from the server does not wait for a kernel to send it."""
    return Path(find_spec("plotly").origin).parent / "package_data"


def run_lab(arguments: Sequence[str]) -> None:
    """Serve until the server is stopped."""
    # jsonschema checks one address format with a grammar that takes two seconds to build, and does without where it is not installed.
    sys.modules.setdefault("rfc3987_syntax", None)
    from jupyterlab.labapp import LabApp

    class Lab(LabApp):
        """JupyterLab whose server gets its first notebooks ready."""

        @classmethod
        def get_extension_package(cls) -> str:
            return "jupyterlab"

        @classmethod
        def initialize_server(cls, *given, **options):
            server = super().initialize_server(*given, **options)
            server.io_loop.add_callback(ready_notebooks, server)
            return server

    Lab.launch_instance(list(arguments))


async def ready_notebooks(server) -> None:
    """What is opened first is got ready while the browser still loads the page, which else would wait for each in turn."""
    # the page asks for a list of export formats, and a server that imports them for it answers nobody meanwhile
    formats = to_thread(import_module, "nbconvert.exporters")
    await gather(formats, *(_ready_kernel(server, notebook, code) for notebook, code in READY.items()))


async def _ready_kernel(server, notebook: str, code: str) -> None:
    """A kernel that has run `code`, in the session that the notebook joins when it is opened."""
    if not (Path(server.root_dir) / notebook).is_file():
        return
    session = await server.session_manager.create_session(notebook, Path(notebook).name, "notebook", kernel_name="python3")
    client = server.kernel_manager.get_kernel(session["kernel"]["id"]).client()
    client.start_channels(iopub=False, stdin=False, hb=False, control=False)
    client.execute(code, silent=True, store_history=False)
    await client.get_shell_msg()
    client.stop_channels()
