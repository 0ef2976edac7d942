"""The strongest paths between two patches through all layers."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.layers import kind_of
from grafeat.graph import Kind, Patch, PatchGraph
from grafeat.measures.weights import check_layers, matrix, of_kinds


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
    layer, in the order of the pass, it either stays put or hops. A hop to a
    patch has the weight with which that patch attends to the one before: information flows against the direction in
    which patches attend. Staying put has weight 1, as the residual passes the state on whole; a patch's attention to
    itself goes into that. The weight of a path is the product of its hops' weights. The same hop in another layer makes
    another path. This is routing, not importance: what the layers do with the values is not in it, nor that a readout
    may read before the last layer.

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
    check_layers(attention)
    trail = []
    for layer, kinds in attention.order:
        weights = matrix(attention, layer, head, picture).fill_diagonal_(0)
        logs = weights.where(of_kinds(attention, kinds), 0).log()
        best, vertices, ranks, hops = _extended(best, logs)
        trail.append((layer, vertices, ranks, hops))
    found = [rank for rank in range(count) if best[end, rank] > -torch.inf]
    return [_route(attention.graph, trail, start, end, rank) for rank in found]


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
    graph: PatchGraph, trail: list[tuple[int, Tensor, Tensor, Tensor]], start: int, end: int, rank: int
) -> Route:
    hops, at = [], end
    for layer, vertices, ranks, logs in reversed(trail):
        before, weight = int(vertices[at, rank]), math.exp(float(logs[at, rank]))
        if before != at:
            hop, landed = graph.locate(before), graph.locate(at)
            hops.append(Hop(kind_of(hop.backbone, landed.backbone), layer, hop, landed, weight))
        at, rank = before, int(ranks[at, rank])
    return Route(graph.locate(start), graph.locate(end), tuple(reversed(hops)))


def _said(patch: Patch) -> str:
    return f"{patch.backbone} ({patch.row}, {patch.column})"
