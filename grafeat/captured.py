"""The capture of attention: queries and keys are kept, and the weights rebuilt from them on demand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention import Blocks, PatchAttention
from grafeat.graph import Kind, PatchGraph


@dataclass(frozen=True, eq=False)
class _Layer:
    attention: PatchAttention
    q: Blocks
    k: Blocks
    graph: PatchGraph

    @property
    def size(self) -> tuple[int, int]:
        """Pictures and heads."""
        b, heads = next(iter(self.q.values())).shape[:2]
        return b, heads


@dataclass(frozen=True, eq=False)
class CapturedAttention:
    """The attention weights of a model's last forward pass, rebuilt on demand from the kept queries and keys.

    Layers and heads are counted from 0. "Query" is the backbone whose patches attend, "key" the one they
    attend to. The weights say where information is routed, not what matters for the prediction.
    """

    _layers: dict[tuple[Kind, int], _Layer] = field(default_factory=dict)

    def __repr__(self) -> str:
        if not self._layers:
            return "CapturedAttention: nothing yet; call the model inside the capture"
        pictures, heads = self._any.size
        names = ", ".join(f"{name} {h} × {w}" for name, (h, w) in self.graph.shapes.items())
        return (
            f"CapturedAttention: {pictures:,} pictures, {self.layers('intra')} intra and {self.layers('cross')} cross "
            f"layers of {heads} heads; {names}"
        )

    @property
    def heads(self) -> int:
        """Heads of each layer."""
        return self._any.size[1]

    def layers(self, kind: Kind) -> int:
        """How many layers of a kind were captured; they are numbered from 0."""
        return sum(captured == kind for captured, _ in self._layers)

    @property
    def graph(self) -> PatchGraph:
        """The patch graph of the captured pass."""
        return self._any.graph

    @property
    def _any(self) -> _Layer:
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
            Over the last two axes they sum to 1.

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
            1]. Over the patches of *all* other backbones together they sum to 1.

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
        weights = self._weights(kind, query, key, layer, head, slice(picture, picture + 1))
        if not len(weights):
            raise ValueError(f"picture: got {picture}; the captured batch has fewer pictures; count from 0")
        return weights[0].mean(dim=0)

    def uniform(self, query: str, key: str, layer: int) -> float:
        """The weight that each patch of `key` would have if all logits were equal, balance included; in [0, 1]."""
        kind: Kind = "intra" if query == key else "cross"
        kept = self._checked(kind, (query, key), layer, None)
        still = {name: torch.zeros_like(states[:1, :1], dtype=torch.float32) for name, states in kept.q.items()}
        return float(kept.attention.weights(still, still, kept.graph, query, key)[0, 0, 0, 0])

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
        q, k = (  # in half precision the rows would miss 1 by a hundredth
            {name: states[pictures, heads].float() for name, states in blocks.items()}
            for blocks in (kept.q, kept.k)
        )
        return kept.attention.weights(q, k, kept.graph, query, key)

    def _checked(self, kind: Kind, names: tuple[str, str], layer: int, head: int | None) -> _Layer:
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


@contextmanager
def capture(model: nn.Module) -> Iterator[CapturedAttention]:
    """Keeps queries and keys of every attention layer while the context is open; outside it, nothing is kept.

    The weights rebuilt from them come from the same queries, keys and biases as the fused pass. Of several
    passes the last one stays. What was captured can be read after the context has ended. Of nested captures
    of one model the innermost records.

    Args:
        model: A model with attention layers, such as `GraFeatMerge`.

    Yields:
        The captured attention, filled by each forward pass.

    Raises:
        ValueError: If the model has no attention layers.
    """
    record = CapturedAttention()
    attentions = [module for module in model.modules() if isinstance(module, PatchAttention)]
    before = [attention.recorder for attention in attentions]
    if not attentions:
        raise ValueError(
            f"model: {type(model).__name__} has no attention layers to capture; use GraFeatMerge"
        )
    for kind in ("intra", "cross"):
        for layer, attention in enumerate(a for a in attentions if a.kind == kind):
            attention.recorder = _recorder(record, kind, layer, attention)
    try:
        yield record
    finally:
        for attention, recorder in zip(attentions, before, strict=True):
            attention.recorder = recorder


def _recorder(
    record: CapturedAttention, kind: Kind, layer: int, attention: PatchAttention
) -> Callable[[Blocks, Blocks, PatchGraph], None]:
    def keep(q: Blocks, k: Blocks, graph: PatchGraph) -> None:
        q, k = ({name: states.detach() for name, states in blocks.items()} for blocks in (q, k))
        record._layers[kind, layer] = _Layer(attention, q, k, graph)

    return keep
