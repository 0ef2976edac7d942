"""How large an exported explorer is and how fast it answers, beside BertViz: `python tests/benchmarks/explorer.py`.

Two backbones, 6 layers × 8 heads, width 128, diffuse attention (the worst case for both). Chromium opens both pages in
turn. Needs Chromium, `pip install bertviz`, and npm for the scripts that BertViz fetches when its page is opened: they
are handed to it from a folder, so that no network speed is measured. `--without-bertviz` leaves it out.

- Size: bytes of the file with one picture; and the seconds it takes to write, ours with knock-outs and relevance.
- First paint: from the start of navigation until the heatmaps, or BertViz's lines, are drawn.
- Hover and layer switch: from the event until the pixels of the grids are there; the navigator follows in the next
  frame and is counted apart.
- Error: the largest difference between a weight on the page and in Python, as a share of its row's maximum.

Writes `results/explorer.csv`.
"""

import argparse
import csv
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from machine import described
from playwright.sync_api import Browser, Page, Route, sync_playwright

import grafeat as gf

RESULTS = Path(__file__).parent / "results"
SIDES = (7, 14, 28)
LAYERS, HEADS, WIDTH = 6, 8, 128
OPENED = 3  # how often each page is opened; the median counts
NAMES = ("efficientnet_lite0", "small_vit")
SCRIPTS = {
    "require": "requirejs@2.3.6/require.js",
    "d3": "d3@5.7.0/dist/d3.min.js",
    "jquery": "jquery@2.2.4/dist/jquery.min.js",
}

READY = "() => { const e = document.querySelector('[data-grafeat-page]')?.explorer; return e?.drawn && e.strip.listed }"
DRAWN = "(lines) => document.querySelectorAll('svg line').length >= lines"
PAINTED = """(function wait() {
  const explorer = document.querySelector("[data-grafeat-page]")?.explorer;
  if (explorer?.drawn) window.painted = performance.now();
  else requestAnimationFrame(wait);
})()"""
HOVER = """async (rounds) => {
  const { explorer } = document.querySelector("[data-grafeat-page]");
  const [hovers, laters] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const panel = explorer.panels[round % explorer.panels.length];
    const box = panel.canvas.getBoundingClientRect();
    const [x, y] = [box.left + box.width * ((round * 0.37) % 1), box.top + box.height * ((round * 0.61) % 1)];
    const start = performance.now();
    panel.stage.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
    await null;
    for (const { canvas } of explorer.panels) canvas.getContext("2d").getImageData(0, 0, 1, 1);
    hovers.push(performance.now() - start);
    laters.push(later(explorer));
  }
  return [hovers, laters];
  function later(explorer) {
    cancelAnimationFrame(explorer.frame);
    explorer.frame = null;
    const [frame, asked] = [window.requestAnimationFrame, []];
    window.requestAnimationFrame = (callback) => asked.push(callback);
    explorer.soon();
    window.requestAnimationFrame = frame;
    const start = performance.now();
    for (const callback of asked) callback();
    return performance.now() - start;
  }
}"""
SWITCH = """async (rounds) => {
  const { explorer } = document.querySelector("[data-grafeat-page]");
  const found = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    explorer.root.dispatchEvent(new KeyboardEvent("keydown", { key: round % 10 < 5 ? "[" : "]", bubbles: true }));
    await null;
    for (const { canvas } of explorer.panels) canvas.getContext("2d").getImageData(0, 0, 1, 1);
    found.push(performance.now() - start);
  }
  return found;
}"""
ROWS = """([layer, head, vertices]) => {
  const { explorer } = document.querySelector("[data-grafeat-page]");
  return vertices.map((vertex) => Array.from(explorer.weights.row(layer, head, vertex)));
}"""


def main() -> None:
    """Measures both and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--without-bertviz", action="store_true")
    parser.add_argument("--write", type=Path, default=RESULTS / "explorer.csv")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        browser.new_page().goto("about:blank")  # a browser's first page is slower than any other
        for side in args.sides:
            rows.append(ours(browser, side, Path(folder)))
            print(rows[-1])
            if side <= 14 and not args.without_bertviz:
                rows.append(bertviz(browser, side, Path(folder)))
                print(rows[-1])
    with args.write.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "machine": described()} for row in rows)


def chromium() -> str:
    """The system's own."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("no Chromium was found; install the package chromium")
    return found


def ours(browser: Browser, side: int, folder: Path) -> dict[str, object]:
    """Our page for two grids of side × side."""
    torch.manual_seed(0)
    grids = gf.GridSet([gf.FeatureGrid(name, torch.randn(1, 64, side, side)) for name in NAMES])
    model = gf.GraFeatMerge.for_grids(grids, num_classes=10, width=WIDTH, depth=LAYERS, heads=HEADS)
    explorer = gf.Explorer(model, grids, pictures=torch.rand(1, 3, 28, 28))
    start = time.perf_counter()
    path = explorer.to_html(folder / f"grafeat_{side}.html", limit=100_000_000)
    written = time.perf_counter() - start
    paints = []
    for _ in range(OPENED):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(PAINTED)
        page.goto(path.as_uri())
        page.wait_for_function(READY, polling="raf")
        paints.append(page.evaluate("() => window.painted"))
    hovers, laters = page.evaluate(HOVER, 60)
    switches = page.evaluate(SWITCH, 40)
    row = {
        "what": "grafeat", "patches": 2 * side**2, "MB": f"{path.stat().st_size / 1e6:.2f}",
        "written s": f"{written:.1f}", "first paint ms": f"{statistics.median(paints):.0f}",
        "hover ms": f"{statistics.median(hovers):.2f}", "navigator ms": f"{statistics.median(laters):.2f}",
        "layer switch ms": f"{statistics.median(switches):.2f}",
        "largest error": f"{largest_error(page, explorer):.5f}", "machine": "",
    }  # fmt: skip
    page.close()
    return row


def largest_error(page: Page, explorer: gf.Explorer) -> float:
    """Of every row in the last layer's heads, against the captured weights."""
    n = explorer._source.graph.num_vertices
    vertices = list(range(0, n, max(1, n // 98)))
    worst = 0.0
    same = torch.arange(n) < n // 2
    same = same[:, None] == same[None, :]
    for head in (0, HEADS - 1):
        found = torch.tensor(page.evaluate(ROWS, [LAYERS - 1, head, vertices]))
        expected = explorer._attention.dense(layer=LAYERS - 1, head=head)[vertices]
        for part in (same[vertices], ~same[vertices]):
            top = expected.masked_fill(~part, 0).amax(dim=1, keepdim=True)
            worst = max(worst, float((((found - expected).abs() / top) * part).max()))
    return worst


def bertviz(browser: Browser, side: int, folder: Path) -> dict[str, object]:
    """BertViz's head view of as many tokens, layers and heads."""
    from bertviz import head_view

    tokens = 2 * side**2
    torch.manual_seed(0)
    attention = [torch.randn(1, HEADS, tokens, tokens).softmax(-1) for _ in range(LAYERS)]
    start = time.perf_counter()
    made = head_view(attention, [str(token) for token in range(tokens)], html_action="return")
    path = folder / f"bertviz_{side}.html"
    path.write_text(f"<!DOCTYPE html><meta charset='utf-8'><body>{made.data}</body>")
    written = time.perf_counter() - start
    scripts, lines, paints = fetched(folder), HEADS * tokens**2, []
    for _ in range(OPENED):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        page.route(re.compile("^https://"), lambda route: serve(route, scripts))
        page.goto(path.as_uri())
        page.wait_for_function(DRAWN, arg=lines, polling=50)
        paints.append(page.evaluate("() => performance.now()"))
    start = time.perf_counter()
    page.evaluate(
        """async () => { const s = document.querySelector('select'); s.selectedIndex = 3;
        s.dispatchEvent(new Event('change'));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done))); }"""
    )
    switch = 1000 * (time.perf_counter() - start)
    hover = page.evaluate(
        """async () => { const times = []; const boxes = document.querySelectorAll('#left text');
        for (const box of [boxes[20], boxes[40], boxes[60]]) { const start = performance.now();
          box.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          times.push(performance.now() - start); }
        return times.sort((a, b) => a - b)[1]; }"""
    )
    page.close()
    return {
        "what": "BertViz head view", "patches": tokens, "MB": f"{path.stat().st_size / 1e6:.2f}",
        "written s": f"{written:.1f}", "first paint ms": f"{statistics.median(paints):.0f}", "hover ms": f"{hover:.0f}",
        "navigator ms": "", "layer switch ms": f"{switch:.0f}", "largest error": "", "machine": "",
    }  # fmt: skip


def fetched(folder: Path) -> dict[str, Path]:
    """The scripts that BertViz's page asks a content network for."""
    found = {}
    for name, source in SCRIPTS.items():
        package, inside = source.split("/", 1)
        to = folder / name
        if not to.exists():
            to.mkdir()
            command = ["npm", "pack", "--silent", package]
            packed = subprocess.run(command, cwd=to, check=True, capture_output=True, text=True)
            shutil.unpack_archive(to / packed.stdout.strip(), to)
        found[name] = to / "package" / inside
    return found


def serve(route: Route, scripts: dict[str, Path]) -> None:
    """Answers with the script of that name."""
    name = next((name for name in scripts if name in route.request.url), None)
    route.fulfill(path=scripts[name], content_type="text/javascript") if name else route.abort()


if __name__ == "__main__":
    main()
