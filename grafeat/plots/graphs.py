"""The patch graph drawn: the strongest edges between the patches of all backbones, and the mass they keep."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from torch import Tensor

from grafeat.graph import Kind
from grafeat.plots.heatmaps import LUMINANCE, OUTLINE, outlines
from grafeat.plots.palette import (
    HAIRLINE,
    INK,
    SECOND,
    SECOND_INK,
    SEQUENTIAL,
    BackboneColour,
    backbone_colours,
    styled,
)
from grafeat.plots.panels import (
    MARGIN,
    WIDEST,
    Part,
    colour_bar,
    footnote,
    inches,
    number,
    panel_figure,
    place,
    shorten,
)
from grafeat.plots.pictures import Colours, checked_picture, grid_lines, patches
from grafeat.plots.sheets import CORNERS, Curve, DrawnEdge, Place, Sheet, edge_curves, graph_layout, sheets_of

PALE = 0.25  # how much of the picture's contrast is left on a sheet
Paint = Literal["community", "pagerank"]
# Paul Tol's light colours, made to be told apart by every kind of colour vision and to carry dark letters; grey, his
# ninth, is for all further communities.
TINTS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00", "#DDDDDD")
ROOM = 13  # points that a patch must be wide to have a letter of its own


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
            _draw_paint(ax, graph, sheet, paint, picture)
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
        for line, parts in enumerate(_communities_said(graph), start=lines):
            footnote(ax, line, parts)
    elif paint == "pagerank":
        _draw_rank_bar(ax, graph, lines)
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


def _inch(ax: Axes) -> float:
    """Inches of the figure for one unit of the drawing."""
    return inches(ax)[2] / float(np.ptp(ax.get_xlim()))


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
    name = shorten(sheet.name, 72 * min(_inch(ax) * (pitch - 0.08), inches(ax)[2]), size=11, weight="bold")
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


def _draw_paint(ax: Axes, graph: nx.DiGraph, sheet: Sheet, paint: Paint, picture: Tensor | None) -> None:
    """Fills the patches of a sheet; between communities there are lines, so that colours alone need not tell."""
    own = [data for data in graph.nodes.values() if data["backbone"] == sheet.name]
    boxes = np.array([data["box"] for data in own])
    values = np.array([data[paint] for data in own])
    if paint == "pagerank":
        shades = _rank_colours(graph).to_rgba(values)[:, :3]
    else:
        shades = np.array([to_rgb(_tint(community)) for community in values.tolist()])
    filled = PolyCollection(list(sheet.on(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])), facecolors=shades)
    # edges of the patch's own colour close the hairlines between patches
    filled.set(edgecolors="face", linewidths=0.3, zorder=0.7, label=paint)
    ax.add_collection(filled, autolim=False)
    if picture is not None:
        _draw_outlines(ax, sheet, picture, dark=bool((shades @ LUMINANCE).mean() < 0.5))
    if paint == "community":
        _draw_borders(ax, sheet, own)
        _draw_letters(ax, sheet, boxes, values)


def _draw_outlines(ax: Axes, sheet: Sheet, picture: Tensor, *, dark: bool) -> None:
    """The picture's outlines over the paint, light where it is dark."""
    strength = outlines(checked_picture(picture)).numpy()
    overlay = np.stack([np.full_like(strength, dark)] * 3 + [OUTLINE * strength], axis=-1)
    left_right, bottom_top = ax.get_xlim(), ax.get_ylim()
    x0, y0, x1, y1 = sheet.field
    clip = Polygon(sheet.on(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])), transform=ax.transData)
    shown = ax.imshow(overlay, extent=(0, 1, 1, 0), interpolation="bilinear", zorder=0.8)
    shown.set(transform=sheet.affine + ax.transData, clip_path=clip)
    ax.set(xlim=left_right, ylim=bottom_top, aspect="equal")  # imshow moved them to the flat picture


def _draw_borders(ax: Axes, sheet: Sheet, own: list[dict]) -> None:
    community = {(data["row"], data["column"]): data["community"] for data in own}
    borders = []
    for data in own:
        row, column, (x0, y0, x1, y1) = data["row"], data["column"], data["box"]
        for neighbour, line in (
            ((row, column + 1), [(x1, y0), (x1, y1)]),
            ((row + 1, column), [(x0, y1), (x1, y1)]),
        ):
            if community.get(neighbour, data["community"]) != data["community"]:
                borders.append(line)
    if borders:
        lines = LineCollection(list(sheet.on(np.array(borders))), colors=INK, linewidths=0.9, zorder=1.2)
        ax.add_collection(lines, autolim=False)


def _draw_letters(ax: Axes, sheet: Sheet, boxes: np.ndarray, communities: np.ndarray) -> None:
    """A letter in a corner of each patch; where patches are small, one in the middle of each community."""
    wide = 72 * _inch(ax) * float(np.ptp(sheet.on(CORNERS)[:, 0])) * (boxes[0, 2] - boxes[0, 0])  # in points
    roomy = wide >= ROOM
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    corners = boxes[:, :2] + (0.22, 0.25) * (boxes[:, 2:] - boxes[:, :2])
    for community in np.unique(communities).tolist():
        members = (communities == community).nonzero()[0]
        middle = np.square(centres[members] - centres[members].mean(axis=0)).sum(axis=1).argmin()
        for x, y in sheet.on(corners[members] if roomy else centres[members[middle]][None]):
            letter = ax.text(x, y, _letter(community), ha="center", va="center", color=INK, clip_on=True)
            letter.set(size=min(0.42 * wide, 9) if roomy else 8.5, weight="normal" if roomy else "bold")
            halo = (1.5, _tint(community)) if roomy else (2.5, "white")
            letter.set(path_effects=[withStroke(linewidth=halo[0], foreground=halo[1])], zorder=5, label="letter")


def _draw_rank_bar(ax: Axes, graph: nx.DiGraph, line: int) -> None:
    """The colours of PageRank below so many lines of text, and its mean over all patches."""
    _, _, width, height = inches(ax)
    drop = (46 + 16 * line + 30) / 72
    bar = ax.inset_axes((0, -drop / height, min(3.2 / width, 1), 0.1 / height))
    mean = float(np.mean([data["pagerank"] for data in graph.nodes.values()]))
    colour_bar(bar, _rank_colours(graph), "PageRank", marks=[(mean, SECOND)], mark_label="mean")


def _rank_colours(graph: nx.DiGraph) -> ScalarMappable:
    """From 0 to the largest PageRank, the same for all sheets."""
    return ScalarMappable(Normalize(0, max(data["pagerank"] for data in graph.nodes.values())), SEQUENTIAL)


def _tint(community: int) -> str:
    return TINTS[min(community, len(TINTS) - 1)]


def _letter(community: int) -> str:
    """A letter for each of the first 26 communities."""
    return chr(ord("a") + community) if community < 26 else ""


def _draw_vertices(
    ax: Axes, graph: nx.DiGraph, sheet: Sheet, at: Mapping[int, Place], colour: BackboneColour
) -> None:
    own = [vertex for vertex, name in graph.nodes(data="backbone") if name == sheet.name]
    spacing = 72 * _inch(ax) * float(np.ptp(sheet.on(CORNERS)[:, 0])) / sheet.shape[1]  # in points
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


def _communities_said(graph: nx.DiGraph) -> list[list[Part]]:
    """Two lines: the largest communities with their letters and patches, and how many are smaller."""
    found = [data["community"] for data in graph.nodes.values()]
    sizes = {community: found.count(community) for community in sorted(set(found))}
    parts: list[Part] = []
    for community in [community for community in sizes if community < len(TINTS) - 1]:
        parts += [("■", _tint(community)), (f"{_letter(community)} {sizes.pop(community):,}", SECOND_INK)]
    if sizes:
        parts += [("■", TINTS[-1]), (f"{len(sizes)} more {sum(sizes.values()):,}", SECOND_INK)]
    many = len(set(found))
    said = f"patches of {many} communities:" if many > 1 else "one community:"
    return [[(said, SECOND_INK), *parts[:8]], *([parts[8:]] if parts[8:] else [])]


def _weights_said(graph: nx.DiGraph, kinds: Collection[Kind]) -> str:
    edges = [data for _, _, data in graph.edges(data=True)]
    found = {kind: [data.get("weight", 0.0) for data in edges if data["kind"] == kind] for kind in kinds}
    strongest = " and ".join(f"{number(max(weights))} {kind}" for kind, weights in found.items() if weights)
    return f"width follows weight, up to {strongest} · routing, not importance"
