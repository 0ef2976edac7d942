"""GraFeat: merge vision backbones of different architectures through a graph of their patches, and see how they think.

The data path, which is also the order in which the modules import each other:

    pictures -> backbones -> feature grids -> patch graph -> merge -> image vector -> task -> dominance -> views

Axis letters, everywhere: b batch, c channels, h w rows and columns of a grid, n vertices of all backbones together,
d model width, t classes. Two-sided names end in _src and _dst.

Words:
    backbone          a frozen feature extractor
    feature grid      what a backbone gives for a picture: (c, h, w)
    patch             one position of a grid; a vertex of the graph
    intra attention   inside one backbone
    cross attention   between backbones
    image vector      what the readout gives: (d,)
    attention mass    where information is routed; not importance
    value, share      what a backbone adds to the centred logit; its part of what is positive
    knock out         mask edges or patches and compute again
"""

import importlib
from typing import TYPE_CHECKING, Any

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.attention.layers import CrossAttention, IntraAttention
from grafeat.backbones.backbone import Backbone, Crop
from grafeat.backbones.narrow import train_backbone
from grafeat.backbones.zoo import list_backbones, load_backbone
from grafeat.checkpoint import load, save
from grafeat.data import load_dataset
from grafeat.evaluation import Evaluation, evaluate, predict
from grafeat.fusion import Concat, list_ways, mix
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge, MergeConfig
from grafeat.models import GridModel, MergeOutput
from grafeat.pictures import PictureSet
from grafeat.plain import PlainModel
from grafeat.runs import History
from grafeat.shifts import shifted
from grafeat.store import GridStore, extract
from grafeat.training import fit

if TYPE_CHECKING:
    from grafeat import lab, measures, planted, plots
    from grafeat.explanations.audit import audit
    from grafeat.explanations.dominance import dominance
    from grafeat.explanations.dominant import DominantPatches, dominant
    from grafeat.explanations.knockouts import KnockOut, knock_out
    from grafeat.explanations.relevance import Relevance, relevance
    from grafeat.explanations.report import Dominance
    from grafeat.explanations.verdict import Audit, thresholds
    from grafeat.explorer import Explorer
    from grafeat.lab.compare import compare
    from grafeat.lab.comparison import Comparison
    from grafeat.lab.contenders import Contender
    from grafeat.lab.task import Task

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Backbone",
    "CapturedAttention",
    "Comparison",
    "Concat",
    "Contender",
    "Crop",
    "CrossAttention",
    "Dominance",
    "DominantPatches",
    "Evaluation",
    "Explorer",
    "FeatureGrid",
    "GraFeatMerge",
    "GridModel",
    "GridSet",
    "GridStore",
    "History",
    "IntraAttention",
    "KnockOut",
    "MergeConfig",
    "MergeOutput",
    "PatchGraph",
    "PictureSet",
    "PlainModel",
    "Relevance",
    "Task",
    "audit",
    "capture",
    "compare",
    "dominance",
    "dominant",
    "evaluate",
    "extract",
    "fit",
    "knock_out",
    "lab",
    "list_backbones",
    "list_ways",
    "load",
    "load_backbone",
    "load_dataset",
    "measures",
    "mix",
    "planted",
    "plots",
    "predict",
    "relevance",
    "save",
    "shifted",
    "thresholds",
    "train_backbone",
]


# Imported when first used: tables, graphs and figures need packages that take longer to import than all else.
_LATER = {
    "Audit": "explanations.verdict",
    "Comparison": "lab.comparison",
    "Contender": "lab.contenders",
    "Dominance": "explanations.report",
    "DominantPatches": "explanations.dominant",
    "Explorer": "explorer",
    "KnockOut": "explanations.knockouts",
    "Relevance": "explanations.relevance",
    "Task": "lab.task",
    "audit": "explanations.audit",
    "compare": "lab.compare",
    "dominance": "explanations.dominance",
    "dominant": "explanations.dominant",
    "knock_out": "explanations.knockouts",
    "relevance": "explanations.relevance",
    "thresholds": "explanations.verdict",
}
_MODULES = ("lab", "measures", "planted", "plots")


def __getattr__(name: str) -> Any:
    """What is imported only when it is used."""
    if name in _MODULES:
        return importlib.import_module(f"grafeat.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'grafeat' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"grafeat.{_LATER[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
