"""A comparison that is killed again and again repeats one training for each kill, and ends with the same table."""

import random
from pathlib import Path

import pandas as pd
from faults.conftest import HARDER
from faults.driver import Driver

from grafeat.lab.comparison import Comparison

TRAININGS = 2 * 2 * 4  # of two groups of labels, two seeds, and two singles, concat and merge each
KILLS = 5
TIMES = ["training seconds", "inference ms", "date"]


def figures(path: Path) -> pd.DataFrame:
    return Comparison.from_csv(path).rows.drop(columns=TIMES)


def test_the_table_is_that_of_a_comparison_that_was_never_killed(tmp_path: Path, driver: Driver) -> None:
    whole = {"folder": str(tmp_path / "whole"), "log": str(tmp_path / "log"), "table": str(tmp_path / "whole.csv")}
    once = driver.run("faults.jobs:comparison", **whole)
    assert once.status == 0
    assert (tmp_path / "log").read_text().count("trained") == TRAININGS
    dice, midway = random.Random(0), 0
    for number in range(HARDER):
        folder, log, table = (tmp_path / f"{number}{end}" for end in ("", ".log", ".csv"))
        job = {"folder": str(folder), "log": str(log), "table": str(table)}
        kills = 0
        for _ in range(KILLS):
            moment = dice.uniform(0.1, 0.4) * once.seconds
            kills += driver.run("faults.jobs:comparison", kill_after=moment, **job).killed
        assert driver.run("faults.jobs:comparison", **job).status == 0
        pd.testing.assert_frame_equal(figures(table), figures(tmp_path / "whole.csv"))
        assert log.read_text().count("trained") <= TRAININGS + kills
        assert not list(folder.glob(".*"))
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            path.name for path in (tmp_path / "whole").iterdir()
        )
        midway += kills
    assert midway >= 2 * HARDER
