"""The other ways to mix the same feature grids, behind the same interface as `GraFeatMerge`: its rivals."""

from grafeat.fusion.aligned import Add, Multiply
from grafeat.fusion.combo import Combo
from grafeat.fusion.committee import Committee, Ensemble, Voting
from grafeat.fusion.mixer import MixConfig, Mixer
from grafeat.fusion.pooled import Concat, Gated, Linear
from grafeat.fusion.sva import Sva
from grafeat.fusion.ways import WAYS, Way, WayTable, list_ways, mix, outline

__all__ = [
    "WAYS",
    "Add",
    "Combo",
    "Committee",
    "Concat",
    "Ensemble",
    "Gated",
    "Linear",
    "MixConfig",
    "Mixer",
    "Multiply",
    "Sva",
    "Voting",
    "Way",
    "WayTable",
    "list_ways",
    "mix",
    "outline",
]
