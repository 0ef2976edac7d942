"""Killed at a random moment and run again, the store is the same to the byte, and little was computed twice."""

import random
import shutil
import time
from pathlib import Path

import pytest
from faults.driver import Driver
from faults.jobs import BATCH, COUNT

from grafeat.store import GridStore

JOB = "faults.jobs:extraction"
BATCHES = 2 * -(-COUNT // BATCH)  # of both backbones


def tree(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def computed(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def copied(store: Path, copy: Path) -> bool:
    """Whether a folder could be copied: files that are renamed meanwhile spoil it."""
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(store, copy)
    except shutil.Error:
        return False
    return True


@pytest.fixture(scope="session")
def undisturbed(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The store that no one disturbs, and how long it takes."""
    folder, seconds = tmp_path_factory.mktemp("undisturbed"), []
    for number in range(3):  # the first one warms up
        store, log = folder / f"store{number}", folder / f"log{number}"
        ended = driver.run(JOB, store=str(store), log=str(log))
        seconds.append(ended.seconds)
        assert ended.status == 0
        assert computed(log) == BATCHES
    assert tree(folder / "store0") == tree(folder / "store1")
    return tree(folder / "store0"), min(seconds)


def killed(driver: Driver, folder: Path, seconds: float, moments: random.Random) -> tuple[Path, Path]:
    """The store and the log of a run that was killed; one that ended before that is tried again."""
    for number in range(100):
        store, log = folder / f"store{number}", folder / f"log{number}"
        if driver.run(JOB, kill_after=moments.random() * seconds, store=str(store), log=str(log)).killed:
            return store, log
    raise AssertionError("every run ended before it was killed")


def test_a_killed_run_is_resumed_to_the_byte(
    tmp_path: Path, driver: Driver, undisturbed: tuple[dict[str, bytes], float], kill: int
) -> None:
    """What was noted is not computed again, and but for one batch all that was computed was noted."""
    whole, seconds = undisturbed
    store, log = killed(driver, tmp_path, seconds, random.Random(kill))
    assert not store.exists() or GridStore(store).verify() == []  # what looks whole is whole
    noted = sum(-(-entry.done // BATCH) for entry in GridStore(store).info().entries)
    before = computed(log)
    assert noted <= before <= noted + 1
    assert driver.run(JOB, store=str(store), log=str(log)).status == 0
    assert tree(store) == whole
    assert computed(log) - before == BATCHES - noted


def test_one_that_is_killed_again_and_again_gets_there(
    tmp_path: Path, driver: Driver, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    """Nine of ten runs are killed, each time sooner or later; in the end there is nothing left to do."""
    whole, seconds = undisturbed
    store, log, moments, kills = tmp_path / "store", tmp_path / "log", random.Random(7), 0
    for _ in range(9):
        kills += driver.run(JOB, kill_after=moments.random() * seconds / 2, store=str(store), log=str(log)).killed
    assert driver.run(JOB, store=str(store), log=str(log)).status == 0
    assert tree(store) == whole
    assert kills > 0
    assert computed(log) <= BATCHES + kills


def test_two_processes_do_the_work_of_one(
    tmp_path: Path, driver: Driver, other: Driver, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    whole, _ = undisturbed
    store, log = tmp_path / "store", tmp_path / "log"
    for one in (driver, other):
        one.start(JOB, store=str(store), log=str(log))
    assert [one.ended() for one in (driver, other)] == [0, 0]
    assert computed(log) == BATCHES
    assert tree(store) == whole


def test_two_processes_that_repair_compute_only_what_is_damaged(
    tmp_path: Path, driver: Driver, other: Driver, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    whole, _ = undisturbed
    log, spoiled = tmp_path / "log", sorted(name for name in whole if name.endswith("features.safetensors"))[0]
    for number in range(5):
        store, meeting = tmp_path / f"store{number}", tmp_path / f"meeting{number}"
        meeting.mkdir()
        for name, content in whole.items():
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if name == spoiled else content)
        for process, one in enumerate((driver, other)):
            one.start("faults.jobs:repair", store=str(store), log=str(log), meeting=str(meeting), process=process)
        assert [one.ended() for one in (driver, other)] == [0, 0]
        assert computed(log) == number + 1
        assert tree(store) == whole


def test_who_waits_for_one_that_is_killed_goes_on_with_its_work(
    tmp_path: Path, driver: Driver, other: Driver, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    whole, seconds = undisturbed
    store, log = tmp_path / "store", tmp_path / "log"
    first = driver.start(JOB, store=str(store), log=str(log))
    other.start(JOB, store=str(store), log=str(log))
    time.sleep(seconds / 2)
    driver.kill(first)
    assert other.ended() == 0
    driver.ended()
    assert tree(store) == whole
    assert BATCHES <= computed(log) <= BATCHES + 1


def test_a_store_that_is_copied_while_it_is_written_is_resumed_elsewhere(
    tmp_path: Path, driver: Driver, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    """As a power cut leaves it: some of its bytes are newer than others."""
    whole, _ = undisturbed
    store, copy, log = tmp_path / "store", tmp_path / "copy", tmp_path / "log"
    driver.start(JOB, store=str(store), log=str(log))
    while computed(log) < BATCHES // 3:
        time.sleep(0.001)
    while not copied(store, copy):
        pass
    assert driver.ended() == 0
    assert driver.run(JOB, store=str(copy), log=str(log)).status == 0
    assert tree(copy) == whole
