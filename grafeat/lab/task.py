"""A task for the lab: what is learned from which grids, on what it is tested, and by which measure."""

import difflib
from collections.abc import Hashable, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from grafeat.evaluation import check_same_classes
from grafeat.grids import GridSet
from grafeat.pictures import PictureSet
from grafeat.splits import PARTS

ANOMALY = ("knn_auroc", "mahalanobis_auroc")  # pictures of classes that nothing has trained are to stand out
RETRIEVAL = ("retrieval", "recall@5")  # each picture is to find the others of its class
MEASURES = ("accuracy", *RETRIEVAL, *ANOMALY)
REST = "unlabelled"  # the part of a task's pictures that are learned from without labels, where there is one


@dataclass(frozen=True, eq=False)
class Task:
    """What every way to mix is asked to learn, and how it is judged.

    Tasks that differ in `test` and `measure` alone share their trainings: give them the same `grids`.

    Attributes:
        name: What to call it; names differ within a comparison.
        grids: Labelled grids with the parts `train`, `val` and `test`. Spare backbones, for controls, may be among
            them.
        per_class: Labelled pictures of each class, validation included, drawn anew for each seed; None for the whole
            parts `train` and `val`.
        unlabelled: Whether the training pictures whose labels are not drawn are learned from without them.
        backbones: Those that are compared; all of the grids' if None.
        test: Labelled grids of the same backbones to test on, other than `grids.test`: shifted pictures, or pictures
            of classes that are not trained.
        measure: `accuracy`; `retrieval` (mean average precision) or `recall@5`, both among the test's image vectors;
            `knn_auroc` or `mahalanobis_auroc`: how well distances of image vectors tell pictures of classes unknown to
            the model, which are those with labels beyond `grids.classes`.
        pictures: The pictures of the grids, in the same order, for a network that learns from pixels.
        family: Tasks that ask the same question share it, as the shifts of one set do; the name if left out.
        groups: What each test picture shares with others, in their order: its object, writer or patient, by name or
            number. Intervals then draw all pictures of a group together, and there is no McNemar's p, which takes
            pictures for independent. None where they share nothing.

    Raises:
        TypeError: If a group is a tensor or a list.
        ValueError: If the measure or a backbone is unknown; if a part or labels are missing, or a picture is in two
            parts; if there are fewer than 2 classes, or too few pictures for `per_class`; if the test has unknown
            classes where it must not, or none where it must; if the pictures are others; if there is not one group for
            each test picture, or fewer than 2 differ.
    """

    name: str
    grids: GridSet
    _: KW_ONLY
    per_class: int | None = None
    unlabelled: bool = True
    backbones: Sequence[str] | None = None
    test: GridSet | None = None
    measure: str = "accuracy"
    pictures: PictureSet | None = None
    family: str = ""
    groups: Sequence[Hashable] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or self.name)
        _check_measure(self)
        try:
            _check_backbones(self)
            _check_trained(self)
            _check_tested(self)
            _check_pictures(self)
            _check_groups(self)
        except (TypeError, ValueError) as error:
            raise type(error)(f"task {self.name!r}: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The backbones that are compared."""
        return self.grids.names if self.backbones is None else tuple(self.backbones)

    @property
    def spare(self) -> tuple[str, ...]:
        """The backbones that only controls see."""
        return tuple(name for name in self.grids.names if name not in self.names)

    @property
    def num_classes(self) -> int:
        """Classes t that a model learns."""
        return len(self.grids.classes)

    @property
    def anomaly(self) -> bool:
        """Whether the test asks which pictures are of unknown classes."""
        return self.measure in ANOMALY

    @property
    def tested(self) -> GridSet:
        """The labelled grids that are tested on, spare backbones included where they are there."""
        return self.grids.test if self.test is None else self.test

    @property
    def grouped(self) -> Int[Tensor, " b"] | None:
        """The number of each test picture's group, from 0 in the order in which they come; None without groups."""
        if self.groups is None:
            return None
        numbers = {group: number for number, group in enumerate(dict.fromkeys(self.groups))}
        return torch.tensor([numbers[group] for group in self.groups])

    def labelled(self, seed: int) -> GridSet:
        """The grids with the parts `train` and `val` as one seed draws them, spare backbones included.

        With `per_class` and `unlabelled`, the other training pictures are its part `unlabelled`; without `per_class`,
        those that the grids have as that part.
        """
        if self.per_class is None:
            parts = {part: rows for part, rows in self.grids.part_positions.items() if part != REST or self.unlabelled}
            return self.grids if len(parts) == len(self.grids.part_positions) else self.grids.with_parts(**parts)
        return self.grids.few_labels(self.per_class, seed=seed, rest=self.unlabelled)

    def shown(self, seed: int) -> PictureSet | None:
        """The pictures of `labelled`, with the same parts; None if the task has none."""
        if self.pictures is None or self.per_class is None:
            return self.pictures
        return self.pictures.few_labels(self.per_class, seed=seed)

    def __repr__(self) -> str:
        parts = self.grids.parts
        few = f"{self.per_class} a class" if self.per_class else f"{parts['train'] + parts['val']:,} pictures"
        spare = f" (spare: {', '.join(self.spare)})" if self.spare else ""
        groups = "" if self.groups is None else f" in {len(set(self.groups)):,} groups"
        return (
            f"Task({self.name!r}: {', '.join(self.names)}{spare}; {few} of {self.num_classes} classes; "
            f"{self.measure} on {len(self.tested):,} pictures{groups})"
        )


def _check_measure(task: Task) -> None:
    if task.measure not in MEASURES:
        closest = difflib.get_close_matches(task.measure, MEASURES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"measure: got {task.measure!r} for task {task.name!r}; expected one of {', '.join(MEASURES)}; the "
            f"closest is {closest!r}"
        )


def _check_backbones(task: Task) -> None:
    missing = [name for name in task.names if name not in task.grids.names]
    if missing or not task.names or len(set(task.names)) < len(task.names):
        found = ", ".join(map(repr, task.names)) or "none"
        raise ValueError(
            f"backbones: got {found}; expected different names among {', '.join(task.grids.names)}; leave it out "
            "for all of them"
        )


def _check_trained(task: Task) -> None:
    lacking = [part for part in PARTS if part not in task.grids.parts]
    if lacking:
        raise ValueError(
            f"grids: got a set without the part {lacking[0]!r}; expected train, val and test; make them with .split(…)"
        )
    rows = [task.grids.part_positions[part] for part in PARTS]
    rest = task.grids.part_positions.get(REST, torch.zeros(0, dtype=torch.int64))
    for part, own in zip(PARTS, rows, strict=True):
        if not len(own) and (part != "test" or task.test is None):
            raise ValueError(
                f"grids: got no picture in the part {part!r}; expected some; split with val= and test= above 0"
            )
    if len(torch.cat([*rows, rest]).unique()) < sum(map(len, rows)) + len(rest):
        raise ValueError(
            "grids: got a picture in two of the parts train, val, test and unlabelled; expected each in one, so that "
            "no test picture is learned from; make the parts with .split(…)"
        )
    if len(rest) and task.per_class is not None:
        raise ValueError(
            f"grids: got the part {REST!r} and per_class={task.per_class}, which makes one of the training pictures "
            "that it does not draw; expected one of the two; leave per_class out"
        )
    there = task.grids.train.required_labels("grids").unique()
    if len(there) < 2:
        raise ValueError(
            f"grids: got {len(there)} class in the training part; expected 2 or more; add pictures of another class"
        )
    task.labelled(seed=0)


def _check_tested(task: Task) -> None:
    tested = task.tested
    check_same_classes("test", tested, task.grids.classes, of="the training")
    missing = [name for name in task.names if name not in tested.names]
    if missing:
        raise ValueError(
            f"test: got grids of {', '.join(tested.names)}; expected those of {missing[0]!r}, too; extract its "
            "pictures with every backbone of the task"
        )
    for name in task.grids.names:
        trained = task.grids[name].features.shape[1]
        if name in tested.names and tested[name].features.shape[1] != trained:
            raise ValueError(
                f"test: got {tested[name].features.shape[1]} channels of {name!r}; expected {trained}, as in training; "
                "extract its pictures with the same backbone"
            )
    unknown = tested.required_labels("test") >= task.num_classes
    if task.anomaly and (bool(unknown.all()) or not bool(unknown.any())):
        raise ValueError(
            f"test: got {int(unknown.sum()):,} of {len(tested):,} pictures with a label beyond the {task.num_classes} "
            f"classes that are trained; expected some and not all, for {task.measure!r}; pass as test= grids of known "
            "and of unknown classes"
        )
    if not task.anomaly and bool(unknown.any()):
        raise ValueError(
            f"test: got label {int(tested.required_labels('test').max())}; expected 0 to {task.num_classes - 1}, the "
            "classes that are trained; take the other pictures out, or choose an AUROC as the measure"
        )
    if task.measure in RETRIEVAL and bool((tested.required_labels("test").bincount() == 1).any()):
        raise ValueError(
            f"test: got a class with 1 picture; expected 2 or more of each for {task.measure!r}, so that there is "
            "something to find; leave that class out"
        )


def _check_pictures(task: Task) -> None:
    if task.pictures is None:
        return
    there, parts = task.grids.part_positions, task.pictures.part_positions
    alike = len(task.pictures) == len(task.grids) and there.keys() == parts.keys()
    alike = alike and all(torch.equal(rows, parts[part]) for part, rows in there.items())
    if not alike or not bool((task.pictures.required_labels("pictures") == task.grids.required_labels("grids")).all()):
        raise ValueError(
            f"pictures: got {task.pictures}; expected the {len(task.grids):,} pictures of the grids, with the same "
            "labels and parts in the same order; pass the set that was extracted"
        )


def _check_groups(task: Task) -> None:
    if task.groups is None:
        return
    strange = [type(group).__name__ for group in task.groups if isinstance(group, Tensor | list)]
    if strange:
        raise TypeError(f"groups: got a {strange[0]} among them; expected names or numbers; turn it: groups.tolist()")
    if len(task.groups) != len(task.tested):
        raise ValueError(
            f"groups: got {len(task.groups):,}; expected {len(task.tested):,}, one for each test picture in their "
            "order; leave it out if they share nothing"
        )
    if len(set(task.groups)) < 2:
        raise ValueError(
            f"groups: got {task.groups[0]!r} for every test picture; expected 2 or more groups, as an interval needs "
            "some to draw anew; leave it out if pictures share nothing"
        )
