"""How sure a comparison is: seeds and pictures drawn anew together, exact paired tests, corrected over tasks."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.intervals import RESAMPLED, Estimate, Groups, drawn_together, draws_of, percentiles
from grafeat.lab.measures import Measured

BINARY = ("accuracy", "recall@5")  # measures by which each picture is right or wrong
Drawn = Float[Tensor, " drawn"]


def drawn_figures(
    runs: Sequence[Sequence[Measured]], *, groups: Groups | None = None, seed: int = 0
) -> Float[Tensor, "drawn k"]:
    """The figures of several methods, as they come out where seeds and pictures are drawn anew together.

    All methods see the same draws, so that the difference of two columns is drawn in pairs. In retrieval a picture that
    is drawn twice asks twice and is found twice, to first order (`influences`); by recall@k it only asks twice.

    Args:
        runs: What one measure says of each method (k), after each training (seeds), of the same pictures.
        groups: Number of each picture's group (b,), where pictures of a group share something and are drawn together.
        seed: Decides the draws: 10,000 for means over pictures, 2,000 for an AUROC, which is computed for each.

    Raises:
        ValueError: If there is not one group for each picture.

    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007: seeds and pictures are crossed, as every
    training sees every picture, and are drawn each by themselves.
    """
    first = runs[0][0]
    if first.values is not None:
        each = [[run.values if run.redrawn is None else run.redrawn for run in method] for method in runs]
        return drawn_together(_stacked(each), groups=groups, seed=seed)
    assert first.anomalous is not None
    scores = _stacked([[run.scores for run in method] for method in runs])
    return drawn_auroc(scores, first.anomalous, groups=groups, seed=seed)


def drawn_auroc(
    scores: Float[Tensor, "k seeds b"],
    anomalous: Bool[Tensor, " b"],
    *,
    groups: Groups | None = None,
    draws: int = RESAMPLED,
    seed: int = 0,
) -> Float[Tensor, "drawn k"]:
    """AUROCs of several methods, computed anew for seeds and pictures that are drawn anew together.

    NaN for draws that have anomalous pictures only, or none.

    Args:
        scores: Each method's score of each picture after each training.
        anomalous: Whether each picture is anomalous.
        groups: Number of each picture's group (b,), where pictures of a group share something and are drawn together.
        draws: Bootstrap draws.
        seed: Decides the draws.

    Raises:
        ValueError: If there is not one group for each picture.
    """
    _, seeds, pictures = scores.shape
    rows = [[_Ranked(one, anomalous) for one in method] for method in scores.unbind()]
    found = []
    for by_seed, by_picture in draws_of(seeds, pictures, groups=groups, draws=draws, seed=seed):
        each = torch.stack([torch.stack([one.auroc(by_picture) for one in method]) for method in rows])
        found.append(torch.einsum("ksn,ns->nk", each, by_seed.double()) / seeds)
    return torch.cat(found)


class _Ranked:
    """Scores of one training in their order, so that an AUROC for pictures drawn anew is a sum along it.

    Args:
        scores: The scores (b,).
        anomalous: Whether each picture is anomalous (b,).
    """

    def __init__(self, scores: Float[Tensor, " b"], anomalous: Bool[Tensor, " b"]) -> None:
        rising, self.order = scores.sort()
        self.anomalous = anomalous[self.order]
        changes = (rising[1:] != rising[:-1]).nonzero().flatten() + 1
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), changes])  # of each run of equal scores

    def auroc(self, counts: Float[Tensor, "drawn b"]) -> Drawn:
        """The AUROC if each picture was there so many times."""
        sorted_counts = counts[:, self.order].double()
        unknown = self._by_run(sorted_counts * self.anomalous)
        normal = self._by_run(sorted_counts * ~self.anomalous)
        below = normal.cumsum(dim=1) - normal / 2  # equal scores count half
        return (unknown * below).sum(dim=1) / (unknown.sum(dim=1) * normal.sum(dim=1))

    def _by_run(self, values: Float[Tensor, "drawn b"]) -> Float[Tensor, "drawn runs"]:
        if len(self.starts) == values.shape[1]:
            return values
        run = torch.zeros(values.shape[1], dtype=torch.int64)
        run[self.starts[1:]] = 1
        summed = values.new_zeros(len(values), len(self.starts))
        return summed.index_add_(1, run.cumsum(dim=0), values)


def figure_of(runs: Sequence[Measured]) -> float:
    """Mean figure over the trainings of one method."""
    return sum(run.figure for run in runs) / len(runs)


def estimate(figure: float, drawn: Drawn) -> Estimate:
    """A figure with its 95% interval, from what it was in each draw."""
    low, high = percentiles(drawn[:, None])
    return Estimate(figure, float(low), float(high))


def mcnemar(first: Bool[Tensor, " b"], second: Bool[Tensor, " b"]) -> float:
    """Exact two-sided p value of McNemar's test: whether two methods err equally often on the same pictures.

    It takes the pictures for independent of each other, so it is not for those that come in groups.

    Args:
        first: Whether one method was right on each picture (b,).
        second: The same for the other.

    Source: McNemar, Psychometrika 1947; the exact form is the binomial test of the pictures on which only one is right.
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    count = one + other
    tail = sum(math.comb(count, k) for k in range(min(one, other) + 1))  # exact, however small p is
    return min(1.0, 2 * tail / 2**count)


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for being several, so that any false alarm among them is as rare as each one promises.

    Args:
        values: The p values; NaN stays, and does not count.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    there = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    corrected, highest = list(values), 0.0
    for rank, (value, place) in enumerate(there):
        highest = max(highest, min(1.0, (len(there) - rank) * value))
        corrected[place] = highest
    return corrected


def correct(measured: Measured) -> Bool[Tensor, " b"] | None:
    """Whether each picture was right, where a measure says so of each; else None."""
    return measured.values == 1 if measured.measure in BINARY and measured.values is not None else None


def _stacked(values: Sequence[Sequence[Tensor | None]]) -> Float[Tensor, "k seeds b"]:
    return torch.stack([torch.stack([one.double() for one in method if one is not None]) for method in values])

