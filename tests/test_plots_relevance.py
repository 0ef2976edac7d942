"""Relevance drawn: exact values, one limit for all backbones, the strongest patches where they are."""

from functools import cache

import numpy as np
import pytest
import torch

import grafeat as gf
from grafeat.plots.heatmaps import heat_of
from grafeat.plots.relevance import draw_dominant, relevance_maps

SHAPES = {"lite": (2, 3), "vit": (1, 5)}
PICTURE = torch.rand(3, 14, 35, generator=torch.Generator().manual_seed(0))


def grids() -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = [
        gf.FeatureGrid("lite", torch.randn(2, 5, 2, 3, generator=generator)),
        gf.FeatureGrid("vit", torch.randn(2, 5, 1, 5, generator=generator), (0.5, 0.0, 1.0, 1.0)),
    ]
    return gf.GridSet(listed)


@cache
def model() -> gf.GraFeatMerge:
    built = gf.GraFeatMerge.for_grids(grids(), num_classes=3, width=12, heads=3, depth=1)
    built.label_counts += 1
    return built


def texts(figure: object) -> list[str]:
    found = [text.get_text() for ax in figure.axes for text in ax.texts]  # type: ignore[attr-defined]
    return [text for text in found if text]


@pytest.mark.parametrize("method", ["integrated_gradients", "attention_rollout"])
def test_heatmaps_hold_the_values_with_shared_limits(method: str) -> None:
    found = gf.relevance(model(), grids(), 1, method=method)
    figure = relevance_maps(found, PICTURE, number=1)
    for name, ax in zip(SHAPES, figure.axes, strict=False):
        shown = heat_of(ax)
        np.testing.assert_allclose(np.asarray(shown.get_array()), found.maps[name][1].numpy(), rtol=1e-6)
        low, high = shown.get_clim()
        largest = float(found.flat[1].abs().max())
        assert high == pytest.approx(largest) and low == pytest.approx(-largest if found.signed else 0)


def test_the_strongest_are_numbered_where_they_are() -> None:
    found = gf.relevance(model(), grids(), 1, method="integrated_gradients")
    figure = relevance_maps(found, PICTURE, top=3)
    for rank, (patch, _) in enumerate(found.top(3), start=1):
        ax = figure.axes[list(SHAPES).index(patch.backbone)]
        (number,) = [text for text in ax.texts if text.get_text() == str(rank)]
        x0, y0, x1, y1 = found.graph.box(found.graph.vertex(*patch))
        assert number.get_position() == pytest.approx(((x0 + x1) / 2 * 35, (y0 + y1) / 2 * 14))
    assert sorted(text for text in texts(figure) if text.isdigit()) == ["1", "2", "3"]
    bare = relevance_maps(found, top=0)
    assert not [text for text in texts(bare) if text in ("1", "2", "3")]


def test_no_such_picture() -> None:
    with pytest.raises(ValueError, match=r"number: got 2; expected 0 to 1; count from 0"):
        relevance_maps(gf.relevance(model(), grids(), 1, method="gradient_x_input"), number=2)


@pytest.mark.parametrize("picture", [PICTURE, None])
def test_the_patches_that_decide_are_drawn_in_place_with_their_edges(picture: torch.Tensor | None) -> None:
    found = gf.dominant(model(), grids()[0], 1, count=2)
    figure = draw_dominant(found, picture)
    for name, ax in zip(SHAPES, figure.axes, strict=False):
        numbers = {text.get_text() for text in ax.texts if text.get_text().isdigit()}
        assert numbers == {str(rank) for rank, patch in enumerate(found, start=1) if patch.backbone == name}
    flow = figure.axes[2].child_axes[0]
    said = {text.get_text() for text in flow.texts}
    assert {"1", "2", found.target} <= said
    read = [edge for edge in found.edges if edge.end is None]
    strongest = max(read, key=lambda edge: abs(edge.change))
    assert f"{strongest.change:+.2f}".replace("-", "−") in said
