"""The game that a model's backbones play: what every coalition of them is worth to a class."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.evaluation import batches
from grafeat.grids import GridSet
from grafeat.models import GridModel


class NotFiniteError(ValueError):
    """Features or logits hold NaN or infinity, so that there is nothing to explain."""


class Game:
    """Logits of every coalition of backbones, computed once each.

    Args:
        model: The model, in evaluation mode.
        grids: The pictures' grids.
        names: The backbones that play.
        batch_size: Pictures that are computed at once.
    """

    def __init__(self, model: GridModel, grids: GridSet, names: tuple[str, ...], batch_size: int) -> None:
        self.model, self.grids, self.names, self.batch_size = model, grids, names, batch_size
        self.known: dict[int, Tensor] = {}
        self.everyone = (1 << len(names)) - 1

    @torch.no_grad()
    def logits(self, coalition: int) -> Float[Tensor, "b t"]:
        """Logits with the backbones of a coalition; without any, the log frequencies of the classes in training."""
        if coalition not in self.known:
            self.known[coalition] = self._computed(coalition)
        return self.known[coalition]

    def worth(self, coalition: int, targets: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The centred logit of the targets."""
        return centred(self.logits(coalition), targets)

    def _computed(self, coalition: int) -> Float[Tensor, "b t"]:
        if coalition == 0:
            counts = self.model.label_counts.double().cpu().clamp(min=0.5)  # a class never seen counts half a picture
            return counts.log().expand(len(self.grids), -1)
        present = self.grids.only(*(name for m, name in enumerate(self.names) if coalition >> m & 1))
        return torch.cat([finite_logits(self.model, part) for part in batches(present, self.batch_size)])


@torch.no_grad()
def finite_logits(model: GridModel, grids: GridSet) -> Float[Tensor, "b t"]:
    """The logits of some pictures.

    Raises:
        NotFiniteError: If features or logits hold NaN or infinity.
    """
    for grid in grids.grids:
        if not bool(torch.isfinite(grid.features).all()):
            raise NotFiniteError(
                f"grids: backbone {grid.name!r} has NaN or infinity; expected finite numbers; extract anew"
            )
    logits = model(grids).logits.cpu()
    if not bool(torch.isfinite(logits).all()):
        raise NotFiniteError(
            "model: its logits hold NaN or infinity; expected finite numbers; train or load it anew"
        )
    return logits


def known_grids(model: GridModel, grids: GridSet) -> GridSet:
    """The grids in the model's order of backbones.

    Raises:
        ValueError: If one of them is of a backbone that the model does not know.
    """
    for name in grids.names:
        if name not in model.backbones:
            known = ", ".join(model.backbones)
            raise ValueError(f"grids: got backbone {name!r}; this model knows {known}; use name= to match")
    return grids.only(*(name for name in model.backbones if name in grids.names))


def centred(logits: Float[Tensor, "b t"], targets: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The logit of each target minus the mean over classes."""
    return logits.gather(1, targets[:, None])[:, 0] - logits.mean(dim=1)


def targets_of(
    target: int | Sequence[int] | Tensor | None, logits: Float[Tensor, "b t"], num_classes: int
) -> Int[Tensor, " b"]:
    """The class to explain for each picture; the predicted ones if none is given.

    Raises:
        TypeError: If they are no whole numbers.
        ValueError: If one is out of range, or there are not as many as pictures.
    """
    if target is None:
        return logits.argmax(dim=1)
    targets = _whole_numbers(target, len(logits))
    if not bool(((targets >= 0) & (targets < num_classes)).all()):
        raise ValueError(f"target: got {targets.unique().tolist()}; expected 0 to {num_classes - 1}; count from 0")
    return targets


def _whole_numbers(target: int | Sequence[int] | Tensor, pictures: int) -> Int[Tensor, " b"]:
    """The targets as a tensor, one for each picture."""
    wanted = "expected the class's number, or one for each picture"
    try:
        given = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"target: got {target!r}, a {type(target).__name__}; {wanted}; count classes from 0") from None
    if given.ndim > 1:
        raise ValueError(f"target: got shape {tuple(given.shape)} for {pictures} pictures; {wanted}; flatten it")
    if given.ndim == 1 and len(given) != pictures:
        raise ValueError(f"target: got {len(given)} for {pictures} pictures; expected one, or one for each")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        kind = str(given.dtype).removeprefix("torch.")
        raise TypeError(f"target: got {kind}; {wanted}; convert it, as with .long() or int()")
    return given.long().cpu().expand(pictures)
