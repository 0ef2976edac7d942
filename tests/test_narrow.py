"""train_backbone: what it learns serves other pictures, it follows its seed, and its file is whole or not there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from grafeat.backbones import narrow
from grafeat.backbones.backbone import Backbone
from grafeat.backbones.narrow import load_trained, train_backbone
from grafeat.data import load_dataset
from grafeat.pictures import PictureSet

KINDS = ("small_cnn", "small_vit")
N, H, W = 23, 11, 13


def _bars(seed: int = 0, count: int = N) -> PictureSet:
    """Grey pictures of three classes: a bar that lies, that stands, or none, on noise."""
    noise = torch.rand(count, 1, H, W, generator=torch.Generator().manual_seed(seed)) / 5
    labels = torch.arange(count) % 3
    noise[labels == 0, :, H // 2] = 1
    noise[labels == 1, ..., W // 2] = 1
    return PictureSet(noise, labels, name="bars")


def _features(backbone: Backbone, pictures: PictureSet | None = None) -> Tensor:
    return backbone((pictures or _bars()).pictures).features


def _quick(kind: str = "small_cnn", pictures: PictureSet | None = None, **options: object) -> Backbone:
    return train_backbone(kind, pictures or _bars(), epochs=1, progress=False, **options)


@pytest.fixture
def untrainable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """When called: from then on, training fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(narrow, "_optimise", refuse)


# What comes out


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_a_frozen_backbone_of_64_by_7_by_7(kind: str) -> None:
    backbone = _quick(kind)
    grid = backbone(_bars().pictures)
    assert grid.features.shape == (N, 64, 7, 7)
    assert (grid.name, backbone.name, backbone.channels, backbone.grid()) == (kind, kind, 64, (7, 7))
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert not any(module.training for module in backbone.module.modules())
    assert "trained on 23 pictures of bars (seed 0)" in repr(backbone)
    assert _quick(kind, name="other").name == "other"


def test_pictures_of_any_size_and_colour_will_do() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, 5 + 7 * i, 41 - 3 * i, generator=generator) for i in range(11)]
    colours = PictureSet(pictures, [0, 1] * 5 + [0])
    assert _features(_quick(pictures=colours), colours).shape == (11, 64, 7, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_agree_with_the_module_by_hand(kind: str) -> None:
    backbone = _quick(kind)
    pictures = torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.preparation.mean, backbone.preparation.std))
    with torch.no_grad():
        expected = backbone.module((pictures - mean) / std)
    torch.testing.assert_close(backbone(pictures).features, expected)


def _accuracy_on_mnist(backbone: Backbone) -> float:
    """Accuracy on 1,500 real digits of a linear classifier of mean features that learned from 10 a class."""
    digits = load_dataset("mnist5k").few_labels(10, val=0)
    seen, unseen = (_features(backbone, part).mean(dim=(2, 3)).numpy() for part in (digits.train, digits.test))
    probe = LogisticRegression(C=0.1, max_iter=1000).fit(seen, digits.train.labels.numpy())
    return probe.score(unseen, digits.test.labels.numpy())


@pytest.mark.parametrize(("kind", "epochs"), [("small_cnn", 2), ("small_vit", 3)])
def test_what_it_learns_on_one_set_of_digits_serves_other_writers(kind: str, epochs: int) -> None:
    digits = load_dataset("digits8x8")
    shuffled = digits.labels[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    learned, misled = (
        train_backbone(kind, PictureSet(digits.pictures, labels), epochs=epochs, progress=False)
        for labels in (digits.labels, shuffled)
    )
    assert _accuracy_on_mnist(learned) > _accuracy_on_mnist(misled) + 0.15


# The seed


@pytest.mark.parametrize("kind", KINDS)
def test_no_gpu_is_seeded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(11)
    _quick(kind, seed=7)
    assert seeded == [11]  # by this test, not by the training


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_the_global_state_is_left_alone(kind: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = _quick(kind)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(_features(_quick(kind)), _features(one))
    assert not torch.equal(_features(_quick(kind, seed=1)), _features(one))


def test_it_learns_from_the_training_part_only() -> None:
    parts = {"train": torch.arange(17), "test": torch.arange(17, N)}
    pictures = _bars().pictures[:, :1]
    other = torch.cat([pictures[:17], 1 - pictures[17:]])
    one, same = (PictureSet(p, _bars().labels, parts=parts, name="bars") for p in (pictures, other))
    backbone = _quick(pictures=one)
    assert "trained on 17 pictures of bars" in repr(backbone)
    assert torch.equal(_features(backbone), _features(_quick(pictures=same)))


# The file


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_call_reads_its_file(
    tmp_path: Path, kind: str, untrainable: Callable[[], None]
) -> None:
    path = tmp_path / "new" / "bars.safetensors"
    first = _quick(kind, save=path)
    untrainable()
    again, named = _quick(kind, save=str(path)), _quick(kind, save=path, name="other")
    assert torch.equal(_features(again), _features(first))
    assert torch.equal(_features(named), _features(first))
    assert named.name == "other"
    assert again.fingerprint == first.fingerprint == load_trained(path).fingerprint
    assert repr(load_trained(path)) == repr(first)
    assert load_trained(path, name="third").name == "third"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_any_other_call_trains_and_replaces(tmp_path: Path, untrainable: Callable[[], None]) -> None:
    path = tmp_path / "bars.safetensors"
    _quick(save=path)
    relabelled = PictureSet(_bars().pictures, _bars().labels.flip(0), name="bars")
    calls = [
        {"seed": 1}, {"kind": "small_vit"}, {"pictures": _bars(seed=1)}, {"pictures": relabelled},
        {"pictures": _bars()[:19]},
    ]  # fmt: skip
    for options in calls:
        before = path.read_bytes()
        fresh = _quick(save=path, **options)
        assert path.read_bytes() != before
        assert torch.equal(_features(load_trained(path)), _features(fresh))
    untrainable()
    with pytest.raises(AssertionError, match="trained again"):
        train_backbone("small_cnn", _bars()[:19], epochs=2, progress=False, save=path)


def test_a_newer_recipe_trains_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrainable: Callable[[], None]
) -> None:
    path = tmp_path / "bars.safetensors"
    _quick(save=path)
    monkeypatch.setattr(narrow, "RECIPE", narrow.RECIPE + 1)
    untrainable()
    with pytest.raises(AssertionError, match="trained again"):
        _quick(save=path)


@pytest.mark.parametrize("foreign", ["text", "pickle", "other safetensors", "cut short"])
def test_a_foreign_file_is_refused_and_stays(
    tmp_path: Path, foreign: str, untrainable: Callable[[], None]
) -> None:
    path = tmp_path / "thesis.txt"
    if foreign == "text":
        path.write_text("three years of work")
    elif foreign == "pickle":
        torch.save({"weights": torch.ones(3)}, path)
    elif foreign == "other safetensors":
        save_file({"weights": torch.ones(3)}, path, metadata={"format": "pt"})
    else:
        _quick(save=path)
        path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    untrainable()
    with pytest.raises(ValueError, match=r"save: a file stands there .*; it stays; path: .*thesis\.txt is"):
        _quick(save=path)
    with pytest.raises(ValueError, match=r"path: .*thesis\.txt is"):
        load_trained(path)
    assert path.read_bytes() == before


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: there is no file .*gone"):
        load_trained(tmp_path / "gone")


def test_a_failed_save_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bars.safetensors"
    _quick(save=path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            _quick(save=path, seed=1)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_where_nothing_can_be_saved_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "learned", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(IsADirectoryError, match=r"path: .* is a folder; expected a file"):
        _quick(save=tmp_path)


@pytest.mark.usefixtures("unchecked")
def test_a_seed_of_numpy_is_as_good(tmp_path: Path) -> None:
    _quick(seed=np.int64(1), save=tmp_path / "a")
    with pytest.raises(TypeError, match=r"seed: got 1.5; expected a whole number"):
        _quick(seed=1.5)


# Errors, and the bar


def test_an_unknown_kind_is_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"kind: got 'large_cnn'; expected small_cnn or small_vit; wrap others"):
        _quick("large_cnn")


@pytest.mark.parametrize(
    ("labels", "found"), [(None, "no labels"), ([2] * 5, "labels of one class only")]
)
def test_pictures_without_classes_are_refused(labels: list[int] | None, found: str) -> None:
    with pytest.raises(ValueError, match=rf"pictures: PictureSet\('bars'.*\) has {found}; expected two or more"):
        _quick(pictures=PictureSet(torch.rand(5, 3, H, W), labels, name="bars"))


def test_no_epochs_are_refused() -> None:
    with pytest.raises(ValueError, match="epochs: got 0; expected 1 or more; leave it out for 16"):
        train_backbone("small_cnn", _bars(), epochs=0)


def test_the_bar_names_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    train_backbone("small_cnn", _bars(), epochs=1)
    assert "training small_cnn" in capsys.readouterr().err
    _quick()
    assert capsys.readouterr().err == ""


# The two architectures


def test_a_patch_of_the_cnn_sees_its_surroundings_and_one_of_the_vit_sees_all() -> None:
    pictures = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    pictures[1] = pictures[0]
    pictures[1, :, 0, 0] = 1 - pictures[0, :, 0, 0]
    for kind, reached in (("small_cnn", 3), ("small_vit", 7)):
        features = _quick(kind)(pictures).features
        changed = (features[0] - features[1]).abs().amax(dim=0) > 1e-6
        assert changed[:reached, :reached].all()
        assert changed.sum() == reached**2
