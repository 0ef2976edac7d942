"""Other ways to mix the same feature grids, behind the same interface as `GraFeatMerge`: the rivals."""

from collections.abc import Iterable, Sequence
from typing import Self, cast

import torch
from torch import nn

from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel, MergeOutput
from grafeat.projection import Projection


class Concat(GridModel):
    """Pools each backbone's grid, concatenates the pooled vectors, and lets an MLP decide: the baseline to beat.

    The features are standardised and reduced as in `GraFeatMerge`, so that only the mixing differs. A backbone that is
    left out gives zeros, which is the mean of the standardised features.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t.
        width: Channels of each backbone's projection and of the image vector.
        components: Principal components kept of each backbone's channels.
        classes: Names of the classes.

    Source: concatenation is what Vary (arXiv 2312.06109) and Eagle (arXiv 2408.15998) do, there channel by channel
    ahead of a language model; here after pooling, since grids differ.
    """

    def __init__(
        self,
        backbones: dict[str, int],
        num_classes: int,
        *,
        width: int = 64,
        components: int = 64,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(backbones, num_classes, classes)
        self.projections = nn.ModuleList(
            Projection(channels, width, min(components, channels)) for channels in backbones.values()
        )
        joined = width * len(backbones)
        self.mix = nn.Sequential(
            nn.Linear(joined, 4 * width), nn.LayerNorm(4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, num_classes)

    @classmethod
    def for_grids(
        cls, grids: GridSet, *, num_classes: int, width: int = 64, components: int = 64, seed: int = 0
    ) -> Self:
        """A new model for these backbones, standardised from these grids, as `GraFeatMerge.for_grids`."""
        seen = grids.train if "train" in grids.parts else grids
        backbones = {grid.name: grid.channels for grid in seen.grids}
        classes = seen.classes if len(seen.classes) == num_classes else ()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            model = cls(backbones, num_classes, width=width, components=components, classes=classes)
        for projection, grid in zip(cast(Iterable[Projection], model.projections), seen.grids, strict=True):
            projection.standardise(grid, seed=seed)
        return model.eval()

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`. There are no vertices, so there are no states."""
        given = {grid.name: grid.features for grid in grids}
        blank = self.head.weight.new_zeros(len(grids[0]), self.head.in_features)
        pooled = [
            project(given[name]).mean(dim=1) if name in given else blank
            for name, project in zip(self.backbones, self.projections, strict=True)
        ]
        vector = self.mix(torch.cat(pooled, dim=-1))
        return MergeOutput(self.head(vector), vector)
