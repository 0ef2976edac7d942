"""A saved model is the same model, to the bit; a file that is no such model is refused, and nothing is lost."""

import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_files import Trap, full_disk
from torch import Tensor

from grafeat import files
from grafeat.checkpoint import load, save
from grafeat.files import read_tensors, write_tensors
from grafeat.fusion import WAYS, Concat, mix
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge
from grafeat.models import MEANING, GridModel
from grafeat.planted import pointer
from grafeat.readout import READOUTS, ReadoutKind
from grafeat.training import fit

GRIDS = pointer(31, shape=(2, 3), channels=(3, 5))


def built(grids: GridSet = GRIDS, **options: object) -> GraFeatMerge:
    small = {"num_classes": 4, "width": 12, "heads": 3, "depth": 1, "queries": 2, "components": 4}
    return GraFeatMerge.for_grids(grids, **{**small, **options})


def state(model: GraFeatMerge) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# The same model


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(
    "options", [{}, {"shared": True}, {"shared": False, "intra": False, "balance": False}]
)
def test_logits_after_loading_are_equal_to_the_bit(
    tmp_path: Path, readout: ReadoutKind, options: dict[str, bool]
) -> None:
    model = built(readout=readout, **options)
    fit(model, GRIDS, epochs=1, progress=False)
    loaded = load(save(model, tmp_path / "model.safetensors"))
    found, expected = loaded(GRIDS), model(GRIDS)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(loaded(GRIDS, without={"pointer"}).logits, model(GRIDS, without={"pointer"}).logits)
    assert loaded.config == model.config
    assert not loaded.training


def test_more_components_than_there_are_channels_are_all_of_them(tmp_path: Path) -> None:
    model = built(components=10**6)
    loaded = load(save(model, tmp_path / "model.safetensors"))
    assert loaded.config == model.config
    assert torch.equal(loaded(GRIDS).logits, model.eval()(GRIDS).logits)


def test_all_that_a_model_knows_is_kept(tmp_path: Path) -> None:
    named = GridSet(GRIDS.grids, GRIDS.labels, classes=["cat", "dog", "owl", "川獺"])
    model = built(named, seed=7)
    fit(model, named, val=named[:9], epochs=1, progress=False)
    loaded = load(save(model, tmp_path / "a"))
    assert loaded.classes == ("cat", "dog", "owl", "川獺")
    assert torch.equal(loaded.label_counts, named.labels.bincount())
    assert state(loaded).keys() == state(model).keys()
    for name, value in state(model).items():
        assert torch.equal(state(loaded)[name], value)
        assert state(loaded)[name].dtype == value.dtype
    assert repr(loaded) == repr(model)
    assert list(map(type, loaded.config.backbones)) == [tuple, tuple]
    assert hash(loaded.config) == hash(model.config)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_number_type_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    model = built().to(dtype)
    found = load(save(model, tmp_path / "a"))(GRIDS).logits
    assert found.dtype == dtype
    assert torch.equal(found, model(GRIDS).logits)


def test_a_model_in_training_is_saved_as_it_is_and_stays_in_training(tmp_path: Path) -> None:
    model = built().train()
    loaded = load(save(model, tmp_path / "a"))
    assert model.training
    assert torch.equal(loaded(GRIDS).logits, model.eval()(GRIDS).logits)


def test_a_loaded_model_can_be_trained_on_and_no_longer_needs_its_file(tmp_path: Path) -> None:
    path = save(built(), tmp_path / "a")
    saved = path.read_bytes()
    loaded, before = load(path), state(built())
    with path.open("r+b") as file:  # overwritten in place
        file.write(b"\0" * len(saved))
    assert all(torch.equal(value, before[name]) for name, value in state(loaded).items())
    path.unlink()
    fit(loaded, GRIDS, epochs=1, progress=False)
    changed = {name for name, value in state(loaded).items() if not torch.equal(value, before[name])}
    assert changed >= {name for name, _ in loaded.named_parameters()}


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    path, before = save(built(), tmp_path / "a"), torch.get_rng_state()
    load(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_file_with_the_configuration_in_its_header(tmp_path: Path) -> None:
    model = built()
    path = save(model, str(tmp_path / "sub" / "model.safetensors"))
    assert [item.name for item in (tmp_path / "sub").iterdir()] == ["model.safetensors"]
    tensors, about = read_tensors(path, kind="model")
    assert tensors.keys() == model.state_dict().keys()
    assert about["config"]["backbones"] == [["pointer", 3], ["classes", 5]]
    assert about["config"]["width"] == 12
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        assert "grafeat" in json.loads(file.read(length))["__metadata__"]


# Saving fails, and nothing is lost


def test_a_full_disk_leaves_the_old_model_whole(tmp_path: Path) -> None:
    model = built()
    path = save(model, tmp_path / "model.safetensors")
    before = path.read_bytes()
    with full_disk(), pytest.raises(OSError, match="that was there is unchanged; raise the limit on the length of"):
        save(built(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert torch.equal(load(path)(GRIDS).logits, model(GRIDS).logits)


def test_failing_at_the_last_step_leaves_the_old_model_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(built(), tmp_path / "model.safetensors")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="No space left on device"):
        save(built(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=rf"path: could not write {tmp_path}/file/model.safetensors"):
        save(built(), tmp_path / "file" / "model.safetensors")


class Other(Concat):
    """A model that `mix` does not make."""


def test_only_what_mix_makes_is_saved(tmp_path: Path, unchecked: None) -> None:
    other = Other.for_grids(GRIDS, num_classes=4)
    with pytest.raises(TypeError, match=r"model: got Other; expected a GraFeatMerge, or another that gf\.mix makes"):
        save(other, tmp_path / "a")
    with pytest.raises(TypeError, match="model: got OrderedDict"):
        save(built().state_dict(), tmp_path / "a")
    assert not (tmp_path / "a").exists()


# The other ways to mix


def mixed(way: str) -> GridModel:
    grids = GRIDS.only("classes") if way == "single" else GRIDS
    return mix(way, grids, num_classes=4, width=16, parameters=16_000 if way != "linear" else None)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_same_after_loading(tmp_path: Path, way: str) -> None:
    model = mixed(way)
    grids = GRIDS.only(*model.backbones)
    fit(model, grids, epochs=1, progress=False)
    loaded = load(save(model, tmp_path / "a"))
    assert type(loaded) is type(model) and not loaded.training
    assert torch.equal(loaded(grids).logits, model(grids).logits)
    assert torch.equal(loaded(grids).vector, model(grids).vector)
    assert repr(loaded) == repr(model) and loaded.classes == model.classes
    assert torch.equal(loaded.label_counts, model.label_counts)


def test_a_file_from_before_the_new_options_still_loads(tmp_path: Path) -> None:
    new = ("hidden", "positions", "relations", "joint")
    loaded = load(rewritten(tmp_path / "a", config(**dict.fromkeys(new))))
    assert loaded.config == built().config
    assert torch.equal(loaded(GRIDS).logits, built()(GRIDS).logits)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "Other"},
        {"type": "Linear"},
        {"type": "Ensemble"},
        {"type": None},
        {"type": ["Concat"]},
        {"config": {}},
        {"config": {"depth": 10**6}},
        {"config": {"width": 17}},
        {"config": {"grid": [1]}},
        {"config": {"grid": [0, 1]}},
        {"config": {"colour": "red"}},
    ],
)
def test_a_way_that_does_not_fit_its_weights_is_refused(tmp_path: Path, change: dict, unchecked: None) -> None:
    model = mixed("sva")
    about = read_tensors(save(model, tmp_path / "a"), kind="model")[1]
    config = {**about["config"], **change["config"]} if change.get("config") else change.get("config", about["config"])
    path = rewritten(tmp_path / "a", {**about, **change, "config": config}, model.state_dict())
    with pytest.raises(ValueError, match=rf"path: {path} is damaged or from another version \(.*save the model anew"):
        load(path)


# Files that are no model


@pytest.mark.parametrize("length", [0, 1, 8, 9, 100, 1000, -1000, -1])
def test_a_truncated_model_is_refused(tmp_path: Path, length: int) -> None:
    path = save(built(), tmp_path / "a")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ValueError, match=rf"path: {path} is no whole safetensors file .*truncated or foreign"
    ):
        load(path)


def test_pickles_are_refused_and_not_executed(tmp_path: Path) -> None:
    for number, trap in enumerate((Trap(tmp_path / "sprung"), built().state_dict(), built())):
        path = tmp_path / f"{number}.pt"
        torch.save(trap, path)
        with pytest.raises(ValueError, match=rf"path: {path} is a pickle, .*refused and nothing of it ran"):
            load(path)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"path: there is no file {tmp_path}/none"):
        load(tmp_path / "none")


def test_weights_of_another_program_and_stored_grids_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(built().state_dict(), tmp_path / "foreign")
    with pytest.raises(ValueError, match="is a file of another program; expected 'model' in format 2"):
        load(tmp_path / "foreign")
    write_tensors(tmp_path / "grids", {"features": torch.ones(1)}, kind="feature grids", about={})
    with pytest.raises(ValueError, match="is 'feature grids' in format 2; expected 'model'"):
        load(tmp_path / "grids")


def rewritten(path: Path, about: dict[str, object], tensors: dict[str, Tensor] | None = None) -> Path:
    weights = built().state_dict() if tensors is None else tensors
    return write_tensors(path, weights, kind="model", about={"meaning": MEANING, **about})


def config(**changes: object) -> dict[str, object]:
    kept = {name: value for name, value in vars(built().config).items() if changes.get(name, 0) is not None}
    return {"config": {**kept, **{name: value for name, value in changes.items() if value is not None}}}


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"config": None},
        {"config": [1, 2]},
        {"config": {}},
        config(width=24),  # for other weights
        config(depth=2),
        config(readout="mean"),
        config(num_classes=5),
        config(backbones=[["pointer", 3]]),
        config(backbones=[["pointer", 3], ["classes", 7]]),
        config(backbones=7),
        config(backbones=[["pointer", 3], ["pointer", 5]]),
        config(width=13),  # of no model
        config(depth="two"),
        config(readout="max"),
        config(num_classes=-1),
        config(classes=["cat"]),
        config(colour="red"),  # of another version
        config(backbones=None),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(
    tmp_path: Path, about: dict[str, object], unchecked: None
) -> None:
    path, before = rewritten(tmp_path / "a", about), torch.get_rng_state()
    with pytest.raises(
        ValueError, match=rf"path: {path} is damaged or from another version \(.*save the model anew"
    ):
        load(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("meaning", [None, MEANING - 1, MEANING + 1, "2"])
def test_weights_that_said_something_else_are_refused(tmp_path: Path, meaning: object) -> None:
    path = rewritten(tmp_path / "a", {**config(), "meaning": meaning})
    with pytest.raises(ValueError, match=r"from another version \(in which the same weights said something else\)"):
        load(path)


def test_the_reason_stays_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size mismatch for types") as caught:
        load(rewritten(tmp_path / "a", config(width=24)))
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_or_too_many_are_refused(tmp_path: Path) -> None:
    fewer, more = dict(built().state_dict()), {**built().state_dict(), "extra": torch.ones(3)}
    del fewer["head.bias"]
    for tensors in (fewer, more):
        with pytest.raises(ValueError, match=r"is damaged or from another version \(.*(head\.bias|extra)"):
            load(rewritten(tmp_path / "a", config(), tensors))
    assert torch.equal(load(rewritten(tmp_path / "a", config()))(GRIDS).logits, built()(GRIDS).logits)


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    """Never another error than ours, whatever is damaged: tests/faults flips at random, here every place counts."""
    path = save(built(), tmp_path / "a")
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 29), *range(header, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"path: {path} is "):
            load(path)


@pytest.mark.parametrize("field", ["width", "depth", "num_classes", "queries"])
def test_a_configuration_larger_than_the_weights_builds_nothing(tmp_path: Path, field: str, unchecked: None) -> None:
    path = rewritten(tmp_path / "a", config(**{field: 10**9}))
    with pytest.raises(ValueError, match="is of a larger model than the weights"):
        load(path)


# A model for other grids


def test_other_grids_than_the_models_are_named(tmp_path: Path) -> None:
    loaded = load(save(built(), tmp_path / "a"))
    wide = FeatureGrid("classes", torch.ones(1, 7, 2, 3))
    with pytest.raises(
        ValueError,
        match=r"grids: backbone 'classes' has shape \(1, 7, 2, 3\), so 7 channels; this model was made for 5, shape",
    ):
        loaded([wide])
    with pytest.raises(
        ValueError, match="got backbone 'lite'; this model knows pointer, classes; use name= to match"
    ):
        loaded([FeatureGrid("lite", torch.ones(1, 5, 2, 3))])
