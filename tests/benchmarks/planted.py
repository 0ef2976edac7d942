"""Do values tell the truth where it is known by construction? `python tests/benchmarks/planted.py`.

Five seeds, and for each a small merge, trained on 3,000 pictures and explained on 1,000: *one speaks* (the first, the
second, one of three), *pointer* and *repeat*. Once with a model that never missed a backbone in training, once with one
that missed one in three of ten batches (`backbone_drop`). Writes `results/planted.csv`; the intervals are Student's t
over the seeds.
"""

import argparse
import copy
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from machine import described
from scipy.stats import t as student
from torch import Tensor

import grafeat as gf
from grafeat import planted
from grafeat.attention import PerBackbone
from grafeat.knockouts import KnockOut, knock_out, knocked_logits

RESULTS = Path(__file__).parent / "results"
TASKS: dict[str, Callable[[int, int], tuple[gf.GridSet, Tensor | None]]] = {
    "one speaks: a of two": lambda count, seed: planted.one_speaks(count, seed=seed),
    "one speaks: b of two": lambda count, seed: planted.one_speaks(count, speaker="b", seed=seed),
    "one speaks: b of three": lambda count, seed: planted.one_speaks(
        count, speaker="b", backbones=("a", "b", "c"), seed=seed
    ),
    "pointer": lambda count, seed: (planted.pointer(count, seed=seed), None),
    "repeat": lambda count, seed: (planted.repeat(count, seed=seed), None),
}
DROPS = (0.0, 0.3)
KNOCKED = 100  # pictures in which every patch is knocked out


def main() -> None:
    """Trains, explains and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--drops", nargs="+", type=float, default=list(DROPS))
    parser.add_argument("--write", type=Path, default=RESULTS / "planted.csv")
    args = parser.parse_args()
    found: dict[tuple[str, float, str], list[float]] = {}
    for task in args.tasks:
        for drop in args.drops:
            for seed in range(args.seeds):
                start = time.perf_counter()
                for figure, value in run(task, drop, seed):
                    found.setdefault((task, drop, figure), []).append(value)
                print(f"{task}, drop {drop}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
            for key, values in found.items():
                if key[:2] == (task, drop):
                    mean, low, high = over_seeds(values)
                    print(f"  {key[2]}: {mean:.4g} ({low:.4g} to {high:.4g})", flush=True)
    write_table(args.write, args.seeds, found)


def run(task: str, drop: float, seed: int) -> Iterator[tuple[str, float]]:
    """Figures of one training, by name."""
    train, _ = TASKS[task](3000, seed)
    test, places = TASKS[task](1000, 1000 + seed)
    model = gf.GraFeatMerge.for_grids(
        train, num_classes=4, width=32, depth=1, backbone_drop=drop, cross_drop=0.0, seed=seed
    )
    gf.fit(model, train, epochs=10, learning_rate=3e-3, mixup=0.0, own_loss=0.0, seed=seed, progress=False)
    yield "accuracy", gf.evaluate(model, test).accuracy
    with knock_out(model, KnockOut("cross"), gf.PatchGraph.of(test[:1])):
        yield "accuracy without cross edges", gf.evaluate(model, test).accuracy
    report = gf.dominance(model, test, knockouts=False)
    for name in report.names:
        yield f"share of {name}", report.shares[name]
        yield f"value of {name}", report.values[name]
        yield f"CUR of {name}", float(report.utilisation.loc[name, "CUR"])
    for m, name in enumerate(report.names):
        for other in report.names[m + 1 :]:
            pair = float(report.interactions.loc[name, other])
            yield f"interaction of {name} and {other}", pair
            if len(report.names) == 2:
                yield "interaction, of the sum of values", pair / sum(report.values.values())
    if places is not None:
        speaker = task.split()[2]
        yield "planted patch first by knock-out", first_by_knock_out(model, test[:KNOCKED], speaker, places)
    if task == "repeat":
        yield "value of first minus second", report.values["first"] - report.values["second"]
        values = gf.dominance(tied(model), test, knockouts=False).picture_values
        yield "largest difference of values, tied", float((values[:, 0] - values[:, 1]).abs().max())


def first_by_knock_out(model: gf.GraFeatMerge, test: gf.GridSet, speaker: str, places: Tensor) -> float:
    """In how many pictures the planted patch is the one whose absence costs the predicted class most."""
    graph = gf.PatchGraph.of(test[:1])
    every = [graph.locate(vertex) for vertex in range(graph.num_vertices)]
    outs = [KnockOut(patch=patch) for patch in every]
    right = 0
    for picture in range(len(test)):
        predicted = int(gf.predict(model, test[picture]).argmax())
        logits = knocked_logits(model, test[picture], outs)
        centred = logits[:, predicted] - logits.mean(dim=1)
        right += tuple(every[int(centred.argmin())]) == (speaker, *places[picture].tolist())
    return right / len(test)


@torch.no_grad()
def tied(model: gf.GraFeatMerge) -> gf.GraFeatMerge:
    """The model with the first backbone's parameters for all."""
    model = copy.deepcopy(model)
    for projection in model.projections[1:]:
        projection.load_state_dict(model.projections[0].state_dict())
    model.types[:] = model.types[:1].clone()
    for module in model.modules():
        if isinstance(module, PerBackbone):
            for layer in module.layers[1:]:
                layer.load_state_dict(module.layers[0].state_dict())
        if isinstance(getattr(module, "relation", None), torch.nn.Parameter):
            module.relation[:] = module.relation[:1].clone()
    return model


def over_seeds(values: list[float]) -> tuple[float, float, float]:
    """Mean over the seeds with its 95% interval."""
    found = torch.tensor(values, dtype=torch.float64)
    if len(found) < 2:
        return float(found.mean()), float("nan"), float("nan")
    half = float(student.ppf(0.975, len(found) - 1) * found.std() / len(found) ** 0.5)
    return float(found.mean()), float(found.mean()) - half, float(found.mean()) + half


def write_table(path: Path, seeds: int, found: dict[tuple[str, float, str], list[float]]) -> None:
    """One row for each figure: mean and interval over the seeds, then each seed's."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["task", "backbone_drop", "figure", "mean", "low", "high"]
            + [f"seed {seed}" for seed in range(seeds)]
            + ["machine"]
        )
        for key, values in found.items():
            table.writerow([*key, *(f"{value:.4g}" for value in (*over_seeds(values), *values)), described()])


if __name__ == "__main__":
    main()
