"""The transformer over all patches and its class token are torch's; what is captured lies on the one grid."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grafeat.attention.capturing import capture
from grafeat.attention.rotary import Angles
from grafeat.explanations.knockouts import KnockOut, knock_out, knocked_logits
from grafeat.fusion import Combo, Concat
from grafeat.fusion.combo import ClassToken, TransformerLayer
from grafeat.graph import Patch, PatchGraph
from grafeat.grids import FeatureGrid, GridSet

SHAPES = {"lite": (13, 6, 3), "vit": (5, 2, 3), "cnn": (7, 2, 9)}  # channels, rows, columns
NAMES = tuple(SHAPES)
B, T, WIDTH, HEADS, HIDDEN = 11, 3, 8, 2, 17
GRAPH = PatchGraph(dict.fromkeys(NAMES, (2, 3)))
N = GRAPH.num_vertices

pytestmark = pytest.mark.usefixtures("seeded_on_one_thread")


def grid(name: str, shape: tuple[int, int, int]) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = [grid(name, shape) for name, shape in SHAPES.items()]


def built(**options: int) -> Combo:
    shaped = {"width": WIDTH, "components": 5, "heads": HEADS, "hidden": HIDDEN, **options}
    model = Combo.for_grids(GridSet(GRIDS, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]), num_classes=T, **shaped)
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.mul_(1.5)  # messages that matter
    return model


def still(graph: PatchGraph = GRAPH) -> Angles:
    return Angles(torch.zeros(graph.num_vertices, 0), torch.zeros(graph.num_vertices, 0))


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)


def test_a_layer_is_torchs_pre_norm_transformer_layer() -> None:
    layer = TransformerLayer(NAMES, WIDTH, HEADS, hidden=HIDDEN)
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).requires_grad_(False)
    theirs.self_attn.in_proj_weight.copy_(layer.project.layers[0].weight)
    theirs.self_attn.in_proj_bias.zero_()
    theirs.self_attn.out_proj.load_state_dict(layer.out.state_dict())
    theirs.norm1.load_state_dict(layer.before.state_dict())
    theirs.norm2.load_state_dict(layer.after.state_dict())
    theirs.linear1.load_state_dict(layer.update.layers[0][0].state_dict())
    theirs.linear2.load_state_dict(layer.update.layers[0][2].state_dict())
    x = torch.randn(B, N, WIDTH)
    close(layer(x, GRAPH, still()), theirs(x))


def test_the_class_token_is_torchs_attention() -> None:
    token = ClassToken(WIDTH, HEADS, hidden=HIDDEN)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    theirs.in_proj_weight.copy_(torch.cat([token.query.weight, token.key.weight, token.value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([token.query.bias, torch.zeros(WIDTH), token.value.bias]))
    theirs.out_proj.load_state_dict(token.out.state_dict())
    x = torch.randn(B, N, WIDTH)
    states, query = token.norm(x), token.token.expand(B, 1, -1)
    message, expected = theirs(query, states, states, average_attn_weights=False)
    after = (query + message)[:, 0]
    vector, weights = token(x, GRAPH)
    close(weights, expected[:, :, 0])
    close(vector, token.last(after + token.mlp(token.after(after))))


def test_the_vertices_by_hand() -> None:
    """A score times the projected mean of what a patch covers, plus the backbone's embedding, plus the place."""
    model = built()
    with torch.no_grad():
        model.scores.copy_(torch.tensor([2.0, -1.0, 0.5]))
    first = model(GRIDS, states=True).states[0]
    means = F.avg_pool2d(GRIDS[0].features, (3, 1)), GRIDS[1].features, F.avg_pool2d(GRIDS[2].features, (1, 3))
    for m, (name, mean) in enumerate(zip(NAMES, means, strict=True)):
        without = first[name].flatten(2).mT - model.scores[m] * model.projections[m](mean) - model.types[m]
        close(without, without[:1].expand_as(without))  # the place is the same for all pictures
        assert (without.std(dim=1) > 1e-3).all()


def test_a_score_of_zero_silences_a_backbones_features() -> None:
    model = built()
    other = [GRIDS[0], FeatureGrid("vit", GRIDS[1].features.flip(0)), GRIDS[2]]
    assert not torch.allclose(model(other).logits, model(GRIDS).logits, atol=1e-4)
    with torch.no_grad():
        model.scores[1] = 0
    close(model(other).logits, model(GRIDS).logits)


def test_it_knows_places_which_concatenation_does_not() -> None:
    model, concat = built(), Concat.for_grids(GridSet(GRIDS), num_classes=T)
    moved = [FeatureGrid("lite", GRIDS[0].features.flip(2)), *GRIDS[1:]]
    assert not torch.allclose(model(moved).logits, model(GRIDS).logits, atol=1e-4)
    close(concat(moved).logits, concat(GRIDS).logits)


def test_what_is_captured_lies_on_the_one_grid() -> None:
    model = built()
    with capture(model) as attention:
        out = model(GRIDS)
    assert attention.graph.shapes == dict.fromkeys(NAMES, (2, 3))
    assert attention.joint and attention.layers("intra") == attention.layers("cross") == 2
    close(attention.dense(layer=1, head=1, picture=3).sum(dim=1), torch.ones(N))
    assert {name: tuple(state.shape) for name, state in out.vertices.items()} == dict.fromkeys(NAMES, (B, WIDTH, 2, 3))
    assert {name: tuple(state.shape) for name, state in out.reading.items()} == dict.fromkeys(NAMES, (B, HEADS, 2, 3))


def test_the_output_for_resampled_grids_is_the_same() -> None:
    model, grids = built(), GridSet(GRIDS, [0] * B, classes=["cat", "dog"])
    resampled = model.on_patches(grids)
    assert [grid.shape for grid in resampled.grids] == [(2, 3)] * 3
    assert torch.equal(resampled.labels, grids.labels) and resampled.classes == ("cat", "dog")
    close(model(resampled).logits, model(grids).logits)
    assert model.on_patches(resampled) is resampled
    assert model.patches(grids).shapes == dict.fromkeys(NAMES, (2, 3))


@torch.no_grad()
def test_a_patch_knocked_out_is_neither_attended_to_nor_read() -> None:
    """Against the definition: its key masked in every layer, and in the class token's softmax."""
    model, out = built(), GRAPH.vertex("vit", 1, 2)
    one = GridSet(GRIDS)[3:4]
    before = [layer.attend for layer in model.layers]

    def masked(name: str, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., out] = -torch.inf
        return logits.softmax(dim=-1)

    def unread(name: str, logits: Tensor) -> Tensor:
        logits = logits.clone()
        if name == "vit":
            logits[:, out - GRAPH.slices["vit"].start] = -torch.inf
        return logits

    for layer in model.layers:
        layer.attend = masked
    model.readout.without = unread
    expected = model(one)
    for layer, attend in zip(model.layers, before, strict=True):
        layer.attend = attend
    model.readout.without = None
    found = knocked_logits(model, one, [KnockOut(patch=Patch("vit", 1, 2))])
    close(found, expected.logits)
    assert float(expected.reading["vit"][0, :, 1, 2].abs().max()) == 0
    assert not torch.allclose(found, model(one).logits, atol=1e-4)


def test_knocking_out_all_edges_of_a_kind_leaves_the_others_their_softmax() -> None:
    model, one = built(depth=1), GridSet(GRIDS)[5:6]
    alone = {}
    for name in NAMES:
        x = model(one.only(name), states=True).states[1][name]
        alone[name] = x
    with knock_out(model, KnockOut("cross"), model.patches(one)):
        out = model(one, states=True).states[1]
    for name in NAMES:
        close(out[name], alone[name])


def test_knock_outs_follow_the_order_in_which_grids_come() -> None:
    model = built()
    one, other = GridSet(GRIDS)[3:4], GridSet(GRIDS[::-1])[3:4]
    knocked = [
        KnockOut(patch=Patch("lite", 0, 2)), KnockOut("cross", query="vit", key="cnn"), KnockOut("intra", layer=1)
    ]  # fmt: skip
    close(knocked_logits(model, one, knocked), knocked_logits(model, other, knocked))


def test_a_left_out_backbone_has_no_patches() -> None:
    model = built()
    with capture(model) as attention:
        out = model(GRIDS, without={"lite"})
    assert attention.graph.names == ("vit", "cnn")
    x = torch.cat([model(GRIDS, states=True).states[0][name].flatten(2).mT for name in ("vit", "cnn")], dim=1)
    graph = PatchGraph(dict.fromkeys(("vit", "cnn"), (2, 3)))
    for layer in model.layers:
        x = layer(x, graph, still(graph))
    close(out.vector, model.readout(x, graph)[0])


def test_it_says_how_it_is_made() -> None:
    assert "larger grids are resampled to 2 × 3, 2 layers of 2 heads, width 8, MLP 17" in repr(built())
