"""Labelled sets as views: which rows of a store, and which of them are for training, validation and test."""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grafeat.arguments import is_whole, whole
from grafeat.pages import ask_for

Rows = Int[Tensor, "_"]
Index = int | slice | Sequence[int] | Tensor
PARTS = ("train", "val", "test")


class LabelledSet:
    """Rows of a labelled store: the part that `PictureSet` and `GridSet` share.

    A set is a view. Indexing, the parts and `few_labels` choose rows and copy nothing; tensors are made when
    they are asked for. A set of pictures and the set of their feature grids, split with the same seed, hold
    the same rows.
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
        parts: Mapping[str, Index] | None,
    ) -> None:
        """Called once by a subclass's constructor, with the number of pictures in its store."""
        self._store_labels = None if labels is None else _checked_labels(labels, count, classes)
        self._rows = torch.arange(count)
        self._parts = {} if parts is None else _checked_parts(parts, count)
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
        return self._view(self._rows[positions(index, len(self))])

    def leaving_out(self, bad: Sequence[int]) -> Self:
        """The same set but for the pictures at some positions, which leave its parts, too."""
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[positions(bad, len(self))] = False
        gone = self._rows[~kept]
        parts = {part: rows[~torch.isin(rows, gone)] for part, rows in self._parts.items()}
        return self._view(self._rows[kept], parts)

    @property
    def labels(self) -> Rows | None:
        """Class numbers (b,), int64, or None where the set has no labels."""
        return None if self._store_labels is None else self._store_labels[self._rows]

    def required_labels(self, argument: str) -> Rows:
        """The class numbers (b,), for a function that cannot do without; `argument` is how its caller calls this set.

        Raises:
            ValueError: If the set is empty or has no labels.
        """
        if self.labels is None or not len(self):
            what = "no labels" if len(self) else "no pictures"
            raise ValueError(
                f"{argument}: got a set with {what}; expected labelled pictures; build it with labels="
            )
        return self.labels

    @property
    def parts(self) -> dict[str, int]:
        """Pictures in each part, by the part's name; empty for a set that is not split."""
        return {part: len(rows) for part, rows in self._parts.items()}

    @property
    def part_positions(self) -> dict[str, Rows]:
        """Where the pictures of each part stand in this set, from 0: the `parts=` of a set made from this one."""
        if not len(self):
            return {part: torch.arange(0) for part in self._parts}
        place = torch.full((int(self._rows.max()) + 1,), -1)
        place[self._rows] = torch.arange(len(self))
        return {part: place[rows] for part, rows in self._parts.items()}

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

    @property
    def unlabelled(self) -> Self:
        """The pictures whose labels were not paid for: without labels, whether the store knows them or not."""
        view = self._part("unlabelled")
        view._store_labels = None
        return view

    def _part(self, part: str) -> Self:
        if part not in self._parts:
            has = f"the parts {', '.join(self._parts)}" if self._parts else "no parts"
            made = ".few_labels(…, rest=True)" if part == "unlabelled" else ".split(val=…, test=…)"
            raise ValueError(f"{part}: this set has {has}; make parts with {made}, or pass one of its parts")
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
        if not (val >= 0 and test >= 0 and val + test < 1):
            raise ValueError(
                f"val, test: got {val} and {test}; expected shares of 0 or more whose sum is below 1; "
                "lower or raise them"
            )
        generator = torch.Generator().manual_seed(whole("seed", seed, least=0))
        parts: dict[str, list[Rows]] = {part: [] for part in PARTS}
        for rows in self._rows_by_class():
            shuffled = rows[torch.randperm(len(rows), generator=generator)]
            num_test, num_val = round(test * len(rows)), round(val * len(rows))
            sizes = [len(rows) - num_val - num_test, num_val, num_test]
            for part, chosen in zip(PARTS, shuffled.split(sizes), strict=True):
                parts[part].append(chosen)
        if not any(len(rows) for rows in parts["train"]):
            raise ValueError(
                f"val, test: got {val} and {test}, which leave none of {len(self):,} pictures to train on; "
                "lower them or add pictures"
            )
        return self._view(self._rows, {part: torch.cat(rows).sort().values for part, rows in parts.items()})

    def with_parts(self, **parts: Index) -> Self:
        """The same pictures with parts of your own, as in `with_parts(train=range(400), test=range(400, 500))`.

        Args:
            parts: Where the pictures of each part stand in this set, from 0.
        """
        chosen = _checked_parts(parts, len(self))
        return self._view(self._rows, {part: self._rows[rows] for part, rows in chosen.items()})

    def few_labels(self, per_class: int, *, seed: int = 0, val: float = 0.2, rest: bool = False) -> Self:
        """A balanced subset of the training part, as when only a few labels can be paid for.

        Labels for validation come out of the same budget. The test part stays as it is.

        Args:
            per_class: Labels of each class, for training and validation together.
            seed: Decides the draw.
            val: Share of `per_class` that goes to validation, in [0, 1).
            rest: Whether the training pictures that were not drawn become the part `unlabelled`, for `fit`.

        Returns:
            A set with the parts `train`, `val` and, where this set has one, `test`.

        Raises:
            TypeError: If `per_class` is no whole number.
            ValueError: If a class of the training part has fewer pictures than asked for.
        """
        if not is_whole(per_class):
            raise TypeError(f"per_class: got {per_class!r}; expected a whole number of labels; round it")
        num_val = round(val * per_class)
        if per_class < 1 or val < 0 or num_val >= per_class:
            raise ValueError(
                f"per_class, val: got {per_class} and {val}, that is {per_class - num_val} training and "
                f"{num_val} validation pictures a class; expected at least 1 and 0; raise per_class or lower "
                "val"
            )
        by_class = self._enough_by_class(per_class)
        generator = torch.Generator().manual_seed(whole("seed", seed, least=0))
        drawn = [rows[torch.randperm(len(rows), generator=generator)[:per_class]] for rows in by_class]
        parts = {
            "train": torch.cat([rows[num_val:] for rows in drawn]),
            "val": torch.cat([rows[:num_val] for rows in drawn]),
        }
        if rest:
            parts["unlabelled"] = torch.cat([rows[~torch.isin(rows, torch.cat(drawn))] for rows in by_class])
        if "test" in self._parts:
            parts["test"] = self._parts["test"]
        return self._view(torch.cat(list(parts.values())), parts)

    def _enough_by_class(self, per_class: int) -> list[Rows]:
        """Training rows of each class, once each class is known to have enough of them."""
        train = self.train if self._parts else self
        if self._store_labels is None or not self.classes:
            raise ValueError("labels: this set has none, so few_labels has no classes; build it with labels=")
        by_class = train._rows_by_class()
        fewest = min(range(len(by_class)), key=lambda number: len(by_class[number]))
        found = len(by_class[fewest])
        if found < per_class:
            raise ValueError(
                f"per_class: got {per_class}, but class {self.classes[fewest]!r} has {found} training "
                f"pictures; {f'ask for at most {found}' if found else 'add some, or leave the class out'}"
            )
        return by_class

    def _rows_by_class(self) -> list[Rows]:
        if self._store_labels is None:
            return [self._rows]
        labels = self._store_labels[self._rows]
        return [self._rows[labels == number] for number in range(len(self.classes))]


def positions(index: Index, count: int, argument: str = "index") -> Rows:
    """The positions, from 0, that an index names among so many pictures; `argument` is how its caller calls it.

    Raises:
        TypeError: If it is neither whole numbers nor one truth value for each picture.
        IndexError: If there is no such picture.
    """
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.int64)  # a tensor takes no negative step
    try:
        chosen = torch.atleast_1d(torch.as_tensor(index))
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises all three
        raise TypeError(
            f"{argument}: got {index!r}; expected whole numbers, or one truth value for each picture; list them"
        ) from error
    if not chosen.numel():
        return torch.empty(0, dtype=torch.int64)
    mask = chosen.dtype == torch.bool
    if chosen.ndim != 1 or chosen.is_floating_point() or (mask and len(chosen) != count):
        raise TypeError(
            f"{argument}: got {chosen.dtype} of shape {tuple(chosen.shape)}; expected whole numbers, or truth "
            f"values of shape ({count},), one for each picture; build it from this set"
        )
    if mask:
        return chosen.nonzero().flatten().cpu()
    chosen = chosen.to("cpu", torch.int64)
    outside = chosen[(chosen < -count) | (chosen >= count)]
    if len(outside):
        raise IndexError(
            f"{argument}: got {int(outside[0])}, but the set has {count:,} pictures; count from 0, or back from -1"
        )
    return chosen % count


def take(stored: Tensor, rows: Rows) -> Tensor:
    """The chosen rows of a stored tensor: a view where they are consecutive, else a copy of those rows."""
    if len(rows) and torch.equal(rows, torch.arange(int(rows[0]), int(rows[0]) + len(rows))):
        return stored[int(rows[0]) : int(rows[0]) + len(rows)]
    ask_for(stored, rows)
    return stored[rows]


def _checked_parts(parts: Mapping[str, Index], count: int) -> dict[str, Rows]:
    if not isinstance(parts, Mapping):
        raise TypeError(
            f"parts: got {type(parts).__name__}; expected the positions of each part; write {{'train': range(400)}}"
        )
    return {part: positions(index, count, f"parts, {part!r}") for part, index in parts.items()}


def _checked_labels(labels: Tensor | Sequence[int], count: int, classes: Sequence[str] | None) -> Rows:
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise TypeError(
            f"labels: got {values.dtype} of shape {values.shape}; expected whole numbers of shape ({count},), "
            "one class number for each picture; give the classes' names as classes="
        )
    if len(values) != count:
        raise ValueError(
            f"labels: got {len(values):,} for {count:,} pictures; expected one for each; slice both alike"
        )
    top = len(classes) if classes is not None else None
    bad = (values < 0) | (values >= top) if top is not None else values < 0
    if bad.any():
        where = int(bad.argmax())
        expected = f"0 to {top - 1}, as there are {top} classes" if top is not None else "0 or more"
        raise ValueError(
            f"labels: got {values[where]} at picture {where}; expected {expected}; correct the label"
        )
    return torch.from_numpy(values.astype(np.int64))


def _numbered_classes(labels: Rows | None) -> tuple[str, ...]:
    if labels is None or not len(labels):
        return ()
    return tuple(str(number) for number in range(int(labels.max()) + 1))
