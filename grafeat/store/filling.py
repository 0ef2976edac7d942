"""Each picture once through each backbone that lacks it, and the grids to where they belong."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from grafeat.backbones.backbone import Backbone
from grafeat.grids import FeatureGrid
from grafeat.pictures import PictureSet
from grafeat.store.batches import Batch, Batches, loaded, why_unreadable
from grafeat.store.index import Rows, Shape, cut
from grafeat.store.joining import Blocks
from grafeat.store.writer import Writer, check_shape, shape_of


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of an extraction, besides the backbones; as the arguments of `extract`."""

    pictures: PictureSet
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    progress: bool
    workers: int
    skip_unreadable: bool

    @property
    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The arithmetic that the backbones run in."""
        if self.device.type == "cuda" and self.dtype in (torch.float16, torch.bfloat16):
            return torch.autocast("cuda", dtype=self.dtype)
        return contextlib.nullcontext()

    def refuse(self, row: int) -> None:
        """Raise what reading the picture at a position raised.

        Raises:
            ValueError: That error.
        """
        now = (
            f"pictures: {self.pictures.origin(row)} can be read now, but could not before; expected the same each "
            "time; extract again, with repair=True"
        )
        raise ValueError(why_unreadable(self.pictures, row) or now)


class Memory:
    """The grids of one backbone in memory; a sink."""

    resumed = False

    def __init__(self, count: int) -> None:
        self.missing: tuple[Rows, ...] = ((0, count),)
        self.shape: Shape | None = None
        self.features = torch.empty(count, 0, 0, 0)
        self.unreadable: tuple[int, ...] = ()

    def put(
        self, rows: Rows, features: Float[Tensor, "b c h w"], unreadable: Sequence[int] = ()
    ) -> None:
        """Takes the features of some pictures."""
        if self.shape is None:
            self.shape = shape_of(features)
            self.features = features.new_empty(len(self.features), *self.shape)
        self.features[slice(*rows)] = features
        self.unreadable += tuple(unreadable)


Sink = Memory | Writer | Blocks  # where the grids of one backbone go


def fill(work: Sequence[tuple[Backbone, Sink]], task: Task, *, partly: bool = False) -> None:
    """Shows each backbone what its sink lacks; a batch that several lack is read once.

    Args:
        work: The backbones, each with what takes its features.
        task: What is asked.
        partly: Whether the sinks are for some of the pictures. If none of those can be read, so that the shape of the
            grids is not known, their sink goes on lacking them.
    """
    takers = defaultdict(list)
    for backbone, sink in work:
        backbone.to(task.device)
        for rows in cut(sink.missing, task.batch_size):
            takers[rows].append((backbone, sink))
    empty: list[Batch] = []
    with _bar(0 if partly else len(task.pictures), list(takers), task.progress) as bar:
        batches = Batches(task.pictures, sorted(takers))
        for batch in loaded(batches, workers=task.workers, device=task.device):
            if batch.refused:
                raise ValueError(batch.refused)
            if batch.unreadable and not task.skip_unreadable:
                task.refuse(batch.unreadable[0])
            if batch.pictures is None:
                empty.append(batch)
                continue
            for backbone, sink in takers[batch.rows]:
                sink.put(batch.rows, _features(backbone, sink, batch, task), batch.unreadable)
            bar.update(batch.rows[1] - batch.rows[0])
    for batch in empty:  # last, when it is known how large a grid of zeros is
        for _, sink in takers[batch.rows]:
            if sink.shape is not None:
                sink.put(batch.rows, _spread(torch.empty(0, *sink.shape, dtype=task.dtype), batch), batch.unreadable)
            elif not partly:
                task.refuse(batch.unreadable[0])


def _features(backbone: Backbone, sink: Sink, batch: Batch, task: Task) -> Float[Tensor, "b c h w"]:
    """The features of a batch in the type in which they are kept."""
    if batch.pictures is None:
        raise ValueError(f"pictures: none of {batch.rows} can be read; expected at least one; skip the batch")
    with task.autocast:
        grid = backbone(batch.pictures)
    kept = FeatureGrid(grid.name, grid.features.to(dtype=task.dtype, device="cpu"), grid.field).features
    check_shape(grid.name, sink.shape, kept, batch.rows[0], resumed=sink.resumed)
    return _spread(kept, batch) if batch.unreadable else kept


def _spread(kept: Float[Tensor, "readable c h w"], batch: Batch) -> Float[Tensor, "b c h w"]:
    """The features of all pictures of a batch, with zeros for those that cannot be read."""
    start, stop = batch.rows
    whole = kept.new_zeros(stop - start, *kept.shape[1:])
    whole[[row - start for row in range(start, stop) if row not in batch.unreadable]] = kept
    return whole


def _bar(count: int, rows: Sequence[Rows], progress: bool) -> tqdm:
    """A bar over all pictures, those that were there already done; of its own, it says the rate and the time left."""
    todo = sum(stop - start for start, stop in rows)
    hidden = not progress or not todo
    return tqdm(
        total=max(count, todo), initial=max(0, count - todo), desc="extract", unit="picture", disable=hidden
    )
