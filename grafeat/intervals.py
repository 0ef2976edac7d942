"""How sure a figure is: intervals over pictures, and over seeds and pictures together.

Seeds and pictures are crossed, since every training sees every picture; so both are drawn anew, each by itself, and
the ends are percentiles (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007). Such an interval does not
hold its 95% everywhere: with five seeds that differ much more than the pictures it covers about 85%, and where a
training errs on other pictures by chance alone it is wider than it had to be.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Z = 1.959964  # standard normal quantile of a two-sided 95% interval
LEVEL = 0.95
RESAMPLED = 2000  # times the pictures are drawn anew for an interval
DRAWS = 10_000  # times seeds and pictures are drawn anew together
CHUNK = 2**22  # numbers that are drawn or averaged at once
Groups = Int[Tensor, " b"]
PerPicture = Bool[Tensor, "seeds b"] | Float[Tensor, "seeds b"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval.

    Attributes:
        value: The figure.
        low: Lower end of its interval.
        high: Upper end of its interval.
    """

    value: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.value:+.2%} (95% interval {self.low:+.2%} to {self.high:+.2%})"


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95% interval (low, high) of the share `correct / count`, inside [0, 1]. Source: Wilson, JASA 1927."""
    share, spread = correct / count, Z**2 / count
    middle = share + spread / 2
    half = Z * (share * (1 - share) / count + spread / (4 * count)) ** 0.5
    # Rounding must not put the share itself, if it is 0 or 1, outside.
    return max(0.0, min(share, (middle - half) / (1 + spread))), min(1.0, max(share, (middle + half) / (1 + spread)))


def resampled_means(values: Float[Tensor, "b k"], seed: int) -> Float[Tensor, "drawn k"]:
    """Means over pictures that are drawn anew, with repeats, for each bootstrap draw; NaN does not count.

    Args:
        values: Figures of each picture.
        seed: Decides the draws.
    """
    pictures, kinds = values.shape
    generator, at_once = torch.Generator().manual_seed(seed), max(1, CHUNK // (pictures * kinds))
    means = []
    for draws in torch.arange(RESAMPLED).split(at_once):
        drawn = torch.randint(pictures, (len(draws), pictures), generator=generator)
        means.append(values[drawn].nanmean(dim=1))
    return torch.cat(means)


def percentiles(drawn: Float[Tensor, "drawn k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Ends (low, high) of the 95% intervals of resampled figures; draws without a number do not count."""
    tail = (1 - LEVEL) / 2
    low, high = torch.nanquantile(drawn.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    return low, high


def reversed_percentiles(
    figure: Float[Tensor, " k"], drawn: Float[Tensor, "drawn k"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Ends (low, high) of 95% intervals for figures that resampling moves to one side, as it does a spread.

    The distance of each draw from the figure is taken for that of the figure from the truth, bias included.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 5.2 (the basic interval).
    """
    low, high = percentiles(drawn)
    return 2 * figure - high, 2 * figure - low


def paired_difference(
    first: PerPicture,
    second: PerPicture,
    *,
    groups: Groups | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Mean of one method minus that of another, on the same seeds and pictures, with its 95% interval.

    Seeds and pictures are drawn anew together, so that the interval covers both another training and other pictures.
    With five seeds that differ much more than the pictures it covers about 85% instead of 95%.

    Args:
        first: A figure of each picture (columns) after each training (rows), such as whether it was right.
        second: The same for the method to compare with.
        groups: Number of each picture's group (b,), where pictures of a group share something; see `draws_of`.
        draws: Bootstrap draws.
        seed: Decides the draws.

    Raises:
        ValueError: If the two do not have the same seeds and pictures, or there is not one group for each picture.

    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007, here with percentiles.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"first, second: got shapes {tuple(first.shape)} and {tuple(second.shape)}; expected (seeds, pictures) for "
            "both; compare runs on the same seeds and test pictures"
        )
    difference = first.double() - second.double()
    low, high = percentiles(drawn_together(difference[None], groups=groups, draws=draws, seed=seed))
    return Estimate(float(difference.mean()), float(low), float(high))


def drawn_together(
    values: Float[Tensor, "k seeds b"], *, groups: Groups | None = None, draws: int = DRAWS, seed: int = 0
) -> Float[Tensor, "drawn k"]:
    """Means of several figures over seeds and pictures that are drawn anew together, alike for all figures.

    Args:
        values: Each figure of each picture after each training.
        groups: Number of each picture's group (b,), where pictures of a group share something; see `draws_of`.
        draws: Bootstrap draws.
        seed: Decides the draws.

    Raises:
        ValueError: If there is not one group for each picture.
    """
    kinds, seeds, pictures = values.shape
    flat, means = values.double().flatten(0, 1), []
    for by_seed, by_picture in draws_of(seeds, pictures, groups=groups, draws=draws, seed=seed):
        by_training = (flat @ by_picture.double().mT).view(kinds, seeds, -1)
        drawn = by_picture.double().sum(dim=1, keepdim=True)  # pictures: of groups, not as many in each draw
        means.append((by_training * by_seed.double().mT).sum(dim=1).mT / (seeds * drawn))
    return torch.cat(means)


def draws_of(
    seeds: int, pictures: int, *, groups: Groups | None = None, draws: int = DRAWS, seed: int = 0
) -> Iterator[tuple[Float[Tensor, "drawn seeds"], Float[Tensor, "drawn b"]]]:
    """How often each seed (drawn, seeds) and each picture (drawn, pictures) is drawn, some draws at a time.

    Args:
        seeds: How many there are.
        pictures: How many there are.
        groups: Number of each picture's group (b,), where pictures of a group share something, such as the object that
            they show. Groups are then drawn in place of pictures, as many as there are, each with all its pictures.
        draws: Bootstrap draws.
        seed: Decides the draws.

    Raises:
        ValueError: If there is not one group for each picture.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (whole groups are drawn).
    """
    if groups is not None and len(groups) != pictures:
        raise ValueError(
            f"groups: got {len(groups):,}; expected one for each of the {pictures:,} pictures; number the group of each"
        )
    # Without groups each picture is drawn by itself, by the same random numbers as ever.
    own = None if groups is None else groups.unique(return_inverse=True)[1]
    size = pictures if own is None else int(own.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(seeds, (draws, seeds), generator=generator)
    for some in chosen.split(max(1, CHUNK // pictures)):
        by_group = _counts(torch.randint(size, (len(some), size), generator=generator), size)
        yield _counts(some, seeds), by_group if own is None else by_group[:, own]


def _counts(drawn: Int[Tensor, "drawn k"], size: int) -> Float[Tensor, "drawn k"]:
    return torch.zeros(len(drawn), size).scatter_add_(1, drawn, torch.ones(()).expand(drawn.shape))
