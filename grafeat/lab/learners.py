"""What a training leaves, and what it says of a test set."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.evaluation import batches
from grafeat.fusion import Committee
from grafeat.fusion.budget import learned
from grafeat.grids import GridSet
from grafeat.lab.cells import Cell
from grafeat.lab.scratch import Scratch
from grafeat.lab.seen import Seen
from grafeat.lab.task import Task
from grafeat.models import GridModel
from grafeat.pictures import PictureSet

MOST = 4  # backbones of which every subset is tested; of more, all of them and all but each one
Answers = tuple[Float[Tensor, "b t"], Float[Tensor, "b d"]]


@dataclass(frozen=True, eq=False)
class GridLearner:
    """A trained model of feature grids.

    Attributes:
        model: The model.
        seen: What it sees of grids.
        train: What it saw of the pictures it learned from.
        val: What it saw of those it was chosen by.
        seconds: Duration of the training.
    """

    model: GridModel
    seen: Seen
    train: GridSet
    val: GridSet
    seconds: float

    def cell(self, task: Task, *, vectors: bool) -> Cell:
        """What it says of a task's test pictures with every subset of its backbones."""
        tested, subsets = self.seen(task.tested), subsets_of(tuple(self.model.backbones))
        self.model.eval()
        start = time.perf_counter()
        whole, found = answers(self.model, tested)
        took = time.perf_counter() - start
        val, val_vectors = answers(self.model, self.val)
        parts = [answers(self.model, tested, without=_others(subsets[0], names))[0] for names in subsets[1:]]
        return Cell(
            subsets=subsets,
            logits=torch.stack([whole, *parts]),
            val_logits=val,
            vectors=found if vectors else None,
            val_vectors=val_vectors if vectors else None,
            train_vectors=answers(self.model, self.train)[1] if vectors else None,
            parameters=learned(self.model),
            seconds=self.seconds,
            inference=1000 * took / len(tested),
        )


@dataclass(frozen=True, eq=False)
class PictureLearner:
    """The small CNN that was trained from scratch.

    Attributes:
        scratch: The network.
        shown: The pictures, with their parts.
    """

    scratch: Scratch
    shown: PictureSet

    def cell(self, task: Task, *, vectors: bool) -> Cell:
        """What it says of the test part of its pictures; it has no backbones to leave out."""
        start = time.perf_counter()
        whole, found = self.scratch.read(self.shown.test)
        took = time.perf_counter() - start
        val, val_vectors = self.scratch.read(self.shown.val)
        return Cell(
            subsets=((),),
            logits=whole[None],
            val_logits=val,
            vectors=found if vectors else None,
            val_vectors=val_vectors if vectors else None,
            train_vectors=self.scratch.read(self.shown.train)[1] if vectors else None,
            parameters=self.scratch.parameters,
            seconds=self.scratch.seconds,
            inference=1000 * took / len(whole),
        )


Learner = GridLearner | PictureLearner


def together(committee: Committee, cells: Mapping[str, Cell], *, vectors: bool) -> Cell:
    """What a committee says of a test set, from what its members said of it: it is nothing but that.

    Args:
        committee: How their logits are put together; the shape is enough.
        cells: What each member said, by its backbone's name.
        vectors: Whether image vectors are needed; the members' cells then have them.
    """
    names = tuple(cells)
    subsets = subsets_of(names)

    def agreed(of: Sequence[Float[Tensor, "b t"]]) -> Float[Tensor, "b t"]:
        return committee.agreed(torch.stack(list(of)))

    def joined(of: Sequence[Float[Tensor, "b d"] | None]) -> Float[Tensor, "b _"] | None:
        return torch.cat([one for one in of if one is not None], dim=1) if vectors else None

    each = cells.values()
    return Cell(
        subsets=subsets,
        logits=torch.stack([agreed([cells[name].logits[0] for name in some]) for some in subsets]),
        val_logits=agreed([cell.val_logits for cell in each]),
        vectors=joined([cell.vectors for cell in each]),
        val_vectors=joined([cell.val_vectors for cell in each]),
        train_vectors=joined([cell.train_vectors for cell in each]),
        parameters=sum(cell.parameters for cell in each),
        seconds=sum(cell.seconds for cell in each),
        inference=sum(cell.inference for cell in each),
    )


@torch.no_grad()
def answers(model: GridModel, grids: GridSet, *, without: Collection[str] = ()) -> Answers:
    """Class logits and image vectors of every picture, float32, on the CPU."""
    outs = [model(batch, without=without) for batch in batches(grids, 256)]
    logits, vectors = torch.cat([out.logits for out in outs]), torch.cat([out.vector for out in outs])
    return logits.float().cpu(), vectors.float().cpu()


def subsets_of(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Every subset of backbones but none, all first; of more than four, all and all but each one."""
    sizes = range(len(names), 0, -1) if len(names) <= MOST else (len(names), len(names) - 1)
    return tuple(some for size in sizes for some in combinations(names, size))


def _others(names: tuple[str, ...], kept: tuple[str, ...]) -> set[str]:
    return set(names) - set(kept)
