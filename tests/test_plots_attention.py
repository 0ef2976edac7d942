"""Attention heatmaps hold the captured rows, each kind on its own limits, against the mass of equal logits."""

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import TextArea
from torch import nn

from grafeat.attention import CrossAttention, IntraAttention, RotaryPositions
from grafeat.captured import CapturedAttention, capture
from grafeat.graph import Patch, PatchGraph
from grafeat.plots.attention import attention_maps, attention_rows
from grafeat.plots.heatmaps import heat_of
from grafeat.plots.palette import backbone_colours

SHAPES = {"lite": (2, 3), "small_vit": (5, 1), "cnn": (3, 7), "fourth": (1, 1), "fifth": (2, 2)}
PICTURE = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))


def captured(count: int = 3, *, kinds: str = "intra cross", balance: bool = True) -> CapturedAttention:
    """One layer of each kind, of three heads, on random states of two pictures."""
    generator = torch.Generator().manual_seed(0)
    shapes = dict(list(SHAPES.items())[:count])
    graph = PatchGraph(shapes, {"lite": (0.0, 0.0, 0.5, 1.0)})
    model = nn.ModuleList()
    if "intra" in kinds:
        model.append(IntraAttention(tuple(shapes), 12, 3))
    if "cross" in kinds:
        model.append(CrossAttention(tuple(shapes), 12, 3, balance=balance))
    angles = RotaryPositions(4)(graph.centres)
    with capture(model) as attention, torch.no_grad():
        for layer in model:
            layer(3 * torch.randn(2, graph.num_vertices, 12, generator=generator), graph, angles)
    return attention


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if any(image.get_label() == "values" for image in ax.images)]


def written(figure: Figure) -> list[str]:
    return [area.get_text() for area in figure.findobj(TextArea)]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_panels_hold_the_rows_of_the_query() -> None:
    attention = captured()
    figure = attention_maps(attention, ("cnn", 2, 4), PICTURE, layer=0, head=1, index=1)
    intra, lite, vit = panels(figure)
    np.testing.assert_allclose(heat_of(intra).get_array(), attention.intra("cnn", 0, 1)[1, 2, 4])
    np.testing.assert_allclose(heat_of(lite).get_array(), attention.cross("cnn", "lite", 0, 1)[1, 2, 4])
    np.testing.assert_allclose(heat_of(vit).get_array(), attention.cross("cnn", "small_vit", 0, 1)[1, 2, 4])
    assert heat_of(lite).get_extent() == pytest.approx([0, 15, 20, 0])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), PICTURE.permute(1, 2, 0))


def test_without_a_head_heads_are_averaged() -> None:
    attention = captured()
    intra, lite, _ = panels(attention_maps(attention, ("cnn", 0, 0), layer=0))
    np.testing.assert_allclose(
        heat_of(intra).get_array(), attention.intra("cnn", 0).mean(1)[0, 0, 0], rtol=1e-6
    )
    expected = attention.cross("cnn", "lite", 0).mean(1)[0, 0, 0]
    np.testing.assert_allclose(heat_of(lite).get_array(), expected, rtol=1e-6)


def test_cross_panels_share_limits_and_intra_has_its_own() -> None:
    attention = captured(5)
    intra, *cross = panels(attention_maps(attention, ("lite", 1, 2), PICTURE, layer=0))
    largest = max(float(np.max(heat_of(ax).get_array())) for ax in cross)
    assert {heat_of(ax).get_clim() for ax in cross} == {(0, largest)}
    assert heat_of(intra).get_clim() == (0, float(np.max(heat_of(intra).get_array()))) != (0, largest)


def test_relative_panels_are_multiples_of_uniform_under_one_bar() -> None:
    attention = captured()
    figure = attention_maps(attention, ("lite", 1, 2), PICTURE, layer=0, relative=True)
    rows = attention_rows(attention, Patch("lite", 1, 2), layer=0)
    for ax, row in zip(panels(figure), rows, strict=True):
        np.testing.assert_allclose(heat_of(ax).get_array(), row.weights / row.equal, rtol=1e-6)
    assert len({heat_of(ax).get_clim() for ax in panels(figure)}) == 1
    assert sum("uniform" in text for text in written(figure)) >= 1
    assert len(figure.axes) == 1 + 3 + 1


@pytest.mark.parametrize("balance", [True, False])
def test_uniform_is_what_equal_logits_give(balance: bool) -> None:
    intra, vit, cnn = attention_rows(captured(balance=balance), Patch("lite", 0, 1), layer=0)
    assert (intra.kind, intra.equal, intra.mass) == ("intra", pytest.approx(1 / 6), pytest.approx(1))
    assert (vit.key, cnn.key) == ("small_vit", "cnn")
    expected = (1 / 10, 1 / 42) if balance else (1 / 26, 1 / 26)
    assert (vit.equal, cnn.equal) == pytest.approx(expected)
    assert vit.mass + cnn.mass == pytest.approx(1) == vit.equal_mass + cnn.equal_mass


def test_the_mass_and_the_routing_are_written_down() -> None:
    attention = captured()
    texts = written(attention_maps(attention, ("lite", 1, 2), PICTURE, layer=0, head=2))
    mass = float(attention.cross("lite", "cnn", 0, 2)[0, 1, 2].sum())
    assert any(text.startswith(f"cross {mass:.0%}, uniform 50%") for text in texts)
    assert "layer 0, head 2 · routing, not importance" in texts
    assert texts.count("uniform") == 2 and "Attention of patch (1, 2) of" in texts
    assert "layer 0, mean over 3 heads · routing, not importance" in written(
        attention_maps(attention, ("lite", 1, 2), layer=0)
    )


def test_the_query_is_marked_on_its_own_grid_and_on_the_picture() -> None:
    figure = attention_maps(captured(), ("cnn", 2, 4), PICTURE, layer=0)
    marked = [ax for ax in figure.axes if ax.patches]
    assert marked == [figure.axes[0], panels(figure)[0]]
    for ax in marked:
        assert ax.patches[0].get_bbox().extents == pytest.approx(
            [4 / 7 * 30, 40 / 3, 5 / 7 * 30, 20], abs=1e-4
        )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_backbones(count: int) -> None:
    attention = captured(count)
    figure = attention_maps(attention, ("lite", 0, 0), PICTURE, layer=0)
    colours = backbone_colours(attention.graph.names)
    assert [ax.lines[0].get_color() for ax in panels(figure)] == [colour.mark for colour in colours.values()]
    assert len(figure.axes) == 1 + count + (1 if count == 1 else 2)


@pytest.mark.parametrize(("kinds", "count"), [("intra", 1), ("cross", 2)])
def test_a_model_without_one_kind_shows_the_other(kinds: str, count: int) -> None:
    assert len(panels(attention_maps(captured(kinds=kinds), ("lite", 0, 0), layer=0))) == count


def test_bad_input_is_named() -> None:
    attention = captured()
    with pytest.raises(ValueError, match=r"row, column: got \(2, 0\)"):
        attention_maps(attention, ("lite", 2, 0), layer=0)
    with pytest.raises(ValueError, match="backbone: got 'resnet'"):
        attention_maps(attention, ("resnet", 0, 0), layer=0)
    with pytest.raises(ValueError, match="layer: got 7"):
        attention_maps(attention, ("lite", 0, 0), layer=7)
    with pytest.raises(ValueError, match="head: got 3"):
        attention_maps(attention, ("lite", 0, 0), layer=0, head=3)
    with pytest.raises(ValueError, match="picture: got 2"):
        attention_maps(attention, ("lite", 0, 0), layer=0, index=2)
    with pytest.raises(ValueError, match="nothing was captured"):
        attention_maps(CapturedAttention(), ("lite", 0, 0), layer=0)


def test_settings_of_matplotlib_stay() -> None:
    before = dict(mpl.rcParams)
    attention_maps(captured(), ("lite", 0, 0), PICTURE, layer=0)
    assert dict(mpl.rcParams) == before
