"""Marks on single patches, white on black, so that they stand out on any colour."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from grafeat.grids import Box
from grafeat.plots.panels import inches
from grafeat.plots.sheets import Place, Point

ROOM = 10.0  # points of the smallest brackets


@dataclass(frozen=True, eq=False)
class Spot:
    """A patch on one panel.

    Attributes:
        ax: The panel, whose limits tell where `box` lies.
        box: The patch (x0, y0, x1, y1), in the panel's data.
    """

    ax: Axes
    box: Box

    @property
    def at(self) -> Point:
        """Its centre, in inches from the figure's left and top edges."""
        left, top, width, height = inches(self.ax)
        (x0, x1), (y0, y1) = self.ax.get_xlim(), self.ax.get_ylim()
        x, y = (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
        return np.array([left + width * (x - x0) / (x1 - x0), top + height * (y1 - y) / (y1 - y0)])

    @property
    def side(self) -> float:
        """The patch's shorter side, in points."""
        _, _, width, height = inches(self.ax)
        across, down = np.ptp(self.ax.get_xlim()), np.ptp(self.ax.get_ylim())
        x0, y0, x1, y1 = self.box
        return 72 * min(width * (x1 - x0) / float(across), height * (y1 - y0) / float(down))


def draw_outline(spot: Spot) -> None:
    """Marks a patch by a double outline."""
    x0, y0, x1, y1 = spot.box
    for shade, width in (("black", 4.2), ("white", 1.8)):
        drawn = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=shade, lw=width, zorder=3, clip_on=False)
        spot.ax.add_patch(drawn)


def draw_brackets(spot: Spot) -> None:
    """Marks a patch by double brackets at its corners; they stand around a patch that is too small for them."""
    x0, y0, x1, y1 = spot.box
    side = min(x1 - x0, y1 - y0)
    aside = max(0.0, ROOM - spot.side) / 2 * side / spot.side
    x0, y0, x1, y1 = x0 - aside, y0 - aside, x1 + aside, y1 + aside
    arm = 0.3 * (side + 2 * aside)
    corners: list[Place] = []
    for x, y, right, down in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x1, y1, -1, -1), (x0, y1, 1, -1)):
        corners += [(x + right * arm, y), (x, y), (x, y + down * arm)]
    path = Path(np.array(corners), [Path.MOVETO, Path.LINETO, Path.LINETO] * 4)
    thin = min(1.0, max(spot.side, ROOM) / 16)  # else four corners become one frame
    for shade, width in (("black", 4.6 * thin), ("white", 2.0 * thin)):
        drawn = PathPatch(path, fill=False, ec=shade, lw=width, capstyle="projecting", joinstyle="miter")
        drawn.set(zorder=3.5, clip_on=False, label="pin")
        spot.ax.add_patch(drawn)
