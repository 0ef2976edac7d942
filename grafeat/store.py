"""The feature grids of a whole picture set: computed once, kept on disk, read back as a memory map."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from grafeat.backbones import Backbone
from grafeat.files import read_tensors, write_tensors
from grafeat.grids import FeatureGrid, GridSet
from grafeat.pictures import PictureSet

KIND = "feature grids"
Places = dict[str, tuple[Path, dict[str, str]]]  # file of each backbone, and what it says of itself


def extract(
    backbones: Sequence[Backbone],
    pictures: PictureSet,
    *,
    store: str | Path | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float16,
    progress: bool = True,
) -> GridSet:
    """Shows every picture once to every backbone, and gives the feature grids with the pictures' labels and parts.

    With `store`, each backbone's grids are one file in that folder, found again by everything that shapes them:
    weights, tap, input size, pre-processing, view, number format and the pictures' own content. What is there is read
    back as a memory map, at no cost; another backbone computes only its own. A file appears only when it is whole, so
    an interrupted run starts the unfinished backbones anew.

    Args:
        backbones: The frozen backbones; their names differ.
        pictures: The pictures.
        store: Folder for the grids, made if it is not there; without it they stay in memory.
        batch_size: Pictures shown at once.
        device: Where the backbones run; the grids end up on the CPU.
        dtype: Floating-point type of the grids that are kept. float16 halves them and rounds to 3 to 4 digits.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If names repeat; if there is no picture; if a backbone gives NaN, or infinity in `dtype`; if a view
            cannot be recognised again though there is a store; if a file of the store is damaged.
        OSError: If the store cannot be written.
    """
    names = [backbone.name for backbone in backbones]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"backbones: got {', '.join(names) or 'none'}; expected at least one, and different names; pass name= to "
            "load_backbone so that one model can stand twice"
        )
    if not len(pictures) or batch_size < 1:
        raise ValueError(
            f"pictures, batch_size: got {len(pictures):,} pictures in batches of {batch_size}; expected 1 or more of "
            "both; leave batch_size out for the default"
        )
    places = {} if store is None else _places(backbones, pictures, Path(store), dtype)
    found = _kept(backbones, places)
    missing = [backbone for backbone in backbones if backbone.name not in found]
    computed = _computed(missing, pictures, batch_size, device, dtype, progress)
    if places:
        for name, grid in computed.items():
            path, about = places[name]
            write_tensors(path, {"features": grid.features}, kind=KIND, about=about)
        computed = _kept(missing, places)
    grids = [{**found, **computed}[name] for name in names]
    return GridSet(grids, pictures.labels, classes=pictures.classes, parts=pictures.part_positions)


def _computed(
    backbones: Sequence[Backbone],
    pictures: PictureSet,
    batch_size: int,
    device: torch.device | str,
    dtype: torch.dtype,
    progress: bool,
) -> dict[str, FeatureGrid]:
    if not backbones:
        return {}
    for backbone in backbones:
        backbone.to(device)
    features: dict[str, Tensor] = {}
    fields = {}
    with tqdm(total=len(pictures), desc="extract", unit="picture", disable=not progress) as bar:
        for start in range(0, len(pictures), batch_size):
            batch = pictures[start : start + batch_size].pictures
            for backbone in backbones:
                grid = backbone(batch)
                small = FeatureGrid(grid.name, grid.features.to(dtype=dtype, device="cpu"), grid.field)
                features[grid.name] = _filled(features.get(grid.name), small, start, len(pictures))
                fields[grid.name] = grid.field
            bar.update(len(batch))
    return {name: FeatureGrid.trusted(name, stored, fields[name]) for name, stored in features.items()}


def _filled(whole: Tensor | None, small: FeatureGrid, start: int, count: int) -> Tensor:
    """The features of all `count` pictures, with those of a batch written where they belong."""
    one = small.features.shape[1:]
    whole = torch.empty(count, *one, dtype=small.features.dtype) if whole is None else whole
    if whole.shape[1:] != one:
        raise ValueError(
            f"pictures: backbone {small.name!r} gave {tuple(whole.shape[1:])}, then {tuple(one)} from picture {start} "
            "on, as the pictures differ in size; expected one grid (c, h, w) for all; give the backbone a size="
        )
    whole[start : start + len(small)] = small.features
    return whole


def _kept(backbones: Sequence[Backbone], places: Places) -> dict[str, FeatureGrid]:
    grids = {}
    for backbone in backbones:
        if backbone.name in places and places[backbone.name][0].exists():
            tensors, _ = read_tensors(places[backbone.name][0], kind=KIND)
            grids[backbone.name] = FeatureGrid.trusted(backbone.name, tensors["features"], backbone.field)
    return grids


def _places(backbones: Sequence[Backbone], pictures: PictureSet, store: Path, dtype: torch.dtype) -> Places:
    places, content = {}, pictures.fingerprint
    for backbone in backbones:
        if backbone.fingerprint is None:
            raise ValueError(
                f"store: backbone {backbone.name!r} has a view that cannot be recognised in a later run; expected a "
                "function of a module, or a frozen dataclass such as Crop; or extract without store="
            )
        about = {"backbone": backbone.fingerprint, "pictures": content, "dtype": str(dtype)}
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        path = store / f"{backbone.name.replace('/', '_')}-{key[:16]}.safetensors"
        places[backbone.name] = (path, about)
    return places
