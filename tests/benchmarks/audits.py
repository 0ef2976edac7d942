"""Which explanations can be trusted, on digits and on photographs? `python tests/benchmarks/audits.py`.

Five seeds: digits of MNIST by a merge of EfficientNet-Lite0 and a small ViT that learned from 500 labels, and the seen
objects of `planted_objects.py`, left out where they are not there. Every method is audited on test pictures, beside the
controls, against thresholds that were fixed before (`gf.thresholds()`). Writes `results/audits.csv`: the mean over the
seeds with Student's t interval, and in how many seeds the test was passed. What is finished is kept in `build/audits`;
a seed of the photographs takes about ten minutes.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from digits import PER_CLASS, feature_grids, finished
from machine import described
from planted import over_seeds
from planted_objects import EPOCHS, shown

import grafeat as gf
from grafeat.explanations.controls import CONTROLS

RESULTS = Path(__file__).parent / "results"
CACHE = finished("audits")
GRADIENTS = ("gradient_rollout", "gradient_x_input", "grad_cam", "integrated_gradients")
# where a picture has 305 patches, those that take a pass a patch would take hours
METHODS = {"digits": (*GRADIENTS, "attention_rollout", "gradient_shap", "ablation"), "photographs": GRADIENTS}
PICTURES = {"digits": 100, "photographs": 16}


def main() -> None:
    """Runs what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--finished", action="store_true", help="write the table of what is finished, run nothing")
    args = parser.parse_args()
    asked = [(data, seed) for data in args.data for seed in range(args.seeds)]
    write_table({which: kept(*which) for which in asked if not args.finished or path_of(*which).exists()})


def digits(seed: int) -> tuple[gf.GraFeatMerge, gf.GridSet]:
    """A model of the few-labels task, and its test pictures."""
    few = feature_grids("small_vit").few_labels(PER_CLASS, seed=seed)
    model = gf.GraFeatMerge.for_grids(few, num_classes=10, seed=seed)
    gf.fit(model, few.train, val=few.val, seed=seed, progress=False)
    return model, few.test


def photographs(seed: int) -> tuple[gf.GraFeatMerge, gf.GridSet]:
    """A model of the seen objects, and its test pictures."""
    seen, grids = shown()
    parts = seen.split(val=0.15, test=0.25, seed=seed).part_positions
    grids = gf.GridSet(grids.grids, grids.labels, classes=grids.classes, parts=parts)
    model = gf.GraFeatMerge.for_grids(grids, num_classes=len(grids.classes), seed=seed)
    gf.fit(model, grids.train, val=grids.val, epochs=EPOCHS, seed=seed, progress=False)
    return model, grids.test


MODELS: dict[str, Callable[[int], tuple[gf.GraFeatMerge, gf.GridSet]]] = {
    "digits": digits,
    "photographs": photographs,
}


def kept(data: str, seed: int) -> pd.DataFrame:
    """One row for each method and test: what an earlier call has left, or else what an audit gives now."""
    path = path_of(data, seed)
    if not path.exists():
        model, test = MODELS[data](seed)
        found = gf.audit(model, test[: PICTURES[data]], method=(*METHODS[data], *CONTROLS), seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.to_frame().to_csv(path)
        print(f"{data}, seed {seed}\n{found}", flush=True)
    return pd.read_csv(path).set_index(["method", "test"])


def path_of(data: str, seed: int) -> Path:
    """Where a finished audit is kept."""
    return CACHE / f"{data}-{seed}.csv"


def write_table(found: dict[tuple[str, int], pd.DataFrame]) -> None:
    """One row for each data set, method and test that applies; those of a data set that was not asked for stay."""
    RESULTS.mkdir(exist_ok=True)
    path, asked = RESULTS / "audits.csv", {data for data, _ in found}
    written = path.read_text().splitlines()[1:] if path.exists() else []
    others = [row for row in csv.reader(written) if row[0] not in asked]
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["data", "method", "test", "mean", "low", "high", "passed", "seeds", "pictures", "machine"])
        for data in dict.fromkeys(name for name, _ in found):
            frames = [frame for (name, _), frame in found.items() if name == data]
            for key in frames[0].index:
                rows = [frame.loc[key] for frame in frames]
                if (frames[0].loc[key, "verdict"]) == "does not apply":
                    continue
                figures = [f"{value:.4g}" for value in over_seeds([float(row["mean"]) for row in rows])]
                passed = sum(row["verdict"] == "passes" for row in rows)
                table.writerow([data, *key, *figures, passed, len(frames), PICTURES[data], described()])
        table.writerows(others)


if __name__ == "__main__":
    main()
