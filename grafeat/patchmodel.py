"""What every model has whose patches attend to each other: what can be captured, knocked out and explored."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from grafeat.graph import Kind, PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.readout import PatchReadout


class PatchModel(GridModel):
    """A model whose patches attend to each other: within a backbone, between backbones, or both.

    Attributes:
        readout: What reads the image vector from the patches.
        head: From the image vector to the logits.
    """

    readout: PatchReadout
    head: nn.Linear

    @property
    @abstractmethod
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of edges over which there are messages."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """How often there are messages of each kind."""

    @property
    def order(self) -> list[tuple[Kind, ...]]:
        """The kinds of edges over which each step sends messages, in the order of the pass."""
        return [self.kinds] * self.depth

    @property
    @abstractmethod
    def heads(self) -> int:
        """Attention heads of each layer."""

    def on_patches(self, grids: GridSet) -> GridSet:
        """The grids with the patches that attend to each other, where those are not the backbones' own.

        The output for them is the same. Here, the grids as they are.
        """
        return grids

    def patches(self, grids: GridSet | Sequence[FeatureGrid]) -> PatchGraph:
        """The graph over the patches that attend to each other."""
        return PatchGraph.of(self.on_patches(grids if isinstance(grids, GridSet) else GridSet(grids)))


def as_patches(model: GridModel, grids: GridSet | Sequence[FeatureGrid]) -> GridSet:
    """The grids with the patches that an explanation can speak of: the model's, where it resamples them."""
    given = grids if isinstance(grids, GridSet) else GridSet(grids)
    return model.on_patches(given) if isinstance(model, PatchModel) else given


def check_patches(model: GridModel) -> PatchModel:
    """The model, once it is known that its patches attend to each other.

    Raises:
        TypeError: If they do not.
    """
    if not isinstance(model, PatchModel):
        raise TypeError(
            f"model: got {type(model).__name__}, which has no patch graph; expected GraFeatMerge, or another whose "
            "patches attend to each other; gf.list_ways() says which do"
        )
    return model

