"""Every notebook executes as `make walkthrough` executes it, and is written as the suite promises."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from walkthrough.fetches import fetched_parts
from walkthrough.record import ROOT, find_notebooks
from walkthrough.run import Walkthrough

NOTEBOOKS = find_notebooks()
each_notebook = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])


@pytest.fixture(scope="module")
def walk() -> Walkthrough:
    """Writes where `make walkthrough` writes, so that one execution gives both the test and the pages."""
    return Walkthrough(NOTEBOOKS, out=ROOT / "build")


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == kind]


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def test_notebooks_are_numbered_from_00_start_here() -> None:
    assert [path.name for path in NOTEBOOKS[:1]] == ["00_start_here.ipynb"]
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02d}_" for number in range(len(NOTEBOOKS))]


@each_notebook
def test_executes_with_the_network_closed(path: Path, walk: Walkthrough) -> None:
    run = walk.run(path)
    assert run.failure is None, f"cell {run.failure.cell}\n{run.failure.source}\n\n{run.failure.traceback}"
    assert fetched_parts((walk.out / run.page).read_text(encoding="utf-8")) == []
    assert fetched_parts((walk.out / "index.html").read_text(encoding="utf-8")) == []


@each_notebook
def test_is_committed_without_outputs_and_with_cell_ids(path: Path) -> None:
    nbformat.validate(read(path))
    assert (read(path).nbformat, read(path).nbformat_minor) >= (4, 5)
    cells = read(path).cells
    assert len({cell.id for cell in cells}) == len(cells)
    for cell in cells:
        assert not cell.get("outputs"), f"{cell.id} has outputs"
        assert cell.get("execution_count") is None, f"{cell.id} has an execution count"
    assert "widgets" not in read(path).metadata
    assert read(path).metadata.kernelspec.name == "python3"


@each_notebook
def test_opens_with_a_question_its_time_and_its_downloads(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# .+\?$", first.source.splitlines()[0]), "the title is to be a question"
    assert re.search(r"running time", first.source, flags=re.IGNORECASE)
    assert re.search(r"downloads?", first.source, flags=re.IGNORECASE)


@each_notebook
def test_has_exercises_with_folded_answers_and_checks_itself(path: Path) -> None:
    assert "\n".join(sources(path, "markdown")).count("<details>") >= 2
    assert re.search(r"^assert ", "\n".join(sources(path, "code")), flags=re.MULTILINE)


@each_notebook
def test_installs_nothing_and_calls_no_shell(path: Path) -> None:
    for source in sources(path, "code"):
        plain = TransformerManager().transform_cell(source)
        assert not re.search(r"get_ipython\(\)\.(system|getoutput|run_cell_magic)", plain), source
        assert not re.search(r"\bpip\b|\bconda\b|\bsubprocess\b", plain), source


@each_notebook
def test_defines_at_most_one_thing_of_six_lines(path: Path) -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    code = "\n".join(TransformerManager().transform_cell(source) for source in sources(path, "code"))
    defined = [node for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]
    assert len(defined) <= 1, [node.name for node in defined]
    assert all(node.end_lineno - node.lineno < 6 for node in defined if node.end_lineno)


@each_notebook
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", "\n".join(sources(path, "markdown")), flags=re.DOTALL)  # code has brackets
    links = re.findall(r"\]\(([^)#\s]+)", prose)
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (path.parent / link).exists()] == []
