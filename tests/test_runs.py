"""A training that was interrupted ends as if it never had been, from a file that only its own run can read."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import grafeat as gf
from grafeat import runs, teaching, training
from grafeat.files import read_tensors, write_tensors
from grafeat.planted import pointer
from grafeat.runs import KIND, Epoch

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
    resumed = built()
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
    monkeypatch.setattr(runs, "check_writable", None)  # nor is anything to be written
    again = built()
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


@pytest.mark.parametrize("other", ["another seed", "trained already", "other statistics"])
def test_a_model_that_began_otherwise_does_not_go_on_with_it(tmp_path: Path, other: str) -> None:
    path, model = tmp_path / "run.safetensors", built()
    fitted(model, checkpoint=path)
    before = path.read_bytes()
    if other == "another seed":
        model = built(seed=3)
    elif other == "other statistics":
        model = built()
        model.projections[0].mean += 0.01
    expected = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"run\.safetensors is of a run that began with other weights; .*not trained"):
        fitted(model, checkpoint=path)
    assert path.read_bytes() == before
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_model_whose_last_digits_differ_goes_on_with_it(tmp_path: Path) -> None:
    """As principal components do that were computed with another number of threads."""
    path, whole, model = tmp_path / "run.safetensors", built(), built()
    fitted(whole, checkpoint=path)
    for projection in model.projections:
        projection.basis *= 1 + 1e-6
    assert not same(model, built())
    fitted(model, checkpoint=path)
    assert same(model, whole)


@pytest.mark.parametrize("argument", ["train", "val", "unlabelled"])
def test_other_features_of_any_picture_are_other_pictures(tmp_path: Path, argument: str) -> None:
    path, sets = tmp_path / "run.safetensors", {"train": TRAIN, "val": VAL, "unlabelled": VAL[:7]}
    options = {"epochs": 1, "batch_size": 17, "checkpoint": path, "progress": False}
    gf.fit(built(), **sets, **options)
    parts = [gf.FeatureGrid(grid.name, grid.features.clone()) for grid in sets[argument].grids]
    parts[1].features[3] += 1
    others = gf.GridSet(parts, sets[argument].labels)
    with pytest.raises(ValueError, match=r"is of a run with .*pictures.* '\w+'; this one has '\w+'; expected the same"):
        gf.fit(built(), **{**sets, argument: others}, **options)


def test_a_run_of_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    fitted(built(), checkpoint=path)
    rewritten(path, lambda about: about["settings"].pop("recipe"))  # as before there were recipes
    with pytest.raises(ValueError, match=r"another version, which trains otherwise \(recipe None, here 2\); .*remove"):
        fitted(built(), checkpoint=path)
    path.unlink()
    fitted(built(), checkpoint=path)
    monkeypatch.setattr(training, "RECIPE", training.RECIPE + 1)
    with pytest.raises(ValueError, match=r"another version, which trains otherwise \(recipe 2, here 3\)"):
        fitted(built(), checkpoint=path)


def test_a_place_that_cannot_be_written_is_named_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(training, "training_loss", None)  # a step would fail otherwise
    with pytest.raises(OSError, match=rf"path: could not write {tmp_path}/file/run .*; expected a writable folder"):
        fitted(built(), checkpoint=tmp_path / "file" / "run")
    with pytest.raises(IsADirectoryError, match=rf"path: {tmp_path} is a folder; expected a file"):
        fitted(built(), checkpoint=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError, match=r"path: \. is a folder; expected a file"):
        fitted(built(), checkpoint=".")


# A file that says what no run says, though its checksum is right


def rewritten(
    path: Path,
    change: Callable[[dict[str, Any]], object] = lambda about: None,
    replace: Callable[[dict[str, Tensor]], object] = lambda tensors: None,
) -> Path:
    """The checkpoint with its description and its tensors changed."""
    found, about = read_tensors(path, kind=KIND)
    tensors = {name: value.clone() for name, value in found.items()}
    change(about)
    replace(tensors)
    kept = {name: value for name, value in about.items() if name not in ("kind", "format")}
    return write_tensors(path, tensors, kind=KIND, about=kept)


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of a run that was interrupted after two epochs."""
    path, real, left = tmp_path_factory.mktemp("halved") / "run", runs.Run.save, [2]

    def breaking(run: runs.Run, path: Path) -> None:
        real(run, path)
        left[0] -= 1
        if not left[0]:
            raise Interrupted

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(runs.Run, "save", breaking)
        fitted(built(), checkpoint=path)
    return path.read_bytes()


@pytest.fixture
def halved(two_epochs: bytes, tmp_path: Path) -> Path:
    """The same, in a file that may be changed."""
    path = tmp_path / "run"
    path.write_bytes(two_epochs)
    return path


ROW = [0.5, 0.25, 0.75, 0.001]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("rows", [], "its epochs are too few or too many"),
        ("rows", None, "its epochs are too few or too many"),
        ("rows", [ROW] * (EPOCHS + 1), "its epochs are too few or too many"),
        ("rows", [ROW], "its average is not that of 4 steps"),
        ("rows", [ROW] * 3, "its average is not that of 12 steps"),
        ("rows", [ROW, ROW[:3]], "not enough values to unpack"),
        ("rows", [ROW, 7], "cannot unpack"),
        ("rows", [ROW, "0.5"], "not enough values to unpack"),
        ("rows", [ROW, ["x", *ROW[1:]]], "'x' in place of a number"),
        ("rows", [ROW, [10**40, *ROW[1:]]], "in place of a number"),
        ("rows", [ROW, [float("nan"), *ROW[1:]]], "nan in place of a number"),
        ("rows", [ROW, [0.5, None, None, 0.001]], "None in place of a number"),
        ("rows", [[0.5, float("nan"), 0.75, 0.001]] * 2, "'kept.* is not that of this model"),
        ("seconds", "7", "'7' in place of a number"),
        ("seconds", -1.0, "-1.0 in place of a number"),
        ("seconds", None, "None in place of a number"),
    ],
)
def test_a_description_that_no_run_has_is_refused(halved: Path, name: str, value: object, reason: str) -> None:
    path = rewritten(halved, lambda about: about.update({name: value}))
    refused(path, rf"damaged or from another version \(.*{reason}.*\); expected what fit kept; remove it")


@pytest.mark.parametrize("settings", [None, [1], "x", {}])
def test_settings_that_are_none_are_refused(halved: Path, settings: object) -> None:
    path = rewritten(halved, lambda about: about.update(settings=settings))
    refused(path, r"from another version, which trains otherwise \(recipe None, here 2\)")


@pytest.mark.parametrize("weights", [None, {}, [1.0], {"types": "x"}, "all wrong", "a string among them"])
def test_initial_weights_that_are_none_are_refused(halved: Path, weights: object) -> None:
    def change(about: dict[str, Any]) -> None:
        known = about["settings"]["initial weights"]
        wrong = {"all wrong": dict.fromkeys(known, 1.0), "a string among them": {**known, "types": "1.0"}}
        about["settings"]["initial weights"] = wrong.get(weights, weights) if isinstance(weights, str) else weights

    refused(rewritten(halved, change), "of a run that began with other weights")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("random", None, "'random' is not that of this model"),
        ("random", torch.zeros(3, dtype=torch.uint8), "'random' is not that of this model"),
        ("random", torch.zeros(5056), "'random' is not that of this model"),
        ("random", torch.full((5056,), 255, dtype=torch.uint8), "RNG state|mt19937"),
        ("model.types", None, "'model.types' is not that of this model"),
        ("model.types", torch.zeros(2, 13), "'model.types' is not that of this model"),
        ("model.types", torch.zeros(2, 12).double(), "'model.types' is not that of this model"),
        ("averaged.module.types", None, "'averaged.module.types' is not that of this model"),
        ("averaged.n_averaged", torch.tensor(7), "its average is not that of 8 steps"),
        ("averaged.n_averaged", torch.tensor(8.0), "'averaged.n_averaged' is not that of this model"),
        ("kept.types", None, "'kept.types' is not that of this model"),
        ("kept.types", torch.zeros(1), "'kept.types' is not that of this model"),
        ("more", torch.zeros(1), "'more' is not that of this model"),
        ("optimiser.0.exp_avg", torch.zeros(3), "'exp_avg' is not that of this model"),
        ("optimiser.0.exp_avg_sq", None, "'exp_avg_sq' is not that of this model"),
        ("optimiser.0.step", torch.tensor(9.0), "its optimiser was not at work for 8 steps"),
        ("optimiser.0.step", torch.tensor(float("nan")), "its optimiser was not at work for 8 steps"),
        ("optimiser.0.more", torch.tensor(1.0), "'more' is not that of this model"),
        ("optimiser.x.step", torch.tensor(1.0), "its optimiser is of other parameters"),
        ("optimiser.-1.step", torch.tensor(1.0), "its optimiser is of other parameters"),
        ("optimiser.999.step", torch.tensor(1.0), "its optimiser is of other parameters"),
        ("optimiser.7", torch.tensor(1.0), "its optimiser is of other parameters"),
    ],
)
def test_tensors_that_no_run_has_are_refused(halved: Path, name: str, value: Tensor | None, reason: str) -> None:
    def replace(tensors: dict[str, Tensor]) -> None:
        tensors.pop(name, None)
        tensors.update({} if value is None else {name: value})

    path = rewritten(halved, replace=replace)
    refused(path, rf"damaged or from another version \(.*({reason}).*\); expected what fit kept; remove it")


@pytest.mark.parametrize("start", ["kept.", "optimiser.", "model.", "averaged."])
def test_a_whole_part_that_lacks_is_refused(halved: Path, start: str) -> None:
    def replace(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(start)]:
            del tensors[name]

    path = rewritten(halved, replace=replace)
    refused(path, r"damaged or from another version \(.*is (not that of this model|of other parameters)")


def test_what_was_not_changed_goes_on(halved: Path) -> None:
    whole, model = built(), built()
    fitted(whole)
    fitted(model, checkpoint=rewritten(halved))
    assert same(model, whole)


def refused(path: Path, reason: str) -> None:
    """It is, and nothing has been changed."""
    model, before = built(), path.read_bytes()
    whole = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=rf"checkpoint: {path} is {reason}"):
        fitted(model, checkpoint=path)
    assert path.read_bytes() == before
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


# Which epoch is the best


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([None, None, None], 2),
        ([3.0, 1.0, 2.0], 1),
        ([3.0, 1.0, 1.0, 2.0], 2),
        ([float("nan"), 2.0, float("nan")], 1),
        ([float("inf"), float("inf")], 1),
        ([float("nan")] * 2, None),
    ],
)
def test_the_best_epoch_by_hand_is_the_one_whose_state_is_kept(losses: list[float | None], best: int | None) -> None:
    options = {"epochs": 9, "steps": 1, "learning_rate": 1e-3, "weight_decay": 0.0, "average": 0.9}
    run = training._new_run(built(), options)
    for number, loss in enumerate(losses):
        run.teacher.types.data.fill_(float(number))
        run.add(Epoch(1.0, loss, None if loss is None else 0.5, 1e-3))
    assert run.best == best
    assert (not run.kept) if best is None else bool((run.kept["types"] == best).all())


def test_a_loss_that_is_no_number_is_said_at_once() -> None:
    def broken(grids: gf.GridSet) -> gf.GridSet:
        nothing = [torch.full_like(grid.features, torch.nan) for grid in grids.grids]
        named = zip(grids.grids, nothing, strict=True)
        return gf.GridSet([gf.FeatureGrid.trusted(grid.name, part, grid.field) for grid, part in named], grids.labels)

    with pytest.raises(ValueError, match=r"train: the loss is no number in epoch 1; expected finite grids"):
        gf.fit(built(), broken(TRAIN), val=VAL, epochs=2, progress=False)
    with pytest.raises(ValueError, match=r"val: the loss was no number in any epoch; expected finite grids"):
        gf.fit(built(), TRAIN, val=broken(VAL), epochs=2, progress=False)


def test_features_with_a_history_of_gradients_are_learned_from(tmp_path: Path) -> None:
    listed = [gf.FeatureGrid(g.name, g.features.clone().requires_grad_()) for g in TRAIN.grids]
    history = gf.fit(
        built(), gf.GridSet(listed, TRAIN.labels), epochs=1, checkpoint=tmp_path / "run", progress=False
    )
    assert len(history.epochs) == 1
