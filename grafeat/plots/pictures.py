"""Pictures drawn, and the grids of backbones in place over them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from grafeat.grids import WHOLE, Box, FeatureGrid, GridSet, check_grids
from grafeat.plots.palette import INK, SECOND_INK, BackboneColour, backbone_colours, styled
from grafeat.plots.panels import header, own_axes, title, wrapped

Colours = Mapping[str, BackboneColour]


@styled
def draw_picture(picture: Tensor, ax: Axes | None = None, *, fade: float = 0.0, field: Box = WHOLE) -> Axes:
    """Draws a picture; the axes count its pixels.

    Args:
        picture: The picture (3, H, W), in [0, 1].
        ax: Where to draw; a new figure if absent.
        fade: How far the picture goes towards white, in [0, 1].
        field: The part of the picture (x0, y0, x1, y1), in [0, 1], outside of which it goes nearly white.

    Returns:
        The axes.

    Raises:
        ValueError: If it is no such picture.
    """
    picture = checked_picture(picture)
    _, height, width = picture.shape
    ax = canvas(own_axes(ax, height / width), (height, width))
    alpha = torch.full((height, width), 1 - fade)
    if field != WHOLE:
        x0, y0, x1, y1 = to_axes(field, (height, width))
        rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None, :] + 0.5
        alpha *= torch.where((rows > y0) & (rows < y1) & (columns > x0) & (columns < x1), 1.0, 0.3)
    shown = 1 - (1 - picture) * alpha
    ax.imshow(shown.movedim(0, -1).numpy(), extent=(0, width, height, 0), interpolation="antialiased")
    return ax


@styled
def draw_grid(
    picture: Tensor, grid: FeatureGrid, ax: Axes | None = None, *, colour: BackboneColour | None = None
) -> Axes:
    """Draws the boxes of a backbone's patches in place over a picture.

    Args:
        picture: The picture (3, H, W), in [0, 1].
        grid: The backbone's feature grid; its batch does not matter.
        ax: Where to draw; a new figure if absent.
        colour: The backbone's colour; decided by its name if absent.

    Returns:
        The axes, which count the picture's pixels.
    """
    ax = draw_picture(picture, ax, field=grid.field)
    colour = colour or backbone_colours([grid.name])[grid.name]
    lines = grid_lines(grid.shape, to_axes(grid.field, (picture.shape[1], picture.shape[2])))
    thin = 1.44 if max(grid.shape) < 12 else 0.72
    for shade, width in (
        ("white", 2 * thin),
        (colour.mark, thin),
    ):  # the casing keeps them visible on any picture
        ax.add_collection(
            LineCollection(list(lines), colors=shade, linewidths=width, capstyle="projecting"), autolim=False
        )
    header(ax, grid.name, patches(grid.shape), colour=colour)
    return ax


@styled
def draw_grids(
    picture: Tensor, grids: GridSet | Sequence[FeatureGrid], *, colours: Colours | None = None
) -> Figure:
    """Draws each backbone's grid in place over a picture, one panel for each.

    Args:
        picture: The picture (3, H, W), in [0, 1].
        grids: The backbones' feature grids; their batch does not matter.
        colours: Each backbone's colour, by name; decided by the names if absent.

    Returns:
        The figure.
    """
    listed, picture = listed_grids(grids), checked_picture(picture)
    colours = colours or backbone_colours(grid.name for grid in listed)
    figure, axes = wrapped(len(listed), picture.shape[1] / picture.shape[2])
    for grid, ax in zip(listed, axes, strict=True):
        draw_grid(picture, grid, ax, colour=colours[grid.name])
    title(
        figure,
        [("Patches of each backbone, in place", INK, "bold")],
        [("each grid tiles the picture evenly", SECOND_INK)],
    )
    return figure


def canvas(ax: Axes, size: tuple[int, int]) -> Axes:
    """Empties the axes of ticks and frame, and lets them count pixels: rows downwards, columns to the right."""
    ax.set(xlim=(0, size[1]), ylim=(size[0], 0), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return ax


def grid_lines(shape: tuple[int, int], extent: Box, *, inner: bool = False) -> Float[np.ndarray, "lines 2 2"]:
    """The lines between the patches of an (h, w) grid that tiles `extent`, and around them unless `inner`."""
    x0, y0, x1, y1 = extent
    xs, ys = np.linspace(x0, x1, shape[1] + 1), np.linspace(y0, y1, shape[0] + 1)
    chosen = slice(1, -1) if inner else slice(None)
    upright = [[(x, y0), (x, y1)] for x in xs[chosen]]
    level = [[(x0, y), (x1, y)] for y in ys[chosen]]
    return np.array(upright + level, dtype=float).reshape(-1, 2, 2)


def to_axes(field: Box, size: tuple[int, int]) -> Box:
    """A box in [0, 1] of the picture on axes that count (height, width) pixels."""
    height, width = size
    x0, y0, x1, y1 = field
    return x0 * width, y0 * height, x1 * width, y1 * height


def patches(shape: tuple[int, int]) -> str:
    """The size of a grid, as it is printed on figures."""
    return f"{shape[0]} × {shape[1]}"


def checked_picture(picture: Tensor) -> Float[Tensor, "3 H W"]:
    """The picture on the CPU as float32, once it is known to be one."""
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
        raise ValueError(
            f"picture: got {tuple(picture.shape)}, {str(picture.dtype).removeprefix('torch.')}; expected a "
            "floating-point tensor (3, H, W); take one of a batch: pictures[0]"
        )
    picture = picture.detach().cpu().float()
    low, high = float(picture.min()), float(picture.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"picture: got values from {low:.3g} to {high:.3g}; expected [0, 1]; divide 8-bit values by 255"
        )
    return picture.clamp(0, 1)


def listed_grids(grids: GridSet | Sequence[FeatureGrid]) -> tuple[FeatureGrid, ...]:
    """The feature grids as a tuple, once they are known to agree."""
    return check_grids(grids.grids if isinstance(grids, GridSet) else grids)


def canvas_size(ax: Axes) -> tuple[int, int]:
    """Rows and columns (height, width) that a canvas counts."""
    return round(ax.get_ylim()[0]), round(ax.get_xlim()[1])
