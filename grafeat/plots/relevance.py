"""Relevance drawn on the grids of all backbones, the strongest patches numbered; and the subgraph that they make."""

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from grafeat.explanations.dominant import DominantPatches
from grafeat.explanations.relevance import Relevance
from grafeat.graph import Patch, PatchGraph
from grafeat.grids import WHOLE, Box
from grafeat.plots.heatmaps import draw_over, heat_of, limits_of
from grafeat.plots.marks import Spot, draw_outline
from grafeat.plots.palette import DIVERGING_ENDS, INK, SECOND_INK, BackboneColour, backbone_colours, styled
from grafeat.plots.panels import BAR, colour_bar, header, inches, place, shorten, title, wrapped
from grafeat.plots.pictures import Colours, canvas, canvas_size, draw_picture, grid_lines, patches, to_axes


@styled
def relevance_maps(
    relevance: Relevance,
    picture: Tensor | None = None,
    *,
    number: int = 0,
    top: int = 3,
    colours: Colours | None = None,
) -> Figure:
    """Draws the relevance of every patch of one picture, with shared limits, and numbers the strongest of all.

    Args:
        relevance: What `gf.relevance` gave.
        picture: The picture (3, H, W), in [0, 1], whose outlines lie over the heatmaps; not drawn if absent.
        number: Which picture of the relevance, from 0.
        top: How many of the strongest patches are numbered; 0 for none.
        colours: Each backbone's colour, by name; decided by the names if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such picture.
    """
    if not 0 <= number < len(relevance.target):
        raise ValueError(f"number: got {number}; expected 0 to {len(relevance.target) - 1}; count from 0")
    names = relevance.graph.names
    colours = colours or backbone_colours(names)
    values = {name: relevance.maps[name][number].double() for name in names}
    limits = limits_of(torch.cat([part.flatten() for part in values.values()]), signed=relevance.signed)
    h, w = values[names[0]].shape
    height, width = (h, w) if picture is None else (picture.shape[-2], picture.shape[-1])
    figure, axes = wrapped(len(names), height / width, foot=BAR)
    for name, ax in zip(names, axes, strict=True):
        canvas(ax, (height, width))
        field = (relevance.graph.fields or {}).get(name, WHOLE)
        draw_over(ax, values[name], picture, limits=limits, field=field, signed=relevance.signed)
        share = f"sum {float(values[name].sum()):+.2g}".replace("-", "−") if relevance.signed else ""
        shape = (values[name].shape[0], values[name].shape[1])
        header(ax, name, patches(shape), *([share] if share else []), colour=colours[name])
    panels = dict(zip(names, axes, strict=True))
    for rank, (patch, _) in enumerate(relevance.top(top, picture=number) if top else [], start=1):
        _number(panels[patch.backbone], relevance.graph, patch, rank)
    first, last = inches(axes[0]), inches(axes[-1])
    across = max(inches(ax)[0] + inches(ax)[2] for ax in axes) - first[0]
    unit = "per patch, of the centred logit" if relevance.signed else "per patch, unsigned"
    colour_bar(place(figure, first[0], last[1] + last[3] + 0.4, across, 0.1), heat_of(axes[0]), unit)
    what = "Routing" if relevance.method == "attention_rollout" else "Relevance"
    title(
        figure,
        [(f"{what} by {relevance.method}", INK, "bold")],
        [(_explained(relevance, number), SECOND_INK)],
    )
    return figure


@styled
def draw_dominant(
    dominant: DominantPatches, picture: Tensor | None = None, *, colours: Colours | None = None
) -> Figure:
    """Draws the patches that decide a prediction in place, and the edges by which they do.

    Arrows point the way content moves. An arrow is as wide as the change of the centred logit without that edge is
    large, in the colour of its sign.

    Args:
        dominant: What `gf.dominant` gave.
        picture: The picture (3, H, W), in [0, 1], drawn pale under the patches.
        colours: Each backbone's colour, by name; decided by the names if absent.

    Returns:
        The figure.
    """
    names = dominant.graph.names
    colours = colours or backbone_colours(names)
    size = (1, 1) if picture is None else (picture.shape[-2], picture.shape[-1])
    figure, axes = wrapped(len(names) + 1, size[0] / size[1], foot=0.15)
    for name, ax in zip(names, axes, strict=False):
        _place(dominant, name, ax, picture, colours[name])
    _flow(canvas(axes[-1], (1, 1)).inset_axes((0, 0, 1, 1)), dominant, colours)
    header(axes[-1], "how they act", "change without the edge")
    said = (
        f"centred logit of {dominant.target!r}: {dominant.full:+.2f}, with these alone {dominant.alone:+.2f}, "
        f"without them {dominant.without:+.2f}"
    ).replace("-", "−")
    title(
        figure,
        [(f"The {len(dominant)} patches that decide, by {dominant.method}", INK, "bold")],
        [(said, SECOND_INK)],
    )
    return figure


def _place(
    dominant: DominantPatches, name: str, ax: Axes, picture: Tensor | None, colour: BackboneColour
) -> None:
    shape = dominant.graph.shapes[name]
    field = (dominant.graph.fields or {}).get(name, WHOLE)
    if picture is None:
        canvas(ax, (1, 1))
    else:
        draw_picture(picture, ax, fade=0.55, field=field)
    lines = grid_lines(shape, to_axes(field, canvas_size(ax)))
    ax.add_collection(
        LineCollection(list(lines), colors=colour.mark, linewidths=0.6, alpha=0.6), autolim=False
    )
    header(ax, name, patches(shape), colour=colour)
    for rank, patch in enumerate(dominant, start=1):
        if patch.backbone == name:
            _number(ax, dominant.graph, patch, rank)


def _flow(ax: Axes, dominant: DominantPatches, colours: Colours) -> None:
    """The subgraph: patches below each other on the left, the prediction on the right."""
    ax.set(xlim=(-0.42, 1.3), ylim=(len(dominant) - 0.4, -0.6))
    ax.set_axis_off()
    middle = (len(dominant) - 1) / 2
    at: dict[Patch | None, tuple[float, float]] = {
        patch: (0.0, float(row)) for row, patch in enumerate(dominant)
    }
    at[None] = (1.0, middle)
    largest = max((abs(edge.change) for edge in dominant.edges), default=0.0) or 1.0
    for edge in dominant.edges:
        strength = abs(edge.change) / largest
        if strength < 0.01:
            continue
        (x0, y0), (x1, y1) = at[edge.source], at[edge.end]
        bend = 0.0 if edge.end is None else (0.45 if y1 > y0 else -0.45)
        ax.annotate(
            "", (x1, y1), (x0, y0),
            arrowprops={
                "arrowstyle": f"-|>,head_width={0.12 + 0.2 * strength},head_length={0.3 + 0.3 * strength}",
                "connectionstyle": f"arc3,rad={bend}", "color": DIVERGING_ENDS[edge.change > 0],
                "lw": 0.8 + 4 * strength, "shrinkA": 10, "shrinkB": 13,
            },
        )  # fmt: skip
        if edge.end is None:
            said = f"{edge.change:+.2f}".replace("-", "−")
            ax.annotate(
                said, (0.42, y0 + 0.42 * (y1 - y0)), ha="center", va="center", size=8.5, color=INK,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip
    for rank, (patch, (x, y)) in enumerate(((p, at[p]) for p in dominant), start=1):
        ax.plot(x, y, "o", ms=18, color=colours[patch.backbone].mark, mec="white", zorder=3)
        ax.annotate(
            str(rank), (x, y), ha="center", va="center", color="white", weight="bold", size=10, zorder=4
        )
    ax.plot(1.0, middle, "s", ms=22, color=INK, zorder=3)
    ax.annotate(
        shorten(dominant.target, 60, size=9.5), (1.0, middle), (0, -18), textcoords="offset points", ha="center",
        va="top", size=9.5, weight="bold",
    )  # fmt: skip


def _number(ax: Axes, graph: PatchGraph, patch: Patch, rank: int) -> None:
    """Outlines a patch, and writes its rank on it."""
    box: Box = to_axes(graph.box(graph.vertex(*patch)), canvas_size(ax))
    spot = Spot(ax, box)
    draw_outline(spot)
    text = ax.annotate(
        str(rank), ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), ha="center", va="center", color="white",
        weight="bold", size=min(13.0, max(7.0, 0.6 * spot.side)), zorder=5,
    )  # fmt: skip
    text.set_path_effects([withStroke(linewidth=2.4, foreground="black")])


def _explained(relevance: Relevance, number: int) -> str:
    if relevance.method == "attention_rollout":
        return "where information comes from; the same for every class"
    sign = (
        "above 0 speaks for the class, below 0 against"
        if relevance.signed
        else "unsigned: cannot tell for from against"
    )
    return f"{_class(relevance, number)} · {sign}"


def _class(relevance: Relevance, number: int) -> str:
    target = int(relevance.target[number])
    return f"class {relevance.classes[target]!r}" if relevance.classes else f"class number {target}"
