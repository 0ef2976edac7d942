"""Training and its results drawn: learning curves, means with intervals, confusions between classes."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from grafeat.plots.heatmaps import draw_values
from grafeat.plots.palette import HAIRLINE, INK, SECOND_INK, fixed_colour, styled
from grafeat.plots.panels import (
    bar_below,
    colour_bar,
    number,
    own_axes,
    panel_figure,
    place,
    text_width,
    title,
)
from grafeat.plots.pictures import canvas
from grafeat.runs import History

TRAIN, VAL, LINE = "#6B6B6B", "#1565C0", 1.8


@styled
def training_curves(history: History) -> Figure:
    """Draws the losses, the validation accuracy and the learning rate over the epochs, and marks the epoch kept.

    Args:
        history: What `fit` gave. Without validation pictures their curves are left out.

    Returns:
        The figure.

    Raises:
        ValueError: If the history has no epochs, or is a committee's.
    """
    if history.members:
        first = next(iter(history.members))
        raise ValueError(
            f"history: got that of a committee; expected that of one model; draw history.members[{first!r}]"
        )
    if not history.epochs:
        raise ValueError(
            "history: got no epochs; expected at least one; train with fit(model, grids, epochs=…)"
        )
    rows = history.epochs
    validated = rows[0].val_loss is not None
    widths = [3.1, 2.6, 1.5] if validated else [3.1, 1.5]
    figure = panel_figure(sum(widths) + 0.68 * len(widths) + 0.2, 3.65)
    lefts = [0.62 + sum(widths[:i]) + 0.68 * i for i in range(len(widths))]
    axes = [place(figure, left, 1.15, width, 1.95) for left, width in zip(lefts, widths, strict=True)]
    epochs = np.arange(1, len(rows) + 1)
    _curve(axes[0], epochs, [row.train_loss for row in rows], "training", TRAIN)
    if validated:
        _curve(axes[0], epochs, [row.val_loss for row in rows], "validation", VAL)
        _curve(axes[1], epochs, [row.val_accuracy for row in rows], "", VAL)
        axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _curve(axes[-1], epochs, [row.learning_rate for row in rows], "", TRAIN)
    names = ["loss (nats)", *(["validation accuracy"] if validated else []), "learning rate"]
    for ax, name in zip(axes, names, strict=True):
        _finish(ax, name, history.best + 1)
    kept = rows[history.best]
    said = f"kept epoch {history.best + 1} of {len(rows)}"
    said += f" · validation accuracy {kept.val_accuracy:.1%}" if kept.val_accuracy is not None else ""
    title(figure, [("Training", INK, "bold")], [(said, SECOND_INK)])
    return figure


@styled
def with_intervals(
    names: Sequence[str],
    means: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    ax: Axes | None = None,
    *,
    quantity: str = "accuracy",
    percent: bool = True,
    reference: str | None = None,
    highlight: str | None = None,
) -> Axes:
    """Draws methods below each other, each with its mean as a dot and its interval as a line.

    Args:
        names: The methods, in the order drawn; a backbone's name has the backbone's colour.
        means: The mean of each method.
        intervals: The interval (low, high) around each mean.
        ax: Where to draw; a new figure if absent.
        quantity: What is compared, with how the intervals were got: it is the title.
        percent: Whether the numbers are shares in [0, 1], printed as per cent.
        reference: The method from whose mean a line is drawn down, to compare with.
        highlight: The method printed in bold.

    Returns:
        The axes.

    Raises:
        ValueError: If the lists differ in length or are empty, an interval does not hold its mean, or `reference` or
            `highlight` is no name.
    """
    _check_comparison(names, means, intervals, reference, highlight)
    ax = ax or _comparison_axes(names)
    at = range(len(names))
    marks = [_method_colour(name, bold=name == highlight) for name in names]
    if reference is not None:
        ax.axvline(means[list(names).index(reference)], color=HAIRLINE, linewidth=1.2, zorder=0)
    for row, mean, (low, high), mark in zip(at, means, intervals, marks, strict=True):
        ax.plot([low, high], [row, row], color=mark, linewidth=2.2, solid_capstyle="butt", alpha=0.75)
        ax.plot([mean], [row], marker="o", markersize=7.5, color=mark, markeredgecolor="white")
        ax.annotate(
            f"{_printed(mean, percent)} ({_printed(low, percent)}–{_printed(high, percent)})",
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            size=9.5,
            weight="bold" if names[row] == highlight else "normal",
        )
    ax.set_yticks(at, labels=list(names))
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set(color=INK, size=10, weight="bold" if name == highlight else "normal")
    ax.set(ylim=(len(names) - 0.5, -0.5))
    ax.margins(x=0.06)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.tick_params(axis="y", length=0, pad=8)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="x", color=HAIRLINE, linewidth=0.6, alpha=0.7)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.set_title(quantity, loc="left", pad=10)
    return ax


@styled
def confusion(labels: Tensor, predictions: Tensor, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draws how often pictures of each true class (rows) were taken for each class (columns).

    Colours are shares of the true class, the printed numbers are counts.

    Args:
        labels: True class numbers (b,).
        predictions: Predicted class numbers (b,).
        classes: Names of the t classes.
        ax: Where to draw; a new figure if absent.

    Returns:
        The axes.

    Raises:
        ValueError: If labels and predictions differ in number, or one is out of range.
    """
    size = len(classes)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(
            f"labels, predictions: got shapes {tuple(labels.shape)} and {tuple(predictions.shape)}; expected (b,) "
            "twice; take both from one Evaluation"
        )
    both = torch.stack([labels, predictions]).cpu()
    if both.numel() and not (int(both.min()) >= 0 and int(both.max()) < size):
        raise ValueError(
            f"labels, predictions: got class {int(both.max())}; classes= names {size}, 0 to {size - 1}"
        )
    counts = torch.bincount(both[0] * size + both[1], minlength=size**2).view(size, size)
    longest = max(text_width(name, 9) for name in classes) / 72
    upright = longest < 0.9 * 3.4 / size  # else the names would run into each other
    room = 0.75 + (0.0 if upright else 0.65 * longest)
    ax = canvas(own_axes(ax, 1.0, left=0.5 + longest, foot=room + 0.3), (size, size))
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    shown = draw_values(ax, shares, (0, 0, size, size), (0.0, 1.0))
    for row, column in counts.nonzero().tolist():
        ink = "white" if shares[row, column] < 0.55 else INK
        ax.text(
            column + 0.5, row + 0.5, f"{counts[row, column]:,}", color=ink, ha="center", va="center", size=9
        )
    middles = np.arange(size) + 0.5
    ax.set_xticks(middles, labels=list(classes))
    ax.set_yticks(middles, labels=list(classes))
    if not upright:
        for label in ax.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.set_title(f"{int(counts.diag().sum()):,} of {len(labels):,} pictures right", loc="left", pad=10)
    colour_bar(bar_below(ax, drop=room + 0.2), shown, "share of the true class")
    return ax


def _curve(ax: Axes, epochs: np.ndarray, values: Sequence[float | None], name: str, colour: str) -> None:
    ax.plot(epochs, np.array(values, dtype=float), color=colour, label=name, linewidth=LINE)


def _finish(ax: Axes, name: str, kept: int) -> None:
    """Names a panel, and marks the kept epoch on each of its curves."""
    ax.set_title(name, loc="left", weight="normal", size=10, color=INK, pad=22)
    ax.axvline(kept, color=HAIRLINE, linewidth=1.2, zorder=0)
    for curve in ax.get_lines()[:-1]:
        x, y = (np.asarray(data) for data in curve.get_data())
        ax.plot(x[x == kept], y[x == kept], "o", markersize=5, color=curve.get_color(), label="_kept")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    named = [
        curve for curve in ax.get_lines() if curve.get_label() and not str(curve.get_label()).startswith("_")
    ]
    if named:
        ax.legend(
            named,
            [str(c.get_label()) for c in named],
            loc="lower left",
            bbox_to_anchor=(0, 0.98),
            ncols=2,
            frameon=False,
            handlelength=1.2,
            borderaxespad=0,
            fontsize=9.5,
            labelcolor="linecolor",
        )


def _check_comparison(
    names: Sequence[str],
    means: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    reference: str | None,
    highlight: str | None,
) -> None:
    if not names or not len(names) == len(means) == len(intervals):
        raise ValueError(
            f"names, means, intervals: got {len(names)}, {len(means)} and {len(intervals)}; expected one of each for "
            "every method"
        )
    for name, mean, (low, high) in zip(names, means, intervals, strict=True):
        if not low <= mean <= high:
            raise ValueError(
                f"intervals: that of {name!r}, {low} to {high}, does not hold its mean {mean}; give (low, high)"
            )
    for argument, chosen in (("reference", reference), ("highlight", highlight)):
        if chosen is not None and chosen not in names:
            raise ValueError(f"{argument}: got {chosen!r}; expected one of {', '.join(names)}")


def _comparison_axes(names: Sequence[str]) -> Axes:
    left = 0.3 + max(text_width(name, 10, "bold") for name in names) / 72
    height = 0.34 * len(names) + 0.1
    figure = panel_figure(left + 4.2 + 1.75, height + 1.0)
    return place(figure, left, 0.5, 4.2, height)


def _method_colour(name: str, *, bold: bool) -> str:
    at_home = fixed_colour(name)
    return at_home.mark if at_home else INK if bold else TRAIN


def _printed(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}" if percent else number(value)
