"""The harness itself, on a widget of ten lines: what it says of the explorer is worth what it says of this one."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from . import page as pages
from .lab import Lab
from .notebook import DARK, Notebook
from .page import axe, offline_page, pixel, shoot, watched

COUNTER = '''
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = """
    export default { render({ model, el }) {
        const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 32, className: "counter" });
        const text = document.createElement("output");
        const draw = () => {
            const count = model.get("count"), ink = canvas.getContext("2d");
            ink.fillStyle = `rgb(${count}, 0, 200)`;
            ink.fillRect(0, 0, 64, 32);
            text.textContent = `count ${count}`;
        };
        canvas.onclick = () => { model.set("count", model.get("count") + 1); model.save_changes(); };
        model.on("change:count", draw);
        draw();
        el.append(canvas, text);
    } };
    """
    count = traitlets.Int(40).tag(sync=True)

counter = Counter()
counter
'''


def shown(notebook: Notebook, count: int) -> None:
    expect(notebook.page.locator("output")).to_have_text(f"count {count}")
    assert pixel(notebook.page.locator("canvas.counter"), 63.5, 31.5) == (count, 0, 200, 255)


def test_page_and_python_see_each_other(lab: Lab) -> None:
    with lab.notebook(COUNTER, "print('printed'); counter.count * 2", name="harness") as notebook:
        notebook.run_all()
        shown(notebook, 40)
        notebook.page.locator("canvas.counter").click()
        notebook.wait_for("counter.count", 41)
        shown(notebook, 41)
        assert notebook.run(1) == "printed\n82"

        notebook.do("counter.count = 77")
        shown(notebook, 77)
        assert notebook.ask("counter.count, 'é'") == "(77, 'é')"

        notebook.theme(DARK)
        assert notebook.shoot("harness-dark").stat().st_size > 10_000
        assert axe(notebook.page, "canvas.counter") == []

        notebook.save()
        assert "application/vnd.jupyter.widget-view+json" in notebook.path.read_text()

        notebook.restart()
        assert notebook.value("'counter' in globals()") is False
        notebook.run_all()
        shown(notebook, 40)


def test_kernels_find_this_package_and_no_network(lab: Lab) -> None:
    reach = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
    with lab.notebook(reach, "1/0", name="kernel") as notebook:
        assert Path(notebook.value("__import__('importlib').util.find_spec('grafeat').origin")) == (
            pages.ROOT / "grafeat" / "__init__.py"
        )
        with pytest.raises(AssertionError, match="cell 0: NetworkClosed"):
            notebook.run(0)
        with pytest.raises(AssertionError, match="cell 1: ZeroDivisionError"):
            notebook.run(1)
        with pytest.raises(AssertionError, match="cell 0: NetworkClosed"):
            notebook.run_all()
        with pytest.raises(Exception, match="NameError: name 'nowhere' is not defined"):
            notebook.ask("nowhere")
        with pytest.raises(AssertionError, match=r"1 is 1 after 0\.1 s, expected 2"):
            notebook.wait_for("1", 2, seconds=0.1)


def write(path: Path, body: str) -> Path:
    path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><main>{body}</main>')
    return path


def test_a_quiet_file_passes(browser: Browser, tmp_path: Path) -> None:
    picture = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
    file = write(tmp_path / "quiet.html", f'<h1>quiet</h1><img alt="dot" src="{picture}"><a href="#here">here</a>')
    with offline_page(browser, file) as (page, watch):
        page.locator("a").click()
        assert watch.requests[0] == file.as_uri()
        assert axe(page) == []
        assert shoot(page.locator("h1"), "harness-file").exists()


@pytest.mark.parametrize("body, complaint", [
    ("<script>console.error('ouch')</script>", "ouch"),
    ("<script>nowhere()</script>", "nowhere is not defined"),
    ("<script>Promise.reject(new Error('broken'))</script>", "broken"),
    ("<img alt='' src='https://example.org/dot.png'>", r"example\.org/dot\.png"),
    ("<script>fetch('https://example.org/x').catch(() => 0)</script>", r"example\.org/x"),
    ("<script>try { new WebSocket('wss://example.org/s') } catch {}</script>", r"example\.org/s"),
    ("<script src='beside.js'></script>", r"beside\.js"),
], ids=lambda value: None)  # fmt: skip
def test_a_page_that_complains_or_asks_fails(browser: Browser, tmp_path: Path, body: str, complaint: str) -> None:
    file = write(tmp_path / "loud.html", body)
    with pytest.raises(AssertionError, match=complaint), offline_page(browser, file) as (page, _):
        page.wait_for_load_state("networkidle")
    (pages.SHOTS / "loud-failed.png").unlink()


def test_a_failing_test_is_told_what_the_page_said(browser: Browser) -> None:
    with pytest.raises(ZeroDivisionError) as failed, watched(browser, "told", lambda _: True) as (page, _):
        page.evaluate("console.error('the page knew')")
        _ = 1 / 0
    assert "the page knew" in "".join(failed.value.__notes__)
    (pages.SHOTS / "told-failed.png").unlink()


def test_axe_names_rule_and_element(browser: Browser, tmp_path: Path) -> None:
    with offline_page(browser, write(tmp_path / "axe.html", "<h1>t</h1><button></button>")) as (page, _):
        (violation,) = axe(page)
    assert (violation.rule, violation.impact) == ("button-name", "critical")
    assert "<button>" in violation.nodes[0]


def test_without_a_browser_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert pages.find_browser() is None
    assert "install" in pages.MISSING
    assert "chromium" in pages.MISSING
