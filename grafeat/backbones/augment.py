"""New variants of small pictures, so that a backbone trained on some hands reads other hands too."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Batch = Float[Tensor, "b c h w"]


def augment(pictures: Batch) -> Batch:
    """A new variant of each picture: bent and moved, thicker or thinner, blurred, noisy.

    Drawn from torch's global generator, which a caller forks and seeds.

    Args:
        pictures: Pictures (b, c, h, w) in [0, 1].

    Returns:
        Variants (b, c, h, w) in [0, 1]; around a smaller picture lies the brightness of its border.
    """
    paper = _border(pictures).median(dim=2).values[..., None, None]
    grid = _bent_grid(len(pictures), *pictures.shape[2:])
    moved = F.grid_sample(pictures - paper, grid, align_corners=False) + paper
    inked = _contrast(moved)
    soft = inked + _uniform(len(inked), 0, 0.7) * (_blurred(inked) - inked)
    return (soft + _uniform(len(soft), 0, 0.1) * torch.randn_like(soft)).clamp(0, 1)


def _blurred(pictures: Batch) -> Batch:
    return F.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)


def _border(pictures: Batch) -> Float[Tensor, "b c edge"]:
    edges = (pictures[..., 0, :], pictures[..., -1, :], pictures[..., :, 0], pictures[..., :, -1])
    return torch.cat(edges, dim=2)


def _bent_grid(count: int, h: int, w: int) -> Float[Tensor, "b h w 2"]:
    """Where to look for each pixel: turned to 20° either way, slanted, shrunk, moved, and smoothly bent."""
    angle, slant = _uniform(count, -0.35, 0.35), _uniform(count, -0.35, 0.35)
    size = _uniform(count, math.log(0.6), math.log(0.95)).exp()
    aspect = _uniform(count, -0.2, 0.2).exp()
    cos, sin, wide, high = angle.cos(), angle.sin(), size * aspect, size / aspect
    rows = [cos / wide, (sin + slant * cos) / wide, -sin / high, (cos - slant * sin) / high]
    matrix = torch.cat(rows, dim=3).view(count, 2, 2)
    shift = matrix @ (torch.rand(count, 2, 1) * 0.3 - 0.15)
    grid = F.affine_grid(torch.cat([matrix, shift], dim=2), [count, 1, h, w], align_corners=False)
    bend = _uniform(count, 0, 0.12) * torch.randn(count, 2, 4, 4)
    smooth = F.interpolate(bend, (h, w), mode="bicubic", align_corners=False)
    return grid + smooth.permute(0, 2, 3, 1)


def _contrast(pictures: Batch) -> Batch:
    """An S-shaped curve that keeps 0 and 1; where it is steep, strokes become thicker or thinner."""
    steep = _uniform(len(pictures), math.log(3), math.log(25)).exp()
    middle = _uniform(len(pictures), 0.3, 0.7)
    low, high = torch.sigmoid(-steep * middle), torch.sigmoid(steep * (1 - middle))
    strength = _uniform(len(pictures), 0.7, 1)
    return strength * (torch.sigmoid(steep * (pictures - middle)) - low) / (high - low)


def _uniform(count: int, low: float, high: float) -> Float[Tensor, "b 1 1 1"]:
    return low + (high - low) * torch.rand(count, 1, 1, 1)
