"""Attention heatmaps: what one patch attends to, or what attends to it, on its own grid and on every other one."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from grafeat.attention.captured import CapturedAttention
from grafeat.graph import Kind, Patch, PatchGraph
from grafeat.grids import WHOLE, Box
from grafeat.plots.captions import caption_lines, panel_details
from grafeat.plots.heatmaps import draw_outlines, draw_values, heat_of
from grafeat.plots.links import Link, draw_links
from grafeat.plots.marks import Spot, draw_brackets, draw_outline
from grafeat.plots.palette import INK, SECOND, SECOND_INK, SEQUENTIAL, backbone_colours, styled
from grafeat.plots.panels import (
    BAR,
    MARGIN,
    NARROWEST,
    footnote,
    header,
    inches,
    place,
    shorten,
    text_width,
    title,
    wrapped,
)
from grafeat.plots.pictures import (
    Colours,
    canvas,
    checked_picture,
    draw_picture,
    grid_lines,
    to_axes,
)
from grafeat.plots.rows import (
    AttentionRow,
    CrossEdge,
    Direction,
    attention_rows,
    strongest_edges,
)
from grafeat.plots.scales import Scale, attention_bar, scales_of, uniform_marks

LINE = 16 / 72  # inches of a line of text below the panels
CAPTION = 72 * (NARROWEST - 2 * MARGIN)  # points: a line that fits every figure
BLANK = "#F2F2F2"  # a patch without a weight


@dataclass(frozen=True, eq=False)
class _View:
    """What one figure shows; its rows are of one query, in one direction."""

    graph: PatchGraph
    query: Patch
    pin: Patch | None
    direction: Direction
    rows: tuple[AttentionRow, ...]
    edges: tuple[CrossEdge, ...]
    scales: Mapping[Kind, Scale]
    relative: bool
    picture: Float[Tensor, "3 H W"] | None
    colours: Colours

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that each panel counts: the picture's pixels, or the patches of the query's grid."""
        if self.picture is None:
            return self.graph.shapes[self.query.backbone]
        return self.picture.shape[1], self.picture.shape[2]

    @property
    def names(self) -> tuple[str, ...]:
        """The backbones that have a panel, the query's own first, though it may have no weights there."""
        return tuple(dict.fromkeys([self.query.backbone, *(row.backbone for row in self.rows)]))

    def box(self, patch: Patch) -> Box:
        """Where a patch lies on a panel."""
        return to_axes(self.graph.box(self.graph.vertex(*patch)), self.size)


@styled
def attention_maps(
    attention: CapturedAttention,
    query: Patch | tuple[str, int, int],
    picture: Tensor | None = None,
    *,
    layer: int,
    head: int | None = None,
    index: int = 0,
    direction: Direction = "outgoing",
    relative: bool = False,
    log: bool = False,
    limits: Mapping[Kind, tuple[float, float]] | None = None,
    edges: int = 0,
    pin: Patch | tuple[str, int, int] | None = None,
    colours: Colours | None = None,
) -> Figure:
    """Draws one patch's attention on every grid: intra on its own, cross on the other backbones'.

    Intra and cross attention are two softmaxes, so each has its limits and its colour bar; all cross panels share
    theirs. Triangles mark the uniform weight of each grid: what its patches would have if all logits were equal. A
    coarse grid has fewer patches to share its mass, so beside it a fine one looks dark; `relative` shows both on
    equal terms. Patches whose weight is NaN are hatched. The weights say where information is routed, not what
    matters for the prediction.

    Args:
        attention: What `capture` gave.
        query: The patch in question: (backbone, row, column).
        picture: The picture (3, H, W), in [0, 1]; its outlines lie over the heatmaps. Not drawn if absent.
        layer: The layer, from 0.
        head: The head, from 0; the mean over heads if absent.
        index: Which picture of the captured batch, from 0.
        direction: `outgoing` for what the patch attends to, or `incoming` for what attends to it: a column of the
            same weights, which need not sum to 1; headers then say how its sum compares with an even one.
        relative: Whether weights are shown as multiples of the uniform weight, under one colour bar for all panels.
        log: Whether colours are even steps of the logarithm, by default from a tenth of the uniform weight.
        limits: The values at both ends of the colours, by kind, in the unit shown, so that figures share them; for
            a kind that is absent, 0 to its largest weight here.
        edges: How many of the patch's strongest cross edges are drawn, as curves in the colour of the backbone that
            is attended to, with a dot at that end; the caption says which share of the cross mass they keep.
        pin: A second patch, to be marked by brackets at its corners.
        colours: Each backbone's colour, by name; decided by the captured backbones if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such patch, layer, head, picture or direction, if limits do not rise (or are not
            above 0 where `log`), or if `edges` is negative.
    """
    if edges < 0:
        raise ValueError(f"edges: got {edges}; expected how many are drawn, 0 or more")
    query = Patch(*query)
    rows = attention_rows(attention, query, layer=layer, head=head, index=index, direction=direction)
    view = _View(
        graph=attention.graph,
        query=query,
        pin=None if pin is None else attention.graph.locate(attention.graph.vertex(*pin)),
        direction=direction,
        rows=rows,
        edges=strongest_edges(rows, edges),
        scales=scales_of(rows, relative=relative, limits=limits, log=log),
        relative=relative,
        picture=None if picture is None else checked_picture(picture),
        colours=colours or backbone_colours(attention.graph.names),
    )
    said = caption_lines(
        rows, view.edges, asked=edges, direction=direction, pin=view.pin, colours=view.colours, width=CAPTION
    )
    figure, panels, whole = _drawn_panels(view, lines=log + len(said))
    _draw_marks(view, panels, whole)
    _draw_bars(figure, view, panels)
    _draw_edges(figure, view, panels)
    below = _lowest(whole, *panels.values())
    for line, parts in enumerate(said, start=1 + log):  # line 0 is that of the bars' numbers
        footnote(below, line, parts)
    _write_title(figure, view, f"{_where(attention, layer, head)} · routing, not importance")
    return figure


def _drawn_panels(view: _View, *, lines: int) -> tuple[Figure, dict[str, Axes], Axes | None]:
    """The figure, its panels by backbone, and the panel of the picture alone."""
    height, width = view.size
    count = len(view.names) + (view.picture is not None)
    figure, axes = wrapped(count, height / width, foot=BAR + LINE * lines)
    whole = axes.pop(0) if view.picture is not None else None
    panels = dict(zip(view.names, axes, strict=True))
    if whole and view.picture is not None:
        draw_picture(view.picture, whole)
        header(whole, "picture", f"patch ({view.query.row}, {view.query.column}) marked")
    for ax in axes:
        canvas(ax, view.size)
    if view.rows[0].kind == "cross":
        _draw_blank(panels[view.query.backbone], view)
    for row in view.rows:
        _draw_row(panels[row.backbone], view, row)
        details = panel_details(row, view.rows, view.direction)
        header(panels[row.backbone], row.backbone, *details, colour=view.colours[row.backbone])
    return figure, panels, whole


def _draw_row(ax: Axes, view: _View, row: AttentionRow) -> None:
    """A heatmap whose patches without a weight are hatched, below the picture's outlines."""
    if view.picture is not None and row.field != WHOLE:
        draw_picture(view.picture, ax, fade=0.7)
    scale = view.scales[row.kind]
    shown = draw_values(ax, row.shown(view.relative), to_axes(row.field, view.size), scale.limits)
    shown.set(norm=scale.norm, cmap=mpl.colormaps[SEQUENTIAL].with_extremes(bad=BLANK))
    if view.picture is not None:
        draw_outlines(ax, shown, view.picture, row.field)
    boxes = [view.box(Patch(row.backbone, int(i), int(j))) for i, j in row.missing.nonzero().tolist()]
    if boxes:
        tiles = [Rectangle((x0, y0), x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        hatched = PatchCollection(tiles, facecolor=BLANK, edgecolor="#8A8A8A", linewidth=0, hatch="////")
        hatched.set(label="NaN")
        ax.add_collection(hatched, autolim=False)


def _draw_blank(ax: Axes, view: _View) -> None:
    """The query's own grid in a model without intra layers: it has no weights, but the patch lies there."""
    name = view.query.backbone
    field, shape = (view.graph.fields or {}).get(name, WHOLE), view.graph.shapes[name]
    if view.picture is not None:
        draw_picture(view.picture, ax, fade=0.7)
    lines = LineCollection(list(grid_lines(shape, to_axes(field, view.size))), linewidths=0.7)
    lines.set(color=view.colours[name].mark, alpha=0.45)
    ax.add_collection(lines, autolim=False)
    header(ax, name, "no intra layers", colour=view.colours[name])


def _draw_marks(view: _View, panels: Mapping[str, Axes], whole: Axes | None) -> None:
    """The query's outline and the pin's brackets, on their grids and on the picture."""
    for ax in (whole, panels[view.query.backbone]):
        if ax:
            draw_outline(Spot(ax, view.box(view.query)))
    if view.pin:
        for ax in (whole, panels.get(view.pin.backbone)):
            if ax:
                draw_brackets(Spot(ax, view.box(view.pin)))


def _draw_bars(figure: Figure, view: _View, panels: Mapping[str, Axes]) -> None:
    """One colour bar for each kind below its panels, or one for all."""
    groups = [view.rows] if view.relative else [_of_kind(view, kind) for kind in view.scales]
    for rows in groups:
        spots = _spots(figure, panels, rows)
        shown, scale = heat_of(panels[rows[0].backbone]), view.scales[rows[0].kind]
        cax = _bar_axes(figure, panels, spots[0], spots[-1])
        if view.relative:
            label, marks = "attention, in multiples of uniform", [(1.0, SECOND)]
        else:
            label = f"{rows[0].kind} attention per patch"
            marks = uniform_marks(rows, view.colours)
        attention_bar(cax, shown, scale, label, marks)


def _of_kind(view: _View, kind: Kind) -> tuple[AttentionRow, ...]:
    return tuple(row for row in view.rows if row.kind == kind)


def _spots(
    figure: Figure, panels: Mapping[str, Axes], rows: tuple[AttentionRow, ...]
) -> list[tuple[float, float]]:
    """Left edges and widths, in inches, of the columns that a colour bar for these rows spans."""
    places = [inches(ax) for ax in figure.axes if ax.images or ax in panels.values()]
    columns = sorted({(left, width) for left, _, width, _ in places})
    if len({round(top, 6) for _, top, _, _ in places}) == 1:
        return [(left, width) for left, _, width, _ in (inches(panels[row.backbone]) for row in rows)]
    kinds = {row.kind for row in rows}
    if len(kinds) == 2:
        return columns
    return columns[:1] if "intra" in kinds else columns[1:]


def _bar_axes(
    figure: Figure, panels: Mapping[str, Axes], first: tuple[float, float], last: tuple[float, float]
) -> Axes:
    places = [inches(ax) for ax in panels.values()]
    bottom = max(top + height for _, top, _, height in places)
    return place(figure, first[0], bottom + 0.4, max(last[0] + last[1] - first[0], 2.0), 0.1)


def _draw_edges(figure: Figure, view: _View, panels: Mapping[str, Axes]) -> None:
    own = Spot(panels[view.query.backbone], view.box(view.query))
    strongest = max((edge.weight for edge in view.edges), default=0.0) or 1.0
    links = []
    for edge in view.edges:
        other, strength = Spot(panels[edge.other.backbone], view.box(edge.other)), edge.weight / strongest
        if view.direction == "outgoing":
            links.append(Link(own, other, view.colours[edge.other.backbone].mark, strength))
        else:
            links.append(Link(other, own, view.colours[view.query.backbone].mark, strength))
    draw_links(figure, links, [*panels.values()])


def _lowest(*panels: Axes | None) -> Axes:
    """The leftmost panel of the last row."""
    return min((ax for ax in panels if ax), key=lambda ax: (-round(inches(ax)[1], 6), inches(ax)[0]))


def _write_title(figure: Figure, view: _View, second: str) -> None:
    query = view.query
    way = "of" if view.direction == "outgoing" else "to"
    said = f"Attention {way} patch ({query.row}, {query.column}) of"
    room = 72 * (figure.get_size_inches()[0] - 2 * MARGIN) - text_width(said, 12, "bold") - 5
    name = shorten(query.backbone, room, size=12, weight="bold")
    ink = view.colours[query.backbone].text
    title(figure, [(said, INK, "bold"), (name, ink, "bold")], [(second, SECOND_INK)])


def _where(attention: CapturedAttention, layer: int, head: int | None) -> str:
    return f"layer {layer}, " + (f"head {head}" if head is not None else f"mean over {attention.heads} heads")
