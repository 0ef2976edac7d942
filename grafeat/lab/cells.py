"""A finished training on one test set: what all figures are computed from, kept as one file and read back."""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.files import read_tensors, write_tensors
from grafeat.grids import GridSet
from grafeat.pictures import PictureSet

LAB = 2  # goes up with every change of the package that changes a figure, so that what is kept is made anew
KIND = "lab cell"
Key = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """What one contender says after one training.

    Attributes:
        subsets: Which backbones take part, as the contender sees them; all of them first.
        logits: Class logits of the test pictures with each of these (subsets, b, t).
        val_logits: Class logits of the validation pictures, with all backbones.
        parameters: Learned parameters.
        seconds: Duration of the training; for what is put together from trained models, of theirs.
        inference: Seconds that 1,000 test pictures take, from grids to logits.
        vectors: Image vectors of the test pictures (b, d); None where no measure needs them.
        val_vectors: Those of the validation pictures; None like `vectors`.
        train_vectors: Those of the training pictures; None like `vectors`.
        date: When it was made, in UTC, to the second.
        versions: Of Python and of what decides figures.
    """

    subsets: tuple[tuple[str, ...], ...]
    logits: Float[Tensor, "subsets b t"]
    val_logits: Float[Tensor, "v t"]
    parameters: int
    seconds: float
    inference: float
    vectors: Float[Tensor, "b d"] | None = None
    val_vectors: Float[Tensor, "v d"] | None = None
    train_vectors: Float[Tensor, "m d"] | None = None
    date: str = ""
    versions: str = ""

    def __repr__(self) -> str:
        _, b, t = self.logits.shape
        return (
            f"Cell: {b:,} test pictures, {t} classes, {len(self.subsets)} subsets of backbones, "
            f"{self.parameters:,} parameters, trained in {self.seconds:.1f} s"
        )


TENSORS = ("logits", "val_logits", "vectors", "val_vectors", "train_vectors")
NUMBERS = ("parameters", "seconds", "inference", "date", "versions")


def digest(key: Key) -> str:
    """A short name for what decides a cell."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def content(grids: GridSet, *, labels: bool) -> str:
    """SHA-256 of all features of a set, and of its labels if they count; its test labels must never count."""
    whole = hashlib.sha256()
    for grid in grids.grids:
        features = grid.features.detach().cpu().contiguous()
        whole.update(f"{grid.name} {tuple(features.shape)} {features.dtype} {grid.field}".encode())
        whole.update(features.flatten().view(torch.uint8).numpy().data)
    if labels:
        whole.update(grids.required_labels("grids").numpy().tobytes())
    return whole.hexdigest()


def content_of_pictures(pictures: PictureSet, *, labels: bool) -> str:
    """The same for pictures."""
    known = pictures.required_labels("pictures").numpy().tobytes() if labels else b""
    return hashlib.sha256(pictures.fingerprint.encode() + known).hexdigest()


def path_of(folder: Path, key: Key) -> Path:
    """The file of a cell: way and seed, for a reader, and a digest of all that decides it."""
    readable = re.sub(r"[^a-z0-9]+", "-", key["way"].lower()).strip("-")[:40]
    return folder / f"{readable}-{key['seed']}-{digest(key)}.safetensors"


def write_cell(path: Path, key: Key, cell: Cell) -> None:
    """Keeps a cell: from the moment that its file is there, it is whole.

    Raises:
        OSError: If it cannot be written.
    """
    tensors = {name: value for name in TENSORS if (value := getattr(cell, name)) is not None}
    about = {name: getattr(cell, name) for name in NUMBERS} | {"subsets": cell.subsets, "key": dict(key)}
    write_tensors(path, tensors, kind=KIND, about=about)


def read_cell(path: Path, key: Key) -> Cell | None:
    """The cell that was kept, or None if it has to be made, as it is not there or cannot be used.

    Args:
        path: Its file.
        key: What decides it; another key in the file means that it is of something else.
    Warns:
        UserWarning: If the file is damaged or foreign; names it.
    """
    if not path.exists():
        return None
    try:
        tensors, about = read_tensors(path, kind=KIND)
        if about.get("key") != json.loads(json.dumps(dict(key))):
            raise ValueError(f"path: {path} is of another training")
        copies: dict[str, Any] = {name: tensors[name].clone() for name in TENSORS if name in tensors}
        subsets = tuple(tuple(names) for names in about["subsets"])
        cell = Cell(subsets=subsets, **copies, **{name: about[name] for name in NUMBERS})
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"folder: {path} cannot be used and is computed anew ({error})", stacklevel=2)
        return None
    return cell


def now() -> str:
    """The date and time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
