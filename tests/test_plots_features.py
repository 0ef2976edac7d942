"""Features as pictures: components as scikit-learn finds them, norms as numpy does."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from grafeat.grids import FeatureGrid, GridSet
from grafeat.plots.features import feature_pictures, principal_colours
from grafeat.plots.heatmaps import heat_of

GENERATOR = torch.Generator().manual_seed(0)
PICTURES = torch.rand(5, 3, 14, 21, generator=GENERATOR)
GRIDS = [
    FeatureGrid("b", torch.randn(5, 11, 2, 3, generator=GENERATOR)),
    FeatureGrid("a", 3 * torch.randn(5, 7, 3, 5, generator=GENERATOR), field=(0, 0, 0.5, 1)),
]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_components_are_scikit_learns() -> None:
    features = torch.randn(13, 7, 2, 3, generator=GENERATOR) * torch.arange(1, 8)[:, None, None]
    colours, share = principal_colours(features)
    vectors = features.movedim(1, -1).flatten(0, -2).numpy()
    pca = PCA(3).fit(vectors)
    signs = np.sign(pca.components_[range(3), np.abs(pca.components_).argmax(axis=1)])
    scores = pca.transform(vectors) * signs
    low, high = np.percentile(scores, [2, 98], axis=0)
    expected = 0.1 + 0.85 * np.clip((scores - low) / (high - low), 0, 1)
    np.testing.assert_allclose(colours.flatten(0, -2), expected, atol=1e-4)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)


def test_components_do_not_change_between_calls_nor_touch_the_global_generator() -> None:
    features = torch.randn(500, 5, 3, 3, generator=GENERATOR)  # more patches than are drawn for the fit
    state = torch.random.get_rng_state()
    first, second = principal_colours(features)[0], principal_colours(features)[0]
    assert torch.equal(first, second) and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "features", [torch.randn(2, 1, 3, 5), torch.ones(2, 7, 3, 5), torch.randn(1, 7, 1, 1)]
)
def test_what_has_too_few_components_is_grey_in_the_others(features: torch.Tensor) -> None:
    colours, share = principal_colours(features)
    assert bool((colours[..., 2] == 0.5).all()) and 0 <= share <= 1


def test_each_row_shows_the_picture_and_every_backbone() -> None:
    figure = feature_pictures(GridSet(GRIDS), PICTURES, rows=(3, 0))
    assert len(figure.axes) == 6
    for row, index in enumerate((3, 0)):
        picture, b, a = figure.axes[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(picture.images[0].get_array(), PICTURES[index].permute(1, 2, 0))
        np.testing.assert_array_equal(b.images[0].get_array(), principal_colours(GRIDS[0].features)[0][index])
        np.testing.assert_array_equal(a.images[0].get_array(), principal_colours(GRIDS[1].features)[0][index])
        assert b.images[0].get_extent() == [0, 21, 14, 0]
        assert a.images[0].get_extent() == [0, 10.5, 14, 0]


def test_norms_share_limits_within_a_backbone() -> None:
    figure = feature_pictures(GRIDS, rows=(0, 4), show="norm")
    for column, grid in enumerate(GRIDS):
        norms = np.linalg.norm(grid.features.numpy(), axis=1)
        for ax, index in zip(figure.axes[column::2], (0, 4), strict=True):
            np.testing.assert_allclose(heat_of(ax).get_array(), norms[index], rtol=1e-5)
            assert heat_of(ax).get_clim() == pytest.approx((0, norms.max()))
    assert [len(ax.child_axes) for ax in figure.axes] == [0, 0, 1, 1]


def test_pictures_may_differ_in_size() -> None:
    feature_pictures(
        [grid[:2] for grid in GRIDS], [torch.rand(3, 10, 30), torch.rand(3, 30, 10)], rows=(0, 1)
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"rows: got \[5\]; expected one or more numbers from 0 to 4"):
        feature_pictures(GRIDS, rows=(5,))
    with pytest.raises(ValueError, match=r"rows: got \[\]"):
        feature_pictures(GRIDS, rows=())
    with pytest.raises(ValueError, match="pictures: got 3 for grids of 5 pictures; slice them alike"):
        feature_pictures(GRIDS, PICTURES[:3])


def test_an_unknown_view_is_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="show: got 'mean'; expected 'components' or 'norm'"):
        feature_pictures(GRIDS, show="mean")  # type: ignore[arg-type]
