"""Links join the centres of patches, keep to the gaps between panels on their way to another row, and fade between."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import CircleCollection, LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from grafeat.plots.links import Link, _curve, draw_links
from grafeat.plots.marks import Spot
from grafeat.plots.panels import inches, wrapped
from grafeat.plots.pictures import canvas


def panels(count: int) -> tuple[Figure, list[Axes]]:
    figure, axes = wrapped(count, 0.75, foot=0.5)
    return figure, [canvas(ax, (6, 8)) for ax in axes]


def link(query: Axes, key: Axes, *, strength: float = 1.0) -> Link:
    return Link(Spot(query, (1, 2, 3, 3)), Spot(key, (5, 0, 7, 2)), "#0072B2", strength)


def drawn(figure: Figure) -> tuple[LineCollection, CircleCollection]:
    lines, dots = (
        next(artist for artist in figure.get_children() if artist.get_label() == label)
        for label in ("links", "attended to")
    )
    assert isinstance(lines, LineCollection) and isinstance(dots, CircleCollection)
    return lines, dots


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("places", [(0, 2), (2, 0), (1, 5), (5, 1), (0, 4), (3, 4)])
def test_curves_lead_from_centre_to_centre(places: tuple[int, int]) -> None:
    figure, axes = panels(7)
    query, key = (axes[place] for place in places)
    draw_links(figure, [link(query, key)], axes)
    lines, dots = drawn(figure)
    curve = figure.transFigure.transform(lines.get_paths()[0].vertices)
    np.testing.assert_allclose(curve[0], query.transData.transform((2, 2.5)), atol=1e-6)
    np.testing.assert_allclose(curve[-1], key.transData.transform((6, 1)), atol=1e-6)
    np.testing.assert_allclose(figure.transFigure.transform(dots.get_offsets())[0], curve[-1], atol=1e-9)


@pytest.mark.parametrize("count", [2, 4, 5, 7, 9])
def test_curves_keep_clear_of_headers_and_bars(count: int) -> None:
    _, axes = panels(count)
    places = [inches(ax) for ax in axes]
    for query in axes:
        for key in axes:
            if query is not key:
                for x, y in _curve(link(query, key), 0.06, axes):
                    in_row = any(top - 1e-6 <= y <= top + height + 1e-6 for _, top, _, height in places)
                    in_column = any(left < x < left + width for left, _, width, _ in places)
                    assert in_row or not in_column


def test_colours_are_full_at_the_ends_and_paler_between_with_white_below() -> None:
    figure, axes = panels(2)
    draw_links(figure, [link(*axes, strength=0.2), link(*axes)], axes)
    lines, dots = drawn(figure)
    shades = lines.get_colors()[:, :3].reshape(2, -1, 3)
    widths = np.array(lines.get_linewidths()).reshape(2, -1)
    np.testing.assert_array_equal(shades[:, 0], 1)
    weak, strong = shades[:, 1:]
    np.testing.assert_allclose(strong[[0, -1]], np.tile(to_rgb("#0072B2"), (2, 1)), atol=1e-6)
    assert (strong[len(strong) // 2] > strong[0]).all() and (weak[0] >= strong[0]).all()
    assert (widths[1] > widths[0]).all() and (widths[:, 0] > widths[:, 1]).all()
    assert dots.get_sizes()[0] < dots.get_sizes()[1]


def test_no_links_draw_nothing() -> None:
    figure, axes = panels(2)
    before = len(figure.get_children())
    draw_links(figure, [], axes)
    assert len(figure.get_children()) == before
