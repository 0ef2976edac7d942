"""The browser and the lab of these tests, gone when the last of them is done.

Not of the whole session: while Playwright runs, no other test could run an event loop of its own.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from .lab import Lab, running_lab
from .page import MISSING, find_browser, launch


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        chromium = launch(playwright, program)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(browser, tmp_path_factory.mktemp("lab")) as lab:
        yield lab
