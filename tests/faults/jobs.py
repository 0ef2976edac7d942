"""What the processes do that the tests kill: extraction with tiny backbones, each computed batch noted; training."""

import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from grafeat import planted
from grafeat.backbones.backbone import Backbone
from grafeat.checkpoint import save
from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab import bench
from grafeat.lab.compare import compare
from grafeat.lab.task import Task
from grafeat.merge import GraFeatMerge
from grafeat.pictures import PictureSet
from grafeat.sharing import Share
from grafeat.store import extract, repairing
from grafeat.training import fit

COUNT, BATCH, SIDE = 131, 4, 12
WAYS = ["single", "concat", "ensemble", "merge"]


class Tiny(nn.Module):
    """One convolution with weights that follow from a seed."""

    def __init__(self, channels: int, side: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, channels, side, stride=side)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 7

    def forward(self, pictures: Tensor) -> Tensor:
        return self.conv(pictures)


class Noted(Backbone):
    """A backbone that writes its name into a file after each batch."""

    log: Path | None = None

    def __call__(self, pictures: Tensor, *, gradients: bool = False) -> FeatureGrid:
        grid = super().__call__(pictures, gradients=gradients)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{self.name}\n")
        return grid


def backbones(log: str | Path | None = None) -> list[Backbone]:
    made = [
        Noted(Tiny(17, 4, 0), name="lite", size=SIDE, tap=""),
        Noted(Tiny(31, 6, 1), name="vit", size=SIDE, tap=""),
    ]
    for backbone in made:
        backbone.log = None if log is None else Path(log)
    return made


def pictures() -> PictureSet:
    generator = torch.Generator().manual_seed(0)
    shown = torch.randint(256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return PictureSet(shown, torch.arange(COUNT) % 3, name="noise")


def extraction(store: str, log: str) -> None:
    extract(backbones(log), pictures(), store=store, batch_size=BATCH, progress=False)


def repair(store: str, log: str, meeting: str, process: int) -> None:
    """As `extraction`, by one of two processes that both find the damage before either does anything about it."""
    one, real = Process(process, 2, Path(meeting)), repairing.damages

    def met(folder: Path) -> object:
        found = real(folder)
        one.meet()
        repairing.damages = real  # in a process that does nothing else
        return found

    repairing.damages = met
    extract(backbones(log), pictures(), store=store, batch_size=BATCH, progress=False, repair=True)


class Process:
    """Stands for an accelerator: one of several processes on the CPU, which meet in a folder."""

    device = torch.device("cpu")

    def __init__(self, process: int, processes: int, meeting: Path) -> None:
        self.process_index, self.num_processes = process, processes
        self._meeting, self._times = meeting, 0

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """The sum of what all say."""
        return torch.tensor([json.loads(said) for said in self.meet(json.dumps(tensor.tolist()))]).sum(dim=0)

    def meet(self, saying: str = "") -> list[str]:
        """What all say, once all have come so far."""
        self._times += 1
        scratch = self._meeting / f"{self.process_index}"
        scratch.write_text(saying)
        scratch.rename(self._meeting / f"{self._times} {self.process_index}")
        while len(said := list(self._meeting.glob(f"{self._times} *"))) < self.num_processes:
            time.sleep(0.001)
        return [path.read_text() for path in said]


def shared_extraction(store: str, log: str, meeting: str, process: int, processes: int) -> None:
    """As `extraction`, by several processes, each of which runs this."""
    Share.wait = lambda share: share.engine.meet()  # in a process that does nothing else
    one = Process(process, processes, Path(meeting))
    extract(backbones(log), pictures(), store=store, batch_size=BATCH, progress=False, accelerator=one)


def digits() -> GridSet:
    """What the killed trainings learn from."""
    return planted.pointer(61, shape=(2, 3), channels=(3, 5))


def training(checkpoint: str, model: str, epochs: int) -> None:
    built = GraFeatMerge.for_grids(digits(), num_classes=4, width=12, heads=3, depth=1, components=3)
    fit(built, digits(), val=digits()[:17], epochs=epochs, batch_size=17, checkpoint=checkpoint, progress=False)
    save(built, model)


def comparison(folder: str, log: str, table: str, seeds: list[int]) -> None:
    """A comparison of two tasks that share trainings and one that does not; each training noted when it ends."""
    made = planted.pointer(61, shape=(2, 3), channels=(3, 5), num_classes=3).split(val=0.2, test=0.3)
    tasks = [Task("a", made), Task("b", made, measure="recall@5"), Task("few", made, per_class=5)]

    def noted(*sets: object, **options: object) -> object:
        history = fit(*sets, **options)
        with Path(log).open("a") as file:
            file.write("trained\n")
        return history

    bench.fit = noted  # in a process that does nothing else
    found = compare(tasks, WAYS, seeds=seeds, folder=folder, controls=False, epochs=2, progress=False)
    found.to_csv(table)
