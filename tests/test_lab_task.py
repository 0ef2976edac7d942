"""A task draws its labels by seed, shares them between tests, and refuses what it cannot ask."""

from typing import Any

import pytest
import torch

from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab import Task
from grafeat.pictures import PictureSet

COUNT, CLASSES = 66, 3
PARTS = {"train": torch.arange(39), "val": torch.arange(39, 48), "test": torch.arange(48, 66)}
LABELS = torch.arange(COUNT) % CLASSES


def made(names: tuple[str, ...] = ("a", "b", "random"), labels: torch.Tensor = LABELS, **options: Any) -> GridSet:
    generator = torch.Generator().manual_seed(0)
    grids = [FeatureGrid(name, torch.randn(len(labels), 5, 2, 3, generator=generator)) for name in names]
    return GridSet(grids, labels, **{"parts": PARTS, **options})


def pictures(count: int = COUNT, **options: Any) -> PictureSet:
    brightness = torch.linspace(0, 1, count)[:, None, None, None].expand(-1, 1, 2, 2)
    return PictureSet(brightness, LABELS[:count], **{"parts": PARTS, **options})


def test_a_task_by_default_takes_all_that_the_grids_have() -> None:
    task = Task("t", made())
    assert task.names == ("a", "b", "random") and task.spare == ()
    assert task.num_classes == CLASSES and task.family == "t" and not task.anomaly
    assert len(task.tested) == 18
    assert task.labelled(3).parts == {"train": 39, "val": 9, "test": 18}
    assert task.shown(3) is None
    assert repr(task) == "Task('t': a, b, random; 48 pictures of 3 classes; accuracy on 18 pictures)"


def test_backbones_that_are_not_compared_are_spare() -> None:
    task = Task("t", made(), backbones=["b", "a"], per_class=10, family="f")
    assert task.names == ("b", "a") and task.spare == ("random",) and task.family == "f"
    assert task.labelled(0).names == ("a", "b", "random")
    assert repr(task) == "Task('t': b, a (spare: random); 10 a class of 3 classes; accuracy on 18 pictures)"


def test_labels_are_drawn_by_seed_and_pictures_with_them() -> None:
    task = Task("t", made(), per_class=5, pictures=pictures())
    few, shown = task.labelled(7), task.shown(7)
    assert few.parts == {"train": 12, "val": 3, "unlabelled": 24, "test": 18} and shown is not None
    place = {float(value): row for row, value in enumerate(torch.linspace(0, 1, COUNT))}
    rows = [place[float(picture[0, 0, 0])] for picture in shown.train.pictures]
    assert torch.equal(made()[rows]["a"].features, few.train["a"].features)
    assert max(rows) < 39  # of the training part
    assert not torch.equal(task.labelled(8).train["a"].features, few.train["a"].features)
    assert torch.equal(task.labelled(8).test["a"].features, few.test["a"].features)
    assert Task("t", made(), pictures=pictures()).shown(0).parts == {"train": 39, "val": 9, "test": 18}


def test_another_test_set_needs_the_compared_backbones_alone() -> None:
    other = made(("b", "a"), LABELS[:11], parts=None, classes=["0", "1", "2"])
    task = Task("t", made(), backbones=("a", "b"), test=other, per_class=4)
    assert len(task.tested) == 11
    assert task.labelled(1).test is not other  # what is trained is the same whatever is tested
    with pytest.raises(ValueError, match=r"task 't': test: got grids of b, a; expected those of 'random', too"):
        Task("t", made(), test=other)


@pytest.mark.parametrize("measure", ["knn_auroc", "mahalanobis_auroc"])
def test_anomalies_are_classes_beyond_those_trained(measure: str) -> None:
    beyond = made(labels=torch.arange(20) % 5, parts=None)
    assert Task("t", made(), test=beyond, measure=measure).anomaly
    with pytest.raises(ValueError, match=r"test: got 0 of 18 pictures with a label beyond the 3 classes"):
        Task("t", made(), measure=measure)
    only = made(labels=torch.tensor([3, 4, 3]), parts=None)
    with pytest.raises(ValueError, match=r"test: got 3 of 3 pictures with a label beyond"):
        Task("t", made(), test=only, measure=measure)
    with pytest.raises(ValueError, match=r"test: got label 4; expected 0 to 2"):
        Task("t", made(), test=beyond)


@pytest.mark.parametrize("measure", ["retrieval", "recall@5"])
def test_retrieval_needs_two_of_each_class(measure: str) -> None:
    assert Task("t", made(), measure=measure).measure == measure
    lonely = made(labels=torch.tensor([0, 0, 2]), parts=None)
    with pytest.raises(ValueError, match=r"task 't': test: got a class with 1 picture; expected 2 or more"):
        Task("t", made(), test=lonely, measure=measure)
    assert Task("t", made(), test=made(labels=torch.tensor([0, 0, 2, 2]), parts=None), measure=measure)  # 1 has none


def test_groups_of_test_pictures_are_numbered_as_they_come() -> None:
    names = [("dog", 3), "cat", ("dog", 3), *("bird",) * 15]
    task = Task("t", made(), groups=names)
    assert task.grouped.tolist() == [0, 1, 0, *(2,) * 15]
    assert repr(task).endswith("accuracy on 18 pictures in 3 groups)")
    assert Task("t", made()).grouped is None
    other = made(("a", "b", "random"), LABELS[:4], parts=None, classes=["0", "1", "2"])
    assert Task("t", made(), test=other, groups=[5, 5, 3, 3]).grouped.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("groups", [torch.arange(18), [[1]] * 18])
def test_groups_that_are_no_names_are_refused(groups: Any, unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"task 't': groups: got a (Tensor|list) among them; expected names or numbers"):
        Task("t", made(), groups=groups)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"measure": "acuracy"}, r"measure: got 'acuracy' for task 't'; .* the closest is 'accuracy'"),
        ({"backbones": ["a", "c"]}, r"task 't': backbones: got 'a', 'c'; expected different names among a, b, random"),
        ({"backbones": ["a", "a"]}, r"task 't': backbones: got 'a', 'a'"),
        ({"backbones": []}, r"task 't': backbones: got none"),
        ({"per_class": 14}, r"task 't': per_class: got 14, but class '0' has 13 training pictures"),
        ({"per_class": 0}, r"task 't': per_class, val: got 0"),
        ({"groups": ["a"] * 17}, r"task 't': groups: got 17; expected 18, one for each test picture in their order"),
        ({"groups": ["a"] * 18}, r"task 't': groups: got 'a' for every test picture; expected 2 or more groups"),
        ({"pictures": pictures(parts=None)}, r"task 't': pictures: got PictureSet.* expected the 66 pictures"),
        ({"pictures": PictureSet(torch.zeros(COUNT, 1, 2, 2), LABELS.flip(0), parts=PARTS)}, r"pictures: got"),
    ],
)
def test_what_cannot_be_asked_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Task("t", made(), **options)


def test_grids_need_parts_labels_and_classes() -> None:
    with pytest.raises(ValueError, match=r"task 't': grids: got a set without the part 'train'"):
        Task("t", made(parts=None))
    with pytest.raises(ValueError, match=r"task 't': grids: got a set without the part 'test'"):
        Task("t", made(parts={part: PARTS[part] for part in ("train", "val")}))
    with pytest.raises(ValueError, match=r"task 't': grids: got a set with no labels"):
        Task("t", GridSet(made().grids, parts=PARTS))
    with pytest.raises(ValueError, match=r"task 't': grids: got 1 class in the training part; expected 2 or more"):
        Task("t", made(labels=torch.zeros(COUNT, dtype=torch.int64)))


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_empty_part_is_named_with_the_remedy(part: str) -> None:
    empty = made(parts=PARTS | {part: torch.arange(0)})
    with pytest.raises(ValueError, match=f"task 't': grids: got no picture in the part '{part}'; .* split with val="):
        Task("t", empty)


def test_an_empty_test_part_is_no_matter_where_another_set_is_tested() -> None:
    assert len(Task("t", made(parts=PARTS | {"test": torch.arange(0)}), test=made().test).tested) == len(PARTS["test"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_test_picture_that_is_learned_from_is_refused(part: str) -> None:
    leaking = made(parts=PARTS | {part: torch.cat([PARTS[part], PARTS["test"][:1]])})
    with pytest.raises(ValueError, match="task 't': grids: got a picture in two of the parts train, val, test and"):
        Task("t", leaking)


def test_pictures_without_labels_are_a_part_that_no_test_picture_is_in() -> None:
    leaking = made().with_parts(**PARTS, unlabelled=PARTS["test"][:3])
    with pytest.raises(ValueError, match="task 't': grids: got a picture in two of the parts train, val, test and unl"):
        Task("t", leaking)


def test_pictures_without_labels_are_those_of_the_grids_or_those_not_drawn_or_none() -> None:
    some = made().with_parts(**PARTS | {"train": range(30)}, unlabelled=range(30, 39))
    assert Task("t", some).labelled(0).parts == {"train": 30, "val": 9, "test": 18, "unlabelled": 9}
    assert Task("t", some, unlabelled=False).labelled(0).parts == {"train": 30, "val": 9, "test": 18}
    with pytest.raises(ValueError, match="task 't': grids: got the part 'unlabelled' and per_class=5, which makes one"):
        Task("t", some, per_class=5)


def test_a_test_by_other_class_names_or_another_backbone_is_refused() -> None:
    named = made(classes=["x", "y", "z"])
    with pytest.raises(ValueError, match="task 't': test: class 0 is 'z', but 'x' for the training; expected its cla"):
        Task("t", named, test=made(classes=["z", "x", "y"]).test)
    assert len(Task("t", named, test=made(classes=["x", "y", "z"]).test).tested) == 18
    wide = GridSet([FeatureGrid(name, torch.randn(18, 7, 2, 3)) for name in ("a", "b", "random")], LABELS[:18])
    with pytest.raises(ValueError, match="task 't': test: got 7 channels of 'a'; expected 5, as in training; extract"):
        Task("t", made(), test=wide)


def test_pictures_in_other_parts_are_other_pictures() -> None:
    """As many in each part, with the same labels: what learned from them would be asked about others."""
    other = {"train": torch.arange(27, 66), "val": torch.arange(18, 27), "test": torch.arange(18)}
    with pytest.raises(ValueError, match=r"task 't': pictures: got .*; expected the 66 pictures of the grids"):
        Task("t", made(), pictures=pictures(parts=other))
