"""Pictures of two digits, of which each of two backbones sees one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from grafeat.grids import FeatureGrid, GridSet
from grafeat.pictures import PictureSet
from grafeat.planted.grids import numbered


def two_digits(digits: PictureSet, count: int, *, seed: int = 0) -> PictureSet:
    """Pictures of two digits side by side, whose label is the sum of the two.

    Digits are drawn at random, and never from another part: no digit of a test picture stands in a training picture.
    Where the classes are even, the sum is one of t equally likely ones for those who know one digit alone: they are
    right in 1 of t pictures, as is whoever always says t - 1, the sum that comes most often. Of ten digits that is 10%.

    To blind real backbones, extract with a view for each: `load_backbone(…, view=Crop(0, 0, 0.5, 1))` sees the left
    digit alone, `view=Crop(0.5, 0, 1, 1)` the right one. `blind` does so without backbones.

    Args:
        digits: Pictures of one size with labels and parts, such as `load_dataset("mnist5k")`.
        count: Pictures to make; each part gets as large a share of them as it has of the digits.
        seed: Decides the draw.

    Returns:
        Pictures (count, 3, H, 2 W) with labels 0 to 2 t - 2 and the parts of `digits`.

    Raises:
        ValueError: If `digits` has no labels or no parts, or pictures of several sizes.
    """
    labels, parts = digits.required_labels("digits"), digits.part_positions
    if not parts:
        raise ValueError(
            "digits: got a set with no parts; expected train, val and test; make them with .split(…)"
        )
    pictures = digits.pictures
    if not isinstance(pictures, Tensor):
        raise ValueError(
            f"digits: got pictures of several sizes in {digits.name!r}; expected one; resize them"
        )
    if bool((pictures == pictures[:, :1]).all()):
        pictures = pictures[:, :1]  # grey: keep it once
    generator = torch.Generator().manual_seed(seed)
    sizes = _apportioned(count, [len(rows) for rows in parts.values()])
    drawn = [
        rows[torch.randint(max(len(rows), 1), (2, size), generator=generator)]
        for rows, size in zip(parts.values(), sizes, strict=True)
    ]
    left, right = torch.cat(drawn, dim=1)
    return PictureSet(
        torch.cat([pictures[left], pictures[right]], dim=3),
        labels[left] + labels[right],
        classes=numbered(2 * len(digits.classes) - 1),
        name=f"two of {digits.name}",
        parts=dict(zip(parts, torch.arange(count).split(sizes), strict=True)),
    )


def blind(digits: PictureSet, count: int, *, patch: int = 4, seed: int = 0) -> GridSet:
    """Each of two backbones sees one digit of `two_digits`, and the label is the sum: none can know it alone.

    `left` and `right` are no networks: the features of a patch are the grey values of its pixels, and the grid's field
    is the half that it sees. Grey values are hard to learn sums from: a small merge gets about one in five right after
    6,000 pictures, and nine in ten with `two_digits` and two backbones that learned from other digits.

    A right explanation of a model that solves it says: each backbone alone is right in 10% of the pictures, as if it
    had seen nothing, so that each has nearly all of the CUR; over many pictures the two have equal values; in a digit
    the patches with ink decide, and no patch of `left` tells of the right digit.

    Args:
        digits: Pictures of one size with labels and parts, such as `load_dataset("mnist5k")`.
        count: Pictures to make.
        patch: Side of a patch in pixels; divides the height and width of a digit.
        seed: Decides the draw.

    Returns:
        Grids `left` and `right` (count, patch², H / patch, W / patch), with labels and the parts of `digits`.

    Raises:
        ValueError: If `patch` does not divide the digits' sides; as `two_digits` does.
    """
    both = two_digits(digits, count, seed=seed)
    pictures = both.pictures
    assert isinstance(pictures, Tensor)
    height, width = pictures.shape[2], pictures.shape[3] // 2
    if patch < 1 or height % patch or width % patch:
        raise ValueError(
            f"patch: got {patch} for digits {height} × {width}; expected a divisor of both sides"
        )
    left, right = pictures.mean(dim=1, keepdim=True).split(width, dim=3)
    grids = [
        FeatureGrid("left", pixel_unshuffle(left, patch), (0.0, 0.0, 0.5, 1.0)),
        FeatureGrid("right", pixel_unshuffle(right, patch), (0.5, 0.0, 1.0, 1.0)),
    ]
    return GridSet(grids, both.labels, classes=both.classes, parts=both.part_positions)


def _apportioned(count: int, sizes: Sequence[int]) -> list[int]:
    """Whole numbers that sum to `count`, in proportion to `sizes`."""
    total = sum(sizes)
    ends = [round(count * sum(sizes[: part + 1]) / total) for part in range(len(sizes))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
