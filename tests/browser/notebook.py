"""One notebook in JupyterLab, driven through the application object that the page exposes."""

import ast
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

from .page import Watch, pixel, shoot

READY_MS = 60_000  # a page of JupyterLab and a kernel, on a busy machine
WAIT_MS = 20_000  # whatever else is waited for
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"

# `app`, and `panel` of the notebook whose path is the first argument
_PRELUDE = """
    const app = window.jupyterapp;
    const panel = app && [...app.shell.widgets("main")].find((w) => w.context?.path === path);
"""
_THERE = f"(path) => {{ {_PRELUDE} return Boolean(panel); }}"
_READY = """
    await app.restored;
    await panel.context.ready;
    await panel.sessionContext.ready;
"""
_ASK = """
    const kernel = panel.sessionContext.session.kernel;
    const { content } = await kernel.requestExecute({
        code: given.code, silent: true, store_history: false, stop_on_error: false,
        user_expressions: given.expression === null ? {} : { it: `repr((${given.expression}))` },
    }).done;
    const answer = content.status === "ok" && given.expression !== null ? content.user_expressions.it : content;
    if (answer.status !== "ok") throw new Error(`${answer.ename}: ${answer.evalue}`);
    return given.expression === null ? null : answer.data["text/plain"];
"""
_OUTPUTS = "return panel.content.widgets[given].model.outputs?.toJSON() ?? [];"
_RESTART = """
    await panel.sessionContext.restartKernel();
    await panel.sessionContext.session.kernel.info;
"""


class Notebook:
    """An open notebook: `page` is Playwright's, and everything below waits until it is done."""

    def __init__(self, page: Page, watch: Watch, path: Path) -> None:
        self.page = page
        self.watch = watch
        self.path = path
        page.set_default_timeout(WAIT_MS)

    def wait_until_ready(self) -> None:
        self.page.wait_for_function(_THERE, arg=self.path.name, timeout=READY_MS)
        self._evaluate(_READY)
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        self._wait_for_splash()
        self.theme(LIGHT)

    def _evaluate(self, script: str, given: Any = None) -> Any:
        return self.page.evaluate(f"async ([path, given]) => {{ {_PRELUDE} {script} }}", [self.path.name, given])

    def command(self, name: str, **arguments: Any) -> Any:
        """Executes a command of JupyterLab's, as its menus do."""
        script = "return (await app.commands.execute(given.name, given.arguments)) ?? null;"
        return self._evaluate(script, {"name": name, "arguments": arguments})

    # cells

    def run_all(self) -> None:
        """Runs every cell and waits for the last; an error in a cell is raised here."""
        self._evaluate("app.shell.activateById(panel.id); await app.commands.execute('notebook:run-all-cells');")
        for index in range(self._evaluate("return panel.content.widgets.length;")):
            self._output(index)

    def run(self, index: int) -> str:
        """Runs one cell (from 0) and gives the text it printed or showed."""
        self._evaluate("app.shell.activateById(panel.id); panel.content.activeCellIndex = given;"
                       "await app.commands.execute('notebook:run-cell');", index)  # fmt: skip
        return self._output(index)

    def _output(self, index: int) -> str:
        texts = []
        for output in self._evaluate(_OUTPUTS, index):
            if output["output_type"] == "error":
                raise AssertionError(f"cell {index}: {output['ename']}: {output['evalue']}")
            texts.append(_text(output.get("text") or output.get("data", {}).get("text/plain", "")))
        return "".join(texts)

    def cell(self, index: int) -> Locator:
        """A cell (from 0), its outputs included."""
        return self.page.locator(f".jp-NotebookPanel .jp-Cell[data-windowed-list-index='{index}']")

    # Python's side

    def do(self, code: str) -> None:
        """Executes statements in the notebook's kernel, without a cell."""
        self._evaluate(_ASK, {"code": code, "expression": None})

    def ask(self, expression: str) -> str:
        """The repr of a Python expression in the notebook's kernel."""
        return ast.literal_eval(self._evaluate(_ASK, {"code": "", "expression": expression}))

    def value(self, expression: str) -> Any:
        """The same as a value: numbers, strings, lists, tuples, dicts, None."""
        return ast.literal_eval(self.ask(expression))

    def wait_for(self, expression: str, expected: Any, *, seconds: float = 15) -> None:
        """Until Python has that value. What a page sends may come after the next question: they travel apart."""
        end = time.monotonic() + seconds
        while (value := self.value(expression)) != expected:
            if time.monotonic() > end:
                raise AssertionError(f"{expression} is {value!r} after {seconds} s, expected {expected!r}")
            self.page.wait_for_timeout(25)

    def restart(self) -> None:
        """Restarts the kernel: Python forgets everything, the page keeps what it shows."""
        self._evaluate(_RESTART)

    # JupyterLab

    def theme(self, name: str) -> None:
        """LIGHT or DARK. A notebook opens in the light one, whatever the one before it chose."""
        self.command("apputils:change-theme", theme=name)
        light = "true" if name == LIGHT else "false"
        self.page.locator(f"body[data-jp-theme-light='{light}']").wait_for(state="attached")
        self._wait_for_splash()

    def _wait_for_splash(self) -> None:
        """JupyterLab's own animation, which covers the page and takes its clicks."""
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def save(self) -> None:
        self._evaluate("await panel.context.save();")

    def shoot(self, name: str, at: Locator | None = None) -> Path:
        """Writes build/browser/NAME.png: the page, or one element."""
        return shoot(at or self.page, name)

    def pixel(self, canvas: Locator, x: float, y: float) -> tuple[int, int, int, int]:
        return pixel(canvas, x, y)

    def close(self) -> None:
        """Ends the kernel."""
        self._evaluate("await panel.sessionContext.shutdown();")


def _text(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
