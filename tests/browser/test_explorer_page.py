"""The exported explorer, opened from disk with the network off."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, expect

import grafeat as gf

from .explorer import HEADS, LAYERS, PICTURES, View, example, on_screen
from .page import axe, offline_page, shoot


@pytest.fixture
def explorer() -> gf.Explorer:
    explorer = gf.Explorer(*example())
    explorer.outlines = False
    return explorer


@pytest.fixture
def view(browser: Browser, explorer: gf.Explorer, tmp_path: Path) -> Iterator[View]:
    with offline_page(browser, explorer.to_html(tmp_path / "explorer.html", effects=False)) as (page, watch):
        yield View(page, page.locator(".grafeat")).wait()
        assert len(watch.requests) - sum(url.startswith(("data:", "blob:")) for url in watch.requests) == 1


def expected(explorer: gf.Explorer, view: View) -> tuple[dict[str, list], dict[str, float]]:
    """What the page should show of the patch that it names."""
    explorer.selected = view.selected()
    return on_screen(explorer)


@pytest.mark.parametrize("patch", [("first", 4, 6), ("second", 0, 1), ("third", 6, 0)], ids=lambda patch: patch[0])
def test_hover_shows_the_tensors(view: View, explorer: gf.Explorer, patch: tuple) -> None:
    view.hover(patch)
    view.expect_selected(patch)
    view.expect_weights(*expected(explorer, view))


def test_every_picture_layer_and_head(view: View, explorer: gf.Explorer) -> None:
    for picture in range(PICTURES):
        for layer in range(LAYERS):
            for head in (None, *range(HEADS)):
                view.cell("intra", layer, head).click()
                explorer.state = {"picture": picture, "layer": layer, "head": head}
                view.expect_weights(*expected(explorer, view))
        if picture < PICTURES - 1:
            view.root.get_by_role("button", name="Next picture").click()
            expect(view.root.locator("aside h3 .note").first).to_contain_text(f"{picture + 2} of {PICTURES}")


def test_a_click_on_the_states_after_a_step_goes_to_its_layer(view: View) -> None:
    """Both intra layers come first, then both cross layers: a layer's number is there twice."""
    canvas = view.root.locator(".states canvas")
    pitch = canvas.bounding_box()["width"] / (1 + 2 * LAYERS)
    for step, layer in enumerate(("0", "1", "0", "1"), start=1):
        canvas.click(position={"x": (step + 0.5) * pitch, "y": 30})
        expect(view.root.locator(".player .note")).to_have_text(f"layer {layer}, last {LAYERS - 1}")
    expect(canvas).to_have_attribute("aria-label", re.compile("before the first step and after each of 4, "))
    shoot(view.page, "page-states")


def test_keys_and_graph(view: View, explorer: gf.Explorer) -> None:
    view.stage("third").focus()
    view.page.keyboard.press("ArrowDown")
    assert view.selected()[0] == "third"
    view.page.keyboard.press("d")
    expect(view.choice("direction", "incoming")).to_have_attribute("aria-pressed", "true")
    view.page.keyboard.press("g")
    expect(view.sentence).to_contain_text("communities (Louvain)")
    shoot(view.page, "page-graph")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(view: View, scheme: str) -> None:
    view.page.emulate_media(color_scheme=scheme)
    expect(view.root).to_have_attribute("data-theme", scheme)
    view.click(("first", 2, 2))
    shoot(view.page, f"page-{scheme}")
    assert axe(view.page) == []
    expect(view.root.locator("[aria-live]")).to_have_text(view.sentence.inner_text())


def test_it_opens_as_it_was_left(browser: Browser, explorer: gf.Explorer, tmp_path: Path) -> None:
    explorer.state = {"picture": 3, "layer": 0, "head": 1, "selected": ("second", 2, 1), "direction": "incoming"}
    path = explorer.to_html(tmp_path / "left.html", pictures=[3, 1], effects=False)
    with offline_page(browser, path) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        expect(view.sentence).to_contain_text("second patch (2, 1) · layer 0, head 1")
        view.expect_weights(*expected(explorer, view))
        assert view.root.locator("button.picture").count() == 2


def test_weights_that_were_not_kept_are_said(browser: Browser, explorer: gf.Explorer, tmp_path: Path) -> None:
    path = explorer.to_html(tmp_path / "kept.html", pictures=[0], limit=36_000, effects=False)
    with offline_page(browser, path) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        expect(view.caption).to_contain_text("4 strongest weights of each row")
        view.click(("first", 2, 3))
        values = np.array(expected(explorer, view)[0]["third"])
        row, column = divmod(int(values.argmin()), values.shape[1])
        view.hover(("third", row, column))
        expect(view.root.locator("output.value")).to_have_text("not kept")
        shoot(page, "page-kept")
        mass = sum(values.sum() for name, values in everything(explorer, view).items() if name != "first")
        assert mass == pytest.approx(1, abs=1e-3)
        shown = [float(said) for said in re.findall(r"([\d.]+)% to", view.text())]
        assert sum(shown) == pytest.approx(100, abs=1.5)  # the whole mass, not the kept one
        for key in "dlcpc":  # incoming, logarithmic, compared: every patch is still answered
            page.keyboard.press(key)
        view.hover(("second", 2, 1))
        page.keyboard.press("Escape")
        view.hover(("second", 2, 0))
        view.expect_selected(("second", 2, 0))


def everything(explorer: gf.Explorer, view: View) -> dict[str, np.ndarray]:
    return {name: np.array(weights) for name, weights in expected(explorer, view)[0].items()}


def test_nan_is_said_and_hatched(browser: Browser, tmp_path: Path) -> None:
    model, grids, pictures = example()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    with offline_page(browser, gf.Explorer(model, grids, pictures).to_html(tmp_path / "nan.html")) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        expect(view.sentence).to_contain_text("NaN weights")
        assert len(np.unique(view.colours("first").reshape(-1, 3), axis=0)) <= 4  # hatched: lines on blank, no map
        shoot(page, "page-nan")
        view.click(("third", 0, 1))
        page.keyboard.press("l")  # a logarithmic scale has nothing to begin with
        view.click(("third", 1, 1))
        view.expect_selected(("third", 1, 1))
        expect(view.root.locator(".mass")).to_contain_text("NaN")
        page.keyboard.press("g")
        expect(view.sentence).to_contain_text("nothing to measure")


def test_one_backbone(browser: Browser, tmp_path: Path) -> None:
    _, grids, pictures = example()
    alone = grids.only("first")
    model = gf.GraFeatMerge.for_grids(alone, num_classes=3, width=24, depth=2, heads=3, seed=0)
    with offline_page(browser, gf.Explorer(model, alone, pictures).to_html(tmp_path / "one.html")) as (page, _):
        view = View(page, page.locator(".grafeat")).wait()
        view.hover(("first", 0, 0))
        view.expect_selected(("first", 0, 0))
        expect(view.caption).to_contain_text("no cross edges")
