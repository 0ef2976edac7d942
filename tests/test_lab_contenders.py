"""Which contenders and controls a task has, and what is said where one is unknown or does not fit."""

from functools import partial

import pytest
import torch

from grafeat.fusion import WAYS, mix, outline
from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab.contenders import Contender, chosen, contenders, controls, single
from grafeat.lab.seen import EqualPatches, Only, Strange, Twice
from grafeat.lab.task import Task
from grafeat.pictures import PictureSet
from grafeat.planted import pointer
from grafeat.runs import described

PICTURES = 97


def grids(count: int = PICTURES) -> GridSet:
    """Two backbones of four classes, in three parts."""
    return pointer(count, shape=(2, 3), channels=(3, 5), num_classes=3).split(val=0.2, test=0.3)


def task(name: str = "made up", **options: object) -> Task:
    return Task(name, options.pop("grids", None) or grids(), **options)


def with_random() -> GridSet:
    made = grids()
    noise = torch.randn(PICTURES, 2, 1, 1, generator=torch.Generator().manual_seed(1))
    listed = [*made.grids, FeatureGrid("random", noise)]
    return GridSet(listed, made.labels, classes=made.classes, parts=made.part_positions)


def pictures(of: GridSet) -> PictureSet:
    shown = torch.rand(len(of), 1, 11, 13, generator=torch.Generator().manual_seed(2))
    return PictureSet(shown, of.labels, parts=of.part_positions)


def test_every_way_is_there_and_single_for_each_backbone() -> None:
    found = contenders(task())
    assert [one.name for one in found] == ["single pointer", "single classes", *WAYS[1:]]
    assert {one.kind for one in found if one.way != "merge"} == {"way"}
    assert [one.kind for one in found if one.way == "merge"] == ["merge"]
    assert [one.seen for one in found[:3]] == [Only(("pointer",)), Only(("classes",)), None]


def test_one_backbone_has_the_ways_that_work_with_one() -> None:
    alone = task(backbones=["classes"])
    for one in contenders(alone):
        seen = (one.seen or Only(alone.names))(alone.grids.train)
        assert mix(one.way, seen, num_classes=3).backbones == {"classes": 5}
    left_out = set(WAYS) - {one.way for one in contenders(alone)}
    for way in left_out:
        with pytest.raises(ValueError, match="single"):
            mix(way, alone.grids.only("classes").train, num_classes=3)
    assert left_out >= {"add", "multiply", "ensemble"}


def test_the_controls_of_two_backbones() -> None:
    found = {one.name: one for one in controls(task())}
    assert list(found) == [
        "pointer twice", "classes twice", "+ other pictures", "classes of other pictures", "intra_only", "cross_only",
        "no interplay", "not parted", "no positions", "no relations",
    ]  # fmt: skip
    assert {one.kind for one in found.values()} == {"control"}
    assert found["classes twice"].seen == Twice("classes")
    assert found["+ other pictures"].seen == Strange(("pointer", "classes"), "classes", stands_in=False)
    assert found["no positions"].options == {"positions": False}


def test_a_spare_backbone_pictures_and_unequal_grids_bring_a_control_each() -> None:
    made = with_random()
    full = task(grids=made, backbones=["pointer", "classes"], pictures=pictures(made))
    found = {one.name: one for one in controls(full)}
    assert found["+ random weights"].seen == Only(("pointer", "classes", "random"))
    assert found["small CNN from scratch"].way == "scratch"
    assert "equal patches" not in found  # the two grids are equal
    unequal = task(grids=made, backbones=["pointer", "random"])
    assert {one.name: one for one in controls(unequal)}["equal patches"].seen == EqualPatches(("pointer", "random"))


def test_what_a_shifted_test_lacks_is_no_control_there() -> None:
    made = with_random()
    shifted = task(grids=made, backbones=["pointer", "classes"], pictures=pictures(made), test=grids().test)
    found = [one.name for one in controls(shifted)]
    assert "+ random weights" not in found  # the test was not extracted with it
    assert "small CNN from scratch" not in found  # its pictures are not there


def test_one_backbone_has_the_controls_that_make_sense() -> None:
    assert [one.name for one in controls(task(backbones=["classes"]))] == [
        "classes twice", "+ other pictures", "intra_only", "no positions", "no relations",
    ]  # fmt: skip


# Chosen by name


def test_single_stands_for_each_backbone_and_controls_follow_once() -> None:
    found, left_out = chosen(task(), ["single", "intra_only", "merge"], controlled=True)
    names = [one.name for one in found]
    assert names[:4] == ["single pointer", "single classes", "intra_only", "merge"]
    assert names.count("intra_only") == 1
    assert found[2].kind == "way"
    assert left_out == []
    assert [one.name for one in chosen(task(), ["single classes", "no positions"], controlled=False)[0]] == [
        "single classes", "no positions",
    ]  # fmt: skip


def test_all_ways_by_default_and_those_that_need_more_are_named() -> None:
    assert [one.name for one in chosen(task(), None, controlled=False)[0]] == [one.name for one in contenders(task())]
    found, left_out = chosen(task(backbones=["classes"]), ["add", "linear"], controlled=False)
    assert ([one.name for one in found], left_out) == (["linear"], ["add"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ensembel", "did you mean 'ensemble'"), ("single lite", "did you mean 'single"), ("xyz", "gf.list_ways()")],
)
def test_an_unknown_contender_is_named_with_the_closest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"contenders: got '{name}' for task 'made up'; expected some of .*; {hint}"):
        chosen(task(), [name], controlled=False)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="contenders: got 'merge' twice; expected different names"):
        chosen(task(), ["merge", Contender("merge")], controlled=False)


def test_two_of_the_kind_that_is_judged_are_refused() -> None:
    deep = Contender("deep", "merge", options={"depth": 3}, kind="merge")
    with pytest.raises(
        ValueError, match=r"contenders: got 'merge' and 'deep', all of kind 'merge'; expected one.* kind='control'"
    ):
        chosen(task(), ["merge", "concat", deep], controlled=True)
    with pytest.raises(ValueError, match="got 'merge' and 'again'"):
        chosen(task(), ["merge", Contender("again", "merge")], controlled=False)
    assert [one.kind for one in chosen(task(), ["concat", deep], controlled=False)[0]] == ["way", "merge"]


# One's own


def test_a_contender_of_ones_own_has_options_grids_or_a_builder() -> None:
    assert Contender("merge").kind == "merge"
    assert Contender("deeper", "merge", options={"depth": 3}).kind == "control"
    assert Contender("deeper", "merge", options={"depth": 3}, kind="way").kind == "way"
    assert Contender("one", "merge", Only(("classes",))).kind == "control"
    assert Contender("mine", partial(lambda grids, classes, seed: None)).kind == "way"
    assert single("classes") == Contender("single classes", "single", Only(("classes",)))


def test_an_unknown_way_and_options_of_another_way_are_refused() -> None:
    with pytest.raises(ValueError, match=r"way: got 'concatt' for contender 'mine'.*did you mean 'concat'"):
        Contender("mine", "concatt")
    with pytest.raises(ValueError, match=r"seen: got a function for the way 'voting' of contender 'mine', which is p"):
        Contender("mine", "voting", seen=Only(("classes",)))
    with pytest.raises(ValueError, match=r"options: got depth for the way 'concat'; expected them for 'merge' only"):
        Contender("mine", "concat", options={"depth": 3})
    with pytest.raises(ValueError, match=r"options: got 'dpth' for contender 'mine'; expected fields of MergeConfig"):
        Contender("mine", "merge", options={"dpth": 3})


def test_what_is_no_contender_is_refused(unchecked: None) -> None:
    with pytest.raises(TypeError, match="contenders: got 3 among them; expected names or Contenders"):
        chosen(task(), ["merge", 3], controlled=False)


# Shapes at no cost


@pytest.mark.parametrize("way", WAYS)
def test_an_outline_has_the_shapes_of_what_mix_makes(way: str) -> None:
    seen = grids().train.only("classes") if way == "single" else grids().train
    made, planned = (make(way, seen, num_classes=3, parameters=300_000) for make in (mix, outline))
    assert described(made) == described(planned)
    assert {parameter.device.type for parameter in planned.parameters()} == {"meta"}


def test_a_network_from_scratch_is_a_control_and_sees_the_tasks_own_test_alone() -> None:
    made = grids()
    assert Contender("a CNN", "scratch").kind == "control"  # it learns from validation's labels too
    other = task(grids=made, pictures=pictures(made), test=grids(53)[:])
    with pytest.raises(ValueError, match="contenders: got 'a CNN' for task 'made up', whose test= are grids of other"):
        chosen(other, [Contender("a CNN", "scratch")], controlled=False)
