"""One backbone's grids on disk: a folder with a data file and the index that vouches for it.

The data file is a safetensors file with a single tensor, so that any program reads it, a batch of shuffled pictures is
one gather from one memory map, and nothing in it can run. What other formats cut into many files is here cut inside one
file: into pieces, each the size of the batch that was computed at once, each with its checksum in the index.

    NAME-KEY/features.safetensors      the header, then the grids, picture by picture
    NAME-KEY/index.json                what they are, and the SHA-256 of each piece
    NAME-KEY.part/                     the same while it is unfinished, with a journal in place of the index
    NAME-KEY.parts/                    what several processes have of it, a block of pictures in each NAME-KEY.part/;
                                       its file `lock` says that they are at it
"""

import contextlib
import errno
import mmap
import os
import stat
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.store.index import DTYPES, Index, Piece, digest, parsed

DATA, INDEX = "features.safetensors", "index.json"
REFUSED = "the disk cannot read it"
# Pages that are only read need no room in memory, yet Linux refuses a private map that is larger than the machine,
# unless told that none will be reserved. Python names the flag from 3.12 on.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclass(frozen=True)
class Damage:
    """A piece of a store that is not what was written.

    Attributes:
        file: The damaged file.
        pictures: The pictures whose features are lost, from the first up to but without the last; None for all.
        reason: What is wrong.
    """

    file: Path
    pictures: tuple[int, int] | None
    reason: str

    def __str__(self) -> str:
        rows = "all pictures" if self.pictures is None else f"pictures {self.pictures[0]} to {self.pictures[1] - 1}"
        return f"{self.file} ({rows}): {self.reason}"


class DamageError(ValueError):
    """Part of a store is damaged; `damage` says which."""

    def __init__(self, damage: Damage) -> None:
        self.damage = damage
        super().__init__(
            f"store: {damage.file} is damaged, crafted or from another version ({damage.reason}); expected what "
            "extract wrote; pass repair=True to compute what is damaged anew, or remove its folder"
        )


def damage_error(file: Path, reason: str) -> DamageError:
    """The error for a file that is not what was written."""
    return DamageError(Damage(file, None, textwrap.shorten(reason, 200, placeholder=" …")))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Meanwhile an error of the disk, but for what is not there, says what it concerns and what to do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if str(error).startswith("store:"):
            raise
        raise OSError(
            f"store: could not read {path} ({error}); expected a folder that may be read; make it readable, or name "
            "another"
        ) from error


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Meanwhile bytes that the disk cannot read are damage, as bytes that are others."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise damage_error(path, REFUSED) from error


def opened(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file; a link, which could lead out of the store, is refused.

    Raises:
        DamageError: If it is a link, or no plain file.
        OSError: If there is none, or it may not be opened.
    """
    if path.is_symlink() or path.parent.is_symlink():
        raise damage_error(path, "a link, which could lead to any file out of the store, is refused")
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damage_error(path, "it is no plain file")
    return descriptor


def read_index(folder: Path) -> Index:
    """What a folder says that it holds.

    Raises:
        FileNotFoundError: If there is no such folder, or no more: another process may take its name to rewrite it.
        DamageError: If the index is missing, damaged, crafted, or that of another folder.
    """
    path = folder / INDEX
    try:
        with refusals(path), open(opened(path), "rb") as file:
            index = parsed(file.read())
        if index.folder != folder.name.removesuffix(".part"):
            raise ValueError(f"it belongs to {index.folder}")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except DamageError:
        raise
    except ValueError as error:
        raise damage_error(path, str(error)) from error
    return index


def check_header(folder: Path, index: Index) -> None:
    """Raise unless the data file begins, and is as long, as its index says.

    Raises:
        FileNotFoundError: If there is no such folder any more.
        DamageError: If it does not, or is missing.
    """
    path = folder / DATA
    try:
        with refusals(path), open(opened(path), "rb") as file:
            length, start = os.fstat(file.fileno()).st_size, file.read(len(index.header))
    except FileNotFoundError as error:
        raise _missing(path) from error
    if length != index.nbytes:
        raise damage_error(path, f"it has {length:,} bytes, expected {index.nbytes:,}")
    if start != index.header:
        raise damage_error(path, "its header is not what the index says")


def mapped(folder: Path, index: Index) -> Float[Tensor, "b c h w"]:
    """The features of all pictures as a memory map: read when they are used; writing to them leaves the file alone."""
    check_header(folder, index)
    descriptor = opened(folder / DATA)
    try:
        flags = mmap.MAP_PRIVATE | NO_RESERVE
        memory = mmap.mmap(descriptor, index.nbytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
    c, h, w = index.shape
    dtype, count = DTYPES[index.key.dtype], index.key.count
    whole = torch.frombuffer(memory, dtype=dtype, count=count * c * h * w, offset=len(index.header))
    return whole.view(count, c, h, w)


def pieces(folder: Path, index: Index) -> Iterator[tuple[Piece, bytes | None]]:
    """The pieces with their bytes, fewer where the file ends before; None for those that the disk cannot read."""
    offset, each = len(index.header), index.row_nbytes
    with open(opened(folder / DATA), "rb") as file:
        length = os.fstat(file.fileno()).st_size
        for piece in index.pieces:
            start, stop = (min(length, offset + row * each) for row in piece[:2])  # a wrong index asks for no more
            data = None
            with contextlib.suppress(DamageError), refusals(folder / DATA):
                file.seek(start)
                data = file.read(stop - start)
            yield piece, data


def damaged(folder: Path, index: Index) -> Iterator[Piece]:
    """The pieces whose bytes are not those that were written."""
    for piece, data in pieces(folder, index):
        if data is None or digest(data) != piece.digest:
            yield piece


def damages(folder: Path) -> list[Damage]:
    """All that is damaged in a finished folder, if it is there; reads every byte.

    A folder that another process rewrites meanwhile is looked at again.
    """
    while True:
        before = _changed(folder)
        with contextlib.suppress(FileNotFoundError):
            found = _damages(folder)
            if not found or before == _changed(folder):
                return found
        if not folder.exists():
            return []


def _damages(folder: Path) -> list[Damage]:
    try:
        index = read_index(folder)
        if index.missing:
            raise damage_error(folder / INDEX, "it lacks pictures")
        check_header(folder, index)
    except DamageError as error:
        return [error.damage]
    return [
        Damage(folder / DATA, (piece.start, piece.stop), REFUSED if data is None else "its checksum is another")
        for piece, data in pieces(folder, index)
        if data is None or digest(data) != piece.digest
    ]


def _changed(folder: Path) -> tuple[int, int] | None:
    """Which folder it is, and when it or the names in it changed; None if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        found = folder.stat()
        return found.st_ino, found.st_ctime_ns
    return None


def _missing(path: Path) -> Exception:
    """The error for a file that is missing: from a folder that stands, it is damage."""
    return damage_error(path, "it is missing") if path.parent.exists() else FileNotFoundError(path.parent)


class Kept(NamedTuple):
    """What a store has of one backbone.

    Args:
        features: The features of all pictures, memory-mapped.
        unreadable: The pictures that could not be read, whose features are zeros.
    """

    features: Float[Tensor, "b c h w"]
    unreadable: tuple[int, ...]


def found(store: Path, draft: Index) -> Kept | None:
    """The grids that a store has under a key, memory-mapped; None if it has none.

    Args:
        store: The store.
        draft: What they should be; its shape and its pieces do not count.

    Raises:
        DamageError: If their folder is damaged, so far as that shows without reading every byte.
        OSError: If it cannot be read.
    """
    folder = store / draft.folder
    with reading(folder), contextlib.suppress(FileNotFoundError):  # which another process may remove meanwhile
        if not folder.exists():
            return None
        index = read_index(folder)
        if index.key != draft.key or index.missing:
            reason = "it is of other grids" if index.key != draft.key else "it lacks pictures"
            raise damage_error(folder / INDEX, reason)
        return Kept(mapped(folder, index), index.unreadable)
    return None


def required(store: Path, draft: Index) -> Kept:
    """The grids that a store has under a key, memory-mapped; as `found`, but they are there.

    Raises:
        FileNotFoundError: If they are gone.
    """
    kept = found(store, draft)
    if kept is None:
        raise FileNotFoundError(f"store: {store / draft.folder} was removed meanwhile; extract again")
    return kept
