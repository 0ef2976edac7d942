"""The explorer in JupyterLab: hands on the page, and Python asked what it sees."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from .explorer import ERROR, HEADS, LAYERS, SETUP, View, example
from .lab import Lab
from .notebook import DARK, LIGHT, Notebook
from .page import axe

ON_SCREEN = "on_screen(explorer)"
SHOW = "explorer = gf.Explorer(model, grids, pictures)\nexplorer.outlines = False\nstart = explorer.state\nexplorer"


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Iterator[Notebook]:
    linked = "import ipywidgets\nslider = ipywidgets.IntSlider(max=1)\n"
    linked += "link = ipywidgets.jslink((slider, 'value'), (explorer, 'layer'))\nslider"
    with lab.notebook(SETUP, SHOW, linked, name="explorer", size=(1280, 1100)) as notebook:
        notebook.run_all()
        yield notebook


@pytest.fixture
def view(notebook: Notebook) -> Iterator[View]:
    """The explorer as it was at first."""
    notebook.theme(LIGHT)
    notebook.page.mouse.move(5, 5)
    notebook.do("explorer.state = start")
    view = View(notebook.page, notebook.cell(1).locator(".grafeat"))
    view.expect_selected(("first", 2, 3))
    expect(view.sentence).to_contain_text(f"layer {LAYERS - 1}, mean of {HEADS} heads")
    yield view
    notebook.watch.check()


def chosen(notebook: Notebook, patch: tuple[str, int, int]) -> None:
    notebook.wait_for("tuple(explorer.selected)", patch)


@pytest.mark.parametrize("patch", [("first", 4, 6), ("second", 0, 1), ("third", 6, 0)], ids=lambda patch: patch[0])
def test_hover_shows_on_every_grid_what_python_has(notebook: Notebook, view: View, patch: tuple) -> None:
    view.hover(patch)
    view.expect_selected(patch)
    chosen(notebook, patch)
    view.expect_weights(*notebook.value(ON_SCREEN))
    view.choice("direction", "incoming").click()
    notebook.wait_for("explorer.direction", "incoming")
    chosen(notebook, view.selected())  # on its way to the button the pointer crossed other patches
    expect(view.choice("direction", "incoming")).to_have_attribute("aria-pressed", "true")
    view.expect_weights(*notebook.value(ON_SCREEN))


def test_every_layer_and_head_is_the_tensor(notebook: Notebook, view: View) -> None:
    for layer in range(LAYERS):
        for head in (None, *range(HEADS)):
            view.cell("cross", layer, head).click()
            notebook.wait_for("explorer.layer, explorer.head", (layer, head))
            expect(view.cell("intra", layer, head)).to_have_attribute("aria-pressed", "true")
            view.expect_weights(*notebook.value(ON_SCREEN))
    notebook.shoot("explorer-light", view.root)


def test_a_click_locks_and_escape_unlocks(notebook: Notebook, view: View) -> None:
    view.click(("third", 1, 2))
    notebook.wait_for("explorer.locked", True)
    view.hover(("first", 0, 0))
    expect(view.root.locator("output.value")).to_be_visible()
    weights, tops = notebook.value(ON_SCREEN)
    said = float(view.root.locator("output.value").inner_text())
    assert said == pytest.approx(weights["first"][0][0], rel=0.05, abs=tops["cross"] * ERROR)
    view.expect_selected(("third", 1, 2))
    view.page.keyboard.press("Escape")
    notebook.wait_for("explorer.locked", False)
    view.hover(("first", 0, 1))
    chosen(notebook, ("first", 0, 1))


def test_keys_reach_python_and_not_jupyterlab(notebook: Notebook, view: View) -> None:
    view.stage("first").focus()
    view.hover(("first", 2, 3))
    presses = {
        "ArrowUp": ("tuple(explorer.selected)", ("first", 1, 3)),
        "ArrowRight": ("tuple(explorer.selected)", ("first", 1, 4)),
        "[": ("explorer.layer", LAYERS - 2),
        "]": ("explorer.layer", LAYERS - 1),
        ".": ("explorer.head", 0),
        ",": ("explorer.head", None),
        "d": ("explorer.direction", "incoming"),
        "p": ("[tuple(pin) for pin in explorer.pins]", [("first", 1, 4)]),
        "+": ("explorer.edges", 9),
        "-": ("explorer.edges", 8),
        "s": ("explorer.scale", "head"),
        "l": ("explorer.logarithmic", True),
        "n": ("explorer.picture", 1),
        "b": ("explorer.picture", 0),
        "c": ("explorer.compare", True),
        "Enter": ("explorer.locked", True),
        "g": ("explorer.view", "graph"),
        "m": ("explorer.head", None),
    }
    cells = notebook.page.locator(".jp-Cell").count()
    for key, (expression, expected) in presses.items():
        view.page.keyboard.press(key)
        notebook.wait_for(expression, expected)
    assert notebook.page.locator(".jp-Cell").count() == cells
    assert view.root.locator(".stage:focus").count() == 1


def test_play_walks_through_the_layers(notebook: Notebook, view: View) -> None:
    view.stage("first").focus()
    view.page.keyboard.press(" ")
    for layer in (0, 1):
        notebook.wait_for("explorer.layer", layer)
    view.page.keyboard.press(" ")
    expect(view.button("Play layers")).to_have_text("▶")



def test_pin_and_compare(notebook: Notebook, view: View) -> None:
    view.click(("first", 0, 0))
    view.page.keyboard.press("p")
    notebook.wait_for("[tuple(pin) for pin in explorer.pins]", [("first", 0, 0)])
    view.click(("first", 4, 6))
    view.button("− pin").click(timeout=3000)
    notebook.wait_for("explorer.compare", True)
    notebook.shoot("explorer-compare", view.root)
    before, after = (
        notebook.value(f"explorer._attention.row({patch}, layer=1)['second'].flatten().tolist()")
        for patch in [("first", 0, 0), ("first", 4, 6)]
    )
    colours = view.colours("second").reshape(-1, 3)
    difference = [b - a for a, b in zip(before, after, strict=True)]
    most, least = max(range(6), key=difference.__getitem__), min(range(6), key=difference.__getitem__)
    assert difference[most] > 0 > difference[least]
    assert colours[most][0] > colours[most][2]  # orange where the selected patch gives more
    assert colours[least][2] > colours[least][0]  # purple where it gives less
    view.button("Unpin first (0, 0)").click()
    notebook.wait_for("explorer.pins", [])


def test_sliders_and_python_move_each_other(notebook: Notebook, view: View) -> None:
    edges = view.root.locator("input[data-key='edges']")
    edges.fill("9")
    notebook.wait_for("explorer.edges", 9)
    expect(view.caption).to_contain_text("9 strongest edges")
    notebook.do("explorer.edges = 3")
    expect(view.caption).to_contain_text("3 strongest edges")
    expect(edges).to_have_value("3")

    handle = notebook.cell(2).locator(".noUi-handle")
    handle.focus()
    view.page.keyboard.press("ArrowLeft")
    notebook.wait_for("explorer.layer", 0)
    expect(view.sentence).to_contain_text("layer 0")


def test_arrow_keys_move_the_focused_slider(notebook: Notebook, view: View) -> None:
    view.root.locator("input[data-key='edges']").focus()
    view.page.keyboard.press("ArrowRight")
    notebook.wait_for("explorer.edges", 9, seconds=3)


def test_the_still_picture_gives_way_to_the_live_one(notebook: Notebook, view: View) -> None:
    expect(notebook.cell(1).locator("img[data-grafeat-twin]")).to_be_hidden(timeout=3000)


def test_the_caption_says_what_the_edges_keep(notebook: Notebook, view: View) -> None:
    notebook.do("explorer.edges = 5")
    expect(view.caption).to_contain_text("5 strongest edges")
    cross, _ = notebook.value(ON_SCREEN)
    values = sorted((w for name in ("second", "third") for row in cross[name] for w in row), reverse=True)
    kept = float(view.caption.inner_text().split("keep ")[1].split("%")[0])
    assert kept == pytest.approx(100 * sum(values[:5]), abs=1)


def test_python_sets_what_is_shown(notebook: Notebook, view: View) -> None:
    notebook.do("explorer.selected = ('second', 2, 1); explorer.layer = 0; explorer.head = 2")
    expect(view.sentence).to_contain_text("second patch (2, 1) · layer 0, head 2")
    view.expect_weights(*notebook.value(ON_SCREEN))
    for wrong in ("layer = 2", "head = 3", "picture = -1", "selected = ('second', 3, 0)"):
        with pytest.raises(Exception, match=r"(Value|Index|Key|Trait)Error"):
            notebook.do(f"explorer.{wrong}")
    expect(view.sentence).to_contain_text("second patch (2, 1) · layer 0, head 2")


def test_pictures_turn_and_predictions_are_the_models(notebook: Notebook, view: View) -> None:
    view.root.locator("button.picture[data-picture='2']").click()
    notebook.wait_for("explorer.picture", 2)
    expect(view.root.locator("button.picture[data-picture='2']")).to_have_attribute("aria-pressed", "true")
    model, grids, _ = example()
    model.eval()
    expected = model(grids[2]).logits.softmax(dim=-1)[0].sort(descending=True).values
    texts = view.root.locator(".prediction .much")
    expect(texts).to_have_text([f"{share:.2f}" for share in expected])
    view.expect_weights(*notebook.value(ON_SCREEN))
    view.root.get_by_role("button", name="Next picture").click()
    notebook.wait_for("explorer.picture", 3)


def test_the_graph_view_has_edges_of_both_kinds(notebook: Notebook, view: View) -> None:
    view.choice("view", "graph").click()
    notebook.wait_for("explorer.view", "graph")
    expect(view.sentence).to_contain_text("communities (Louvain)")
    expect(view.caption).to_contain_text("Routing, not importance")
    notebook.shoot("explorer-graph", view.root)
    view.choice("paint", "pagerank").click()
    expect(view.sentence).to_contain_text("highest PageRank: ")
    ranks = "gf.measures.pagerank(explorer._attention, layer=1, relative=True)"
    best = notebook.value(f"max({ranks}.items(), key=lambda item: item[1].max())[0]")
    expect(view.sentence).to_contain_text(f"highest PageRank: {best}")


def test_a_thousand_rapid_events_leave_both_sides_equal(notebook: Notebook, view: View) -> None:
    view.root.evaluate("""async (root) => {
        const stages = [...root.querySelectorAll(".stage")];
        const random = (() => { let seed = 7; return () => (seed = (seed * 16807) % 2147483647) / 2147483647; })();
        for (let i = 0; i < 1000; i++) {
            const stage = stages[Math.floor(random() * stages.length)];
            const box = stage.getBoundingClientRect();
            const [clientX, clientY] = [box.left + random() * box.width, box.top + random() * box.height];
            if (i % 5) stage.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
            else stage.dispatchEvent(new KeyboardEvent("keydown", { key: "[].,ds"[i / 5 % 6], bubbles: true }));
            if (i % 10 === 0) await new Promise(requestAnimationFrame);
        }
    }""")
    here = view.selected()
    chosen(notebook, here)
    shown = view.root.evaluate("(root) => root.querySelector('.sentence').textContent")
    layer, head = notebook.value("explorer.layer, explorer.head")
    assert f"layer {layer}, {'mean' if head is None else f'head {head}'}" in shown
    notebook.do("explorer.scale = 'row'")
    expect(view.choice("scale", "row")).to_have_attribute("aria-pressed", "true")
    view.expect_weights(*notebook.value(ON_SCREEN))


def test_light_and_dark(notebook: Notebook, view: View) -> None:
    assert axe(notebook.page, ".grafeat") == []
    light = view.root.evaluate("(root) => getComputedStyle(root.querySelector('.sentence')).color")
    notebook.theme(DARK)
    expect(view.root).to_have_attribute("data-theme", "dark")
    dark = view.root.evaluate("(root) => getComputedStyle(root.querySelector('.sentence')).color")
    assert light != dark
    view.expect_weights(*notebook.value(ON_SCREEN))
    notebook.shoot("explorer-dark", view.root)
    assert axe(notebook.page, ".grafeat") == []


def test_two_explorers_in_one_notebook(lab: Lab) -> None:
    cells = [SETUP, SHOW, "other = gf.Explorer(model, grids, pictures); other", "import ipywidgets\n"
             "ipywidgets.VBox([explorer])"]  # fmt: skip
    with lab.notebook(*cells, name="two") as notebook:
        notebook.run_all()
        one, other, twin = (
            View(notebook.page, notebook.cell(at).locator(".grafeat")).wait() for at in (1, 2, 3)
        )
        one.hover(("second", 1, 1))
        chosen(notebook, ("second", 1, 1))
        twin.expect_selected(("second", 1, 1))
        other.expect_selected(("first", 2, 3))
        assert notebook.value("tuple(other.selected)") == ("first", 2, 3)
        other.hover(("third", 0, 0))
        notebook.wait_for("tuple(other.selected)", ("third", 0, 0))
        one.expect_selected(("second", 1, 1))


def test_restarted_reopened_and_run_again(lab: Lab) -> None:
    with lab.notebook(SETUP, SHOW, name="again") as notebook:
        notebook.run_all()
        view = View(notebook.page, notebook.cell(1).locator(".grafeat")).wait()
        notebook.save()
        notebook.restart()
        view.hover(("third", 3, 3))
        view.expect_selected(("third", 3, 3))  # what is at hand needs no kernel
        notebook.run_all()
        view = View(notebook.page, notebook.cell(1).locator(".grafeat")).wait()
        view.hover(("third", 2, 2))
        chosen(notebook, ("third", 2, 2))
        view.expect_weights(*notebook.value(ON_SCREEN))
    with lab.open(notebook.path) as reopened:
        still = reopened.cell(1).locator("img[data-grafeat-twin]")
        expect(still).to_be_visible()
        still.scroll_into_view_if_needed()
        assert still.evaluate("(image) => image.naturalWidth") > 400
        reopened.shoot("explorer-reopened")


def test_rows_on_demand_above_the_limit(lab: Lab) -> None:
    small = "import grafeat.explorer.answers\ngrafeat.explorer.answers.LIVE = 0"
    with lab.notebook(SETUP, small, SHOW, name="demand") as notebook:
        notebook.run_all()
        view = View(notebook.page, notebook.cell(2).locator(".grafeat")).wait()
        for patch in (("third", 3, 3), ("second", 2, 0)):
            view.hover(patch)
            view.expect_selected(patch)
            chosen(notebook, patch)
            view.expect_weights(*notebook.value(ON_SCREEN))


def test_touch_selects_without_a_lock(lab: Lab) -> None:
    with lab.notebook(SETUP, SHOW, name="touch", touch=True) as notebook:
        notebook.run_all()
        view = View(notebook.page, notebook.cell(1).locator(".grafeat")).wait()
        view.tap(("second", 1, 0))
        chosen(notebook, ("second", 1, 0))
        assert notebook.value("explorer.locked") is False
        view.expect_weights(*notebook.value(ON_SCREEN))
