"""The scales of attention heatmaps: which colours weights have, linear or logarithmic, and the bars that say so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage
from matplotlib.transforms import ScaledTranslation

from grafeat.graph import Kind
from grafeat.plots.palette import SECOND, SECOND_INK, BackboneColour
from grafeat.plots.panels import colour_bar, figure_of, inches, number, text_width
from grafeat.plots.pictures import Colours
from grafeat.plots.rows import KINDS, AttentionRow

Limits = Mapping[Kind, tuple[float, float]]
Mark = tuple[float, BackboneColour]
DEPTH = 10.0  # a logarithmic scale begins at the smallest uniform weight over this
TICK, SPACE = 9.0, 10.0  # points: size of a tick's number, and room between two
_TIP_DOWN = [(0, 0), (-0.5, 1), (0.5, 1), (0, 0)]
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Which values the ends of the colours have.

    Attributes:
        low: The value of the darkest colour.
        high: The value of the lightest.
        log: Whether colours are even steps of the logarithm.
        below: Whether a value lies below `low`.
        above: Whether a value lies above `high`.
    """

    low: float
    high: float
    log: bool = False
    below: bool = False
    above: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    @property
    def norm(self) -> Normalize:
        """From values to [0, 1], as matplotlib has it; values beyond the ends have the ends' colours."""
        return LogNorm(self.low, self.high, clip=True) if self.log else Normalize(self.low, self.high)

    @property
    def ends(self) -> tuple[str, str]:
        """What stands at both ends of the colour bar."""
        return ("≤ " if self.below else "") + number(self.low), ("≥ " if self.above else "") + number(
            self.high
        )

    def share(self, value: float) -> float:
        """Where a value lies between the ends, in [0, 1] if it does."""
        low, high = self.limits
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


def scales_of(
    rows: Sequence[AttentionRow], *, relative: bool = False, limits: Limits | None = None, log: bool = False
) -> dict[Kind, Scale]:
    """The scale of each kind; where `relative`, one for both; arguments as in `attention_maps`."""
    limits = _checked_limits(limits or {}, log)
    kinds = tuple(kind for kind in KINDS if any(row.kind == kind for row in rows))
    groups = [kinds] if relative else [(kind,) for kind in kinds]
    scales = {}
    for group in groups:
        given = [limits[kind] for kind in group if kind in limits]
        scale = _scale([row for row in rows if row.kind in group], relative, given, log)
        scales.update(dict.fromkeys(group, scale))
    return scales


def _scale(
    rows: Sequence[AttentionRow], relative: bool, given: Sequence[tuple[float, float]], log: bool
) -> Scale:
    values = [value for row in rows for value in row.shown(relative).flatten().tolist() if value == value]
    equal = [1.0 if relative else row.equal for row in rows]
    lowest, highest = min(values, default=0.0), max(values, default=0.0)
    if given:
        low, high = min(low for low, _ in given), max(high for _, high in given)
    else:
        low = min(equal) / DEPTH if log else 0.0
        high = highest if highest > low else max(equal)
    return Scale(low, high, log, below=lowest < low, above=highest > high * (1 + 1e-6))


def _checked_limits(limits: Limits, log: bool) -> Limits:
    for kind, ends in limits.items():
        if kind not in KINDS:
            raise ValueError(f"limits: got the kind {kind!r}; expected 'intra', 'cross' or both as keys")
        low, high = ends
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(
                f"limits: got {ends} for {kind}; expected two numbers (low, high), low below high"
            )
        if log and low <= 0:
            raise ValueError(
                f"limits: got {ends} for {kind}; a logarithm needs a low above 0; a tenth of the uniform weight does"
            )
    return limits


def uniform_marks(rows: Sequence[AttentionRow], colours: Colours) -> list[Mark]:
    """Where equal logits would lie: each backbone's in its colour; in none where the uniform weights are one."""
    marks = [(row.equal, colours[row.backbone]) for row in rows]
    same = len({number(value) for value, _ in marks}) == 1 < len(marks)
    return [(marks[0][0], SECOND)] if same else marks


def attention_bar(cax: Axes, shown: AxesImage, scale: Scale, label: str, marks: Sequence[Mark]) -> None:
    """Draws the colour bar of a heatmap, with triangles at the uniform weights.

    Args:
        cax: Thin axes for the bar.
        shown: The heatmap's image.
        scale: Its scale.
        label: The quantity, with its unit.
        marks: The uniform weights, each with the colour of its triangle; those beyond the ends are only written.
    """
    if scale.log:
        _log_bar(cax, shown, scale, f"{label}, log", marks)
        return
    colour_bar(cax, shown, label, marks=marks, mark_label="uniform")
    cax.set_xticks(scale.limits, labels=scale.ends)


def _log_bar(cax: Axes, shown: AxesImage, scale: Scale, label: str, marks: Sequence[Mark]) -> None:
    """As `colour_bar`, with decades between the ends; the uniform weights stand on a line below them."""
    bar = figure_of(cax).colorbar(shown, cax=cax, orientation="horizontal")
    bar.outline.set_visible(False)
    ticks = _ticks(scale, 72 * inches(cax)[2])
    bar.set_ticks([value for value, _ in ticks], labels=[said for _, said in ticks])
    bar.minorticks_off()
    cax.tick_params(length=0, pad=3)
    labels = cax.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")
    up = cax.transAxes + ScaledTranslation(0, 9 / 72, figure_of(cax).dpi_scale_trans)
    cax.text(0, 1, label, transform=up, size=9.5, color=SECOND_INK, va="bottom")
    for value, colour in marks:
        if 0 <= scale.share(value) <= 1:
            at = cax.get_xaxis_transform()
            cax.plot([value], [1], marker=_TIP_DOWN, ms=9, color=colour.mark, clip_on=False, transform=at)
    _write_marks(cax, marks)


def _write_marks(cax: Axes, marks: Sequence[Mark]) -> None:
    left = 0.0
    parts = [("▼ uniform", SECOND_INK), *((number(value), colour.text) for value, colour in marks)]
    for said, ink in parts:
        cax.annotate(
            said,
            (0, 0),
            xycoords="axes fraction",
            xytext=(left, -17),
            textcoords="offset points",
            va="top",
            size=TICK,
            color=ink,
            annotation_clip=False,
        )
        left += text_width(said, TICK) + 5


def _ticks(scale: Scale, width: float) -> list[tuple[float, str]]:
    """The ends of a bar of this width in points; between them powers of ten, and 2 and 5 too if only one has room."""
    first, last = scale.ends
    decades, finer = _fitting(scale, width, (1,)), _fitting(scale, width, (1, 2, 5))
    between = decades if len(decades) > 1 else finer
    return [(scale.low, first), *between, (scale.high, last)]


def _fitting(scale: Scale, width: float, steps: Sequence[int]) -> list[tuple[float, str]]:
    first, last = scale.ends
    taken, until = text_width(first, TICK) + SPACE, width - text_width(last, TICK) - SPACE
    found = []
    for exponent in range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))):
        for step in steps:
            value, said = step * 10.0**exponent, _said(step, exponent)
            half, at = text_width(said, TICK) / 2, width * scale.share(value)
            if taken <= at - half and at + half <= until:
                found.append((value, said))
                taken = at + half + SPACE
    return found


def _said(step: int, exponent: int) -> str:
    """A round value as it is printed: 0.002, 1,000 or, further out, 2·10⁻⁵."""
    if -4 < exponent < 5:
        return f"{step * 10.0**exponent:,g}"
    return (f"{step}·" if step > 1 else "") + "10" + str(exponent).translate(_RAISED)
