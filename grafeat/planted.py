"""Tasks whose answer is known by construction, and with it what a right explanation of a good model must say."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from grafeat.grids import FeatureGrid, GridSet
from grafeat.pictures import PictureSet


def pointer(
    count: int,
    *,
    shape: tuple[int, int] = (4, 5),
    num_classes: int = 4,
    channels: tuple[int, int] = (5, 7),
    noise: float = 0.1,
    seed: int = 0,
) -> GridSet:
    """One backbone points at a place, the other knows what stands at every place: the label is what stands there.

    `pointer` marks one random patch in its channel 0. `classes` carries one of the classes at every patch, in the
    channel of that number. Neither knows the label alone, and pooling each before joining them loses it: the two grids
    must match places, patch by patch.

    A right explanation of a model that solves it says: neither backbone is worth much without the other, nearly all of
    the prediction is their interaction, and without cross edges little more than chance is left. The two patches at the
    marked place decide.

    Args:
        count: Pictures.
        shape: Rows and columns (h, w) of both grids.
        num_classes: Classes t. `pointer` alone leaves chance, 1 / t; `classes` alone a little more, as the class that
            stands most often is guessed best.
        channels: Channels of `pointer` and of `classes`; the second at least `num_classes`.
        noise: Standard deviation of the normal noise in all channels; the marks stand out by 1.
        seed: Decides the draw.

    Raises:
        ValueError: If `classes` has fewer channels than there are classes.
    """
    if channels[1] < num_classes or channels[0] < 1:
        raise ValueError(
            f"channels: got {channels}; expected at least (1, {num_classes}), a channel for each class"
        )
    generator = torch.Generator().manual_seed(seed)
    patches = shape[0] * shape[1]
    marked = torch.randint(patches, (count,), generator=generator)
    standing = torch.randint(num_classes, (count, patches), generator=generator)
    first, second = (noise * torch.randn(count, c, patches, generator=generator) for c in channels)
    first[torch.arange(count), 0, marked] += 1
    second.scatter_add_(1, standing[:, None], torch.ones(count, 1, patches))
    grids = [
        FeatureGrid("pointer", first.unflatten(-1, shape)),
        FeatureGrid("classes", second.unflatten(-1, shape)),
    ]
    return GridSet(grids, standing[torch.arange(count), marked], classes=_numbered(num_classes))


def one_speaks(
    count: int,
    *,
    speaker: str = "a",
    backbones: Sequence[str] = ("a", "b"),
    shape: tuple[int, int] = (4, 5),
    num_classes: int = 4,
    channels: int = 7,
    noise: float = 0.1,
    seed: int = 0,
) -> tuple[GridSet, Int[Tensor, "b 2"]]:
    """One backbone knows the label, from one patch at a random place; the others see noise.

    The speaker's patch at that place carries the label, in the channel of that number. All else, in every backbone, is
    noise of one kind that has nothing to do with the label. The same seed gives the same places, labels and noise
    whoever speaks.

    A right explanation of a model that solves it says: the speaker has nearly all of the value, and the others a share
    and a CUR of about 0; the planted patch comes first of all patches of all backbones. In the task there is no
    interaction. A model may have one, and values below 0 for noise, as it is surer of the speaker alone than among
    noise: much so with `backbone_drop=0`, when training never showed it one alone, little with two backbones and 0.3.

    Args:
        count: Pictures.
        speaker: The backbone that knows; one of `backbones`.
        backbones: Their names.
        shape: Rows and columns (h, w) of every grid.
        num_classes: Classes t; chance is 1 / t.
        channels: Channels of every grid; at least `num_classes`.
        noise: Standard deviation of the normal noise in all channels; the planted patch stands out by 1.
        seed: Decides the draw.

    Returns:
        The grids, and the row and column (b, 2) of each picture's planted patch on the speaker's grid.

    Raises:
        ValueError: If `speaker` is not among the backbones, or there are fewer channels than classes.
    """
    if speaker not in backbones:
        raise ValueError(
            f"speaker: got {speaker!r}; expected one of {', '.join(backbones)}; name it in backbones="
        )
    if channels < num_classes:
        raise ValueError(
            f"channels: got {channels}; expected at least {num_classes}, a channel for each class"
        )
    generator = torch.Generator().manual_seed(seed)
    patches = shape[0] * shape[1]
    planted = torch.randint(patches, (count,), generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    grids = []
    for name in backbones:
        features = noise * torch.randn(count, channels, patches, generator=generator)
        if name == speaker:
            features[torch.arange(count), labels, planted] += 1
        grids.append(FeatureGrid(name, features.unflatten(-1, shape)))
    places = torch.stack([planted // shape[1], planted % shape[1]], dim=1)
    return GridSet(grids, labels, classes=_numbered(num_classes)), places


def repeat(
    count: int,
    *,
    backbones: Sequence[str] = ("first", "second"),
    shape: tuple[int, int] = (4, 5),
    num_classes: int = 4,
    channels: int = 7,
    noise: float = 0.1,
    seed: int = 0,
) -> GridSet:
    """The same backbone under several names: what one knows, the others know, noise included.

    Each has the grid of the speaker of `one_speaks` with the same seed, which is enough for the label.

    A right explanation says: with the same parameters for all, equal values in every picture; with parameters of their
    own, values that differ by chance alone, so that the difference over many trainings holds 0. The interaction is
    negative, as they repeat each other, and no one's CUR is above 0, as the others stand in for it.

    Args:
        count: Pictures.
        backbones: The names.
        shape: Rows and columns (h, w) of the grid.
        num_classes: Classes t; chance is 1 / t.
        channels: Channels of the grid; at least `num_classes`.
        noise: Standard deviation of the normal noise in all channels; the planted patch stands out by 1.
        seed: Decides the draw.

    Raises:
        ValueError: If a name comes twice, or there are fewer channels than classes.
    """
    speaks, _ = one_speaks(
        count,
        speaker="a",
        backbones=("a",),
        shape=shape,
        num_classes=num_classes,
        channels=channels,
        noise=noise,
        seed=seed,
    )
    features = speaks["a"].features
    return GridSet([FeatureGrid(name, features) for name in backbones], speaks.labels, classes=speaks.classes)


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
        classes=_numbered(2 * len(digits.classes) - 1),
        name=f"two of {digits.name}",
        parts=dict(zip(parts, torch.arange(count).split(sizes), strict=True)),
    )


def blind(digits: PictureSet, count: int, *, patch: int = 4, seed: int = 0) -> GridSet:
    """Each of two backbones sees one digit of `two_digits`, and the label is the sum: none can know it alone.

    `left` and `right` are no networks: the features of a patch are the grey values of its pixels, and the grid's field
    is the half that it sees.

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


def _numbered(num_classes: int) -> list[str]:
    return [str(number) for number in range(num_classes)]
