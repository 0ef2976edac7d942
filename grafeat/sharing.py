"""Several processes at one work, on several GPUs or machines: which part of it is whose."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from grafeat.arguments import strange
from grafeat.splits import Rows

PATIENCE = timedelta(days=30)


@runtime_checkable
class Engine(Protocol):
    """What is needed of Hugging Face's `accelerate.Accelerator`: pass one of those."""

    device: Any
    process_index: int
    num_processes: int

    def reduce(self, tensor: Any, reduction: str) -> Any:
        """The sum or the mean of a tensor over the processes."""
        ...


@dataclass(frozen=True, eq=False)
class Share:
    """One process's part of the work; alone, all of it.

    In training, every process draws for the whole batch from the same seed and takes its own rows of what was drawn.
    So a training by several is that of one, but for the order in which numbers are summed. All make theirs at the same
    time, before the work: there they agree on where to wait for each other, which who is dead cannot do any more.

    Attributes:
        engine: An `accelerate.Accelerator`; None for a process that is alone.

    Raises:
        TypeError: If the engine is something else.
    """

    engine: Engine | None = None

    def __post_init__(self) -> None:
        if self.engine is not None and not isinstance(self.engine, Engine):
            raise strange("accelerator", self.engine, "an accelerate.Accelerator", "name a device with device=")
        if self.engine is not None and self.processes > 1 and torch.distributed.is_initialized():
            self.mean(torch.zeros((), device=self.engine.device))  # impatient: all are here, or it is an error
            _patient(torch.distributed.group.WORLD)

    @property
    def process(self) -> int:
        """This process's number, from 0."""
        return self.engine.process_index if self.engine else 0

    @property
    def processes(self) -> int:
        """How many there are."""
        return self.engine.num_processes if self.engine else 1

    def rows(self, rows: Rows) -> Rows:
        """The rows of a batch that are this process's; one that counts for nothing where there are too few."""
        own = rows[self.process :: self.processes]
        return own if len(own) else rows[:1]

    def weight(self, count: int) -> float:
        """Weight of each of this process's rows of `count` in its loss, so that the mean over processes is right."""
        return self.processes / count if self.process < count else 0.0

    def wrapped(self, model: nn.Module) -> Any:
        """The model as it is called in training."""
        if self.engine is None:
            return model
        precision = getattr(self.engine, "mixed_precision", "no")
        if precision != "no":
            raise ValueError(
                f"accelerator: got mixed_precision={precision!r}; expected 'no', as fit chooses itself where "
                "bfloat16 is safe; make it without"
            )
        if self.processes == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        here = [self.engine.device] if self.engine.device.type == "cuda" else None
        # A backbone that is dropped leaves parameters without a gradient.
        return DistributedDataParallel(model, device_ids=here, find_unused_parameters=True)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        return value if self.engine is None else self.engine.reduce(value, reduction="mean")

    def wait(self) -> None:
        """Until all have come so far, however long one of them needs; at once with an error if one dies."""
        if self.engine is not None and self.processes > 1:
            torch.distributed.barrier(group=_patient(torch.distributed.group.WORLD))


@cache
def _patient(world: object) -> Any:
    """All processes of a group, as one that does not give up after some minutes; what one does alone may take hours."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
