"""Measures on the attention graph: PageRank, communities, strongest paths; and GraphML for other tools.

They say where information is routed, not what matters for the prediction.
"""

from grafeat.measures.centrality import pagerank
from grafeat.measures.exports import annotate, write_graphml
from grafeat.measures.grouping import Communities, communities
from grafeat.measures.routes import Hop, Route, strongest_paths

__all__ = ["Communities", "Hop", "Route", "annotate", "communities", "pagerank", "strongest_paths", "write_graphml"]
