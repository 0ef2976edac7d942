"""A key holds whatever decides a cell, and no label of the test."""

from dataclasses import dataclass, replace

import pytest
import torch
from test_lab_contenders import grids, pictures, task

from grafeat import training
from grafeat.fusion import mix
from grafeat.fusion.budget import learned
from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab import keys as module
from grafeat.lab.contenders import Builder, Contender, contenders, controls, single
from grafeat.lab.keys import Keys
from grafeat.lab.lessons import Lesson
from grafeat.lab.seen import Only
from grafeat.lab.task import Task


def key(contender: Contender | str = "concat", asked: Task | None = None, seed: int = 0, **options: object) -> object:
    asked = asked or task()
    contender = Contender(contender) if isinstance(contender, str) else contender
    return Keys(**options).key(Lesson(contender, (asked,), seed), asked)


def changed(part: str, *, labels: bool = False) -> GridSet:
    """One picture of a part has another label, or another feature."""
    made = grids()
    where = int(made.part_positions[part][3])
    features, known = made["classes"].features.clone(), made.labels.clone()
    if labels:
        known[where] = (known[where] + 1) % 3
    else:
        features[where, 0, 0, 0] += 1
    listed = [made["pointer"], FeatureGrid("classes", features)]
    return GridSet(listed, known, classes=made.classes, parts=made.part_positions)


def test_the_same_call_has_the_same_key_whatever_the_task_is_called() -> None:
    assert key() == key(asked=task("another name"))


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_pictures_count(part: str) -> None:
    assert key(asked=task(grids=changed(part))) != key()


@pytest.mark.parametrize(("part", "counts"), [("train", True), ("val", True), ("test", False)])
def test_labels_count_where_they_are_learned_and_never_in_the_test(part: str, counts: bool) -> None:
    assert (key(asked=task(grids=changed(part, labels=True))) != key()) == counts


def test_everything_else_that_decides_counts() -> None:
    made = grids()
    asked = Task("made up", made)
    others = [
        key("linear"),
        key(seed=1),
        key(asked=Task("made up", made, per_class=5)),
        key(asked=Task("made up", made, test=made.test[:9])),
        key(asked=Task("made up", made, backbones=["classes", "pointer"])),
        key(epochs=3),
        key(matched=False),
        key(Contender("deep", "merge", options={"depth": 3})),
        *(key(one, asked) for one in (*contenders(asked), *controls(asked)) if one.way != "concat"),
    ]
    digests = [str(one) for one in (key(), *others)]
    assert len(set(digests)) == len(digests) - 3  # linear twice, and cross_only and intra_only among ways and controls


def test_a_newer_lab_and_other_defaults_of_fit_are_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(module, "LAB", module.LAB + 1)
    assert key() != before
    monkeypatch.undo()
    assert set(before["fit"]) >= {"epochs", "learning_rate", "mixup"}
    assert not set(before["fit"]) & {"progress", "device", "checkpoint"}


def test_a_constant_of_the_training_that_changes_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(training, "STEPS", training.STEPS + 1)
    assert key() != before
    assert {"grafeat.training.EPOCHS", "grafeat.merge.GAIN", "grafeat.projection.SAMPLE"} <= set(before["constants"])


def test_measures_share_a_key() -> None:
    made = grids()
    assert key(asked=Task("a", made, measure="retrieval")) == key(asked=Task("a", made))


def test_pictures_decide_what_learns_from_pixels() -> None:
    made = grids()
    shown = pictures(made)
    other = replace(task(grids=made, pictures=shown), pictures=type(shown)(
        1 - shown.pictures, shown.labels, parts=shown.part_positions
    ))  # fmt: skip
    scratch = Contender("scratch", kind="control")
    assert key(scratch, task(grids=made, pictures=shown)) != key(scratch, other)
    assert key("concat", task(grids=made, pictures=shown)) == key("concat", other)


# Size


def test_every_way_with_a_free_width_is_as_large_as_the_merge() -> None:
    asked = task()
    merge = learned(mix("merge", asked.grids.train, num_classes=3))
    for one in contenders(asked):
        size = learned(Keys().outlined(Lesson(one, (asked,), 0)))
        wanted = {"linear": None, "ensemble": 2 * merge, "voting": 2 * merge}.get(one.way, merge)
        assert size == pytest.approx(wanted, rel=0.02) if wanted else size < merge / 100


def test_or_each_keeps_its_own() -> None:
    asked = task()
    own = Keys(matched=False).outlined(Lesson(Contender("concat"), (asked,), 0))
    assert learned(own) == learned(mix("concat", asked.grids.train, num_classes=3))


def test_controls_of_the_merge_keep_its_width() -> None:
    """So that only what they control differs: a backbone more brings its own parameters."""
    asked = task()
    shapes = {one.name: Keys().outlined(Lesson(one, (asked,), 0)) for one in controls(asked)}
    merge = mix("merge", asked.grids.train, num_classes=3)
    assert shapes["no positions"].config == replace(merge.config, positions=False)
    assert learned(shapes["+ other pictures"]) > learned(merge)
    assert shapes["+ other pictures"].config.hidden == merge.config.hidden


def test_what_cannot_come_to_that_size_keeps_its_own_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keys, "_size", lambda *_: 7)
    with pytest.warns(UserWarning, match=r"task 'made up': 'concat' keeps its own size \(parameters: got 7"):
        found = Keys().outlined(Lesson(Contender("concat"), (task(),), 0))
    assert learned(found) == learned(mix("concat", grids().train, num_classes=3))


def test_shapes_are_built_once() -> None:
    asked, found = task(), Keys()
    one, other = Lesson(single("classes"), (asked,), 0), Lesson(single("classes"), (asked,), 1)
    assert found.outlined(one) is found.outlined(other)


def of_way(way: str, level: object = 1) -> Builder:
    def build(seen: GridSet, num_classes: int, seed: int) -> torch.nn.Module:
        return mix(way, seen, num_classes=num_classes, seed=seed) if level else None

    return build


def test_a_builder_that_was_edited_is_another_key() -> None:
    """Though its model looks the same."""
    builders = [
        of_way("linear"),
        of_way("linear", 2),
        lambda seen, classes, seed: mix("linear", seen, num_classes=classes, seed=seed),
        lambda seen, classes, seed: mix("linear", seen, num_classes=classes, seed=2 * seed),
    ]
    known = [key(Contender("mine", build)) for build in builders]
    assert len({one["builder"] for one in known}) == 4 and len({str(one["model"]) for one in known}) == 1
    assert key(Contender("mine", of_way("linear"))) == known[0]


def test_a_builder_that_cannot_be_recognised_is_trained_anew_in_each_run() -> None:
    mine = Lesson(Contender("mine", of_way("linear", object())), (task(),), 0)
    one, other = Keys(), Keys()
    with pytest.warns(UserWarning, match=r"way: the builder of 'mine' cannot be recognised in a later run"):
        assert one.key(mine, mine.task) == one.key(mine, mine.task)
        assert one.key(mine, mine.task) != other.key(mine, mine.task)


def test_only_own_builders_have_a_key_for_their_code() -> None:
    assert "builder" in key(Contender("mine", of_way("linear"))) and "builder" not in key("linear")
    assert list(key("linear")) == ["lab", "way", "model", "seed", "fit", "constants", "train", "val", "test"]


def test_an_error_of_a_builder_names_task_and_contender() -> None:
    def broken(seen: GridSet, num_classes: int, seed: int) -> torch.nn.Module:
        raise KeyError("no such backbone")

    with pytest.raises(KeyError, match="no such backbone") as raised:
        key(Contender("mine", broken))
    assert raised.value.__notes__ == ["task 'made up', 'mine': its builder was given 2 pictures"]


def test_what_a_builder_gives_must_be_a_model() -> None:
    with pytest.raises(TypeError, match="way: the builder of 'mine' gave int; expected a GridModel; return the model"):
        key(Contender("mine", lambda seen, num_classes, seed: 3))


def test_an_own_builder_is_asked_for_its_shape() -> None:
    def build(seen: GridSet, num_classes: int, seed: int) -> torch.nn.Module:
        return mix("linear", seen, num_classes=num_classes, seed=seed)

    found = key(Contender("mine", build))
    assert found["way"] == "mine"
    assert found["model"] == key("linear")["model"]


def test_an_outline_is_of_the_way_and_of_what_it_sees_whatever_it_is_called() -> None:
    """A contender of one's own by the name of a single is not taken for a member of the ensemble."""
    keys, asked = Keys(), task()
    mine = Contender("single classes", "concat", seen=Only(("classes",)))
    names = [type(keys.outlined(Lesson(one, (asked,), 0))).__name__ for one in (mine, single("classes"))]
    assert names == ["Concat", "GraFeatMerge"]


def test_grids_seen_through_what_has_no_hash_are_told_apart() -> None:
    @dataclass
    class Through:
        name: str

        def __call__(self, grids: GridSet) -> GridSet:
            return grids.only(self.name)

    keys, asked = Keys(), task()
    one, other = (Contender(name, "merge", seen=Through(name)) for name in ("pointer", "classes"))
    found = [keys.key(Lesson(each, (asked,), 0), asked) for each in (one, other, one)]
    assert found[0] == found[2] != found[1]
