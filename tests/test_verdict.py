"""Verdicts by hand: what an interval says, and what is said of a method."""

import pytest
import torch

from grafeat.explanations.verdict import TESTS, Audit, Test, thresholds

B = 31
NOTHING = torch.full((B,), torch.nan)
SURE = {test.name: torch.full((B,), 1.0 if test.above else 0.0) for test in TESTS}
UNSURE = {test.name: torch.full((B,), 0.0 if test.above else 1.0) for test in TESTS}
Test.__test__ = False  # type: ignore[attr-defined]  # not for pytest to collect


def audited(**measured: dict[str, torch.Tensor]) -> Audit:
    return Audit(measured, {}, torch.zeros(B, dtype=torch.long))


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [(0.1, 0.3, "passes", "fails"), (-0.3, -0.1, "fails", "passes"), (-0.1, 0.1, "fails", "fails"),
     (0.0, 0.1, "fails", "fails"), (float("nan"), 0.1, "does not apply", "does not apply")],
)  # fmt: skip
def test_the_whole_interval_must_lie_on_the_right_side(low: float, high: float, above: str, below: str) -> None:
    assert Test("t", "", "", 0.0).verdict(low, high) == above
    assert Test("t", "", "", 0.0, above=False).verdict(low, high) == below


def test_what_is_said_of_methods() -> None:
    found = audited(good=SURE, bad=UNSURE, unsigned=SURE | {"sign": NOTHING, "completeness": NOTHING})
    assert found.verdict("good") == "good passes 9 of the 9 tests that apply to it. Nothing here speaks against it."
    assert found.failed("bad") == [test.name for test in TESTS] and found.passed("bad") == []
    assert "its sign does not tell for from against" in found.verdict("bad")
    assert found.verdict("unsigned").startswith("unsigned passes 7 of the 7")
    nothing = audited(odd=dict.fromkeys(SURE, NOTHING))
    assert nothing.verdict("odd") == "None of the tests applies to odd: nothing can be said."
    assert repr(found).startswith("Audit over 31 pictures\n  good passes")


def test_intervals_hold_the_mean_and_follow_the_spread() -> None:
    drawn = torch.randn(B, generator=torch.Generator().manual_seed(0)) + 3
    frame = audited(some=SURE | {"SaCo": drawn}).to_frame()
    row = frame.loc["some", "SaCo"]
    assert row["mean"] == pytest.approx(float(drawn.mean()))
    standard = float(drawn.std()) / B**0.5
    assert (row["high"] - row["low"]) / (2 * 1.96 * standard) == pytest.approx(1, abs=0.15)


def test_pictures_without_a_number_do_not_count() -> None:
    half = SURE["SaCo"].clone()
    half[::2] = torch.nan
    assert audited(some=SURE | {"SaCo": half}).to_frame().loc["some", "SaCo"].tolist() == [1, 1, 1, "passes"]


def test_the_table_that_a_notebook_shows_escapes_names_and_says_all() -> None:
    shown = audited(**{"<mine>": SURE, "bad": UNSURE | {"sign": NOTHING}})._repr_html_()
    assert "<mine>" not in shown.replace("&lt;mine&gt;", "")
    assert shown.count("✓") == 9 + 1 and shown.count("✗") == 8 + 1


def test_thresholds_are_one_table() -> None:
    table = thresholds().to_frame()
    assert table.index.tolist() == [test.name for test in TESTS]
    assert table.loc["sign", "passes"] == "whole interval above 0.5"
    assert table.loc["completeness", "passes"] == "whole interval below 0.05"
    for test in TESTS:  # no sentence is cut
        assert test.asks in repr(thresholds()) and test.asks in thresholds()._repr_html_()


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match=r"method: got 'best'; this audit is of good; use one of them"):
        audited(good=SURE).failed("best")
