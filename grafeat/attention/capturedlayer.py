"""What is kept of one attention layer's pass, and what can be rebuilt from it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention.layers import Blocks, Heads, PatchAttention, kind_of
from grafeat.graph import Kind, PatchGraph


@dataclass(frozen=True, eq=False)
class CapturedLayer:
    """One layer's queries and keys, and the layer that builds the weights from them."""

    attention: PatchAttention
    q: Blocks
    k: Blocks
    graph: PatchGraph

    @property
    def size(self) -> tuple[int, int]:
        """Pictures and heads."""
        b, heads = next(iter(self.q.values())).shape[:2]
        return b, heads

    @property
    def nbytes(self) -> int:
        """Bytes that its queries and keys take."""
        return sum(states.nbytes for blocks in (self.q, self.k) for states in blocks.values())

    def states(self, pictures: slice, heads: slice) -> tuple[Blocks, Blocks]:
        """Queries and keys of some pictures and heads, in float32: else rows would miss 1 by a hundredth."""
        q, k = (
            {name: states[pictures, heads].float() for name, states in blocks.items()}
            for blocks in (self.q, self.k)
        )
        return q, k

    @property
    def priors(self) -> Float[Tensor, "heads queries keys"]:
        """The factor on the logits of each relation, by the numbers of the two backbones; 1 where there is none."""
        names = self.graph.names
        found = torch.ones(self.size[1], len(names), len(names))
        for query in names:
            for key in self.attention.seen(query, self.graph):
                prior = self.attention.prior(query, key)
                if prior is not None:
                    found[:, names.index(query), names.index(key)] = prior.detach().float().flatten().cpu()
        return found

    @torch.no_grad()
    def weights(self, query: str, key: str, pictures: slice, heads: slice) -> Heads:
        """Attention weights (b, heads, queries, keys) from one backbone's patches to another's."""
        q, k = self.states(pictures, heads)
        return self.attention.weights(q, k, self.graph, query, key, heads)

    @torch.no_grad()
    def row(self, query: str, key: str, picture: slice, heads: slice, patch: int) -> Heads:
        """The weights of one patch of `query`, as `weights`."""
        q, k = self.states(picture, heads)
        return self.attention.weights({query: q[query][:, :, patch : patch + 1]}, k, self.graph, query, key, heads)

    @torch.no_grad()
    def logits(
        self, kind: Kind, query: str, picture: slice
    ) -> tuple[Float[Tensor, "heads queries keys"], Float[Tensor, "heads queries"]]:
        """The logits over the patches that are seen by edges of one kind, and the log of the softmax's denominator."""
        q, k = self.states(picture, slice(None))
        whole, seen = self.attention.logits(q, k, self.graph, query)[0], self.attention.seen(query, self.graph)
        parts = zip(seen, whole.split([self.graph.sizes[key] for key in seen], dim=-1), strict=True)
        own = [part for key, part in parts if kind_of(query, key) == kind]
        return torch.cat(own, dim=-1), whole.logsumexp(dim=-1)
