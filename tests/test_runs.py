"""A training that was interrupted ends as if it never had been, from a file that only its own run can read."""

from pathlib import Path

import pytest
import torch
from torch import nn

import grafeat as gf
from grafeat import teaching, training
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
    """With pictures without labels, of which the teacher is always sure."""
    monkeypatch.setattr(teaching, "CONFIDENT", 0.0)
    whole, path, real = built(), tmp_path / "run.safetensors", training.training_loss
    expected = fitted(whole, unlabelled=VAL)
    left = [steps]

    def breaking(*given: object, **options: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        return real(*given, **options)

    monkeypatch.setattr(training, "training_loss", breaking)
    with pytest.raises(Interrupted):
        fitted(built(), unlabelled=VAL, checkpoint=path)
    monkeypatch.setattr(training, "training_loss", real)
    assert path.exists() == (steps >= 4)  # four steps an epoch: what was finished is kept
    resumed = built(seed=3 if path.exists() else 0)
    torch.rand(11)  # what else was drawn does not matter
    found = fitted(resumed, unlabelled=VAL, checkpoint=path)
    plain = built()
    fitted(plain)
    assert not same(plain, whole)
    assert same(resumed, whole) and found.epochs == expected.epochs and found.best == expected.best


def test_a_finished_training_is_read_back_without_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole = tmp_path / "run.safetensors", built()
    fitted(whole, checkpoint=path)
    monkeypatch.setattr(training, "training_loss", None)  # a step would fail
    again = built(seed=3)
    assert len(fitted(again, checkpoint=path).epochs) == EPOCHS
    assert same(again, whole)


def test_the_seconds_are_those_of_all_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only steps move on; those of an epoch that was not finished are lost with it."""
    path, real, clock, end = tmp_path / "run.safetensors", training.training_loss, [0.0], [11.0]

    def ticking(*given: object, **options: object) -> torch.Tensor:
        if clock[0] == end[0]:
            raise Interrupted
        clock[0] += 1
        return real(*given, **options)

    monkeypatch.setattr(training, "training_loss", ticking)
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    with pytest.raises(Interrupted):
        fitted(built(), checkpoint=path)  # two epochs of four steps, and three steps of the third
    end[0] = -1
    assert fitted(built(), checkpoint=path).seconds == 4 * EPOCHS
    assert clock[0] == 4 * EPOCHS + 3
    assert fitted(built(), checkpoint=path).seconds == 4 * EPOCHS  # read back


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


def test_another_model_does_not_go_on_with_it(tmp_path: Path) -> None:
    """Neither one of other shapes nor one that differs in its configuration alone."""
    path = tmp_path / "run.safetensors"
    fitted(built(), checkpoint=path)
    options = {"num_classes": 4, "width": 12, "heads": 3, "depth": 1, "components": 3}
    for other in ({"cross_drop": 0.9}, {"balance": False}, {"depth": 2}):
        model = gf.GraFeatMerge.for_grids(TRAIN, **{**options, **other})
        with pytest.raises(ValueError, match=r"is of a run with model .*; this one has .*; expected the same settings"):
            fitted(model, checkpoint=path)
    with pytest.raises(ValueError, match=r"is of a run with model .GraFeatMerge .*; this one has .Concat"):
        gf.fit(gf.Concat.for_grids(TRAIN, num_classes=4), TRAIN, val=VAL, epochs=EPOCHS, batch_size=17, seed=7,
               checkpoint=path, progress=False)  # fmt: skip


def test_a_loss_that_is_no_number_is_said_at_once() -> None:
    def broken(grids: gf.GridSet) -> gf.GridSet:
        nothing = [torch.full_like(grid.features, torch.nan) for grid in grids.grids]
        named = zip(grids.grids, nothing, strict=True)
        return gf.GridSet([gf.FeatureGrid.trusted(grid.name, part, grid.field) for grid, part in named], grids.labels)

    with pytest.raises(ValueError, match=r"train: the loss is no number in epoch 1; expected finite grids"):
        gf.fit(built(), broken(TRAIN), val=VAL, epochs=2, progress=False)
    with pytest.raises(ValueError, match=r"val: the loss was no number in any epoch; expected finite grids"):
        gf.fit(built(), TRAIN, val=broken(VAL), epochs=2, progress=False)


def test_what_another_run_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    mine, other = tmp_path / ".run.0123abcd.part", tmp_path / ".run.long.0123abcd.part"
    mine.touch()
    other.touch()
    fitted(built(), checkpoint=path)
    assert not mine.exists() and other.exists()


def test_features_with_a_history_of_gradients_are_learned_from(tmp_path: Path) -> None:
    listed = [gf.FeatureGrid(g.name, g.features.clone().requires_grad_()) for g in TRAIN.grids]
    history = gf.fit(
        built(), gf.GridSet(listed, TRAIN.labels), epochs=1, checkpoint=tmp_path / "run", progress=False
    )
    assert len(history.epochs) == 1
