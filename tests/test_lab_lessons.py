"""Tasks that learn from the same labels share their trainings, and nothing else does."""

import pytest
from test_lab_contenders import grids, pictures, task, with_random

from grafeat.lab.contenders import Contender
from grafeat.lab.lessons import Lesson, lessons, trainings
from grafeat.lab.seen import Only, Twice
from grafeat.lab.task import Task

FEW = ["single", "concat", "ensemble", "voting", "merge"]


def test_tasks_that_differ_in_their_test_share_lessons() -> None:
    made = grids()
    clean, shifted = Task("clean", made), Task("shifted", made, test=made.test[:7])
    retrieval, fewer = Task("retrieval", made, measure="retrieval"), Task("fewer", made, per_class=5)
    groups = lessons([clean, shifted, fewer, retrieval], FEW, [0, 3], controls=False)
    assert [(one.task.name, one.seed) for one, *_ in groups] == [
        ("clean", 0), ("clean", 3), ("fewer", 0), ("fewer", 3)
    ]  # fmt: skip
    assert all(one.tasks == (clean, shifted, retrieval) for one in groups[0])
    assert all(one.tasks == (fewer,) for one in groups[2])
    assert trainings(groups) == 4 * 4  # two singles, concat and merge


def test_other_grids_backbones_or_labels_are_other_lessons() -> None:
    made = grids()
    tasks = [Task("a", made), Task("b", grids()), Task("c", made, backbones=["classes"]), Task("d", made, per_class=5)]
    assert len(lessons(tasks, ["merge"], [0], controls=False)) == 4


def test_a_committee_comes_last_and_is_put_together_from_singles() -> None:
    (group,) = lessons([task()], ["ensemble", "single", "merge"], [5], controls=False)
    assert [one.contender.name for one in group] == ["single pointer", "single classes", "merge", "ensemble"]
    assert [one.trains for one in group] == [True, True, True, False]
    assert [one.contender for one in group[-1].members] == [one.contender for one in group[:2]]
    assert group[0].members == []
    assert trainings([group]) == 3


def test_a_committee_alone_costs_the_trainings_of_its_members() -> None:
    assert trainings(lessons([task()], ["ensemble", "voting"], [0, 1], controls=False)) == 2 * 2


def test_controls_are_added_where_they_are_asked_for() -> None:
    made = grids()
    one, other = Task("one", made), Task("other", made, test=made.test[:5])
    (group,) = lessons([one, other], ["merge"], [0], controls=["other"])
    tested = {lesson.contender.name: [task.name for task in lesson.tasks] for lesson in group}
    assert tested["merge"] == ["one", "other"]
    assert tested["no positions"] == ["other"]
    assert len(tested) == 1 + 10
    (group,) = lessons([one, other], ["merge"], [0], controls=True)
    assert all(len(lesson.tasks) == 2 for lesson in group)


def test_a_lesson_knows_what_is_seen_and_shown() -> None:
    made = with_random()
    full = task(grids=made, backbones=["pointer", "classes"], pictures=pictures(made), per_class=7)
    assert Lesson(Contender("merge"), (full,), 0).seen == Only(("pointer", "classes"))
    assert Lesson(Contender("again", "merge", Twice("classes")), (full,), 0).seen == Twice("classes")
    shown = Lesson(Contender("scratch"), (full,), 3).pictures
    assert shown.train.labels.tolist() == full.labelled(3).train.labels.tolist()
    assert repr(Lesson(Contender("merge"), (full,), 3)) == "Lesson: merge, seed 3, for made up"


def test_what_has_no_pictures_says_so() -> None:
    with pytest.raises(ValueError, match="task 'made up': has no pictures; expected those of its grids"):
        _ = Lesson(Contender("scratch"), (task(),), 0).pictures


def test_what_one_backbone_cannot_do_is_said_and_left_out() -> None:
    with pytest.warns(UserWarning, match="'classes': left out, as they need two or more: add, ensemble"):
        (group,) = lessons([task(backbones=["classes"])], ["linear", "add", "ensemble"], [0], controls=False)
    assert [one.contender.name for one in group] == ["linear"]
