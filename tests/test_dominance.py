"""Values add up and are those of the definition; backbones that say nothing, or the same, are found out."""

import math
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor

import grafeat as gf
from grafeat.attention.layers import attention_layers
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
    model, seen = built(("lite", "vit"), seed=1), grids(("lite", "vit"))
    double = built(("lite", "vit"), seed=1).double()
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
        for together in (model.readout.interplay, model.readout.exchange):
            together.enter.layers[1].weight.zero_()
        for layer in attention_layers(model):
            if layer.kind == "cross":
                layer.relation.zero_()  # nobody hears it either
    others = model(grids(), without={"vit"}).logits
    torch.testing.assert_close(model(grids()).logits, others, rtol=0, atol=3e-4)  # two norms' ε
    report = dominance(model, grids(), knockouts=False)
    # alone it is all there is to read, so only in company does it add nothing
    changes = report.subsets.set_index("backbones").accuracy
    assert changes["lite + vit + cnn"] == changes["lite + cnn"]
    assert report.utilisation.CUR["vit"] == 0
    assert report.utilisation.loc["vit", "verdict"] == "the others do without it"  # no picture tells


def test_two_copies_with_tied_parameters_have_equal_values() -> None:
    one = grids(("lite",))
    twice = gf.GridSet([gf.FeatureGrid(name, one["lite"].features) for name in ("first", "second")], one.labels)
    model = gf.GraFeatMerge.for_grids(twice, num_classes=T, width=12, heads=3)
    with torch.no_grad():
        model.types[1] = model.types[0]
        readout = model.readout
        for tied in (readout.value, readout.state, readout.interplay.enter, readout.exchange.enter):
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
    model = built(interplay=False, seed=1)  # other random models have samples without any share
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
    assert sampled.utilisation.equals(exact.utilisation)  # needs no table of all subsets
    assert sampled.information_gap == exact.information_gap
    error = float(sampled.errors[:, 0].mean())
    assert error > 0 and sampled.to_frame().loc["lite", "sampling error"] == error
    assert f" ± {error:.2f}" in repr(sampled) and "sampling error" in sampled._repr_html_()
    assert "±" not in repr(exact) and "sampling error" not in exact.to_frame()


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
    with pytest.raises(ValueError, match="got backbone 'cnn'; this model knows lite, vit"):
        dominance(built(("lite", "vit")), grids(), knockouts=False)
    concat = gf.Concat.for_grids(grids(("lite",)), num_classes=T)
    concat.label_counts += 1
    for names in (("lite", "vit"), ("vit",)):
        with pytest.raises(ValueError, match="got backbone 'vit'; this model knows lite"):
            dominance(concat, grids(names))


def test_features_that_are_no_numbers_are_refused() -> None:
    features = grids()["vit"].features.clone()
    features[7, 1, 0, 2] = torch.nan
    holed = gf.GridSet([grids()["lite"], gf.FeatureGrid.trusted("vit", features)])
    for model in (built(("lite", "vit")), gf.Concat.for_grids(grids(("lite", "vit")), num_classes=T)):
        model.label_counts += 1
        with pytest.raises(ValueError, match="grids: backbone 'vit' has NaN or infinity"):
            dominance(model, holed, batch_size=3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)])
def test_batches_hold_at_least_a_picture(size: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"batch_size: got {size}"):
        dominance(built(), grids(), batch_size=size)  # type: ignore[arg-type]


def test_what_was_captured_stays() -> None:
    model = built()
    with gf.capture(model) as attention:
        model(grids()[:2])
        before = attention.cross("lite", "vit", 1)
        dominance(model, grids())
    assert attention.pictures == 2
    assert torch.equal(attention.cross("lite", "vit", 1), before)


def test_a_model_whose_edges_are_out_is_refused() -> None:
    model, cross = built(), gf.KnockOut("cross")
    with (
        gf.knock_out(model, cross, gf.PatchGraph.of(grids())),
        pytest.raises(ValueError, match="model: edges are knocked out already; expected none for 'dominance'"),
    ):
        dominance(model, grids())


@pytest.mark.parametrize("readout", ["each", "relation", "attention", "mean"])
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("names", [tuple(SHAPES), ("lite", "cnn")])
def test_equal_logits_give_the_masses_that_are_called_even(
    readout: str, balance: bool, names: tuple[str, ...]
) -> None:
    model = built(readout=readout, balance=balance)
    with torch.no_grad():
        for layer in attention_layers(model):
            if layer.kind == "cross":
                layer.project.layers[0].weight[:24] = 0  # queries and keys
                layer.project.layers[0].bias[:24] = 0
        if model.readout.relation is not None:
            model.readout.relation.copy_(torch.tensor([3.0, 0.0, -1.0]))
        if model.readout.state is not None:
            model.readout.place.zero_()
            for layer in model.readout.state.layers:
                layer.weight.zero_()
    routing = dominance(model, grids().only(*names), knockouts=False).routing
    assert len(routing) == len(names) + 2 * len(names) * (len(names) - 1)
    assert routing.mass.tolist() == pytest.approx(routing.even.tolist(), abs=1e-6)


def test_masses_are_those_of_the_attention() -> None:
    model = built()
    routing = dominance(model, grids(), knockouts=False, batch_size=3).routing.set_index(["where", "backbone"])
    with gf.capture(model) as attention:
        model(grids())
    for layer in range(2):
        expected = attention.cross("vit", "cnn", layer).sum(dim=(-2, -1)).mean()
        assert routing.loc[(f"cross {layer}", "vit → cnn"), "mass"] == pytest.approx(float(expected), rel=1e-5)
        even = attention.uniform("vit", "cnn", layer) * 7
        assert routing.loc[(f"cross {layer}", "vit → cnn"), "even"] == pytest.approx(even)


def test_large_grids_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, pictures = built(), grids(), []
    whole, merge = dominance(model, seen), gf.GraFeatMerge.merge

    def counting(self: gf.GraFeatMerge, given: list[gf.FeatureGrid], **options: bool) -> gf.MergeOutput:
        pictures.append(len(given[0]))
        return merge(self, given, **options)

    monkeypatch.setattr(gf.GraFeatMerge, "merge", counting)
    module = sys.modules["grafeat.explanations.dominance"]
    monkeypatch.setattr(module, "AT_ONCE", 5 * 18)
    monkeypatch.setattr(module, "WITH_WEIGHTS", 17)  # not even one
    parts = dominance(model, seen)
    assert pictures[:3] == [5, 5, 1] and set(pictures) == {5, 1}
    torch.testing.assert_close(parts.picture_values, whole.picture_values)
    assert parts.routing.mass.tolist() == pytest.approx(whole.routing.mass.tolist(), abs=1e-6)


def test_a_model_without_attention_needs_no_capture() -> None:
    report = dominance(built(intra=False, cross=False), grids())
    assert set(report.routing["where"]) == {"readout"} and not report.knockouts


# What the report makes of it


def by_hand(right: list[list[int]], **options: object) -> Dominance:
    """A report of whether all (first row), and all but each backbone, get each picture right."""
    left_out, b = torch.tensor(right, dtype=torch.bool), len(right[0])
    values, nothing = torch.randn(b, len(right) - 1, generator=torch.Generator().manual_seed(0)), torch.zeros(b)
    names = tuple("abc"[: len(right) - 1])
    given = {"target": torch.zeros(b, dtype=torch.long)} | options
    return Dominance(names=names, picture_values=values.double(), picture_interactions=None, errors=None, none=nothing,
                     full=nothing, left_out=left_out, **given)  # fmt: skip


def test_nobody_is_called_worthless_without_evidence() -> None:
    """The first changes no picture, the second helps in one and harms in two, the third harms often."""
    rows = [[1] * 3 + [0] * 14, [1] * 3 + [0] * 14, [1] * 2 + [0] * 13 + [1] * 2, [1] * 15 + [0] * 2]
    found = by_hand(rows).utilisation
    assert found.verdict.tolist() == ["the others do without it", "perhaps worth nothing", "worth nothing or less"]
    assert found.loc["a", ["low", "high"]].tolist() == [0, 0]
    assert found[["low", "high"]].map(math.isfinite).all(axis=None)  # draws in which all get nothing right do not count


def test_one_picture_is_shown_without_intervals_and_with_its_share_even_if_there_is_none() -> None:
    report = dominance(built(), grids()[4], target=1, knockouts=False)
    for factor in (1, -10):
        shown = replace(report, picture_values=factor * report.picture_values.abs())._repr_html_()
        assert "<th>value</th>" in shown and "<th>share</th>" in shown and "low" not in shown.split("<table")[1]


def test_one_picture_is_no_evidence() -> None:
    found = by_hand([[1], [1], [0]], knockouts={"cross edges": torch.tensor([0.5])})
    assert found.utilisation.CUR.tolist() == [0, 1]
    assert found.utilisation[["low", "high"]].isna().all(axis=None)
    assert found.utilisation.verdict.tolist() == ["the others do without it", ""]
    assert all(math.isnan(end) for end in found.information_gap[1])
    effects = found.effects().iloc[0]
    assert effects.change == 0.5 and math.isnan(effects.low) and math.isnan(effects.high)
    none = by_hand([[0], [0], [1]]).utilisation
    assert none.CUR.isna().all() and none.verdict.tolist() == ["", ""]


def test_the_gap_of_equal_backbones_may_be_none() -> None:
    """Of backbones that are missed equally often, by chance in different pictures, most intervals hold 0."""
    generator, holding = torch.Generator().manual_seed(0), 0
    for _ in range(20):
        right = (torch.rand(4, 101, generator=generator) < 0.7).long()
        right[0] = 1
        gap, (low, high) = by_hand(right.tolist()).information_gap
        holding += low == 0
        assert 0 <= low <= gap and high >= 0
    assert holding >= 18
    unequal = by_hand([[1] * 101, [1] * 101, [0] * 51 + [1] * 50]).information_gap
    assert 0.3 < unequal[1][0] < unequal[0] < unequal[1][1] < 0.7


def test_classes_are_named_by_the_model() -> None:
    report = dominance(built(), grids(), target=torch.arange(B) % T, knockouts=False)
    frame = report.by_class()
    assert frame.index.tolist() == ["red", "blue", "grey"] and frame.equals(report.by_class(("red", "blue", "grey")))
    alone = dominance(built(), grids()[1::3], target=1, knockouts=False)
    assert frame.loc["blue", "lite"] == pytest.approx(alone.shares["lite"], nan_ok=True)
    ends = frame.loc["blue", ["lite low", "lite high"]].tolist()
    assert ends == pytest.approx(alone.share_intervals["lite"], nan_ok=True)
    with pytest.raises(ValueError, match=r"classes: got 2 names, but class 2 is explained; expected 3 or more"):
        report.by_class(["red", "blue"])


def test_a_model_without_a_graph_has_values_too() -> None:
    concat = gf.Concat.for_grids(grids(), num_classes=T)
    concat.label_counts += 1
    report = dominance(concat, grids())
    assert report.routing is None
    assert not report.knockouts
    assert (report.picture_values.sum(dim=1) - (report.full - report.none)).abs().max() < 1e-9
