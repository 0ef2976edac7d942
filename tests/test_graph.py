"""The patch graph answers as the graph that networkx would build, whatever the number of backbones."""

import dataclasses
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention.capturing import capture
from grafeat.attention.layers import CrossAttention, IntraAttention, RotaryPositions
from grafeat.graph import AttentionWeights, Kind, PatchGraph
from grafeat.grids import FeatureGrid, GridSet

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
FIELDS = {"lite": (0.0, 0.0, 0.5, 1.0), "vit": (0.0, 0.0, 1.0, 1.0), "cnn": (0.25, 0.5, 0.75, 1.0)}
SIZES = [h * w for h, w in SHAPES.values()]
PLACES = [(name, row, column) for name, (h, w) in SHAPES.items() for row in range(h) for column in range(w)]
KINDS: tuple[Kind, ...] = ("intra", "cross")

sides = st.integers(1, 5)
backbones = st.lists(st.tuples(sides, sides), min_size=1, max_size=8)
graphs = backbones.map(lambda shapes: PatchGraph({f"backbone {m}": shape for m, shape in enumerate(shapes)}))


def complete(sizes: list[int], kind: Kind | None, *, self_loops: bool = True) -> nx.DiGraph:
    """The complete heterogeneous graph as networkx makes it, without a look at `PatchGraph`."""
    cross = nx.complete_multipartite_graph(*sizes)
    intra = nx.complement(cross)
    chosen = {"intra": intra, "cross": cross, None: nx.compose(intra, cross)}[kind].to_directed()
    if self_loops and kind != "cross":
        chosen.add_edges_from((vertex, vertex) for vertex in cross)
    return chosen


@dataclass(frozen=True, eq=False)
class MadeUp:
    """Attention weights that are known: a row sums to 1 over its own backbone, and to 1 over all others."""

    dense: Tensor  # (layers, pictures, heads, n, n)
    graph: PatchGraph
    kinds: tuple[str, ...] = ("intra", "cross")

    def block(
        self, query: str, key: str, *, layer: int, head: int | None = None, picture: int = 0
    ) -> Float[Tensor, "patches_query patches_key"]:
        chosen = self.dense[layer, picture]
        weights = chosen.mean(dim=0) if head is None else chosen[head]
        return weights[self.graph.slices[query], self.graph.slices[key]]


def made_up(graph: PatchGraph, layers: int = 2, pictures: int = 3, heads: int = 5) -> MadeUp:
    generator = torch.Generator().manual_seed(0)
    n = graph.num_vertices
    logits = 2 * torch.randn(layers, pictures, heads, n, n, generator=generator)
    own = torch.block_diag(*(torch.ones(size, size) for size in graph.sizes.values())).bool()
    intra = logits.masked_fill(~own, -torch.inf).softmax(dim=-1)
    cross = logits.masked_fill(own, -torch.inf).softmax(dim=-1).nan_to_num()  # a lone backbone has no others
    return MadeUp(intra + cross, graph)


# Counts


@settings(max_examples=15)
@given(graphs)
def test_edges_are_counted_as_networkx_counts_them(graph: PatchGraph) -> None:
    sizes = list(graph.sizes.values())
    assert graph.num_vertices == complete(sizes, None).number_of_nodes()
    for kind in (*KINDS, None):
        for self_loops in (True, False):
            expected = complete(sizes, kind, self_loops=self_loops).number_of_edges()
            assert graph.num_edges(kind, self_loops=self_loops) == expected


def test_counts_of_a_small_graph_by_hand() -> None:
    """Two patches and three: 4 + 9 intra edges, five of them loops, and 2 × 3 cross edges each way."""
    graph = PatchGraph({"lite": (1, 2), "vit": (3, 1)})
    assert (graph.num_edges("intra"), graph.num_edges("cross"), graph.num_edges()) == (13, 12, 25)
    assert graph.num_edges("intra", self_loops=False) == 8
    assert repr(graph).splitlines() == [
        "PatchGraph: 5 vertices of 2 backbones, 25 edges",
        "  lite  1 × 2 = 2 patches",
        "  vit   3 × 1 = 3 patches",
        "  intra: 13 edges, 5 of them loops i → i",
        "  cross: 12 edges, 2 relations",
    ]


@pytest.mark.parametrize("backbones", range(1, 9))
def test_relations_are_the_ordered_pairs_of_backbones(backbones: int) -> None:
    graph = PatchGraph({str(m): (2, m + 1) for m in range(backbones)})
    for kind in (*KINDS, None):
        found = [(int(query), int(key)) for query, key in graph.relations(kind)]
        assert sorted(found) == sorted(complete([1] * backbones, kind).edges)


# Places


@given(graphs, st.data())
def test_a_vertex_and_its_place_are_told_from_each_other(graph: PatchGraph, data: st.DataObject) -> None:
    vertex = data.draw(st.integers(0, graph.num_vertices - 1))
    patch = graph.locate(vertex)
    assert graph.vertex(*patch) == graph.vertex(patch.backbone, patch.row, patch.column) == vertex
    assert graph.slices[patch.backbone].start <= vertex < graph.slices[patch.backbone].stop


def test_vertices_are_numbered_backbone_by_backbone_and_row_by_row() -> None:
    graph = PatchGraph(SHAPES)
    assert [tuple(graph.locate(vertex)) for vertex in range(graph.num_vertices)] == PLACES
    assert [graph.vertex(*place) for place in PLACES] == list(range(len(PLACES)))
    assert [own.stop - own.start for own in graph.slices.values()] == SIZES == list(graph.sizes.values())


def test_what_there_is_of_each_vertex_is_taken_apart_by_backbone() -> None:
    graph = PatchGraph(SHAPES)
    parts = graph.split(torch.arange(2 * graph.num_vertices).view(2, -1), dim=1)
    assert list(parts) == list(SHAPES)
    assert [part[0].tolist() for part in parts.values()] == [list(range(6)), list(range(6, 11)), list(range(11, 18))]
    with pytest.raises(RuntimeError, match="split"):
        graph.split(torch.zeros(graph.num_vertices + 1), dim=0)


def test_boxes_and_centres_are_those_of_the_grids() -> None:
    grids = [FeatureGrid(name, torch.zeros(2, 3, *SHAPES[name]), FIELDS[name]) for name in SHAPES]
    boxes, centres = torch.cat([grid.boxes for grid in grids]), torch.cat([grid.centres for grid in grids])
    for graph in (PatchGraph(SHAPES, FIELDS), PatchGraph.of(grids), PatchGraph.of(GridSet(grids))):
        assert dict(graph.shapes) == SHAPES
        assert torch.equal(graph.boxes, boxes)
        assert torch.equal(graph.centres, centres)
        assert [graph.box(vertex) for vertex in range(graph.num_vertices)] == [
            (*box,) for box in boxes.tolist()
        ]
    assert PatchGraph({"lite": (1, 2)}).boxes.tolist() == [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, None])
def test_neighbours_are_those_of_networkx(kind: Kind | None, self_loops: bool) -> None:
    graph = PatchGraph(SHAPES)
    expected = complete(SIZES, kind, self_loops=self_loops)
    for vertex in range(graph.num_vertices):
        found = graph.neighbours(vertex, kind, self_loops=self_loops)
        assert found.tolist() == sorted(expected.neighbors(vertex))


def test_a_lone_backbone_has_no_cross_edges() -> None:
    graph = PatchGraph({"lite": (2, 3)})
    assert graph.num_edges("cross") == 0
    assert list(graph.relations("cross")) == []
    assert graph.neighbours(4, "cross").tolist() == []


# Leaving out backbones


def test_a_graph_without_a_backbone_equals_one_that_never_had_it() -> None:
    whole = PatchGraph(SHAPES, FIELDS)
    for gone in SHAPES:
        kept = [name for name in SHAPES if name != gone]
        never = PatchGraph({name: SHAPES[name] for name in kept}, {name: FIELDS[name] for name in kept})
        without = whole.without(gone)
        assert without.names == never.names
        assert without.slices == never.slices
        assert torch.equal(without.boxes, never.boxes)
        assert repr(without) == repr(never)
        assert nx.utils.graphs_equal(without.to_networkx(), never.to_networkx())
    assert whole.without("vit", "lite").names == ("cnn",)
    assert whole.names == tuple(SHAPES)  # the whole graph is as it was


def test_leaving_out_all_backbones_or_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes: got no backbone; expected at least one"):
        PatchGraph(SHAPES).without(*SHAPES)
    with pytest.raises(
        ValueError, match="backbone: got 'vti'; the graph has lite, vit, cnn; use one of them"
    ):
        PatchGraph(SHAPES).without("vti")


# For networkx


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("backbones", range(1, 9))
def test_networkx_gets_the_graph_that_it_would_build(backbones: int, self_loops: bool) -> None:
    shapes = {str(m): (1 + m % 2, 1 + m % 3) for m in range(backbones)}
    graph = PatchGraph(shapes).to_networkx(self_loops=self_loops)
    expected = complete([h * w for h, w in shapes.values()], None, self_loops=self_loops)
    assert set(graph.edges) == set(expected.edges)
    assert set(graph.nodes) == set(expected.nodes)
    assert "kept" not in graph.graph


def test_vertices_and_edges_carry_what_they_are() -> None:
    patches = PatchGraph(SHAPES, FIELDS)
    graph = patches.to_networkx()
    for vertex, (backbone, row, column) in enumerate(PLACES):
        box = tuple(patches.boxes[vertex].tolist())
        assert graph.nodes[vertex] == {"backbone": backbone, "row": row, "column": column, "box": box}
    for query, key, edge in graph.edges(data=True):
        relation = (PLACES[query][0], PLACES[key][0])
        kind = "intra" if relation[0] == relation[1] else "cross"
        assert edge == {"relation": relation, "kind": kind}


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize(("layer", "head", "picture"), [(0, None, 0), (1, None, 2), (1, 3, 1)])
def test_edges_carry_the_weights_from_query_to_key(
    layer: int, head: int | None, picture: int, self_loops: bool
) -> None:
    patches = PatchGraph(SHAPES)
    attention = made_up(patches)
    chosen = attention.dense[layer, picture]
    dense = chosen.mean(dim=0) if head is None else chosen[head]
    graph = patches.to_networkx(attention, layer=layer, head=head, picture=picture, self_loops=self_loops)
    found = torch.from_numpy(nx.to_numpy_array(graph, nodelist=range(len(PLACES)))).float()
    expected = dense if self_loops else dense.clone().fill_diagonal_(0)
    assert torch.equal(found, expected)
    intra = expected[torch.block_diag(*(torch.ones(size, size) for size in SIZES)).bool()].sum()
    assert graph.graph["kept"]["intra"] == pytest.approx(float(intra) / len(PLACES), abs=1e-6)
    assert graph.graph["kept"]["cross"] == pytest.approx(1, abs=1e-6)
    assert (graph.graph["kept"]["intra"] < 0.99) != self_loops


@pytest.mark.parametrize("top", [1, 17, 10_000])
def test_the_strongest_edges_of_each_kind_are_kept_and_their_mass_told(top: int) -> None:
    patches = PatchGraph(SHAPES)
    dense = made_up(patches).dense[0, 0].mean(dim=0)
    graph = patches.to_networkx(made_up(patches), top=top)
    for kind in KINDS:
        every = {edge: float(dense[edge]) for edge in complete(SIZES, kind).edges}
        strongest = sorted(every, key=every.__getitem__, reverse=True)[:top]
        kept = {(i, j): edge["weight"] for i, j, edge in graph.edges(data=True) if edge["kind"] == kind}
        assert kept == {edge: every[edge] for edge in strongest}
        assert graph.graph["kept"][kind] == pytest.approx(sum(kept.values()) / len(PLACES), abs=1e-6)
        assert (graph.graph["kept"][kind] < 0.99) == (top < len(every))
    assert set(graph.nodes) == set(range(len(PLACES)))  # vertices stay, whatever edges they lose


def test_a_lone_backbone_loses_no_cross_mass() -> None:
    patches = PatchGraph({"lite": (2, 3)})
    graph = patches.to_networkx(made_up(patches), top=5)
    assert graph.number_of_edges() == 5
    assert graph.graph["kept"]["cross"] == 1
    assert 0 < graph.graph["kept"]["intra"] < 1


@pytest.mark.parametrize(("kind", "missing"), [("intra", "cross"), ("cross", "intra")])
def test_a_kind_that_the_model_lacks_has_no_edges(kind: str, missing: str) -> None:
    patches = PatchGraph({"lite": (2, 3), "vit": (1, 5)})
    graph = patches.to_networkx(dataclasses.replace(made_up(patches), kinds=(kind,)))
    assert {data["kind"] for _, _, data in graph.edges(data=True)} == {kind}
    assert graph.graph["kept"] == {kind: pytest.approx(1), missing: 1}


def test_pagerank_runs_on_captured_attention() -> None:
    """The vertex that attention flows to, against the stationary state solved as a linear system."""
    patches = PatchGraph(SHAPES)
    torch.manual_seed(0)
    layers = nn.ModuleList([kind(tuple(SHAPES), 12, 3) for kind in (IntraAttention, CrossAttention)])
    angles = RotaryPositions(4)(patches.centres)
    with capture(layers) as attention:
        for layer in layers:
            layer(3 * torch.randn(2, patches.num_vertices, 12), patches, angles)
    assert isinstance(attention, AttentionWeights)
    graph = patches.to_networkx(attention, picture=1)
    assert graph.graph["kept"] == {kind: pytest.approx(1, abs=1e-5) for kind in KINDS}

    ranks = nx.pagerank(graph, alpha=0.85, tol=1e-12, max_iter=500)
    flow = nx.to_numpy_array(graph, nodelist=range(len(PLACES)))
    flow /= flow.sum(axis=1, keepdims=True)
    n = len(PLACES)
    expected = np.linalg.solve(np.eye(n) - 0.85 * flow.T, np.full(n, 0.15 / n))
    np.testing.assert_allclose([ranks[vertex] for vertex in range(n)], expected, atol=1e-8)
    assert np.ptp(expected) > 1e-3  # not uniform: the weights had their say


# Errors


@pytest.mark.parametrize("place", [("lite", 2, 0), ("lite", -1, 0), ("lite", 0, 3), ("lite", 0, -1)])
def test_a_place_outside_the_grid_is_named(place: tuple[str, int, int]) -> None:
    with pytest.raises(
        ValueError, match=r"row, column: got .* 'lite' is 2 × 3, so rows run from 0 to 1 and col"
    ):
        PatchGraph(SHAPES).vertex(*place)


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="backbone: got 'vti'; the graph has lite, vit, cnn"):
        PatchGraph(SHAPES).vertex("vti", 0, 0)


@pytest.mark.parametrize("vertex", [-1, sum(SIZES)])
def test_a_number_that_is_no_vertex_is_named(vertex: int) -> None:
    graph = PatchGraph(SHAPES)
    for ask in (graph.locate, graph.box, graph.neighbours):
        with pytest.raises(ValueError, match=f"vertex: got {vertex}; expected 0 to {sum(SIZES) - 1}"):
            ask(vertex)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (-1, 2), (2,), (2, 3, 5)])
def test_a_grid_without_patches_is_named(shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(
        ValueError, match=r"shapes: backbone 'vit' has \(.*\); expected \(rows, columns\), each 1"
    ):
        PatchGraph({"lite": (2, 3), "vit": shape})


def test_an_unknown_kind_is_named(unchecked: None) -> None:
    graph = PatchGraph(SHAPES)
    for ask in (
        graph.num_edges,
        lambda kind: list(graph.relations(kind)),
        lambda kind: graph.neighbours(0, kind),
    ):
        with pytest.raises(ValueError, match="kind: got 'self'; expected 'intra', 'cross' or None for both"):
            ask("self")


@pytest.mark.parametrize("top", [0, -1, 3])
def test_the_strongest_edges_need_weights_and_a_number(top: int) -> None:
    graph = PatchGraph(SHAPES)
    with pytest.raises(ValueError, match=f"top: got {top}; expected 1 or more, together with attention="):
        graph.to_networkx(None if top > 0 else made_up(graph), top=top)
