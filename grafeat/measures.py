"""Measures on the attention graph: PageRank, communities, strongest paths; and GraphML for other tools.

They say where information is routed, not what matters for the prediction.
"""

import contextlib
import math
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.captured import KINDS, CapturedAttention
from grafeat.graph import Kind, Patch, PatchGraph

SETTLED = 1e-12  # by how much PageRank may still change, summed over all patches


@dataclass(frozen=True, eq=False)
class Communities:
    """Groups of patches, of any backbones, that attend to each other more than to the rest.

    Attributes:
        labels: Each patch's community (h, w) by backbone, int64: 0 is the largest.
        modularity: How much more of the attention stays inside them than patches of the same total would give
            if joined at random, in [-0.5, 1]; near 0 there are none to speak of. It counts all weights.
        kept: The share of all weight that the edges hold among which Louvain searched, in [0, 1].
    """

    labels: dict[str, Int[Tensor, "_ _"]]
    modularity: float
    kept: float

    @property
    def sizes(self) -> list[int]:
        """Patches of each community, largest first."""
        return torch.cat([own.flatten() for own in self.labels.values()]).bincount().tolist()

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        lines = [
            f"Communities: {len(self)} of {sum(self.sizes):,} patches, modularity {self.modularity:.2f} over all "
            f"weights; sought among edges that hold {self.kept:.0%} of them"
        ]
        for number, size in enumerate(self.sizes[:8]):
            own = {name: int((labels == number).sum()) for name, labels in self.labels.items()}
            lines.append(f"  {number}: {size:,}  (" + ", ".join(f"{n:,} {name}" for name, n in own.items()) + ")")
        rest = len(self) - 8
        return "\n".join([*lines, f"  and {rest} smaller ones"] if rest > 0 else lines)


@dataclass(frozen=True)
class Hop:
    """One step of a route: in a layer, the patch `end` attends to the patch `start` with this weight."""

    kind: Kind
    layer: int
    start: Patch
    end: Patch
    weight: float


@dataclass(frozen=True)
class Route:
    """A path on which information can flow from one patch to another through the layers; routing, not importance.

    Attributes:
        source: The patch before the first layer.
        target: The patch after the last layer.
        hops: Where it moved, in the order of the layers; in all other layers it stayed put.
    """

    source: Patch
    target: Patch
    hops: tuple[Hop, ...]

    @property
    def weight(self) -> float:
        """The product of its hops' weights, in [0, 1]."""
        return math.prod(hop.weight for hop in self.hops)

    def __repr__(self) -> str:
        hops = (f" → [{hop.kind} {hop.layer}: {hop.weight:.2g}] → {_said(hop.end)}" for hop in self.hops)
        return f"Route of weight {self.weight:.2g}: {_said(self.source)}{''.join(hops)}" + (
            "" if self.hops else " stays put"
        )


def pagerank(
    attention: CapturedAttention,
    *,
    layer: int,
    head: int | None = None,
    picture: int = 0,
    damping: float = 0.85,
    kinds: Collection[Kind] = KINDS,
    relative: bool = False,
) -> dict[str, Float[Tensor, "_ _"]]:
    """PageRank of the patches on the whole attention graph of one layer.

    A walker goes from patch to patch: with probability `damping` it follows the attention of the patch it is on, else
    it starts anew at any patch. PageRank is how often it is on each. Intra and cross weights of a patch sum to 1 each;
    where both are followed, each kind has one half. Evenly spread it would be 1 / n for each of the n patches.

    Args:
        attention: What `capture` gave.
        layer: The layer, from 0.
        head: The head, from 0; the mean over heads if absent.
        picture: Which picture of the captured batch, from 0.
        damping: Probability of following the attention, in [0, 1).
        kinds: Which weights are followed; a kind that the model has no layers of is left out.
        relative: Whether it is given in multiples of what even attention would give the same patch.

    Returns:
        PageRank (h, w) by backbone, float64. Unless `relative`, it is in (0, 1] and sums to 1 over all patches.

    Raises:
        ValueError: If weights are NaN, `damping` or `kinds` is out of range, or there is no such layer, head or
            picture.

    Source: Brin and Page, WWW 1998, with the weights as probabilities of the links.
    """
    if not 0 <= damping < 1:
        raise ValueError(f"damping: got {damping}; expected 0 or more, and less than 1; 0.85 is usual")
    followed = _of_kinds(attention, kinds)
    ranks = _ranks(_matrix(attention, layer, head, picture).where(followed, 0), damping)
    if relative:
        ranks = ranks / _ranks(_even(attention, layer).where(followed, 0), damping)
    return _on_grids(ranks, attention.graph)


def communities(
    attention: CapturedAttention,
    *,
    layer: int,
    head: int | None = None,
    picture: int = 0,
    strongest: int = 8,
    seed: int = 0,
) -> Communities:
    """Communities of patches that attend to each other, across all backbones, found by Louvain's method.

    Two patches are joined by the sum of the weights that they give each other, w_ij + w_ji, as captured: nothing is
    subtracted from it. A patch's attention to itself joins it to nobody and does not count. To be quick, Louvain sees
    only the edges that are among the strongest of one of their two patches, intra and cross apart, measured by how
    many times the even weight they are: else a fine grid's many small weights would never be chosen.

    Args:
        attention: What `capture` gave.
        layer: The layer, from 0.
        head: The head, from 0; the mean over heads if absent.
        picture: Which picture of the captured batch, from 0.
        strongest: How many intra and how many cross edges each patch keeps.
        seed: Louvain visits the patches in a random order; the same seed gives the same communities. The order of the
            backbones makes no difference.

    Returns:
        The communities, numbered from the largest, equal ones by their first patch, and their modularity.

    Raises:
        ValueError: If weights are NaN, `strongest` is below 1, or there is no such layer, head or picture.

    Source: Blondel et al., J. Stat. Mech. P10008, 2008.
    """
    if strongest < 1:
        raise ValueError(f"strongest: got {strongest}; expected 1 or more edges of each kind; 8 is usual")
    graph, weights = attention.graph, _matrix(attention, layer, head, picture)
    even = _even(attention, layer)
    # Backbones by name: their order in the model decides neither ties nor Louvain's walk.
    order = torch.cat([torch.arange(graph.num_vertices)[graph.slices[name]] for name in sorted(graph.names)])
    joined, even = (both[order][:, order] for both in (weights + weights.T, even + even.T))
    joined.fill_diagonal_(0)
    same = _same(graph)[order][:, order]
    edges = torch.zeros_like(same)
    for kind in (same, ~same):
        edges |= _strongest(joined / even, kind & (joined > 0), strongest)
    found = _louvain(joined, edges, seed)
    labels = torch.empty(len(order), dtype=torch.int64)
    for number, members in enumerate(sorted(found, key=lambda members: (-len(members), min(members)))):
        labels[order[sorted(members)]] = number
    total = float(joined.sum())
    kept = float(joined[edges].sum()) / total if total else 1.0
    return Communities(_on_grids(labels, graph), _modularity(joined, labels[order]), kept)


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


def strongest_paths(
    attention: CapturedAttention,
    source: Patch | tuple[str, int, int],
    target: Patch | tuple[str, int, int],
    *,
    count: int = 3,
    head: int | None = None,
    picture: int = 0,
) -> list[Route]:
    """The strongest paths on which information can flow from one patch to another through all layers.

    A path starts on the patch `source` before the first layer and is on the patch `target` after the last one. In each
    layer, intra 0, cross 0, intra 1 and so on, it either stays put or hops. A hop to a patch has the weight with which
    that patch attends to the one before: information flows against the direction in which patches attend. Staying put
    has weight 1, as the residual passes the state on whole; a patch's attention to itself goes into that. The weight
    of a path is the product of its hops' weights. The same hop in another layer makes another path. This is routing,
    not importance: what the layers do with the values is not in it.

    Args:
        attention: What `capture` gave.
        source: The patch (backbone, row, column) whose information flows.
        target: The patch that it reaches.
        count: How many paths.
        head: The head of every layer, from 0; the mean over heads if absent.
        picture: Which picture of the captured batch, from 0.

    Returns:
        The paths, strongest first; fewer than `count` if there are no more of weight above 0. They are exact: no edge
        is left out.

    Raises:
        ValueError: If weights are NaN, `count` is below 1, or there is no such patch, head or picture.

    Source: the weights of Abnar and Zuidema's attention rollout, ACL 2020, which sums over all paths. Its residual of
        one half in every layer gives all paths one more common factor, and so leaves their order.
    """
    if count < 1:
        raise ValueError(f"count: got {count}; expected 1 or more paths")
    start, end = (attention.graph.vertex(*Patch(*place)) for place in (source, target))
    best = torch.full((attention.graph.num_vertices, count), -torch.inf, dtype=torch.float64)
    best[start, 0] = 0
    layers = max(attention.layers(kind) for kind in attention.kinds)
    trail = []
    for layer in range(layers):
        weights = _matrix(attention, layer, head, picture).fill_diagonal_(0)
        for kind in attention.kinds:
            logs = weights.where(_of_kinds(attention, (kind,)), 0).log()
            best, vertices, ranks, hops = _extended(best, logs)
            trail.append((kind, layer, vertices, ranks, hops))
    found = [rank for rank in range(count) if best[end, rank] > -torch.inf]
    return [_route(attention.graph, trail, start, end, rank) for rank in found]


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
    path, plain = Path(path), _plain(graph)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as file:
            nx.write_graphml_xml(plain, file, named_key_ids=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        kept = "; the file that was there is unchanged" if path.is_file() else ""
        raise OSError(
            f"path: could not write {path} ({error}); expected a file in a writable folder{kept}; name another one"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # an error before this one says more
            scratch.unlink(missing_ok=True)
    return path


def _matrix(
    attention: CapturedAttention, layer: int, head: int | None, picture: int
) -> Float[Tensor, "n n"]:
    """The weights of one layer in float64, once they are known to be numbers."""
    weights = attention.dense(layer=layer, head=head, picture=picture).double()
    if wrong := int((~weights.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f"attention: the weights of {wrong:,} of {len(weights):,} patches in layer {layer}, picture {picture}, are "
            "NaN; expected numbers; look for NaN in the model's parameters"
        )
    return weights


def _same(graph: PatchGraph) -> Bool[Tensor, "n n"]:
    """Which pairs of vertices are of one backbone."""
    sizes = torch.tensor(list(graph.sizes.values()))
    backbone = torch.arange(len(sizes)).repeat_interleave(sizes)
    return backbone[:, None] == backbone[None, :]


def _of_kinds(attention: CapturedAttention, kinds: Collection[Kind]) -> Bool[Tensor, "n n"]:
    there = [kind for kind in attention.kinds if kind in kinds]
    if not there or set(kinds) - set(KINDS):
        raise ValueError(
            f"kinds: got {tuple(kinds)}; captured were {' and '.join(attention.kinds)} layers; use some of these"
        )
    same = _same(attention.graph)
    return torch.ones_like(same) if len(there) == 2 else same if there == ["intra"] else ~same


def _on_grids(values: Tensor, graph: PatchGraph) -> dict[str, Tensor]:
    return {name: values[graph.slices[name]].unflatten(0, shape) for name, shape in graph.shapes.items()}


def _ranks(weights: Float[Tensor, "n n"], damping: float) -> Float[Tensor, " n"]:
    """How often a walker is on each vertex, by power iteration."""
    links = weights / weights.sum(dim=1, keepdim=True)
    n = len(links)
    before, ranks = torch.zeros(n, dtype=torch.float64), torch.full((n,), 1 / n, dtype=torch.float64)
    while float((ranks - before).abs().sum()) > SETTLED:
        before, ranks = ranks, damping * (ranks @ links) + (1 - damping) / n
    return ranks / ranks.sum()


def _even(attention: CapturedAttention, layer: int) -> Float[Tensor, "n n"]:
    """The weight that each patch would give each other if all logits were equal; one half where no layer is."""
    graph = attention.graph
    even = torch.full((graph.num_vertices, graph.num_vertices), 0.5, dtype=torch.float64)
    for query, key in graph.relations():
        if ("intra" if query == key else "cross") in attention.kinds:
            even[graph.slices[query], graph.slices[key]] = attention.uniform(query, key, layer)
    return even


def _strongest(
    weights: Float[Tensor, "n n"], allowed: Bool[Tensor, "n n"], count: int
) -> Bool[Tensor, "n n"]:
    """Which pairs are among the strongest allowed ones of one of the two."""
    values, at = weights.masked_fill(~allowed, -torch.inf).topk(min(count, len(weights)), dim=1)
    chosen = torch.zeros_like(allowed).scatter_(1, at, values > -torch.inf)
    return chosen | chosen.T


def _louvain(joined: Float[Tensor, "n n"], edges: Bool[Tensor, "n n"], seed: int) -> list[set[int]]:
    graph = nx.Graph()
    graph.add_nodes_from(range(len(joined)))
    pairs = edges.triu().nonzero()
    weights = joined[pairs[:, 0], pairs[:, 1]].tolist()
    graph.add_weighted_edges_from((i, j, weight) for (i, j), weight in zip(pairs.tolist(), weights, strict=True))
    return [set(members) for members in nx.community.louvain_communities(graph, seed=seed)]


def _modularity(joined: Float[Tensor, "n n"], labels: Int[Tensor, " n"]) -> float:
    """As `nx.community.modularity` of all edges, which takes a minute where this takes milliseconds."""
    if not (total := float(joined.sum())):
        return 0.0
    member = torch.nn.functional.one_hot(labels).double()  # (n, communities)
    between = member.T @ joined @ member / total
    return float(between.trace() - between.sum(dim=1).square().sum())


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


def _extended(
    best: Float[Tensor, "n count"], logs: Float[Tensor, "n n"]
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"], Int[Tensor, "n count"], Float[Tensor, "n count"]]:
    """One layer more: the best log weights at each vertex, and whence they came: vertex, rank there, hop's log weight.

    A path that hops here can be among the best only if it comes from one of the `count` vertices whose own best path,
    hop included, is strongest: only these are looked at.
    """
    n, count = best.shape
    _, near = (logs + best[:, 0]).topk(min(count, n), dim=1)  # (n, near)
    before = torch.cat([torch.arange(n)[:, None], near], dim=1)  # staying put comes first
    hop = torch.cat([torch.zeros(n, 1, dtype=torch.float64), logs.gather(1, near)], dim=1)
    values, chosen = (hop[:, :, None] + best[before]).flatten(1).topk(count, dim=1)
    place, rank = chosen // count, chosen % count
    return values, before.gather(1, place), rank, hop.gather(1, place)


def _route(
    graph: PatchGraph, trail: list[tuple[Kind, int, Tensor, Tensor, Tensor]], start: int, end: int, rank: int
) -> Route:
    hops, at = [], end
    for kind, layer, vertices, ranks, logs in reversed(trail):
        before, weight = int(vertices[at, rank]), math.exp(float(logs[at, rank]))
        if before != at:
            hops.append(Hop(kind, layer, graph.locate(before), graph.locate(at), weight))
        at, rank = before, int(ranks[at, rank])
    return Route(graph.locate(start), graph.locate(end), tuple(reversed(hops)))


def _said(patch: Patch) -> str:
    return f"{patch.backbone} ({patch.row}, {patch.column})"


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
