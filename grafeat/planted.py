"""Tasks on made-up feature grids whose answer is known by construction."""

import torch

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
    return GridSet(
        grids, standing[torch.arange(count), marked], classes=[str(number) for number in range(num_classes)]
    )
