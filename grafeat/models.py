"""What every way to mix feature grids has in common: the same grids in, the same output out."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from grafeat.grids import FeatureGrid, GridSet, check_grids

MEANING = 2  # goes up when the same weights come to say something else; what was kept before is then refused
Grids = GridSet | Sequence[FeatureGrid] | FeatureGrid
States = dict[str, Float[Tensor, "b d h w"]]


@dataclass(frozen=True, eq=False)
class MergeOutput:
    """What a model says of a batch of pictures.

    Attributes:
        logits: Class logits (b, t).
        vector: Image vectors (b, d).
        vertices: Final vertex states (b, d, h, w) of each backbone, by name, for dense tasks; empty for a model that
            has no vertices.
        own: Logits (b, t) that each backbone's own vertices give by themselves, by name; empty for a model without.
        reading: Weight (b, queries, h, w) of each backbone's patches in the image vector, by name; over the patches of
            all backbones they sum to 1. They say where the vector is read, which is routing, not importance. Of several
            backbones, a merge reads by one query more for its interplay, which weighs all evenly, and by one more, the
            last, for its exchange, if it has them.
        states: Vertex states before the first step and after each, as `vertices`; empty unless asked for. Where a merge
            reads its backbones before they hear of each other, a lone one has no steps behind that place.
        apart: Class logits (b, t) without the exchange, as if no message between backbones were read; None for a model
            that has none.
    """

    logits: Float[Tensor, "b t"]
    vector: Float[Tensor, "b d"]
    vertices: States = field(default_factory=dict)
    own: dict[str, Float[Tensor, "b t"]] = field(default_factory=dict)
    reading: dict[str, Float[Tensor, "b queries h w"]] = field(default_factory=dict)
    states: tuple[States, ...] = ()
    apart: Float[Tensor, "b t"] | None = None

    def __repr__(self) -> str:
        vertices = ", ".join(f"{name} {tuple(state.shape)}" for name, state in self.vertices.items())
        return (
            f"MergeOutput: logits {tuple(self.logits.shape)}, vector {tuple(self.vector.shape)}, "
            f"vertices {vertices or 'none'}"
        )


class GridModel(nn.Module, ABC):
    """A model over the feature grids of named backbones.

    Args:
        backbones: Channels of each backbone, by name.
        num_classes: Classes t of the task; 2 or more.
        classes: Names of the classes; numbered if empty.

    Raises:
        ValueError: If there is no backbone, fewer than 2 classes, or as many names as do not fit.

    Attributes:
        pace: How many times as many passes as a merge it is trained for by default, since it settles later.
    """

    pace: ClassVar[int] = 1
    label_counts: Int[Tensor, " t"]
    # Which rows of how many a pass sees, where several processes share a batch: draws are made for all of them.
    part: tuple[Int[Tensor, " rows"], int] | None = None

    def __init__(self, backbones: Mapping[str, int], num_classes: int, classes: Sequence[str] = ()) -> None:
        super().__init__()
        if not backbones:
            raise ValueError("backbones: got none; expected at least one, as {'name': channels}")
        if num_classes < 2:
            raise ValueError(
                f"num_classes: got {num_classes}; expected 2 or more; a task needs classes to tell apart"
            )
        if classes and len(classes) != num_classes:
            raise ValueError(
                f"classes: got {len(classes)} names for {num_classes} classes; give one for each, or none"
            )
        self.backbones = dict(backbones)
        self.num_classes = num_classes
        self.classes = tuple(classes) or tuple(str(number) for number in range(num_classes))
        self.register_buffer("label_counts", torch.zeros(num_classes, dtype=torch.int64))

    @abstractmethod
    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids, all of them known backbones, on the model's device and in its type."""

    def forward(self, grids: Grids, *, without: Collection[str] = (), states: bool = False) -> MergeOutput:
        """Merges the feature grids of a batch of pictures.

        Args:
            grids: The pictures' grids, in any order, on any device. A backbone of the model that is not among them is
                left out, as if it stood in `without`.
            without: Backbones to leave out: the result is that of a graph that never had them.
            states: Whether to return the vertex states of every step.

        Raises:
            ValueError: If a grid's backbone is unknown or its channels are not the model's, or none is left.
        """
        return self.merge(self._present(grids, without), states=states)

    def embed(self, grids: Grids, *, without: Collection[str] = ()) -> Float[Tensor, "b d"]:
        """The image vectors (b, d): for retrieval, anomaly scores, or a task of your own."""
        return self(grids, without=without).vector

    def calibrate(self, val: GridSet) -> None:
        """Settles on validation pictures what training pictures cannot tell; `fit` calls it last. Here, nothing."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.label_counts.device

    def _present(self, grids: Grids, without: Collection[str]) -> list[FeatureGrid]:
        if isinstance(grids, FeatureGrid):
            grids = [grids]
        given = check_grids(grids.grids if isinstance(grids, GridSet) else grids)
        without = {without} if isinstance(without, str) else set(without)
        for name in sorted({grid.name for grid in given} | without):
            if name not in self.backbones:
                known = ", ".join(self.backbones)
                raise ValueError(
                    f"grids, without: got backbone {name!r}; this model knows {known}; use name= to match"
                )
        present = [self._checked(grid) for grid in given if grid.name not in without]
        if not present:
            raise ValueError(
                f"without: got {', '.join(sorted(without))}, which leaves no backbone; keep at least one"
            )
        return present

    def _checked(self, grid: FeatureGrid) -> FeatureGrid:
        if grid.channels != self.backbones[grid.name]:
            raise ValueError(
                f"grids: backbone {grid.name!r} has shape {tuple(grid.features.shape)}, so {grid.channels} channels; "
                f"this model was made for {self.backbones[grid.name]}, shape (b, {self.backbones[grid.name]}, h, w); "
                "extract with the backbone and tap that the model was trained on"
            )
        dtype = next(parameter.dtype for parameter in self.parameters())
        return grid.to(device=self.device, dtype=dtype)


@contextmanager
def evaluating(model: GridModel) -> Iterator[None]:
    """Nothing is dropped inside; afterwards the model is in the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
