"""The context in which a model's passes are captured."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from grafeat.attention.captured import KINDS, LIMIT, CapturedAttention
from grafeat.attention.capturedlayer import CapturedLayer
from grafeat.attention.layers import Blocks, PatchAttention, attention_layers
from grafeat.files import size
from grafeat.graph import Kind, PatchGraph
from grafeat.models import GridModel
from grafeat.patchmodel import PatchModel


@contextmanager
def capture(
    model: nn.Module, *, dtype: torch.dtype | None = None, limit: int = LIMIT
) -> Iterator[CapturedAttention]:
    """Keeps queries and keys of every attention layer while the context is open; outside it, nothing is kept.

    The weights rebuilt from them come from the same queries, keys and biases as the fused pass. Of several
    passes the last one stays. What was captured can be read after the context has ended, as long as the model
    is as it was: joint layers' weights are rebuilt with the priors that they have then. Of nested captures of one
    model the innermost records.

    Args:
        model: A model with attention layers, such as `GraFeatMerge`.
        dtype: In which floating-point type they are kept; as they come if absent. `torch.float16` takes half the
            memory, and moves weights by up to a hundredth of themselves.
        limit: Bytes that they may take. The first layer tells what all will take, so that a pass that would take more
            stops there.

    Yields:
        The captured attention, filled by each forward pass.

    Raises:
        ValueError: If the model has no attention between patches, or `dtype` is no floating-point type; in the
            pass, if it would keep more than `limit`.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype: got {dtype}; expected a floating-point type; torch.float16 takes least")
    record = CapturedAttention(limit)
    attentions = attention_layers(model)
    before = [attention.recorder for attention in attentions]
    if not attentions or (isinstance(model, GridModel) and not isinstance(model, PatchModel)):
        raise ValueError(
            f"model: {type(model).__name__} has no attention layers to capture; expected a model whose patches attend "
            f"to each other, as GraFeatMerge; {getattr(model, 'instead', 'gf.list_ways() says which do')}"
        )
    counts = dict.fromkeys(KINDS, 0)
    for attention in attentions:
        places = [(kind, counts[kind]) for kind in attention.kinds]
        counts.update((kind, layer + 1) for kind, layer in places)
        attention.recorder = _recorder(record, places, attention, dtype, len(attentions))
    try:
        yield record
    finally:
        for attention, recorder in zip(attentions, before, strict=True):
            attention.recorder = recorder


def _recorder(
    record: CapturedAttention,
    places: Sequence[tuple[Kind, int]],
    attention: PatchAttention,
    dtype: torch.dtype | None,
    layers: int,
) -> Callable[[Blocks, Blocks, PatchGraph], None]:
    def keep(q: Blocks, k: Blocks, graph: PatchGraph) -> None:
        values = sum(states.numel() for blocks in (q, k) for states in blocks.values())
        width = (dtype or next(iter(q.values())).dtype).itemsize
        if (needed := layers * width * values) > record.limit:
            pictures = len(next(iter(q.values())))
            raise ValueError(
                f"limit: queries and keys of {pictures:,} pictures in {layers} layers would take {size(needed)}, more "
                f"than the {size(record.limit)} allowed; pass fewer pictures, or capture with dtype=torch.float16 or a "
                "higher limit="
            )
        q, k = (
            {name: states.detach().to(dtype or states.dtype) for name, states in blocks.items()}
            for blocks in (q, k)
        )
        record._layers.update(dict.fromkeys(places, CapturedLayer(attention, q, k, graph)))

    return keep
