"""Pictures taken apart and put together in the order of an explanation: what becomes of the prediction."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.explanations.faithfulness import (
    GROUPS,
    Curve,
    Rows,
    Score,
    area,
    curve,
    equal_cells,
    mixed_score,
    ranks,
    saco,
    summed,
)
from grafeat.explanations.standardised import standardised
from grafeat.graph import PatchGraph
from grafeat.grids import GridSet
from grafeat.models import GridModel

RANDOM_ORDERS = 4  # for each picture, beside an explanation's own order and the inverse


@dataclass(frozen=True, eq=False)
class Curves:
    """The score on the way from one end to the other, in three orders.

    Attributes:
        own: In the explanation's order (b, steps + 1).
        inverse: In that order turned round.
        random: Mean of several random orders.
    """

    own: Curve
    inverse: Curve
    random: Curve

    @property
    def change(self) -> Float[Tensor, " b"]:
        """How far the score goes, from the first point to the last."""
        return self.own[:, -1] - self.own[:, 0]

    def gains(self, sign: int) -> dict[str, Float[Tensor, " b"]]:
        """Area between the own curve and each control, in mean sizes of the change; above 0 is better.

        Args:
            sign: 1 where the own curve should lie above, -1 where below.
        """
        unit = self.change.abs().mean()
        own = area(self.own)
        controls = {"random": self.random, "inverse": self.inverse}
        return {name: sign * (own - area(other)) / unit for name, other in controls.items()}

    def means(self, sign: int) -> dict[str, list[float]]:
        """Mean curves over the pictures, as shares of the mean change: 0 without anything, 1 with all.

        This holds where the score is lower with all, too.

        Args:
            sign: 1 for curves that end with all (insertion), -1 for curves that begin with all (deletion).
        """
        ends = float(self.own[:, 0].mean()), float(self.own[:, -1].mean())
        none, full = ends if sign > 0 else ends[::-1]
        curves = {"own": self.own, "inverse": self.inverse, "random": self.random}
        return {
            name: ((points.mean(dim=0) - none) / (full - none)).tolist() for name, points in curves.items()
        }


@dataclass(frozen=True, eq=False)
class Removal:
    """What became of predictions as pictures were taken apart in the order of one explanation.

    Attributes:
        deletion: Scores as ever more cells become the mean patch.
        insertion: Scores as ever more cells are put into another picture.
        agreement: SaCo of each picture (b,).
    """

    deletion: Curves
    insertion: Curves
    agreement: Float[Tensor, " b"]

    def tests(self) -> dict[str, Float[Tensor, " b"]]:
        """What the tests measured, by name."""
        found = {f"deletion, {name}": gain for name, gain in self.deletion.gains(-1).items()}
        return (
            found
            | {f"insertion, {name}": gain for name, gain in self.insertion.gains(1).items()}
            | {"SaCo": self.agreement}
        )

    def gap(self, values: Rows) -> Float[Tensor, " b"]:
        """How far the values' sum is from the change between no patch and all, in mean sizes of that change."""
        change = -self.deletion.change
        return (values.sum(dim=1) - change).abs() / change.abs().mean()


def taken_apart(
    model: GridModel,
    grids: GridSet,
    targets: Int[Tensor, " b"],
    values: Mapping[str, Rows],
    *,
    batch_size: int,
    seed: int,
) -> dict[str, Removal]:
    """Takes pictures apart and puts them together in the order of each of several explanations.

    Args:
        model: A frozen model with projections.
        grids: The pictures' grids, in the model's order of backbones; two pictures or more.
        targets: The class whose centred logit is the score, for each picture.
        values: The explanations' values of all patches (b, n), by name.
        batch_size: Pictures that are computed at once.
        seed: Decides random orders, and the picture that each is put into.

    Returns:
        What became of the scores, by name.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = equal_cells(PatchGraph.of(grids))
    b, count = len(grids), int(cells.max()) + 1
    others = (
        torch.arange(b) + torch.randint(1, b, (b,), generator=generator)
    ) % b  # never the picture itself
    drawn = torch.rand(RANDOM_ORDERS, b, count, generator=generator).argsort(dim=2)
    sums = {name: summed(rows, cells) for name, rows in values.items()}
    places = {name: ranks(own, generator) for name, own in sums.items()}
    parts: dict[str, list[Removal]] = {name: [] for name in values}
    for rows in torch.arange(b).split(batch_size):
        subject = standardised(model, grids[rows], targets[rows])
        absent = mixed_score(subject, tuple(torch.zeros_like(part) for part in subject.features))
        other = standardised(model, grids[others[rows]], targets[rows])
        elsewhere = mixed_score(subject, tuple(part.detach() for part in other.features))
        runs = _Runs(absent, elsewhere, cells, [order[rows] for order in drawn])
        for name, order in places.items():
            parts[name].append(runs.removal(order[rows], sums[name][rows]))
    return {name: _joined(found) for name, found in parts.items()}


class _Runs:
    """The curves of one batch; those of random orders serve all explanations."""

    def __init__(
        self, absent: Score, elsewhere: Score, cells: Int[Tensor, " n"], drawn: list[Tensor]
    ) -> None:
        self.absent, self.elsewhere, self.cells = absent, elsewhere, cells
        self.random = {
            keep: torch.stack([self.curve(order, keep) for order in drawn]).mean(dim=0)
            for keep in (False, True)
        }

    def curve(self, places: Int[Tensor, "b cells"], keep: bool) -> Curve:
        return curve(self.elsewhere if keep else self.absent, places, self.cells, keep_first=keep)

    def removal(self, places: Int[Tensor, "b cells"], sums: Float[Tensor, "b cells"]) -> Removal:
        last = places.shape[1] - 1
        deletion, insertion = (
            Curves(self.curve(places, keep), self.curve(last - places, keep), self.random[keep])
            for keep in (False, True)
        )
        return Removal(deletion, insertion, self.saco(places, sums, deletion.own[:, 0]))

    def saco(self, places: Int[Tensor, "b cells"], sums: Float[Tensor, "b cells"], whole: Tensor) -> Tensor:
        """SaCo of groups of cells that follow each other in the order."""
        count = places.shape[1]
        several = min(GROUPS, count)
        group = places * several // count
        salience = torch.zeros(len(places), several, dtype=sums.dtype).scatter_add(1, group, sums)
        effect = torch.stack(
            [whole - self.absent((group != one)[:, self.cells]) for one in range(several)], dim=1
        )
        return saco(salience, effect.to(sums))


def _joined(parts: list[Removal]) -> Removal:
    def curves(found: list[Curves]) -> Curves:
        return Curves(
            *(torch.cat([getattr(one, name) for one in found]) for name in ("own", "inverse", "random"))
        )

    agreement = torch.cat([part.agreement for part in parts])
    return Removal(curves([p.deletion for p in parts]), curves([p.insertion for p in parts]), agreement)
