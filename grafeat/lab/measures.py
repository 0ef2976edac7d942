"""How good a model's answers and image vectors are: one figure, and what each picture adds to it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.lab.task import ANOMALY, MEASURES
from grafeat.splits import Rows

Vectors = Float[Tensor, "b d"]
OF_VECTORS = tuple(measure for measure in MEASURES if measure != "accuracy")
# Neighbours that count. One odd neighbour does not decide, and there are as many of a class even where only 10 of its
# pictures are labelled.
NEIGHBOURS = 5
AT_ONCE = 2**22  # similarities that are sorted at once


@dataclass(frozen=True, eq=False)
class Measured:
    """What one measure says of a model on a test set.

    Attributes:
        measure: Its name.
        values: What each picture adds, in [0, 1]: their mean is the figure. None for an AUROC.
        redrawn: What each picture counts for where pictures are drawn anew, if that is more than `values`: in retrieval
            it asks, and is found or stands in the way as well. Their mean is the figure, too.
        scores: How far each picture is from what was trained, for an AUROC; else None.
        anomalous: Whether each picture is of a class that was not trained, for an AUROC; else None.
    """

    measure: str
    values: Float[Tensor, " b"] | None = None
    redrawn: Float[Tensor, " b"] | None = None
    scores: Float[Tensor, " b"] | None = None
    anomalous: Bool[Tensor, " b"] | None = None

    @property
    def figure(self) -> float:
        """The figure, in [0, 1]; more is better."""
        if self.values is not None:
            return float(self.values.double().mean())
        assert self.scores is not None and self.anomalous is not None
        return auroc(self.scores, self.anomalous)

    def __repr__(self) -> str:
        every = self.scores if self.values is None else self.values
        return f"{self.measure} {self.figure:.1%} ({0 if every is None else len(every):,} pictures)"


def measured(
    measure: str,
    labels: Rows,
    logits: Float[Tensor, "b t"],
    *,
    vectors: Vectors | None = None,
    train_vectors: Float[Tensor, "m d"] | None = None,
    train_labels: Int[Tensor, " m"] | None = None,
) -> Measured:
    """What a measure says of a model's answers to a test set.

    Args:
        measure: One of `MEASURES`.
        labels: True class of each test picture (b,).
        logits: The model's logits for them (b, t).
        vectors: Their image vectors (b, d), for every measure but accuracy.
        train_vectors: Image vectors (m, d) of the pictures it was trained on, for an AUROC.
        train_labels: The classes of those (m,).

    Raises:
        ValueError: If the measure is unknown, what it needs is not there or not finite, or numbers of pictures differ.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure: got {measure!r}; expected one of {', '.join(MEASURES)}; name one of them")
    _check_counts(labels=labels, logits=logits)
    if measure == "accuracy":
        return Measured(measure, values=(logits.argmax(dim=1) == labels).double())
    vectors = _given("vectors", measure, vectors)
    _check_counts(labels=labels, vectors=vectors)
    if measure not in ANOMALY:
        if measure == "recall@5":
            return Measured(measure, values=recalls(vectors, labels))
        values = average_precisions(vectors, labels)
        return Measured(measure, values=values, redrawn=values + influences(vectors, labels))
    train_vectors = _given("train_vectors", measure, train_vectors)
    anomalous = labels >= logits.shape[1]
    if measure == "knn_auroc":
        return Measured(measure, scores=neighbour_distances(vectors, train_vectors), anomalous=anomalous)
    if train_labels is None:
        raise ValueError(f"train_labels: got None; expected the classes of the training vectors for {measure!r}")
    scores = mahalanobis(vectors, train_vectors, train_labels)
    return Measured(measure, scores=scores, anomalous=anomalous)


def average_precisions(vectors: Vectors, labels: Rows) -> Float[Tensor, " b"]:
    """Average precision of each picture as a query, among all others, by cosine similarity.

    Those of its own class are to come first. Where others are equally similar, they count as found at once, as in
    scikit-learn. The mean over pictures is the mean average precision.

    Args:
        vectors: Image vectors (b, d).
        labels: Class of each (b,).

    Raises:
        ValueError: If a class has one picture only, which then has nothing to find.

    Source: Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, section 8.4.
    """
    return torch.cat([each.average for each in _ranked(vectors, labels)])


def influences(vectors: Vectors, labels: Rows) -> Float[Tensor, " b"]:
    """What each picture does to the average precisions of all others by being there to be found.

    The derivative of their sum by how often the picture is there: above 0 for one that comes before pictures of other
    classes where its own class is asked for, below 0 for one that stands in the way. They sum to 0.

    Args:
        vectors: Image vectors (b, d).
        labels: Class of each (b,).

    Raises:
        ValueError: If a class has one picture only.

    Source: the infinitesimal jackknife, Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982,
        chapter 6, of the weighted average precision sum(w hit precision) / sum(w hit).
    """
    found = torch.zeros(len(vectors), dtype=torch.float64)
    for each in _ranked(vectors, labels):
        relevant = each.hits.sum(dim=1, keepdim=True)
        # a picture is counted in every precision that is taken at its place or later, and in those of equal similarity
        later = [_later_sum(each.hits * part / (each.ends + 1), each.starts) for part in (1, each.precision)]
        slope = (each.hits * (each.precision - each.average[:, None] + later[0]) - later[1]) / relevant
        found.index_add_(0, each.pictures.flatten(), slope.flatten())
    return found


def recalls(vectors: Vectors, labels: Rows, *, k: int = NEIGHBOURS) -> Float[Tensor, " b"]:
    """Whether one of the `k` most similar others is of the picture's class: 1 or 0 for each picture.

    Similarity is the cosine. Of others that are equally similar, the earlier in the set come first.

    Args:
        vectors: Image vectors (b, d).
        labels: Class of each (b,).
        k: Others that are looked at.

    Raises:
        ValueError: If a class has one picture only.

    Source: recall@k as in Jégou, Douze and Schmid, TPAMI 2011, and in metric learning since Oh Song et al., CVPR 2016.
    """
    _check_others(labels)
    found = []
    for similar, relevant in _others(vectors, labels):
        nearest = similar.sort(dim=1, descending=True, stable=True).indices[:, :k]
        found.append(relevant.gather(1, nearest).any(dim=1).double())
    return torch.cat(found)


def neighbour_distances(
    vectors: Vectors, train_vectors: Float[Tensor, "m d"], *, k: int = NEIGHBOURS
) -> Float[Tensor, " b"]:
    """Cosine distance of each picture to its `k`-th nearest training picture, in [0, 2]: large for what is unknown.

    Args:
        vectors: Image vectors (b, d).
        train_vectors: Those of the training pictures (m, d); the farthest counts where there are fewer than `k`.
        k: The neighbour that counts.

    Source: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, who take the Euclidean
        distance of normalised vectors, which orders pictures alike, and k between 1 and 1,000 by the set's size.
    """
    known = F.normalize(train_vectors.double(), dim=1)
    at_once = max(1, AT_ONCE // len(known))
    parts = F.normalize(vectors.double(), dim=1).split(at_once)
    nearest = [(part @ known.T).topk(min(k, len(known)), dim=1).values[:, -1] for part in parts]
    return 1 - torch.cat(nearest)


def mahalanobis(
    vectors: Vectors, train_vectors: Float[Tensor, "m d"], train_labels: Int[Tensor, " m"]
) -> Float[Tensor, " b"]:
    """Squared Mahalanobis distance of each picture to the nearest class: large for what is unknown.

    Each class has its mean; all share the covariance of the training vectors around their class's mean, shrunk towards
    a multiple of the identity, as a few hundred vectors do not settle a covariance of hundreds of dimensions.

    Args:
        vectors: Image vectors (b, d).
        train_vectors: Those of the training pictures (m, d).
        train_labels: The classes of those (m,).

    Raises:
        ValueError: If vectors are not finite, or numbers of pictures differ.

    Source: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
        NeurIPS 2018, equation 2, without its ensemble of layers and with the shrinkage of Ledoit and Wolf, Journal of
        Multivariate Analysis 2004.
    """
    from sklearn.covariance import LedoitWolf

    _check_counts(train_labels=train_labels, train_vectors=train_vectors)
    known, numbers = train_vectors.double(), train_labels.unique(return_inverse=True)[1]
    of_class = F.one_hot(numbers).double()
    means = of_class.T @ known / of_class.sum(dim=0)[:, None]
    within = LedoitWolf(assume_centered=True).fit((known - means[numbers]).numpy())
    precision = torch.from_numpy(within.precision_)
    from_mean = vectors.double()[:, None] - means  # b × classes × d
    return torch.einsum("btd,de,bte->bt", from_mean, precision, from_mean).amin(dim=1)


def auroc(scores: Float[Tensor, " b"], anomalous: Bool[Tensor, " b"]) -> float:
    """The chance that an anomalous picture has a higher score than a normal one; equal scores count half.

    Args:
        scores: A score for each picture (b,).
        anomalous: Whether it is anomalous (b,).

    Raises:
        ValueError: If all pictures are anomalous, or none is.

    Source: Hanley and McNeil, Radiology 1982.
    """
    if bool(anomalous.all()) or not bool(anomalous.any()):
        raise ValueError(
            f"anomalous: got {int(anomalous.sum()):,} of {len(anomalous):,} pictures; expected some and not all; test "
            "on known and unknown classes"
        )
    normal, unknown = scores[~anomalous].sort().values, scores[anomalous].contiguous()
    below = torch.searchsorted(normal, unknown) + torch.searchsorted(normal, unknown, right=True)
    return float(below.double().mean() / 2 / len(normal))


@dataclass(frozen=True, eq=False)
class _Ranked:
    """What some queries find, most similar first.

    Attributes:
        pictures: The picture at each place.
        hits: 1 where it is of the query's class, else 0.
        starts: The first place of equal similarity.
        ends: The last place of equal similarity.
        precision: The share of hits up to there.
    """

    pictures: Int[Tensor, "q o"]
    hits: Float[Tensor, "q o"]
    starts: Int[Tensor, "q o"]
    ends: Int[Tensor, "q o"]
    precision: Float[Tensor, "q o"]

    @property
    def average(self) -> Float[Tensor, " q"]:
        """The average precision of each query."""
        return (self.precision * self.hits).sum(dim=1) / self.hits.sum(dim=1)


def _ranked(vectors: Vectors, labels: Rows) -> Iterator[_Ranked]:
    """The queries, some after others."""
    _check_others(labels)
    done = 0
    for similar, relevant in _others(vectors, labels):
        order = similar.argsort(dim=1, descending=True)
        falling, hits = similar.gather(1, order), relevant.gather(1, order).double()
        starts, ends = order.shape[1] - 1 - _ends(falling.flip(1)).flip(1), _ends(falling)
        ranks = torch.arange(1, order.shape[1] + 1, dtype=torch.float64)
        precision = (hits.cumsum(dim=1) / ranks).gather(1, ends)
        queries = torch.arange(done, done + len(order))[:, None]
        yield _Ranked(order + (order >= queries), hits, starts, ends, precision)  # the query itself is left out
        done += len(order)


def _later_sum(values: Float[Tensor, "q o"], starts: Int[Tensor, "q o"]) -> Float[Tensor, "q o"]:
    """The sum of all values from the start of each place's run of equal similarity on."""
    return values.flip(1).cumsum(dim=1).flip(1).gather(1, starts)


def _others(
    vectors: Vectors, labels: Rows
) -> Iterator[tuple[Float[Tensor, "q others"], Bool[Tensor, "q others"]]]:
    """For some pictures after others: how similar all other pictures are, and which of those are of the same class."""
    unit = F.normalize(vectors.double(), dim=1)
    for rows in torch.arange(len(unit)).split(max(1, AT_ONCE // len(unit))):
        other = torch.ones(len(rows), len(unit), dtype=torch.bool)
        other[torch.arange(len(rows)), rows] = False
        same = labels[rows, None] == labels
        yield (unit[rows] @ unit.T)[other].view(len(rows), -1), same[other].view(len(rows), -1)


def _ends(similar: Float[Tensor, "q o"]) -> Int[Tensor, "q o"]:
    """For each place of rows in falling order, the last place that has the same similarity."""
    last = torch.ones_like(similar, dtype=torch.bool)
    last[:, :-1] = similar[:, :-1] != similar[:, 1:]
    places = torch.arange(similar.shape[1]).expand_as(last)
    later = torch.where(last, places, similar.shape[1])
    return later.flip(1).cummin(dim=1).values.flip(1)


def _check_others(labels: Rows) -> None:
    classes, counts = labels.unique(return_counts=True)
    if not len(labels) or int(counts.min()) < 2:
        found = f"1 picture of class {int(classes[counts.argmin()])}" if len(labels) else "no pictures"
        raise ValueError(
            f"labels: got {found}; expected 2 or more of each class, so that there is something to find; leave the "
            "class out"
        )


def _check_counts(**given: Tensor) -> None:
    (first, one), (second, other) = given.items()
    if len(one) != len(other):
        raise ValueError(
            f"{first}, {second}: got {len(one):,} and {len(other):,}; expected one of each for every picture; slice "
            "both alike"
        )


def _given(argument: str, measure: str, vectors: Vectors | None) -> Vectors:
    if vectors is None:
        raise ValueError(f"{argument}: got None; expected image vectors (b, d) for {measure!r}; pass model.embed(…)")
    if not bool(torch.isfinite(vectors).all()):
        raise ValueError(f"{argument}: got NaN or infinity; expected finite numbers; check the training")
    return vectors
