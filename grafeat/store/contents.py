"""Which folders in a store hold grids, and which of them are its own to remove: those that hold nothing else."""

import os
import re
from pathlib import Path

from grafeat.store.folder import DATA, INDEX
from grafeat.store.journal import JOURNAL

PART, PARTS = ".part", ".parts"
LOCK = "lock"  # of a folder of parts
FOLDER = re.compile(r".+-[0-9a-f]{16}(\.parts?)?", re.DOTALL)
FILES = "|".join(map(re.escape, (DATA, INDEX, JOURNAL)))
SCRATCH = re.compile(rf"\.({FILES})\.[0-9a-f]{{8}}\.part")  # a file that is being written


def contents(store: Path) -> tuple[list[Path], list[Path]]:
    """The folders of grids in a store, whatever else is in them, and what else is there."""
    paths = sorted(store.iterdir()) if store.is_dir() else []
    ours = [path for path in paths if _has_grids(path) or is_own(path)]
    return ours, [path for path in paths if path not in ours]


def _has_grids(folder: Path) -> bool:
    """Whether a folder has the name, and a file of grids: one of another program beside it does not hide them."""
    if not FOLDER.fullmatch(folder.name):
        return False
    inside = folder.glob(f"*{PART}") if folder.suffix == PARTS else [folder]
    return any(os.path.lexists(one / name) for one in inside for name in (DATA, INDEX))


def is_own(folder: Path) -> bool:
    """Whether a folder, or what a link of such a name leads to, has the name and holds the files of grids alone.

    No other is ever removed.
    """
    if not FOLDER.fullmatch(folder.name):
        return False
    try:
        found = list(folder.iterdir())
    except (NotADirectoryError, FileNotFoundError):  # another process may give it its final name meanwhile
        return False
    if folder.suffix == PARTS:
        return all(path.name == LOCK or (path.suffix == PART and is_own(path)) for path in found)
    known = all(path.name in (DATA, INDEX, JOURNAL) or SCRATCH.fullmatch(path.name) for path in found)
    return known and (bool(found) or folder.suffix == PART)  # an empty one may be left of a run that was killed
