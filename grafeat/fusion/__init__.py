"""The other ways to mix the same feature grids, behind the same interface as `GraFeatMerge`: its rivals."""

from grafeat.fusion.aligned import Add, Multiply
from grafeat.fusion.committee import Committee, Ensemble, Voting
from grafeat.fusion.mixer import MixConfig, Mixer
from grafeat.fusion.pooled import Concat, Gated, Linear
from grafeat.fusion.ways import WAYS, Way, WayTable, list_ways, mix, outline

__all__ = [
    "WAYS",
    "Add",
    "Committee",
    "Concat",
    "Ensemble",
    "Gated",
    "Linear",
    "MixConfig",
    "Mixer",
    "Multiply",
    "Voting",
    "Way",
    "WayTable",
    "list_ways",
    "mix",
    "outline",
]
