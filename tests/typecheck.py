"""The checker of type hints under pytest: beartype, with two allowances."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a float, as mypy has it


def checked(function: Callable) -> Callable:
    """The function, checking its arguments and its result."""
    # The import hook decorates each method alone, where beartype cannot know what Self is.
    hints = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in hints if "typing.Self" not in repr(hint)}
    return _beartype(function)
