"""What the tests of faults share: one driver, and how often each fault is tried."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
from faults.driver import Driver

HARDER = int(os.environ.get("GRAFEAT_FAULTS", "1"))  # `make faults` tries each of them ten times as often
KILLS, FLIPS, EXAMPLES = 5 * HARDER, 200, 40 * HARDER
hypothesis.settings.register_profile("faults", parent=hypothesis.settings.get_profile("grafeat"), max_examples=EXAMPLES)


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with Driver() as started:
        yield started


@pytest.fixture(scope="session")
def other() -> Iterator[Driver]:
    """A second process, for two at once."""
    with Driver() as started:
        yield started


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kill` runs once for each moment; the number seeds the moment."""
    if "kill" in metafunc.fixturenames:
        metafunc.parametrize("kill", range(KILLS))


@pytest.fixture
def flips() -> int:
    return FLIPS
