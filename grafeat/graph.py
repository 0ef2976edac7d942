"""The patch graph: every patch of every backbone is a vertex, and every vertex is joined to every other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.grids import WHOLE, Box, FeatureGrid, GridSet, check_grids, patch_boxes, patch_centres

if TYPE_CHECKING:
    import networkx

Kind = Literal["intra", "cross"]


class Patch(NamedTuple):
    """A vertex by its place: the backbone, and the row and column on that backbone's grid."""

    backbone: str
    row: int
    column: int


@runtime_checkable
class AttentionWeights(Protocol):
    """What `capture` gives: the weight of each edge, as blocks between two grids."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of edges that have weights."""

    def block(
        self, query: str, key: str, *, layer: int, head: int | None = None, picture: int = 0
    ) -> Float[Tensor, "patches_query patches_key"]:
        """Weights from the patches of `query` (rows) to those of `key` (columns), mean over heads."""


@dataclass(frozen=True, eq=False)
class PatchGraph:
    """The complete heterogeneous graph over the patches of one picture, held as dense blocks.

    A vertex type is a backbone. A relation is an ordered pair of backbones (query, key): *intra* where both
    are the same, *cross* where they differ. The edge i → j says that patch i may attend to patch j. A patch
    attends to itself too, so the loops i → i are edges, of the kind intra; pass `self_loops=False` where they
    should not count. Vertices are numbered backbone by backbone, each grid row by row.

    Args:
        shapes: Rows and columns (h, w) of each backbone's grid, by name; or use `PatchGraph.of(grids)`.
        fields: The part of the picture that each grid covers; the whole picture where absent.

    Raises:
        ValueError: If there is no backbone, or a grid without patches.
    """

    shapes: Mapping[str, tuple[int, int]]
    fields: Mapping[str, Box] | None = None

    def __post_init__(self) -> None:
        if not self.shapes:
            raise ValueError("shapes: got no backbone; expected at least one, as {'name': (rows, columns)}")
        for name, shape in self.shapes.items():
            if len(shape) != 2 or min(shape) < 1:
                raise ValueError(
                    f"shapes: backbone {name!r} has {shape}; expected (rows, columns), each 1 or more; pass "
                    "grid.shape"
                )

    @classmethod
    def of(cls, grids: GridSet | list[FeatureGrid] | tuple[FeatureGrid, ...]) -> Self:
        """The graph over the patches of these feature grids."""
        checked = check_grids(grids[:1].grids if isinstance(grids, GridSet) else grids)
        return cls({grid.name: grid.shape for grid in checked}, {grid.name: grid.field for grid in checked})

    def __repr__(self) -> str:
        wide = max(len(name) for name in self.names)
        vertices = (
            f"  {name:<{wide}}  {h} × {w} = {h * w:,} patches" for name, (h, w) in self.shapes.items()
        )
        return "\n".join(
            [
                f"PatchGraph: {self.num_vertices:,} vertices of {len(self.names)} backbones, "
                f"{self.num_edges():,} edges",
                *vertices,
                f"  intra: {self.num_edges('intra'):,} edges, {self.num_vertices:,} of them loops i → i",
                f"  cross: {self.num_edges('cross'):,} edges, {len(list(self.relations('cross')))} relations",
            ]
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backbones, in the order of the vertices."""
        return tuple(self.shapes)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Patches h·w of each backbone."""
        return {name: h * w for name, (h, w) in self.shapes.items()}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Which vertices belong to each backbone."""
        stops = torch.tensor(list(self.sizes.values())).cumsum(0).tolist()
        return {
            name: slice(stop - self.sizes[name], stop) for name, stop in zip(self.names, stops, strict=True)
        }

    def split(self, of_vertices: Tensor, dim: int) -> dict[str, Tensor]:
        """What there is of each vertex along a dimension, taken apart by backbone."""
        return dict(zip(self.names, of_vertices.split(list(self.sizes.values()), dim=dim), strict=True))

    @property
    def num_vertices(self) -> int:
        """Patches n of all backbones together."""
        return sum(self.sizes.values())

    def num_edges(self, kind: Kind | None = None, *, self_loops: bool = True) -> int:
        """Directed edges i → j of one kind or of both; the n loops i → i are intra edges unless left out."""
        intra = sum(size**2 for size in self.sizes.values()) - (0 if self_loops else self.num_vertices)
        cross = self.num_vertices**2 - sum(size**2 for size in self.sizes.values())
        return {"intra": intra, "cross": cross, None: intra + cross}[_checked_kind(kind)]

    def relations(self, kind: Kind | None = None) -> Iterator[tuple[str, str]]:
        """Ordered pairs (query, key) of backbones, of one kind or of both."""
        kind = _checked_kind(kind)
        for query in self.names:
            for key in self.names:
                if kind is None or (kind == "intra") == (query == key):
                    yield query, key

    def vertex(self, backbone: str, row: int, column: int) -> int:
        """Number of the vertex at this place.

        Raises:
            ValueError: If the backbone is unknown or the place lies outside its grid.
        """
        h, w = self.shapes[self._known(backbone)]
        if not (0 <= row < h and 0 <= column < w):
            raise ValueError(
                f"row, column: got ({row}, {column}); the grid of {backbone!r} is {h} × {w}, so rows run "
                f"from 0 to {h - 1} and columns from 0 to {w - 1}"
            )
        return self.slices[backbone].start + row * w + column

    def locate(self, vertex: int) -> Patch:
        """Backbone, row and column of a vertex; the inverse of `vertex`.

        Raises:
            ValueError: If there is no such vertex.
        """
        vertex = self._checked_vertex(vertex)
        name = next(name for name in self.names if vertex < self.slices[name].stop)
        row, column = divmod(vertex - self.slices[name].start, self.shapes[name][1])
        return Patch(name, row, column)

    def box(self, vertex: int) -> Box:
        """Box (x0, y0, x1, y1) of a vertex in the picture, in [0, 1]."""
        x0, y0, x1, y1 = self.boxes[self._checked_vertex(vertex)].tolist()
        return x0, y0, x1, y1

    @cached_property
    def boxes(self) -> Float[Tensor, "n 4"]:
        """Boxes (x0, y0, x1, y1) of all vertices in the picture, in [0, 1]."""
        return torch.cat([patch_boxes(shape, self._field(name)) for name, shape in self.shapes.items()])

    @cached_property
    def centres(self) -> Float[Tensor, "n 2"]:
        """Centres (x, y) of all vertices in the picture, in [0, 1]."""
        return torch.cat([patch_centres(shape, self._field(name)) for name, shape in self.shapes.items()])

    def neighbours(
        self, vertex: int, kind: Kind | None = None, *, self_loops: bool = True
    ) -> Int[Tensor, " found"]:
        """Vertices to which this one may attend: intra on its own grid (itself too), cross on all others."""
        own = self.slices[self.locate(vertex).backbone]
        every = torch.arange(self.num_vertices)
        same = (every >= own.start) & (every < own.stop)
        chosen = {"intra": same, "cross": ~same, None: torch.ones_like(same)}[_checked_kind(kind)]
        return every[chosen & (self_loops | (every != vertex))]

    def without(self, *names: str) -> Self:
        """The graph that never had these backbones."""
        gone = {self._known(name) for name in names}
        kept = [name for name in self.names if name not in gone]
        return type(self)(
            {name: self.shapes[name] for name in kept}, {name: self._field(name) for name in kept}
        )

    def to_networkx(
        self,
        attention: AttentionWeights | None = None,
        *,
        layer: int = 0,
        head: int | None = None,
        picture: int = 0,
        top: int | None = None,
        self_loops: bool = True,
    ) -> "networkx.DiGraph":
        """The graph for networkx, with the captured weights of one layer where they are given.

        Args:
            attention: What `capture` gave; without it the edges carry no weight.
            layer: Which layer's weights, from 0.
            head: Which head's weights, from 0; the mean over heads if absent.
            picture: Which picture of the batch, from 0.
            top: Keep only so many strongest edges of each kind; all if absent. Needs `attention`.
            self_loops: Whether the loops i → i are there.

        Returns:
            A graph whose vertices carry `backbone`, `row`, `column` and `box`, and whose edges carry
            `relation` (the pair of backbones), `kind` and, if captured, `weight`. With `attention`,
            `graph.graph["kept"]` says for each kind which share of the attention mass its edges keep, in [0,
            1].

        Raises:
            ValueError: If `top` is given without `attention`, or is below 1.
        """
        if top is not None and (attention is None or top < 1):
            raise ValueError(
                f"top: got {top}; expected 1 or more, together with attention=; capture it first"
            )
        import networkx as nx  # takes as long to import as half of this package

        graph = nx.DiGraph()
        for vertex in range(self.num_vertices):
            graph.add_node(vertex, **self.locate(vertex)._asdict(), box=self.box(vertex))
        for kind in ("intra", "cross"):
            there = kind == "intra" or len(self.names) > 1
            there &= attention is None or kind in attention.kinds  # a model may be built without one kind
            edges = self._edges(kind, self_loops) if there else torch.empty(0, 2, dtype=torch.int64)
            weights = None
            if attention is not None:
                weights = self._weights(attention, edges, layer, head, picture)
                mass = self.num_vertices if there else 0.0
                if getattr(attention, "joint", False):  # one softmax holds both kinds
                    mass = float(self._weights(attention, self._edges(kind, True), layer, head, picture).sum())
                if top is not None and top < len(edges):
                    weights, strongest = weights.topk(top)
                    edges = edges[strongest]
                graph.graph.setdefault("kept", {})[kind] = float(weights.sum()) / mass if mass else 1.0
            self._add_edges(graph, kind, edges, weights)
        return graph

    def _edges(self, kind: Kind, self_loops: bool) -> Int[Tensor, "edges 2"]:
        backbone = torch.repeat_interleave(torch.tensor(list(self.sizes.values())))
        same = backbone[:, None] == backbone[None, :]
        if kind == "cross":
            return (~same).nonzero()
        return (same if self_loops else same & ~torch.eye(self.num_vertices, dtype=torch.bool)).nonzero()

    def _weights(
        self,
        attention: AttentionWeights,
        edges: Int[Tensor, "edges 2"],
        layer: int,
        head: int | None,
        picture: int,
    ) -> Float[Tensor, " edges"]:
        dense = torch.zeros(self.num_vertices, self.num_vertices)
        for query, key in self.relations():
            if ("intra" if query == key else "cross") in attention.kinds:
                block = attention.block(query, key, layer=layer, head=head, picture=picture)
                dense[self.slices[query], self.slices[key]] = block.float().cpu()
        return dense[edges[:, 0], edges[:, 1]]

    def _add_edges(
        self,
        graph: "networkx.DiGraph",
        kind: Kind,
        edges: Int[Tensor, "edges 2"],
        weights: Float[Tensor, " edges"] | None,
    ) -> None:
        backbone = [self.locate(vertex).backbone for vertex in range(self.num_vertices)]
        values = (
            [{} for _ in range(len(edges))] if weights is None else [{"weight": w} for w in weights.tolist()]
        )
        graph.add_edges_from(
            (i, j, {"kind": kind, "relation": (backbone[i], backbone[j]), **value})
            for (i, j), value in zip(edges.tolist(), values, strict=True)
        )

    def _field(self, name: str) -> Box:
        return (self.fields or {}).get(name, WHOLE)

    def _checked_vertex(self, vertex: int) -> int:
        if not 0 <= vertex < self.num_vertices:
            raise ValueError(
                f"vertex: got {vertex}; expected 0 to {self.num_vertices - 1}; number it with "
                "vertex(backbone, row, column)"
            )
        return vertex

    def _known(self, name: str) -> str:
        if name not in self.shapes:
            raise ValueError(
                f"backbone: got {name!r}; the graph has {', '.join(self.names)}; use one of them"
            )
        return name


def _checked_kind(kind: Kind | None) -> Kind | None:
    if kind not in ("intra", "cross", None):
        raise ValueError(f"kind: got {kind!r}; expected 'intra', 'cross' or None for both")
    return kind
