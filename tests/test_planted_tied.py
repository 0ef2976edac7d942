"""Backbones with the same features and the same parameters are one; the model that was given stays as it is."""

import pytest
import torch

import grafeat as gf
from grafeat.planted import repeat, tied

GRIDS = repeat(31, shape=(2, 3))


def built(grids: gf.GridSet = GRIDS, **options: object) -> gf.GraFeatMerge:
    return gf.GraFeatMerge.for_grids(grids, num_classes=4, width=12, heads=3, depth=1, components=5, **options)


@pytest.mark.parametrize("options", [{}, {"shared": False}, {"readout": "attention"}, {"parted": False}])
def test_either_alone_says_the_same_and_did_not_before(options: dict[str, object]) -> None:
    model = built(**options)
    gf.fit(model, GRIDS, epochs=3, progress=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for given, alike in ((model, False), (tied(model), True)):
        first, second = (given(GRIDS, without={name}).logits for name in GRIDS.names)
        assert torch.allclose(first, second, atol=1e-6) == alike
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(tied(model)(GRIDS.only("first")).logits, model(GRIDS.only("first")).logits)


def test_backbones_of_different_channels_have_no_parameters_in_common() -> None:
    other = gf.planted.pointer(31, shape=(2, 3), channels=(3, 5))
    with pytest.raises(ValueError, match=r"model: got backbones of different channels \(pointer 3, classes 5\)"):
        tied(built(other))
