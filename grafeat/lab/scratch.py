"""The control without backbones: a small CNN trained from scratch on the task's own labels, with augmentation."""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.backbones.narrow import CHANNELS, EPOCHS, RECIPE, Kind, learned, resized
from grafeat.pictures import PictureSet

KIND: Kind = "small_cnn"
PICTURES_SHOWN = 30_000  # of a training, each picture counted as often as it is shown: as many as the backbones see


@dataclass(frozen=True, eq=False)
class Scratch:
    """A small CNN and its head.

    Attributes:
        body: From pictures (b, 3, 28, 28) to features (b, 64, 7, 7).
        head: From their mean over the patches to class logits.
        seconds: Duration of the training.
    """

    body: nn.Module
    head: nn.Linear
    seconds: float

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return sum(p.numel() for module in (self.body, self.head) for p in module.parameters())

    @torch.no_grad()
    def read(
        self, pictures: PictureSet, batch_size: int = 256
    ) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b d"]]:
        """Class logits (b, t) and image vectors (b, 64) of pictures of any size; they are brought to 28 × 28."""
        parts = resized(pictures).expand(-1, 3, -1, -1).split(batch_size)
        vectors = torch.cat([self.body(part).mean(dim=(2, 3)) for part in parts])
        return self.head(vectors), vectors


def train_from_scratch(pictures: PictureSet, *, num_classes: int, seed: int = 0) -> Scratch:
    """What a user might do instead of merging: the architecture of `small_cnn`, trained on the labels of the task.

    Each picture is seen bent, moved, thickened, blurred and noisy in ever new ways, about 30,000 in all. Nothing is
    chosen on validation pictures, so that they are learned from as well: the training has a fixed length. Pictures
    without labels are not looked at.

    Args:
        pictures: Labelled pictures; of a set with parts, those for training and validation.
        num_classes: Classes t of the task.
        seed: Decides weights, order and distortions.
    """
    chosen = paid_for(pictures)
    start = time.perf_counter()
    body, head = learned(
        KIND,
        resized(chosen),
        chosen.required_labels("pictures"),
        classes=num_classes,
        seed=seed,
        epochs=passes(len(chosen)),
        progress=False,
    )
    return Scratch(body, head, time.perf_counter() - start)


def paid_for(pictures: PictureSet) -> PictureSet:
    """All pictures whose labels may be learned from; those for validation stay together where nothing is chosen."""
    rows = [rows for part, rows in pictures.part_positions.items() if part in ("train", "val")]
    return pictures[torch.cat(rows)] if rows else pictures


def passes(count: int) -> int:
    """How often each of so many pictures is seen."""
    return max(EPOCHS[KIND], round(PICTURES_SHOWN / count))


def recipe(count: int, num_classes: int) -> str:
    """What decides the result beside pictures, labels and seed."""
    return f"{KIND} recipe {RECIPE}, {CHANNELS} channels, {passes(count)} passes, {num_classes} classes"
