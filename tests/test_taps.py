"""Taps: on modules small enough to read, and on a model of every family of timm and torchvision, by their own calls."""

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from grafeat.backbones.sources import build_timm, find_model
from grafeat.backbones.taps import Tap, find_tap, run_tap, token_grid

PICTURES = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))


class Cut(nn.Module):
    """Patches of 4 × 4 pixels as a row of tokens, some tokens ahead of them, then a layer for tokens."""

    def __init__(self, ahead: int = 0, convolution: bool = True) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 11, 4, 4) if convolution else nn.Unfold(4, stride=4)
        self.ahead = nn.Parameter(torch.randn(1, ahead, 11 if convolution else 48))
        self.mix = nn.LayerNorm(self.ahead.shape[-1])

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.cut(pictures).flatten(2).transpose(1, 2)
        return self.mix(torch.cat([self.ahead.expand(len(pictures), -1, -1), patches], dim=1)).mean(dim=1)


class Last(nn.Module):
    """A convolution with channels last, as hierarchical transformers have it."""

    def __init__(self, channels: int = 7) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, channels, 4, 4)
        self.last = nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        return self.last(self.maps(pictures).permute(0, 2, 3, 1)).mean(dim=(1, 2))


class SqueezeExcite(nn.Module):
    """Pools inside a block, which is not the pooling at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.scale = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.scale(self.pool(maps)).sigmoid()


def classifier(side: int = 1, outputs: int = 5) -> nn.Sequential:
    """Two convolutions with one that pools inside, then pooling and a linear head."""
    body = nn.Sequential(nn.Conv2d(3, 7, 3, 2, 1), nn.ReLU(), SqueezeExcite(7), nn.Conv2d(7, 11, 3, 2, 1))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(11 * side**2, outputs))


def found(module: nn.Module, pictures: Tensor = PICTURES, **asked: object) -> Tap:
    with torch.no_grad():
        return find_tap(module.eval(), pictures, **asked)


def grid(module: nn.Module, tap: Tap, pictures: Tensor = PICTURES) -> Tensor:
    with torch.no_grad():
        return run_tap(module.eval(), pictures, tap)


# By hand


@pytest.mark.parametrize("side", [1, 3])
def test_the_last_map_before_pooling_is_the_body(side: int) -> None:
    module = classifier(side)
    tap = found(module)
    assert tap == Tap("0")
    assert torch.equal(grid(module, tap), module[0](PICTURES))


def test_a_module_that_ends_in_a_map_is_tapped_at_its_end() -> None:
    module = classifier()[0]
    tap = found(module)
    assert (tap, str(tap)) == (Tap(""), "output")
    assert torch.equal(grid(module, tap), module(PICTURES))


def test_channels_last_are_found_and_moved() -> None:
    module = Last()
    tap = found(module)
    assert (tap, str(tap)) == (Tap("last", "NHWC"), "last (NHWC)")
    assert torch.equal(grid(module, tap), module.maps(PICTURES))


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_tokens_ahead_of_the_patches_are_counted_and_dropped(ahead: int) -> None:
    module = Cut(ahead)
    tap = found(module)
    assert tap == Tap("mix", "NLC", ahead)
    assert f"the first {ahead} dropped" in str(tap)
    patches = module.mix(module.cut(PICTURES).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(grid(module, tap), patches)


def test_tokens_that_no_map_explains_need_their_count() -> None:
    module = Cut(ahead=1, convolution=False)
    with pytest.raises(ValueError, match=r"gives 36 tokens.*prefix_tokens="):
        found(module)
    assert grid(module, found(module, prefix_tokens=1)).shape == (2, 48, 5, 7)
    with pytest.raises(ValueError, match=r"36 patches over a picture of 20×28 px form no grid"):
        found(module, prefix_tokens=0)


def test_a_declared_count_is_taken() -> None:
    module = Cut(ahead=1, convolution=False)
    module.num_prefix_tokens = 1  # as timm declares it
    assert found(module, path="mix") == Tap("mix", "NLC", 1)


def test_two_readings_are_an_error_until_one_is_declared() -> None:
    module, pictures = Last(channels=5), torch.rand(2, 3, 20, 20)
    with pytest.raises(ValueError, match=r"'last' gives \(2, 5, 5, 5\).*NCHW and NHWC"):
        found(module, pictures, path="last")
    assert torch.equal(
        grid(module, found(module, pictures, path="last", layout="NHWC"), pictures), module.maps(pictures)
    )


def test_oblong_patches_do_not_pass_for_channels_last() -> None:
    pictures = torch.rand(1, 3, 4, 8)
    assert found(nn.Sequential(nn.Conv2d(3, 11, (2, 4), (2, 4))), pictures).layout == "NCHW"
    with pytest.raises(ValueError, match=r"gives \(2, 1, 2, 2\) for pictures of 4×8 px: NCHW and NHWC"):
        found(nn.Sequential(nn.Conv2d(3, 1, (2, 4), (2, 4))), pictures)


def test_what_follows_the_tap_is_not_run() -> None:
    body = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(inplace=True))  # would change the tapped output in place
    module = nn.Sequential(body, nn.Flatten(), nn.Linear(13, 2))  # does not fit these pictures
    tap = found(module, path="0.0")
    expected = body[0](PICTURES)
    assert expected.min() < 0
    assert torch.equal(grid(module, tap), expected)


def test_a_tap_is_called_exactly_once() -> None:
    shared = nn.ReLU()
    module = nn.Sequential(nn.Conv2d(3, 7, 3), shared, nn.Conv2d(7, 7, 3), shared)
    module.spare = nn.Identity()
    module.forward = lambda pictures: module[3](module[2](module[1](module[0](pictures))))
    with pytest.raises(ValueError, match=r"'1' is called 2 times in a pass"):
        found(module, path="1")
    with pytest.raises(ValueError, match=r"'spare' is called 0 times"):
        found(module, path="spare")


def test_unknown_paths_get_the_closest() -> None:
    with pytest.raises(ValueError, match=r"tap: ResNet has no submodule 'layer5'.*'layer4'"):
        found(torchvision.models.resnet18(), path="layer5")


def test_a_map_that_shrinks_to_one_patch_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match=r"down to a single patch: use larger pictures"):
        found(torchvision.models.resnet18(), torch.rand(1, 3, 32, 32))


def test_without_any_map_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"no submodule gives a map"):
        found(nn.Sequential(nn.Flatten(), nn.Linear(1680, 3)))


def test_what_is_no_map_cannot_be_tapped() -> None:
    with pytest.raises(ValueError, match=r"'3' gives shape \(2, 5\); expected rank 4"):
        found(classifier(), path="3")


@given(st.integers(2, 23), st.integers(2, 23), st.integers(1, 17))
def test_a_grid_is_known_from_its_number_of_patches(h: int, w: int, patch: int) -> None:
    try:
        assert token_grid(h * w, (h * patch, w * patch)) == (h, w)
    except ValueError as error:  # two grids can be as close to the picture's proportions as rounding goes
        assert f"{h}×{w}" in str(error) and " or " in str(error)


@given(st.integers(1, 40))
def test_a_square_picture_has_a_square_grid(side: int) -> None:
    assert token_grid(side**2, (8 * side, 8 * side)) == (side, side)
    with pytest.raises(ValueError, match="no grid"):
        token_grid(side**2 + 1, (8 * side, 8 * side))


# torchvision: one of every family of classifiers, the map of its own documentation

TORCHVISION = {
    "alexnet": ("features", 256, 6),
    "convnext_tiny": ("features", 768, 7),
    "densenet121": ("features", 1024, 7),
    "efficientnet_b0": ("features", 1280, 7),
    "googlenet": ("inception5b", 1024, 7),
    "inception_v3": ("Mixed_7c", 2048, 5),
    "maxvit_t": ("blocks.3", 512, 7),
    "mnasnet0_5": ("layers", 1280, 7),
    "mobilenet_v2": ("features", 1280, 7),
    "mobilenet_v3_small": ("features", 576, 7),
    "regnet_x_400mf": ("trunk_output", 400, 7),
    "resnet18": ("layer4", 512, 7),
    "shufflenet_v2_x0_5": ("conv5", 1024, 7),
    "squeezenet1_1": (
        "classifier.2",
        1000,
        13,
    ),  # its classifier is a convolution: the last map is one of classes
    "swin_t": ("permute", 768, 7),
    "vgg11": ("features", 512, 7),
    "vit_b_32": ("encoder", 768, 7),
}


def test_every_family_of_torchvision_is_in_the_table() -> None:
    families = {
        find_model(f"torchvision/{name}").family
        for name in torchvision.models.list_models(torchvision.models)
    }
    assert {find_model(f"torchvision/{name}").family for name in TORCHVISION} == families


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    path, channels, side = TORCHVISION[name]
    device = "cpu" if name.startswith("regnet") else "meta"  # its constructor computes with tensors
    with torch.device(device):
        module = find_model(f"torchvision/{name}").build((224, 224), None).eval()
    pictures = torch.zeros(1, 3, 224, 224, device=device)
    tap = found(module, pictures)
    assert tap.path == path
    assert grid(module, tap, pictures).shape == (1, channels, side, side)


SMALLER = {  # options that keep the random weights few
    "mobilenet_v3_small": {},
    "resnet18": {},
    "shufflenet_v2_x0_5": {},
    "SwinTransformer": {
        "patch_size": [4, 4],
        "embed_dim": 24,
        "depths": [1, 1],
        "num_heads": [3, 3],
        "window_size": [7, 7],
    },
    "VisionTransformer": {
        "image_size": 96,
        "patch_size": 32,
        "num_layers": 1,
        "num_heads": 3,
        "hidden_dim": 24,
        "mlp_dim": 48,
    },
}


@pytest.mark.parametrize("name", SMALLER)
def test_torchvision_features_are_those_of_its_own_extractor(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build = getattr(torchvision.models, name)
        module, pictures = build(**SMALLER[name]).eval(), torch.rand(2, 3, 96, 96)
    tap = found(module, pictures[:1])
    with torch.no_grad():
        expected = create_feature_extractor(module, {tap.path: "map"})(pictures)["map"]
    if tap.layout == "NLC":
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, (3, 3))
    torch.testing.assert_close(grid(module, tap, pictures), expected)


# timm: one model of every family, from shapes alone

NO_SINGLE_MAP = {  # the heads of these families read several maps, of which none is the last
    "crossvit": "two branches with patches of two sizes, whose class tokens vote",
    "efficientvim": "a state of every stage beside the last map, each with a head of its own",
}
SQUARES_ONLY = {"convit": "its positions", "efficientformer": "its attention biases", "nest": "its nesting"}
FIXED_GRID = {"mobilenetv5": (16, 16)}  # brings several scales to this grid, whatever the picture
WITH_VALUES = {
    "gemma4_vit": {"depth": 1},
    "sequencer": {"layers": (1, 1, 1, 1)},
}  # what shapes alone cannot run
CHOSEN = {"coat": "coat_lite_tiny"}  # its siblings have three maps
SMALL = [
    "test",
    "pico",
    "atto",
    "femto",
    "nano",
    "zepto",
    "tiny",
    "xxs",
    "xxt",
    "_t",
    "mini",
    "small",
    "_s",
    "18",
    "b0",
]


def smallest(family: str) -> str:
    """A model of the family that is small by its name."""

    def order(name: str) -> tuple[int, int, str]:
        return next((place for place, word in enumerate(SMALL) if word in name), len(SMALL)), len(name), name

    return CHOSEN.get(family) or min(timm.list_models(module=family), key=order)


@pytest.mark.parametrize("family", sorted(set(timm.list_modules()) - set(NO_SINGLE_MAP)))
def test_every_family_of_timm(family: str) -> None:
    """Found on a square picture, read on an oblong one: channels and pixels for each patch are those timm declares."""
    name, options = smallest(family), WITH_VALUES.get(family, {})
    device = "cpu" if options else "meta"
    side = 112 if options else timm.models.get_pretrained_cfg(name).input_size[1]
    size = (side, side) if family in SQUARES_ONLY else (side, 2 * side)
    with torch.device(device):
        module = timm.create_model(name, **options)
        fixed = module.pretrained_cfg["fixed_input_size"] and not options
        oblong = build_timm(name, size) if fixed else module
    tap = found(module, torch.zeros(1, 3, side, side, device=device))
    features = grid(oblong, tap, torch.zeros(1, 3, *size, device=device))
    assert features.shape[:2] == (1, module.num_features)
    pixels = module.feature_info[-1]["reduction"]
    expected = FIXED_GRID.get(family) or tuple(length / pixels for length in size)
    assert all(abs(count - exact) < 2 for count, exact in zip(features.shape[2:], expected, strict=True))


@pytest.mark.parametrize("name", ["coat_tiny", *map(smallest, NO_SINGLE_MAP)])
def test_several_maps_are_an_error(name: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name)
    pictures = torch.zeros(1, 3, *module.pretrained_cfg["input_size"][1:], device="meta")
    with pytest.raises(ValueError, match=r"forward_features gives [234] outputs, \(1, .*name a submodule"):
        found(module, pictures)


# timm: equal to its own calls

MAPS: dict[str, dict] = {
    "convnext_atto": {},
    "efficientvit_b0": {},
    "fastvit_t8": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "resnet18": {},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "embed_dim": 24, "img_size": (64, 96)},
    "test_efficientnet": {},
    "test_mambaout": {},
    "tf_efficientnet_lite0": {},
}
TOKENS: dict[str, dict] = {
    "coat_lite_tiny": {"img_size": (64, 96)},  # does not declare its class token
    "hiera_tiny_224": {"stages": (1, 1, 1, 1), "img_size": (64, 96)},  # has no norm at the end
    "test_vit": {"img_size": (64, 96)},
    "vit_small_patch14_reg4_dinov2": {"depth": 1, "embed_dim": 24, "num_heads": 3, "img_size": (56, 84)},
    "vit_tiny_r_s16_p8_224": {"depth": 1, "img_size": (64, 96)},
    "xcit_nano_12_p16_224": {"depth": 1},
}


def drawn(name: str, options: dict) -> tuple[nn.Module, Tensor]:
    """A model with random weights, and random pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, **options).eval()
        return module, torch.randn(2, 3, *options.get("img_size", (64, 96)))


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_that_of_forward_features(name: str) -> None:
    module, pictures = drawn(name, MAPS[name])
    with torch.no_grad():
        expected = module.forward_features(pictures)
    if getattr(module, "output_fmt", "NCHW") == "NHWC":
        expected = expected.permute(0, 3, 1, 2)
    assert torch.equal(grid(module, found(module, pictures), pictures), expected)


@pytest.mark.parametrize("name", TOKENS)
def test_patches_are_those_of_forward_features(name: str) -> None:
    module, pictures = drawn(name, TOKENS[name])
    patches = grid(module, found(module, pictures), pictures).flatten(2).transpose(1, 2)
    with torch.no_grad():
        expected = module.forward_features(pictures)[:, -patches.shape[1] :]
    torch.testing.assert_close(patches, expected, atol=1e-5, rtol=0)


def test_prefix_tokens_of_any_block_are_dropped_by_timms_count() -> None:
    name = "vit_small_patch14_reg4_dinov2"
    module, pictures = drawn(name, TOKENS[name] | {"depth": 2})
    tap = found(module, pictures, path="blocks.0")
    assert tap == Tap("blocks.0", "NLC", 5)
    with torch.no_grad():
        expected = module.forward_intermediates(pictures, indices=[0], intermediates_only=True)[0]
    torch.testing.assert_close(grid(module, tap, pictures), expected)
