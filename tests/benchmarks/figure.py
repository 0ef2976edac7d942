"""Takes the README's picture of the explorer: `python tests/benchmarks/figure.py`. Needs Chromium."""

import tempfile
from pathlib import Path

import torch
from digits import LITE, PER_CLASS, feature_grids
from explorer import READY, chromium
from playwright.sync_api import sync_playwright

import grafeat as gf

PATH = Path("notebooks/explorer.png")
LOOKED_AT = 100  # test digits among which the sharpest cross attention is looked for


def main() -> None:
    """Trains the script's pair on 500 labels and opens the page where cross attention is sharpest."""
    grids = feature_grids("small_vit").few_labels(PER_CLASS, seed=0)
    model = gf.GraFeatMerge.for_grids(grids, num_classes=10)
    gf.fit(model, grids.train, val=grids.val, seed=0)
    explorer = gf.Explorer(model, grids.test, pictures=gf.load_dataset("mnist5k").few_labels(PER_CLASS, seed=0).test)
    explorer.state = sharpest(model, grids.test[:LOOKED_AT]) | {"edges": 12, "locked": True}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = explorer.to_html(Path(folder) / "page.html")
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(viewport={"width": 1240, "height": 1400}, device_scale_factor=1.5)
        window.goto(page.as_uri())
        window.wait_for_function(READY)
        window.locator(".strip img").first.wait_for()
        window.locator(".values .sum", has_text="logit").wait_for()  # asked for once it is in view
        window.locator(".grafeat").screenshot(path=PATH)
        browser.close()


def sharpest(model: gf.GraFeatMerge, grids: gf.GridSet) -> dict[str, object]:
    """Picture, layer, head and patch of EfficientNet's whose cross attention has the largest weight."""
    with torch.no_grad(), gf.capture(model) as attention:
        model(grids)
    weights = torch.stack([attention.cross(LITE, "small_vit", layer=layer) for layer in range(2)])
    found = weights.flatten(-2).amax(dim=-1)  # (layers, pictures, heads, h, w)
    layer, picture, head, row, column = torch.unravel_index(found.argmax(), found.shape)
    place = (LITE, int(row), int(column))
    return {"picture": int(picture), "layer": int(layer), "head": int(head), "selected": place}


if __name__ == "__main__":
    main()
