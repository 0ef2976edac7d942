"""How sure a figure is: intervals over pictures, and over seeds and pictures together."""

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
    first: PerPicture, second: PerPicture, *, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Mean of one method minus that of another, on the same seeds and pictures, with its 95% interval.

    Seeds and pictures are drawn anew together, so that the interval covers both another training and other pictures.

    Args:
        first: A figure of each picture (columns) after each training (rows), such as whether it was right.
        second: The same for the method to compare with.
        draws: Bootstrap draws.
        seed: Decides the draws.

    Raises:
        ValueError: If the two do not have the same seeds and pictures.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"first, second: got shapes {tuple(first.shape)} and {tuple(second.shape)}; expected (seeds, pictures) for "
            "both; compare runs on the same seeds and test pictures"
        )
    difference = first.double() - second.double()
    low, high = percentiles(drawn_together(difference[None], draws=draws, seed=seed))
    return Estimate(float(difference.mean()), float(low), float(high))


def drawn_together(
    values: Float[Tensor, "k seeds b"], *, draws: int = DRAWS, seed: int = 0
) -> Float[Tensor, "drawn k"]:
    """Means of several figures over seeds and pictures that are drawn anew together, alike for all figures.

    Args:
        values: Each figure of each picture after each training.
        draws: Bootstrap draws.
        seed: Decides the draws.
    """
    kinds, seeds, pictures = values.shape
    flat, means = values.double().flatten(0, 1), []
    for by_seed, by_picture in draws_of(seeds, pictures, draws=draws, seed=seed):
        by_training = (flat @ by_picture.double().mT).view(kinds, seeds, -1)
        means.append((by_training * by_seed.double().mT).sum(dim=1).mT / (seeds * pictures))
    return torch.cat(means)


def draws_of(
    seeds: int, pictures: int, *, draws: int = DRAWS, seed: int = 0
) -> Iterator[tuple[Float[Tensor, "drawn seeds"], Float[Tensor, "drawn b"]]]:
    """How often each seed (drawn, seeds) and each picture (drawn, pictures) is drawn, some draws at a time."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(seeds, (draws, seeds), generator=generator)
    for some in chosen.split(max(1, CHUNK // pictures)):
        rows = torch.randint(pictures, (len(some), pictures), generator=generator)
        yield _counts(some, seeds), _counts(rows, pictures)


def _counts(drawn: Int[Tensor, "drawn k"], size: int) -> Float[Tensor, "drawn k"]:
    return torch.zeros(len(drawn), size).scatter_add_(1, drawn, torch.ones(()).expand(drawn.shape))
