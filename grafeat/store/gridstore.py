"""A store as a whole: what is in it, whether it is sound, and what of it may go."""

import contextlib
import html
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grafeat.arguments import strange
from grafeat.backbones.backbone import Backbone
from grafeat.files import size
from grafeat.pictures import PictureSet
from grafeat.sharing import Share
from grafeat.store.arguments import backbones_in, pictures_in
from grafeat.store.contents import PART, PARTS, contents, is_own
from grafeat.store.drafts import content
from grafeat.store.folder import Damage, DamageError, check_header, damages, read_index, reading
from grafeat.store.index import Index
from grafeat.store.joining import gathered, remove_parts
from grafeat.store.journal import read_unfinished, unfinished
from grafeat.store.lock import discard, locked, writing

State = Literal["whole", "unfinished", "damaged"]
UNFINISHED = {PART, PARTS}
HEADINGS = ("backbone", "key", "pictures", "grid", "type", "bytes", "state")


@dataclass(frozen=True)
class Entry:
    """The grids of one backbone for one set of pictures, as they lie in a store.

    Attributes:
        path: Their folder.
        state: `whole`, `unfinished` (the next run goes on with it), or `damaged` (as far as its index and the length
            of its data show; `verify` reads every byte).
        nbytes: What it takes of the disk.
        index: What it says of itself, also where its data are damaged; None if that is unreadable.
    """

    path: Path
    state: State
    nbytes: int
    index: Index | None

    @property
    def done(self) -> int:
        """Pictures whose grids are there, by the index."""
        if self.index is None:
            return 0
        return self.index.key.count - sum(stop - start for start, stop in self.index.missing)

    @property
    def cells(self) -> tuple[str, ...]:
        """One row of the table."""
        if self.index is None:
            return self.path.name, "", "", "", "", size(self.nbytes), self.state
        index = self.index
        share = f" ({self.done / index.key.count:.0%})" if self.state == "unfinished" else ""
        grid = " × ".join(map(str, index.shape))
        pictures = f"{index.key.count:,} {index.of}"
        key = index.short[:8]  # backbones of one name may differ in weights, size or tap
        return index.name, key, pictures, grid, index.key.dtype, size(self.nbytes), f"{self.state}{share}"


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds; shows itself as a table.

    Attributes:
        path: The store.
        entries: One for each backbone and set of pictures.
        foreign: Names of what else lies in the folder, such as files of an earlier version. It is never touched.
        exists: Whether there is such a folder.
    """

    path: Path
    entries: tuple[Entry, ...]
    foreign: tuple[str, ...]
    exists: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(entry.nbytes for entry in self.entries)

    def __repr__(self) -> str:
        rows = [HEADINGS, *(entry.cells for entry in self.entries)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows if self.entries)
        return "\n".join([self._caption, *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        rows = (("td", entry.cells) for entry in self.entries)
        table = "".join(_html_row(*row) for row in (("th", HEADINGS), *rows))
        return f"<p>{html.escape(self._caption)}</p><table>{table}</table>"

    @property
    def _caption(self) -> str:
        if not self.exists:
            return f"GridStore {self.path}: there is no such folder"
        other = f"; not of the store: {', '.join(self.foreign)}" if self.foreign else ""
        return f"GridStore {self.path}: {len(self.entries)} sets of grids, {size(self.nbytes)}{other}"


@dataclass(frozen=True)
class Pruned:
    """What `prune` removed, or would remove.

    Attributes:
        entries: What it was.
        dry_run: Whether it is still there.
    """

    entries: tuple[Entry, ...]
    dry_run: bool

    @property
    def nbytes(self) -> int:
        """Bytes that were freed."""
        return sum(entry.nbytes for entry in self.entries)

    def __repr__(self) -> str:
        verb = "would free" if self.dry_run else "freed"
        names = "".join(f"\n  {entry.path.name}  {size(entry.nbytes)}  {entry.state}" for entry in self.entries)
        return f"Pruned: {verb} {size(self.nbytes)} in {len(self.entries)} sets of grids{names}"


class GridStore:
    """A folder in which `extract` keeps the feature grids of whole picture sets.

    Args:
        path: The folder, which `extract` makes when it writes to it first; or another `GridStore`.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is empty.
    """

    def __init__(self, path: "str | Path | GridStore") -> None:
        if not isinstance(path, str | os.PathLike | GridStore):
            raise strange("store", path, "a path or a GridStore", "name a folder")
        if path == "":
            raise ValueError("store: got an empty name; expected a folder; name one, or '.' for the current one")
        self.path: Path = path.path if isinstance(path, GridStore) else Path(path)

    def __repr__(self) -> str:
        return f"GridStore({str(self.path)!r})"

    def info(self) -> StoreInfo:
        """What is in the store, as a table: backbones, pictures, bytes, and whether all of it is there.

        Raises:
            OSError: If it cannot be read.
        """
        with reading(self.path):
            ours, foreign = contents(self.path)
            names = tuple(path.name for path in foreign)
            return StoreInfo(self.path, tuple(map(_entry, ours)), names, self.path.is_dir())

    def verify(self) -> list[Damage]:
        """Reads every byte that should be whole, and lists what is not as it was written; an empty list is good news.

        What is unfinished is left out: the run that goes on with it checks it.

        Raises:
            FileNotFoundError: If there is no such folder.
            OSError: If it cannot be read.
        """
        with reading(self.path):
            ours, _ = contents(self._folder)
            return [damage for path in ours if path.suffix not in UNFINISHED for damage in damages(path)]

    def prune(
        self,
        *,
        keep: Iterable[Backbone] | Backbone | None = None,
        pictures: Iterable[PictureSet] | PictureSet | None = None,
        unfinished: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        """Removes grids that are no longer needed, and says what that freed. Other files in the folder stay.

        Args:
            keep: The backbones still in use: grids of others go.
            pictures: The picture sets still in use: grids of others go.
            unfinished: Whether to remove, too, what a stopped run has left to go on with, and what is so damaged that
                it does not say what it is.
            dry_run: Only say what would go.

        Returns:
            What went. What other processes are writing stays, and so do links, and folders with other files in them.

        Raises:
            TypeError: If something else is to be kept.
            ValueError: If nothing says what may go; if a backbone in use cannot be recognised.
            FileNotFoundError: If there is no such folder.
            OSError: If the store cannot be read or written.
        """
        backbones = None if keep is None else backbones_in("keep", keep)
        sets = None if pictures is None else pictures_in("pictures", pictures)
        if (backbones is None and sets is None and not unfinished) or backbones == [] or sets == []:
            raise ValueError(
                "keep, pictures: got none; expected the backbones or the picture sets that are still in use, or "
                "unfinished=True; to remove everything, remove the folder"
            )
        with reading(self.path):
            folders = [path for path in contents(self._folder)[0] if is_own(path)]
        names = None if backbones is None else {_recognised(backbone) for backbone in backbones}
        shown = None if sets is None else {content(one, Share()) for one in sets}
        with reading(self.path):
            gone = [
                entry for entry in map(_entry, reversed(folders))  # what is unfinished before the whole beside it
                if _is_superfluous(entry, names, shown, unfinished) and (dry_run or _removed(entry.path))
            ]  # fmt: skip
        return Pruned(tuple(reversed(gone)), dry_run)

    @property
    def _folder(self) -> Path:
        """The folder, which must be there."""
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"store: there is no folder {self.path}; expected one that extract has written; check its name"
            )
        return self.path


def _recognised(backbone: Backbone) -> str:
    if backbone.fingerprint is None:
        raise ValueError(
            f"keep: backbone {backbone.name!r} cannot be recognised, so that no grids are known to be its own; "
            "expected one that extract keeps in a store; leave it out"
        )
    return backbone.fingerprint


def _entry(path: Path) -> Entry:
    nbytes = 0
    with contextlib.suppress(FileNotFoundError):  # another process may give it its final name meanwhile
        nbytes = sum(file.lstat().st_blocks * 512 for file in path.rglob("*"))
    if path.suffix in UNFINISHED:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return Entry(path, "unfinished", nbytes, gathered(path) if path.suffix == PARTS else read_unfinished(path))
        return Entry(path, "unfinished", nbytes, None)
    index, whole = None, False
    try:
        index = read_index(path)
        check_header(path, index)
        whole = not index.missing
    except FileNotFoundError:  # another process removes or rewrites it
        return _entry(unfinished(path))
    except ValueError:
        pass
    return Entry(path, "whole" if whole else "damaged", nbytes, index)


def _is_superfluous(
    entry: Entry, backbones: set[str] | None, pictures: set[str] | None, unfinished: bool
) -> bool:
    if unfinished and (entry.state == "unfinished" or entry.index is None):
        return True
    if entry.index is None:
        return False
    key = entry.index.key
    unused = backbones is not None and key.backbone not in backbones
    return unused or (pictures is not None and key.pictures not in pictures)


def _removed(path: Path) -> bool:
    """Whether a folder could be removed: not while another process writes it, nor where a link stands for it."""
    with writing(path):
        if path.suffix == PARTS:
            return remove_parts(path)
        part = path if path.suffix == PART else unfinished(path)
        if part != path and part.exists() and not (is_own(part) and _removed(part)):
            return False
        try:
            descriptor = locked(path, None, make=False)
        except (BlockingIOError, DamageError, FileNotFoundError, IsADirectoryError):
            return False
        try:
            discard(path.rename(part))  # half removed, it is unfinished rather than damaged
        finally:
            os.close(descriptor)
    return True


def _html_row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
