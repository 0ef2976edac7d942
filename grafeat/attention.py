"""Intra and cross attention over the patches of several backbones.

Between layers the vertices of all backbones stand side by side, (b, n, d), in the order of the `PatchGraph`. Inside
a layer they are taken apart once, into one block for each backbone, so that nothing is copied to be sliced again.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.graph import Kind, PatchGraph

Vertices = Float[Tensor, "b n d"]
Heads = Float[Tensor, "b heads n k"]
Blocks = dict[str, Float[Tensor, "b heads _ k"]]
Attend = Callable[[str, Float[Tensor, "b heads queries keys"]], Float[Tensor, "b heads queries keys"]]


class Angles(NamedTuple):
    """Cosine and sine of the angle by which each vertex turns each pair of channels, (n, k / 2) both."""

    cos: Float[Tensor, "n half"]
    sin: Float[Tensor, "n half"]


class RotaryPositions(nn.Module):
    """Turns queries and keys by learned Fourier frequencies of the patch centre.

    The product of a turned query and a turned key depends on the two places only through their difference, so
    that patches of *different* grids can match places too.

    Args:
        head_width: Channels k of a head; even.
        spread: Standard deviation of the frequencies at the start, in radians per picture side.

    Raises:
        ValueError: If `head_width` is odd.

    Source: Lindenberger et al., LightGlue, ICCV 2023, eq. 3 and 4. There only self-attention is turned; here
    all grids show the same picture, so cross attention is turned as well.
    """

    def __init__(self, head_width: int, *, spread: float = 2 * math.pi) -> None:
        super().__init__()
        if head_width < 2 or head_width % 2:
            raise ValueError(
                f"head_width: got {head_width}; expected an even number, as channels turn in pairs; change "
                "the width or the number of heads"
            )
        self.frequencies = nn.Parameter(spread * torch.randn(2, head_width // 2))

    def forward(self, centres: Float[Tensor, "n 2"]) -> Angles:
        """The angles of vertices at these places, (x, y) in [0, 1] of the picture."""
        # not a matrix product: mixed precision would round the angles to hundredths of a radian
        angles = ((centres - 0.5)[:, :, None] * self.frequencies).sum(dim=1)
        return Angles(angles.cos(), angles.sin())


def rotate(states: Float[Tensor, "*batch n k"], angles: Angles) -> Float[Tensor, "*batch n k"]:
    """Turns channel i and channel i + k / 2 of each state by the vertex's i-th angle."""
    first, second = states.chunk(2, dim=-1)
    cos, sin = angles.cos.to(states.dtype), angles.sin.to(states.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class PerBackbone(nn.Module):
    """One layer for the vertices of all backbones, or one for each backbone.

    Args:
        names: The backbones that the model knows.
        make: Makes one layer, (…, d_in) to (…, d_out).
        shared: Whether all backbones use the same one.
    """

    def __init__(self, names: Sequence[str], make: Callable[[], nn.Module], *, shared: bool) -> None:
        super().__init__()
        self.names = tuple(names)
        self.shared = shared
        self.layers = nn.ModuleList(make() for _ in range(1 if shared else len(self.names)))

    def forward(self, states: Float[Tensor, "*batch i"], name: str) -> Float[Tensor, "*batch o"]:
        """The states of one backbone's vertices through that backbone's layer."""
        return self.layers[0 if self.shared else self.names.index(name)](states)


class PatchAttention(nn.Module):
    """What intra and cross attention share: x ← x + MLP([x ‖ message]), the message being attended values.

    The values that travel along a relation are scaled by the relation's embedding, one learnable number that
    starts at 1. As a gate it receives gradient whatever the number of relations; as a bias on the logits it
    would receive none where a softmax holds a single relation. There is no output projection: the MLP's first
    layer is one.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex; a multiple of `heads`.
        heads: Attention heads.
        shared: Whether all backbones use the same projections and MLP.
        gain: Factor on the last layer's weights at the start; a small one begins close to x ← x.

    Raises:
        ValueError: If `width` is no multiple of `heads`; in use, if the graph does not fit the layer or the
            states.

    Source: the update is Sarlin et al., SuperGlue, CVPR 2020, eq. 3 to 5, with LayerNorm in the place of
    BatchNorm; the relation embedding is Wang et al., RE-GNN, IEEE Trans. Big Data 2023, there a factor on the
    adjacency's entries.
    """

    kind: Kind

    def __init__(
        self, names: Sequence[str], width: int, heads: int, *, shared: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: got {width} for {heads} heads; expected a multiple; change one of them")
        self.heads = heads
        self.relations = tuple(PatchGraph(dict.fromkeys(names, (1, 1))).relations(self.kind))
        self.relation = nn.Parameter(torch.ones(len(self.relations)))
        self.project = PerBackbone(names, lambda: nn.Linear(width, 3 * width), shared=shared)
        self.update = PerBackbone(names, lambda: _update(width, gain), shared=shared)
        self.recorder: Callable[[Blocks, Blocks, PatchGraph], None] | None = None
        self.attend: Attend | None = None  # how logits become weights, where the fused pass will not do

    def forward(
        self, x: Vertices, graph: PatchGraph, angles: Angles, keep: Float[Tensor, "b 1 1"] | None = None
    ) -> Vertices:
        """The vertices after one layer, all of them computed from the old states.

        Args:
            x: Vertex states (b, n, d).
            graph: Which vertices belong to which backbone.
            angles: The vertices' rotary angles.
            keep: Factor on each picture's messages: 0 where a picture's messages are dropped in training.
        """
        self._check(x, graph)
        sizes = list(graph.sizes.values())
        parts = dict(zip(graph.names, x.split(sizes, dim=1), strict=True))
        turns = zip(angles.cos.split(sizes), angles.sin.split(sizes), strict=True)
        q, k, v = {}, {}, {}
        for (name, part), (cos, sin) in zip(parts.items(), turns, strict=True):
            q[name], k[name], v[name] = self._projected(part, name, Angles(cos, sin))
        if self.recorder is not None:
            self.recorder(q, k, graph)
        messages = self.messages(q, k, v, graph)
        return torch.cat(
            [self._updated(part, messages[name], name, keep) for name, part in parts.items()], dim=1
        )

    def _projected(self, part: Vertices, name: str, angles: Angles) -> tuple[Heads, Heads, Heads]:
        qkv = self.project(part, name).unflatten(-1, (3, self.heads, -1))  # (b, n, 3, heads, k)
        turned, value = qkv.transpose(1, 3).split([2, 1], dim=2)  # (b, heads, 2, n, k), (b, heads, 1, n, k)
        query, key = rotate(turned, angles).unbind(dim=2)
        return query, key, value.squeeze(dim=2)

    def _updated(
        self, part: Vertices, message: Heads, name: str, keep: Float[Tensor, "b 1 1"] | None
    ) -> Vertices:
        joined = message.transpose(1, 2).flatten(2)  # (b, n, d)
        joined = joined if keep is None else joined * keep
        return part + self.update(torch.cat([part, joined], dim=-1), name)

    @abstractmethod
    def messages(self, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph) -> Blocks:
        """Attended values (b, heads, patches, k) for each backbone's patches."""

    @abstractmethod
    def weights(
        self, q: Blocks, k: Blocks, graph: PatchGraph, query: str, key: str
    ) -> Float[Tensor, "b heads queries keys"]:
        """Attention weights from the patches of `query` to the patches of `key`."""

    def bias(self, graph: PatchGraph, query: str, like: Tensor) -> Float[Tensor, "1 keys"] | None:
        """What is added to the logits of the patches that `query` attends to; None if nothing is."""
        return None

    def attended(
        self,
        name: str,
        q: Float[Tensor, "b heads queries k"],
        k: Float[Tensor, "b heads keys k"],
        v: Float[Tensor, "b heads keys k"],
        bias: Float[Tensor, "1 keys"] | None = None,
    ) -> Float[Tensor, "b heads queries k"]:
        """The attended values of a backbone's patches: by the fused pass, or by weights that `attend` gives."""
        if self.attend is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.attend(name, _logits(q, k, bias)) @ v

    def _check(self, x: Vertices, graph: PatchGraph) -> None:
        unknown = [name for name in graph.names if name not in self.project.names]
        if unknown:
            raise ValueError(
                f"graph: has backbone {unknown[0]!r}, but this layer knows {', '.join(self.project.names)}; "
                "build it with the names of all backbones"
            )
        if x.shape[1] != graph.num_vertices:
            raise ValueError(
                f"x: got {x.shape[1]} vertices, shape {tuple(x.shape)}; expected (b, {graph.num_vertices}, "
                f"d), as the graph has {graph.num_vertices}; make both from the same grids"
            )

    def gate(self, query: str, key: str) -> Float[Tensor, ""]:
        """The relation's embedding: the factor on what `query` receives from `key`."""
        return self.relation[self.relations.index((query, key))]


class IntraAttention(PatchAttention):
    """Each backbone's patches attend to the patches of the same backbone, themselves included."""

    kind = "intra"

    def messages(self, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph) -> Blocks:
        """Attended values (b, heads, patches, k) for each backbone's patches."""
        return {name: self.attended(name, q[name], k[name], v[name] * self.gate(name, name)) for name in q}

    def weights(
        self, q: Blocks, k: Blocks, graph: PatchGraph, query: str, key: str
    ) -> Float[Tensor, "b heads queries keys"]:
        """Attention weights on one backbone's own grid, each row summing to 1."""
        return _logits(q[query], k[query]).softmax(dim=-1)


class CrossAttention(PatchAttention):
    """Each backbone's patches attend to the patches of all other backbones, in one softmax.

    A softmax over patches favours the finer grid. With `balance`, the logits of a backbone with n patches
    carry the bias −log n, so that equal logits give equal mass to every backbone, whatever its grid. A lone
    backbone gets zero messages.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex; a multiple of `heads`.
        heads: Attention heads.
        shared: Whether all backbones use the same projections and MLP.
        balance: Whether each backbone's logits carry −log n.
        gain: Factor on the last layer's weights at the start.
    """

    kind = "cross"

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        heads: int,
        *,
        shared: bool = True,
        balance: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__(names, width, heads, shared=shared, gain=gain)
        self.balance = balance

    def messages(self, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph) -> Blocks:
        """Attended values (b, heads, patches, k) for each backbone's patches."""
        return {name: self._message(name, q, k, v, graph) for name in q}

    def _message(self, name: str, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph) -> Heads:
        others = [other for other in graph.names if other != name]
        if not others:
            return torch.zeros_like(q[name])
        keys = _joined([k[other] for other in others])
        values = _joined([v[other] * self.gate(name, other) for other in others])
        return self.attended(name, q[name], keys, values, self.bias(graph, name, keys))

    def weights(
        self, q: Blocks, k: Blocks, graph: PatchGraph, query: str, key: str
    ) -> Float[Tensor, "b heads queries keys"]:
        """Attention weights on one other grid; over all other grids together, each row sums to 1."""
        others = [other for other in graph.names if other != query]
        keys = _joined([k[other] for other in others])
        rows = _logits(q[query], keys, self.bias(graph, query, keys)).softmax(dim=-1)
        return rows.split([graph.sizes[other] for other in others], dim=-1)[others.index(key)]

    def bias(self, graph: PatchGraph, query: str, like: Tensor) -> Float[Tensor, "1 keys"] | None:
        """−log n on the logits of each other backbone with n patches, if the layer is balanced and sizes differ."""
        sizes = [size for name, size in graph.sizes.items() if name != query]
        if not self.balance or len(set(sizes)) < 2:  # equal biases cancel in the softmax
            return None
        return torch.cat([like.new_full((1, size), -math.log(size)) for size in sizes], dim=1)


def _update(width: int, gain: float) -> nn.Sequential:
    last = nn.Linear(2 * width, width)
    nn.init.zeros_(last.bias)
    with torch.no_grad():
        last.weight.mul_(gain)
    return nn.Sequential(nn.Linear(2 * width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), last)


def _joined(blocks: Sequence[Float[Tensor, "b heads _ k"]]) -> Float[Tensor, "b heads keys k"]:
    return blocks[0] if len(blocks) == 1 else torch.cat([*blocks], dim=2)


def _logits(
    q: Float[Tensor, "b heads queries k"],
    k: Float[Tensor, "b heads keys k"],
    bias: Float[Tensor, "1 keys"] | None = None,
) -> Float[Tensor, "b heads queries keys"]:
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    return logits if bias is None else logits + bias
