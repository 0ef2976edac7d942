"""Before any test: shapes are checked at run time, figures need no screen, the network is closed."""

import os
from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest
import torch
from walkthrough.network import close_network

# Must come before the first import of grafeat: from here on its type hints, shapes included, are checked.
jaxtyping.install_import_hook("grafeat", "typecheck.checked")

os.environ["MPLBACKEND"] = "Agg"
close_network()

# A busy machine is not a failure; the same examples on each run, so that a red test stays red.
hypothesis.settings.register_profile("grafeat", deadline=None, derandomize=True)
hypothesis.settings.load_profile("grafeat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first: they take longest, and whoever came to them last would run them alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """The threads of the smallest machine the suite is for, so that sums come out alike on larger ones.

    Fewer if OMP_NUM_THREADS says so: on a busy machine two threads wait for each other, and take 25 times as long.
    """
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Type hints are not checked, as for a user: the package's own errors must catch what is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def seeded_on_one_thread() -> Iterator[None]:
    """For tensors so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
