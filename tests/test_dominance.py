"""Values add up and are those of the definition; backbones that say nothing, or the same, are found out."""

import math
import sys

import pandas as pd
import pytest
import torch
from torch import Tensor

import grafeat as gf
from grafeat.explanations.dominance import Dominance, dominance

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
B, T = 11, 3


def grids(names: tuple[str, ...] = tuple(SHAPES)) -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = {name: torch.randn(B, 4, *shape, generator=generator) for name, shape in SHAPES.items()}
    labels = torch.arange(B) % T
    return gf.GridSet([gf.FeatureGrid(name, listed[name]) for name in names], labels, classes=["red", "blue", "grey"])


def built(names: tuple[str, ...] = tuple(SHAPES), **shaped: object) -> gf.GraFeatMerge:
    model = gf.GraFeatMerge.for_grids(grids(names), num_classes=T, width=12, heads=3, depth=2, **shaped)
    model.label_counts.copy_(torch.tensor([2, 5, 13]))
    return model


def centred(logits: Tensor, target: int) -> Tensor:
    return logits[:, target] - logits.mean(dim=1)


def test_values_are_those_of_the_definition_by_hand() -> None:
    """Two backbones: φ_a = ½ (v(a) − v(∅)) + ½ (v(ab) − v(b)); v(∅) is the centred log frequency."""
    model, seen = built(("lite", "vit")), grids(("lite", "vit"))
    double = built(("lite", "vit")).double()
    both, lite, vit = (
        centred(double(seen, without=without).logits, 1).detach() for without in ((), {"vit"}, {"lite"})
    )
    frequency = torch.tensor([2, 5, 13], dtype=torch.float64).log()
    none = frequency[1] - frequency.mean()
    report = dominance(model, seen, target=1)
    torch.testing.assert_close(report.picture_values[:, 0], (lite - none + both - vit) / 2)
    torch.testing.assert_close(report.picture_values[:, 1], (vit - none + both - lite) / 2)
    torch.testing.assert_close(report.picture_interactions[:, 0, 1], both - lite - vit + none)
    mean = report.picture_values.mean(dim=0)
    assert report.values == dict(zip(("lite", "vit"), mean.tolist(), strict=True))
    positive = mean.clamp(min=0)
    assert report.shares["vit"] == pytest.approx(float(positive[1] / positive.sum()))


def test_values_sum_to_the_centred_logit_to_1e_9() -> None:
    report = dominance(built(), grids())
    assert (report.picture_values.sum(dim=1) - (report.full - report.none)).abs().max() < 1e-9
    predicted = built().double()(grids()).logits.argmax(dim=1)
    assert torch.equal(report.target, predicted)


def test_a_backbone_that_is_not_read_is_worth_nothing() -> None:
    model = built()
    with torch.no_grad():
        model.readout.relation[1] = -1e9
        for step in model.steps:
            step.cross.relation.zero_()  # nobody hears it either
    others = model(grids(), without={"vit"}).logits
    torch.testing.assert_close(model(grids()).logits, others)
    report = dominance(model, grids(), knockouts=False)
    # alone it is all there is to read, so only in company does it add nothing
    changes = report.subsets.set_index("backbones").accuracy
    assert changes["lite + vit + cnn"] == changes["lite + cnn"]
    assert report.utilisation.CUR["vit"] == 0
    assert report.utilisation.loc["vit", "verdict"] == "worth nothing or less"


def test_two_copies_with_tied_parameters_have_equal_values() -> None:
    one = grids(("lite",))
    twice = gf.GridSet([gf.FeatureGrid(name, one["lite"].features) for name in ("first", "second")], one.labels)
    model = gf.GraFeatMerge.for_grids(twice, num_classes=T, width=12, heads=3)
    with torch.no_grad():
        model.types[1] = model.types[0]
        for tied in (model.readout.value, model.readout.state):
            tied.layers[1].load_state_dict(tied.layers[0].state_dict())
        model.projections[1].load_state_dict(model.projections[0].state_dict())
    model.label_counts += 1
    report = dominance(model, twice)
    assert report.values["first"] == pytest.approx(report.values["second"], abs=1e-5)
    assert report.shares["first"] == pytest.approx(0.5, abs=1e-5)


def test_knocking_out_is_reported_against_the_whole_model() -> None:
    model = built()
    report = dominance(model, grids(), target=2)
    before = centred(model(grids()).logits, 2)
    with gf.knock_out(model, gf.KnockOut("cross", query="lite", key="cnn"), gf.PatchGraph.of(grids())):
        after = centred(model(grids()).logits, 2)
    torch.testing.assert_close(report.knockouts["cross edges lite → cnn"], (after - before).detach())
    assert len(report.knockouts) == 1 + 6 + 2 * 2 * (1 + 3)  # cross, pairs, and of each kind and step: all, each head
    effects = report.effects()
    assert effects.change.is_monotonic_increasing
    assert ((effects.low <= effects.change) & (effects.change <= effects.high)).all()


def test_routing_stands_beside_what_equal_logits_would_give() -> None:
    report = dominance(built(), grids())
    routing = report.routing.set_index(["where", "backbone"])
    assert routing.loc["readout"].mass.sum() == pytest.approx(1)
    assert routing.loc[("cross 1", "lite → vit")].even == pytest.approx(0.5)  # balanced, whatever the grids
    sums = routing.loc["cross 0"].mass
    assert sums["lite → vit"] + sums["lite → cnn"] == pytest.approx(1)


def test_one_picture_has_no_interval_and_a_set_has() -> None:
    model = built()
    one, many = dominance(model, grids()[4]), dominance(model, grids())
    assert all(math.isnan(low) for low, _ in one.value_intervals.values())
    for name in SHAPES:
        low, high = many.value_intervals[name]
        assert low < many.values[name] < high
        low, high = many.share_intervals[name]
        assert 0 <= low <= many.shares[name] <= high <= 1
    assert many.value_intervals == dominance(model, grids()).value_intervals  # the same seed


def test_accuracy_of_every_subset_and_what_each_adds() -> None:
    model, seen = built(), grids()
    report = dominance(model, seen, knockouts=False)
    assert len(report.subsets) == 8
    subsets = report.subsets.set_index("backbones").accuracy
    for without in (set(), {"vit"}, {"lite", "cnn"}):
        named = " + ".join(name for name in SHAPES if name not in without)
        right = model(seen, without=without).logits.argmax(dim=1) == seen.labels
        assert subsets[named] == pytest.approx(float(right.double().mean()))
    expected = (subsets["lite + vit + cnn"] - subsets["vit + cnn"]) / subsets["lite + vit + cnn"]
    assert report.utilisation.CUR["lite"] == pytest.approx(expected)
    gap, (low, high) = report.information_gap
    assert gap == pytest.approx(report.utilisation.CUR.max() - report.utilisation.CUR.min())
    assert low <= high


def test_single_pictures_have_shares_and_subsets_have_names() -> None:
    model, seen = built(), grids()
    report = dominance(model, seen, knockouts=False)
    positive = report.picture_values.clamp(min=0)
    torch.testing.assert_close(report.picture_shares, positive / positive.sum(dim=1, keepdim=True), equal_nan=True)
    double = built().double()
    for names in (("lite",), ("cnn", "vit"), ("lite", "vit", "cnn")):
        expected = double(seen.only(*names)).logits.argmax(dim=1) == seen.labels
        assert torch.equal(report.right(*names), expected)
    assert torch.equal(report.right(), seen.labels == 2)  # the most frequent class in training
    with pytest.raises(ValueError, match=r"names: got 'resnet'; the report is of lite, vit, cnn"):
        report.right("resnet")


def test_where_a_table_is_too_large_values_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = dominance(built(), grids(), knockouts=False)
    monkeypatch.setattr(sys.modules["grafeat.explanations.dominance"], "MOST_EXACT", 2)
    sampled = dominance(built(), grids(), knockouts=False)
    assert ((sampled.picture_values - exact.picture_values).abs() <= 4 * sampled.errors + 1e-9).all()
    assert (sampled.picture_values.sum(dim=1) - (sampled.full - sampled.none)).abs().max() < 1e-9
    with pytest.raises(ValueError, match="interactions: values were sampled"):
        sampled.interactions  # noqa: B018
    with pytest.raises(ValueError, match="subsets: needs the pictures' labels and ten backbones or fewer"):
        sampled.subsets  # noqa: B018


def test_displays_well() -> None:
    report = dominance(built(), grids())
    assert isinstance(report.to_frame(), pd.DataFrame)
    assert "Dominance over 11 pictures: value (centred logit) and share of each backbone" in repr(report)
    assert "<table" in report._repr_html_()
    by_class = report.by_class(grids().classes)
    assert by_class.pictures.sum() == B
    assert isinstance(report, Dominance)


def test_an_untrained_model_is_said_to_be_one() -> None:
    model = built()
    model.label_counts.zero_()
    with pytest.warns(UserWarning, match="never trained"):
        report = dominance(model, grids(), knockouts=False)
    assert report.none.abs().max() == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("target", "text"),
    [
        (3, r"target: got \[3\]; expected 0 to 2"),
        (-1, r"target: got \[-1\]"),
        ([0, 1], "target: got 2 for 11 pictures"),
    ],
)
def test_targets_that_are_not_there_are_refused(target: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dominance(built(), grids(), target=target)


def test_no_picture_and_a_strange_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match="grids: got no picture"):
        dominance(built(), grids()[:0])
    with pytest.raises(ValueError, match="got backbone 'cnn'"):
        dominance(built(("lite", "vit")), grids())


def test_a_model_without_a_graph_has_values_too() -> None:
    concat = gf.Concat.for_grids(grids(), num_classes=T)
    concat.label_counts += 1
    report = dominance(concat, grids())
    assert report.routing is None
    assert not report.knockouts
    assert (report.picture_values.sum(dim=1) - (report.full - report.none)).abs().max() < 1e-9
