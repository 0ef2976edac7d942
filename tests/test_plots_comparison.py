"""The figures of a comparison show its figures: means, intervals, the rival, and what is sure."""

from itertools import chain, pairwise

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from test_lab_comparison import CONTROLS, WAYS, made

from grafeat.plots.comparison import ACCENT, GREY, INKS, comparison, contenders, gains
from grafeat.plots.palette import DIVERGING_ENDS, INK


@pytest.fixture(autouse=True)
def closed() -> object:
    yield
    plt.close("all")


def dots(ax: Axes) -> list[tuple[float, float, str, str]]:
    """Place, height, marker and colour of each dot, from the top."""
    lines = [line for line in ax.lines if line.get_marker() not in ("None", None, "")]
    found = [(line.get_xdata()[0], line.get_ydata()[0], line.get_marker(), line.get_color()) for line in lines]
    return sorted(found, key=lambda dot: dot[1])


def spans(ax: Axes) -> list[list[float]]:
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != line.get_xdata()[1]]
    return [list(line.get_xdata()) for line in sorted(lines, key=lambda line: line.get_ydata()[0])]


def names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_contenders_stand_best_first_with_their_intervals_and_controls_below() -> None:
    found = made()
    ax = contenders(found, "digits")
    rows = found.of("digits")
    rivals, apart = rows[rows["kind"] != "control"], rows[rows["kind"] == "control"]
    assert names(ax) == [*rivals["contender"], *apart["contender"]]
    assert [x for x, *_ in dots(ax)] == pytest.approx([*rivals["mean"], *apart["mean"]])
    ends = [*zip(rivals["low"], rivals["high"], strict=True), *zip(apart["low"], apart["high"], strict=True)]
    assert [*chain(*spans(ax))] == pytest.approx([*chain(*ends)])
    heights = [y for _, y, *_ in dots(ax)]
    steps = [round(b - a, 3) for a, b in pairwise(heights)]
    assert steps[len(rivals) - 1] > 1 and set(steps[: len(rivals) - 1]) == {1}


def test_the_merge_has_the_accent_its_rival_a_diamond_and_controls_are_grey() -> None:
    ax = contenders(made(), "digits")
    by_name = dict(zip(names(ax), dots(ax), strict=True))
    assert {name for name, dot in by_name.items() if dot[2] == "D"} == {"ensemble"}
    assert {name for name, dot in by_name.items() if dot[3] == ACCENT} == {"merge"}
    assert {name for name, dot in by_name.items() if dot[3] == GREY} == set(CONTROLS)
    assert {name for name, dot in by_name.items() if dot[3] == INK} == set(WAYS)
    through = [line for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[-1] == by_name["merge"][0]]
    assert any(line.get_color() == ACCENT and len(line.get_xdata()) == 2 for line in through)
    assert set(INKS) == {"way", "merge", "control"}


def test_every_mean_is_printed_with_its_interval() -> None:
    said = [text.get_text() for text in contenders(made(), "digits").texts]
    assert said[0] == "90.4 (89.4–91.2)" and len(said) == 7


def test_each_task_has_a_panel_and_one_may_be_chosen() -> None:
    found = made()
    figure = comparison(found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == found.tasks
    assert [text.get_text() for text in figure.axes[0].texts][:2] == ["90.4", "90.0"]  # two columns have less room
    one = comparison(found, tasks="clothes")
    assert [ax.get_title(loc="left") for ax in one.axes] == ["clothes"]
    assert one.axes[0].texts[0].get_text() == "90.0 (89.0–90.8)"
    assert len(comparison(found, tasks=["blind sums", "digits"]).axes) == 2
    with pytest.raises(ValueError, match="task: got 'cloths'"):
        comparison(found, tasks="cloths")
    with pytest.raises(ValueError, match="tasks: got none; expected some of digits, clothes, blind sums; leave it out"):
        comparison(found, tasks=[])


def test_nothing_is_drawn_outside_the_figure_or_over_another_panel() -> None:
    figure = comparison(made(dict.fromkeys(("digits", "clothes", "sums"), 0.004)))
    figure.canvas.draw()
    whole = figure.bbox
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for box in boxes:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    for at, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[at + 1 :])


def test_gains_are_the_merges_paired_differences_and_only_sure_ones_are_filled() -> None:
    found = made({"digits": 0.004, "clothes": -0.012, "even": 0.001})
    ax = gains(found)
    assert names(ax) == found.tasks
    marked = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marked] == pytest.approx([0.4, -1.2, 0.1])
    assert [line.get_markerfacecolor() for line in marked] == [ACCENT, DIVERGING_ENDS[1], "white"]
    assert spans(ax) == [pytest.approx(ends) for ends in ([0.1, 0.7], [-1.5, -0.9], [-0.2, 0.4])]
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
    assert ax.get_xlabel() == "points"
    assert [text.get_text() for text in ax.texts].count("ensemble") == 3


def test_gains_over_another_way() -> None:
    ax = gains(made({"digits": 0.004}), against="concat")
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"] == pytest.approx([2.4])
    assert "ensemble" not in [text.get_text() for text in ax.texts]


def test_where_gains_differ_by_far_the_scale_is_logarithmic_and_says_so() -> None:
    ax = gains(made({"digits": 0.004, "clothes": -0.012, "sums": 0.4}))
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlabel() == "points, logarithmic beyond ±1"
    low, high = ax.get_xlim()
    assert low < -1.5 and high > 40.3
    ticks = [text.get_text() for text in ax.get_xticklabels()]
    assert ticks == ["−1", "0", "+1", "+3", "+10", "+30"]


def test_the_callers_axes_are_drawn_on() -> None:
    for draw in (lambda ax: gains(made(), ax), lambda ax: contenders(made(), "digits", ax)):
        _, ax = plt.subplots()
        assert draw(ax) is ax


def test_what_was_not_compared_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="against: got 'gated'; expected one of best rival, best outsider, concat"):
        gains(made(), against="gated")
    with pytest.raises(ValueError, match=r"found: on none of digits, clothes, blind sums was the merge held against"):
        gains(made(merge=False))
