"""What may be asked of a store, and an error for everything else."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

from grafeat.arguments import strange, usable, whole
from grafeat.backbones.backbone import Backbone
from grafeat.pictures import PictureSet
from grafeat.sharing import Engine
from grafeat.store.index import DTYPES

T = TypeVar("T")


def backbones_in(argument: str, given: Iterable[Backbone] | Backbone) -> list[Backbone]:
    """One backbone or several, as a list."""
    return _several(argument, given, Backbone, "load it by its name with gf.load_backbone, or wrap it in gf.Backbone")


def pictures_in(argument: str, given: Iterable[PictureSet] | PictureSet) -> list[PictureSet]:
    """One set of pictures or several, as a list."""
    return _several(argument, given, PictureSet, "wrap the pictures of a set: gf.PictureSet(pictures)")


def check(
    backbones: Sequence[Backbone], pictures: PictureSet, batch_size: int, workers: int, dtype: torch.dtype
) -> None:
    """Raise unless there is something to extract, and a way to."""
    names = [backbone.name for backbone in backbones]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"backbones: got {', '.join(names) or 'none'}; expected at least one, and different names; pass name= to "
            "load_backbone so that one model can stand twice"
        )
    if not isinstance(pictures, PictureSet):
        raise strange("pictures", pictures, "a PictureSet", "wrap them: gf.PictureSet(pictures)")
    whole("batch_size", batch_size)
    whole("workers", workers, least=0, remedy="leave it out to decode in this process")
    if not len(pictures):
        raise ValueError("pictures: got none; expected one or more; check what the set was made of")
    if dtype not in DTYPES.values():
        raise ValueError(
            f"dtype: got {dtype}; expected float16, bfloat16, float32 or float64 of torch; leave it out for float16"
        )


def place(device: torch.device | str, accelerator: Engine | None) -> torch.device:
    """Where the backbones run."""
    return usable(device) if accelerator is None else torch.device(accelerator.device)


def _several(argument: str, given: object, kind: type[T], remedy: str) -> list[T]:
    found: list[T] = []
    for one in given if isinstance(given, Iterable) and not isinstance(given, kind | str) else [given]:
        if not isinstance(one, kind):
            raise strange(argument, one, f"one {kind.__name__} or several", remedy)
        found.append(one)
    return found
