"""Which defaults? The merge with one thing changed: `python tests/benchmarks/defaults.py`.

Digits with 50 labels a class and blind sums, as in `lab.py`, three seeds; but tested on pictures that no test of the
lab uses: a part of the training pictures is kept back. What is a way or a control in `lab.py` is not here again, nor
the count balance, which cancels where a softmax holds the patches of one backbone, as it does with two. A finished
training is kept in `build/defaults` and not run again; `--jobs 2` trains in two processes. Writes
`results/defaults.csv`.
"""

import argparse
import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from digits import cached
from lab import CACHE as LAB_CACHE
from lab import RESULTS, SETS, share
from machine import described as machine
from torch import Tensor

import grafeat as gf
from grafeat.intervals import paired_difference
from grafeat.lab.bench import versions
from grafeat.lab.cells import LAB, digest, now
from grafeat.lab.keys import Keys
from grafeat.lab.suite import FEW, fresh_digits, suite
from grafeat.lab.task import Task
from grafeat.runs import described
from grafeat.training import RECIPE

CACHE = Path("build/defaults")
COMMAND = "python tests/benchmarks/defaults.py"
SEEDS = 3
TASKS = ("digits, 50 a class", "blind sums")
DEFAULTS = "defaults"
MODEL: Mapping[str, Mapping[str, Any]] = {
    "1 step": {"depth": 1},
    "3 steps": {"depth": 3},
    "width 32": {"width": 32},
    "width 128": {"width": 128},
    "own layers for each backbone": {"shared": False},
    "no cross messages dropped": {"cross_drop": 0.0},
    "80% of cross messages dropped": {"cross_drop": 0.8},
    "no backbone dropped": {"backbone_drop": 0.0},
    "32 components": {"components": 32},
    "256 components": {"components": 256},
    "readout relation": {"readout": "relation"},
    "readout attention": {"readout": "attention"},
}
TRAINING: Mapping[str, Mapping[str, Any]] = {
    "a third of the learning rate": {"learning_rate": 1e-3},
    "pictures never mixed": {"mixup": 0.0},
    "pictures always mixed": {"mixup": 0.4},
    "no average of the weights": {"average": 0.0},
    "no loss of each backbone's own": {"own_loss": 0.0},
    "hard labels": {"label_smoothing": 0.0},
    "nothing without labels": {"unlabelled_loss": 0.0},
}


def main() -> None:
    """Trains what is missing, says what it shows and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes that train, each with one thread")
    parser.add_argument("--part", help="1/2: train every second one; write nothing")
    args = parser.parse_args()
    if not args.part:
        share(args.jobs)
    tasks = held_back()
    wanted = [(task, change, seed) for task in tasks for change in changes(task) for seed in range(SEEDS)]
    if args.part:
        number, of = map(int, args.part.split("/"))
        wanted = wanted[number - 1 :: of]
    correct = {(task.name, change, seed): right(task, change, seed) for task, change, seed in wanted}
    if not args.part:
        write(tasks, correct)


def held_back() -> list[Task]:
    """The tasks, made of digits that are not in the lab's test: some of those to learn from stand in for it."""
    own, digits, store = SETS["general and narrow"](), fresh_digits().train, LAB_CACHE / "grids"
    few = gf.extract(own, digits.split(val=0.02, test=0.5, seed=0), store=store)
    evidence = suite(own, digits=digits.split(val=0.1, test=0.2, seed=0), store=store, which=("evidence",))
    return [Task(TASKS[0], few, per_class=FEW), *(task for task in evidence if task.name == TASKS[1])]


def changes(task: Task) -> list[str]:
    """What is changed in turn: all that can make a difference to a task."""
    idle = "pictures always mixed" if task.per_class else "pictures never mixed"  # that is the default
    without = set() if task.per_class else {"nothing without labels"}
    return [name for name in (DEFAULTS, *MODEL, *TRAINING) if name not in {idle} | without]


def right(task: Task, change: str, seed: int) -> Tensor:
    """Whether each picture was right after one training."""
    few = task.labelled(seed)
    build = partial(gf.GraFeatMerge.for_grids, num_classes=task.num_classes, seed=seed, **MODEL.get(change, {}))
    options = {**Keys().settings, **TRAINING.get(change, {})}
    shapes = described(build(few.train[:2]))  # two pictures tell what it will be, and cost no pass over all of them
    decided = {"lab": LAB, "recipe": RECIPE, "parts": task.grids.parts, "model": shapes, "fit": options}
    name = f"{task.name} {change} {seed} {digest(decided)}".replace(" ", "_")
    logits, _ = cached(CACHE / f"{name}.pt", lambda: run(build(few), few, seed, options))
    return logits.argmax(dim=1) == few.test.required_labels("test")


def run(model: gf.GraFeatMerge, few: gf.GridSet, seed: int, options: Mapping[str, Any]) -> tuple[Tensor, float]:
    """Logits of one model after one training, and the training's seconds."""
    rest = few.unlabelled if "unlabelled" in few.parts else None
    history = gf.fit(model, few.train, val=few.val, unlabelled=rest, seed=seed, progress=False, **options)
    return gf.predict(model, few.test), history.seconds


def write(tasks: list[Task], correct: Mapping[tuple[str, str, int], Tensor]) -> None:
    """One row for each task and change: accuracy, and the paired difference to the defaults."""
    made = {"versions": versions(), "date": now()[:10], "machine": machine(), "command": COMMAND}
    with (RESULTS / "defaults.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        gains = ("to defaults", "to defaults low", "to defaults high")
        table.writerow(["task", "change", "accuracy", *gains, "seeds", "pictures", *made])
        for task in tasks:
            own = {
                change: torch.stack([correct[task.name, change, seed] for seed in range(SEEDS)])
                for change in changes(task)
            }
            for change, found in own.items():
                gain = paired_difference(found, own[DEFAULTS])
                figures = (float(found.double().mean()), gain.value, gain.low, gain.high)
                written = [f"{figure:.4f}" for figure in figures]
                table.writerow([task.name, change, *written, SEEDS, found.shape[1], *made.values()])
                print(task.name, change, *written, sep="; ")


if __name__ == "__main__":
    main()
