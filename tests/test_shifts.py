"""A shift changes what it says, as much as it says, and alike for the same picture wherever it stands."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import rotate
from torch import Tensor

import grafeat as gf
from grafeat.pictures import PictureSet
from grafeat.shifts import GREY, SHIFTS, shifted

KINDS = tuple(SHIFTS)


def made(count: int = 7, channels: int = 3, height: int = 29, width: int = 37) -> PictureSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    parts = {"train": torch.tensor([5, 0]), "val": torch.tensor([3]), "test": torch.tensor([6, 1])}
    return PictureSet(pixels, torch.arange(count) % 3, classes=["a", "b", "c"], name="made", parts=parts)


def one(picture: Tensor) -> PictureSet:
    return PictureSet(picture[None])


@pytest.mark.parametrize("kind", KINDS)
def test_labels_classes_and_parts_stay_and_pictures_change(kind: str) -> None:
    before, after = made(), shifted(made(), kind)
    assert after.pictures.shape == (7, 3, 29, 37)
    assert torch.equal(after.labels, before.labels) and after.classes == before.classes
    assert {part: rows.tolist() for part, rows in after.part_positions.items()} == {
        "train": [5, 0],
        "val": [3],
        "test": [6, 1],
    }
    assert after.name == f"made, {kind}"
    changed = (after.pictures - before.pictures).abs().flatten(1).amax(dim=1)
    assert bool((changed > 0.1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_shifted_alike_in_every_subset_order_and_form(kind: str) -> None:
    every = made()
    whole = shifted(every, kind, seed=3).pictures
    rows = [4, 1, 6]
    assert torch.equal(shifted(every[rows], kind, seed=3).pictures, whole[rows])
    as_list = PictureSet([picture.clone() for picture in every.pictures])  # floats, one by one
    assert torch.equal(shifted(as_list, kind, seed=3).pictures, whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "blur"])
def test_seeds_and_pictures_differ_and_the_global_state_stays(kind: str) -> None:
    grey = PictureSet(torch.stack([torch.full((1, 29, 37), 0.4), torch.full((1, 29, 37), 0.4 + 1e-6)]))
    ramp = torch.linspace(0, 1, 37).expand(1, 29, 37)
    before = torch.random.get_rng_state()
    first, again, other = (shifted(one(ramp), kind, seed=seed).pictures for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    if kind != "rotation":  # of an even grey nothing can be seen to turn
        a, b = shifted(grey, kind).pictures
        assert not torch.equal(a, b)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_leaves_pictures_as_they_are(kind: str) -> None:
    assert torch.equal(shifted(made(), kind, strength=0).pictures, made().pictures)


@pytest.mark.parametrize("kind", KINDS)
def test_grey_stays_grey_and_sizes_may_differ(kind: str) -> None:
    sizes = [(1, 11, 13), (1, 17, 19)]
    pictures = PictureSet([torch.rand(size, generator=torch.Generator().manual_seed(2)) for size in sizes])
    for size, picture in zip(sizes, shifted(pictures, kind).pictures, strict=True):
        assert picture.shape == (3, *size[1:])
        assert torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2])


def test_a_rotation_turns_as_scikit_images() -> None:
    """A smooth picture that is no square, whose angle is found by trying."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 61), torch.linspace(0, 5, 83), indexing="ij")
    picture = (0.5 + 0.5 * torch.sin(2 * x + y) * torch.cos(y * 1.5)).expand(1, -1, -1)
    turned = shifted(one(picture), "rotation", strength=40, seed=5).pictures[0, 0].double().numpy()
    inner = (slice(18, -18), slice(25, -25))

    def difference(angle: float) -> float:
        return float(np.abs(rotate(picture[0].double().numpy(), angle, mode="edge")[inner] - turned[inner]).max())

    angles = np.linspace(-40, 40, 801)
    found = min(angles, key=difference)
    assert difference(found) < 0.01
    assert abs(found) > 2 and difference(-found) > 0.1  # it was turned, and the other way is another


def test_angles_are_spread_evenly_up_to_the_strength() -> None:
    """A bar through the middle, whose angle the second moments tell."""
    bars = torch.zeros(101, 1, 41, 41)
    bars[:, :, 19:22, 4:37] = 1
    bars[:, 0, 0, 0] = torch.linspace(0, 0.05, 101)  # so that pictures differ
    turned = shifted(PictureSet(bars), "rotation", strength=60).pictures[:, 0]
    y, x = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    xx, yy, xy = ((turned * moment).sum(dim=(1, 2)) for moment in (x * x, y * y, x * y))
    angles = torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy))
    assert angles.abs().max() < 62
    assert angles.min() < -45 and angles.max() > 45 and angles.mean().abs() < 12
    assert angles.std() == pytest.approx(120 / math.sqrt(12), rel=0.2)


def test_noise_has_its_deviation_on_every_pixel() -> None:
    grey = shifted(one(torch.full((1, 97, 101), 0.5)), "noise", strength=0.1).pictures[0]
    coloured = torch.full((3, 97, 101), 0.5)
    coloured[0, 0, 0] = 0.6
    noise = shifted(one(coloured), "noise", strength=0.1).pictures[0] - 0.5
    assert float(grey[0].std()) == pytest.approx(0.1, rel=0.03)
    assert noise.std(dim=(1, 2)).tolist() == pytest.approx([0.1] * 3, rel=0.03)
    assert torch.corrcoef(noise.flatten(1)).triu(1).abs().max() < 0.05  # each colour its own


def test_noise_is_cut_at_black_and_white() -> None:
    black = shifted(one(torch.zeros(1, 31, 37)), "noise", strength=0.5).pictures
    assert black.min() == 0 and 0.4 < float((black == 0).double().mean()) < 0.6


def test_an_occlusion_is_one_grey_square_of_its_size_anywhere_inside() -> None:
    black = torch.zeros(53, 1, 29, 37)
    black[:, 0, 0, 0] = torch.linspace(0, 0.4, 53)  # so that pictures differ
    hidden = (shifted(PictureSet(black), "occlusion", strength=0.4).pictures[:, 0] - GREY).abs() < 0.01
    assert hidden.sum(dim=(1, 2)).tolist() == [12 * 12] * 53  # 0.4 of 29
    rows, columns = hidden.any(dim=2), hidden.any(dim=1)
    assert rows.sum(dim=1).tolist() == columns.sum(dim=1).tolist() == [12] * 53
    tops, lefts = rows.double().argmax(dim=1), columns.double().argmax(dim=1)
    assert len(set(tops.tolist())) > 11 and len(set(lefts.tolist())) > 11
    assert bool(shifted(PictureSet(black[:1]), "occlusion", strength=1).pictures[0, 0, :29].eq(128 / 255).any())


def test_a_blur_is_scipys_gaussian() -> None:
    picture = torch.rand(1, 31, 43, generator=torch.Generator().manual_seed(1))
    found = shifted(one(picture), "blur", strength=0.05).pictures[0, 0]
    expected = ndimage.gaussian_filter(picture[0].double().numpy(), 0.05 * 31, mode="mirror", truncate=4)
    assert np.abs(found.numpy() - expected).max() < 0.01
    assert float(found.std()) < 0.4 * float(picture.std())


def test_a_blur_of_the_smallest_pictures() -> None:
    assert torch.equal(shifted(one(torch.ones(1, 1, 5)), "blur").pictures, torch.ones(1, 3, 1, 5))
    assert shifted(one(torch.rand(1, 2, 3)), "blur", strength=1).pictures.shape == (1, 3, 2, 3)


def test_it_is_public_and_takes_pictures_without_labels() -> None:
    assert gf.shifted is shifted
    assert shifted(one(torch.rand(3, 5, 7)), "noise").labels is None


@pytest.mark.parametrize(
    ("kind", "strength"), [("rotation", 181), ("noise", -0.1), ("blur", 1.5), ("occlusion", math.nan)]
)
def test_a_strength_out_of_range_is_named(kind: str, strength: float) -> None:
    with pytest.raises(ValueError, match=rf"strength: got {strength} for '{kind}'; expected 0 to .*; leave it out"):
        shifted(made(), kind, strength=strength)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"kind: got 'rotate'; expected one of rotation, .* closest is 'rotation'"):
        shifted(made(), "rotate")
