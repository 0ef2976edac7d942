"""Joint attention is one softmax over the patches of all backbones, with priors as others compute them."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from grafeat.attention.capturing import capture
from grafeat.attention.joint import JointAttention
from grafeat.attention.layers import Angles, IntraAttention, RotaryPositions
from grafeat.graph import PatchGraph

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
NAMES = tuple(SHAPES)
GRAPH = PatchGraph(SHAPES)
N = GRAPH.num_vertices
B, HEADS, K = 11, 3, 14  # pictures, heads, channels of a head
WIDTH = HEADS * K

pytestmark = pytest.mark.usefixtures("seeded_on_one_thread")


def built(*, drawn: bool = True, **options: bool) -> JointAttention:
    """A layer; its priors and relation embeddings drawn at random, unless they are to start as they do."""
    layer = JointAttention(NAMES, WIDTH, HEADS, **options)
    if drawn:
        nn.init.uniform_(layer.priors, 0.3, 3)
        nn.init.uniform_(layer.relation, 0.3, 3)
    return layer


def still(graph: PatchGraph = GRAPH) -> Angles:
    zeros = torch.zeros(graph.num_vertices, K // 2)
    return Angles(zeros.cos(), zeros)


def turning(graph: PatchGraph = GRAPH) -> Angles:
    return RotaryPositions(K)(graph.centres)


class Heard(nn.Module):
    """In the place of the update MLP: hands on the message as it is."""

    def all(self, states: Tensor, graph: PatchGraph) -> Tensor:
        return states.chunk(2, dim=-1)[1]


@torch.no_grad()
def heard(
    layer: JointAttention,
    x: Tensor,
    graph: PatchGraph = GRAPH,
    angles: Angles | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """The messages (b, n, d) of a layer's forward pass, without rotation by default."""
    bare = copy.deepcopy(layer)
    bare.update = Heard()
    return bare(x, graph, angles or still(graph), keep) - x


def close(found: Tensor, expected: Tensor, atol: float = 5e-6) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_one_softmax_by_hand() -> None:
    """Two heads alike, of one channel each: the logits are q · k times the relation's prior."""
    graph = PatchGraph({"a": (1, 1), "b": (1, 2)})
    layer = JointAttention(("a", "b"), 2, 2, balance=False)
    with torch.no_grad():
        for pair, prior, gate in ((("a", "b"), 3.0, 5.0), (("b", "a"), 0.5, 7.0)):
            layer.priors[layer.relations.index(pair)] = prior
            layer.relation[layer.relations.index(pair)] = gate
    q = {"a": torch.full((1, 2, 1, 1), 2.0), "b": torch.ones(1, 2, 2, 1)}
    k = {"a": torch.full((1, 2, 1, 1), 0.5), "b": torch.tensor([0.0, 0.25]).expand(1, 2, 2)[..., None]}
    v = {"a": torch.full((1, 2, 1, 1), 11.0), "b": torch.tensor([13.0, 17.0]).expand(1, 2, 2)[..., None]}
    found = layer.messages(q, k, v, graph)
    of_a = [math.exp(2 * 0.5), math.exp(3 * 2 * 0), math.exp(3 * 2 * 0.25)]
    message = (11 * of_a[0] + 5 * (13 * of_a[1] + 17 * of_a[2])) / sum(of_a)
    close(found["a"].detach(), torch.full((1, 2, 1, 1), message), atol=1e-4)
    of_b = [math.exp(0.5 * 1 * 0.5), math.exp(0), math.exp(0.25)]
    message = (7 * 11 * of_b[0] + 13 * of_b[1] + 17 * of_b[2]) / sum(of_b)
    close(found["b"].detach(), torch.full((1, 2, 2, 1), message), atol=1e-4)


def test_it_is_pygs_heterogeneous_graph_transformer() -> None:
    """With its matrices for each relation left at one, HGTConv has the same softmax and the same priors."""
    layer = built(shared=False, balance=False)
    nn.init.ones_(layer.relation)
    kinds = {pair: (pair[1], "to", pair[0]) for pair in layer.relations}  # a key sends to a query
    theirs = HGTConv(WIDTH, WIDTH, (list(NAMES), list(kinds.values())), heads=HEADS)
    with torch.no_grad():
        for m, name in enumerate(NAMES):
            q, k, v = layer.project.layers[m].weight.chunk(3)
            qb, kb, vb = layer.project.layers[m].bias.chunk(3)
            theirs.kqv_lin.lins[name].weight.copy_(torch.cat([k, q, v]))
            theirs.kqv_lin.lins[name].bias.copy_(torch.cat([kb, qb, vb]))
            theirs.out_lin.lins[name].weight.copy_(torch.eye(WIDTH))
            theirs.out_lin.lins[name].bias.zero_()
            theirs.skip[name].fill_(math.inf)  # the whole of what is new
        for weight in (theirs.k_rel.weight, theirs.v_rel.weight):
            weight.copy_(torch.eye(K).expand_as(weight))
        for number, pair in enumerate(layer.relations):
            theirs.p_rel["__".join(kinds[pair])].copy_(layer.priors[number][None])
    x = torch.randn(N, WIDTH)
    edges = {
        kind: torch.cartesian_prod(torch.arange(GRAPH.sizes[key]), torch.arange(GRAPH.sizes[query])).T
        for (query, key), kind in kinds.items()
    }
    with torch.no_grad():
        expected = theirs({name: x[own] for name, own in GRAPH.slices.items()}, edges)
    messages = F.gelu(heard(layer, x[None]))[0]
    for name, own in GRAPH.slices.items():
        close(messages[own], expected[name])


@pytest.mark.parametrize("balance", [True, False])
def test_without_priors_it_is_torchs_attention_over_all_patches(balance: bool) -> None:
    x, layer = torch.randn(B, N, WIDTH), built(drawn=False, balance=balance)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    theirs.in_proj_weight.copy_(layer.project.layers[0].weight)
    theirs.in_proj_bias.copy_(layer.project.layers[0].bias)
    nn.init.eye_(theirs.out_proj.weight)
    nn.init.zeros_(theirs.out_proj.bias)
    sizes = torch.tensor(list(GRAPH.sizes.values()))
    mask = -sizes.repeat_interleave(sizes).float().log().expand(N, N) if balance else None
    expected, weights = theirs(x, x, x, attn_mask=mask, average_attn_weights=False)
    close(heard(layer, x), expected)
    with capture(layer) as attention:
        layer(x, GRAPH, still())
    for query, key in GRAPH.relations():
        own = attention.intra(query, 0) if query == key else attention.cross(query, key, 0)
        close(own.flatten(4).flatten(2, 3), weights[:, :, GRAPH.slices[query], GRAPH.slices[key]])


def test_the_weights_shown_are_those_that_the_fused_pass_used() -> None:
    """With a unit vector as the value of each patch (V = I), a message is the row of weights."""
    layer = built()
    nn.init.ones_(layer.relation)
    q, k = ({name: torch.randn(B, HEADS, n, N) for name, n in GRAPH.sizes.items()} for _ in range(2))
    v = dict(zip(NAMES, torch.eye(N).expand(B, HEADS, N, N).split(list(GRAPH.sizes.values()), dim=2), strict=True))
    found = layer.messages(q, k, v, GRAPH)
    for query, key in GRAPH.relations():
        close(found[query][..., GRAPH.slices[key]], layer.weights(q, k, GRAPH, query, key))


def test_intra_and_cross_weights_sum_to_one_together() -> None:
    layer = built()
    with capture(layer) as attention:
        layer(torch.randn(B, N, WIDTH), GRAPH, turning())
    assert attention.joint and attention.kinds == ("intra", "cross")
    assert (attention.layers("intra"), attention.layers("cross")) == (1, 1)
    for head in (0, 2, None):
        close(attention.dense(layer=0, head=head, picture=7).sum(dim=1), torch.ones(N))
    row = attention.row(("vit", 0, 3), layer=0, head=1)
    assert list(row) == list(NAMES)
    assert sum(float(part.sum()) for part in row.values()) == pytest.approx(1, abs=1e-6)
    assert 0.01 < float(row["vit"].sum()) < 0.99


def test_balance_gives_every_backbone_the_same_mass() -> None:
    zeros = {name: torch.zeros(1, HEADS, n, K) for name, n in GRAPH.sizes.items()}
    for balance, expected in ((True, dict.fromkeys(NAMES, 1 / 3)), (False, {m: n / N for m, n in GRAPH.sizes.items()})):
        layer = built(balance=balance)
        for query, key in GRAPH.relations():
            mass = layer.weights(zeros, zeros, GRAPH, query, key).sum(dim=-1)
            close(mass, torch.full_like(mass, expected[key]))


def test_a_prior_of_zero_makes_a_relation_even() -> None:
    layer = built()
    with torch.no_grad():
        layer.priors[layer.relations.index(("lite", "cnn")), 1] = 0
    with capture(layer) as attention:
        layer(torch.randn(B, N, WIDTH), GRAPH, turning())
    weights = attention.cross("lite", "cnn", 0).flatten(4)  # (b, heads, rows, columns, patches)
    spread = weights.amax(dim=-1) / weights.amin(dim=-1)
    close(spread[:, 1], torch.ones_like(spread[:, 1]))
    assert (spread[:, 0] > 1.01).any() and (spread[:, 2] > 1.01).any()


def test_priors_and_relation_embeddings_are_learned_unless_they_are_fixed() -> None:
    x = torch.randn(B, N, WIDTH)
    layer = built(drawn=False)
    layer(x, GRAPH, turning()).square().sum().backward()
    assert layer.priors.shape == (9, HEADS)
    assert (layer.priors.grad != 0).all() and (layer.relation.grad != 0).all()
    fixed = built(drawn=False, relations=False)
    assert {"priors", "relation"}.isdisjoint(dict(fixed.named_parameters()))
    assert fixed.state_dict().keys() == layer.state_dict().keys()


def test_where_cross_messages_are_dropped_a_patch_attends_to_its_own_grid_alone() -> None:
    x, layer, angles = torch.randn(B, N, WIDTH), built(), turning()
    keep = (torch.arange(B) % 3 != 0).float()[:, None, None]
    found, whole = heard(layer, x, angles=angles, keep=keep), heard(layer, x, angles=angles)
    kept = keep[:, 0, 0] == 1
    close(found[kept], whole[kept])
    for name, own in GRAPH.slices.items():
        graph = PatchGraph({name: SHAPES[name]})
        alone = heard(layer, x[:, own], graph, Angles(angles.cos[own], angles.sin[own]))
        close(found[~kept][:, own], alone[~kept])
    assert not torch.allclose(found[~kept], whole[~kept], atol=1e-3)


def test_a_lone_backbone_has_intra_attention() -> None:
    x, layer = torch.randn(B, N, WIDTH), built(drawn=False)
    intra = IntraAttention(NAMES, WIDTH, HEADS)
    shared = {name: value for name, value in layer.state_dict().items() if name not in ("priors", "relation")}
    intra.load_state_dict(shared, strict=False)
    graph = PatchGraph({"cnn": SHAPES["cnn"]})
    own, angles = x[:, GRAPH.slices["cnn"]], turning(graph)
    close(layer(own, graph, angles), intra(own, graph, angles))


def test_a_backbone_left_out_is_as_if_it_had_never_been() -> None:
    x, layer, angles = torch.randn(B, N, WIDTH), built(), turning()
    kept = torch.cat([torch.arange(N)[GRAPH.slices[name]] for name in ("lite", "cnn")])
    found = heard(layer, x[:, kept], GRAPH.without("vit"), Angles(angles.cos[kept], angles.sin[kept]))
    with torch.no_grad():  # no key of it is seen
        bare = copy.deepcopy(layer)
        bare.update = Heard()
        bare.attend = lambda name, logits: logits.masked_fill(
            ~torch.isin(torch.arange(N), kept), -torch.inf
        ).softmax(dim=-1)
        expected = bare(x, GRAPH, angles) - x
    close(found, expected[:, kept])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_works_in_other_number_types(dtype: torch.dtype) -> None:
    x, layer = torch.randn(B, N, WIDTH), built()
    keep = (torch.arange(B) % 2).float()[:, None, None]
    angles = turning()
    found = copy.deepcopy(layer).to(dtype)(x.to(dtype), GRAPH, angles, keep.to(dtype))
    expected = layer(x, GRAPH, angles, keep)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)


def test_width_and_heads_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="width: got 13 for 3 heads; expected a multiple"):
        JointAttention(NAMES, 13, 3)
