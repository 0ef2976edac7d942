"""Attention heatmaps: where one patch's attention goes, on its own grid and on every other backbone's."""

from dataclasses import dataclass

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from grafeat.captured import CapturedAttention
from grafeat.graph import Kind, Patch
from grafeat.grids import WHOLE, Box
from grafeat.plots.heatmaps import draw_over, heat_of
from grafeat.plots.palette import INK, SECOND, SECOND_INK, backbone_colours, styled
from grafeat.plots.panels import (
    BAR,
    MARGIN,
    colour_bar,
    header,
    inches,
    place,
    shorten,
    text_width,
    title,
    wrapped,
)
from grafeat.plots.pictures import Colours, canvas, checked_picture, draw_picture, patches, to_axes


@dataclass(frozen=True, eq=False)
class AttentionRow:
    """Where one patch's attention goes on one backbone's grid.

    Attributes:
        kind: `intra` on the patch's own grid, else `cross`.
        key: The backbone that is attended to.
        weights: The weight of each of its patches (h, w).
        equal: The weight of each patch if all logits were equal, biases included.
        field: The part of the picture that the grid covers.
    """

    kind: Kind
    key: str
    weights: Float[Tensor, "h w"]
    equal: float
    field: Box

    @property
    def mass(self) -> float:
        """The share of the row's mass that goes to this backbone, in [0, 1]."""
        return float(self.weights.sum())

    def shown(self, relative: bool) -> Float[Tensor, "h w"]:
        """The weights, or their multiples of the uniform weight."""
        return self.weights / self.equal if relative else self.weights

    @property
    def equal_mass(self) -> float:
        """What that share would be if all logits were equal."""
        return self.equal * self.weights.numel()


@styled
def attention_maps(
    attention: CapturedAttention,
    query: Patch | tuple[str, int, int],
    picture: Tensor | None = None,
    *,
    layer: int,
    head: int | None = None,
    index: int = 0,
    relative: bool = False,
    colours: Colours | None = None,
) -> Figure:
    """Draws where one patch's attention goes: intra on its own grid, cross on every other backbone's.

    Intra and cross attention are two softmaxes, so each has its limits and its colour bar; all cross panels share
    theirs. Triangles mark the uniform weight of each grid: what its patches would have if all logits were equal. A
    coarse grid has fewer patches to share its mass, so beside it a fine one looks dark; `relative` shows both on
    equal terms. The weights say where information is routed, not what matters for the prediction.

    Args:
        attention: What `capture` gave.
        query: The patch that attends: (backbone, row, column).
        picture: The picture (3, H, W), in [0, 1]; its outlines lie over the heatmaps. Not drawn if absent.
        layer: The layer, from 0.
        head: The head, from 0; the mean over heads if absent.
        index: Which picture of the captured batch, from 0.
        relative: Whether weights are shown as multiples of the uniform weight, under one colour bar for all panels.
        colours: Each backbone's colour, by name; decided by the captured backbones if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such patch, layer, head or picture.
    """
    query = Patch(*query)
    rows = attention_rows(attention, query, layer=layer, head=head, index=index)
    colours = colours or backbone_colours(attention.graph.names)
    size = attention.graph.shapes[query.backbone] if picture is None else _size(checked_picture(picture))
    box = to_axes(attention.graph.box(attention.graph.vertex(*query)), size)
    figure, axes = wrapped(len(rows) + (picture is not None), size[0] / size[1], foot=BAR)
    if picture is not None:
        _draw_query(axes.pop(0), picture, box, query)
    for ax, row in zip(axes, rows, strict=True):
        canvas(ax, size)
        same = [other.shown(relative) for other in rows if relative or other.kind == row.kind]
        limits = (0.0, max(float(weights.max()) for weights in same))
        draw_over(ax, row.shown(relative), picture, limits=limits, field=row.field)
        header(ax, row.key, *_details(row, rows), colour=colours[row.key])
        if row.kind == "intra":
            _mark(ax, box)
    _draw_bars(figure, dict(zip((row.key for row in rows), axes, strict=True)), rows, colours, relative)
    said = f"Attention of patch ({query.row}, {query.column}) of"
    room = 72 * (figure.get_size_inches()[0] - 2 * MARGIN) - text_width(said, 12, "bold") - 5
    name = shorten(query.backbone, room, size=12, weight="bold")
    where = f"{_where(attention, layer, head)} · routing, not importance"
    title(figure, [(said, INK, "bold"), (name, colours[query.backbone].text, "bold")], [(where, SECOND_INK)])
    return figure


def attention_rows(
    attention: CapturedAttention, query: Patch, *, layer: int, head: int | None = None, index: int = 0
) -> tuple[AttentionRow, ...]:
    """Where one patch's attention goes, its own grid first; arguments as in `attention_maps`."""
    graph = attention.graph
    number = graph.vertex(*query) - graph.slices[query.backbone].start
    rows = []
    for key in (query.backbone, *(name for name in graph.names if name != query.backbone)):
        kind: Kind = "intra" if key == query.backbone else "cross"
        if not attention.layers(kind):  # a model may be built without one kind
            continue
        block = attention.block(query.backbone, key, layer=layer, head=head, picture=index)
        weights = block[number].float().cpu().unflatten(0, graph.shapes[key])
        equal = attention.uniform(query.backbone, key, layer)
        rows.append(AttentionRow(kind, key, weights, equal, (graph.fields or {}).get(key, WHOLE)))
    return tuple(rows)


def _draw_query(ax: Axes, picture: Tensor, box: Box, query: Patch) -> None:
    draw_picture(picture, ax)
    _mark(ax, box)
    header(ax, "picture", f"patch ({query.row}, {query.column}) marked")


def _details(row: AttentionRow, rows: tuple[AttentionRow, ...]) -> tuple[str, str]:
    h, w = row.weights.shape
    if row.kind == "intra":
        return "intra", patches((h, w))
    others = sum(other.kind == "cross" for other in rows)
    return f"cross {row.mass:.0%}" + (f", uniform {row.equal_mass:.0%}" if others > 1 else ""), patches(
        (h, w)
    )


def _mark(ax: Axes, box: Box) -> None:
    """A double outline, white in black, that stands out on any colour."""
    x0, y0, x1, y1 = box
    for shade, width in (("black", 4.2), ("white", 1.8)):
        ax.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=shade, lw=width, zorder=3, clip_on=False)
        )


def _draw_bars(
    figure: Figure, axes: dict[str, Axes], rows: tuple[AttentionRow, ...], colours: Colours, relative: bool
) -> None:
    """One colour bar for each kind below its panels, or one for all."""
    if relative:
        spots = _spots(figure, axes, rows)
        cax = _bar_axes(figure, spots[0], spots[-1])
        heat = heat_of(axes[rows[0].key])
        colour_bar(
            cax, heat, "attention, in multiples of uniform", marks=[(1.0, SECOND)], mark_label="uniform"
        )
        return
    for kind in ("intra", "cross"):
        own = tuple(row for row in rows if row.kind == kind)
        if own:
            spots = _spots(figure, axes, own)
            marks = list(dict.fromkeys((row.equal, colours[row.key]) for row in own))
            cax = _bar_axes(figure, spots[0], spots[-1])
            heat = heat_of(axes[own[0].key])
            colour_bar(cax, heat, f"{kind} attention per patch", marks=marks, mark_label="uniform")


def _spots(
    figure: Figure, axes: dict[str, Axes], rows: tuple[AttentionRow, ...]
) -> list[tuple[float, float]]:
    """Left edges and widths, in inches, of the columns that a colour bar for these rows spans."""
    places = [inches(ax) for ax in figure.axes if ax.images]
    columns = sorted({(left, width) for left, _, width, _ in places})
    if len({round(top, 6) for _, top, _, _ in places}) == 1:
        return [(left, width) for left, _, width, _ in (inches(axes[row.key]) for row in rows)]
    kinds = {row.kind for row in rows}
    if len(kinds) == 2:
        return columns
    return columns[:1] if "intra" in kinds else columns[1:]


def _bar_axes(figure: Figure, first: tuple[float, float], last: tuple[float, float]) -> Axes:
    bottom = max(top + height for _, top, _, height in (inches(ax) for ax in figure.axes if ax.get_images()))
    return place(figure, first[0], bottom + 0.4, max(last[0] + last[1] - first[0], 2.0), 0.1)


def _where(attention: CapturedAttention, layer: int, head: int | None) -> str:
    return f"layer {layer}, " + (f"head {head}" if head is not None else f"mean over {attention.heads} heads")


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]
