"""Photographs of one thing each, whose place in the picture is known."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from grafeat.pictures import PictureSet
from grafeat.planted.backgrounds import cropped, photographs
from grafeat.planted.cutouts import CutOuts
from grafeat.splits import LabelledSet, Rows, take

PLACING, BEHIND = 4, 7  # numbers drawn for the object of each picture, and for its background
VAL, TEST = 0.15, 0.25  # shares of the cut-outs


class SeenObjects(PictureSet):
    """Pictures that know where their object is; `seen.test[7:11].masks` are those of the chosen pictures.

    Args:
        pictures: The pictures (n, 3, H, W).
        masks: Whether a pixel shows the object (n, H, W).
        objects: Which cut-out each shows (n,).
        labels: Class numbers (n,).
        names: Names of the cut-outs.
        classes: Names of the classes.
        parts: Rows of the parts `train`, `val` and `test`.
    """

    def __init__(
        self,
        pictures: UInt8[Tensor, "n 3 h w"],
        masks: Bool[Tensor, "n h w"],
        objects: Rows,
        labels: Rows,
        *,
        names: Sequence[str],
        classes: Sequence[str],
        parts: Mapping[str, Rows] | None = None,
    ) -> None:
        super().__init__(pictures, labels, classes=classes, name="seen objects", parts=parts)
        self._masks, self._objects, self._names = masks, objects, tuple(names)

    @property
    def masks(self) -> Bool[Tensor, "b h w"]:
        """Whether each pixel shows the object."""
        return take(self._masks, self._rows)

    @property
    def objects(self) -> tuple[str, ...]:
        """Which cut-out each picture shows."""
        return tuple(self._names[number] for number in self._objects[self._rows].tolist())

    def split(self, *, val: float, test: float, seed: int = 0) -> Self:
        """The same pictures with parts drawn by cut-out: no cut-out of one part stands in another.

        Args:
            val: Share of each class's cut-outs for validation, in [0, 1).
            test: Share of them for the test, in [0, 1); `val + test` is below 1.
            seed: Decides the draw.

        Raises:
            ValueError: If the shares leave nothing to train on.
        """
        shown = self._objects[self._rows]
        kinds = shown.unique()
        first = [int((shown == number).nonzero()[0]) for number in kinds]
        drawn = LabelledSet.split(self[first], val=val, test=test, seed=seed).part_positions
        chosen = {part: torch.isin(shown, kinds[places]) for part, places in drawn.items()}
        return self._view(self._rows, {part: self._rows[mask] for part, mask in chosen.items()})


def seen_object(
    cutouts: CutOuts,
    count: int,
    *,
    side: int = 224,
    scale: tuple[float, float] = (0.4, 0.7),
    backgrounds: Sequence[UInt8[Tensor, "3 _ _"]] | None = None,
    seed: int = 0,
) -> SeenObjects:
    """One thing at a random place of a background that has nothing to do with it; the label is its class.

    Classes come equally often, and so do the cut-outs of a class. A cut-out is whole, and mirrored in half of its
    pictures. Parts are drawn by cut-out: what a test picture shows was in no training picture. Backgrounds are crops
    of a few photographs, which all parts share, drawn regardless of the class.

    A right explanation of a model that solves it says: the patches that decide lie on the object. Objects are seen
    against a border, so patches beside it may decide, too; and a patch of a deep backbone has seen more of the picture
    than its box.

    Args:
        cutouts: What to show, such as `load_cutouts()`.
        count: Pictures.
        side: Side of the pictures in pixels.
        scale: Smallest and largest longer side of an object, as a share of the picture's side.
        backgrounds: Photographs (3, h, w), 0 to 255; by default six that ship in packages.
        seed: Decides the draw.

    Returns:
        The pictures with their `masks` (b, side, side), and parts `train` (60% of the cut-outs), `val` and `test`.

    Raises:
        ValueError: If `scale` is not in order within (0, 1], or there is no background.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale: got {scale}; expected 0 < smallest ≤ largest ≤ 1; give shares of the side")
    behind = photographs() if backgrounds is None else tuple(backgrounds)
    if not behind:
        raise ValueError("backgrounds: got none; expected one or more; leave it out for those in packages")
    generator = torch.Generator().manual_seed(seed)
    shown = _drawn_objects(cutouts, count, generator)
    numbers = torch.rand(count, PLACING + BEHIND, generator=generator)
    which = torch.randint(len(behind), (count,), generator=generator)
    pictures = torch.empty(count, 3, side, side, dtype=torch.uint8)
    masks = torch.empty(count, side, side, dtype=torch.bool)
    for row, number in enumerate(shown.tolist()):
        background = cropped(behind[int(which[row])], side, numbers[row, PLACING:])
        placed = _placed(cutouts.pictures[number], side, scale, numbers[row, :PLACING])
        pictures[row], masks[row] = _over(background, placed), placed[3] >= 128
    labels = torch.tensor(cutouts.labels)[shown]
    whole = SeenObjects(pictures, masks, shown, labels, names=cutouts.names, classes=cutouts.classes)
    return whole.split(val=VAL, test=TEST, seed=seed)


def _drawn_objects(cutouts: CutOuts, count: int, generator: torch.Generator) -> Rows:
    """Class after class, and of each one cut-out after another, then shuffled."""
    labels = torch.tensor(cutouts.labels)
    there = labels.unique()
    shown = torch.empty(count, dtype=torch.int64)
    for start, label in enumerate(there.tolist()):
        own = (labels == label).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        size = len(shown[start :: len(there)])
        shown[start :: len(there)] = own[torch.arange(size) % len(own)]
    return shown[torch.randperm(count, generator=generator)]


def _placed(
    cutout: UInt8[Tensor, "4 h w"], side: int, scale: tuple[float, float], drawn: Float[Tensor, "4"]
) -> UInt8[Tensor, "4 side side"]:
    """A cut-out on an empty square; `drawn` in [0, 1) says its size, left, top, and whether it is mirrored."""
    trimmed = _trimmed(cutout)
    size = float(scale[0] + (scale[1] - scale[0]) * drawn[0]) * side
    shrink = size / max(trimmed.shape[1:])
    h, w = (max(1, round(shrink * length)) for length in trimmed.shape[1:])
    image = Image.fromarray(trimmed.permute(1, 2, 0).numpy())  # resized with its colours weighted by opacity
    pixels = torch.from_numpy(np.array(image.resize((w, h), Image.Resampling.LANCZOS))).permute(2, 0, 1)
    left, top = int(drawn[1] * (side - w + 1)), int(drawn[2] * (side - h + 1))
    placed = torch.zeros(4, side, side, dtype=torch.uint8)
    placed[:, top : top + h, left : left + w] = pixels.flip(2) if drawn[3] < 0.5 else pixels
    return placed


def _trimmed(cutout: UInt8[Tensor, "4 h w"]) -> UInt8[Tensor, "4 _ _"]:
    """Without empty rows and columns at its borders."""
    rows, columns = ((cutout[3] >= 128).any(dim=axis).nonzero().flatten() for axis in (1, 0))
    return cutout[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _over(
    background: UInt8[Tensor, "3 side side"], placed: UInt8[Tensor, "4 side side"]
) -> UInt8[Tensor, "3 side side"]:
    opacity = placed[3:].float() / 255
    return (background * (1 - opacity) + placed[:3] * opacity).round().to(torch.uint8)
