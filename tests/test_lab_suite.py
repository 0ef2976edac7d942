"""The suite's tasks ask what they say: labels, shifts, halves, parts; and it says what it had to leave out."""

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import idx
from torch import Tensor, nn

import grafeat.lab.suite as module
from grafeat.backbones.backbone import Backbone
from grafeat.data import load_dataset
from grafeat.lab import Task
from grafeat.lab.suite import FAMILIES, fresh_digits, suite
from grafeat.pictures import PictureSet
from grafeat.planted import two_digits
from grafeat.planted.cutouts import CATEGORIES
from grafeat.shifts import SHIFTS, shifted

CLASSES = 10  # of clothes


def backbone(name: str, channels: int, patch: int) -> Backbone:
    """Patches of 28 × 28 pixels, seen through random filters."""
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        return Backbone(nn.Conv2d(3, channels, patch, patch), name=name, size=28)


def backbones() -> list[Backbone]:
    return [backbone("a", 3, 7), backbone("b", 5, 14)]


def write_clothes(folder: Path, each: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Fashion-MNIST's four files, with noise for clothes."""
    folder.mkdir(parents=True)
    draw, halves = np.random.default_rng(0), {}
    for half, count in each.items():
        labels = np.tile(np.arange(CLASSES, dtype=np.uint8), count)
        pictures = draw.integers(256, size=(len(labels), 28, 28), dtype=np.uint8)
        halves[half] = pictures, labels
        for kind, values in (("images-idx3", pictures), ("labels-idx1", labels)):
            (folder / f"{half}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(values), 1))
    return halves


def write_stamps(folder: Path) -> None:
    """Seven cut-outs of each category, of colours that say which they are."""
    for red, places in enumerate(CATEGORIES.values()):
        for place in places:
            (folder / place).mkdir(parents=True)
        for number in range(7):
            pixels = np.full((43, 47, 4), (30 * red, 9 * number, 77, 255), np.uint8)
            Image.fromarray(pixels).save(folder / places[0] / f"{red} {number}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suite")


@pytest.fixture(scope="module")
def clothes(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return write_clothes(folder / "fashion", {"train": 127, "t10k": 7})


@pytest.fixture(scope="module")
def tasks(folder: Path, clothes: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Task]:
    """The whole suite, with fewer pictures."""
    write_stamps(folder / "stamps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CLOTHES", {"train": 103, "val": 3, "test": 5})
        for name, count in {"SUMS": 211, "POINTED": 109, "PHOTOGRAPHS": 113}.items():
            patch.setattr(module, name, count)
        made = suite(
            backbones(),
            store=folder / "grids",
            spare=[backbone("random", 3, 14)],
            fashion=folder / "fashion",
            stamps=folder / "stamps",
            progress=False,
        )
    assert len({task.name for task in made}) == len(made)
    return {task.name: task for task in made}


def of(tasks: dict[str, Task], family: str) -> list[Task]:
    return [task for task in tasks.values() if task.family == family]


def seen(one: Backbone, pictures: Tensor | Sequence[Tensor]) -> Tensor:
    """What a backbone says, as a store keeps it."""
    return one(pictures).features.half()


def test_there_are_seven_families_in_order_and_nothing_but_backbones_is_compared(tasks: dict[str, Task]) -> None:
    assert list(dict.fromkeys(task.family for task in tasks.values())) == list(FAMILIES)
    assert len(FAMILIES) == 7
    assert all(task.names == ("a", "b") for name, task in tasks.items() if name != "pointer")
    assert tasks["pointer"].names == ("pointer", "classes")
    assert {task.family for task in tasks.values() if task.spare} == {"few labels", "shifted", "retrieval"}


def test_the_digits_of_the_test_are_learned_from_in_the_packages_split() -> None:
    fresh, known = fresh_digits(), load_dataset("mnist5k")
    rows, before = fresh.part_positions, known.part_positions
    assert {part: len(own) for part, own in rows.items()} == {part: len(own) for part, own in before.items()}
    assert set(rows["test"].tolist()) < set(before["train"].tolist())
    assert set(before["test"].tolist()) < set(rows["train"].tolist())
    assert sorted(torch.cat(list(rows.values())).tolist()) == list(range(5000))
    assert fresh.test.labels.bincount().tolist() == [150] * 10 and torch.equal(fresh.labels, known.labels)


def test_digits_come_with_few_labels_and_their_pictures(tasks: dict[str, Task]) -> None:
    digits = fresh_digits()
    found = of(tasks, "few labels")
    assert [task.per_class for task in found] == [10, 50, 100, 300]
    for task in found:
        few = task.labelled(3)
        assert few.train.labels.bincount().tolist() == [0.8 * task.per_class] * 10
        assert few.val.labels.bincount().tolist() == [0.2 * task.per_class] * 10
        assert len(task.tested) == 1500 and task.pictures is not None
    assert torch.equal(found[0].tested["a"].features, seen(backbones()[0], digits.test.pictures))
    assert torch.equal(found[0].tested.labels, digits.test.labels)


def test_shifts_and_retrieval_share_the_training_with_50_labels(tasks: dict[str, Task]) -> None:
    clean = tasks["digits, 50 a class"]
    sharing = [*of(tasks, "shifted"), *of(tasks, "retrieval")]
    assert [task.name for task in of(tasks, "shifted")] == [f"digits, {kind}" for kind in SHIFTS]
    assert [task.measure for task in of(tasks, "retrieval")] == ["retrieval", "recall@5"]
    assert all(task.grids is clean.grids and task.per_class == 50 for task in sharing)
    assert all(task.measure == "accuracy" and task.pictures is None for task in of(tasks, "shifted"))


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shifted_task_is_tested_on_the_same_digits_shifted(tasks: dict[str, Task], kind: str) -> None:
    tested, digits = tasks[f"digits, {kind}"].tested, fresh_digits().test
    assert torch.equal(tested.labels, digits.labels)
    assert torch.equal(tested["b"].features[:17], seen(backbones()[1], shifted(digits[:17], kind).pictures))
    assert not torch.equal(tested["b"].features, tasks["digits, 50 a class"].tested["b"].features)


def test_clothes_are_the_first_of_each_class_by_content(
    tasks: dict[str, Task], clothes: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    found = of(tasks, "fashion")
    assert [task.per_class for task in found] == [10, 50, 100]
    task = found[0]
    assert task.pictures is not None and task.grids is found[1].grids
    for part, count in {"train": 103, "val": 3, "test": 5}.items():
        assert getattr(task.grids, part).labels.bincount().tolist() == [count] * CLASSES
    pictures, labels = clothes["t10k"]
    own = sorted((hashlib.sha256(one.tobytes()).digest(), one.tobytes()) for one in pictures[labels == 4])
    test = (task.pictures.test.pictures[task.pictures.test.labels == 4][:, 0] * 255).round().byte()
    assert [one.numpy().tobytes() for one in test] == [one for _, one in own[:5]]
    every = {one.numpy().tobytes() for one in task.pictures.pictures}
    assert len(every) == 10 * (103 + 3 + 5)  # no picture stands in two parts
    assert torch.equal(task.grids["a"].features, seen(backbones()[0], task.pictures.pictures))


def test_each_backbone_sees_one_of_two_digits(tasks: dict[str, Task]) -> None:
    grids = tasks["blind sums"].grids
    both = two_digits(fresh_digits(), 211)
    left, right = both.pictures[..., :28].contiguous(), both.pictures[..., 28:].contiguous()
    assert torch.equal(grids["a"].features, seen(backbones()[0], left))
    assert torch.equal(grids["b"].features, seen(backbones()[1], right))
    assert [grid.field for grid in grids.grids] == [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    assert torch.equal(grids.labels, both.labels) and tasks["blind sums"].num_classes == 19


def test_the_pointer_has_parts(tasks: dict[str, Task]) -> None:
    parts = tasks["pointer"].grids.parts
    assert sum(parts.values()) == 109 and parts["train"] > parts["test"] > parts["val"] > 0


def test_photographs_in_the_test_show_what_no_other_part_shows(tasks: dict[str, Task]) -> None:
    task = tasks["photographs"]
    assert task.grids.classes == tuple(CATEGORIES) and task.pictures is not None
    objects = {part: set(getattr(task.pictures, part).objects) for part in ("train", "val", "test")}
    assert not objects["test"] & (objects["train"] | objects["val"])
    assert task.pictures.pictures.shape == (113, 3, 112, 112)
    assert task.groups == task.pictures.test.objects and len(task.groups) > len(objects["test"])
    assert all(other.groups is None for other in tasks.values() if other is not task)


@pytest.mark.parametrize("measure", ["knn", "mahalanobis"])
def test_anomalies_are_digits_that_no_training_part_has(tasks: dict[str, Task], measure: str) -> None:
    task = tasks[f"anomalies, {measure}"]
    assert task.measure == f"{measure}_auroc" and task.num_classes == 5
    few = task.labelled(1)
    assert few.train.labels.unique().tolist() == few.val.labels.unique().tolist() == [0, 1, 2, 3, 4]
    assert task.tested.labels.bincount().tolist() == [150] * 10
    digits = fresh_digits().train
    known = digits[digits.labels < 5]
    assert torch.equal(task.grids.train["a"].features, seen(backbones()[0], known.pictures))
    assert torch.equal(task.grids.train.labels, known.labels)


def test_a_second_call_shows_no_picture_again(
    folder: Path, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    again, wanted = backbones(), ["few labels", "shifted", "anomalies", "retrieval"]
    monkeypatch.setattr(Backbone, "_features", lambda *_: pytest.fail("a picture was shown again"))
    made = suite(again, store=folder / "grids", which=wanted, progress=False)
    assert [task.name for task in made] == [task.name for task in tasks.values() if task.family in wanted]
    assert made[0].spare == ()


# What is not there


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ("fashion", r"'fashion' are left out\. fashion: no files in .*missing; fetch them with `make fashion`"),
        ("photographs", r"'photographs' are left out\. root: no stamps in .*missing; .* `make stamps`"),
    ],
)
def test_it_says_what_it_leaves_out_and_how_to_get_it(tmp_path: Path, family: str, says: str) -> None:
    with pytest.warns(UserWarning, match=says):
        made = suite(
            backbones(),
            store=tmp_path,
            which=[family],
            fashion=tmp_path / "missing",
            stamps=tmp_path / "missing",
            progress=False,
        )
    assert made == []


def test_files_of_clothes_that_are_not_whole_are_named(tmp_path: Path) -> None:
    write_clothes(tmp_path / "fashion", {"train": 13, "t10k": 2})
    (tmp_path / "fashion" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.warns(UserWarning, match=r"'fashion' are left out\. .* has no t10k-labels-idx1-ubyte\.gz; install"):
        suite(backbones(), store=tmp_path, which=["fashion"], fashion=tmp_path / "fashion", progress=False)


def test_unknown_families_and_a_single_backbone_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which: got 'shift'; expected some of few labels, shifted, .*; leave it out"):
        suite(backbones(), store=tmp_path, which=["few labels", "shift"])
    with pytest.raises(ValueError, match=r"which: got none"):
        suite(backbones(), store=tmp_path, which=[])
    with pytest.raises(ValueError, match=r"backbones: got 1; expected two or more"):
        suite(backbones()[:1], store=tmp_path)


def test_other_digits_may_be_given_and_are_those_of_every_task_of_digits(tmp_path: Path) -> None:
    digits = load_dataset("mnist5k").split(val=0.2, test=0.1, seed=3)
    found = suite(backbones(), digits=digits, store=tmp_path, which=["retrieval", "evidence"], progress=False)
    tested = {task.name: task.tested for task in found}
    assert torch.equal(tested["retrieval"].labels, digits.test.labels)
    sums = two_digits(digits, module.SUMS)
    assert torch.equal(tested["blind sums"].labels, sums.test.labels)


def test_digits_have_ten_classes_and_three_parts(tmp_path: Path) -> None:
    digits = load_dataset("mnist5k")
    fewer = digits.with_parts(train=range(400), test=range(400, 500))
    for wrong in (fewer, load_dataset("digits8x8"), shifted_names(digits)):
        with pytest.raises(ValueError, match=r"digits: got .*; expected the classes 0 to 9 and the parts train, val"):
            suite(backbones(), digits=wrong, store=tmp_path)


def shifted_names(digits: PictureSet) -> PictureSet:
    names = [f"the {name}" for name in digits.classes]
    return PictureSet(digits.pictures, digits.labels, classes=names, parts=digits.part_positions)
