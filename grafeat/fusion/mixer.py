"""What the other ways to mix have in common: standardised, reduced features of named backbones, and a linear head."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.arguments import make_whole
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.projection import Projection, Reduction, learned_part, standardise, weights_from

Shape = tuple[int, int]


@dataclass(frozen=True)
class MixConfig:
    """What shapes a way to mix; kept in the header of a saved model.

    Attributes:
        backbones: Name and channels of each backbone.
        num_classes: Classes t of the task.
        width: Channels d to which each backbone's features are projected, and of the image vector.
        hidden: Width of the MLP; four times `width` if absent.
        components: Principal components kept of each backbone's channels; all of them where it has fewer.
        depth: Layers, where there are several.
        heads: Attention heads, where there are any.
        grid: Rows and columns to which ways that need one grid bring all others: the fewest of any backbone.
        classes: Names of the classes; numbered if empty.

    Raises:
        TypeError: If a value that counts something is no whole number.
        ValueError: If a value is below 1, or `width` is no multiple of `heads`.
    """

    backbones: tuple[tuple[str, int], ...]
    num_classes: int
    width: int = 64
    hidden: int | None = None
    components: int = 64
    depth: int = 2
    heads: int = 4
    grid: Shape = (1, 1)
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        make_whole(self, "num_classes", "width", "hidden", "components", "depth", "heads")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"grid: got {self.grid}; expected rows and columns, each 1 or more")

    @classmethod
    def for_grids(
        cls,
        grids: GridSet,
        num_classes: int,
        *,
        width: int = 64,
        hidden: int | None = None,
        components: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> Self:
        """The configuration for these backbones and their grids."""
        given, classes = grids[:1].grids, grids.classes
        return cls(
            backbones=tuple((grid.name, grid.channels) for grid in given),
            num_classes=num_classes,
            width=width,
            hidden=hidden,
            components=components,
            depth=depth,
            heads=heads,
            grid=(min(grid.shape[0] for grid in given), min(grid.shape[1] for grid in given)),
            classes=classes if len(classes) == num_classes else (),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backbones."""
        return tuple(name for name, _ in self.backbones)


class Mixer(GridModel):
    """A way to mix the feature grids of backbones, behind the same interface as `GraFeatMerge`.

    The features are standardised and reduced as in `GraFeatMerge`, so that only the mixing differs.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t.
        width, hidden, components, depth, heads, grid, classes: See `MixConfig`; a way takes what it has.

    Raises:
        ValueError: If there are fewer backbones than it needs, or a value is out of its range.
    """

    about: str  # what it does, in half a line
    pace = 2  # it then takes about as long as a merge; those that pool first cost little, and go on until they settle
    least = 1  # backbones that it needs

    def __init__(
        self,
        backbones: Mapping[str, int],
        num_classes: int,
        *,
        width: int = MixConfig.width,
        hidden: int | None = MixConfig.hidden,
        components: int = MixConfig.components,
        depth: int = MixConfig.depth,
        heads: int = MixConfig.heads,
        grid: Shape = MixConfig.grid,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(backbones, num_classes, classes)
        check_several(type(self).__name__, backbones, self.least)
        self.config = MixConfig(
            tuple(backbones.items()), num_classes, width, hidden, components, depth, heads, grid, tuple(classes)
        )
        self.projections = nn.ModuleList(
            self.reduction(channels, min(components, channels)) for channels in backbones.values()
        )
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Makes what comes after the projections."""

    @classmethod
    def for_grids(
        cls,
        grids: GridSet | Sequence[FeatureGrid],
        *,
        num_classes: int,
        width: int = MixConfig.width,
        hidden: int | None = MixConfig.hidden,
        components: int = MixConfig.components,
        depth: int = MixConfig.depth,
        heads: int = MixConfig.heads,
        seed: int = 0,
    ) -> Self:
        """A new model for these backbones, standardised from these grids, as `GraFeatMerge.for_grids`.

        Args:
            grids: Feature grids; of a set with parts, only those to learn from are looked at, with labels or without.
            num_classes: Classes t of the task.
            width, hidden, components, depth, heads: See `MixConfig`; a way takes what it has.
            seed: Decides the initial weights; the global random state is left as it was.

        Raises:
            ValueError: If a value is out of its range, or there is no picture.
        """
        seen = learned_part(grids)
        config = MixConfig.for_grids(
            seen, num_classes, width=width, hidden=hidden, components=components, depth=depth, heads=heads
        )
        return cls.of(config, seen, seed=seed)

    @classmethod
    def of(cls, config: MixConfig, grids: GridSet | None = None, *, seed: int = 0) -> Self:
        """A new model of this configuration, standardised from these grids, if there are any."""
        with weights_from(seed):
            model = cls(
                dict(config.backbones),
                config.num_classes,
                width=config.width,
                hidden=config.hidden,
                components=config.components,
                depth=config.depth,
                heads=config.heads,
                grid=config.grid,
                classes=config.classes,
            )
        if grids is not None:
            standardise(cast(Iterable[Reduction], model.projections), grids, seed=seed)
        return model.eval()

    def __repr__(self) -> str:
        c = self.config
        wide = max(len(name) for name in c.names)
        learned = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return "\n".join(
            [
                f"{type(self).__name__}: {len(c.backbones)} backbones → {self.about} → {c.num_classes} classes",
                *(f"  {name:<{wide}}  {channels} channels" for name, channels in c.backbones),
                f"  {self.shape}{learned:,} parameters",
            ]
        )

    @property
    def shape(self) -> str:
        """What there is to say of its form, in words."""
        return f"width {self.config.width}, MLP {self.hidden}, "

    @property
    def hidden(self) -> int:
        """Width of the MLP."""
        return self.config.hidden or 4 * self.config.width

    def reduction(self, channels: int, components: int) -> Reduction:
        """What standardises one backbone's features and, here, projects them to the model's width."""
        return Projection(channels, self.config.width, components)

    def projected(self, grids: Sequence[FeatureGrid]) -> dict[str, Float[Tensor, "b _ d"]]:
        """The projected patches of each backbone that is there, row by row, in the model's order."""
        given = {grid.name: grid.features for grid in grids}
        pairs = zip(self.backbones, self.projections, strict=True)
        return {name: project(given[name]) for name, project in pairs if name in given}

    def pooled(self, grids: Sequence[FeatureGrid]) -> dict[str, Float[Tensor, "b d"]]:
        """The mean patch of each backbone; zeros, which no picture gives, for one that is not there."""
        found = {name: patches.mean(dim=1) for name, patches in self.projected(grids).items()}
        blank = torch.zeros_like(next(iter(found.values())))
        return {name: found.get(name, blank) for name in self.backbones}

    def resampled(self, grids: Sequence[FeatureGrid]) -> dict[str, Float[Tensor, "b d h w"]]:
        """The projected patches of each backbone that is there, on the model's one grid, as means of what it covers."""
        shapes = {grid.name: grid.shape for grid in grids}
        return {
            name: F.adaptive_avg_pool2d(patches.mT.unflatten(2, shapes[name]), self.config.grid)
            for name, patches in self.projected(grids).items()
        }


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, GELU, linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, outputs))


def check_several(way: str, backbones: Collection[str], least: int = 2) -> None:
    """Refuses a lone backbone where there is nothing to mix.

    Raises:
        ValueError: If there are fewer than `least`.
    """
    if len(backbones) < least:
        raise ValueError(
            f"backbones: got only {', '.join(backbones)} for {way}; expected two or more to mix; extract another one, "
            "or use mix('single', …) for one alone"
        )
