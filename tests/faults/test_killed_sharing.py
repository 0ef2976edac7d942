"""Several processes that share an extraction are killed at a random moment: any number of them goes on to the byte."""

import random
import time
from pathlib import Path

import pytest
from faults.driver import Driver
from faults.jobs import BATCH, COUNT

from grafeat.store import GridStore

JOB, SHARED = "faults.jobs:extraction", "faults.jobs:shared_extraction"
BATCHES = 2 * -(-COUNT // BATCH)  # of both backbones


def tree(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def started(drivers: tuple[Driver, ...], folder: Path, run: int) -> list[int]:
    """One process for each driver, all at the same store; their ids."""
    where = {name: str(folder / name) for name in ("store", "log")}
    meeting = folder / f"meeting{run}"
    meeting.mkdir()
    return [
        one.start(SHARED, **where, meeting=str(meeting), process=process, processes=len(drivers))
        for process, one in enumerate(drivers)
    ]


def computed(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture(scope="session")
def alone(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store as one process writes it."""
    folder = tmp_path_factory.mktemp("alone")
    assert driver.run(JOB, store=str(folder / "store"), log=str(folder / "log")).status == 0
    return tree(folder / "store")


@pytest.fixture(scope="session")
def shared(
    drivers: tuple[Driver, Driver], alone: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> float:
    """How long two take that no one disturbs; they write what one does."""
    seconds = []
    for number in range(2):  # the first one warms up
        folder, start = tmp_path_factory.mktemp(f"shared{number}"), time.perf_counter()
        started(drivers, folder, 0)
        assert [one.ended() for one in drivers] == [0, 0]
        seconds.append(time.perf_counter() - start)
        assert tree(folder / "store") == alone and computed(folder / "log") == BATCHES
    return min(seconds)


def test_killed_processes_are_resumed_by_any_number_to_the_byte(
    tmp_path: Path, drivers: tuple[Driver, Driver], alone: dict[str, bytes], shared: float, kill: int
) -> None:
    """Twice killed, the second time perhaps with another number; the third run ends, and leaves nothing but grids."""
    chance = random.Random(kill)
    for run in range(2):
        running = drivers[: chance.choice([1, 2])]
        processes = started(running, tmp_path, run)
        time.sleep(chance.random() * shared)
        for one, process in zip(running, processes, strict=True):
            one.kill(process)
        assert {one.ended() for one in running} <= {0, -9}
        assert not (tmp_path / "store").exists() or GridStore(tmp_path / "store").verify() == []
    running = drivers[: chance.choice([1, 2])]
    started(running, tmp_path, 2)
    assert {one.ended() for one in running} == {0}
    assert tree(tmp_path / "store") == alone and len(list((tmp_path / "store").iterdir())) == 2
    assert BATCHES <= computed(tmp_path / "log") <= BATCHES + 4  # what each of at most four was at
