"""What may be asked of a store, and an error for everything else."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

from grafeat.backbones.backbone import Backbone
from grafeat.pictures import PictureSet
from grafeat.sharing import Engine
from grafeat.splits import is_whole
from grafeat.store.index import DTYPES

T = TypeVar("T")


def strange(argument: str, given: object, expected: str, remedy: str) -> TypeError:
    """The error for an argument of another type."""
    shown = repr(given) if isinstance(given, str | int | float | None) else f"a {type(given).__name__}"
    return TypeError(f"{argument}: got {shown}; expected {expected}; {remedy}")


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
    for argument, number in (("batch_size", batch_size), ("workers", workers)):
        if not is_whole(number):
            raise strange(argument, number, "a whole number", "leave it out for the default")
    if not len(pictures) or batch_size < 1:
        raise ValueError(
            f"pictures, batch_size: got {len(pictures):,} pictures in batches of {batch_size}; expected 1 or more of "
            "both; leave batch_size out for the default"
        )
    if workers < 0:
        raise ValueError(f"workers: got {workers}; expected 0 or more; leave it out to decode in this process")
    if dtype not in DTYPES.values():
        raise ValueError(
            f"dtype: got {dtype}; expected float16, bfloat16, float32 or float64 of torch; leave it out for float16"
        )


def place(device: torch.device | str, accelerator: Engine | None) -> torch.device:
    """Where the backbones run."""
    if isinstance(accelerator, Engine):
        return torch.device(accelerator.device)
    if accelerator is not None:
        raise strange("accelerator", accelerator, "an accelerate.Accelerator", "name a device with device=")
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:  # torch raises all three
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device: got {device!r}, which cannot be used here ({reason}); expected a device of this machine, such as "
            "'cpu' or 'cuda'; leave it out for the CPU"
        ) from error
    return torch.device(device)


def _several(argument: str, given: object, kind: type[T], remedy: str) -> list[T]:
    found: list[T] = []
    for one in given if isinstance(given, Iterable) and not isinstance(given, kind | str) else [given]:
        if not isinstance(one, kind):
            raise strange(argument, one, f"one {kind.__name__} or several", remedy)
        found.append(one)
    return found
