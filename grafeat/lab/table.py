"""The rows of a comparison, from what each contender said after each training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.intervals import Estimate
from grafeat.lab.cells import Cell
from grafeat.lab.contenders import MERGE, PARTS, Contender
from grafeat.lab.measures import Measured, measured
from grafeat.lab.statistics import correct, drawn_figures, estimate, figure_of, holm, mcnemar
from grafeat.lab.task import Task
from grafeat.lab.utilisation import utilisation

FORMAT = 2  # of the table; goes up when columns change
AGAINST = ("concat", "ensemble", "best rival", "best outsider", "merge")  # every row is compared with these
TESTED = AGAINST[:-1]  # and the merge is tested against these, picture by picture
DIFFERENCES = [f"to {one}{end}" for one in AGAINST for end in ("", " low", " high")]
TESTS = [f"{kind} to {one}" for one in TESTED for kind in ("p", "Holm p")]
TEXT = ("task", "family", "measure", "contender", "kind", "best rival", "best outsider", *TESTS, "CUR", "subsets",
        "seeds", "versions", "date")  # fmt: skip
WHOLE = ("format", "parameters", "labels", "pictures")  # numbers that count something
COLUMNS = (
    "format", "task", "family", "measure", "contender", "kind", "mean", "low", "high", *DIFFERENCES, "best rival",
    "best outsider", "validation", "validation loss", *TESTS, "parameters", "training seconds", "inference ms", "CUR",
    "information gap", "gap low", "gap high", "subsets", "labels", "pictures", "seeds", "versions", "date",
)  # fmt: skip
Results = Mapping[str, tuple[Contender, Sequence[Cell]]]


@dataclass(frozen=True, eq=False)
class Judged:
    """All that was said on one task.

    Attributes:
        task: The task.
        results: By its name, each contender and its cell for each seed.
        seeds: The seeds.
    """

    task: Task
    results: Results
    seeds: Sequence[int]

    @property
    def names(self) -> list[str]:
        """The contenders."""
        return list(self.results)

    @cached_property
    def runs(self) -> dict[str, list[Measured]]:
        """What the task's measure says of each contender, for each seed."""
        trained = [self.task.labelled(seed).train.required_labels("train") for seed in self.seeds]
        labels = self.task.tested.required_labels("test")
        return {
            name: [
                measured(
                    self.task.measure, labels, cell.logits[0], vectors=cell.vectors,
                    train_vectors=cell.train_vectors, train_labels=known,
                )
                for cell, known in zip(cells, trained, strict=True)
            ]
            for name, (_, cells) in self.results.items()
        }  # fmt: skip

    @cached_property
    def drawn(self) -> Float[Tensor, "drawn contenders"]:
        """Each contender's figure where seeds and pictures, or groups of them, are drawn anew together."""
        return drawn_figures(list(self.runs.values()), groups=self.task.grouped)

    @cached_property
    def validations(self) -> dict[str, tuple[float, float]]:
        """Mean score and loss of each contender on the validation pictures; see `validation`."""
        known = [self.task.labelled(seed).val.required_labels("val") for seed in self.seeds]
        found = {}
        for name, (_, cells) in self.results.items():
            each = [validation(self.task.measure, cell, labels) for cell, labels in zip(cells, known, strict=True)]
            scores, losses = zip(*each, strict=True)
            found[name] = sum(scores) / len(each), sum(losses) / len(each)
        return found

    @cached_property
    def rivals(self) -> dict[str, str]:
        """Who stands for `concat`, `ensemble`, `best rival`, `best outsider` and `merge`, where someone does.

        The best rival is the way with the best mean score on validation, and then the lowest loss there; the best
        outsider is the best of those that are not the merge with one part changed, be it a way of its own or a merge
        with other options or grids. No test picture has a say in it.
        """
        kinds = {name: contender.kind for name, (contender, _) in self.results.items()}
        found = {name: name for name in ("concat", "ensemble") if kinds.get(name) == "way"}
        ways = [name for name in self.names if kinds[name] == "way"]
        outsiders = [name for name in ways if self.results[name][0].way not in (*PARTS, MERGE)]
        for one, among in (("best rival", ways), ("best outsider", outsiders)):
            if among:
                found[one] = max(among, key=lambda name: (self.validations[name][0], -self.validations[name][1]))
        merges = [name for name in self.names if kinds[name] == "merge"]
        return found | ({"merge": merges[0]} if merges else {})

    def difference(self, name: str, other: str) -> Estimate:
        """One contender's figure minus that of another, in pairs."""
        one, two = self.names.index(name), self.names.index(other)
        figure = figure_of(self.runs[name]) - figure_of(self.runs[other])
        return estimate(figure, self.drawn[:, one] - self.drawn[:, two])

    def p_values(self, name: str, other: str) -> list[float]:
        """McNemar's p for each seed.

        None for a measure by which pictures are not right or wrong, and for pictures in groups: the test takes them
        for independent.
        """
        if self.task.groups is not None:
            return []
        pairs = [(correct(a), correct(b)) for a, b in zip(self.runs[name], self.runs[other], strict=True)]
        return [mcnemar(a, b) for a, b in pairs if a is not None and b is not None]

    def right(self, name: str) -> Bool[Tensor, "subsets seeds b"]:
        """Whether each subset of backbones gets each test picture of a known class right, after each training."""
        labels = self.task.tested.required_labels("test")
        said = torch.stack([cell.logits.argmax(dim=2) for cell in self.results[name][1]], dim=1)
        return (said == labels)[..., self.known]

    @property
    def known(self) -> Bool[Tensor, " b"]:
        """Which test pictures are of a class that is trained."""
        return self.task.tested.required_labels("test") < self.task.num_classes


def validation(measure: str, cell: Cell, labels: Tensor) -> tuple[float, float]:
    """Score and loss on validation pictures.

    The score is the task's own measure, where that can be taken of them: the vectors of two or more of each class for
    retrieval and recall. Else, and for an AUROC, as no class is unknown there, it is the accuracy.
    """
    loss = float(F.cross_entropy(cell.val_logits.double(), labels))
    of_vectors = measure in ("retrieval", "recall@5") and int(labels.unique(return_counts=True)[1].min()) > 1
    chosen = measure if of_vectors else "accuracy"
    return measured(chosen, labels, cell.val_logits, vectors=cell.val_vectors).figure, loss


def rows(judged: Sequence[Judged]) -> pd.DataFrame:
    """The table: one row for each task and contender."""
    found = [_row(task, name) for task in judged for name in task.names]
    tests = _tests(judged)
    for row in found:
        row |= tests.get((row["task"], row["contender"]), dict.fromkeys(TESTS, ""))
    return pd.DataFrame(found, columns=list(COLUMNS))


def _row(judged: Judged, name: str) -> dict[str, Any]:
    contender, cells = judged.results[name]
    task, place = judged.task, judged.names.index(name)
    few = task.labelled(judged.seeds[0])
    own = estimate(figure_of(judged.runs[name]), judged.drawn[:, place])
    score, loss = judged.validations[name]
    return {
        "format": FORMAT,
        "task": task.name,
        "family": task.family,
        "measure": task.measure,
        "contender": name,
        "kind": contender.kind,
        **_ends(("mean", "low", "high"), own),
        **_differences(judged, name),
        "best rival": judged.rivals.get("best rival", ""),
        "best outsider": judged.rivals.get("best outsider", ""),
        "validation": round(score, 6),
        "validation loss": round(loss, 6),
        "parameters": cells[0].parameters,
        "training seconds": round(median(cell.seconds for cell in cells), 2),
        "inference ms": round(median(cell.inference for cell in cells), 4),
        **_use(judged, name),
        "labels": len(few.train) + len(few.val),
        "pictures": len(task.tested),
        "seeds": " ".join(map(str, judged.seeds)),
        "versions": "; ".join(sorted({cell.versions for cell in cells})),
        "date": max(cell.date for cell in cells)[:10],
    }


def _differences(judged: Judged, name: str) -> dict[str, float]:
    """How much better the contender is than each that it is held against; nothing of one against itself."""
    found: dict[str, float] = {}
    for one in AGAINST:
        other, columns = judged.rivals.get(one), (f"to {one}", f"to {one} low", f"to {one} high")
        alone = other is None or other == name
        found |= dict.fromkeys(columns, float("nan")) if alone else _ends(columns, judged.difference(name, str(other)))
    return found


def _use(judged: Judged, name: str) -> dict[str, Any]:
    groups = None if judged.task.grouped is None else judged.task.grouped[judged.known]
    found = utilisation(judged.results[name][1][0].subsets, judged.right(name), groups=groups)
    empty = dict.fromkeys(("information gap", "gap low", "gap high"), float("nan"))
    said = {one: f"{one} {rate.value:+.4f} ({rate.low:+.4f} to {rate.high:+.4f})" for one, rate in found.rates.items()}
    return {
        "CUR": "; ".join(said.values()),
        "subsets": "; ".join(f"{some} {mean:.4f}" for some, mean in found.subsets.items()),
        **(empty if found.gap is None else _ends(tuple(empty), found.gap)),
    }


def _tests(judged: Sequence[Judged]) -> dict[tuple[str, str], dict[str, str]]:
    """The merges' p values, one for each seed, alone and corrected over the tasks that have them."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for one in TESTED:
        there = [task for task in judged if "merge" in task.rivals and one in task.rivals]
        each = {task.task.name: task.p_values(task.rivals["merge"], task.rivals[one]) for task in there}
        each = {name: values for name, values in each.items() if values}
        by_seed = [holm(values) for values in zip(*each.values(), strict=True)]
        for number, task in enumerate(task for task in there if task.task.name in each):
            row = found.setdefault((task.task.name, task.rivals["merge"]), dict.fromkeys(TESTS, ""))
            row[f"p to {one}"] = _said(each[task.task.name])
            row[f"Holm p to {one}"] = _said([values[number] for values in by_seed])
    return found


def _said(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _ends(columns: Sequence[str], found: Estimate) -> dict[str, float]:
    return dict(zip(columns, (round(end, 6) for end in (found.value, found.low, found.high)), strict=True))
