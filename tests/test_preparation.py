"""How pictures are prepared: against Pillow's resizing, and every kind of picture that is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch import Tensor

from grafeat.backbones.preparation import Crop, Preparation

LIKE = torch.empty(0)
PICTURES = torch.rand(2, 3, 11, 17, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(112, 112), (61, 89), (500, 601)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_whole_picture_is_resized_as_pillow_does(size: tuple[int, int], interpolation: str) -> None:
    cat = data.chelsea()
    expected = Image.fromarray(cat).resize(size[::-1], getattr(Image.Resampling, interpolation.upper()))
    prepared = Preparation("cat", size, interpolation=interpolation)
    found = prepared(torch.tensor(cat).permute(2, 0, 1)[None] / 255, LIKE)[0].permute(1, 2, 0) * 255
    assert np.abs(found.numpy() - np.asarray(expected)).max() < 1.5  # Pillow rounds twice, to whole numbers


def test_nothing_is_done_that_was_not_asked_for() -> None:
    assert torch.equal(Preparation("plain")(PICTURES, LIKE), PICTURES)
    assert torch.equal(Preparation("same", (11, 17))(PICTURES, LIKE), PICTURES)


def test_normalisation_by_hand() -> None:
    pictures = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    found = Preparation("n", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))(pictures, LIKE)
    assert found.flatten().tolist() == [-1, 1, 0.5]


def test_interpolation_does_not_overshoot() -> None:
    edge = torch.zeros(1, 3, 5, 5)
    edge[..., 2:] = 1
    found = Preparation("edge", (23, 23))(edge, LIKE)
    assert found.min() == 0 and found.max() == 1


def test_grey_pictures_are_resized_once_and_come_out_the_same() -> None:
    grey = PICTURES[:, :1].expand(-1, 3, -1, -1)
    prepare = Preparation("grey", (23, 29), mean=(0.5, 0.25, 0.1), std=(0.5, 0.25, 2.0))
    assert torch.equal(prepare(grey, LIKE), prepare(grey.contiguous(), LIKE))


def test_each_channel_of_a_grey_picture_gets_its_own_gradient() -> None:
    grey = PICTURES[:, :1].expand(-1, 3, -1, -1).requires_grad_()
    weights = torch.tensor([2.0, 3.0, 5.0])[:, None, None]
    (gradient,) = torch.autograd.grad((Preparation("grey", (23, 29))(grey, LIKE) * weights).sum(), grey)
    torch.testing.assert_close(gradient / weights, gradient[:, :1].expand(-1, 3, -1, -1) / 2)
    assert gradient.abs().sum() > 0


def test_type_and_device_are_those_of_the_weights() -> None:
    assert Preparation("half")(PICTURES, torch.empty(0, dtype=torch.float64)).dtype == torch.float64


def test_pictures_of_unequal_sizes_are_brought_to_one() -> None:
    pictures = [torch.rand(3, 7, 5), torch.rand(3, 11, 13)]
    prepared = Preparation("list", (3, 2))
    expected = torch.cat([prepared(picture[None], LIKE) for picture in pictures])
    assert torch.equal(prepared(pictures, LIKE), expected)
    with pytest.raises(
        ValueError, match=r"pictures: got 11×13 and 7×5 for backbone 'own'.*give the backbone a size="
    ):
        Preparation("own")(pictures, LIKE)
    with pytest.raises(ValueError, match=r"pictures: got none"):
        Preparation("own")([], LIKE)


# Views


def test_the_view_comes_first() -> None:
    prepared = Preparation("left", (4, 4), view=lambda pictures: pictures[..., :5])
    assert torch.equal(prepared(PICTURES, LIKE), Preparation("all", (4, 4))(PICTURES[..., :5], LIKE))


@pytest.mark.parametrize(
    "view", [lambda pictures: pictures[0], lambda pictures: pictures[:1], lambda pictures: None]
)
def test_a_view_keeps_the_batch(view: object) -> None:
    with pytest.raises(ValueError, match=r"view: gave .* for pictures \(2, 3, 11, 17\) of backbone 'viewed'"):
        Preparation("viewed", view=view)(PICTURES, LIKE)


def test_a_crop_by_hand() -> None:
    pictures = torch.arange(24.0).view(1, 1, 4, 6).expand(2, 3, 4, 6)
    crop = Crop(0.5, 0.25, 1, 0.75)
    assert crop(pictures)[1, 2].tolist() == [[9, 10, 11], [15, 16, 17]]
    assert crop.field == (0.5, 0.25, 1, 0.75)


@given(st.floats(0, 0.999), st.floats(0, 0.999), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_crop_is_never_empty(x0: float, y0: float, x1: float, y1: float) -> None:
    if x0 < x1 and y0 < y1:
        assert min(Crop(x0, y0, x1, y1)(PICTURES).shape) >= 1
    else:
        with pytest.raises(ValueError, match=r"Crop\(x0=.*expected 0 ≤ x0 < x1 ≤ 1"):
            Crop(x0, y0, x1, y1)


# What is refused

REFUSED = {
    "one picture": (
        PICTURES[0],
        ValueError,
        r"shape \(3, 11, 17\) for backbone 'b'; expected \(b, 3, H, W\); try pictures\[",
    ),
    "grey": (PICTURES[:, :1], ValueError, r"shape \(2, 1, 11, 17\).*try pictures\.expand"),
    "channels last": (
        PICTURES.permute(0, 2, 3, 1),
        ValueError,
        r"shape \(2, 11, 17, 3\).*expected \(b, 3, H, W\)",
    ),
    "none": (PICTURES[:0], ValueError, r"shape \(0, 3, 11, 17\)"),
    "bytes": (
        (PICTURES * 255).byte(),
        TypeError,
        r"torch\.uint8 for backbone 'b'; expected floats in \[0, 1\]; .* / 255",
    ),
    "0 to 255": (
        PICTURES * 255,
        ValueError,
        r"values from .* to 25.*expected finite values in \[0, 1\]; .*pictures / 255",
    ),
    "normalised": (PICTURES * 4 - 2, ValueError, r"values from -.* before normalisation"),
    "NaN": (
        PICTURES.clone().index_fill(3, torch.tensor([5]), torch.nan),
        ValueError,
        "got NaN or infinity for backbone 'b'",
    ),
    "infinity": (
        PICTURES.clone().index_fill(2, torch.tensor([3]), torch.inf),
        ValueError,
        "got NaN or infinity",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_pictures(what: str) -> None:
    pictures, kind, message = REFUSED[what]
    with pytest.raises(kind, match=message):
        Preparation("b", (8, 8))(pictures, LIKE)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("pictures", [[np.zeros((3, 4, 4))], "cat.png"])
def test_what_is_no_tensor(pictures: object) -> None:
    with pytest.raises(TypeError, match=r"pictures: got (ndarray|str) for backbone 'b'; expected a tensor"):
        Preparation("b", (8, 8))(pictures, LIKE)


SETTINGS = {
    "size": ({"size": (0, 5)}, r"size: got \(0, 5\); expected positive pixels"),
    "interpolation": (
        {"interpolation": "cubic"},
        r"interpolation: got 'cubic'; expected nearest, bilinear, bicubic",
    ),
    "mean alone": (
        {"mean": (0.5, 0.5, 0.5)},
        r"mean, std: got \(0\.5, 0\.5, 0\.5\) and None.*give both or none",
    ),
    "std of 0": ({"mean": (0.5,), "std": (0.0,)}, r"std above 0"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_bad_settings(what: str) -> None:
    settings, message = SETTINGS[what]
    with pytest.raises(ValueError, match=message):
        Preparation("b", **settings)


def test_slightly_outside_is_fine() -> None:
    pictures = torch.tensor([-0.0005, 0.5, 1.0005]).view(1, 3, 1, 1)
    assert isinstance(Preparation("rounded")(pictures.half(), LIKE), Tensor)
