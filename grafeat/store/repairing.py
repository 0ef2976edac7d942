"""What of a backbone's grids has to be computed anew is taken out of them; all else stays, and the next run goes on."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from grafeat.files import write
from grafeat.pictures import PictureSet
from grafeat.store.batches import why_unreadable
from grafeat.store.folder import (
    DATA,
    INDEX,
    REFUSED,
    DamageError,
    check_header,
    damaged,
    damages,
    pieces,
    read_index,
    reading,
)
from grafeat.store.index import Index, Piece
from grafeat.store.joining import in_use, parts_in, parts_of
from grafeat.store.journal import JOURNAL, journal_of, left_over, unfinished
from grafeat.store.lock import discard, locked, writing

Readable = Callable[[int], bool]  # whether the picture at a position can be read now
Waiting = Callable[[], None]


def take_out(store: Path, draft: Index, pictures: PictureSet, waiting: Waiting) -> None:
    """Takes out what is damaged, and each batch with a picture that could not be read before and now can.

    What was whole is unfinished then. Of several processes that do this at once, one does it, and the others wait.

    Args:
        store: The store.
        draft: What the grids are; its shape and its pieces do not count.
        pictures: Their pictures.
        waiting: Called before waiting for another process that writes them.

    Raises:
        OSError: If the store cannot be read or written.
    """

    def readable(row: int) -> bool:
        return why_unreadable(pictures, row) is None

    folder = store / draft.folder
    with reading(folder):
        _take_out_of_parts(parts_of(folder), draft, readable, waiting)  # first, as they could become the whole
        _take_out_readable(unfinished(folder), draft, readable, waiting)
        lost = damages(folder)
        if any(damage.reason == REFUSED for damage in lost):
            _renew(folder, waiting)
        if lost or _is_readable_again(folder, readable):
            _demote(folder, readable, waiting)


def _take_out_of_parts(folder: Path, draft: Index, readable: Readable, waiting: Waiting) -> None:
    parts = [part for part in parts_in(folder) if part.whole.key == draft.key and part.index.unreadable]
    if any(readable(row) for part in parts for row in part.whole.unreadable):
        with in_use(folder, waiting):
            for part in parts:
                first = part.whole.unreadable[0] - part.index.unreadable[0]
                _take_out_readable(part.path, part.index, readable, waiting, first)


def _take_out_readable(part: Path, draft: Index, readable: Readable, waiting: Waiting, first: int = 0) -> None:
    """Takes the batches with a picture that now can be read out of an unfinished folder, whose first one is `first`."""
    left = left_over(part, draft)
    if left is None or not any(_now_readable(left, readable, first)):
        return
    with writing(part), contextlib.suppress(FileNotFoundError), _held(part, waiting):
        left = left_over(part, draft)  # another process may have gone on with it meanwhile
        if left is not None:
            _note(part, left.without(set(_now_readable(left, readable, first))))


def _demote(folder: Path, readable: Readable, waiting: Waiting) -> None:
    """Takes its final name from a folder, unless another process has repaired it meanwhile."""
    part = unfinished(folder)
    with writing(part), contextlib.suppress(FileNotFoundError), _held(folder, waiting):
        sound = _sound(folder, readable)
        if sound is not None and _is_whole(folder, sound):
            return
        if part.exists():  # of a run that was killed while another process finished
            with contextlib.suppress(FileNotFoundError), _held(part, waiting):
                discard(part)
        folder.rename(part)  # its lock goes with it
        if sound is not None:
            _note(part, sound)


def _renew(folder: Path, waiting: Waiting) -> None:
    """Copies what the disk can read of a data file to a new one, which takes its place; the rest is zeros there.

    What is computed anew is then not written to where the disk has just failed.
    """

    def copy(scratch: Path) -> None:
        with scratch.open("wb") as file:
            file.write(index.header)
            for piece, data in pieces(folder, index):
                file.seek(len(index.header) + piece.start * index.row_nbytes)
                file.write(data or b"")
            file.truncate(index.nbytes)

    with writing(folder), contextlib.suppress(FileNotFoundError, DamageError), _held(folder, waiting):
        index = read_index(folder)
        write(folder / DATA, copy, index.nbytes)


def _is_readable_again(folder: Path, readable: Readable) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(_now_readable(read_index(folder), readable))
    return False


def _sound(folder: Path, readable: Readable) -> Index | None:
    """What of a folder may stay; None if that cannot be known."""
    try:
        index = read_index(folder)
    except DamageError:
        return None
    return index.without({*damaged(folder, index), *_now_readable(index, readable)})


def _is_whole(folder: Path, index: Index) -> bool:
    with contextlib.suppress(DamageError):
        check_header(folder, index)
        return not index.missing
    return False


def _now_readable(index: Index, readable: Readable, first: int = 0) -> Iterator[Piece]:
    """The batches with a picture that could not be read before and now can."""
    for piece in index.pieces:
        if any(readable(first + row) for row in index.unreadable_in(piece)):
            yield piece


@contextlib.contextmanager
def _held(folder: Path, waiting: Waiting) -> Iterator[None]:
    """Meanwhile no other process writes a folder.

    Raises:
        FileNotFoundError: If there is none, as when another process has renamed it.
    """
    descriptor = locked(folder, waiting, make=False)
    try:
        yield
    finally:
        os.close(descriptor)


def _note(part: Path, index: Index) -> None:
    """Says in an unfinished folder what is there."""
    write(part / JOURNAL, journal_of(index))
    (part / INDEX).unlink(missing_ok=True)
