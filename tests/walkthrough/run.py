"""One notebook in one fresh kernel, and the walk through all of them."""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output

from . import network, pages
from .record import ROOT, Failure, Run, describe

CELL_SECONDS = 600  # a cell that takes longer hangs
LOOK_SECONDS = 1  # after so long somebody looks whether an answer lies there unseen


class Walkthrough:
    """Notebooks in reading order, their pages in `out`, and an index page that is true after each run."""

    def __init__(self, notebooks: Sequence[Path], *, out: Path) -> None:
        self.out = out
        self.runs = {path: describe(path) for path in notebooks}

    @property
    def notebooks(self) -> tuple[Path, ...]:
        return tuple(self.runs)

    def run(self, path: Path, *, on_cell: Callable[[Path, int, int], None] = lambda *_: None) -> Run:
        """Executes one notebook, writes its page and the index, and tells what came of it."""
        notebook = nbformat.read(path, as_version=4)
        started = time.perf_counter()
        failure = execute(notebook, path.parent, lambda at: on_cell(path, at, len(notebook.cells)))
        seconds = time.perf_counter() - started
        about = self.runs[path]
        self.runs[path] = Run(path, about.question, about.downloads, seconds, failure)
        self._write(notebook, path)
        return self.runs[path]

    def _write(self, notebook: NotebookNode, path: Path) -> None:
        runs = list(self.runs.values())
        at = list(self.runs).index(path)
        neighbours = (runs[at - 1] if at else None, runs[at + 1] if at + 1 < len(runs) else None)
        self.out.mkdir(parents=True, exist_ok=True)
        page = self.out / runs[at].page
        page.write_text(pages.notebook_page(notebook, runs[at], *neighbours), encoding="utf-8")
        (self.out / "index.html").write_text(pages.index_page(runs), encoding="utf-8")


def execute(notebook: NotebookNode, folder: Path, on_cell: Callable[[int], None]) -> Failure | None:
    """Runs all cells in a fresh kernel without network, in place; stops at the first failure, returns it."""
    at = 0

    def start(cell: NotebookNode, cell_index: int) -> None:
        nonlocal at
        at = cell_index
        on_cell(cell_index + 1)

    with tempfile.TemporaryDirectory() as profile:
        manager = AsyncKernelManager(kernel_spec_manager=_ClosedKernel(profile))
        client = _WakefulClient(notebook, km=manager, timeout=CELL_SECONDS, on_cell_start=start,
                                resources={"metadata": {"path": str(folder)}})  # fmt: skip
        try:
            client.execute(cleanup_kc=True)
        except CellExecutionError:
            pass  # the kernel's own traceback is among the cell's outputs
        except (CellTimeoutError, DeadKernelError) as error:  # and then it is not: put one there
            notebook.cells[at].outputs.append(
                new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[str(error)])
            )
    return _failure(notebook.cells[at], at + 1)


def _failure(last: NotebookNode, number: int) -> Failure | None:
    """What the last executed cell says of itself."""
    allowed = "raises-exception" in last.metadata.get("tags", ())
    errors = [output for output in last.get("outputs", ()) if output.output_type == "error" and not allowed]
    if not errors:
        return None
    reason = f"{errors[-1].ename}: {errors[-1].evalue}"
    return Failure(number, last.source, reason, "\n".join(errors[-1].traceback))


class _WakefulClient(NotebookClient):
    """Neither sleeps through an answer of the kernel nor interrupts what the kernel still has to do.

    Where a cell shows widgets, nbclient sends messages on the socket on which it waits for the answer. That can use up
    the one signal that the answer has come, and it would wait for ever (nbclient's issue 312). A look at the sockets
    from time to time finds it. And the kernel may be at these messages when the last cell is done and it is stopped,
    which begins with an interrupt: what is asked last is answered last, so that after it nothing is left to interrupt.
    """

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        looking = asyncio.ensure_future(self._look())
        try:
            done = await super().async_execute_cell(cell, cell_index, **options)
            if cell_index == len(self.nb.cells) - 1:
                await self._idle()
            return done
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    async def _idle(self) -> None:
        asked = self.kc.kernel_info()
        while True:
            said = await self.kc.get_iopub_msg(timeout=CELL_SECONDS)
            if said["parent_header"].get("msg_id") == asked and said["content"].get("execution_state") == "idle":
                return

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for channel in (self.kc.shell_channel, self.kc.iopub_channel):
                await channel.socket.poll(1)  # millisecond


class _ClosedKernel(KernelSpecManager):
    """Knows one kernel: this very Python with its network closed, whatever else is installed for the user."""

    def __init__(self, profile: str) -> None:
        super().__init__()
        self._profile = profile

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, network.__file__, "-f", "{connection_file}", "--log-level=ERROR"],
            display_name="Python 3, network closed",
            language="python",
            env={
                "IPYTHONDIR": self._profile,  # no start-up files or history of the user's
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as JupyterLab's kernels have it
                "PYTHONPATH": str(ROOT),  # the notebooks' grafeat is the one beside them
            },
        )
