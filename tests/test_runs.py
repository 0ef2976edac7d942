"""A training that was interrupted ends as if it never had been, from a file that only its own run can read."""

from pathlib import Path

import pytest
import torch
from torch import nn

import grafeat as gf
from grafeat import training
from grafeat.planted import pointer

TRAIN, VAL = pointer(61, shape=(2, 3), channels=(3, 5)), pointer(17, shape=(2, 3), channels=(3, 5), seed=1)
EPOCHS = 5


def built(seed: int = 0) -> gf.GraFeatMerge:
    return gf.GraFeatMerge.for_grids(TRAIN, num_classes=4, width=12, heads=3, depth=1, components=3, seed=seed)


def fitted(model: gf.GraFeatMerge, **options: object) -> gf.History:
    asked = {"val": VAL, "epochs": EPOCHS, "batch_size": 17, "seed": 7, "progress": False}
    return gf.fit(model, TRAIN, **{**asked, **options})


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class Interrupted(Exception):
    """As if the process ended here."""


@pytest.mark.parametrize("steps", [1, 4, 6, 11, 19])
def test_it_ends_as_if_it_had_never_been_interrupted(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path, real = built(), tmp_path / "run.safetensors", training.training_loss
    expected = fitted(whole)
    left = [steps]

    def breaking(*given: object, **options: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        return real(*given, **options)

    monkeypatch.setattr(training, "training_loss", breaking)
    with pytest.raises(Interrupted):
        fitted(built(), checkpoint=path)
    monkeypatch.setattr(training, "training_loss", real)
    assert path.exists() == (steps >= 4)  # four steps an epoch: what was finished is kept
    resumed = built(seed=3 if path.exists() else 0)
    torch.rand(11)  # what else was drawn does not matter
    found = fitted(resumed, checkpoint=path)
    assert same(resumed, whole) and found.epochs == expected.epochs and found.best == expected.best


def test_a_finished_training_is_read_back_without_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole = tmp_path / "run.safetensors", built()
    fitted(whole, checkpoint=path)
    monkeypatch.setattr(training, "training_loss", None)  # a step would fail
    again = built(seed=3)
    assert len(fitted(again, checkpoint=path).epochs) == EPOCHS
    assert same(again, whole)


def test_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    one, other = built(), built()
    fitted(one)
    fitted(other, checkpoint=tmp_path / "run.safetensors")
    assert same(one, other)


def test_a_run_with_other_settings_or_pictures_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fitted(built(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint: .*run\.safetensors is of a run with seed 7; this one has 8"):
        fitted(built(), checkpoint=path, seed=8)
    with pytest.raises(ValueError, match=r"is of a run with pictures '\w+'; this one has '\w+'; expected the same"):
        gf.fit(built(), TRAIN[:-1], val=VAL, epochs=EPOCHS, batch_size=17, seed=7, checkpoint=path, progress=False)
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fitted(built(), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"is no whole safetensors file"):
        fitted(built(), checkpoint=path)
    path.write_bytes(gf.save(built(), tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"is 'model' in format"):
        fitted(built(), checkpoint=path)
