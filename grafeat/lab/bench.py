"""The trainings behind a comparison: each done once, however many tasks are tested on it, and kept."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

import grafeat
from grafeat.fusion import Committee, list_ways
from grafeat.grids import GridSet
from grafeat.lab.cells import Cell, Key, digest, now, path_of, read_cell, write_cell
from grafeat.lab.contenders import SCRATCH
from grafeat.lab.keys import REST, Keys
from grafeat.lab.learners import GridLearner, Learner, PictureLearner
from grafeat.lab.lessons import Lesson
from grafeat.lab.scratch import train_from_scratch
from grafeat.lab.task import Task
from grafeat.models import GridModel
from grafeat.training import fit

KINDS = {way.name: way.kind for way in list_ways()}


class Bench:
    """Does what is missing of some lessons, and finds the rest where it was kept.

    Args:
        folder: Where cells are kept; nothing is if None.
        keys: What decides each cell; by default for matched sizes and the defaults of `fit`.
        device: Where to train.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        keys: Keys | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.folder, self.keys, self.device = folder, keys or Keys(), device
        self._cells: dict[str, Cell] = {}
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
            yield lesson, {task.name: self._cells[digest(self.keys.key(lesson, task))] for task in lesson.tasks}
        self._members.clear()

    def _missing(self, lesson: Lesson) -> list[Task]:
        """The tasks of a lesson for which something has to be made, one for each cell."""
        vectors = self._vectors(lesson)
        keys = {digest(key): (key, task) for task in lesson.tasks for key in [self.keys.key(lesson, task)]}
        return [task for name, (key, task) in keys.items() if not self._there(name, key, vectors[name])]

    def _vectors(self, lesson: Lesson) -> dict[str, bool]:
        """Whether each cell of a lesson needs image vectors: one task among those that share it is enough."""
        found: dict[str, bool] = {}
        for task in lesson.tasks:
            name = digest(self.keys.key(lesson, task))
            found[name] = found.get(name, False) or task.measure != "accuracy"
        return found

    def _there(self, name: str, key: Key, vectors: bool) -> bool:
        if name not in self._cells and self.folder is not None:
            found = read_cell(path_of(self.folder, key), key)
            if found is not None:
                self._cells[name] = found
        return name in self._cells and (self._cells[name].vectors is not None or not vectors)

    def _test(self, lesson: Lesson, learner: Learner, missing: Sequence[Task]) -> None:
        vectors = self._vectors(lesson)
        for task in missing:
            key = self.keys.key(lesson, task)
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
                network = train_from_scratch(lesson.pictures, num_classes=lesson.task.num_classes, seed=lesson.seed)
                return PictureLearner(network, lesson.pictures)
            return self._fitted(lesson) if lesson.trains else self._committee(lesson)
        except ValueError as error:
            raise ValueError(
                f"task {lesson.task.name!r}, {lesson.contender.name!r}, seed {lesson.seed}: {error}"
            ) from error

    def _fitted(self, lesson: Lesson) -> GridLearner:
        few = lesson.task.labelled(lesson.seed)
        train, val = lesson.seen(few.train), lesson.seen(few.val)
        model = self._model(lesson, train)
        more: dict[str, Any] = {REST: lesson.seen(getattr(few, REST))} if REST in few.parts else {}
        history = fit(
            model, train, val=val, **more, seed=lesson.seed, device=self.device, progress=False, **self.keys.settings
        )
        return GridLearner(model, lesson.seen, train, val, history.seconds)

    def _model(self, lesson: Lesson, train: GridSet) -> GridModel:
        """The model, standardised from what it is to learn from."""
        if not isinstance(lesson.contender.way, str):
            return lesson.contender.way(train, lesson.task.num_classes, lesson.seed)
        shape: Any = self.keys.outlined(lesson)  # every way that is no committee is made `of` a configuration
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
