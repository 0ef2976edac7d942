"""A training that is killed again and again ends with the model of one that was not."""

import random
from pathlib import Path

import torch
from faults.conftest import HARDER
from faults.driver import Driver

from grafeat.checkpoint import load

EPOCHS = 12


def test_the_model_is_that_of_a_training_that_was_never_killed(tmp_path: Path, driver: Driver) -> None:
    whole, model = tmp_path / "whole.safetensors", tmp_path / "model.safetensors"
    once = driver.run("faults.jobs:training", checkpoint=str(tmp_path / "whole.run"), model=str(whole), epochs=EPOCHS)
    assert once.status == 0
    dice, midway = random.Random(0), 0
    for number in range(5 * HARDER):
        job = {"checkpoint": str(tmp_path / f"{number // 5}.run"), "model": str(model), "epochs": EPOCHS}
        midway += driver.run("faults.jobs:training", kill_after=dice.uniform(0, 0.8 * once.seconds), **job).killed
        if number % 5 == 4:  # five kills a training, then it may end
            assert driver.run("faults.jobs:training", **job).status == 0
            found, expected = load(model), load(whole)
            for one, other in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
                assert torch.equal(one, other)
            model.unlink()
    assert midway >= HARDER  # a machine may be faster than it was when it ran whole
    assert not list(tmp_path.glob(".*"))  # what a killed write left behind is cleared away
