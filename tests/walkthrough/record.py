"""What a notebook says of itself, and what came of executing it."""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Failure:
    """Where and why a notebook stopped; cells are counted from 1, text cells included."""

    cell: int
    source: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class Run:
    """What a notebook says of itself, and what came of executing it."""

    notebook: Path
    question: str
    downloads: str
    seconds: float | None = None  # None: not run yet
    failure: Failure | None = None

    @property
    def number(self) -> str:
        return self.notebook.stem.partition("_")[0]

    @property
    def title(self) -> str:
        return self.notebook.stem.partition("_")[2].replace("_", " ").capitalize()

    @property
    def page(self) -> str:
        return f"{self.notebook.stem}.html"


def find_notebooks() -> tuple[Path, ...]:
    """The repository's notebooks in reading order."""
    return tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))


def describe(path: Path) -> Run:
    """The question and the downloads, as the first cell of a notebook states them."""
    cells = nbformat.read(path, as_version=4).cells
    first = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    heading = re.search(r"^# +(?:\d+[ .:·–]*)?(.+)$", first, flags=re.MULTILINE)
    downloads = re.search(r"downloads?\W+([^.\n|·]+)", first, flags=re.IGNORECASE)
    question = heading[1].strip() if heading else path.stem
    return Run(path, question, downloads[1].strip(" *_") if downloads else "")
