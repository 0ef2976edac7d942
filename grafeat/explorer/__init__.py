"""The attention explorer: intra and cross attention on the pictures' own grids, in a notebook and on a page."""

from grafeat.explorer.effects import Effect
from grafeat.explorer.selection import Selection
from grafeat.explorer.widget import Explorer

__all__ = ["Effect", "Explorer", "Selection"]
