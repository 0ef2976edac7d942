"""What a trained model says of a test set is what the model says, with every subset of its backbones."""

import pytest
import torch
from test_lab_contenders import grids, pictures, task

from grafeat.fusion import mix
from grafeat.fusion.budget import learned
from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab import scratch
from grafeat.lab.learners import GridLearner, PictureLearner, answers, subsets_of
from grafeat.lab.scratch import train_from_scratch
from grafeat.lab.seen import Only, Strange
from grafeat.lab.task import Task

SEEN = Only(("pointer", "classes"))


def learner(**options: object) -> GridLearner:
    made = grids()
    seen = options.pop("seen", SEEN)
    model = mix("merge", seen(made.train), num_classes=3, seed=1)
    return GridLearner(model, seen, seen(made.train), seen(made.val), 2.5)


def test_its_logits_are_the_models_and_so_are_those_of_each_subset() -> None:
    one, asked = learner(), task()
    found = one.cell(asked, vectors=False)
    assert found.subsets == (("pointer", "classes"), ("pointer",), ("classes",))
    tested = asked.grids.test
    with torch.no_grad():
        expected = [one.model(tested), one.model(tested, without="classes"), one.model(tested.only("classes"))]
        val = one.model(asked.grids.val).logits
    for logits, out in zip(found.logits, expected, strict=True):
        torch.testing.assert_close(logits, out.logits)
    torch.testing.assert_close(found.val_logits, val)
    assert (found.vectors, found.val_vectors, found.train_vectors) == (None, None, None)
    assert (found.seconds, found.parameters) == (2.5, learned(one.model))
    assert found.inference > 0


def test_vectors_are_there_where_they_are_needed() -> None:
    one, asked = learner(), task()
    found = one.cell(asked, vectors=True)
    with torch.no_grad():
        torch.testing.assert_close(found.vectors, one.model.embed(asked.grids.test))
        torch.testing.assert_close(found.val_vectors, one.model.embed(asked.grids.val))
        torch.testing.assert_close(found.train_vectors, one.model.embed(asked.grids.train))


def test_nothing_is_dropped_while_it_answers() -> None:
    one = learner()
    one.model.train()
    first, second = (one.cell(task(), vectors=False).logits for _ in range(2))
    assert torch.equal(first, second)


def test_it_sees_of_the_test_what_it_saw_in_training() -> None:
    seen = Strange(("pointer", "classes"), "classes", stands_in=True)
    one, asked = learner(seen=seen), task()
    found = one.cell(asked, vectors=False)
    torch.testing.assert_close(found.logits[0], answers(one.model, seen(asked.grids.test))[0])
    assert not torch.allclose(found.logits[0], answers(one.model, asked.grids.test)[0])


def test_pictures_come_batch_by_batch_in_order() -> None:
    made = GridSet([FeatureGrid("a", torch.randn(601, 2, 1, 1, generator=torch.Generator().manual_seed(1)))])
    model = mix("linear", made, num_classes=3)
    with torch.no_grad():
        torch.testing.assert_close(answers(model, made)[0], model(made).logits)


@pytest.mark.parametrize(("count", "subsets"), [(1, 1), (2, 3), (3, 7), (4, 15), (5, 6), (7, 8)])
def test_every_subset_of_up_to_four_backbones_and_all_but_each_of_more(count: int, subsets: int) -> None:
    names = tuple("abcdefgh"[:count])
    found = subsets_of(names)
    assert len(found) == len(set(found)) == subsets
    assert found[0] == names
    if count > 1:
        assert {frozenset(names) - {name} for name in names} <= set(map(frozenset, found))


def test_the_cnn_from_scratch_answers_from_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PICTURES_SHOWN", 1)
    made = grids()
    shown = pictures(made)
    network = train_from_scratch(shown[:8], num_classes=3)
    found = PictureLearner(network, shown).cell(Task("made up", made, pictures=shown), vectors=True)
    torch.testing.assert_close(found.logits[0], network.read(shown.test)[0])
    torch.testing.assert_close(found.val_vectors, network.read(shown.val)[1])
    torch.testing.assert_close(found.train_vectors, network.read(shown.train)[1])
    assert found.subsets == ((),)
    assert found.parameters == network.parameters
    assert PictureLearner(network, shown).cell(Task("made up", made, pictures=shown), vectors=False).vectors is None
