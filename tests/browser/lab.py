"""A JupyterLab of the tests' own: its own folders, no token, no news, kernels whose network is closed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser
from walkthrough import network
from walkthrough.record import ROOT

from .notebook import Notebook
from .page import PROJECTOR, watched

START_SECONDS = 60
STOP_SECONDS = 15

_QUIET = {"fetchNews": "false", "checkForUpdates": False}
_KERNEL = {
    "argv": [sys.executable, network.__file__, "-f", "{connection_file}"],
    "display_name": "Python 3, network closed",
    "language": "python",
}
_SPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab, the folder it shows, and the browser that looks at it."""

    url: str
    folder: Path
    browser: Browser

    def write(self, *cells: str, name: str = "notebook") -> Path:
        """Writes NAME.ipynb with one code cell for each text."""
        notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata={"kernelspec": _SPEC})
        path = self.folder / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    @contextmanager
    def notebook(
        self, *cells: str, name: str = "notebook", size: tuple[int, int] = PROJECTOR, touch: bool = False
    ) -> Iterator[Notebook]:
        """A new notebook of these code cells, open and its kernel ready; nothing has run yet."""
        with self.open(self.write(*cells, name=name), size=size, touch=touch) as notebook:
            yield notebook

    @contextmanager
    def open(
        self, path: Path, *, size: tuple[int, int] = PROJECTOR, touch: bool = False
    ) -> Iterator[Notebook]:
        """A notebook in the lab's folder, open; at the end its kernel is shut down and its page judged."""
        host = self.url.partition("//")[2]

        def ours(url: str) -> bool:
            return url.startswith((f"http://{host}", f"ws://{host}"))

        with watched(self.browser, path.stem, ours, size=size, touch=touch) as (page, watch):
            page.goto(f"{self.url}lab/workspaces/auto-e2e/tree/{path.name}?reset")
            notebook = Notebook(page, watch, path)
            notebook.wait_until_ready()
            try:
                yield notebook
            finally:
                notebook.close()


@contextmanager
def running_lab(browser: Browser, home: Path) -> Iterator[Lab]:
    """Starts JupyterLab in `home` (an empty folder) and ends it, kernels included."""
    folder = home / "notebooks"
    folder.mkdir(parents=True)
    environment = _environment(home)
    log = home / "lab.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            _command(folder), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield Lab(_address(server, home / "runtime", log), folder, browser)
    finally:
        _stop(server)


def _command(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={_free_port()}", f"--ServerApp.root_dir={folder}"),
        *("--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"),
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        *("--LabApp.extension_manager=readonly",),  # else it looks for extensions in a registry
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _environment(home: Path) -> dict[str, str]:
    """This process's own, OMP_NUM_THREADS included, but with folders of the lab's own, and its kernel and settings."""
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    _write(settings / "notification.jupyterlab-settings", _QUIET)
    _write(home / "data" / "kernels" / "python3" / "kernel.json", _KERNEL)
    names = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
             "JUPYTER_PATH": "data", "IPYTHONDIR": "ipython",
             "JUPYTERLAB_SETTINGS_DIR": "config/lab/user-settings",
             "JUPYTERLAB_WORKSPACES_DIR": "config/lab/workspaces"}  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment.pop("MPLBACKEND", None)  # the tests' own; JupyterLab's kernels choose for themselves
    environment |= {name: str(home / part) for name, part in names.items()}
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(path)}


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """The URL once it answers. The port is read back: JupyterLab takes the next one if ours was taken meanwhile."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        for record in runtime.glob("jpserver-*.json"):
            with suppress(URLError, ValueError):  # not answering yet, or half written
                url = json.loads(record.read_text(encoding="utf-8"))["url"]
                with urllib.request.urlopen(f"{url}api", timeout=5):
                    return url
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not answer in {START_SECONDS} s:\n{log.read_text(errors='replace')[-3000:]}")


def _stop(server: subprocess.Popen) -> None:
    """Asked first, so that it ends its kernels, which live in groups of their own; then the whole group."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
