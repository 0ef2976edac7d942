"""The attention explorer: intra and cross attention on the pictures' own grids, in a notebook and on a page."""

from grafeat.explorer.widget import Explorer, Selection

__all__ = ["Explorer", "Selection"]
