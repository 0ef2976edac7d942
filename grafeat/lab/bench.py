"""The trainings behind a comparison: each done once, however many tasks are tested on it, and kept."""

import inspect
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

import grafeat
from grafeat.fusion import Committee, list_ways, outline
from grafeat.fusion.budget import learned
from grafeat.grids import GridSet
from grafeat.lab.cells import (
    LAB,
    Cell,
    Key,
    content,
    content_of_pictures,
    digest,
    now,
    path_of,
    read_cell,
    write_cell,
)
from grafeat.lab.contenders import MERGE, SCRATCH, Contender
from grafeat.lab.learners import GridLearner, Learner, PictureLearner
from grafeat.lab.lessons import Lesson
from grafeat.lab.scratch import recipe, train_from_scratch
from grafeat.lab.task import Task
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel
from grafeat.pictures import PictureSet
from grafeat.runs import described
from grafeat.training import fit

NO_SETTINGS = ("model", "train", "val", "seed", "device", "checkpoint", "accelerator", "progress")
KINDS = {way.name: way.kind for way in list_ways()}


class Bench:
    """Does what is missing of some lessons, and finds the rest where it was kept.

    Args:
        folder: Where cells are kept; nothing is if None.
        matched: Whether every way with a free width gets as many parameters as the task's merge.
        epochs: Of every training of grids; the defaults of `fit` if None.
        device: Where to train.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        matched: bool = True,
        epochs: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.folder, self.matched, self.device = folder, matched, device
        self.settings = _settings(epochs)
        self.trained = 0  # trainings so far
        self._cells: dict[str, Cell] = {}
        self._contents: dict[tuple[object, ...], str] = {}
        self._outlines: dict[tuple[object, ...], GridModel] = {}
        self._members: dict[str, GridLearner] = {}  # of the group at hand, for its committees

    def learn(self, group: Sequence[Lesson]) -> Iterator[tuple[Lesson, dict[str, Cell]]]:
        """Each lesson of a group with its cells by task; trained models live as long as the group is at hand."""
        members = [one.contender for lesson in group if self._missing(lesson) for one in lesson.members]
        for lesson in group:
            missing = self._missing(lesson)
            if missing:
                learner = self._learner(lesson)
                if lesson.contender in members:
                    self._members[lesson.contender.name] = cast(GridLearner, learner)
                self._test(lesson, learner, missing)
            yield lesson, {task.name: self._cells[digest(self.key(lesson, task))] for task in lesson.tasks}
        self._members.clear()

    # What is there, and what decides it

    def key(self, lesson: Lesson, task: Task) -> Key:
        """All that decides a cell. Labels of the test are no part of it: nothing that is kept may depend on them."""
        way, scratch = lesson.contender.way, lesson.contender.way == SCRATCH
        parts = {part: self._content(lesson, task, part) for part in ("train", "val", "test")}
        return {
            "lab": LAB,
            "way": way if isinstance(way, str) else lesson.contender.name,
            "model": self._recipe(lesson) if scratch else described(self.outlined(lesson)),
            "seed": lesson.seed,
            "fit": {} if scratch else self.settings,
            **parts,
        }

    def outlined(self, lesson: Lesson) -> GridModel:
        """The shapes of the model that is to learn."""
        contender, task = lesson.contender, lesson.task
        known = (contender.name, id(task.grids), task.names)
        if known not in self._outlines:
            self._outlines[known] = self._outline(contender, lesson.seen(task.grids.train[:2]), task)
        return self._outlines[known]

    def _outline(self, contender: Contender, seen: GridSet, task: Task) -> GridModel:
        if not isinstance(contender.way, str):
            return contender.way(seen, task.num_classes, 0)
        if contender.options:
            plain = cast(GraFeatMerge, outline(MERGE, seen, num_classes=task.num_classes))
            with torch.device("meta"):
                return GraFeatMerge(replace(plain.config, **contender.options))
        wanted = self._size(contender, task)
        try:
            return outline(contender.way, seen, num_classes=task.num_classes, parameters=wanted)
        except ValueError as error:
            if wanted is None:
                raise
            warnings.warn(f"task {task.name!r}: {contender.name!r} keeps its own size ({error})", stacklevel=2)
            return outline(contender.way, seen, num_classes=task.num_classes)

    def _size(self, contender: Contender, task: Task) -> int | None:
        """How many parameters a contender is given: those of the task's merge; None for its own number."""
        if not self.matched or contender.way == MERGE:
            return None
        return learned(outline(MERGE, task.grids.only(*task.names).train[:2], num_classes=task.num_classes))

    def _recipe(self, lesson: Lesson) -> str:
        return recipe(len(_shown(lesson).train), lesson.task.num_classes)

    def _content(self, lesson: Lesson, task: Task, part: str) -> str:
        """What a part holds, as the contender sees it; labels count, but never those of the test."""
        scratch = lesson.contender.way == SCRATCH
        seen: object = SCRATCH if scratch else lesson.seen
        where = (task.name,) if part == "test" else (id(task.grids), task.per_class, lesson.seed)
        known = (part, seen, *where)
        if known not in self._contents:
            if scratch:
                chosen: PictureSet = getattr(_shown(lesson), part)
                self._contents[known] = content_of_pictures(chosen, labels=part != "test")
            else:
                grids = task.tested if part == "test" else getattr(task.labelled(lesson.seed), part)
                self._contents[known] = content(lesson.seen(grids), labels=part != "test")
        return self._contents[known]

    def _missing(self, lesson: Lesson) -> list[Task]:
        """The tasks of a lesson for which something has to be made, one for each cell."""
        vectors = self._vectors(lesson)
        keys = {digest(key): (key, task) for task in lesson.tasks for key in [self.key(lesson, task)]}
        return [task for name, (key, task) in keys.items() if not self._there(name, key, vectors[name])]

    def _vectors(self, lesson: Lesson) -> dict[str, bool]:
        """Whether each cell of a lesson needs image vectors: one task among those that share it is enough."""
        found: dict[str, bool] = {}
        for task in lesson.tasks:
            name = digest(self.key(lesson, task))
            found[name] = found.get(name, False) or task.measure != "accuracy"
        return found

    def _there(self, name: str, key: Key, vectors: bool) -> bool:
        if name not in self._cells and self.folder is not None:
            found = read_cell(path_of(self.folder, key), key)
            if found is not None:
                self._cells[name] = found
        return name in self._cells and (self._cells[name].vectors is not None or not vectors)

    # What is not there

    def _test(self, lesson: Lesson, learner: Learner, missing: Sequence[Task]) -> None:
        vectors = self._vectors(lesson)
        for task in missing:
            key = self.key(lesson, task)
            made = learner.cell(task, vectors=vectors[digest(key)])
            self._cells[digest(key)] = cell = replace(made, date=now(), versions=versions())
            if self.folder is not None:
                write_cell(path_of(self.folder, key), key, cell)

    def _learner(self, lesson: Lesson) -> Learner:
        """The trained contender.

        Raises:
            ValueError: As `fit` does; names the task and the contender.
        """
        try:
            if lesson.contender.way == SCRATCH:
                self.trained += 1
                shown = _shown(lesson)
                network = train_from_scratch(shown, num_classes=lesson.task.num_classes, seed=lesson.seed)
                return PictureLearner(network, shown)
            return self._fitted(lesson) if lesson.trains else self._committee(lesson)
        except ValueError as error:
            raise ValueError(
                f"task {lesson.task.name!r}, {lesson.contender.name!r}, seed {lesson.seed}: {error}"
            ) from error

    def _fitted(self, lesson: Lesson) -> GridLearner:
        few = lesson.task.labelled(lesson.seed)
        train, val = lesson.seen(few.train), lesson.seen(few.val)
        model = self._model(lesson, train)
        history = fit(model, train, val=val, seed=lesson.seed, device=self.device, progress=False, **self.settings)
        self.trained += 1
        return GridLearner(model, lesson.seen, train, val, history.seconds)

    def _model(self, lesson: Lesson, train: GridSet) -> GridModel:
        """The model, standardised from what it is to learn from."""
        if not isinstance(lesson.contender.way, str):
            return lesson.contender.way(train, lesson.task.num_classes, lesson.seed)
        shape: Any = self.outlined(lesson)  # every way that is no committee has a configuration, and is made `of` it
        return type(shape).of(shape.config, train, seed=lesson.seed)

    def _committee(self, lesson: Lesson) -> GridLearner:
        """The trained singles of the same labels and seed, put together."""
        for one in lesson.members:
            if one.contender.name not in self._members:
                self._members[one.contender.name] = self._fitted(one)
        singles = [self._members[one.contender.name] for one in lesson.members]
        kind = cast(Callable[..., Committee], KINDS[str(lesson.contender.way)])
        model = kind({name: one.model for name, one in zip(lesson.task.names, singles, strict=True)})
        few = lesson.task.labelled(lesson.seed)
        took = sum(one.seconds for one in singles)
        return GridLearner(model, lesson.seen, lesson.seen(few.train), lesson.seen(few.val), took)


def versions() -> str:
    """Of Python and of the packages that decide figures."""
    found = [f"grafeat {grafeat.__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*found, *(f"{package} {version(package)}" for package in ("torch", "numpy", "scikit-learn"))])


def _settings(epochs: int | None) -> dict[str, Any]:
    """What `fit` is called with; its defaults, spelled out so that a cell knows them."""
    given = inspect.signature(fit).parameters
    found = {name: one.default for name, one in given.items() if name not in NO_SETTINGS}
    return found | {"epochs": epochs}


def _shown(lesson: Lesson) -> PictureSet:
    shown = lesson.task.shown(lesson.seed)
    if shown is None:
        raise ValueError("pictures: got None; expected the pictures of the grids to train a CNN on; pass pictures=")
    return shown

