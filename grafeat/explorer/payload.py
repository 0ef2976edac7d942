"""One picture's attention as bytes for a browser, in the smallest of three forms that shows every weight well enough.

`rows` are the weights themselves in 8 bits, each row scaled by its maximum. `states` are the queries and keys in 16
bits, from which the browser builds the rows: they grow with the patches, not with their square. Both are exact to
1/200 of a row's maximum. `strongest` keeps only the k largest weights of each row, and says which mass they keep.
`vertices` holds no weights: a live page asks for one vertex at a time.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.attention.captured import KINDS, CapturedAttention
from grafeat.graph import Kind

Form = Literal["rows", "states", "strongest", "vertices"]
Arrays = dict[str, np.ndarray]
ALIGN = 8
LEVELS = 32767  # of a number in 16 bits, on either side of 0
NOWHERE = 65535  # an index that stands for no patch


class Block(NamedTuple):
    """The logits of one backbone's patches in one layer, over the vertices that they see."""

    kind: Kind
    layer: int
    own: slice
    seen: Tensor
    logits: Float[Tensor, "heads queries keys"]
    lse: Float[Tensor, "heads queries"]

    @property
    def weights(self) -> Float[Tensor, "heads queries keys"]:
        """The attention weights; each row sums to 1, in a joint layer together with the other kind's."""
        return (self.logits - self.lse[..., None]).exp()


@dataclass(frozen=True)
class Shape:
    """How much there is to send for one picture.

    Attributes:
        layers, heads, vertices: How many of each.
        head_width: Channels of a head.
        fine: Whether queries and keys in 16 bits give every weight well enough.
    """

    layers: int
    heads: int
    vertices: int
    head_width: int
    fine: bool = True

    @classmethod
    def of(cls, attention: CapturedAttention) -> "Shape":
        """The shape of what was captured."""
        layers = max(attention.layers(kind) for kind in attention.kinds)
        q, _, _ = attention.states(attention.kinds[0], 0)
        width = next(iter(q.values())).shape[-1]
        return cls(layers, attention.heads, attention.graph.num_vertices, width, _is_fine(attention))

    def nbytes(self, form: Form, k: int = 0) -> int:
        """Bytes of one picture's attention in one form."""
        heads = self.heads + (form == "strongest")  # there the mean over heads is kept like a head
        rows = self.layers * heads * self.vertices
        each = {
            "rows": self.vertices + 2 * 4,
            "states": 2 * (2 * (2 * self.head_width + 4) + 4),
            "strongest": 2 * (3 * k + 2 * 4),
            "vertices": 0,
        }
        return rows * each[form]

    def smallest(self) -> Form:
        """The smaller of the two exact forms; `rows` where attention is so sharp that 16 bits are too coarse."""
        return "states" if self.fine and self.nbytes("states") < self.nbytes("rows") else "rows"


def pack(attention: CapturedAttention, picture: int, form: Form, *, k: int = 0) -> Arrays:
    """One picture's attention in one form, with what the navigator shows of every head.

    Args:
        attention: What `capture` gave.
        picture: Which picture of the captured batch, from 0.
        form: How the weights are sent.
        k: Weights kept of each row and kind; for `strongest` only.

    Returns:
        Arrays by name; all vertices are numbered as in the patch graph, axes are (layer, head, vertex, …).
    """
    shape = Shape.of(attention)
    arrays = _empty(shape, form, k, len(attention.graph.names), joint=attention.joint)
    for block in blocks(attention, picture):
        weights = block.weights
        _summarise(arrays, block, weights, attention)
        if form in ("rows", "strongest"):
            _sum_up(arrays, block, weights, attention)
        if form == "rows":
            _write_rows(arrays, block, weights)
        elif form == "strongest":
            whole = torch.cat([weights, weights.mean(dim=0, keepdim=True)])
            _write_strongest(arrays, block, whole, k, joint=attention.joint)
        elif form == "states":
            kind = KINDS.index(block.kind)
            arrays["lse"][block.layer, kind, :, block.own] = block.lse
    if form == "states":
        _write_states(arrays, attention, picture)
    return arrays


def blocks(attention: CapturedAttention, picture: int) -> Iterator[Block]:
    """Every layer's logits, backbone by backbone: so much and no more is in memory at a time."""
    graph = attention.graph
    every = torch.arange(graph.num_vertices)
    for kind in attention.kinds:
        for layer in range(attention.layers(kind)):
            for name, own in graph.slices.items():
                inside = (every >= own.start) & (every < own.stop)
                seen = every[inside if kind == "intra" else ~inside]
                logits, lse = attention.logits(kind, name, layer=layer, picture=picture)
                yield Block(kind, layer, own, seen, logits.cpu(), lse.cpu())


def to_bytes(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, list], bytes]:
    """Arrays as one buffer, and where each of them lies in it: [type, shape, offset]."""
    places: dict[str, list] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        places[name] = [array.dtype.name, list(array.shape), offset]
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        parts += [content, bytes(-len(content) % ALIGN)]
        offset += len(content) + len(parts[-1])
    return places, b"".join(parts)


def _empty(shape: Shape, form: Form, k: int, backbones: int, *, joint: bool) -> Arrays:
    layers, heads, n, width = shape.layers, shape.heads, shape.vertices, shape.head_width
    arrays: dict[str, tuple[type, tuple[int, ...]]] = {
        "top": (np.float32, (layers, heads + 1, 2)),  # the last "head" is the mean over heads
        "entropy": (np.float32, (layers, heads + 1, 2)),
        "split": (np.float32, (layers, heads + 1, backbones, backbones)),
    }
    if form == "states":
        arrays |= {
            "q": (np.int16, (layers, 2, heads, n, width)),
            "k": (np.int16, (layers, 2, heads, n, width)),
            "q_scale": (np.float32, (layers, 2, heads, n)),
            "k_scale": (np.float32, (layers, 2, heads, n)),
            "lse": (np.float32, (layers, 2, heads, n)),
            "bias": (np.float32, (2, backbones, backbones)),
        }
    elif form == "rows":
        arrays |= {
            "weights": (np.uint8, (layers, heads, n, n)),
            "scale": (np.float32, (layers, heads, n, 2)),
        }
    elif form == "strongest":
        arrays |= {
            "where": (np.uint16, (layers, heads + 1, n, 2, k)),
            "weights": (np.uint8, (layers, heads + 1, n, 2, k)),
            "scale": (np.float32, (layers, heads + 1, n, 2)),
            "kept": (np.float32, (layers, heads + 1, n, 2)),
        }
    if form in ("rows", "strongest"):  # rounded or cut weights do not sum up
        arrays["received"] = (np.float32, (layers, heads + 1, n, backbones))
        if backbones > 2 or joint:  # else the whole mass of each kind goes to one grid
            arrays["mass"] = (np.float32, (layers, heads + 1, n, backbones))
    return {name: np.zeros(size, dtype) for name, (dtype, size) in arrays.items()}


def _summarise(arrays: Arrays, block: Block, weights: Tensor, attention: CapturedAttention) -> None:
    """The largest weight, the mean entropy as a share of the largest possible, and where the mass goes.

    In a joint layer the entropy is that of the kind's own weights, brought to sum 1.
    """
    layer, kind, graph = block.layer, KINDS.index(block.kind), attention.graph
    mean = weights.mean(dim=0)
    tops = torch.cat([weights.amax(dim=(1, 2)), mean.amax()[None]]).numpy()
    arrays["top"][layer, :, kind] = np.maximum(arrays["top"][layer, :, kind], tops)  # NaN stays NaN
    entropy = (block.lse - (weights * block.logits).sum(dim=-1)).mean(dim=-1)  # −Σ w log w
    of_mean = torch.special.entr(mean).sum(dim=-1).mean()
    if attention.joint:
        entropy = torch.special.entr(weights / weights.sum(dim=-1, keepdim=True)).sum(dim=-1).mean(dim=-1)
        of_mean = torch.special.entr(mean / mean.sum(dim=-1, keepdim=True)).sum(dim=-1).mean()
    largest = math.log(len(block.seen)) or 1.0  # one key alone leaves no choice: entropy 0
    share = (block.own.stop - block.own.start) / graph.num_vertices
    arrays["entropy"][layer, :, kind] += share * torch.cat([entropy, of_mean[None]]).numpy() / largest
    if block.kind == "cross":
        query = next(number for number, own in enumerate(graph.slices.values()) if own == block.own)
        others = [number for number in range(len(graph.names)) if number != query]
        sizes = [list(graph.sizes.values())[number] for number in others]
        mass = torch.stack([part.sum(dim=-1).mean(dim=-1) for part in weights.split(sizes, dim=-1)], dim=1)
        arrays["split"][layer, :, query, others] = torch.cat([mass, mass.mean(dim=0, keepdim=True)]).T.numpy()


def _sum_up(arrays: Arrays, block: Block, weights: Tensor, attention: CapturedAttention) -> None:
    """The mass that each patch sends to each backbone, and what it receives from each, exactly."""
    slices, layer, seen = list(attention.graph.slices.values()), block.layer, block.seen.numpy()
    query = slices.index(block.own)
    weights = torch.cat([weights, weights.mean(dim=0, keepdim=True)])
    arrays["received"][layer, :, seen, query] = weights.sum(dim=1).T.numpy()
    if "mass" in arrays:
        for number, other in enumerate(slices):
            chosen = (block.seen >= other.start) & (block.seen < other.stop)
            if chosen.any():
                arrays["mass"][layer, :, block.own, number] = weights[..., chosen].sum(dim=-1).numpy()


def _write_rows(arrays: Arrays, block: Block, weights: Tensor) -> None:
    scale = weights.amax(dim=-1)
    levels = (weights / scale[..., None] * 255).round().nan_to_num().to(torch.uint8)
    kind = KINDS.index(block.kind)
    arrays["scale"][block.layer, :, block.own, kind] = scale.numpy()
    seen = block.seen.numpy()
    for vertex, row in zip(range(block.own.start, block.own.stop), levels.unbind(dim=1), strict=True):
        arrays["weights"][block.layer, :, vertex, seen] = row.T.numpy()


def _write_strongest(arrays: Arrays, block: Block, weights: Tensor, k: int, *, joint: bool) -> None:
    values, at = weights.topk(min(k, weights.shape[-1]), dim=-1)
    kind, kept = KINDS.index(block.kind), values.shape[-1]
    scale = values[..., :1]
    levels = (values / scale * 255).round().nan_to_num().to(torch.uint8)
    layer, own = block.layer, block.own
    arrays["where"][layer, :, own, kind] = NOWHERE
    arrays["where"][layer, :, own, kind, :kept] = block.seen[at].numpy().astype(np.uint16)
    arrays["weights"][layer, :, own, kind, :kept] = levels.numpy()
    arrays["scale"][layer, :, own, kind] = scale[..., 0].numpy()
    mass = weights.sum(dim=-1) if joint else 1
    arrays["kept"][layer, :, own, kind] = (values.sum(dim=-1) / mass).numpy()


def _write_states(arrays: Arrays, attention: CapturedAttention, picture: int) -> None:
    names = attention.graph.names
    for kind in attention.kinds:
        number = KINDS.index(kind)
        for layer in range(attention.layers(kind)):
            q, k, biases = attention.states(kind, layer, picture)
            for symbol, states in (("q", q), ("k", k)):
                whole = torch.cat([states[name][0] for name in names], dim=1).cpu()  # (heads, n, width)
                scale = whole.abs().amax(dim=-1) / LEVELS
                arrays[symbol][layer, number] = (
                    (whole / scale.clamp(min=1e-30)[..., None]).round().nan_to_num().to(torch.int16).numpy()
                )
                arrays[f"{symbol}_scale"][layer, number] = scale.numpy()
            if layer == 0:
                _write_bias(arrays["bias"][number], biases, attention)


def _is_fine(attention: CapturedAttention) -> bool:
    """Whether rounding to 16 bits moves no logit by more than 1/250: six standard deviations of the rounding's sum.

    A page multiplies queries by keys and knows no priors, so that states with priors would not do.
    """
    for kind in attention.kinds:
        for layer in range(attention.layers(kind)):
            if bool((attention.priors(kind, layer) != 1).any()):
                return False
            spread = torch.zeros(())
            for states, others in itertools.permutations(attention.states(kind, layer)[:2]):
                length = max(float(block.norm(dim=-1).amax()) for block in states.values())
                step = max(float(block.abs().amax()) for block in others.values()) / LEVELS
                spread = spread + (length * step) ** 2 / 12
            if 6 * float(spread.sqrt()) / math.sqrt(next(iter(states.values())).shape[-1]) > 1 / 250:
                return False
    return True


def _write_bias(into: np.ndarray, biases: Mapping[str, Tensor | None], attention: CapturedAttention) -> None:
    """One number for each pair of backbones: a bias is the same for all patches of a backbone."""
    names, sizes = attention.graph.names, attention.graph.sizes
    for query, bias in biases.items():
        if bias is not None:
            others = [name for name in names if name != query or attention.joint]
            for other, part in zip(others, bias[0].split([sizes[name] for name in others]), strict=True):
                into[names.index(query), names.index(other)] = float(part[0])


@dataclass
class VertexWeights:
    """Rows and columns of single vertices, for graphs whose weights are too many to send at once.

    Args:
        attention: What `capture` gave.
        picture: Which picture of the captured batch, from 0.
    """

    attention: CapturedAttention
    picture: int

    def __post_init__(self) -> None:
        shape = Shape.of(self.attention)
        self.lse = torch.zeros(shape.layers, 2, shape.heads, shape.vertices)
        for block in blocks(self.attention, self.picture):
            self.lse[block.layer, KINDS.index(block.kind), :, block.own] = block.lse

    def arrays(self, vertex: int) -> Arrays:
        """What a vertex attends to and what attends to it, in all layers and heads, in 8 bits."""
        shape, graph = Shape.of(self.attention), self.attention.graph
        own = graph.slices[graph.locate(vertex).backbone]
        row, column = (torch.zeros(shape.layers, shape.heads, shape.vertices) for _ in range(2))
        for kind in self.attention.kinds:
            inside = torch.zeros(shape.vertices, dtype=torch.bool)
            inside[own] = True
            seen = inside if kind == "intra" else ~inside
            for layer in range(self.attention.layers(kind)):
                attends, attended = self._logits(kind, layer, vertex)
                row[layer, :, seen] = attends.exp()[:, seen]
                column[layer, :, seen] = attended.exp()[:, seen]
        sizes = list(graph.sizes.values())
        sums = {
            name: torch.stack([part.sum(dim=-1) for part in values.split(sizes, dim=-1)], dim=-1).numpy()
            for name, values in (("mass", row), ("received", column))
        }
        return _in_8_bits("row", row, own) | _in_8_bits("column", column, own) | sums

    def _logits(self, kind: Kind, layer: int, vertex: int) -> tuple[Tensor, Tensor]:
        """Logarithms of the weights (heads, n) from a vertex to all others, and from all others to it."""
        names, sizes = self.attention.graph.names, torch.tensor(list(self.attention.graph.sizes.values()))
        q, k, biases = self.attention.states(kind, layer, self.picture)
        queries, keys = (torch.cat([states[name][0] for name in names], dim=1).cpu() for states in (q, k))
        bias = np.zeros((len(names), len(names)), dtype=np.float32)
        _write_bias(bias, biases, self.attention)
        each = torch.from_numpy(bias).repeat_interleave(sizes, dim=0).repeat_interleave(sizes, dim=1)
        lse, scale = self.lse[layer, KINDS.index(kind)], math.sqrt(keys.shape[-1])
        prior = self.attention.priors(kind, layer).repeat_interleave(sizes, dim=2).repeat_interleave(sizes, dim=1)
        attends = (keys @ queries[:, vertex, :, None])[..., 0] * prior[:, vertex] / scale
        attended = (queries @ keys[:, vertex, :, None])[..., 0] * prior[:, :, vertex] / scale
        return attends + each[vertex] - lse[:, vertex, None], attended + each[:, vertex] - lse


def _in_8_bits(name: str, weights: Float[Tensor, "layers heads n"], own: slice) -> Arrays:
    """Weights scaled by the largest of each kind."""
    inside = torch.zeros(weights.shape[-1], dtype=torch.bool)
    inside[own] = True
    scale = torch.stack(
        [weights.masked_fill(~part, 0).amax(dim=-1) for part in (inside, ~inside)], dim=-1
    )  # (layers, heads, 2)
    each = torch.where(inside, scale[..., :1], scale[..., 1:])
    levels = (weights / each.clamp(min=1e-30) * 255).round().nan_to_num().to(torch.uint8)
    return {name: levels.numpy(), f"{name}_scale": scale.numpy()}
