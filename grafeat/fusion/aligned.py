"""Ways to mix grids that are laid on each other: sums and products."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.fusion.mixer import Mixer, mlp
from grafeat.grids import FeatureGrid
from grafeat.models import MergeOutput


class Aligned(Mixer):
    """Lays the grids on each other, patch on patch, mixes what lies at one place, and lets an MLP read each place.

    All grids are brought to the coarsest: the fewest rows and the fewest columns of any, each new patch the mean of
    those that it covers. They are laid on each other whatever part of the picture they cover. The image vector is the
    mean over the places.

    Args:
        backbones: Channels of each backbone, by name; two or more.
        num_classes: Classes t.
        width: Channels of each backbone's projection and of the image vector.
        hidden: Width of the MLP; four times `width` if absent.
        components: Principal components kept of each backbone's channels.
        grid: Rows and columns to which all grids are brought.
        classes: Names of the classes.
    """

    least = 2

    def build(self) -> None:
        """Makes the numbers that weigh, the MLP and the head."""
        self.weights = nn.Parameter(torch.ones(self.count))
        self.mix = mlp(self.config.width, self.hidden, self.config.width)
        self.head = nn.Linear(self.config.width, self.num_classes)

    @property
    def shape(self) -> str:
        """What there is to say of its form, in words."""
        h, w = self.config.grid
        return f"larger grids are resampled to {h} × {w}, {super().shape}"

    @property
    @abstractmethod
    def count(self) -> int:
        """How many numbers weigh."""

    @abstractmethod
    def mixed(self, grids: dict[str, Float[Tensor, "b d h w"]]) -> Float[Tensor, "b d h w"]:
        """What lies at each place, mixed."""

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`. There are no vertices, so there are no states."""
        mixed = self.mixed(self.resampled(grids))
        vector = self.mix(mixed.flatten(2).mT).mean(dim=1)
        return MergeOutput(self.head(vector), vector)


class Add(Aligned):
    """Adds the projected grids, place by place: z = Σ w_m · x_m, with one learned number for each backbone.

    A backbone that is left out has no term in the sum. The grids are brought to the coarsest one; see `Aligned`, also
    for the arguments.

    Source: OmniFusion (arXiv 2404.06212), z = w1 · xA + w2 · xB, there of encoders whose grids are equal, ahead of a
    language model's adapter; here any number of backbones, and an MLP for each place in the adapter's stead.
    """

    about = "z = Σ w·x on one grid, MLP for each place, pooled"

    @property
    def count(self) -> int:
        """One number for each backbone."""
        return len(self.backbones)

    def mixed(self, grids: dict[str, Float[Tensor, "b d h w"]]) -> Float[Tensor, "b d h w"]:
        """The weighted sum."""
        weights = dict(zip(self.backbones, self.weights, strict=True))
        return torch.stack([weights[name] * grid for name, grid in grids.items()]).sum(dim=0)


class Multiply(Aligned):
    """Multiplies the projected grids, place by place and channel by channel: z = w · (x_A × x_B × …).

    A backbone that is left out gives the factor 1. The grids are brought to the coarsest one; see `Aligned`, also for
    the arguments.

    Source: OmniFusion (arXiv 2404.06212), z = w1 · (xA × xB), there of encoders whose grids are equal, ahead of a
    language model's adapter; here any number of backbones, and an MLP for each place in the adapter's stead.
    """

    about = "z = w·(x × x) on one grid, MLP for each place, pooled"

    @property
    def count(self) -> int:
        """One number for the whole product."""
        return 1

    def mixed(self, grids: dict[str, Float[Tensor, "b d h w"]]) -> Float[Tensor, "b d h w"]:
        """The weighted product."""
        return self.weights * torch.stack(list(grids.values())).prod(dim=0)
