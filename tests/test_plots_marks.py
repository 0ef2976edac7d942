"""Marks lie on their patch, white on black."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

from grafeat.plots.marks import ROOM, Spot, draw_brackets, draw_outline
from grafeat.plots.panels import inches, panel_figure, place
from grafeat.plots.pictures import canvas


def spot(size: tuple[int, int]) -> Spot:
    """The patch at row 2, column 1, on axes of 3 × 2 inches, half an inch from the left edge and one from the top."""
    ax = canvas(place(panel_figure(5, 4), 0.5, 1, 3, 2), size)
    return Spot(ax, (1, 2, 2, 3))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_a_spot_by_hand() -> None:
    given = spot((4, 6))  # half an inch for each patch
    assert given.at == pytest.approx([0.5 + 0.75, 1 + 1.25]) and given.side == pytest.approx(36)
    assert inches(given.ax) == pytest.approx((0.5, 1, 3, 2))


def test_brackets_hold_the_patch_and_leave_the_middle_of_its_sides_free() -> None:
    given = spot((4, 6))
    draw_brackets(given)
    black, white = given.ax.patches
    assert black.get_edgecolor()[:3] == (0, 0, 0) and white.get_edgecolor()[:3] == (1, 1, 1)
    assert black.get_linewidth() > white.get_linewidth()
    corners = black.get_path().vertices
    assert black.get_path().get_extents().extents == pytest.approx([1, 2, 2, 3])
    assert {(x, y) for x, y in corners.tolist()} >= {(1, 2), (2, 2), (2, 3), (1, 3)} and len(corners) == 12
    assert not any(1.35 < x < 1.65 or 2.35 < y < 2.65 for x, y in corners)


def test_brackets_stand_around_a_patch_too_small_for_them() -> None:
    given = spot((80, 120))
    assert given.side < ROOM
    draw_brackets(given)
    x0, y0, x1, y1 = given.ax.patches[0].get_path().get_extents().extents
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((1.5, 2.5))
    assert given.side * (x1 - x0) == pytest.approx(ROOM) == given.side * (y1 - y0)


def test_an_outline_is_the_patchs_border() -> None:
    given = spot((4, 6))
    draw_outline(given)
    assert [drawn.get_bbox().extents.tolist() for drawn in given.ax.patches] == [[1, 2, 2, 3]] * 2
