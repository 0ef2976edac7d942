"""A training on its way: what it has seen so far, and the file from which a run that was killed goes on."""

import copy
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from grafeat.files import read_tensors, write_tensors
from grafeat.grids import GridSet
from grafeat.models import MEANING, GridModel

KIND = "training"


@dataclass(frozen=True)
class Epoch:
    """One row of a `History`.

    Attributes:
        train_loss: Mean training loss, in nats.
        val_loss: Cross-entropy on the validation pictures, in nats, before a merge is calibrated; None without them.
        val_accuracy: Accuracy on the validation pictures, in [0, 1]; None without them.
        learning_rate: Learning rate at the end of the epoch.
    """

    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class History:
    """What `fit` saw.

    Attributes:
        epochs: One row for each epoch.
        best: The epoch, from 0, whose weights the model now has.
        seconds: Duration of the training; of one that was interrupted, of all its pieces.
        members: What was seen of each member of a committee, by its backbone's name; it has no epochs of its own then.
    """

    epochs: tuple[Epoch, ...]
    best: int
    seconds: float
    members: Mapping[str, "History"] = field(default_factory=dict)

    def __repr__(self) -> str:
        if self.members:
            lines = [f"  {name}: {history!r}" for name, history in self.members.items()]
            return "\n".join([f"History: {len(lines)} members in {self.seconds:.1f} s", *lines])
        row = self.epochs[self.best]
        val = "" if row.val_accuracy is None else f", validation accuracy {row.val_accuracy:.1%}"
        return (
            f"History: {len(self.epochs)} epochs in {self.seconds:.1f} s; kept epoch {self.best + 1}: "
            f"training loss {row.train_loss:.3f}{val}"
        )


@dataclass(eq=False)
class Run:
    """All that the next epoch depends on.

    Attributes:
        model: The model that learns.
        averaged: The moving average of its weights, which is what is kept.
        optimiser: Its AdamW.
        schedule: The learning rate's way.
        settings: What must be the same for a run to go on.
        rows: The epochs so far.
        best: The best of them, from 0.
        lowest: Its loss on validation.
        kept: The model's state after it.
        seconds: Duration of the epochs so far.
    """

    model: GridModel
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    settings: Mapping[str, Any]
    rows: list[Epoch] = field(default_factory=list)
    best: int = 0
    lowest: float = math.inf
    kept: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def teacher(self) -> GridModel:
        """The model with the average of its weights."""
        return cast(GridModel, self.averaged.module)

    def add(self, row: Epoch) -> None:
        """One more epoch; the model's state is kept if it is the best so far, or if nothing can be told."""
        if math.isnan(row.train_loss):
            raise ValueError(
                f"train: the loss is no number in epoch {len(self.rows) + 1}; expected finite grids and a learning "
                "rate at which training settles; check the grids for NaN, or lower learning_rate"
            )
        self.rows.append(row)
        score = math.inf if row.val_loss is None else row.val_loss
        if score <= self.lowest:  # without validation the last epoch stays
            self.best, self.lowest = len(self.rows) - 1, score
            self.kept = copy.deepcopy(self.teacher.state_dict())

    def save(self, path: str | Path) -> None:
        """Writes the run as it stands after a whole epoch: at once, so that there is always one to go on from."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        tensors |= {f"kept.{name}": value for name, value in self.kept.items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in values.items()
            }
        tensors["random"] = torch.default_generator.get_state()
        if self.model.device.type == "cuda":
            tensors["random cuda"] = torch.cuda.get_rng_state(self.model.device)
        about = {
            "settings": dict(self.settings),
            "schedule": {n: self.schedule.state_dict()[n] for n in ("last_epoch", "_step_count", "_last_lr")},
            "rows": [dataclasses.astuple(row) for row in self.rows],
            "best": self.best,
            "lowest": None if math.isinf(self.lowest) else self.lowest,
            "seconds": self.seconds,
        }
        write_tensors(path, tensors, kind=KIND, about=about)

    def restore(self, path: str | Path) -> None:
        """Goes back to where a run stood that was saved.

        Raises:
            ValueError: If the file is damaged, or of a run with other settings or other pictures.
        """
        tensors, about = read_tensors(path, kind=KIND)
        self._check(path, about.get("settings", {}))
        try:
            self.model.load_state_dict(_part(tensors, "model."))
            self.averaged.load_state_dict(_part(tensors, "averaged."))
            self.kept = _part(tensors, "kept.")
            found: dict[int, dict[str, Tensor]] = {}
            for name, value in _part(tensors, "optimiser.").items():
                number, which = name.split(".", 1)
                found.setdefault(int(number), {})[which] = value
            self.schedule.load_state_dict({**self.schedule.state_dict(), **about["schedule"]})
            groups = self.optimiser.state_dict()["param_groups"]
            for group, rate in zip(groups, self.schedule.get_last_lr(), strict=True):
                group["lr"] = rate
            self.optimiser.load_state_dict({"state": found, "param_groups": groups})
            self.rows = [Epoch(*row) for row in about["rows"]]
            self.best, lowest = int(about["best"]), about["lowest"]
            self.lowest = math.inf if lowest is None else float(lowest)
            self.seconds = float(about["seconds"])
            torch.default_generator.set_state(tensors["random"])
            if "random cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random cuda"], self.model.device)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"checkpoint: {path} is damaged or from another version ({error}); expected what fit kept; remove it "
                "to train anew"
            ) from error

    def _check(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        for name, here in self.settings.items():
            if settings.get(name) != here:
                raise ValueError(
                    f"checkpoint: {path} is of a run with {name} {settings.get(name)!r}; this one has {here!r}; "
                    "expected the same settings and pictures; name another file, or remove it to train anew"
                )


def clear_remains(path: str | Path) -> None:
    """Removes what a run that was killed while it wrote this checkpoint left beside it."""
    scratch = re.compile(rf"\.{re.escape(Path(path).name)}\.[0-9a-f]{{8}}\.part")
    folder = Path(path).parent
    for part in folder.iterdir() if folder.is_dir() else ():
        if scratch.fullmatch(part.name):
            part.unlink(missing_ok=True)


def described(model: GridModel) -> str:
    """What kind of model it is: its configuration, what its parameters mean, and their shapes; not their numbers."""
    config = getattr(model, "config", None)
    shapes = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    digest = hashlib.sha256(json.dumps([MEANING, shapes]).encode()).hexdigest()[:16]
    return f"{type(model).__name__} {'' if config is None else config} {digest}"


def fingerprint(grids: GridSet) -> str:
    """What tells a set from others at no cost: names, shapes, labels, and the first and last picture's features."""
    digest = hashlib.sha256()
    ends = grids[[0, len(grids) - 1]]
    for grid in ends.grids:
        digest.update(f"{grid.name} {tuple(grid.features.shape)} {grid.field}".encode())
        digest.update(grid.features.detach().float().cpu().contiguous().numpy().tobytes())
    if grids.labels is not None:
        digest.update(grids.labels.cpu().numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning; copies, as the file may be written anew."""
    return {
        name.removeprefix(start): value.clone() for name, value in tensors.items() if name.startswith(start)
    }
