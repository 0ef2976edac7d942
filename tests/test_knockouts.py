"""Knocked-out edges leave no trace: no weight, no gradient; and knocking nothing out changes nothing."""

import pytest
import torch
from torch import Tensor

import grafeat as gf
from grafeat.explanations.knockouts import KnockOut, knock_out, knocked_logits
from grafeat.explanations.rollout import attention_layers
from grafeat.graph import PatchGraph
from grafeat.readout import READOUTS

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
NAMES = tuple(SHAPES)
HEADS, DEPTH, B = 3, 2, 5


def grids() -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = [torch.randn(B, 4, *shape, generator=generator, dtype=torch.float64) for shape in SHAPES.values()]
    return gf.GridSet([gf.FeatureGrid(name, features) for name, features in zip(NAMES, listed, strict=True)])


def built(readout: str = "each") -> gf.GraFeatMerge:
    """A model in float64 whose messages matter."""
    model = gf.GraFeatMerge.for_grids(grids(), num_classes=3, width=12, heads=HEADS, depth=DEPTH, readout=readout)
    with torch.no_grad():
        for layer in attention_layers(model):
            layer.update.layers[0][-1].weight *= 10
    return model.double()


GRAPH = PatchGraph.of(grids())


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("readout", READOUTS)
def test_knocking_nothing_out_changes_nothing(readout: str) -> None:
    model = built(readout)
    before = model(grids()).logits
    with knock_out(model, [], GRAPH):
        same(model(grids()).logits, before)
    same(model(grids()).logits, before)


def test_the_explicit_pass_is_the_fused_one() -> None:
    """Attention that is computed without the fused pass, and knocks nothing out, gives the same logits."""
    model = built()
    before = model(grids()).logits
    for layer in attention_layers(model):
        layer.attend = lambda _, logits: logits.softmax(dim=-1)
    same(model(grids()).logits, before)


@pytest.mark.parametrize("readout", READOUTS)
def test_all_cross_edges_out_is_a_model_whose_cross_messages_are_dropped(readout: str) -> None:
    model = built(readout)
    with knock_out(model, KnockOut("cross"), GRAPH):
        found = model(grids()).logits
    for layer in attention_layers(model):
        if layer.kind == "cross":
            layer.relation.data.zero_()  # the gate closed: every message is zero
    same(found, model(grids()).logits)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_backbone_whose_every_patch_is_out_was_never_there(readout: str) -> None:
    """Edges and readout edges: what is left is the graph without it, and no gradient reaches it."""
    model = built(readout)
    seen = {grid.name: grid.features.clone().requires_grad_() for grid in grids().grids}
    own = range(*GRAPH.slices["vit"].indices(99))
    with knock_out(model, tuple(KnockOut(patch=GRAPH.locate(vertex)) for vertex in own), GRAPH):
        found = model([gf.FeatureGrid(name, features) for name, features in seen.items()]).logits
    same(found, model(grids(), without={"vit"}).logits)
    found.square().sum().backward()
    assert seen["vit"].grad.abs().max() == 0
    assert seen["cnn"].grad.abs().max() > 0


@pytest.mark.parametrize(
    "one",
    [
        KnockOut("intra", layer=1),
        KnockOut("cross", head=2),
        KnockOut("cross", query="lite", key="cnn"),
        KnockOut(query=("vit", 0, 3), key=("lite", 1, 2), layer=0, head=1),
        KnockOut(patch=("cnn", 6, 0)),
    ],
    ids=str,
)
def test_weights_are_those_of_a_softmax_without_the_edges(one: KnockOut) -> None:
    """By hand, from the queries and keys: masked with −∞ before the softmax, zero where a row has none left."""
    model, found = built(), {}
    with knock_out(model, one, GRAPH):
        for number, layer in enumerate(attention_layers(model)):  # all intra layers, then all cross layers
            inner = layer.attend or (lambda _, logits: logits.softmax(dim=-1))
            layer.attend = lambda name, logits, inner=inner, at=(layer.kind, number % DEPTH): found.setdefault(
                (*at, name), (logits, inner(name, logits))
            )[1]
        model(grids())
    every = torch.arange(GRAPH.num_vertices)
    for (kind, number, name), (logits, weights) in found.items():
        own = GRAPH.slices[name]
        inside = (every >= own.start) & (every < own.stop)
        out = one.edges(GRAPH, kind, number, HEADS)[:, own][..., inside if kind == "intra" else ~inside]
        odds = logits.exp() * ~out
        same(weights, odds / odds.sum(dim=-1, keepdim=True).clamp(min=1e-300))


def test_each_picture_of_a_batch_has_its_own() -> None:
    model = built()
    many = [KnockOut("cross"), KnockOut(patch=("vit", 0, 0)), KnockOut("intra", layer=0)] + [KnockOut(head=1)] * 2
    with knock_out(model, many, GRAPH):
        together = model(grids()).logits
    for picture, one in enumerate(many):
        with knock_out(model, one, GRAPH):
            same(model(grids()[picture]).logits[0], together[picture])


def test_many_on_one_picture_in_batches() -> None:
    model, seen = built(), grids()[3]
    patches = [KnockOut(patch=GRAPH.locate(vertex)) for vertex in range(7)]
    same(knocked_logits(model, seen, patches, batch_size=3), knocked_logits(model, seen, patches, batch_size=7))
    assert knocked_logits(model, seen, []).shape == (0, 3)
    with pytest.raises(ValueError, match="grids: got 5 pictures; expected one"):
        knocked_logits(model, grids(), patches)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (KnockOut(layer=2), "layer: got 2; expected 0 to 1"),
        (KnockOut(head=3), "head: got 3; expected 0 to 2"),
        (KnockOut("cross", query="vit", key=("vit", 0, 3)), "got 'vit' and 'vit' for cross edges, of which there"),
        (KnockOut("intra", query="vit", key="cnn"), "got 'vit' and 'cnn' for intra edges, of which there"),
        (KnockOut(query="resnet"), "query, key: got 'resnet'"),
        (KnockOut(patch=("vit", 0, 5)), "row, column"),
        (tuple(KnockOut(patch=GRAPH.locate(vertex)) for vertex in range(18)), "every patch is out"),
    ],
    ids=lambda part: str(part)[:30],
)
def test_what_is_not_there_is_refused_and_the_model_left_as_it_was(one: KnockOut, text: str) -> None:
    model = built()
    before = model(grids()).logits
    with pytest.raises(ValueError, match=text), knock_out(model, one, GRAPH):
        model(grids())
    same(model(grids()).logits, before)


@pytest.mark.usefixtures("unchecked")
def test_knockouts_say_what_they_are() -> None:
    assert str(KnockOut("cross", query="vit", key=("cnn", 6, 0), layer=1)) == "cross edges vit → cnn (6, 0), layer 1"
    assert str(KnockOut()) == "all edges"
    assert str(KnockOut(patch=("vit", 0, 3))) == "patch vit (0, 3)"
    with pytest.raises(ValueError, match=r"patch: got .* together with edges"):
        KnockOut("cross", patch=("vit", 0, 3))
    with pytest.raises(ValueError, match="kind: got 'self'"):
        KnockOut("self")  # type: ignore[arg-type]


@pytest.mark.parametrize("two", [[KnockOut("cross"), KnockOut("intra")], [KnockOut(unread=("vit", 0, 2))] * 2])
def test_as_many_as_pictures_are_needed(two: list[KnockOut]) -> None:
    model = built()
    for seen in (grids(), grids()[:1]):
        wrong = pytest.raises(ValueError, match=f"knockouts: got 2 for {len(seen)} pictures")
        with wrong, knock_out(model, two, GRAPH):
            model(seen)


def test_a_kind_of_edge_that_the_model_has_not_is_refused() -> None:
    """Even a head that none of its layers has: else it would seem that these edges do not matter."""
    model = gf.GraFeatMerge.for_grids(grids(), num_classes=3, width=12, heads=HEADS, cross=False).double()
    with pytest.raises(ValueError, match=r"kind: got 'cross'; this model has intra edges; expected one of these"):
        knocked_logits(model, grids()[:1], [KnockOut("cross")])
    with pytest.raises(ValueError, match=r"head: got 99; expected 0 to 2"):
        knocked_logits(model, grids()[:1], [KnockOut("intra", head=99)])


@pytest.mark.parametrize("readout", READOUTS)
def test_who_is_left_alone_by_knock_outs_is_as_alone_as_without_the_others(readout: str) -> None:
    """In one picture all patches of two of the three are out: nothing is asked of the interplay there."""
    model, seen = built(readout), grids()
    out = [tuple(KnockOut(patch=GRAPH.locate(v)) for v in range(18) if v not in range(6)), (KnockOut("cross", head=0),)]
    with knock_out(model, [out[0], out[1], out[1], out[1], out[1]], GRAPH):
        found = model(seen).logits
    same(found[:1], model(seen, without={"vit", "cnn"}).logits[:1])
    with knock_out(model, out[1], GRAPH):
        same(found[1:], model(seen).logits[1:])


def test_a_patch_that_is_not_read_is_still_attended_to() -> None:
    model = built()
    before = model(grids(), states=True)
    with knock_out(model, KnockOut(unread=("vit", 0, 2)), GRAPH):
        after = model(grids(), states=True)
    assert not after.reading["vit"][:, :, 0, 2].any()
    for name in NAMES:
        same(after.states[-1][name], before.states[-1][name])
    whole = sum(reading.sum(dim=(2, 3)) for reading in after.reading.values())
    same(whole, torch.ones_like(whole))


def test_a_patch_out_is_its_edges_and_its_reading_out_together() -> None:
    model, patch = built(), ("cnn", 3, 0)
    with knock_out(model, KnockOut(patch=patch), GRAPH):
        expected = model(grids()).logits
    with knock_out(model, (KnockOut(key=patch), KnockOut(unread=patch)), GRAPH):
        same(model(grids()).logits, expected)


def test_what_is_not_read_goes_with_no_edges() -> None:
    with pytest.raises(ValueError, match=r"unread: got \('vit', 0, 2\) together with edges; expected it alone"):
        KnockOut("cross", unread=("vit", 0, 2))
    assert str(KnockOut(unread=("vit", 0, 2))) == "reading of vit (0, 2)"


def test_edges_are_out_of_the_graph_in_which_they_were_named() -> None:
    """Grids of one shape in another order would lose other edges than those that were named."""
    given = [torch.randn(B, 4, 2, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in range(3)]
    alike = gf.GridSet([gf.FeatureGrid(name, features) for name, features in zip("abc", given, strict=True)])
    model = gf.GraFeatMerge.for_grids(alike, num_classes=3, width=12, heads=HEADS, depth=1).double().eval()
    words = "graph: has the patches of a 2 × 3, c 2 × 3, b 2 × 3; the pass has those of a 2 × 3, b 2 × 3, c 2 × 3"
    with knock_out(model, KnockOut("cross", query="a", key="b"), PatchGraph.of(alike.only("a", "c", "b"))):
        for inputs in (alike, list(alike.grids)):
            with pytest.raises(ValueError, match=words):
                model(inputs)
        model(alike.only("a", "c", "b"))
    model(alike)  # checked no longer
