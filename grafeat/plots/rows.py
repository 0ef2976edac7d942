"""One patch's attention on every backbone's grid: the numbers behind its maps, and its strongest cross edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.attention.captured import CapturedAttention
from grafeat.graph import Kind, Patch
from grafeat.grids import WHOLE, Box

Direction = Literal["outgoing", "incoming"]
KINDS: tuple[Kind, ...] = ("intra", "cross")


@dataclass(frozen=True, eq=False)
class AttentionRow:
    """One patch's attention on one backbone's grid: what it attends to there, or what attends to it from there.

    Attributes:
        kind: `intra` on the patch's own grid, else `cross`.
        backbone: The backbone whose grid it is.
        weights: The weight of the edge between the patch and each patch of that grid (h, w); may hold NaN.
        equal: Each of these weights if all logits were equal, biases included.
        field: The part of the picture that the grid covers.
    """

    kind: Kind
    backbone: str
    weights: Float[Tensor, "h w"]
    equal: float
    field: Box

    @property
    def mass(self) -> float:
        """The sum of the weights; of what a patch attends to, a share in [0, 1]. NaN if a weight is."""
        return float(self.weights.sum())

    @property
    def equal_mass(self) -> float:
        """What that sum would be if all logits were equal."""
        return self.equal * self.weights.numel()

    @property
    def missing(self) -> Bool[Tensor, "h w"]:
        """Which weights are NaN."""
        return self.weights.isnan()

    def shown(self, relative: bool) -> Float[Tensor, "h w"]:
        """The weights, or their multiples of the uniform weight."""
        return self.weights / self.equal if relative else self.weights


@dataclass(frozen=True)
class CrossEdge:
    """An edge between the patch in question and one of another backbone.

    Attributes:
        other: The patch at its other end.
        weight: Its attention weight.
    """

    other: Patch
    weight: float


def attention_rows(
    attention: CapturedAttention,
    patch: Patch,
    *,
    layer: int,
    head: int | None = None,
    index: int = 0,
    direction: Direction = "outgoing",
) -> tuple[AttentionRow, ...]:
    """One patch's attention on each grid, its own first; arguments as in `attention_maps`."""
    outgoing, graph = checked_direction(direction) == "outgoing", attention.graph
    seen = attention.row if outgoing else attention.column
    weights = seen(patch, layer=layer, head=head, picture=index)
    rows = []
    for name in sorted(
        weights, key=lambda other: other != patch.backbone
    ):  # the sort keeps the others' order
        kind: Kind = "intra" if name == patch.backbone else "cross"
        query, key = (patch.backbone, name) if outgoing else (name, patch.backbone)
        equal, field = attention.uniform(query, key, layer), (graph.fields or {}).get(name, WHOLE)
        rows.append(AttentionRow(kind, name, weights[name].float().cpu(), equal, field))
    if not rows:
        raise ValueError(
            f"attention: got cross layers only and the lone backbone {patch.backbone!r}; expected intra layers, or "
            "a second backbone; capture a model that has one of them"
        )
    return tuple(rows)


def strongest_edges(rows: Sequence[AttentionRow], count: int) -> tuple[CrossEdge, ...]:
    """The cross edges of largest weight, strongest first; fewer than `count` if there are not so many. Never NaN."""
    cross = [row for row in rows if row.kind == "cross"]
    if not cross or not count:
        return ()
    weights = torch.cat([row.weights.flatten() for row in cross])
    places = [
        Patch(row.backbone, *divmod(number, row.weights.shape[1]))
        for row in cross
        for number in range(row.weights.numel())
    ]
    order = weights.nan_to_num(nan=-1.0).sort(descending=True, stable=True).indices[:count].tolist()
    return tuple(CrossEdge(places[i], float(weights[i])) for i in order if not weights[i].isnan())


def kept_share(edges: Sequence[CrossEdge], rows: Sequence[AttentionRow]) -> float:
    """How much of the cross mass of these rows the edges keep, in [0, 1]; NaN weights are left out of it."""
    total = sum(float(row.weights.nansum()) for row in rows if row.kind == "cross")
    return sum(edge.weight for edge in edges) / total if total > 0 else 0.0


def checked_direction(direction: Direction) -> Direction:
    """The direction, once it is known to be one."""
    if direction not in ("outgoing", "incoming"):
        raise ValueError(
            f"direction: got {direction!r}; expected 'outgoing' (what the patch attends to) or 'incoming' (what "
            "attends to it)"
        )
    return direction
