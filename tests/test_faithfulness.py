"""Measures of faithfulness by hand, against scipy, and for explanations whose worth is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from grafeat.explanations.faithfulness import (
    area,
    complexity,
    curve,
    equal_cells,
    rank_correlation,
    ranks,
    saco,
    sign_agreement,
    summed,
)
from grafeat.graph import PatchGraph


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cells_are_as_large_as_the_largest_patch_by_hand() -> None:
    graph = PatchGraph({"coarse": (2, 2), "fine": (4, 2)})
    assert equal_cells(graph).tolist() == [0, 1, 2, 3, *[4, 5] * 2, *[6, 7] * 2]


def test_a_crop_is_cut_into_fewer_cells_than_the_whole_picture() -> None:
    """Half the picture in 4 × 4 patches, beside all of it in 2 × 4: a cell is a quarter of the picture wide and half
    of it high, so the half has 2 × 2."""
    graph = PatchGraph({"all": (2, 4), "left": (4, 4)}, {"left": (0.0, 0.0, 0.5, 1.0)})
    left = equal_cells(graph)[graph.slices["left"]].view(4, 4)
    assert left.tolist() == [[8, 8, 9, 9], [8, 8, 9, 9], [10, 10, 11, 11], [10, 10, 11, 11]]


shapes = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3)


@given(shapes)
def test_cells_of_all_backbones_are_about_equal_and_never_shared(listed: list[tuple[int, int]]) -> None:
    graph = PatchGraph({str(number): shape for number, shape in enumerate(listed)})
    cells = equal_cells(graph)
    assert cells.unique().tolist() == list(range(int(cells.max()) + 1))
    own = [set(cells[part].tolist()) for part in graph.slices.values()]
    assert sum(map(len, own)) == len(set.union(*own))
    tall, wide = min(h for h, _ in listed), min(w for _, w in listed)
    assert {len(part) for part in own} == {tall * wide}


def test_sums_of_cells_by_hand() -> None:
    assert summed(torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([1, 0, 1, 0])).tolist() == [[10, 5]]


def test_ranks_by_hand_and_ties_in_random_order() -> None:
    assert ranks(torch.tensor([[0.3, -1.0, 7.0]]), seeded()).tolist() == [[1, 2, 0]]
    many = ranks(torch.zeros(1999, 3), seeded())
    assert torch.equal(many.sort(dim=1).values, torch.arange(3).expand(1999, 3))
    first = (many == 0).float().mean(dim=0)
    assert (first - 1 / 3).abs().max() < 0.05


def test_a_curve_of_an_additive_score_by_hand() -> None:
    """Twenty cells worth 19, 18, … 0: ten steps take out two each, the largest first."""
    worth = torch.arange(19.0, -1, -1)
    places = torch.arange(20)[None]
    gone = curve(lambda kept: (kept * worth).sum(dim=1), places, torch.arange(20), keep_first=False)
    assert gone[0].tolist() == [190, 153, 120, 91, 66, 45, 28, 15, 6, 1, 0]
    came = curve(lambda kept: (kept * worth).sum(dim=1), places, torch.arange(20), keep_first=True)
    assert came[0].tolist() == [0, 37, 70, 99, 124, 145, 162, 175, 184, 189, 190]
    assert float(area(gone)) == pytest.approx((190 / 2 + 153 + 120 + 91 + 66 + 45 + 28 + 15 + 6 + 1) / 10)


def test_saco_by_hand() -> None:
    salience = torch.tensor([[3.0, 2, 1]])
    assert saco(salience, torch.tensor([[5.0, 4, 0]])).tolist() == [1]
    assert saco(salience, torch.tensor([[0.0, 4, 5]])).tolist() == [-1]
    assert saco(salience, torch.tensor([[1.0, 2, 0]])).tolist() == [pytest.approx((-1 + 2 + 1) / 4)]
    assert saco(torch.ones(1, 3), torch.tensor([[1.0, 2, 0]])).tolist() == [0]


def test_sign_agreement_by_hand() -> None:
    ablated = torch.tensor([[3.0, 1.0, -2.0, 0.0]])
    assert sign_agreement(torch.tensor([[1.0, 5.0, -9.0, 4.0]]), ablated).tolist() == [1]
    assert sign_agreement(torch.tensor([[1.0, -5.0, -9.0, 4.0]]), ablated).tolist() == [pytest.approx((3 / 4 + 1) / 2)]
    assert sign_agreement(torch.ones(1, 4), ablated).tolist() == [0.5]
    assert sign_agreement(-torch.ones(1, 4), ablated).tolist() == [0.5]
    assert math.isnan(sign_agreement(torch.ones(1, 2), torch.tensor([[1.0, 2.0]])))


@given(st.integers(0, 10**6))
def test_rank_correlation_is_scipys(seed: int) -> None:
    one, other = torch.randint(5, (2, 3, 11), generator=seeded(seed)).double()
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    torch.testing.assert_close(rank_correlation(one, other), torch.tensor(expected, dtype=torch.float64))


def test_constant_maps_are_alike_and_like_nothing_else() -> None:
    flat, slope = torch.ones(1, 5), torch.arange(5.0)[None]
    assert rank_correlation(flat, 3 * flat).tolist() == [1]
    assert rank_correlation(flat, slope).tolist() == [0] == rank_correlation(slope, flat).tolist()


@given(st.integers(0, 10**6))
def test_complexity_is_scipys_entropy(seed: int) -> None:
    values = torch.randn(3, 7, generator=seeded(seed)).double()
    expected = stats.entropy(values.abs().numpy(), axis=1) / math.log(7)
    torch.testing.assert_close(complexity(values), torch.tensor(expected))


@pytest.mark.parametrize(
    ("values", "expected"),
    [(torch.ones(1, 5), 1), (-torch.ones(1, 5), 1), (torch.eye(5)[:1], 0), (torch.zeros(1, 5), 1),
     (torch.ones(1, 1), 0)],
)
def test_complexity_of_one_patch_and_of_all_alike(values: Tensor, expected: float) -> None:
    assert float(complexity(values)) == pytest.approx(expected, abs=1e-6)
