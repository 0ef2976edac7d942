"""The patch graph drawn: the strongest edges between the patches of all backbones, and the mass they keep."""

import math
from collections.abc import Collection, Mapping, Sequence

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from torch import Tensor

from grafeat.graph import Kind
from grafeat.plots.heatmaps import LUMINANCE
from grafeat.plots.painted import Paint, communities_said, draw_paint, draw_rank_bar
from grafeat.plots.palette import (
    HAIRLINE,
    INK,
    SECOND_INK,
    BackboneColour,
    backbone_colours,
    styled,
)
from grafeat.plots.panels import (
    MARGIN,
    WIDEST,
    Part,
    footnote,
    inches,
    number,
    panel_figure,
    place,
    shorten,
    unit,
)
from grafeat.plots.pictures import Colours, checked_picture, grid_lines, patches
from grafeat.plots.sheets import CORNERS, Curve, DrawnEdge, Place, Sheet, edge_curves, graph_layout, sheets_of

PALE = 0.25  # how much of the picture's contrast is left on a sheet


@styled
def draw_graph(
    graph: nx.DiGraph,
    picture: Tensor | None = None,
    ax: Axes | None = None,
    *,
    kinds: Collection[Kind] = ("intra", "cross"),
    tilt: float = 0.3,
    colours: Colours | None = None,
    paint: Paint | None = None,
) -> Axes:
    """Draws the patch graph on its backbones' grids, and prints how much of the attention mass its edges keep.

    Cross edges are full curves in the colour of the backbone that is attended to, with a dot at that end. Intra edges
    are dark and dashed; a patch's loop to itself is a ring. Width and strength follow the weight, within each kind.

    Args:
        graph: What `PatchGraph.to_networkx(attention, top=…)` gives; all its edges are drawn.
        picture: The picture (3, H, W), in [0, 1], drawn pale on each sheet; under paint, its outlines.
        ax: Where to draw, with an inch of room below for names and captions, two with a colour bar; a new figure if
            absent.
        kinds: Which edges are drawn.
        tilt: How far the sheets are turned out of the plane, in [0, 1); 0 leaves them flat.
        colours: Each backbone's colour, by name; decided by the graph's backbones if absent.
        paint: What fills the patches, as `measures.annotate` put it on the vertices: "community", a tint and a letter
            for each, or "pagerank", with a colour bar.

    Returns:
        The axes.

    Raises:
        ValueError: If the graph is not what `to_networkx` gives, `kinds` is empty or unknown, weights are NaN, or the
            vertices do not carry what `paint` names.

    Source: the tints are Paul Tol's light scheme, Colour Schemes, SRON/EPS/TN/09-002, 2021.
    """
    if not kinds or set(kinds) - {"intra", "cross"}:
        raise ValueError(f"kinds: got {tuple(kinds)}; expected 'intra', 'cross' or both")
    _check_numbers(graph, paint)
    aspect = 1.0 if picture is None else picture.shape[-2] / picture.shape[-1]
    sheets = sheets_of(graph, aspect=aspect, tilt=tilt)
    at = graph_layout(graph, aspect=aspect, tilt=tilt)
    colours = colours or backbone_colours(sheet.name for sheet in sheets)
    edges = {
        kind: edge_curves(graph, kind, at, sheets) for kind in kinds if kind == "intra" or len(sheets) > 1
    }
    weighted = any("weight" in data for _, _, data in graph.edges(data=True))
    lines = len(edges) + weighted
    foot = {None: 0, "community": 50 + 16 * (lines + 2), "pagerank": 110 + 16 * lines}[paint] / 72
    ax = _framed(ax, sheets, [edge.curve for drawn in edges.values() for edge in drawn], max(foot, 1.3))
    for sheet in sheets:
        _draw_sheet(ax, sheet, picture, colours[sheet.name], _pitch(sheets))
        if paint:
            draw_paint(ax, graph, sheet, paint, picture)
        _draw_vertices(ax, graph, sheet, at, colours[sheet.name])
    _draw_cross(ax, edges.get("cross", []), colours)
    _draw_intra(ax, edges.get("intra", []), cased=paint == "pagerank")
    painted = {None: "", "community": "; patches by community", "pagerank": "; patches by PageRank"}[paint]
    ax.set_title("Patch graph" + (": strongest attention edges" if weighted else "") + painted, pad=10)
    for line, kind in enumerate(edges):
        footnote(ax, line, _said(graph, kind, sheets))
    if weighted:
        footnote(ax, len(edges), [(_weights_said(graph, edges), SECOND_INK)])
    if paint == "community":
        for line, parts in enumerate(communities_said(graph), start=lines):
            footnote(ax, line, parts)
    elif paint == "pagerank":
        draw_rank_bar(ax, graph, lines)
    return ax


def _check_numbers(graph: nx.DiGraph, paint: Paint | None) -> None:
    if wrong := sum(math.isnan(data.get("weight", 0)) for _, _, data in graph.edges(data=True)):
        raise ValueError(
            f"graph: {wrong:,} edges have weight NaN; expected numbers; look for NaN in the model's parameters"
        )
    if paint not in (None, "community", "pagerank"):
        raise ValueError(f"paint: got {paint!r}; expected 'community', 'pagerank' or None")
    if paint and not all(math.isfinite(data.get(paint, math.nan)) for data in graph.nodes.values()):
        raise ValueError(
            f"paint: got {paint!r}, but not all vertices carry it as a number; put it there with measures.annotate()"
        )


def _pitch(sheets: tuple[Sheet, ...]) -> float:
    """From one sheet's left edge to the next one's; a lone sheet's name may be as wide as two."""
    lefts = [float(sheet.on(CORNERS)[0, 0]) for sheet in sheets]
    return lefts[1] - lefts[0] if len(lefts) > 1 else 2.0


def _framed(ax: Axes | None, sheets: tuple[Sheet, ...], curves: list[Curve], foot: float) -> Axes:
    """Axes with equal units whose limits hold every sheet and curve; new ones are sized to them, with room below."""
    drawn = np.concatenate([*(sheet.on(CORNERS) for sheet in sheets), *curves])
    (left, top), (right, bottom) = drawn.min(axis=0) - 0.03, drawn.max(axis=0) + 0.03
    if ax is None:
        inch = min((WIDEST - 2 * MARGIN) / (right - left), 2.9)
        width, height = (right - left) * inch, (bottom - top) * inch
        figure = panel_figure(max(width, 6.2) + 2 * MARGIN, height + 0.4 + foot)
        ax = place(figure, MARGIN, 0.4, width, height)
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return ax


def _draw_sheet(ax: Axes, sheet: Sheet, picture: Tensor | None, colour: BackboneColour, pitch: float) -> None:
    corners = sheet.on(CORNERS)
    frame = Polygon(corners, facecolor="#F6F6F6", edgecolor=HAIRLINE, linewidth=0.8, zorder=0)
    ax.add_patch(frame)
    if picture is not None:
        _draw_pale(ax, sheet, picture, frame)
    lines = LineCollection(
        list(sheet.on(grid_lines(sheet.shape, sheet.field))), colors=colour.mark, linewidths=0.7
    )
    lines.set(alpha=0.45, zorder=1)
    ax.add_collection(lines, autolim=False)
    name = shorten(sheet.name, 72 * min(unit(ax) * (pitch - 0.08), inches(ax)[2]), size=11, weight="bold")
    for text, drop, ink, size, weight in (
        (name, -6, colour.text, 11, "bold"),
        (patches(sheet.shape), -21, SECOND_INK, 9.5, "normal"),
    ):
        below = ax.annotate(text, tuple(corners[3]), xytext=(0, drop), textcoords="offset points", va="top")
        below.set(color=ink, size=size, weight=weight, annotation_clip=False)


def _draw_pale(ax: Axes, sheet: Sheet, picture: Tensor, frame: Polygon) -> None:
    grey = np.einsum("chw,c->hw", checked_picture(picture).numpy(), LUMINANCE)
    left_right, bottom_top = ax.get_xlim(), ax.get_ylim()
    shown = ax.imshow(1 - PALE * (1 - grey), cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    shown.set(interpolation="antialiased", clip_path=frame, zorder=0.5)
    shown.set_transform(sheet.affine + ax.transData)
    ax.set(xlim=left_right, ylim=bottom_top, aspect="equal")  # imshow moved them to the flat picture


def _draw_vertices(
    ax: Axes, graph: nx.DiGraph, sheet: Sheet, at: Mapping[int, Place], colour: BackboneColour
) -> None:
    own = [vertex for vertex, name in graph.nodes(data="backbone") if name == sheet.name]
    spacing = 72 * unit(ax) * float(np.ptp(sheet.on(CORNERS)[:, 0])) / sheet.shape[1]  # in points
    size = float(np.clip(0.22 * spacing, 1.2, 3.6)) ** 2
    drawn = nx.draw_networkx_nodes(
        graph, dict(at), nodelist=own, node_size=size, node_color=colour.mark, linewidths=0, ax=ax
    )
    drawn.set_zorder(1.5)


def _thin(edges: Sequence[DrawnEdge]) -> float:
    """How much thinner many edges are drawn than few, in (0, 1]."""
    return min(1.0, (60 / max(len(edges), 1)) ** 0.5)


def _draw_cross(ax: Axes, edges: list[DrawnEdge], colours: Colours) -> None:
    """Full curves, paler half-way, where they crowd; a dot where they end."""
    if not edges:
        return
    thin = _thin(edges)
    marks = [to_rgb(colours[edge.backbone].mark) for edge in edges]
    strengths = np.array([edge.strength for edge in edges])
    curves = np.stack([edge.curve for edge in edges])
    pieces = np.stack([curves[:, :-1], curves[:, 1:]], axis=2)  # (edges, pieces, 2 ends, 2)
    count = pieces.shape[1]
    fade = 0.45 + 0.55 * np.linspace(-1, 1, count) ** 2
    alpha = (0.15 + 0.8 * strengths)[:, None] * fade * thin**0.5
    shades = np.concatenate([np.repeat(np.array(marks)[:, None], count, axis=1), alpha[..., None]], axis=2)
    lines = LineCollection(list(pieces.reshape(-1, 2, 2)), colors=shades.reshape(-1, 4), label="cross")
    lines.set(linewidths=np.repeat((0.5 + 2.4 * strengths) * thin, count), capstyle="butt", zorder=3)
    ax.add_collection(lines, autolim=False)
    dots = ax.scatter(curves[:, -1, 0], curves[:, -1, 1], s=(3 + 3.5 * strengths) ** 2 * thin, c=marks)
    dots.set(edgecolors="white", linewidths=0.6 * max(thin, 0.35), zorder=4, label="attended to")


def _draw_intra(ax: Axes, edges: list[DrawnEdge], *, cased: bool = False) -> None:
    """Dark dashed curves, and rings for loops; with light casings on dark patches, where they would be lost."""
    thin = _thin(edges)
    curves = [edge for edge in edges if edge.query != edge.key]
    loops = [edge for edge in edges if edge.query == edge.key]
    if curves:
        lines = LineCollection([edge.curve for edge in curves], linestyles=[(0, (2.5, 1.5))], label="intra")
        alphas = [max(0.12, (0.2 + 0.7 * edge.strength) * thin) for edge in curves]
        lines.set(colors=[(*to_rgb(INK), alpha) for alpha in alphas], zorder=2)
        lines.set(linewidths=[(0.5 + 1.6 * edge.strength) * thin for edge in curves])
        ax.add_collection(lines, autolim=False)
        if cased:
            case = LineCollection(lines.get_segments(), colors="white", alpha=0.65 * thin**0.5, label="casing")
            case.set(linewidths=np.array(lines.get_linewidth()) + 1.2 * thin, zorder=1.9)
            ax.add_collection(case, autolim=False)
    if loops:
        at = np.array([edge.curve[0] for edge in loops])
        rings = ax.scatter(at[:, 0], at[:, 1], s=25 + 30 * thin, facecolors="none", edgecolors=INK)
        rings.set(linewidths=[(0.5 + 1.3 * edge.strength) * thin for edge in loops], zorder=2, label="loops")
        if cased:
            rings.set_path_effects([withStroke(linewidth=1.8 + 1.3 * thin, foreground="white", alpha=0.65)])


def _said(graph: nx.DiGraph, kind: Kind, sheets: tuple[Sheet, ...]) -> list[Part]:
    """What is drawn of one kind, and how much of its attention mass that is; every row of attention sums to 1."""
    sizes = [h * w for h, w in (sheet.shape for sheet in sheets)]
    intra = sum(size**2 for size in sizes)
    total = intra if kind == "intra" else sum(sizes) ** 2 - intra
    edges = [(i, j, data) for i, j, data in graph.edges(data=True) if data["kind"] == kind]
    loopless = kind == "intra" and not any(i == j for i, j, _ in edges)
    few = len(edges) < (total - len(graph) if loopless else total)
    said = f"{kind}: {len(edges):,} of {total:,} edges" if few else f"{kind}: all {len(edges):,} edges"
    said += " but loops" if loopless and not few else ""
    if all("weight" in data for _, _, data in edges):
        kept = sum(data["weight"] for _, _, data in edges) / len(graph)
        said += f" keep {kept:.1%} of the {kind} mass"
        said += f" ({len(edges):,} at random: {len(edges) / total:.1%})" if few else ""
    style = ("╌╌", INK, "bold") if kind == "intra" else ("━━", SECOND_INK, "bold")
    return [style, (said, SECOND_INK)]


def _weights_said(graph: nx.DiGraph, kinds: Collection[Kind]) -> str:
    edges = [data for _, _, data in graph.edges(data=True)]
    found = {kind: [data.get("weight", 0.0) for data in edges if data["kind"] == kind] for kind in kinds}
    strongest = " and ".join(f"{number(max(weights))} {kind}" for kind, weights in found.items() if weights)
    return f"width follows weight, up to {strongest} · routing, not importance"
