"""What attention heatmaps say in words: above each panel, and below all of them."""

import math
from collections.abc import Sequence

from grafeat.graph import Patch
from grafeat.plots.palette import SECOND_INK
from grafeat.plots.panels import Part, number, shorten, text_width
from grafeat.plots.pictures import Colours, patches
from grafeat.plots.rows import AttentionRow, CrossEdge, Direction, kept_share

SIZE = 10.0  # points, as footnotes are


def panel_details(row: AttentionRow, rows: Sequence[AttentionRow], direction: Direction) -> tuple[str, str]:
    """What a panel's header says below the backbone's name: the mass on its grid, and the grid's size."""
    h, w = row.weights.shape
    others = sum(other.kind == "cross" for other in rows)
    joint = any(other.kind == "intra" and other.equal_mass < 0.999 for other in rows)  # one softmax for all grids
    if row.missing.any():
        said = f"{row.kind} NaN"
    elif direction == "incoming":
        said = f"{row.kind} {_times(row.mass / row.equal_mass)} even"
    elif row.kind == "intra" and not joint:
        said = "intra"
    else:
        said = f"{row.kind} {row.mass:.0%}" + (f", uniform {row.equal_mass:.0%}" if others > 1 or joint else "")
    return said, patches((h, w))


def caption_lines(
    rows: Sequence[AttentionRow],
    edges: Sequence[CrossEdge],
    *,
    asked: int,
    direction: Direction,
    pin: Patch | None,
    colours: Colours,
    width: float,
) -> list[list[Part]]:
    """The lines below the panels: what the edges keep, which patch is in brackets, what hatching means.

    Args:
        rows: The patch's rows.
        edges: The edges that are drawn.
        asked: How many were asked for.
        direction: Of the rows.
        pin: The patch in brackets, if any.
        colours: The backbones' colours.
        width: Room for a line, in points.
    """
    lines: list[list[Part]] = []
    if asked:
        said = _edges_said(rows, edges, direction)
        more = f"{said}; width follows weight"
        lines.append([(more if edges and text_width(more, SIZE) <= width else said, SECOND_INK)])
    if pin:
        lines.append(_pin_said(rows, pin, colours, width))
    missing = sum(int(row.missing.sum()) for row in rows)
    if missing:
        lines.append([(f"hatched: {missing:,} of {_count(rows):,} weights are NaN", SECOND_INK)])
    return lines


def _edges_said(rows: Sequence[AttentionRow], edges: Sequence[CrossEdge], direction: Direction) -> str:
    cross = [row for row in rows if row.kind == "cross"]
    if not cross:
        return "no edges: nothing but intra attention was captured"
    if not edges:
        return "no edges: all cross weights are NaN"
    received = " received" if direction == "incoming" else ""
    without = ", NaN left out" if any(bool(row.missing.any()) for row in cross) else ""
    mass = f"cross mass{received}{without}"
    if len(edges) == _count(cross):
        return f"all {len(edges):,} edges, the whole {mass}"
    share = kept_share(edges, rows)
    kept = ">99%" if share >= 0.995 else f"{share:.0%}"
    strongest = f"{len(edges):,} strongest edges keep" if len(edges) > 1 else "the strongest edge keeps"
    return f"{strongest} {kept} of the {mass}"


def _pin_said(rows: Sequence[AttentionRow], pin: Patch, colours: Colours, width: float) -> list[Part]:
    said = f"in brackets: patch ({pin.row}, {pin.column}) of"
    after = next((_weight_said(row, pin) for row in rows if row.backbone == pin.backbone), "")
    room = width - text_width(said, SIZE) - text_width(after, SIZE) - 15
    name = shorten(pin.backbone, room, size=SIZE, weight="bold")
    return [(said, SECOND_INK), (name, colours[pin.backbone].text, "bold"), (after, SECOND_INK)]


def _weight_said(row: AttentionRow, patch: Patch) -> str:
    weight = float(row.weights[patch.row, patch.column])
    if math.isnan(weight):
        return "weighs NaN"
    return f"weighs {number(weight)}, {_times(weight / row.equal)} uniform"


def _times(ratio: float) -> str:
    return (f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 0.095 else number(ratio)) + "×"


def _count(rows: Sequence[AttentionRow]) -> int:
    return sum(row.weights.numel() for row in rows)
