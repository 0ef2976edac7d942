"""Explanations that are bad on purpose: an audit that lets one of them pass every test would be worth nothing."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.explanations.relevance import Relevance
from grafeat.explanations.standardised import frozen, in_order, standardised
from grafeat.graph import PatchGraph
from grafeat.grids import GridSet
from grafeat.models import GridModel

Map = Float[Tensor, "b h w"]


def control(
    model: GridModel, grids: GridSet, target: Int[Tensor, " b"], *, method: str, seed: int = 0
) -> Relevance:
    """What a control says, in the shape of an explanation. None of them looks at the model's prediction.

    | control | value of a patch |
    |---|---|
    | `constant` | 1 |
    | `random` | a normal draw, the same for every model |
    | `edges` | how much its standardised features differ from its neighbours' |
    | `norm` | length of its standardised feature vector |

    Args:
        model: A model with projections.
        grids: The pictures' grids.
        target: The class to explain, for each picture; it changes nothing.
        method: One of the above.
        seed: Decides what `random` draws.

    Source: the edge detector after Adebayo et al., NeurIPS 2018.
    """
    subject = standardised(frozen(model), grids, target)
    generator = torch.Generator().manual_seed(seed)
    maps = {
        grid.name: CONTROLS[method](grid.features.detach().float().cpu(), generator)
        for grid in in_order(subject.model, GridSet(subject.grids))
    }
    graph = PatchGraph.of(grids)
    return Relevance({name: maps[name] for name in graph.names}, method, method == "random", target, graph)


def _constant(features: Float[Tensor, "b k h w"], generator: torch.Generator) -> Map:
    return torch.ones_like(features[:, 0])


def _random(features: Float[Tensor, "b k h w"], generator: torch.Generator) -> Map:
    return torch.randn(features[:, 0].shape, generator=generator)


def _edges(features: Float[Tensor, "b k h w"], generator: torch.Generator) -> Map:
    """Root of the squared differences to the patches above, below, left and right."""
    squared = torch.zeros_like(features[:, 0])
    down = features.diff(dim=2).square().sum(dim=1)
    across = features.diff(dim=3).square().sum(dim=1)
    squared[:, 1:] += down
    squared[:, :-1] += down
    squared[:, :, 1:] += across
    squared[:, :, :-1] += across
    return squared.sqrt()


def _norm(features: Float[Tensor, "b k h w"], generator: torch.Generator) -> Map:
    return features.norm(dim=1)


CONTROLS: dict[str, Callable[[Tensor, torch.Generator], Map]] = {
    "constant": _constant,
    "random": _random,
    "edges": _edges,
    "norm": _norm,
}
