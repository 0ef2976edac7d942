"""Grids on their way to disk: killed at any moment, they go on where they were.

A data file of the final size is laid out at once, so that a full disk shows before anything is computed. Each batch is
written where it belongs and then noted, with its checksum, in a journal. What the journal says is checked when a run
resumes, so that nothing depends on the order in which a disk settles. When all is there, an index takes the place of
the journal and the folder its final name: half a folder never has that name.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.files import settle, write
from grafeat.store.folder import DATA, INDEX, damaged, opened
from grafeat.store.index import Index, Piece, Rows, Shape, digest, gaps
from grafeat.store.journal import JOURNAL, journal_of, left_over, line_of, unfinished
from grafeat.store.lock import discard, is_still, locked, writing


class Writer:
    """The unfinished grids of one backbone, in the hand of this process alone.

    At most one batch waits for the disk at any time.

    Args:
        store: Where the folder will be.
        draft: The index without pieces; its shape is replaced by that of the first batch.
        waiting: Called once if another process has the lock, before this one waits for it.
        overlap: Whether a batch is written while the next one is computed. It is for a GPU, which would else wait.

    Attributes:
        resumed: Whether it goes on with what an earlier run has left.

    Raises:
        OSError: If the store cannot be written.
    """

    def __init__(
        self, store: Path, draft: Index, waiting: Callable[[], None], *, overlap: bool = False
    ) -> None:
        self._overlap = overlap
        self.folder = store / draft.folder
        self.part = unfinished(self.folder)
        self._index, self._laid_out = draft, False
        self._pieces: list[Piece] = []
        self._unreadable: list[int] = []
        self.resumed, self._fresh = False, False
        self._data = self._journal = -1
        self._disk = ThreadPoolExecutor(1, "grafeat-store")
        self._settled: Future[None] = self._disk.submit(lambda: None)
        try:
            with writing(self.part):
                self._data = locked(self.part, waiting)
                self._resume()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the folder; one that holds no batch goes, too."""
        self._disk.shutdown()
        if self._data >= 0 and self._fresh and not self._pieces and is_still(self._data, self.part / DATA):
            with contextlib.suppress(OSError):
                discard(self.part)
        for descriptor in (self._journal, self._data):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._journal = -1

    @property
    def missing(self) -> tuple[Rows, ...]:
        """The pictures that are not on disk yet, in runs."""
        return gaps(self._index.key.count, self._pieces)

    @property
    def shape(self) -> Shape | None:
        """Channels, rows and columns (c, h, w); None while no batch has shown them."""
        return self._index.shape if self._laid_out else None

    def put(self, rows: Rows, features: Float[Tensor, "b c h w"], unreadable: Sequence[int] = ()) -> None:
        """Writes a batch and notes it, so that the next run need not compute it again.

        When this returns, the batch outlives this process, and the batches before it a power cut. With `overlap` it is
        still being written: a kill can lose it, too, as long as neither the next call nor `settle` has returned.

        Args:
            rows: Its pictures: from, and up to but without.
            features: Their features, of the shape and type of all others.
            unreadable: Those pictures among them that could not be read.
        """
        with writing(self.part, features.nbytes):
            if not self._laid_out:
                self._lay_out(dataclasses.replace(self._index, shape=shape_of(features)))
            self._settled.result()
            if self._overlap:
                self._settled = self._disk.submit(self._note, rows, features, unreadable, settle=True)
            else:
                self._note(rows, features, unreadable)
                self._settled = self._disk.submit(self._settle)

    def settle(self) -> None:
        """Waits until all that was put is on the disk."""
        with writing(self.part):
            self._settled.result()

    def finish(self) -> None:
        """Gives the folder its final name, once every picture is there."""
        with writing(self.part):
            self._settled.result()
            if self.missing:
                raise ValueError(f"{self.part}: lacks pictures {self.missing}; expected all; put them first")
            write(self.part / INDEX, self._index.with_pieces(self._pieces, self._unreadable).encoded())
            self._sweep(DATA, INDEX)
            settle(self.part)
            self.part.rename(self.folder)
            settle(self.folder.parent)

    def _resume(self) -> None:
        """Takes over what an earlier run has left, as far as it is what that run wrote."""
        left = left_over(self.part, self._index)
        sound = left and left.without(set(damaged(self.part, left)))
        if sound is None or not sound.pieces:
            self._sweep(DATA)
            self._fresh = True
            return
        self._pieces, self._unreadable, self.resumed = list(sound.pieces), list(sound.unreadable), True
        self._reserve(sound)  # its length and its header may be damaged, too
        self._lay_out(sound)
        self._sweep(DATA, JOURNAL)

    def _lay_out(self, index: Index) -> None:
        if not self._pieces:
            self._reserve(index)
        write(self.part / JOURNAL, journal_of(index.with_pieces(self._pieces, self._unreadable)))
        self._journal = opened(self.part / JOURNAL, os.O_WRONLY | os.O_APPEND)
        self._index, self._laid_out = index, True

    def _reserve(self, index: Index) -> None:
        """Takes the room of the whole data file at once, and writes its header."""
        with writing(self.part, index.nbytes):
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._data, 0, index.nbytes)
            os.ftruncate(self._data, index.nbytes)
            _write_all(self._data, index.header, 0)

    def _note(
        self, rows: Rows, features: Tensor, unreadable: Sequence[int], *, settle: bool = False
    ) -> None:
        # Flat first: grids of 1×1 can pass for contiguous whatever their strides, and then have no view as bytes.
        data, index = features.reshape(-1).contiguous().view(torch.uint8).numpy().data, self._index
        _write_all(self._data, data, len(index.header) + rows[0] * index.row_nbytes)
        piece = Piece(*rows, digest(data))
        _write_all(self._journal, line_of(piece, unreadable))
        self._pieces.append(piece)
        self._unreadable += unreadable
        if settle:
            self._settle()

    def _settle(self) -> None:
        os.fsync(self._data)
        os.fsync(self._journal)

    def _sweep(self, *kept: str) -> None:
        """Removes what a killed run may have left beside its files."""
        for path in self.part.iterdir():
            if path.name not in kept:
                path.unlink()


def shape_of(features: Float[Tensor, "b c h w"]) -> Shape:
    """Channels, rows and columns of one picture's features."""
    c, h, w = features.shape[1:]
    return c, h, w


def check_shape(
    name: str, known: Shape | None, features: Float[Tensor, "b c h w"], row: int, *, resumed: bool
) -> None:
    """Raise unless features have the shape of those before.

    Args:
        name: The backbone's name.
        known: The shape of those before; None if there are none.
        features: The features.
        row: The first picture that they are of.
        resumed: Whether an earlier run has left those before.

    Raises:
        ValueError: If they have another.
    """
    if known in (None, shape_of(features)):
        return
    if resumed:
        raise ValueError(
            f"store: backbone {name!r} gave {known} in a run that was stopped, and now {shape_of(features)} from "
            f"picture {row} on; expected one grid (c, h, w) for all; give the backbone a size= if the pictures differ "
            "in size, else remove what that run has left: GridStore(store).prune(unfinished=True)"
        )
    raise ValueError(
        f"pictures: backbone {name!r} gave {known}, then {shape_of(features)} from picture {row} on, as the "
        "pictures differ in size; expected one grid (c, h, w) for all; give the backbone a size="
    )


def _write_all(descriptor: int, data: bytes | memoryview, offset: int | None = None) -> None:
    rest = memoryview(data)
    while rest:
        done = os.write(descriptor, rest) if offset is None else os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], None if offset is None else offset + done
