"""Pictures and grids in place: what is on the axes is what was passed, at the boxes of the patches."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from grafeat.grids import FeatureGrid, GridSet
from grafeat.plots.palette import BackboneColour, backbone_colours
from grafeat.plots.pictures import draw_grid, draw_grids, draw_picture, grid_lines

GENERATOR = torch.Generator().manual_seed(0)
PICTURE = torch.rand(3, 22, 35, generator=GENERATOR)


def grid(name: str, h: int, w: int, field: tuple[float, float, float, float] = (0, 0, 1, 1)) -> FeatureGrid:
    return FeatureGrid(name, torch.randn(2, 5, h, w, generator=GENERATOR), field=field)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_a_picture_is_drawn_as_it_is_and_counts_pixels() -> None:
    ax = draw_picture(PICTURE)
    np.testing.assert_array_equal(ax.images[0].get_array(), PICTURE.permute(1, 2, 0))
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 35), (22, 0))
    assert ax.images[0].get_extent() == [0, 35, 22, 0]


def test_a_picture_fades_towards_white_outside_its_field() -> None:
    ax = draw_picture(PICTURE, fade=0.5, field=(0, 0, 4 / 7, 1))
    shown = np.asarray(ax.images[0].get_array())
    faded = 1 - 0.5 * (1 - PICTURE.permute(1, 2, 0).numpy())
    np.testing.assert_allclose(shown[:, :20], faded[:, :20], atol=1e-6)
    np.testing.assert_allclose(shown[:, 20:], 1 - 0.3 * (1 - faded[:, 20:]), atol=1e-6)


def test_grid_lines_are_the_edges_of_the_boxes() -> None:
    one = grid("a", 2, 3, (0.25, 0.5, 0.75, 1.0))
    lines = grid_lines(one.shape, one.field)
    xs = {float(line[0, 0]) for line in lines if line[0, 0] == line[1, 0]}
    ys = {float(line[0, 1]) for line in lines if line[0, 1] == line[1, 1]}
    np.testing.assert_allclose(sorted(xs), sorted(set(one.boxes[:, [0, 2]].flatten().tolist())), atol=1e-6)
    np.testing.assert_allclose(sorted(ys), sorted(set(one.boxes[:, [1, 3]].flatten().tolist())), atol=1e-6)
    assert len(grid_lines((2, 3), one.field, inner=True)) == 1 + 2


def test_a_grid_is_drawn_in_place_in_its_colour() -> None:
    colour = BackboneColour("#112233", "#001122")
    ax = draw_grid(PICTURE, grid("mine", 2, 5, (0, 0, 1, 0.5)), colour=colour)
    casing, lines = ax.collections
    expected = grid_lines((2, 5), (0, 0, 35, 11))
    for drawn in (casing, lines):
        np.testing.assert_allclose(np.array(drawn.get_segments()), expected)
    np.testing.assert_allclose(lines.get_color()[0], np.array([0x11, 0x22, 0x33, 255]) / 255)
    np.testing.assert_allclose(casing.get_color()[0], 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_one_panel_for_each_backbone_in_order_and_colour(count: int) -> None:
    grids = [grid(f"backbone {m}", m + 1, 7 - m) for m in range(count)]
    figure = draw_grids(PICTURE, GridSet(grids))
    colours = backbone_colours(g.name for g in grids)
    assert len(figure.axes) == count
    for ax, one in zip(figure.axes, grids, strict=True):
        assert len(ax.collections[1].get_segments()) == sum(one.shape) + 2
        assert ax.lines[0].get_color() == colours[one.name].mark
        assert ax.lines[0].get_linewidth() == 3


def test_given_colours_and_axes_are_used() -> None:
    red = {"b": BackboneColour("#ff0000", "#880000")}
    assert draw_grids(PICTURE, [grid("b", 2, 3)], colours=red).axes[0].lines[0].get_color() == "#ff0000"
    ax = plt.figure().add_subplot()
    assert draw_picture(PICTURE, ax) is ax and draw_grid(PICTURE, grid("b", 2, 3), ax) is ax


def test_half_precision_and_gradients_are_no_obstacle() -> None:
    draw_picture(PICTURE.half())
    draw_picture(PICTURE.clone().requires_grad_())


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            torch.rand(1, 3, 4, 5),
            r"picture: got \(1, 3, 4, 5\), float32; expected a floating-point tensor \(3, H, W\)",
        ),
        (torch.rand(4, 5, 3), r"picture: got \(4, 5, 3\).*pictures\[0\]"),
        (
            torch.randint(0, 255, (3, 4, 5), dtype=torch.uint8),
            "picture: got .* uint8; expected a floating-point",
        ),
        (torch.full((3, 4, 5), 128.0), r"picture: got values from 128 to 128; expected \[0, 1\]; divide"),
        (torch.full((3, 4, 5), torch.nan), "picture: got values from nan to nan"),
    ],
)
def test_what_is_no_picture_is_refused(picture: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_picture(picture)
