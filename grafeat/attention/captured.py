"""The capture of attention: queries and keys are kept, and the weights rebuilt from them on demand."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention.capturedlayer import CapturedLayer
from grafeat.attention.layers import Blocks
from grafeat.files import size
from grafeat.graph import Kind, Patch, PatchGraph

KINDS: tuple[Kind, ...] = ("intra", "cross")
LIMIT = 4 * 2**30


@dataclass(frozen=True, eq=False)
class CapturedAttention:
    """The attention weights of a model's last forward pass, rebuilt on demand from the kept queries and keys.

    Layers and heads are counted from 0. "Query" is the backbone whose patches attend, "key" the one they
    attend to. The weights say where information is routed, not what matters for the prediction.

    Attributes:
        limit: Bytes that the kept queries and keys may take together, and that any weights asked for may take.
    """

    limit: int = LIMIT
    _layers: dict[tuple[Kind, int], CapturedLayer] = field(default_factory=dict)

    def __repr__(self) -> str:
        if not self._layers:
            return "CapturedAttention: nothing yet; call the model inside the capture"
        pictures, heads = self._any.size
        names = ", ".join(f"{name} {h} × {w}" for name, (h, w) in self.graph.shapes.items())
        return (
            f"CapturedAttention: {pictures:,} pictures, {self._layers_said()} of {heads} heads; {names}; keeps "
            f"{size(self.nbytes)}, all its weights would take {size(self.map_bytes)}"
        )

    def _layers_said(self) -> str:
        joint = sum(len(self.together("intra", layer)) > 1 for layer in range(self.layers("intra")))
        if joint:
            return f"{joint} joint layers"
        return f"{self.layers('intra')} intra and {self.layers('cross')} cross layers"

    @property
    def heads(self) -> int:
        """Heads of each layer."""
        return self._any.size[1]

    @property
    def pictures(self) -> int:
        """Pictures of the captured batch."""
        return self._any.size[0]

    @property
    def nbytes(self) -> int:
        """Bytes that the kept queries and keys take."""
        return sum({id(kept): kept.nbytes for kept in self._layers.values()}.values())  # a joint layer is there twice

    @property
    def map_bytes(self) -> int:
        """Bytes that the weights of all pictures, layers and heads would take in float32; they are never all built."""
        edges = sum(self.graph.num_edges(kind) for kind, _ in self._layers)
        return 4 * self.pictures * self.heads * edges

    def layers(self, kind: Kind) -> int:
        """How many layers of a kind were captured; they are numbered from 0."""
        return sum(captured == kind for captured, _ in self._layers)

    @property
    def order(self) -> list[tuple[int, tuple[Kind, ...]]]:
        """The layers in the order of the pass: the number of each among those of its kind, and its kinds of edges."""
        there = set(self.kinds)
        passed = {(layer, self.together(kind, layer)): None for kind, layer in self._layers}
        return [(layer, own) for layer, kinds in passed if (own := tuple(kind for kind in kinds if kind in there))]

    def together(self, kind: Kind, layer: int) -> tuple[Kind, ...]:
        """The kinds of edges that share one softmax with this one in a layer: both in a joint layer, else itself."""
        return self._checked(kind, (), layer, None).attention.kinds

    @property
    def joint(self) -> bool:
        """Whether intra and cross edges share one softmax."""
        return any(len(kept.attention.kinds) > 1 for kept in self._layers.values())

    @property
    def graph(self) -> PatchGraph:
        """The patch graph of the captured pass."""
        return self._any.graph

    @property
    def _any(self) -> CapturedLayer:
        if not self._layers:
            raise ValueError(
                "attention: nothing was captured; call model(grids) inside `with capture(model)`"
            )
        return next(iter(self._layers.values()))

    def intra(self, name: str, layer: int, head: int | None = None) -> Float[Tensor, "b *heads h w h2 w2"]:
        """Weights of one intra layer on a backbone's own grid.

        Args:
            name: The backbone.
            layer: The layer, from 0.
            head: The head, from 0; all heads if absent.

        Returns:
            Weights (b, h, w, h, w), query patch first, or (b, heads, h, w, h, w) without `head`; in [0, 1].
            Over the last two axes they sum to 1; in a joint layer, together with the cross weights.

        Raises:
            ValueError: If nothing was captured, or there is no such backbone, layer or head.
        """
        return self._grids("intra", name, name, layer, head)

    def cross(
        self, query: str, key: str, layer: int, head: int | None = None
    ) -> Float[Tensor, "b *heads h w h2 w2"]:
        """Weights of one cross layer from the patches of `query` to the patches of `key`.

        Args:
            query: The backbone whose patches attend.
            key: The backbone that they attend to.
            layer: The layer, from 0.
            head: The head, from 0; all heads if absent.

        Returns:
            Weights (b, h_query, w_query, h_key, w_key), with an axis of heads after b without `head`; in [0,
            1]. Over the patches of *all* other backbones together they sum to 1; in a joint layer, over the
            patches of all backbones.

        Raises:
            ValueError: If nothing was captured, there is no such backbone, layer or head, or both backbones
                are one.
        """
        if query == key:
            raise ValueError(
                f"query, key: got {query!r} twice; cross attention joins two backbones; use intra() for one"
            )
        return self._grids("cross", query, key, layer, head)

    def block(
        self, query: str, key: str, *, layer: int, head: int | None = None, picture: int = 0
    ) -> Float[Tensor, "patches_query patches_key"]:
        """Weights between two grids as a matrix (patches of `query`, patches of `key`), for one picture.

        Intra weights where both are the same backbone, else cross weights; without `head`, the mean over
        heads.
        """
        kind: Kind = "intra" if query == key else "cross"
        return self._weights(kind, query, key, layer, head, self._one(picture))[0].mean(dim=0)

    def row(
        self, patch: Patch | tuple[str, int, int], *, layer: int, head: int | None = None, picture: int = 0
    ) -> dict[str, Float[Tensor, "_ _"]]:
        """What one patch attends to, on every grid: intra on its own, cross on the others.

        Args:
            patch: The patch that attends, (backbone, row, column).
            layer: The layer, from 0.
            head: The head, from 0; the mean over heads if absent.
            picture: Which picture of the captured batch, from 0.

        Returns:
            Weights (h, w) by backbone, in [0, 1]. The intra weights sum to 1, and all cross weights together; in a
            joint layer, all of them. A kind that the model has no layers of is not there.

        Raises:
            ValueError: If nothing was captured, or there is no such patch, layer, head or picture.
        """
        name, number = self._number(patch)
        return self._seen(
            name, layer, lambda other, kind: self._rows(kind, name, other, layer, head, picture, number)[0]
        )

    def column(
        self, patch: Patch | tuple[str, int, int], *, layer: int, head: int | None = None, picture: int = 0
    ) -> dict[str, Float[Tensor, "_ _"]]:
        """Which patches attend to one patch, on every grid: the columns that belong to the rows of `row`.

        Args:
            patch: The patch that is attended to, (backbone, row, column).
            layer: The layer, from 0.
            head: The head, from 0; the mean over heads if absent.
            picture: Which picture of the captured batch, from 0.

        Returns:
            Weights (h, w) by backbone, in [0, 1]; they need not sum to 1.

        Raises:
            ValueError: If nothing was captured, or there is no such patch, layer, head or picture.
        """
        name, number = self._number(patch)
        return self._seen(
            name, layer, lambda other, kind: self._rows(kind, other, name, layer, head, picture)[:, number]
        )

    def dense(self, *, layer: int, head: int | None = None, picture: int = 0) -> Float[Tensor, "n n"]:
        """All weights of one layer as one matrix over the vertices: intra on the diagonal blocks, cross elsewhere.

        Without `head`, the mean over heads. A kind that the model has no layers of is 0.
        """
        n, slices = self.graph.num_vertices, self.graph.slices
        self._check_size(4 * n * n * (1 if head is not None else 1 + self.heads), "this matrix")
        whole = torch.zeros(n, n)
        for query in self.graph.names:
            for key in self.graph.names:
                if ("intra" if query == key else "cross") in self.kinds:
                    block = self.block(query, key, layer=layer, head=head, picture=picture)
                    whole[slices[query], slices[key]] = block.cpu()
        return whole

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of layers that were captured; cross only where there are two backbones or more."""
        lone = len(self.graph.names) == 1
        return tuple(kind for kind in KINDS if self.layers(kind) and not (lone and kind == "cross"))

    def states(self, kind: Kind, layer: int, picture: int = 0) -> tuple[Blocks, Blocks, dict[str, Tensor | None]]:
        """What the weights of one layer and picture are built from, for whoever builds them elsewhere.

        Returns:
            Queries and keys (1, heads, patches, k) by backbone, float32; and by backbone the bias (1, keys) on the
            logits of the keys it sees, or None.
        """
        kept = self._checked(kind, (), layer, None)
        q, k = kept.states(self._one(picture), slice(None))
        return q, k, {name: kept.attention.bias(kept.graph, name, k[name]) for name in kept.graph.names}

    def priors(self, kind: Kind, layer: int) -> Float[Tensor, "heads queries keys"]:
        """The factor on the logits of each relation of a layer, by the numbers of the two backbones; 1 for most."""
        return self._checked(kind, (), layer, None).priors

    def logits(
        self, kind: Kind, query: str, *, layer: int, picture: int = 0
    ) -> tuple[Float[Tensor, "heads queries keys"], Float[Tensor, "heads queries"]]:
        """The logits of one backbone's patches in one layer and picture, float32, and what normalises them.

        Returns:
            Logits over the patches that they see by edges of this kind; and the logarithm of the sum of the
            exponentials of all logits in the same softmax.
        """
        return self._checked(kind, (query,), layer, None).logits(kind, query, self._one(picture))

    def uniform(self, query: str, key: str, layer: int) -> float:
        """The weight that each patch of `key` would have if all logits were equal, balance included; in [0, 1]."""
        kind: Kind = "intra" if query == key else "cross"
        kept = self._checked(kind, (query, key), layer, None)
        still = {name: torch.zeros_like(states[:1, :1], dtype=torch.float32) for name, states in kept.q.items()}
        return float(kept.attention.weights(still, still, kept.graph, query, key, slice(1)).detach()[0, 0, 0, 0])

    def _grids(self, kind: Kind, query: str, key: str, layer: int, head: int | None) -> Tensor:
        weights = self._weights(kind, query, key, layer, head, slice(None))
        shapes = self._layers[kind, layer].graph.shapes
        weights = weights.unflatten(-1, shapes[key]).unflatten(-3, shapes[query])
        return weights if head is None else weights[:, 0]

    def _weights(
        self, kind: Kind, query: str, key: str, layer: int, head: int | None, pictures: slice
    ) -> Float[Tensor, "b heads queries keys"]:
        kept = self._checked(kind, (query, key), layer, head)
        heads = slice(None) if head is None else slice(head, head + 1)
        batch, sizes = len(range(*pictures.indices(self.pictures))), kept.graph.sizes
        seen = sum(sizes[other] for other in kept.attention.seen(query, kept.graph))  # one softmax
        self._check_size(4 * batch * (self.heads if head is None else 1) * sizes[query] * seen, "these weights")
        return kept.weights(query, key, pictures, heads)

    def _rows(
        self, kind: Kind, query: str, key: str, layer: int, head: int | None, picture: int, patch: int | None = None
    ) -> Float[Tensor, "queries keys"]:
        """Some rows of a block, mean over heads: of one patch, or of all."""
        if patch is None:
            return self.block(query, key, layer=layer, head=head, picture=picture)
        kept = self._checked(kind, (query, key), layer, head)
        heads = slice(None) if head is None else slice(head, head + 1)
        return kept.row(query, key, self._one(picture), heads, patch)[0].mean(dim=0)

    def _seen(
        self, name: str, layer: int, weights: Callable[[str, Kind], Tensor]
    ) -> dict[str, Float[Tensor, "_ _"]]:
        shapes = self.graph.shapes
        kinds: dict[str, Kind] = {other: "intra" if other == name else "cross" for other in shapes}
        return {
            other: weights(other, kind).unflatten(0, shapes[other])
            for other, kind in kinds.items()
            if kind in self.kinds
        }

    def _number(self, patch: Patch | tuple[str, int, int]) -> tuple[str, int]:
        """The backbone of a patch, and its number on that backbone's grid."""
        patch = Patch(*patch)
        return patch.backbone, self.graph.vertex(*patch) - self.graph.slices[patch.backbone].start

    def _one(self, picture: int) -> slice:
        if not 0 <= picture < self.pictures:
            raise ValueError(
                f"picture: got {picture}; the captured batch has {self.pictures:,} pictures; count from 0"
            )
        return slice(picture, picture + 1)

    def _check_size(self, needed: int, what: str) -> None:
        if needed > self.limit:
            raise ValueError(
                f"limit: {what} would take {size(needed)}, more than the {size(self.limit)} allowed; ask for one head "
                "or one picture, for row() or column() of one patch, or capture with a higher limit="
            )

    def _checked(self, kind: Kind, names: tuple[str, ...], layer: int, head: int | None) -> CapturedLayer:
        for name in names:
            if name not in self.graph.shapes:
                raise ValueError(
                    f"backbone: got {name!r}; captured were {', '.join(self.graph.names)}; use one of them"
                )
        layers = [number for captured, number in self._layers if captured == kind]
        if layer not in layers:
            has = f"0 to {max(layers)}" if layers else "none"
            raise ValueError(f"layer: got {layer}; captured {kind} layers: {has}; count from 0")
        kept = self._layers[kind, layer]
        if head is not None and not 0 <= head < kept.size[1]:
            raise ValueError(f"head: got {head}; expected 0 to {kept.size[1] - 1}, or None for all")
        return kept
