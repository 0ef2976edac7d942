"""Each query reads its own region of all grids, in one softmax; against torch's attention."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from grafeat.attention.capturing import capture
from grafeat.explorer import Explorer
from grafeat.fusion import Sva
from grafeat.fusion.sva import Aggregation, regions
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet

SHAPES = {"lite": (13, 2, 3), "vit": (5, 5, 7), "cnn": (3, 2, 4)}  # channels, rows, columns
B, T, WIDTH, HEADS = 11, 3, 8, 2


def grid(name: str, shape: tuple[int, int, int]) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = [grid(name, shape) for name, shape in SHAPES.items()]
GRAPH = PatchGraph.of(GRIDS)


def built(depth: int = 2) -> Sva:
    return Sva.for_grids(GridSet(GRIDS), num_classes=T, width=WIDTH, components=5, depth=depth, heads=HEADS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# Regions


def test_regions_by_hand() -> None:
    """Three columns of two rows over a grid of 2 × 4: its columns' centres lie at 1/8, 3/8, 5/8 and 7/8."""
    own = regions(PatchGraph({"cnn": (2, 4)}), (2, 3))
    assert own.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]


sides = st.tuples(st.integers(1, 17), st.integers(1, 17))


@given(st.lists(sides, min_size=1, max_size=4))
def test_each_patch_lies_in_one_region_and_each_region_has_patches_of_every_backbone(shapes: list) -> None:
    graph = PatchGraph({f"b{number}": shape for number, shape in enumerate(shapes)})
    coarsest = min(h for h, _ in shapes), min(w for _, w in shapes)
    own = regions(graph, coarsest)
    assert (own.sum(dim=0) == 1).all()
    for patches in graph.slices.values():
        assert own[:, patches].any(dim=1).all()


@given(sides, st.integers(1, 4), st.integers(1, 4))
def test_regions_of_multiples_are_blocks(shape: tuple[int, int], down: int, across: int) -> None:
    h, w = shape
    own = regions(PatchGraph({"fine": (h * down, w * across)}), shape)
    blocks = own.unflatten(1, (h, down, w, across)).unflatten(0, (h, w))
    for row in range(h):
        for column in range(w):
            assert blocks[row, column, row, :, column].all()
            assert int(blocks[row, column].sum()) == down * across


def test_a_crop_fills_the_regions_that_it_covers() -> None:
    graph = PatchGraph({"crop": (2, 2)}, {"crop": (0.5, 0.0, 1.0, 0.5)})
    own = regions(graph, (2, 2))
    assert own.int().tolist() == [[0] * 4, [1] * 4, [0] * 4, [0] * 4]


# One layer


def test_a_layer_is_torchs_attention_under_a_mask() -> None:
    torch.manual_seed(0)
    layer = Aggregation(WIDTH, HEADS, hidden=13)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    theirs.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([layer.query.bias, torch.zeros(WIDTH), layer.value.bias]))
    theirs.out_proj.load_state_dict(layer.out.state_dict())
    own = regions(GRAPH, (2, 3))
    queries, states = torch.randn(B, 6, WIDTH), torch.randn(B, GRAPH.num_vertices, WIDTH)
    found, weights = layer(queries, states, own)
    message, expected = theirs(
        layer.before(queries), states, states, attn_mask=~own, average_attn_weights=False
    )
    after = queries + message
    close(weights, expected)
    close(found, after + layer.mlp(layer.after(after)))


def test_a_query_sees_the_patches_of_its_own_region_alone() -> None:
    torch.manual_seed(0)
    layer, own = Aggregation(WIDTH, HEADS, hidden=13), regions(GRAPH, (2, 3))
    queries, states = torch.randn(1, 6, WIDTH), torch.randn(1, GRAPH.num_vertices, WIDTH)
    before, weights = layer(queries, states, own)
    assert (weights[:, :, ~own] == 0).all() and (weights[:, :, own] > 0).all()
    for vertex in range(GRAPH.num_vertices):
        changed = states.clone()
        changed[:, vertex] += 3
        moved = (layer(queries, changed, own)[0] - before).abs().amax(dim=2)[0] > 1e-6
        assert torch.equal(moved, own[:, vertex])


def test_one_softmax_holds_the_patches_of_all_backbones() -> None:
    """Equal logits: the weight of a backbone in a region is its share of the patches there."""
    layer, own = Aggregation(WIDTH, HEADS, hidden=13), regions(GRAPH, (2, 3))
    nn.init.zeros_(layer.query.weight)
    nn.init.zeros_(layer.query.bias)
    _, weights = layer(torch.randn(1, 6, WIDTH), torch.randn(1, GRAPH.num_vertices, WIDTH), own)
    for patches in GRAPH.slices.values():
        expected = own[:, patches].sum(dim=1) / own.sum(dim=1)
        close(weights[0, :, :, patches].sum(dim=-1), expected.expand(HEADS, -1))


def test_a_region_without_patches_has_no_message() -> None:
    crop = FeatureGrid("crop", grid("vit", (5, 3, 3)).features, (0.0, 0.0, 0.5, 1.0))
    model = Sva.for_grids(GridSet([crop]), num_classes=T, width=WIDTH, heads=HEADS)
    own = regions(PatchGraph.of([crop]), model.config.grid)
    assert not own.any(dim=1).all()
    out = model([crop])
    assert out.logits.isfinite().all()
    close(out.reading["crop"].sum(dim=(2, 3)), torch.ones(B, HEADS))


# The whole model


def test_the_vector_by_hand() -> None:
    model = built(depth=1)
    states = torch.cat([part(grid.features) for part, grid in zip(model.projections, GRIDS, strict=True)], dim=1)
    x, own = model.norm(states), regions(GRAPH, (2, 3))
    layer = model.layers[0]
    q = layer.query(layer.before(model.queries)).view(6, HEADS, -1)
    k, v = (part(x).view(B, -1, HEADS, WIDTH // HEADS) for part in (layer.key, layer.value))
    after = []
    for g in range(6):
        logits = torch.einsum("hk,bnhk->bhn", q[g], k[:, own[g]]) / math.sqrt(WIDTH // HEADS)
        message = torch.einsum("bhn,bnhk->bhk", logits.softmax(dim=-1), v[:, own[g]]).flatten(1)
        query = model.queries[g] + layer.out(message)
        after.append(query + layer.mlp(layer.after(query)))
    vector = model.pooled_queries(torch.stack(after).mean(dim=0))
    close(model(GRIDS).vector, vector)
    close(model(GRIDS).logits, model.head(vector))


def test_reading_is_the_weight_of_each_patch_mean_over_queries_and_layers() -> None:
    model = built()
    reading, seen = model(GRIDS).reading, []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, given, out: seen.append(out[1]))
    model(GRIDS)
    expected = torch.stack(seen).mean(dim=(0, 3))  # over layers and queries
    for name, own in GRAPH.slices.items():
        close(reading[name].flatten(2), expected[:, :, own])


def test_queries_are_learned_one_for_each_region() -> None:
    model = built()
    assert model.queries.shape == (6, WIDTH)
    assert "2 × 3 queries, 2 layers of 2 heads" in repr(model)


def test_there_is_no_attention_between_patches_and_it_says_so() -> None:
    model = built()
    said = r"Sva has no attention layers to capture; .*model\(grids\).reading says where its queries look"
    with pytest.raises(ValueError, match=said), capture(model):
        pass
    with pytest.raises(ValueError, match=said):
        Explorer(model, GRIDS)
