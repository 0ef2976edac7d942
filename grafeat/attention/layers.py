"""Intra and cross attention over the patches of several backbones.

The vertices of all backbones stand side by side, (b, n, d), in the order of the `PatchGraph`. Only while they attend
to each other are they taken apart, into one block for each backbone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from grafeat.attention.rotary import Angles, rotate
from grafeat.attention.rotary import RotaryPositions as RotaryPositions
from grafeat.graph import Kind, PatchGraph

ALL = slice(None)
LayerKind = Literal["intra", "cross", "joint"]
Vertices = Float[Tensor, "b n d"]
Heads = Float[Tensor, "b heads n k"]
Blocks = dict[str, Float[Tensor, "b heads _ k"]]
Bias = Float[Tensor, "*#b #queries keys"]
Edges = Bool[Tensor, "#b #heads #queries keys"]
Attend = Callable[[str, Float[Tensor, "b heads queries keys"]], Float[Tensor, "b heads queries keys"]]


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

    def all(self, x: Float[Tensor, "b n i"], graph: PatchGraph) -> Float[Tensor, "b n o"]:
        """The states of all backbones' vertices, each through its backbone's layer."""
        if self.shared:
            return self.layers[0](x)
        return torch.cat([self(part, name) for name, part in graph.split(x, dim=1).items()], dim=1)


class PatchAttention(nn.Module):
    """What all layers share: x ← x + MLP([x ‖ message]), the message being attended values.

    A patch attends to the patches of some backbones in one softmax; `kinds` says of which. A softmax over patches
    favours the finer grid. With `balance`, the logits of a backbone with n patches carry the bias −log n, so that
    equal logits give equal mass to every backbone, whatever its grid. Where there is nothing to attend to, the
    message is zero.

    The values that travel along a relation are scaled by the relation's embedding, one learnable number that
    starts at 1. As a gate it receives gradient whatever the number of relations; as a bias on the logits it
    would receive none where a softmax holds a single relation. There is no output projection: the MLP's first
    layer is one.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex; a multiple of `heads`.
        heads: Attention heads.
        shared: Whether all backbones use the same projections and MLP.
        balance: Whether each backbone's logits carry −log n; of no effect where a softmax holds one backbone.
        gain: Factor on the last layer's weights at the start; a small one begins close to x ← x.
        hidden: Width of the MLP; twice `width` if absent.
        relations: Whether the relation embeddings are learned; else they stay 1.

    Raises:
        ValueError: If `width` is no multiple of `heads`; in use, if the graph does not fit the layer or the
            states.

    Source: the update is Sarlin et al., SuperGlue, CVPR 2020, eq. 3 to 5, with LayerNorm in the place of
    BatchNorm; the relation embedding is Wang et al., RE-GNN, IEEE Trans. Big Data 2023, there a factor on the
    adjacency's entries.
    """

    kind: LayerKind
    relation: Tensor

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of edges over which it sends messages."""
        return ("intra", "cross") if self.kind == "joint" else (self.kind,)

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
        super().__init__()
        if width % heads:
            raise ValueError(f"width: got {width} for {heads} heads; expected a multiple; change one of them")
        self.heads, self.balance = heads, balance
        pairs = PatchGraph(dict.fromkeys(names, (1, 1))).relations()
        self.relations = tuple((query, key) for query, key in pairs if kind_of(query, key) in self.kinds)
        fixed_or_learned(self, "relation", torch.ones(len(self.relations)), learned=relations)
        self.project = PerBackbone(names, lambda: nn.Linear(width, 3 * width), shared=shared)
        self.update = PerBackbone(names, lambda: _update(width, gain, hidden or 2 * width), shared=shared)
        self.recorder: Callable[[Blocks, Blocks, PatchGraph], None] | None = None
        self.knocked: Mapping[str, Edges] = {}  # edges that are knocked out, by the backbone that attends
        self.attend: Attend | None = None  # how logits become weights, in the place of `softmax` and the fused pass

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
        q, k, v = (graph.split(states, dim=2) for states in self.projected(x, graph, angles))
        if self.recorder is not None:
            self.recorder(q, k, graph)
        messages = self.messages(q, k, v, graph, keep)
        heard = torch.cat([messages[name].transpose(1, 2) for name in graph.names], dim=1)  # (b, n, heads, k)
        return self.updated(x, heard.flatten(2), graph)

    def projected(self, x: Vertices, graph: PatchGraph, angles: Angles) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of all patches, the first two turned by their angles."""
        qkv = self.project.all(x, graph).unflatten(-1, (3, self.heads, -1))  # (b, n, 3, heads, k)
        turned, value = qkv.transpose(1, 3).split([2, 1], dim=2)  # (b, heads, 2, n, k), (b, heads, 1, n, k)
        query, key = rotate(turned, angles).unbind(dim=2)
        return query, key, value.squeeze(dim=2)

    def updated(self, x: Vertices, heard: Vertices, graph: PatchGraph) -> Vertices:
        """All patches after their messages."""
        return x + self.update.all(torch.cat([x, heard], dim=-1), graph)

    def messages(
        self, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph, keep: Float[Tensor, "b 1 1"] | None = None
    ) -> Blocks:
        """Attended values (b, heads, patches, k) for each backbone's patches."""
        found = {name: self.message(name, q, k, v, graph) for name in q}
        return found if keep is None else {name: message * keep[:, None] for name, message in found.items()}

    def message(
        self, name: str, q: Blocks, k: Blocks, v: Blocks, graph: PatchGraph, mask: Bias | None = None
    ) -> Heads:
        """What one backbone's patches receive; `mask` is added to their logits."""
        seen = self.seen(name, graph)
        if not seen:
            return torch.zeros_like(q[name])
        keys, values = self._keys(name, k, graph), _joined([v[other] * self.gate(name, other) for other in seen])
        bias = self.bias(graph, name, keys)
        if mask is not None:
            bias = mask if bias is None else bias + mask
        return self.attended(name, q[name], keys, values, bias)

    def weights(
        self, q: Blocks, k: Blocks, graph: PatchGraph, query: str, key: str, heads: slice = ALL
    ) -> Float[Tensor, "b heads queries keys"]:
        """Attention weights from the patches of `query` to those of `key`.

        Over the patches of all backbones that `query` attends to, each row sums to 1. With `heads`, the queries and
        keys are those of these heads only.
        """
        seen, rows = self.seen(query, graph), self.logits(q, k, graph, query, heads).softmax(dim=-1)
        return rows.split([graph.sizes[other] for other in seen], dim=-1)[seen.index(key)]

    def logits(
        self, q: Blocks, k: Blocks, graph: PatchGraph, query: str, heads: slice = ALL
    ) -> Float[Tensor, "b heads queries keys"]:
        """What the softmax of one backbone's patches takes, over the patches of all backbones that they attend to."""
        keys = self._keys(query, k, graph, heads)
        return _logits(q[query], keys, self.bias(graph, query, keys))

    def seen(self, query: str, graph: PatchGraph) -> list[str]:
        """The backbones whose patches those of `query` attend to, in the order of the graph."""
        return [key for key in graph.names if kind_of(query, key) in self.kinds]

    def bias(self, graph: PatchGraph, query: str, like: Tensor) -> Float[Tensor, "1 keys"] | None:
        """What is added to the logits of the patches that `query` attends to, −log n; None where it would cancel."""
        sizes = [graph.sizes[key] for key in self.seen(query, graph)]
        if not self.balance or len(set(sizes)) < 2:  # equal biases cancel in the softmax
            return None
        return torch.cat([like.new_full((1, size), -math.log(size)) for size in sizes], dim=1)

    def prior(self, query: str, key: str) -> Float[Tensor, "heads 1 1"] | None:
        """Factor on the logits of a relation, for each head; None for 1."""
        return None

    def _keys(
        self, query: str, k: Blocks, graph: PatchGraph, heads: slice = ALL
    ) -> Float[Tensor, "b heads keys k"]:
        """The keys that the patches of one backbone see, scaled by the relations' priors."""
        priors = {key: self.prior(query, key) for key in self.seen(query, graph)}
        return _joined([k[key] if p is None else k[key] * p[heads].to(k[key]) for key, p in priors.items()])

    def attended(
        self,
        name: str,
        q: Float[Tensor, "b heads queries k"],
        k: Float[Tensor, "b heads keys k"],
        v: Float[Tensor, "b heads keys k"],
        bias: Bias | None = None,
    ) -> Float[Tensor, "b heads queries k"]:
        """The attended values of a backbone's patches: by the fused pass, or by weights that `attend` gives."""
        if self.attend is not None:
            return self.attend(name, _logits(q, k, bias)) @ v
        if name not in self.knocked:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = self._out(name, len(q), k.shape[2])
        mask = torch.zeros_like(out, dtype=q.dtype).masked_fill(out, -torch.inf)
        mask = mask if bias is None else mask + bias
        alone = _all_closed(mask)  # not every backend gives 0 to a row with nothing left: open it, and close it behind
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.masked_fill(alone, 0))
        return heard.masked_fill(alone, 0)

    def softmax(
        self, name: str, logits: Float[Tensor, "b heads queries keys"]
    ) -> Float[Tensor, "b heads queries keys"]:
        """The weights that the fused pass gives to a backbone's logits: 0 for edges that are knocked out."""
        if name not in self.knocked:
            return logits.softmax(dim=-1)
        left = logits.masked_fill(self._out(name, len(logits), logits.shape[-1]), -torch.inf)
        alone = _all_closed(left)
        return left.masked_fill(alone, 0).softmax(dim=-1).masked_fill(alone, 0)

    def _out(self, name: str, pictures: int, keys: int) -> Edges:
        """The edges of one backbone's patches that are knocked out."""
        out = self.knocked[name]
        if out.shape[-1] != keys:
            raise ValueError(
                f"graph: {name!r} attended to {out.shape[-1]} patches where edges were knocked out; in this pass to "
                f"{keys}; expected the same graph; pass all its backbones, without=()"
            )
        check_count(len(out), pictures)
        return out

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


class CrossAttention(PatchAttention):
    """Each backbone's patches attend to the patches of all other backbones, in one softmax; a lone one to none."""

    kind = "cross"


def fixed_or_learned(module: nn.Module, name: str, values: Tensor, *, learned: bool) -> None:
    """Gives a module these values as a parameter, or as a buffer of the same name where nothing is to be learned."""
    if learned:
        module.register_parameter(name, nn.Parameter(values))
    else:
        module.register_buffer(name, values)


def attention_layers(model: nn.Module) -> list[PatchAttention]:
    """The attention layers of a model in the order of the pass."""
    return [module for module in model.modules() if isinstance(module, PatchAttention)]


def check_count(knockouts: int, pictures: int) -> None:
    """Refuses a number of knock-outs that is neither one for all pictures nor one for each."""
    if knockouts not in (1, pictures):
        raise ValueError(f"knockouts: got {knockouts} for {pictures} pictures; expected one for all or one for each")


def kind_of(query: str, key: str) -> Kind:
    """The kind of the edges between two backbones' patches."""
    return "intra" if query == key else "cross"


def _update(width: int, gain: float, hidden: int) -> nn.Sequential:
    last = nn.Linear(hidden, width)
    nn.init.zeros_(last.bias)
    with torch.no_grad():
        last.weight.mul_(gain)
    return nn.Sequential(nn.Linear(2 * width, hidden), nn.LayerNorm(hidden), nn.GELU(), last)


def _joined(blocks: Sequence[Float[Tensor, "b heads _ k"]]) -> Float[Tensor, "b heads keys k"]:
    return blocks[0] if len(blocks) == 1 else torch.cat([*blocks], dim=2)


def _logits(
    q: Float[Tensor, "b heads queries k"],
    k: Float[Tensor, "b heads keys k"],
    bias: Bias | None = None,
) -> Float[Tensor, "b heads queries keys"]:
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    return logits if bias is None else logits + bias


def _all_closed(logits: Float[Tensor, "*rows keys"]) -> Bool[Tensor, "*rows 1"]:
    """The rows with nothing left to attend to."""
    return (logits == -torch.inf).all(dim=-1, keepdim=True)
