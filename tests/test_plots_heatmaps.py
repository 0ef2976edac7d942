"""Heatmaps hold the values passed, in the exact colours of their bar; limits are shared where they should be."""

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from grafeat.plots.heatmaps import heat_of, heatmap, heatmaps, limits_of, outlines
from grafeat.plots.palette import backbone_colours

GENERATOR = torch.Generator().manual_seed(0)
PICTURE = torch.rand(3, 22, 33, generator=GENERATOR)
VALUES = torch.rand(2, 5, generator=GENERATOR)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_axes_hold_the_values() -> None:
    for picture in (None, PICTURE):
        shown = heat_of(heatmap(VALUES, picture))
        np.testing.assert_array_equal(shown.get_array(), VALUES)
        assert shown.get_clim() == pytest.approx((0, float(VALUES.max())))
        assert shown.cmap.name == "cividis" and shown.get_interpolation() == "nearest"


def test_signed_values_diverge_from_zero() -> None:
    shown = heat_of(heatmap(torch.tensor([[-3.0, 1.0, 0.0]]), signed=True))
    assert shown.get_clim() == (-3, 3)
    grey = shown.to_rgba(0.0)[:3]
    assert max(grey) - min(grey) < 0.02


def test_a_patch_lies_in_its_box() -> None:
    shown = heat_of(heatmap(VALUES, PICTURE, field=(1 / 3, 0.0, 1.0, 0.5)))
    assert shown.get_extent() == pytest.approx([11, 33, 11, 0])
    assert heat_of(heatmap(VALUES)).get_extent() == pytest.approx([0, 5, 2, 0])


def test_without_a_picture_rows_and_columns_are_numbered() -> None:
    ax = heatmap(VALUES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]
    assert ax.get_xticks() == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    assert len(heatmap(torch.rand(31, 3)).get_yticks()) <= 12
    assert not len(heatmap(VALUES, PICTURE).get_xticks())


def test_colours_match_the_bar_where_the_picture_has_no_outline() -> None:
    """Half black, half white: all outlines are near the border, and all other pixels are the bar's colours."""
    picture = torch.zeros(3, 20, 30)
    picture[:, :, 15:] = 1
    figure = plt.figure(figsize=(3, 2), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    shown = heat_of(heatmap(torch.tensor([[0.1, 0.9]]), picture, ax))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    for column, value in ((50, 0.1), (250, 0.9)):
        np.testing.assert_allclose(pixels[100, column], shown.to_rgba(value)[:3], atol=1 / 255)
    at_border = np.abs(pixels[100, 142:158] - np.array(shown.to_rgba(0.1)[:3])).max(axis=1)
    assert at_border.max() > 0.1


def test_outlines_are_where_brightness_changes() -> None:
    picture = torch.zeros(3, 20, 30)
    picture[:, :, 15:] = 1
    strength = outlines(picture)
    assert tuple(strength.shape) == (240, 360) and strength[:, 180].min() > 0.5
    assert float(strength[:, :150].max()) < 0.02 > float(strength[:, 210:].max())
    assert float(outlines(torch.full((3, 5, 7), 0.4)).max()) == 0


def test_printed_numbers_are_the_values() -> None:
    values = torch.tensor([[0.25, -0.5], [0.125, 1.0]])
    texts = heatmap(values, numbers=True).texts
    assert [text.get_text() for text in texts] == ["0.25", "−0.50", "0.12", "1.00"]
    assert [text.get_position() for text in texts] == [(0.5, 0.5), (1.5, 0.5), (0.5, 1.5), (1.5, 1.5)]


def test_whole_numbers_are_printed_without_decimals() -> None:
    texts = heatmap(torch.tensor([[3.0, -1.0], [0.0, 12.0]]), numbers=True).texts
    assert [text.get_text() for text in texts] == ["3", "−1", "0", "12"]


def test_a_label_brings_a_colour_bar() -> None:
    def bars(ax: Axes) -> int:
        return len(ax.child_axes)

    assert (bars(heatmap(VALUES)), bars(heatmap(VALUES, label="mass"))) == (0, 1)


def test_given_limits_and_axes_are_used() -> None:
    ax = plt.figure().add_subplot()
    assert heatmap(VALUES, ax=ax, limits=(-1, 7)) is ax
    assert heat_of(ax).get_clim() == (-1, 7)


def test_limits() -> None:
    assert limits_of(torch.tensor([0.2, 0.5])) == (0, 0.5)
    assert limits_of(torch.tensor([-2.0, 1.0])) == (-2, 1)
    assert limits_of(torch.tensor([-2.0, 1.0]), signed=True) == (-2, 2)
    assert limits_of(torch.zeros(3)) == (0, 1) and limits_of(torch.zeros(3), signed=True) == (0, 1)


def test_several_backbones_share_limits_and_one_bar() -> None:
    values = {"b": torch.rand(2, 3), "a": 5 * torch.rand(7, 5), "c": torch.rand(3, 3)}
    figure = heatmaps(values, PICTURE, quantity="reading, GraFeat-Merge", fields={"c": (0, 0, 0.5, 0.5)})
    *panels, _bar = figure.axes
    colours = backbone_colours(values)
    for ax, (name, given) in zip(panels, values.items(), strict=True):
        np.testing.assert_array_equal(heat_of(ax).get_array(), given)
        assert heat_of(ax).get_clim() == pytest.approx((0, float(values["a"].max())))
        assert ax.lines[0].get_color() == colours[name].mark
    assert heat_of(panels[2]).get_extent() == pytest.approx([0, 16.5, 11, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.rand(3), r"values: got shape \(3,\); expected one value for each patch, \(h, w\)"),
        (torch.rand(2, 3, 4), r"values: got shape \(2, 3, 4\)"),
        (torch.tensor([[1.0, torch.inf]]), "values: got NaN or infinity"),
    ],
)
def test_what_are_no_values_is_refused(values: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heatmap(values)


def test_limits_that_do_not_rise_and_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"limits: got \(1, 1\); expected two numbers \(low, high\)"):
        heatmap(VALUES, limits=(1, 1))
    with pytest.raises(ValueError, match="values: got none"):
        heatmaps({}, quantity="nothing")


def test_settings_of_matplotlib_stay() -> None:
    before = dict(mpl.rcParams)
    heatmaps({"a": VALUES}, PICTURE, quantity="norm")
    heatmap(VALUES, label="norm")
    assert dict(mpl.rcParams) == before
