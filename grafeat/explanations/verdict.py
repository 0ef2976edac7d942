"""The tests of an explanation, their thresholds, and what an audit found."""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.intervals import percentiles, resampled_means

Verdict = Literal["passes", "fails", "does not apply"]


@dataclass(frozen=True)
class Test:
    """One test of an explanation, with the threshold that was fixed before any was run.

    Attributes:
        name: How it is called.
        asks: What is measured.
        fails: What it means if the test is failed.
        threshold: What the 95% interval is held against.
        above: Whether the whole interval must lie above the threshold, or below.
    """

    name: str
    asks: str
    fails: str
    threshold: float
    above: bool = True

    @property
    def passes(self) -> str:
        """The condition in words."""
        return f"whole interval {'above' if self.above else 'below'} {self.threshold:g}"

    def verdict(self, low: float, high: float) -> Verdict:
        """What an interval says; NaN where the test cannot be applied."""
        if math.isnan(low) or math.isnan(high):
            return "does not apply"
        return "passes" if (low > self.threshold if self.above else high < self.threshold) else "fails"


TESTS = (
    Test("deletion, random", "area between the curves of a random order and of its own, of the logit's change",
         "taking out what it ranks first hurts no more than taking out anything", 0),
    Test("deletion, inverse", "the same against its own order turned round",
         "what it ranks first matters no more than what it ranks last", 0),
    Test("insertion, random", "area between the curves of its own order and of a random one, into another picture",
         "putting in what it ranks first helps no more than putting in anything", 0),
    Test("insertion, inverse", "the same against its own order turned round",
         "what it ranks first helps no more than what it ranks last", 0),
    Test("SaCo", "do groups of patches that it sets apart differ in effect as it says? from -1 to 1",
         "its numbers are not in proportion to effects", 0),
    Test("sign", "how often its sign is that of the patch's ablation; 0.5 by chance",
         "its sign does not tell for from against", 0.5),
    Test("randomised, similarity", "rank correlation with the same method on a model of shuffled parameters",
         "it looks much the same for a model that has learned nothing", 0.5, above=False),
    Test("randomised, complexity", "how much more evenly it spreads on a model of shuffled parameters",
         "it is no more pointed than for a model that has learned nothing", 0),
    Test("completeness", "how far its sum is from the logit's change, of that change",
         "its numbers do not add up to the prediction", 0.05, above=False),
)  # fmt: skip
_BY_NAME = {test.name: test for test in TESTS}


@dataclass(frozen=True, eq=False)
class Audit:
    """What the tests say of some explanations of the same predictions.

    Attributes:
        measured: What each test measured in each picture (b,), by method and test; NaN where it does not apply.
        curves: Mean scores, in shares of the logit's change, as cells are deleted and inserted: by method, then by
            `deletion` or `insertion` and `own`, `inverse` or `random`.
        target: The class whose logit is explained, for each picture (b,).
        seed: Decides the bootstrap.
    """

    measured: Mapping[str, Mapping[str, Float[Tensor, " b"]]]
    curves: Mapping[str, Mapping[str, Mapping[str, list[float]]]]
    target: Int[Tensor, " b"]
    seed: int = 0

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"method": method, "test": test.name} | _summary(test, measured[test.name], self.seed)
            for method, measured in self.measured.items()
            for test in TESTS
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row for each method and test: mean over the pictures, its interval, verdict."""
        return pd.DataFrame(self._rows).set_index(["method", "test"])

    def passed(self, method: str) -> list[str]:
        """The tests that a method passes."""
        return self._with("passes", method)

    def failed(self, method: str) -> list[str]:
        """The tests that a method fails."""
        return self._with("fails", method)

    def verdict(self, method: str) -> str:
        """In plain words, whether a method's explanations of these predictions can be trusted."""
        failed, passed = self.failed(method), self.passed(method)
        if not failed and not passed:
            return f"None of the tests applies to {method}: nothing can be said."
        said = f"{method} passes {len(passed)} of the {len(passed) + len(failed)} tests that apply to it"
        reasons = "; ".join(_BY_NAME[name].fails for name in failed)
        return f"{said} and fails {len(failed)}: {reasons}." if failed else f"{said}. Nothing here speaks against it."

    def _with(self, verdict: Verdict, method: str) -> list[str]:
        if method not in self.measured:
            raise ValueError(
                f"method: got {method!r}; this audit is of {', '.join(self.measured)}; use one of them"
            )
        return [row["test"] for row in self._rows if row["method"] == method and row["verdict"] == verdict]

    def __repr__(self) -> str:
        lines = [f"Audit over {len(self.target):,} pictures"]
        return "\n".join(lines + [f"  {self.verdict(method)}" for method in self.measured])

    def _repr_html_(self) -> str:
        cells = {
            html.escape(method): {row["test"]: _cell(row) for row in self._rows if row["method"] == method}
            for method in self.measured
        }
        table = pd.DataFrame(cells).to_html(border=0, escape=False)
        said = "".join(f"<li>{html.escape(self.verdict(method))}</li>" for method in self.measured)
        note = f"{len(self.target):,} pictures. ✓ passes, ✗ fails, – does not apply; mean and 95% interval."
        return f"{table}<p><small>{note}</small></p><ul>{said}</ul>"


@dataclass(frozen=True)
class Thresholds:
    """Every test, what it measures and what it must show: fixed before any explanation was audited.

    Attributes:
        tests: The tests.
    """

    tests: tuple[Test, ...] = TESTS

    def to_frame(self) -> pd.DataFrame:
        """One row for each test."""
        rows = [{"test": t.name, "measures": t.asks, "passes": t.passes, "if it fails": t.fails} for t in self.tests]
        return pd.DataFrame(rows).set_index("test")

    def __repr__(self) -> str:
        wide = max(len(test.name) for test in self.tests)
        return "\n".join(f"{test.name:<{wide}}  {test.passes}: {test.asks}" for test in self.tests)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):  # pandas would cut the sentences
            return self.to_frame().to_html(border=0, justify="left")


def thresholds() -> Thresholds:
    """The table of all tests and thresholds; it displays well in a notebook."""
    return Thresholds()


def _summary(test: Test, values: Float[Tensor, " b"], seed: int) -> dict[str, Any]:
    low, high = percentiles(resampled_means(values[:, None], seed))
    ends = float(low), float(high)
    return {"mean": float(values.nanmean()), "low": ends[0], "high": ends[1], "verdict": test.verdict(*ends)}


def _cell(row: Mapping[str, Any]) -> str:
    if row["verdict"] == "does not apply":
        return "–"
    mark = "✓" if row["verdict"] == "passes" else "✗"
    mean, low, high = (f"{row[name]:.2f}".replace("-", "−") for name in ("mean", "low", "high"))
    return f"{mark}&nbsp;{mean}<br><small>{low} to {high}</small>"
