"""A labelled set is a view of rows; its parts and budgets are balanced, disjoint, seeded and stingy."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grafeat.grids import FeatureGrid, GridSet
from grafeat.pictures import PictureSet
from grafeat.splits import PARTS, Index, LabelledSet, Rows, take


class Numbers(LabelledSet):
    """A set whose "pictures" are the numbers of their rows, times ten."""

    def __init__(
        self,
        count: int,
        labels: Sequence[int] | Tensor | None = None,
        classes: Sequence[str] | None = None,
        parts: dict[str, Rows] | None = None,
    ) -> None:
        self.stored = 10 * torch.arange(count)
        self._set_up(count, labels, classes, parts)

    @property
    def numbers(self) -> Tensor:
        return take(self.stored, self._rows)

    @property
    def rows(self) -> list[int]:
        return (self.numbers // 10).tolist()


def labels_of(counts: Sequence[int], seed: int = 0) -> Tensor:
    """So many labels of each class, in random order."""
    labels = torch.repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def by_class(part: Numbers) -> list[int]:
    return torch.bincount(part.labels, minlength=len(part.classes)).tolist()


# Choosing rows


@given(st.data(), st.integers(1, 13))
def test_an_index_chooses_what_numpy_chooses(data: st.DataObject, count: int) -> None:
    places = st.lists(st.integers(-count, count - 1), max_size=7)
    mask = st.lists(st.booleans(), min_size=count, max_size=count)
    index = data.draw(st.slices(count) | places | mask)
    expected = 10 * np.arange(count)[np.array(index, dtype=int) if index == [] else index]
    every = Numbers(count, range(count))
    forms: list[Index] = [index] if isinstance(index, slice) else [index, tuple(index), torch.tensor(index)]
    for form in forms if index != [] else forms[:2]:
        chosen = every[form]
        assert isinstance(chosen, Numbers)
        assert chosen.numbers.tolist() == expected.tolist()
        assert (10 * chosen.labels).tolist() == expected.tolist()
        assert len(chosen) == len(expected)


@pytest.mark.parametrize("place", [3, -8, torch.tensor(3), np.int64(3), torch.tensor(3, dtype=torch.uint8)])
def test_a_whole_number_gives_a_set_of_one(place: Index, unchecked: None) -> None:
    assert Numbers(11)[place].rows == [3]


def test_an_index_counts_from_the_view_and_not_from_the_store() -> None:
    assert Numbers(11)[3:][[4, -1, 0]][1:].rows == [10, 3]


def test_whole_numbers_of_eight_bits_are_places_and_no_mask() -> None:
    assert Numbers(3)[torch.tensor([2, 1, 1], dtype=torch.uint8)].rows == [2, 1, 1]
    assert Numbers(300)[torch.tensor([255], dtype=torch.uint8)].rows == [255]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (5, IndexError, "index: got 5, but the set has 5 pictures"),
        (-6, IndexError, "index: got -6, but the set has 5 pictures"),
        ([0, 1, 7], IndexError, "index: got 7, but the set has 5 pictures; count from 0"),
        ([True, False], TypeError, r"index: got torch.bool of shape \(2,\).*truth values of shape \(5,\)"),
        (torch.tensor([0.5]), TypeError, "index: got torch.float32.*expected whole numbers"),
        (torch.zeros(1, 2, dtype=torch.int64), TypeError, r"of shape \(1, 2\); expected whole numbers"),
    ],
)
def test_a_wrong_index_is_named(index: Index, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Numbers(5)[index]


def test_a_loop_over_a_set_ends() -> None:
    assert [one.rows for one in Numbers(3)] == [[0], [1], [2]]


# Laziness


def test_choosing_rows_copies_nothing() -> None:
    every = Numbers(13, labels_of([5, 8])).split(val=0.2, test=0.4)
    views = [every.train, every[::-1], every[[7, 2]], every.few_labels(2).train, every[2:11][3:5]]
    expected = [10 * number + 1 for number in range(13)]
    rows = [view.rows for view in views]
    every.stored += 1  # a copy made before would not see this
    for view, chosen in zip(views, rows, strict=True):
        assert view.numbers.tolist() == [expected[row] for row in chosen]


def test_consecutive_rows_share_the_memory_of_the_store() -> None:
    every = Numbers(13)
    consecutive = every[2:][3:7].numbers
    assert consecutive.tolist() == [50, 60, 70, 80]
    assert consecutive.untyped_storage().data_ptr() == every.stored.untyped_storage().data_ptr()
    for scattered in (every[[2, 5, 3]], every[[2, 3, 5]], every[[2, 2]], every[[]], every[3:1]):
        assert scattered.numbers.tolist() == [10 * row for row in scattered.rows]
        assert scattered.numbers.untyped_storage().data_ptr() != every.stored.untyped_storage().data_ptr()


def test_a_set_keeps_its_labels_when_the_callers_tensor_changes() -> None:
    labels = torch.tensor([0, 1, 1])
    kept = Numbers(3, labels)
    labels[0] = 1
    assert kept.labels.tolist() == [0, 1, 1]


# Labels and classes


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_become_int64_whatever_kind_of_whole_numbers_they_were(dtype: torch.dtype) -> None:
    labels = Numbers(3, torch.tensor([2, 0, 2], dtype=dtype)).labels
    assert labels.dtype == torch.int64
    assert labels.tolist() == [2, 0, 2]


def test_classes_are_numbered_unless_named() -> None:
    assert Numbers(3, [2, 0, 2]).classes == ("0", "1", "2")
    assert Numbers(3, [0, 0, 0], ["cat", "dog"]).classes == ("cat", "dog")
    assert Numbers(3).classes == ()
    assert Numbers(3).labels is None


@pytest.mark.parametrize(
    ("labels", "classes", "error", "text"),
    [
        ([0, 1], None, ValueError, "labels: got 2 for 3 pictures; expected one for each"),
        ([0, 1, -1], None, ValueError, "labels: got -1 at picture 2; expected 0 or more"),
        ([0, 2, 1], ["a", "b"], ValueError, "labels: got 2 at picture 1; expected 0 to 1, as there are 2 cl"),
        ([0.0, 1.0, 1.0], None, TypeError, r"labels: got float64 of shape \(3,\); expected whole numbers"),
        ([True, False, True], None, TypeError, "labels: got bool"),
        (["cat", "dog", "cat"], None, TypeError, "labels: got <U3.*give the classes' names as classes="),
        (torch.zeros(3, 1, dtype=torch.int64), None, TypeError, r"shape \(3, 1\); expected .* shape \(3,\)"),
    ],
)
def test_wrong_labels_are_named(
    labels: Sequence[int],
    classes: Sequence[str] | None,
    error: type[Exception],
    text: str,
    unchecked: None,
) -> None:
    with pytest.raises(error, match=text):
        Numbers(3, labels, classes)


def test_labels_that_cannot_be_done_without_are_asked_for_by_name() -> None:
    assert Numbers(3, [2, 0, 2])[1:].required_labels("train").tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"train: got a set with no labels; .*build it with labels="):
        Numbers(3).required_labels("train")
    with pytest.raises(ValueError, match="val: got a set with no pictures; expected labelled pictures"):
        Numbers(3, [2, 0, 2])[3:].required_labels("val")


# Parts


def test_a_set_gives_its_parts_and_says_which_it_has() -> None:
    parts = {"train": torch.tensor([4, 1]), "test": torch.tensor([0])}
    every = Numbers(5, parts=parts)
    assert (every.train.rows, every.test.rows) == ([4, 1], [0])
    assert every.parts == {"train": 2, "test": 1}
    assert every.train.parts == {}
    with pytest.raises(ValueError, match=r"val: this set has the parts train, test; make parts with \.split"):
        _ = every.val
    with pytest.raises(ValueError, match=r"train: this set has no parts; make parts with \.split"):
        _ = every.test.train


def test_a_set_says_where_its_parts_stand_in_it() -> None:
    """So that a set made from it, picture by picture, gets the same parts."""
    every = Numbers(23, labels_of([11, 12]))[::-2].split(val=0.2, test=0.3)
    for source in (every, every.few_labels(2), Numbers(5), Numbers(5, parts={"test": torch.tensor([4, 0])})):
        made = Numbers(len(source), parts=source.part_positions)
        assert made.parts == source.parts
        for part in source.parts:
            assert [source.rows[row] for row in getattr(made, part).rows] == getattr(source, part).rows


@given(
    st.lists(st.integers(0, 23), min_size=1, max_size=5),
    st.floats(0, 0.45),
    st.floats(0, 0.45),
    st.integers(0, 99),
)
def test_a_split_deals_out_every_picture_once_and_every_class_alike(
    counts: list[int], val: float, test: float, seed: int
) -> None:
    every = Numbers(sum(counts) + 1, [*labels_of(counts, seed).tolist(), 0])  # never empty
    split = every.split(val=val, test=test, seed=seed)
    dealt = [split.train, split.val, split.test]
    assert sorted(row for part in dealt for row in part.rows) == every.rows
    assert [len(part) for part in dealt] == [split.parts[part] for part in PARTS]
    rounded_off = (1, 0.5, 0.5)  # training gets what the other two leave
    for part, share, slack in zip(dealt, (1 - val - test, val, test), rounded_off, strict=True):
        assert part.rows == sorted(part.rows)
        for found, count in zip(by_class(part), by_class(every), strict=True):
            assert abs(found - share * count) <= slack + 1e-9


def test_a_split_follows_its_seed_alone() -> None:
    every = Numbers(97, labels_of([41, 56]))
    torch.manual_seed(1)
    first = every.split(val=0.2, test=0.3, seed=3)
    torch.manual_seed(2)
    again = every.split(val=0.2, test=0.3, seed=3)
    other = every.split(val=0.2, test=0.3, seed=4)
    assert first.test.rows == again.test.rows
    assert first.test.rows != other.test.rows


def test_a_split_of_a_view_stays_within_it() -> None:
    view = Numbers(29, labels_of([13, 16]))[5:20]
    split = view.split(val=0.3, test=0.3)
    assert sorted(split.train.rows + split.val.rows + split.test.rows) == list(range(5, 20))


def test_a_set_without_labels_is_split_too() -> None:
    assert Numbers(10).split(val=0.2, test=0.3).parts == {"train": 5, "val": 2, "test": 3}


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.2, 1.3), (0.1, float("nan"))])
def test_shares_that_leave_no_training_part_are_refused(val: float, test: float) -> None:
    with pytest.raises(ValueError, match=r"val, test: got .* and .*; expected shares of 0 or more"):
        Numbers(7).split(val=val, test=test)


def test_a_set_too_small_for_its_split_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"val, test: got 0 and 0\.7, which leave none of 2 pictures to train"
    ):
        Numbers(2, [0, 1]).split(val=0, test=0.7)
    with pytest.raises(ValueError, match="which leave none of 0 pictures to train on"):
        Numbers(2, [0, 1])[2:].split(val=0, test=0)


# Few labels

COUNTS = (11, 17, 13)


def labelled() -> Numbers:
    """Three classes in unequal numbers, with parts."""
    return Numbers(sum(COUNTS), labels_of(COUNTS), ("ant", "bee", "cow")).split(val=0.1, test=0.2)


@given(st.integers(1, 7), st.floats(0, 0.49), st.integers(0, 99))
def test_few_labels_are_balanced_disjoint_and_paid_for(per_class: int, val: float, seed: int) -> None:
    every = labelled()
    few = every.few_labels(per_class, seed=seed, val=val)
    num_val = round(val * per_class)
    assert by_class(few.val) == [num_val] * 3
    assert by_class(few.train) == [per_class - num_val] * 3  # validation labels are part of the budget
    drawn = few.train.rows + few.val.rows
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(every.train.rows)  # neither the old validation part nor the test part
    assert few.test.rows == every.test.rows
    assert sorted(few.rows) == sorted(drawn + every.test.rows)
    assert few.classes == every.classes


def test_few_labels_follow_their_seed_alone() -> None:
    every = labelled()
    torch.manual_seed(1)
    first = every.few_labels(5, seed=3)
    torch.manual_seed(2)
    assert first.train.rows == every.few_labels(5, seed=3).train.rows
    assert set(first.train.rows) != set(every.few_labels(5, seed=4).train.rows)


def test_the_rest_of_the_training_part_is_there_without_its_labels() -> None:
    every = Numbers(101, labels_of([40, 30, 31])).split(val=0.1, test=0.2)
    few = every.few_labels(5, seed=3, rest=True)
    assert few.parts == {**every.few_labels(5, seed=3).parts, "unlabelled": len(every.train) - 15}
    assert few.train.rows == every.few_labels(5, seed=3).train.rows
    assert set(few.unlabelled.rows) == set(every.train.rows) - set(few.train.rows) - set(few.val.rows)
    assert few.unlabelled.labels is None
    with pytest.raises(ValueError, match=r"unlabelled: this set has the parts train, val, test"):
        _ = every.few_labels(5).unlabelled


def test_few_labels_of_a_set_without_parts_come_from_all_of_it() -> None:
    every = Numbers(sum(COUNTS), labels_of(COUNTS))
    assert every.few_labels(11).parts == {"train": 27, "val": 6}  # two of eleven, of three classes
    ants = (every.labels == 0).nonzero().flatten().tolist()
    assert set(every.few_labels(11, val=0).train.rows) >= set(ants)


def test_few_labels_never_draw_from_a_test_part() -> None:
    only_test = Numbers(5, [0, 1, 0, 1, 0], parts={"test": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match="train: this set has the parts test"):
        only_test.few_labels(1)


def test_too_few_pictures_name_the_smallest_class_and_what_would_do() -> None:
    every = Numbers(sum(COUNTS), labels_of(COUNTS), ("ant", "bee", "cow"))
    with pytest.raises(ValueError, match=r"per_class: got 14, but class 'ant' has 11 .* ask for at most 11"):
        every.few_labels(14)
    assert len(every.few_labels(11)) == 3 * 11
    with pytest.raises(ValueError, match="class 'dog' has 0 training pictures; add some, or leave the class"):
        Numbers(3, [0, 0, 0], ["cat", "dog"]).few_labels(1)


@pytest.mark.parametrize(
    ("per_class", "val"), [(0, 0.2), (-1, 0.2), (3, 0.9), (1, 0.6), (5, -0.2), (1, -0.1)]
)
def test_a_budget_without_training_labels_is_refused(per_class: int, val: float) -> None:
    with pytest.raises(ValueError, match=f"per_class, val: got {per_class} and {val}, that is"):
        labelled().few_labels(per_class, val=val)


def test_parts_of_ones_own_are_positions_in_the_set() -> None:
    few = labelled()[[5, 2, 7, 3, 11]]
    own = few.with_parts(train=[0, 3], test=range(4, 5))
    assert own.parts == {"train": 2, "test": 1} and len(own) == 5
    assert own.train.labels.tolist() == few.labels[[0, 3]].tolist()
    assert own.test.labels.tolist() == few.labels[4:].tolist()
    assert few.parts == {}
    with pytest.raises(ValueError, match="val: this set has the parts train, test"):
        _ = own.val
    with pytest.raises(IndexError, match="5"):
        few.with_parts(train=[5])


@pytest.mark.parametrize("per_class", [5.5, True, "3"])
def test_a_budget_that_is_no_whole_number_is_refused(per_class: object, unchecked: None) -> None:
    with pytest.raises(TypeError, match=f"per_class: got {per_class!r}; expected a whole number of labels"):
        labelled().few_labels(per_class)


def test_few_labels_need_labels() -> None:
    with pytest.raises(ValueError, match=r"labels: this set has none.*build it with labels="):
        Numbers(5).few_labels(1)


# One split for all kinds of sets


@pytest.mark.parametrize("part", PARTS)
def test_pictures_and_their_grids_are_split_alike(part: str) -> None:
    labels = labels_of(COUNTS)
    shades = torch.linspace(0, 1, len(labels)).view(-1, 1, 1, 1)
    sets = (PictureSet(shades.expand(-1, 3, 2, 5), labels), GridSet([FeatureGrid("a", shades)], labels))
    split = [every.split(val=0.2, test=0.3, seed=5) for every in sets]
    few = [every.few_labels(5, seed=7) for every in split]
    for pictures, grids in (split, few):
        pictures, grids = getattr(pictures, part), getattr(grids, part)
        assert pictures.pictures[:, 0, 0, 0].tolist() == grids["a"].features.flatten().tolist()
        assert pictures.labels.tolist() == grids.labels.tolist()


def test_a_seed_may_be_counted_by_numpy_and_is_a_whole_number(unchecked: None) -> None:
    every = Numbers(31, labels_of([13, 18]))
    for call in (partial(every.split, val=0.2, test=0.3), partial(every.few_labels, 5)):
        assert call(seed=np.int64(5)).train.rows == call(seed=5).train.rows
        with pytest.raises(TypeError, match=r"seed: got 0\.5; expected a whole number"):
            call(seed=0.5)
