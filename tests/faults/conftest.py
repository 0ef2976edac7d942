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
def drivers() -> Iterator[tuple[Driver, Driver]]:
    """Two, which start side by side."""
    with Driver() as one, Driver() as other:
        yield one, other


@pytest.fixture(scope="session")
def driver(drivers: tuple[Driver, Driver]) -> Driver:
    return drivers[0]


@pytest.fixture(scope="session")
def other(drivers: tuple[Driver, Driver]) -> Driver:
    """A second process, for two at once."""
    return drivers[1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kill` runs once for each moment; the number seeds the moment."""
    if "kill" in metafunc.fixturenames:
        metafunc.parametrize("kill", range(KILLS))


@pytest.fixture
def flips() -> int:
    return FLIPS
