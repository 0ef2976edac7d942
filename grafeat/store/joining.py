"""Grids that several processes compute, each some blocks of the pictures, joined to what one would have written.

The blocks do not depend on the number of processes, so that a run of any number goes on with what another has left.
Each block is an unfinished folder of its own, in a folder beside that of the whole. Whoever completes the whole takes
over what such folders hold, as far as its checksums agree, and then removes them. Until then a lock, which all
processes share that work at them, says that they are in use.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.store.contents import LOCK, PART, PARTS, is_own
from grafeat.store.folder import DATA, DamageError, damage_error, opened, refusals
from grafeat.store.index import DTYPES, Index, Piece, Rows, Shape, digest, gaps
from grafeat.store.journal import left_over, read_unfinished, unfinished
from grafeat.store.lock import discard, locked, writing
from grafeat.store.writer import Writer, check_shape, shape_of

BLOCKS = 64  # enough for an even share of up to some dozens of processes, few enough for a folder each
OF_WHOLE = re.compile(r"(.*)\[([0-9]+):([0-9]+) of ([0-9]+)\]", re.DOTALL)


def blocks(count: int, batch_size: int) -> list[Rows]:
    """The pictures in runs of whole batches, so that they are computed in the batches in which one process would.

    Args:
        count: Pictures.
        batch_size: Pictures in a batch.
    """
    batches = math.ceil(count / batch_size)
    number = min(BLOCKS, batches)
    ends = [min(count, batch_size * (batches * block // number)) for block in range(number + 1)]
    return list(itertools.pairwise(ends))


def parts_of(folder: Path) -> Path:
    """Where the parts of the grids of a folder are."""
    return folder.with_name(f"{folder.name}{PARTS}")


@dataclass(frozen=True)
class Part:
    """What is there of a block of pictures.

    Args:
        path: Its folder.
        index: What that says of itself.
        whole: What it is a part of; its pieces are those that this part has.
    """

    path: Path
    index: Index
    whole: Index


def parts_in(folder: Path) -> Iterator[Part]:
    """The parts in a folder that say what they are.

    Raises:
        DamageError: If the folder is a link.
    """
    if folder.is_symlink():
        raise damage_error(folder, "a link, which could lead out of the store, is refused")
    for path in sorted(folder.glob(f"*{PART}")):
        with contextlib.suppress(FileNotFoundError, ValueError):
            index = read_unfinished(path)
            pictures, start, stop, count = _place(index)
            if unfinished(path.with_name(index.folder)) == path and start < stop <= count:
                key = dataclasses.replace(index.key, pictures=pictures, count=count)
                pieces = [Piece(start + first, start + last, found) for first, last, found in index.pieces]
                bad = [start + row for row in index.unreadable]
                yield Part(path, index, dataclasses.replace(index, key=key).with_pieces(pieces, bad))


def gathered(folder: Path) -> Index | None:
    """What all parts in a folder hold of the whole; None if none says anything."""
    wholes = [part.whole for part in parts_in(folder)]
    pieces, bad = (itertools.chain(*(getattr(one, name) for one in wholes)) for name in ("pieces", "unreadable"))
    return wholes[0].with_pieces(pieces, bad) if wholes else None


def take_over(writer: Writer, draft: Index) -> None:
    """Writes what the parts of some grids hold and their writer lacks.

    Args:
        writer: The writer of the whole.
        draft: What the whole is; its shape and its pieces do not count.
    """
    for part in _parts(parts_of(writer.folder), draft):
        lacking = writer.missing
        for piece, own in zip(part.whole.pieces, part.index.pieces, strict=True):
            rows, bad = piece[:2], [row for row in part.whole.unreadable if piece.start <= row < piece.stop]
            wanted = writer.shape in (None, part.index.shape) and _inside(rows, lacking)
            features = _read(part, own) if wanted else None
            if features is not None:
                writer.put(rows, features, bad)


@contextlib.contextmanager
def in_use(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Meanwhile no process removes the parts in a folder, which is made if need be.

    Args:
        folder: The folder.
        waiting: Called before waiting for a process that is removing them right now.

    Raises:
        OSError: If the store cannot be written.
    """
    with writing(folder):
        descriptor = locked(folder, waiting, file=LOCK, shared=True)
    try:
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # an error before this one says more
            if not any(folder.glob(f"*{PART}")):
                remove_parts(folder)


def remove_parts(folder: Path) -> bool:
    """Removes parts, and says whether all are gone: what another process has in use stays, and what is not ours."""
    try:
        descriptor = locked(folder, None, file=LOCK, make=False)
    except FileNotFoundError:
        return True
    except (BlockingIOError, DamageError):
        return False
    try:
        for part in folder.glob(f"*{PART}"):
            if is_own(part) and not part.is_symlink():
                discard(part)
        (folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
    finally:
        os.close(descriptor)
    return not folder.exists()


class Blocks:
    """Some blocks of one backbone's grids, each on disk in a folder of its own; a sink.

    Args:
        store: The store of the whole.
        draft: What the whole is; its shape and its pieces do not count.
        own: The blocks that this process fills.
        options: Those of each block's `Writer`.
    """

    def __init__(self, store: Path, draft: Index, own: Sequence[Rows], **options: Any) -> None:
        self._store, self._draft, self._own, self._options = parts_of(store / draft.folder), draft, own, options
        wholes = [part.whole for part in _parts(self._store, draft)]
        left = left_over(unfinished(store / draft.folder), draft)
        there = [one for one in (*wholes, left) if one is not None and one.pieces]
        lacking = gaps(draft.key.count, itertools.chain(*(one.pieces for one in there)))
        both = [(max(a, c), min(b, d)) for a, b in own for c, d in lacking]
        self.missing: tuple[Rows, ...] = tuple((start, stop) for start, stop in both if start < stop)
        self.shape: Shape | None = there[0].shape if there else None
        self.resumed = bool(there)
        self._block: Rows = (0, 0)
        self._writer: Writer | None = None

    def put(self, rows: Rows, features: Float[Tensor, "b c h w"], unreadable: Sequence[int] = ()) -> None:
        """Writes a batch of one block."""
        self.shape = self.shape or shape_of(features)
        writer, first = self._opened(rows)
        check_shape(self._draft.name, writer.shape, features, rows[0], resumed=writer.resumed)
        here = rows[0] - first, rows[1] - first
        if _inside(here, writer.missing):  # else another process has written it meanwhile
            writer.put(here, features, [row - first for row in unreadable])

    def finish(self) -> None:
        """Waits until all is on disk, and lets go of it."""
        if self._writer:
            self._writer.settle()
        self.close()

    def close(self) -> None:
        """Lets go of the block that was written last."""
        if self._writer:
            self._writer.close()
        self._writer = None

    def _opened(self, rows: Rows) -> tuple[Writer, int]:
        """The writer of the block that has a batch, and the block's first picture."""
        block = next(block for block in self._own if _inside(rows, [block]))
        if self._writer is None or block != self._block:
            self.finish()
            self._block, self._writer = block, Writer(self._store, _part(self._draft, block), **self._options)
        return self._writer, block[0]


def _part(draft: Index, block: Rows) -> Index:
    """What the part with a block of the pictures is. Its name follows from that of the whole: nothing is read."""
    key, (start, stop) = draft.key, block
    pictures = f"{key.pictures}[{start}:{stop} of {key.count}]"
    return dataclasses.replace(draft, key=dataclasses.replace(key, pictures=pictures, count=stop - start))


def _place(part: Index) -> tuple[str, int, int, int]:
    """Of a part: the fingerprint of all pictures, its first, the one after its last, and how many all are."""
    match = OF_WHOLE.fullmatch(part.key.pictures)
    if match is None or int(match[3]) - int(match[2]) != part.key.count:
        raise ValueError(f"{part.key.pictures} with {part.key.count} pictures is no part")
    return match[1], int(match[2]), int(match[3]), int(match[4])


def _parts(folder: Path, draft: Index) -> Iterator[Part]:
    """The parts of some grids."""
    for part in parts_in(folder):
        if (part.whole.key, part.whole.name, part.whole.field) == (draft.key, draft.name, draft.field):
            yield part


def _inside(rows: Rows, runs: Sequence[Rows]) -> bool:
    return any(start <= rows[0] and rows[1] <= stop for start, stop in runs)


def _read(part: Part, piece: Piece) -> Float[Tensor, "b c h w"] | None:
    """The features of a piece; None if they are not what was written, or are gone."""
    index, count = part.index, piece.stop - piece.start
    path = part.path / DATA
    with contextlib.suppress(FileNotFoundError, ValueError), refusals(path), open(opened(path), "rb") as file:
        file.seek(len(index.header) + piece.start * index.row_nbytes)
        data = bytearray(file.read(count * index.row_nbytes))
        if digest(memoryview(data)) == piece.digest:
            return torch.frombuffer(data, dtype=DTYPES[index.key.dtype]).view(count, *index.shape)
    return None
