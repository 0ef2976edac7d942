"""Backgrounds that know nothing: crops of photographs that ship in packages, none of which shows a class."""

from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

PHOTOGRAPHS = {
    "skimage": ("data/brick.png", "data/grass.png", "data/gravel.png", "data/moon.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg",),
}
SMALLEST = 0.35  # side of a crop, as a share of the photograph's shorter side
PALEST = 0.75  # a tint keeps at least so much of each colour


def photographs() -> tuple[UInt8[Tensor, "3 _ _"], ...]:
    """Brick, grass, gravel, the moon, a rocket, a palace: from scikit-image and scikit-learn."""
    paths = [files(package) / name for package, names in PHOTOGRAPHS.items() for name in names]
    return tuple(_read(str(path)) for path in paths)


def cropped(
    photograph: UInt8[Tensor, "3 h w"], side: int, drawn: Float[Tensor, "7"]
) -> UInt8[Tensor, "3 side side"]:
    """A random square of a photograph, perhaps mirrored; a grey one is tinted.

    Args:
        photograph: The photograph.
        side: Side of the square in pixels.
        drawn: Numbers in [0, 1): size, left, top, whether mirrored, and the tint's red, green and blue.
    """
    h, w = photograph.shape[1:]
    size = max(1, round(float(SMALLEST + (1 - SMALLEST) * drawn[0]) * min(h, w)))
    left, top = int(drawn[1] * (w - size + 1)), int(drawn[2] * (h - size + 1))
    square = photograph[:, top : top + size, left : left + size]
    if drawn[3] < 0.5:
        square = square.flip(2)
    image = Image.fromarray(square.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if bool((photograph == photograph[:1]).all()):
        tint = PALEST + (1 - PALEST) * drawn[4:] / drawn[4:].max().clamp(min=1e-6)
        pixels = (pixels * tint[:, None, None]).to(torch.uint8)
    return pixels


def _read(path: str) -> UInt8[Tensor, "3 h w"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
