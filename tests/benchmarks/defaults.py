"""Which defaults? Some other choices beside them, on digits that no test uses: `python tests/benchmarks/defaults.py`.

500 labels, EfficientNet-Lite0 and the small ViT, three seeds; error on 1,500 digits out of the training part. Writes
`results/defaults.csv`; finished rows are kept and not run again.
"""

import csv
from typing import Any

import torch
from few_labels import CACHE, LITE, PER_CLASS, RESULTS, cached, feature_grids
from machine import described
from torch import Tensor

import grafeat as gf
from grafeat.intervals import paired_difference

SEEDS = 3
OWN = {"shared": False}
CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "own layers": OWN,
    "own layers, no cross layers": OWN | {"cross": False},
    "own layers, no cross messages dropped": OWN | {"cross_drop": 0.0},
    "own layers, depth 1": OWN | {"depth": 1},
    "own layers, width 32": OWN | {"width": 32},
    "own layers, readout relation": OWN | {"readout": "relation"},
    "own layers, readout mean": OWN | {"readout": "mean"},
}


def main() -> None:
    """Runs what is missing and writes the table."""
    grids = feature_grids(["small_vit"], CACHE).only(LITE, "small_vit").train.split(val=0, test=0.5, seed=0)
    labels = grids.test.required_labels("test")
    correct = {
        change: torch.stack([right(change, seed, grids, labels) for seed in range(SEEDS)])
        for change in CHANGES
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "defaults.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["change", "error", "change minus defaults", "low", "high", "machine"])
        for change, found in correct.items():
            gain = paired_difference(found, correct["defaults"])
            figures = (1 - float(found.double().mean()), gain.value, gain.low, gain.high)
            table.writerow([change, *(f"{figure:.4f}" for figure in figures), described()])


def right(change: str, seed: int, grids: gf.GridSet, labels: Tensor) -> Tensor:
    """Whether each digit was right after one training."""
    path = CACHE / f"defaults-{change.replace(' ', '_')}-{seed}.pt"
    logits, _ = cached(path, lambda: run(CHANGES[change], seed, grids))
    return logits.argmax(dim=1) == labels


def run(options: dict[str, Any], seed: int, grids: gf.GridSet) -> tuple[Tensor, float]:
    """Logits of one changed model after one training, and the training's seconds."""
    few = grids.few_labels(PER_CLASS, seed=seed)
    model = gf.GraFeatMerge.for_grids(few, num_classes=10, seed=seed, **options)
    history = gf.fit(model, few.train, val=few.val, seed=seed, progress=False)
    return gf.predict(model, few.test), history.seconds


if __name__ == "__main__":
    main()
