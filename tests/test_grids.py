"""A feature grid knows where its patches lie and refuses what is none; a set of them holds one batch."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grafeat.grids import WHOLE, Box, FeatureGrid, GridSet, check_grids, patch_boxes, patch_centres

B, C, H, W = 7, 5, 2, 3

sides = st.integers(1, 13)
intervals = st.tuples(st.integers(0, 63), st.integers(1, 64)).filter(lambda ends: ends[0] < ends[1])
fields = st.builds(lambda x, y: tuple(end / 64 for end in (x[0], y[0], x[1], y[1])), intervals, intervals)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*(shape or (B, C, H, W)), generator=torch.Generator().manual_seed(seed))


def grid_set(**more: object) -> GridSet:
    grids = [FeatureGrid("lite", features()), FeatureGrid("vit", features(B, 11, 1, 5), (0.0, 0.0, 0.5, 1.0))]
    return GridSet(grids, **more)


# Where patches lie


def test_boxes_of_a_small_grid_by_hand() -> None:
    assert patch_boxes((2, 2)).tolist() == [
        [0, 0, 0.5, 0.5],
        [0.5, 0, 1, 0.5],
        [0, 0.5, 0.5, 1],
        [0.5, 0.5, 1, 1],
    ]
    assert patch_boxes((1, 2), (0.5, 0.25, 1.0, 0.75)).tolist() == [
        [0.5, 0.25, 0.75, 0.75],
        [0.75, 0.25, 1, 0.75],
    ]
    assert patch_centres((1, 2), (0.5, 0.25, 1.0, 0.75)).tolist() == [[0.625, 0.5], [0.875, 0.5]]


@given(sides, sides, fields)
def test_boxes_tile_the_field_exactly(h: int, w: int, field: Box) -> None:
    boxes = patch_boxes((h, w), field).unflatten(0, (h, w))  # rows run down, columns across
    x0, y0, x1, y1 = boxes.unbind(-1)
    assert torch.equal(x1[:, :-1], x0[:, 1:])  # neighbours share their edge to the bit
    assert torch.equal(y1[:-1], y0[1:])
    for edge, value in ((x0[:, 0], field[0]), (y0[0], field[1]), (x1[:, -1], field[2]), (y1[-1], field[3])):
        assert torch.equal(edge, torch.full_like(edge, value))
    for side, length, parts in ((x1 - x0, field[2] - field[0], w), (y1 - y0, field[3] - field[1], h)):
        torch.testing.assert_close(side, torch.full_like(side, length / parts), rtol=1e-4, atol=1e-6)


@given(sides, sides, fields)
def test_a_centre_is_the_middle_of_its_box(h: int, w: int, field: Box) -> None:
    grid = FeatureGrid("lite", features(1, 1, h, w), field)
    corners = grid.boxes.view(-1, 2, 2)
    torch.testing.assert_close(grid.centres, corners.mean(dim=1))
    assert len(grid.boxes) == len(grid.centres) == h * w


def test_patches_are_listed_as_features_are_flattened() -> None:
    """The patch at (row, column) of the features is the one whose box lies there."""
    columns = torch.arange(W).expand(H, W)
    rows = torch.arange(H)[:, None].expand(H, W)
    places = torch.stack([columns, rows]).unsqueeze(0).float()  # (1, 2, h, w): each patch holds its (x, y)
    flat = places.flatten(2)[0].mT
    torch.testing.assert_close(FeatureGrid("lite", places).boxes[:, :2] * torch.tensor([W, H]), flat)


# One backbone's grid


def test_a_grid_says_what_it_is() -> None:
    grid = FeatureGrid("lite", features())
    assert (grid.name, grid.channels, grid.shape, len(grid), grid.field) == ("lite", C, (H, W), B, WHOLE)
    assert repr(grid) == f"FeatureGrid('lite', {B} × {C} × {H} × {W}, float32)"
    assert "field=(0.0, 0.0, 0.5, 1.0)" in repr(FeatureGrid("lite", features(), (0.0, 0.0, 0.5, 1.0)))


def test_a_grid_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FeatureGrid("lite", features()).name = "vit"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_will_do_and_can_be_changed(dtype: torch.dtype) -> None:
    grid = FeatureGrid("lite", features().to(dtype), (0.0, 0.5, 1.0, 1.0))
    other = grid.to("cpu", torch.float32)
    assert other.features.dtype == torch.float32
    assert (other.name, other.field) == (grid.name, grid.field)
    assert torch.equal(other.features, grid.features.float())


def test_a_grid_cannot_become_whole_numbers(unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"backbone 'lite' gave torch\.int8; expected a floating-point"):
        FeatureGrid("lite", features()).to(dtype=torch.int8)


def test_slices_of_a_grid_are_views_of_the_same_place() -> None:
    grid = FeatureGrid("lite", features(), (0.25, 0.0, 1.0, 1.0))
    part = grid[2:5]
    assert part.features.data_ptr() == grid.features[2].data_ptr()
    assert (len(part), part.name, part.field) == (3, "lite", grid.field)
    for index, expected in (
        (-1, [6]),
        ([4, 1], [4, 1]),
        (torch.tensor([3, 3]), [3, 3]),
        (slice(None, 2), [0, 1]),
    ):
        assert torch.equal(grid[index].features, grid.features[expected])
    with pytest.raises(IndexError, match="index: got 7, but the set has 7 pictures"):
        grid[B]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_names_the_backbone_and_the_place(bad: float) -> None:
    broken = features()
    broken[3, 4, 1, 2] = broken[5, 0, 0, 0] = bad
    total = broken.numel()
    with pytest.raises(
        ValueError,
        match=rf"features: backbone 'lite' has NaN or infinity \(2 of {total} values, the first at picture 3,"
        r" channel 4, patch \(1, 2\)\); expected finite numbers; check its weights",
    ):
        FeatureGrid("lite", broken)


def test_opposite_infinities_are_found_and_finite_values_whose_sum_is_infinite_are_fine() -> None:
    features = torch.zeros(B, C, H, W)
    features[3, 4, 1, 2], features[5, 0, 0, 0] = math.inf, -math.inf
    with pytest.raises(ValueError, match=r"NaN or infinity \(2 of"):
        FeatureGrid("lite", features)
    assert FeatureGrid("lite", torch.full((B, C, H, W), torch.finfo(torch.float32).max)).shape == (H, W)


def test_a_trusted_grid_is_not_read_but_its_form_is_checked(unchecked: None) -> None:
    broken = features().fill_(math.nan)
    assert FeatureGrid.trusted("lite", broken).features is broken
    with pytest.raises(ValueError, match=r"backbone 'lite' gave shape \(2, 3\)"):
        FeatureGrid.trusted("lite", torch.zeros(2, 3))


@pytest.mark.parametrize(
    "shape", [(C, H, W), (B, C), (1, B, C, H, W), (B, 0, H, W), (B, C, 0, W), (B, C, H, 0)]
)
def test_a_wrong_shape_is_named(shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(
        ValueError, match=r"backbone 'lite' gave shape \(.*\); expected \(b, c, h, w\)"
    ) as error:
        FeatureGrid("lite", torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (torch.zeros(B, C, H, W, dtype=torch.int64), "torch.int64"),
        (torch.zeros(B, C, H, W, dtype=torch.complex64), "torch.complex64"),
        (np.zeros((B, C, H, W)), "ndarray"),
        ([[0.0]], "list"),
    ],
)
def test_a_wrong_type_is_named(given: object, kind: str, unchecked: None) -> None:
    with pytest.raises(
        TypeError, match=f"backbone 'lite' gave {kind}; expected a floating-point tensor; conv"
    ):
        FeatureGrid("lite", given)


@pytest.mark.parametrize(
    "field",
    [
        (0, 0, 1),
        (0.5, 0, 0.5, 1),
        (0, 0.6, 1, 0.5),
        (-0.1, 0, 1, 1),
        (0, -0.1, 1, 1),
        (0, 0, 1.1, 1),
        (0, 0, 1, 1.1),
        (0, math.nan, 1, 1),
    ],
)
def test_a_field_that_is_no_box_of_the_picture_is_named(field: tuple[float, ...], unchecked: None) -> None:
    with pytest.raises(
        ValueError, match=r"field: got \(.*\) for backbone 'lite'; expected \(x0, y0, x1, y1\)"
    ):
        FeatureGrid("lite", features(), field)


# The grids of several backbones


def test_a_set_gives_each_grid_by_name_and_all_in_order() -> None:
    grids = grid_set()
    assert grids.names == ("lite", "vit")
    assert tuple(grid.name for grid in grids.grids) == grids.names
    assert torch.equal(grids["vit"].features, features(B, 11, 1, 5))
    assert grids["vit"].field == (0.0, 0.0, 0.5, 1.0)
    assert len(grids) == B
    with pytest.raises(
        ValueError, match="name: got 'vti', but the backbones here are lite, vit; use one of them"
    ):
        grids["vti"]


def test_choosing_pictures_chooses_them_in_every_grid_and_in_the_labels() -> None:
    grids = grid_set(labels=range(B))
    for index in (slice(1, 4), [5, 0, 2], torch.arange(B) % 2 == 0, 3):
        chosen = grids[index]
        rows = torch.arange(B)[[index] if isinstance(index, int) else index]
        assert chosen.labels.tolist() == rows.tolist()
        for name in grids.names:
            assert torch.equal(chosen[name].features, grids[name].features[rows])


def test_consecutive_pictures_of_a_file_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "grid.bin"
    features().numpy().tofile(path)
    mapped = torch.from_file(str(path), shared=True, size=B * C * H * W).view(B, C, H, W)
    part = GridSet([FeatureGrid.trusted("lite", mapped)])[2:6][1:]["lite"].features
    assert part.data_ptr() == mapped[3].data_ptr()
    mapped[3] = 17.0
    assert (
        np.fromfile(path, np.float32).reshape(B, -1)[3].tolist()
        == part[0].flatten().tolist()
        == [17.0] * C * H * W
    )


def test_a_set_takes_the_parts_it_is_given() -> None:
    grids = grid_set(labels=range(B), parts={"train": torch.tensor([5, 2]), "test": torch.tensor([0])})
    assert grids.parts == {"train": 2, "test": 1}
    assert torch.equal(grids.train["lite"].features, features()[[5, 2]])
    assert grids.train.labels.tolist() == [5, 2]


def test_backbones_are_left_out_or_picked_and_the_parts_stay() -> None:
    grids = grid_set(labels=[0, 1] * 3 + [0]).split(val=0.2, test=0.3)
    for fewer in (grids.without("lite"), grids.only("vit")):
        assert fewer.names == ("vit",)
        assert fewer.parts == grids.parts
        assert torch.equal(fewer.train["vit"].features, grids.train["vit"].features)
    assert grids.only("vit", "lite").names == ("vit", "lite")
    assert grids.without().names == grids.names == ("lite", "vit")
    for refused in (lambda: grids.without("lite", "vit"), lambda: grids.only()):
        with pytest.raises(ValueError, match="grids: got none; expected at least one FeatureGrid"):
            refused()
    for refused in (lambda: grids.without("vti"), lambda: grids.only("vti")):
        with pytest.raises(ValueError, match="name: got 'vti', but the backbones here are lite, vit"):
            refused()


def test_single_vectors_are_counted_picture_by_picture_and_row_by_row() -> None:
    """Patch 7 of pictures 5, 2, 3 with 2 × 3 patches each is the second picture's: row 0, column 1 of picture 2."""
    found = grid_set()[[5, 2, 3]].vectors("lite", torch.tensor([7, 0, 17]))
    expected = [features()[2, :, 0, 1], features()[5, :, 0, 0], features()[3, :, 1, 2]]
    assert torch.equal(found, torch.stack(expected))
    with pytest.raises(ValueError, match="name: got 'nat', but the backbones here are lite, vit; use one of them"):
        grid_set().vectors("nat", torch.tensor([0]))


def test_a_set_prints_what_it_holds() -> None:
    printed = repr(grid_set(labels=[0, 1, 2, 1, 0, 1, 2]).split(val=0, test=0.4))
    assert printed.splitlines()[0] == f"GridSet: {B} pictures (4 train, 0 val, 3 test), 3 classes"
    assert printed.splitlines()[1].split() == ["lite", str(C), "×", str(H), "×", str(W), "float32"]
    assert repr(grid_set()).splitlines()[0] == f"GridSet: {B} pictures, no labels"


def test_two_backbones_of_one_name_are_refused() -> None:
    grids = [FeatureGrid("lite", features()), FeatureGrid("vit", features()), FeatureGrid("lite", features())]
    with pytest.raises(ValueError, match=r"grids: the name 'lite' is there twice; .*another with name="):
        GridSet(grids)


def test_unequal_batches_are_refused_with_both_shapes() -> None:
    grids = [FeatureGrid("lite", features()), FeatureGrid("vit", features(B - 1, 11, 1, 5))]
    with pytest.raises(ValueError, match=r"unequal batches \(lite \(7, 5, 2, 3\), vit \(6, 11, 1, 5\)\)"):
        GridSet(grids)


def test_what_is_no_list_of_grids_is_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="grids: got none; expected at least one FeatureGrid"):
        GridSet([])
    with pytest.raises(TypeError, match=r"grids: got a single FeatureGrid; .*put it into a list"):
        GridSet(FeatureGrid("lite", features()))
    with pytest.raises(TypeError, match="grids: got Tensor among them; expected FeatureGrid; wrap it"):
        check_grids([FeatureGrid("lite", features()), features()])


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (range(B - 1), "labels: got 6 for 7 pictures"),
        ([0] * (B - 1) + [3], "labels: got 3 at picture 6; expected 0 to 2, as there are 3 classes"),
        ([0, -2] + [0] * (B - 2), "labels: got -2 at picture 1; expected 0 to 2"),
    ],
)
def test_labels_that_do_not_fit_the_grids_are_refused(labels: list[int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        grid_set(labels=labels, classes=("ant", "bee", "cow"))
