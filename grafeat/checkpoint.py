"""A trained model as one file, with everything that it takes to build it again."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from grafeat.config import MergeConfig
from grafeat.files import read_tensors, write_tensors
from grafeat.fusion import Committee, MixConfig, Mixer, list_ways
from grafeat.merge import GraFeatMerge
from grafeat.models import MEANING, GridModel

KINDS = {way.kind.__name__: way.kind for way in list_ways()}


def save(model: GridModel, path: str | Path) -> Path:
    """Saves a model as one safetensors file, with its configuration and a checksum in the header.

    The file appears at once: if saving fails, an old file of that name is still there, whole.

    Args:
        model: A `GraFeatMerge`, or what else `mix` makes.
        path: The file, by custom `….safetensors`.

    Returns:
        The path.

    Raises:
        TypeError: If it is no such model.
        OSError: If the file cannot be written, say because the disk is full.
    """
    kind = type(model).__name__
    if KINDS.get(kind) is not type(model):
        raise TypeError(
            f"model: got {kind}; expected a GraFeatMerge, or another that gf.mix makes; save the model itself"
        )
    return write_tensors(path, model.state_dict(), kind="model", about={"meaning": MEANING, **_about(model)})


def load(path: str | Path, *, device: torch.device | str = "cpu") -> GridModel:
    """Builds a saved model again; it gives the same logits to the bit. Nothing in the file is executed.

    Args:
        path: A file that `save` wrote.
        device: Where the model goes.

    Returns:
        The model in `eval`, of the kind that was saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickle, truncated, damaged in any byte, foreign, does not fit its own configuration, or
            is from a version in which the same weights said something else.
    """
    tensors, about = read_tensors(path, kind="model")
    try:
        if about.get("meaning") != MEANING:
            raise ValueError("in which the same weights said something else")
        with torch.device("meta"):  # initial weights would only be replaced
            model = _built(about, tensors)
        copies = {name: tensor.clone() for name, tensor in tensors.items()}  # the file may go
        model.load_state_dict(copies, assign=True)  # in the type in which they were saved
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")  # torch lists every tensor, line by line
        raise ValueError(
            f"path: {path} is damaged or from another version ({reason}); expected weights and a configuration that "
            "fit each other; save the model anew"
        ) from error
    return model.to(device).eval()


def _about(model: GridModel) -> dict[str, Any]:
    """What a header says: a merge's configuration alone; of another model its kind, too."""
    if isinstance(model, GraFeatMerge):
        return {"config": asdict(model.config)}
    kind = type(model).__name__
    if isinstance(model, Committee):
        return {"type": kind, "members": [[name, asdict(member.config)] for name, member in model.members.items()]}
    return {"type": kind, "config": asdict(cast(Mixer, model).config)}


def _built(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GridModel:
    """A model as the header says, without its weights."""
    kind = KINDS[about.get("type", GraFeatMerge.__name__)]
    if issubclass(kind, Committee):
        return kind({name: GraFeatMerge(_merge_config(said, tensors)) for name, said in about["members"]})
    if issubclass(kind, Mixer):
        return kind.of(_mix_config(about["config"], tensors))
    return GraFeatMerge(_merge_config(about["config"], tensors))


def _merge_config(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MergeConfig:
    """The configuration in a header, once it is known to be no larger than the weights beside it."""
    fields = _tuples(said)
    numbers = [channels for _, channels in fields["backbones"]]
    numbers += [number for name, number in said.items() if isinstance(number, int) and name != "components"]
    if said["depth"] > len(tensors) or max(numbers) > sum(tensor.numel() for tensor in tensors.values()):
        raise ValueError("the configuration is of a larger model than the weights")
    return MergeConfig(**fields)


def _mix_config(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MixConfig:
    fields = _tuples(said)
    if said["depth"] > max(len(tensors), MixConfig.depth):
        raise ValueError("the configuration is of a larger model than the weights")
    return MixConfig(**{**fields, "grid": tuple(said["grid"])})


def _tuples(said: Mapping[str, Any]) -> dict[str, Any]:
    backbones = tuple((name, channels) for name, channels in said["backbones"])
    return {**said, "backbones": backbones, "classes": tuple(said["classes"])}
