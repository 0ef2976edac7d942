"""Does the model learn the pointer task, and are cross edges what it takes? `python tests/benchmarks/pointer.py`.

4,000 pictures to train on, 1,000 to test on, 20 places, 4 classes (chance is 25%), 12 epochs. With and without cross
layers, and, as the task is about places, with cross layers whose queries and keys do not turn with the place. Writes
`results/pointer.csv`.
"""

import csv
from pathlib import Path

import torch
from machine import described

import grafeat as gf

RESULTS = Path(__file__).parent / "results"
WAYS = ("with cross layers", "without cross layers", "with cross layers, no rotary positions")


def main() -> None:
    """Trains each way once and writes the table."""
    train, val, test = (gf.planted.pointer(count, seed=seed) for seed, count in enumerate((4000, 500, 1000)))
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "pointer.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "accuracy", "low", "high", "seconds", "machine"])
        for way in WAYS:
            model = gf.GraFeatMerge.for_grids(train, num_classes=4, cross=way != WAYS[1], cross_drop=0.0)
            if way == WAYS[2]:
                still(model)
            history = gf.fit(model, train, val=val, epochs=12, mixup=0.0, seed=0, progress=False)
            result = gf.evaluate(model, test)
            shares = (result.accuracy, *result.interval)
            table.writerow(
                [way, *(f"{share:.4f}" for share in shares), f"{history.seconds:.0f}", described()]
            )
            print(f"{way}: {result} after {history.seconds:.0f} s", flush=True)


def still(model: gf.GraFeatMerge) -> None:
    """Stops the turning of queries and keys, for good."""
    torch.nn.init.zeros_(model.rotary.frequencies)
    model.rotary.frequencies.requires_grad_(False)


if __name__ == "__main__":
    main()
