"""The explorer's Python side: what is set is checked, what is on screen is what was captured, and views come back."""

import json
import math
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
import torch
import traitlets
from ipywidgets import IntSlider, VBox
from test_explorer_payload import HEADS, LAYERS, SHAPES
from torch import Tensor
from walkthrough.record import ROOT

import grafeat as gf
from grafeat.explorer import Explorer, Selection
from grafeat.explorer.payload import Shape
from grafeat.explorer.widget import STATE

PICTURES = 11


@pytest.fixture(scope="module")
def grids() -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = [
        gf.FeatureGrid(name, torch.randn(PICTURES, 5, *shape, generator=generator))
        for name, shape in SHAPES.items()
    ]
    return gf.GridSet(listed, torch.arange(PICTURES) % 3, classes=["one", "two", "three"])


@pytest.fixture(scope="module")
def model(grids: gf.GridSet) -> gf.GraFeatMerge:
    return gf.GraFeatMerge.for_grids(grids, num_classes=3, width=2 * 7 * HEADS, depth=LAYERS, heads=HEADS)


@pytest.fixture
def explorer(model: gf.GraFeatMerge, grids: gf.GridSet) -> Explorer:
    return Explorer(model, grids, pictures=torch.rand(PICTURES, 3, 13, 17))


def asked(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, **question: object
) -> tuple[dict, list[bytes]]:
    """What the explorer answers to a question of the page."""
    sent: list[tuple[dict, list[bytes]]] = []
    monkeypatch.setattr(explorer, "send", lambda content, buffers=(): sent.append((content, list(buffers))))
    explorer._answer(explorer, {"id": "view-7", **question}, [])
    assert sent[0][0]["id"] == "view-7"
    json.dumps(sent[0][0])  # what cannot be JSON never arrives
    return sent[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_opens_on_the_middle_patch_the_last_layer_and_the_mean_over_heads(explorer: Explorer) -> None:
    assert (explorer.picture, explorer.layer, explorer.head) == (0, LAYERS - 1, None)
    assert explorer.selected == ("lite", 1, 1)
    assert repr(explorer) == (
        "Explorer: 11 pictures; Selection: picture 0, layer 1, mean over heads, lite (1, 1) outgoing; "
        "weights on lite 2 × 3, vit 1 × 5, cnn 7 × 1"
    )


@pytest.mark.parametrize("head", [None, 2])
def test_the_selection_holds_what_capture_gives(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer, head: int | None
) -> None:
    with gf.capture(model) as attention:
        model(grids)
    explorer.picture, explorer.layer, explorer.head, explorer.selected = 7, 0, head, ("cnn", 5, 0)
    where = {"layer": 0, "head": head, "picture": 7}
    for direction, weights in (("outgoing", attention.row), ("incoming", attention.column)):
        explorer.direction = direction
        expected = weights(("cnn", 5, 0), **where)
        assert isinstance(explorer.selection, Selection)
        for name in SHAPES:
            close(explorer.selection.weights[name], expected[name])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("picture", 11, "picture: got 11; expected 0 to 10"),
        ("picture", -1, "picture: got -1"),
        ("layer", 2, "layer: got 2; expected 0 to 1"),
        ("head", 3, "head: got 3; expected 0 to 2"),
        ("edges", 65, "edges: got 65; expected 0 to 64"),
        ("selected", ("lite", 2, 0), r"row, column: got \(2, 0\); the grid of 'lite' is 2 × 3"),
        ("selected", ("resnet", 0, 0), "backbone: got 'resnet'"),
        ("pins", [("vit", 0, 5)], "row, column"),
        ("pins", [("vit", 0, 0)] * 5, "pins: got 5; expected up to 4"),
    ],
)
def test_what_is_not_there_cannot_be_set(explorer: Explorer, name: str, value: object, text: str) -> None:
    before = explorer.state
    with pytest.raises(ValueError, match=text):
        setattr(explorer, name, value)
    assert explorer.state == before


def test_a_choice_that_does_not_exist_is_refused(explorer: Explorer) -> None:
    with pytest.raises(traitlets.TraitError, match="outgoing"):
        explorer.direction = "sideways"


def test_a_view_is_restored_from_its_state(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer
) -> None:
    chosen = {
        "picture": 5, "layer": 0, "head": 1, "selected": ("vit", 0, 3), "pins": [("cnn", 6, 0)], "locked": True,
        "direction": "incoming", "compare": True, "scale": "shared", "logarithmic": True, "opacity": 0.5,
        "outlines": False, "edges": 13, "view": "graph", "paint": "pagerank",
        "knocked": ["head", "cross", 1, 2], "relevance": "ablation", "target": 2,
    }  # fmt: skip
    assert set(chosen) == set(STATE)
    assert all(chosen[name] != explorer.state[name] for name in STATE)
    explorer.state = chosen
    other = Explorer(model, grids)
    other.state = json.loads(json.dumps(explorer.state))
    assert other.state == explorer.state == chosen


def test_a_state_that_does_not_fit_changes_nothing(explorer: Explorer) -> None:
    before = explorer.state
    with pytest.raises(ValueError, match="layer: got 5"):
        explorer.state = {"picture": 3, "layer": 5}
    with pytest.raises(ValueError, match="state: got 'zoom'; expected some of picture, layer"):
        explorer.state = {"zoom": 2}
    assert explorer.state == before


def test_attributes_can_be_observed_linked_and_stood_in_a_box(explorer: Explorer) -> None:
    seen = []
    explorer.observe(lambda change: seen.append((change["old"], change["new"])), names="layer")
    slider = IntSlider(max=LAYERS - 1)
    traitlets.link((explorer, "layer"), (slider, "value"))
    slider.value = 0
    assert explorer.layer == 0
    assert seen == [(1, 0)]
    assert VBox([slider, explorer]).children == (slider, explorer)


def test_the_graph_of_the_selection_is_that_of_the_patch_graph(
    model: gf.GraFeatMerge, grids: gf.GridSet, explorer: Explorer
) -> None:
    explorer.picture, explorer.layer, explorer.head = 3, 0, 2
    with gf.capture(model) as attention:
        model(grids)
    graph = explorer.to_networkx(k=7)
    expected = gf.PatchGraph.of(grids).to_networkx(attention, layer=0, head=2, picture=3, top=7)
    assert graph.number_of_edges() == 14
    assert set(graph.edges) == set(expected.edges)
    for i, j, data in expected.edges(data=True):
        assert graph.edges[i, j]["weight"] == pytest.approx(data["weight"], abs=1e-6)


def test_graphml_holds_the_selection(explorer: Explorer, tmp_path: Path) -> None:
    graph = nx.read_graphml(explorer.to_graphml(tmp_path / "attention.graphml", k=5))
    assert graph.number_of_nodes() == 18
    assert graph.number_of_edges() == 10


def test_the_page_is_answered_with_bytes(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    message, buffers = asked(explorer, monkeypatch, ask="picture", number=4)
    assert message["form"] == Shape.of(explorer._source[4].attention).smallest()
    assert message["label"] == 1
    assert message["aspect"] == 13 / 17
    assert {"top", "entropy", "split", "states", "probabilities", "image"} <= set(message["places"])
    assert len(buffers) == 1
    graph, _ = asked(explorer, monkeypatch, ask="graph", number=4, layer=1, head=0)
    assert graph["places"]["pagerank"][:2] == ["float32", [1, 18]]
    thumbnails, none = asked(explorer, monkeypatch, ask="thumbnails", numbers=[0, 7])
    assert len(thumbnails["thumbnails"]) == 2
    assert none == []


def test_beyond_the_limit_the_page_asks_for_single_vertices(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grafeat.explorer.answers.LIVE", 1000)
    message, _ = asked(explorer, monkeypatch, ask="picture", number=0)
    assert message["form"] == "vertices"
    assert "weights" not in message["places"]
    message, _ = asked(explorer, monkeypatch, ask="vertex", number=0, vertex=9)
    assert message["places"]["row"][:2] == ["uint8", [LAYERS, HEADS, 18]]


def test_an_error_reaches_the_page_in_words(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    message, buffers = asked(explorer, monkeypatch, ask="picture", number=99)
    assert "99" in message["error"]
    assert buffers == []


def test_only_the_pictures_looked_at_are_passed_through_the_model(
    model: gf.GraFeatMerge, grids: gf.GridSet
) -> None:
    passed: list[int] = []
    hook = model.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    explorer = Explorer(model, grids)
    explorer.picture = 9
    explorer.selection, explorer.selection  # noqa: B018, the second comes from what is kept
    hook.remove()
    assert passed == [1, 1]


def test_the_model_is_left_as_it_was(grids: gf.GridSet) -> None:
    model = gf.GraFeatMerge.for_grids(grids, num_classes=3, width=12, heads=3).train()
    Explorer(model, grids)
    assert model.training


def test_pictures_and_grids_must_be_as_many(model: gf.GraFeatMerge, grids: gf.GridSet) -> None:
    with pytest.raises(ValueError, match="pictures: got 7 for grids of 11 pictures; slice them alike"):
        Explorer(model, grids, pictures=torch.rand(7, 3, 13, 17))
    with pytest.raises(ValueError, match="grids: got no picture"):
        Explorer(model, grids[:0])


def test_a_model_without_attention_is_refused(grids: gf.GridSet) -> None:
    concat = gf.Concat.for_grids(grids, num_classes=3)
    with pytest.raises(ValueError, match="Concat has no attention layers"):
        Explorer(concat, grids)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [(0, "intra"), (1, "intra"), (0, "cross"), (1, "cross")]),
        ({"parted": False}, [(0, ""), (1, "")]),
        ({"joint": True}, [(0, ""), (1, "")]),
        ({"cross": False}, [(0, ""), (1, "")]),
    ],
    ids=str,
)
def test_every_step_says_its_layer_and_its_kind_where_others_are_of_another(
    grids: gf.GridSet, options: dict, steps: list
) -> None:
    explorer = Explorer(gf.GraFeatMerge.for_grids(grids, num_classes=3, depth=2, **options), grids)
    assert [(step["layer"], step["kind"]) for step in explorer._facts["steps"]] == steps
    assert len(explorer._source[0].output.states) == 1 + len(steps)


def test_one_backbone_has_intra_attention_alone(model: gf.GraFeatMerge, grids: gf.GridSet) -> None:
    explorer = Explorer(model, grids.only("vit"))
    assert explorer._facts["kinds"] == ["intra"]
    assert set(explorer.selection.weights) == {"vit"}
    assert explorer.to_networkx(k=3).number_of_edges() == 3


def test_pictures_of_any_size_are_shown(model: gf.GraFeatMerge, grids: gf.GridSet) -> None:
    sizes = [torch.rand(3, 5 + number, 23) for number in range(PICTURES)]
    explorer = Explorer(model, grids, pictures=gf.PictureSet(sizes))
    message, _ = explorer._source.describe(7)
    assert message["aspect"] == 12 / 23


def test_nan_weights_are_passed_on_as_nan(grids: gf.GridSet, tmp_path: Path) -> None:
    model = gf.GraFeatMerge.for_grids(grids, num_classes=3, width=12, heads=3)
    model.steps[0].intra.project.layers[0].weight.data[0] = math.nan
    explorer = Explorer(model, grids)
    explorer.layer = 0
    assert explorer.selection.weights["lite"].isnan().any()
    assert explorer.to_html(tmp_path / "nan.html").exists()
    assert explorer.to_png(tmp_path / "nan.png").exists()


def test_importing_grafeat_leaves_the_explorer_and_matplotlib_for_later() -> None:
    asked = "import sys, grafeat; print([name in sys.modules for name in ('matplotlib', 'anywidget')])"
    run = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[False, False]"
    assert gf.Explorer is Explorer
