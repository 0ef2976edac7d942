"""Pictures, batch by batch: decoded here or in other processes, and on the GPU before they are needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from grafeat.pictures import Pictures, PictureSet
from grafeat.store.index import Rows


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pictures that follow each other.

    Attributes:
        rows: Their positions in the set: from, and up to but without.
        pictures: Those that can be read; None if none can.
        unreadable: The positions of the others.
    """

    rows: Rows
    pictures: Pictures | None
    unreadable: tuple[int, ...] = ()

    def pin_memory(self) -> "Batch":
        """The same in memory that a GPU reads by itself."""
        return self._with([picture.pin_memory() for picture in self._tensors])

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; from pinned memory, the copy goes on in the background."""
        return self._with([picture.to(device, non_blocking=True) for picture in self._tensors])

    @property
    def _tensors(self) -> Sequence[Tensor]:
        return [self.pictures] if isinstance(self.pictures, Tensor) else self.pictures or []

    def _with(self, moved: list[Tensor]) -> "Batch":
        return replace(self, pictures=moved[0] if isinstance(self.pictures, Tensor) else moved or None)


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
        start, stop = self.rows[number]
        try:
            return Batch((start, stop), self.pictures[start:stop].pictures)
        except ValueError:
            bad = tuple(row for row in range(start, stop) if why_unreadable(self.pictures, row))
        good = [row for row in range(start, stop) if row not in bad]
        return Batch((start, stop), self.pictures[good].pictures if good else None, bad)


def why_unreadable(pictures: PictureSet, row: int) -> str | None:
    """Why the picture at a position cannot be read; None if it can."""
    try:
        _ = pictures[row].pictures
    except ValueError as error:
        return str(error)
    return None


def loaded(batches: Batches, *, workers: int = 0, device: torch.device) -> Iterator[Batch]:
    """Every batch in its order, on the CPU, or on the GPU where it arrives while the one before is worked on.

    Args:
        batches: The batches.
        workers: Processes that decode; 0 for this one.
        device: Where they are needed.
    """
    here: Iterable[Batch] = (batches[number] for number in range(len(batches)))
    if workers and len(batches):
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
    for picture in batch._tensors:
        picture.record_stream(working)  # its memory is not given away before the work on it is done
    return batch
