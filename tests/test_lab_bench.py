"""Each training is done once: shared by tasks, kept in files, read back, and done anew where a file is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_lab_contenders import grids, pictures, task
from torch import Tensor

from grafeat.fusion import mix
from grafeat.grids import GridSet
from grafeat.lab import bench as module
from grafeat.lab import scratch
from grafeat.lab.bench import Bench
from grafeat.lab.cells import Cell
from grafeat.lab.contenders import Contender
from grafeat.lab.keys import Keys
from grafeat.lab.lessons import lessons
from grafeat.lab.task import Task
from grafeat.training import fit

WAYS = ["single", "concat", "ensemble", "voting", "merge"]
Found = dict[tuple[str, str, int], Cell]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kinds of model were trained, in order."""
    done: list[str] = []

    def noted(model: torch.nn.Module, *sets: GridSet, **options: object) -> object:
        done.append(f"{type(model).__name__} {' '.join(model.backbones)}")
        return fit(model, *sets, **options)

    monkeypatch.setattr(module, "fit", noted)
    return done


def learned(
    tasks: list[Task],
    ways: list[str | Contender] | None = None,
    folder: Path | None = None,
    seeds: tuple[int, ...] = (0,),
) -> Found:
    bench = Bench(folder, keys=Keys(epochs=1))
    groups = lessons(tasks, ways or WAYS, seeds, controls=False)
    return {
        (name, lesson.contender.name, lesson.seed): cell
        for group in groups
        for lesson, cells in bench.learn(group)
        for name, cell in cells.items()
    }


def same(one: Found, other: Found) -> bool:
    """All but durations and dates."""
    return one.keys() == other.keys() and all(
        torch.equal(one[place].logits, other[place].logits)
        and torch.equal(one[place].val_logits, other[place].val_logits)
        for place in one
    )


def test_tasks_of_one_training_train_once(trained: list[str]) -> None:
    made = grids()
    fewer, retrieval = Task("fewer", made, test=made.test[:9]), Task("r", made, measure="retrieval")
    found = learned([Task("clean", made), fewer, retrieval])
    assert trained == [
        "GraFeatMerge pointer", "GraFeatMerge classes", "Concat pointer classes", "GraFeatMerge pointer classes"
    ]  # fmt: skip
    assert len(found) == 3 * 6
    clean, shorter = found["clean", "merge", 0], found["fewer", "merge", 0]
    torch.testing.assert_close(clean.logits[:, :9], shorter.logits)
    assert found["r", "merge", 0] is clean  # the same test pictures: one cell, with vectors for who needs them
    assert clean.vectors is not None and shorter.vectors is None


def test_a_cell_is_what_mix_and_fit_give() -> None:
    asked = task(per_class=5)
    found = learned([asked], ["concat", "merge"], seeds=(3,))
    few = asked.labelled(3)
    for way, size in (("merge", None), ("concat", found["made up", "merge", 3].parameters)):
        model = mix(way, few, num_classes=3, parameters=size, seed=3)
        more = {"unlabelled": few.unlabelled} if "unlabelled" in few.parts else {}
        fit(model, few.train, val=few.val, **more, seed=3, epochs=1, progress=False)
        with torch.no_grad():
            torch.testing.assert_close(found["made up", way, 3].logits[0], model(asked.grids.test).logits)


def test_a_committee_is_that_of_members_trained_one_by_one() -> None:
    asked = task()
    found = learned([asked])
    names = ("single pointer", "single classes")
    logits = [found["made up", name, 0].logits[0] for name in names]
    ensemble = found["made up", "ensemble", 0]
    torch.testing.assert_close(ensemble.logits[0], torch.stack(logits).mean(dim=0))
    torch.testing.assert_close(ensemble.logits[2], logits[1])  # without the first
    assert ensemble.seconds == pytest.approx(sum(found["made up", name, 0].seconds for name in names))
    assert ensemble.parameters == sum(found["made up", name, 0].parameters for name in names)


@pytest.mark.parametrize("some", [True, False])
def test_pictures_without_labels_are_learned_from_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, some: bool
) -> None:
    made, given = grids(), []
    few = made.few_labels(5, rest=True)
    if not some:
        parts = few.part_positions | {"unlabelled": torch.empty(0, dtype=torch.long)}
        few = GridSet(few.grids, few.labels, classes=few.classes, parts=parts)
    monkeypatch.setattr(Task, "labelled", lambda task, seed: few)
    asked = Task("made up", made, per_class=5)
    monkeypatch.setattr(module, "fit", lambda *sets, **options: given.append(options) or fit(*sets, **options))
    learned([asked], ["concat"])
    assert ("unlabelled" in given[0]) == some
    key = Keys().key(lessons([asked], ["concat"], [0], controls=False)[0][0], asked)
    assert ("unlabelled" in key) == some
    if some:
        assert torch.equal(given[0]["unlabelled"]["classes"].features, few.unlabelled["classes"].features)
        assert given[0]["unlabelled"].labels is None


@pytest.mark.parametrize("way", ["ensemble", "voting"])
def test_a_committee_by_mix_and_fit_says_the_same(way: str) -> None:
    """With all its backbones, with each alone, and in its vectors."""
    made = grids()
    found = learned([Task("made up", made, measure="retrieval")], [way, "merge"])
    model = mix(way, made.train, num_classes=3, parameters=found["made up", "merge", 0].parameters)
    fit(model, made.train, val=made.val, epochs=1, progress=False)
    cell = found["made up", way, 0]
    with torch.no_grad():
        for logits, some in zip(cell.logits, cell.subsets, strict=True):
            torch.testing.assert_close(logits, model(made.test.only(*some)).logits)
        torch.testing.assert_close(cell.val_logits, model(made.val).logits)
        for part, vectors in (("test", cell.vectors), ("val", cell.val_vectors), ("train", cell.train_vectors)):
            torch.testing.assert_close(vectors, model(getattr(made, part)).vector)


def test_a_committee_alone_trains_its_members_and_keeps_their_answers(tmp_path: Path, trained: list[str]) -> None:
    learned([task()], ["ensemble"], tmp_path)
    assert trained == ["GraFeatMerge pointer", "GraFeatMerge classes"]
    learned([task()], ["single", "voting"], tmp_path)
    assert len(trained) == 2


def test_what_was_kept_is_read_and_nothing_is_trained(tmp_path: Path, trained: list[str]) -> None:
    first = learned([task()], folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    trained.clear()
    again = learned([task()], folder=tmp_path)
    assert trained == []
    assert same(first, again)
    assert same(first, learned([task()]))  # without a folder nothing is kept, and all is the same
    assert again["made up", "merge", 0].date == first["made up", "merge", 0].date != ""


@pytest.mark.parametrize(
    ("lost", "kinds"),
    [
        ("merge", ["GraFeatMerge pointer classes"]),
        ("concat", ["Concat pointer classes"]),
        ("ensemble", []),  # the answers of its members are there
        ("single", ["GraFeatMerge pointer", "GraFeatMerge classes"]),
    ],
)
def test_only_what_is_lost_is_trained_anew(tmp_path: Path, trained: list[str], lost: str, kinds: list[str]) -> None:
    first = learned([task()], folder=tmp_path)
    gone = list(tmp_path.glob(f"{lost}-*"))
    for path in gone:
        path.unlink()
    trained.clear()
    assert same(first, learned([task()], folder=tmp_path))
    assert trained == kinds
    assert all(path.exists() for path in gone)


def test_a_damaged_cell_is_named_and_trained_anew(tmp_path: Path, trained: list[str]) -> None:
    first = learned([task()], ["merge", "concat"], tmp_path)
    (harmed,) = tmp_path.glob("merge-*")
    whole = harmed.read_bytes()
    harmed.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    trained.clear()
    with pytest.warns(UserWarning, match=rf"folder: .*{harmed.name} cannot be used and is computed anew"):
        again = learned([task()], ["merge", "concat"], tmp_path)
    assert trained == ["GraFeatMerge pointer classes"]
    assert same(first, again)


def test_vectors_that_a_new_task_needs_are_made(tmp_path: Path, trained: list[str]) -> None:
    made = grids()
    learned([Task("a", made)], ["merge"], tmp_path)
    trained.clear()
    found = learned([Task("b", made, measure="recall@5")], ["merge"], tmp_path)
    assert len(trained) == 1
    assert found["b", "merge", 0].vectors is not None
    learned([Task("a", made)], ["merge"], tmp_path)
    assert len(trained) == 1


def test_several_share_a_folder_and_another_seed_is_another_training(tmp_path: Path, trained: list[str]) -> None:
    learned([task()], ["merge"], tmp_path, seeds=(0,))
    learned([task()], ["merge"], tmp_path, seeds=(3,))
    trained.clear()
    found = learned([task()], ["merge"], tmp_path, seeds=(0, 3))
    assert trained == []
    assert not torch.equal(found["made up", "merge", 0].logits, found["made up", "merge", 3].logits)


def test_without_a_folder_equal_tasks_train_once_all_the_same(trained: list[str]) -> None:
    """Two extractions of the same pictures, say."""
    learned([Task("a", grids()), Task("b", grids())], ["merge"])
    assert len(trained) == 1


def test_the_cnn_from_scratch_learns_from_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PICTURES_SHOWN", 1)
    made = grids()
    found = learned([task(grids=made, pictures=pictures(made))], [Contender("small", "scratch", kind="control")])
    assert found["made up", "small", 0].logits.shape == (1, len(made.test), 3)


def test_an_own_model_is_trained_like_the_others() -> None:
    def build(seen: GridSet, num_classes: int, seed: int) -> torch.nn.Module:
        return mix("concat", seen, num_classes=num_classes, seed=seed)

    found = learned([task()], [Contender("mine", build), "concat"])
    assert found["made up", "mine", 0].logits.shape == found["made up", "concat", 0].logits.shape


def test_a_training_that_fails_names_the_task_and_the_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ValueError("train: the loss is no number")

    monkeypatch.setattr(module, "fit", failing)
    with pytest.raises(ValueError, match=r"task 'made up', 'concat', seed 3: train: the loss is no number"):
        learned([task()], ["concat"], seeds=(3,))


def poisoned(make: Callable[[Tensor], Tensor]) -> GridSet:
    made = grids()
    labels = made.labels.clone()
    where = made.part_positions["test"]
    labels[where] = make(labels[where])
    return GridSet(made.grids, labels, classes=made.classes, parts=made.part_positions)


@pytest.mark.parametrize("seed", [1, 2])
def test_labels_of_the_test_have_no_say_in_what_is_kept(tmp_path: Path, seed: int) -> None:
    order = torch.Generator().manual_seed(seed)
    wrong = poisoned(lambda labels: labels[torch.randperm(len(labels), generator=order)])
    assert not torch.equal(wrong.test.labels, grids().test.labels)
    for folder, made in (("right", grids()), ("wrong", wrong)):
        learned([Task("a", made), Task("r", made, measure="retrieval")], None, tmp_path / folder)
    right, other = (sorted((tmp_path / folder).iterdir()) for folder in ("right", "wrong"))
    assert [path.name for path in right] == [path.name for path in other]
    for one, two in zip(right, other, strict=True):
        first, second = (tensors(path) for path in (one, two))
        assert first.keys() == second.keys() >= {"logits", "val_logits", "vectors"}
        assert all(torch.equal(first[name], second[name]) for name in first)


def tensors(path: Path) -> dict[str, Tensor]:
    from grafeat.files import read_tensors
    from grafeat.lab.cells import KIND

    return read_tensors(path, kind=KIND)[0]
