"""CUR and information gap are those of `dominance`, and cover several trainings."""

import math

import pytest
import torch
from test_lab_contenders import grids

import grafeat as gf
from grafeat.lab.learners import subsets_of
from grafeat.lab.utilisation import utilisation


def test_of_one_training_they_are_those_of_dominance() -> None:
    made = grids(601)
    model = gf.mix("merge", made.train, num_classes=3, seed=3)
    model.label_counts += 1
    report = gf.dominance(model, made.test, knockouts=False)
    subsets = subsets_of(made.names)
    found = utilisation(subsets, torch.stack([report.right(*some)[None] for some in subsets]))
    for name, row in report.utilisation.iterrows():
        assert found.rates[name].value == pytest.approx(row["CUR"])
        assert (found.rates[name].low, found.rates[name].high) == pytest.approx((row["low"], row["high"]), abs=0.03)
    gap, (low, high) = report.information_gap
    assert found.gap.value == pytest.approx(gap)
    assert (found.gap.low, found.gap.high) == pytest.approx((low, high), abs=0.05)
    for some in subsets:
        assert found.subsets[" + ".join(some)] == pytest.approx(float(report.right(*some).double().mean()))


def test_by_hand() -> None:
    """All right in 4 of 5; without a in 2, without b in 3: rates 2/4 and 1/4, apart by 1/4."""
    right = torch.tensor([[[1, 1, 1, 1, 0]], [[1, 1, 1, 0, 0]], [[1, 1, 0, 0, 0]]], dtype=torch.bool)
    found = utilisation((("a", "b"), ("a",), ("b",)), right)
    assert {name: rate.value for name, rate in found.rates.items()} == pytest.approx({"a": 0.5, "b": 0.25})
    assert found.gap.value == pytest.approx(0.25)
    assert found.subsets == pytest.approx({"a + b": 0.8, "a": 0.6, "b": 0.4})


def test_other_trainings_widen_the_intervals() -> None:
    right = torch.rand(3, 1, 97, generator=torch.Generator().manual_seed(0)) < 0.6
    subsets = (("a", "b"), ("a",), ("b",))
    same, failed = right.expand(-1, 3, -1), right.expand(-1, 3, -1).clone()
    failed[2, 0] = False
    widths = [
        (found.rates["a"].high - found.rates["a"].low) for found in (utilisation(subsets, r) for r in (same, failed))
    ]
    assert widths[1] > widths[0]


def test_groups_of_pictures_that_agree_widen_the_intervals() -> None:
    right = (torch.rand(3, 2, 31, generator=torch.Generator().manual_seed(0)) < 0.6).repeat_interleave(5, dim=2)
    subsets, groups = (("a", "b"), ("a",), ("b",)), torch.arange(31).repeat_interleave(5)
    apart, together = utilisation(subsets, right), utilisation(subsets, right, groups=groups)
    for name in ("a", "b"):
        one, other = apart.rates[name], together.rates[name]
        assert one.value == other.value
        assert other.high - other.low > one.high - one.low


def test_one_backbone_has_an_accuracy_and_nothing_to_leave_out() -> None:
    found = utilisation((("a",),), torch.ones(1, 2, 5, dtype=torch.bool))
    assert (found.subsets, found.rates, found.gap) == ({"a": 1.0}, {}, None)


def test_where_all_is_wrong_there_is_no_share_of_it() -> None:
    found = utilisation((("a", "b"), ("a",), ("b",)), torch.zeros(3, 1, 5, dtype=torch.bool))
    assert math.isnan(found.rates["a"].value)
