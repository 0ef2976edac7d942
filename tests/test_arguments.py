"""Numbers and devices: what may be asked for comes as Python's own, all else is named with what would do."""

import numpy as np
import pytest
import torch

from grafeat.arguments import is_whole, real, usable, whole


@pytest.mark.parametrize("given", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_of_any_kind_is_pythons(given: object) -> None:
    assert is_whole(given)
    assert (whole("n", given), type(whole("n", given))) == (3, int)


@pytest.mark.parametrize("given", [2.0, 2.5, "2", None, True, np.float64(2), [2], torch.tensor(2)])
def test_what_is_no_whole_number_is_refused(given: object) -> None:
    assert not is_whole(given)
    with pytest.raises(TypeError, match=r"n: got .*; expected a whole number; leave it out for the default"):
        whole("n", given)


def test_a_whole_number_has_a_least_value() -> None:
    assert whole("n", 0, least=0) == 0
    with pytest.raises(ValueError, match=r"n: got 0; expected 1 or more; leave it out for 16"):
        whole("n", 0, remedy="leave it out for 16")


@pytest.mark.parametrize("given", [0.5, np.float32(0.5), np.float64(0.5)])
def test_a_number_of_any_kind_is_pythons(given: object) -> None:
    assert (real("x", given), type(real("x", given))) == (0.5, float)
    assert real("x", np.int64(2)) == 2.0


@pytest.mark.parametrize("given", ["0.5", None, True, [0.5], torch.tensor(0.5), 1j])
def test_what_is_no_number_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match=r"x: got .*; expected a number; leave it out for the default"):
        real("x", given)


@pytest.mark.parametrize(
    ("given", "bounds", "expected"),
    [
        (-0.1, {}, r"x: got -0.1; expected 0 or more"),
        (float("nan"), {}, r"x: got nan; expected 0 or more"),
        (float("inf"), {}, r"x: got inf; expected 0 or more"),
        (0, {"above": 0}, r"x: got 0; expected a number above 0"),
        (float("nan"), {"above": 0}, r"x: got nan; expected a number above 0"),
        (1.0, {"below": 1}, r"x: got 1.0; expected a share in \[0, 1\)"),
    ],
)
def test_a_number_has_bounds(given: float, bounds: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        real("x", given, **bounds)


def test_a_device_is_one_on_which_torch_can_compute() -> None:
    assert usable("cpu") == torch.device("cpu")
    for given in ("meta", "nowhere", "cuda:77"):
        with pytest.raises(ValueError, match=rf"device: got '{given}', which cannot be used here \(.+\); expected a"):
            usable(given)
