"""Made-up grids: a backbone that points, one that speaks among noise, and one that is there twice."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from grafeat.grids import FeatureGrid, GridSet


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
    return GridSet(grids, standing[torch.arange(count), marked], classes=numbered(num_classes))


def one_speaks(
    count: int,
    *,
    speaker: str = "a",
    backbones: Sequence[str] = ("a", "b"),
    shape: tuple[int, int] = (4, 5),
    num_classes: int = 4,
    channels: int = 7,
    noise: float = 0.1,
    silent: float = 0.0,
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

    A model may also learn to say one class by default, where it finds the mark of no other. It is never wrong, and in
    pictures of that class no patch is decisive, the planted one included: a right explanation says so. Train it with
    pictures in which the speaker is `silent`, and the default no longer pays.

    Args:
        count: Pictures.
        speaker: The backbone that knows; one of `backbones`.
        backbones: Their names.
        shape: Rows and columns (h, w) of every grid.
        num_classes: Classes t; chance is 1 / t.
        channels: Channels of every grid; at least `num_classes`.
        noise: Standard deviation of the normal noise in all channels; the planted patch stands out by 1.
        silent: Share of pictures, in [0, 1], whose patch is not planted after all, so that their label can only be
            guessed. Which they are is drawn last: all else is as without.
        seed: Decides the draw.

    Returns:
        The grids, and the row and column (b, 2) of each picture's planted patch on the speaker's grid.

    Raises:
        ValueError: If `speaker` is not among the backbones, there are fewer channels than classes, or `silent` is no
            share.
    """
    if speaker not in backbones:
        raise ValueError(
            f"speaker: got {speaker!r}; expected one of {', '.join(backbones)}; name it in backbones="
        )
    if channels < num_classes:
        raise ValueError(
            f"channels: got {channels}; expected at least {num_classes}, a channel for each class"
        )
    if not 0 <= silent <= 1:
        raise ValueError(f"silent: got {silent}; expected a share in [0, 1]; 0.2 is one picture in five")
    generator = torch.Generator().manual_seed(seed)
    patches = shape[0] * shape[1]
    planted = torch.randint(patches, (count,), generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    features = {
        name: noise * torch.randn(count, channels, patches, generator=generator) for name in backbones
    }
    spoken = torch.rand(count, generator=generator) >= silent
    features[speaker][torch.arange(count), labels, planted] += spoken.float()
    grids = [FeatureGrid(name, features[name].unflatten(-1, shape)) for name in backbones]
    places = torch.stack([planted // shape[1], planted % shape[1]], dim=1)
    return GridSet(grids, labels, classes=numbered(num_classes)), places


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


def numbered(num_classes: int) -> list[str]:
    """Names of classes that have none: 0, 1, 2, …"""
    return [str(number) for number in range(num_classes)]
