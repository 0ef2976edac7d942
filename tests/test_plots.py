"""What `grafeat.plots` offers; and a notebook shows each figure once."""

import inspect
import os

import nbclient
import nbformat

from grafeat import plots

NOTEBOOK = (
    "import torch; from grafeat import plots; from grafeat.grids import FeatureGrid\n"
    "picture, grid = torch.rand(3, 20, 30), FeatureGrid('a', torch.randn(1, 5, 2, 3))",
    "plots.draw_grids(picture, [grid])",
    "figure = plots.draw_grids(picture, [grid])",
    "figure",
    "plots.heatmap(torch.rand(2, 3), label='made up');",
)


def test_everything_offered_is_there_and_documented() -> None:
    for name in plots.__all__:
        said = inspect.getdoc(getattr(plots, name)) or ""
        assert "Args:" in said and "Returns:" in said


def test_a_notebook_shows_each_figure_once() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK])
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    nbclient.NotebookClient(notebook, timeout=300).execute(env=environment)
    pictures = [
        sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells
    ]
    assert pictures == [0, 1, 1, 1, 1]
