"""What matters for the logits: knocked out, laid over the grids and as bars, in JupyterLab and in an exported page."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, expect

import grafeat as gf
from grafeat.plots.palette import DIVERGING

from .explorer import SETUP, SHAPES, View, example
from .lab import Lab
from .notebook import LIGHT, Notebook
from .page import axe, offline_page, shoot

SHOW = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    report = gf.dominance(model, grids, knockouts=False)
explorer = gf.Explorer(model, grids, pictures, report=report)
explorer.outlines = False
start = explorer.state
explorer
"""
CLASSES = ["0", "1", "2"]
CHANGE = "explorer.effect.change.tolist()"
KNOCK = "What to knock out"
RELEVANCE = "What the grids show"


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Iterator[Notebook]:
    with lab.notebook(SETUP, SHOW, name="effects", size=(1280, 1500)) as notebook:
        notebook.run_all()
        yield notebook


@pytest.fixture
def view(notebook: Notebook) -> Iterator[View]:
    notebook.theme(LIGHT)
    notebook.page.mouse.move(5, 5)
    notebook.do("explorer.state = start")
    view = View(notebook.page, notebook.cell(1).locator(".grafeat"))
    view.expect_selected(("first", 2, 3))
    yield view
    notebook.watch.check()


def expect_effect(notebook: Notebook, view: View, words: str) -> None:
    """The rows are Python's numbers, and the words name what is out."""
    expect(view.root.locator(".said")).to_contain_text(f"Without {words}: '")
    expect(view.root.locator(".said")).to_contain_text("says '")
    view.expect_changes(CLASSES, notebook.value(CHANGE))


def test_a_patch_is_knocked_out_by_button_and_put_back_by_key(notebook: Notebook, view: View) -> None:
    view.click(("third", 1, 2))
    view.button("Knock out").click()
    notebook.wait_for("explorer.knocked", ["patch", "third", 1, 2])
    expect_effect(notebook, view, "patch third (1, 2)")
    expect(view.button("Put back").first).to_be_visible()
    expect(view.root.locator(".prediction")).to_contain_text("→")
    notebook.shoot("effects-patch", view.root)
    view.stage("third").focus()
    for _ in range(2):  # unlocked first, then put back
        view.page.keyboard.press("Escape")
    notebook.wait_for("explorer.knocked", [])
    expect(view.root.locator(".prediction")).not_to_contain_text("→")


def test_a_key_knocks_out_what_is_selected(notebook: Notebook, view: View) -> None:
    view.stage("first").focus()
    view.page.keyboard.press("k")
    notebook.wait_for("explorer.knocked", ["patch", "first", 2, 3])
    expect_effect(notebook, view, "patch first (2, 3)")
    view.page.keyboard.press("ArrowUp")
    view.page.keyboard.press("k")
    notebook.wait_for("explorer.knocked", ["patch", "first", 1, 3])
    expect_effect(notebook, view, "patch first (1, 3)")
    view.page.keyboard.press("k")
    notebook.wait_for("explorer.knocked", [])


@pytest.mark.parametrize(
    ("chosen", "knocked", "words"),
    [
        (["head", "cross"], ["head", "cross", 0, 2], "cross edges, layer 0, head 2"),
        (["layer", "intra"], ["layer", "intra", 0], "intra edges, layer 0"),
        (["pair", "first", "third"], ["pair", "first", "third"], "edges first → third"),
        (["pair", "third", "second", "here"], ["pair", "third", "second", 0], "edges third → second, layer 0"),
        (["cross"], ["cross"], "all cross edges"),
        (["backbone", "second"], ["backbone", "second"], "backbone second"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else None,
)
def test_the_menu_holds_edges_heads_and_backbones(
    notebook: Notebook, view: View, chosen: list, knocked: list, words: str
) -> None:
    view.cell("cross", 0, 2).click()
    view.choose(KNOCK, chosen)
    view.button("Knock out").click()
    notebook.wait_for("explorer.knocked", knocked)
    expect_effect(notebook, view, words)
    view.choose(KNOCK, ["patch"])  # takes its place
    notebook.wait_for("explorer.knocked[0]", "patch")


def test_python_knocks_out_and_another_picture_is_computed_anew(notebook: Notebook, view: View) -> None:
    notebook.do("explorer.knocked = ['backbone', 'third']")
    expect_effect(notebook, view, "backbone third")
    before = view.changes()
    notebook.do("explorer.picture = 3")
    expect(view.root.locator("button.picture[data-picture='3']")).to_have_attribute("aria-pressed", "true")
    expect(view.root.locator(".said")).not_to_contain_text("computing")
    view.page.wait_for_function(
        "([root, before]) => root.querySelector('.changes .strong .much').textContent !== before",
        arg=[view.root.element_handle(), f"{before['0']}"],
    )
    expect_effect(notebook, view, "backbone third")


@pytest.mark.parametrize("method", ["ablation", "integrated_gradients", "gradient_rollout", "attention_rollout"])
def test_relevance_lies_over_the_grids(notebook: Notebook, view: View, method: str) -> None:
    view.choose(RELEVANCE, method)
    notebook.wait_for("explorer.relevance", method)
    what = "routing" if method == "attention_rollout" else "relevance for '"
    expect(view.sentence).to_contain_text(f"patch (2, 3) · {what}")
    maps = notebook.value(f"{{n: m[0].tolist() for n, m in explorer._effects.relevant(0, {method!r}).maps.items()}}")
    signed = notebook.value(f"explorer._effects.relevant(0, {method!r}).signed")
    most = max(np.abs(values).max() for values in maps.values())
    for name in SHAPES:
        steps = view.steps(name, DIVERGING) * 2 / 255 - 1 if signed else view.steps(name) / 255
        np.testing.assert_allclose(steps * most, maps[name], atol=1.5 * most / 127)
    best = notebook.value(f"tuple(explorer._effects.relevant(0, {method!r}).top(1)[0][0])")
    expect(view.sentence).to_contain_text(f"strongest: {best[0]} ({best[1]}, {best[2]})")
    expect(view.caption).to_contain_text("Routing by" if method == "attention_rollout" else "Relevance by")
    notebook.shoot(f"effects-{method}", view.root)


def test_relevance_is_of_the_class_that_is_asked(notebook: Notebook, view: View) -> None:
    view.choose(RELEVANCE, "gradient_rollout")
    notebook.wait_for("explorer.relevance", "gradient_rollout")
    view.choose("Class that relevance explains", 2)
    notebook.wait_for("explorer.target", 2)
    expect(view.sentence).to_contain_text("relevance for '2'")
    expect(view.caption).to_contain_text("raises the logit of '2'")
    view.hover(("second", 1, 1))
    value = notebook.value("float(explorer._effects.relevant(0, 'gradient_rollout', 2).maps['second'][0, 1, 1])")
    shown = float(view.text().split("relevance for '2' ")[1].split(" ·")[0])
    assert shown == pytest.approx(value, rel=0.06)
    view.stage("second").focus()
    view.page.keyboard.press("r")
    notebook.wait_for("explorer.relevance", None)
    expect(view.sentence).to_contain_text("cross: ")
    view.page.keyboard.press("r")
    notebook.wait_for("explorer.relevance", "gradient_rollout")


def test_values_and_shares_are_pythons(notebook: Notebook, view: View) -> None:
    values = notebook.value("list(explorer._effects.values(0).values.values())")
    texts = view.root.locator(".values .brief .much")
    expect(texts).to_have_text([f"{value:+.2f}".replace("-", "−") for value in values])
    shares = notebook.value("list(report.shares.values())")
    said = view.root.locator(".values .change:not(.brief) .much").all_inner_texts()
    assert [float(text.rstrip("%")) for text in said] == pytest.approx([100 * share for share in shares], abs=0.6)
    expect(view.root.locator(".values")).to_contain_text("The model was never trained")


def test_nobody_is_shut_out_of_a_notebook(notebook: Notebook, view: View) -> None:
    notebook.do("explorer.state = {'knocked': ['head', 'cross', 0, 1], 'relevance': 'ablation'}")
    expect(view.root.locator(".said")).to_contain_text("Without cross edges, layer 0, head 1")
    assert axe(notebook.page, ".grafeat") == []


def test_an_error_of_the_kernel_is_said(notebook: Notebook, view: View) -> None:
    notebook.do("real, explorer._effects.effect = explorer._effects.effect, None")
    notebook.do("explorer.knocked = ['pair', 'second', 'first', 1]")
    expect(view.root.locator(".said")).to_contain_text("not callable")
    notebook.do("explorer._effects.effect = real; explorer.knocked = ['pair', 'second', 'first', 0]")
    expect_effect(notebook, view, "edges second → first, layer 0")


def test_touch_knocks_out(lab: Lab) -> None:
    with lab.notebook(SETUP, SHOW, name="touched", touch=True) as notebook:
        notebook.run_all()
        view = View(notebook.page, notebook.cell(1).locator(".grafeat")).wait()
        view.tap(("second", 1, 0))
        notebook.wait_for("tuple(explorer.selected)", ("second", 1, 0))
        view.button("Knock out").tap()
        notebook.wait_for("explorer.knocked", ["patch", "second", 1, 0])
        expect_effect(notebook, view, "patch second (1, 0)")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[gf.Explorer, Path]:
    explorer = gf.Explorer(*example())
    explorer.outlines = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grafeat.explorer.effects.ALL_PATCHES", 10)
        path = explorer.to_html(tmp_path_factory.mktemp("page") / "effects.html", pictures=[0, 2])
    return explorer, path


def test_a_page_knocks_out_what_it_holds(browser: Browser, exported: tuple[gf.Explorer, Path]) -> None:
    explorer, path = exported
    with offline_page(browser, path, size=(1240, 1500)) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        bundles = (["pair", "first", "second"], ["cross"], ["pair", "third", "first", "here"], ["backbone", "third"])
        for chosen in bundles:
            view.choose(KNOCK, chosen)
            if not view.root.locator(".said b, .said .unpin").count():
                view.button("Knock out").click()
            explorer.knocked = [1 if part == "here" else part for part in chosen]
            expect(view.root.locator(".said")).to_contain_text("says '")
            view.expect_changes(CLASSES, explorer.effect.change.tolist())
        graph = explorer._source.graph
        change = explorer._effects.relevant(0, "ablation").flat[0].abs()
        for vertex, held in ((int(change.argmax()), True), (int(change.argmin()), False)):
            patch = tuple(graph.locate(vertex))
            view.click(patch)
            view.choose(KNOCK, ["patch"])
            explorer.knocked = ["patch", *patch]
            words = "says '" if held else "not in this page; open the notebook"
            expect(view.root.locator(".said")).to_contain_text(words)
            if held:
                view.expect_changes(CLASSES, explorer.effect.change.tolist())
            page.keyboard.press("Escape")
        shoot(page, "effects-page")


def test_a_page_shows_relevance_and_values(browser: Browser, exported: tuple[gf.Explorer, Path]) -> None:
    explorer, path = exported
    with offline_page(browser, path, size=(1240, 1500)) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        page.locator(".effects").scroll_into_view_if_needed()
        expected = explorer._effects.values(0)
        texts = view.root.locator(".values .brief .much")
        expect(texts).to_have_text([f"{expected.values[name]:+.2f}".replace("-", "−") for name in SHAPES])
        view.choose(RELEVANCE, "ablation")
        expect(view.sentence).to_contain_text("relevance for '")
        found = explorer._effects.relevant(0, "ablation")
        most = float(found.flat.abs().max())
        for name in SHAPES:
            steps = view.steps(name, DIVERGING) * 2 / 255 - 1
            np.testing.assert_allclose(steps * most, found.maps[name][0].numpy(), atol=1.5 * most / 127)
        view.choose(RELEVANCE, "occlusion")
        expect(view.sentence).to_contain_text("not in this page; open the notebook")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [900, 1240])
def test_nobody_is_shut_out_of_a_page(
    browser: Browser, exported: tuple[gf.Explorer, Path], scheme: str, width: int
) -> None:
    with offline_page(browser, exported[1], size=(width, 1500)) as (page, _):
        page.emulate_media(color_scheme=scheme)
        view = View(page, page.locator(".grafeat")).wait()
        expect(view.root).to_have_attribute("data-theme", scheme)
        height = view.root.bounding_box()["height"]
        page.locator(".effects").scroll_into_view_if_needed()
        view.choose(KNOCK, ["backbone", "second"])
        view.button("Knock out").click()
        view.choose(RELEVANCE, "integrated_gradients")
        expect(view.sentence).to_contain_text("relevance for '")
        expect(view.root.locator(".said")).to_contain_text("says '")
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert view.root.bounding_box()["height"] == pytest.approx(height, abs=2)  # nothing jumped
        shoot(page, f"effects-page-{scheme}-{width}")


def test_a_page_without_effects_says_so(browser: Browser, tmp_path: Path) -> None:
    explorer = gf.Explorer(*example())
    path = explorer.to_html(tmp_path / "plain.html", pictures=[0], effects=False)
    with offline_page(browser, path, size=(1240, 1500)) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        expect(view.root.locator(".values .sum")).to_have_text("Not in this page; open the notebook.")
        view.stage("first").focus()
        page.keyboard.press("k")
        expect(view.root.locator(".said")).to_contain_text("not in this page; open the notebook")


def test_nan_logits_are_said(browser: Browser, tmp_path: Path) -> None:
    model, grids, pictures = example()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    path = gf.Explorer(model, grids, pictures).to_html(tmp_path / "nan.html", pictures=[0])
    with offline_page(browser, path, size=(1240, 1500)) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        view.stage("first").focus()
        page.keyboard.press("k")
        expect(view.root.locator(".said")).to_contain_text("NaN")
        page.keyboard.press("r")
        expect(view.sentence).to_contain_text("not in this page")
