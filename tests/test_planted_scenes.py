"""A thing is where its mask says, the background knows nothing of it, and no thing stands in two parts."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from grafeat.pictures import PictureSet
from grafeat.planted import CutOuts, SeenObjects, seen_object
from grafeat.planted.backgrounds import cropped, photographs

KINDS = 35  # cut-outs, 7 of each of 5 classes


@pytest.fixture(scope="module")
def cutouts() -> CutOuts:
    """Rectangles 11 × 17 of one colour, its red saying which they are, in the midst of nothing."""
    pictures = torch.zeros(KINDS, 4, 17, 23, dtype=torch.uint8)
    pictures[:, :, 3:14, 3:20] = 255
    pictures[:, 0] = (torch.arange(KINDS) * 7)[:, None, None]
    labels = tuple(number % 5 for number in range(KINDS))
    return CutOuts(tuple(pictures), labels, tuple("abcde"), tuple(f"no {number}" for number in range(KINDS)))


BLACK = torch.zeros(3, 31, 37, dtype=torch.uint8)


@pytest.fixture(scope="module")
def seen(cutouts: CutOuts) -> SeenObjects:
    return seen_object(cutouts, 211, side=53, backgrounds=[BLACK], seed=3)


def test_the_object_is_where_the_mask_says(seen: SeenObjects) -> None:
    assert seen.pictures.shape == (211, 3, 53, 53) and seen.masks.shape == (211, 53, 53)
    blue = (seen.pictures[:, 2] * 255).round()
    assert torch.equal(blue >= 128, seen.masks)  # on black, full blue is the opacity
    assert bool((blue[seen.masks] == 255).double().mean() > 0.9)  # but for the border
    assert bool((blue[~seen.masks] == 0).double().mean() > 0.95)


def test_it_is_the_object_that_is_named(seen: SeenObjects) -> None:
    for picture, mask, name, label in zip(
        seen.pictures, seen.masks, seen.objects, seen.labels.tolist(), strict=True
    ):
        number = int(name.removeprefix("no "))
        assert label == number % 5
        inside = (picture[0, mask] * 255).median()
        assert inside == pytest.approx(number * 7, abs=1)


def test_it_is_whole_and_its_longer_side_is_within_scale(cutouts: CutOuts) -> None:
    seen = seen_object(cutouts, 101, side=97, scale=(0.3, 0.5), backgrounds=[BLACK])
    widths = seen.masks.any(dim=1).sum(dim=1)
    heights = seen.masks.any(dim=2).sum(dim=1)
    assert widths.min() >= 28 and widths.max() <= 49  # 29.1 to 48.5
    torch.testing.assert_close(heights / widths, torch.full((101,), 11 / 17), atol=0.04, rtol=0)
    assert torch.equal(seen.masks.flatten(1).sum(dim=1), heights * widths)  # a whole rectangle


def test_places_are_spread_over_the_whole_picture(cutouts: CutOuts) -> None:
    seen = seen_object(cutouts, 401, side=53, scale=(0.3, 0.3), backgrounds=[BLACK])
    often = seen.masks.double().mean(dim=0)
    assert bool((often.sum(dim=0) > 0).all()) and bool((often.sum(dim=1) > 0).all())
    assert often[26, 26] < 3 * often[10, 10]


def test_a_whole_square_of_the_largest_scale_fills_the_picture() -> None:
    square = CutOuts((torch.full((4, 7, 7), 255, dtype=torch.uint8),), (0,), ("all",), ("square",))
    seen = seen_object(square, 3, side=13, scale=(1.0, 1.0), backgrounds=[BLACK])
    assert bool(seen.masks.all()) and bool((seen.pictures == 1).all())


def test_half_of_the_objects_are_mirrored() -> None:
    picture = torch.full((4, 11, 22), 255, dtype=torch.uint8)
    picture[0, :, :11] = 0
    one = CutOuts((picture,), (0,), ("a",), ("x",))
    seen = seen_object(one, 401, side=53, backgrounds=[BLACK])
    red = seen.pictures[:, 0]
    columns = torch.arange(53.0)
    mirrored = (red * columns).sum(dim=(1, 2)) / red.sum(dim=(1, 2)) < (
        (seen.masks * columns).sum(dim=(1, 2)) / seen.masks.sum(dim=(1, 2))
    )
    assert 160 < mirrored.sum() < 240


def test_classes_and_cut_outs_come_equally_often(cutouts: CutOuts) -> None:
    seen = seen_object(cutouts, 5 * 7 * 3, side=17, backgrounds=[BLACK])
    assert seen.labels.bincount().tolist() == [21] * 5
    assert sorted(seen.objects) == sorted(cutouts.names * 3)


def test_no_object_stands_in_two_parts(seen: SeenObjects) -> None:
    parts = [set(part.objects) for part in (seen.train, seen.val, seen.test)]
    assert [len(part) for part in parts] == [20, 5, 10]  # of each 7: 15% and 25%, rounded
    assert len(set.union(*parts)) == KINDS
    assert sum(seen.parts.values()) == 211 and set(seen.test.labels.tolist()) == set(range(5))


def test_parts_are_drawn_anew_by_cut_out_from_a_view_as_well(seen: SeenObjects) -> None:
    some = seen[10:150].split(val=0.0, test=0.5, seed=7)
    train, test = set(some.train.objects), set(some.test.objects)
    assert not train & test and len(some) == 140 and sum(some.parts.values()) == 140
    assert test != set(seen[10:150].split(val=0.0, test=0.5, seed=11).test.objects)


def test_masks_and_objects_follow_the_view(seen: SeenObjects) -> None:
    rows = seen.part_positions["test"][2:5]
    view = seen.test[2:5]
    assert torch.equal(view.masks, seen.masks[rows]) and torch.equal(view.pictures, seen.pictures[rows])
    assert view.objects == tuple(seen.objects[row] for row in rows.tolist())


def test_what_is_half_transparent_lets_the_background_through() -> None:
    picture = torch.full((4, 7, 14), 255, dtype=torch.uint8)
    picture[3, :, 7:] = 153  # 60%
    one = CutOuts((picture,), (0,), ("a",), ("x",))
    seen = seen_object(one, 7, side=19, scale=(1.0, 1.0), backgrounds=[BLACK])
    values = (seen.pictures[:, 0] * 255).round()
    assert {153, 255} <= set(values[seen.masks].unique().int().tolist())


def test_the_background_tells_nothing_of_the_class(cutouts: CutOuts) -> None:
    """What is around the object, with the object's place blacked out, teaches a classifier nothing."""
    seen = seen_object(cutouts, 1000, side=13, seed=5)
    around = (seen.pictures * ~seen.masks[:, None]).flatten(1).numpy()
    labels = seen.labels.numpy()
    classifier = LogisticRegression(max_iter=300).fit(around[:500], labels[:500])
    assert classifier.score(around[500:], labels[500:]) < 0.28  # 20%, give or take 2


def test_the_draw_is_seeded_and_leaves_the_global_random_state_alone(cutouts: CutOuts) -> None:
    before = torch.get_rng_state()
    first, again, other = (seen_object(cutouts, 31, side=17, seed=seed) for seed in (3, 3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.masks, again.masks)
    assert first.fingerprint != other.fingerprint
    assert torch.equal(first.test.labels, again.test.labels)


def test_photographs_are_in_colour_or_tinted() -> None:
    found = photographs()
    assert len(found) == 6 and all(min(picture.shape[1:]) >= 300 for picture in found)
    grey = next(picture for picture in found if bool((picture == picture[:1]).all()))
    square = cropped(grey, 29, torch.tensor([0.5, 0.1, 0.9, 0.7, 1.0, 0.5, 0.0])).double()
    assert square.shape == (3, 29, 29)
    red, green, blue = square.mean(dim=(1, 2)).tolist()
    assert green / red == pytest.approx(0.875, abs=0.01) and blue / red == pytest.approx(0.75, abs=0.01)


def test_a_crop_is_a_square_of_the_photograph() -> None:
    photograph = torch.stack([torch.arange(20).expand(20, 20), torch.arange(20)[:, None].expand(20, 20)] * 2)[:3]
    whole = torch.tensor([1.0, 0.3, 0.7, 0.9, 0.0, 0.0, 0.0])
    assert torch.equal(cropped(photograph.to(torch.uint8), 20, whole), photograph.to(torch.uint8))
    whole[3] = 0.1
    assert torch.equal(cropped(photograph.to(torch.uint8), 20, whole), photograph.flip(2).to(torch.uint8))


def test_what_does_not_fit_is_named(cutouts: CutOuts) -> None:
    for scale in ((0.0, 0.5), (0.5, 0.3), (0.5, 1.1)):
        with pytest.raises(ValueError, match=r"scale: got .*; expected 0 < smallest ≤ largest ≤ 1"):
            seen_object(cutouts, 3, scale=scale)
    with pytest.raises(ValueError, match="backgrounds: got none; expected one or more"):
        seen_object(cutouts, 3, backgrounds=[])


def test_it_is_a_picture_set(seen: SeenObjects) -> None:
    assert isinstance(seen, PictureSet)
    assert repr(seen).startswith("PictureSet('seen objects': 211 pictures 3 × 53 × 53 (")
