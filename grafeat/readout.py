"""The readout: from the final states of all vertices to one image vector."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from grafeat.attention.layers import PerBackbone, Vertices
from grafeat.graph import PatchGraph

ReadoutKind = Literal["each", "relation", "attention", "mean"]
READOUTS: tuple[str, ...] = get_args(ReadoutKind)
WIDER = 8  # hidden channels of the interplay, in widths of a vertex
PRIOR = 0.01  # pull of calibrated relation embeddings towards 0, in nats


@dataclass(frozen=True, eq=False)
class Reading:
    """What a readout gives.

    Attributes:
        vector: The image vector (b, d).
        own: Each backbone's own vector (b, d), read from its own vertices alone, by name.
        weights: Weight of each vertex in the image vector (b, queries, n), each query's summing to 1: routing, not
            importance. Where there is an interplay, its query is the last, one more than the learned ones.
    """

    vector: Float[Tensor, "b d"]
    own: dict[str, Float[Tensor, "b d"]]
    weights: Float[Tensor, "b queries n"]


class PatchReadout(nn.Module):
    """What reads the image vector from the final states of all vertices.

    Attributes:
        norm: What the states pass before they are read.
        without: Knocks patches out: takes a backbone's name and the logits (b, patches, queries) of its patches, and
            makes some of them −∞; None for none.
    """

    norm: nn.LayerNorm
    without: Callable[[str, Tensor], Tensor] | None

    @abstractmethod
    def vector(
        self, weights: Mapping[str, Float[Tensor, "b queries _"]], states: Mapping[str, Float[Tensor, "b _ d"]]
    ) -> Float[Tensor, "b d"]:
        """The image vector, given each patch's weight, and its state behind the norm."""

    @abstractmethod
    def even(self, graph: PatchGraph) -> dict[str, float]:
        """The mass of each backbone if the logits of all patches were equal; sums to 1."""


class Interplay(nn.Module):
    """What several backbones say together: MLP(Σ_m U_m·mean_m), of the means of their final states.

    It is what concatenation with an MLP would do with these states, so that what no backbone says alone can be said.
    Where a backbone is alone, or the patches of all others are out, nobody asks for it.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex.
    """

    def __init__(self, names: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.enter = PerBackbone(names, lambda: nn.Linear(width, WIDER * width, bias=False), shared=False)
        self.say = nn.Sequential(
            nn.LayerNorm(WIDER * width), nn.GELU(), nn.Linear(WIDER * width, width, bias=False)
        )

    def forward(self, means: Mapping[str, Float[Tensor, "b d"]]) -> Float[Tensor, "b d"]:
        """What is added to the sum of the readings (b, d), from each backbone's mean, by name."""
        return self.say(torch.stack([self.enter(mean, name) for name, mean in means.items()]).sum(dim=0))


class Readout(PatchReadout):
    """Some learned queries attend over all vertices; what they read becomes one image vector.

    A query's logit for a vertex is learned from the vertex's state and from its place, so that queries can specialise
    in regions of the picture. Every kind of readout is Σ_m mass_m · reading_m, where reading_m is what the queries read
    from backbone m alone; `each` adds an interplay, if asked for. They differ in the mass:

    - `each`: the softmax of the relation embeddings, the same for every picture; every backbone has its own queries.
      With equal embeddings the logits are the average of what the backbones say by themselves, an ensemble; an
      `Interplay` adds what only several can say. It reads by one more query, which weighs all patches and all backbones
      evenly.
    - `relation`: one softmax over all vertices, each backbone's logits moved by its relation embedding and by −log n.
    - `attention`: the same without relation embeddings.
    - `mean`: equal weights for a backbone's vertices, and for the backbones.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex.
        places: Features f of a vertex's place.
        queries: Learned queries.
        kind: One of the kinds above.
        relations: Whether the relation embeddings are learned; else all backbones have the same mass.
        interplay: Whether `each` has an interplay.

    Source: ours; learned queries as in Lee et al., Set Transformer, ICML 2019 (pooling by attention); the relation
    embedding follows Wang et al., RE-GNN, IEEE Trans. Big Data 2023, which classifies vertices and has no readout.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        width: int,
        places: int,
        *,
        queries: int,
        kind: ReadoutKind,
        relations: bool = True,
        interplay: bool = False,
    ) -> None:
        super().__init__()
        self.names, self.kind = names, kind
        self.queries = 1 if kind == "mean" else queries
        shared = kind != "each"
        self.norm = nn.LayerNorm(width)
        self.value = PerBackbone(
            names, lambda: nn.Linear(self.queries * width, width, bias=False), shared=shared
        )
        self.state, self.place = None, None
        if kind != "mean":
            self.state = PerBackbone(names, lambda: nn.Linear(width, self.queries, bias=False), shared=shared)
            self.place = nn.Parameter(torch.randn(places, self.queries))
        # A lone backbone's embedding would cancel in the softmax and never receive gradient.
        gated = kind in ("each", "relation") and len(names) > 1 and relations
        self.relation = nn.Parameter(torch.zeros(len(names))) if gated else None
        self.interplay = Interplay(names, width) if kind == "each" and interplay and len(names) > 1 else None
        self.without = None

    def forward(self, x: Vertices, places: Float[Tensor, "n f"], graph: PatchGraph) -> Reading:
        """The image vector of each picture, and what it was made of.

        Args:
            x: Final vertex states (b, n, d).
            places: Features of the vertices' places (n, f).
            graph: Which vertices belong to which backbone.
        """
        sizes = list(graph.sizes.values())
        states = dict(zip(graph.names, self.norm(x).split(sizes, dim=1), strict=True))
        lie = dict(zip(graph.names, places.split(sizes), strict=True))
        logits = {name: self._logits(state, lie[name], name) for name, state in states.items()}
        if self._several(graph.names):
            logits = {name: F.pad(block, (0, 1)) for name, block in logits.items()}
        if self.without is not None:
            logits = {name: self.without(name, block) for name, block in logits.items()}
        local = {name: _softmax(block) for name, block in logits.items()}  # (b, patches, queries)
        read = {name: local[name].mT @ state for name, state in states.items()}  # (b, queries, d)
        mass = torch.stack([self._presence(block, name) for name, block in logits.items()], dim=-1).softmax(
            dim=-1
        )
        shares = dict(zip(graph.names, mass.unbind(dim=-1), strict=True))  # (b, queries) each
        vector = self._together({name: read[name] * share[..., None] for name, share in shares.items()}, shares)
        own = {name: self._said(reading, name) for name, reading in read.items()}
        weights = torch.cat([local[name] * share[:, None] for name, share in shares.items()], dim=1)
        return Reading(vector, own, weights.mT)

    def vector(
        self, weights: Mapping[str, Float[Tensor, "b queries _"]], states: Mapping[str, Float[Tensor, "b _ d"]]
    ) -> Float[Tensor, "b d"]:
        """The image vector, given each patch's weight, and its state behind the norm."""
        read = {name: block @ states[name] for name, block in weights.items()}
        return self._together(read, {name: block.sum(dim=-1) for name, block in weights.items()})

    def even(self, graph: PatchGraph) -> dict[str, float]:
        """The mass of each backbone if the logits of all patches were equal: every kind balances counts."""
        queries = self.queries + self._several(graph.names)
        moved = torch.stack([self._moved(name, queries) for name in graph.names])
        return dict(zip(graph.names, moved.softmax(dim=0).mean(dim=1).tolist(), strict=True))

    def calibrate(
        self,
        own: Float[Tensor, "m b t"],
        labels: Int[Tensor, " b"],
        *,
        merged: Float[Tensor, "b t"] | None = None,
    ) -> None:
        """Sets the relation embeddings of `each` to those that say most about held-out labels.

        Training pictures cannot tell which backbone to believe: each reading fits them almost perfectly. Held-out ones
        can, and there are as few numbers to choose as backbones.

        Args:
            own: Logits of each backbone's own reading for held-out pictures, in the order of the model's backbones.
            labels: Their true classes.
            merged: Logits of all together; where an interplay makes them more than a mean of the others, that rest
                stays as it is.
        """
        if self.kind != "each" or self.relation is None:
            return
        rest = torch.zeros_like(own[0])
        if merged is not None:
            rest = merged - torch.einsum("m,mbt->bt", self.relation.detach().to(own).softmax(dim=0), own)
        relation = torch.zeros(len(own), device=own.device, requires_grad=True)
        optimiser = torch.optim.LBFGS([relation], max_iter=50, line_search_fn="strong_wolfe")  # else it overshoots

        def loss() -> Tensor:
            optimiser.zero_grad()
            said = torch.einsum("m,mbt->bt", relation.softmax(dim=0), own) + rest
            value = F.cross_entropy(said, labels) + PRIOR * relation.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        self.relation.data.copy_(relation.detach())

    def _together(
        self, read: Mapping[str, Float[Tensor, "b queries d"]], shares: Mapping[str, Float[Tensor, "b queries"]]
    ) -> Float[Tensor, "b d"]:
        """The image vector from what the queries read from each backbone, times its mass, and from the masses."""
        vector = torch.stack([self._said(block, name) for name, block in read.items()]).sum(dim=0)
        if self.interplay is not None and self._several(read):
            left = torch.stack([share[:, -1:] > 0 for share in shares.values()]).sum(dim=0)  # backbones with patches
            vector = vector + self.interplay({name: block[:, -1] for name, block in read.items()}) * (left > 1)
        return vector

    def _said(self, read: Float[Tensor, "b queries d"], name: str) -> Float[Tensor, "b d"]:
        return self.value(read[:, : self.queries].flatten(1), name)

    def _logits(
        self, states: Float[Tensor, "b patches d"], places: Float[Tensor, "patches f"], name: str
    ) -> Float[Tensor, "b patches queries"]:
        if self.state is None:
            return states.new_zeros(*states.shape[:2], self.queries)
        logits = self.state(states, name)
        return logits if self.place is None else logits + places @ self.place

    def _several(self, names: Collection[str]) -> bool:
        """Whether there is one more query, the last: that of the interplay, which needs two backbones."""
        return self.interplay is not None and len(names) > 1

    def _moved(self, name: str, queries: int) -> Float[Tensor, " queries"]:
        """What a backbone's relation embedding adds to the logit of its mass; nothing in the query of the interplay."""
        if self.relation is None:
            return torch.zeros(queries)
        return F.pad(self.relation[self.names.index(name)].expand(self.queries), (0, queries - self.queries))

    def _presence(self, logits: Float[Tensor, "b patches queries"], name: str) -> Float[Tensor, "b queries"]:
        """Logit of a backbone's mass; in a joint softmax the logarithm of the mean of its patches' exponentials."""
        there = (logits != -torch.inf).sum(dim=1)  # patches that were not knocked out
        presence = torch.zeros_like(logits[:, 0])
        if self.kind in ("relation", "attention"):
            presence = logits.logsumexp(dim=1) - there.clamp(min=1).to(logits).log()
        return (presence + self._moved(name, logits.shape[-1]).to(presence)).masked_fill(there == 0, -torch.inf)


def _softmax(logits: Float[Tensor, "b patches queries"]) -> Float[Tensor, "b patches queries"]:
    """Over the patches; zero where none is left."""
    none = (logits == -torch.inf).all(dim=1, keepdim=True)
    return logits.masked_fill(none, 0).softmax(dim=1).masked_fill(none, 0)
