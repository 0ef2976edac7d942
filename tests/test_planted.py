"""The label of a planted task can be read off by construction, from both grids together and from neither alone."""

import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from grafeat.grids import GridSet
from grafeat.planted import pointer


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
