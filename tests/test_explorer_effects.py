"""Knock-outs, relevance and values in the explorer are what the package's own functions say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from test_explorer_page import array, facts
from test_explorer_payload import HEADS, LAYERS, SHAPES
from test_explorer_widget import PICTURES, asked, explorer, grids, model  # noqa: F401, fixtures

import grafeat as gf
from grafeat.explanations.game import NotFiniteError
from grafeat.explorer import Effect, Explorer
from grafeat.explorer.effects import ON_PAGE, logits_without
from grafeat.explorer.knocked import structures
from grafeat.models import evaluating

PICTURE = 7
KNOCKED = [
    (["patch", "cnn", 5, 0], gf.KnockOut(patch=("cnn", 5, 0))),
    (["pair", "lite", "vit"], gf.KnockOut("cross", query="lite", key="vit")),
    (["pair", "vit", "cnn", 1], gf.KnockOut("cross", query="vit", key="cnn", layer=1)),
    (["cross"], gf.KnockOut("cross")),
    (["layer", "intra", 0], gf.KnockOut("intra", layer=0)),
    (["head", "cross", 1, 2], gf.KnockOut("cross", layer=1, head=2)),
]


def by_hand(model: gf.GraFeatMerge, grids: gf.GridSet, knockout: gf.KnockOut) -> torch.Tensor:  # noqa: F811
    one = grids[PICTURE]
    with torch.no_grad(), evaluating(model), gf.knock_out(model, knockout, gf.PatchGraph.of(one)):
        return model(one).logits[0]


@pytest.mark.parametrize(("knocked", "knockout"), KNOCKED, ids=lambda value: str(value))
def test_the_effect_is_that_of_the_knock_out(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer, knocked: list, knockout: gf.KnockOut  # noqa: F811
) -> None:
    explorer.picture = PICTURE
    explorer.knocked = knocked
    effect = explorer.effect
    assert isinstance(effect, Effect)
    assert effect.knocked == tuple(knocked)
    expected = by_hand(model, grids, knockout)
    torch.testing.assert_close(effect.after, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(effect.change, expected - model(grids[PICTURE]).logits[0], atol=1e-5, rtol=0)
    assert effect.change.abs().max() > 1e-4


def test_without_a_backbone_the_graph_never_had_it(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer  # noqa: F811
) -> None:
    explorer.knocked = ["backbone", "vit"]
    expected = model(grids[0], without=["vit"]).logits[0]
    torch.testing.assert_close(explorer.effect.after, expected, atol=1e-5, rtol=0)


def test_many_at_once_are_each_alone(model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer) -> None:  # noqa: F811
    many = structures(explorer._attention)
    pairs = 6
    assert len(many) == len(SHAPES) + 1 + pairs * (1 + LAYERS) + 2 * LAYERS * (1 + HEADS)
    together = logits_without(model, grids[PICTURE], many)
    for row in (0, 3, 5, 11, len(many) - 1):
        alone = logits_without(model, grids[PICTURE], [many[row]])[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


def test_nothing_is_out_at_first(explorer: Explorer) -> None:  # noqa: F811
    assert explorer.knocked == []
    assert explorer.effect is None


def test_an_effect_says_itself_in_words() -> None:
    classes = ("one", "two", "three")
    before = torch.tensor([1.0, 3.0, 2.5])
    said = Effect(("patch", "vit", 0, 3), before, torch.tensor([1.0, 1.75, 2.5]), classes)
    assert repr(said) == "Without patch vit (0, 3): 'two' loses 1.25, now says 'three'"
    said = Effect(("pair", "vit", "cnn", 1), before, torch.tensor([0.0, 3.25, 2.5]), classes)
    assert repr(said) == "Without edges vit → cnn, layer 1: 'two' gains 0.25, still says 'two'"
    for knocked, words in [(("cross",), "all cross edges"), (("backbone", "vit"), "backbone vit"),
                           (("layer", "intra", 0), "intra edges, layer 0"),
                           (("head", "cross", 1, 2), "cross edges, layer 1, head 2")]:  # fmt: skip
        assert repr(Effect(knocked, before, before, classes)).startswith(f"Without {words}: ")


@pytest.mark.parametrize(
    ("knocked", "text"),
    [
        (["edge", "lite"], r"got \['edge', 'lite'\]; expected one of \['patch', 'backbone', 'row', 'column'\]"),
        (["patch", "lite", 1], "knocked: got"),
        (["patch", 1, "lite", 1], "knocked: got"),
        (["cross", 1], "knocked: got"),
        (["pair"], "knocked: got"),
        (["patch", "lite", 2, 0], r"row, column: got \(2, 0\)"),
        (["patch", "resnet", 0, 0], "backbone: got 'resnet'"),
        (["pair", "lite", "lite"], "expected two of lite, vit, cnn"),
        (["pair", "lite", "vit", 2], "expected layer 0 to 1; count from 0"),
        (["layer", "self", 0], "expected kind intra or cross"),
        (["layer", "intra", -1], "expected layer 0 to 1"),
        (["head", "cross", 0, 3], "expected head 0 to 2"),
        (["backbone", "resnet"], "expected lite or vit or cnn; use one of them"),
    ],
)
def test_what_is_not_there_cannot_be_knocked_out(explorer: Explorer, knocked: list, text: str) -> None:  # noqa: F811
    explorer.knocked = ["cross"]
    with pytest.raises(ValueError, match=text):
        explorer.knocked = knocked
    assert explorer.knocked == ["cross"]


def test_a_graph_is_never_emptied(model: gf.GraFeatMerge, grids: gf.GridSet) -> None:  # noqa: F811
    alone = Explorer(model, grids.only("vit"))
    with pytest.raises(ValueError, match="expected two backbones or more; nothing would be left"):
        alone.knocked = ["backbone", "vit"]
    with pytest.raises(ValueError, match="expected a graph with cross edges"):
        alone.knocked = ["cross"]
    speck = gf.GridSet([gf.FeatureGrid("vit", torch.randn(1, 5, 1, 1))])
    single = Explorer(model, speck)
    with pytest.raises(ValueError, match="expected two patches or more; nothing would be left"):
        single.knocked = ["patch", "vit", 0, 0]
    with pytest.raises(ValueError, match="relevance: got 'ablation' for a single patch"):
        single.relevance = "ablation"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("target", 3, "target: got 3; expected 0 to 2"),
        ("target", -1, "target: got -1"),
        ("relevance", "magic", "ablation"),
    ],
)
def test_relevance_that_does_not_exist_is_refused(explorer: Explorer, name: str, value: object, text: str) -> None:  # noqa: F811
    with pytest.raises((ValueError, traitlets.TraitError), match=text):
        setattr(explorer, name, value)


def test_the_page_is_told_what_python_knows(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    def floats(buffers: list[bytes], count: int) -> torch.Tensor:
        return torch.frombuffer(bytearray(buffers[0]), dtype=torch.float32)[:count]

    explorer.picture, explorer.knocked = PICTURE, ["pair", "lite", "vit"]
    _, buffers = asked(explorer, monkeypatch, ask="effect", number=PICTURE, knocked=["pair", "lite", "vit"])
    assert torch.equal(floats(buffers, 3), explorer.effect.after)
    with pytest.warns(UserWarning, match="never trained"):
        relevance = gf.relevance(model, grids[PICTURE], 1, method="grad_cam")
    message, buffers = asked(explorer, monkeypatch, ask="relevance", number=PICTURE, method="grad_cam", target=1)
    assert (message["signed"], message["target"]) == (True, 1)
    assert torch.equal(floats(buffers, 18), relevance.flat[0])
    with pytest.warns(UserWarning, match="never trained"):
        report = gf.dominance(model, grids[PICTURE], knockouts=False)
    _, buffers = asked(explorer, monkeypatch, ask="values", number=PICTURE)
    expected = [*(report.values[name] for name in SHAPES), float(report.none[0]), float(report.full[0])]
    torch.testing.assert_close(floats(buffers, 5), torch.tensor(expected), atol=1e-6, rtol=0)
    message, _ = asked(explorer, monkeypatch, ask="effect", number=PICTURE, knocked=["backbone", "resnet"])
    assert "use one of them" in message["error"]


def test_what_was_computed_is_kept(explorer: Explorer) -> None:  # noqa: F811
    explorer.knocked = ["cross"]
    passed: list[int] = []
    explorer.effect  # noqa: B018
    hook = explorer._source.model.register_forward_hook(lambda *_: passed.append(1))
    explorer.effect, explorer.effect  # noqa: B018
    hook.remove()
    assert passed == []


def test_an_exported_page_holds_the_effects(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer, tmp_path: Path  # noqa: F811
) -> None:
    explorer.state = {"picture": PICTURE, "relevance": "occlusion", "target": 2}
    page = explorer.to_html(tmp_path / "page.html", pictures=[PICTURE]).read_text(encoding="utf-8")
    about = facts(page)["pictures"][str(PICTURE)]
    knocked = [tuple(one) for one in about["knocked"]]
    assert len(knocked) == len(structures(explorer._attention)) + 18  # and every patch, since they are few
    without = torch.from_numpy(array(page, PICTURE, "without").copy())
    for one, knockout in KNOCKED:
        expected = by_hand(model, grids, knockout)
        torch.testing.assert_close(without[knocked.index(tuple(one))], expected, atol=1e-5, rtol=0)
    assert set(about["relevance"]) == {*(f"{method} predicted" for method in ON_PAGE), "occlusion 2"}
    ablation = array(page, PICTURE, "ablation predicted")
    before = torch.from_numpy(array(page, PICTURE, "logits").copy())
    said = int(before.argmax())
    assert about["relevance"]["ablation predicted"] == {"signed": True, "target": said}
    patch = without[knocked.index(("patch", "cnn", 5, 0))]
    lost = (before[said] - before.mean()) - (patch[said] - patch.mean())
    assert float(lost) == pytest.approx(float(ablation[explorer._source.graph.vertex("cnn", 5, 0)]), abs=1e-5)
    values = array(page, PICTURE, "values")
    assert values[:3].sum() == pytest.approx(values[4] - values[3], abs=1e-6)


def test_of_many_patches_a_page_holds_the_strongest(monkeypatch: pytest.MonkeyPatch, explorer: Explorer) -> None:  # noqa: F811
    monkeypatch.setattr("grafeat.explorer.effects.ALL_PATCHES", 17)
    monkeypatch.setattr("grafeat.explorer.effects.STRONGEST", 5)
    knocked, _ = explorer._effects.on_page(PICTURE, explorer.state)
    held = [tuple(one) for one in knocked["knocked"] if one[0] == "patch"]
    change = explorer._effects.relevant(PICTURE, "ablation").flat[0].abs()
    graph = explorer._source.graph
    assert held == [("patch", *graph.locate(vertex)) for vertex in change.topk(5).indices.tolist()]


def test_of_very_many_patches_a_page_holds_no_ablation_unless_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, explorer: Explorer  # noqa: F811
) -> None:
    monkeypatch.setattr("grafeat.explorer.effects.ALL_PATCHES", 11)
    monkeypatch.setattr("grafeat.explorer.effects.ABLATED", 17)
    monkeypatch.setattr("grafeat.explorer.effects.STRONGEST", 5)
    effects = explorer._effects
    about, _ = effects.on_page(PICTURE, explorer.state)
    assert set(about["relevance"]) == {"gradient_rollout predicted", "integrated_gradients predicted"}
    assert (PICTURE, "ablation", None) not in effects._kept["relevance"]
    held = [tuple(one) for one in about["knocked"] if one[0] == "patch"]
    seeming = effects.relevant(PICTURE, "integrated_gradients").flat[0].abs().topk(5).indices.tolist()
    assert held == [("patch", *explorer._source.graph.locate(vertex)) for vertex in seeming]
    shown, _ = effects.on_page(PICTURE, {**explorer.state, "relevance": "ablation"})
    assert "ablation predicted" in shown["relevance"]


def test_a_page_may_go_without(explorer: Explorer, tmp_path: Path) -> None:  # noqa: F811
    page = explorer.to_html(tmp_path / "page.html", pictures=[0], effects=False).read_text(encoding="utf-8")
    assert "knocked" not in facts(page)["pictures"]["0"]
    assert "values" not in facts(page)["pictures"]["0"]["places"]


def test_shares_of_a_set_stand_beside(model: gf.GraFeatMerge, grids: gf.GridSet) -> None:  # noqa: F811
    with pytest.warns(UserWarning, match="never trained"):
        report = gf.dominance(model, grids, knockouts=False)
    told = Explorer(model, grids, report=report)._facts["report"]
    assert told["pictures"] == PICTURES
    assert told["shares"] == [report.shares[name] for name in SHAPES]
    assert told["intervals"] == [list(report.share_intervals[name]) for name in SHAPES]
    json.dumps(told, allow_nan=False)
    with pytest.warns(UserWarning, match="never trained"):
        other = gf.dominance(model, grids.only("vit", "cnn"), knockouts=False)
    with pytest.raises(ValueError, match="report: got one of vit, cnn; expected lite, vit, cnn"):
        Explorer(model, grids, report=other)


def test_the_model_is_left_as_it_was(grids: gf.GridSet) -> None:  # noqa: F811
    trains = gf.GraFeatMerge.for_grids(grids, num_classes=3, width=12, heads=3).train()
    shown = Explorer(trains, grids)
    for knocked in (["cross"], ["backbone", "vit"]):
        shown.knocked = knocked
        shown.effect  # noqa: B018
    assert trains.training
    assert trains.readout.without is None


def test_only_numbers_that_are_none_are_passed_over(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    module, effects = sys.modules["grafeat.explorer.effects"], explorer._effects
    state = {"relevance": "", "target": None, "knocked": []}

    def refusing(error: Exception) -> None:
        def refuse(*given: object, **options: object) -> None:
            raise error

        effects._kept.clear()
        for name in ("relevance", "dominance"):
            monkeypatch.setattr(module, name, refuse)

    refusing(NotFiniteError("grids: NaN"))
    found, arrays = effects.on_page(0, state)
    assert found["relevance"] == {} and np.isnan(arrays["values"]).tolist() == [True] * 5
    refusing(ValueError("another fault"))
    with pytest.raises(ValueError, match="another fault"):
        effects.on_page(0, state)


# A model that changes


def test_all_that_is_shown_is_of_the_model_as_it_is(grids: gf.GridSet) -> None:  # noqa: F811
    """An explorer that was made before a training, and looked at, shows nothing of the model before."""
    learner = gf.GraFeatMerge.for_grids(grids, num_classes=3, width=2 * 7 * HEADS, depth=LAYERS, heads=HEADS)
    early = Explorer(learner, grids)
    early.knocked = ["backbone", "vit"]
    before = early.effect, early._source.describe(0)[1], early._answers.vertex({"number": 0, "vertex": 3})[1]
    gf.fit(learner, grids, epochs=2, progress=False)
    late = Explorer(learner, grids)
    late.knocked = ["backbone", "vit"]
    early.knocked = []
    early.knocked = ["backbone", "vit"]
    torch.testing.assert_close(early.effect.before, late.effect.before)
    torch.testing.assert_close(early.effect.after, late.effect.after)
    assert not torch.allclose(early.effect.after, before[0].after)
    now = early._source.describe(0)[1], early._answers.vertex({"number": 0, "vertex": 3})[1]
    expected = late._source.describe(0)[1], late._answers.vertex({"number": 0, "vertex": 3})[1]
    for ours, theirs, old in zip(now, expected, before[1:], strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
        assert not all(np.array_equal(ours[name], old[name]) for name in theirs)
