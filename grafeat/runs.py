"""A training on its way: what it has seen so far, and the file from which a run that was killed goes on."""

import copy
import dataclasses
import hashlib
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from grafeat.files import check_writable, read_tensors, write_tensors
from grafeat.identity import WEIGHTS, alike
from grafeat.models import MEANING, GridModel
from grafeat.sharing import Share

KIND = "training"
CUDA = "random cuda"


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
        kept: The model's state after the best of them; empty where none can be told.
        seconds: Duration of the epochs so far.
    """

    model: GridModel
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    settings: Mapping[str, Any]
    rows: list[Epoch] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def teacher(self) -> GridModel:
        """The model with the average of its weights."""
        return cast(GridModel, self.averaged.module)

    @property
    def best(self) -> int | None:
        """The epoch, from 0, whose loss on validation is lowest; without validation the last; None if none is known."""
        return _best(self.rows)

    def add(self, row: Epoch) -> None:
        """One more epoch; the model's state is kept if it is the best so far."""
        if math.isnan(row.train_loss):
            raise ValueError(
                f"train: the loss is no number in epoch {len(self.rows) + 1}; expected finite grids and a learning "
                "rate at which training settles; check the grids for NaN, or lower learning_rate"
            )
        self.rows.append(row)
        if self.best == len(self.rows) - 1:
            self.kept = copy.deepcopy(self.teacher.state_dict())

    def go_on(self, checkpoint: Path, share: Share) -> int:
        """Goes on from a checkpoint, if there is one; how many epochs it had.

        Raises:
            ValueError: If it is damaged or of another run, or if the processes find different ones.
            OSError: If it could not be written after the next epoch.
        """
        if checkpoint.is_file():
            self.restore(checkpoint)
        epochs = len(self.rows)
        if share.process == 0 and epochs < self.settings["epochs"]:
            check_writable(checkpoint)
        # The mean comes when all have read what the first is to write anew.
        if float(share.mean(torch.tensor(float(epochs), device=self.model.device))) != epochs:
            raise ValueError(
                f"checkpoint: process {share.process} found {epochs} epochs in {checkpoint}, others another number; "
                "expected one file that all processes see; put it into a folder that they share"
            )
        return epochs

    def save(self, path: str | Path) -> None:
        """Writes the run as it stands after a whole epoch: at once, so that there is always one to go on from."""
        tensors = self._state() | _named("kept.", self.kept)
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= _named(f"optimiser.{number}.", {name: torch.as_tensor(value) for name, value in values.items()})
        if self.model.device.type == "cuda":
            tensors[CUDA] = torch.cuda.get_rng_state(self.model.device)
        rows = [dataclasses.astuple(row) for row in self.rows]
        about = {"settings": dict(self.settings), "rows": rows, "seconds": self.seconds}
        write_tensors(path, tensors, kind=KIND, about=about)

    def restore(self, path: str | Path) -> None:
        """Goes back to where a run stood that was saved. Nothing is changed until all of the file is known to fit.

        Raises:
            ValueError: If the file is damaged, of another recipe, or of a run with other settings, pictures or initial
                weights.
        """
        tensors, about = read_tensors(path, kind=KIND)
        self._check_settings(path, about.get("settings"))
        try:
            rows, seconds = self._rows(about["rows"]), _number(about["seconds"])
            state = self._checked(tensors, len(rows) * self.settings["steps"], kept=_best(rows) is not None)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" …")
            raise ValueError(
                f"checkpoint: {path} is damaged or from another version ({reason}); expected what fit kept; remove it "
                "to train anew"
            ) from error
        self.rows, self.seconds, self.kept = rows, seconds, _part(tensors, "kept.")
        self.model.load_state_dict(_part(tensors, "model."))
        self.averaged.load_state_dict(_part(tensors, "averaged."))
        self._set_optimiser(state, len(rows) * self.settings["steps"])
        torch.default_generator.set_state(tensors["random"])
        if self.model.device.type == "cuda" and CUDA in tensors:  # on another device than before, draws are others
            torch.cuda.set_rng_state(tensors[CUDA], self.model.device)

    def _state(self) -> dict[str, Tensor]:
        """What the file of any run has."""
        both = _named("model.", self.model.state_dict()) | _named("averaged.", self.averaged.state_dict())
        return both | {"random": torch.default_generator.get_state()}

    def _check_settings(self, path: str | Path, said: object) -> None:
        found = said if isinstance(said, Mapping) else {}
        if found.get("recipe") != self.settings.get("recipe"):
            raise ValueError(
                f"checkpoint: {path} is from another version, which trains otherwise (recipe {found.get('recipe')!r}, "
                f"here {self.settings.get('recipe')!r}); expected a run of this version; remove it to train anew"
            )
        for name, here in self.settings.items():
            if name != WEIGHTS and found.get(name) != here:
                raise ValueError(
                    f"checkpoint: {path} is of a run with {name} {found.get(name)!r}; this one has {here!r}; "
                    "expected the same settings and pictures; name another file, or remove it to train anew"
                )
        if not alike(found.get(WEIGHTS), self.settings[WEIGHTS]):
            raise ValueError(
                f"checkpoint: {path} is of a run that began with other weights; expected the model as it was before "
                "that run, not trained since; make it anew in the same way, or name another file"
            )

    def _rows(self, said: object) -> list[Epoch]:
        if not isinstance(said, list) or not 1 <= len(said) <= self.settings["epochs"]:
            raise ValueError("its epochs are too few or too many")
        validated = self.settings["validation pictures"] is not None
        return [_row(numbers, validated=validated) for numbers in said]

    def _checked(self, tensors: Mapping[str, Tensor], steps: int, *, kept: bool) -> dict[int, dict[str, Tensor]]:
        """The optimiser's state in a file's tensors, once all of these are known to be of this run after some steps."""
        expected = self._state() | (_named("kept.", self.teacher.state_dict()) if kept else {})
        others = {name for name in tensors if name.startswith("optimiser.")}
        _check_forms({name: tensors[name] for name in tensors.keys() - others - {CUDA}}, expected)
        if int(tensors["averaged.n_averaged"]) != steps:
            raise ValueError(f"its average is not that of {steps} steps")
        torch.Generator().set_state(tensors["random"])
        if self.model.device.type == "cuda" and CUDA in tensors:
            torch.Generator(self.model.device).set_state(tensors[CUDA])
        found = {}
        for number, parameter in enumerate(self.model.parameters()):
            state = _part(tensors, f"optimiser.{number}.")
            if state:  # there is none of a parameter that nothing has used yet
                _check_forms(state, {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter})
                if not 0 < float(state["step"]) <= steps:
                    raise ValueError(f"its optimiser was not at work for {steps} steps")
                found[number] = state
        if not found or sum(map(len, found.values())) != len(others):
            raise ValueError("its optimiser is of other parameters")
        return found

    def _set_optimiser(self, state: Mapping[int, Mapping[str, Tensor]], steps: int) -> None:
        """Optimiser and learning rate as they are after some steps."""
        schedule = self.schedule
        rates = [base * factor(steps) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        at = {"last_epoch": steps, "_step_count": steps + 1, "_last_lr": rates}
        schedule.load_state_dict({**schedule.state_dict(), **at})
        groups = self.optimiser.state_dict()["param_groups"]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


def described(model: GridModel) -> str:
    """What kind of model it is: its configuration, what its parameters mean, and their shapes; not their numbers."""
    config = getattr(model, "config", None)
    shapes = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    digest = hashlib.sha256(json.dumps([MEANING, shapes]).encode()).hexdigest()[:16]
    return f"{type(model).__name__} {'' if config is None else config} {digest}"


def _best(rows: Sequence[Epoch]) -> int | None:
    scores = [math.inf if row.val_loss is None else row.val_loss for row in rows]
    told = [(score, -number) for number, score in enumerate(scores) if not math.isnan(score)]
    return -min(told)[1] if told else None


def _row(said: Any, *, validated: bool) -> Epoch:
    train_loss, val_loss, val_accuracy, learning_rate = said
    if validated:
        return Epoch(_number(train_loss), _number(val_loss, nan=True), _number(val_accuracy), _number(learning_rate))
    if (val_loss, val_accuracy) != (None, None):
        raise ValueError("its epochs were validated, though there is nothing to validate on")
    return Epoch(_number(train_loss), None, None, _number(learning_rate))


def _number(said: object, *, nan: bool = False) -> float:
    """A number of 0 or more, or NaN where that may be."""
    if not isinstance(said, float) or not (said >= 0 or (nan and math.isnan(said))):
        raise ValueError(f"{said!r} in place of a number")
    return said


def _check_forms(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """That tensors are those expected, by name, shape and type."""
    forms = [{name: (value.shape, value.dtype) for name, value in each.items()} for each in (found, expected)]
    wrong = sorted(name for name in forms[0].keys() | forms[1].keys() if forms[0].get(name) != forms[1].get(name))
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not that of this model")


def _named(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with names that begin so."""
    return {f"{start}{name}": value for name, value in tensors.items()}


def _part(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning; copies, as the file may be written anew."""
    return {
        name.removeprefix(start): value.clone() for name, value in tensors.items() if name.startswith(start)
    }
