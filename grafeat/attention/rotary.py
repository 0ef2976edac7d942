"""Rotary positions: queries and keys turned by the places of their patches in the picture."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Angles(NamedTuple):
    """Cosine and sine of the angle by which each vertex turns each pair of channels, (n, k / 2) both."""

    cos: Float[Tensor, "n half"]
    sin: Float[Tensor, "n half"]


class RotaryPositions(nn.Module):
    """Turns queries and keys by learned Fourier frequencies of the patch centre.

    The product of a turned query and a turned key depends on the two places only through their difference, so
    that patches of *different* grids can match places too.

    Args:
        head_width: Channels k of a head; even.
        spread: Standard deviation of the frequencies at the start, in radians per picture side.

    Raises:
        ValueError: If `head_width` is odd.

    Source: Lindenberger et al., LightGlue, ICCV 2023, eq. 3 and 4. There only self-attention is turned; here
    all grids show the same picture, so cross attention is turned as well.
    """

    def __init__(self, head_width: int, *, spread: float = 2 * math.pi) -> None:
        super().__init__()
        if head_width < 2 or head_width % 2:
            raise ValueError(
                f"head_width: got {head_width}; expected an even number, as channels turn in pairs; change "
                "the width or the number of heads"
            )
        self.frequencies = nn.Parameter(spread * torch.randn(2, head_width // 2))

    def forward(self, centres: Float[Tensor, "n 2"]) -> Angles:
        """The angles of vertices at these places, (x, y) in [0, 1] of the picture."""
        # not a matrix product: mixed precision would round the angles to hundredths of a radian
        angles = ((centres - 0.5)[:, :, None] * self.frequencies).sum(dim=1)
        return Angles(angles.cos(), angles.sin())


def rotate(states: Float[Tensor, "*batch n k"], angles: Angles) -> Float[Tensor, "*batch n k"]:
    """Turns channels 2i and 2i + 1 of each state, as one complex number, by the vertex's i-th angle."""
    wide = states.to(torch.promote_types(states.dtype, torch.float32))  # there are no complex numbers of bfloat16
    pairs, cos, sin = wide.unflatten(-1, (-1, 2)), angles.cos.to(wide), angles.sin.to(wide)
    if torch.compiler.is_compiling():  # compilers join real products into one pass; without one they take twice as long
        x, y = pairs.unbind(-1)
        turned = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return turned.flatten(-2).to(states)
