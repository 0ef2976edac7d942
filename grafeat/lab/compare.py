"""Does merging pay? Every way to mix and the controls, trained alike on the same labels, in one table."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import torch
from tqdm.auto import tqdm

from grafeat.arguments import is_whole, whole
from grafeat.files import check_writable
from grafeat.grids import GridSet
from grafeat.lab.bench import Bench
from grafeat.lab.cells import Cell
from grafeat.lab.comparison import Comparison
from grafeat.lab.contenders import Contender
from grafeat.lab.keys import Keys
from grafeat.lab.lessons import Lesson, lessons
from grafeat.lab.table import Judged, rows
from grafeat.lab.task import Task

ORDER = ("way", "merge", "control")
ONE_TASK = "given grids"  # what a task is called that was given as grids alone


def compare(
    tasks: GridSet | Task | Sequence[Task],
    contenders: str | Contender | Sequence[str | Contender] | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    folder: str | Path | None = None,
    controls: bool | Collection[str] = True,
    parameters: Literal["matched", "own"] = "matched",
    epochs: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Comparison:
    """Trains every way to mix on the same labels and says, with intervals, whether merging pays.

    Each contender is trained with the defaults of `fit`, once for each seed. The seed draws the labels of tasks with
    `per_class`; of the others all seeds learn from the same pictures, and the seed decides the initial weights and the
    order of the pictures. Tasks that differ only in their test share their trainings. No label of a test is looked at
    before all is trained.

    Every way chooses its best epoch on the validation labels. The merge and those made of its parts (`joint`,
    `intra_only`, `cross_only`, and those controls) settle one weight for each backbone there as well; see
    `GridModel.calibrate`.

    An ensemble costs no training: it is put together from the trained singles. For retrieval and an AUROC its vectors
    are their image vectors side by side.

    Intervals are percentiles over seeds and pictures that are drawn anew together. With five seeds they cover somewhat
    less than 95% where the seeds differ more than the pictures, and about 85% where they differ much more. Where the
    test pictures of a task come in groups, whole groups are drawn, and there is no McNemar's p. In retrieval a picture
    that is drawn twice asks twice and is found twice; by recall@5 it only asks twice.

    Args:
        tasks: What is to be learned; grids with the parts `train`, `val` and `test` are one task.
        contenders: Names of ways (`single` stands for each backbone alone) or of controls, or `Contender`s of your own;
            every way of `list_ways()` if None.
        seeds: How many, from 0; or the seeds themselves.
        folder: Where each finished training is kept, in a file of its own. A comparison that was interrupted goes on
            from there, and several may work in one folder at the same time, each on other tasks or seeds. Nothing is
            kept if None.
        controls: Whether the controls are in the table as well, on all tasks or on those that are named.
        parameters: Whether ways with a free width get as many parameters as the merge (`matched`), or their `own`
            default. Of an ensemble, each member gets as many as the merge. The table reports each number.
        epochs: Of every training; the defaults of `fit` if None.
        device: Where to train; the CPU by default.
        progress: Whether to show a progress bar.

    Returns:
        The table, which prints, draws and exports itself, and says in words what it shows.

    Raises:
        ValueError: If there is no task or seed, two share a name, a contender is unknown, two are of the kind `merge`,
            none fits any task, or a training fails.
        OSError: If the folder cannot be written.

    Warns:
        UserWarning: If a task has one backbone only, where the ways that need more are left out; if a file in the
            folder is damaged or foreign, which is then made anew; if an own builder cannot be recognised in a later
            run.

    Source: crossed seeds and pictures, each drawn anew: Owen, The pigeonhole bootstrap, Annals of Applied Statistics
    2007. Choosing the rival on validation, and correcting tests over tasks: Demšar, JMLR 2006.
    """
    listed, numbers = _checked_tasks(tasks), _checked_seeds(seeds)
    controls = [controls] if isinstance(controls, str) else controls
    _check_choices(listed, controls, parameters)
    wanted = [contenders] if isinstance(contenders, str | Contender) else contenders
    groups = lessons(listed, wanted, numbers, controls=controls)
    _check_some(groups, listed)
    keys = Keys(matched=parameters == "matched", epochs=None if epochs is None else whole("epochs", epochs))
    if folder is not None:
        check_writable(Path(folder) / "cell")  # before the first training, not after it
    bench = Bench(None if folder is None else Path(folder), keys=keys, device=device)
    found: dict[str, dict[str, tuple[Contender, list[Cell]]]] = {task.name: {} for task in listed}
    with tqdm(total=sum(map(len, groups)), desc="compare", unit="training", disable=not progress) as bar:
        for group in groups:
            for lesson, cells in bench.learn(group):
                for name, cell in cells.items():
                    found[name].setdefault(lesson.contender.name, (lesson.contender, []))[1].append(cell)
                bar.set_postfix_str(f"{lesson.task.name}, {lesson.contender.name}, seed {lesson.seed}", refresh=False)
                bar.update()
    return Comparison(rows([Judged(task, _in_order(found[task.name]), numbers) for task in listed]))


def _in_order(results: dict[str, tuple[Contender, list[Cell]]]) -> dict[str, tuple[Contender, list[Cell]]]:
    """Ways first, then the merge, then the controls."""
    return dict(sorted(results.items(), key=lambda item: ORDER.index(str(item[1][0].kind))))


def _checked_tasks(tasks: GridSet | Task | Sequence[Task]) -> list[Task]:
    if isinstance(tasks, GridSet):
        tasks = Task(ONE_TASK, tasks)
    listed = [tasks] if isinstance(tasks, Task) else list(tasks)
    strange = [type(task).__name__ for task in listed if not isinstance(task, Task)]
    if strange:
        raise TypeError(f"tasks: got {strange[0]} among them; expected Task; wrap it: Task('name', grids)")
    if not listed:
        raise ValueError("tasks: got none; expected one or more; pass grids or a Task")
    _check_different("tasks", [task.name for task in listed])
    for task in listed:
        if not len(task.labelled(0).val):
            raise ValueError(
                f"tasks: {task.name!r} has no picture left to choose the best epoch and the best rival on, with "
                f"per_class={task.per_class}; expected some; raise per_class to 3 or more"
            )
    return listed


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    numbers = [*seeds] if isinstance(seeds, Sequence) else [*range(seeds)] if is_whole(seeds) else []
    if not numbers or not all(map(is_whole, numbers)):
        raise ValueError(
            f"seeds: got {seeds!r}; expected how many, or the seeds as whole numbers; five give intervals that say "
            "something"
        )
    _check_different("seeds", numbers)
    return [int(number) for number in numbers]


def _check_choices(tasks: Sequence[Task], controls: bool | Collection[str], parameters: str) -> None:
    if parameters not in ("matched", "own"):
        raise ValueError(f"parameters: got {parameters!r}; expected 'matched' or 'own'; leave it out for 'matched'")
    names = [task.name for task in tasks]
    strange = [] if isinstance(controls, bool) else [name for name in controls if name not in names]
    if strange:
        raise ValueError(f"controls: got {strange[0]!r}; expected True, False or some of {', '.join(names)}")


def _check_some(groups: Sequence[Sequence[Lesson]], tasks: Sequence[Task]) -> None:
    if not any(groups):
        names = ", ".join(repr(task.name) for task in tasks)
        raise ValueError(
            f"contenders: got none that fits task {names}; expected ways for as many backbones as it has; leave "
            "contenders out for all that fit"
        )


def _check_different(argument: str, given: Sequence[object]) -> None:
    (often, count), *_ = Counter(given).most_common(1)
    if count > 1:
        raise ValueError(f"{argument}: got {often!r} {count} times; expected different ones; rename or leave out")
