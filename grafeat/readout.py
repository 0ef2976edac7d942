"""The readout: from the states of all vertices to one image vector."""

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
from grafeat.interplay import Exchange, Interplay

ReadoutKind = Literal["each", "relation", "attention", "mean"]
READOUTS: tuple[str, ...] = get_args(ReadoutKind)
WIDER = 8  # hidden channels of interplay and exchange together, in widths of a vertex
PRIOR = 0.01  # pull of calibrated relation embeddings towards 0, in nats


@dataclass(frozen=True, eq=False)
class Reading:
    """What a readout gives.

    Attributes:
        vector: The image vector (b, d).
        own: Each backbone's own vector (b, d), read from its own vertices alone, by name.
        weights: Weight of each vertex in the image vector (b, queries, n), each query's summing to 1: routing, not
            importance. Behind the learned queries come that of an interplay and that of an exchange, where they are.
        apart: The image vector without the exchange (b, d); None where there is none.
    """

    vector: Float[Tensor, "b d"]
    own: dict[str, Float[Tensor, "b d"]]
    weights: Float[Tensor, "b queries n"]
    apart: Float[Tensor, "b d"] | None = None


class PatchReadout(nn.Module):
    """What reads the image vector from the states of all vertices.

    Attributes:
        norm: What the states pass before they are read.
        queries: How many queries it learns that decide each backbone's mass; they come first.
        without: Knocks patches out: takes a backbone's name and the logits (b, patches, queries) of its patches, and
            makes some of them −∞; None for none.
    """

    norm: nn.LayerNorm
    queries: int
    without: Callable[[str, Tensor], Tensor] | None

    def early(self, names: Collection[str]) -> int:
        """How many of its first queries read these backbones before any message between them, and not at the end."""
        return 0

    @abstractmethod
    def vector(
        self,
        weights: Mapping[str, Float[Tensor, "b queries _"]],
        *states: Mapping[str, Float[Tensor, "b _ d"]],
    ) -> Float[Tensor, "b d"]:
        """The image vector, given each patch's weight and normed state; `states` holds one entry a place of reading."""

    @abstractmethod
    def even(self, graph: PatchGraph) -> dict[str, float]:
        """The mass of each backbone in the learned queries if the logits of all patches were equal; sums to 1."""


class Readout(PatchReadout):
    """Some learned queries attend over all vertices; what they read becomes one image vector.

    A query's logit for a vertex is learned from the vertex's state and from its place, so that queries can specialise
    in regions of the picture. Every kind of readout is Σ_m mass_m · reading_m, where reading_m is what the queries read
    from backbone m alone; `each` adds an interplay, if asked for. They differ in the mass:

    - `each`: the softmax of the relation embeddings, the same for every picture; every backbone has its own queries.
      With equal embeddings the logits are the average of what the backbones say by themselves, an ensemble. An
      `Interplay` adds what only several can say, by one more query, which weighs all patches evenly. An `Exchange` adds
      what they say after they have heard of each other: its query, the last, reads the final states, and all others
      those before any message between backbones. In both all backbones have the same mass.
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
        exchange: Whether `each` has an exchange; interplay and exchange are then half as wide.
        gain: Factor on the exchange's last weights at the start; see `Exchange`.

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
        exchange: bool = False,
        gain: float = 1.0,
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
        several = kind == "each" and len(names) > 1
        hidden = (WIDER // 2 if exchange else WIDER) * width
        self.interplay = Interplay(names, width, hidden) if several and interplay else None
        # Its query takes the place of a hidden channel: both together are as large as an interplay alone.
        self.exchange = Exchange(names, width, places, hidden - 1, gain=gain) if several and exchange else None
        self.without = None

    def forward(
        self,
        x: Vertices,
        places: Float[Tensor, "n f"],
        graph: PatchGraph,
        *,
        before: Vertices | None = None,
    ) -> Reading:
        """The image vector of each picture, and what it was made of.

        Args:
            x: Final vertex states (b, n, d).
            places: Features of the vertices' places (n, f).
            graph: Which vertices belong to which backbone.
            before: The states before any message between backbones (b, n, d), which all but an exchange read; the final
                ones if absent.
        """
        several = len(graph.names) > 1
        exchange = self.exchange if several else None
        first = self._normed(x if before is None else before, graph)
        final = first if exchange is None else self._normed(x, graph)
        lie = graph.split(places, dim=0)
        logits = {name: self._logits(state, lie[name], name) for name, state in first.items()}
        if self.interplay is not None and several:
            logits = {name: F.pad(block, (0, 1)) for name, block in logits.items()}  # one more query, even
        if exchange is not None:
            asked = {name: exchange.logits(state, lie[name], name) for name, state in final.items()}
            logits = {name: torch.cat([block, asked[name]], dim=2) for name, block in logits.items()}
        if self.without is not None:
            logits = {name: self.without(name, block) for name, block in logits.items()}
        local = {name: _softmax(block).mT for name, block in logits.items()}  # (b, queries, patches)
        mass = torch.stack([self._presence(block, name) for name, block in logits.items()], dim=-1).softmax(
            dim=-1
        )
        shares = dict(zip(graph.names, mass.unbind(dim=-1), strict=True))  # (b, queries) each
        weights = {name: local[name] * share[..., None] for name, share in shares.items()}
        apart, vector = self._together(weights, first, final)
        own = {name: self._said(block[:, : self.queries] @ first[name], name) for name, block in local.items()}
        return Reading(
            vector, own, torch.cat([*weights.values()], dim=2), None if exchange is None else apart
        )

    def early(self, names: Collection[str]) -> int:
        """How many of its first queries read these backbones before any message between them: all but an exchange's."""
        parted = self.exchange is not None and len(names) > 1
        return self.queries + (self.interplay is not None) if parted else 0

    def vector(
        self,
        weights: Mapping[str, Float[Tensor, "b queries _"]],
        *states: Mapping[str, Float[Tensor, "b _ d"]],
    ) -> Float[Tensor, "b d"]:
        """The image vector, given each patch's weight and normed state; `states` holds one entry a place of reading."""
        return self._together(weights, states[0], states[-1])[1]

    def even(self, graph: PatchGraph) -> dict[str, float]:
        """The mass of each backbone in the learned queries if the logits of all patches were equal: counts balance."""
        moved = torch.stack([self._moved(name, self.queries)[0] for name in graph.names])
        return dict(zip(graph.names, moved.softmax(dim=0).tolist(), strict=True))

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
            merged: Logits of all together; where interplay and exchange make them more than a mean of the others, that
                rest stays as it is.
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
        self,
        weights: Mapping[str, Float[Tensor, "b queries _"]],
        first: Mapping[str, Float[Tensor, "b _ d"]],
        final: Mapping[str, Float[Tensor, "b _ d"]],
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """The image vector without the exchange, and with it."""
        own = {name: block[:, : self.queries] for name, block in weights.items()}
        apart = torch.stack([self._said(block @ first[name], name) for name, block in own.items()]).sum(dim=0)
        several = len(weights) > 1
        if self.interplay is not None and several:
            rows = {name: block[:, self.queries] for name, block in weights.items()}
            apart = apart + _added(self.interplay, rows, first)
        if self.exchange is None or not several:
            return apart, apart
        return apart, apart + _added(self.exchange, {name: block[:, -1] for name, block in weights.items()}, final)

    def _said(self, read: Float[Tensor, "b queries d"], name: str) -> Float[Tensor, "b d"]:
        return self.value(read.flatten(1), name)

    def _normed(self, x: Vertices, graph: PatchGraph) -> dict[str, Float[Tensor, "b _ d"]]:
        return graph.split(self.norm(x), dim=1)

    def _logits(
        self, states: Float[Tensor, "b patches d"], places: Float[Tensor, "patches f"], name: str
    ) -> Float[Tensor, "b patches queries"]:
        if self.state is None:
            return states.new_zeros(*states.shape[:2], self.queries)
        logits = self.state(states, name)
        return logits if self.place is None else logits + places @ self.place

    def _moved(self, name: str, queries: int) -> Float[Tensor, " queries"]:
        """What a backbone's relation embedding adds to the logit of its mass; nothing where a query is not learned."""
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


def _added(
    say: Interplay, rows: Mapping[str, Float[Tensor, "b _"]], states: Mapping[str, Float[Tensor, "b _ d"]]
) -> Float[Tensor, "b d"]:
    """What an interplay or an exchange adds, given its query's weights; nothing where fewer than two have patches."""
    left = torch.stack([(row > 0).any(dim=1) for row in rows.values()]).sum(dim=0)
    means = {name: (row[:, None] @ states[name])[:, 0] for name, row in rows.items()}
    return say(means) * (left > 1)[:, None]


def _softmax(logits: Float[Tensor, "b patches queries"]) -> Float[Tensor, "b patches queries"]:
    """Over the patches; zero where none is left."""
    none = (logits == -torch.inf).all(dim=1, keepdim=True)
    return logits.masked_fill(none, 0).softmax(dim=1).masked_fill(none, 0)
