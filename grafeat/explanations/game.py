"""The game that a model's backbones play: what every coalition of them is worth to a class."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.grids import GridSet
from grafeat.models import GridModel


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
        return torch.cat([self.model(part).logits.cpu() for part in batches(present, self.batch_size)])


def batches(grids: GridSet, size: int) -> list[GridSet]:
    """The pictures, so many at a time."""
    return [grids[start : start + size] for start in range(0, len(grids), size)]


def centred(logits: Float[Tensor, "b t"], targets: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The logit of each target minus the mean over classes."""
    return logits.gather(1, targets[:, None])[:, 0] - logits.mean(dim=1)


def targets_of(
    target: int | Sequence[int] | Tensor | None, logits: Float[Tensor, "b t"], num_classes: int
) -> Int[Tensor, " b"]:
    """The class to explain for each picture; the predicted ones if none is given.

    Raises:
        ValueError: If one is out of range, or there are not as many as pictures.
    """
    if target is None:
        return logits.argmax(dim=1)
    targets = torch.as_tensor(target).long().cpu()
    targets = targets.expand(len(logits)) if targets.ndim == 0 else targets
    if targets.shape != (len(logits),):
        raise ValueError(f"target: got {len(targets)} for {len(logits)} pictures; expected one, or one for each")
    if not bool(((targets >= 0) & (targets < num_classes)).all()):
        raise ValueError(f"target: got {targets.unique().tolist()}; expected 0 to {num_classes - 1}; count from 0")
    return targets
