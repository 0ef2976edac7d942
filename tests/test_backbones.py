"""Backbones: frozen, by hand on modules small enough to read, and their errors."""

import re

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from grafeat.backbones.backbone import Backbone, Crop
from grafeat.grids import WHOLE, FeatureGrid

PICTURES = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))


def body(seed: int = 0, **options: object) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        deep = nn.Sequential(
            nn.Conv2d(3, 7, 3, 2, 1, **options), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 11, 3, 2, 1)
        )
        return nn.Sequential(deep, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(11, 5))


def vit(**options: object) -> nn.Module:
    return timm.create_model("test_vit", img_size=(64, 96), **options)


# What it gives


def test_a_grid_by_hand() -> None:
    means = nn.Conv2d(3, 5, (2, 4), (2, 4), bias=False)
    with torch.no_grad():
        means.weight.copy_(torch.arange(5.0).view(5, 1, 1, 1) / 24)
    pictures = torch.zeros(1, 3, 4, 8)
    pictures[:, :, 2:, 4:] = 1
    grid = Backbone(nn.Sequential(means), name="means")(pictures)
    assert isinstance(grid, FeatureGrid) and (grid.name, grid.field) == ("means", WHOLE)
    assert torch.allclose(grid.features[0], torch.tensor([[[0.0, 0], [0, k]] for k in range(5)]))


def test_features_are_the_modules_own() -> None:
    module = body().eval()
    found = Backbone(module, name="b", tap="0", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))(PICTURES).features
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(found, module[0]((PICTURES - mean) / std))
    assert found.is_contiguous() and not found.requires_grad


def test_the_border_of_the_picture_is_seen() -> None:
    backbone = Backbone(nn.Sequential(nn.Conv2d(3, 1, 4, 4)), name="corners", size=32)
    dark = torch.zeros(1, 3, 64, 96)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        lit = dark.clone()
        lit[:, :, row, column] = 1
        changed = (backbone(lit).features != backbone(dark).features)[0, 0]
        assert changed[row, column] and changed.sum() == 1


def test_pictures_of_any_size_where_none_is_set() -> None:
    backbone = Backbone(body(), name="any")
    assert "grid follows the picture, tap found at the first call" in repr(backbone)
    assert [backbone(torch.rand(1, 3, *size)).shape for size in ((20, 28), (9, 33))] == [(5, 7), (3, 9)]
    assert (backbone.tap, backbone.size, backbone.grid((12, 40)), backbone.channels) == (
        "0",
        None,
        (3, 10),
        11,
    )
    with pytest.raises(
        ValueError, match=r"size: backbone 'any' has none; expected pixels; ask for grid\(size\)"
    ):
        backbone.grid()
    with pytest.raises(ValueError, match=r"size: backbone 'new' has none"):
        _ = Backbone(body(), name="new").channels


def test_pictures_of_unequal_sizes_where_one_is_set() -> None:
    backbone = Backbone(body(), name="one", size=(16, 24))
    pictures = [torch.rand(3, 9, 31), torch.rand(3, 50, 20)]
    found = backbone(pictures).features
    assert found.shape == (2, 11, 4, 6)
    torch.testing.assert_close(found[1:], backbone(pictures[1][None]).features)


def test_what_it_knows_of_itself() -> None:
    backbone = Backbone(
        body(), name="small", size=20, licence="MIT", source="made here", view=Crop(0, 0.5, 1, 1)
    )
    assert (backbone.channels, backbone.grid(), backbone.grid(99), backbone.size) == (
        11,
        (5, 5),
        (5, 5),
        (20, 20),
    )
    assert repr(backbone) == (
        "Backbone('small': 11 × 5 × 5 at 20 × 20 px, tap 0, view Crop(x0=0, y0=0.5, x1=1, y1=1), licence MIT, "
        "weights made here)"
    )


def test_patches_of_a_transformer_without_its_prefix_tokens() -> None:
    module = vit().eval()
    pictures = torch.rand(2, 3, 64, 96)
    backbone = Backbone(module, name="vit", size=(64, 96))
    with torch.no_grad():
        expected = module.forward_features(pictures)[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    assert backbone.tap == "forward_intermediates"
    torch.testing.assert_close(backbone(pictures).features, expected)
    assert (
        Backbone(module, name="early", tap="blocks.1", size=(64, 96)).tap
        == "blocks.1 (tokens, the first 1 dropped)"
    )


def test_declared_prefix_and_layout_are_handed_on() -> None:
    pictures = torch.rand(1, 3, 20, 20)
    square = nn.Sequential(nn.Conv2d(3, 5, 4, 4))  # 5 × 5 × 5 reads both ways
    assert torch.equal(Backbone(square, name="s", layout="NCHW")(pictures).features, square(pictures))
    flat = nn.Sequential(
        nn.Unfold(4, stride=4), nn.Flatten(2), nn.Linear(25, 50)
    )  # (b, 48, 50), as 48 tokens
    assert Backbone(flat, name="f", tap="2", prefix_tokens=12)(torch.rand(1, 3, 20, 20)).features.shape == (
        1,
        50,
        6,
        6,
    )


def test_views_let_backbones_see_different_things() -> None:
    module = body()
    left, right = (Backbone(module, name=str(x), size=16, view=Crop(x, 0, x + 0.5, 1)) for x in (0.0, 0.5))
    mirrored = Backbone(module, name="m", size=16, view=lambda pictures: pictures.flip(-1)[..., :14])
    assert (left(PICTURES).field, mirrored(PICTURES).field) == ((0, 0, 0.5, 1), WHOLE)
    torch.testing.assert_close(left(PICTURES.flip(-1)).features, mirrored(PICTURES).features)
    assert not torch.allclose(left(PICTURES).features, right(PICTURES).features)


# Frozen


def test_the_module_is_copied_and_left_as_it_was() -> None:
    module = body().train()
    backbone = Backbone(module, name="copy", size=16)
    before, statistics = backbone(PICTURES).features, module[0][1].running_mean.clone()
    assert module.training and all(weight.requires_grad for weight in module.parameters())
    assert not backbone.module.training and not any(
        weight.requires_grad for weight in backbone.module.parameters()
    )
    with torch.no_grad():
        module[0][0].weight.zero_()
    assert torch.equal(backbone(PICTURES).features, before)
    assert torch.equal(module[0][1].running_mean, statistics)


def test_gradients_flow_to_pictures_when_asked_for() -> None:
    backbone = Backbone(vit(), name="vit", size=(64, 96))
    pictures = torch.rand(2, 3, 31, 47, requires_grad=True)
    assert not backbone(pictures).features.requires_grad
    with torch.no_grad():
        features = backbone(pictures, gradients=True).features
    features.square().sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in backbone.module.parameters())


def test_pictures_do_not_influence_each_other() -> None:
    backbone = Backbone(body(), name="b", size=16)
    alone = torch.cat([backbone(picture[None]).features for picture in PICTURES])
    torch.testing.assert_close(backbone(PICTURES).features, alone)


def test_a_variant_lets_one_model_stand_twice() -> None:
    first = Backbone(body(), name="first", tap="0.1", size=16, mean=(0.5,) * 3, std=(0.5,) * 3, licence="MIT")
    second = first.variant(name="second", view=Crop(0, 0, 0.5, 1))
    assert (second.name, second.size, second.tap, second.licence) == ("second", (16, 16), "0.1", "MIT")
    torch.testing.assert_close(second(PICTURES).features, first(PICTURES[..., :14]).features)
    assert first.variant(tap="0.3").channels == 11 != first.channels


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device() -> None:
    backbone = Backbone(body(), name="b", size=16)
    features, fingerprint = backbone(PICTURES).features, backbone.fingerprint
    moved = backbone.variant().to("cuda")
    assert moved(PICTURES).features.is_cuda and moved.fingerprint == fingerprint
    torch.testing.assert_close(moved(PICTURES).features.cpu(), features, atol=1e-4, rtol=1e-4)


# Fingerprints


def test_fingerprints() -> None:
    base = {"name": "b", "size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    reference = Backbone(body(), **base).fingerprint
    alike = [{"name": "other"}, {"licence": "MIT"}, {"source": "elsewhere"}]
    assert {Backbone(body(), **base | change).fingerprint for change in alike} == {reference}
    different = [
        {"size": (16, 24)},
        {"mean": (0.4,) * 3},
        {"std": (0.4,) * 3},
        {"interpolation": "bilinear"},
        {"tap": "0.0"},
        {"view": Crop(0, 0, 0.5, 1)},
        {"view": Crop(0, 0, 1, 0.5)},
        {"view": lambda pictures: pictures.flip(-1)},
        {"view": lambda pictures: pictures.flip(-2)},
    ]
    found = {Backbone(body(), **base | change).fingerprint for change in different}
    found |= {
        Backbone(body(1), **base).fingerprint,
        Backbone(body(padding_mode="reflect"), **base).fingerprint,
    }
    assert len(found) == len(different) + 2 and not found & {reference, None}


def test_a_view_that_cannot_be_recognised_again_has_no_fingerprint() -> None:
    memory = iter(range(9))
    assert Backbone(body(), name="b", view=lambda pictures: pictures * next(memory)).fingerprint is None


def test_the_fingerprint_does_not_change_with_use() -> None:
    used, fresh = (Backbone(body(), name="b") for _ in range(2))
    used(PICTURES)
    assert used.fingerprint == fresh.fingerprint is not None


def test_the_fingerprint_is_that_of_the_weights_as_they_are_now() -> None:
    backbone = Backbone(body(), name="b", size=16)
    before = backbone.fingerprint
    backbone.module.load_state_dict(body(1).state_dict())
    assert backbone.fingerprint == Backbone(body(1), name="b", size=16).fingerprint != before


# Errors


@pytest.mark.parametrize(
    ("size", "nearest"), [(65, "64×64 and 80×80"), ((64, 90), "64×80 and 64×96"), (7, "16×16")]
)
def test_sizes_that_cut_a_patch_name_the_nearest(size: object, nearest: str) -> None:
    with pytest.raises(
        ValueError, match=rf"'vit'.*no multiple of its patches of 16×16 px.*nearest are {nearest}: give size="
    ):
        Backbone(vit(), name="vit", size=size)


@pytest.mark.parametrize("size", ["16", 16.0, (16,), (16, 16, 16), (16, 16.5), True, "ab", ()])
def test_a_size_that_is_no_pixels_is_refused_at_once(unchecked: None, size: object) -> None:
    with pytest.raises(TypeError, match=rf"^size: got {re.escape(repr(size))}; expected whole pixels, a side or"):
        Backbone(body(), name="b", size=size)


def test_whole_numbers_of_numpy_are_pixels(unchecked: None) -> None:
    sized, expected = (Backbone(body(), name="b", size=size) for size in ([np.int64(16), 24], (16, 24)))
    assert sized.size == (16, 24) and sized.fingerprint == expected.fingerprint


@pytest.mark.parametrize("name", [5, None, b"b"])
def test_a_name_that_is_no_text_is_refused_at_once(unchecked: None, name: object) -> None:
    with pytest.raises(TypeError, match=r"^name: got .*; expected a string; write what to call the backbone"):
        Backbone(body(), name=name)


def test_a_size_that_the_module_does_not_take() -> None:
    with pytest.raises(
        ValueError, match=r"backbone 'fixed' on pictures of 32×32 px: Input height \(32\) doesn't match"
    ):
        Backbone(timm.create_model("test_vit_relpos"), name="fixed", size=32)


def test_broken_weights_name_the_backbone() -> None:
    module = body()
    with torch.no_grad():
        module[0][3].bias[4] = torch.nan
    with pytest.raises(ValueError, match=r"features: backbone 'broken' has NaN or infinity"):
        Backbone(module, name="broken", size=16)


def test_an_unknown_tap() -> None:
    with pytest.raises(
        ValueError, match=r"tap: Sequential has no submodule '0\.33'; expected a dotted path such as '0\.3'"
    ):
        Backbone(body(), name="b", tap="0.33")


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_module() -> None:
    with pytest.raises(TypeError, match=r"module: got str; expected a torch\.nn\.Module"):
        Backbone("resnet18", name="b")


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name: got an empty one; expected text, by which its grids are known; name"):
        Backbone(nn.Identity(), name="")


def test_an_error_of_memory_stays_what_it_is() -> None:
    class Full(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        Backbone(Full(), name="full")(PICTURES)
