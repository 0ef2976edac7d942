"""Edges between the panels of one figure: curves from patch to patch that keep clear of headers and numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.bezier import BezierSegment
from matplotlib.collections import CircleCollection, LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from grafeat.plots.marks import Spot
from grafeat.plots.panels import inches
from grafeat.plots.sheets import Curve, Point

LINKS = "links"  # label of the lines
DOTS = "attended to"  # label of the dots
PIECES = 24  # straight pieces of one cubic curve
CASING = 1.5  # points of white around a line, both sides together
LANES = 0.12  # inches over which the links that share a gutter are spread


@dataclass(frozen=True, eq=False)
class Link:
    """An edge between two patches.

    Attributes:
        query: The patch that attends.
        key: The patch that is attended to.
        colour: The colour of the line.
        strength: Its weight as a share of the strongest, in [0, 1].
    """

    query: Spot
    key: Spot
    colour: str
    strength: float


def draw_links(figure: Figure, links: Sequence[Link], panels: Sequence[Axes]) -> None:
    """Draws edges over the panels, weakest first: full at both ends, paler between, a dot where they are attended to.

    Args:
        figure: The figure.
        links: The edges.
        panels: All panels of the figure, of one size, in rows and columns: links go round their headers.
    """
    if not links:
        return
    links = sorted(links, key=lambda link: link.strength)
    size = np.array(figure.get_size_inches())
    curves = [
        (points / size) * (1, -1) + (0, 1)
        for points in (_curve(link, lane, panels) for link, lane in zip(links, _lanes(links), strict=True))
    ]
    pieces, shades, widths = _strokes(links, curves)
    lines = LineCollection(pieces, colors=shades, linewidths=widths, capstyle="round", joinstyle="round")
    lines.set(transform=figure.transFigure, zorder=2, label=LINKS)
    figure.add_artist(lines)
    radii = [min(1.6 + 1.5 * link.strength, max(1.0, 0.36 * link.key.side)) for link in links]
    ends = np.array([curve[-1] for curve in curves])
    dots = CircleCollection(np.pi * np.array(radii) ** 2, offsets=ends, offset_transform=figure.transFigure)
    dots.set(
        facecolor=[link.colour for link in links], edgecolor="white", linewidth=0.7, zorder=3, label=DOTS
    )
    figure.add_artist(dots)


def _strokes(
    links: Sequence[Link], curves: Sequence[Curve]
) -> tuple[list[Curve], list[tuple[float, float, float]], list[float]]:
    """Casing and line of each link in turn, so that a strong one crosses over the weak ones.

    Colours are mixed with white instead of let through: pieces that overlap would show their joints.
    """
    pieces: list[Curve] = []
    shades: list[tuple[float, float, float]] = []
    widths: list[float] = []
    for link, curve in zip(links, curves, strict=True):
        width = 0.9 + 1.4 * link.strength
        count = len(curve) - 1
        full = (0.6 + 0.4 * np.linspace(-1, 1, count) ** 2) * (0.8 + 0.2 * link.strength)
        mixed = 1 - full[:, None] * (1 - np.array(to_rgb(link.colour)))
        pieces += [curve, *np.stack([curve[:-1], curve[1:]], axis=1)]
        shades += [(1.0, 1.0, 1.0), *((float(r), float(g), float(b)) for r, g, b in mixed)]
        widths += [width + CASING, *[width] * count]
    return pieces, shades, widths


def _lanes(links: Sequence[Link]) -> list[float]:
    """How far each link keeps from the middle of a gutter, in inches: in the order of the ends, so that few cross."""
    order = np.lexsort(np.array([(link.key.at + link.query.at)[::-1] for link in links]).T)
    ranks = np.empty(len(links))
    ranks[order] = (np.arange(len(links)) + 0.5) / len(links) - 0.5
    return [LANES * float(rank) for rank in ranks]


def _curve(link: Link, lane: float, panels: Sequence[Axes]) -> Curve:
    """Points of the curve from query to key, in inches from the figure's left and top edges."""
    start, end = link.query.at, link.key.at
    _, top, _, height = inches(link.query.ax)
    _, other_top, _, other_height = inches(link.key.ax)
    if abs(top - other_top) < 0.01:
        return _beside(start, end)
    leave, enter = (top + height, other_top) if other_top > top else (top, other_top + other_height)
    middle = _gutter(link, panels) + lane
    first, last = np.array([middle, leave]), np.array([middle, enter])
    return np.concatenate([_turned(start, first), _turned(end, last)[::-1]])


def _beside(start: Point, end: Point) -> Curve:
    """Between panels of one row: within their height, above which headers stand, and below which bars do."""
    half = np.array([(end[0] - start[0]) / 2, 0.0])
    return _bezier(start, start + half, end - half, end)


def _turned(start: Point, door: Point) -> Curve:
    """From a patch to where a gutter leaves the row: level at first, upright at last."""
    return _bezier(start, np.array([(start[0] + door[0]) / 2, start[1]]), np.array([door[0], start[1]]), door)


def _gutter(link: Link, panels: Sequence[Axes]) -> float:
    """The middle of the gap between two columns through which a link goes from row to row, beside its far end."""
    places = [inches(ax) for ax in panels]
    width = places[0][2]
    lefts = sorted({round(left, 6) for left, _, _, _ in places})
    gap = lefts[1] - lefts[0] - width if len(lefts) > 1 else 0.2
    rows = sorted((link.query.ax, link.key.ax), key=lambda ax: inches(ax)[1])
    near, far = (inches(ax)[0] for ax in rows)
    before = far > near + 0.01 or (abs(far - near) < 0.01 and far > lefts[-1] - 0.01)
    return far - gap / 2 if before else far + width + gap / 2


def _bezier(*controls: Point) -> Curve:
    return np.asarray(BezierSegment(np.stack(controls))(np.linspace(0, 1, PIECES + 1)))
