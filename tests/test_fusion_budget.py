"""The width that makes a model as large as another, and what is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grafeat.fusion.budget import learned, solved


def test_only_what_is_learned_is_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 7))
    assert learned(model) == (3 * 5 + 5) + (5 + 5) + (5 * 7 + 7)
    model[2].requires_grad_(False)
    assert learned(model) == (3 * 5 + 5) + (5 + 5)


@pytest.mark.parametrize(("parameters", "width"), [(1013, 334), (1012, 334), (1011, 333), (1010, 333), (103, 31)])
def test_the_width_by_hand(parameters: int, width: int) -> None:
    """11 + 3 · 333 = 1010, and 11 + 3 · 334 = 1013."""
    assert solved(lambda hidden: 11 + 3 * hidden, parameters, way="concat") == width


@given(st.integers(1, 10**9), st.integers(0, 10**6), st.integers(1, 10**4))
def test_no_other_width_comes_closer(parameters: int, fixed: int, each: int) -> None:
    def count(hidden: int) -> int:
        return fixed + each * hidden

    nearest = max(1, round((parameters - fixed) / each))
    error = min(abs(count(hidden) - parameters) for hidden in (nearest, nearest + 1, max(1, nearest - 1)))
    if error <= 0.02 * parameters:
        assert abs(count(solved(count, parameters, way="add")) - parameters) == error
    else:
        with pytest.raises(ValueError, match="parameters: got"):
            solved(count, parameters, way="add")


def test_a_number_out_of_reach_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 1,000 for 'gated'; .* within 2%; the nearest is 5,010; ask for that"):
        solved(lambda hidden: 5000 + 10 * hidden, 1000, way="gated")
    with pytest.raises(ValueError, match="the nearest is 1,000"):
        solved(lambda hidden: 500 * hidden, 1210, way="gated")
    with pytest.raises(ValueError, match="parameters: got 0; expected 1 or more"):
        solved(lambda hidden: hidden, 0, way="gated")
