"""The report of `dominance`: values and shares with their intervals, subsets, effects; tables that notebooks show."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.intervals import percentiles, resampled

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Dominance:
    """What each backbone is worth to a model's predictions.

    A backbone's *value* is its Shapley value: what it adds to the centred logit of the target (the logit minus the mean
    over classes), averaged over the orders in which backbones may join, from the model that knows class frequencies
    alone. Values are signed and sum to the centred logit of all minus that of none. Its *share* is its value if
    positive, of the sum of the positive ones.

    Attributes:
        names: The backbones.
        target: The class whose logit is explained, for each picture (b,).
        picture_values: Values for each picture (b, M), float64.
        picture_interactions: Pairwise interactions (b, M, M): above 0 two backbones cooperate, below 0 they repeat each
            other.
        errors: Standard errors of the values (b, M) where they were sampled, for more than ten backbones.
        none: The centred logit of the target without any backbone (b,), from the class frequencies in training.
        full: The centred logit of the target with all (b,).
        correct: Whether each subset of backbones gets each picture right (subsets, b), by number: bit m says whether
            backbone m takes part. None without labels, or where values were sampled.
        routing: Attention mass of each backbone, and what it would be if all logits were equal: where information is
            routed, not what matters. None for a model without attention.
        knockouts: Change of the centred logit of the target (b,), by what was knocked out.
        seed: Decides the bootstrap.
    """

    names: tuple[str, ...]
    target: Int[Tensor, " b"]
    picture_values: Float[Tensor, "b m"]
    picture_interactions: Float[Tensor, "b m m"] | None
    errors: Float[Tensor, "b m"] | None
    none: Float[Tensor, " b"]
    full: Float[Tensor, " b"]
    correct: Bool[Tensor, "subsets b"] | None = None
    routing: pd.DataFrame | None = None
    knockouts: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def values(self) -> dict[str, float]:
        """Each backbone's value, mean over the pictures."""
        return dict(zip(self.names, self.picture_values.mean(dim=0).tolist(), strict=True))

    @cached_property
    def shares(self) -> dict[str, float]:
        """Each backbone's share of the positive values, in [0, 1]; NaN for all where no value is positive."""
        return dict(zip(self.names, _shares(self.picture_values.mean(dim=0)).tolist(), strict=True))

    @property
    def picture_shares(self) -> Float[Tensor, "b m"]:
        """Shares for each picture by itself, in the order of `names`; NaN where no value is positive."""
        return _shares(self.picture_values)

    def right(self, *names: str) -> Bool[Tensor, " b"]:
        """Whether the model gets each picture right with these backbones alone; with none, by class frequency.

        Raises:
            ValueError: If there is no such backbone, there are no labels, or values were sampled.
        """
        for name in names:
            if name not in self.names:
                raise ValueError(f"names: got {name!r}; the report is of {', '.join(self.names)}; use some of them")
        return self._known("right")[sum(1 << self.names.index(name) for name in set(names))]

    @cached_property
    def value_intervals(self) -> dict[str, Interval]:
        """95% intervals of the values over the pictures, by bootstrap; NaN for one picture."""
        return self._intervals(self._drawn_means)

    @cached_property
    def share_intervals(self) -> dict[str, Interval]:
        """95% intervals of the shares over the pictures, by bootstrap; NaN for one picture."""
        return self._intervals(_shares(self._drawn_means))

    @cached_property
    def interactions(self) -> pd.DataFrame:
        """Pairwise interactions, mean over the pictures."""
        if self.picture_interactions is None:
            raise ValueError(
                "interactions: values were sampled; expected ten backbones or fewer; leave some out"
            )
        mean = self.picture_interactions.mean(dim=0).numpy()
        return pd.DataFrame(mean, index=list(self.names), columns=list(self.names))

    @cached_property
    def subsets(self) -> pd.DataFrame:
        """Accuracy of every subset of backbones, smallest first."""
        correct = self._known("subsets")
        rows = [
            {
                "backbones": " + ".join(name for m, name in enumerate(self.names) if number >> m & 1)
                or "none",
                "size": number.bit_count(),
                "accuracy": float(correct[number].double().mean()),
            }
            for number in range(len(correct))
        ]
        return pd.DataFrame(rows).sort_values(["size", "accuracy"], ignore_index=True)

    @cached_property
    def utilisation(self) -> pd.DataFrame:
        """What each backbone adds to the accuracy of all (CUR), with its interval, and whether that is worth nothing.

        CUR is the accuracy of all minus that without the backbone, as a share of the accuracy of all.

        Source: "Investigating Redundancy in Multimodal LLMs with Multiple Vision Encoders", 2025 (arXiv 2507.03262),
        after Wu et al., ICML 2022.
        """
        correct = self._known("utilisation").double()
        everyone = len(correct) - 1
        rates = torch.stack(
            [_cur(correct[everyone], correct[everyone & ~(1 << m)]) for m in range(len(self.names))]
        )
        drawn = self._draws(correct.shape[1])
        resampled = torch.stack(
            [
                _cur(correct[everyone][drawn], correct[everyone & ~(1 << m)][drawn])
                for m in range(len(self.names))
            ],
            dim=1,
        )
        low, high = percentiles(resampled)
        said = ["worth nothing or less" if at_most <= 0 else "perhaps worth nothing" if at_least <= 0 else ""
                for at_least, at_most in zip(low.tolist(), high.tolist(), strict=True)]  # fmt: skip
        columns = {"CUR": rates.tolist(), "low": low.tolist(), "high": high.tolist(), "verdict": said}
        return pd.DataFrame(columns, index=list(self.names))

    @cached_property
    def information_gap(self) -> tuple[float, Interval]:
        """The spread of CUR, largest minus smallest, and its interval: how unequally the backbones are used."""
        correct = self._known("information_gap").double()
        everyone = len(correct) - 1
        without = [everyone & ~(1 << m) for m in range(len(self.names))]

        def gap(rows: Tensor) -> Tensor:
            rates = torch.stack([_cur(correct[everyone][rows], correct[number][rows]) for number in without])
            return rates.amax(dim=0) - rates.amin(dim=0)

        low, high = percentiles(gap(self._draws(correct.shape[1]))[:, None])
        return float(gap(torch.arange(correct.shape[1]))), (float(low), float(high))

    def to_frame(self) -> pd.DataFrame:
        """One row for each backbone: value and share with their intervals."""
        rows = {
            name: {
                "value": self.values[name],
                "value low": self.value_intervals[name][0],
                "value high": self.value_intervals[name][1],
                "share": self.shares[name],
                "share low": self.share_intervals[name][0],
                "share high": self.share_intervals[name][1],
            }
            for name in self.names
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def by_class(self, classes: Sequence[str]) -> pd.DataFrame:
        """Shares of the backbones among the pictures of each target class."""
        rows = {}
        for number in self.target.unique().tolist():
            chosen = self.picture_values[self.target == number]
            rows[classes[number]] = {"pictures": len(chosen)} | dict(
                zip(self.names, _shares(chosen.mean(dim=0)).tolist(), strict=True)
            )
        return pd.DataFrame.from_dict(rows, orient="index")

    def effects(self) -> pd.DataFrame:
        """Mean change of the centred logit by what was knocked out, with its interval, most harmful first."""
        rows = []
        for name, change in self.knockouts.items():
            low, high = percentiles(change[self._draws(len(change))].mean(dim=1, keepdim=True))
            rows.append(
                {"without": name, "change": float(change.mean()), "low": float(low), "high": float(high)}
            )
        frame = pd.DataFrame(rows, columns=["without", "change", "low", "high"])
        return frame.sort_values("change", ignore_index=True)

    def __repr__(self) -> str:
        wide = max(len(name) for name in self.names)
        lines = [f"Dominance over {self._pictures}: value (centred logit) and share of each backbone"]
        for name in self.names:
            low, high = self.value_intervals[name]
            interval = "" if math.isnan(low) else f" ({low:+.2f} to {high:+.2f})"
            lines.append(f"  {name:<{wide}}  {self.values[name]:+.2f}{interval}  {self.shares[name]:.0%}")
        whole = float((self.full - self.none).mean())
        lines.append(f"  {'together':<{wide}}  {whole:+.2f}, from {float(self.none.mean()):+.2f} without any")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from grafeat.plots.dominance import dominance_figure  # draws, so only where it is shown
        from grafeat.plots.panels import embedded

        frame = self.to_frame() if len(self.target) > 1 else self.to_frame()[["value", "share"]]
        rounded = frame.round(3).to_html(border=0, na_rep="–")
        note = html.escape(
            f"{self._pictures}. Values are what each backbone adds to the centred logit; they sum to "
            f"{float((self.full - self.none).mean()):+.3f}."
        )
        figure = embedded(dominance_figure(self), "Values, shares and effects of knock-outs, as in the tables")
        return f"{figure}{rounded}<p><small>{note}</small></p>"

    @property
    def _pictures(self) -> str:
        return f"{len(self.target):,} picture{'s' if len(self.target) > 1 else ''}"

    @cached_property
    def _drawn_means(self) -> Float[Tensor, "drawn m"]:
        return self.picture_values[self._draws(len(self.target))].mean(dim=1)

    def _draws(self, pictures: int) -> Int[Tensor, "drawn b"]:
        return resampled(pictures, self.seed)

    def _intervals(self, drawn: Float[Tensor, "drawn m"]) -> dict[str, Interval]:
        if len(self.target) == 1:
            return dict.fromkeys(self.names, (math.nan, math.nan))
        low, high = percentiles(drawn)
        return dict(zip(self.names, zip(low.tolist(), high.tolist(), strict=True), strict=True))

    def _known(self, what: str) -> Bool[Tensor, "subsets b"]:
        if self.correct is None:
            raise ValueError(
                f"{what}: needs the pictures' labels and ten backbones or fewer; pass a GridSet with labels"
            )
        return self.correct


def _shares(values: Float[Tensor, "*drawn m"]) -> Float[Tensor, "*drawn m"]:
    positive = values.clamp(min=0)
    return positive / positive.sum(dim=-1, keepdim=True)  # NaN where no value is positive: there is no share


def _cur(everyone: Float[Tensor, "*drawn b"], without: Float[Tensor, "*drawn b"]) -> Float[Tensor, "*drawn"]:
    return (everyone.mean(dim=-1) - without.mean(dim=-1)) / everyone.mean(dim=-1)
