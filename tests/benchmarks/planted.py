"""Do values and relevance tell the truth where it is known by construction? `python tests/benchmarks/planted.py`.

Five seeds, and for each task a small merge, about 20 minutes on one core. One recipe for each task: `RECIPES` in
`planted_tasks.py`. *Seen object* needs `make stamps` and the extra `vit`, and is left out without. Writes
`results/planted.csv`: each figure's mean over the seeds with Student's t interval, beside what was aimed at, fixed
before the runs. What is finished is kept in `build/planted` and not run again.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import torch
from digits import finished
from machine import described
from planted_objects import seen_object
from planted_tasks import TASKS
from scipy.stats import t as student

Figures = dict[str, tuple[str, list[float]]]  # aim and the seeds' values, by the figure's name
RESULTS = Path(__file__).parent / "results"
CACHE = finished("planted")
EVERY = TASKS | {"seen object": seen_object}


def main() -> None:
    """Runs what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=list(EVERY), choices=list(EVERY))
    parser.add_argument("--write", type=Path, default=RESULTS / "planted.csv")
    args = parser.parse_args()
    found: dict[str, Figures] = {}
    for task in args.tasks:
        figures: Figures = {}
        for seed in range(args.seeds):
            for name, aim, value in kept(task, seed):
                figures.setdefault(name, (aim, []))[1].append(value)
        found[task] = figures
    write_table(args.write, args.seeds, found)


def kept(task: str, seed: int) -> list[tuple[str, str, float]]:
    """The figures of one task and seed: what an earlier call has left, or else what a training gives now."""
    path = CACHE / f"{task.replace(' ', '_').replace(':', '')}-{seed}.json"
    if not path.exists():
        start = time.perf_counter()
        figures = list(EVERY[task](seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures))
        print(f"{task}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return [tuple(figure) for figure in json.loads(path.read_text())]


def write_table(path: Path, seeds: int, found: dict[str, Figures]) -> None:
    """One row for each figure: what was aimed at, mean and interval, whether it was reached, each seed's."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["task", "figure", "aim", "mean", "low", "high", "reached"]
            + [f"seed {seed}" for seed in range(seeds)]
            + ["machine"]
        )
        for task, figures in found.items():
            for name, (aim, values) in figures.items():
                interval = over_seeds(values)
                shown = [f"{value:.4g}" for value in interval]
                each = [f"{value:.4g}" for value in values]
                table.writerow([task, name, aim, *shown, reached(aim, *interval), *each, described()])


def over_seeds(values: list[float]) -> tuple[float, float, float]:
    """Mean over the seeds with its 95% interval."""
    found = torch.tensor(values, dtype=torch.float64)
    if len(found) < 2:
        return float(found.mean()), float("nan"), float("nan")
    half = float(student.ppf(0.975, len(found) - 1) * found.std() / len(found) ** 0.5)
    return float(found.mean()), float(found.mean()) - half, float(found.mean()) + half


def reached(aim: str, mean: float, low: float, high: float) -> str:
    """Yes or no: the mean where a bound is aimed at; the interval where it is to hold 0, or to lie above it."""
    if not aim:
        return ""
    kinds = {
        "at least": lambda bound: mean >= bound,
        "at most": lambda bound: mean <= bound,
        "interval above": lambda bound: low > bound,
        "interval holds or is below": lambda bound: low <= bound,
        "interval holds": lambda bound: low <= bound <= high,
    }
    words, _, bound = aim.rpartition(" ")
    return "yes" if kinds[words](float(bound)) else "no"


if __name__ == "__main__":
    main()
