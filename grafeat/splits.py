"""Labelled sets as views: which rows of a store, and which of them are for training, validation and test."""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

Rows = Int[Tensor, " rows"]
Index = int | slice | Sequence[int] | Tensor
PARTS = ("train", "val", "test")


class LabelledSet:
    """Rows of a labelled store: the part that `PictureSet` and `GridSet` share.

    A set is a view. Indexing, the parts and `few_labels` choose rows and copy nothing; tensors are made when they are
    asked for. A set of pictures and the set of their feature grids, split with the same seed, hold the same rows.
    """

    classes: tuple[str, ...]
    _store_labels: Rows | None
    _rows: Rows
    _parts: Mapping[str, Rows]

    def _set_up(
        self,
        count: int,
        labels: Tensor | Sequence[int] | None,
        classes: Sequence[str] | None,
        parts: Mapping[str, Rows] | None,
    ) -> None:
        """Called once by a subclass's constructor, with the number of pictures in its store."""
        self._store_labels = None if labels is None else _checked_labels(labels, count, classes)
        self._rows = torch.arange(count)
        self._parts = dict(parts or {})
        self.classes = tuple(classes) if classes is not None else _numbered_classes(self._store_labels)

    def _view(self, rows: Rows, parts: Mapping[str, Rows] | None = None) -> Self:
        view = copy.copy(self)
        view._rows = rows
        view._parts = dict(parts or {})
        return view

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Index) -> Self:
        """The chosen pictures as a set of the same kind; a whole number gives a set of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index: got {index}, but the set has {len(self):,} pictures")
            index = [index]
        if isinstance(index, slice):
            return self._view(self._rows[index])
        return self._view(self._rows[torch.as_tensor(index)])

    @property
    def labels(self) -> Rows | None:
        """Class numbers (b,), int64, or None where the set has no labels."""
        return None if self._store_labels is None else self._store_labels[self._rows]

    @property
    def parts(self) -> dict[str, int]:
        """Pictures in each part, by the part's name; empty for a set that is not split."""
        return {part: len(rows) for part, rows in self._parts.items()}

    @property
    def train(self) -> Self:
        """The pictures to learn from."""
        return self._part("train")

    @property
    def val(self) -> Self:
        """The pictures on which the best epoch is chosen."""
        return self._part("val")

    @property
    def test(self) -> Self:
        """The pictures that nothing has seen."""
        return self._part("test")

    def _part(self, part: str) -> Self:
        if part not in self._parts:
            has = f"the parts {', '.join(self._parts)}" if self._parts else "no parts"
            raise ValueError(f"{part}: this set has {has}; make parts with .split(val=…, test=…)")
        return self._view(self._parts[part])

    def split(self, *, val: float, test: float, seed: int = 0) -> Self:
        """The same pictures with parts `train`, `val` and `test`, drawn at random, alike in every class.

        Args:
            val: Share of the pictures for validation, in [0, 1).
            test: Share of the pictures for the test, in [0, 1); `val + test` is below 1.
            seed: Decides the draw.

        Raises:
            ValueError: If the shares leave nothing to train on.
        """
        if val < 0 or test < 0 or val + test >= 1:
            raise ValueError(f"val, test: got {val} and {test}; both must be 0 or more, and their sum below 1")
        generator = torch.Generator().manual_seed(seed)
        parts: dict[str, list[Rows]] = {part: [] for part in PARTS}
        for rows in self._rows_by_class():
            shuffled = rows[torch.randperm(len(rows), generator=generator)]
            num_test, num_val = round(test * len(rows)), round(val * len(rows))
            sizes = [len(rows) - num_val - num_test, num_val, num_test]
            for part, chosen in zip(PARTS, shuffled.split(sizes), strict=True):
                parts[part].append(chosen)
        return self._view(self._rows, {part: torch.cat(rows).sort().values for part, rows in parts.items()})

    def few_labels(self, per_class: int, *, seed: int = 0, val: float = 0.2) -> Self:
        """A balanced subset of the training part, as when only a few labels can be paid for.

        Labels for validation come out of the same budget. The test part stays as it is.

        Args:
            per_class: Labels of each class, for training and validation together.
            seed: Decides the draw.
            val: Share of `per_class` that goes to validation, in [0, 1).

        Returns:
            A set with the parts `train`, `val` and, where this set has one, `test`.

        Raises:
            ValueError: If a class of the training part has fewer pictures than asked for.
        """
        num_val = round(val * per_class)
        if per_class < 1 or not 0 <= num_val < per_class:
            raise ValueError(
                f"per_class, val: got {per_class} and {val}, that is {per_class - num_val} training and {num_val} "
                "validation pictures a class; at least 1 training picture is needed"
            )
        generator = torch.Generator().manual_seed(seed)
        drawn = [self._drawn(rows, number, per_class, generator) for number, rows in self._train_rows_by_class()]
        parts = {
            "train": torch.cat([rows[num_val:] for rows in drawn]),
            "val": torch.cat([rows[:num_val] for rows in drawn]),
        }
        if "test" in self._parts:
            parts["test"] = self._parts["test"]
        return self._view(torch.cat(list(parts.values())), parts)

    def _drawn(self, rows: Rows, number: int, per_class: int, generator: torch.Generator) -> Rows:
        if len(rows) < per_class:
            raise ValueError(
                f"per_class: got {per_class}, but class {self.classes[number]!r} has {len(rows)} training pictures; "
                f"ask for at most {len(rows)}"
            )
        return rows[torch.randperm(len(rows), generator=generator)[:per_class]]

    def _train_rows_by_class(self) -> list[tuple[int, Rows]]:
        train = self.train if "train" in self._parts else self
        if train.labels is None:
            raise ValueError("few_labels: this set has no labels; build it with labels=")
        return list(enumerate(train._rows_by_class()))

    def _rows_by_class(self) -> list[Rows]:
        if self._store_labels is None:
            return [self._rows]
        labels = self._store_labels[self._rows]
        return [self._rows[labels == number] for number in range(len(self.classes))]


def take(stored: Tensor, rows: Rows) -> Tensor:
    """The chosen rows of a stored tensor: a view where they are consecutive, else a copy of those rows alone."""
    if len(rows) and torch.equal(rows, torch.arange(int(rows[0]), int(rows[0]) + len(rows))):
        return stored[int(rows[0]) : int(rows[0]) + len(rows)]
    return stored[rows]


def _checked_labels(labels: Tensor | Sequence[int], count: int, classes: Sequence[str] | None) -> Rows:
    whole = torch.as_tensor(labels)
    if whole.ndim != 1 or whole.is_floating_point() or whole.dtype == torch.bool:
        raise TypeError(
            f"labels: got {whole.dtype} of shape {tuple(whole.shape)}; expected whole numbers of shape ({count},), "
            "one class number for each picture"
        )
    if len(whole) != count:
        raise ValueError(f"labels: got {len(whole):,} labels for {count:,} pictures; give one for each")
    top = len(classes) if classes is not None else None
    bad = (whole < 0) | (whole >= top) if top is not None else whole < 0
    if bad.any():
        where = int(bad.nonzero()[0])
        expected = f"0 to {top - 1}, as there are {top} classes" if top is not None else "0 or more"
        raise ValueError(f"labels: got {int(whole[where])} at picture {where}; expected {expected}; correct the label")
    return whole.to(torch.int64)


def _numbered_classes(labels: Rows | None) -> tuple[str, ...]:
    if labels is None or not len(labels):
        return ()
    return tuple(str(number) for number in range(int(labels.max()) + 1))
