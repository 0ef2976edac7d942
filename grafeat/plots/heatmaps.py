"""Heatmaps over the H×W grids: exact colours, with the picture as outlines."""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from grafeat.grids import WHOLE, Box
from grafeat.plots.palette import DIVERGING, INK, SECOND_INK, SEQUENTIAL, backbone_colours, styled
from grafeat.plots.panels import BAR, bar_below, colour_bar, header, inches, own_axes, place, title, wrapped
from grafeat.plots.pictures import (
    Colours,
    canvas,
    canvas_size,
    checked_picture,
    draw_picture,
    grid_lines,
    patches,
    to_axes,
)

OUTLINE = (
    0.5  # how dark the picture's outlines lie over a heatmap, in [0, 1]; between them its colours are exact
)
HEAT = "values"  # label of the image that holds a heatmap's values
LUMINANCE = (0.299, 0.587, 0.114)


@styled
def heatmap(
    values: Tensor,
    picture: Tensor | None = None,
    ax: Axes | None = None,
    *,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    field: Box = WHOLE,
    label: str | None = None,
    numbers: bool = False,
) -> Axes:
    """Draws one value for each patch of a grid, over the outlines of the picture if there is one.

    Patches have the exact colours of the colour bar: the picture is there only as thin outlines.

    Args:
        values: One value for each patch (h, w), finite.
        picture: The picture (3, H, W), in [0, 1]; without it the axes count rows and columns.
        ax: Where to draw; a new figure if absent.
        signed: Whether the colours diverge from 0.
        limits: The values at both ends of the colours; if absent, 0 to the largest, or symmetrical where `signed`.
        field: The part of the picture that the grid covers, (x0, y0, x1, y1) in [0, 1].
        label: What the values are; gives a colour bar below.
        numbers: Whether each value is printed on its patch.

    Returns:
        The axes; `heat_of(ax)` is the image that holds `values`.

    Raises:
        ValueError: If values or picture are of wrong shape or range, or the limits do not rise.
    """
    values = checked_values(values)
    size = (values.shape[0], values.shape[1]) if picture is None else (picture.shape[-2], picture.shape[-1])
    ax = canvas(
        own_axes(ax, size[0] / size[1], foot=0.0 if not label else 0.55 if picture is not None else 0.75),
        size,
    )
    limits = limits or limits_of(values, signed=signed)
    shown = draw_over(ax, values, picture, limits=limits, field=field, signed=signed)
    if picture is None:
        _count_patches(ax, (values.shape[0], values.shape[1]))
    if numbers:
        _print_numbers(ax, shown, to_axes(field, size))
    if label:
        colour_bar(bar_below(ax), shown, label)
    return ax


@styled
def heatmaps(
    values: Mapping[str, Tensor],
    picture: Tensor | None = None,
    *,
    quantity: str,
    signed: bool = False,
    fields: Mapping[str, Box] | None = None,
    colours: Colours | None = None,
) -> Figure:
    """Draws one heatmap for each backbone, side by side, with shared limits and one colour bar.

    Args:
        values: One value for each patch (h, w), by backbone; finite.
        picture: The picture (3, H, W), in [0, 1], whose outlines lie over the heatmaps; not drawn if absent.
        quantity: What the values are, with unit and method: it is the title.
        signed: Whether the colours diverge from 0.
        fields: The part of the picture that a backbone's grid covers, by name; the whole picture where absent.
        colours: Each backbone's colour, by name; decided by the names if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no values, or values or picture are of wrong shape or range.
    """
    if not values:
        raise ValueError("values: got none; expected the values (h, w) of at least one backbone, by its name")
    checked = {name: checked_values(given) for name, given in values.items()}
    colours = colours or backbone_colours(checked)
    limits = limits_of(torch.cat([given.flatten() for given in checked.values()]), signed=signed)
    h, w = next(iter(checked.values())).shape
    height, width = (h, w) if picture is None else (picture.shape[-2], picture.shape[-1])
    figure, axes = wrapped(len(checked), height / width, foot=BAR)
    for (name, given), ax in zip(checked.items(), axes, strict=True):
        canvas(ax, (height, width))
        draw_over(ax, given, picture, limits=limits, field=(fields or {}).get(name, WHOLE), signed=signed)
        header(ax, name, patches((given.shape[0], given.shape[1])), colour=colours[name])
    first, last = inches(axes[0]), inches(axes[-1])
    cax = place(
        figure,
        first[0],
        last[1] + last[3] + 0.4,
        max(inches(ax)[0] + inches(ax)[2] for ax in axes) - first[0],
        0.1,
    )
    colour_bar(cax, heat_of(axes[0]), "per patch")
    title(figure, [(quantity, INK, "bold")])
    return figure


def draw_over(
    ax: Axes,
    values: Float[Tensor, "h w"],
    picture: Tensor | None,
    *,
    limits: tuple[float, float],
    field: Box = WHOLE,
    signed: bool = False,
) -> AxesImage:
    """Draws a heatmap on axes that count a picture's pixels, and the picture's outlines over it, if there is one.

    Args:
        ax: Where to draw; a canvas of the picture's size, or of the grid's without a picture.
        values: One value for each patch.
        picture: The picture (3, H, W), in [0, 1]; pale where the grid does not cover it.
        limits: The values at both ends of the colours.
        field: The part of the picture that the grid covers.
        signed: Whether the colours diverge.

    Returns:
        The image that holds the values.
    """
    if picture is not None and field != WHOLE:
        draw_picture(picture, ax, fade=0.7)
    shown = draw_values(ax, values, to_axes(field, canvas_size(ax)), limits, signed=signed)
    if picture is not None:
        draw_outlines(ax, shown, checked_picture(picture), field)
    return shown


def draw_values(
    ax: Axes,
    values: Float[Tensor, "h w"],
    extent: Box,
    limits: tuple[float, float],
    *,
    signed: bool = False,
) -> AxesImage:
    """One flat colour for each patch, with hairlines between them.

    Args:
        ax: Where to draw.
        values: One value for each patch.
        extent: The grid's box (x0, y0, x1, y1) on the axes.
        limits: The values at both ends of the colours.
        signed: Whether the colours diverge.
    """
    if not limits[0] < limits[1]:
        raise ValueError(f"limits: got {limits}; expected two numbers (low, high), low below high")
    x0, y0, x1, y1 = extent
    shown = ax.imshow(
        values.numpy(),
        cmap=DIVERGING if signed else SEQUENTIAL,
        norm=Normalize(*limits),
        extent=(x0, x1, y1, y0),
        interpolation="nearest",
        aspect=ax.get_aspect(),
        label=HEAT,
    )
    cell_borders(ax, (values.shape[0], values.shape[1]), extent)
    return shown


def draw_outlines(ax: Axes, shown: AxesImage, picture: Float[Tensor, "3 H W"], field: Box = WHOLE) -> None:
    """Lays a picture's outlines over a heatmap, light on dark patches and dark on light ones.

    A blended picture would shift the colours away from the colour bar; outlines leave them exact nearly everywhere.
    """
    x0, y0, x1, y1 = (round(edge) for edge in to_axes(field, (picture.shape[1], picture.shape[2])))
    strength = outlines(picture[:, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    patch_colours = shown.to_rgba(np.asarray(shown.get_array()))
    dark = torch.as_tensor(np.asarray(patch_colours[..., :3] @ np.array(LUMINANCE) < 0.5)).float()
    ink = F.interpolate(dark[None, None], size=tuple(strength.shape), mode="nearest")[0, 0]
    overlay = torch.stack([ink, ink, ink, OUTLINE * strength], dim=-1)
    ax.imshow(overlay.numpy(), extent=shown.get_extent(), interpolation="bilinear", aspect=ax.get_aspect())


def outlines(picture: Float[Tensor, "3 H W"], *, side: int = 360) -> Float[Tensor, "h w"]:
    """How strongly the brightness changes at each place of a picture, in [0, 1], its longer side scaled to `side`."""
    grey = torch.einsum("chw,c->hw", picture, torch.tensor(LUMINANCE))
    scale = side / max(grey.shape)
    size = [max(8, round(length * scale)) for length in grey.shape]
    smooth = F.interpolate(grey[None, None], size=size, mode="bicubic", antialias=True)
    for _ in range(2):
        smooth = F.avg_pool2d(F.pad(smooth, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    down, across = torch.gradient(smooth[0, 0])
    slope = (down.square() + across.square()).sqrt()
    strongest = torch.quantile(slope, 0.985)
    return ((slope / strongest).clamp(0, 1) if strongest > 1e-4 else torch.zeros_like(slope)) ** 1.5


def heat_of(ax: Axes) -> AxesImage:
    """The image on these axes that `draw_values` drew."""
    return next(image for image in ax.images if image.get_label() == HEAT)


def checked_values(values: Tensor) -> Float[Tensor, "h w"]:
    """The values on the CPU as float32, once they are known to be finite and to form a grid."""
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"values: got shape {tuple(values.shape)}; expected one value for each patch, (h, w); index the rest"
        )
    values = values.detach().cpu().float()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values: got NaN or infinity; expected finite numbers; mask or replace them first")
    return values


def limits_of(values: Tensor, *, signed: bool = False) -> tuple[float, float]:
    """Ends of the colours: 0 (or the smallest, if below) to the largest value; symmetrical around 0 where `signed`."""
    largest = float(values.abs().max()) if signed else float(values.max())
    lowest = -largest if signed else min(0.0, float(values.min()))
    return (lowest, largest) if lowest < largest else (lowest, lowest + 1.0)


def cell_borders(ax: Axes, shape: tuple[int, int], extent: Box) -> None:
    """Hairlines between the patches of an (h, w) grid that tiles `extent`."""
    lines = grid_lines(shape, extent, inner=True)
    ax.add_collection(LineCollection(list(lines), colors="white", linewidths=0.5, alpha=0.35), autolim=False)


def _count_patches(ax: Axes, shape: tuple[int, int]) -> None:
    """Numbers the rows and columns, as (row, column) is counted everywhere."""
    steps = [max(1, math.ceil(length / 12)) for length in shape]
    ax.set_yticks(
        np.arange(0, shape[0], steps[0]) + 0.5, labels=[str(i) for i in range(0, shape[0], steps[0])]
    )
    ax.set_xticks(
        np.arange(0, shape[1], steps[1]) + 0.5, labels=[str(i) for i in range(0, shape[1], steps[1])]
    )
    ax.tick_params(length=0, labelsize=9, labelcolor=SECOND_INK)


def _print_numbers(ax: Axes, shown: AxesImage, extent: Box) -> None:
    values = np.asarray(shown.get_array())
    x0, y0, x1, y1 = extent
    h, w = values.shape
    decimals = 0 if np.array_equal(values, np.round(values)) else 2
    for (row, column), value in np.ndenumerate(values):
        dark = np.array(shown.to_rgba(value)[:3]) @ np.array(LUMINANCE) < 0.5
        at = (x0 + (column + 0.5) * (x1 - x0) / w, y0 + (row + 0.5) * (y1 - y0) / h)
        ax.text(
            *at,
            f"{value:.{decimals}f}".replace("-", "−"),
            color="white" if dark else INK,
            ha="center",
            va="center",
            size=9,
        )
