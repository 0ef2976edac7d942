"""What each backbone adds to a contender's accuracy, over several trainings: CUR, its spread, every subset."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.intervals import RESAMPLED, Estimate, Groups, drawn_together, percentiles, reversed_percentiles

Subsets = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Utilisation:
    """How a contender uses its backbones.

    Attributes:
        subsets: Accuracy with each subset of backbones, by their names joined with " + "; all of them first.
        rates: CUR of each backbone: the accuracy of all minus that without it, as a share of the accuracy of all.
            Empty for a single backbone.
        gap: The spread of these rates, largest minus smallest; None for a single backbone.
    """

    subsets: dict[str, float]
    rates: dict[str, Estimate]
    gap: Estimate | None


def utilisation(
    subsets: Subsets, right: Bool[Tensor, "subsets seeds b"], *, groups: Groups | None = None, seed: int = 0
) -> Utilisation:
    """CUR and information gap as in `Dominance.utilisation`, with seeds and pictures drawn anew together.

    Args:
        subsets: The backbones that take part in each, all of them first.
        right: Whether each test picture was right after each training.
        groups: Number of each picture's group (b,), where pictures of a group share something and are drawn together.
        seed: Decides the draws.

    Raises:
        ValueError: If there is not one group for each picture.

    Source: "Investigating Redundancy in Multimodal LLMs with Multiple Vision Encoders", 2025 (arXiv 2507.03262).
    """
    names, means = subsets[0], right.double().mean(dim=(1, 2))
    accuracies = {" + ".join(some): float(mean) for some, mean in zip(subsets, means, strict=True)}
    if len(names) < 2:
        return Utilisation(accuracies, {}, None)
    places = [0, *(subsets.index(tuple(other for other in names if other != name)) for name in names)]
    drawn = _rates(drawn_together(right[places].double(), groups=groups, draws=RESAMPLED, seed=seed))
    found, (low, high) = _rates(means[None, places])[0], percentiles(drawn)
    ends = zip(names, found.tolist(), low.tolist(), high.tolist(), strict=True)
    spread, spreads = _spread(found[None]), _spread(drawn)[:, None]
    gap = (float(end.clamp(min=0)) for end in reversed_percentiles(spread, spreads))
    return Utilisation(
        accuracies, {name: Estimate(*numbers) for name, *numbers in ends}, Estimate(float(spread), *gap)
    )


def _rates(accuracy: Float[Tensor, "drawn m_and_all"]) -> Float[Tensor, "drawn m"]:
    """NaN where all get nothing right: there is no share of it."""
    whole = accuracy[:, :1]
    return (whole - accuracy[:, 1:]) / whole.where(whole > 0, torch.nan)


def _spread(rates: Float[Tensor, "drawn m"]) -> Float[Tensor, " drawn"]:
    return rates.amax(dim=1) - rates.amin(dim=1)
