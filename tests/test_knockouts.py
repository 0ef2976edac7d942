"""Knocked-out edges leave no trace: no weight, no gradient; and knocking nothing out changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import grafeat as gf
from grafeat.attention.joint import JointAttention
from grafeat.attention.layers import attention_layers
from grafeat.explanations.knockouts import KnockOut, knock_out, knocked_logits
from grafeat.explanations.rollout import kept_weights
from grafeat.graph import PatchGraph
from grafeat.plain import PlainModel
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


@contextmanager
def kept_logits(model: gf.GraFeatMerge) -> Iterator[list[dict[str, Tensor]]]:
    """What each layer's softmax takes, by backbone, with all edges."""
    layers = attention_layers(model)
    found: list[dict[str, Tensor]] = [{} for _ in layers]
    for layer, kept in zip(layers, found, strict=True):
        layer.recorder = lambda q, k, graph, layer=layer, kept=kept: kept.update(
            {name: layer.logits(q, k, graph, name) for name in graph.names}
        )
    try:
        yield found
    finally:
        for layer in layers:
            layer.recorder = None


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


def is_out(one: KnockOut, kind: str, layer: int, head: int, i: int, j: int) -> bool:
    """Whether an edge i → j is out, by what the docstring says of each attribute."""
    if one.patch is not None:
        return GRAPH.locate(j) == one.patch
    ends = (one.query, GRAPH.locate(i)), (one.key, GRAPH.locate(j))
    return (
        one.unread is None
        and one.kind in (None, kind)
        and one.layer in (None, layer)
        and one.head in (None, head)
        and all(end in (None, patch, patch.backbone) for end, patch in ends)
    )


@pytest.mark.parametrize(
    "one",
    [
        KnockOut(),
        KnockOut("intra", layer=1),
        KnockOut("cross", head=2),
        KnockOut("cross", query="lite", key="cnn"),
        KnockOut(query=("vit", 0, 3)),
        KnockOut(key=("vit", 0, 3), head=0),
        KnockOut(query=("vit", 0, 3), key=("lite", 1, 2), layer=0, head=1),
        KnockOut(patch=("cnn", 6, 0)),
        KnockOut(unread=("cnn", 6, 0)),
    ],
    ids=str,
)
def test_weights_are_those_of_a_softmax_without_the_edges(one: KnockOut) -> None:
    """By hand, edge by edge, from the queries and keys; zero where a row has none left."""
    model = built()
    with knock_out(model, one, GRAPH), kept_logits(model) as seen, kept_weights(model) as kept:
        model(grids())
    for number, (logits, layer) in enumerate(zip(seen, kept, strict=True)):  # all intra layers, then all cross layers
        for name, weights in layer.weights.items():
            every, own = range(GRAPH.num_vertices), range(*GRAPH.slices[name].indices(99))
            keys = [j for j in every if (j in own) == (layer.kind == "intra")]
            out = torch.tensor(
                [[[is_out(one, layer.kind, number % DEPTH, h, i, j) for j in keys] for i in own] for h in range(HEADS)]
            )
            odds = logits[name].exp() * ~out
            same(weights, odds / odds.sum(dim=-1, keepdim=True).clamp(min=1e-300))


@pytest.mark.parametrize("kind", ["intra", "cross"])
@pytest.mark.parametrize(
    ("one", "shape"),
    [
        (KnockOut(patch=("vit", 0, 3)), (1, 1)),
        (KnockOut(key="cnn"), (1, 1)),
        (KnockOut(query="vit", head=1), (HEADS, 1)),
        (KnockOut(query=("vit", 0, 3), key=("cnn", 2, 0)), (1, 5)),
        (KnockOut(query="lite"), (1, 1)),
    ],
    ids=str,
)
def test_masks_are_as_small_as_the_knock_outs_allow(kind: str, one: KnockOut, shape: tuple[int, int]) -> None:
    """Rows that lose the same are one: else a hundred knock-outs of a large graph would not fit into memory."""
    assert one.edges(GRAPH, "vit", kind, 0, HEADS).shape[:2] == shape


@torch.no_grad()
def test_the_fused_pass_goes_without_the_edges_as_explicit_weights_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for rows with no edge left, where some graphs carry a bias, and with one knock-out for each picture."""
    model, lone = built(), tuple(KnockOut("cross", query=("cnn", 2, 0), key=name) for name in ("lite", "vit"))
    many = [lone, KnockOut("cross"), KnockOut("intra", head=1), KnockOut(patch=("vit", 0, 0)), KnockOut(key="lite")]
    calls, fused = [], F.scaled_dot_product_attention

    def counted(*given: Tensor, **more: Tensor) -> Tensor:
        calls.append(len(given))
        return fused(*given, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    with knock_out(model, many, GRAPH):
        found = model(grids()).logits
        assert len(calls) == 2 * DEPTH * len(NAMES)  # each of them
        with kept_weights(model):  # which needs them, and so leaves the fused pass
            expected = model(grids()).logits
    same(found, expected)


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


@pytest.mark.parametrize("one", [KnockOut("cross", head=0), KnockOut(patch=("cnn", 3, 0))], ids=str)
def test_edges_to_a_backbone_that_is_left_out_of_the_pass_are_refused(one: KnockOut) -> None:
    model = built()
    words = "graph: 'lite' attended to 12 patches where edges were knocked out; in this pass to 7; expected the same"
    with knock_out(model, one, GRAPH):
        with pytest.raises(ValueError, match=words):
            model(grids(), without={"vit"})
        with pytest.raises(ValueError, match=words), kept_weights(model):
            model(grids(), without={"vit"})
        model(grids())
    with knock_out(model, KnockOut("intra"), GRAPH):
        found = model(grids(), without={"vit"}).logits
    with knock_out(model, KnockOut("intra"), GRAPH.without("vit")):
        same(found, model(grids().only("lite", "cnn")).logits)


def test_as_many_as_pictures_are_needed_also_where_features_come_alone() -> None:
    """A plain model takes features instead of grids; a batch of another size must not take its place."""
    model, one = built(), grids()[:1]
    plain = PlainModel(model, one)
    for out in (KnockOut("cross"), KnockOut(unread=("vit", 0, 2))):
        with knock_out(model, [out] * 2, GRAPH), pytest.raises(ValueError, match="knockouts: got 2 for 1 pictures"):
            plain(*(grid.features for grid in one.grids))


def test_knock_outs_within_knock_outs_are_refused() -> None:
    model = built()
    before = model(grids()).logits
    for outer in (KnockOut(patch=("cnn", 3, 0)), KnockOut(unread=("cnn", 3, 0)), KnockOut("cross", layer=1)):
        with knock_out(model, outer, GRAPH):
            with pytest.raises(ValueError, match="edges are knocked out already; expected none for 'knock_out'"):
                knocked_logits(model, grids()[:1], [KnockOut("cross", head=0)])
            inside = model(grids()).logits
        with knock_out(model, outer, GRAPH):
            same(model(grids()).logits, inside)
    same(model(grids()).logits, before)


def test_rows_that_lose_the_rest_to_dropped_messages_hear_nothing() -> None:
    """A joint layer whose cross edges are dropped in training, and whose intra edges are out, has no edge left."""
    layer = JointAttention(NAMES, 12, HEADS).double()
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, B, HEADS, GRAPH.num_vertices, 4, generator=generator, dtype=torch.float64)
    q, k, v = (GRAPH.split(part, dim=2) for part in states)
    keep = torch.tensor([0.0, 1, 0, 1, 1], dtype=torch.float64)[:, None, None]
    layer.knocked = {name: KnockOut("intra").edges(GRAPH, name, "joint", 0, HEADS)[None] for name in NAMES}
    fused = layer.messages(q, k, v, GRAPH, keep)
    layer.attend = layer.softmax
    explicit = layer.messages(q, k, v, GRAPH, keep)
    for name in NAMES:
        same(fused[name], explicit[name])
        assert [bool(one.any()) for one in fused[name]] == [False, True, False, True, True]
