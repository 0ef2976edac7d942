"""Where a model routes information: attention mass of each backbone, beside what equal logits would give."""

from collections import defaultdict

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention.layers import Attend, PatchAttention, attention_layers
from grafeat.evaluation import batches
from grafeat.explanations.rollout import attending
from grafeat.graph import PatchGraph
from grafeat.grids import GridSet
from grafeat.patchmodel import PatchModel

Masses = dict[tuple[str, str], list[float]]


@torch.no_grad()
def routing(model: PatchModel, grids: GridSet, batch_size: int) -> pd.DataFrame:
    """Mass of each backbone's patches in the readout and in each cross or joint layer, mean over the pictures.

    Each layer's weights are summed as soon as they are computed, so that none are kept. The mass in the readout is the
    mean over its learned queries; interplay and exchange, which give all backbones the same, are left out.

    Args:
        model: The model; no edge of it may be knocked out.
        grids: The pictures' grids.
        batch_size: Pictures that are computed at once.

    Returns:
        `where` it is read, the `backbone` (or the pair that attends → is attended to), its `mass`, and that of logits
        that are all `even`: balance included, and in the readout the learned relation embeddings.
    """
    graph = model.patches(grids[:1])
    masses: Masses = defaultdict(list)
    even = {("readout", name): mass for name, mass in model.readout.even(graph).items()}
    attends: list[Attend | None] = []
    counts = dict.fromkeys(("cross", "joint"), 0)
    for layer in attention_layers(model):
        if layer.kind == "intra" or len(graph.names) == 1:
            attends.append(None)
            continue
        where = f"{layer.kind} {counts[layer.kind]}"
        counts[layer.kind] += 1
        even |= _even(layer, where, graph)
        attends.append(_summing(masses, layer, where, graph))
    for part in batches(grids, batch_size):
        with attending(model, attends):
            reading = model(part).reading
        for name, weights in reading.items():
            learned = weights[:, : model.readout.queries]
            masses["readout", name].extend(learned.sum(dim=(2, 3)).mean(dim=1).tolist())
    return pd.DataFrame(
        [
            {"where": where, "backbone": name, "mass": sum(found) / len(found), "even": even[where, name]}
            for (where, name), found in sorted(masses.items(), key=lambda item: list(even).index(item[0]))
        ]
    )


def _even(layer: PatchAttention, where: str, graph: PatchGraph) -> dict[tuple[str, str], float]:
    """The mass that goes along each relation of a layer if its logits are all equal."""
    found = {}
    for query in graph.names:
        sizes = [graph.sizes[key] for key in layer.seen(query, graph)]
        logits = torch.zeros(1, sum(sizes))
        bias = layer.bias(graph, query, logits)
        weights = (logits if bias is None else bias).softmax(dim=-1)[0]
        for key, part in zip(layer.seen(query, graph), weights.split(sizes), strict=True):
            found[where, f"{query} → {key}"] = float(part.sum())
    return found


def _summing(masses: Masses, layer: PatchAttention, where: str, graph: PatchGraph) -> Attend:
    def attend(
        query: str, logits: Float[Tensor, "b heads queries keys"]
    ) -> Float[Tensor, "b heads queries keys"]:
        weights, seen = layer.softmax(query, logits), layer.seen(query, graph)
        for key, part in zip(seen, weights.split([graph.sizes[key] for key in seen], dim=-1), strict=True):
            masses[where, f"{query} → {key}"].extend(part.sum(dim=-1).mean(dim=(1, 2)).tolist())
        return weights

    return attend
