"""What an explanation must do if it is true: measures of faithfulness, for patches of grids of unequal size."""

import math
from collections.abc import Callable

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.explanations.standardised import Subject
from grafeat.graph import PatchGraph

STEPS = 10  # of a curve, from none to all
GROUPS = 10  # of SaCo, as in the paper
ENOUGH = 1e-12

Rows = Float[Tensor, "b n"]
Curve = Float[Tensor, "b steps"]
Score = Callable[[Bool[Tensor, "b n"]], Float[Tensor, " b"]]  # of pictures of which these vertices are kept


def equal_cells(graph: PatchGraph) -> Int[Tensor, " n"]:
    """The cell of each vertex: blocks of patches that cover about as much of the picture in every backbone.

    A cell is as large as the largest patch of all, so that a grid of few large patches and one of many small ones are
    taken apart alike. A cell's value is the sum over its patches: a map that gives every patch the same ranks the cells
    of the finer grid first, and is right to the extent that this backbone matters more. Cells of two backbones never
    share a number.
    """
    boxes = {name: graph.box(own.start) for name, own in graph.slices.items()}
    tallest = max(y1 - y0 for _, y0, _, y1 in boxes.values())
    widest = max(x1 - x0 for x0, _, x1, _ in boxes.values())
    cells, first = [], 0
    for name, (x0, y0, x1, y1) in boxes.items():
        h, w = graph.shapes[name]
        rows, columns = max(1, round(h * (y1 - y0) / tallest)), max(1, round(w * (x1 - x0) / widest))
        row, column = torch.arange(h) * rows // h, torch.arange(w) * columns // w
        cells.append((first + row[:, None] * columns + column).flatten())
        first += rows * columns
    return torch.cat(cells)


def summed(values: Rows, cells: Int[Tensor, " n"]) -> Float[Tensor, "b cells"]:
    """The sum of the patches' values in each cell."""
    whole = torch.zeros(len(values), int(cells.max()) + 1, dtype=values.dtype)
    return whole.index_add(1, cells, values)


def ranks(values: Float[Tensor, "b k"], generator: torch.Generator) -> Int[Tensor, "b k"]:
    """The place of each value, from 0 for the largest; equal values in random order."""
    mixed = torch.rand(values.shape, generator=generator).argsort(dim=1)
    order = mixed.gather(1, values.gather(1, mixed).argsort(dim=1, descending=True, stable=True))
    return order.argsort(dim=1)


def curve(
    score: Score,
    places: Int[Tensor, "b cells"],
    cells: Int[Tensor, " n"],
    *,
    keep_first: bool,
) -> Curve:
    """The score as ever more cells are kept (insertion), or ever fewer (deletion), in the order of their places.

    Args:
        score: The score where these vertices (b, n) are the picture's own.
        places: The place of each cell in the order, from 0.
        cells: The cell of each vertex.
        keep_first: Whether the first cells are what is kept (insertion) or what is gone (deletion).

    Returns:
        Scores (b, steps + 1); from all gone to all there for insertion, the other way round for deletion.

    Source: Petsiuk et al., RISE, BMVC 2018.
    """
    count = places.shape[1]
    points = []
    for step in range(STEPS + 1):
        first = places < round(step * count / STEPS)
        points.append(score((first if keep_first else ~first)[:, cells]))
    return torch.stack(points, dim=1)


def area(curves: Curve) -> Float[Tensor, " b"]:
    """Mean height of a curve, by the trapezoid rule."""
    return (curves[:, :-1] + curves[:, 1:]).mean(dim=1) / 2


def mixed_score(subject: Subject, other: tuple[Tensor, ...]) -> Score:
    """The score of pictures of which some patches are replaced.

    Args:
        subject: The pictures.
        other: What stands in for the features that are gone, in the subject's order.

    Returns:
        A function of the vertices (b, n) that are kept, numbered in the order of the subject's grids.
    """
    features = tuple(part.detach() for part in subject.features)
    sizes = [part.shape[2] * part.shape[3] for part in features]

    @torch.no_grad()
    def score(kept: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
        changed = [
            torch.where(own.unflatten(1, part.shape[2:])[:, None].to(part.device), part, fill)
            for own, part, fill in zip(kept.split(sizes, dim=1), features, other, strict=True)
        ]
        return subject.score_of(*changed, subject.targets).cpu()

    return score


def saco(salience: Float[Tensor, "b groups"], effect: Float[Tensor, "b groups"]) -> Float[Tensor, " b"]:
    """Whether groups that an explanation sets apart differ in their effect alike, in [-1, 1]; 0 if it sets none apart.

    Args:
        salience: What the explanation gives to each group.
        effect: What the score loses without the group.

    Source: Wu et al., Salience-guided faithfulness coefficient, CVPR 2024 (algorithm 1).
    """
    first, second = torch.triu_indices(salience.shape[1], salience.shape[1], offset=1)
    apart = salience[:, first] - salience[:, second]
    said = apart * (effect[:, first] - effect[:, second]).sign()
    return said.sum(dim=1) / apart.abs().sum(dim=1).clamp(min=ENOUGH)


def sign_agreement(values: Rows, ablated: Rows) -> Float[Tensor, " b"]:
    """How often the sign of a value is that of the patch's ablation; 0.5 for signs that know nothing of it.

    Patches count by the size of their ablation, and those that speak for and those that speak against count half
    each: so one sign for all patches earns 0.5. NaN where all patches speak for the class, or all against.
    """
    right = (values.sign() == ablated.sign()).to(values.dtype)
    halves = []
    for side in (ablated.clamp(min=0), (-ablated).clamp(min=0)):
        halves.append((right * side).sum(dim=1) / side.sum(dim=1))
    return (halves[0] + halves[1]) / 2


def rank_correlation(one: Rows, other: Rows) -> Float[Tensor, " b"]:
    """Spearman's correlation of two maps of each picture; equal values share their mean rank.

    Two constant maps are alike (1), a constant one and another are not (0).
    """
    x, y = (_mean_ranks(part) for part in (one, other))
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    flat = (x == 0).all(dim=1) & (y == 0).all(dim=1)
    below = (x.norm(dim=1) * y.norm(dim=1)).clamp(min=ENOUGH)
    return torch.where(flat, 1.0, (x * y).sum(dim=1) / below)


def complexity(values: Rows) -> Float[Tensor, " b"]:
    """Entropy of the shares |value|, of that of an even spread: 0 if one patch has all, 1 if all count alike.

    A lone patch has all: 0.

    Source: Bhatt et al., IJCAI 2020, for complexity; Hedström et al., arXiv 2401.06465, for its rise when parameters
    are randomised, there with the entropy of a histogram.
    """
    if values.shape[1] == 1:
        return torch.zeros_like(values[:, 0])
    sizes = values.abs()
    total = sizes.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, sizes / total.clamp(min=ENOUGH), 1 / values.shape[1])
    return torch.special.entr(shares).sum(dim=1) / math.log(values.shape[1])


def _mean_ranks(values: Rows) -> Rows:
    return torch.tensor(pd.DataFrame(values.double().numpy().T).rank().to_numpy().T)
