"""A small explorer to look at, and what can be read from it on screen."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from playwright.sync_api import Locator, Page, expect

from grafeat.plots.palette import SEQUENTIAL

Patch = tuple[str, int, int]
SHAPES = {"first": (5, 7), "second": (3, 2), "third": (7, 5)}
LAYERS, HEADS, PICTURES = 2, 3, 5
ERROR = 1 / 200  # what a displayed weight may be off, of its row's maximum; of the mean over heads likewise

_CENTRES = """(canvas, [rows, columns]) => {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const colours = [];
    for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) {
            const [x, y] = [(column + 0.5) * width / columns, (row + 0.5) * height / rows].map(Math.floor);
            colours.push([...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)]);
        }
    return colours;
}"""


def example() -> tuple:
    """Three backbones of unequal, rectangular grids, an untrained model whose attention is uneven, and pictures."""
    import torch

    import grafeat as gf

    random = torch.Generator().manual_seed(0)
    sizes = {"first": (11, 5, 7), "second": (13, 3, 2), "third": (17, 7, 5)}
    grids = gf.GridSet(
        [gf.FeatureGrid(name, torch.randn(5, *size, generator=random)) for name, size in sizes.items()],
        labels=torch.tensor([0, 1, 2, 0, 1]),
    )
    model = gf.GraFeatMerge.for_grids(grids, num_classes=3, width=24, depth=2, heads=3, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model, grids, torch.rand(5, 3, 28, 28, generator=random)


def on_screen(explorer: Any) -> tuple[dict[str, list], dict[str, float]]:
    """The weights that should be on screen, and the maximum of the rows that they come from, intra and cross."""
    import torch

    selection = explorer.selection
    attention = explorer._attention
    heads = range(attention.heads) if selection.head is None else [selection.head]
    dense = torch.stack([attention.dense(layer=selection.layer, head=head) for head in heads])
    own = torch.zeros(len(attention.graph.names), dtype=torch.long)
    own = torch.cat([own[:1].expand(h * w) + i for i, (h, w) in enumerate(attention.graph.shapes.values())])
    at = attention.graph.vertex(*selection.patch)
    rows = slice(at, at + 1) if selection.direction == "outgoing" else slice(None)
    same = own[rows, None] == own
    masks = {"intra": same, "cross": ~same}
    tops = {kind: (dense[:, rows] * mask).amax(dim=(1, 2)).mean().item() for kind, mask in masks.items()}
    return {name: weights.tolist() for name, weights in selection.weights.items()}, tops


SETUP = f"""
from typing import Any
{inspect.getsource(example)}
{inspect.getsource(on_screen)}
import grafeat as gf
model, grids, pictures = example()
"""


class View:
    """One explorer on a page."""

    def __init__(self, page: Page, root: Locator) -> None:
        self.page = page
        self.root = root
        self.sentence = root.locator(".sentence")
        self.caption = root.locator(".caption")

    def wait(self) -> "View":
        expect(self.sentence).to_contain_text("patch (")
        return self

    def stage(self, name: str) -> Locator:
        return self.root.locator(f".stage[aria-label^='{name},']")

    def choice(self, key: str, value: str) -> Locator:
        """The button that gives an attribute a value."""
        return self.root.locator(f".choice[data-key='{key}'] button[data-value='{value}']")

    def button(self, label: str) -> Locator:
        return self.root.get_by_role("button", name=label, exact=True)

    def cell(self, kind: str, layer: int, head: int | None) -> Locator:
        """A cell of the navigator."""
        named = f"head {head}:" if head is not None else "mean of"
        return self.root.locator(f"button.cell[aria-label^='{kind}, layer {layer}, {named}']")

    def place(self, patch: Patch) -> tuple[Locator, dict[str, float]]:
        """A patch's grid, and the patch's centre on it."""
        name, row, column = patch
        stage = self.stage(name)
        box = stage.locator("canvas").bounding_box()
        rows, columns = SHAPES[name]
        return stage, {"x": box["width"] * (column + 0.5) / columns, "y": box["height"] * (row + 0.5) / rows}

    def hover(self, patch: Patch) -> None:
        stage, position = self.place(patch)
        stage.hover(position=position)

    def click(self, patch: Patch) -> None:
        stage, position = self.place(patch)
        stage.click(position=position)

    def tap(self, patch: Patch) -> None:
        stage, position = self.place(patch)
        stage.tap(position=position)

    def selected(self) -> Patch:
        """The selected patch, as the sentence names it."""
        name, row, column = re.match(r"(\w+) patch \((\d+), (\d+)\)", self.text()).groups()
        return name, int(row), int(column)

    def expect_selected(self, patch: Patch) -> None:
        name, row, column = patch
        expect(self.sentence).to_have_text(re.compile(rf"^{name} patch \({row}, {column}\)"))

    def colours(self, name: str) -> np.ndarray:
        """Red, green and blue in the middle of each patch (h, w, 3)."""
        shape = SHAPES[name]
        return np.array(self.stage(name).locator("canvas").evaluate(_CENTRES, shape)).reshape(*shape, 3)

    def steps(self, name: str, colour_map: str = SEQUENTIAL) -> np.ndarray:
        """Where each patch's colour stands on a map (h, w), 0 to 255."""
        scale = (colormaps[colour_map](np.linspace(0, 1, 256))[:, :3] * 255).round()
        away = np.abs(self.colours(name)[:, :, None] - scale).sum(axis=-1)
        assert away.min(axis=-1).max() <= 1, f"{name}: a colour that the map does not have"
        return away.argmin(axis=-1)

    def expect_weights(self, weights: Mapping[str, list], tops: Mapping[str, float]) -> None:
        """The colours on screen, scaled by row, are these weights; the sentence names the strongest."""
        own = self.selected()[0]
        for kind, names in (("intra", [own]), ("cross", [name for name in SHAPES if name != own])):
            arrays = {name: np.array(weights[name]) for name in names}
            top = max(array.max() for array in arrays.values())
            error = tops[kind] * ERROR
            for name, array in arrays.items():
                np.testing.assert_allclose(self.steps(name) * top / 255, array, atol=2 * error + top / 255)
            self._expect_said(kind, arrays, error)

    def _expect_said(self, kind: str, arrays: Mapping[str, np.ndarray], error: float) -> None:
        said = re.search(rf"{kind}: [^·]*most (?:to|by) (?:(\w+) )?\((\d+), (\d+)\) with ([\d.]+)%", self.text())
        assert said, f"{self.text()!r} names no {kind} patch"
        named = arrays[said[1] or next(iter(arrays))][int(said[2]), int(said[3])]
        assert named >= max(array.max() for array in arrays.values()) - 2 * error
        assert abs(float(said[4]) / 100 - named) <= error + 0.005

    def choose(self, label: str, value: object) -> None:
        """Picks from a menu."""
        chosen = json.dumps(value, separators=(",", ":"))
        self.root.get_by_role("combobox", name=label, exact=True).select_option(chosen)

    def changes(self) -> dict[str, float]:
        """The change of each class's logit, as the knock-out's rows say it."""
        rows = self.root.locator(".changes .change:not(.axis)").all()
        said = {row.locator(".what").inner_text(): row.locator(".much").inner_text() for row in rows}
        return {name: float(text.replace("−", "-")) for name, text in said.items()}

    def expect_changes(self, classes: Sequence[str], change: Sequence[float]) -> None:
        """The rows say these changes, the largest first."""
        order = sorted(range(len(change)), key=lambda c: -abs(change[c]))
        names = self.root.locator(".changes .change:not(.axis) .what")
        assert names.all_inner_texts()[0] == classes[order[0]]
        assert self.changes() == pytest.approx(dict(zip(classes, change, strict=True)), abs=0.006)

    def text(self) -> str:
        return self.sentence.inner_text()
