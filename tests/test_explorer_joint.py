"""What the page is sent of joint layers, where one softmax holds intra and cross edges."""

import numpy as np
import pytest
import torch
from test_explorer_payload import (
    CLOSE,
    HEADS,
    LAYERS,
    SHAPES,
    N,
    all_weights,
    from_rows,
    row_maxima,
    same_backbone,
)

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.explorer.payload import NOWHERE, Shape, VertexWeights, pack
from grafeat.grids import FeatureGrid
from grafeat.merge import GraFeatMerge


def captured(*, relations: bool = True) -> CapturedAttention:
    """A model whose attention is sharp; with relations, priors that differ."""
    generator = torch.Generator().manual_seed(0)
    grids = [FeatureGrid(name, torch.randn(2, 11, *shape, generator=generator)) for name, shape in SHAPES.items()]
    model = GraFeatMerge.for_grids(
        grids, num_classes=3, width=14 * HEADS, depth=LAYERS, heads=HEADS, joint=True, relations=relations
    )
    with torch.no_grad():
        for step in model.steps:
            step.joint.project.layers[0].weight[: 2 * 14 * HEADS] *= 6
            if relations:
                step.joint.priors += 0.5 * torch.rand(step.joint.priors.shape, generator=generator)
    with torch.no_grad(), capture(model) as attention:
        model(grids)
    return attention


def test_priors_are_sent_as_rows_and_without_them_states_do() -> None:
    """A page that multiplies queries by keys knows no priors."""
    assert not Shape.of(captured()).fine and Shape.of(captured()).smallest() == "rows"
    assert Shape.of(captured(relations=False)).fine


def test_rows_are_off_by_at_most_a_200th_of_a_rows_maximum() -> None:
    attention = captured()
    for picture in range(2):
        found, expected = from_rows(pack(attention, picture, "rows")), all_weights(attention, picture)
        np.testing.assert_allclose(expected.sum(axis=-1), 1, atol=1e-5)
        assert (np.abs(found - expected) <= CLOSE * row_maxima(expected)).all()


def test_states_give_joint_weights_where_there_are_no_priors() -> None:
    """As a page does: exp(q · k / √width + bias − lse), lse being that of both kinds together."""
    attention = captured(relations=False)
    arrays, expected = pack(attention, 1, "states"), all_weights(attention, 1)
    sizes = [h * w for h, w in SHAPES.values()]
    q, k = (arrays[symbol] * arrays[f"{symbol}_scale"][..., None] for symbol in "qk")
    bias = arrays["bias"].repeat(sizes, axis=1).repeat(sizes, axis=2)[None, :, None]
    logits = q @ np.swapaxes(k, -1, -2) / np.sqrt(14) + bias - arrays["lse"][..., None]
    found = np.exp(np.where(same_backbone(), logits[:, 0], logits[:, 1]))
    assert (np.abs(found - expected) <= CLOSE * row_maxima(expected)).all()


def test_mass_is_sent_for_every_kind_since_neither_is_whole() -> None:
    attention = captured()
    weights = all_weights(attention)
    weights = np.concatenate([weights, weights.mean(axis=1, keepdims=True)], axis=1)
    for form in ("rows", "strongest"):
        arrays = pack(attention, 0, form, k=3)
        for number, own in enumerate(attention.graph.slices.values()):
            np.testing.assert_allclose(arrays["mass"][..., number], weights[..., own].sum(axis=-1), atol=1e-5)
            np.testing.assert_allclose(arrays["received"][..., number], weights[:, :, own].sum(axis=2), atol=1e-5)


def test_with_two_backbones_mass_is_sent_too() -> None:
    generator = torch.Generator().manual_seed(0)
    two = [FeatureGrid(name, torch.randn(1, 11, *SHAPES[name], generator=generator)) for name in ("lite", "vit")]
    model = GraFeatMerge.for_grids(two, num_classes=3, width=14 * HEADS, heads=HEADS, joint=True)
    with torch.no_grad(), capture(model) as attention:
        model(two)
    arrays = pack(attention, 0, "rows")
    np.testing.assert_allclose(arrays["mass"].sum(axis=-1), 1, atol=1e-5)
    assert (np.abs(arrays["mass"][..., 0] - 1) > 0.01).all()


def test_the_strongest_say_which_share_of_their_kinds_mass_they_keep() -> None:
    attention, k = captured(), 3
    arrays, expected = pack(attention, 1, "strongest", k=k), all_weights(attention, 1)
    expected = np.concatenate([expected, expected.mean(axis=1, keepdims=True)], axis=1)
    same = same_backbone()
    for (layer, head, vertex, kind), kept in np.ndenumerate(arrays["kept"]):
        row = np.where(same[vertex] if kind == 0 else ~same[vertex], expected[layer, head, vertex], 0)
        largest = np.sort(row)[::-1][:k]
        assert kept == pytest.approx(largest.sum() / row.sum(), abs=1e-5)
        assert (arrays["where"][layer, head, vertex, kind] != NOWHERE).sum() == k


def test_entropy_is_that_of_each_kinds_own_weights() -> None:
    arrays, weights, same = pack(captured(), 0, "rows"), all_weights(captured()), same_backbone()
    weights = np.concatenate([weights, weights.mean(axis=1, keepdims=True)], axis=1)
    for kind, part in enumerate((same, ~same)):
        own = np.where(part, weights, 0)
        own = own / own.sum(axis=-1, keepdims=True)
        entropy = -(own * np.log(np.where(own > 0, own, 1))).sum(axis=-1)
        np.testing.assert_allclose(
            arrays["entropy"][..., kind], (entropy / np.log(part.sum(axis=1))).mean(axis=-1), rtol=1e-4
        )


def test_single_vertices_are_rows_and_columns() -> None:
    attention, expected, same = captured(), all_weights(captured()), same_backbone()
    asked = VertexWeights(attention, 0)
    for vertex in (0, 8, N - 1):
        arrays = asked.arrays(vertex)
        for name, whole in (("row", expected[:, :, vertex]), ("column", expected[..., vertex])):
            scale = np.where(same[vertex], arrays[f"{name}_scale"][..., :1], arrays[f"{name}_scale"][..., 1:])
            np.testing.assert_allclose(arrays[name] * scale / 255, whole, atol=CLOSE * whole.max())
