"""Communities: patches, of any backbones, that attend to each other more than to the rest."""

from dataclasses import dataclass

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.attention.captured import CapturedAttention
from grafeat.measures.weights import even_weights, matrix, on_grids, same_backbone


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
    graph, weights = attention.graph, matrix(attention, layer, head, picture)
    even = even_weights(attention, layer)
    # Backbones by name: their order in the model decides neither ties nor Louvain's walk.
    order = torch.cat([torch.arange(graph.num_vertices)[graph.slices[name]] for name in sorted(graph.names)])
    joined, even = (both[order][:, order] for both in (weights + weights.T, even + even.T))
    joined.fill_diagonal_(0)
    same = same_backbone(graph)[order][:, order]
    edges = torch.zeros_like(same)
    for kind in (same, ~same):
        edges |= _strongest(joined / even, kind & (joined > 0), strongest)
    found = _louvain(joined, edges, seed)
    labels = torch.empty(len(order), dtype=torch.int64)
    for number, members in enumerate(sorted(found, key=lambda members: (-len(members), min(members)))):
        labels[order[sorted(members)]] = number
    total = float(joined.sum())
    kept = float(joined[edges].sum()) / total if total else 1.0
    return Communities(on_grids(labels, graph), _modularity(joined, labels[order]), kept)


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
