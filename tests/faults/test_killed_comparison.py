"""A comparison that is killed again and again repeats one training for each kill, and ends with the same table."""

import random
from pathlib import Path

import pandas as pd
import pytest
from faults.conftest import HARDER
from faults.driver import Driver

from grafeat.lab.comparison import Comparison

TRAININGS = 2 * 2 * 4  # of two groups of labels, two seeds, and two singles, concat and merge each
KILLS, JOB = 5, "faults.jobs:comparison"
TIMES = ["training seconds", "inference ms", "date"]


def figures(path: Path) -> pd.DataFrame:
    return Comparison.from_csv(path).rows.drop(columns=TIMES)


def job(folder: Path, name: str, *seeds: int) -> dict[str, object]:
    places = {"folder": folder / name, "log": folder / f"{name}.log", "table": folder / f"{name}.csv"}
    return {place: str(path) for place, path in places.items()} | {"seeds": seeds or (0, 1)}


def trainings(folder: Path, name: str) -> int:
    return (folder / f"{name}.log").read_text().count("trained")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> tuple[Path, float]:
    """Where a comparison that was never killed left its table, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    once = driver.run(JOB, **job(folder, "whole"))
    assert once.status == 0
    assert trainings(folder, "whole") == TRAININGS
    return folder, once.seconds


def test_the_table_is_that_of_a_comparison_that_was_never_killed(
    tmp_path: Path, driver: Driver, whole: tuple[Path, float]
) -> None:
    dice, midway = random.Random(0), 0
    for number in range(HARDER):
        one, kills = job(tmp_path, str(number)), 0
        for _ in range(KILLS):
            kills += driver.run(JOB, kill_after=dice.uniform(0.1, 0.4) * whole[1], **one).killed
        assert driver.run(JOB, **one).status == 0
        pd.testing.assert_frame_equal(figures(tmp_path / f"{number}.csv"), figures(whole[0] / "whole.csv"))
        assert trainings(tmp_path, str(number)) <= TRAININGS + kills
        assert files(tmp_path / str(number)) == files(whole[0] / "whole")  # and nothing that a kill left
        midway += kills
    assert midway >= 2 * HARDER


def test_two_at_once_on_other_seeds_share_a_folder(
    tmp_path: Path, drivers: tuple[Driver, Driver], whole: tuple[Path, float]
) -> None:
    for seed, one in enumerate(drivers):
        one.start(JOB, **job(tmp_path, "both", seed) | {"table": str(tmp_path / f"{seed}.csv")})
    assert [one.ended() for one in drivers] == [0, 0]
    assert trainings(tmp_path, "both") == TRAININGS
    assert drivers[0].run(JOB, **job(tmp_path, "both")).status == 0
    assert trainings(tmp_path, "both") == TRAININGS  # all was there
    pd.testing.assert_frame_equal(figures(tmp_path / "both.csv"), figures(whole[0] / "whole.csv"))
