"""Joint attention: one softmax over the patches of all backbones, in the place of an intra and a cross layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention.layers import Blocks, PatchAttention, fixed_or_learned
from grafeat.graph import PatchGraph


class JointAttention(PatchAttention):
    """Each backbone's patches attend to the patches of all backbones, their own included, in one softmax.

    Each relation has a prior for each head: one learnable number, the factor on its logits, which starts at 1.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex; a multiple of `heads`.
        heads: Attention heads.
        shared: Whether all backbones use the same projections and MLP.
        balance: Whether each backbone's logits carry −log n.
        gain: Factor on the last layer's weights at the start.
        hidden: Width of the MLP; twice `width` if absent.
        relations: Whether the relation embeddings and the priors are learned.

    Source: Hu et al., Heterogeneous Graph Transformer, WWW 2020, eq. 3: one softmax over neighbours of all types, with
    a prior μ for each relation. There each relation also has matrices of its own for keys and values, and another
    update; here only the softmax differs from the other layers, and the counts are balanced.
    """

    kind = "joint"
    priors: Tensor

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        heads: int,
        *,
        shared: bool = True,
        balance: bool = True,
        gain: float = 1.0,
        hidden: int | None = None,
        relations: bool = True,
    ) -> None:
        super().__init__(
            names, width, heads, shared=shared, balance=balance, gain=gain, hidden=hidden, relations=relations
        )
        fixed_or_learned(self, "priors", torch.ones(len(self.relations), heads), learned=relations)

    def prior(self, query: str, key: str) -> Float[Tensor, "heads 1 1"]:
        """Factor on the logits of a relation, for each head."""
        return self.priors[self.relations.index((query, key))][:, None, None]

    def messages(
        self, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph, keep: Float[Tensor, "b 1 1"] | None = None
    ) -> Blocks:
        """Attended values (b, heads, patches, k); where `keep` is 0, a patch attends to its own grid alone."""
        if keep is None:
            return super().messages(q, k, v, graph)
        dropped = keep.log()[:, None].expand(-1, 1, 1, graph.num_vertices)  # 0 or −∞
        masks = {name: dropped.to(queries.dtype, copy=True) for name, queries in q.items()}
        for name, mask in masks.items():
            mask[..., graph.slices[name]] = 0
        return {name: self.message(name, q, k, v, graph, mask) for name, mask in masks.items()}
