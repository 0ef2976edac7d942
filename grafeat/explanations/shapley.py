"""Shapley values of a game whose every coalition's worth stands in a table.

A coalition is a whole number: bit m says whether player m takes part. The table has 2^M rows.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def shapley_values(table: Float[Tensor, "coalitions *rest"]) -> Float[Tensor, "players *rest"]:
    """What each player adds to a coalition, averaged over all orders in which they may join.

    Args:
        table: The worth of each coalition (2^M, …); row 0 is the empty one.

    Returns:
        Values (M, …); they sum to the worth of all minus that of none.

    Raises:
        ValueError: If there are not 2^M rows, M being 1 or more.

    Source: Shapley, 1953.
    """
    players = _players(table)
    values = torch.zeros(players, *table.shape[1:], dtype=table.dtype)
    for coalition in range(len(table)):
        size = coalition.bit_count()
        for m in range(players):
            if not coalition >> m & 1:
                weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
                values[m] += weight * (table[coalition | 1 << m] - table[coalition])
    return values


def interactions(table: Float[Tensor, "coalitions *rest"]) -> Float[Tensor, "players players *rest"]:
    """How much more two players add together than one by one: above 0 they cooperate, below 0 they repeat each other.

    Args:
        table: The worth of each coalition (2^M, …); row 0 is the empty one.

    Returns:
        Shapley interaction indices (M, M, …), symmetric, 0 on the diagonal.

    Source: Grabisch and Roubens, Int. J. Game Theory 28, 1999.
    """
    players = _players(table)
    found = torch.zeros(players, players, *table.shape[1:], dtype=table.dtype)
    for coalition in range(len(table)):
        size = coalition.bit_count()
        outside = [m for m in range(players) if not coalition >> m & 1]
        for m in outside:
            for n in outside:
                if m != n:
                    weight = math.factorial(size) * math.factorial(players - size - 2) / math.factorial(players - 1)
                    with_m, with_n = coalition | 1 << m, coalition | 1 << n
                    together = table[with_m | with_n] - table[with_m] - table[with_n] + table[coalition]
                    found[m, n] += weight * together
    return found


def sampled_values(
    worth: Callable[[int], Float[Tensor, "*rest"]], players: int, *, orders: int, seed: int = 0
) -> tuple[Float[Tensor, "players *rest"], Float[Tensor, "players *rest"]]:
    """Shapley values estimated from random orders, for more players than a table can hold.

    Each order is followed by its reverse, which cancels much of the noise.

    Args:
        worth: The worth of a coalition.
        players: How many there are.
        orders: Random orders; 2 or more.
        seed: Decides the orders.

    Returns:
        Values (M, …) that sum to the worth of all minus that of none, and their standard errors.

    Source: Castro et al., Computers & Operations Research 36, 2009; antithetic orders: Mitchell et al., JMLR 23, 2022.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(orders):
        order = torch.randperm(players, generator=generator).tolist()
        drawn.append((_joined(worth, order) + _joined(worth, order[::-1])) / 2)
    stacked = torch.stack(drawn)
    return stacked.mean(dim=0), stacked.std(dim=0) / math.sqrt(orders)


def _joined(worth: Callable[[int], Tensor], order: list[int]) -> Float[Tensor, "players *rest"]:
    """What each player adds, joining in this order."""
    coalition, before = 0, worth(0)
    values = torch.zeros(len(order), *before.shape, dtype=before.dtype)
    for m in order:
        coalition |= 1 << m
        after = worth(coalition)
        values[m] = after - before
        before = after
    return values


def _players(table: Tensor) -> int:
    players = len(table).bit_length() - 1
    if players < 1 or len(table) != 1 << players:
        raise ValueError(f"table: got {len(table)} rows; expected 2^M, one for each coalition; M is 1 or more")
    return players
