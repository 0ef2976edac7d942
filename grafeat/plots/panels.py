"""Panels of a static figure: laid out in inches, with lines of text and colour bars that look alike everywhere."""

import base64
import html
import io
import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from matplotlib.textpath import text_to_path
from matplotlib.transforms import BboxTransformTo, ScaledTranslation, Transform, blended_transform_factory

from grafeat.plots.palette import INK, SECOND_INK, BackboneColour

WIDEST = 9.6  # inches: a notebook's cell, and a slide
NARROWEST = 5.6  # below this a title does not fit
MARGIN, GUTTER = 0.12, 0.2  # inches, like those below
TITLE, HEADER, BAR = 0.58, 0.6, 0.72  # room for a figure's title, a panel's header, a colour bar
_TIP_DOWN = [(0, 0), (-0.5, 1), (0.5, 1), (0, 0)]
Part = tuple[str, str] | tuple[str, str, str]  # a piece of a line: text, colour, weight


class Panels(Figure):
    """A figure of several panels, shown once where it is the last value of a notebook's cell."""

    def _ipython_display_(self) -> None:
        # A notebook shows all open figures when a cell ends: this one would appear again.
        if "inline" in plt.get_backend():
            plt.close(self)
        raise NotImplementedError  # IPython goes on to its other ways of showing a figure


def panel_figure(width: float, height: float) -> Panels:
    """An open figure of this size in inches."""
    figure = plt.figure(figsize=(width, height), FigureClass=Panels)
    assert isinstance(figure, Panels)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """New axes at this place, in inches from the figure's left and top edges."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def embedded(figure: Figure, alternative: str) -> str:
    """A figure as HTML that holds it, closed, so that a notebook does not show it a second time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    picture = base64.b64encode(file.getvalue()).decode()
    said = html.escape(alternative)
    return f'<img alt="{said}" style="max-width: 100%" src="data:image/png;base64,{picture}">'


def panel_rows(
    aspects: Sequence[float], columns: int, *, top: float = TITLE, header: float = HEADER, foot: float = 0.0
) -> tuple[Panels, list[Axes]]:
    """A figure of rows of panels, all of one width.

    Args:
        aspects: Height of the panels over their width, for each row.
        columns: Panels in a row.
        top: Room for the figure's title, in inches.
        header: Room above each row, in inches.
        foot: Room below all rows, in inches.
    """
    width = min(
        2.7, (WIDEST - 2 * MARGIN - (columns - 1) * GUTTER) / columns, 3.4 / max(aspects), 8 / sum(aspects)
    )
    tops = [top + header + i * (header + GUTTER) + width * sum(aspects[:i]) for i in range(len(aspects) + 1)]
    room = (WIDEST - 2 * MARGIN + GUTTER) / columns
    step = max(width + GUTTER, min(2.1, room))  # so that headers and colour bars of narrow panels have room
    across = max(NARROWEST, 2 * MARGIN + columns * step - GUTTER)
    figure = panel_figure(across, tops[-1] - header - GUTTER + foot + MARGIN)
    lefts = [MARGIN + column * step for column in range(columns)]
    return figure, [
        place(figure, left, tops[i], width, width * aspects[i]) for i in range(len(aspects)) for left in lefts
    ]


def wrapped(count: int, aspect: float, *, foot: float = 0.0) -> tuple[Panels, list[Axes]]:
    """A figure of equal panels, at most four beside each other, in rows as equal as can be."""
    rows = math.ceil(count / 4)
    columns = math.ceil(count / rows)
    figure, axes = panel_rows([aspect] * rows, columns, foot=foot)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def own_axes(ax: Axes | None, aspect: float, *, left: float = 0.35, foot: float = 0.0) -> Axes:
    """The axes given, or new ones in a figure of their own.

    Args:
        ax: The caller's axes, if any.
        aspect: Height over width of what will be drawn.
        left: Room to its left, in inches.
        foot: Room below it, in inches.
    """
    if ax is not None:
        return ax
    width = min(3.4, 3.4 / aspect)
    top = 0.5
    figure = panel_figure(left + width + 0.35, top + width * aspect + foot + 0.3)
    return place(figure, left, top, width, width * aspect)


def bar_below(ax: Axes, *, drop: float | None = None) -> Axes:
    """Thin axes for a colour bar below a panel, moving with it, so many inches down; by default clear of its ticks."""
    drop = drop or (0.68 if len(ax.get_xticks()) else 0.5)
    up = figure_of(ax).dpi_scale_trans + ScaledTranslation(
        0, 0, BboxTransformTo(ax.bbox)
    )  # inches from the panel's bottom
    return ax.inset_axes((0, -drop, 1, 0.1), transform=blended_transform_factory(ax.transAxes, up))


def figure_of(ax: Axes) -> Figure:
    """The whole figure to which these axes belong."""
    figure = ax.figure
    return figure.figure if isinstance(figure, SubFigure) else figure


def inches(axes: Axes) -> tuple[float, float, float, float]:
    """Left, top, width and height of axes, in inches from the figure's left and top edges."""
    across, down = figure_of(axes).get_size_inches()
    axes.apply_aspect()
    box = axes.get_position()
    return box.x0 * across, (1 - box.y1) * down, box.width * across, box.height * down


def unit(ax: Axes) -> float:
    """Inches of the figure for one unit of the drawing."""
    return inches(ax)[2] / float(np.ptp(ax.get_xlim()))


def title(figure: Figure, parts: Sequence[Part], second: Sequence[Part] = ()) -> None:
    """Writes a figure's title: what is shown, and below it, in second ink, how it was got."""
    for size, top, line in ((12.0, 0.13, parts), (10.0, 0.36, second)):
        if line:
            # From the figure's corner, which moves when a notebook trims the margins.
            down = figure.transFigure + ScaledTranslation(MARGIN, -top, figure.dpi_scale_trans)
            figure.add_artist(_line(line, size, down, (0, 1), "upper left"))


def header(ax: Axes, name: str, *details: str, colour: BackboneColour | None = None) -> None:
    """Writes a panel's header: a name, the details that fit on one line, and a rule in the backbone's colour."""
    width = inches(ax)[2] * 72
    name = shorten(name, width, size=11, weight="bold")
    fitting = [" · ".join(details[:count]) for count in range(len(details), 0, -1)]
    below = next((text for text in fitting if text_width(text, 9.5) <= width), "".join(fitting[-1:]))
    inch = figure_of(ax).dpi_scale_trans
    for text, size, lift, ink, weight in (
        (name, 11.0, 23 if below else 9, colour.text if colour else INK, "bold"),
        (below, 9.5, 9, SECOND_INK, "normal"),
    ):
        if text:
            up = ax.transAxes + ScaledTranslation(0, lift / 72, inch)
            ax.add_artist(_line([(text, ink, weight)], size, up, (0, 1), "lower left"))
    if colour:
        rule = Line2D([0, 1], [1, 1], color=colour.mark, linewidth=3, solid_capstyle="butt", clip_on=False)
        rule.set_transform(ax.transAxes + ScaledTranslation(0, 3.5 / 72, inch))
        ax.add_artist(rule)


def footnote(ax: Axes, line: int, parts: Sequence[Part]) -> None:
    """Writes a line of text below a panel and the names that stand there; lines are counted from 0."""
    down = ScaledTranslation(0, -(46 + 16 * line) / 72, figure_of(ax).dpi_scale_trans)
    ax.add_artist(_line(parts, 10, ax.transAxes + down, (0, 0), "upper left"))


def colour_bar(
    cax: Axes,
    shown: ScalarMappable,
    label: str,
    *,
    marks: Sequence[tuple[float, BackboneColour]] = (),
    mark_label: str = "",
) -> None:
    """Draws a flat colour bar, its quantity above it, and triangles at values that deserve a mark.

    Args:
        cax: Thin axes for the bar.
        shown: The image whose colours it explains.
        label: The quantity, with its unit.
        marks: Values to mark, each with the colour of its triangle.
        mark_label: What the marks mean.
    """
    figure = figure_of(cax)
    bar = figure.colorbar(shown, cax=cax, orientation="horizontal")
    bar.outline.set_visible(False)
    low, high = shown.get_clim()
    ticks = [low, 0.0, high] if _room_for_zero(cax, low, high) else [low, high]
    bar.set_ticks(ticks, labels=[number(value) for value in ticks])
    cax.tick_params(length=0, pad=3)
    cax.get_xticklabels()[0].set_horizontalalignment("left")
    cax.get_xticklabels()[-1].set_horizontalalignment("right")
    up = cax.transAxes + ScaledTranslation(0, (9 if marks else 4) / 72, figure.dpi_scale_trans)
    cax.add_artist(_line([(label, SECOND_INK)], 9.5, up, (0, 1), "lower left"))
    if marks:
        down = cax.transAxes + ScaledTranslation(0, -3 / 72, figure.dpi_scale_trans)
        line = [
            ("▼", SECOND_INK),
            (mark_label, SECOND_INK),
            *((number(value), colour.text) for value, colour in marks),
        ]
        cax.add_artist(_line(line, 9, down, (0.5, 0), "upper center"))
    for value, colour in marks:
        at = cax.get_xaxis_transform()
        cax.plot(
            [value], [1.0], marker=_TIP_DOWN, markersize=9, color=colour.mark, clip_on=False, transform=at
        )


def _room_for_zero(cax: Axes, low: float, high: float) -> bool:
    """Whether 0 lies inside a bar, and far enough from both ends for their numbers to stand beside it."""
    if low >= 0 or high <= 0:
        return False
    size = float(cax.get_xticklabels()[0].get_fontsize())
    length = 72 * cax.get_window_extent().width / figure_of(cax).dpi
    places = (length * -low / (high - low), low), (length * high / (high - low), high)
    return all(place > text_width(number(end), size) + text_width("0", size) for place, end in places)


def number(value: float) -> str:
    """A value as it is printed on figures: whole, or with two significant digits."""
    if value == round(value) or abs(value) >= 100:
        said = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        said = f"{value:.1e}"
    else:
        said = f"{value:#.2g}".rstrip(".")
    return said.replace("-", "−")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in points."""
    font = FontProperties(family="DejaVu Sans", weight=weight, size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return 1.04 * float(width)  # pixels round it up


def shorten(text: str, width: float, *, size: float, weight: str = "normal") -> str:
    """The text, without so much of its middle that it fits into a width in points; both ends tell names apart."""
    kept = len(text)
    short = text
    while text_width(short, size, weight) > width and kept > 4:
        kept -= 1
        short = f"{text[: math.ceil(kept / 2)]}…{text[len(text) - kept // 2 :]}"
    return short


def _line(
    parts: Sequence[Part], size: float, transform: Transform, at: tuple[float, float], corner: str
) -> Artist:
    pieces: list[Artist] = [
        TextArea(
            part[0],
            textprops={
                "parse_math": False,
                "color": part[1],
                "size": size,
                "weight": part[2] if len(part) > 2 else "normal",
            },
        )
        for part in parts
        if part[0]
    ]
    return AnchoredOffsetbox(
        corner,
        child=HPacker(children=pieces, align="baseline", pad=0, sep=5),
        bbox_to_anchor=at,
        bbox_transform=transform,
        frameon=False,
        pad=0,
        borderpad=0,
    )
