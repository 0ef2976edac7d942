"""The exported explorer of a model with joint layers: each grid says which share of the one softmax it has."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, expect

import grafeat as gf

from .explorer import View, example, on_screen
from .page import offline_page, shoot


def explorer(names: tuple[str, ...] = ("first", "second", "third")) -> gf.Explorer:
    _, grids, pictures = example()
    chosen = grids.only(*names)
    model = gf.GraFeatMerge.for_grids(chosen, num_classes=3, width=24, depth=2, heads=3, joint=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    made = gf.Explorer(model, chosen, pictures)
    made.outlines = False
    return made


@pytest.fixture(params=[("first", "third"), ("first", "second", "third")], ids=["two", "three"])
def shown(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[tuple[gf.Explorer, View]]:
    made = explorer(request.param)
    with offline_page(browser, made.to_html(tmp_path / "joint.html", effects=False)) as (page, _):
        yield made, View(page, page.locator(".grafeat")).wait()


@pytest.mark.parametrize("shown", [("first", "second", "third")], indirect=True, ids=["three"])
def test_the_page_shows_the_joint_weights(shown: tuple[gf.Explorer, View]) -> None:
    made, view = shown
    for patch in (("first", 4, 6), ("third", 6, 0)):
        view.hover(patch)
        view.expect_selected(patch)
        made.selected = view.selected()
        view.expect_weights(*on_screen(made))


def test_the_masses_of_all_grids_sum_to_one(shown: tuple[gf.Explorer, View]) -> None:
    made, view = shown
    view.click(("first", 2, 3))
    said = [float(share) for share in re.findall(r"([\d.]+)%", view.root.locator(".mass").inner_text())]
    weights = made._source[0].attention.row(("first", 2, 3), layer=1)
    assert said == pytest.approx([100 * float(part.sum()) for part in weights.values()], abs=0.6)
    assert sum(said) == pytest.approx(100, abs=1.5)
    header = view.root.locator(".grids").inner_text()
    assert re.search(r"intra [\d.]+%", header) and re.search(r"cross [\d.]+%", header)
    shoot(view.page, "page-joint")


def test_edges_keep_a_share_of_their_kinds_mass(shown: tuple[gf.Explorer, View]) -> None:
    made, view = shown
    view.click(("first", 2, 3))
    weights = made._source[0].attention.row(("first", 2, 3), layer=1)
    cross = torch.cat([part.flatten() for name, part in weights.items() if name != "first"])
    share = float(cross.topk(8).values.sum() / cross.sum())
    found = re.search(r"keep ([\d.]+)% of the cross mass", view.caption.inner_text())
    assert found and float(found[1]) == pytest.approx(100 * share, abs=0.6)
    view.page.keyboard.press("g")
    expect(view.caption).to_contain_text("strongest edges keep")
    kept = made.to_networkx(8).graph["kept"]
    found = re.findall(r"edges keep ([\d.]+)%", view.caption.inner_text())
    assert len(found) == 2 and float(found[1]) == pytest.approx(100 * kept["cross"], abs=0.1)
