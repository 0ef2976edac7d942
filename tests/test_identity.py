"""Other pictures and other weights are told apart; the same are the same, wherever they lie."""

import pytest
import torch

import grafeat as gf
from grafeat import identity
from grafeat.identity import alike, fingerprint, sizes
from grafeat.planted import pointer

GRIDS = pointer(31, shape=(2, 3), channels=(3, 5))
SEVEN = [0, 5, 10, 15, 20, 25, 30]  # seven rows of 31, evenly spaced


def changed(row: int) -> gf.GridSet:
    parts = [gf.FeatureGrid(grid.name, grid.features.clone()) for grid in GRIDS.grids]
    parts[1].features[row, -1, -1, -1] += 1
    return gf.GridSet(parts, GRIDS.labels)


def built(grids: gf.GridSet = GRIDS, seed: int = 0) -> gf.GraFeatMerge:
    return gf.GraFeatMerge.for_grids(grids, num_classes=4, width=12, heads=3, depth=1, components=3, seed=seed)


def test_of_a_small_set_every_picture_counts() -> None:
    found = {fingerprint(GRIDS), *(fingerprint(changed(row)) for row in range(len(GRIDS)))}
    assert len(found) == len(GRIDS) + 1


def test_of_a_large_set_evenly_spaced_pictures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "LOOKED_AT", len(SEVEN))
    whole = fingerprint(GRIDS)
    assert [row for row in range(len(GRIDS)) if fingerprint(changed(row)) != whole] == SEVEN


def test_labels_names_fields_and_the_number_of_pictures_count() -> None:
    lite, other = GRIDS.grids
    others = [
        gf.GridSet([lite, other], GRIDS.labels.roll(1)),
        gf.GridSet([lite, other]),
        gf.GridSet([other, lite], GRIDS.labels),
        gf.GridSet([lite, gf.FeatureGrid("x", other.features)], GRIDS.labels),
        gf.GridSet([lite, gf.FeatureGrid(other.name, other.features, (0, 0, 0.5, 1))], GRIDS.labels),
        gf.GridSet([lite, gf.FeatureGrid(other.name, other.features.flatten(2)[..., None])], GRIDS.labels),
        GRIDS[:30],
        GRIDS[:0],
        GRIDS[:1],
    ]
    assert len({fingerprint(grids) for grids in (GRIDS, *others)}) == len(others) + 1


def test_a_view_and_a_copy_of_the_same_pictures_are_the_same() -> None:
    view = GRIDS[[3, 29, 11]]
    copied = gf.GridSet([gf.FeatureGrid(grid.name, grid.features.clone()) for grid in view.grids], view.labels)
    assert fingerprint(view) == fingerprint(copied) != fingerprint(GRIDS[[3, 11, 29]])


def test_models_are_told_by_their_seed_and_by_the_pictures_of_their_statistics() -> None:
    assert alike(sizes(built()), sizes(built()))
    assert not alike(sizes(built()), sizes(built(seed=1)))
    assert not alike(sizes(built()), sizes(built(GRIDS[:30])))
    turned = [gf.FeatureGrid(grid.name, grid.features.roll(1, dims=1)) for grid in GRIDS.grids]
    assert not alike(sizes(built()), sizes(built(gf.GridSet(turned, GRIDS.labels))))


def test_sizes_by_hand() -> None:
    model = built()
    model.types.data = torch.tensor([[3.0, -4.0], [0.5, 0.0]])
    assert sizes(model)["types"] == pytest.approx(3 + 4 * 4 / 3 + 0.5 * 5 / 3)
    assert sizes(model).keys() == model.state_dict().keys()


def test_only_last_digits_and_signs_may_differ() -> None:
    assert alike({"types": 7.50001}, {"types": 7.5}) and not alike({"types": 7.501}, {"types": 7.5})
    for other in ({}, None, {"types": "7.5"}, {"other": 7.5}, {"types": 7.5, "other": 7.5}, [7.5]):
        assert not alike(other, {"types": 7.5})
    turned = built()
    turned.projections[0].basis[:, 1] *= -1
    assert alike(sizes(turned), sizes(built()))
