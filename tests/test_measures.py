"""Measures agree with networkx and with brute force, and find what was hidden in made-up attention."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest
import torch
from torch import Tensor, nn

import grafeat as gf
from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.attention.layers import Angles, CrossAttention, IntraAttention, RotaryPositions
from grafeat.graph import Kind, Patch, PatchGraph
from grafeat.measures import (
    Communities,
    Route,
    annotate,
    communities,
    pagerank,
    strongest_paths,
    write_graphml,
)
from grafeat.measures.centrality import _ranks

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
N = 18


def captured(shapes: dict[str, tuple[int, int]] = SHAPES, layers: int = 2) -> CapturedAttention:
    """Attention of random layers, three heads, for two pictures."""
    torch.manual_seed(0)
    graph = PatchGraph(shapes)
    steps = nn.ModuleList(
        kind(tuple(shapes), 12, 3) for _ in range(layers) for kind in (IntraAttention, CrossAttention)
    )
    with capture(steps) as attention:
        for step in steps:
            step(3 * torch.randn(2, graph.num_vertices, 12), graph, RotaryPositions(4)(graph.centres))
    return attention


def with_logits(
    shapes: dict[str, tuple[int, int]], *layers: Tensor, alternating: bool = True
) -> CapturedAttention:
    """Real layers whose logits (n, n) are these: each vertex has a channel of its own, and the keys are set.

    An intra and a cross layer for each; where they do not alternate, all intra layers come first.
    """
    graph = PatchGraph(shapes)
    n = graph.num_vertices
    width = n + n % 2
    angles = Angles(torch.ones(n, width // 2), torch.zeros(n, width // 2))
    kinds, each = (IntraAttention, CrossAttention), range(len(layers))
    passed = [(kind, layer) for layer in each for kind in kinds]
    if not alternating:
        passed.sort(key=lambda one: kinds.index(one[0]))
    steps = nn.ModuleList(kind(tuple(shapes), width, 1) for kind, _ in passed)
    with torch.no_grad(), capture(steps) as attention:
        for step, (_, layer) in zip(steps, passed, strict=True):
            linear = step.project.layers[0]
            linear.weight.zero_(), linear.bias.zero_()
            linear.weight[:width] = math.sqrt(width) * torch.eye(width)
            linear.weight[width : width + n, :n] = layers[layer]
            step(torch.eye(n, width)[None], graph, angles)
    return attention


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([own.flatten() for own in values.values()])


def test_made_up_logits_are_those_of_the_weights() -> None:
    logits = torch.randn(5, 5)
    attention = with_logits({"a": (1, 2), "b": (3, 1)}, logits)
    expected = torch.cat([logits[:2, :2].softmax(dim=-1), logits[:2, 2:].softmax(dim=-1)], dim=1)
    torch.testing.assert_close(attention.dense(layer=0)[:2], expected)


# PageRank


@pytest.mark.parametrize(("layer", "head", "picture"), [(0, None, 0), (1, None, 1), (1, 2, 1)])
@pytest.mark.parametrize("damping", [0.0, 0.5, 0.85, 0.99])
def test_pagerank_is_that_of_networkx(layer: int, head: int | None, picture: int, damping: float) -> None:
    attention = captured()
    found = pagerank(attention, layer=layer, head=head, picture=picture, damping=damping)
    graph = attention.graph.to_networkx(attention, layer=layer, head=head, picture=picture)
    expected = nx.pagerank(graph, alpha=damping, weight="weight", tol=1e-13, max_iter=5000)
    assert {name: tuple(own.shape) for name, own in found.items()} == SHAPES
    torch.testing.assert_close(
        flat(found), torch.tensor([expected[v] for v in range(N)], dtype=torch.float64), atol=1e-8, rtol=0
    )
    assert float(flat(found).sum()) == pytest.approx(1, abs=1e-12)
    assert (float(flat(found).max() - flat(found).min()) > 1e-3) == (damping > 0)


@pytest.mark.parametrize("kind", ["intra", "cross"])
def test_pagerank_along_one_kind(kind: Kind) -> None:
    attention = captured()
    graph = attention.graph.to_networkx(attention)
    graph.remove_edges_from([(i, j) for i, j, data in graph.edges(data=True) if data["kind"] != kind])
    expected = nx.pagerank(graph, tol=1e-13, max_iter=500)
    found = flat(pagerank(attention, layer=0, kinds=(kind,)))
    torch.testing.assert_close(
        found, torch.tensor([expected[v] for v in range(N)], dtype=torch.float64), atol=1e-8, rtol=0
    )


def test_pagerank_by_hand() -> None:
    """All patches attend to the first: on it a walker is after each step that follows attention, so 0.85 + 0.15 / 3."""
    logits = torch.zeros(3, 3)
    logits[:, 0] = 60
    found = pagerank(with_logits({"a": (1, 3)}, logits), layer=0)
    torch.testing.assert_close(found["a"], torch.tensor([[0.9, 0.05, 0.05]], dtype=torch.float64))


# Communities


def two_groups(generator: torch.Generator, strength: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits of the graph of `GROUPED`, higher inside each of two groups; and the groups (n,)."""
    groups = torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0])
    noise = torch.randn(17, 17, generator=generator)
    return strength * (groups[:, None] == groups[None, :]) + 0.3 * noise, groups


GROUPED = {"wide": (2, 5), "tall": (7, 1)}


def test_two_communities_across_two_backbones_are_found() -> None:
    logits, groups = two_groups(torch.Generator().manual_seed(0))
    attention = with_logits(GROUPED, logits)
    found = communities(attention, layer=0)
    assert {name: tuple(own.shape) for name, own in found.labels.items()} == GROUPED
    assert flat(found.labels).tolist() == (1 - groups).tolist()  # group 1 is the larger: number 0
    assert (len(found), found.sizes) == (2, [10, 7])
    assert repr(found).splitlines()[0].startswith("Communities: 2 of 17 patches, modularity 0.")
    assert "  0: 10  (5 wide, 5 tall)" in repr(found)


@pytest.mark.parametrize("strongest", [1, 3, 100])
def test_modularity_is_that_of_networkx_over_all_weights(strongest: int) -> None:
    attention = captured()
    found = communities(attention, layer=1, picture=1, head=2, strongest=strongest)
    weights = attention.dense(layer=1, picture=1, head=2).double()
    graph = nx.from_numpy_array((weights + weights.T).fill_diagonal_(0).numpy())
    labels = flat(found.labels)
    members = [set((labels == number).nonzero().flatten().tolist()) for number in range(len(found))]
    assert found.modularity == pytest.approx(nx.community.modularity(graph, members), abs=1e-9)
    assert found.sizes == sorted(found.sizes, reverse=True)
    assert (found.kept == pytest.approx(1)) == (strongest == 100)
    assert 0 < found.kept <= 1 + 1e-12


def test_with_all_edges_it_is_networkx_louvain() -> None:
    attention = captured({"a": (2, 3), "b": (1, 5), "c": (7, 1)})
    weights = attention.dense(layer=0).double()
    graph = nx.from_numpy_array((weights + weights.T).fill_diagonal_(0).numpy())
    expected = nx.community.louvain_communities(graph, seed=5)
    labels = flat(communities(attention, layer=0, strongest=N, seed=5).labels)
    found = {frozenset((labels == number).nonzero().flatten().tolist()) for number in labels.unique()}
    assert found == {frozenset(members) for members in expected}


def test_the_edges_sought_among_are_the_strongest_for_the_even_weight() -> None:
    """By hand: each patch's own strongest by ratio to even, whichever end chose it."""
    attention = captured()
    weights = attention.dense(layer=0).double()
    graph = attention.graph
    even = torch.empty(N, N, dtype=torch.float64)
    for query, key in graph.relations():
        even[graph.slices[query], graph.slices[key]] = attention.uniform(query, key, 0)
    joined = (weights + weights.T).fill_diagonal_(0)
    ratio = joined / (even + even.T)
    kept = set()
    for vertex in range(N):
        for kind in ("intra", "cross"):
            others = graph.neighbours(vertex, kind, self_loops=False).tolist()
            chosen = sorted(others, key=lambda other: float(ratio[vertex, other]), reverse=True)[:2]
            kept |= {frozenset((vertex, other)) for other in chosen}
    expected = 2 * sum(float(joined[min(pair), max(pair)]) for pair in kept) / float(joined.sum())
    assert communities(attention, layer=0, strongest=2).kept == pytest.approx(expected)


def test_the_order_of_backbones_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(17, 17, generator=generator) * 1.5
    turned = torch.cat([torch.arange(10, 17), torch.arange(10)])
    swapped = {name: GROUPED[name] for name in ("tall", "wide")}
    one, other = with_logits(GROUPED, logits), with_logits(swapped, logits[turned][:, turned])
    first, second = (communities(attention, layer=0, strongest=3) for attention in (one, other))
    assert len(first) > 2
    assert first.modularity == pytest.approx(second.modularity)
    ranks, reranks = pagerank(one, layer=0), pagerank(other, layer=0)
    for name in GROUPED:
        assert torch.equal(first.labels[name], second.labels[name])
        torch.testing.assert_close(ranks[name], reranks[name], atol=1e-7, rtol=0)


def test_the_same_seed_gives_the_same_communities() -> None:
    attention = captured()
    first, second = (communities(attention, layer=0, seed=7) for _ in range(2))
    assert all(torch.equal(first.labels[name], second.labels[name]) for name in SHAPES)


def test_even_attention_has_no_communities_to_speak_of() -> None:
    found = communities(with_logits({"a": (3, 5), "b": (3, 5)}, torch.zeros(30, 30)), layer=0)
    assert abs(found.modularity) < 0.03


def test_one_backbone_and_one_patch() -> None:
    found = communities(with_logits({"a": (1, 5)}, torch.randn(5, 5)), layer=0)
    assert list(found.labels) == ["a"]
    lone = communities(with_logits({"a": (1, 1)}, torch.zeros(1, 1)), layer=0)
    assert (lone.labels["a"].tolist(), lone.modularity, lone.kept) == ([[0]], 0.0, 1.0)


def test_many_communities_print_short() -> None:
    printed = repr(Communities({"a": torch.arange(11)[None]}, 0.5, 0.25))
    assert printed.splitlines()[0] == (
        "Communities: 11 of 11 patches, modularity 0.50 over all weights; sought among edges that hold 25% of them"
    )
    assert len(printed.splitlines()) == 10 and printed.endswith("and 3 smaller ones")


# On networkx graphs


def test_measures_are_put_on_the_vertices_of_a_copy() -> None:
    attention = captured()
    graph = attention.graph.to_networkx(attention, top=5)
    ranks, groups = pagerank(attention, layer=0), communities(attention, layer=0)
    marked = annotate(graph, pagerank=ranks, communities=groups)
    assert [marked.nodes[vertex]["pagerank"] for vertex in range(N)] == flat(ranks).tolist()
    assert [marked.nodes[vertex]["community"] for vertex in range(N)] == flat(groups.labels).tolist()
    assert set(marked.edges) == set(graph.edges) and marked.graph == graph.graph
    assert "pagerank" not in graph.nodes[0] and "community" not in annotate(graph, pagerank=ranks).nodes[0]


def test_measures_of_other_grids_are_refused() -> None:
    graph = PatchGraph(SHAPES).to_networkx()
    with pytest.raises(
        ValueError, match=r"pagerank: has \(3, 2\) for backbone 'lite'; the graph's grid is \(2, 3\)"
    ):
        annotate(graph, pagerank={"lite": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="community: has no values for backbone 'vit'"):
        annotate(graph, communities=Communities({"lite": torch.zeros(2, 3).long()}, 0.0, 1.0))


# Strongest paths


def brute_force(matrices: Sequence[Tensor], start: int, end: int) -> list[tuple[float, tuple[int, ...]]]:
    """Every way through the layers with its weight, strongest first; `matrices[l][i, j]` is from query i to key j."""
    ways = []
    for middle in itertools.product(range(len(matrices[0])), repeat=len(matrices) - 1):
        way = (start, *middle, end)
        hops = [float(m[j, i]) for m, (i, j) in zip(matrices, itertools.pairwise(way), strict=True)]
        ways.append((math.prod(hops), way))
    return sorted(ways, key=lambda way: -way[0])


def sublayers(attention: CapturedAttention) -> list[Tensor]:
    """Intra 0, cross 0, intra 1, …: the weights, with 1 on the diagonal for staying put."""
    sizes = attention.graph.sizes.values()
    own = torch.block_diag(*(torch.ones(size, size) for size in sizes))
    dense = [attention.dense(layer=layer).double().fill_diagonal_(0) for layer in range(attention.layers("intra"))]
    return [kind * weights + torch.eye(len(own)) for weights in dense for kind in (own, 1 - own)]


def way_of(route: Route, graph: PatchGraph, layers: int) -> tuple[int, ...]:
    """Where a route is before, between and after the layers."""
    hops = {2 * hop.layer + (hop.kind == "cross"): hop for hop in route.hops}
    way = [graph.vertex(*route.source)]
    for number in range(2 * layers):
        if number in hops:
            assert graph.vertex(*hops[number].start) == way[-1]
        way.append(graph.vertex(*hops[number].end) if number in hops else way[-1])
    return tuple(way)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (0, 4), (5, 2), (3, 3)])
@pytest.mark.parametrize("layers", [1, 2])
def test_paths_are_those_of_brute_force(layers: int, source: int, target: int) -> None:
    torch.manual_seed(0)
    logits = [2 * torch.randn(6, 6) for _ in range(layers)]
    attention = with_logits({"a": (1, 2), "b": (1, 3), "c": (1, 1)}, *logits)
    graph = attention.graph
    expected = [way for way in brute_force(sublayers(attention), source, target) if way[0] > 0][:7]
    found = strongest_paths(attention, graph.locate(source), graph.locate(target), count=7)
    assert [route.weight for route in found] == pytest.approx([weight for weight, _ in expected])
    assert [way_of(route, graph, layers) for route in found] == [way for _, way in expected]
    assert layers == 1 or max(len(route.hops) for route in found) > 1


def test_paths_are_those_of_networkx() -> None:
    """Against shortest simple paths by −log weight in the layered graph, head and picture chosen."""
    attention = captured(layers=2)
    layered = nx.DiGraph()
    for layer in range(2):
        graph = attention.graph.to_networkx(attention, layer=layer, head=1, picture=1, self_loops=False)
        for number, kind in ((2 * layer, "intra"), (2 * layer + 1, "cross")):
            for i, j, data in graph.edges(data=True):
                if data["kind"] == kind:  # i attends to j: information goes from j to i
                    layered.add_edge((number, j), (number + 1, i), cost=-math.log(data["weight"]))
            layered.add_weighted_edges_from((((number, v), (number + 1, v), 0.0) for v in range(N)), weight="cost")
    ways = nx.shortest_simple_paths(layered, (0, 2), (4, 16), weight="cost")
    expected = [tuple(vertex for _, vertex in way) for way in itertools.islice(ways, 4)]
    found = strongest_paths(attention, ("lite", 0, 2), ("cnn", 5, 0), count=4, head=1, picture=1)
    assert [way_of(route, attention.graph, 2) for route in found] == expected


def test_a_path_by_hand() -> None:
    """b attends to a₁ only, and a₁ to a₀ only: what a₀ holds reaches b by way of a₁, at almost no loss."""
    logits = torch.tensor([[0.0, 0, 0], [30, 0, 0], [0, 30, 0]])
    attention = with_logits({"a": (1, 2), "b": (1, 1)}, logits)
    (best, *_) = strongest_paths(attention, ("a", 0, 0), ("b", 0, 0))
    assert [(hop.kind, hop.layer, hop.start, hop.end) for hop in best.hops] == [
        ("intra", 0, Patch("a", 0, 0), Patch("a", 0, 1)),
        ("cross", 0, Patch("a", 0, 1), Patch("b", 0, 0)),
    ]
    assert best.weight == pytest.approx(1)
    assert repr(best) == "Route of weight 1: a (0, 0) → [intra 0: 1] → a (0, 1) → [cross 0: 1] → b (0, 0)"


def test_a_path_goes_through_the_layers_in_the_order_of_the_pass() -> None:
    """Only intra 1 and then cross 0 lead from a₀ to b: a path where intra layers come first, none if they alternate."""
    to_a1, to_b, stay = torch.zeros(3, 3), torch.zeros(3, 3), 60 * torch.eye(3)
    to_a1[1, 0] = to_b[2, 1] = 60
    first, second = stay + torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 60, 0]]), to_a1
    shapes = {"a": (1, 2), "b": (1, 1)}
    for alternating in (True, False):
        attention = with_logits(shapes, first, second, alternating=alternating)
        assert attention.order == (
            [(0, ("intra",)), (0, ("cross",)), (1, ("intra",)), (1, ("cross",))]
            if alternating
            else [(0, ("intra",)), (1, ("intra",)), (0, ("cross",)), (1, ("cross",))]
        )
        best = strongest_paths(attention, ("a", 0, 0), ("b", 0, 0), count=1)[0]
        hops = [(hop.kind, hop.layer) for hop in best.hops]
        assert (hops == [("intra", 1), ("cross", 0)]) == (not alternating)


def test_a_patch_reaches_itself_by_staying() -> None:
    best = strongest_paths(captured(), ("vit", 0, 3), ("vit", 0, 3), count=1)[0]
    assert (best.hops, best.weight, repr(best)) == ((), 1, "Route of weight 1: vit (0, 3) stays put")


def test_no_more_paths_than_there_are() -> None:
    """One layer of one backbone: a patch reaches another by the one hop."""
    attention = with_logits({"a": (1, 3)}, torch.randn(3, 3))
    (route,) = strongest_paths(attention, ("a", 0, 0), ("a", 0, 2), count=5)
    assert route.weight == pytest.approx(float(attention.dense(layer=0)[2, 0]))


# GraphML


def test_graphml_comes_back(tmp_path: Path) -> None:
    attention = captured()
    graph = annotate(
        attention.graph.to_networkx(attention, top=11),
        pagerank=pagerank(attention, layer=0),
        communities=communities(attention, layer=0),
    )
    path = write_graphml(graph, tmp_path / "new" / "graph.graphml")
    found = nx.read_graphml(path, node_type=int)
    assert found.is_directed() and set(found.edges) == set(graph.edges)
    assert found.graph.items() >= {f"kept_{kind}": graph.graph["kept"][kind] for kind in ("intra", "cross")}.items()
    for vertex, data in graph.nodes(data=True):
        corners = dict(zip(("x0", "y0", "x1", "y1"), data["box"], strict=True))
        assert found.nodes[vertex] == {**{k: v for k, v in data.items() if k != "box"}, **corners}
    for i, j, data in graph.edges(data=True):
        assert found.edges[i, j] == {**data, "relation": " → ".join(data["relation"])}
    assert isinstance(graph.nodes[0]["box"], tuple)  # the graph given stays as it is
    assert [file.name for file in path.parent.iterdir()] == ["graph.graphml"]
    keys = [key.get("id") for key in ElementTree.parse(path).getroot() if key.tag.endswith("key")]
    assert {"pagerank", "community", "weight", "x0"} <= set(keys)  # names that a reader of the file understands


def test_graphml_without_weights(tmp_path: Path) -> None:
    found = nx.read_graphml(
        write_graphml(PatchGraph({"a & <b>": (1, 2)}).to_networkx(), tmp_path / "a"), node_type=int
    )
    assert found.edges[0, 1] == {"kind": "intra", "relation": "a & <b> → a & <b>"}


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    graph = PatchGraph({"a": (1, 1)}).to_networkx()
    with pytest.raises(OSError, match=r"path: could not write .*file/graph\.graphml .*name another"):
        write_graphml(graph, tmp_path / "file" / "graph.graphml")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match=r"path: could not write .*folder"):
        write_graphml(graph, folder)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_a_graph_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_graphml(PatchGraph({"a": (1, 1)}).to_networkx(), tmp_path / "graph.graphml")
    before = path.read_bytes()
    with pytest.raises(nx.NetworkXError, match="does not support <class 'tuple'>"):
        write_graphml(nx.DiGraph(strange=(1, 2)), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# Errors


def test_nan_weights_are_said() -> None:
    logits = torch.zeros(5, 5)
    logits[3, 1] = torch.nan  # the one cross row with NaN is that of vertex 3
    attention = with_logits({"a": (1, 2), "b": (1, 3)}, logits)
    place = ("a", 0, 0)
    for measure in (
        lambda: pagerank(attention, layer=0),
        lambda: communities(attention, layer=0),
        lambda: strongest_paths(attention, place, place),
    ):
        with pytest.raises(ValueError, match=r"attention: the weights of \d of 5 patches in layer 0, picture 0"):
            measure()


def test_what_is_out_of_range_is_named(unchecked: None) -> None:
    attention, place = captured(), ("lite", 0, 0)
    for damping in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"damping: got {damping}; expected 0 or more, and less than 1"):
            pagerank(attention, layer=0, damping=damping)
    with pytest.raises(ValueError, match=r"kinds: got \('self',\); captured were intra and cross layers"):
        pagerank(attention, layer=0, kinds=("self",))
    lone = with_logits({"a": (1, 3)}, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"kinds: got \('cross',\); captured were intra layers"):
        pagerank(lone, layer=0, kinds=("cross",))
    with pytest.raises(ValueError, match="layer: got 2; captured intra layers: 0 to 1"):
        communities(attention, layer=2)
    with pytest.raises(ValueError, match="strongest: got 0; expected 1 or more"):
        communities(attention, layer=0, strongest=0)
    with pytest.raises(ValueError, match="count: got 0; expected 1 or more paths"):
        strongest_paths(attention, place, place, count=0)
    with pytest.raises(ValueError, match="row, column: got"):
        strongest_paths(attention, place, ("lite", 2, 0))
    with pytest.raises(ValueError, match="attention: nothing was captured"):
        pagerank(CapturedAttention(), layer=0)


def test_even_attention_has_a_relative_pagerank_of_one_whatever_the_grids() -> None:
    shapes = {"a": (1, 2), "b": (3, 1)}
    even = with_logits(shapes, torch.zeros(5, 5))
    plain = pagerank(even, layer=0)
    # each grid gets 0.85/2 and its share of the new starts, 0.15 n / 5
    torch.testing.assert_close(plain["a"], torch.full((1, 2), (0.425 + 0.06) / 2, dtype=torch.float64))
    torch.testing.assert_close(flat(pagerank(even, layer=0, relative=True)), torch.ones(5, dtype=torch.float64))
    uneven = with_logits(shapes, torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))
    found = flat(pagerank(uneven, layer=0, relative=True)) * flat(plain)
    torch.testing.assert_close(found, flat(pagerank(uneven, layer=0)))


def test_without_any_layer_there_is_nothing_to_measure() -> None:
    """As of a lone backbone in a model without intra layers."""
    grids = gf.GridSet([gf.FeatureGrid(name, torch.randn(1, 3, 2, 2)) for name in ("a", "b")])
    model = gf.GraFeatMerge.for_grids(grids, num_classes=2, width=8, heads=2, intra=False)
    with gf.capture(model) as attention:
        model(grids, without={"b"})
    refused = pytest.raises(ValueError, match=r"attention: no layer was captured; expected one or more; capture")
    with refused:
        pagerank(attention, layer=0)
    with refused:
        strongest_paths(attention, ("a", 0, 0), ("a", 1, 1))


def test_who_attends_to_nothing_that_is_followed_goes_anywhere() -> None:
    """Rows of zeros, as where a joint layer's cross mass is too small for a number."""
    weights = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64)
    graph = nx.from_numpy_array(weights.numpy(), create_using=nx.DiGraph)
    expected = torch.tensor(list(nx.pagerank(graph, alpha=0.85, tol=1e-12).values()), dtype=torch.float64)
    torch.testing.assert_close(_ranks(weights, 0.85), expected, atol=1e-9, rtol=0)
