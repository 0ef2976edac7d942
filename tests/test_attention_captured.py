"""Capture shows the weights that a pass used, costs nothing when it is off, and leaves nothing behind."""

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.attention.layers import CrossAttention, IntraAttention, PatchAttention, RotaryPositions
from grafeat.graph import PatchGraph

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
NAMES = tuple(SHAPES)
GRAPH = PatchGraph(SHAPES)
B, HEADS, K = 11, 3, 14  # pictures, heads, channels of a head
WIDTH = HEADS * K


pytestmark = pytest.mark.usefixtures("seeded_on_one_thread")


def states(n: int = GRAPH.num_vertices) -> Tensor:
    return torch.randn(B, n, WIDTH)


def dense(attention: CapturedAttention, query: str, key: str, layer: int = 0) -> Tensor:
    """Captured weights (b, heads, patches of query, patches of key)."""
    blocks = attention.intra(query, layer) if query == key else attention.cross(query, key, layer)
    return blocks.flatten(4).flatten(2, 3)


def close(found: Tensor, expected: Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


class Steps(nn.Module):
    """Two steps of an intra and a cross layer, as in a model."""

    def __init__(self) -> None:
        super().__init__()
        self.rotary = RotaryPositions(K)
        self.steps = nn.ModuleList(
            nn.ModuleList([IntraAttention(NAMES, WIDTH, HEADS), CrossAttention(NAMES, WIDTH, HEADS)])
            for _ in range(2)
        )

    @property
    def attentions(self) -> list[PatchAttention]:
        return [layer for step in self.steps for layer in step]

    def forward(self, x: Tensor, graph: PatchGraph = GRAPH) -> Tensor:
        for layer in self.attentions:
            x = layer(x, graph, self.rotary(graph.centres))
        return x


def test_capture_changes_nothing_to_the_bit() -> None:
    model, x = Steps(), states()
    before = model(x)
    with capture(model):
        during = model(x)
    assert torch.equal(before, during)
    assert torch.equal(before, model(x))


def test_layers_are_counted_in_the_order_of_the_model() -> None:
    """The second layer's weights are those of that layer alone, on the states that reach it."""
    model, x = Steps(), states()
    with torch.no_grad(), capture(model) as attention:
        model(x)
        for number, layer in enumerate(model.attentions):
            with capture(layer) as alone:
                layer(x, GRAPH, model.rotary(GRAPH.centres))
            for query, key in GRAPH.relations(layer.kind):
                assert torch.equal(dense(attention, query, key, number // 2), dense(alone, query, key))
            x = layer(x, GRAPH, model.rotary(GRAPH.centres))


def test_captured_weights_have_the_axes_of_their_grids() -> None:
    model = Steps()
    with capture(model) as attention:
        model(states())
    intra, cross = attention.intra("vit", 0), attention.cross("lite", "cnn", layer=1)
    assert intra.shape == (B, HEADS, 1, 5, 1, 5)
    assert cross.shape == (B, HEADS, 2, 3, 7, 1)
    assert attention.intra("vit", layer=0, head=2).shape == (B, 1, 5, 1, 5)
    for head in range(HEADS):
        assert torch.equal(attention.intra("vit", 0, head), intra[:, head])
        assert torch.equal(attention.cross("lite", "cnn", 1, head), cross[:, head])
    for picture in range(B):
        block = attention.block("lite", "cnn", layer=1, picture=picture)
        close(block, cross[picture].mean(dim=0).view(6, 7))
        block = attention.block("vit", "vit", layer=0, head=1, picture=picture)
        close(block, intra[picture, 1].view(5, 5))
    assert not cross.requires_grad
    assert attention.graph is GRAPH
    assert (attention.layers("intra"), attention.layers("cross"), attention.heads) == (2, 2, HEADS)
    assert repr(attention) == (
        f"CapturedAttention: {B} pictures, 2 intra and 2 cross layers of {HEADS} heads; "
        "lite 2 × 3, vit 1 × 5, cnn 7 × 1; keeps 266 kB, all its weights would take 85.5 kB"
    )
    assert attention.nbytes == 2 * 4 * B * HEADS * K * 18 * 4  # queries and keys of 4 layers and 18 vertices
    assert attention.map_bytes == 4 * B * HEADS * 18**2 * 2  # of every pair of vertices, in 2 steps


@pytest.mark.parametrize("balance", [True, False])
def test_uniform_weights_are_those_of_equal_logits(balance: bool) -> None:
    """States of zero make all logits equal; by hand: a share for each backbone, dealt out over its patches."""
    layers = nn.ModuleList([kind(NAMES, WIDTH, HEADS) for kind in (IntraAttention, CrossAttention)])
    layers[1].balance = balance
    for layer in layers:
        nn.init.zeros_(layer.project.layers[0].bias)
    with capture(layers) as attention, torch.autocast("cpu", torch.bfloat16):
        for layer in layers:
            layer(0 * states(), GRAPH, RotaryPositions(K)(GRAPH.centres))
    for query, key in GRAPH.relations():
        uniform = attention.uniform(query, key, 0)
        weights = dense(attention, query, key)
        close(weights, torch.full_like(weights, uniform))
        others = sum(size for name, size in GRAPH.sizes.items() if name != query)
        share = 1 if query == key else 1 / 2 if balance else GRAPH.sizes[key] / others
        assert uniform == pytest.approx(share / GRAPH.sizes[key], abs=1e-6)


def test_what_was_captured_stays_as_it_was_and_the_last_pass_counts() -> None:
    model, x = Steps(), states()
    with capture(model) as attention:
        model(torch.zeros_like(x))
        first = attention.cross("lite", "vit", 0)
        model(x)
        last = attention.cross("lite", "vit", 0)
    model(-x)  # after the end: not recorded
    assert not torch.allclose(first, last)
    assert torch.equal(attention.cross("lite", "vit", 0), last)


def test_capture_of_a_pass_without_a_backbone_shows_the_others() -> None:
    model, graph = Steps(), GRAPH.without("vit")
    with capture(model) as attention:
        model(states())
        model(states(graph.num_vertices), graph)
    close(attention.cross("lite", "cnn", 1).sum(dim=(-1, -2)), torch.ones(B, HEADS, 2, 3))
    with pytest.raises(ValueError, match="backbone: got 'vit'; captured were lite, cnn; use one of them"):
        attention.cross("lite", "vit", 1)


def recorders(model: Steps) -> list[object]:
    return [layer.recorder for layer in model.attentions]


def test_capture_leaves_nothing_behind() -> None:
    model = Steps()
    with capture(model):
        assert None not in recorders(model)
    assert recorders(model) == [None] * 4
    with pytest.raises(RuntimeError, match="on purpose"), capture(model):
        raise RuntimeError("on purpose")
    assert recorders(model) == [None] * 4


def test_a_capture_within_a_capture_gives_the_outer_one_back() -> None:
    model, x, y = Steps(), states(), states()
    with capture(model) as outer:
        with capture(model) as inner:
            model(x)
        assert "nothing yet" in repr(outer)
        model(y)
        of_inner = inner.intra("lite", 0)
    assert recorders(model) == [None] * 4
    with capture(model) as alone:
        model(x)
        assert torch.equal(of_inner, alone.intra("lite", 0))
        model(y)
    assert torch.equal(outer.intra("lite", 0), alone.intra("lite", 0))


def test_capture_keeps_queries_and_keys_only_as_long_as_it_is_held() -> None:
    model, x = Steps(), states()

    def alive() -> list[Tensor]:
        return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]

    model(x)  # the graph works out its centres once
    gc.collect()  # what other tests left
    before = len(alive())
    model(x)
    assert len(alive()) == before  # nothing is kept without a capture
    with capture(model) as attention:
        model(x)
    kept = alive()
    assert len(kept) == before + 2 * 4 * len(GRAPH.names)  # queries and keys of four layers, and no weights
    blocks = [(B, HEADS, size, K) for size in GRAPH.sizes.values()]
    assert sum(tensor.shape in blocks and tensor.grad_fn is None for tensor in kept) == len(kept) - before
    del attention, kept
    assert len(alive()) == before


def test_capture_adds_no_arithmetic() -> None:
    model, x = Steps(), states()

    def flops() -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        return counter.get_total_flops()

    before = flops()
    with capture(model):
        during = flops()
    assert before == during == flops() > 0


def test_layers_run_in_half_precision() -> None:
    model, x = Steps(), states()
    with torch.autocast("cpu", torch.bfloat16), capture(model) as attention:
        found = model(x)
    assert found.dtype == torch.float32
    close(found, model(x), atol=0.1)
    rows = torch.cat([dense(attention, "lite", key) for key in ("vit", "cnn")], dim=-1)
    close(rows.sum(dim=-1), torch.ones(B, HEADS, 6))  # half precision would be off by a hundredth


# Errors


def test_what_was_not_captured_is_refused() -> None:
    model = Steps()
    with capture(model) as attention:
        with pytest.raises(ValueError, match="attention: nothing was captured; call model"):
            attention.intra("lite", 0)
        with pytest.raises(ValueError, match="attention: nothing was captured"):
            _ = attention.graph
        assert repr(attention) == "CapturedAttention: nothing yet; call the model inside the capture"
        model(states())
    for ask, text in (
        (
            lambda: attention.intra("vti", 0),
            "backbone: got 'vti'; captured were lite, vit, cnn; use one of them",
        ),
        (lambda: attention.cross("lite", "vti", 0), "backbone: got 'vti'; captured were lite, vit, cnn"),
        (lambda: attention.intra("vit", 2), "layer: got 2; captured intra layers: 0 to 1; count from 0"),
        (lambda: attention.cross("lite", "vit", -1), "layer: got -1; captured cross layers: 0 to 1"),
        (lambda: attention.intra("vit", 0, HEADS), "head: got 3; expected 0 to 2, or None for all"),
        (lambda: attention.cross("lite", "vit", 0, -1), "head: got -1; expected 0 to 2"),
        (lambda: attention.cross("vit", "vit", 0), "query, key: got 'vit' twice; .* use intra"),
        (
            lambda: attention.block("vit", "lite", layer=0, picture=B),
            "picture: got 11; the captured batch has 11 pictures",
        ),
        (lambda: attention.block("vit", "lite", layer=0, picture=-1), "picture: got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            ask()


def test_layers_of_a_kind_that_the_model_lacks_are_refused() -> None:
    layer = IntraAttention(NAMES, WIDTH, HEADS)
    with capture(layer) as attention:
        layer(states(), GRAPH, RotaryPositions(K)(GRAPH.centres))
    with pytest.raises(ValueError, match="layer: got 0; captured cross layers: none"):
        attention.cross("lite", "vit", 0)


def test_a_model_without_attention_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="model: Linear has no attention layers to capture"),
        capture(nn.Linear(2, 3)),
    ):
        pass


def test_rows_and_columns_are_those_of_the_blocks() -> None:
    model = Steps()
    with capture(model) as attention:
        model(states())
    where = {"layer": 1, "head": 2, "picture": 7}
    row, column = attention.row(("lite", 1, 2), **where), attention.column(("lite", 1, 2), **where)
    for name in NAMES:
        assert row[name].shape == column[name].shape == SHAPES[name]
        close(row[name].flatten(), attention.block("lite", name, **where)[5])
        close(column[name].flatten(), attention.block(name, "lite", **where)[:, 5])
    mean = attention.row(("cnn", 6, 0), layer=0)
    close(mean["lite"], attention.cross("cnn", "lite", 0)[0, :, 6, 0].mean(dim=0))
    close(mean["lite"].sum() + mean["vit"].sum(), torch.tensor(1.0))


def test_the_dense_matrix_holds_intra_on_its_diagonal_blocks_and_cross_elsewhere() -> None:
    model = Steps()
    with capture(model) as attention:
        model(states())
    whole = attention.dense(layer=1, head=0, picture=3)
    close(whole.sum(dim=1), torch.full((18,), 2.0))  # an intra and a cross softmax
    close(whole[6:11, 6:11], attention.intra("vit", 1, 0)[3].view(5, 5))
    close(whole[:6, 11:], attention.cross("lite", "cnn", 1, 0)[3].view(6, 7))
    close(attention.dense(layer=0), torch.stack([attention.dense(layer=0, head=i) for i in range(HEADS)]).mean(0))


def test_the_weights_can_be_rebuilt_from_the_states_and_the_bias() -> None:
    """In the words of torch: softmax(q kᵀ / √k + bias)."""
    model = Steps()
    with capture(model) as attention:
        model(states())
    q, k, bias = attention.states("cross", 1, picture=5)
    keys = torch.cat([k["lite"], k["cnn"]], dim=2)
    rebuilt = (q["vit"] @ keys.mT / K**0.5 + bias["vit"]).softmax(dim=-1)[0]
    close(rebuilt[..., 6:], dense(attention, "vit", "cnn", 1)[5])
    assert attention.states("intra", 0)[2] == dict.fromkeys(NAMES)


def test_half_precision_takes_half_the_memory_and_stays_close() -> None:
    model, x = Steps(), states()
    with capture(model) as full:
        model(x)
    with capture(model, dtype=torch.float16) as half:
        model(x)
    assert 2 * half.nbytes == full.nbytes
    assert half.intra("vit", 0).dtype == torch.float32
    close(half.dense(layer=1), full.dense(layer=1), atol=2e-3)
    close(half.dense(layer=1).sum(dim=1), torch.full((18,), 2.0))


def test_a_pass_that_would_keep_too_much_stops_at_its_first_layer() -> None:
    model, x = Steps(), states()
    too_much = pytest.raises(ValueError, match="limit: queries and keys of 11 pictures in 4 layers would take 266 kB")
    with too_much, capture(model, limit=266_111) as attention:
        model(x)
    assert attention.nbytes == 0
    with capture(model, limit=266_112) as attention:
        model(x)
    assert attention.nbytes == 266_112


def test_weights_that_would_take_too_much_are_refused_and_their_rows_are_not() -> None:
    model = Steps()
    with capture(model) as attention:
        model(states())
    few = CapturedAttention(4 * 11 * 3 * 6 * 6 - 1, attention._layers)
    for ask in (lambda: few.intra("lite", 0), lambda: few.cross("lite", "vit", 0), lambda: few.dense(layer=0)):
        with pytest.raises(ValueError, match=r"limit: .* would take .* more than the 4.75 kB allowed; ask for"):
            ask()
    assert few.intra("lite", 0, head=0).shape == (B, 2, 3, 2, 3)
    assert few.row(("lite", 0, 0), layer=0)["vit"].shape == (1, 5)


def test_a_lone_backbone_has_no_cross_weights() -> None:
    model = Steps()
    with capture(model) as attention:
        model(states(5), PatchGraph({"vit": (1, 5)}))
    assert attention.kinds == ("intra",)
    assert set(attention.row(("vit", 0, 3), layer=0)) == {"vit"}
    close(attention.dense(layer=0).sum(dim=1), torch.ones(5))
