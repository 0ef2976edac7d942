"""A trained model as one file, with everything that it takes to build it again."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grafeat.files import read_tensors, write_tensors
from grafeat.merge import GraFeatMerge, MergeConfig


def save(model: GraFeatMerge, path: str | Path) -> Path:
    """Saves a model as one safetensors file, with its configuration and a checksum in the header.

    The file appears at once: if saving fails, an old file of that name is still there, whole.

    Args:
        model: The model.
        path: The file, by custom `….safetensors`.

    Returns:
        The path.

    Raises:
        TypeError: If it is no `GraFeatMerge`.
        OSError: If the file cannot be written, say because the disk is full.
    """
    if not isinstance(model, GraFeatMerge):
        raise TypeError(f"model: got {type(model).__name__}; expected a GraFeatMerge; save the model itself")
    return write_tensors(path, model.state_dict(), kind="model", about={"config": asdict(model.config)})


def load(path: str | Path, *, device: torch.device | str = "cpu") -> GraFeatMerge:
    """Builds a saved model again; it gives the same logits to the bit. Nothing in the file is executed.

    Args:
        path: A file that `save` wrote.
        device: Where the model goes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickle, truncated, damaged in any byte, foreign, or does not fit its own configuration.
    """
    tensors, about = read_tensors(path, kind="model")
    try:
        with torch.device("meta"):  # initial weights would only be replaced
            model = GraFeatMerge(_config(about["config"], tensors))
        copies = {name: tensor.clone() for name, tensor in tensors.items()}  # the file may go
        model.load_state_dict(copies, assign=True)  # in the type in which they were saved
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")  # torch lists every tensor, line by line
        raise ValueError(
            f"path: {path} is damaged or from another version ({reason}); expected weights and a configuration that "
            "fit each other; save the model anew"
        ) from error
    return model.to(device).eval()


def _config(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MergeConfig:
    """The configuration in a header, once it is known to be no larger than the weights beside it."""
    fields = {**said, "classes": tuple(said["classes"])}
    fields["backbones"] = tuple((name, channels) for name, channels in said["backbones"])
    numbers = [channels for _, channels in fields["backbones"]]
    numbers += [number for number in said.values() if isinstance(number, int)]
    if said["depth"] > len(tensors) or max(numbers) > sum(tensor.numel() for tensor in tensors.values()):
        raise ValueError("the configuration is of a larger model than the weights")
    return MergeConfig(**fields)
