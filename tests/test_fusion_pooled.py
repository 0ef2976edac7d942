"""Ways that pool are what they say: side by side, linear, or weighted by gates; each against its formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from grafeat.fusion import Concat, Gated, Linear, Mixer
from grafeat.grids import FeatureGrid, GridSet

SHAPES = {"lite": (13, 2, 3), "vit": (5, 1, 7), "cnn": (3, 5, 1)}  # channels, rows, columns
B, T, WIDTH = 7, 3, 11


def grid(name: str, shape: tuple[int, int, int], b: int = B) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(b, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = [grid(name, shape) for name, shape in SHAPES.items()]


def built(seed: int = 0) -> Concat:
    return Concat.for_grids(GridSet(GRIDS), num_classes=T, width=WIDTH, components=5, seed=seed)


def by_formula(model: Concat, pooled: list[Tensor]) -> Tensor:
    first, norm, _, last = model.mix
    hidden = torch.cat(pooled, dim=1) @ first.weight.T + first.bias
    hidden = F.gelu(F.layer_norm(hidden, (4 * WIDTH,), norm.weight, norm.bias))
    return hidden @ last.weight.T + last.bias


def pooled(model: Mixer) -> list[Tensor]:
    """The mean over patches of what the projection makes of them; it is linear, so pooling may come first."""
    parts = zip(model.projections, GRIDS, strict=True)
    return [part(grid.features.mean(dim=(2, 3), keepdim=True))[:, 0] for part, grid in parts]


def test_the_vector_is_an_mlp_of_the_pooled_grids() -> None:
    model = built()
    out = model(GRIDS)
    vector = by_formula(model, pooled(model))
    torch.testing.assert_close(out.vector, vector, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        out.logits, vector @ model.head.weight.T + model.head.bias, atol=1e-5, rtol=1e-5
    )
    assert out.vertices == out.own == out.reading == {}
    assert model(GRIDS, states=True).states == ()


def test_a_backbone_left_out_gives_zeros() -> None:
    model = built()
    lite, vit, cnn = pooled(model)
    expected = by_formula(model, [lite, torch.zeros_like(vit), cnn])
    for out in (model(GRIDS, without={"vit"}), model([GRIDS[2], GRIDS[0]])):
        torch.testing.assert_close(out.vector, expected, atol=1e-5, rtol=1e-5)


# The linear probe


def reduced(model: Linear) -> list[Tensor]:
    """The pooled components, from the definition: standardised, then projected on principal axes."""
    parts = zip(model.projections, GRIDS, strict=True)
    return [(grid.features.mean(dim=(2, 3)) - part.mean) @ part.basis for part, grid in parts]


def test_a_linear_probe_learns_nothing_but_its_one_layer() -> None:
    model = Linear.for_grids(GridSet(GRIDS), num_classes=T, components=5)
    vector = torch.cat(reduced(model), dim=1)
    out = model(GRIDS)
    torch.testing.assert_close(out.vector, vector, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.logits, vector @ model.head.weight.T + model.head.bias, atol=1e-5, rtol=1e-5)
    assert {name for name, _ in model.named_parameters()} == {"head.weight", "head.bias"}
    assert out.vector.shape == (B, 5 + 5 + 3)


def test_the_components_are_standardised_and_uncorrelated() -> None:
    """Components have mean 0 and variance 1 over the patches that they were taken from."""
    model = Linear.for_grids(GridSet(GRIDS), num_classes=T, components=3)
    parts = [part(grid.features).flatten(0, 1) for part, grid in zip(model.projections, GRIDS, strict=True)]
    for part in parts:
        covariance = torch.from_numpy(np.cov(part.T.double().numpy(), bias=True))
        torch.testing.assert_close(covariance, torch.eye(3).double(), atol=2e-2, rtol=0)


def test_a_backbone_left_out_of_a_probe_gives_zeros() -> None:
    model = Linear.for_grids(GridSet(GRIDS), num_classes=T, components=5)
    lite, vit, cnn = reduced(model)
    expected = torch.cat([lite, torch.zeros_like(vit), cnn], dim=1)
    torch.testing.assert_close(model(GRIDS, without={"vit"}).vector, expected, atol=1e-5, rtol=1e-5)


# Gates


def gated(seed: int = 0) -> Gated:
    return Gated.for_grids(GridSet(GRIDS), num_classes=T, width=WIDTH, components=5, seed=seed)


def test_gated_is_a_weighted_sum_with_gates_of_each_picture() -> None:
    model = gated()
    vectors = pooled(model)
    gates = (torch.cat(vectors, dim=1) @ model.gate.weight.T + model.gate.bias).softmax(dim=1)
    mixed = sum(gates[:, m, None] * vector for m, vector in enumerate(vectors))
    first, norm, _, last = model.mix
    hidden = F.gelu(F.layer_norm(mixed @ first.weight.T + first.bias, (4 * WIDTH,), norm.weight, norm.bias))
    expected = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(model(GRIDS).vector, expected, atol=1e-5, rtol=1e-5)
    found = torch.stack(list(model.gates(GRIDS).values()), dim=1)
    torch.testing.assert_close(found, gates, atol=1e-6, rtol=1e-5)


def test_gates_sum_to_one_and_depend_on_the_picture() -> None:
    gates = torch.stack(list(gated().gates(GRIDS).values()), dim=1)
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(B))
    assert gates.std(dim=0).min() > 1e-3


def test_a_backbone_left_out_has_no_gate_and_the_others_share_the_rest() -> None:
    model = gated()
    lite, vit, cnn = pooled(model)
    logits = torch.cat([lite, torch.zeros_like(vit), cnn], dim=1) @ model.gate.weight.T + model.gate.bias
    expected = logits[:, [0, 2]].softmax(dim=1)
    found = model.gates([GRIDS[0], GRIDS[2]])
    assert list(found) == ["lite", "cnn"]
    torch.testing.assert_close(torch.stack(list(found.values()), dim=1), expected, atol=1e-6, rtol=1e-5)


def test_reading_tells_the_gates() -> None:
    model = gated()
    for name, weights in model(GRIDS).reading.items():
        torch.testing.assert_close(weights.sum(dim=(1, 2, 3)), model.gates(GRIDS)[name], atol=1e-6, rtol=1e-5)


def test_gated_is_not_concatenation() -> None:
    """With even gates a swap of two backbones' projected vectors changes nothing; concatenation tells them apart."""
    alike = [FeatureGrid("a", GRIDS[0].features), FeatureGrid("b", GRIDS[0].features.flip(0))]
    swapped = [FeatureGrid("a", alike[1].features), FeatureGrid("b", alike[0].features)]
    for kind, invariant in ((Gated, True), (Concat, False)):
        model = kind.for_grids(GridSet(alike), num_classes=T, width=WIDTH, components=5)
        model.projections[1].load_state_dict(model.projections[0].state_dict())
        if invariant:
            torch.nn.init.zeros_(model.gate.weight)
            torch.nn.init.zeros_(model.gate.bias)
        assert torch.allclose(model(alike).logits, model(swapped).logits, atol=1e-5) is invariant


@pytest.mark.parametrize("kind", [Concat, Linear, Gated])
def test_pooling_does_not_see_where_a_patch_lies(kind: type[Mixer]) -> None:
    model = kind.for_grids(GridSet(GRIDS), num_classes=T, width=WIDTH, components=5)
    moved = [FeatureGrid(grid.name, grid.features.flip(2, 3)) if grid.name == "lite" else grid for grid in GRIDS]
    torch.testing.assert_close(model(moved).logits, model(GRIDS).logits, atol=1e-5, rtol=1e-5)
