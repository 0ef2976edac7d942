"""Where a model routes information: attention mass of each backbone, beside what equal logits would give."""

from collections import defaultdict

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention import Attend, CrossAttention
from grafeat.evaluation import batches
from grafeat.explanations.rollout import attending, attention_layers
from grafeat.graph import PatchGraph
from grafeat.grids import GridSet
from grafeat.merge import GraFeatMerge

Masses = dict[tuple[str, str], list[float]]


@torch.no_grad()
def routing(model: GraFeatMerge, grids: GridSet, batch_size: int) -> pd.DataFrame:
    """Mass of each backbone's patches in the readout and in each cross layer, mean over the pictures.

    Each layer's weights are summed as soon as they are computed, so that none are kept.

    Args:
        model: The model; no edge of it may be knocked out.
        grids: The pictures' grids.
        batch_size: Pictures that are computed at once.

    Returns:
        `where` it is read, the `backbone` (or the pair that attends → is attended to), its `mass`, and that of logits
        that are all `even`: balance included, and in the readout the learned relation embeddings.
    """
    graph = PatchGraph.of(grids[:1])
    masses: Masses = defaultdict(list)
    even = _even_reading(model, graph)
    attends, crossed = [], 0
    for layer in attention_layers(model):
        where = f"cross {crossed}"
        crossing = layer if isinstance(layer, CrossAttention) and len(graph.names) > 1 else None
        if crossing is not None:
            crossed += 1
            even |= _even_crossing(crossing, where, graph)
        attends.append(None if crossing is None else _summing(masses, where, graph))
    for part in batches(grids, batch_size):
        with attending(model, attends):
            reading = model(part).reading
        for name, weights in reading.items():
            masses["readout", name].extend(weights.sum(dim=(2, 3)).mean(dim=1).tolist())
    return pd.DataFrame(
        [
            {"where": where, "backbone": name, "mass": sum(found) / len(found), "even": even[where, name]}
            for (where, name), found in sorted(masses.items(), key=lambda item: list(even).index(item[0]))
        ]
    )


def _even_reading(model: GraFeatMerge, graph: PatchGraph) -> dict[tuple[str, str], float]:
    """The mass in the readout if the logits of all vertices were equal: every kind of readout balances counts."""
    readout, relation = model.readout, torch.zeros(len(graph.names))
    if readout.relation is not None:
        relation = readout.relation[[readout.names.index(name) for name in graph.names]]
    masses = relation.softmax(dim=0).tolist()
    return {("readout", name): mass for name, mass in zip(graph.names, masses, strict=True)}


def _even_crossing(layer: CrossAttention, where: str, graph: PatchGraph) -> dict[tuple[str, str], float]:
    found = {}
    for query in graph.names:
        others = {name: size for name, size in graph.sizes.items() if name != query}
        logits = torch.zeros(1, sum(others.values()))
        bias = layer.bias(graph, query, logits)
        weights = (logits if bias is None else bias).softmax(dim=-1)[0]
        for key, part in zip(others, weights.split(list(others.values())), strict=True):
            found[where, f"{query} → {key}"] = float(part.sum())
    return found


def _summing(masses: Masses, where: str, graph: PatchGraph) -> Attend:
    def attend(
        query: str, logits: Float[Tensor, "b heads queries keys"]
    ) -> Float[Tensor, "b heads queries keys"]:
        weights = logits.softmax(dim=-1)
        others = {name: size for name, size in graph.sizes.items() if name != query}
        for key, part in zip(others, weights.split(list(others.values()), dim=-1), strict=True):
            masses[where, f"{query} → {key}"].extend(part.sum(dim=-1).mean(dim=(1, 2)).tolist())
        return weights

    return attend
