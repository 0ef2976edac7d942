"""What `make walkthrough` prints."""

import os
import re
from pathlib import Path
from typing import TextIO

from .pages import duration
from .record import Run
from .run import Walkthrough

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Progress:
    """One line a notebook; on a terminal it counts the cells while they run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()

    def cell(self, notebook: Path, at: int, of: int) -> None:
        """Tells that a cell starts."""
        if self._live:
            self._write(f"\r\x1b[K{notebook.stem}  cell {at} of {of}")

    def show(self, run: Run) -> None:
        """Tells what came of a notebook; of a failed one also the cell and its traceback."""
        state = f"FAILED at cell {run.failure.cell}" if run.failure else "ok"
        start = "\r\x1b[K" if self._live else ""
        self._write(f"{start}{run.notebook.stem:<44} {duration(run.seconds):>12}  {state}\n")
        if run.failure:
            self._write(f"\n{_indented(run.failure.source)}\n\n{_indented(self._plain(run.failure.traceback))}\n\n")

    def close(self, walk: Walkthrough) -> int:
        """Sums up, and gives the exit status: 0 if every notebook ran."""
        failed = sum(run.failure is not None for run in walk.runs.values())
        total = sum(run.seconds or 0 for run in walk.runs.values())
        self._write(f"{len(walk.runs)} notebooks, {failed} failed, {duration(total)}; "
                    f"the pages start at {os.path.relpath(walk.out)}/index.html\n")  # fmt: skip
        return 1 if failed or not walk.runs else 0

    def _plain(self, text: str) -> str:
        return text if self._live else _COLOURS.sub("", text)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())
