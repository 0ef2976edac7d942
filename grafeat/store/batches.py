"""Pictures, batch by batch: decoded here or in other processes, and on the GPU before they are needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from grafeat.pictures import Pictures, PictureSet, UnreadableError, as_floats
from grafeat.store.index import Rows


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pictures that follow each other, in one tensor: each takes a file descriptor on its way between processes.

    Attributes:
        rows: Their positions in the set: from, and up to but without.
        kept: Those that can be read (b, c, H, W), not scaled yet; where sizes differ, one after the other, flat. None
            if none can be read.
        shapes: The (c, H, W) of each, where sizes differ.
        unreadable: The positions of the others.
        refused: Why the run must end here: a file is no longer what it was. Raised in another process, it would end as
            the last line of a traceback.
    """

    rows: Rows
    kept: Tensor | None
    shapes: tuple[torch.Size, ...] = ()
    unreadable: tuple[int, ...] = ()
    refused: str | None = None

    @cached_property
    def pictures(self) -> Pictures | None:
        """Those that can be read, as floats in [0, 1] with three channels."""
        if self.kept is None:
            return None
        if not self.shapes:
            return as_floats(self.kept)
        flat = self.kept.split([shape.numel() for shape in self.shapes])
        return [as_floats(values.view(shape)) for values, shape in zip(flat, self.shapes, strict=True)]

    def pin_memory(self) -> "Batch":
        """The same in memory that a GPU reads by itself."""
        return self if self.kept is None else replace(self, kept=self.kept.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; from pinned memory, the copy goes on in the background."""
        return self if self.kept is None else replace(self, kept=self.kept.to(device, non_blocking=True))


class Batches(Dataset[Batch]):
    """The batches of a picture set, by number, for `DataLoader` and its processes.

    Args:
        pictures: The pictures.
        rows: Which of them make up each batch.
    """

    def __init__(self, pictures: PictureSet, rows: Sequence[Rows]) -> None:
        self.pictures, self.rows = pictures, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows[number]
        try:
            return self._readable(rows)
        except ValueError as error:
            return Batch(rows, None, refused=str(error))

    def _readable(self, rows: Rows) -> Batch:
        try:
            return self._read(rows, range(*rows))
        except UnreadableError:
            bad = tuple(row for row in range(*rows) if why_unreadable(self.pictures, row))
        return self._read(rows, [row for row in range(*rows) if row not in bad], bad)

    def _read(self, rows: Rows, good: Sequence[int], bad: tuple[int, ...] = ()) -> Batch:
        kept = self.pictures[good].kept if good else None
        if not isinstance(kept, list):
            return Batch(rows, kept, unreadable=bad)
        flat = torch.cat([picture.flatten() for picture in kept])
        return Batch(rows, flat, tuple(picture.shape for picture in kept), bad)


def why_unreadable(pictures: PictureSet, row: int) -> str | None:
    """Why the picture at a position cannot be read; None if it can.

    Raises:
        ValueError: If its file is no longer what it was.
    """
    try:
        _ = pictures[row].kept
    except UnreadableError as error:
        return str(error)
    return None


def loaded(batches: Batches, *, workers: int = 0, device: torch.device) -> Iterator[Batch]:
    """Every batch in its order, on the CPU, or on the GPU where it arrives while the one before is worked on.

    Args:
        batches: The batches.
        workers: Processes that decode files; 0 for this one.
        device: Where they are needed.
    """
    here: Iterable[Batch] = (batches[number] for number in range(len(batches)))
    if workers and len(batches) and batches.pictures.files == len(batches.pictures):
        # Started afresh, not forked: a forked process would hold the store's lock beyond its parent's death. The
        # generator keeps the global random state as it is.
        here = DataLoader(
            batches,
            batch_size=None,
            num_workers=min(workers, len(batches)),
            multiprocessing_context="spawn",
            generator=torch.Generator(),
        )
    return _sent_ahead(here, device) if device.type == "cuda" else iter(here)


def _sent_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Each batch on the GPU, sent there on a stream of its own before the one before it is worked on."""
    stream, ahead = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            sent = batch.pin_memory().to(device)
            arrived = stream.record_event()
        if ahead is not None:
            yield _received(*ahead, device)
        ahead = sent, arrived
    if ahead is not None:
        yield _received(*ahead, device)


def _received(batch: Batch, arrived: torch.cuda.Event, device: torch.device) -> Batch:
    working = torch.cuda.current_stream(device)
    working.wait_event(arrived)
    if batch.kept is not None:
        batch.kept.record_stream(working)  # its memory is not given away before the work on it is done
    return batch
