"""The rival is what it says: pooled grids side by side, then an MLP."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from grafeat.fusion import Concat
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


def pooled(model: Concat) -> list[Tensor]:
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


def test_the_order_of_backbones_does_not_matter() -> None:
    model = built()
    assert torch.equal(model(GRIDS[::-1]).logits, model(GRIDS).logits)


def test_the_seed_decides_the_weights_and_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (built(seed).state_dict() for seed in (3, 3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mix.0.weight"], other["mix.0.weight"])


def test_features_are_standardised_from_the_training_part_alone() -> None:
    parts = {"train": torch.arange(3), "test": torch.arange(3, B)}
    split = Concat.for_grids(GridSet(GRIDS, parts=parts), num_classes=T, width=WIDTH, components=5)
    few = Concat.for_grids(GridSet([grid[:3] for grid in GRIDS]), num_classes=T, width=WIDTH, components=5)
    for ours, theirs, whole in zip(split.projections, few.projections, built().projections, strict=True):
        assert torch.equal(ours.basis, theirs.basis)
        assert not torch.equal(ours.basis, whole.basis)
    assert [tuple(part.basis.shape) for part in split.projections] == [(13, 5), (5, 5), (3, 3)]


def test_classes_come_from_the_set_where_they_fit() -> None:
    labelled = GridSet(GRIDS, [0, 1, 2, 0, 1, 2, 0], classes=["cat", "dog", "owl"])
    assert Concat.for_grids(labelled, num_classes=T).classes == ("cat", "dog", "owl")
    assert Concat.for_grids(labelled, num_classes=5).classes == ("0", "1", "2", "3", "4")


def test_a_new_model_is_in_eval_and_every_parameter_receives_gradient() -> None:
    model = built()
    assert not model.training
    model(GRIDS).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_works_in_other_number_types(dtype: torch.dtype) -> None:
    out = built().to(dtype)(GRIDS, without={"lite"})
    assert out.logits.dtype == dtype
    torch.testing.assert_close(
        out.logits.float(), built()(GRIDS, without={"lite"}).logits, atol=0.1, rtol=0.1
    )


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="num_classes: got 1; expected 2 or more"):
        Concat.for_grids(GridSet(GRIDS), num_classes=1)
    with pytest.raises(ValueError, match="this model knows lite, vit, cnn"):
        built()([grid("swin", (3, 2, 2))])
