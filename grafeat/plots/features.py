"""What the backbones see: features as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from grafeat.grids import FeatureGrid, GridSet
from grafeat.plots.heatmaps import cell_borders, draw_values
from grafeat.plots.palette import INK, SECOND_INK, BackboneColour, backbone_colours, styled
from grafeat.plots.panels import BAR, HEADER, TITLE, bar_below, colour_bar, header, panel_rows, title
from grafeat.plots.pictures import Colours, canvas, canvas_size, draw_picture, listed_grids, patches, to_axes


@styled
def feature_pictures(
    grids: GridSet | Sequence[FeatureGrid],
    pictures: Sequence[Tensor] | Tensor | None = None,
    *,
    rows: Sequence[int] = (0,),
    show: Literal["components", "norm"] = "components",
    colours: Colours | None = None,
) -> Figure:
    """Draws what the backbones see: the features of some pictures, one row for each picture.

    Within one backbone, like colours mean like features. Components and limits come from *all* pictures in `grids`, so
    that the rows of a figure can be compared.

    Args:
        grids: The backbones' feature grids (b, c, h, w).
        pictures: The pictures (b, 3, H, W), in [0, 1], or a list where sizes differ; not drawn if absent.
        rows: Which pictures of the batch are shown, from 0.
        show: `components`: the first three principal components as red, green and blue; `norm`: the length of each
            patch's vector.
        colours: Each backbone's colour, by name; decided by the names if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If a row is outside the batch, pictures and grids differ in number, or `show` is neither.
    """
    listed = listed_grids(grids)
    _check_rows(rows, listed, pictures)
    if show not in ("components", "norm"):
        raise ValueError(f"show: got {show!r}; expected 'components' or 'norm'")
    colours = colours or backbone_colours(grid.name for grid in listed)
    sizes = [
        listed[0].shape if pictures is None else (pictures[row].shape[-2], pictures[row].shape[-1])
        for row in rows
    ]
    columns = len(listed) + (pictures is not None)
    foot = 0.0 if show == "components" else BAR
    aspects = [height / width for height, width in sizes]
    figure, axes = panel_rows(aspects, columns, top=TITLE + HEADER, header=0, foot=foot)
    for ax, size in zip(axes, (size for size in sizes for _ in range(columns)), strict=True):
        canvas(ax, size)
    if pictures is not None:
        header(axes[0], "picture")
        for row, ax in zip(rows, axes[::columns], strict=True):
            draw_picture(pictures[row], ax)
    for number, grid in enumerate(listed):
        draw = _draw_components if show == "components" else _draw_norms
        draw(grid, rows, axes[number + columns - len(listed) :: columns], colours[grid.name])
    said = "First three principal components" if show == "components" else "Norm"
    how = (
        "as red, green and blue, fitted for each backbone"
        if show == "components"
        else "of each patch's vector"
    )
    title(
        figure,
        [(f"{said} of the features", INK, "bold")],
        [(f"{how} · {len(listed[0]):,} pictures", SECOND_INK)],
    )
    return figure


@dataclass(frozen=True, eq=False)
class ComponentColours:
    """The first three principal components of some vectors, as red, green and blue.

    Each component is scaled from its 2nd to its 98th percentile, and turned so that its largest loading is positive.

    Attributes:
        share: The share of variance that the three keep, in [0, 1].
    """

    mean: Float[Tensor, " c"]
    axes: Float[Tensor, "k c"]
    low: Float[Tensor, " k"]
    spread: Float[Tensor, " k"]
    shown: Bool[Tensor, " k"]
    share: float

    @classmethod
    def fit(cls, vectors: Float[Tensor, "n c"]) -> Self:
        """The colours that tell these vectors apart; of more than 2,000, so many are drawn with a fixed seed."""
        drawn = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:2000]]
        mean = drawn.mean(0)
        _, lengths, axes = torch.linalg.svd(drawn - mean, full_matrices=False)
        axes = axes[:3] * axes[:3].gather(1, axes[:3].abs().argmax(1, keepdim=True)).sign()
        low, high = torch.quantile((drawn - mean) @ axes.T, torch.tensor([0.02, 0.98]), dim=0)
        total = float(lengths.square().sum())
        share = float(lengths[:3].square().sum()) / total if total else 1.0
        return cls(mean, axes, low, high - low, high - low > 1e-6 * lengths[0], share)

    def __call__(self, vectors: Float[Tensor, "*some c"]) -> Float[Tensor, "*some 3"]:
        """The colours of vectors, in [0, 1]; neither black nor white, which look like no feature at all."""
        scaled = ((vectors - self.mean) @ self.axes.T - self.low) / torch.where(self.spread > 0, self.spread, 1)
        colours = torch.full((*vectors.shape[:-1], 3), 0.5)
        colours[..., : len(self.axes)] = torch.where(self.shown, 0.1 + 0.85 * scaled.clamp(0, 1), 0.5)
        return colours


def principal_colours(features: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b h w 3"], float]:
    """The first three principal components of all patches as colours, and the share of variance they keep."""
    vectors = features.detach().cpu().float().movedim(1, -1)  # (b, h, w, c)
    colours = ComponentColours.fit(vectors.flatten(0, -2))
    return colours(vectors), colours.share


def _draw_components(
    grid: FeatureGrid, rows: Sequence[int], axes: Sequence[Axes], colour: BackboneColour
) -> None:
    colours, share = principal_colours(grid.features)
    header(axes[0], grid.name, patches(grid.shape), f"{share:.0%} of variance", colour=colour)
    for row, ax in zip(rows, axes, strict=True):
        extent = to_axes(grid.field, canvas_size(ax))
        x0, y0, x1, y1 = extent
        ax.imshow(
            colours[row].numpy(), extent=(x0, x1, y1, y0), interpolation="nearest", aspect=ax.get_aspect()
        )
        cell_borders(ax, grid.shape, extent)


def _draw_norms(grid: FeatureGrid, rows: Sequence[int], axes: Sequence[Axes], colour: BackboneColour) -> None:
    norms = grid.features.detach().cpu().float().norm(dim=1)
    header(axes[0], grid.name, patches(grid.shape), f"{grid.channels:,} channels", colour=colour)
    limits = (0.0, float(norms.max()) or 1.0)
    for row, ax in zip(rows, axes, strict=True):
        shown = draw_values(ax, norms[row], to_axes(grid.field, canvas_size(ax)), limits)
    colour_bar(bar_below(axes[-1]), shown, "norm")


def _check_rows(
    rows: Sequence[int], grids: Sequence[FeatureGrid], pictures: Sequence[Tensor] | Tensor | None
) -> None:
    count = len(grids[0])
    if pictures is not None and len(pictures) != count:
        raise ValueError(f"pictures: got {len(pictures):,} for grids of {count:,} pictures; slice them alike")
    if not rows or not all(0 <= row < count for row in rows):
        raise ValueError(f"rows: got {list(rows)}; expected one or more numbers from 0 to {count - 1}")
