"""Vertices lie at their patches' centres, curves join them, and sheets stand side by side."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch

from grafeat.graph import PatchGraph
from grafeat.plots.sheets import edge_curves, graph_layout, sheets_of

GRAPH = PatchGraph({"a": (2, 3), "b": (5, 1), "c": (1, 7)}, {"b": (0.25, 0.0, 0.75, 1.0)})


def test_flat_sheets_show_patches_at_their_centres() -> None:
    graph = GRAPH.to_networkx()
    at = graph_layout(graph, aspect=0.5, tilt=0)
    lefts = [sheet.affine.get_matrix()[0, 2] for sheet in sheets_of(graph, aspect=0.5, tilt=0)]
    for vertex, (x, y) in enumerate(GRAPH.centres.tolist()):
        place = GRAPH.names.index(GRAPH.locate(vertex).backbone)
        assert at[vertex] == pytest.approx((lefts[place] + x, 0.5 * y), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("tilt", [0, 0.3, 0.9])
def test_sheets_never_overlap(count: int, tilt: float) -> None:
    graph = PatchGraph({f"m{m}": (2, 2) for m in range(count)}).to_networkx()
    corners = [
        sheet.on(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
        for sheet in sheets_of(graph, aspect=1, tilt=tilt)
    ]
    for left, right in pairwise(corners):
        assert left[:, 0].max() < right[:, 0].min()


def test_a_sheet_knows_its_grid_and_field() -> None:
    sheets = sheets_of(GRAPH.to_networkx(), aspect=1, tilt=0.3)
    assert {sheet.name: sheet.shape for sheet in sheets} == dict(GRAPH.shapes)
    assert sheets[1].field == pytest.approx((0.25, 0, 0.75, 1))


def test_networkx_draws_with_the_layout() -> None:
    at = graph_layout(GRAPH.to_networkx())
    assert set(at) == set(range(GRAPH.num_vertices)) and torch.tensor(list(at.values())).isfinite().all()


@pytest.mark.parametrize("kind", ["intra", "cross"])
def test_curves_lead_from_query_to_key(kind: str) -> None:
    graph = GRAPH.to_networkx()
    at = graph_layout(graph)
    curves = edge_curves(graph, kind, at, sheets_of(graph, aspect=1, tilt=0.3))
    assert {(edge.query, edge.key) for edge in curves} == {
        (i, j) for i, j, data in graph.edges(data=True) if data["kind"] == kind
    }
    for edge in curves:
        np.testing.assert_allclose(edge.curve[[0, -1]], [at[edge.query], at[edge.key]], atol=1e-12)
        assert edge.backbone == GRAPH.locate(edge.key).backbone


def test_the_strongest_edge_comes_last() -> None:
    graph = PatchGraph({"a": (1, 2)}).to_networkx()
    nx.set_edge_attributes(graph, {(0, 0): 0.1, (0, 1): 0.9, (1, 0): 0.5, (1, 1): 0.45}, "weight")
    edges = edge_curves(graph, "intra", graph_layout(graph), sheets_of(graph, aspect=1, tilt=0))
    assert [(edge.query, edge.key) for edge in edges] == [(0, 0), (1, 1), (1, 0), (0, 1)]
    assert [edge.strength for edge in edges] == pytest.approx([1 / 9, 0.5, 5 / 9, 1])


def test_edges_past_a_sheet_go_above_it() -> None:
    graph = GRAPH.to_networkx()
    sheets = sheets_of(graph, aspect=1, tilt=0.3)
    left, right = sheets[1].on(np.array([[0.0, 0.0], [1.0, 0.0]]))
    for edge in edge_curves(graph, "cross", graph_layout(graph), sheets):
        if {GRAPH.locate(edge.query).backbone, edge.backbone} == {"a", "c"}:
            over = edge.curve[(edge.curve[:, 0] > left[0]) & (edge.curve[:, 0] < right[0])]
            assert over[:, 1].mean() < left[1]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="tilt: got 1; expected 0 or more, and less than 1"):
        graph_layout(GRAPH.to_networkx(), tilt=1)
    with pytest.raises(ValueError, match="graph: got vertices without backbone, row, column or box"):
        graph_layout(nx.path_graph(3))
    with pytest.raises(ValueError, match="graph: got vertices without"):
        graph_layout(nx.DiGraph())
    bare = GRAPH.to_networkx()
    del bare.edges[0, 1]["kind"]
    with pytest.raises(ValueError, match="graph: got edges without kind or relation"):
        graph_layout(bare)
