"""The label of a planted task can be read off by construction, and from nothing less than what is said to tell it."""

from collections.abc import Callable

import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from grafeat.backbones.preparation import Crop
from grafeat.grids import GridSet
from grafeat.pictures import PictureSet
from grafeat.planted import blind, one_speaks, pointer, repeat, two_digits


def read_off(grids: GridSet) -> torch.Tensor:
    """The class that stands where the mark is."""
    marked = grids["pointer"].features[:, 0].flatten(1).argmax(dim=1)
    standing = grids["classes"].features[:, : len(grids.classes)].argmax(dim=1).flatten(1)
    return standing.gather(1, marked[:, None])[:, 0]


@pytest.mark.parametrize(
    ("shape", "num_classes", "channels"), [((4, 5), 4, (5, 7)), ((1, 7), 2, (1, 2)), ((3, 2), 5, (2, 11))]
)
def test_the_label_is_the_class_that_stands_at_the_mark(
    shape: tuple[int, int], num_classes: int, channels: tuple[int, int]
) -> None:
    grids = pointer(211, shape=shape, num_classes=num_classes, channels=channels)
    assert torch.equal(read_off(grids), grids.labels)
    assert grids.names == ("pointer", "classes")
    assert grids["pointer"].features.shape == (211, channels[0], *shape)
    assert grids["classes"].features.shape == (211, channels[1], *shape)
    assert grids.classes == tuple(str(number) for number in range(num_classes))
    assert set(grids.labels.tolist()) == set(range(num_classes))


def test_without_noise_each_grid_is_what_it_is_said_to_be() -> None:
    grids = pointer(31, noise=0.0)
    marks, standing = grids["pointer"].features, grids["classes"].features
    assert torch.equal(marks.flatten(1).sum(dim=1), torch.ones(31))
    assert torch.equal(marks[:, 0].amax(dim=(1, 2)), torch.ones(31))
    assert torch.equal(standing.sum(dim=1), torch.ones(31, 4, 5))  # one class at every patch
    assert not standing[:, 4:].any()


def test_the_noise_is_as_large_as_asked_for() -> None:
    quiet, loud = (pointer(503, noise=noise, seed=3) for noise in (0.0, 0.5))
    for name in quiet.names:
        noise = loud[name].features - quiet[name].features
        assert noise.std() == pytest.approx(0.5, rel=0.03)
        assert noise.mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("name", "chance"), [("pointer", 0.25), ("classes", 0.35)])
def test_neither_grid_alone_says_more_than_chance(name: str, chance: float) -> None:
    """Half for learning, half for the test. Of 20 places and 4 classes, the class that stands most often has 7."""
    grids = pointer(2000, seed=1)
    labels, alone = grids.labels.numpy(), grids[name].features.flatten(1).numpy()
    for classifier in (
        LogisticRegression(max_iter=300),
        RandomForestClassifier(30, random_state=0, max_depth=8),
    ):
        right = classifier.fit(alone[:1000], labels[:1000]).score(alone[1000:], labels[1000:])
        assert right < chance + 0.05


def test_both_grids_matched_place_by_place_tell_it_to_a_linear_classifier() -> None:
    grids = pointer(1000, seed=1)
    joined = grids["pointer"].features[:, 0].flatten(1)[:, None] * grids["classes"].features.flatten(2)
    seen, labels = joined.sum(dim=2).numpy(), grids.labels.numpy()
    assert LogisticRegression(C=100.0).fit(seen[:500], labels[:500]).score(seen[500:], labels[500:]) > 0.9


def test_pooling_loses_it() -> None:
    grids = pointer(2000, seed=1)
    pooled = torch.cat([grid.features.mean(dim=(2, 3)) for grid in grids.grids], dim=1).numpy()
    labels = grids.labels.numpy()
    right = LogisticRegression().fit(pooled[:1000], labels[:1000]).score(pooled[1000:], labels[1000:])
    assert right < 0.4


def test_marks_and_classes_are_spread_evenly() -> None:
    grids = pointer(4001)
    marked = grids["pointer"].features[:, 0].flatten(1).argmax(dim=1)
    assert marked.bincount(minlength=20).min() > 140  # 200 are expected, give or take 14
    assert grids.labels.bincount(minlength=4).min() > 900  # 1,000, give or take 27


def test_the_draw_is_seeded_and_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (pointer(31, seed=seed) for seed in (3, 3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    for name in first.names:
        assert torch.equal(first[name].features, again[name].features)
        assert not torch.equal(first[name].features, other[name].features)
    assert torch.equal(first.labels, again.labels)


@pytest.mark.parametrize("channels", [(5, 3), (0, 7)])
def test_too_few_channels_are_named(channels: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=r"channels: got \(\d, \d\); expected at least \(1, 4\), a channel for each"
    ):
        pointer(11, channels=channels)


SPEAKERS = [("a", ("a", "b")), ("b", ("a", "b")), ("y", ("x", "y", "z")), ("only", ("only",))]


@pytest.mark.parametrize(("speaker", "backbones"), SPEAKERS)
def test_the_label_is_read_off_the_planted_patch(speaker: str, backbones: tuple[str, ...]) -> None:
    grids, places = one_speaks(
        211, speaker=speaker, backbones=backbones, shape=(3, 5), num_classes=7, channels=11, seed=2
    )
    assert grids.names == backbones and grids.classes == tuple("0123456")
    assert all(grid.features.shape == (211, 11, 3, 5) for grid in grids.grids)
    assert places.shape == (211, 2) and set(grids.labels.tolist()) == set(range(7))
    for features, label, (row, column) in zip(
        grids[speaker].features, grids.labels.tolist(), places.tolist(), strict=True
    ):
        assert (
            features.argmax() == label * 15 + row * 5 + column
        )  # the loudest of all, by a margin of 9 sigmas


def test_without_noise_only_the_planted_patch_is_left() -> None:
    grids, places = one_speaks(31, noise=0.0, shape=(2, 7))
    expected = torch.zeros(31, 7, 2, 7)
    for picture, (row, column) in enumerate(places.tolist()):
        expected[picture, grids.labels[picture], row, column] = 1
    assert torch.equal(grids["a"].features, expected)
    assert not grids["b"].features.any()


def test_whoever_speaks_places_labels_and_noise_are_the_same() -> None:
    (first, places), (second, again) = (one_speaks(31, speaker=speaker, seed=5) for speaker in "ab")
    quiet, _ = one_speaks(31, noise=0.0, seed=5)
    assert torch.equal(places, again) and torch.equal(first.labels, second.labels)
    mark = quiet["a"].features
    torch.testing.assert_close(first["a"].features - mark, second["a"].features)
    torch.testing.assert_close(second["b"].features - mark, first["b"].features)


def test_where_the_speaker_is_silent_nothing_is_planted_and_all_else_is_as_before() -> None:
    (full, places), (some, again), (none, _) = (
        one_speaks(1009, speaker="b", silent=silent, seed=5) for silent in (0.0, 0.2, 1.0)
    )
    assert torch.equal(places, again) and torch.equal(full.labels, some.labels)
    assert torch.equal(full["a"].features, some["a"].features)
    changed = (full["b"].features - some["b"].features).flatten(1).abs().sum(dim=1)
    assert set(changed.round(decimals=3).tolist()) == {0.0, 1.0}
    assert (changed > 0.5).sum() == pytest.approx(202, abs=40)
    assert not (none["b"].features > 0.7).any()
    with pytest.raises(ValueError, match=r"silent: got 1.5; expected a share in \[0, 1\]; 0.2 is one"):
        one_speaks(11, silent=1.5)


def test_the_listener_has_nothing_but_noise() -> None:
    """Of normal noise every correlation with label and place is 0, give or take 1 / √n; nothing learns from it."""
    grids, places = one_speaks(2003, noise=0.3, seed=7)
    noise = grids["b"].features.flatten(1)
    assert noise.std() == pytest.approx(0.3, rel=0.02) and noise.mean() == pytest.approx(0, abs=0.01)
    told = torch.cat([torch.nn.functional.one_hot(grids.labels), places], dim=1).float()
    both = torch.corrcoef(torch.cat([told, noise], dim=1).T)[: told.shape[1], told.shape[1] :]
    assert both.abs().max() < 5 / 2003**0.5
    labels, heard = grids.labels.numpy(), noise.numpy()
    forest = RandomForestClassifier(30, random_state=0, max_depth=8).fit(heard[:1000], labels[:1000])
    assert forest.score(heard[1000:], labels[1000:]) < 0.30
    spoken = grids["a"].features.amax(dim=(2, 3)).numpy()
    assert LogisticRegression().fit(spoken[:1000], labels[:1000]).score(spoken[1000:], labels[1000:]) > 0.5


def test_places_and_labels_are_spread_evenly_and_know_nothing_of_each_other() -> None:
    grids, places = one_speaks(4001)
    where = places[:, 0] * 5 + places[:, 1]
    counts = (where * 4 + grids.labels).bincount(minlength=80)
    assert counts.min() > 20 and counts.max() < 85  # 50 are expected, give or take 7


def test_every_name_of_repeat_has_the_speakers_grid() -> None:
    options = {"shape": (3, 5), "num_classes": 5, "channels": 7, "noise": 0.2, "seed": 3}
    speaks, _ = one_speaks(31, backbones=("a",), **options)
    grids = repeat(31, backbones=("p", "q", "r"), **options)
    assert grids.names == ("p", "q", "r") and grids.classes == tuple("01234")
    assert all(torch.equal(grid.features, speaks["a"].features) for grid in grids.grids)
    assert torch.equal(grids.labels, speaks.labels)
    assert repeat(3).names == ("first", "second")


def test_the_new_draws_are_seeded_and_leave_the_global_random_state_alone(digits: PictureSet) -> None:
    before = torch.get_rng_state()
    draws = [
        lambda seed: one_speaks(31, seed=seed)[0],
        lambda seed: repeat(31, seed=seed),
        lambda seed: blind(digits, 31, patch=1, seed=seed),
    ]
    for draw in draws:
        first, again, other = (draw(seed) for seed in (3, 3, 5))
        for name in first.names:
            assert torch.equal(first[name].features, again[name].features)
            assert not torch.equal(first[name].features, other[name].features)
        assert torch.equal(first.labels, again.labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_speaker_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"speaker: got 'c'; expected one of a, b; name it in backbones="):
        one_speaks(11, speaker="c")
    with pytest.raises(ValueError, match="the name 'a' is there twice"):
        one_speaks(11, backbones=("a", "a"))
    with pytest.raises(ValueError, match="the name 'p' is there twice"):
        repeat(11, backbones=("p", "p"))


@pytest.mark.parametrize("task", [one_speaks, repeat])
def test_a_channel_is_needed_for_each_class(task: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="channels: got 3; expected at least 4, a channel for each class"):
        task(11, channels=3)


@pytest.fixture(scope="module")
def digits() -> PictureSet:
    """70 pictures 3 × 5 whose every pixel says which row of the set they are; classes 0 to 6; the test part last."""
    rows = torch.arange(70)
    parts = {"train": rows[:43], "val": rows[43:53], "test": rows[53:]}
    numbers = (rows / 70).view(-1, 1, 1, 1).expand(-1, 1, 3, 5)
    return PictureSet(numbers, rows % 7, name="numbers", parts=parts)


def drawn(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows of `digits` stand left and right."""
    left, right = (pictures * 70).round().long()[:, 0, 0, [0, -1]].T
    return left, right


def test_two_digits_stand_side_by_side_and_the_label_is_their_sum(digits: PictureSet) -> None:
    both = two_digits(digits, 211)
    assert both.pictures.shape == (211, 3, 3, 10) and both.name == "two of numbers"
    left, right = drawn(both.pictures)
    expected = torch.cat([digits.pictures[left], digits.pictures[right]], dim=3)
    assert torch.equal(both.pictures, expected)
    assert both.labels.tolist() == [a % 7 + b % 7 for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    assert both.classes == tuple(str(number) for number in range(13))


def test_no_digit_stands_in_two_parts(digits: PictureSet) -> None:
    both = two_digits(digits, 701)
    assert both.parts == {"train": 431, "val": 100, "test": 170}  # as 43, 10 and 17 of 70
    for part, low, high in (("train", 0, 43), ("val", 43, 53), ("test", 53, 70)):
        rows = torch.cat(drawn(getattr(both, part).pictures))
        assert set(rows.tolist()) == set(range(low, high))


def test_parts_follow_a_view_of_the_digits(digits: PictureSet) -> None:
    few = digits.few_labels(3, seed=1, val=0.4)
    both = two_digits(few, 101)
    known = set((few.train.pictures[:, 0, 0, 0] * 70).round().long().tolist())
    assert set(torch.cat(drawn(both.train.pictures)).tolist()) <= known
    assert tuple(both.parts) == ("train", "val", "test") and sum(both.parts.values()) == 101


def test_an_empty_part_stays_empty(digits: PictureSet) -> None:
    both = two_digits(digits.split(val=0, test=0.5), 8)
    assert both.parts == {"train": 4, "val": 0, "test": 4}


def test_colours_are_kept() -> None:
    colours = torch.rand(7, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(7)
    both = two_digits(PictureSet(colours, rows % 3, parts={"train": rows}), 11)
    assert all(
        any(torch.equal(half, picture) for picture in colours)
        for half in torch.cat(both.pictures.split(2, dim=3))
    )


def test_one_half_tells_a_tenth_of_the_sums_and_both_tell_all() -> None:
    """Ten classes, evenly: whoever knows one digit says the sum with chance 1 / 10, as does who always says 9."""
    numbers = torch.arange(100)
    flat = (numbers / 100).view(-1, 1, 1, 1)
    both = two_digits(PictureSet(flat, numbers % 10, parts={"train": numbers}), 20_011)
    left, right = ((100 * half).round().long() % 10 for half in both.pictures[:, 0, 0].T)
    table = torch.zeros(10, 19).index_put_((left, both.labels), torch.ones(20_011), accumulate=True)
    assert table.amax(dim=1).sum() / 20_011 == pytest.approx(
        0.1, abs=0.015
    )  # the best guess from the left one
    assert both.labels.bincount().argmax() == 9
    assert both.labels.bincount()[9] / 20_011 == pytest.approx(0.1, abs=0.01)
    assert torch.equal(left + right, both.labels)
    assert both.classes == tuple(str(number) for number in range(19))


def test_each_backbone_sees_one_half_as_a_crop_does(digits: PictureSet) -> None:
    both, grids = two_digits(digits, 31, seed=3), blind(digits, 31, patch=1, seed=3)
    assert grids.names == ("left", "right") and grids.parts == both.parts and grids.classes == both.classes
    assert torch.equal(grids.labels, both.labels)
    for name, crop in (("left", Crop(0, 0, 0.5, 1)), ("right", Crop(0.5, 0, 1, 1))):
        torch.testing.assert_close(grids[name].features, crop(both.pictures)[:, :1])
        assert grids[name].field == crop.field


def test_a_patch_holds_its_own_pixels() -> None:
    rows = torch.arange(5)
    pixels = torch.arange(24).view(1, 1, 4, 6) / 32 + rows.view(-1, 1, 1, 1) / 64
    grids = blind(PictureSet(pixels, rows % 2, parts={"train": rows}), 7, patch=2)
    assert grids["left"].features.shape == grids["right"].features.shape == (7, 4, 2, 3)
    first = grids["right"].features[0] - grids["right"].features[0, 0, 0, 0]
    torch.testing.assert_close(first[:, 0, 0] * 32, torch.tensor([0.0, 1, 6, 7]))
    torch.testing.assert_close(first[:, 1, 2] * 32, torch.tensor([16.0, 17, 22, 23]))


def test_digits_that_do_not_fit_are_named(digits: PictureSet) -> None:
    with pytest.raises(ValueError, match=r"digits: got a set with no parts; .*make them with \.split"):
        two_digits(digits[:11], 7)
    with pytest.raises(ValueError, match="digits: got a set with no labels"):
        two_digits(PictureSet(digits.pictures), 7)
    rows = torch.arange(2)
    uneven = PictureSet(
        [torch.rand(1, 2, 3), torch.rand(1, 3, 2)], rows, name="uneven", parts={"train": rows}
    )
    with pytest.raises(ValueError, match="digits: got pictures of several sizes in 'uneven'; expected one"):
        two_digits(uneven, 7)
    for patch in (2, 3, 5, 0):
        with pytest.raises(
            ValueError, match=f"patch: got {patch} for digits 3 × 5; expected a divisor of both"
        ):
            blind(digits, 7, patch=patch)
