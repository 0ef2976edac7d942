"""Attention over the patches of several backbones is what others compute on masks and on explicit edges."""

import copy
import math
from collections.abc import Sequence

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grafeat.attention.capturing import capture
from grafeat.attention.layers import (
    Angles,
    CrossAttention,
    IntraAttention,
    PatchAttention,
    RotaryPositions,
    rotate,
)
from grafeat.graph import PatchGraph

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
NAMES = tuple(SHAPES)
GRAPH = PatchGraph(SHAPES)
N = GRAPH.num_vertices
B, HEADS, K = 11, 3, 14  # pictures, heads, channels of a head
WIDTH = HEADS * K
LAYERS = (IntraAttention, CrossAttention)
Layer = type[IntraAttention] | type[CrossAttention]


pytestmark = pytest.mark.usefixtures("seeded_on_one_thread")


def states(n: int = N, width: int = WIDTH) -> Tensor:
    return torch.randn(B, n, width)


def turning(graph: PatchGraph = GRAPH, head_width: int = K) -> Angles:
    return RotaryPositions(head_width)(graph.centres)


def still(graph: PatchGraph = GRAPH, head_width: int = K) -> Angles:
    """The angles of a rotary whose frequencies are zero: nothing turns."""
    rotary = RotaryPositions(head_width)
    nn.init.zeros_(rotary.frequencies)
    return rotary(graph.centres)


class Heard(nn.Module):
    """In the place of the update MLP: hands on the message as it is."""

    def all(self, states: Tensor, graph: PatchGraph) -> Tensor:
        return states.chunk(2, dim=-1)[1]


def heard(
    layer: PatchAttention, x: Tensor, graph: PatchGraph = GRAPH, angles: Angles | None = None
) -> Tensor:
    """The messages (b, n, d) in a layer's forward pass, without rotation by default."""
    bare = copy.deepcopy(layer)
    bare.update = Heard()
    with torch.no_grad():
        return bare(x, graph, still(graph, x.shape[-1] // layer.heads) if angles is None else angles) - x


def parts(projection: nn.Linear) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Weights and biases of queries, keys and values."""
    return projection.weight.detach().chunk(3), projection.bias.detach().chunk(3)


def others(name: str, graph: PatchGraph = GRAPH) -> Tensor:
    return graph.neighbours(graph.slices[name].start, "cross")


def oracle(projection: nn.Linear, width: int = WIDTH, heads: int = HEADS) -> nn.MultiheadAttention:
    """torch's own attention with the same projections, and none at the output."""
    attention = nn.MultiheadAttention(width, heads, batch_first=True)
    attention.in_proj_weight.data.copy_(projection.weight)
    attention.in_proj_bias.data.copy_(projection.bias)
    nn.init.eye_(attention.out_proj.weight)
    nn.init.zeros_(attention.out_proj.bias)
    return attention.requires_grad_(False)


def balance_bias(keys: Tensor, graph: PatchGraph = GRAPH) -> Tensor:
    return torch.tensor([-math.log(graph.sizes[graph.locate(key).backbone]) for key in keys.tolist()])


def close(found: Tensor, expected: Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


# Against torch's own attention


@pytest.mark.parametrize("shared", [True, False])
def test_intra_attention_is_multihead_attention_on_each_grid(shared: bool) -> None:
    x, layer = states(), IntraAttention(NAMES, WIDTH, HEADS, shared=shared)
    with capture(layer) as attention:
        layer(x, GRAPH, still())
    messages = heard(layer, x)
    for m, (name, own) in enumerate(GRAPH.slices.items()):
        patches = x[:, own]
        expected, weights = oracle(layer.project.layers[0 if shared else m])(
            patches, patches, patches, average_attn_weights=False
        )
        close(messages[:, own], expected)
        close(attention.intra(name, 0).flatten(4).flatten(2, 3), weights)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("balance", [True, False])
def test_cross_attention_is_multihead_attention_on_all_other_grids(balance: bool, shared: bool) -> None:
    x, layer = states(), CrossAttention(NAMES, WIDTH, HEADS, shared=shared, balance=balance)
    with capture(layer) as attention:
        layer(x, GRAPH, still())
    messages = heard(layer, x)
    for m, (name, own) in enumerate(GRAPH.slices.items()):
        keys = others(name)
        mask = balance_bias(keys).expand(GRAPH.sizes[name], -1) if balance else None
        mine = oracle(layer.project.layers[0 if shared else m])
        if not shared:  # keys and values come from their own backbone's projection
            mine, projected = oracle(unprojected()), own_projections(layer, x)
            inputs = (projected[0][:, own], projected[1][:, keys], projected[2][:, keys])
        else:
            inputs = (x[:, own], x[:, keys], x[:, keys])
        expected, weights = mine(*inputs, attn_mask=mask, average_attn_weights=False)
        close(messages[:, own], expected)
        found = [attention.cross(name, key, 0).flatten(4).flatten(2, 3) for key in NAMES if key != name]
        close(torch.cat(found, dim=-1), weights)


def unprojected() -> nn.Linear:
    """Projections that leave queries, keys and values as they are."""
    projection = nn.Linear(WIDTH, 3 * WIDTH)
    projection.weight.data.copy_(torch.eye(WIDTH).repeat(3, 1))
    nn.init.zeros_(projection.bias)
    return projection


def own_projections(layer: PatchAttention, x: Tensor) -> Sequence[Tensor]:
    """Queries, keys and values (b, n, d), each vertex by its own backbone's projection."""
    with torch.no_grad():
        each = [layer.project.layers[m](x[:, own]) for m, own in enumerate(GRAPH.slices.values())]
    return torch.cat(each, dim=1).chunk(3, dim=-1)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_weights_shown_are_those_that_the_fused_pass_used(kind: Layer) -> None:
    """With a unit vector as the value of each patch (V = I), a message *is* the row of weights."""
    x, layer = states(), kind(NAMES, 2 * HEADS * N, HEADS)
    with torch.no_grad():
        layer.project.layers[0].weight.mul_(4)  # sharp rows
        value = layer.project.layers[0].weight.chunk(3)[2].view(HEADS, 2 * N, -1)
        value.zero_()[:, range(N), range(N)] = 1
        layer.project.layers[0].bias.chunk(3)[2].zero_()
    x = torch.cat([torch.eye(N).expand(B, N, N), states(width=2 * HEADS * N - N)], dim=-1)
    angles = turning(head_width=2 * N)
    used = heard(layer, x, angles=angles).unflatten(-1, (HEADS, 2 * N)).transpose(1, 2)  # (b, heads, n, 2 n)
    with capture(layer) as attention:
        layer(x, GRAPH, angles)
    for query, key in GRAPH.relations(layer.kind):
        rows, columns = GRAPH.slices[query], GRAPH.slices[key]
        close(dense(attention, query, key), used[:, :, rows, columns], atol=1e-6)
    assert used.amax(dim=-1).mean() > 2 / N  # far from uniform


def dense(attention: object, query: str, key: str, layer: int = 0) -> Tensor:
    """Captured weights (b, heads, patches of query, patches of key)."""
    blocks = attention.intra(query, layer) if query == key else attention.cross(query, key, layer)
    return blocks.flatten(4).flatten(2, 3)


# With rotation, against a plain loop


def plain_weights(
    layer: PatchAttention, x: Tensor, frequencies: Tensor, graph: PatchGraph, kind: str
) -> Tensor:
    """Weights (b, heads, n, n) by one softmax a row over masked logits; pairs of channels turn by matrices."""
    (weight_q, weight_k, _), (bias_q, bias_k, _) = parts(layer.project.layers[0])
    turned = []
    for projected in (x @ weight_q.T + bias_q, x @ weight_k.T + bias_k):
        pairs = projected.view(*x.shape[:2], layer.heads, -1, 2)
        angle = (graph.centres.double() @ frequencies.double()).float()
        rows = [angle.cos(), -angle.sin(), angle.sin(), angle.cos()]
        matrices = torch.stack(rows, dim=-1).unflatten(-1, (2, 2))  # (n, k / 2, 2, 2)
        turned.append(torch.einsum("npij,bnhpj->bnhpi", matrices, pairs).flatten(3))
    weights = torch.zeros(len(x), layer.heads, graph.num_vertices, graph.num_vertices)
    for i in range(graph.num_vertices):
        keys = graph.neighbours(i, kind)
        logits = (turned[0][:, i, None] * turned[1][:, keys]).sum(dim=-1) / math.sqrt(K)
        if kind == "cross":
            logits = logits + balance_bias(keys, graph)[:, None]
        weights[:, :, i, keys] = logits.softmax(dim=1).transpose(1, 2)
    return weights


@pytest.mark.parametrize("kind", LAYERS)
def test_rotated_weights_are_those_of_a_plain_loop(kind: Layer) -> None:
    x, layer, rotary = states(), kind(NAMES, WIDTH, HEADS), RotaryPositions(K)
    with capture(layer) as attention:
        layer(x, GRAPH, rotary(GRAPH.centres))
    expected = plain_weights(layer, x, rotary.frequencies.detach(), GRAPH, layer.kind)
    for query, key in GRAPH.relations(layer.kind):
        close(dense(attention, query, key), expected[:, :, GRAPH.slices[query], GRAPH.slices[key]], atol=5e-6)


# Against message passing on explicit edges


def edges_to(name: str, graph: PatchGraph, *, balance: bool) -> Tensor:
    """Edges (2, edges), sender first, into one backbone's patches from all others, by networkx.

    An edge repeated r times weighs r times in the softmax: with r inverse to the size of the sender's grid, plain
    message passing is balanced without any bias.
    """
    backbones = list(graph.sizes.values())
    least = math.lcm(*backbones)
    own = graph.slices[name]
    edges = [
        (sender, receiver)
        for receiver, sender in nx.complete_multipartite_graph(*backbones).to_directed().edges
        if own.start <= receiver < own.stop
        for _ in range(least // graph.sizes[graph.locate(sender).backbone] if balance else 1)
    ]
    return torch.tensor(edges).T


@pytest.mark.parametrize("balance", [True, False])
def test_a_cross_layer_passes_the_messages_of_transformer_conv(balance: bool) -> None:
    from torch_geometric.nn import TransformerConv

    x, layer = states()[:2].double(), CrossAttention(NAMES, WIDTH, HEADS, balance=balance).double()
    conv = TransformerConv(WIDTH, K, heads=HEADS, root_weight=False).requires_grad_(False).double()
    linears = (conv.lin_query, conv.lin_key, conv.lin_value)
    for linear, weight, bias in zip(linears, *parts(layer.project.layers[0]), strict=True):
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    edges = torch.cat([edges_to(name, GRAPH, balance=balance) for name in NAMES], dim=1)
    expected = torch.stack([conv(picture, edges) for picture in x])
    close(heard(layer, x), expected, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("balance", [True, False])
def test_gates_and_own_layers_pass_the_messages_of_hgt_conv(balance: bool, shared: bool) -> None:
    """Heterogeneous: projections by backbone, and a transformation of the values by relation."""
    from torch_geometric.nn import HGTConv

    x = states()[:2].double()
    layer = CrossAttention(NAMES, WIDTH, HEADS, shared=shared, balance=balance).double()
    nn.init.uniform_(layer.relation, 0.5, 1.5)
    relations = [(key, "to", query) for query, key in layer.relations]
    conv = HGTConv(WIDTH, WIDTH, (list(NAMES), relations), heads=HEADS).requires_grad_(False).double()
    for m, name in enumerate(NAMES):
        (q, k, v), (q0, k0, v0) = parts(layer.project.layers[0 if shared else m])
        conv.kqv_lin.lins[name].weight.copy_(torch.cat([k, q, v]))
        conv.kqv_lin.lins[name].bias.copy_(torch.cat([k0, q0, v0]))
        nn.init.eye_(conv.out_lin.lins[name].weight)
        nn.init.zeros_(conv.out_lin.lins[name].bias)
        conv.skip[name].fill_(torch.inf)  # the output takes nothing from the input
    conv.k_rel.weight.copy_(torch.eye(K).expand_as(conv.k_rel.weight))
    gates = layer.relation.detach().repeat(HEADS).view(-1, 1, 1)  # PyG numbers head by head, then relations
    conv.v_rel.weight.copy_(gates * torch.eye(K))
    edges = {}
    for query in NAMES:
        into = edges_to(query, GRAPH, balance=balance)
        for key in (name for name in NAMES if name != query):
            start, stop = GRAPH.slices[key].start, GRAPH.slices[key].stop
            chosen = into[:, (into[0] >= start) & (into[0] < stop)]
            edges[key, "to", query] = chosen - torch.tensor([[start], [GRAPH.slices[query].start]])
    messages = heard(layer, x)
    for picture, message in zip(x, messages, strict=True):
        found = conv({name: picture[own] for name, own in GRAPH.slices.items()}, edges)
        for name, own in GRAPH.slices.items():
            close(F.gelu(message[own]), found[name], atol=1e-12)  # HGTConv ends in a GELU


# By hand


def worked(kind: Layer) -> tuple[PatchAttention, Tensor, PatchGraph, Angles]:
    """Two backbones, each with a left and a right patch, at x = 1/4 and 3/4.

    Every query is (1, 0) and every key (√2 ln 3, 0). One frequency, π a picture side: the patches turn by −π/4 and
    π/4. So a query meets a key at its own place under 0° (logit ln 3, after the division by √2) and the other one
    under 90° (logit 0): weights 3/4 and 1/4. The values are the states: 4 and 8 on one grid, 20 and 40 on the other.
    """
    graph = PatchGraph({"lite": (1, 2), "vit": (1, 2)})
    layer = kind(graph.names, 2, 1)
    with torch.no_grad():
        layer.project.layers[0].weight.copy_(torch.cat([torch.zeros(4, 2), torch.eye(2)]))
        layer.project.layers[0].bias.copy_(torch.tensor([1, 0, math.sqrt(2) * math.log(3), 0, 0, 0]))
    rotary = RotaryPositions(2)
    rotary.frequencies.data = torch.tensor([[math.pi], [0.0]])
    x = torch.tensor([4.0, 8.0, 20.0, 40.0])[None, :, None] * torch.tensor([1.0, -1.0])
    return layer, x, graph, rotary(graph.centres)


@pytest.mark.parametrize(
    ("kind", "expected"), [(IntraAttention, [5, 7, 25, 35]), (CrossAttention, [25, 35, 5, 7])]
)
def test_two_backbones_of_two_patches_by_hand(kind: Layer, expected: list[int]) -> None:
    layer, x, graph, angles = worked(kind)
    close(heard(layer, x, graph, angles), torch.tensor(expected)[None, :, None] * torch.tensor([1.0, -1.0]))
    with torch.no_grad(), capture(layer) as attention:
        layer(x, graph, angles)
        layer.relation.copy_(torch.tensor([0.5, 2.0]))
    gates = torch.tensor([0.5, 0.5, 2, 2])[
        :, None
    ]  # a relation is the receiver's: what `lite` receives is halved
    close(heard(layer, x, graph, angles)[0, :, :1], torch.tensor(expected)[:, None] * gates)
    close(
        dense(attention, "lite", "lite" if kind is IntraAttention else "vit")[0, 0], torch.eye(2) / 2 + 0.25
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_compiler_is_given_the_same_turn_without_complex_numbers(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    angles, turned = RotaryPositions(K)(GRAPH.centres), states().unflatten(-1, (HEADS, K)).transpose(1, 2).to(dtype)
    expected = rotate(turned, angles)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.delattr(torch, "complex")
    found = rotate(turned, angles)
    assert found.dtype == dtype
    close(found, expected)


# Rows sum to 1


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=8), st.booleans())
def test_rows_sum_to_one_over_the_own_grid_and_over_all_others(
    shapes: list[tuple[int, int]], balance: bool
) -> None:
    graph = PatchGraph({str(m): shape for m, shape in enumerate(shapes)})
    layers = nn.ModuleList(
        [IntraAttention(graph.names, 12, 3), CrossAttention(graph.names, 12, 3, balance=balance)]
    )
    x = 5 * torch.randn(2, graph.num_vertices, 12)
    with torch.no_grad(), capture(layers) as attention:
        for layer in layers:
            layer(x, graph, turning(graph, 4))
    for name, size in graph.sizes.items():
        ones = torch.ones(2, 3, size)
        intra = dense(attention, name, name)
        cross = [dense(attention, name, other) for other in graph.names if other != name]
        close(intra.sum(dim=-1), ones)
        close(torch.cat(cross, dim=-1).sum(dim=-1), ones)
        assert min(block.min() for block in (intra, *cross)) >= 0


def test_equal_logits_give_equal_mass_to_grids_of_any_size() -> None:
    """196 uninformative patches beside 49: without balance the finer grid takes four fifths."""
    graph = PatchGraph({"fine": (14, 14), "coarse": (7, 7), "asks": (1, 1)})
    for balance, fine in ((True, 0.5), (False, 0.8)):
        layer = CrossAttention(graph.names, 2, 1, balance=balance)
        with torch.no_grad():
            layer.project.layers[0].weight.copy_(torch.cat([torch.zeros(4, 2), torch.eye(2)]))
            nn.init.zeros_(layer.project.layers[0].bias)
        x = torch.zeros(1, graph.num_vertices, 2)
        x[:, graph.slices["fine"], 0] = 1
        x[:, graph.slices["coarse"], 1] = 1
        with capture(layer) as attention:
            layer(x, graph, turning(graph, 2))
        mass = [dense(attention, "asks", key).sum() for key in ("fine", "coarse")]
        close(torch.stack(mass), torch.tensor([fine, 1 - fine]))
        close(heard(layer, x, graph)[0, -1], torch.tensor([fine, 1 - fine]))  # the message used the same


def test_balance_changes_nothing_between_grids_of_one_size() -> None:
    graph = PatchGraph({"lite": (2, 3), "vit": (6, 1), "cnn": (3, 2)})
    x, layer = states(graph.num_vertices), CrossAttention(NAMES, WIDTH, HEADS)
    plain = copy.deepcopy(layer)
    plain.balance = False
    assert torch.equal(heard(layer, x, graph), heard(plain, x, graph))


# Order, and backbones that are not there


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_order_of_backbones_does_not_matter(kind: Layer, shared: bool) -> None:
    x, layer, rotary = states(), kind(NAMES, WIDTH, HEADS, shared=shared), RotaryPositions(K)
    nn.init.uniform_(layer.relation, 0.5, 1.5)
    turned = PatchGraph({name: SHAPES[name] for name in ("cnn", "lite", "vit")})
    moved = torch.cat([x[:, GRAPH.slices[name]] for name in turned.names], dim=1)
    found = layer(moved, turned, rotary(turned.centres))
    expected = layer(x, GRAPH, rotary(GRAPH.centres))
    for name in NAMES:
        close(found[:, turned.slices[name]], expected[:, GRAPH.slices[name]])


@pytest.mark.parametrize("kind", LAYERS)
def test_the_order_of_vertices_does_not_matter(kind: Layer) -> None:
    x, layer, rotary = states(), kind(NAMES, WIDTH, HEADS), RotaryPositions(K)
    order = torch.cat([own.start + torch.randperm(own.stop - own.start) for own in GRAPH.slices.values()])
    found = layer(x[:, order], GRAPH, rotary(GRAPH.centres[order]))
    close(found, layer(x, GRAPH, rotary(GRAPH.centres))[:, order])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_backbone_left_out_equals_one_never_built(kind: Layer, shared: bool) -> None:
    layer, kept = kind(NAMES, WIDTH, HEADS, shared=shared), ("lite", "cnn")
    nn.init.uniform_(layer.relation, 0.5, 1.5)
    never = kind(kept, WIDTH, HEADS, shared=shared)
    with torch.no_grad():
        for block, source in ((never.project, layer.project), (never.update, layer.update)):
            for m, own in enumerate(block.layers):
                own.load_state_dict(source.layers[0 if shared else NAMES.index(kept[m])].state_dict())
        for number, relation in enumerate(never.relations):
            never.relation[number] = layer.relation[layer.relations.index(relation)]
    graph = GRAPH.without("vit")
    x, angles = states(graph.num_vertices), turning(graph)
    assert torch.equal(layer(x, graph, angles), never(x, graph, angles))


@pytest.mark.parametrize(
    "layer", [CrossAttention(NAMES, WIDTH, HEADS), CrossAttention(("lite",), WIDTH, HEADS)]
)
def test_a_lone_backbone_hears_nothing_in_a_cross_layer(layer: CrossAttention) -> None:
    graph = PatchGraph({"lite": (2, 3)})
    x = states(graph.num_vertices)
    assert torch.count_nonzero(heard(layer, x, graph)) == 0
    alone = x + layer.update.layers[0](torch.cat([x, torch.zeros_like(x)], dim=-1))
    assert torch.equal(layer(x, graph, turning(graph)), alone)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_update_is_the_one_of_superglue_with_layer_norm(kind: Layer) -> None:
    x, layer = states(), kind(NAMES, WIDTH, HEADS)
    inner, norm, _, last = layer.update.layers[0]
    hidden = F.linear(torch.cat([x, heard(layer, x)], dim=-1), inner.weight, inner.bias)
    hidden = F.gelu(F.layer_norm(hidden, [2 * WIDTH], norm.weight, norm.bias))
    found = layer(x, GRAPH, still())
    close(found, x + F.linear(hidden, last.weight, last.bias))
    close(layer(x[3:5], GRAPH, still()), found[3:5])  # BatchNorm would make pictures depend on each other


def test_dropped_messages_leave_those_pictures_alone() -> None:
    x, layer = states(), CrossAttention(NAMES, WIDTH, HEADS)
    keep = (torch.arange(B) % 3 != 0).float().view(B, 1, 1)
    found, whole = layer(x, GRAPH, still(), keep), layer(x, GRAPH, still())
    deaf = x + layer.update.layers[0](torch.cat([x, torch.zeros_like(x)], dim=-1))
    close(found, torch.where(keep.bool(), whole, deaf))
    assert (whole - deaf).abs().max() > 0.01


def test_a_layer_without_gain_starts_as_the_identity() -> None:
    for kind in LAYERS:
        x = states()
        assert torch.equal(kind(NAMES, WIDTH, HEADS, gain=0.0)(x, GRAPH, turning()), x)
        assert not torch.equal(kind(NAMES, WIDTH, HEADS)(x, GRAPH, turning()), x)


def test_a_gate_acts_on_its_relation_alone() -> None:
    """What one backbone hears of another goes; what the other hears of it, and all else, stays."""
    x, layer = states(), CrossAttention(NAMES, WIDTH, HEADS)
    before = heard(layer, x)
    layer.relation.data[layer.relations.index(("lite", "vit"))] = 0
    after = heard(layer, x)
    assert torch.equal(before[:, GRAPH.slices["vit"]], after[:, GRAPH.slices["vit"]])
    assert torch.equal(before[:, GRAPH.slices["cnn"]], after[:, GRAPH.slices["cnn"]])
    with capture(layer) as attention:
        layer(x, GRAPH, still())
    value = layer.project.layers[0](x).chunk(3, dim=-1)[2].unflatten(-1, (HEADS, K)).transpose(1, 2)
    only_cnn = dense(attention, "lite", "cnn") @ value[:, :, GRAPH.slices["cnn"]].detach()
    close(after[:, GRAPH.slices["lite"]], only_cnn.transpose(1, 2).flatten(2))


# Places

places = st.tuples(st.floats(0, 1), st.floats(0, 1))


@given(places, places, places)
def test_products_depend_on_differences_of_places_alone(
    first: tuple[float, float], second: tuple[float, float], shift: tuple[float, float]
) -> None:
    torch.manual_seed(1)
    rotary, (q, k) = RotaryPositions(K), torch.randn(2, 1, K)
    here, there, moved = (torch.tensor([place]) for place in (first, second, shift))

    def product(at_q: Tensor, at_k: Tensor) -> Tensor:
        return (rotate(q, rotary(at_q)) * rotate(k, rotary(at_k))).sum()

    close(product(here + moved, there + moved), product(here, there), atol=1e-4)
    close(product(here, here), (q * k).sum(), atol=1e-4)
    close(rotate(q, rotary(here)).norm(), q.norm(), atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_moving_all_grids_together_changes_nothing_and_moving_one_changes_cross_weights(kind: Layer) -> None:
    x, layer, rotary = states(), kind(NAMES, WIDTH, HEADS), RotaryPositions(K)
    corner, elsewhere = (0.0, 0.0, 0.5, 0.5), (0.5, 0.25, 1.0, 0.75)
    fields = [dict.fromkeys(NAMES, corner), dict.fromkeys(NAMES, elsewhere)]
    fields.append({**fields[0], "lite": elsewhere})
    here, moved, one_moved = (
        heard(layer, x, angles=rotary(PatchGraph(SHAPES, field).centres)) for field in fields
    )
    close(here, moved, atol=2e-5)
    changed = (here - one_moved).abs().amax() > 1e-2
    assert changed == (kind is CrossAttention)


def test_patches_of_different_grids_can_match_places() -> None:
    """With equal states everywhere, only places tell patches apart: each query looks where it is."""
    graph = PatchGraph({"fine": (5, 5), "coarse": (3, 3)})
    layer, rotary = CrossAttention(graph.names, 22, 1), RotaryPositions(22, spread=3.0)
    with torch.no_grad():
        projection = layer.project.layers[0]
        projection.weight.zero_()
        projection.bias.copy_(torch.cat([torch.full((44,), 2.0), torch.zeros(22)]))
    with capture(layer) as attention:
        layer(torch.zeros(1, graph.num_vertices, 22), graph, rotary(graph.centres))
    weights = dense(attention, "coarse", "fine")[0, 0]
    nearest = torch.cdist(graph.centres[graph.slices["coarse"]], graph.centres[graph.slices["fine"]])
    assert torch.equal(weights.argmax(dim=-1), nearest.argmin(dim=-1))


def test_mixed_precision_does_not_round_the_places() -> None:
    rotary, centres = RotaryPositions(K, spread=30.0), torch.rand(N, 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = rotary(centres)
    assert all(map(torch.equal, rounded, rotary(centres)))


# Gradients


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
@pytest.mark.parametrize("kind", LAYERS)
def test_every_parameter_receives_gradient(kind: Layer, names: tuple[str, ...], shared: bool) -> None:
    """Every relation embedding above all: as a bias on logits it would get none where it is alone in its softmax."""
    graph = PatchGraph({name: SHAPES[name] for name in names})
    layer, rotary = kind(names, WIDTH, HEADS, shared=shared), RotaryPositions(K)
    out = layer(states(graph.num_vertices), graph, rotary(graph.centres))
    (out * torch.randn_like(out)).sum().backward()
    assert len(layer.relation) == len(names) if kind is IntraAttention else len(names) * (len(names) - 1)
    assert (layer.relation.grad.abs() > 1e-3).all()
    for name, parameter in (*layer.named_parameters(), *rotary.named_parameters()):
        assert parameter.grad.abs().amax() > 1e-3, name


def test_an_intra_layer_of_one_backbone_gives_its_relation_gradient() -> None:
    graph = PatchGraph({"lite": (2, 3)})
    layer = IntraAttention(graph.names, WIDTH, HEADS)
    layer(states(graph.num_vertices), graph, still(graph)).sum().backward()
    assert layer.relation.grad.abs().min() > 1e-3


# Errors


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="width: got 13 for 3 heads; expected a multiple"):
        IntraAttention(NAMES, 13, 3)
    for odd in (5, 0):
        with pytest.raises(ValueError, match=f"head_width: got {odd}; expected an even number"):
            RotaryPositions(odd)


def test_a_graph_that_does_not_fit_the_layer_or_the_states_is_refused() -> None:
    for kind in LAYERS:
        layer = kind(NAMES, WIDTH, HEADS)
        strange = PatchGraph({"lite": (2, 3), "vti": (1, 5)})
        with pytest.raises(
            ValueError, match="graph: has backbone 'vti', but this layer knows lite, vit, cnn"
        ):
            layer(states(strange.num_vertices), strange, still(strange))
        with pytest.raises(
            ValueError, match=r"x: got 17 vertices, shape \(11, 17, 42\); expected \(b, 18, d\)"
        ):
            layer(states(N - 1), GRAPH, still())
