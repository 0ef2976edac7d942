"""What tells one training from others with the same options: the pictures it sees and the weights it begins with."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch

from grafeat.grids import GridSet
from grafeat.models import GridModel

WEIGHTS = "initial weights"
LOOKED_AT = 256  # pictures by which a set is told from others


def identity(model: GridModel, train: GridSet, val: GridSet | None, unlabelled: GridSet | None) -> dict[str, Any]:
    """The pictures and the initial weights of a training, for the settings of its run."""
    sets = {"pictures": train, "validation pictures": val, "pictures without labels": unlabelled}
    told = {name: None if grids is None else fingerprint(grids) for name, grids in sets.items()}
    return {**told, WEIGHTS: sizes(model)}


def fingerprint(grids: GridSet) -> str:
    """What tells a set from others at little cost: names, shapes, all labels, and the features of up to 256 pictures.

    These are spaced evenly from the first to the last. So all features of a small set are looked at; of a larger one,
    it is not noticed where only pictures in between have become others.
    """
    digest = hashlib.sha256(str(len(grids)).encode())
    for grid in grids[:1].grids:
        digest.update(f"{grid.name} {tuple(grid.features.shape[1:])} {grid.field}".encode())
    count = min(LOOKED_AT, len(grids))
    for row in (torch.arange(count) * (len(grids) - 1) // max(1, count - 1)).tolist():
        for grid in grids[row].grids:
            digest.update(grid.features.detach().float().cpu().contiguous().numpy().tobytes())
    if grids.labels is not None:
        digest.update(grids.labels.cpu().numpy().tobytes())
    return digest.hexdigest()


def sizes(model: GridModel) -> dict[str, float]:
    """What tells a model's weights and statistics from others': of each tensor the sum of magnitudes, later ones more.

    A digest would tell too much: on another machine, principal components differ in their last digits and signs.
    """
    flat = {name: value.cpu().double().abs().flatten() for name, value in model.state_dict().items()}
    return {name: float(value @ torch.linspace(1, 2, len(value), dtype=value.dtype)) for name, value in flat.items()}


def alike(found: object, here: Mapping[str, float]) -> bool:
    """Whether what a file says are the `sizes` of the same model, but for last digits."""
    if not isinstance(found, Mapping) or found.keys() != here.keys():
        return False
    return all(isinstance(found[name], float) and math.isclose(found[name], here[name], rel_tol=1e-5) for name in here)
