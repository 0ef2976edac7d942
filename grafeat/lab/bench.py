"""The trainings behind a comparison: each done once, however many tasks are tested on it, and kept."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

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


class Wanted(NamedTuple):
    """A cell that some tasks of a lesson share: the same answers to the same pictures, measured in several ways."""

    key: Key
    tasks: list[Task]

    @property
    def vectors(self) -> bool:
        """Whether it needs image vectors, beside the logits; one task that measures them is enough."""
        return any(task.measure != "accuracy" for task in self.tasks)


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
        wanted = self._wanted(lesson)
        missing = {name: one for name, one in wanted.items() if not self._there(name, one)}
        if missing:
            say = self._committee(lesson) if lesson.members else self._learner(lesson).cell
            for one in missing.values():
                self._keep(one.key, say(one.tasks[0], vectors=one.vectors))
        return {task.name: self._cells[name] for name, one in wanted.items() for task in one.tasks}

    def _wanted(self, lesson: Lesson) -> dict[str, Wanted]:
        """The cells of a lesson, by what they are kept under; tasks on the same pictures share one."""
        found: dict[str, Wanted] = {}
        for task in lesson.tasks:
            key = self.keys.key(lesson, task)
            found.setdefault(digest(key), Wanted(key, [])).tasks.append(task)
        return found

    def _there(self, name: str, wanted: Wanted) -> bool:
        if name not in self._cells and self.folder is not None:
            found = read_cell(path_of(self.folder, wanted.key), wanted.key)
            if found is not None:
                self._cells[name] = found
        return name in self._cells and (self._cells[name].vectors is not None or not wanted.vectors)

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
