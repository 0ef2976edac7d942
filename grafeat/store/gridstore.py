"""A store as a whole: what is in it, whether it is sound, and what of it may go."""

import contextlib
import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grafeat.backbones.backbone import Backbone
from grafeat.files import size
from grafeat.pictures import PictureSet
from grafeat.store.folder import Damage, check_header, damages, read_index
from grafeat.store.index import Index
from grafeat.store.joining import PARTS, gathered, remove_parts
from grafeat.store.journal import read_unfinished, unfinished
from grafeat.store.lock import discard, locked, writing

State = Literal["whole", "unfinished", "damaged"]
FOLDER = re.compile(r".+-[0-9a-f]{16}(\.parts?)?", re.DOTALL)
UNFINISHED = {".part", PARTS}
HEADINGS = ("backbone", "pictures", "grid", "type", "bytes", "state")


@dataclass(frozen=True)
class Entry:
    """The grids of one backbone for one set of pictures, as they lie in a store.

    Attributes:
        path: Their folder.
        state: `whole`, `unfinished` (the next run goes on with it), or `damaged` (as far as its index and the length
            of its data show; `verify` reads every byte).
        nbytes: What it takes of the disk.
        index: What it says of itself; None if that is unreadable.
    """

    path: Path
    state: State
    nbytes: int
    index: Index | None

    @property
    def done(self) -> int:
        """Pictures whose grids are there."""
        if self.index is None:
            return 0
        return self.index.key.count - sum(stop - start for start, stop in self.index.missing)

    @property
    def cells(self) -> tuple[str, ...]:
        """One row of the table."""
        if self.index is None:
            return self.path.name, "", "", "", size(self.nbytes), self.state
        index = self.index
        share = f" ({self.done / index.key.count:.0%})" if self.state == "unfinished" else ""
        grid = " × ".join(map(str, index.shape))
        pictures = f"{index.key.count:,} {index.of}"
        return index.name, pictures, grid, index.key.dtype, size(self.nbytes), f"{self.state}{share}"


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds; shows itself as a table.

    Attributes:
        path: The store.
        entries: One for each backbone and set of pictures.
        foreign: Names of what else lies in the folder, such as files of an earlier version. It is never touched.
    """

    path: Path
    entries: tuple[Entry, ...]
    foreign: tuple[str, ...]

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
    """

    def __init__(self, path: "str | Path | GridStore") -> None:
        self.path: Path = path.path if isinstance(path, GridStore) else Path(path)

    def __repr__(self) -> str:
        return f"GridStore({str(self.path)!r})"

    def info(self) -> StoreInfo:
        """What is in the store, as a table: backbones, pictures, bytes, and whether all of it is there."""
        ours, foreign = _contents(self.path)
        return StoreInfo(self.path, tuple(map(_entry, ours)), tuple(path.name for path in foreign))

    def verify(self) -> list[Damage]:
        """Reads every byte that should be whole, and lists what is not as it was written; an empty list is good news.

        What is unfinished is left out: the run that goes on with it checks it.
        """
        ours, _ = _contents(self.path)
        return [damage for path in ours if path.suffix not in UNFINISHED for damage in damages(path)]

    def prune(
        self,
        *,
        keep: Sequence[Backbone] | None = None,
        pictures: Sequence[PictureSet] | PictureSet | None = None,
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
            What went. What another process is writing stays.

        Raises:
            ValueError: If nothing says what may go.
            OSError: If the store cannot be written.
        """
        sets = [pictures] if isinstance(pictures, PictureSet) else pictures
        if (keep is None and sets is None and not unfinished) or keep == [] or sets == []:
            raise ValueError(
                "keep, pictures: got none; expected the backbones or the picture sets that are still in use, or "
                "unfinished=True; to remove everything, remove the folder"
            )
        names = None if keep is None else {backbone.fingerprint for backbone in keep}
        contents = None if sets is None else {one.fingerprint for one in sets}
        gone = [
            entry for entry in self.info().entries
            if _is_superfluous(entry, names, contents, unfinished) and (dry_run or _removed(entry.path))
        ]  # fmt: skip
        return Pruned(tuple(gone), dry_run)


def _contents(store: Path) -> tuple[list[Path], list[Path]]:
    """The folders of grids in a store, and what else is there."""
    paths = sorted(store.iterdir()) if store.is_dir() else []
    ours = [path for path in paths if FOLDER.fullmatch(path.name) and path.is_dir()]
    return ours, [path for path in paths if path not in ours]


def _entry(path: Path) -> Entry:
    nbytes = 0
    with contextlib.suppress(FileNotFoundError):  # another process may give it its final name meanwhile
        nbytes = sum(file.lstat().st_blocks * 512 for file in path.rglob("*"))
    if path.suffix in UNFINISHED:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return Entry(path, "unfinished", nbytes, gathered(path) if path.suffix == PARTS else read_unfinished(path))
        return Entry(path, "unfinished", nbytes, None)
    try:
        index = read_index(path)
        check_header(path, index)
    except (FileNotFoundError, ValueError):
        return Entry(path, "damaged", nbytes, None)
    return Entry(path, "damaged" if index.missing else "whole", nbytes, index)


def _is_superfluous(
    entry: Entry, backbones: set[str | None] | None, pictures: set[str] | None, unfinished: bool
) -> bool:
    if unfinished and (entry.state == "unfinished" or entry.index is None):
        return True
    if entry.index is None:
        return False
    key = entry.index.key
    unused = backbones is not None and key.backbone not in backbones
    return unused or (pictures is not None and key.pictures not in pictures)


def _removed(path: Path) -> bool:
    """Whether a folder could be removed; not while another process writes it."""
    with writing(path):
        if path.suffix == PARTS:
            return remove_parts(path)
        part = path if path.suffix == ".part" else unfinished(path)
        if part != path:  # half removed, it is unfinished rather than damaged
            path.rename(part)
        try:
            descriptor = locked(part, None)
        except BlockingIOError:
            return False
        discard(part)
        os.close(descriptor)
    return True


def _html_row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
