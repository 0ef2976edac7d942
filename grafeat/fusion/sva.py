"""Learned queries, each of which aggregates what all backbones say of its own region of the picture."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from grafeat.fusion.mixer import Mixer, Shape
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid
from grafeat.merge import on_grids
from grafeat.models import MergeOutput

EDGE = 1e-6  # a centre on the edge between two regions belongs to the later one, however it was rounded


class Aggregation(nn.Module):
    """One layer: each query attends to the patches of its region, in one softmax over all backbones; then an MLP.

    Args:
        width: Channels d of a query and of a patch; a multiple of `heads`.
        heads: Attention heads.
        hidden: Width of the MLP.

    Raises:
        ValueError: If `width` is no multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, *, hidden: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: got {width} for {heads} heads; expected a multiple; change one of them")
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would cancel in the softmax
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self, queries: Float[Tensor, "b g d"], states: Float[Tensor, "b n d"], own: Bool[Tensor, "g n"]
    ) -> tuple[Float[Tensor, "b g d"], Float[Tensor, "b heads g n"]]:
        """The queries after the layer, and the weight of each patch for each query.

        Args:
            queries: The queries.
            states: The patches of all backbones.
            own: Which patches lie in a query's region; where none do, its message is zero.
        """
        q, k, v = map(self._split, (self.query(self.before(queries)), self.key(states), self.value(states)))
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        empty = ~own.any(dim=1, keepdim=True)
        weights = logits.masked_fill(~own & ~empty, -torch.inf).softmax(dim=-1).masked_fill(empty, 0)
        queries = queries + self.out((weights @ v).transpose(1, 2).flatten(2))
        return queries + self.mlp(self.after(queries)), weights

    def _split(self, states: Float[Tensor, "b n d"]) -> Float[Tensor, "b heads n k"]:
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Sva(Mixer):
    """A grid of learned queries, each of which reads the patches of all backbones in its own region of the picture.

    The queries' grid is the coarsest: the fewest rows and the fewest columns of any backbone. A patch belongs to the
    region in which its centre lies, so that any two grids go together. A query attends to the patches of its region
    in one softmax over all backbones, layer after layer, each followed by an MLP. The image vector is a linear function
    of the mean over the queries. A backbone that is left out has no patches. Patches do not attend to each
    other, so there is nothing to capture; `reading` holds the weight of each patch, one row for each head, mean over
    queries and layers.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t.
        width: Channels d of a query and of the image vector; a multiple of `heads`.
        hidden: Width of the layers' MLPs; four times `width` if absent.
        components: Principal components kept of each backbone's channels.
        depth: Layers.
        heads: Attention heads.
        grid: Rows and columns of the queries' grid.
        classes: Names of the classes.

    Source: Tong et al., Cambrian-1, NeurIPS 2024 (arXiv 2406.16860), the spatial vision aggregator. There the sides of
    the grids are multiples of the queries' and it feeds a language model, among whose layers it also stands; here any
    sides do, and the queries are pooled.
    """

    instead = "model(grids).reading says where its queries look"
    about = "learned queries, each reading its region of all grids"

    def build(self) -> None:
        """Makes queries, layers and head."""
        c = self.config
        self.queries = nn.Parameter(torch.randn(c.grid[0] * c.grid[1], c.width) / math.sqrt(c.width))
        self.norm = nn.LayerNorm(c.width)
        self.layers = nn.ModuleList(Aggregation(c.width, c.heads, hidden=self.hidden) for _ in range(c.depth))
        self.pooled_queries = nn.Linear(c.width, c.width)
        self.head = nn.Linear(c.width, self.num_classes)

    @property
    def shape(self) -> str:
        """What there is to say of its form, in words."""
        c, (h, w) = self.config, self.config.grid
        return f"{h} × {w} queries, {c.depth} layers of {c.heads} heads, {super().shape}"

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`. No patch has a final state, so there are none."""
        patches = self.projected(grids)
        given = {grid.name: grid for grid in grids}
        graph = PatchGraph.of([given[name] for name in patches])
        own = regions(graph, self.config.grid).to(self.device)
        keys = self.norm(torch.cat(list(patches.values()), dim=1))
        queries, read = self.queries.expand(keys.shape[0], -1, -1), []
        for layer in self.layers:
            queries, weights = layer(queries, keys, own)
            read.append(weights)
        vector = self.pooled_queries(queries.mean(dim=1))
        reading = torch.stack(read).mean(dim=0).sum(dim=2) / own.any(dim=1).sum()
        return MergeOutput(self.head(vector), vector, reading=on_grids(reading.mT, graph))


def regions(graph: PatchGraph, grid: Shape) -> Bool[Tensor, "g n"]:
    """Which vertices have their centre in each of the regions that tile the picture, row by row."""
    h, w = grid
    x, y = (graph.centres.double() * torch.tensor([w, h]) + EDGE).floor().long().unbind(dim=1)
    place = y.clamp(max=h - 1) * w + x.clamp(max=w - 1)
    return place == torch.arange(h * w)[:, None]
