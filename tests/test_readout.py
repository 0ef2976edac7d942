"""Each kind of readout is a formula that can be written down in three lines; weights sum to 1, relations learn."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grafeat.graph import PatchGraph
from grafeat.interplay import Exchange
from grafeat.readout import READOUTS, Reading, Readout, ReadoutKind

SHAPES = {"lite": (2, 3), "vit": (1, 11), "cnn": (5, 1)}
NAMES = tuple(SHAPES)
GRAPH = PatchGraph(SHAPES)
N = GRAPH.num_vertices
B, D, PLACES, Q = 7, 13, 17, 3
NOT_MEAN = ("each", "relation", "attention")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def readout(kind: ReadoutKind, names: tuple[str, ...] = NAMES, queries: int = Q) -> Readout:
    """A readout whose logits are far from equal and whose relation embeddings differ."""
    made = Readout(names, D, PLACES, queries=queries, kind=kind)
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 2)
        made.norm.bias.uniform_(-1, 1)
        if made.relation is not None:
            made.relation.copy_(torch.tensor([0.3, -0.5, 0.7, 0.2])[: len(names)])
    return made


def inputs(graph: PatchGraph = GRAPH) -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(B, graph.num_vertices, D), torch.randn(graph.num_vertices, PLACES)


def close(found: Tensor, expected: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def layers(made: Readout) -> tuple[list[Tensor], list[Tensor]]:
    """Weights of the state and of the value, a pair for each backbone, or one of each if all share it."""
    return [[part.weight for part in each.layers] for each in (made.state, made.value)]


def own_logits(made: Readout, x: Tensor, places: Tensor, name: str) -> Tensor:
    """A query's logit for each of a backbone's patches, (b, patches, queries)."""
    weights, _ = layers(made)
    own, weight = GRAPH.slices[name], weights[NAMES.index(name) if len(weights) > 1 else 0]
    return made.norm(x)[:, own] @ weight.T + places[own] @ made.place


# Against the formulas


@pytest.mark.parametrize("kind", ["relation", "attention"])
def test_joint_kinds_are_one_softmax_over_all_vertices(kind: ReadoutKind) -> None:
    """softmax(state · w + place · p + relation − log n), then the queries' readings through one matrix."""
    made, (x, places) = readout(kind), inputs()
    logits = []
    for m, name in enumerate(NAMES):
        moved = made.relation[m] if kind == "relation" else 0.0
        logits.append(own_logits(made, x, places, name) + moved - math.log(GRAPH.sizes[name]))
    weights = torch.cat(logits, dim=1).softmax(dim=1)  # (b, n, queries)
    read = torch.einsum("bnq,bnd->bqd", weights, made.norm(x))
    found = made(x, places, GRAPH)
    close(found.weights, weights.mT)
    close(found.vector, read.flatten(1) @ layers(made)[1][0].T)


def test_each_is_the_relation_weighted_sum_of_own_readings() -> None:
    made, (x, places) = readout("each"), inputs()
    mass = made.relation.softmax(dim=0)
    vector, weights = torch.zeros(B, D), []
    for m, name in enumerate(NAMES):
        local = own_logits(made, x, places, name).softmax(dim=1)
        read = torch.einsum("bnq,bnd->bqd", local, made.norm(x)[:, GRAPH.slices[name]])
        vector = vector + mass[m] * (read.flatten(1) @ layers(made)[1][m].T)
        weights.append(mass[m] * local)
    found = made(x, places, GRAPH)
    close(found.vector, vector)
    close(found.weights, torch.cat(weights, dim=1).mT)


def test_mean_weighs_patches_alike_within_a_backbone_and_backbones_alike() -> None:
    made, (x, places) = readout("mean"), inputs()
    read = torch.stack([made.norm(x)[:, own].mean(dim=1) for own in GRAPH.slices.values()]).mean(dim=0)
    found = made(x, places, GRAPH)
    close(found.vector, read @ layers_of_mean(made).T)
    each = torch.cat([torch.full((B, 1, size), 1 / (3 * size)) for size in GRAPH.sizes.values()], dim=2)
    close(found.weights, each)


def layers_of_mean(made: Readout) -> Tensor:
    assert made.state is None and made.place is None and made.relation is None
    (value,) = made.value.layers
    return value.weight


@pytest.mark.parametrize("kind", READOUTS)
def test_own_vectors_are_those_of_a_graph_of_this_backbone_alone(kind: ReadoutKind) -> None:
    made, (x, places) = readout(kind), inputs()
    found = made(x, places, GRAPH)
    assert tuple(found.own) == NAMES
    for name, own in GRAPH.slices.items():
        alone = made(x[:, own], places[own], PatchGraph({name: SHAPES[name]}))
        close(found.own[name], alone.vector)
        close(alone.own[name], alone.vector)


@pytest.mark.parametrize("kind", ["each", "mean"])
def test_with_equal_embeddings_the_vector_is_the_average_of_the_own_vectors(kind: ReadoutKind) -> None:
    made, (x, places) = Readout(NAMES, D, PLACES, queries=Q, kind=kind), inputs()  # as it starts
    found = made(x, places, GRAPH)
    close(found.vector, torch.stack(list(found.own.values())).mean(dim=0))


def test_a_query_finds_the_patch_it_asks_for_by_hand() -> None:
    """One query that wants a large first channel by ln 9 a unit; patches (1, −1), (−1, 1): weights 81 to 1."""
    made = Readout(("lite",), 2, 1, queries=1, kind="attention")
    with torch.no_grad():
        made.state.layers[0].weight.copy_(torch.tensor([[math.log(9), 0.0]]))
        made.value.layers[0].weight.copy_(torch.tensor([[1.0, 0], [0, 2]]))
        made.place.copy_(torch.tensor([[math.log(9)]]))
    x = torch.tensor([[[5.0, -5.0], [-3.0, 3.0]]])  # brought to (1, −1) and (−1, 1)
    graph = PatchGraph({"lite": (2, 1)})
    found = made(x, torch.zeros(2, 1), graph)
    close(found.weights, torch.tensor([[[81.0, 1.0]]]) / 82)
    close(found.vector, torch.tensor([[80.0, -160.0]]) / 82)
    placed = made(x, torch.tensor([[0.0], [2.0]]), graph)  # the place of the second is worth as much
    close(placed.weights, torch.tensor([[[0.5, 0.5]]]))


# Properties


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8),
    st.sampled_from(READOUTS),
)
def test_weights_of_every_query_sum_to_one(shapes: list[tuple[int, int]], kind: ReadoutKind) -> None:
    graph = PatchGraph({str(m): shape for m, shape in enumerate(shapes)})
    made = Readout(graph.names, D, PLACES, queries=Q, kind=kind)
    found: Reading = made(*inputs(graph), graph)
    queries = 1 if kind == "mean" else Q
    assert found.weights.shape == (B, queries, graph.num_vertices)
    assert found.weights.min() >= 0
    close(found.weights.sum(dim=2), torch.ones(B, queries))


@pytest.mark.parametrize("kind", READOUTS)
def test_grids_of_any_size_get_equal_mass_where_their_patches_look_alike(kind: ReadoutKind) -> None:
    made = Readout(NAMES, D, PLACES, queries=Q, kind=kind)
    if kind == "each":
        for part in made.state.layers[1:]:
            part.load_state_dict(made.state.layers[0].state_dict())
    found = made(torch.randn(B, 1, D).expand(B, N, D), torch.ones(N, PLACES), GRAPH)
    mass = torch.stack([found.weights[:, :, own].sum(dim=2) for own in GRAPH.slices.values()])
    close(mass, torch.full_like(mass, 1 / 3))


@pytest.mark.parametrize("kind", READOUTS)
def test_the_order_of_backbones_and_of_vertices_does_not_matter(kind: ReadoutKind) -> None:
    made, (x, places) = readout(kind), inputs()
    turned = PatchGraph({name: SHAPES[name] for name in ("cnn", "lite", "vit")})
    order = torch.cat(
        [own.start + torch.randperm(own.stop - own.start) for own in map(GRAPH.slices.get, turned.names)]
    )
    found, expected = made(x[:, order], places[order], turned), made(x, places, GRAPH)
    close(found.vector, expected.vector)
    close(found.weights, expected.weights[:, :, order])
    for name in NAMES:
        close(found.own[name], expected.own[name])


@pytest.mark.parametrize("kind", READOUTS)
def test_a_backbone_left_out_equals_one_never_built(kind: ReadoutKind) -> None:
    made, kept = readout(kind), ("lite", "cnn")
    never = Readout(kept, D, PLACES, queries=Q, kind=kind)
    with torch.no_grad():
        never.norm.load_state_dict(made.norm.state_dict())
        for ours, theirs in ((never.state, made.state), (never.value, made.value)):
            for m, part in enumerate(ours.layers if ours is not None else ()):
                part.load_state_dict(
                    theirs.layers[NAMES.index(kept[m]) if kind == "each" else 0].state_dict()
                )
        if made.place is not None:
            never.place.copy_(made.place)
        if made.relation is not None:
            never.relation.copy_(made.relation[[0, 2]])
    graph = GRAPH.without("vit")
    x, places = inputs(graph)
    assert torch.equal(made(x, places, graph).vector, never(x, places, graph).vector)
    assert torch.equal(made(x, places, graph).weights, never(x, places, graph).weights)


# Gradients


@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
@pytest.mark.parametrize("kind", READOUTS)
def test_every_parameter_receives_gradient(kind: ReadoutKind, names: tuple[str, ...]) -> None:
    """Every relation embedding above all, from a fresh start, with two backbones and with three."""
    made, graph = Readout(names, D, PLACES, queries=Q, kind=kind), GRAPH.without(*set(NAMES) - set(names))
    (made(*inputs(graph), graph).vector * torch.randn(B, D)).sum().backward()
    assert ("relation" in dict(made.named_parameters())) == (kind in ("each", "relation"))
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        if name == "relation":
            assert parameter.grad.abs().min() > 1e-4
        else:
            assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("kind", READOUTS)
def test_a_lone_backbone_has_no_relation_embedding(kind: ReadoutKind) -> None:
    """It would cancel in the softmax."""
    made = Readout(("lite",), D, PLACES, queries=Q, kind=kind)
    assert made.relation is None
    graph = PatchGraph({"lite": SHAPES["lite"]})
    found = made(*inputs(graph), graph)
    close(found.vector, found.own["lite"])


@pytest.mark.parametrize("kind", NOT_MEAN)
def test_each_backbone_has_queries_of_its_own_only_in_each(kind: ReadoutKind) -> None:
    made = readout(kind)
    assert len(made.state.layers) == len(made.value.layers) == (3 if kind == "each" else 1)


# Interplay


def test_an_interplay_by_hand_is_added_where_several_read() -> None:
    """It sees the plain mean of each backbone's final states, whatever the queries weigh."""
    made = Readout(NAMES, D, PLACES, queries=Q, kind="each", interplay=True)
    plain = Readout(NAMES, D, PLACES, queries=Q, kind="each")
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if "interplay" not in name})
    for kept in (NAMES, ("lite", "cnn"), ("vit",)):
        graph = GRAPH.without(*set(NAMES) - set(kept))
        x, places = inputs(graph)
        found, without = made(x, places, graph), plain(x, places, graph)
        expected = torch.zeros(B, D)
        if len(kept) > 1:
            means = [made.norm(x)[:, graph.slices[name]].mean(dim=1) / len(kept) for name in kept]
            weights = [made.interplay.enter.layers[NAMES.index(name)].weight for name in kept]
            entered = sum(mean @ weight.T for mean, weight in zip(means, weights, strict=True))
            expected = F.gelu(F.layer_norm(entered, [8 * D])) @ made.interplay.say[2].weight.T
            assert expected.abs().max() > 1e-3
        close(found.vector - without.vector, expected)
        close(found.weights[:, :Q], without.weights)


def test_the_query_of_an_interplay_weighs_all_evenly_whatever_the_relation_embeddings_are() -> None:
    made = Readout(NAMES, D, PLACES, queries=Q, kind="each", interplay=True)
    nn.init.normal_(made.relation)
    x, places = inputs(GRAPH)
    weights = made(x, places, GRAPH).weights
    assert weights.shape == (B, Q + 1, x.shape[1])
    for name, own in GRAPH.slices.items():
        close(weights[:, Q, own], torch.full((B, GRAPH.sizes[name]), 1 / (len(NAMES) * GRAPH.sizes[name])))


def test_an_exchange_by_hand_reads_the_final_states_and_all_else_those_before() -> None:
    """What it adds is MLP(Σ_m U_m·read_m), of what its query reads from the final states of each backbone."""
    made = Readout(NAMES, D, PLACES, queries=Q, kind="each", interplay=True, exchange=True)
    nn.init.normal_(made.relation)
    nn.init.normal_(made.exchange.place)
    for kept in (NAMES, ("lite", "cnn"), ("vit",)):
        graph = GRAPH.without(*set(NAMES) - set(kept))
        (before, places), x = inputs(graph), 2 * torch.randn(B, graph.num_vertices, D)
        found = made(x, places, graph, before=before)
        plain = made(before, places, graph)  # an exchange that hears nothing new
        for name in kept:
            assert torch.equal(found.own[name], plain.own[name])
        if len(kept) == 1:
            assert found.apart is None and found.weights.shape == (B, Q, graph.num_vertices)
            assert torch.equal(found.vector, found.own["vit"])
            continue
        assert torch.equal(found.apart, plain.apart)
        assert found.weights.shape == (B, Q + 2, graph.num_vertices)
        assert torch.equal(found.weights[:, : Q + 1], plain.weights[:, : Q + 1])
        entered, asked, hidden = torch.zeros(()), [], 4 * D - 1  # half of an interplay's that is alone, less one
        for name in kept:
            number, states = NAMES.index(name), made.norm(x)[:, graph.slices[name]]
            query = made.exchange.state.layers[number].weight[0]
            logits = states @ query + places[graph.slices[name]] @ made.exchange.place[:, 0]
            asked.append(logits.softmax(dim=1) / len(kept))
            read = torch.einsum("bn,bnd->bd", asked[-1], states)
            entered = entered + read @ made.exchange.enter.layers[number].weight.T
        close(found.weights[:, -1], torch.cat(asked, dim=1))
        expected = F.gelu(F.layer_norm(entered, [hidden])) @ made.exchange.say[2].weight.T
        assert expected.abs().max() > 1e-3
        close(found.vector - found.apart, expected)


def test_an_exchange_begins_with_no_preference_for_a_place_and_says_little_where_its_gain_is_small() -> None:
    with torch.random.fork_rng():
        one = Exchange(NAMES, D, PLACES, 11)
    tenth = Exchange(NAMES, D, PLACES, 11, gain=0.1)  # the same, but for the gain
    assert not one.place.any()
    means = {name: torch.randn(B, D) for name in NAMES}
    assert one(means).abs().max() > 1e-2
    close(tenth(means), one(means) / 10)


def test_the_vector_of_given_weights_reads_both_places() -> None:
    made = Readout(NAMES, D, PLACES, queries=Q, kind="each", interplay=True, exchange=True)
    (before, places), x = inputs(), 2 * torch.randn(B, N, D)
    found = made(x, places, GRAPH, before=before)
    states = [{name: made.norm(place)[:, own] for name, own in GRAPH.slices.items()} for place in (before, x)]
    weights = {name: found.weights[:, :, own] for name, own in GRAPH.slices.items()}
    close(made.vector(weights, *states), found.vector)
    assert (made.early(NAMES), made.early(NAMES[:1]), readout("each").early(NAMES)) == (Q + 1, 0, 0)


def test_calibration_keeps_what_an_interplay_adds() -> None:
    """The best masses beside a fixed rest: those of a grid of all, to the hundredth."""
    made, (own, labels) = readout("each", NAMES[:2]), held_out(1.0, 2.0)
    rest = torch.randn(own[0].shape, generator=torch.Generator().manual_seed(3))
    merged = torch.einsum("m,mbt->bt", made.relation.detach().softmax(dim=0), own) + rest
    made.calibrate(own, labels, merged=merged)
    half = torch.linspace(-2, 2, 401)
    tried = [merged_loss(torch.stack([r, -r]), own + rest, labels) + 0.01 * 2 * float(r) ** 2 for r in half]
    best = float(half[min(range(len(tried)), key=tried.__getitem__)])
    close(made.relation.detach(), torch.tensor([best, -best]), atol=2e-2)


# Calibration


def held_out(*quality: float, b: int = 97, t: int = 5) -> tuple[Tensor, Tensor]:
    """Logits of backbones that know the label as well as `quality` says, 0 for nothing."""
    labels = torch.randint(t, (b,))
    own = torch.randn(len(quality), b, t) + torch.tensor(quality)[:, None, None] * F.one_hot(labels, t)
    return own, labels


def merged_loss(relation: Tensor, own: Tensor, labels: Tensor) -> float:
    merged = (relation.softmax(dim=0)[:, None, None] * own).sum(dim=0)
    return float(F.nll_loss(merged.log_softmax(dim=1), labels))


def test_calibration_believes_the_better_backbone() -> None:
    made, (own, labels) = readout("each"), held_out(0.0, 7.0, 1.0)
    made.calibrate(own, labels)
    mass = made.relation.detach().softmax(dim=0)
    assert mass[1] > 0.7
    assert mass[2] > mass[0]
    backwards = readout("each")
    backwards.calibrate(own.flip(0), labels)
    close(backwards.relation.detach().flip(0), made.relation.detach(), atol=1e-2)


def test_calibration_finds_the_minimum_of_loss_and_prior() -> None:
    """A grid of all masses of two backbones, to the hundredth, knows none better."""
    made, (own, labels) = readout("each", NAMES[:2]), held_out(1.0, 2.0)
    made.calibrate(own, labels)
    half = torch.linspace(-2, 2, 401)
    tried = [merged_loss(torch.stack([r, -r]), own, labels) + 0.01 * 2 * float(r) ** 2 for r in half]
    best = float(half[min(range(len(tried)), key=tried.__getitem__)])
    close(made.relation.detach(), torch.tensor([best, -best]), atol=2e-2)


@settings(max_examples=12)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(2, 7), st.integers(0, 10**6))
def test_calibration_never_raises_the_held_out_loss_above_that_of_equal_weights(
    k: int, b: int, t: int, seed: int
) -> None:
    """Not even on few pictures, or with logits in the hundreds that are surely wrong."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(k, b, t, generator=generator) * 10 ** (4 * torch.rand(k, 1, 1, generator=generator) - 1)
    labels = torch.randint(t, (b,), generator=generator)
    made = Readout(tuple("abcdef"[:k]), D, PLACES, queries=Q, kind="each")
    for rest in (torch.zeros(b, t), 6 * torch.randn(b, t, generator=generator)):  # what an interplay adds
        merged = torch.einsum("m,mbt->bt", made.relation.detach().softmax(dim=0), own) + rest
        made.calibrate(own, labels, merged=merged)
        calibrated = merged_loss(made.relation.detach(), own + rest, labels)
        assert calibrated <= merged_loss(torch.zeros(k), own + rest, labels) * (1 + 1e-5)


def test_calibration_forgets_what_training_said_and_works_without_gradients() -> None:
    made, (own, labels) = readout("each"), held_out(1.0, 1.5, 2.0)
    with torch.no_grad():
        made.calibrate(own, labels)
    first = made.relation.detach().clone()
    with torch.no_grad():
        made.relation.copy_(torch.tensor([9.0, -9.0, 4.0]))
    made.calibrate(own, labels)
    assert torch.equal(made.relation.detach(), first)
    assert made.relation.requires_grad and made.relation.grad is None


@pytest.mark.parametrize(
    "made", [lambda: readout("relation"), lambda: readout("mean"), lambda: readout("each", ("lite",))]
)
def test_other_kinds_and_a_lone_backbone_are_not_calibrated(made: Callable[[], Readout]) -> None:
    kept = made()
    before = {name: value.clone() for name, value in kept.state_dict().items()}
    own, labels = held_out(*[1.0, 3.0, 2.0][: len(kept.names)])
    kept.calibrate(own, labels)
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())
