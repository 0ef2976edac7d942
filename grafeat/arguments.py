"""What an argument may be, and an error for everything else: what came, what was expected, one remedy."""

import math

import numpy as np
import torch


def strange(argument: str, given: object, expected: str, remedy: str) -> TypeError:
    """The error for an argument of another type."""
    shown = repr(given) if isinstance(given, str | int | float | None) else f"a {type(given).__name__}"
    return TypeError(f"{argument}: got {shown}; expected {expected}; {remedy}")


def is_whole(number: object) -> bool:
    """Whether it is a whole number, of Python or of NumPy, and no truth value."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def whole(argument: str, given: object, *, least: int = 1, remedy: str = "leave it out for the default") -> int:
    """A whole number, as Python's own.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is below `least`.
    """
    if not is_whole(given):
        raise strange(argument, given, "a whole number", remedy)
    number = int(given)  # type: ignore[call-overload]
    if number < least:
        raise ValueError(f"{argument}: got {number}; expected {least} or more; {remedy}")
    return number


def make_whole(config: object, *names: str) -> None:
    """Makes fields of a frozen configuration whole numbers of 1 or more, as Python's own; None stays.

    Raises:
        TypeError: If one is something else.
        ValueError: If one is below 1.
    """
    for name in names:
        if getattr(config, name) is not None:
            object.__setattr__(config, name, whole(name, getattr(config, name)))


def real(argument: str, given: object, *, above: float | None = None, below: float = math.inf) -> float:
    """A number of 0 or more, or above a bound, and below another, as Python's own.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is outside, or no number that could be computed with.
    """
    remedy = "leave it out for the default"
    if not isinstance(given, int | float | np.integer | np.floating) or isinstance(given, bool):
        raise strange(argument, given, "a number", remedy)
    value = float(given)
    inside = (value >= 0 if above is None else value > above) and value < below
    if not inside:
        low = "0 or more" if above is None else f"a number above {above:g}"
        expected = low if below == math.inf else f"a share in [0, {below:g})"
        raise ValueError(f"{argument}: got {given!r}; expected {expected}; {remedy}")
    return value


def usable(device: torch.device | str) -> torch.device:
    """A device of this machine.

    Raises:
        ValueError: If torch cannot compute there.
    """
    try:
        float(torch.ones(1, device=device))
    except (RuntimeError, AssertionError, TypeError) as error:  # torch raises all three
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device: got {device!r}, which cannot be used here ({reason}); expected a device of this machine, such as "
            "'cpu' or 'cuda'; leave it out for the default"
        ) from error
    return torch.device(device)
