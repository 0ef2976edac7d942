"""A comparison drawn: every contender's figure on each task, and what merging gains over the best other way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from grafeat.lab.comparison import Comparison
from grafeat.lab.said import difference, figure
from grafeat.plots.palette import DIVERGING_ENDS, HAIRLINE, INK, SECOND_INK, styled
from grafeat.plots.panels import inches, panel_figure, place, shorten, text_width, title

ACCENT, GREY = "#1565C0", "#8A8A8A"
INKS = {"merge": ACCENT, "way": INK, "control": GREY}
ROW, GAP = 0.235, 0.2  # inches of a row, and between rivals and controls
TOP, HEAD, FOOT = 0.95, 0.34, 0.62  # inches above all panels, of a panel's title, and below its rows
ACROSS, NAMES = (3.0, 2.15), 1.9  # inches of the axes of one panel, and of two side by side; the most for names
GAINS, LINE, NUMBERS, RIVALS = 3.4, 0.3, 2.0, 1.45  # inches of the gains' axes, of a row, and of the columns beside
AGAINST = {
    "best rival": "the best other way, chosen on validation",
    "best outsider": "the best way of another design, chosen on validation",
    "concat": "concat",
    "ensemble": "ensemble",
}
Row = Mapping[str, Any]


@styled
def comparison(found: Comparison, *, tasks: str | Sequence[str] | None = None) -> Figure:
    """Draws the contenders of each task below each other, best first, each mean with its 95% interval.

    The merge is blue and its mean goes through as a line; a diamond is its best rival, the way that was best on
    validation; the controls, which explain and are no rivals, stand below in grey.

    Args:
        found: What `gf.compare` gave.
        tasks: Which of its tasks, from left to right; all if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such task, or none is asked for.
    """
    shown = found.tasks if tasks is None else [tasks] if isinstance(tasks, str) else list(tasks)
    if not shown:
        raise ValueError(f"tasks: got none; expected some of {', '.join(found.tasks)}; leave it out for all")
    rows = [_ordered(found, task) for task in shown]
    columns = min(2, len(rows))
    left = 0.3 + min(NAMES, max(text_width(row["contender"], 9) / 72 for some in rows for row in some))
    side = ACROSS[columns - 1]
    wide = left + side + (1.3 if columns == 1 else 0.55)
    lines = [rows[at : at + columns] for at in range(0, len(rows), columns)]
    heights = [max(_height(some) for some in line) for line in lines]
    said = f"means with 95% intervals over seeds {rows[0][0]['seeds']} and pictures, drawn anew together"
    across = max(columns * wide + 0.1, 0.4 + text_width(said, 10) / 72)
    drawn = panel_figure(across, TOP + sum(HEAD + height + FOOT for height in heights) - 0.12)
    for number, task in enumerate(shown):
        line, column = divmod(number, columns)
        above = TOP + HEAD + sum(HEAD + height + FOOT for height in heights[:line])
        ax = place(drawn, column * wide + left, above, side, _height(rows[number]))
        _draw_contenders(ax, rows[number], ends=columns == 1)
        ax.set_title(shorten(task, 72 * (wide - 0.2), size=11, weight="bold"), x=(0.12 - left) / side, pad=9)
    title(drawn, [("Does merging pay?", INK, "bold")], [(said, SECOND_INK)])
    _legend(drawn, any(row["kind"] == "control" for some in rows for row in some))
    return drawn


@styled
def contenders(found: Comparison, task: str, ax: Axes | None = None) -> Axes:
    """Draws the contenders of one task; see `comparison`.

    Args:
        found: What `gf.compare` gave.
        task: The task.
        ax: Where to draw; a new figure if absent.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no such task.
    """
    rows = _ordered(found, task)
    if ax is None:
        left = 0.3 + min(2.4, max(text_width(row["contender"], 9) / 72 for row in rows))
        drawn = panel_figure(left + ACROSS[0] + 1.4, 0.5 + _height(rows) + FOOT)
        ax = place(drawn, left, 0.5, ACROSS[0], _height(rows))
    _draw_contenders(ax, rows, ends=True)
    room = 72 * (inches(ax)[2] + 1.3)
    ax.set_title(shorten(f"{task}: {rows[0]['measure']}, 95% intervals", room, size=11, weight="bold"), pad=9)
    return ax


@styled
def gains(found: Comparison, ax: Axes | None = None, *, against: str = "best rival") -> Axes:
    """Draws for each task how many points merging gains over another way, with its paired 95% interval.

    Filled dots mean that the interval excludes 0: blue above, orange below. Where a few gains are far larger than the
    others, the scale is logarithmic beyond one point, and says so.

    Args:
        found: What `gf.compare` gave.
        ax: Where to draw; a new figure if absent.
        against: `best rival`, the way that was best on validation, by default; `best outsider`, the same without those
            that are the merge with one part changed; or `concat` or `ensemble`.

    Returns:
        The axes.

    Raises:
        ValueError: If `against` is another, or the merge was held against it on no task.
    """
    rows = _merges(found, against)
    names = [shorten(row["task"], 190, size=10) for row in rows]
    if ax is None:
        left = 0.3 + max(text_width(name, 10) for name in names) / 72
        beside = NUMBERS + (RIVALS if against in rows[0] else 0)
        drawn = panel_figure(left + GAINS + beside, TOP + LINE * len(rows) + FOOT)
        ax = place(drawn, left, TOP, GAINS, LINE * len(rows))
        said = f"over {AGAINST[against]}, with paired 95% intervals"
        title(drawn, [("What merging gains", INK, "bold")], [(said, SECOND_INK)])
    for at, row in enumerate(rows):
        _draw_gain(ax, at, row, against)
    _say(ax, -0.95, "points (95%)", size=9, color=SECOND_INK)
    if against in rows[0]:
        _say(ax, -0.95, "over", second=True, size=9, color=SECOND_INK)
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    _rows_of(ax, range(len(rows)), names, 10)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    _scale(ax, [100 * row[f"to {against}{end}"] for row in rows for end in (" low", " high")])
    return ax


def _ordered(found: Comparison, task: str) -> list[Row]:
    """Rivals and the merge, best first, then the controls, best first."""
    rows: list[Row] = found.of(task).to_dict("records")
    return sorted(rows, key=lambda row: row["kind"] == "control")


def _heights(rows: Sequence[Row]) -> list[float]:
    """Where each row is drawn, in rows from the top; controls a little further down."""
    return [at + (GAP / ROW if row["kind"] == "control" else 0) for at, row in enumerate(rows)]


def _height(rows: Sequence[Row]) -> float:
    return ROW * (_heights(rows)[-1] + 1)


def _draw_contenders(ax: Axes, rows: Sequence[Row], *, ends: bool) -> None:
    at = _heights(rows)
    for y, row in zip(at, rows, strict=True):
        ink = INKS[row["kind"]]
        ax.plot([row["low"], row["high"]], [y, y], color=ink, linewidth=1.6, solid_capstyle="butt", alpha=0.75)
        mark = "D" if row["contender"] == row["best rival"] else "o"
        ax.plot(row["mean"], y, mark, ms=5.4 if mark == "D" else 6.2, color=ink, mec="white", mew=0.8, zorder=3)
        said = figure(row) if ends else f"{100 * row['mean']:.1f}"
        weight = "bold" if row["kind"] == "merge" else "normal"
        _say(ax, y, said, size=8.5, color=SECOND_INK if row["kind"] == "control" else ink, weight=weight)
    for row in rows:
        if row["kind"] == "merge":
            ax.axvline(row["mean"], color=ACCENT, linewidth=0.9, alpha=0.35, zorder=0)
    _rows_of(ax, at, [shorten(row["contender"], 72 * NAMES, size=9) for row in rows], 9)
    for label, row in zip(ax.get_yticklabels(), rows, strict=True):
        ink = SECOND_INK if row["kind"] == "control" else INKS[row["kind"]]
        label.set(color=ink, weight="bold" if row["kind"] == "merge" else "normal")
    ax.set_ylim(at[-1] + 0.6, -0.6)
    ax.margins(x=0.05)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    ax.set_xlabel(f"{rows[0]['measure']}, %", size=9)


def _draw_gain(ax: Axes, at: int, row: Row, against: str) -> None:
    value, low, high = (100 * row[f"to {against}{end}"] for end in ("", " low", " high"))
    sure = low > 0 or high < 0
    ink = ACCENT if low > 0 else DIVERGING_ENDS[1] if high < 0 else SECOND_INK
    ax.plot([low, high], [at, at], color=ink, linewidth=2, solid_capstyle="butt", zorder=2)
    ax.plot(value, at, "o", ms=7, mfc=ink if sure else "white", mec=ink, mew=1.4, zorder=3)
    _say(ax, at, difference(row, against), size=9.5, color=INK, weight="bold" if sure else "normal")
    if against in row:
        _say(ax, at, shorten(row[against], 72 * RIVALS - 12, size=9), second=True, size=9, color=SECOND_INK)


def _say(
    ax: Axes, at: float, text: str, *, size: float, color: str, second: bool = False, weight: str = "normal"
) -> None:
    """Writes into the first or second column beside the axes."""
    aside = 12 + (72 * NUMBERS if second else 0)
    ax.annotate(
        text,
        (1, at),
        xycoords=("axes fraction", "data"),
        xytext=(aside, 0),
        textcoords="offset points",
        va="center",
        size=size,
        color=color,
        weight=weight,
        annotation_clip=False,
    )


def _merges(found: Comparison, against: str) -> list[Row]:
    if against not in AGAINST:
        raise ValueError(f"against: got {against!r}; expected one of {', '.join(AGAINST)}; leave it out")
    records: list[Row] = found.rows[found.rows["kind"] == "merge"].to_dict("records")
    rows = [row for row in records if not math.isnan(row[f"to {against}"])]
    if not rows:
        raise ValueError(
            f"found: on none of {', '.join(found.tasks)} was the merge held against {against!r}; expected rows of "
            "both; compare them"
        )
    return rows


def _rows_of(ax: Axes, at: Sequence[float], names: Sequence[str], size: float) -> None:
    ax.set_yticks(at, labels=list(names))
    for label in ax.get_yticklabels():
        label.set(color=INK, size=size)
    ax.tick_params(axis="y", length=0, pad=6)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.grid(axis="x", color=HAIRLINE, linewidth=0.6, alpha=0.7)


def _scale(ax: Axes, ends: Sequence[float]) -> None:
    """Points on a line; beyond one point their logarithm, where otherwise most intervals could not be seen."""
    sizes = sorted(map(abs, ends))
    far = sizes[-1] > 10 * max(1.0, sizes[len(sizes) // 2])
    if far:
        ax.set_xscale("symlog", linthresh=1, linscale=0.6)
        steps = (1, 3, 10, 30, 100)
        below = [-step for step in reversed(steps) if -step >= 1.5 * min(0.0, *ends)]
        above = [step for step in steps if step <= 1.5 * max(0.0, *ends)]
        ax.set_xlim(min(-1.0, 1.5 * min(ends)), max(1.0, 1.5 * max(ends)))
        ax.xaxis.set_major_locator(FixedLocator([*below, 0, *above]))
        ax.minorticks_off()
    else:
        ax.margins(x=0.06)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−").replace("+0", "0")))
    ax.set_xlabel("points, logarithmic beyond ±1" if far else "points", size=9)


def _legend(drawn: Figure, controlled: bool) -> None:
    across, down = drawn.get_size_inches()
    marks = [("o", ACCENT, "the merge"), ("D", INK, "its best rival on validation"), ("o", INK, "other ways")]
    marks += [("o", GREY, "controls")] if controlled else []
    left = 0.18
    for mark, ink, said in marks:
        y = 1 - 0.76 / down
        drawn.add_artist(Line2D([left / across], [y], marker=mark, ms=6, color=ink, linestyle="none"))
        drawn.text((left + 0.12) / across, y, said, size=9, color=SECOND_INK, va="center")
        left += 0.4 + text_width(said, 9) / 72
