"""Every way to mix is built, standardised and called alike; what it needs, and what it resamples, it says."""

import pytest
import torch
from torch import Tensor

from grafeat.fusion import Add, Combo, Concat, Gated, Linear, MixConfig, Mixer, Multiply, Sva
from grafeat.grids import FeatureGrid, GridSet

MIXERS = (Linear, Concat, Gated, Add, Multiply, Sva, Combo)
SHAPES = {"lite": (13, 4, 3), "vit": (5, 2, 7), "cnn": (3, 5, 3)}  # channels, rows, columns
B, T, WIDTH = 11, 3, 8


def grid(name: str, shape: tuple[int, int, int], b: int = B) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(b, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = [grid(name, shape) for name, shape in SHAPES.items()]

every = pytest.mark.parametrize("kind", MIXERS, ids=lambda kind: kind.__name__)


def built(kind: type[Mixer], seed: int = 0, grids: list[FeatureGrid] = GRIDS, **options: int) -> Mixer:
    return kind.for_grids(GridSet(grids), num_classes=T, width=WIDTH, components=5, seed=seed, **options)


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)


@every
def test_the_order_of_backbones_does_not_matter(kind: type[Mixer]) -> None:
    model = built(kind)
    close(model(GRIDS[::-1]).logits, model(GRIDS).logits)
    close(model(GRIDS[::-1]).vector, model(GRIDS).vector)


@every
def test_a_backbone_left_out_is_one_that_is_not_given(kind: type[Mixer]) -> None:
    model = built(kind)
    left = model(GRIDS, without={"vit"})
    assert torch.equal(left.logits, model([GRIDS[0], GRIDS[2]]).logits)
    assert left.vector.shape == model(GRIDS).vector.shape
    assert not torch.allclose(left.logits, model(GRIDS).logits, atol=1e-4)
    assert set(left.reading) <= {"lite", "cnn"}


@every
def test_pictures_do_not_see_each_other(kind: type[Mixer]) -> None:
    model = built(kind)
    close(model([grid[3:5] for grid in GRIDS]).logits, model(GRIDS).logits[3:5])


@every
def test_reading_is_a_share_of_each_patch(kind: type[Mixer]) -> None:
    out = built(kind)(GRIDS)
    if not out.reading:
        assert kind in (Linear, Concat, Add, Multiply)
        return
    total = sum(weights.sum(dim=(2, 3)) for weights in out.reading.values())
    close(total, torch.ones_like(total))
    assert all(bool((weights >= 0).all()) for weights in out.reading.values())


@every
def test_the_seed_decides_the_weights_and_the_global_random_state_is_left_alone(kind: type[Mixer]) -> None:
    before = torch.get_rng_state()
    first, again, other = (built(kind, seed).state_dict() for seed in (3, 3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@every
def test_features_are_standardised_from_the_training_part_alone(kind: type[Mixer]) -> None:
    parts = {"train": torch.arange(4), "test": torch.arange(4, B)}
    split = kind.for_grids(GridSet(GRIDS, parts=parts), num_classes=T, width=WIDTH, components=5)
    few = kind.for_grids(GridSet([grid[:4] for grid in GRIDS]), num_classes=T, width=WIDTH, components=5)
    for ours, theirs, whole in zip(split.projections, few.projections, built(kind).projections, strict=True):
        assert torch.equal(ours.basis, theirs.basis)
        assert not torch.equal(ours.basis, whole.basis)
    assert [tuple(part.basis.shape) for part in split.projections] == [(13, 5), (5, 5), (3, 3)]


@every
def test_a_new_model_is_in_eval_and_every_parameter_receives_gradient(kind: type[Mixer]) -> None:
    model = built(kind)
    assert not model.training
    model(GRIDS).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_works_in_other_number_types(kind: type[Mixer], dtype: torch.dtype) -> None:
    out = built(kind).to(dtype)(GRIDS, without={"lite"})
    assert out.logits.dtype == dtype
    expected = built(kind)(GRIDS, without={"lite"}).logits
    torch.testing.assert_close(out.logits.float(), expected, atol=0.1, rtol=0.1)


@every
def test_the_configuration_builds_the_same_model(kind: type[Mixer]) -> None:
    model = built(kind, seed=7, depth=1, heads=2, hidden=17)
    again = kind.of(model.config, GridSet(GRIDS), seed=7)
    assert again.config == model.config
    assert torch.equal(again(GRIDS).logits, model(GRIDS).logits)
    assert (model.config.depth, model.config.heads, model.hidden) == (1, 2, 17)
    direct = kind(
        {name: shape[0] for name, shape in SHAPES.items()}, T, width=WIDTH, components=5, grid=(2, 3), hidden=17,
        depth=1, heads=2,
    )  # fmt: skip
    assert {n: v.shape for n, v in direct.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}


def test_the_one_grid_has_the_fewest_rows_and_the_fewest_columns() -> None:
    assert built(Add).config.grid == (2, 3)
    assert built(Add, grids=GRIDS[1:]).config.grid == (2, 3)
    assert built(Add, grids=[GRIDS[0], GRIDS[2]]).config.grid == (4, 3)


@pytest.mark.parametrize("kind", [Add, Multiply, Combo])
def test_a_model_says_what_it_resamples(kind: type[Mixer]) -> None:
    assert "larger grids are resampled to 2 × 3" in repr(built(kind))


@every
def test_a_model_prints_as_what_it_is(kind: type[Mixer]) -> None:
    said = repr(built(kind))
    assert said.startswith(f"{kind.__name__}: 3 backbones → ") and "→ 3 classes" in said
    assert "vit   5 channels" in said
    learned = sum(parameter.numel() for parameter in built(kind).parameters())
    assert f"{learned:,} parameters" in said
    assert max(map(len, said.splitlines())) < 120


@every
def test_what_does_not_fit_is_named(kind: type[Mixer]) -> None:
    with pytest.raises(ValueError, match="num_classes: got 1; expected 2 or more"):
        kind.for_grids(GridSet(GRIDS), num_classes=1)
    with pytest.raises(ValueError, match="this model knows lite, vit, cnn"):
        built(kind)([grid("swin", (3, 2, 2))])


def test_classes_come_from_the_set_where_they_fit() -> None:
    labelled = GridSet(GRIDS, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1], classes=["cat", "dog", "owl"])
    assert Concat.for_grids(labelled, num_classes=T).classes == ("cat", "dog", "owl")
    assert Concat.for_grids(labelled, num_classes=5).classes == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("kind", [Add, Multiply, Gated])
def test_a_lone_backbone_cannot_be_mixed(kind: type[Mixer]) -> None:
    with pytest.raises(ValueError, match=rf"backbones: got only vit for {kind.__name__}; .* or use mix\('single', …\)"):
        built(kind, grids=GRIDS[1:2])


@pytest.mark.parametrize("kind", [Linear, Concat, Sva, Combo])
def test_the_others_take_a_lone_backbone(kind: type[Mixer]) -> None:
    assert built(kind, grids=GRIDS[1:2])(GRIDS[1:2]).logits.shape == (B, T)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("width", 0, "width: got 0; expected 1 or more"),
        ("hidden", 0, "hidden: got 0; expected 1 or more"),
        ("depth", -1, "depth: got -1; expected 1 or more"),
        ("heads", 0, "heads: got 0; expected 1 or more"),
        ("components", 0, "components: got 0; expected 1 or more"),
        ("grid", (0, 2), r"grid: got \(0, 2\); expected rows and columns, each 1 or more"),
    ],
)
def test_a_configuration_out_of_range_is_named(field: str, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MixConfig((("lite", 13),), T, **{field: value})


@pytest.mark.parametrize("kind", [Sva, Combo])
def test_heads_divide_the_width(kind: type[Mixer]) -> None:
    with pytest.raises(ValueError, match="width: got 8 for 3 heads; expected a multiple"):
        built(kind, heads=3)
