"""The README keeps its promises: its script runs as it stands, its figures and its table are made by commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import report
from walkthrough.record import ROOT, find_notebooks

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_script_runs_as_it_stands_without_network() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    closed = "from walkthrough.network import close_network; close_network()\n"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "MPLBACKEND": "Agg"}
    # In the repository's folder, so that it finds the grids that the notebooks have extracted.
    command = [sys.executable, "-W", "error::UserWarning:grafeat", "-c", closed + script]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    accuracy = re.search(r"accuracy ([\d.]+)% \(95% interval", run.stdout)
    assert accuracy is not None, run.stdout
    assert float(accuracy[1]) > 95


def test_figures_are_those_that_the_benchmarks_left() -> None:
    _, rest = README.split(report.START)
    assert rest.split(report.END)[0].strip() == report.figures().strip()


def test_the_page_of_figures_is_what_the_benchmarks_left() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page()


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", README) if not re.match(r"\w+:", link)]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_each_notebook_is_listed_with_its_question(path: Path) -> None:
    title = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()[0]
    assert f"[{path.stem}](notebooks/{path.name}) | {title.removeprefix('# ')} |" in README


def test_is_short() -> None:
    assert len(README.splitlines()) < 150
