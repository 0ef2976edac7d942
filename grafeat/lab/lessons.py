"""Which trainings a comparison needs: tasks that learn from the same labels share them."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

from grafeat.lab.contenders import COMMITTEES, Contender, chosen, single
from grafeat.lab.seen import Only, Seen
from grafeat.lab.task import Task
from grafeat.pictures import PictureSet


@dataclass(frozen=True, eq=False)
class Lesson:
    """One contender that learns from the labels that one seed draws, and the tasks it is then tested on.

    Attributes:
        contender: Who learns.
        tasks: The tasks: their grids and the labels to learn from are the same.
        seed: Decides which labels are drawn, the initial weights and the training.
    """

    contender: Contender
    tasks: tuple[Task, ...]
    seed: int

    @property
    def task(self) -> Task:
        """One of the tasks, for what they all share."""
        return self.tasks[0]

    @property
    def seen(self) -> Seen:
        """What the contender sees of the grids."""
        return self.contender.seen or Only(self.task.names)

    @property
    def pictures(self) -> PictureSet:
        """The pictures with the parts that this seed draws, for who learns from pixels.

        Raises:
            ValueError: If the task has none.
        """
        shown = self.task.shown(self.seed)
        if shown is None:
            raise ValueError(
                f"task {self.task.name!r}: has no pictures; expected those of its grids, to train a CNN on; pass "
                "pictures="
            )
        return shown

    @property
    def trains(self) -> bool:
        """Whether it costs a training of its own."""
        return self.contender.way not in COMMITTEES

    @property
    def members(self) -> list["Lesson"]:
        """The trainings whose answers a committee puts together; none for what is no committee."""
        if self.trains:
            return []
        return [Lesson(single(name), self.tasks, self.seed) for name in self.task.names]

    def __repr__(self) -> str:
        return f"Lesson: {self.contender.name}, seed {self.seed}, for {', '.join(task.name for task in self.tasks)}"


def lessons(
    tasks: Sequence[Task],
    contenders: Sequence[str | Contender] | None,
    seeds: Sequence[int],
    *,
    controls: bool | Collection[str],
) -> list[list[Lesson]]:
    """All lessons, in groups that share labels and seed; committees come last in their group.

    Raises:
        ValueError: If a contender is unknown, or two share a name.

    Warns:
        UserWarning: If a contender needs more backbones than a task has, where it is left out.
    """
    groups: dict[tuple[object, ...], dict[str, tuple[Contender, list[Task]]]] = {}
    for task in tasks:
        controlled = controls if isinstance(controls, bool) else task.name in controls
        fits, left_out = chosen(task, contenders, controlled=controlled)
        if left_out:
            warnings.warn(
                f"task {task.name!r} has one backbone, {task.names[0]!r}: left out, as they need two or more: "
                f"{', '.join(left_out)}",
                stacklevel=3,
            )
        group = groups.setdefault((id(task.grids), task.per_class, task.unlabelled, task.names), {})
        for contender in fits:
            group.setdefault(contender.name, (contender, []))[1].append(task)
    return [
        sorted(
            (Lesson(contender, tuple(tested), seed) for contender, tested in group.values()),
            key=lambda lesson: not lesson.trains,
        )
        for group in groups.values()
        for seed in seeds
    ]


def trainings(groups: Sequence[Sequence[Lesson]]) -> int:
    """How many trainings some groups of lessons cost where nothing is kept yet."""
    return sum(
        len({one.contender.name for one in chain(group, *(lesson.members for lesson in group)) if one.trains})
        for group in groups
    )
