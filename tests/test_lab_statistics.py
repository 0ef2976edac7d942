"""Tests and corrections are those of statsmodels, intervals those of scipy, redrawn AUROCs those of scikit-learn."""

import math
from dataclasses import replace

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from test_lab_measures import drawn as made_vectors
from test_lab_measures import weighted_figure
from torch import Tensor

from grafeat.intervals import draws_of
from grafeat.lab.measures import Measured, measured
from grafeat.lab.statistics import correct, drawn_auroc, drawn_figures, estimate, figure_of, holm, mcnemar

SEEDS, B = 3, 53


def accuracy(share: float, seed: int, pictures: int = B) -> Measured:
    right = torch.rand(pictures, generator=torch.Generator().manual_seed(seed)) < share
    return Measured("accuracy", values=right.double())


def scores(seed: int, *shape: int) -> Tensor:
    """With ties, as distances among few vectors have them."""
    return torch.randint(7, shape, generator=torch.Generator().manual_seed(seed)).double()


# McNemar and Holm


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 5))
def test_mcnemar_is_that_of_statsmodels(one: int, other: int, both: int) -> None:
    first = torch.tensor([True] * one + [False] * other + [True] * both, dtype=torch.bool)
    second = torch.tensor([False] * one + [True] * other + [True] * both, dtype=torch.bool)
    expected = mcnemar_of_statsmodels([[both, one], [other, 0]], exact=True).pvalue
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    if one + other:
        assert mcnemar(first, second) == pytest.approx(binomtest(one, one + other).pvalue, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    """One right where the other errs five times, never the other way: 2 of 2^5 outcomes are as far out."""
    first, second = torch.ones(7, dtype=torch.bool), torch.tensor([False] * 5 + [True] * 2)
    assert mcnemar(first, second) == mcnemar(second, first) == 2 / 32
    assert mcnemar(first, first) == 1
    assert 0 < mcnemar(torch.ones(997, dtype=torch.bool), torch.zeros(997, dtype=torch.bool)) < 1e-290


@settings(max_examples=20)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=11))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist(), abs=1e-12)


def test_holm_by_hand_and_without_what_has_no_p() -> None:
    found = holm([0.04, math.nan, 0.01, 0.03])
    assert math.isnan(found.pop(1))
    assert found == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


# Drawn anew


def test_one_seeds_interval_is_scipys() -> None:
    runs = [[accuracy(0.8, 1, 503)]]
    found = estimate(figure_of(runs[0]), drawn_figures(runs)[:, 0])
    expected = bootstrap(
        (runs[0][0].values.numpy(),), numpy.mean, n_resamples=10_000, method="percentile",
        rng=numpy.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)
    assert found.value == pytest.approx(float(runs[0][0].values.mean()))


def test_methods_share_their_draws() -> None:
    """A method that errs on one picture more in each training is worse in each draw, by that picture's share."""
    better = [accuracy(0.8, seed) for seed in range(SEEDS)]
    worse = [Measured("accuracy", values=one.values.clone()) for one in better]
    place = int((torch.stack([one.values for one in better]).sum(dim=0) == SEEDS).nonzero()[0])
    for one in worse:
        one.values[place] = 0
    difference = drawn_figures([better, worse]) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    counts = torch.cat([by_picture for _, by_picture in draws_of(SEEDS, B)])
    torch.testing.assert_close(difference, counts[:, place].double() / B)


def test_aurocs_of_pictures_drawn_anew_are_those_of_scikit_learn() -> None:
    anomalous, values = torch.arange(B) % 3 == 0, scores(2, 2, SEEDS, B)
    found = drawn_auroc(values, anomalous, draws=17, seed=5)
    ((by_seed, by_picture),) = draws_of(SEEDS, B, draws=17, seed=5)
    for draw in range(17):
        for method in range(2):
            each = [
                roc_auc_score(anomalous, values[method, one], sample_weight=by_picture[draw])
                for one in range(SEEDS)
            ]
            expected = float(torch.tensor(each, dtype=torch.float64) @ by_seed[draw].double()) / SEEDS
            assert float(found[draw, method]) == pytest.approx(expected, abs=1e-12)


def test_aurocs_of_groups_are_those_of_their_pictures_as_often_as_they_are_drawn() -> None:
    anomalous, groups = torch.arange(B) % 3 == 0, torch.arange(B) // 4
    values = scores(2, 1, 1, B)
    found = drawn_auroc(values, anomalous, groups=groups, draws=17, seed=5)
    ((_, by_picture),) = draws_of(1, B, groups=groups, draws=17, seed=5)
    assert all(len(row[groups == 2].unique()) == 1 for row in by_picture)
    expected = [roc_auc_score(anomalous, values[0, 0], sample_weight=one) for one in by_picture]
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-12)
    runs = [[Measured("knn_auroc", scores=values[0, 0], anomalous=anomalous)]]
    assert torch.equal(drawn_figures(runs, groups=groups), drawn_auroc(values, anomalous, groups=groups))


def test_figures_of_groups_are_drawn_by_group() -> None:
    """Two groups, one right and one wrong: each draw is all right, half right or all wrong."""
    runs = [[Measured("accuracy", values=torch.arange(6).div(3, rounding_mode="floor").double())]]
    assert set(drawn_figures(runs, groups=torch.arange(6) // 3)[:, 0].tolist()) == {0, 0.5, 1}


def test_scores_without_ties_take_the_short_way_to_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    values, anomalous = torch.randn(1, 1, B, generator=generator), torch.arange(B) % 2 == 0
    found = drawn_auroc(values, anomalous, draws=5)
    ((_, by_picture),) = draws_of(1, B, draws=5)
    expected = [roc_auc_score(anomalous, values[0, 0], sample_weight=one) for one in by_picture]
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_an_auroc_is_drawn_where_the_measure_is_one() -> None:
    anomalous = torch.arange(B) % 3 == 0
    runs = [[Measured("knn_auroc", scores=scores(s, B), anomalous=anomalous) for s in range(SEEDS)]]
    drawn = drawn_figures(runs, seed=3)
    assert drawn.shape == (2000, 1)
    found = estimate(figure_of(runs[0]), drawn[:, 0])
    assert found.value == pytest.approx(
        sum(roc_auc_score(anomalous, run.scores) for run in runs[0]) / SEEDS, abs=1e-12
    )
    assert found.low < found.value < found.high


def test_draws_without_an_anomaly_do_not_count() -> None:
    drawn = drawn_auroc(scores(1, 1, 1, 3), torch.tensor([True, False, False]), draws=200)
    assert bool(drawn.isnan().any()) and not bool(drawn.isnan().all())
    assert not math.isnan(estimate(0.5, drawn[:, 0]).low)


def test_right_and_wrong_are_known_for_some_measures_only() -> None:
    values = torch.tensor([1.0, 0, 1])
    assert correct(Measured("recall@5", values=values)).tolist() == [True, False, True]
    assert correct(Measured("retrieval", values=values)) is None
    assert correct(Measured("knn_auroc", scores=values, anomalous=values == 1)) is None


# Retrieval


def test_redrawn_retrieval_spreads_as_if_each_picture_asked_and_was_found_as_often_as_it_is_drawn() -> None:
    """By scikit-learn's weighted average precision, for draws of its own; queries alone would spread less."""
    (vectors, labels), draws = made_vectors(0, 53), 300
    found = measured("retrieval", labels, torch.zeros(53, 5), vectors=vectors)
    generator = torch.Generator().manual_seed(1)
    counts = torch.multinomial(torch.ones(draws, 53), 53, replacement=True, generator=generator)
    exact = torch.tensor([weighted_figure(vectors, labels, each.bincount(minlength=53)) for each in counts])
    assert float(drawn_figures([[found]])[:, 0].std()) == pytest.approx(float(exact.std()), rel=0.15)
    queries = replace(found, redrawn=None)
    assert float(drawn_figures([[queries]])[:, 0].std()) < 0.8 * float(exact.std())
    assert float(drawn_figures([[found]]).mean()) == pytest.approx(found.figure, abs=0.003)
