"""One call answers whether merging pays, from grids to words, and refuses what it cannot compare."""

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_lab_bench import poisoned
from test_lab_contenders import grids, pictures, task, with_random

import grafeat as gf
from grafeat.lab import bench as module
from grafeat.lab import scratch
from grafeat.lab.comparison import Comparison
from grafeat.lab.contenders import contenders, controls
from grafeat.lab.task import Task
from grafeat.training import fit

FEW = ["single", "concat", "ensemble", "merge"]
TIMES = ["training seconds", "inference ms", "date"]


def compared(*given: object, **options: object) -> Comparison:
    return gf.compare(*given, **({"seeds": 2, "epochs": 1, "progress": False, "controls": False} | options))


def test_grids_alone_are_a_task_and_all_ways_and_controls_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PICTURES_SHOWN", 1)
    made = with_random()
    full = Task("made up", made, backbones=["pointer", "random"], pictures=pictures(made))
    found = compared(full, controls=True, seeds=1)
    names = {one.name: one.kind for one in (*controls(full), *contenders(full))}
    assert dict(zip(found.rows["contender"], found.rows["kind"], strict=True)) == names
    kinds = found.rows["kind"].tolist()
    assert kinds == sorted(kinds, key=["way", "merge", "control"].index)
    assert compared(grids(), ["linear"]).tasks == ["given grids"]


def test_it_answers_a_question_whose_answer_is_known() -> None:
    """Pooling loses the label, cross edges find it: merging pays, by far, and the table says so."""
    made = gf.planted.pointer(1200, shape=(2, 2), channels=(3, 5), num_classes=3).split(val=0.1, test=0.3)
    found = compared(made, ["concat", "merge"], seeds=[0], epochs=12)
    rows = found.rows.set_index("contender")
    assert rows.loc["merge", "mean"] > 0.9
    assert rows.loc["merge", "to best rival low"] > 0.2
    assert max(float(p) for p in rows.loc["merge", "p to concat"].split()) < 1e-6
    assert "merging paid on 1 of 1 task" in found.verdict()


def test_the_same_call_gives_the_same_table_with_a_folder_or_without(tmp_path: Path) -> None:
    made = grids()
    tasks = [Task("a", made), Task("r", made, measure="retrieval"), Task("few", made, per_class=5)]
    first, *others = (compared(tasks, FEW, folder=folder).rows for folder in (tmp_path, tmp_path, None))
    pd.testing.assert_frame_equal(first, others[0])  # read back, durations and all
    pd.testing.assert_frame_equal(first.drop(columns=TIMES), others[1].drop(columns=TIMES))


def test_parts_of_the_work_in_one_folder_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = grids()
    tasks = [Task("a", made), Task("few", made, per_class=5)]
    for part, seed in ((tasks[:1], 0), (tasks[1:], 0), (tasks, 1)):
        compared(part, FEW, seeds=[seed], folder=tmp_path)
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("trained again"))
    whole = compared(tasks, FEW, seeds=2, folder=tmp_path)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(
        whole.rows.drop(columns=TIMES), compared(tasks, FEW, seeds=2).rows.drop(columns=TIMES)
    )


def test_a_folder_that_cannot_be_written_is_found_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(OSError, match="file"):
        compared(task(), FEW, folder=tmp_path / "file")


def test_poisoned_labels_of_the_test_change_figures_alone() -> None:
    order = torch.Generator().manual_seed(5)
    wrong = poisoned(lambda labels: labels[torch.randperm(len(labels), generator=order)])
    one, other = (compared(Task("a", made), FEW).rows for made in (grids(), wrong))
    same = ["contender", "best rival", "validation", "validation loss", "parameters", "labels", "pictures"]
    pd.testing.assert_frame_equal(one[same], other[same])
    assert one["mean"].tolist() != other["mean"].tolist()


def test_one_backbone_is_compared_where_that_makes_sense() -> None:
    with pytest.warns(UserWarning, match=r"has one backbone, 'classes': left out, as they need two or more: ensemble"):
        found = compared(task(backbones=["classes"]), ["single", "concat", "ensemble", "merge"])
    assert found.rows["contender"].tolist() == ["single classes", "concat", "merge"]
    assert found.rows["to ensemble"].isna().all()


def test_the_model_is_trained_as_fit_does_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []

    def noted(*sets: object, **options: object) -> object:
        seen.append(options)
        return fit(*sets, **(options | {"epochs": 1}))

    monkeypatch.setattr(module, "fit", noted)
    gf.compare(task(), ["concat"], seeds=[3], controls=False, progress=False)
    (options,) = seen
    given = {name: value for name, value in options.items() if name not in ("val", "device", "progress", "seed")}
    defaults = inspect.signature(fit).parameters
    assert given == {name: defaults[name].default for name in given} and options["seed"] == 3
    assert set(given) >= {"epochs", "batch_size", "learning_rate"}


def test_a_bar_counts_the_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    compared(task(), ["linear", "concat"], progress=True)
    said = capsys.readouterr().err
    assert "4/4" in said and "made up, concat, seed 1" in said
    compared(task(), ["linear"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": []}, "tasks: got none; expected one or more"),
        ({"seeds": 0}, "seeds: got 0; expected how many, or the seeds as whole numbers"),
        ({"seeds": []}, r"seeds: got \[\]; expected how many"),
        ({"seeds": 2.5}, r"seeds: got 2\.5; expected how many"),
        ({"seeds": "5"}, "seeds: got '5'; expected how many"),
        ({"seeds": True}, "seeds: got True; expected how many"),
        ({"seeds": [0, 1.5]}, r"seeds: got \[0, 1\.5\]; expected how many"),
        ({"seeds": [3, 3]}, "seeds: got 3 2 times; expected different ones"),
        ({"contenders": "concta"}, "contenders: got 'concta' for task 'made up'.*did you mean 'concat'"),
        ({"controls": ["made down"]}, "controls: got 'made down'; expected True, False or some of made up"),
        ({"controls": "made"}, "controls: got 'made'; expected True, False or some of made up"),
        ({"parameters": "equal"}, "parameters: got 'equal'; expected 'matched' or 'own'"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, object], message: str, unchecked: None) -> None:
    with pytest.raises(ValueError, match=message):
        compared(options.pop("tasks", task()), **options)


@pytest.mark.filterwarnings("ignore:task 'made up' has one backbone")
@pytest.mark.parametrize("wanted", [[], ["add", "ensemble"]])
def test_where_no_contender_is_left_that_is_said(wanted: list[str]) -> None:
    with pytest.raises(ValueError, match="contenders: got none that fits task 'made up'; expected ways for as many"):
        compared(task(backbones=["classes"]), wanted)


def test_seeds_may_be_counted_by_numpy_and_a_lone_task_be_named_for_controls(unchecked: None) -> None:
    found = compared(task(), ["linear"], seeds=np.int64(1), controls="made up").rows
    assert set(found["seeds"]) == {"0"} and "control" in set(found["kind"])
    found = compared(task(), ["linear"], seeds=[*np.arange(2)], epochs=np.int64(1)).rows
    assert set(found["seeds"]) == {"0 1"}


def test_groups_of_test_pictures_reach_the_table() -> None:
    made = grids()
    groups = [row // 4 for row in range(len(made.test))]
    alone, grouped = (compared(Task("a", made, groups=given), FEW).rows for given in (None, groups))
    assert alone["mean"].tolist() == grouped["mean"].tolist()
    assert alone["low"].tolist() != grouped["low"].tolist()
    assert set(grouped["p to concat"]) == {""} != set(alone["p to concat"])


def test_tasks_of_one_name_and_what_is_no_task_are_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="tasks: got 'made up' 2 times"):
        compared([task(), task()], ["linear"])
    with pytest.raises(TypeError, match=r"tasks: got GridSet among them; expected Task; wrap it: Task\('name'"):
        compared([grids()], ["linear"])


def test_a_task_without_a_picture_to_choose_by_is_named() -> None:
    with pytest.raises(ValueError, match=r"tasks: 'made up' has no picture left .* with per_class=2; expected some"):
        compared(task(per_class=2), ["linear"])


def test_a_task_that_cannot_be_is_named_by_its_own_error() -> None:
    with pytest.raises(ValueError, match=r"task 'made up': per_class: got 50, but class '.' has"):
        task(per_class=50)
    single = grids()
    one_class = gf.GridSet(single.grids, torch.zeros(len(single), dtype=torch.long), parts=single.part_positions)
    with pytest.raises(ValueError, match=r"task 'made up': .*got 1 class"):
        task(grids=one_class)
