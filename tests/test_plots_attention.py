"""Attention heatmaps hold the captured rows, each kind on its own limits, against the mass of equal logits."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import TextArea
from matplotlib.text import Text
from torch import nn

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.attention.layers import CrossAttention, IntraAttention, RotaryPositions
from grafeat.graph import Patch, PatchGraph
from grafeat.plots.attention import attention_maps
from grafeat.plots.heatmaps import heat_of
from grafeat.plots.palette import backbone_colours
from grafeat.plots.panels import number
from grafeat.plots.rows import Direction, attention_rows

SHAPES = {"lite": (2, 3), "small_vit": (5, 1), "cnn": (3, 7), "fourth": (1, 1), "fifth": (2, 2)}
PICTURE = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))


def captured(
    count: int = 3, *, kinds: str = "intra cross", balance: bool = True, poison: int | None = None
) -> CapturedAttention:
    """One layer of each kind, of three heads, on random states of two pictures."""
    torch.manual_seed(0)  # the layers' own weights
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
            states = 3 * torch.randn(2, graph.num_vertices, 12, generator=generator)
            if poison is not None:
                states[:, poison] = torch.nan
            layer(states, graph, angles)
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
    np.testing.assert_allclose(heat_of(intra).get_array(), attention.intra("cnn", 0, 1)[1, 2, 4], rtol=1e-5)
    np.testing.assert_allclose(
        heat_of(lite).get_array(), attention.cross("cnn", "lite", 0, 1)[1, 2, 4], rtol=1e-5
    )
    np.testing.assert_allclose(
        heat_of(vit).get_array(), attention.cross("cnn", "small_vit", 0, 1)[1, 2, 4], rtol=1e-5
    )
    assert heat_of(lite).get_extent() == pytest.approx([0, 15, 20, 0])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), PICTURE.permute(1, 2, 0))


def test_without_a_head_heads_are_averaged() -> None:
    attention = captured()
    intra, lite, _ = panels(attention_maps(attention, ("cnn", 0, 0), layer=0))
    np.testing.assert_allclose(
        heat_of(intra).get_array(), attention.intra("cnn", 0).mean(1)[0, 0, 0], rtol=1e-5
    )
    expected = attention.cross("cnn", "lite", 0).mean(1)[0, 0, 0]
    np.testing.assert_allclose(heat_of(lite).get_array(), expected, rtol=1e-5)


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
        np.testing.assert_allclose(heat_of(ax).get_array(), row.weights / row.equal, rtol=1e-5)
    assert len({heat_of(ax).get_clim() for ax in panels(figure)}) == 1
    assert sum("uniform" in text for text in written(figure)) >= 1
    assert len(figure.axes) == 1 + 3 + 1


@pytest.mark.parametrize("balance", [True, False])
def test_uniform_is_what_equal_logits_give(balance: bool) -> None:
    intra, vit, cnn = attention_rows(captured(balance=balance), Patch("lite", 0, 1), layer=0)
    assert (intra.kind, intra.equal, intra.mass) == ("intra", pytest.approx(1 / 6), pytest.approx(1))
    assert (vit.backbone, cnn.backbone) == ("small_vit", "cnn")
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


def drawn(figure: Figure, label: str) -> Artist | None:
    """What `draw_links` added to the figure under this label."""
    return next((artist for artist in figure.get_children() if artist.get_label() == label), None)


def poisoned() -> CapturedAttention:
    """Attention in which the state of the patch (0, 2) of `lite` is NaN."""
    return captured(poison=2)


@pytest.mark.parametrize("head", [None, 1])
def test_incoming_panels_hold_the_columns(head: int | None) -> None:
    attention, patch = captured(), ("cnn", 2, 4)
    figure = attention_maps(attention, patch, PICTURE, layer=0, head=head, index=1, direction="incoming")
    columns = attention.column(patch, layer=0, head=head, picture=1)
    for ax, name in zip(panels(figure), ("cnn", "lite", "small_vit"), strict=True):
        np.testing.assert_array_equal(heat_of(ax).get_array(), columns[name])


def test_incoming_headers_say_how_the_mass_compares_with_an_even_one() -> None:
    attention, patch = captured(), ("cnn", 2, 4)
    texts = written(attention_maps(attention, patch, layer=0, head=1, direction="incoming"))
    column = attention.column(patch, layer=0, head=1)
    for kind, name in (("intra", "cnn"), ("cross", "lite"), ("cross", "small_vit")):
        times = float(column[name].sum()) / (column[name].numel() * attention.uniform(name, "cnn", 0))
        assert any(text.startswith(f"{kind} {times:.1f}× even") for text in texts)
    assert "Attention to patch (2, 4) of" in texts
    assert not any("%" in text for text in texts)


def test_edges_are_the_strongest_of_the_row_and_the_caption_says_what_they_keep() -> None:
    attention, patch = captured(), ("cnn", 2, 4)
    figure = attention_maps(attention, patch, PICTURE, layer=0, head=1, edges=3)
    row = attention.row(patch, layer=0, head=1)
    cross = torch.cat([row["lite"].flatten(), row["small_vit"].flatten()])
    kept = float(cross.topk(3).values.sum())
    assert any(
        text.startswith(f"3 strongest edges keep {kept:.0%} of the cross mass") for text in written(figure)
    )
    dots = drawn(figure, "attended to")
    assert isinstance(dots, Collection)
    ends = sorted(map(tuple, figure.transFigure.transform(dots.get_offsets()).round(3).tolist()))
    assert ends == sorted(_centres(figure, attention, cross.topk(3).indices.tolist()))


def _centres(figure: Figure, attention: CapturedAttention, vertices: list[int]) -> list[tuple[float, float]]:
    """Where the centres of these vertices, of `lite` and then `small_vit`, lie on the figure, in pixels."""
    _, lite, vit = panels(figure)
    places = []
    for vertex in vertices:
        x, y = attention.graph.centres[vertex].tolist()
        ax = lite if vertex < 6 else vit
        places.append(tuple(ax.transData.transform((30 * x, 20 * y)).round(3).tolist()))
    return places


def test_incoming_edges_end_at_the_patch_in_its_colour() -> None:
    attention, patch = captured(), ("cnn", 2, 4)
    figure = attention_maps(attention, patch, PICTURE, layer=0, edges=5, direction="incoming")
    column = attention.column(patch, layer=0)
    cross = torch.cat([column["lite"].flatten(), column["small_vit"].flatten()])
    kept = float(cross.topk(5).values.sum() / cross.sum())
    assert f"5 strongest edges keep {kept:.0%} of the cross mass received" in written(figure)
    dots = drawn(figure, "attended to")
    assert isinstance(dots, Collection)
    x, y = attention.graph.centres[attention.graph.vertex(*patch)].tolist()
    at = panels(figure)[0].transData.transform((30 * x, 20 * y))
    np.testing.assert_allclose(
        figure.transFigure.transform(dots.get_offsets()), np.tile(at, (5, 1)), atol=1e-3
    )
    mark = to_rgb(backbone_colours(attention.graph.names)["cnn"].mark)
    assert {tuple(shade[:3]) for shade in dots.get_facecolor()} == {mark}


@pytest.mark.parametrize(
    ("kinds", "count", "edges", "said"),
    [
        ("intra cross", 1, 3, "no edges: nothing but intra attention"),
        ("intra", 3, 3, "no edges: nothing but intra attention"),
        ("intra cross", 3, 1, "the strongest edge keeps"),
        ("cross", 2, 99, "all 5 edges, the whole cross mass"),
    ],
)
def test_the_caption_says_how_many_edges_there_are(kinds: str, count: int, edges: int, said: str) -> None:
    figure = attention_maps(captured(count, kinds=kinds), ("lite", 1, 1), layer=0, edges=edges)
    assert any(text.startswith(said) for text in written(figure))
    assert (drawn(figure, "links") is None) == said.startswith("no edges")


@pytest.mark.parametrize("picture", [None, PICTURE])
def test_without_intra_layers_the_patch_lies_on_an_empty_grid(picture: torch.Tensor | None) -> None:
    figure = attention_maps(captured(kinds="cross"), ("cnn", 2, 4), picture, layer=0, edges=4)
    assert "no intra layers" in written(figure) and len(panels(figure)) == 2
    own = figure.axes[0 if picture is None else 1]
    assert own not in panels(figure) and own.patches


def test_limits_are_shared_on_demand_and_what_lies_beyond_is_said() -> None:
    attention = captured()
    limits = {"intra": (0.0, 0.9), "cross": (0.03, 0.05)}
    figure = attention_maps(attention, ("cnn", 2, 4), layer=0, limits=limits)
    assert [heat_of(ax).get_clim() for ax in panels(figure)] == [(0, 0.9), (0.03, 0.05), (0.03, 0.05)]
    bars = [[label.get_text() for label in ax.get_xticklabels()] for ax in figure.axes[-2:]]
    assert bars == [["0", "0.90"], ["≤ 0.030", "≥ 0.050"]]
    part = attention_maps(attention, ("cnn", 2, 4), layer=0, limits={"intra": (0.0, 0.9)})
    assert heat_of(panels(part)[1]).get_clim() != (0, 0.9)


@pytest.mark.parametrize("relative", [False, True])
def test_logarithmic_colours_begin_at_a_tenth_of_uniform(relative: bool) -> None:
    attention = captured()
    figure = attention_maps(attention, ("cnn", 2, 4), PICTURE, layer=0, log=True, relative=relative)
    rows = attention_rows(attention, Patch("cnn", 2, 4), layer=0)
    for ax, row in zip(panels(figure), rows, strict=True):
        assert isinstance(heat_of(ax).norm, LogNorm)
        group = [other for other in rows if relative or other.kind == row.kind]
        highest = max(float(other.shown(relative).max()) for other in group)
        lowest = 0.1 if relative else min(other.equal for other in group) / 10
        assert heat_of(ax).get_clim() == pytest.approx((lowest, highest))
    assert sum("▼ uniform" in text.get_text() for text in figure.findobj(Text)) == (1 if relative else 2)


def test_a_pinned_patch_has_brackets_on_its_grid_and_on_the_picture() -> None:
    attention = captured()
    figure = attention_maps(attention, ("cnn", 2, 4), PICTURE, layer=0, pin=("small_vit", 3, 0))
    whole, _, _, vit = figure.axes[:4]
    for ax in (whole, vit):
        pinned = [patch for patch in ax.patches if patch.get_label() == "pin"]
        assert [patch.get_edgecolor()[:3] for patch in pinned] == [(0, 0, 0), (1, 1, 1)]
        assert pinned[0].get_path().get_extents().extents == pytest.approx([0, 12, 30, 16])
    weight = float(attention.row(("cnn", 2, 4), layer=0)["small_vit"][3, 0])
    assert any(text.startswith(f"weighs {number(weight)}, ") for text in written(figure))


def test_nan_is_hatched_and_said() -> None:
    figure = attention_maps(
        poisoned(), ("cnn", 2, 4), PICTURE, layer=0, direction="incoming", edges=3, pin=("lite", 0, 2)
    )
    intra, lite, vit = panels(figure)
    hatched = [[c for c in ax.collections if c.get_label() == "NaN"] for ax in (intra, lite, vit)]
    assert [len(found) for found in hatched] == [0, 1, 1]
    (box,) = hatched[1][0].get_paths()  # only this patch of `lite` asks with NaN; all of `small_vit` see it
    assert box.get_extents().extents == pytest.approx([10, 0, 15, 10]) and hatched[1][0].get_hatch()
    assert len(hatched[2][0].get_paths()) == 5 and np.ma.getmaskarray(heat_of(vit).get_array()).all()
    texts = written(figure)
    assert "hatched: 6 of 32 weights are NaN" in texts and "weighs NaN" in texts
    assert any(text.startswith("cross NaN") for text in texts)
    assert any("of the cross mass received, NaN left out" in text for text in texts)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("relative", [False, True])
def test_where_all_is_nan_nothing_is_drawn_as_zero(log: bool, relative: bool) -> None:
    figure = attention_maps(poisoned(), ("lite", 0, 2), PICTURE, layer=0, edges=3, log=log, relative=relative)
    assert all(np.ma.getmaskarray(heat_of(ax).get_array()).all() for ax in panels(figure))
    assert {"no edges: all cross weights are NaN", "hatched: 32 of 32 weights are NaN"} <= set(
        written(figure)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_figures_can_be_saved(count: int, direction: Direction, tmp_path: Path) -> None:
    figure = attention_maps(
        captured(count),
        ("lite", 1, 2),
        PICTURE,
        layer=0,
        direction=direction,
        edges=16,
        log=True,
        pin=("lite", 0, 0),
    )
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        figure.savefig(tmp_path / f"maps.{ending}", dpi=40)
        assert (tmp_path / f"maps.{ending}").read_bytes().startswith(start)


def test_bad_options_are_named() -> None:
    attention = captured()
    with pytest.raises(ValueError, match="edges: got -1; expected how many are drawn, 0 or more"):
        attention_maps(attention, ("lite", 0, 0), layer=0, edges=-1)
    with pytest.raises(ValueError, match=r"row, column: got \(9, 0\)"):
        attention_maps(attention, ("lite", 0, 0), layer=0, pin=("cnn", 9, 0))
    with pytest.raises(
        ValueError, match=r"limits: got \(0.0, 1.0\) for cross; a logarithm needs a low above 0"
    ):
        attention_maps(attention, ("lite", 0, 0), layer=0, limits={"cross": (0.0, 1.0)}, log=True)


def test_a_wrong_direction_is_named(unchecked: None) -> None:
    with pytest.raises(ValueError, match="direction: got 'both'; expected 'outgoing'"):
        attention_maps(captured(), ("lite", 0, 0), layer=0, direction="both")  # type: ignore[arg-type]
