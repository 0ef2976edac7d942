"""Curves, comparisons and confusions hold the numbers passed."""

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.offsetbox import TextArea
from sklearn.metrics import confusion_matrix

from grafeat.plots.heatmaps import heat_of
from grafeat.plots.palette import fixed_colour
from grafeat.plots.training import confusion, training_curves, with_intervals
from grafeat.runs import Epoch, History

EPOCHS = tuple(Epoch(2.0 / (e + 1), 1.5 / (e + 1), 0.5 + 0.1 * e, 0.01 * (3 - e)) for e in range(3))
NAMES = ["small_cnn", "averaged logits", "GraFeat-Merge"]
MEANS = [0.91, 0.955, 0.96]
INTERVALS = [(0.9, 0.92), (0.944, 0.966), (0.95, 0.969)]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_curves_are_the_history() -> None:
    loss, accuracy, rate = training_curves(History(EPOCHS, 1, 2.5)).axes
    curves = {line.get_label(): line for line in loss.lines}
    np.testing.assert_allclose(curves["training"].get_xydata(), [[1, 2.0], [2, 1.0], [3, 2 / 3]])
    np.testing.assert_allclose(curves["validation"].get_ydata(), [1.5, 0.75, 0.5])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [0.5, 0.6, 0.7])
    np.testing.assert_allclose(rate.lines[0].get_ydata(), [0.03, 0.02, 0.01])


def test_the_kept_epoch_is_marked_and_said() -> None:
    figure = training_curves(History(EPOCHS, 1, 2.5))
    marks = [line for line in figure.axes[0].lines if line.get_label() == "_kept"]
    assert [tuple(line.get_xydata()[0]) for line in marks] == [(2, 1.0), (2, 0.75)]
    texts = [area.get_text() for area in figure.findobj(TextArea)]
    assert "kept epoch 2 of 3 · validation accuracy 60.0%" in texts


def test_without_validation_its_curves_are_left_out() -> None:
    bare = tuple(Epoch(epoch.train_loss, None, None, epoch.learning_rate) for epoch in EPOCHS)
    figure = training_curves(History(bare, 2, 2.5))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["loss (nats)", "learning rate"]
    assert "kept epoch 3 of 3" in [area.get_text() for area in figure.findobj(TextArea)]


def test_a_history_without_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="history: got no epochs"):
        training_curves(History((), 0, 0.0))
    with pytest.raises(ValueError, match=r"history: got that of a committee; .* draw history\.members\['vit'\]"):
        training_curves(History((), -1, 0.0, {"vit": History(EPOCHS, 2, 1.0)}))


def test_methods_are_compared_in_the_order_given() -> None:
    ax = with_intervals(
        NAMES,
        MEANS,
        INTERVALS,
        quantity="accuracy, 500 labels",
        reference="small_cnn",
        highlight="GraFeat-Merge",
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == NAMES
    assert [label.get_weight() for label in ax.get_yticklabels()] == ["normal", "normal", "bold"]
    reference, *drawn = ax.lines
    assert list(reference.get_xdata()) == [0.91, 0.91]
    for row, (interval, mean) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
        np.testing.assert_allclose(
            interval.get_xydata(), [[INTERVALS[row][0], row], [INTERVALS[row][1], row]]
        )
        np.testing.assert_allclose(mean.get_xydata(), [[MEANS[row], row]])
    assert [text.get_text() for text in ax.texts][1] == "95.5 (94.4–96.6)"
    assert ax.get_title(loc="left") == "accuracy, 500 labels"
    assert drawn[1].get_color() == fixed_colour("small_cnn").mark != drawn[3].get_color()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


def test_numbers_that_are_no_shares() -> None:
    ax = with_intervals(["a"], [1.25], [(1.0, 1.5)], quantity="seconds", percent=False)
    assert [text.get_text() for text in ax.texts] == ["1.2 (1–1.5)"]


@pytest.mark.parametrize(
    ("names", "means", "intervals", "message"),
    [
        ([], [], [], "names, means, intervals: got 0, 0 and 0"),
        (["a"], [0.1, 0.2], [(0.0, 1.0)], "names, means, intervals: got 1, 2 and 1"),
        (["a"], [0.5], [(0.6, 0.7)], "intervals: that of 'a', 0.6 to 0.7, does not hold its mean 0.5"),
    ],
)
def test_bad_comparisons_are_named(names: list, means: list, intervals: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_intervals(names, means, intervals)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(ValueError, match="reference: got 'mean'; expected one of small_cnn"):
        with_intervals(NAMES, MEANS, INTERVALS, reference="mean")
    with pytest.raises(ValueError, match="highlight: got 'mean'"):
        with_intervals(NAMES, MEANS, INTERVALS, highlight="mean")


def test_confusions_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, predictions = (torch.randint(5, (37,), generator=generator) for _ in range(2))
    labels[labels == 3] = 2  # a class without pictures
    expected = confusion_matrix(labels, predictions, labels=range(5))
    ax = confusion(labels, predictions, ["a", "bee", "sea", "a very long name of a class", "e"])
    shares = expected / np.maximum(expected.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(heat_of(ax).get_array(), shares, rtol=1e-6)
    printed = {
        (round(t.get_position()[1] - 0.5), round(t.get_position()[0] - 0.5)): t.get_text() for t in ax.texts
    }
    assert printed == {
        (int(i), int(j)): str(expected[i, j]) for i, j in zip(*expected.nonzero(), strict=True)
    }
    assert ax.get_title(loc="left") == f"{expected.trace()} of 37 pictures right"
    assert heat_of(ax).get_clim() == (0, 1)


def test_bad_confusions_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels, predictions: got shapes \(3,\) and \(2,\)"):
        confusion(torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), ["a"])
    with pytest.raises(ValueError, match="labels, predictions: got class 2; classes= names 2, 0 to 1"):
        confusion(torch.tensor([0, 1]), torch.tensor([2, 1]), ["a", "b"])


def test_given_axes_are_used_and_settings_stay() -> None:
    before = dict(mpl.rcParams)
    left, right = plt.figure().subplots(1, 2)
    assert with_intervals(NAMES, MEANS, INTERVALS, left) is left
    assert confusion(torch.tensor([0, 1]), torch.tensor([1, 1]), ["a", "b"], right) is right
    training_curves(History(EPOCHS, 1, 2.5))
    assert dict(mpl.rcParams) == before
