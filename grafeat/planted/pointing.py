"""Whether relevance falls on the object, where the object's place is known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.explanations.relevance import Relevance
from grafeat.graph import PatchGraph

ALL = "all backbones"


def coverage(masks: Bool[Tensor, "b h w"], graph: PatchGraph) -> Float[Tensor, "b n"]:
    """Which share of each patch's box shows the object, in [0, 1].

    The box is the patch's part of the picture. What a patch has seen may be more.

    Args:
        masks: Whether each pixel shows the object; all of the picture that the graph's boxes are shares of.
        graph: The patches.
    """
    h, w = masks.shape[1:]
    x0, y0, x1, y1 = graph.boxes.double().unbind(dim=1)
    down, across = _overlap(y0 * h, y1 * h, h), _overlap(x0 * w, x1 * w, w)
    rows = torch.einsum("nh,bhw->bnw", down, masks.double())
    return (rows * across).sum(dim=2).float()


@dataclass(frozen=True, eq=False)
class OnObject:
    """How much of a relevance falls on the object, by backbone and over all backbones together.

    Attributes:
        method: How relevance was computed.
        pointing: The pointing game (b,): how much of the most relevant patch's box shows the object, which is the
            chance that a random point of it hits. The mean, where several patches are the most relevant.
        mass: Share of the relevance above 0 that lies on the object (b,), each patch's counted by its covered share;
            NaN where no relevance is above 0.
        chance: Mean covered share of all patches (b,): what a random patch, or the same relevance everywhere, would get
            in both.
        best: Largest covered share of a patch (b,): what the best patch would get in the pointing game.
    """

    method: str
    pointing: Mapping[str, Float[Tensor, " b"]]
    mass: Mapping[str, Float[Tensor, " b"]]
    chance: Mapping[str, Float[Tensor, " b"]]
    best: Mapping[str, Float[Tensor, " b"]]

    def to_frame(self) -> pd.DataFrame:
        """Means over the pictures, one row for each backbone and one for all together."""
        columns = {"pointing": self.pointing, "mass": self.mass, "by chance": self.chance, "at best": self.best}
        means = {
            name: {column: float(values[name].double().nanmean()) for column, values in columns.items()}
            for name in self.pointing
        }
        return pd.DataFrame.from_dict(means, orient="index")

    def __repr__(self) -> str:
        wide = max(len(name) for name in self.pointing)
        lines = [
            f"  {name:<{wide}}  pointing {row['pointing']:.0%}, mass {row['mass']:.0%}, "
            f"by chance {row['by chance']:.0%}"
            for name, row in self.to_frame().iterrows()
        ]
        count = len(next(iter(self.pointing.values())))
        return "\n".join([f"Relevance by {self.method} on the object, {count:,} pictures", *lines])


def on_object(relevance: Relevance, masks: Bool[Tensor, "b h w"]) -> OnObject:
    """How much of a relevance falls on the object.

    Args:
        relevance: What `gf.relevance` gave for some pictures.
        masks: Whether each pixel of the same pictures shows the object; `seen.test[:50].masks`.

    Raises:
        ValueError: If there are more or fewer masks than pictures.

    Source: the pointing game: Zhang et al., IJCV 2018, there with hit or miss.
    """
    values, graph = relevance.flat, relevance.graph
    if len(masks) != len(values):
        raise ValueError(
            f"masks: got {len(masks):,} for {len(values):,} pictures; expected one for each; slice both alike"
        )
    covered = coverage(masks, graph)
    whole = slice(0, graph.num_vertices)
    scored = {
        name: _scored(values[:, own], covered[:, own])
        for name, own in {**graph.slices, **({ALL: whole} if len(graph.names) > 1 else {})}.items()
    }
    pointing, mass, chance, best = (
        {name: figures[number] for name, figures in scored.items()} for number in range(4)
    )
    return OnObject(relevance.method, pointing, mass, chance, best)


def _scored(
    values: Float[Tensor, "b n"], covered: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    top = (values == values.amax(dim=1, keepdim=True)).float()
    positive = values.clamp(min=0)
    total = positive.sum(dim=1)
    mass = torch.where(total > 0, (positive * covered).sum(dim=1) / total, math.nan)
    pointing = (top * covered).sum(dim=1) / top.sum(dim=1)
    return pointing, mass, covered.mean(dim=1), covered.amax(dim=1)


def _overlap(
    start: Float[Tensor, " n"], end: Float[Tensor, " n"], pixels: int
) -> Float[Tensor, "n pixels"]:
    """Which share of each stretch lies in each pixel; each row sums to 1."""
    edges = torch.arange(pixels + 1, dtype=start.dtype)
    inside = torch.minimum(end[:, None], edges[1:]) - torch.maximum(start[:, None], edges[:-1])
    return inside.clamp(min=0) / (end - start)[:, None]
