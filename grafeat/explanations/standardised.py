"""A model to be explained for some pictures: standardised once, frozen, its logit as a function of patches."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from grafeat.attention.layers import PatchAttention
from grafeat.explanations.game import centred
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.projection import Projection


@dataclass(frozen=True, eq=False)
class Subject:
    """What a method of relevance gets: a model whose standardisation is done, and standardised grids.

    What follows the standardisation is linear in the features, so that relevance of patches is the same with and
    without it; and the mean patch of each backbone is zero, which is the baseline of every method that has one.

    Attributes:
        model: A frozen copy of the model.
        grids: Standardised grids in the model's order of backbones; their features require a gradient.
        targets: The class to explain, for each picture (b,).
        samples: How often a method draws, or steps.
        at_once: Pictures that fit into one pass.
    """

    model: GridModel
    grids: tuple[FeatureGrid, ...]
    targets: Int[Tensor, " b"]
    samples: int = 0
    at_once: int = 1

    @property
    def features(self) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The standardised features of each backbone."""
        return tuple(grid.features for grid in self.grids)

    def score(self, logits: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """The centred logit of the targets."""
        return centred(logits, self.targets.expand(len(logits)))

    def score_of(self, *features: Tensor) -> Float[Tensor, " b"]:
        """The centred logit for changed features; the last argument holds the targets, as Captum repeats them."""
        named = zip(self.grids, features[:-1], strict=True)
        changed = [FeatureGrid.trusted(grid.name, part, grid.field) for grid, part in named]
        return centred(self.model(changed).logits, features[-1])


def frozen(model: GridModel) -> GridModel:
    """A copy that may be changed: nothing dropped, no gradient of any parameter, no recording."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for module in copied.modules():
        if isinstance(module, PatchAttention):
            module.recorder = None
    return copied


def in_order(model: GridModel, grids: GridSet) -> tuple[FeatureGrid, ...]:
    """In the model's order of backbones, so that what is drawn does not depend on that of the grids."""
    return tuple(grids[name] for name in model.backbones if name in grids.names)


def standardised(
    model: GridModel, grids: GridSet, targets: Int[Tensor, " b"], *, samples: int = 0, at_once: int = 1
) -> Subject:
    """Standardises some pictures' grids, and gives them with a copy of the model that takes them as they are.

    Args:
        model: A frozen model with projections.
        grids: The pictures' grids.
        targets: The class to explain, for each picture.
        samples: How often a method draws, or steps.
        at_once: Pictures that fit into one pass.
    """
    reduced, ready, dtype = copy.deepcopy(model), [], next(model.parameters()).dtype
    projections = cast(Sequence[Projection], reduced.projections)
    numbers = {name: number for number, name in enumerate(model.backbones)}
    for grid in in_order(model, grids):
        projection = projections[numbers[grid.name]]
        flat = grid.features.to(model.device, dtype).flatten(2).mT
        features = ((flat - projection.mean) @ projection.basis).mT.unflatten(2, grid.shape)
        k = features.shape[1]
        projection.mean, projection.basis = torch.zeros(k).to(flat), torch.eye(k).to(flat)
        reduced.backbones[grid.name] = k
        own = features.contiguous().detach().requires_grad_()
        ready.append(FeatureGrid.trusted(grid.name, own, grid.field))
    return Subject(reduced, tuple(ready), targets.to(model.device), samples, at_once)


def has_projections(model: GridModel) -> bool:
    """Whether a model standardises its grids in a way that can be done beforehand."""
    return isinstance(getattr(model, "projections", None), nn.ModuleList)
