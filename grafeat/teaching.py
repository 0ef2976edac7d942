"""What a model is asked to say of a batch of pictures: their labels, or what its own teacher guesses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Beta

from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.sharing import Share
from grafeat.splits import Rows

SHARPNESS = 2.0  # factor on a teacher's logits: it learned from mixed pictures, so it is too modest
CONFIDENT = 0.8  # probability from which a guess is taught


@dataclass(frozen=True, eq=False)
class Taught:
    """This process's rows of a batch, with what is to be said of them.

    Attributes:
        grids: Their grids, mixed if asked for.
        targets: Probability of each class for each row.
        weights: Weight of each row in the loss; summed over the rows, and averaged over the processes, 1 for a batch
            with labels.
        rows: Which of the whole batch's rows they are.
        count: Rows of the whole batch.
    """

    grids: tuple[FeatureGrid, ...]
    targets: Float[Tensor, "b t"]
    weights: Float[Tensor, " b"]
    rows: Rows
    count: int

    def loss(self, logits: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
        """Weighted sum of the rows' cross-entropies, in nats."""
        each = F.cross_entropy(logits.float(), self.targets.to(logits.device), reduction="none")
        return (each * self.weights.to(logits.device)).sum()

    def known(
        self, losses: Float[Tensor, " k"], label_counts: Int[Tensor, " t"], share: Share
    ) -> Float[Tensor, " k"]:
        """How much of what the targets tell some logits know, by their losses: from 0 to 1, without gradient.

        0 where they do no better than the classes' frequencies would, 1 where they say the targets themselves.

        Args:
            losses: What `loss` gives for each of them.
            label_counts: How often each class is there in training; all 0 stands for equally often.
            share: Which rows are this process's; what is known is that of all processes.
        """
        least = (torch.special.entr(self.targets).sum(dim=-1) * self.weights).sum()
        told = torch.stack([least, self.weights.sum()]).to(losses)
        sums = share.mean(torch.cat([losses.detach(), told]))
        found, least, rows = sums[:-2], sums[-2], sums[-1]
        often = label_counts.to(sums) if label_counts.any() else torch.ones_like(label_counts).to(sums)
        most = rows * torch.special.entr(often / often.sum()).sum()
        return ((most - found) / (most - least).clamp(min=1e-6)).clamp(0, 1)

    def beside(self, other: "Taught") -> "Taught":
        """Both in one batch, so that one pass serves them."""
        grids = [
            FeatureGrid.trusted(a.name, torch.cat([a.features, b.features.to(a.features)]), a.field)
            for a, b in zip(self.grids, other.grids, strict=True)
        ]
        return Taught(
            tuple(grids),
            torch.cat([self.targets, other.targets.to(self.targets)]),
            torch.cat([self.weights, other.weights.to(self.weights)]),
            torch.cat([self.rows, other.rows + self.count]),
            self.count + other.count,
        )


def labelled(batch: GridSet, num_classes: int, *, label_smoothing: float, mixup: float, share: Share) -> Taught:
    """The rows with their labels.

    Args:
        batch: Labelled pictures.
        num_classes: Classes t.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        mixup: Parameter of the Beta distribution by which rows are mixed; 0 for none.
        share: Which rows are this process's.
    """
    draw = _Draw.of(len(batch), mixup, share)
    part = batch[draw.needed]
    hard = F.one_hot(part.required_labels("batch"), num_classes).float()
    soft = hard * (1 - label_smoothing) + label_smoothing / num_classes
    weights = torch.full((len(draw.own),), share.weight(len(batch)))
    return Taught(draw.grids(part.grids), draw.mixed(soft), weights, draw.own, len(batch))


@torch.no_grad()
def guessed(teacher: GridModel, batch: GridSet, *, weight: float, mixup: float, share: Share) -> Taught:
    """The rows with what a teacher says of them, where it is sure.

    Args:
        teacher: A model in `eval`; here, the average of the student's weights.
        batch: Pictures; their labels are not looked at.
        weight: Weight of these rows together, beside 1 for those with labels.
        mixup: Parameter of the Beta distribution by which rows are mixed; 0 for none.
        share: Which rows are this process's.

    Source: Tarvainen and Valpola, Mean teachers, NeurIPS 2017 (the teacher); Verma et al., Interpolation consistency
    training, IJCAI 2019 (mixed guesses for mixed pictures); Sohn et al., FixMatch, NeurIPS 2020 (only sure ones). Ours
    is that each backbone's own reading learns from what all say together.
    """
    draw = _Draw.of(len(batch), mixup, share)
    part = batch[draw.needed]
    guesses = (teacher(part.grids).logits.float() * SHARPNESS).softmax(dim=-1).cpu()
    sure = (guesses.amax(dim=-1) >= CONFIDENT).float()
    weights = draw.mixed(sure) * (weight * share.weight(len(batch)))
    return Taught(draw.grids(part.grids), draw.mixed(guesses), weights, draw.own, len(batch))


@dataclass(frozen=True, eq=False)
class _Draw:
    """Which pictures are mixed with which; what is drawn is drawn for all rows, whichever are this process's."""

    own: Rows
    needed: Rows  # each picture is read once
    first: Rows
    second: Rows
    weight: float
    mixing: bool = True

    @classmethod
    def of(cls, count: int, mixup: float, share: Share) -> "_Draw":
        own = share.rows(torch.arange(count))
        if not mixup:
            every = torch.arange(len(own))
            return cls(own, own, every, every, 1.0, mixing=False)
        weight = float(Beta(mixup, mixup).sample())
        other = torch.randperm(count)[own]
        needed, at = torch.cat([own, other]).unique(return_inverse=True)
        first, second = at.split(len(own))
        return cls(own, needed, first, second, max(weight, 1 - weight))

    def mixed(self, values: Tensor) -> Tensor:
        """Each own row mixed with its other one."""
        own = values[self.first]
        return own if self.weight == 1 else own.lerp(values[self.second], 1 - self.weight)

    def grids(self, grids: Sequence[FeatureGrid]) -> tuple[FeatureGrid, ...]:
        """The same of their features."""
        if not self.mixing:
            return tuple(grids)
        return tuple(
            FeatureGrid.trusted(grid.name, self.mixed(grid.features.float()), grid.field) for grid in grids
        )
