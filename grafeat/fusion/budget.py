"""The width that makes a model as large as another."""

from collections.abc import Callable

from torch import nn

WITHIN = 0.02


def learned(model: nn.Module) -> int:
    """Learned parameters of a model; what is fixed, and statistics of the features, are not counted."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def solved(count: Callable[[int], int], parameters: int, *, way: str) -> int:
    """The free width with which a model comes closest to a number of parameters.

    Args:
        count: Parameters of a model of this width; grows with it.
        parameters: The number aimed at.
        way: What the model is called.

    Raises:
        ValueError: If none comes within 2%; names the nearest number.
    """
    if parameters < 1:
        raise ValueError(f"parameters: got {parameters}; expected 1 or more; leave it out for the way's own number")
    high = 1
    while count(high) < parameters:
        high *= 2
    low = high // 2  # count(low) < parameters <= count(high), unless high is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    best = min((width for width in (low, high) if width), key=lambda width: abs(count(width) - parameters))
    if abs(count(best) - parameters) > WITHIN * parameters:
        raise ValueError(
            f"parameters: got {parameters:,} for {way!r}; expected what it can come to within {WITHIN:.0%}; the "
            f"nearest is {count(best):,}; ask for that, or change width"
        )
    return best
