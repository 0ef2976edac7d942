"""Panels lie where they should, in inches; text fits; colour bars and numbers say what they mean."""

import itertools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.offsetbox import TextArea

from grafeat.plots.palette import PALETTE
from grafeat.plots.panels import (
    Panels,
    bar_below,
    colour_bar,
    figure_of,
    header,
    inches,
    number,
    own_axes,
    panel_figure,
    panel_rows,
    place,
    shorten,
    text_width,
    wrapped,
)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def written(artist: object) -> list[str]:
    return [area.get_text() for area in artist.findobj(TextArea)]  # type: ignore[attr-defined]


def test_place_counts_from_the_top_left() -> None:
    assert inches(place(panel_figure(7, 5), 1, 2, 3, 1.5)) == pytest.approx((1, 2, 3, 1.5))


@pytest.mark.parametrize(
    ("count", "rows"), [(1, [1]), (3, [3]), (4, [4]), (5, [3, 2]), (7, [4, 3]), (9, [3, 3, 3])]
)
def test_rows_of_panels_are_as_equal_as_can_be(count: int, rows: list[int]) -> None:
    figure, axes = wrapped(count, 0.7)
    tops = [round(inches(ax)[1], 6) for ax in axes]
    assert [tops.count(top) for top in sorted(set(tops))] == rows
    assert figure.axes == axes


@pytest.mark.parametrize("columns", [1, 2, 6])
@pytest.mark.parametrize("aspect", [0.2, 1.0, 3.0])
def test_panels_keep_their_aspect_inside_the_figure(columns: int, aspect: float) -> None:
    figure, axes = panel_rows([aspect, aspect / 2], columns)
    across, down = figure.get_size_inches()
    spots = [inches(ax) for ax in axes]
    assert across <= 9.6 + 1e-6
    for left, top, width, height in spots:
        assert left >= 0 and top >= 0 and left + width <= across and top + height <= down
    assert [h / w for *_, w, h in spots] == pytest.approx([aspect] * columns + [aspect / 2] * columns)


def test_given_axes_are_used() -> None:
    ax = plt.figure().add_subplot()
    assert own_axes(ax, 2.0) is ax
    assert inches(own_axes(None, 0.5))[3] / inches(own_axes(None, 0.5))[2] == pytest.approx(0.5)


def test_the_figure_of_a_subfigure_is_the_whole_one() -> None:
    whole = plt.figure()
    assert figure_of(whole.subfigures(1, 2)[0].add_subplot()) is whole


def test_long_names_lose_their_middle_and_fit() -> None:
    name = "tf_efficientnetv2_rw_small_in21k_finetuned"
    short = shorten(name, 100, size=11, weight="bold")
    assert text_width(short, 11, "bold") <= 100 < text_width(name, 11, "bold")
    first, last = short.split("…")
    assert name.startswith(first) and name.endswith(last) and len(first) - len(last) in (0, 1)
    assert shorten("vit", 100, size=11) == "vit"


def test_measured_text_is_as_wide_as_drawn_text() -> None:
    figure = panel_figure(7, 2)
    for weight in ("normal", "bold"):
        text = figure.text(
            0, 0.5, "efficientnet_lite0 and 11 more", size=11, weight=weight, family="DejaVu Sans"
        )
        drawn = text.get_window_extent().width / figure.dpi * 72
        assert text_width("efficientnet_lite0 and 11 more", 11, weight) == pytest.approx(drawn, rel=0.08)


def test_header_keeps_the_details_that_fit() -> None:
    figure = panel_figure(9, 3)
    wide, narrow = place(figure, 0, 1, 4, 1), place(figure, 5, 1, 1.1, 1)
    for ax in (wide, narrow):
        header(ax, "small_vit", "cross 68%", "in a grid of 7 × 7", colour=PALETTE[0])
    assert written(wide) == ["small_vit", "cross 68% · in a grid of 7 × 7"]
    assert written(narrow) == ["small_vit", "cross 68%"]
    assert [line.get_color() for line in wide.lines] == [PALETTE[0].mark]


def test_colour_bar_shows_the_limits_and_marks_values() -> None:
    ax = place(panel_figure(5, 3), 0.5, 0.5, 4, 1.5)
    shown = ax.imshow(np.array([[0.0, 0.3], [0.1, 0.25]]), vmin=0, vmax=0.3)
    cax = bar_below(ax)
    colour_bar(cax, shown, "attention", marks=[(0.125, PALETTE[1])], mark_label="uniform")
    assert [label.get_text() for label in cax.get_xticklabels()] == ["0", "0.30"]
    assert written(cax) == ["attention", "▼", "uniform", "0.12"]
    assert [tuple(line.get_xdata()) for line in cax.lines] == [(0.125,)]
    assert cax.get_xlim() == pytest.approx((0, 0.3))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(-1, 1, ["−1", "0", "1"]), (-0.21, 1.1, ["−0.21", "1.1"]), (-1, 0.1, ["−1", "0.10"]), (0.5, 2, ["0.50", "2"])],
)
def test_zero_is_written_where_it_touches_no_end(low: float, high: float, ticks: list[str]) -> None:
    ax = place(panel_figure(5, 3), 0.5, 0.5, 3, 1.5)
    cax = bar_below(ax)
    colour_bar(cax, ax.imshow(np.array([[low, high]]), vmin=low, vmax=high), "relevance")
    labels = cax.get_xticklabels()
    assert [label.get_text() for label in labels] == ticks
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 + 2 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_bar_below_stays_clear_of_its_panel_when_the_panel_moves() -> None:
    figure = panel_figure(6, 4)
    ax = place(figure, 0.5, 0.5, 2, 1)
    ax.set(xticks=[], yticks=[])
    bar = bar_below(ax)
    for _ in range(2):
        figure.draw_without_rendering()
        gap = (ax.get_window_extent().y0 - bar.get_window_extent().y1) / figure.dpi
        assert gap == pytest.approx(0.4) and bar.get_window_extent().width == ax.get_window_extent().width
        ax.set_position((0.2, 0.4, 0.6, 0.5))


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0, "0"),
        (1.0, "1"),
        (0.02, "0.020"),
        (0.0625, "0.062"),
        (38.4, "38"),
        (1234.5, "1,234"),
        (-2.61, "−2.6"),
        (2e-5, "2.0e−05"),
    ],
)
def test_numbers(value: float, printed: str) -> None:
    assert number(value) == printed


def test_outside_a_notebook_showing_a_figure_leaves_it_open() -> None:
    figure = panel_figure(3, 2)
    assert isinstance(figure, Panels)
    with pytest.raises(NotImplementedError):
        figure._ipython_display_()
    assert plt.fignum_exists(figure.number)
