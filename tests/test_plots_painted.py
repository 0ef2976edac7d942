"""Paint tells communities apart by tint and letter, and PageRank by one scale, and leaves the graph as it is."""

import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import TextArea
from test_plots_graphs import GRAPH, PICTURE, captions, closed, cross_ends, made_up

from grafeat.graph import PatchGraph
from grafeat.measures import Communities, annotate
from grafeat.plots.graphs import draw_graph
from grafeat.plots.painted import TINTS, communities_said
from grafeat.plots.sheets import graph_layout

__all__ = ["closed"]  # a fixture

LABELS = {
    "a": torch.tensor([[0, 0, 1], [0, 2, 1]]),
    "small_vit": torch.tensor([[0], [0], [9], [9], [10]]),
    "c": torch.tensor([[1, 1, 1, 0, 0, 0, 2]]),
}
RANKS = {name: torch.arange(1.0, 1 + h * w).view(h, w).double() for name, (h, w) in GRAPH.shapes.items()}


def painted_graph(**attention: int) -> nx.DiGraph:
    graph = GRAPH.to_networkx(made_up(), top=11) if attention else GRAPH.to_networkx()
    return annotate(graph, pagerank=RANKS, communities=Communities(LABELS, 0.5, 1.0))


def fills(ax: Axes, label: str) -> list[PolyCollection]:
    return [c for c in ax.collections if isinstance(c, PolyCollection) and c.get_label() == label]


def test_patches_have_the_tint_of_their_community_in_place() -> None:
    graph = painted_graph()
    ax = draw_graph(graph, paint="community")
    at = graph_layout(graph)
    for filled, name in zip(fills(ax, "community"), GRAPH.names, strict=True):
        vertices = range(GRAPH.num_vertices)[GRAPH.slices[name]]
        expected = [to_rgb(TINTS[min(int(label), 8)]) for label in LABELS[name].flatten()]
        np.testing.assert_allclose(filled.get_facecolor()[:, :3], expected)
        for vertex, path in zip(vertices, filled.get_paths(), strict=True):
            np.testing.assert_allclose(path.vertices[:4].mean(axis=0), at[vertex], atol=1e-9)


def test_each_patch_has_its_letter_where_there_is_room() -> None:
    ax = draw_graph(painted_graph(), paint="community")
    letters = [text.get_text() for text in ax.texts if text.get_label() == "letter"]
    expected = [chr(97 + int(label)) for labels in LABELS.values() for label in labels.flatten()]
    assert sorted(letters) == sorted(expected)
    assert "a 8" in captions(ax) and "patches of 5 communities:" in captions(ax) and "2 more 3" in captions(ax)


@pytest.mark.parametrize(("many", "said"), [(1, [1]), (4, [4]), (5, [3, 2]), (7, [4, 3]), (8, [4, 4]), (11, [4, 5])])
def test_no_line_of_the_communities_holds_a_single_one_that_the_other_had_room_for(many: int, said: list[int]) -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from((number, {"community": number % many}) for number in range(2 * many))
    lines = communities_said(graph)
    assert [sum(part[0] == "■" for part in line) for line in lines] == said


def test_small_patches_have_one_letter_for_each_community_and_sheet() -> None:
    patches = PatchGraph({"a": (2, 28), "b": (2, 2)})
    labels = {"a": (torch.arange(28) // 14)[None].repeat(2, 1), "b": torch.tensor([[0, 1], [0, 1]])}
    graph = annotate(patches.to_networkx(), communities=Communities(labels, 0.5, 1.0))
    graph.remove_edges_from(list(graph.edges)[1:])
    ax = draw_graph(graph, paint="community")
    letters = [text for text in ax.texts if text.get_label() == "letter"]
    assert sorted(text.get_text() for text in letters) == ["a", "a", "a", "b", "b", "b"]
    places = {text.get_text(): text.get_position()[0] for text in letters[:2]}
    assert places["a"] < places["b"]


def test_pagerank_has_one_scale_and_a_bar_that_says_it() -> None:
    ax = draw_graph(painted_graph(), PICTURE, paint="pagerank")
    for filled, name in zip(fills(ax, "pagerank"), GRAPH.names, strict=True):
        expected = colormaps["cividis"](RANKS[name].flatten().numpy() / 7)[:, :3]
        np.testing.assert_allclose(filled.get_facecolor()[:, :3], expected)
    (bar,) = ax.child_axes
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ["0", "7"]
    assert "PageRank" in captions(bar) and "mean" in captions(bar) and "3.6" in captions(bar)


@pytest.mark.parametrize("paint", ["community", "pagerank"])
def test_all_text_below_the_graph_is_on_the_figure(paint: str) -> None:
    ax = draw_graph(painted_graph(top=11), PICTURE, paint=paint)
    renderer = ax.figure.canvas.get_renderer()
    ax.figure.draw(renderer)
    boxes = [area.get_window_extent(renderer) for area in ax.figure.findobj(TextArea)]
    assert min(box.y0 for box in boxes) > 0
    assert max(box.x1 for box in boxes) < ax.figure.bbox.width


def test_paint_leaves_edges_and_captions_as_they_are() -> None:
    graph = painted_graph(top=11)
    plain, painted = draw_graph(graph), draw_graph(graph, paint="community")
    assert cross_ends(plain) == cross_ends(painted)
    assert captions(painted).startswith(captions(plain))
    assert not fills(plain, "community")
    assert "routing, not importance" in captions(painted)
    assert painted.get_title(loc="left") == "Patch graph: strongest attention edges; patches by community"


def test_paint_that_is_not_there_is_refused(unchecked: None) -> None:
    with pytest.raises(
        ValueError, match=r"paint: got 'pagerank', but not all .* it there with measures.annotate"
    ):
        draw_graph(GRAPH.to_networkx(), paint="pagerank")
    with pytest.raises(ValueError, match="paint: got 'louvain'; expected 'community', 'pagerank' or None"):
        draw_graph(painted_graph(), paint="louvain")
