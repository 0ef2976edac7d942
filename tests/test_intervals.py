"""Intervals are those of scipy, cover what their docstrings say, and draw groups of pictures as one."""

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm
from torch import Tensor

from grafeat import intervals
from grafeat.intervals import (
    Estimate,
    Z,
    drawn_together,
    draws_of,
    paired_difference,
    resampled_means,
    reversed_percentiles,
    wilson_interval,
)


def wrong(share: float, seeds: int, pictures: int, seed: int = 0) -> Tensor:
    """Whether each picture was right, of a method that errs on this share of them."""
    return torch.rand(seeds, pictures, generator=torch.Generator().manual_seed(seed)) >= share


# Of one share


@given(st.integers(1, 10_007), st.floats(0, 1))
def test_the_interval_of_a_share_is_scipys(count: int, share: float) -> None:
    correct = round(share * count)
    expected = binomtest(correct, count).proportion_ci(method="wilson")
    low, high = wilson_interval(correct, count)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-7)
    assert 0 <= low <= correct / count + 1e-12
    assert correct / count - 1e-12 <= high
    assert high <= 1


def test_the_quantile_is_that_of_the_normal_distribution() -> None:
    assert pytest.approx(norm.ppf(0.975), abs=1e-6) == Z


def test_a_share_of_one_half_by_hand() -> None:
    """Two of four: the middle is 1/2, half the width z √(4 + z²) / (2 (4 + z²)) … = z / (2 √(4 + z²))."""
    half = Z / (2 * math.sqrt(4 + Z**2))
    assert wilson_interval(2, 4) == pytest.approx((0.5 - half, 0.5 + half))


def test_all_right_is_not_certainly_right() -> None:
    low, high = wilson_interval(7, 7)
    assert high == 1
    assert 0.6 < low < 0.7
    assert wilson_interval(0, 7)[0] == 0


# Of means, by drawing pictures anew


def test_means_are_those_of_one_draw_whatever_fits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(13, 3, generator=torch.Generator().manual_seed(1))
    drawn = torch.randint(13, (2000, 13), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(resampled_means(values, 5), values[drawn].mean(dim=1))
    monkeypatch.setattr(intervals, "CHUNK", 13 * 3 * 7)
    torch.testing.assert_close(resampled_means(values, 5), values[drawn].mean(dim=1))
    values[4, 1] = torch.nan
    torch.testing.assert_close(resampled_means(values, 5), values[drawn].nanmean(dim=1))


def test_reversed_percentiles_by_hand() -> None:
    """Draws from 0 to 40, 2.5% of them below 1 and above 39: the figure 10 is as far from its truth."""
    drawn = torch.arange(41.0)[:, None]
    low, high = reversed_percentiles(torch.tensor([10.0]), drawn)
    assert (float(low), float(high)) == pytest.approx((20 - 39, 20 - 1))


# Of a paired difference


def test_a_difference_by_hand() -> None:
    """The first is right where the second errs, on one picture of four, after every training."""
    first, second = torch.ones(3, 4, dtype=torch.bool), torch.tensor([[True, False, True, True]] * 3)
    found = paired_difference(first, second, draws=2000)
    assert found.value == 0.25
    assert (found.low, found.high) == (0, 0.75)  # of four drawn pictures none to three are that one


def test_twins_differ_by_nothing() -> None:
    right = wrong(0.3, 3, 101)
    assert paired_difference(right, right, draws=50) == Estimate(0, 0, 0)


def test_swapping_the_methods_turns_the_interval_round() -> None:
    first, second = wrong(0.2, 3, 101), wrong(0.25, 3, 101, seed=1)
    there, back = paired_difference(first, second, draws=300), paired_difference(second, first, draws=300)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert there.low < there.value < there.high


def test_any_figure_of_each_picture_will_do_and_one_seeds_interval_is_scipys() -> None:
    """Average precisions, say; scipy draws by other numbers, so its ends differ by a little of the width."""
    generator = torch.Generator().manual_seed(3)
    first, second = torch.rand(1, 211, generator=generator), torch.rand(1, 211, generator=generator) ** 2
    found = paired_difference(first, second)
    difference = (first.double() - second.double())[0].numpy()
    expected = bootstrap(
        (difference,), numpy.mean, n_resamples=10_000, method="percentile", rng=numpy.random.default_rng(0)
    ).confidence_interval
    assert found.value == pytest.approx(difference.mean())
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_figures_drawn_together_share_their_draws_whatever_fits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(2, 3, 11, generator=torch.Generator().manual_seed(1))
    drawn = drawn_together(values, draws=23, seed=7)
    ((by_seed, by_picture),) = draws_of(3, 11, draws=23, seed=7)
    assert by_seed.sum(dim=1).tolist() == [3] * 23
    assert by_picture.sum(dim=1).tolist() == [11] * 23
    by_hand = [
        [sum(s * p * v for s, row in zip(seeds, one, strict=True) for p, v in zip(pictures, row, strict=True)) / 33
         for one in values.tolist()]
        for seeds, pictures in zip(by_seed.tolist(), by_picture.tolist(), strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(drawn, torch.tensor(by_hand, dtype=torch.float64))
    difference = drawn_together(values[:1] - values[1:], draws=23, seed=7)
    torch.testing.assert_close(drawn[:, :1] - drawn[:, 1:], difference)
    monkeypatch.setattr(intervals, "CHUNK", 5 * 11)
    torch.testing.assert_close(drawn_together(values, draws=23, seed=7), drawn)


def test_the_interval_is_that_of_the_normal_approximation_where_seeds_agree() -> None:
    """Independent pictures, the same after each training: the standard error is that of a mean."""
    first = wrong(0.2, 1, 2003).expand(3, -1)
    second = wrong(0.3, 1, 2003, seed=1).expand(3, -1)
    difference = first[0].double() - second[0].double()
    half = Z * float(difference.std()) / math.sqrt(2003)
    found = paired_difference(first, second, draws=3000)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=half / 10)


def test_seeds_widen_the_interval_where_trainings_differ() -> None:
    """One training of three fails altogether; that is no matter of the pictures."""
    second = torch.zeros(3, 997, dtype=torch.bool)
    first = second.clone()
    first[0] = True
    found = paired_difference(first, second, draws=1000)
    assert found.value == pytest.approx(1 / 3)
    assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(("by_seed", "covers"), [(1.0, (0.78, 0.92)), (0.3, (0.9, 0.97))])
def test_it_covers_what_it_says(by_seed: float, covers: tuple[float, float]) -> None:
    """Differences around 0 of five seeds that differ much more than the pictures, and about as much as their mean."""
    generator, hits = torch.Generator().manual_seed(0), 0
    for number in range(300):
        of_seed, of_picture, rest = (torch.randn(shape, generator=generator) for shape in ((5, 1), (1, 53), (5, 53)))
        difference = by_seed * of_seed + of_picture + rest
        found = paired_difference(difference, torch.zeros(5, 53), draws=200, seed=number)
        hits += found.low <= 0 <= found.high
    assert covers[0] < hits / 300 < covers[1]


# Of pictures in groups


def test_a_group_is_drawn_as_one_and_the_mean_is_of_the_pictures_drawn() -> None:
    """Groups of one and of three pictures: drawn together or one of them twice, by hand."""
    values, groups = torch.tensor([[[1.0, 0, 0, 1]]]), torch.tensor([7, 3, 3, 3])
    counts = torch.cat([by_picture for _, by_picture in draws_of(1, 4, groups=groups, draws=97)])
    assert {tuple(row) for row in counts.int().tolist()} == {(1, 1, 1, 1), (2, 0, 0, 0), (0, 2, 2, 2)}
    drawn = drawn_together(values, groups=groups, draws=97)[:, 0]
    expected = {(1, 1, 1, 1): 2 / 4, (2, 0, 0, 0): 2 / 2, (0, 2, 2, 2): 2 / 6}
    assert drawn.tolist() == pytest.approx([expected[tuple(row)] for row in counts.int().tolist()])


def test_without_groups_every_number_is_as_it_was() -> None:
    values = torch.rand(2, 3, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    seeds = torch.randint(3, (23, 3), generator=generator)
    pictures = torch.randint(11, (23, 11), generator=generator)
    by_seed, by_picture = (
        torch.zeros(23, size, dtype=torch.float64).scatter_add_(1, rows, torch.ones(23, size, dtype=torch.float64))
        for rows, size in ((seeds, 3), (pictures, 11))
    )
    by_training = (values.flatten(0, 1) @ by_picture.mT).view(2, 3, -1)
    assert torch.equal(drawn_together(values, draws=23, seed=7), (by_training * by_seed.mT).sum(dim=1).mT / 33)


def test_one_group_for_each_picture_draws_as_without_groups() -> None:
    first, second = torch.rand(2, 3, 211, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(211, generator=torch.Generator().manual_seed(2))
    alone = paired_difference(first, second)
    grouped = paired_difference(first, second, groups=order)
    assert grouped != alone  # by other numbers
    width = alone.high - alone.low
    assert grouped.value == alone.value
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=0.05 * width)


def test_groups_widen_the_interval_where_their_pictures_agree() -> None:
    """Five copies of each picture say no more than one: the interval is that of the pictures without their copies."""
    first, second = wrong(0.2, 3, 101), wrong(0.3, 3, 101, seed=1)
    once = paired_difference(first, second, draws=4000)
    five, other = (right.repeat_interleave(5, dim=1) for right in (first, second))
    groups = torch.arange(101).repeat_interleave(5)
    grouped = paired_difference(five, other, groups=groups, draws=4000)
    apart = paired_difference(five, other, draws=4000)
    width = once.high - once.low
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), abs=0.05 * width)
    assert apart.high - apart.low < 0.8 * width


@pytest.mark.parametrize("count", [10, 12])
def test_groups_of_other_pictures_are_refused(count: int, unchecked: None) -> None:
    right, groups = wrong(0.2, 3, 11), torch.arange(count)
    with pytest.raises(ValueError, match=rf"groups: got {count}; expected one for each of the 11 pictures; number"):
        paired_difference(right, right, groups=groups)
    with pytest.raises(ValueError, match=rf"groups: got {count}; expected one"):
        drawn_together(right[None].double(), groups=groups)


def test_the_draw_is_seeded_and_leaves_the_global_random_state_alone() -> None:
    first, second, before = wrong(0.2, 3, 31), wrong(0.3, 3, 31, seed=1), torch.get_rng_state()
    found = [paired_difference(first, second, draws=50, seed=seed) for seed in (3, 3, 5)]
    assert found[0] == found[1]
    assert (found[0].low, found[0].high) != (found[2].low, found[2].high)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_estimate_prints_in_points() -> None:
    assert repr(Estimate(0.0123, -0.001, 0.02)) == "+1.23% (95% interval -0.10% to +2.00%)"


@pytest.mark.parametrize("shape", [(3, 13), (5, 11), (3, 11, 1), (33,)])
def test_runs_that_do_not_pair_are_refused(shape: tuple[int, ...], unchecked: None) -> None:
    first, second = torch.ones(3, 11, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"first, second: got shapes \(3, 11\) and .*; expected \(seeds, pictures\)"
    ):
        paired_difference(first, second)


def test_runs_without_axes_are_refused_even_if_they_are_alike(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"got shapes \(11,\) and \(11,\)"):
        paired_difference(torch.ones(11, dtype=torch.bool), torch.ones(11, dtype=torch.bool))


@pytest.mark.parametrize("count", range(1, 113))
def test_none_right_and_all_right_lie_inside_their_own_intervals(count: int) -> None:
    assert wilson_interval(0, count)[0] == 0
    assert wilson_interval(count, count)[1] == 1
