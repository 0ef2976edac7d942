"""Scales end where the weights do, or where they are told to; ticks stand at round values and do not touch."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from grafeat.grids import WHOLE
from grafeat.plots.palette import SECOND, backbone_colours
from grafeat.plots.panels import text_width
from grafeat.plots.rows import AttentionRow
from grafeat.plots.scales import TICK, Scale, _ticks, attention_bar, scales_of, uniform_marks

NAN = float("nan")


def row(kind: str, weights: list[float], equal: float, name: str = "a") -> AttentionRow:
    return AttentionRow(kind, name, torch.tensor([weights]), equal, WHOLE)  # type: ignore[arg-type]


ROWS = (
    row("intra", [0.5, 0.3, 0.2], 1 / 3),
    row("cross", [0.4, NAN], 0.25, "b"),
    row("cross", [0.1], 0.5, "c"),
)


def test_scales_by_hand() -> None:
    scales = scales_of(ROWS)
    assert scales["intra"].limits == (0, pytest.approx(0.5)) and scales["cross"].limits == (
        0,
        pytest.approx(0.4),
    )
    log = scales_of(ROWS, log=True)
    assert log["intra"].limits == (pytest.approx(1 / 30), pytest.approx(0.5))
    assert log["cross"].limits == (pytest.approx(0.025), pytest.approx(0.4))
    together = scales_of(ROWS, relative=True)
    assert together["intra"] is together["cross"] and together["intra"].limits == (0, pytest.approx(1.6))
    assert scales_of(ROWS, relative=True, log=True)["cross"].limits == (
        pytest.approx(0.1),
        pytest.approx(1.6),
    )


def test_given_limits_hold_and_know_what_lies_beyond() -> None:
    scales = scales_of(ROWS, limits={"intra": (0.25, 0.6), "cross": (0.0, 0.3)})
    assert scales["intra"] == Scale(0.25, 0.6, below=True) and scales["cross"] == Scale(0.0, 0.3, above=True)
    assert scales["intra"].ends == ("≤ 0.25", "0.60") and scales["cross"].ends == ("0", "≥ 0.30")
    both = scales_of(ROWS, relative=True, limits={"intra": (0.5, 1.0), "cross": (0.7, 2.0)})
    assert both["intra"].limits == (0.5, 2.0)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [NAN, NAN]])
@pytest.mark.parametrize("log", [False, True])
def test_without_anything_to_see_the_scale_ends_at_uniform(weights: list[float], log: bool) -> None:
    scale = scales_of([row("intra", weights, 0.5)], log=log)["intra"]
    assert scale.limits == (0.05 if log else 0.0, 0.5) and not scale.above


def test_bad_limits_are_named(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"limits: got \(0.4, 0.2\) for intra; expected two numbers"):
        scales_of(ROWS, limits={"intra": (0.4, 0.2)})
    with pytest.raises(ValueError, match=r"limits: got \(0.0, nan\) for cross; expected two numbers"):
        scales_of(ROWS, limits={"cross": (0.0, NAN)})
    with pytest.raises(ValueError, match="limits: got the kind 'self'; expected 'intra', 'cross' or both"):
        scales_of(ROWS, limits={"self": (0.0, 1.0)})  # type: ignore[dict-item]


def test_colours_are_even_steps_of_the_logarithm() -> None:
    scale = Scale(0.01, 1.0, log=True)
    assert [scale.share(value) for value in (0.01, 0.1, 1.0)] == pytest.approx([0, 0.5, 1])
    assert [float(scale.norm(value)) for value in (0.0, 0.01, 0.1, 1.0, 9.0)] == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )
    assert Scale(0.2, 0.6).share(0.3) == pytest.approx(0.25) == float(Scale(0.2, 0.6).norm(0.3))


def test_ticks_by_hand() -> None:
    below = _ticks(Scale(0.0005, 0.5, True, below=True), 400)
    assert [said for _, said in below] == ["≤ 0.00050", "0.01", "0.1", "0.50"]
    assert [said for _, said in _ticks(Scale(0.1, 30.0, True), 400)] == ["0.10", "1", "10", "30"]
    assert [said for _, said in _ticks(Scale(0.1, 0.9, True), 200)] == ["0.10", "0.2", "0.5", "0.90"]
    assert [said for _, said in _ticks(Scale(1e-7, 1e-4, True), 400)][1:3] == ["10⁻⁶", "10⁻⁵"]


@given(st.floats(1e-9, 1), st.floats(1.05, 1e6), st.floats(120, 700))
def test_ticks_never_touch(low: float, times: float, width: float) -> None:
    scale = Scale(low, low * times, True)
    (_, first), *between, (_, last) = _ticks(scale, width)
    edges = [(0.0, text_width(first, TICK))]
    for value, said in between:
        half = text_width(said, TICK) / 2
        edges.append((width * scale.share(value) - half, width * scale.share(value) + half))
    edges.append((width - text_width(last, TICK), width))
    if between:
        assert all(right < left for (_, right), (left, _) in pairwise(edges))


def test_one_uniform_weight_for_all_is_one_mark() -> None:
    colours = backbone_colours("abc")
    assert uniform_marks(ROWS[1:], colours) == [(0.25, colours["b"]), (0.5, colours["c"])]
    assert uniform_marks(ROWS[:1], colours) == [(1 / 3, colours["a"])]
    same = [row("cross", [0.1], 0.25, "b"), row("cross", [0.1], 0.25 + 1e-9, "c")]
    assert uniform_marks(same, colours) == [(0.25, SECOND)]


def test_marks_of_a_logarithmic_bar_lie_at_their_values() -> None:
    figure, (ax, cax) = plt.subplots(2)
    scale, colours = Scale(0.01, 1.0, True), backbone_colours("abc")
    shown = ax.imshow([[0.1, 0.2]], norm=scale.norm)
    attention_bar(cax, shown, scale, "weight", [(0.1, colours["a"]), (0.001, colours["b"])])
    (mark,) = cax.lines  # the other lies beyond the end: it is only written
    assert list(mark.get_xdata()) == [0.1] and cax.get_xscale() == "log"
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"weight, log", "▼ uniform", "0.10", "0.0010"} <= set(texts)
    plt.close(figure)
