"""The checker of type hints under pytest: beartype, taught two things that it does not do by itself."""

from typing import Annotated, Self

from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from beartype.vale import Is

# The import hook decorates each method alone, where beartype cannot know what Self is: anything passes for it.
ANYTHING = Annotated[object, Is[lambda _: True]]

checked = beartype(
    conf=BeartypeConf(
        hint_overrides=BeartypeHintOverrides({Self: ANYTHING}),
        is_pep484_tower=True,  # a whole number is a float, as mypy has it
    )
)
