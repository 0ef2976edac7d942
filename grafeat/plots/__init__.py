"""Static plots with matplotlib and networkx: all that draws, under one name.

Functions that draw one panel take `ax` and return it; those that draw several panels return the figure. All share one
look, give each backbone one colour, and leave matplotlib's settings as they were.
"""

from grafeat.plots.attention import attention_maps
from grafeat.plots.audit import audit_curves
from grafeat.plots.comparison import comparison, contenders, gains
from grafeat.plots.dominance import dominance_figure
from grafeat.plots.features import feature_pictures
from grafeat.plots.graphs import draw_graph
from grafeat.plots.heatmaps import heatmap, heatmaps
from grafeat.plots.palette import backbone_colours
from grafeat.plots.pictures import draw_grid, draw_grids, draw_picture
from grafeat.plots.relevance import draw_dominant, relevance_maps
from grafeat.plots.sheets import graph_layout
from grafeat.plots.training import confusion, training_curves, with_intervals

__all__ = [
    "attention_maps",
    "audit_curves",
    "backbone_colours",
    "comparison",
    "confusion",
    "contenders",
    "dominance_figure",
    "draw_dominant",
    "draw_graph",
    "draw_grid",
    "draw_grids",
    "draw_picture",
    "feature_pictures",
    "gains",
    "graph_layout",
    "heatmap",
    "heatmaps",
    "relevance_maps",
    "training_curves",
    "with_intervals",
]
