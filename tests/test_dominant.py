"""The patches that decide, and the edges by which they do, against knock-outs one by one."""

from functools import cache

import pytest
import torch

import grafeat as gf
from grafeat.explanations.dominant import PREDICTION, DominantPatches, dominant
from grafeat.explanations.knockouts import KnockOut, knock_out
from grafeat.graph import PatchGraph

SHAPES = {"lite": (2, 3), "vit": (1, 5)}
N = 11


def grids(b: int = 1) -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    return gf.GridSet(
        [gf.FeatureGrid(name, torch.randn(b, 7, *shape, generator=generator)) for name, shape in SHAPES.items()],
        torch.zeros(b, dtype=torch.long),
        classes=["red", "blue", "grey"],
    )


@cache
def built(**shaped: object) -> gf.GraFeatMerge:
    model = gf.GraFeatMerge.for_grids(grids(31), num_classes=3, width=12, heads=3, depth=2, **shaped)
    with torch.no_grad():
        model.head.weight *= 30
    model.label_counts += 1
    return model.eval()


def centred(target: int, **options: object) -> float:
    logits = built()(grids(), **options).logits[0].detach()
    return float(logits[target] - logits.mean())


@cache
def found() -> DominantPatches:
    return dominant(built(), grids(), 1, count=3)


def test_they_are_the_most_relevant_of_all_backbones() -> None:
    ranked = gf.relevance(built(), grids(), 1, method="ablation").top(3)
    assert list(found()) == [patch for patch, _ in ranked] and found().values == tuple(value for _, value in ranked)
    assert found().target == "blue" and len(found()) == 3


def test_what_is_left_with_and_without_them_is_what_knock_outs_leave() -> None:
    graph = PatchGraph.of(grids())
    every = [graph.locate(vertex) for vertex in range(N)]
    assert found().full == pytest.approx(centred(1), abs=1e-5)
    for name, outs in (
        ("alone", [p for p in every if p not in found().patches]),
        ("without", list(found().patches)),
    ):
        with knock_out(built(), tuple(KnockOut(patch=patch) for patch in outs), graph):
            assert getattr(found(), name) == pytest.approx(centred(1), abs=1e-5)


def test_each_edge_is_knocked_out_by_itself() -> None:
    graph = PatchGraph.of(grids())
    assert len(found().edges) == 3 * 3  # to both others, and to the readout
    for edge in found().edges:
        out = KnockOut(unread=edge.source) if edge.end is None else KnockOut(query=edge.end, key=edge.source)
        with knock_out(built(), out, graph):
            assert edge.change == pytest.approx(centred(1) - found().full, abs=1e-5)


def test_weights_are_those_of_the_attention() -> None:
    with gf.capture(built()) as attention:
        reading = built()(grids()).reading
    for edge in found().edges:
        if edge.end is None:
            source = edge.source
            expected = reading[source.backbone][0, :, source.row, source.column].detach().mean()
        else:
            rows = [attention.row(edge.end, layer=layer)[edge.source.backbone] for layer in range(2)]
            expected = torch.stack(rows).mean(dim=0)[edge.source.row, edge.source.column]
        assert edge.weight == pytest.approx(float(expected), rel=1e-5)


def test_the_subgraph_is_a_networkx_graph_in_which_content_moves_along_edges() -> None:
    graph = found().to_networkx()
    assert set(graph) == {tuple(patch) for patch in found()} | {PREDICTION}
    first = tuple(found().patches[0])
    assert graph.nodes[first]["rank"] == 1 and graph.nodes[first]["relevance"] == found().values[0]
    assert graph.in_degree(PREDICTION) == 3 and graph.out_degree(PREDICTION) == 0
    edge = next(edge for edge in found().edges if edge.end is not None)
    assert graph.edges[tuple(edge.source), tuple(edge.end)]["change"] == edge.change
    assert graph.graph["target"] == "blue" and graph.graph["alone"] == found().alone


def test_one_line_says_it() -> None:
    patch = found().patches[0]
    said = repr(found())
    first = f"{patch.backbone} ({patch.row}, {patch.column}) {found().values[0]:+.2f}"
    assert said.startswith(f"'blue' by ablation: {first}")
    assert "\n" not in said and f"centred logit {found().full:+.2f}" in said
    frame = found().to_frame()
    assert frame.index.tolist() == [1, 2, 3] and frame.columns.tolist() == ["backbone", "row", "column", "relevance"]


@pytest.mark.parametrize(("intra", "cross"), [(True, False), (False, True), (False, False)])
def test_edges_are_of_the_kinds_that_the_model_has(intra: bool, cross: bool) -> None:
    edges = dominant(built(intra=intra, cross=cross), grids(), 0, count=7).edges
    inside = {edge.end.backbone == edge.source.backbone for edge in edges if edge.end is not None}
    assert inside == {here for here, there in ((True, intra), (False, cross)) if there}
    assert sum(edge.end is None for edge in edges) == 7
    assert all(edge.weight > 0 for edge in edges)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"grids: got 3 pictures; expected one; slice it"):
        dominant(built(), grids(3))
    with pytest.raises(ValueError, match=r"count: got 11 of 11 patches; expected 1 to 10"):
        dominant(built(), grids(), count=N)
    with pytest.raises(ValueError, match=r"method: got 'magic'"):
        dominant(built(), grids(), method="magic")


@pytest.mark.usefixtures("unchecked")
def test_a_model_without_a_patch_graph_is_refused() -> None:
    concat = gf.Concat.for_grids(grids(31), num_classes=3)
    with pytest.raises(TypeError, match=r"model: got Concat, which has no patch graph; expected GraFeatMerge"):
        dominant(concat, grids())  # type: ignore[arg-type]
