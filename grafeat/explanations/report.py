"""The report of `dominance`: values and shares with their intervals, subsets, effects; tables that notebooks show."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.intervals import percentiles, resampled_means, reversed_percentiles

Interval = tuple[float, float]
DISPENSABLE = "the others do without it"  # no picture tells a backbone's presence from its absence


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
        left_out: Whether all backbones get each picture right, and all without each one (M + 1, b). None without
            labels.
        routing: Attention mass of each backbone, and what it would be if all logits were equal: where information is
            routed, not what matters. None for a model without attention.
        knockouts: Change of the centred logit of the target (b,), by what was knocked out.
        classes: Names of the model's classes; numbered if empty.
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
    left_out: Bool[Tensor, "m_and_all b"] | None = None
    routing: pd.DataFrame | None = None
    knockouts: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
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
        return self._intervals(self.picture_values)

    @cached_property
    def share_intervals(self) -> dict[str, Interval]:
        """95% intervals of the shares over the pictures, by bootstrap; NaN for one picture."""
        return self._intervals(self.picture_values, _shares)

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

        CUR is the accuracy of all minus that without the backbone, as a share of the accuracy of all. The verdict is
        "worth nothing or less" where the whole interval is at or below 0, and "perhaps worth nothing" where it holds 0.
        Where the backbone changes no picture there is nothing to judge by: then it is "the others do without it". One
        picture has no interval, and no verdict if the backbone changes it.

        Source: "Investigating Redundancy in Multimodal LLMs with Multiple Vision Encoders", 2025 (arXiv 2507.03262),
        after Wu et al., ICML 2022.
        """
        right = self._left_out("utilisation")
        low, high = percentiles(self._drawn_cur) if right.shape[1] > 1 else _no_ends(len(self.names))
        rates, same = _cur(right.double().mean(dim=1)), (right[1:] == right[:1]).all(dim=1)
        columns = {"CUR": rates.tolist(), "low": low.tolist(), "high": high.tolist()}
        said = zip((same & ~rates.isnan()).tolist(), low.tolist(), high.tolist(), strict=True)
        return pd.DataFrame(columns | {"verdict": [_verdict(*row) for row in said]}, index=list(self.names))

    @cached_property
    def information_gap(self) -> tuple[float, Interval]:
        """The spread of CUR, largest minus smallest, and its interval: how unequally the backbones are used.

        A spread is never below 0 and grows with noise, more so when pictures are drawn anew. So the interval is the
        basic one, which takes that bias off, cut at 0. NaN for one picture.
        """
        right = self._left_out("information_gap")
        found = _spread(_cur(right.double().mean(dim=1)))
        ends = _no_ends(1)
        if right.shape[1] > 1:
            ends = reversed_percentiles(found[None], _spread(self._drawn_cur)[:, None])
        low, high = (float(end.clamp(min=0)) for end in ends)
        return float(found), (low, high)

    @cached_property
    def sampling_errors(self) -> dict[str, float]:
        """Standard errors of the values where they were sampled, at most: the same orders serve all pictures."""
        if self.errors is None:
            return dict.fromkeys(self.names, 0.0)
        return dict(zip(self.names, self.errors.mean(dim=0).tolist(), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """One row for each backbone: value and share with their intervals; sampling errors where there are some."""
        rows = {
            name: {
                "value": self.values[name],
                "value low": self.value_intervals[name][0],
                "value high": self.value_intervals[name][1],
                "share": self.shares[name],
                "share low": self.share_intervals[name][0],
                "share high": self.share_intervals[name][1],
            }
            | ({} if self.errors is None else {"sampling error": self.sampling_errors[name]})
            for name in self.names
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def by_class(self, classes: Sequence[str] = ()) -> pd.DataFrame:
        """Shares of the backbones among the pictures of each target class, with their intervals.

        Args:
            classes: Names of the classes; those of the model if absent.

        Raises:
            ValueError: If there are fewer names than classes.
        """
        named, largest = classes or self.classes, int(self.target.max())
        if named and len(named) <= largest:
            raise ValueError(
                f"classes: got {len(named)} names, but class {largest} is explained; expected {largest + 1} or more; "
                "leave them out for the model's"
            )
        rows = {}
        for number in self.target.unique().tolist():
            chosen = self.picture_values[self.target == number]
            row = dict(zip(self.names, _shares(chosen.mean(dim=0)).tolist(), strict=True))
            for name, (low, high) in self._intervals(chosen, _shares).items():
                row |= {f"{name} low": low, f"{name} high": high}
            rows[named[number] if named else str(number)] = {"pictures": len(chosen)} | row
        return pd.DataFrame.from_dict(rows, orient="index")

    def effects(self) -> pd.DataFrame:
        """Mean change of the centred logit by what was knocked out, with its interval, most harmful first.

        Ends are NaN for one picture.
        """
        rows = []
        for name, change in self.knockouts.items():
            several = len(change) > 1
            low, high = percentiles(resampled_means(change[:, None], self.seed)) if several else _no_ends(1)
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
            sampled = "" if self.errors is None else f" ± {self.sampling_errors[name]:.2f}"
            lines.append(f"  {name:<{wide}}  {self.values[name]:+.2f}{sampled}{interval}  {self.shares[name]:.0%}")
        whole = float((self.full - self.none).mean())
        lines.append(f"  {'together':<{wide}}  {whole:+.2f}, from {float(self.none.mean()):+.2f} without any")
        if self.errors is not None:
            lines.append("  ±: standard error of sampling orders of the backbones, beside the interval over pictures")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from grafeat.plots.dominance import dominance_figure  # draws, so only where it is shown
        from grafeat.plots.panels import embedded

        frame = self.to_frame()
        if len(self.target) == 1:  # which has no intervals
            frame = frame.filter(regex="^(value|share|sampling error)$")
        rounded = frame.round(3).to_html(border=0, na_rep="–")
        note = html.escape(
            f"{self._pictures}. Values are what each backbone adds to the centred logit; they sum to "
            f"{float((self.full - self.none).mean()):+.3f}."
            + ("" if self.errors is None else " Sampling error: standard error of drawing orders of backbones.")
        )
        figure = embedded(dominance_figure(self), "Values, shares and effects of knock-outs, as in the tables")
        return f"{figure}{rounded}<p><small>{note}</small></p>"

    @property
    def _pictures(self) -> str:
        return f"{len(self.target):,} picture{'s' if len(self.target) > 1 else ''}"

    @cached_property
    def _drawn_cur(self) -> Float[Tensor, "drawn m"]:
        return _cur(resampled_means(self._left_out("utilisation").double().mT, self.seed).mT).mT

    def _left_out(self, what: str) -> Bool[Tensor, "m_and_all b"]:
        if self.left_out is None:
            raise ValueError(f"{what}: needs the pictures' labels; pass a GridSet with labels")
        return self.left_out

    def _intervals(
        self, values: Float[Tensor, "b m"], figure: Callable[[Tensor], Tensor] = lambda means: means
    ) -> dict[str, Interval]:
        ends = _no_ends(len(self.names))
        if len(values) > 1:
            ends = percentiles(figure(resampled_means(values, self.seed)))
        return dict(zip(self.names, zip(*(end.tolist() for end in ends), strict=True), strict=True))

    def _known(self, what: str) -> Bool[Tensor, "subsets b"]:
        if self.correct is None:
            raise ValueError(
                f"{what}: needs the pictures' labels and ten backbones or fewer; pass a GridSet with labels"
            )
        return self.correct


def _shares(values: Float[Tensor, "*drawn m"]) -> Float[Tensor, "*drawn m"]:
    positive = values.clamp(min=0)
    return positive / positive.sum(dim=-1, keepdim=True)  # NaN where no value is positive: there is no share


def _cur(accuracy: Float[Tensor, "m_and_all *drawn"]) -> Float[Tensor, "m *drawn"]:
    """CUR from the accuracy of all and without each; NaN where all get nothing right: there is no share of it."""
    return (accuracy[:1] - accuracy[1:]) / accuracy[:1].where(accuracy[:1] > 0, torch.nan)


def _spread(rates: Float[Tensor, "*drawn m"]) -> Float[Tensor, "*drawn"]:
    return rates.amax(dim=-1) - rates.amin(dim=-1)


def _no_ends(count: int) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    return torch.full((count,), torch.nan), torch.full((count,), torch.nan)


def _verdict(same: bool, low: float, high: float) -> str:
    if same:
        return DISPENSABLE
    return "worth nothing or less" if high <= 0 else "perhaps worth nothing" if low <= 0 else ""
