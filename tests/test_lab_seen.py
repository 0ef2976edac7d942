"""What contenders see: the right features where they should, another picture's where they must not."""

import pytest
import torch
import torch.nn.functional as F

from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab.seen import EqualPatches, Only, Strange, Twice, others

B = 13


def grids(count: int = B) -> GridSet:
    generator = torch.Generator().manual_seed(0)
    shapes = {"lite": (5, 2, 3), "cnn": (3, 7, 5), "random": (2, 1, 1)}
    made = [FeatureGrid(name, torch.randn(count, *shape, generator=generator)) for name, shape in shapes.items()]
    return GridSet(made, torch.arange(count) % 3, classes=("a", "b", "c"))


def test_only_some_backbones() -> None:
    assert Only(("cnn", "lite"))(grids()).names == ("cnn", "lite")


def test_twice_is_the_same_features_under_two_names() -> None:
    seen = Twice("cnn")(grids())
    assert seen.names == ("cnn", "cnn again")
    assert torch.equal(seen["cnn again"].features, grids()["cnn"].features)
    assert torch.equal(seen.labels, grids().labels)
    assert seen.classes == ("a", "b", "c")


def test_a_strange_backbone_stands_in_its_place_and_the_others_stay() -> None:
    seen, right = Strange(("lite", "cnn"), "cnn", stands_in=True)(grids()), grids()
    assert seen.names == ("lite", "cnn")
    assert torch.equal(seen["lite"].features, right["lite"].features)
    assert torch.equal(seen["cnn"].features, right["cnn"].features[others(B)])
    assert torch.equal(seen.labels, right.labels)


def test_or_it_stands_beside_them() -> None:
    seen, right = Strange(("lite", "cnn"), "cnn", stands_in=False)(grids()), grids()
    assert seen.names == ("lite", "cnn", "cnn of other pictures")
    assert torch.equal(seen["cnn"].features, right["cnn"].features)
    assert torch.equal(seen["cnn of other pictures"].features, right["cnn"].features[others(B)])


@pytest.mark.parametrize("count", [2, 3, 7, 101])
def test_others_are_never_the_picture_itself_and_each_is_shown_once(count: int) -> None:
    found = others(count)
    assert sorted(found.tolist()) == list(range(count))
    assert not bool((found == torch.arange(count)).any())
    assert torch.equal(found, others(count))


def test_others_say_nothing_of_the_class_of_sets_that_lie_class_by_class() -> None:
    """As `few_labels` lays them: the next picture would be of the same class nearly always."""
    labels = torch.arange(10).repeat_interleave(40)
    assert float((labels[others(400)] == labels).double().mean()) < 0.2


def test_equal_patches_are_means_of_what_they_cover() -> None:
    seen, right = EqualPatches(("lite", "cnn"))(grids()), grids()
    assert {grid.shape for grid in seen.grids} == {(2, 3)}
    torch.testing.assert_close(seen["cnn"].features, F.adaptive_avg_pool2d(right["cnn"].features, (2, 3)))
    assert torch.equal(seen["lite"].features, right["lite"].features)


def test_pooled_features_keep_their_type() -> None:
    half = GridSet([grid.to(dtype=torch.float16) for grid in grids().grids])
    assert EqualPatches(("lite", "cnn"))(half)["cnn"].features.dtype == torch.float16
