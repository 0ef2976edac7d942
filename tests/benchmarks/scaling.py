"""How a training step's time and memory grow: `python tests/benchmarks/scaling.py`, on a quiet machine.

Patches a backbone, backbones, pictures in a batch and steps of the merge are varied one by one, each in a process of
its own, whose peak memory is read from the system. The exponent of a power law through the three largest points says
how it grows; 1 is a straight line. Beside it, one HGTConv layer of PyG on the graph of 2 × 14 × 14 patches, for memory.
Writes `results/scaling_cpu.csv` and draws `results/scaling_cpu.png`; with `--draw` it only draws.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from machine import described
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

import grafeat as gf
from grafeat.plots.palette import HAIRLINE, INK, SECOND_INK, styled
from grafeat.plots.panels import Panels, panel_figure, place, title
from grafeat.training import training_loss

RESULTS = Path(__file__).parent / "results"
SAID = "usually 2 backbones of 14 × 14 patches, batch 4 (2 for patches), depth 2; a line through the three largest"
USUAL = {"side": 14, "backbones": 2, "batch": 4, "depth": 2}
VARIED = {
    "side": (7, 14, 28, 40, 56),
    "backbones": (1, 2, 3, 4, 6, 8),
    "batch": (2, 4, 8, 16, 32),
    "depth": (1, 2, 4, 8),
}
CHANNELS = 64


def main() -> None:
    """Measures every point and writes the table, or one point if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=json.loads)
    parser.add_argument("--draw", action="store_true")
    args = parser.parse_args()
    if args.draw:
        draw()
        return
    if args.one:
        print(json.dumps(measured(args.one)))
        return
    rows = []
    for axis, values in VARIED.items():
        found = [child(USUAL | {axis: value} | ({"batch": 2} if axis == "side" else {})) for value in values]
        sizes = [value**2 if axis == "side" else value for value in values]
        slopes = [exponent(sizes, [row[k] for row in found]) for k in (0, 1)]
        for size, (seconds, megabytes) in zip(sizes, found, strict=True):
            name = "patches a backbone" if axis == "side" else axis
            rows.append([name, size, seconds, megabytes, *slopes])
            print(rows[-1], flush=True)
    ours, hgt = child(USUAL | {"batch": 8}), child({"hgt": True, "batch": 8})
    rows.append(["GraFeat-Merge, 2 steps, batch 8", 196, *ours, "", ""])
    rows.append(["PyG HGTConv, 1 layer, batch 8", 196, *hgt, "", ""])
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "scaling_cpu.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["what", "size", "seconds", "MB", "exponent of time", "exponent of memory", "machine"])
        for name, size, *figures in rows:
            table.writerow([name, size, *(f"{f:.3g}" if f != "" else "" for f in figures), described()])
    draw()


def draw() -> None:
    """Draws the table that was written last."""
    growth(pd.read_csv(RESULTS / "scaling_cpu.csv")).savefig(RESULTS / "scaling_cpu.png", dpi=144)


@styled
def growth(table: pd.DataFrame) -> Panels:
    """Seconds and memory by what was varied, both axes logarithmic, with the fitted power law and its exponent."""
    varied = table[table["exponent of time"].notna()]
    names = list(dict.fromkeys(varied["what"]))
    figure = panel_figure(9.6, 4.4)
    title(figure, [("What a training step costs as it grows", INK, "bold")], [(SAID, SECOND_INK)])
    for row, (column, unit) in enumerate({"seconds": "seconds", "MB": "peak memory, MB"}.items()):
        for number, name in enumerate(names):
            ax = place(figure, 0.72 + 2.22 * number, 1.0 + 1.72 * row, 1.9, 1.35)
            own = varied[varied["what"] == name]
            power = own["exponent of time" if column == "seconds" else "exponent of memory"].iloc[0]
            _draw_growth(ax, own["size"].tolist(), own[column].tolist(), power)
            ax.set_ylim(10 ** math.floor(math.log10(varied[column].min())), varied[column].max() * 2.5)
            ax.set_title(name if not row else "", pad=8)
            ax.set_ylabel("" if number else unit)
            ax.tick_params(labelleft=not number)
    return figure


def _draw_growth(ax: Axes, sizes: list[int], figures: list[float], power: float) -> None:
    """The points, and the power law through the three largest, carried on to the smallest in grey."""
    fitted = [math.log(figure) - power * math.log(size) for size, figure in zip(sizes, figures, strict=True)][-3:]
    law = [math.exp(statistics.fmean(fitted)) * size**power for size in sizes]
    ax.loglog(sizes, law, color="#8A8A8A", linewidth=1, linestyle=(0, (4, 3)))
    ax.loglog(sizes[-3:], law[-3:], color=INK, linewidth=1.2)
    ax.loglog(sizes, figures, "o", color="#1565C0", markersize=5.5, markeredgecolor="white", markeredgewidth=0.8)
    ax.annotate(
        f"∝ size$^{{{power:.2f}}}$", (0.06, 0.95), xycoords="axes fraction", va="top", size=10, color=INK
    )
    near = sizes[-1] / sizes[-2] < 2 < len(f"{sizes[-1]:,}")  # the labels of the two largest would touch
    ax.set_xticks(sizes, labels=["" if near and size == sizes[-2] else f"{size:,}" for size in sizes])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.minorticks_off()
    ax.grid(axis="y", color=HAIRLINE, linewidth=0.6)


def child(what: dict) -> tuple[float, float]:
    """Seconds of a step and peak memory in MB, measured in a fresh process."""
    command = [sys.executable, __file__, "--one", json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def measured(what: dict) -> tuple[float, float]:
    """Median seconds of a step after one to warm up, and by how much memory rose above what was there before."""
    step = hgt_step(what["batch"]) if "hgt" in what else merge_step(**what)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    taken = []
    for number in range(4):
        start = time.perf_counter()
        step()
        if number:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken), memory("VmHWM") - before


def merge_step(side: int, backbones: int, batch: int, depth: int) -> Callable[[], None]:
    """Forward, backward and update of a merge of the default width."""
    names = [str(number) for number in range(backbones)]
    grids = gf.GridSet(
        [gf.FeatureGrid(name, torch.randn(batch, CHANNELS, side, side)) for name in names],
        torch.arange(batch) % 10,
    )
    model = gf.GraFeatMerge.for_grids(grids, num_classes=10, depth=depth, backbone_drop=0.0, cross_drop=0.0).train()
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimiser.zero_grad()
        training_loss(model, grids, own_loss=1.0).backward()
        optimiser.step()

    return step


def hgt_step(batch: int) -> Callable[[], None]:
    """Forward and backward of one HGTConv layer, width 128, on 2 × 14 × 14 patches."""
    from speed import layers_and_hgt

    _, reference = layers_and_hgt(torch.device("cpu"))
    return reference


def memory(line: str) -> float:
    """A figure of this process's memory, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) / 1024


def exponent(sizes: list[int], figures: list[float]) -> float:
    """Slope of a line through the three largest points, in logarithms."""
    x, y = ([math.log(v) for v in values[-3:]] for values in (sizes, figures))
    return float(statistics.linear_regression(x, y).slope)


if __name__ == "__main__":
    main()
