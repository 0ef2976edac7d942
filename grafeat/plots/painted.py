"""What fills the patches of a drawn graph: a tint and a letter for each community, or the colours of PageRank."""

import math
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

from grafeat.plots.heatmaps import LUMINANCE, OUTLINE, outlines
from grafeat.plots.palette import INK, SECOND, SECOND_INK, SEQUENTIAL
from grafeat.plots.panels import Part, colour_bar, inches, unit
from grafeat.plots.pictures import checked_picture
from grafeat.plots.sheets import CORNERS, Sheet

Paint = Literal["community", "pagerank"]
# Paul Tol's light colours, made to be told apart by every kind of colour vision and to carry dark letters; grey, his
# ninth, is for all further communities.
TINTS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00", "#DDDDDD")
ROOM = 13  # points that a patch must be wide to have a letter of its own


def draw_paint(ax: Axes, graph: nx.DiGraph, sheet: Sheet, paint: Paint, picture: Tensor | None) -> None:
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


def draw_rank_bar(ax: Axes, graph: nx.DiGraph, line: int) -> None:
    """The colours of PageRank below so many lines of text, and its mean over all patches."""
    _, _, width, height = inches(ax)
    drop = (46 + 16 * line + 30) / 72
    bar = ax.inset_axes((0, -drop / height, min(3.2 / width, 1), 0.1 / height))
    mean = float(np.mean([data["pagerank"] for data in graph.nodes.values()]))
    colour_bar(bar, _rank_colours(graph), "PageRank", marks=[(mean, SECOND)], mark_label="mean")


def communities_said(graph: nx.DiGraph) -> list[list[Part]]:
    """One line or two of like length: the largest communities with letters and patches, and how many are smaller."""
    found = [data["community"] for data in graph.nodes.values()]
    sizes = {community: found.count(community) for community in sorted(set(found))}
    parts: list[Part] = []
    for community in [community for community in sizes if community < len(TINTS) - 1]:
        parts += [("■", _tint(community)), (f"{_letter(community)} {sizes.pop(community):,}", SECOND_INK)]
    if sizes:
        parts += [("■", TINTS[-1]), (f"{len(sizes)} more {sum(sizes.values()):,}", SECOND_INK)]
    many = len(set(found))
    said = f"patches of {many} communities:" if many > 1 else "one community:"
    first = len(parts) if len(parts) <= 8 else min(8, 2 * math.ceil(len(parts) / 4))  # a swatch and words for each
    return [[(said, SECOND_INK), *parts[:first]], *([parts[first:]] if parts[first:] else [])]


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
    wide = 72 * unit(ax) * float(np.ptp(sheet.on(CORNERS)[:, 0])) * (boxes[0, 2] - boxes[0, 0])  # in points
    roomy = wide >= ROOM
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    corners = boxes[:, :2] + (0.22, 0.25) * (boxes[:, 2:] - boxes[:, :2])
    for community in np.unique(communities).tolist():
        members = (communities == community).nonzero()[0]
        middle = np.square(centres[members] - centres[members].mean(axis=0)).sum(axis=1).argmin()
        for x, y in sheet.on(corners[members] if roomy else centres[members[middle]][None]):
            letter = ax.text(x, y, _letter(community), ha="center", va="center", color=INK, clip_on=True)
            letter.set(size=min(0.42 * wide, 9) if roomy else 8.5, weight="normal" if roomy else "bold")
            halo = (2.5, _tint(community)) if roomy else (2.5, "white")
            letter.set(path_effects=[withStroke(linewidth=halo[0], foreground=halo[1])], zorder=5, label="letter")


def _rank_colours(graph: nx.DiGraph) -> ScalarMappable:
    """From 0 to the largest PageRank, the same for all sheets."""
    return ScalarMappable(Normalize(0, max(data["pagerank"] for data in graph.nodes.values())), SEQUENTIAL)


def _tint(community: int) -> str:
    return TINTS[min(community, len(TINTS) - 1)]


def _letter(community: int) -> str:
    """A letter for each of the first 26 communities."""
    return chr(ord("a") + community) if community < 26 else ""
