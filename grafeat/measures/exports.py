"""Measures put on graphs for networkx, and GraphML for other tools."""

from collections.abc import Mapping
from pathlib import Path

import networkx as nx
from torch import Tensor

from grafeat.files import write
from grafeat.measures.grouping import Communities


def annotate(
    graph: nx.DiGraph,
    *,
    pagerank: Mapping[str, Tensor] | None = None,
    communities: Communities | None = None,
) -> nx.DiGraph:
    """Puts measures on the vertices of a graph for networkx; the graph given stays as it is.

    Args:
        graph: What `PatchGraph.to_networkx` gives.
        pagerank: What `pagerank` gives: (h, w) by backbone.
        communities: What `communities` gives.

    Returns:
        A copy whose vertices carry `pagerank` (float) and `community` (int), as far as given.

    Raises:
        ValueError: If the measures are of other grids than the graph.
    """
    graph = graph.copy()
    for name, values in (
        ("pagerank", pagerank),
        ("community", None if communities is None else communities.labels),
    ):
        if values is not None:
            _check_grids(name, values, graph)
            listed = {backbone: own.tolist() for backbone, own in values.items()}
            for data in graph.nodes.values():
                data[name] = listed[data["backbone"]][data["row"]][data["column"]]
    return graph


def write_graphml(graph: nx.DiGraph, path: str | Path) -> Path:
    """Writes a graph as GraphML, which Gephi, Cytoscape, yEd and networkx read; until it is whole, an old file stays.

    GraphML knows no tuples: `box` becomes `x0`, `y0`, `x1`, `y1`, `relation` becomes "query → key", and the graph's
    `kept` becomes `kept_intra` and `kept_cross`. All else stays as it is.

    Args:
        graph: What `PatchGraph.to_networkx` or `annotate` gives.
        path: The file; its folder is made if it is not there.

    Returns:
        The path.

    Raises:
        OSError: If the file cannot be written; names it.
    """
    plain = _plain(graph)
    return write(path, lambda scratch: nx.write_graphml_xml(plain, scratch, named_key_ids=True))


def _check_grids(name: str, values: Mapping[str, Tensor], graph: nx.DiGraph) -> None:
    shapes: dict[str, tuple[int, int]] = {}
    for data in graph.nodes.values():
        h, w = shapes.get(data["backbone"], (0, 0))
        shapes[data["backbone"]] = (max(h, 1 + data["row"]), max(w, 1 + data["column"]))
    for backbone, shape in shapes.items():
        found = tuple(values[backbone].shape) if backbone in values else "no values"
        if found != shape:
            raise ValueError(
                f"{name}: has {found} for backbone {backbone!r}; the graph's grid is {shape}; make both from the same "
                "attention"
            )


def _plain(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph with attributes that GraphML knows."""
    kept = {f"kept_{kind}": share for kind, share in graph.graph.get("kept", {}).items()}
    plain = nx.DiGraph(**{name: value for name, value in graph.graph.items() if name != "kept"}, **kept)
    for vertex, data in graph.nodes(data=True):
        corners = dict(zip(("x0", "y0", "x1", "y1"), data.get("box", ()), strict=False))
        plain.add_node(vertex, **{name: value for name, value in data.items() if name != "box"}, **corners)
    for i, j, data in graph.edges(data=True):
        relation = {"relation": " → ".join(data["relation"])} if "relation" in data else {}
        plain.add_edge(i, j, **{**data, **relation})
    return plain
