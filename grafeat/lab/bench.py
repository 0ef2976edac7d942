"""The trainings behind a comparison: each done once, however many tasks are tested on it, and kept."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

import grafeat
from grafeat.fusion import Committee
from grafeat.grids import GridSet
from grafeat.lab.cells import LAB, Cell, Key, digest, now, path_of, read_cell, write_cell
from grafeat.lab.contenders import SCRATCH
from grafeat.lab.keys import Keys, built
from grafeat.lab.learners import GridLearner, Learner, PictureLearner, together
from grafeat.lab.lessons import Lesson
from grafeat.lab.scratch import train_from_scratch
from grafeat.lab.task import REST, Task
from grafeat.models import GridModel
from grafeat.projection import learned_part
from grafeat.training import fit


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

    def learn(self, group: Sequence[Lesson]) -> Iterator[tuple[Lesson, dict[str, Cell]]]:
        """Each lesson of a group with its cells by task."""
        for lesson in group:
            yield lesson, self.cells(lesson)

    def cells(self, lesson: Lesson) -> dict[str, Cell]:
        """The cells of a lesson by task: found, or made and kept."""
        missing = self._missing(lesson)
        if missing:
            vectors = self._vectors(lesson)
            say = self._committee(lesson) if lesson.members else self._learner(lesson).cell
            for task in missing:
                key = self.keys.key(lesson, task)
                self._keep(key, say(task, vectors=vectors[digest(key)]))
        return {task.name: self._cells[digest(self.keys.key(lesson, task))] for task in lesson.tasks}

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

    def _keep(self, key: Key, made: Cell) -> None:
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
            return self._fitted(lesson)
        except ValueError as error:
            raise ValueError(
                f"task {lesson.task.name!r}, {lesson.contender.name!r}, seed {lesson.seed}: {error}"
            ) from error

    def _fitted(self, lesson: Lesson) -> GridLearner:
        few = lesson.task.labelled(lesson.seed)
        train, val = lesson.seen(few.train), lesson.seen(few.val)
        model = self._model(lesson, lesson.seen(learned_part(few)))
        more: dict[str, Any] = {REST: lesson.seen(getattr(few, REST))} if few.parts.get(REST) else {}
        history = fit(
            model, train, val=val, **more, seed=lesson.seed, device=self.device, progress=False, **self.keys.settings
        )
        return GridLearner(model, lesson.seen, train, val, history.seconds)

    def _model(self, lesson: Lesson, given: GridSet) -> GridModel:
        """The model, standardised from the pictures given to learn from, with labels or without."""
        if not isinstance(lesson.contender.way, str):
            return built(lesson.contender, lesson.task, given, seed=lesson.seed)
        shape: Any = self.keys.outlined(lesson)  # every way that is no committee is made `of` a configuration
        return type(shape).of(shape.config, given, seed=lesson.seed)

    def _committee(self, lesson: Lesson) -> Callable[..., Cell]:
        """What puts the cells of trained singles together; they are made if they are not there."""
        names = lesson.task.names
        each = {name: self.cells(one) for name, one in zip(names, lesson.members, strict=True)}
        committee = cast(Committee, self.keys.outlined(lesson))

        def say(task: Task, *, vectors: bool) -> Cell:
            return together(committee, {name: each[name][task.name] for name in names}, vectors=vectors)

        return say


def versions() -> str:
    """Of Python, of the packages that decide figures, and of what the lab makes of them."""
    found = [f"grafeat {grafeat.__version__} (lab {LAB})", f"Python {platform.python_version()}"]
    return ", ".join([*found, *(f"{package} {version(package)}" for package in ("torch", "numpy", "scikit-learn"))])
