"""The drawn graph has the strongest edges, in two styles, and prints the mass that they keep."""

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.offsetbox import TextArea
from torch import Tensor

from grafeat.graph import PatchGraph
from grafeat.plots.graphs import draw_graph
from grafeat.plots.palette import backbone_colours
from grafeat.plots.sheets import graph_layout

GRAPH = PatchGraph({"a": (2, 3), "small_vit": (5, 1), "c": (1, 7)})
PICTURE = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class MadeUp:
    """Attention weights that are known: every row sums to 1 on its own grid, and to 1 on all others."""

    dense: Tensor

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("intra", "cross")

    def block(
        self, query: str, key: str, *, layer: int, head: int | None = None, picture: int = 0
    ) -> Float[Tensor, "patches_query patches_key"]:
        return self.dense[GRAPH.slices[query], GRAPH.slices[key]]


def made_up() -> MadeUp:
    own = torch.block_diag(*(torch.ones(size, size) for size in GRAPH.sizes.values())).bool()
    logits = 2 * torch.randn(18, 18, generator=torch.Generator().manual_seed(0))
    intra, cross = (logits.masked_fill(mask, -torch.inf).softmax(dim=-1) for mask in (~own, own))
    return MadeUp(torch.where(own, intra, cross))


def lines(ax: Axes, label: str) -> LineCollection:
    return next(c for c in ax.collections if isinstance(c, LineCollection) and c.get_label() == label)


def cross_ends(ax: Axes) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """First and last point of each cross curve; a curve is 24 straight pieces."""
    pieces = np.array(lines(ax, "cross").get_segments()).reshape(-1, 24, 2, 2)
    return [(tuple(curve[0, 0].round(6)), tuple(curve[-1, 1].round(6))) for curve in pieces]


def captions(ax: Axes) -> str:
    return "\n".join(area.get_text() for area in ax.findobj(TextArea))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_edges_drawn_are_the_strongest() -> None:
    dense = made_up().dense
    ax = draw_graph(GRAPH.to_networkx(made_up(), top=11))
    at = {vertex: tuple(np.round(place, 6)) for vertex, place in graph_layout(GRAPH.to_networkx()).items()}
    own = torch.block_diag(*(torch.ones(size, size) for size in GRAPH.sizes.values())).bool()
    strongest = dense.masked_fill(own, -1).flatten().topk(11).indices
    expected = [(at[int(i) // 18], at[int(i) % 18]) for i in strongest]
    assert cross_ends(ax) == expected[::-1]  # the strongest lies on top
    strongest = dense.masked_fill(~own, -1).flatten().topk(11).indices
    loops = sum(int(i) // 18 == int(i) % 18 for i in strongest)
    rings = [c for c in ax.collections if c.get_label() == "loops"]
    assert len(lines(ax, "intra").get_segments()) == 11 - loops
    assert sum(len(c.get_offsets()) for c in rings) == loops


def test_the_printed_mass_is_what_the_edges_keep() -> None:
    graph = GRAPH.to_networkx(made_up(), top=11)
    own = torch.block_diag(*(torch.ones(size, size) for size in GRAPH.sizes.values())).bool()
    said = captions(draw_graph(graph))
    for kind, mask, total in (("intra", own, 36 + 25 + 49), ("cross", ~own, 18**2 - 110)):
        kept = made_up().dense[mask].topk(11).values.sum() / 18
        assert graph.graph["kept"][kind] == pytest.approx(float(kept))
        assert (
            f"{kind}: 11 of {total} edges keep {kept:.1%} of the {kind} mass (11 at random: {11 / total:.1%})"
            in said
        )
    assert "routing, not importance" in said


def test_the_mass_of_fewer_edges_is_counted_anew() -> None:
    graph = GRAPH.to_networkx(made_up(), top=11)
    cross = [edge for edge in graph.edges if graph.edges[edge]["kind"] == "cross"]
    graph.remove_edges_from(cross[3:])
    kept = sum(graph.edges[edge]["weight"] for edge in cross[:3]) / 18
    assert f"cross: 3 of 214 edges keep {kept:.1%}" in captions(draw_graph(graph))


def test_all_edges_are_said_to_be_all() -> None:
    said = captions(draw_graph(GRAPH.to_networkx(made_up())))
    assert "intra: all 110 edges keep 100.0% of the intra mass" in said
    assert "cross: all 214 edges keep 100.0% of the cross mass" in said
    said = captions(draw_graph(GRAPH.to_networkx(self_loops=False)))
    assert "intra: all 92 edges but loops" in said and "keep" not in said and "weight" not in said


def test_kinds_differ_in_style_and_cross_edges_have_the_colour_of_their_key() -> None:
    ax = draw_graph(GRAPH.to_networkx(made_up(), top=11))
    assert lines(ax, "intra").get_linestyle()[0][1] is not None  # dashed
    assert all(style[1] is None for style in lines(ax, "cross").get_linestyle())
    assert np.ptp(lines(ax, "intra").get_color()[:, :3]) == 0  # one dark ink
    colours = backbone_colours(GRAPH.names)
    x = {name: graph_layout(GRAPH.to_networkx())[GRAPH.slices[name].start][0] for name in GRAPH.names}
    drawn = lines(ax, "cross").get_color().reshape(-1, 24, 4)
    for (_, end), shades in zip(cross_ends(ax), drawn, strict=True):
        name = min(x, key=lambda name: abs(x[name] + 0.3 - end[0]))
        np.testing.assert_allclose(shades[:, :3], [to_rgba(colours[name].mark)[:3]] * 24)
        assert shades[12, 3] < shades[0, 3] and shades[12, 3] < shades[-1, 3]  # paler half-way


def test_width_follows_weight() -> None:
    graph = GRAPH.to_networkx(made_up(), top=11)
    widths = np.array(lines(draw_graph(graph), "cross").get_linewidth()).reshape(-1, 24)[:, 0]
    weights = sorted(data["weight"] for *_, data in graph.edges(data=True) if data["kind"] == "cross")
    np.testing.assert_allclose(widths, 0.5 + 2.4 * np.array(weights) / weights[-1], rtol=1e-5)


@pytest.mark.parametrize(("kind", "other"), [("intra", "cross"), ("cross", "intra")])
def test_one_kind_alone(kind: str, other: str) -> None:
    ax = draw_graph(GRAPH.to_networkx(made_up(), top=11), kinds=(kind,))
    assert f"{kind}:" in captions(ax) and f"{other}:" not in captions(ax)
    assert other not in [c.get_label() for c in ax.collections]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_backbones_with_a_picture(count: int) -> None:
    names = [f"backbone {m} of some very long family name" for m in range(count)]
    graph = PatchGraph({name: (m + 1, 3) for m, name in enumerate(names)})
    ax = draw_graph(graph.to_networkx(), PICTURE)
    assert len(ax.images) == count and ("cross" in captions(ax)) == (count > 1)
    assert (ax.get_ylim()[0] > ax.get_ylim()[1]) and ax.get_aspect() == 1
    shown = np.array(next(c.get_offsets() for c in ax.collections if len(c.get_offsets()) == 3))
    assert (shown[:, 0] > ax.get_xlim()[0]).all() and (shown[:, 0] < ax.get_xlim()[1]).all()


def test_thousands_of_edges_are_a_few_artists() -> None:
    graph = PatchGraph({"a": (5, 5), "b": (5, 5)}).to_networkx()
    assert graph.number_of_edges() == 2500
    ax = draw_graph(graph)
    assert len(ax.get_children()) < 40


def test_given_axes_are_used_and_settings_stay() -> None:
    before = dict(mpl.rcParams)
    ax = plt.figure().add_subplot()
    assert draw_graph(GRAPH.to_networkx(made_up(), top=2), PICTURE, ax) is ax
    assert dict(mpl.rcParams) == before


def test_weights_that_are_nan_are_said() -> None:
    graph = GRAPH.to_networkx(made_up(), top=11)
    graph.edges[next(iter(graph.edges))]["weight"] = float("nan")
    with pytest.raises(ValueError, match="graph: 1 edges have weight NaN"):
        draw_graph(graph)


def test_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kinds: got \(\); expected 'intra', 'cross' or both"):
        draw_graph(GRAPH.to_networkx(), kinds=())
