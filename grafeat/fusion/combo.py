"""A small transformer over the tokens of all backbones, read by a class token."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention.layers import Heads, PatchAttention, PerBackbone, Vertices
from grafeat.attention.rotary import Angles
from grafeat.fusion.mixer import Mixer
from grafeat.graph import Kind, PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import on_grids
from grafeat.models import MergeOutput
from grafeat.patchmodel import PatchModel
from grafeat.projection import OCTAVES, fourier_features
from grafeat.readout import PatchReadout


class TransformerLayer(PatchAttention):
    """A pre-norm transformer layer over the patches of all backbones: x ← x + attention, then x ← x + MLP.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex; a multiple of `heads`.
        heads: Attention heads.
        hidden: Width of the MLP.
    """

    kind = "joint"

    def __init__(self, names: Sequence[str], width: int, heads: int, *, hidden: int) -> None:
        super().__init__(names, width, heads, balance=False, relations=False)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = PerBackbone(names, lambda: nn.Linear(width, 3 * width, bias=False), shared=True)
        self.out = nn.Linear(width, width)
        self.update = PerBackbone(names, lambda: _mlp(width, hidden), shared=True)

    def projected(self, x: Vertices, graph: PatchGraph, angles: Angles) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of all patches; nothing turns them."""
        qkv = self.project.all(self.before(x), graph).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.transpose(1, 3).unbind(dim=2)  # (b, heads, n, k) each
        return query, key, value

    def updated(self, x: Vertices, heard: Vertices, graph: PatchGraph) -> Vertices:
        """All patches after their messages."""
        x = x + self.out(heard)
        return x + self.update.all(self.after(x), graph)


class ClassToken(PatchReadout):
    """A learned token that attends to all patches once, in one softmax, and passes an MLP: the image vector.

    Args:
        width: Channels d of a vertex.
        heads: Attention heads.
        hidden: Width of the MLP.
    """

    def __init__(self, width: int, heads: int, *, hidden: int) -> None:
        super().__init__()
        self.heads = self.queries = heads
        self.token = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.norm, self.after, self.last = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would cancel in the softmax
        self.mlp = _mlp(width, hidden)
        self.without = None

    def forward(self, x: Vertices, graph: PatchGraph) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b heads n"]]:
        """The image vector of each picture, and the weight of each vertex for each head, summing to 1."""
        states = graph.split(self.norm(x), dim=1)
        logits = {name: self._logits(state) for name, state in states.items()}
        if self.without is not None:
            logits = {name: self.without(name, block) for name, block in logits.items()}
        weights = torch.cat(list(logits.values()), dim=1).softmax(dim=1).mT
        parts = graph.split(weights, dim=2)
        return self.vector(parts, states), weights

    def vector(
        self,
        weights: Mapping[str, Float[Tensor, "b queries _"]],
        *states: Mapping[str, Float[Tensor, "b _ d"]],
    ) -> Float[Tensor, "b d"]:
        """The image vector, given each patch's weight, and its state behind the norm."""
        read = []
        for name, block in weights.items():
            values = self.value(states[-1][name]).unflatten(2, (self.heads, -1))  # (b, patches, heads, k)
            read.append((block[:, :, None] @ values.transpose(1, 2)).flatten(1))
        token = self.token + self.out(torch.stack(read).sum(dim=0))
        return self.last(token + self.mlp(self.after(token)))

    def even(self, graph: PatchGraph) -> dict[str, float]:
        """The mass of each backbone if the logits of all patches were equal: its share of the patches."""
        return {name: size / graph.num_vertices for name, size in graph.sizes.items()}

    def _logits(self, states: Float[Tensor, "b patches d"]) -> Float[Tensor, "b patches heads"]:
        query = self.query(self.token).unflatten(0, (self.heads, -1))
        keys = self.key(states).unflatten(2, (self.heads, -1))
        return (keys * query).sum(dim=-1) / math.sqrt(query.shape[-1])


class Combo(Mixer, PatchModel):
    """A small transformer over the patches of all backbones, on one grid, whose class token gives the image vector.

    All grids are brought to the coarsest: the fewest rows and the fewest columns of any, each new patch the mean of
    those that it covers; `vertices`, `reading` and what is captured are on that grid. A patch is its projected features
    times its backbone's learned score, plus its place, plus its backbone's embedding. In each layer all patches attend
    to all patches, in one softmax. Then the class token reads them. A backbone that is left out has no patches.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t.
        width: Channels d of a patch and of the image vector; a multiple of `heads`.
        hidden: Width of the layers' MLPs; four times `width` if absent.
        components: Principal components kept of each backbone's channels.
        depth: Layers between patches.
        heads: Attention heads.
        grid: Rows and columns to which all grids are brought.
        classes: Names of the classes.

    Source: Ramtoula et al., ComBo, NeurIPS 2025 (arXiv 2512.01405). There features of many layers of several ViTs are
    compressed by a linear layer and a transformer of six layers reads them, and a backbone's score is the norm of its
    weights in that layer; here it is the last map of any backbone, a score that is learned, and two layers. There is
    one class token among the patches; here it reads them after the last layer, as in Touvron et al., CaiT, ICCV 2021,
    so that patches do not attend to it.
    """

    about = "tokens on one grid, transformer, class token"

    def build(self) -> None:
        """Makes scores, places, layers, class token and head."""
        c = self.config
        self.scores = nn.Parameter(torch.ones(len(c.names)))
        self.types = nn.Parameter(torch.randn(len(c.names), c.width) / 10)
        self.place = nn.Linear(4 * OCTAVES, c.width, bias=False)
        self.layers = nn.ModuleList(
            TransformerLayer(c.names, c.width, c.heads, hidden=self.hidden) for _ in range(c.depth)
        )
        self.readout = ClassToken(c.width, c.heads, hidden=self.hidden)
        self.head = nn.Linear(c.width, self.num_classes)

    @property
    def shape(self) -> str:
        """What there is to say of its form, in words."""
        c, (h, w) = self.config, self.config.grid
        return f"larger grids are resampled to {h} × {w}, {c.depth} layers of {c.heads} heads, {super().shape}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of edges over which there are messages."""
        return ("intra", "cross")

    @property
    def depth(self) -> int:
        """How often there are messages of each kind."""
        return self.config.depth

    @property
    def heads(self) -> int:
        """Attention heads of each layer."""
        return self.config.heads

    def on_patches(self, grids: GridSet) -> GridSet:
        """The grids resampled to the model's one grid, for which the output is the same."""
        given = grids.grids
        if all(grid.shape == self.config.grid for grid in given):
            return grids
        means = [F.adaptive_avg_pool2d(grid.features.float(), self.config.grid) for grid in given]
        pooled = [FeatureGrid.trusted(grid.name, mean, grid.field) for grid, mean in zip(given, means, strict=True)]
        return GridSet(pooled, grids.labels, classes=grids.classes)

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`."""
        fields = {grid.name: grid.field for grid in grids}  # in the order in which they came
        resampled = self.resampled(grids)
        parts = {name: resampled[name] for name in fields}
        graph = PatchGraph(dict.fromkeys(fields, self.config.grid), fields)
        x = self._vertices(parts, graph)
        still = x.new_zeros(graph.num_vertices, 0)
        seen = [x]
        for layer in self.layers:
            x = layer(x, graph, Angles(still, still))
            seen.append(x)
        vector, weights = self.readout(x, graph)
        return MergeOutput(
            logits=self.head(vector),
            vector=vector,
            vertices=on_grids(x, graph),
            reading=on_grids(weights.mT, graph),
            states=tuple(on_grids(state, graph) for state in seen) if states else (),
        )

    def _vertices(self, parts: Mapping[str, Float[Tensor, "b d h w"]], graph: PatchGraph) -> Vertices:
        numbers = {name: number for number, name in enumerate(self.backbones)}
        scored = [
            self.scores[numbers[name]] * part.flatten(2).mT + self.types[numbers[name]] for name, part in parts.items()
        ]
        x = torch.cat(scored, dim=1)  # (b, n, d)
        return x + self.place(fourier_features(graph.centres.to(x)))


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
