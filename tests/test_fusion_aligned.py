"""Sums and products of grids that are laid on each other, against their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from grafeat.fusion import Add, Concat, Multiply
from grafeat.fusion.aligned import Aligned
from grafeat.grids import FeatureGrid, GridSet

SHAPES = {"lite": (13, 6, 4), "vit": (5, 3, 2), "cnn": (7, 3, 4)}  # channels, rows, columns
B, T, WIDTH = 11, 3, 5


def grid(name: str, shape: tuple[int, int, int]) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = [grid(name, shape) for name, shape in SHAPES.items()]


def built(kind: type[Aligned], grids: list[FeatureGrid] = GRIDS) -> Aligned:
    model = kind.for_grids(GridSet(grids), num_classes=T, width=WIDTH, components=5)
    with torch.no_grad():
        model.weights.copy_(torch.tensor([2.0, -3.0, 0.5])[: len(model.weights)])
    return model


def blocks(model: Aligned) -> list[np.ndarray]:
    """The projected grids on 3 rows and 2 columns, as means of the patches that each new one covers."""
    found = []
    for part, given in zip(model.projections, GRIDS, strict=True):
        b, _, h, w = given.features.shape
        states = part(given.features).mT.reshape(b, WIDTH, 3, h // 3, 2, w // 2)
        found.append(states.mean(dim=(3, 5)).detach().numpy())
    return found


def vector_of(model: Aligned, mixed: np.ndarray) -> Tensor:
    """The MLP of each place, then the mean over places."""
    first, norm, _, last = model.mix
    x = torch.from_numpy(mixed).flatten(2).mT
    hidden = F.gelu(F.layer_norm(x @ first.weight.T + first.bias, (4 * WIDTH,), norm.weight, norm.bias))
    return (hidden @ last.weight.T + last.bias).mean(dim=1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_sum_of_weighted_grids() -> None:
    model = built(Add)
    lite, vit, cnn = blocks(model)
    out = model(GRIDS)
    close(out.vector, vector_of(model, 2 * lite - 3 * vit + 0.5 * cnn))
    close(out.logits, out.vector @ model.head.weight.T + model.head.bias)
    close(model(GRIDS, without={"vit"}).vector, vector_of(model, 2 * lite + 0.5 * cnn))


def test_a_weighted_product_of_grids() -> None:
    model = built(Multiply)
    lite, vit, cnn = blocks(model)
    assert model.weights.shape == (1,)
    close(model(GRIDS).vector, vector_of(model, 2 * lite * vit * cnn))
    close(model(GRIDS, without={"vit"}).vector, vector_of(model, 2 * lite * cnn))
    close(model(GRIDS, without={"vit", "cnn"}).vector, vector_of(model, 2 * lite))


def test_a_product_is_zero_where_a_factor_is() -> None:
    model = built(Multiply)
    for projection in model.projections:
        torch.nn.init.zeros_(projection.linear.bias)
    lite = GRIDS[0].features.clone()
    lite[:, :, :2, :2] = model.projections[0].mean[:, None, None]  # the mean patch has no component
    mixed = model.mixed(model.resampled([FeatureGrid("lite", lite), *GRIDS[1:]]))
    close(mixed[:, :, 0, 0], torch.zeros(B, WIDTH))
    assert mixed[:, :, 0, 1].abs().min() > 0
    summed = built(Add)
    assert summed.mixed(summed.resampled([FeatureGrid("lite", lite), *GRIDS[1:]]))[:, :, 0, 0].abs().max() > 0.1


@pytest.mark.parametrize("kind", [Add, Multiply])
def test_it_matters_which_patches_lie_on_each_other(kind: type[Aligned]) -> None:
    """All grids turned round: the same places meet. One alone: others do, which concatenation would not notice."""
    model, concat = built(kind), Concat.for_grids(GridSet(GRIDS), num_classes=T, width=WIDTH, components=5)
    turned = [FeatureGrid(grid.name, grid.features.flip(2, 3)) for grid in GRIDS]
    alone = [turned[0], *GRIDS[1:]]
    close(model(turned).logits, model(GRIDS).logits)
    assert not torch.allclose(model(alone).logits, model(GRIDS).logits, atol=1e-4)
    close(concat(alone).logits, concat(GRIDS).logits)


def test_equal_grids_are_not_resampled() -> None:
    alike = [GRIDS[1], FeatureGrid("other", GRIDS[1].features.flip(0))]
    model = built(Add, alike)
    assert model.config.grid == (3, 2)
    close(model.resampled(alike)["vit"].flatten(2).mT, model.projections[0](GRIDS[1].features))


def test_sides_that_are_no_multiples_are_resampled_as_torch_does() -> None:
    odd = [grid("lite", (13, 5, 7)), grid("vit", (5, 3, 4))]
    model = built(Add, odd)
    assert model.config.grid == (3, 4)
    states = model.projections[0](odd[0].features).mT.unflatten(2, (5, 7))
    rows, columns = ((0, 2), (1, 4), (3, 5)), ((0, 2), (1, 4), (3, 6), (5, 7))
    for row, (top, bottom) in enumerate(rows):
        for column, (left, right) in enumerate(columns):
            expected = states[:, :, top:bottom, left:right].mean(dim=(2, 3))
            close(model.resampled(odd)["lite"][:, :, row, column], expected)
