"""A report of dominance drawn: values, shares beside routing, and what is lost when something is knocked out."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from grafeat.attention.captured import KINDS
from grafeat.explanations.report import Dominance
from grafeat.plots.palette import DIVERGING_ENDS, HAIRLINE, INK, SECOND_INK, backbone_colours, styled
from grafeat.plots.panels import panel_figure, place, shorten, text_width, title
from grafeat.plots.pictures import Colours

ROW, THIN, BAR = (
    0.36,
    0.23,
    0.66,
)  # inches of a backbone's row, and of a knock-out's; height of a bar, of a row
MOST = 8  # knock-outs shown
TOP, FOOT = 0.95, 0.42  # inches above the panels and below the longest


@styled
def dominance_figure(report: Dominance, *, colours: Colours | None = None) -> Figure:
    """Draws a report: what each backbone is worth, its share beside its routing, and the effects of knock-outs.

    Args:
        report: What `dominance` gave.
        colours: Each backbone's colour, by name; decided by the names if absent.

    Returns:
        The figure.
    """
    colours = colours or backbone_colours(report.names)
    effects = _largest(report)
    names = [shorten(name, 126, size=10) for name in report.names]
    left = 0.3 + max(text_width(name, 10) for name in names) / 72
    knocked = 0.25 + max((text_width(name, 9) for name, *_ in effects), default=0) / 72
    value, share, change = left, left + 2.1 + 0.4, left + 2.5 + 1.5 + 0.55 + knocked
    tall, long = max(0.7, ROW * len(names)), THIN * len(effects)
    figure = panel_figure(change + 2.0 if effects else share + 2.2, TOP + max(tall + 0.3, long) + FOOT)
    _values(place(figure, value, TOP, 2.1, tall), report, colours, names)
    masses = _readout_masses(report)
    _shares(place(figure, share, TOP, 1.5, tall), report, colours, masses)
    if masses:
        _say_routing(figure, value, TOP + tall + 0.5)
    if effects:
        _effects(place(figure, change, TOP, 1.75, long), effects)
    pictures = f"{len(report.target):,} pictures, 95% intervals" if len(report.target) > 1 else "one picture"
    title(
        figure,
        [("Which backbone dominates", INK, "bold")],
        [(f"centred logit of the explained class · {pictures}", SECOND_INK)],
    )
    return figure


def _values(ax: Axes, report: Dominance, colours: Colours, names: Sequence[str]) -> None:
    for row, name in enumerate(report.names):
        value, (low, high) = report.values[name], report.value_intervals[name]
        ax.barh(row, value, height=BAR, color=colours[name].mark)
        _interval(ax, row, low, high)
        edge = max(value, 0 if math.isnan(high) else high, 0)
        _say(ax, (edge, row), f"{value:+.2f}".replace("-", "−"))
    ax.axvline(0, color=INK, linewidth=0.8)
    _rows(ax, names, "value")
    ax.margins(x=0.2)
    for label, name in zip(ax.get_yticklabels(), report.names, strict=True):
        label.set_color(colours[name].text)


def _shares(ax: Axes, report: Dominance, colours: Colours, masses: Mapping[str, float]) -> None:
    """Shares as bars; the readout's attention mass as open circles, which are no share of anything explained."""
    for row, name in enumerate(report.names):
        share = report.shares[name]
        ax.barh(row, 0 if math.isnan(share) else share, height=BAR, color=colours[name].mark)
        _interval(ax, row, *report.share_intervals[name])
        _say(ax, (1, row), "none" if math.isnan(share) else f"{share:.0%}")
        if name in masses:
            ax.plot(masses[name], row, "o", ms=7, mfc="white", mec=INK, mew=1.4, zorder=4, clip_on=False)
    _rows(ax, [], "share")
    ax.set(xlim=(0, 1), ylim=(len(report.names) - 0.5, -0.5))
    ax.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _say_routing(figure: Figure, left: float, top: float) -> None:
    across, down = figure.get_size_inches()
    mark = Line2D([(left + 0.06) / across], [1 - top / down], marker="o", ms=7, mfc="white", mec=INK, mew=1.4)
    figure.add_artist(mark)
    said = "attention mass in the readout: routing, beside the share"
    figure.text((left + 0.2) / across, 1 - top / down, said, size=9, color=SECOND_INK, va="center")


def _effects(ax: Axes, effects: Sequence[tuple[str, float, float, float]]) -> None:
    worse, better = DIVERGING_ENDS
    for row, (_, change, low, high) in enumerate(effects):
        ax.barh(row, change, height=BAR, color=worse if change < 0 else better)
        _interval(ax, row, low, high)
    ax.axvline(0, color=INK, linewidth=0.8)
    _rows(ax, [name for name, *_ in effects], "change when knocked out", size=9)
    ax.margins(x=0.1)


def _largest(report: Dominance) -> list[tuple[str, float, float, float]]:
    """The knock-outs of the largest effect, most harmful first."""
    if not report.knockouts:
        return []
    frame = report.effects()
    chosen = frame.reindex(frame["change"].abs().sort_values(ascending=False).index[:MOST]).sort_values(
        "change"
    )
    return [
        (shorten(_named(row["without"]), 180, size=9), row["change"], row["low"], row["high"])
        for row in chosen.to_dict("records")
    ]


def _named(knocked: str) -> str:
    """A knock-out's name without the word that all share."""
    name = knocked.replace(" edges", "")
    return f"all {name}" if name in KINDS else name


def _readout_masses(report: Dominance) -> dict[str, float]:
    if report.routing is None:
        return {}
    read = report.routing[report.routing["where"] == "readout"]
    return dict(zip(read["backbone"], read["mass"], strict=True))


def _interval(ax: Axes, row: int, low: float, high: float) -> None:
    if not (math.isnan(low) or math.isnan(high) or low == high):
        ax.plot([low, high], [row, row], color=INK, linewidth=1.4, solid_capstyle="butt", zorder=3)


def _say(ax: Axes, at: tuple[float, float], text: str) -> None:
    ax.annotate(
        text, at, xytext=(5, 0), textcoords="offset points", va="center", size=9.5, annotation_clip=False
    )


def _rows(ax: Axes, names: Sequence[str], quantity: str, *, size: float = 10) -> None:
    ax.set_yticks(range(len(names)), labels=list(names))
    for label in ax.get_yticklabels():
        label.set(color=INK, size=size)
    if names:
        ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, pad=6)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.grid(axis="x", color=HAIRLINE, linewidth=0.6, alpha=0.7)
    ax.set_title(quantity, loc="left", weight="normal", size=10, color=SECOND_INK, pad=6)
