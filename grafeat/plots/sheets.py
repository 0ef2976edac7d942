"""Where the patch graph is drawn: each backbone's grid is a tilted sheet, each edge a curve between two patches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Float
from matplotlib.transforms import Affine2D

from grafeat.graph import Kind
from grafeat.grids import Box

Place = tuple[float, float]
Point = Float[np.ndarray, "2"]
Curve = Float[np.ndarray, "_ 2"]
Edge = tuple[int, int, dict]
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
FAINT = 0.3  # strength of an edge whose weight was not captured
PULL = 0.65  # how tightly edges are bundled, in [0, 1]


@dataclass(frozen=True)
class Sheet:
    """One backbone's grid as a tilted sheet.

    Attributes:
        name: The backbone.
        shape: Rows and columns of its grid.
        field: The part of the picture that the grid covers.
        affine: From the picture's [0, 1]² to the drawing.
    """

    name: str
    shape: tuple[int, int]
    field: Box
    affine: Affine2D

    def on(self, points: Float[np.ndarray, "*some 2"]) -> Float[np.ndarray, "*some 2"]:
        """Points of the picture, in [0, 1]², in the drawing."""
        return np.asarray(self.affine.transform(points.reshape(-1, 2))).reshape(points.shape)


@dataclass(frozen=True, eq=False)
class DrawnEdge:
    """One edge as a curve.

    Attributes:
        query: The vertex that attends.
        key: The vertex that is attended to.
        backbone: The backbone that is attended to.
        curve: Points of the curve, from query to key.
        strength: Its weight as a share of the strongest of its kind, in [0, 1].
    """

    query: int
    key: int
    backbone: str
    curve: Curve
    strength: float


def graph_layout(graph: nx.Graph, *, aspect: float = 1.0, tilt: float = 0.3) -> dict[int, Place]:
    """Where each vertex is drawn: at its patch's centre, on its backbone's sheet; the sheets stand side by side.

    Args:
        graph: What `PatchGraph.to_networkx` gives.
        aspect: Height of the picture over its width.
        tilt: How far the sheets are turned out of the plane, in [0, 1); 0 leaves them flat.

    Returns:
        Positions (x, y) by vertex, y downwards, in widths of a flat sheet; networkx's drawing functions take them.

    Raises:
        ValueError: If vertices or edges do not carry what `to_networkx` gives them, or `tilt` is out of range.
    """
    sheets = {sheet.name: sheet for sheet in sheets_of(graph, aspect=aspect, tilt=tilt)}
    at = {}
    for vertex, data in graph.nodes(data=True):
        x0, y0, x1, y1 = data["box"]
        x, y = sheets[data["backbone"]].on(np.array([(x0 + x1) / 2, (y0 + y1) / 2]))
        at[vertex] = (float(x), float(y))
    return at


def sheets_of(graph: nx.Graph, *, aspect: float, tilt: float) -> tuple[Sheet, ...]:
    """The backbones' sheets from left to right; arguments as in `graph_layout`."""
    if not 0 <= tilt < 1:
        raise ValueError(f"tilt: got {tilt}; expected 0 or more, and less than 1; 0 leaves the sheets flat")
    _check_graph(graph)
    own: dict[str, list[dict]] = {}
    for _, data in graph.nodes(data=True):
        own.setdefault(data["backbone"], []).append(data)
    pitch = 1 - tilt + (0.8 if len(own) < 4 else 0.55)
    sheets = []
    for place, (name, patches) in enumerate(own.items()):
        boxes = np.array([data["box"] for data in patches])
        (x0, y0), (x1, y1) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
        shape = (1 + max(data["row"] for data in patches), 1 + max(data["column"] for data in patches))
        # Seen from the side: narrower, and the far edge, on the right, higher.
        affine = Affine2D(np.array([[1 - tilt, 0, place * pitch], [-0.6 * tilt, aspect, 0], [0, 0, 1]]))
        sheets.append(Sheet(name, shape, (x0, y0, x1, y1), affine))
    return tuple(sheets)


def edge_curves(
    graph: nx.DiGraph, kind: Kind, at: Mapping[int, Place], sheets: tuple[Sheet, ...]
) -> list[DrawnEdge]:
    """The edges of one kind as curves, weakest first, so that the strongest lie on top."""
    edges = [(i, j, data) for i, j, data in graph.edges(data=True) if data["kind"] == kind]
    edges.sort(key=lambda edge: edge[2].get("weight", FAINT))
    weighted = bool(edges) and "weight" in edges[-1][2]
    strongest = edges[-1][2]["weight"] if weighted and edges[-1][2]["weight"] > 0 else 1.0
    lanes = _lanes(edges, at, sheets) if kind == "cross" else {}
    points = 25 if len(edges) <= 500 else 7
    drawn = []
    for i, j, data in edges:
        query, key = data["relation"]
        start, end = np.array(at[i]), np.array(at[j])
        bent = _bent(start, end) if kind == "intra" else _bundled(start, end, lanes[query, key])
        strength = data.get("weight", FAINT) / strongest
        drawn.append(DrawnEdge(i, j, key, _bezier(start, *bent, end, points=points), strength))
    return drawn


def _check_graph(graph: nx.Graph) -> None:
    vertices = [data for _, data in graph.nodes(data=True)]
    edges = [data for _, _, data in graph.edges(data=True)]
    if not vertices or not all({"backbone", "row", "column", "box"} <= set(data) for data in vertices):
        raise ValueError(
            "graph: got vertices without backbone, row, column or box; expected what PatchGraph.to_networkx() gives"
        )
    if not all({"kind", "relation"} <= set(data) for data in edges):
        raise ValueError(
            "graph: got edges without kind or relation; expected what PatchGraph.to_networkx() gives"
        )


def _lanes(
    edges: Iterable[Edge], at: Mapping[int, Place], sheets: tuple[Sheet, ...]
) -> dict[tuple[str, str], Point]:
    """The point to which a relation's edges are drawn together, so that they cross a gap as one bundle.

    Between neighbouring sheets it lies in the gap, each direction a little aside; edges that pass a sheet go above.
    """
    order = [sheet.name for sheet in sheets]
    top = min(float(sheet.on(CORNERS)[:, 1].min()) for sheet in sheets)
    ends: dict[tuple[str, str], list[tuple[Place, Place]]] = {}
    for i, j, data in edges:
        ends.setdefault(tuple(data["relation"]), []).append((at[i], at[j]))
    lanes = {}
    for (query, key), pairs in ends.items():
        steps = order.index(key) - order.index(query)
        x, y = np.array(pairs).mean(axis=(0, 1))
        y = y + 0.06 * np.sign(steps) if abs(steps) == 1 else top - 0.12 - 0.2 * abs(steps)
        lanes[query, key] = np.array([x, y])
    return lanes


def _bundled(start: Point, end: Point, lane: Point) -> tuple[Point, Point]:
    first, second = ((1 - PULL) * (start + share * (end - start)) + PULL * lane for share in (0.3, 0.7))
    return first, second


def _bent(start: Point, end: Point) -> tuple[Point, Point]:
    along = end - start
    aside = 0.18 * np.array([along[1], -along[0]])
    return start + along / 3 + aside, start + 2 * along / 3 + aside


def _bezier(start: Point, first: Point, second: Point, end: Point, *, points: int) -> Curve:
    t = np.linspace(0, 1, points)[:, None]
    s = 1 - t
    return s**3 * start + 3 * t * s**2 * first + 3 * t**2 * s * second + t**3 * end
