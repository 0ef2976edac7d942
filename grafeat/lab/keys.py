"""All that decides what a contender says after a training: the same key means the same cell."""

import inspect
import uuid
import warnings
from dataclasses import replace
from typing import Any, cast

import torch

from grafeat import merge, projection, readout, teaching, training
from grafeat.backbones.fingerprint import fingerprint
from grafeat.fusion import outline
from grafeat.fusion.budget import learned
from grafeat.grids import GridSet
from grafeat.lab.cells import LAB, Key, content, content_of_pictures
from grafeat.lab.contenders import MERGE, SCRATCH, Builder, Contender
from grafeat.lab.lessons import Lesson
from grafeat.lab.scratch import paid_for, recipe
from grafeat.lab.task import REST, Task
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel
from grafeat.runs import described
from grafeat.training import fit

LEARNED = ("train", "val")  # the parts whose labels count
NO_SETTINGS = ("model", "train", "val", REST, "seed", "device", "checkpoint", "accelerator", "progress")


class Keys:
    """What decides the cells of some lessons; what takes long is computed once.

    The device does not count: a cell that was made on another one is taken as it is.

    Args:
        matched: Whether every way with a free width gets as many parameters as the task's merge.
        epochs: Of every training of grids; the defaults of `fit` if None.
    """

    def __init__(self, *, matched: bool = True, epochs: int | None = None) -> None:
        self.matched, self.settings = matched, _settings(epochs)
        self._run = uuid.uuid4().hex
        self._contents: dict[tuple[object, ...], str] = {}
        self._outlines: dict[tuple[object, ...], GridModel] = {}

    def key(self, lesson: Lesson, task: Task) -> Key:
        """All that decides a cell. Labels of the test are no part of it: nothing that is kept may depend on them.

        Warns:
            UserWarning: If the code of an own builder cannot be told from others; its cells are then made in each run.
        """
        way, scratch = lesson.contender.way, lesson.contender.way == SCRATCH
        more = [REST] if task.labelled(lesson.seed).parts.get(REST) and not scratch else []
        return {
            "lab": LAB,
            **({"way": way} if isinstance(way, str) else self._builder(lesson.contender)),
            "model": self._recipe(lesson) if scratch else described(self.outlined(lesson)),
            "seed": lesson.seed,
            "fit": {} if scratch else {**self.settings, "pace": self.outlined(lesson).pace},
            "constants": {} if scratch else _constants(),
            **{part: self._content(lesson, task, part) for part in (*LEARNED, *more, "test")},
        }

    def outlined(self, lesson: Lesson) -> GridModel:
        """The shapes of the model that is to learn."""
        contender, task = lesson.contender, lesson.task
        options = tuple(sorted((name, repr(value)) for name, value in contender.options.items()))
        known = (_hashed(contender.way), _hashed(lesson.seen), options, id(task.grids), task.names)
        if known not in self._outlines:
            self._outlines[known] = self._outline(contender, lesson.seen(task.grids.train[:2]), task)
        return self._outlines[known]

    def _outline(self, contender: Contender, seen: GridSet, task: Task) -> GridModel:
        if not isinstance(contender.way, str):
            return built(contender, task, seen, seed=0)
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

    def _builder(self, contender: Contender) -> dict[str, str]:
        """The name of a contender with a builder of its own, and the builder's code."""
        code = fingerprint(contender.way)
        if code is None:
            warnings.warn(
                f"way: the builder of {contender.name!r} cannot be recognised in a later run, so it is trained anew in "
                "each; expected a function, or a partial of one, of plain values and modules",
                stacklevel=2,
            )
        return {"way": contender.name, "builder": code or self._run}

    def _size(self, contender: Contender, task: Task) -> int | None:
        """How many parameters a contender is given: those of the task's merge; None for its own number."""
        if not self.matched or contender.way == MERGE:
            return None
        return learned(outline(MERGE, task.grids.only(*task.names).train[:2], num_classes=task.num_classes))

    def _recipe(self, lesson: Lesson) -> str:
        return recipe(len(paid_for(lesson.pictures)), lesson.task.num_classes)

    def _content(self, lesson: Lesson, task: Task, part: str) -> str:
        """What a part holds, as the contender sees it."""
        seen: object = SCRATCH if lesson.contender.way == SCRATCH else _hashed(lesson.seen)
        where = (task.name,) if part == "test" else (id(task.grids), task.per_class, lesson.seed)
        known = (part, seen, *where)
        if known not in self._contents:
            if seen == SCRATCH:
                self._contents[known] = content_of_pictures(getattr(lesson.pictures, part), labels=part in LEARNED)
            else:
                grids = task.tested if part == "test" else getattr(task.labelled(lesson.seed), part)
                self._contents[known] = content(lesson.seen(grids), labels=part in LEARNED)
        return self._contents[known]


def _hashed(function: object) -> object:
    """A function as part of a key; one without a hash of its own by its identity, as long as a contender holds it."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


def built(contender: Contender, task: Task, seen: GridSet, *, seed: int) -> GridModel:
    """What a contender's own builder makes of the pictures that it is given; its errors name both."""
    try:
        model = cast(Builder, contender.way)(seen, task.num_classes, seed)
    except Exception as error:
        error.add_note(f"task {task.name!r}, {contender.name!r}: its builder was given {len(seen):,} pictures")
        raise
    if not isinstance(model, GridModel):
        raise TypeError(
            f"way: the builder of {contender.name!r} gave {type(model).__name__}; expected a GridModel; return the "
            "model that it builds"
        )
    return model


def _settings(epochs: int | None) -> dict[str, Any]:
    """What `fit` is called with: its defaults, spelled out, so that cells made with others are not taken for these."""
    given = inspect.signature(fit).parameters
    return {name: one.default for name, one in given.items() if name not in NO_SETTINGS} | {"epochs": epochs}


def _constants() -> dict[str, Any]:
    """The numbers by which the modules that train go, so that cells made with others are not taken for these."""
    return {
        f"{module.__name__}.{name}": list(value) if isinstance(value, tuple) else value
        for module in (training, teaching, projection, merge, readout)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float | tuple)
    }
