"""PageRank of the patches: who is listened to by those who are listened to."""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention.captured import KINDS, CapturedAttention
from grafeat.graph import Kind
from grafeat.measures.weights import even_weights, matrix, of_kinds, on_grids

SETTLED = 1e-12  # by how much PageRank may still change, summed over all patches


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
    where both are followed, each kind has one half, or what it has in a joint layer, where all sum to 1. Evenly spread
    it would be 1 / n for each of the n patches.

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
    followed = of_kinds(attention, kinds)
    ranks = _ranks(matrix(attention, layer, head, picture).where(followed, 0), damping)
    if relative:
        ranks = ranks / _ranks(even_weights(attention, layer).where(followed, 0), damping)
    return on_grids(ranks, attention.graph)


def _ranks(weights: Float[Tensor, "n n"], damping: float) -> Float[Tensor, " n"]:
    """How often a walker is on each vertex, by power iteration."""
    n, sums = len(weights), weights.sum(dim=1, keepdim=True)
    links = torch.where(sums > 0, weights / sums, 1 / n)  # where nothing is followed, anywhere is as good
    before, ranks = torch.zeros(n, dtype=torch.float64), torch.full((n,), 1 / n, dtype=torch.float64)
    while float((ranks - before).abs().sum()) > SETTLED:
        before, ranks = ranks, damping * (ranks @ links) + (1 - damping) / n
    return ranks / ranks.sum()
