"""Feature grids: what one backbone says of each patch of a picture, and where in the picture it lies."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, overload

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.splits import Index, LabelledSet, Rows, positions, take

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class FeatureGrid:
    """The features that one backbone gives for a batch of pictures, on its own grid of patches.

    Each patch has a box in the picture. The boxes tile the field evenly: that is a convention, since the
    pixels that really reach a patch (its receptive field) spread further.

    Args:
        name: The backbone's name.
        features: Features (b, c, h, w), floating point, finite.
        field: The part of the picture that the grid covers, (x0, y0, x1, y1) in [0, 1]; all of it by default.

    Raises:
        TypeError: If the features are not a floating-point tensor.
        ValueError: If they are not of rank 4, are empty, or hold NaN or infinity; if `field` is no box.
    """

    name: str
    features: Float[Tensor, "b c h w"]
    field: Box = WHOLE

    def __post_init__(self) -> None:
        _check_form(self.name, self.features, self.field)
        if not _all_finite(self.features):
            finite = torch.isfinite(self.features)
            picture, channel, row, column = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"features: backbone {self.name!r} has NaN or infinity ({int((~finite).sum()):,} of "
                f"{finite.numel():,} values, the first at picture {picture}, channel {channel}, patch "
                f"({row}, {column})); expected finite numbers; check its weights and its pictures, or "
                "extract with dtype=torch.float32"
            )

    @classmethod
    def trusted(cls, name: str, features: Float[Tensor, "b c h w"], field: Box = WHOLE) -> Self:
        """A grid whose features are known to be finite: does not read them all, for views and memory maps."""
        _check_form(name, features, field)
        grid = object.__new__(cls)
        for attribute, value in (("name", name), ("features", features), ("field", field)):
            object.__setattr__(grid, attribute, value)
        return grid

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: Index) -> Self:
        """The grids of some of the pictures; a whole number gives those of one."""
        return self.trusted(self.name, take(self.features, positions(index, len(self))), self.field)

    def __repr__(self) -> str:
        b, c, h, w = self.features.shape
        part = "" if self.field == WHOLE else f", field={self.field}"
        return f"FeatureGrid({self.name!r}, {b:,} × {c} × {h} × {w}, {_dtype(self.features)}{part})"

    @property
    def channels(self) -> int:
        """Channels c of each patch."""
        return self.features.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the grid."""
        return self.features.shape[2], self.features.shape[3]

    @property
    def boxes(self) -> Float[Tensor, "patches 4"]:
        """Box (x0, y0, x1, y1) of each patch in the picture, in [0, 1], row by row."""
        return patch_boxes(self.shape, self.field)

    @property
    def centres(self) -> Float[Tensor, "patches 2"]:
        """Centre (x, y) of each patch in the picture, in [0, 1], row by row."""
        return patch_centres(self.shape, self.field)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same grid on another device or in another floating-point type."""
        return self.trusted(self.name, self.features.to(device=device, dtype=dtype), self.field)


def patch_boxes(shape: tuple[int, int], field: Box = WHOLE) -> Float[Tensor, "patches 4"]:
    """Box (x0, y0, x1, y1) of each patch of an (h, w) grid that tiles `field` evenly, row by row."""
    h, w = shape
    x0, y0, x1, y1 = field
    across = torch.linspace(x0, x1, w + 1, dtype=torch.float64)
    down = torch.linspace(y0, y1, h + 1, dtype=torch.float64)
    top, left = torch.meshgrid(down[:-1], across[:-1], indexing="ij")
    bottom, right = torch.meshgrid(down[1:], across[1:], indexing="ij")
    return torch.stack([left, top, right, bottom], dim=-1).flatten(0, 1).float()


def patch_centres(shape: tuple[int, int], field: Box = WHOLE) -> Float[Tensor, "patches 2"]:
    """Centre (x, y) of each patch of an (h, w) grid that tiles `field` evenly, row by row."""
    boxes = patch_boxes(shape, field)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


class GridSet(LabelledSet):
    """The feature grids of several backbones for the same pictures, with the pictures' labels.

    Args:
        grids: One grid for each backbone, of equal batch; names differ.
        labels: Class numbers (b,), or None.
        classes: Names of the classes; numbered if absent.
        parts: Where the pictures of the parts `train`, `val` and `test` stand, from 0, as `extract` passes them on
            from the pictures.

    Raises:
        TypeError: If labels or parts are of another type.
        ValueError: If there is no grid, two share a name, or batches or labels do not agree.
        IndexError: If a part has a picture that is not there.
    """

    def __init__(
        self,
        grids: Sequence[FeatureGrid],
        labels: Tensor | Sequence[int] | None = None,
        *,
        classes: Sequence[str] | None = None,
        parts: Mapping[str, Index] | None = None,
    ) -> None:
        self._stored = check_grids(grids)
        self._set_up(len(self._stored[0]), labels, classes, parts)

    @overload
    def __getitem__(self, index: str) -> FeatureGrid: ...
    @overload
    def __getitem__(self, index: Index) -> Self: ...
    def __getitem__(self, index: str | Index) -> FeatureGrid | Self:
        """One backbone's grid by its name, or a set of some of the pictures."""
        if not isinstance(index, str):
            return super().__getitem__(index)
        return self._taken(self._stored[self.names.index(self._known(index))])

    def __repr__(self) -> str:
        parts = ", ".join(f"{count:,} {part}" for part, count in self.parts.items())
        labels = f"{len(self.classes)} classes" if self._store_labels is not None else "no labels"
        wide = max(len(name) for name in self.names)
        rows = (
            f"  {g.name:<{wide}}  {g.channels:>5} × {g.shape[0]} × {g.shape[1]}  {_dtype(g.features)}"
            for g in self._stored
        )
        return "\n".join(
            [f"GridSet: {len(self):,} pictures{f' ({parts})' if parts else ''}, {labels}", *rows]
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backbones."""
        return tuple(grid.name for grid in self._stored)

    @property
    def grids(self) -> tuple[FeatureGrid, ...]:
        """The grids of the set's pictures, one for each backbone."""
        return tuple(self._taken(grid) for grid in self._stored)

    def vectors(self, name: str, patches: Rows) -> Float[Tensor, "n c"]:
        """Single feature vectors of one backbone (n, c); nothing else of its grids is read.

        Args:
            name: The backbone.
            patches: Which ones (n,), counted picture by picture, in each picture row by row.
        """
        grid = self._stored[self.names.index(self._known(name))]
        h, w = grid.shape
        picture, place = patches // (h * w), patches % (h * w)
        return grid.features[self._rows[picture], :, place // w, place % w]

    def without(self, *names: str) -> Self:
        """The same pictures as seen by all backbones but these."""
        gone = {self._known(name) for name in names}
        return self.only(*(name for name in self.names if name not in gone))

    def only(self, *names: str) -> Self:
        """The same pictures as seen by these backbones, in this order."""
        view = copy.copy(self)
        view._stored = check_grids([self._stored[self.names.index(self._known(name))] for name in names])
        return view

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise ValueError(
                f"name: got {name!r}, but the backbones here are {', '.join(self.names)}; use one of them"
            )
        return name

    def _taken(self, grid: FeatureGrid) -> FeatureGrid:
        return FeatureGrid.trusted(grid.name, take(grid.features, self._rows), grid.field)


def check_grids(grids: Iterable[FeatureGrid]) -> tuple[FeatureGrid, ...]:
    """The grids as a tuple, once they are known to differ in name and to agree in batch.

    Raises:
        TypeError: If something else than a `FeatureGrid` is among them.
        ValueError: If there is none, two share a name, or their batches differ.
    """
    if isinstance(grids, FeatureGrid):
        raise TypeError("grids: got a single FeatureGrid; expected a sequence of them; put it into a list")
    grids = tuple(grids)
    for grid in grids:
        if not isinstance(grid, FeatureGrid):
            raise TypeError(
                f"grids: got {type(grid).__name__} among them; expected FeatureGrid; wrap it: "
                "FeatureGrid(name, features)"
            )
    if not grids:
        raise ValueError("grids: got none; expected at least one FeatureGrid; keep at least one backbone")
    names = [grid.name for grid in grids]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"grids: the name {twice[0]!r} is there twice; expected different names; give one backbone "
            "another with name="
        )
    first = grids[0].features.shape[0]  # no len(): an exported model takes any batch
    if any(grid.features.shape[0] != first for grid in grids[1:]):
        found = ", ".join(f"{grid.name} {tuple(grid.features.shape)}" for grid in grids)
        raise ValueError(
            f"grids: unequal batches ({found}); expected the same pictures for every backbone; slice all "
            "alike"
        )
    return grids


def _check_form(name: str, features: Tensor, field: Box) -> None:
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = str(features.dtype) if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(
            f"features: backbone {name!r} gave {kind}; expected a floating-point tensor; convert it, as with "
            ".float()"
        )
    if features.ndim != 4 or 0 in features.shape[1:]:
        raise ValueError(
            f"features: backbone {name!r} gave shape {tuple(features.shape)}; expected (b, c, h, w) with at "
            "least one channel, row and column; reshape tokens to their grid first"
        )
    if len(field) != 4 or not (0 <= field[0] < field[2] <= 1 and 0 <= field[1] < field[3] <= 1):
        raise ValueError(
            f"field: got {field} for backbone {name!r}; expected (x0, y0, x1, y1) with 0 ≤ x0 < x1 ≤ 1 and "
            "0 ≤ y0 < y1 ≤ 1; give it as shares of the picture's sides"
        )


def _all_finite(features: Tensor) -> bool:
    """Whether no value is NaN or infinite; a finite sum says so in a fraction of the time."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return bool(features.sum(dtype=wide).isfinite()) or bool(features.isfinite().all())


def _dtype(features: Tensor) -> str:
    return str(features.dtype).removeprefix("torch.")
