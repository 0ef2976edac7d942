"""Committees: one model for each backbone, trained by itself, whose predictions are put together."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.fusion.mixer import check_several
from grafeat.grids import FeatureGrid
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel, MergeOutput


class Committee(GridModel):
    """Models of one backbone each, which never see each other; only what they predict is put together.

    Nothing is learned beside the members, so there is no training but theirs: `fit` trains them one by one. The image
    vector is theirs side by side, with zeros for a backbone that is left out; `own` holds each member's logits.

    Args:
        members: A model of one backbone for each, by the backbone's name; two or more.

    Raises:
        ValueError: If there are fewer than two, one is not of that backbone alone, or their classes differ.
    """

    about: str

    def __init__(self, members: Mapping[str, GraFeatMerge]) -> None:
        check_several(type(self).__name__, members)
        first = next(iter(members.values()))
        for name, member in members.items():
            _check(name, member, first)
        channels = {name: member.backbones[name] for name, member in members.items()}
        super().__init__(channels, first.num_classes, first.config.classes)
        self.singles = nn.ModuleList(members.values())
        self.label_counts.copy_(first.label_counts)
        self.train(first.training)  # a new module would train, and take its members with it

    @property
    def members(self) -> dict[str, GraFeatMerge]:
        """The members by the name of their backbone."""
        singles = cast(Iterable[GraFeatMerge], self.singles)  # a ModuleDict would take no names with dots
        return dict(zip(self.backbones, singles, strict=True))

    @property
    def instead(self) -> str:
        """What can be captured where the committee as a whole cannot."""
        return f"capture one of its members, as model.members[{next(iter(self.backbones))!r}]"

    @property
    def projections(self) -> nn.ModuleList:
        """The members' projections, in the order of the backbones."""
        return nn.ModuleList(member.projections[0] for member in self.members.values())

    def __repr__(self) -> str:
        learned = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return "\n".join(
            [
                f"{type(self).__name__}: {len(self.backbones)} models of one backbone each → {self.about} → "
                f"{self.num_classes} classes, {learned:,} parameters",
                *(f"  {line}" for member in self.members.values() for line in repr(member).splitlines()),
            ]
        )

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        """The output for checked grids; called by `forward`."""
        given = {grid.name: grid for grid in grids}
        outs = {name: member.merge([given[name]]) for name, member in self.members.items() if name in given}
        return MergeOutput(
            logits=self.agreed(torch.stack([out.logits for out in outs.values()])),
            vector=torch.cat([self._vector(name, outs, grids[0].features.shape[0]) for name in self.backbones], dim=1),
            own={name: out.logits for name, out in outs.items()},
            reading={name: out.reading[name] / len(outs) for name, out in outs.items()},
        )

    @abstractmethod
    def agreed(self, logits: Float[Tensor, "m b t"]) -> Float[Tensor, "b t"]:
        """The committee's logits, of those of the members that are there."""

    def _vector(self, name: str, outs: Mapping[str, MergeOutput], b: int) -> Float[Tensor, "b _"]:
        if name in outs:
            return outs[name].vector
        head = self.members[name].head
        return head.weight.new_zeros(b, head.in_features)


class Ensemble(Committee):
    """The mean of the members' logits, each member trained by itself on one backbone.

    A backbone that is left out has no part in the mean.

    Args:
        members: A model of one backbone for each, by the backbone's name; two or more.

    Source: Hansen and Salamon, Neural network ensembles, IEEE TPAMI 1990; there of networks that see the same input.
    """

    about = "mean of their logits"

    def agreed(self, logits: Float[Tensor, "m b t"]) -> Float[Tensor, "b t"]:
        """The mean."""
        return logits.mean(dim=0)


class Voting(Committee):
    """Each member has one vote; where as many vote for one class as for another, the mean probability decides.

    The logit of a class is log((votes + mean probability) / (members + 1)): the logarithm of a distribution whose
    largest entry is the class that wins. A backbone that is left out does not vote.

    Args:
        members: A model of one backbone for each, by the backbone's name; two or more.

    Source: Hansen and Salamon, Neural network ensembles, IEEE TPAMI 1990 (plurality vote).
    """

    about = "votes"

    def agreed(self, logits: Float[Tensor, "m b t"]) -> Float[Tensor, "b t"]:
        """The logarithm of each class's votes and mean probability."""
        exact = logits.double()
        votes = nn.functional.one_hot(exact.argmax(dim=2), self.num_classes).sum(dim=0)
        share = (votes + exact.softmax(dim=2).mean(dim=0)) / (len(logits) + 1)
        found = share.log().to(logits)
        most = found.amax(dim=1, keepdim=True)  # rounding may join what is close: the winner stays ahead by a hair
        ahead = most + torch.finfo(found.dtype).eps * most.abs().clamp(min=1)
        return found.scatter(1, share.argmax(dim=1, keepdim=True), ahead)


def _check(name: str, member: GraFeatMerge, first: GraFeatMerge) -> None:
    if tuple(member.backbones) != (name,):
        raise ValueError(
            f"members: {name!r} is a model of {', '.join(member.backbones)}; expected one of that backbone alone; "
            f"build it from grids.only({name!r})"
        )
    if member.classes != first.classes:
        raise ValueError(
            f"members: {name!r} tells {len(member.classes)} classes apart, another {len(first.classes)}, or by other "
            "names; expected the same for all; train them on the same labels"
        )
