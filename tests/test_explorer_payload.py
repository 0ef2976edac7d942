"""What is sent to the page: every form decodes to the captured weights, and says of each head what they are."""

import math

import numpy as np
import pytest
import torch

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.explorer.payload import NOWHERE, Arrays, Shape, VertexWeights, pack, to_bytes
from grafeat.grids import FeatureGrid
from grafeat.merge import GraFeatMerge

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
N, LAYERS, HEADS, WIDTH = 18, 2, 3, 14  # vertices, layers, heads, channels of a head
CLOSE = 1 / 200  # of a row's largest weight of its kind


def captured(
    shapes: dict[str, tuple[int, int]] = SHAPES, *, sharp: float = 6.0, cross: bool = True
) -> CapturedAttention:
    """A small untrained model's attention for two pictures, sharpened, since untrained attention is nearly even."""
    generator = torch.Generator().manual_seed(0)
    grids = [FeatureGrid(name, torch.randn(2, 11, *shape, generator=generator)) for name, shape in shapes.items()]
    model = GraFeatMerge.for_grids(grids, num_classes=3, width=HEADS * WIDTH, depth=LAYERS, heads=HEADS, cross=cross)
    for step in model.steps:
        for layer in (step.intra, step.cross):
            if layer is not None:
                layer.project.layers[0].weight.data[: 2 * HEADS * WIDTH] *= sharp
    with torch.no_grad(), capture(model) as attention:
        model(grids)
    return attention


def same_backbone(shapes: dict[str, tuple[int, int]] = SHAPES) -> np.ndarray:
    owner = np.repeat(np.arange(len(shapes)), [h * w for h, w in shapes.values()])
    return owner[:, None] == owner[None, :]


def all_weights(attention: CapturedAttention, picture: int = 0) -> np.ndarray:
    """(layers, heads, n, n), as captured."""
    return np.stack(
        [
            [attention.dense(layer=layer, head=head, picture=picture).numpy() for head in range(HEADS)]
            for layer in range(LAYERS)
        ]
    )


def from_rows(arrays: Arrays) -> np.ndarray:
    scale = np.where(same_backbone(), arrays["scale"][..., :1], arrays["scale"][..., 1:])
    return arrays["weights"] * scale / 255


def from_states(arrays: Arrays) -> np.ndarray:
    """softmax is exp(logit − lse), with queries and keys out of 16 bits."""
    sizes = [h * w for h, w in SHAPES.values()]
    q, k = (arrays[symbol] * arrays[f"{symbol}_scale"][..., None] for symbol in "qk")
    bias = arrays["bias"].repeat(sizes, axis=1).repeat(sizes, axis=2)[None, :, None]
    logits = q @ np.swapaxes(k, -1, -2) / math.sqrt(WIDTH) + bias - arrays["lse"][..., None]
    return np.exp(np.where(same_backbone(), logits[:, 0], logits[:, 1]))


def row_maxima(weights: np.ndarray) -> np.ndarray:
    same = same_backbone()
    tops = [np.where(part, weights, 0).max(axis=-1, keepdims=True) for part in (same, ~same)]
    return np.where(same, *tops)


@pytest.mark.parametrize(("form", "sharp"), [("rows", 1.0), ("rows", 40.0), ("states", 1.0), ("states", 6.0)])
def test_exact_forms_are_off_by_at_most_a_200th_of_a_rows_maximum(form: str, sharp: float) -> None:
    attention = captured(sharp=sharp)
    assert form == "rows" or Shape.of(attention).fine
    for picture in range(2):
        arrays = pack(attention, picture, form)
        found = from_rows(arrays) if form == "rows" else from_states(arrays)
        expected = all_weights(attention, picture)
        assert (np.abs(found - expected) <= CLOSE * row_maxima(expected)).all()


def test_the_strongest_form_keeps_the_largest_of_each_row_and_kind_and_says_their_mass() -> None:
    attention, k = captured(), 4
    arrays, expected = pack(attention, 1, "strongest", k=k), all_weights(attention, 1)
    expected = np.concatenate([expected, expected.mean(axis=1, keepdims=True)], axis=1)  # the mean is kept like a head
    same = same_backbone()
    for (layer, head, vertex, kind), kept in np.ndenumerate(arrays["kept"]):
        row = np.where(same[vertex] if kind == 0 else ~same[vertex], expected[layer, head, vertex], -1)
        largest = np.argsort(-row, kind="stable")[: min(k, (row >= 0).sum())]
        where = arrays["where"][layer, head, vertex, kind]
        assert set(where[where != NOWHERE]) == set(largest)
        values = arrays["weights"][layer, head, vertex, kind] * arrays["scale"][layer, head, vertex, kind] / 255
        np.testing.assert_allclose(values[: len(largest)], row[largest], atol=CLOSE * row.max())
        assert kept == pytest.approx(row[largest].sum(), abs=5e-6)


def test_single_vertices_are_rows_and_columns() -> None:
    attention, expected = captured(), all_weights(captured())
    asked = VertexWeights(attention, 0)
    same = same_backbone()
    for vertex in (0, 8, 17):
        arrays = asked.arrays(vertex)
        for name, whole in (("row", expected[:, :, vertex]), ("column", expected[..., vertex])):
            scale = np.where(same[vertex], arrays[f"{name}_scale"][..., :1], arrays[f"{name}_scale"][..., 1:])
            np.testing.assert_allclose(arrays[name] * scale / 255, whole, atol=CLOSE * whole.max())
        for number, own in enumerate(attention.graph.slices.values()):
            np.testing.assert_allclose(arrays["mass"][..., number], expected[:, :, vertex, own].sum(-1), atol=1e-5)
            np.testing.assert_allclose(arrays["received"][..., number], expected[:, :, own, vertex].sum(-1), atol=1e-5)


def test_what_the_navigator_shows_of_each_head() -> None:
    """Largest weights, entropy against the largest possible, and the split of the cross mass; the mean comes last."""
    attention, same = captured(), same_backbone()
    arrays, weights = pack(attention, 0, "rows"), all_weights(captured())
    weights = np.concatenate([weights, weights.mean(axis=1, keepdims=True)], axis=1)
    for kind, part in enumerate((same, ~same)):
        masked = np.where(part, weights, 0)
        np.testing.assert_allclose(arrays["top"][..., kind], masked.max(axis=(-1, -2)), rtol=1e-5)
        entropy = -np.where(masked > 0, masked * np.log(np.where(masked > 0, masked, 1)), 0).sum(axis=-1)
        share = (entropy / np.log(part.sum(axis=1))).mean(axis=-1)
        np.testing.assert_allclose(arrays["entropy"][..., kind], share, rtol=1e-4)
    slices = list(attention.graph.slices.values())
    for query, key in ((0, 1), (2, 0)):
        split = weights[:, :, slices[query], slices[key]].sum(axis=-1).mean(axis=-1)
        np.testing.assert_allclose(arrays["split"][:, :, query, key], split, rtol=1e-5)
    assert not arrays["split"][:, :, range(3), range(3)].any()


@pytest.mark.parametrize("form", ["rows", "strongest"])
def test_mass_sent_and_received_is_exact_where_weights_are_rounded_or_cut(form: str) -> None:
    attention, weights = captured(sharp=40.0), all_weights(captured(sharp=40.0))
    weights = np.concatenate([weights, weights.mean(axis=1, keepdims=True)], axis=1)
    arrays = pack(attention, 0, form, k=2)
    for number, own in enumerate(attention.graph.slices.values()):
        np.testing.assert_allclose(arrays["mass"][..., number], weights[..., own].sum(axis=-1), atol=1e-4)
        np.testing.assert_allclose(arrays["received"][..., number], weights[..., own, :].sum(axis=-2), atol=1e-4)
    two = pack(captured({"a": (2, 3), "b": (1, 5)}), 0, form, k=2)
    assert "mass" not in two  # each kind has one grid to go to


def test_even_attention_has_the_largest_entropy_and_one_key_leaves_none() -> None:
    arrays = pack(captured({"a": (2, 3), "b": (1, 1)}, sharp=0.0), 0, "rows")
    # a's rows are even over 6 of its own; b has one key of its own: entropy 0, and 6 keys in cross attention
    np.testing.assert_allclose(arrays["entropy"][..., 0], 6 / 7, rtol=1e-4)
    np.testing.assert_allclose(arrays["entropy"][..., 1], 1 / 7, rtol=1e-4)


def test_a_model_of_one_kind_or_of_one_backbone_is_packed() -> None:
    lone = captured({"vit": (1, 5)})
    arrays = pack(lone, 0, "rows")
    scale = arrays["scale"][..., 0]
    np.testing.assert_allclose(arrays["weights"] * scale[..., None] / 255, all_weights(lone), atol=CLOSE)
    assert not arrays["top"][..., 1].any()
    without_cross = pack(captured(cross=False), 0, "rows")
    assert not without_cross["weights"][..., ~same_backbone()].any()


@pytest.mark.parametrize("form", ["rows", "states", "strongest"])
def test_the_size_is_known_beforehand(form: str) -> None:
    attention, k = captured(), 5
    arrays = pack(attention, 0, form, k=k)
    summary = {"top", "entropy", "split", "bias", "mass", "received"}
    nbytes = sum(array.nbytes for name, array in arrays.items() if name not in summary)
    assert nbytes == Shape.of(attention).nbytes(form, k)


def test_the_smaller_exact_form_is_chosen() -> None:
    assert Shape(6, 8, 98, 16).smallest() == "rows"
    assert Shape(6, 8, 392, 16).smallest() == "states"
    assert Shape(6, 8, 392, 16, fine=False).smallest() == "rows"


def test_attention_too_sharp_for_16_bits_is_known() -> None:
    attention = captured(sharp=40.0)
    expected = all_weights(attention)
    off = np.abs(from_states(pack(attention, 0, "states")) - expected) / row_maxima(expected)
    assert off.max() > CLOSE
    assert not Shape.of(attention).fine


def test_nan_stays_nan() -> None:
    attention = captured()
    attention._layers["cross", 1].q["vit"][0, 2] = math.nan
    arrays = pack(attention, 0, "rows")
    vit = attention.graph.slices["vit"]
    assert np.isnan(arrays["scale"][1, 2, vit, 1]).all()
    assert np.isfinite(arrays["scale"][1, 2, vit, 0]).all()  # intra attention is as it was
    assert np.isnan(arrays["top"][1, 2, 1])
    assert np.isnan(from_states(pack(attention, 0, "states"))[1, 2, vit, 0]).all()


def test_arrays_come_back_from_their_bytes() -> None:
    arrays = {"a": np.arange(7, dtype=np.uint8), "b": np.ones((3, 5), np.float32), "c": np.arange(-2, 1, dtype="i2")}
    places, content = to_bytes(arrays)
    for name, (dtype, shape, offset) in places.items():
        assert offset % 8 == 0
        size = int(np.prod(shape))
        np.testing.assert_array_equal(np.frombuffer(content, dtype, size, offset).reshape(shape), arrays[name])
