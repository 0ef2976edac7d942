"""An audit drawn: what becomes of the prediction as pictures are taken apart and put together."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from grafeat.explanations.verdict import Audit
from grafeat.plots.palette import HAIRLINE, INK, SECOND_INK, styled
from grafeat.plots.panels import panel_figure, place, shorten, title

SOLID, DASHED = (0.0, ()), (0.0, (4.0, 2.0))
LINES = {"own": (INK, SOLID, 2.2), "inverse": ("#E08214", SOLID, 1.6), "random": ("#8A8A8A", DASHED, 1.6)}
SIDES: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "right")
SAID = {"own": "its own order", "inverse": "that order turned round", "random": "random order"}
SIDE, GAP, LEFT, TOP, LEVEL = 1.7, 0.3, 0.75, 1.2, 2.4


@styled
def audit_curves(audit: Audit, *, methods: Sequence[str] | None = None) -> Figure:
    """Draws the mean score as cells are deleted (above) and inserted (below), a column for each method.

    A good explanation falls faster than random order when what it ranks first is deleted, and rises faster when that
    is inserted.

    Args:
        audit: What `gf.audit` gave.
        methods: Which methods, from left to right; all if absent.

    Returns:
        The figure.

    Raises:
        ValueError: If a method was not audited.
    """
    shown = list(audit.curves) if methods is None else list(methods)
    for name in shown:
        if name not in audit.curves:
            raise ValueError(
                f"methods: got {name!r}; this audit is of {', '.join(audit.curves)}; use some of them"
            )
    across = max(6.2, LEFT + len(shown) * (SIDE + GAP) + 0.1)
    figure = panel_figure(across, TOP + LEVEL + SIDE + 0.6)
    heights = [
        h for name in shown for way in audit.curves[name].values() for line in way.values() for h in line
    ]
    limits = min(-0.25, *heights), max(1.15, *heights)
    for column, name in enumerate(shown):
        for row, way in enumerate(("deletion", "insertion")):
            ax = place(figure, LEFT + column * (SIDE + GAP), TOP + row * LEVEL, SIDE, SIDE)
            _draw(ax, audit.curves[name][way], limits, first=column == 0)
            ax.set_title(
                shorten(name, 72 * SIDE, size=9.5, weight="bold") if row == 0 else "", pad=8, size=9.5
            )
            ax.set_xlabel(f"cells {'deleted' if row == 0 else 'inserted'}", size=9)
    _legend(figure)
    said = f"mean over {len(audit.target):,} pictures; 1 is all of the logit's change"
    title(figure, [("What becomes of the prediction", INK, "bold")], [(said, SECOND_INK)])
    return figure


def _draw(ax: Axes, curves: Mapping[str, list[float]], limits: tuple[float, float], *, first: bool) -> None:
    steps = np.linspace(0, 1, len(curves["own"]))
    own, random = np.array(curves["own"]), np.array(curves["random"])
    ax.fill_between(steps, own, random, color=INK, alpha=0.08, linewidth=0)
    for name in ("random", "inverse", "own"):
        colour, dashes, width = LINES[name]
        ax.plot(steps, curves[name], color=colour, linestyle=dashes, linewidth=width)
    ax.axhline(0, color=HAIRLINE, linewidth=0.8, zorder=0)
    ax.axhline(1, color=HAIRLINE, linewidth=0.8, zorder=0)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylim=limits)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for label, side in zip(ax.get_xticklabels(), SIDES, strict=True):
        label.set_horizontalalignment(side)  # else those of two panels touch
    ax.set_yticks([0, 0.5, 1])
    if first:
        ax.set_ylabel("share of the logit's change", size=9)
    else:
        ax.set_yticklabels([])


def _legend(figure: Figure) -> None:
    across, down = figure.get_size_inches()
    left = LEFT
    for name, said in SAID.items():
        colour, dashes, width = LINES[name]
        y = 1 - 0.76 / down
        ends = [left / across, (left + 0.3) / across]
        figure.add_artist(Line2D(ends, [y, y], color=colour, linestyle=dashes, linewidth=width))
        figure.text((left + 0.37) / across, y, said, size=9, color=SECOND_INK, va="center")
        left += 0.65 + 0.075 * len(said)
