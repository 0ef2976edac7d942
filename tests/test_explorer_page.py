"""The exported file: one page that holds all it needs, within its limit, written whole or not at all."""

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from test_explorer_payload import HEADS, LAYERS
from test_explorer_widget import PICTURES, explorer, grids, model  # noqa: F401, fixtures
from walkthrough.fetches import fetched_parts

import grafeat as gf
from grafeat.explorer import Explorer
from grafeat.explorer.page import chosen
from grafeat.explorer.payload import Shape


def facts(page: str) -> dict:
    """What the page's script reads first."""
    (inside,) = re.findall(r'class="grafeat-facts">(.*?)</script>', page)
    return json.loads(inside)


def array(page: str, picture: int, name: str) -> np.ndarray:
    """One array out of the page's packed data."""
    (packed,) = re.findall(rf'data-picture="{picture}">(.*?)</script>', page)
    content = zlib.decompress(base64.b64decode(packed))
    dtype, shape, offset = facts(page)["pictures"][str(picture)]["places"][name]
    return np.frombuffer(content, dtype, int(np.prod(shape)), offset).reshape(shape)


def test_holds_the_weights_and_fetches_nothing(explorer: Explorer, tmp_path: Path) -> None:  # noqa: F811
    explorer.picture, explorer.layer, explorer.head = 7, 0, 1
    page = explorer.to_html(tmp_path / "page.html", pictures=[7, 2]).read_text(encoding="utf-8")
    assert fetched_parts(page) == []
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "default-src 'none'" in page
    top = array(page, 7, "top")
    assert top.shape == (LAYERS, HEADS + 1, 2)
    own = [explorer._attention.block(name, name, layer=0, head=1).max() for name in explorer._source.graph.names]
    assert top[0, 1, 0] == pytest.approx(float(max(own)), rel=1e-5)
    assert facts(page)["state"] == json.loads(json.dumps(explorer.state))
    assert list(facts(page)["pictures"]) == ["7", "2"]


def test_opens_on_a_picture_that_it_holds(explorer: Explorer, tmp_path: Path) -> None:  # noqa: F811
    explorer.picture = 9
    page = explorer.to_html(tmp_path / "page.html", pictures=[3, 5]).read_text(encoding="utf-8")
    assert facts(page)["state"]["picture"] == 3
    page = explorer.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert list(facts(page)["pictures"]) == ["0", "1", "2", "3", "4", "5", "6", "9"]
    assert facts(page)["state"]["picture"] == 9


def test_pictures_that_are_not_there_are_refused_and_an_old_page_stays(explorer: Explorer, tmp_path: Path) -> None:  # noqa: F811
    path = explorer.to_html(tmp_path / "page.html", pictures=[0])
    before = path.read_bytes()
    for pictures, text in (([PICTURES], "pictures: got 11; expected 0 to 10"), ([], "pictures: got none")):
        with pytest.raises(ValueError, match=text):
            explorer.to_html(path, pictures=pictures)
    with pytest.raises(ValueError, match=r"limit: 1 pictures would take .* pass fewer pictures=, or a higher limit="):
        explorer.to_html(path, pictures=[0], limit=2000)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_path_that_cannot_be_written_is_named(explorer: Explorer, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "file").touch()
    for write in (explorer.to_html, explorer.to_png, explorer.to_svg, explorer.to_graphml):
        with pytest.raises(OSError, match=r"path: could not write .*file/page"):
            write(tmp_path / "file" / "page")


def test_what_does_not_fit_exactly_is_cut_to_the_strongest(tmp_path: Path) -> None:
    fine = [gf.FeatureGrid(name, torch.randn(1, 3, 5, 11)) for name in "ab"]
    large = Explorer(gf.GraFeatMerge.for_grids(fine, num_classes=2, width=14 * HEADS, heads=HEADS), fine)
    shape = Shape.of(large._attention)
    limit = int(4 / 3 * shape.nbytes("strongest", 8)) + 1
    assert limit < 4 / 3 * shape.nbytes(shape.smallest())
    page = large.to_html(tmp_path / "page.html", pictures=[0], limit=limit).read_text(encoding="utf-8")
    about = facts(page)["pictures"]["0"]
    assert (about["form"], about["k"]) == ("strongest", 8)
    assert (array(page, 0, "kept") <= 1 + 1e-6).all()


def test_the_form_follows_from_size_and_limit() -> None:
    large = Shape(6, 8, 1568, 16)
    assert chosen(large, 1, 20_000_000) == ("states", 0)
    assert chosen(large, 2, 20_000_000) == ("strongest", 8)
    assert chosen(Shape(6, 8, 98, 16), 8, 20_000_000) == ("rows", 0)
    with pytest.raises(ValueError, match=r"limit: 9 pictures would take 137 MB, and 40.6 MB even with the 4 strongest"):
        chosen(large, 9, 20_000_000)


def test_names_that_look_like_tags_stay_text(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    odd = [gf.FeatureGrid(name, torch.randn(1, 3, 2, 2)), gf.FeatureGrid("b & <i>", torch.randn(1, 3, 2, 3))]
    made = gf.GraFeatMerge.for_grids(odd, num_classes=2, width=12, heads=3)
    page = Explorer(made, odd).to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert facts(page)["facts"]["backbones"][0]["name"] == name
    assert "<title>Attention of &lt;/script&gt;" in page


@pytest.mark.parametrize("view", ["patch", "graph"])
@pytest.mark.parametrize("scale", ["row", "head", "shared"])
def test_still_pictures_are_drawn_in_every_view(explorer: Explorer, tmp_path: Path, view: str, scale: str) -> None:  # noqa: F811
    explorer.state = {"view": view, "scale": scale, "head": 1, "pins": [("cnn", 3, 0)], "edges": 5}
    png, svg = explorer.to_png(tmp_path / "still.png"), explorer.to_svg(tmp_path / "still.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text(encoding="utf-8")
    assert "routing, not importance" in text
    assert ("layer 1, head 1" in text) == (view == "patch")
