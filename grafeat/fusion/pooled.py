"""Ways to mix pooled features: a linear probe, concatenation, gates."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.fusion.mixer import Mixer, mlp
from grafeat.grids import FeatureGrid
from grafeat.models import MergeOutput
from grafeat.projection import Reduction


class Linear(Mixer):
    """A linear probe: the pooled components of all backbones side by side, and one linear layer to the classes.

    The image vector is what the layer reads: the standardised, reduced and pooled features themselves, of which nothing
    is learned. A backbone that is left out gives zeros, which is the mean of the standardised features. There is no
    width to choose. `fit` trains it by the same steps as all others, ten times as many, since it settles
    late.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t.
        components: Principal components kept of each backbone's channels.
        classes: Names of the classes.

    Source: linear probes are Alain and Bengio, ICLR 2017 workshop, of one network's layer; here of several networks'
    last maps together.
    """

    about = "pooled components side by side → one linear layer"
    pace = 10

    def reduction(self, channels: int, components: int) -> Reduction:
        """What standardises one backbone's features; nothing of it is learned."""
        return Reduction(channels, components)

    def build(self) -> None:
        """Makes the head."""
        components = sum(min(self.config.components, channels) for _, channels in self.config.backbones)
        self.head = nn.Linear(components, self.num_classes)

    @property
    def shape(self) -> str:
        """What there is to say of its form, in words."""
        return f"{self.head.in_features} components, "

    def pooled(self, grids: Sequence[FeatureGrid]) -> dict[str, Float[Tensor, "b _"]]:
        """The mean components of each backbone; zeros for one that is not there."""
        found = {name: patches.mean(dim=1) for name, patches in self.projected(grids).items()}
        blank = self.head.weight.new_zeros(grids[0].features.shape[0], 1)  # no len(): exported, it takes any batch
        widths = {name: min(self.config.components, channels) for name, channels in self.config.backbones}
        return {name: found[name] if name in found else blank.expand(-1, widths[name]) for name in self.backbones}

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`. There are no vertices, so there are no states."""
        vector = torch.cat(list(self.pooled(grids).values()), dim=1)
        return MergeOutput(self.head(vector), vector)


class Concat(Mixer):
    """Pools each backbone's grid, concatenates the pooled vectors, and lets an MLP decide: the baseline to beat.

    The features are standardised and reduced as in `GraFeatMerge`, so that only the mixing differs. A backbone that is
    left out gives zeros after its projection, which has a bias: so it is silent, not at its mean.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t.
        width: Channels of each backbone's projection and of the image vector.
        hidden: Width of the MLP; four times `width` if absent.
        components: Principal components kept of each backbone's channels.
        classes: Names of the classes.

    Source: concatenation is what Vary (arXiv 2312.06109) and Eagle (arXiv 2408.15998) do, there channel by channel
    ahead of a language model; here after pooling, since grids differ.
    """

    about = "pooled, concatenated, MLP"
    pace = 3

    def build(self) -> None:
        """Makes the MLP and the head."""
        self.mix = mlp(self.config.width * len(self.backbones), self.hidden, self.config.width)
        self.head = nn.Linear(self.config.width, self.num_classes)

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`. There are no vertices, so there are no states."""
        vector = self.mix(torch.cat(list(self.pooled(grids).values()), dim=-1))
        return MergeOutput(self.head(vector), vector)


class Gated(Mixer):
    """Weighs the pooled vectors of the backbones anew for each picture: z = Σ g_m(x) · x_m, then an MLP.

    The gates are a softmax over the backbones, computed from the pooled vectors of all of them; `reading` tells them,
    as each patch has an equal part of its backbone's gate. A backbone that is left out has the gate 0, and the others
    share the rest.

    Args:
        backbones: Channels of each backbone, by name; two or more.
        num_classes: Classes t.
        width: Channels of each backbone's projection and of the image vector.
        hidden: Width of the MLP; four times `width` if absent.
        components: Principal components kept of each backbone's channels.
        classes: Names of the classes.

    Source: Shazeer et al., Outrageously Large Neural Networks, ICLR 2017, eq. 1 (a mixture of experts, weighted by a
    softmax gate), here without noise and with all experts in use, the experts being frozen backbones; Arevalo et al.,
    Gated Multimodal Units, ICLR 2017 workshop (gates computed from all modalities together), there one gate for each
    channel.
    """

    about = "pooled, weighted by gates of each picture, MLP"
    pace = 3
    least = 2

    def build(self) -> None:
        """Makes the gates, the MLP and the head."""
        width = self.config.width
        self.gate = nn.Linear(width * len(self.backbones), len(self.backbones))
        self.mix = mlp(width, self.hidden, width)
        self.head = nn.Linear(width, self.num_classes)

    def gates(self, grids: Sequence[FeatureGrid]) -> dict[str, Float[Tensor, " b"]]:
        """The weight of each backbone that is there, for each picture; they sum to 1."""
        return self._gates(self.pooled(grids), {grid.name for grid in grids})

    def _gates(self, pooled: dict[str, Float[Tensor, "b d"]], there: set[str]) -> dict[str, Float[Tensor, " b"]]:
        logits = self.gate(torch.cat(list(pooled.values()), dim=-1))
        absent = torch.tensor([name not in there for name in self.backbones], device=logits.device)
        gates = logits.masked_fill(absent, -torch.inf).softmax(dim=-1).unbind(dim=-1)
        return {name: gate for name, gate in zip(self.backbones, gates, strict=True) if name in there}

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`. There are no vertices, so there are no states."""
        pooled, shapes = self.pooled(grids), {grid.name: grid.shape for grid in grids}
        gates = self._gates(pooled, set(shapes))
        vector = self.mix(torch.stack([gate[:, None] * pooled[name] for name, gate in gates.items()]).sum(dim=0))
        reading = {
            name: (gates[name] / (h * w))[:, None, None, None].expand(-1, 1, h, w) for name, (h, w) in shapes.items()
        }
        return MergeOutput(self.head(vector), vector, reading=reading)
