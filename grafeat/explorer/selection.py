"""What an explorer shows, as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from grafeat.graph import Patch

Direction = Literal["outgoing", "incoming"]


@dataclass(frozen=True, eq=False)
class Selection:
    """What an explorer shows.

    Attributes:
        picture: The picture's number.
        layer: The layer, from 0.
        head: The head, from 0; None for the mean over heads.
        patch: The selected patch.
        direction: Whether `weights` are what the patch attends to (`outgoing`) or what attends to it (`incoming`).
        weights: The patch's weights on screen (h, w), by backbone: intra on its own grid, cross on the others. Where
            `compare` subtracts a pin's, these are the weights before that.
    """

    picture: int
    layer: int
    head: int | None
    patch: Patch
    direction: Direction
    weights: Mapping[str, Float[Tensor, "_ _"]]

    def __repr__(self) -> str:
        grids = ", ".join(f"{name} {h} × {w}" for name, (h, w) in ((n, t.shape) for n, t in self.weights.items()))
        head = "mean over heads" if self.head is None else f"head {self.head}"
        return (
            f"Selection: picture {self.picture}, layer {self.layer}, {head}, {self.patch.backbone} "
            f"({self.patch.row}, {self.patch.column}) {self.direction}; weights on {grids}"
        )
