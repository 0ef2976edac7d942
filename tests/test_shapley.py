"""Shapley values against permutations, captum and the axioms."""

import itertools

import pytest
import torch
from captum.attr import ShapleyValues
from torch import Tensor

from grafeat.explanations.shapley import interactions, sampled_values, shapley_values


def game(players: int, *rest: int) -> Tensor:
    return torch.randn(2**players, *rest, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_values_are_the_mean_over_all_orders(players: int) -> None:
    table = game(players, 7)
    orders = list(itertools.permutations(range(players)))
    expected = torch.zeros(players, 7, dtype=torch.float64)
    for order in orders:
        coalition = 0
        for m in order:
            expected[m] += (table[coalition | 1 << m] - table[coalition]) / len(orders)
            coalition |= 1 << m
    torch.testing.assert_close(shapley_values(table), expected)


def test_values_are_those_of_captum() -> None:
    table = game(3)

    def worth(present: Tensor) -> Tensor:
        return table[(present.long() * torch.tensor([1, 2, 4])).sum(dim=1)]

    expected = ShapleyValues(worth).attribute(torch.ones(1, 3))[0]
    torch.testing.assert_close(shapley_values(table), expected.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("players", [2, 3, 5])
def test_the_axioms(players: int) -> None:
    table = game(players)
    values = shapley_values(table)
    assert abs(values.sum() - (table[-1] - table[0])) < 1e-12  # efficiency
    dummy = table.clone()
    for coalition in range(2**players):
        dummy[coalition] = table[coalition & ~1]
    assert shapley_values(dummy)[0] == 0
    swapped = table.clone()  # players 0 and 1 are worth the same wherever they go
    for coalition in range(2**players):
        first, second = coalition & 1, coalition >> 1 & 1
        swapped[coalition] = (table[coalition] + table[coalition & ~3 | second | first << 1]) / 2
    assert abs(shapley_values(swapped)[0] - shapley_values(swapped)[1]) < 1e-12


def test_interaction_by_hand() -> None:
    """Two players who are worth 1 and 2 alone and 10 together cooperate by 7; two copies of one repeat each other."""
    found = interactions(torch.tensor([0.0, 1.0, 2.0, 10.0], dtype=torch.float64))
    assert found.tolist() == [[0, 7], [7, 0]]
    copies = interactions(torch.tensor([0.0, 3.0, 3.0, 3.0], dtype=torch.float64))
    assert copies[0, 1] == -3
    additive = torch.tensor([sum(m + 1 for m in range(3) if coalition >> m & 1) for coalition in range(8)])
    assert interactions(additive.double()).abs().max() < 1e-12


def test_sampled_values_surround_the_exact_ones_and_sum_up() -> None:
    table = game(6, 5)
    values, errors = sampled_values(lambda coalition: table[coalition], 6, orders=200, seed=3)
    exact = shapley_values(table)
    assert ((values - exact).abs() < 4 * errors).all()
    assert (errors > 0).all()
    torch.testing.assert_close(values.sum(dim=0), table[-1] - table[0])


def test_a_table_of_another_length_is_refused() -> None:
    for length in (0, 1, 6):
        with pytest.raises(ValueError, match=f"table: got {length} rows"):
            shapley_values(torch.zeros(length))
