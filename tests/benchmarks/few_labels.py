"""Does merging pay with 500 labels? Five seeds, the same 1,500 test digits: `python tests/benchmarks/few_labels.py`.

EfficientNet-Lite0 (ImageNet) beside a small backbone trained on scikit-learn's 8×8 digits, both frozen. Every way gets
the same 40 training and 10 validation digits a class, and the other 2,500 training digits without labels. Writes
`results/few_labels.csv`; finished trainings are kept in the cache and not run again.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import described
from torch import Tensor

import grafeat as gf
from grafeat.intervals import paired_difference

RESULTS = Path(__file__).parent / "results"
LITE = "efficientnet_lite0"
PER_CLASS = 50
CACHE = Path("build/few_labels")


def main() -> None:
    """Runs what is missing and writes both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--second", nargs="+", default=["small_cnn", "small_vit"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    grids = feature_grids(args.second, args.cache)
    logits = {
        (way, second, seed): cached(
            args.cache / f"{way}-{LITE if way == 'single' else second}-{seed}.pt",
            lambda way=way, second=second, seed=seed: run(way, second, seed, grids),
        )
        for second in args.second
        for seed in range(args.seeds)
        for way in ("single", "other", "concat", "merge")
    }
    write_table(args.second, args.seeds, logits, grids.test.required_labels("test"))


def feature_grids(seconds: list[str], cache: Path) -> gf.GridSet:
    """The grids of all backbones for the 5,000 digits."""
    narrow = gf.load_dataset("digits8x8")
    backbones = [gf.load_backbone(f"bundled/{LITE}", size=112)]
    backbones += [gf.train_backbone(kind, narrow, save=cache / f"{kind}.safetensors") for kind in seconds]
    return gf.extract(backbones, gf.load_dataset("mnist5k"), store=cache / "grids")


def run(way: str, second: str, seed: int, grids: gf.GridSet) -> tuple[Tensor, float]:
    """Test logits of one way after one training, and the training's seconds."""
    pair = grids.only(LITE, second)
    few = {"single": pair.only(LITE), "other": pair.only(second)}.get(way, pair).few_labels(
        PER_CLASS, seed=seed, rest=True
    )
    model: gf.GridModel
    if way == "concat":
        model = gf.Concat.for_grids(few, num_classes=10, seed=seed)
    else:
        model = gf.GraFeatMerge.for_grids(few, num_classes=10, seed=seed)
    history = gf.fit(model, few.train, val=few.val, unlabelled=few.unlabelled, seed=seed, progress=False)
    return gf.predict(model, few.test), history.seconds


def cached(path: Path, make: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float]:
    """What an earlier, perhaps interrupted, call has left, or else what `make` gives now."""
    if not path.exists():
        start = time.perf_counter()
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(made, path)
        print(f"{path.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    return torch.load(path, weights_only=True)


def write_table(
    seconds: list[str], seeds: int, logits: dict[tuple[str, str, int], tuple[Tensor, float]], labels: Tensor
) -> None:
    """One row for each way: accuracy by seed, its mean and interval, and the merge's paired difference to it."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "few_labels.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            [
                "second backbone",
                "way",
                "error",
                "low",
                "high",
                "merge minus way",
                "diff low",
                "diff high",
                "seconds",
            ]
            + [f"seed {seed}" for seed in range(seeds)]
            + ["machine"]
        )
        for second in seconds:
            right = correct_of(second, seeds, logits, labels)
            for way, correct in right.items():
                error = 1 - float(correct.double().mean())
                spread = paired_difference(torch.ones_like(correct), correct)
                merge = paired_difference(right["merge"], correct)
                took = [
                    logits[key, second, seed][1]
                    for key in [way]
                    if (key, second, 0) in logits
                    for seed in range(seeds)
                ]
                table.writerow(
                    [second, way]
                    + [
                        f"{value:.4f}"
                        for value in (error, spread.low, spread.high, merge.value, merge.low, merge.high)
                    ]
                    + [f"{sum(took) / len(took):.0f}" if took else ""]
                    + [f"{float(row.double().mean()):.4f}" for row in correct]
                    + [described()]
                )


def correct_of(
    second: str, seeds: int, logits: dict[tuple[str, str, int], tuple[Tensor, float]], labels: Tensor
) -> dict[str, Tensor]:
    """Whether each test digit was right, (seeds, pictures), by way; the ensemble averages the singles' logits."""
    named = {
        way: torch.stack([logits[way, second, seed][0] for seed in range(seeds)])
        for way in ("single", "other", "concat", "merge")
    }
    named["averaged logits"] = (named["single"] + named["other"]) / 2
    return {way: values.argmax(dim=-1) == labels for way, values in named.items()}


if __name__ == "__main__":
    main()
