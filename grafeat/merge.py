"""GraFeat-Merge: the feature grids of frozen backbones become one graph, and the graph one image vector."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention import Angles, CrossAttention, IntraAttention, RotaryPositions, Vertices
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet, check_grids
from grafeat.models import GridModel, MergeOutput, States
from grafeat.projection import OCTAVES, Projection, fourier_features
from grafeat.readout import READOUTS, Readout, ReadoutKind

GAIN = 0.1  # every layer begins close to x ← x, so that messages must earn their weight


@dataclass(frozen=True)
class MergeConfig:
    """What shapes a `GraFeatMerge`; kept in the header of a saved model.

    Attributes:
        backbones: Name and channels of each backbone.
        num_classes: Classes t of the task.
        width: Channels d of a vertex and of the image vector; a multiple of twice `heads`.
        depth: Steps; each is an intra layer and a cross layer.
        heads: Attention heads.
        readout: How the image vector is read: `each`, `relation`, `attention` or `mean`; see `Readout`.
        queries: Learned queries of the readout.
        components: Principal components kept of each backbone's channels; all of them where it has fewer.
        shared: Whether all backbones use the same attention layers.
        intra: Whether there are intra layers.
        cross: Whether there are cross layers.
        balance: Whether equal logits give every backbone equal mass in cross attention, whatever its grid.
        cross_drop: Share of training pictures whose cross messages are dropped, in [0, 1).
        backbone_drop: Share of training batches that lack one backbone, in [0, 1).
        classes: Names of the classes; numbered if empty.

    Raises:
        ValueError: If a value is out of its range.
    """

    backbones: tuple[tuple[str, int], ...]
    num_classes: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    readout: ReadoutKind = "each"
    queries: int = 8
    components: int = 64
    shared: bool = True
    intra: bool = True
    cross: bool = True
    balance: bool = True
    cross_drop: float = 0.8
    backbone_drop: float = 0.1
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ValueError(
                f"backbones: got {', '.join(self.names)}; expected different names; use name= to tell them apart"
            )
        for name in ("width", "depth", "heads", "queries", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected 1 or more")
        if self.width % (2 * self.heads):
            near = max(1, round(self.width / (2 * self.heads))) * 2 * self.heads
            raise ValueError(
                f"width: got {self.width} for {self.heads} heads; expected a multiple of {2 * self.heads}, since each "
                f"head turns pairs of channels; use {near}"
            )
        if self.readout not in READOUTS:
            raise ValueError(f"readout: got {self.readout!r}; expected one of {', '.join(READOUTS)}")
        for name in ("cross_drop", "backbone_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected a share in [0, 1)")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backbones."""
        return tuple(name for name, _ in self.backbones)


class Step(nn.Module):
    """One step of the graph network: an intra layer, then a cross layer; either may be absent.

    Args:
        config: What shapes the model.
    """

    def __init__(self, config: MergeConfig) -> None:
        super().__init__()
        names, width, heads, shared = config.names, config.width, config.heads, config.shared
        self.intra = IntraAttention(names, width, heads, shared=shared, gain=GAIN) if config.intra else None
        self.cross = (
            CrossAttention(names, width, heads, shared=shared, balance=config.balance, gain=GAIN)
            if config.cross
            else None
        )

    def forward(
        self, x: Vertices, graph: PatchGraph, angles: Angles, keep: Float[Tensor, "b 1 1"] | None = None
    ) -> Vertices:
        """The vertices after the step; `keep` is the factor on each picture's cross messages."""
        x = x if self.intra is None else self.intra(x, graph, angles)
        return x if self.cross is None else self.cross(x, graph, angles, keep)


class GraFeatMerge(GridModel):
    """Merges frozen backbones through the graph of their patches.

    Each patch of each backbone becomes a vertex of width d: its standardised and reduced features, projected, plus its
    place in the picture, plus its backbone's embedding. In each step the vertices attend to their own grid (intra),
    then to all other grids (cross), with queries and keys turned by the patch centres. A readout attends over all
    vertices and gives one image vector (b, d), and a linear head the logits. Any number of backbones, any grids; the
    order of backbones and of vertices does not matter.

    Build it with `GraFeatMerge.for_grids`, which also takes the standardisation from the grids.

    The defaults were decided by measurement, with 500 labels and on digits outside the test
    (`tests/benchmarks/defaults.py`, `results/defaults.csv`): layers shared by all backbones err less than a set of
    layers for each, by an interval above 0. Width, depth and readout were varied with own layers, where nothing
    beat the defaults beyond its interval; so the width stays small, `each` stays, which begins as the ensemble of its
    backbones, and two steps, the fewest in which what has crossed over can travel within a grid.

    Args:
        config: What shapes the model.

    Source: Sarlin et al., SuperGlue, CVPR 2020 (intra and cross attention over a graph of patches); Lindenberger et
    al., LightGlue, ICCV 2023 (rotary positions); Wang et al., RE-GNN, IEEE Trans. Big Data 2023 (relation embeddings).
    Ours are any number of sets instead of two, rotary positions in cross attention, count balance and the readout.
    """

    def __init__(self, config: MergeConfig) -> None:
        super().__init__(dict(config.backbones), config.num_classes, config.classes)
        self.config = config
        names, width = config.names, config.width
        self.projections = nn.ModuleList(
            Projection(channels, width, min(config.components, channels)) for _, channels in config.backbones
        )
        self.types = nn.Parameter(torch.randn(len(names), width) / 10)
        self.place = nn.Linear(4 * OCTAVES, width, bias=False)
        self.rotary = RotaryPositions(width // config.heads)
        self.steps = nn.ModuleList(Step(config) for _ in range(config.depth))
        self.readout = Readout(names, width, 4 * OCTAVES, queries=config.queries, kind=config.readout)
        self.head = nn.Linear(width, config.num_classes)

    @classmethod
    def for_grids(
        cls,
        grids: GridSet | Sequence[FeatureGrid],
        *,
        num_classes: int,
        width: int = MergeConfig.width,
        depth: int = MergeConfig.depth,
        heads: int = MergeConfig.heads,
        readout: ReadoutKind = MergeConfig.readout,
        queries: int = MergeConfig.queries,
        components: int = MergeConfig.components,
        shared: bool = MergeConfig.shared,
        intra: bool = MergeConfig.intra,
        cross: bool = MergeConfig.cross,
        balance: bool = MergeConfig.balance,
        cross_drop: float = MergeConfig.cross_drop,
        backbone_drop: float = MergeConfig.backbone_drop,
        seed: int = 0,
    ) -> Self:
        """A new model for these backbones, with each one's features standardised from these grids, without labels.

        Args:
            grids: Feature grids; of a set with parts, only the training part is looked at.
            num_classes: Classes t of the task.
            width, depth, heads, readout, queries, components, shared, intra, cross, balance, cross_drop, backbone_drop:
                See `MergeConfig`.
            seed: Decides the initial weights; the global random state is left as it was.

        Returns:
            The model in `eval`, so that nothing is dropped; `fit` drops while it trains.

        Raises:
            ValueError: If a value is out of its range, or there is no picture.
        """
        seen = grids if isinstance(grids, GridSet) else GridSet(grids)
        seen = seen.train if "train" in seen.parts else seen
        present = seen.grids
        config = MergeConfig(
            backbones=tuple((grid.name, grid.channels) for grid in present),
            num_classes=num_classes,
            width=width,
            depth=depth,
            heads=heads,
            readout=readout,
            queries=queries,
            components=components,
            shared=shared,
            intra=intra,
            cross=cross,
            balance=balance,
            cross_drop=cross_drop,
            backbone_drop=backbone_drop,
            classes=seen.classes if len(seen.classes) == num_classes else (),
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            model = cls(config)
        for projection, grid in zip(cast(Iterable[Projection], model.projections), present, strict=True):
            projection.standardise(grid, seed=seed)
        return model.eval()

    def __repr__(self) -> str:
        c = self.config
        wide = max(len(name) for name in c.names)
        kinds = (
            " + ".join(kind for kind, there in (("intra", c.intra), ("cross", c.cross)) if there)
            or "no attention"
        )
        learned = sum(parameter.numel() for parameter in self.parameters())
        lines = [
            f"GraFeatMerge: {len(c.backbones)} backbones → {c.depth} steps of {kinds} → readout {c.readout!r} → "
            f"{c.num_classes} classes",
            *(f"  {name:<{wide}}  {channels} channels" for name, channels in c.backbones),
            f"  width {c.width}, {c.heads} heads, {'shared' if c.shared else 'own'} layers, {learned:,} parameters",
        ]
        return "\n".join(lines)

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`."""
        present = self._some_dropped(check_grids(grids))
        graph = PatchGraph.of(present)
        centres = graph.centres.to(present[0].features)
        places = fourier_features(centres)
        x = self._vertices(present) + self.place(places)
        angles, keep = self.rotary(centres), self._kept_messages(x)
        seen = [x]
        for step in self.steps:
            x = step(x, graph, angles, keep)
            seen.append(x)
        reading = self.readout(x, places, graph)
        return MergeOutput(
            logits=self.head(reading.vector),
            vector=reading.vector,
            vertices=_on_grids(x, graph),
            own={name: self.head(vector) for name, vector in reading.own.items()},
            reading=_on_grids(reading.weights.mT, graph),
            states=tuple(_on_grids(state, graph) for state in seen) if states else (),
        )

    @torch.no_grad()
    def calibrate(self, val: GridSet) -> None:
        """Chooses on validation pictures how far each backbone's reading is believed; see `Readout.calibrate`."""
        self.eval()
        own = [self(val[start : start + 256]).own for start in range(0, len(val), 256)]
        if all(name in own[0] for name in self.config.names):
            logits = torch.stack([torch.cat([part[name] for part in own]) for name in self.config.names])
            self.readout.calibrate(logits.float(), val.required_labels("val").to(self.device))

    def relation_embeddings(self) -> dict[str, dict[tuple[str, str], float]]:
        """The learned relation embeddings by layer, each layer's centred on its mean.

        Returns:
            For `intra 0`, `cross 0`, … the embedding of each relation (query, key); for `readout` that of each
            backbone, as (name, name).
        """
        named = {
            f"{kind} {number}": (layer.relations, layer.relation)
            for number, step in enumerate(cast(Iterable[Step], self.steps))
            for kind, layer in (("intra", step.intra), ("cross", step.cross))
            if layer is not None
        }
        if self.readout.relation is not None:
            named["readout"] = (tuple((name, name) for name in self.config.names), self.readout.relation)
        return {
            layer: dict(zip(relations, (values - values.mean()).tolist(), strict=True))
            for layer, (relations, values) in named.items()
            if relations
        }

    def _vertices(self, grids: Sequence[FeatureGrid]) -> Vertices:
        numbers = [self.config.names.index(grid.name) for grid in grids]
        parts = [
            self.projections[m](grid.features) + self.types[m] for m, grid in zip(numbers, grids, strict=True)
        ]
        return torch.cat(parts, dim=1)  # (b, n, d)

    def _some_dropped(self, grids: tuple[FeatureGrid, ...]) -> tuple[FeatureGrid, ...]:
        if not self.training or len(grids) == 1 or float(torch.rand(())) >= self.config.backbone_drop:
            return grids
        gone = int(torch.randint(len(grids), ()))
        return grids[:gone] + grids[gone + 1 :]

    def _kept_messages(self, x: Vertices) -> Float[Tensor, "b 1 1"] | None:
        if not self.training or not self.config.cross_drop:
            return None
        rows, count = self.part or (slice(None), len(x))
        return (torch.rand(count, 1, 1, device=x.device) >= self.config.cross_drop)[rows].to(x)


def _on_grids(x: Float[Tensor, "b n k"], graph: PatchGraph) -> States:
    return {name: x[:, own].mT.unflatten(-1, graph.shapes[name]) for name, own in graph.slices.items()}
