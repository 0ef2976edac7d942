"""How long explaining takes: `python tests/benchmarks/explaining.py`, on a machine that does nothing else.

One picture with two backbones of 14 × 14 patches, and a report over 1,000 pictures of MNIST's size. Median of three
calls, beside what was aimed at. Writes `results/explaining_cpu.csv` or `results/explaining_cuda.csv`.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import described

import grafeat as gf

RESULTS = Path(__file__).parent / "results"
SIDE = 14


def main() -> None:
    """Times each and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)
    model, one = built({"first": (384, SIDE, SIDE), "second": (512, SIDE, SIDE)}, 1, device)
    digits, thousand = built({"efficientnet_lite0": (1280, 4, 4), "small_vit": (64, 7, 7)}, 1000, device)
    asked: list[tuple[str, float, Callable[[], object]]] = [
        ("shares, and knock-outs of pairs, layers and heads", 1, lambda: gf.dominance(model, one)),
        ("all patches knocked out", 5, lambda: gf.relevance(model, one, method="ablation")),
        ("gradient rollout", 0.5, lambda: gf.relevance(model, one, method="gradient_rollout")),
        ("gradient times input", 0.5, lambda: gf.relevance(model, one, method="gradient_x_input")),
        ("integrated gradients, 50 steps", 3, lambda: gf.relevance(model, one, method="integrated_gradients")),
        ("report over 1,000 pictures of digits", 120, lambda: gf.dominance(digits, thousand)),
    ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"explaining_{device.type}.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["what", "seconds", "aim", "machine"])
        for what, aim, call in asked:
            seconds = median(call)
            table.writerow([what, f"{seconds:.3g}", aim, described()])
            print(f"{what}: {seconds:.2f} s (aim {aim:g} s)", flush=True)


def built(
    shapes: dict[str, tuple[int, int, int]], pictures: int, device: torch.device
) -> tuple[gf.GraFeatMerge, gf.GridSet]:
    """A model of the default size, not trained, as that changes no duration, and pictures for it."""
    grids = gf.GridSet(
        [gf.FeatureGrid(name, torch.randn(pictures, *shape)) for name, shape in shapes.items()],
        torch.arange(pictures) % 10,
    )
    model = gf.GraFeatMerge.for_grids(
        gf.GridSet([gf.FeatureGrid(name, torch.randn(200, *shape)) for name, shape in shapes.items()]), num_classes=10
    )
    model.label_counts += 1
    return model.to(device), grids


def median(call: Callable[[], object]) -> float:
    """Median seconds of three calls, after one to warm up."""
    taken = []
    for number in range(4):
        start = time.perf_counter()
        call()
        if number:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
