"""A good explanation of a good model passes; explanations that are bad on purpose are found out, each by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

import grafeat as gf
from grafeat.explanations.audit import audit, shuffled
from grafeat.explanations.controls import CONTROLS
from grafeat.explanations.relevance import Relevance
from grafeat.explanations.verdict import Audit

COUNT = 29


@cache
def trained() -> tuple[gf.GraFeatMerge, gf.GridSet]:
    """A model that finds the one patch that speaks, and pictures that it has not seen."""
    train, _ = gf.planted.one_speaks(700, shape=(3, 4), num_classes=3, channels=5)
    test, _ = gf.planted.one_speaks(COUNT, shape=(3, 4), num_classes=3, channels=5, seed=1)
    model = gf.GraFeatMerge.for_grids(train, num_classes=3, width=16, depth=1, heads=2, cross_drop=0.0)
    gf.fit(model, train, epochs=8, learning_rate=5e-3, mixup=0.0, own_loss=0.0, progress=False)
    assert gf.evaluate(model, test).accuracy == 1
    return model, test


@cache
def audited() -> Audit:
    return audit(*trained(), method=("integrated_gradients", "gradient_rollout", *CONTROLS))


def test_integrated_gradients_pass_every_test() -> None:
    assert audited().failed("integrated_gradients") == []
    assert len(audited().passed("integrated_gradients")) == 9


def test_an_unsigned_method_is_not_asked_for_signs_and_sums() -> None:
    verdicts = audited().to_frame().loc["gradient_rollout", "verdict"]
    assert set(verdicts[verdicts == "does not apply"].index) == {"sign", "completeness"}
    assert audited().failed("gradient_rollout") == []


@pytest.mark.parametrize(
    ("control", "found_out_by"),
    [
        ("constant", {"deletion, random", "insertion, random", "randomised, similarity", "SaCo"}),
        ("random", {"deletion, random", "insertion, random", "randomised, similarity", "sign", "completeness"}),
        ("edges", {"randomised, similarity", "randomised, complexity"}),
        ("norm", {"randomised, similarity", "randomised, complexity"}),
    ],
)
def test_every_control_is_found_out(control: str, found_out_by: set[str]) -> None:
    assert found_out_by <= set(audited().failed(control))


def test_edges_look_right_until_the_model_is_shuffled() -> None:
    """Adebayo's lesson: what stands out in the picture is often what matters, so deletion alone is fooled."""
    assert {"deletion, random", "insertion, random"} <= set(audited().passed("edges"))
    row = audited().to_frame().loc["edges", "randomised, similarity"]
    assert row["mean"] == pytest.approx(1) and row["verdict"] == "fails"


def test_curves_of_the_planted_patch_fall_at_once() -> None:
    curves = audited().curves["integrated_gradients"]
    assert curves["deletion"]["own"][0] == pytest.approx(1) and curves["deletion"]["own"][-1] == pytest.approx(0)
    assert curves["deletion"]["own"][1] < 0.2 < curves["deletion"]["random"][1] < curves["deletion"]["inverse"][1] + 0.1
    assert curves["insertion"]["own"][1] > 0.5 > curves["insertion"]["random"][1]


def test_an_explainer_of_ones_own_is_audited_as_ours_are() -> None:
    model, test = trained()

    def turned(model: gf.GridModel, grids: gf.GridSet, target: torch.Tensor) -> Relevance:
        found = gf.relevance(model, grids, target, method="gradient_x_input")
        return Relevance({n: -m for n, m in found.maps.items()}, "turned", True, found.target, found.graph)

    found = audit(model, test[:13], method={"turned": turned, "ours": partial(gf.relevance, method="gradient_x_input")})
    assert {"deletion, random", "deletion, inverse", "SaCo", "sign"} <= set(found.failed("turned"))
    for test_name in ("deletion, inverse", "insertion, inverse"):
        mine, ours = (found.measured[name][test_name] for name in ("turned", "ours"))
        torch.testing.assert_close(mine, -ours, atol=1e-6, rtol=1e-4)


def test_an_explainer_may_have_its_own_order_of_backbones() -> None:
    model, test = trained()

    def swapped(model: gf.GridModel, grids: gf.GridSet, target: torch.Tensor) -> Relevance:
        assert not any(parameter.requires_grad for parameter in model.parameters())  # a frozen copy
        return gf.relevance(model, grids.only(*reversed(grids.names)), target, method="gradient_x_input")

    assert len(test.names) == 2 and len(set(grid.shape for grid in test.grids)) == 1  # so that no shape tells
    ours = partial(gf.relevance, method="gradient_x_input")
    measured = audit(model, test[:7], method={"swapped": swapped, "ours": ours}).measured
    for name in measured["ours"]:
        torch.testing.assert_close(measured["swapped"][name], measured["ours"][name], equal_nan=True)


@pytest.mark.usefixtures("unchecked")
def test_what_an_explainer_gives_must_fit() -> None:
    model, test = trained()

    def giving(change: Callable[[Relevance], object]) -> Audit:
        return audit(model, test[:3], method={"mine": lambda *given: change(gf.relevance(*given))})

    first = test.names[0]
    with pytest.raises(TypeError, match=r"method: 'mine' gave Tensor; expected a gf.Relevance"):
        giving(lambda found: found.flat)
    with pytest.raises(ValueError, match=rf"method: 'mine' gave maps of {first}; expected {first}, "):
        giving(lambda found: replace(found, maps={first: found.maps[first]}))
    with pytest.raises(ValueError, match=rf"gave shape \(3, 4, 3\) for backbone '{first}'; expected \(3, 3, 4\)"):
        giving(lambda found: replace(found, maps={name: values.mT for name, values in found.maps.items()}))
    with pytest.raises(ValueError, match="method: 'mine' gave NaN or infinity"):
        giving(lambda found: replace(found, maps={name: values / 0 for name, values in found.maps.items()}))


def test_a_method_is_not_its_own_reference() -> None:
    model, test = trained()
    verdicts = audit(model, test[:5], method=("ablation", "feature_ablation")).to_frame().verdict
    assert verdicts["ablation", "sign"] == "does not apply" != verdicts["feature_ablation", "sign"]
    concat = gf.Concat.for_grids(test, num_classes=3)
    concat.label_counts += 1
    verdicts = audit(concat, test[:5], method=("feature_ablation", "occlusion")).to_frame().verdict
    assert verdicts["feature_ablation", "sign"] == "does not apply" != verdicts["occlusion", "sign"]


def test_integrated_gradients_are_what_is_audited_by_default() -> None:
    model, test = trained()
    assert set(audit(model, test[:3]).measured) == {"integrated_gradients"} == {gf.relevance(model, test[:2]).method}


def test_the_same_seed_gives_the_same_audit_and_the_model_stays_as_it_was() -> None:
    model, test = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = (audit(model, test[:5], method="random", seed=3) for _ in range(2))
    assert one.to_frame().equals(two.to_frame())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_shuffled_model_has_the_same_numbers_elsewhere() -> None:
    model, _ = trained()
    other = shuffled(model, 7)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values), name
    assert any(not torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two in zip(model.buffers(), other.buffers(), strict=True))


def test_a_model_without_attention_is_audited_with_what_it_has() -> None:
    grids = trained()[1]
    model = gf.Concat.for_grids(grids, num_classes=3)
    model.label_counts += 1
    found = audit(model, grids[:5], 1, method=("gradient_x_input", "norm"))
    assert set(found.measured) == {"gradient_x_input", "norm"} and found.target.tolist() == [1] * 5


def test_bad_input_is_named() -> None:
    model, test = trained()
    with pytest.raises(ValueError, match=r"method: got 'magic'; expected some of attention_rollout, .*norm; or pass"):
        audit(model, test, method="magic")
    with pytest.raises(ValueError, match=r"method: got none; expected one or more"):
        audit(model, test, method=[])
    with pytest.raises(ValueError, match=r"method: got none; expected one or more"):
        audit(model, test, method={})
    with pytest.raises(ValueError, match=r"batch_size: got 0; expected 1 or more"):
        audit(model, test, batch_size=0)
    strange = gf.GridSet([*test.grids, gf.FeatureGrid("strange", torch.randn(COUNT, 2, 1, 1))])
    with pytest.raises(ValueError, match=r"grids: got backbone 'strange'; this model knows"):
        audit(model, strange)
    with pytest.raises(ValueError, match=r"grids: got backbone 'strange'; this model knows"):
        audit(model, strange.only("strange"))
    with pytest.raises(ValueError, match=r"grids: got 1 pictures; expected 2 or more"):
        audit(model, test[0])
    with pytest.raises(ValueError, match=r"target: got \[3\]; expected 0 to 2"):
        audit(model, test, 3)
