"""What is in an unfinished folder: a line for each batch that is on disk, until an index says the same of them all."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from grafeat.store.folder import INDEX, opened, refusals
from grafeat.store.index import Index, Piece, digest, parsed

JOURNAL = "journal"
HEAD = b'{"kind": "journal of feature grids", "format": 2}\n'  # the lines of the first had no checksum


def unfinished(folder: Path) -> Path:
    """Where the grids of a folder are until they are whole."""
    return folder.with_name(f"{folder.name}.part")


def line_of(piece: Piece, unreadable: Sequence[int]) -> bytes:
    """How a journal notes a batch, and which of its pictures could not be read; it begins with its own checksum."""
    said = [*piece, list(unreadable)]
    return json.dumps([digest(json.dumps(said).encode()), *said]).encode() + b"\n"


def journal_of(index: Index) -> bytes:
    """A journal that notes all that an index says."""
    lines = (line_of(piece, index.unreadable_in(piece)) for piece in index.pieces)
    return b"".join([HEAD, index.with_pieces((), ()).encoded(), *lines])


def read_unfinished(part: Path) -> Index:
    """What an unfinished folder says that it holds: by its journal, or by an index that is about to take its place.

    Raises:
        FileNotFoundError: If it says nothing.
        ValueError: If what it says is damaged.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        return _read_journal(part)
    with refusals(part / INDEX), open(opened(part / INDEX), "rb") as file:
        return parsed(file.read())


def left_over(part: Path, draft: Index) -> Index | None:
    """What an earlier run has left in an unfinished folder, if it is of the same grids."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        left = read_unfinished(part)
        if (left.key, left.name, left.field) == (draft.key, draft.name, draft.field):
            return left
    return None


def _read_journal(part: Path) -> Index:
    """A last line that was torn off counts for nothing."""
    with refusals(part / JOURNAL), open(opened(part / JOURNAL), "rb") as file:
        if file.read(len(HEAD)) != HEAD:
            raise ValueError("it is of another version")
        index = parsed(file.readline())
        pieces, unreadable = [], set()
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            for line in file:
                _, start, stop, found, rows = json.loads(line)
                whole = all(type(number) is int for number in (start, stop, *rows)) and type(found) is str
                if not whole or line_of(Piece(start, stop, found), rows) != line:
                    break
                if not 0 <= start < stop <= index.key.count or not all(start <= row < stop for row in rows):
                    break
                pieces.append(Piece(start, stop, found))
                unreadable |= set(rows)
    return parsed(index.with_pieces(pieces, unreadable).encoded())  # they fit each other, or it raises
