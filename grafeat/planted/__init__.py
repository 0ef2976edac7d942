"""Tasks whose answer is known by construction, and with it what a right explanation of a good model must say."""

from grafeat.planted.cutouts import CutOuts, load_cutouts
from grafeat.planted.digits import blind, two_digits
from grafeat.planted.grids import one_speaks, pointer, repeat
from grafeat.planted.pointing import OnObject, coverage, on_object
from grafeat.planted.scenes import SeenObjects, seen_object
from grafeat.planted.tied import tied

__all__ = [
    "CutOuts",
    "OnObject",
    "SeenObjects",
    "blind",
    "coverage",
    "load_cutouts",
    "on_object",
    "one_speaks",
    "pointer",
    "repeat",
    "seen_object",
    "tied",
    "two_digits",
]
