"""GraFeat-Merge: the feature grids of frozen backbones become one graph, and the graph one image vector."""

from collections.abc import Iterable, Sequence
from typing import Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention.layers import Vertices
from grafeat.attention.rotary import Angles, RotaryPositions
from grafeat.attention.step import GAIN, Step
from grafeat.config import MergeConfig
from grafeat.graph import Kind, PatchGraph
from grafeat.grids import FeatureGrid, GridSet, check_grids
from grafeat.models import MergeOutput, States
from grafeat.patchmodel import PatchModel
from grafeat.projection import (
    OCTAVES,
    Projection,
    Reduction,
    fourier_features,
    learned_part,
    standardise,
    weights_from,
)
from grafeat.readout import Readout, ReadoutKind


class GraFeatMerge(PatchModel):
    """Merges frozen backbones through the graph of their patches.

    Each patch of each backbone becomes a vertex of width d: its standardised and reduced features, projected, plus its
    place in the picture, plus its backbone's embedding. Step by step the vertices attend to their own grid (intra),
    then to all other grids (cross), with queries and keys turned by the patch centres. A readout attends over all
    vertices and gives one image vector (b, d), and a linear head the logits. Any number of backbones, any grids; the
    order of backbones and of vertices does not matter.

    By default the vector is a sum of three parts: what each backbone says by itself, read before any message between
    backbones; what several say together, the interplay of the same states; and what they say after their messages, the
    exchange. So a backbone that sees nonsense cannot spoil what another one reads by itself.

    Build it with `GraFeatMerge.for_grids`, which also takes the standardisation from the grids.

    What its parts are worth stands beside the rivals in `tests/benchmarks/figures.md`: the ways `joint`, `intra_only`
    and `cross_only` are the merge with one part changed, and four controls lack the interplay, the parting, the
    positions or the relations. `tests/benchmarks/defaults.py` varies the other defaults.

    Args:
        config: What shapes the model.

    Source: Sarlin et al., SuperGlue, CVPR 2020 (intra and cross attention over a graph of patches); Lindenberger et
    al., LightGlue, ICCV 2023 (rotary positions); Wang et al., RE-GNN, IEEE Trans. Big Data 2023 (relation embeddings).
    Ours are any number of sets instead of two, rotary positions in cross attention, count balance and the readout.
    """

    readout: Readout

    def __init__(self, config: MergeConfig) -> None:
        super().__init__(dict(config.backbones), config.num_classes, config.classes)
        self.config = config
        names, width = config.names, config.width
        self.projections = nn.ModuleList(
            Projection(channels, width, min(config.components, channels)) for _, channels in config.backbones
        )
        self.types = nn.Parameter(torch.randn(len(names), width) / 10)
        self.place: nn.Linear | None = nn.Linear(4 * OCTAVES, width, bias=False)
        self.rotary: RotaryPositions | None = RotaryPositions(width // config.heads)
        self.steps = nn.ModuleList(Step(config, kinds) for kinds in config.steps)
        self.readout = Readout(
            names,
            width,
            4 * OCTAVES,
            queries=config.queries,
            kind=config.readout,
            relations=config.relations,
            interplay=config.interplay,
            exchange=config.silent > 0,
            gain=GAIN,
        )
        self.head = nn.Linear(width, config.num_classes)
        if not config.positions:  # drawn all the same, so that all else begins alike
            self.place = self.rotary = self.readout.place = None
            if self.readout.exchange is not None:
                self.readout.exchange.place = None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of edges over which there are messages."""
        return self.config.kinds

    @property
    def depth(self) -> int:
        """How often there are messages of each kind."""
        return self.config.depth

    @property
    def order(self) -> list[tuple[Kind, ...]]:
        """The kinds of edges over which each step sends messages, in the order of the pass."""
        return self.config.steps

    @property
    def heads(self) -> int:
        """Attention heads of each layer."""
        return self.config.heads

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
        hidden: int | None = MergeConfig.hidden,
        positions: bool = MergeConfig.positions,
        relations: bool = MergeConfig.relations,
        joint: bool = MergeConfig.joint,
        interplay: bool = MergeConfig.interplay,
        parted: bool = MergeConfig.parted,
        seed: int = 0,
    ) -> Self:
        """A new model for these backbones, with each one's features standardised from these grids, without labels.

        Args:
            grids: Feature grids; of a set with parts, only those to learn from are looked at, with labels or without.
            num_classes: Classes t of the task.
            width, depth, heads, readout, queries, components, shared, intra, cross, balance, cross_drop, backbone_drop,
                hidden, positions, relations, joint, interplay, parted: See `MergeConfig`.
            seed: Decides the initial weights; the global random state is left as it was.

        Returns:
            The model in `eval`, so that nothing is dropped; `fit` drops while it trains.

        Raises:
            ValueError: If a value is out of its range, or there is no picture.
        """
        seen = learned_part(grids)
        config = MergeConfig(
            backbones=tuple((grid.name, grid.channels) for grid in seen[:1].grids),
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
            hidden=hidden,
            positions=positions,
            relations=relations,
            joint=joint,
            interplay=interplay,
            parted=parted,
            classes=seen.classes if len(seen.classes) == num_classes else (),
        )
        return cls.of(config, seen, seed=seed)

    @classmethod
    def of(cls, config: MergeConfig, grids: GridSet | None = None, *, seed: int = 0) -> Self:
        """A new model of this configuration, standardised from these grids, if there are any."""
        with weights_from(seed):
            model = cls(config)
        if grids is not None:
            standardise(cast(Iterable[Reduction], model.projections), grids, seed=seed)
        return model.eval()

    def __repr__(self) -> str:
        c = self.config
        wide = max(len(name) for name in c.names)
        steps = f"{c.depth} steps of {'joint' if c.joint else ' + '.join(c.kinds) or 'no attention'}"
        if c.silent:
            steps = f"{c.depth} steps of intra, then {c.depth} of cross"
        learned = sum(parameter.numel() for parameter in self.parameters())
        lines = [
            f"GraFeatMerge: {len(c.backbones)} backbones → {steps} → readout {c.readout!r} → {c.num_classes} classes",
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
        x = self._vertices(present)
        x = x if self.place is None else x + self.place(places)
        angles, keep = self._angles(centres), self._kept_messages(x)
        seen = [x]
        silent = self.config.silent
        for step in self.steps[:silent] if silent and len(present) == 1 else self.steps:  # nobody to listen to
            x = step(x, graph, angles, keep)
            seen.append(x)
        reading = self.readout(x, places, graph, before=seen[silent] if silent else None)
        return MergeOutput(
            logits=self.head(reading.vector),
            vector=reading.vector,
            vertices=on_grids(x, graph),
            own={name: self.head(vector) for name, vector in reading.own.items()},
            reading=on_grids(reading.weights.mT, graph),
            states=tuple(on_grids(state, graph) for state in seen) if states else (),
            apart=None if reading.apart is None else self.head(reading.apart),
        )

    @torch.no_grad()
    def calibrate(self, val: GridSet) -> None:
        """Chooses on validation pictures how far each backbone's reading is believed; see `Readout.calibrate`."""
        self.eval()
        own, merged = [], []
        for start in range(0, len(val), 256):
            out = self(val[start : start + 256])
            if set(out.own) < set(self.config.names):
                return
            own.append(torch.stack([out.own[name] for name in self.config.names]).float())
            merged.append(out.logits.float())
        labels = val.required_labels("val").to(self.device)
        self.readout.calibrate(torch.cat(own, dim=1), labels, merged=torch.cat(merged))

    def relation_embeddings(self) -> dict[str, dict[tuple[str, str], float]]:
        """The learned relation embeddings by layer, each layer's centred on its mean.

        Returns:
            For `intra 0`, `cross 0` (or `joint 0`), … the embedding of each relation (query, key); for `readout` that
            of each backbone, as (name, name).
        """
        steps = cast(Iterable[Step], self.steps)
        layers = [(kind, layer) for step in steps for kind, layer in step.layers.items()]
        named = {
            f"{kind} {sum(other == kind for other, _ in layers[:number])}": (layer.relations, layer.relation)
            for number, (kind, layer) in enumerate(layers)
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

    def _angles(self, centres: Float[Tensor, "n 2"]) -> Angles:
        if self.rotary is not None:
            return self.rotary(centres)
        still = centres.new_zeros(len(centres), self.config.width // self.config.heads // 2)
        return Angles(still.cos(), still)

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


def on_grids(x: Float[Tensor, "b n k"], graph: PatchGraph) -> States:
    """What there is of each vertex (b, n, k), on the backbones' grids."""
    return {name: x[:, own].mT.unflatten(-1, graph.shapes[name]) for name, own in graph.slices.items()}
