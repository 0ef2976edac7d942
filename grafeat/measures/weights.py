"""The attention of one layer as matrices in float64: what the measures start from."""

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.attention.captured import KINDS, CapturedAttention
from grafeat.graph import Kind, PatchGraph


def matrix(
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


def check_layers(attention: CapturedAttention) -> None:
    """Refuses what has no layer at all, as of a lone backbone in a model without intra layers."""
    if not attention.kinds:
        raise ValueError(
            "attention: no layer was captured; expected one or more; capture a model with intra layers, or with two "
            "backbones"
        )


def same_backbone(graph: PatchGraph) -> Bool[Tensor, "n n"]:
    """Which pairs of vertices are of one backbone."""
    sizes = torch.tensor(list(graph.sizes.values()))
    backbone = torch.arange(len(sizes)).repeat_interleave(sizes)
    return backbone[:, None] == backbone[None, :]


def of_kinds(attention: CapturedAttention, kinds: Collection[Kind]) -> Bool[Tensor, "n n"]:
    """Which pairs of vertices are joined by an edge of these kinds; a kind without layers joins none."""
    check_layers(attention)
    there = [kind for kind in attention.kinds if kind in kinds]
    if not there or set(kinds) - set(KINDS):
        raise ValueError(
            f"kinds: got {tuple(kinds)}; captured were {' and '.join(attention.kinds)} layers; use some of these"
        )
    same = same_backbone(attention.graph)
    return torch.ones_like(same) if len(there) == 2 else same if there == ["intra"] else ~same


def even_weights(attention: CapturedAttention, layer: int) -> Float[Tensor, "n n"]:
    """The weight that each patch would give each other if all logits were equal; one half where no layer is."""
    graph = attention.graph
    even = torch.full((graph.num_vertices, graph.num_vertices), 0.5, dtype=torch.float64)
    for query, key in graph.relations():
        if ("intra" if query == key else "cross") in attention.kinds:
            even[graph.slices[query], graph.slices[key]] = attention.uniform(query, key, layer)
    return even


def on_grids(values: Tensor, graph: PatchGraph) -> dict[str, Tensor]:
    """One value for each vertex as grids (h, w), by backbone."""
    return {name: values[graph.slices[name]].unflatten(0, shape) for name, shape in graph.shapes.items()}
