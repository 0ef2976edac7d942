"""What a contender sees of a task's grids: some backbones, one of them twice, or another picture's features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from grafeat.grids import FeatureGrid, GridSet
from grafeat.splits import Rows

Seen = Callable[[GridSet], GridSet]
AGAIN, STRANGE = "again", "of other pictures"  # what is added to the name of a backbone that stands in a second time


@dataclass(frozen=True)
class Only:
    """Sees these backbones alone.

    Attributes:
        names: The backbones.
    """

    names: tuple[str, ...]

    def __call__(self, grids: GridSet) -> GridSet:
        """The same pictures, as these backbones see them."""
        return grids.only(*self.names)


@dataclass(frozen=True)
class Twice:
    """Sees one backbone, twice: more patches, and nothing new in them.

    Attributes:
        name: The backbone.
    """

    name: str

    def __call__(self, grids: GridSet) -> GridSet:
        """The same pictures, as the backbone sees them, under two names."""
        grid = grids[self.name]
        again = FeatureGrid.trusted(f"{grid.name} {AGAIN}", grid.features, grid.field)
        return _set_of([grid, again], grids)


@dataclass(frozen=True)
class Strange:
    """Sees one backbone's features of another picture, drawn once and at random from the same part of the set.

    Attributes:
        names: The backbones that see the right picture.
        name: The one that sees another.
        stands_in: Whether it takes the place of its own right features, or stands beside them as one backbone more.
    """

    names: tuple[str, ...]
    name: str
    stands_in: bool

    def __call__(self, grids: GridSet) -> GridSet:
        """The same pictures and labels, with the features of other pictures for one backbone."""
        grid = grids[self.name]
        other = grid[others(len(grids))]
        if self.stands_in:
            seen = [other if name == self.name else grids[name] for name in self.names]
        else:
            called = f"{grid.name} {STRANGE}"
            seen = [*map(grids.__getitem__, self.names), FeatureGrid.trusted(called, other.features, grid.field)]
        return _set_of(seen, grids)


@dataclass(frozen=True)
class EqualPatches:
    """Sees as few patches of every backbone as of the one that has the fewest.

    Attributes:
        names: The backbones.
    """

    names: tuple[str, ...]

    def __call__(self, grids: GridSet) -> GridSet:
        """The same pictures; each patch is the mean of those of the backbone's own grid that it touches."""
        found = [grids[name] for name in self.names]
        shape = min((grid.shape for grid in found), key=lambda shape: shape[0] * shape[1])
        return _set_of([_pooled(grid, shape) for grid in found], grids)


def others(count: int) -> Rows:
    """For each of so many pictures another one, at random and always the same; each is another's once."""
    circle = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    found = torch.empty_like(circle)
    found[circle] = circle.roll(1)
    return found


def _pooled(grid: FeatureGrid, shape: tuple[int, int]) -> FeatureGrid:
    if grid.shape == shape:
        return grid
    pooled = F.adaptive_avg_pool2d(grid.features.float(), shape).to(grid.features.dtype)
    return FeatureGrid.trusted(grid.name, pooled, grid.field)


def _set_of(grids: Sequence[FeatureGrid], pictures: GridSet) -> GridSet:
    return GridSet(grids, pictures.labels, classes=pictures.classes)
