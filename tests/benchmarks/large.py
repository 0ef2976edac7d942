"""What the store costs, and that memory stays flat: `python tests/benchmarks/large.py`, on a quiet machine.

- A second `extract` of 5,000 digits against the first.
- An epoch of training from the store against one from tensors in memory, in turns.
- Anonymous memory at 5,000 and at 200,000 synthetic pictures, of a process that extracts them,
  makes a model from their training part and trains it; pages of a memory map do not count.
- Importing grafeat beside importing torch and timm; the default training with 500 labels.
- What a million pictures with three backbones would cost in time and on disk, from the rates measured here.

Writes `results/large_cpu.csv`.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from digits import LITE, feature_grids
from machine import described
from torch import nn

import grafeat as gf

RESULTS = Path(__file__).parent / "results"
MANY = 200_000
SIDE, CHANNELS = 8, 16


def main() -> None:
    """Measures all and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", type=int, help="print the anonymous memory of a training on so many pictures")
    parser.add_argument("--store", type=Path)
    args = parser.parse_args()
    if args.peak:
        print(peak(args.peak, args.store))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [*extraction(Path(folder)), *training(Path(folder)), *flat(Path(folder)), *start(), few()]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "large_cpu.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["what", "figure", "aim", "machine"])
        for what, figure, aim in rows:
            table.writerow([what, figure, aim, described()])
            print(f"{what}: {figure} {aim}", flush=True)


def extraction(folder: Path) -> list[tuple[str, str, str]]:
    """The first and the second extraction of 5,000 digits, and what a million pictures would take."""
    digits = gf.load_dataset("mnist5k")
    backbones = [
        gf.load_backbone(f"bundled/{LITE}", size=112),
        gf.load_backbone(f"bundled/{LITE}", name="at 224", size=224),
        gf.load_backbone("timm/vit_tiny_patch16_224", pretrained=False),
    ]
    hours, size = 0.0, 0
    for backbone in backbones[1:]:
        some = digits[:256]
        begun = time.perf_counter()
        kept = gf.extract([backbone], some, progress=False)
        hours += (time.perf_counter() - begun) / len(some) * 1e6 / 3600
        size += kept.grids[0].features[0].nbytes
    begun = time.perf_counter()
    kept = gf.extract(backbones[:1], digits, store=folder / "digits", progress=False)
    first = time.perf_counter() - begun
    hours += first / len(digits) * 1e6 / 3600
    size += kept.grids[0].features[0].nbytes
    again = []
    for _ in range(3):
        fresh = gf.load_dataset("mnist5k")  # of which nothing is known from before
        begun = time.perf_counter()
        gf.extract(backbones[:1], fresh, store=folder / "digits", progress=False)
        again.append(time.perf_counter() - begun)
    return [
        ("second extract of 5,000 digits, of the first", f"{statistics.median(again) / first:.2%}", "<= 1%"),
        ("first extract of 5,000 digits, s", f"{first:.1f}", ""),
        ("a million pictures, three backbones (lite0 at 112 and 224, ViT-Ti/16 at 224), hours", f"{hours:.0f}", ""),
        ("the same, GB of grids on disk", f"{size * 1e6 / 1e9:.0f}", ""),
    ]


def training(folder: Path) -> list[tuple[str, str, str]]:
    """Epochs from the store and from memory, in turns."""
    digits = gf.load_dataset("mnist5k")
    stored = gf.extract(
        [gf.load_backbone(f"bundled/{LITE}", size=112)], digits, store=folder / "digits", progress=False
    ).train
    held = gf.GridSet([gf.FeatureGrid(g.name, g.features.clone()) for g in stored.grids], stored.labels)
    taken: dict[str, list[float]] = {"stored": [], "held": []}
    for _ in range(4):
        for name, grids in (("stored", stored), ("held", held)):
            model = gf.GraFeatMerge.for_grids(held[:500], num_classes=10)
            begun = time.perf_counter()
            gf.fit(model, grids, epochs=1, progress=False)
            taken[name].append(time.perf_counter() - begun)
    rate = statistics.median(taken["held"][1:]) / statistics.median(taken["stored"][1:])
    return [("rate of training from the store, of that from memory", f"{rate:.2f}", ">= 0.95")]


def flat(folder: Path) -> list[tuple[str, str, str]]:
    """Anonymous memory of a process that trains on few and on many pictures of one store."""
    peaks = []
    for count in (5_000, MANY):
        command = [sys.executable, __file__, "--peak", str(count), "--store", str(folder / f"synthetic {count}")]
        peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]))
    grown = f"{peaks[0]:.0f} and {peaks[1]:.0f}"
    return [(f"anonymous memory while training on 5,000 and on {MANY:,} pictures, MB", grown, "flat")]


def peak(count: int, store: Path) -> float:
    """The most anonymous memory, in MB, of extraction, making a model, and an epoch of training and validation."""
    pictures = torch.randint(256, (1, 3, SIDE, SIDE), dtype=torch.uint8).expand(count, -1, -1, -1)
    backbone = gf.Backbone(nn.Conv2d(3, CHANNELS, 2, stride=2), name="tiny", size=SIDE, tap="")
    labelled = gf.PictureSet(pictures, torch.arange(count) % 10).split(val=0.1, test=0.1)
    with watched() as seen:
        grids = gf.extract([backbone], labelled, store=store, batch_size=1000, progress=False)
        model = gf.GraFeatMerge.for_grids(grids, num_classes=10, width=16, depth=1, components=8)
        gf.fit(model, grids, val=grids.val, epochs=1, batch_size=500, progress=False)
    return max(seen)


@contextmanager
def watched() -> Iterator[list[float]]:
    """Anonymous memory of this process, in MB, every few milliseconds of what is done inside."""
    seen, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def anonymous() -> float:
    """Anonymous memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def start() -> list[tuple[str, str, str]]:
    """Seconds that importing grafeat takes beside torch and timm, in fresh processes, in turns."""
    taken: dict[str, list[float]] = {"import torch, timm": [], "import torch, timm, grafeat": []}
    for _ in range(6):
        for code, seconds in taken.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - begun)
    without, with_it = (statistics.median(seconds[1:]) for seconds in taken.values())
    return [("import of grafeat beside torch and timm, s more", f"{with_it - without:.2f}", "<= 0.3")]


def few() -> tuple[str, str, str]:
    """The default training with 500 labels."""
    few = feature_grids("small_vit").few_labels(50, seed=0)
    model = gf.GraFeatMerge.for_grids(few, num_classes=10)
    history = gf.fit(model, few.train, val=few.val, progress=False)
    return "training with 500 labels, s", f"{history.seconds:.1f}", "<= 30"


if __name__ == "__main__":
    main()
