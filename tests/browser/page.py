"""A real Chromium: where it is, what its pages asked for and complained about, and how to look at them."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Playwright
from walkthrough.record import ROOT

SHOTS = ROOT / "build" / "browser"  # for a person to look at
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"no browser here ({', '.join(PROGRAMS)}): install Debian's packages chromium and fonts-dejavu-core"
PROJECTOR = (1280, 800)  # the width that the explorer must be readable at

_FLAGS = (
    "--no-sandbox",  # a container's root may not make one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # and what is asked for elsewhere is not reached
)
_PIXEL = """(canvas, [x, y]) => {
    const box = canvas.getBoundingClientRect();
    const at = [x * canvas.width / box.width, y * canvas.height / box.height].map(Math.floor);
    return [...canvas.getContext("2d").getImageData(...at, 1, 1).data];
}"""


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def launch(playwright: Playwright, program: str) -> Browser:
    return playwright.chromium.launch(executable_path=program, args=[*_FLAGS])


@dataclass(eq=False)
class Watch:
    """Collects, from all pages of one context, every request and every error, and judges them."""

    allowed: Callable[[str], bool]
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> "Watch":
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("console", self._hear)
        context.on("weberror", lambda web: self.errors.append(f"uncaught: {web.error}"))
        context.on("page", lambda page: page.on("websocket", lambda socket: self.requests.append(socket.url)))
        return self

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            place = message.location
            self.errors.append(f"{message.text} ({place['url']}:{place['lineNumber']})")

    @property
    def strays(self) -> list[str]:
        """Requests that went where they must not."""
        return [url for url in self.requests if not (_inside(url) or self.allowed(url))]

    def check(self) -> None:
        assert not self.strays, f"requests that leave: {self.strays}"
        assert not self.errors, "errors in the console:\n" + "\n".join(self.errors)


def _inside(url: str) -> bool:
    return urlsplit(url).scheme in {"data", "blob", "about"}


@contextmanager
def watched(
    browser: Browser,
    name: str,
    allowed: Callable[[str], bool],
    *,
    size: tuple[int, int] = PROJECTOR,
    touch: bool = False,
    offline: bool = False,
) -> Iterator[tuple[Page, Watch]]:
    """A page in a context of its own; judged when the block ends, drawn as `NAME-failed` when it fails."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=touch, offline=offline)
    watch = Watch(allowed).over(context)
    page = context.new_page()
    try:
        yield page, watch
        watch.check()
    except BaseException as failure:
        for error in [*watch.errors, *watch.strays]:
            failure.add_note(f"the page says: {error}")
        shoot(page, f"{name}-failed")
        raise
    finally:
        context.close()


@contextmanager
def offline_page(
    browser: Browser, path: Path, *, size: tuple[int, int] = PROJECTOR, touch: bool = False
) -> Iterator[tuple[Page, Watch]]:
    """A file opened from disk with the network off: it may ask for itself and for nothing else."""
    url = path.resolve().as_uri()

    def itself(asked: str) -> bool:
        return asked.partition("#")[0] == url

    with watched(browser, path.stem, itself, size=size, touch=touch, offline=True) as (page, watch):
        page.goto(url)
        yield page, watch


def shoot(at: Page | Locator, name: str) -> Path:
    """Writes build/browser/NAME.png."""
    path = SHOTS / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    at.screenshot(path=path)
    return path


def pixel(canvas: Locator, x: float, y: float) -> tuple[int, int, int, int]:
    """Red, green, blue and alpha (0 to 255) of a 2d canvas, `x` and `y` in CSS pixels from its corner."""
    red, green, blue, alpha = canvas.evaluate(_PIXEL, [x, y])
    return red, green, blue, alpha


@dataclass(frozen=True)
class Violation:
    """One rule of axe-core that a page breaks, and the elements that break it."""

    rule: str
    impact: str
    help: str
    nodes: tuple[str, ...]


def axe(page: Page, inside: str | None = None) -> list[Violation]:
    """The serious and critical violations in a page, or in the elements that the selector `inside` finds."""
    found = Axe().run(page, context=inside).response["violations"]
    return [
        Violation(v["id"], v["impact"], v["help"], tuple(_node(node) for node in v["nodes"]))
        for v in found
        if v["impact"] in {"serious", "critical"}
    ]


def _node(node: dict) -> str:
    return f"{node['html']}: {node.get('failureSummary', '')}"
