"""Each measure agrees with scikit-learn's, and with a case worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from grafeat.lab import MEASURES, Measured, measured, measures
from grafeat.lab.measures import (
    auroc,
    average_precisions,
    influences,
    mahalanobis,
    neighbour_distances,
    recalls,
)

COUNT, CLASSES, WIDTH = 53, 5, 7


def drawn(seed: int, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Vectors that say something of their labels, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    return centres[labels] + torch.randn(count, WIDTH, generator=generator), labels


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    return drawn(0)[0]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return drawn(0)[1]


# Accuracy


def test_accuracy_is_the_share_of_right_answers() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 0.5]])
    found = measured("accuracy", torch.tensor([0, 1, 2]), logits)
    assert found.values is not None and found.values.tolist() == [1, 1, 0]
    assert found.figure == pytest.approx(2 / 3)
    assert repr(found) == "accuracy 66.7% (3 pictures)"


# Retrieval


def weighted_figure(vectors: Tensor, labels: Tensor, counts: Tensor, *, asked: bool = True) -> float:
    """Scikit-learn's mean average precision where each picture asks and is found so many times."""
    similar, others = cosine_similarity(vectors), ~np.eye(len(labels), dtype=bool)
    there = [counts[(labels == labels[i]) & torch.from_numpy(others[i])].sum() > 0 for i in range(len(labels))]
    queries = [i for i in range(len(labels)) if there[i] and (counts[i] or not asked)]
    found = [
        average_precision_score(
            (labels == labels[i])[others[i]], similar[i][others[i]], sample_weight=counts.numpy()[others[i]]
        )
        for i in queries
    ]
    return float(np.average(found, weights=counts[queries] if asked else None))


@pytest.mark.parametrize("ties", [False, True])
def test_an_influence_is_the_slope_of_scikit_learns_weighted_precision(ties: bool) -> None:
    vectors, labels = drawn(2, 23)
    if ties:
        vectors = torch.cat([vectors[:13], vectors[:10]])  # two pictures of another class, or of its own, alike
    expected = []
    for picture in range(23):
        step = 1e-5 * torch.nn.functional.one_hot(torch.tensor(picture), 23).double()
        up, down = (weighted_figure(vectors, labels, 1 + sign * step, asked=False) for sign in (1, -1))
        expected.append(23 * (up - down) / 2e-5)
    found = influences(vectors, labels)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert float(found.sum()) == pytest.approx(0, abs=1e-12)
    assert float(found.abs().max()) > 0.1


def test_an_influence_by_hand() -> None:
    """The first finds its own at place 2, as do the third and the last; the second does at place 3."""
    angles = torch.tensor([0.0, 0.1, 0.3, 2.0])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = influences(vectors, torch.tensor([0, 1, 0, 1]))
    # a hit at place 2 has the slope 1/4 by itself and -1/4 by what is before it; one at place 3 has 2/9 and twice -1/9
    assert found.tolist() == pytest.approx([1 / 4 - 1 / 9, -1 / 4 - 1 / 4 + 1 / 4, 1 / 4 - 1 / 9 - 1 / 4, 2 / 9])


def test_average_precision_by_hand() -> None:
    angles = torch.tensor([0.0, 0.1, 0.3, 0.6, 2.0])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = average_precisions(vectors, torch.tensor([0, 1, 0, 0, 1]))
    # the first finds its own at places 2 and 3, the second at 4, the fourth at 1 and 3, the last at 3
    expected = [(1 / 2 + 2 / 3) / 2, 1 / 4, (1 + 2 / 3) / 2, 1 / 3]
    assert found[[0, 1, 3, 4]].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("at_once", [1, 7 * COUNT, 2**22])
def test_average_precision_is_that_of_scikit_learn(
    vectors: Tensor, labels: Tensor, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "AT_ONCE", at_once)
    similar = cosine_similarity(vectors.double().numpy())
    others = ~np.eye(COUNT, dtype=bool)
    same = labels.numpy()[:, None] == labels.numpy()
    expected = [average_precision_score(same[i, others[i]], similar[i, others[i]]) for i in range(COUNT)]
    assert average_precisions(vectors, labels).tolist() == pytest.approx(expected, abs=1e-12)
    assert 0.2 < np.mean(expected) < 0.9  # neither chance nor perfect


@given(st.lists(st.integers(0, 2), min_size=2, max_size=23), st.data())
def test_equally_similar_others_count_as_found_at_once(kinds: list[int], data: st.DataObject) -> None:
    """Unit vectors along axes: similarities are 0 or 1, so nearly all are tied."""
    axes = torch.eye(3)[data.draw(st.lists(st.integers(0, 2), min_size=len(kinds), max_size=len(kinds)))]
    twice, both = torch.tensor(kinds * 2), torch.cat([axes, axes.flip(0)])
    found = average_precisions(both, twice)
    for query in range(len(twice)):
        others = torch.arange(len(twice)) != query
        relevant = (twice == twice[query])[others]
        expected = average_precision_score(relevant.numpy(), (both @ both[query])[others].numpy())
        assert float(found[query]) == pytest.approx(expected)


def test_retrieval_is_perfect_where_classes_are_apart_and_neither_scale_nor_order_matters(
    vectors: Tensor, labels: Tensor
) -> None:
    apart = torch.eye(CLASSES)[labels]
    assert average_precisions(apart, labels).tolist() == [1.0] * COUNT
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(3))
    scaled = vectors * torch.rand(COUNT, 1, generator=torch.Generator().manual_seed(5)).add(0.5)
    torch.testing.assert_close(
        average_precisions(scaled[order], labels[order]), average_precisions(vectors, labels)[order]
    )


@pytest.mark.parametrize("k", [1, 5, 11])
def test_recall_is_that_of_scikit_learns_neighbours(vectors: Tensor, labels: Tensor, k: int) -> None:
    index = NearestNeighbors(n_neighbors=k, metric="cosine").fit(vectors.numpy())
    nearest = index.kneighbors(return_distance=False)  # without the picture itself
    expected = (labels.numpy()[nearest] == labels.numpy()[:, None]).any(axis=1)
    found = recalls(vectors, labels, k=k)
    assert found.tolist() == expected.astype(float).tolist()
    assert 0 < found.mean() < 1 or k == 11


def test_recall_at_five_looks_at_five() -> None:
    """Six others of another class lie nearer than the one of its own."""
    angles = torch.tensor([0.0, *(0.1 * n for n in range(1, 6)), 0.8])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 1, 1, 1, 1, 1, 0])
    assert measured("recall@5", labels, torch.zeros(7, 2), vectors=vectors).values[0] == 0
    assert recalls(vectors, labels, k=6)[0] == 1


# Anomalies


@pytest.mark.parametrize("at_once", [1, 2**22])
def test_distance_to_neighbours_is_that_of_scikit_learn(
    vectors: Tensor, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "AT_ONCE", at_once)
    known = drawn(1, 31)[0]
    index = NearestNeighbors(n_neighbors=5, metric="cosine").fit(known.double().numpy())
    expected = index.kneighbors(vectors.double().numpy())[0][:, -1]
    torch.testing.assert_close(neighbour_distances(vectors, known), torch.from_numpy(expected))


def test_with_few_training_pictures_the_farthest_counts() -> None:
    known = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert neighbour_distances(torch.tensor([[2.0, 0.0]]), known).tolist() == pytest.approx([1.0])


def test_mahalanobis_is_the_distance_by_scipy_with_scikit_learns_covariance(vectors: Tensor) -> None:
    known, kinds = drawn(1, 31)
    means = np.stack([known[kinds == number].double().numpy().mean(axis=0) for number in range(CLASSES)])
    within = LedoitWolf(assume_centered=True).fit(known.double().numpy() - means[kinds.numpy()])
    expected = [
        min(distance.mahalanobis(one, mean, within.precision_) ** 2 for mean in means)
        for one in vectors.double().numpy()
    ]
    assert mahalanobis(vectors, known, kinds).tolist() == pytest.approx(expected)


def test_with_many_training_pictures_the_shrinkage_is_gone() -> None:
    generator = torch.Generator().manual_seed(7)
    mix = torch.tensor([[3.0, 1.0], [0.0, 0.5]])
    known = torch.randn(50_021, 2, generator=generator) @ mix
    asked = torch.randn(13, 2, generator=generator) @ mix
    plain = EmpiricalCovariance().fit(known.double().numpy()).mahalanobis(asked.double().numpy())
    found = mahalanobis(asked, known, torch.zeros(len(known), dtype=torch.int64))
    assert found.tolist() == pytest.approx(plain.tolist(), rel=1e-2)


def test_mahalanobis_minds_the_spread_and_the_nearest_class_where_classes_have_gaps() -> None:
    """By hand: spread 10 times as wide along x, two classes at x = 0 and x = 100, numbered 3 and 8."""
    cross = torch.tensor([[10.0, 0.0], [-10.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(5_003, 1)
    known = torch.cat([cross, cross + torch.tensor([100.0, 0.0])])
    kinds = torch.tensor([3, 8]).repeat_interleave(len(cross))
    asked = torch.tensor([[10.0, 0.0], [0.0, 1.0], [100.0, 2.0]])
    assert mahalanobis(asked, known, kinds).tolist() == pytest.approx([2, 2, 8], rel=1e-2)  # variances 50 and 1/2


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=41))
def test_auroc_is_that_of_scikit_learn_ties_included(pairs: list[tuple[int, bool]]) -> None:
    scores, anomalous = (torch.tensor(column) for column in zip(*pairs, strict=True))
    if len(set(anomalous.tolist())) == 1:
        with pytest.raises(ValueError, match=r"anomalous: got .* expected some and not all"):
            auroc(scores.double(), anomalous)
    else:
        expected = roc_auc_score(anomalous.numpy(), scores.numpy())
        assert auroc(scores.double(), anomalous) == pytest.approx(expected)


@pytest.mark.parametrize("measure", ["knn_auroc", "mahalanobis_auroc"])
def test_unknown_classes_are_those_beyond_the_models(measure: str) -> None:
    known, kinds = drawn(2, 41)
    known += 5  # all on one side of the origin, which the unknown ones are not
    near, far = known[:17] + 0.01, torch.full((11, WIDTH), -9.0) + torch.arange(11)[:, None] / 10
    labels = torch.cat([kinds[:17], torch.full((11,), CLASSES)])
    found = measured(
        measure,
        labels,
        torch.zeros(28, CLASSES),
        vectors=torch.cat([near, far]),
        train_vectors=known,
        train_labels=kinds,
    )
    assert found.values is None and found.anomalous is not None and found.scores is not None
    assert found.anomalous.tolist() == [False] * 17 + [True] * 11
    assert found.figure == pytest.approx(roc_auc_score(found.anomalous.numpy(), found.scores.numpy()))
    assert found.figure == 1
    assert repr(found).endswith("(28 pictures)")


# What cannot be


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("measure", MEASURES[1:])
def test_what_a_measure_needs_must_be_there(measure: str, vectors: Tensor, labels: Tensor) -> None:
    logits = torch.zeros(COUNT, CLASSES - 1 if "auroc" in measure else CLASSES)
    with pytest.raises(ValueError, match=rf"vectors: got None; expected image vectors .* '{measure}'"):
        measured(measure, labels, logits)
    broken = vectors.clone()
    broken[3, 2] = torch.nan
    with pytest.raises(ValueError, match="vectors: got NaN or infinity"):
        measured(measure, labels, logits, vectors=broken)
    with pytest.raises(ValueError, match=r"labels, vectors: got 53 and 52; expected one of each"):
        measured(measure, labels, logits, vectors=vectors[1:])
    if measure in ("knn_auroc", "mahalanobis_auroc"):
        with pytest.raises(ValueError, match="train_vectors: got None"):
            measured(measure, labels, logits, vectors=vectors)


@pytest.mark.usefixtures("unchecked")
def test_mahalanobis_needs_the_training_labels(vectors: Tensor, labels: Tensor) -> None:
    logits = torch.zeros(COUNT, CLASSES - 1)
    with pytest.raises(ValueError, match="train_labels: got None"):
        measured("mahalanobis_auroc", labels, logits, vectors=vectors, train_vectors=vectors)
    with pytest.raises(ValueError, match=r"train_labels, train_vectors: got 3 and 53"):
        mahalanobis(vectors, vectors, labels[:3])


@pytest.mark.parametrize("measure", ["retrieval", "recall@5"])
def test_a_lonely_picture_has_nothing_to_find(measure: str) -> None:
    with pytest.raises(ValueError, match=r"labels: got 1 picture of class 2; expected 2 or more"):
        measured(measure, torch.tensor([0, 0, 2]), torch.zeros(3, 3), vectors=torch.eye(3))


def test_unknown_measures_and_unequal_numbers_are_named() -> None:
    with pytest.raises(ValueError, match=r"measure: got 'mAP'; expected one of accuracy, retrieval"):
        measured("mAP", torch.tensor([0]), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"labels, logits: got 3 and 2"):
        measured("accuracy", torch.tensor([0, 1, 0]), torch.zeros(2, 2))


def test_a_measured_shows_its_figure() -> None:
    assert Measured("retrieval", values=torch.tensor([0.25, 0.75])).figure == 0.5
