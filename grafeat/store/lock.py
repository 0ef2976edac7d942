"""Which process may write: the one that holds the lock on an unfinished data file.

The system drops the lock when a process dies. It needs no file of its own, and goes with the data file when the folder
gets its final name; who has waited for it then finds the folder finished.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from grafeat.files import FORBIDDEN, size, what_helps
from grafeat.store.folder import DATA, opened


@contextlib.contextmanager
def writing(path: Path, nbytes: int | None = None) -> Iterator[None]:
    """Meanwhile an error of the disk says what it concerns, what became of the rest, and what to do."""
    try:
        yield
    except OSError as error:
        if str(error).startswith("store:"):
            raise
        cause = error.__cause__  # of an error that `write` has put into words
        reason = cause if error.errno is None and isinstance(cause, OSError) else error
        room = "" if nbytes is None else f" with room for {size(nbytes)}"
        remedy = f"{what_helps(reason)}; the batches that are there are kept"
        if reason.errno in FORBIDDEN:
            remedy = "make it writable or name another; grids that are whole can still be read from it"
        raise OSError(
            f"store: could not write {path} ({reason}); expected a writable folder{room}; {remedy}"
        ) from error


def locked(
    part: Path, waiting: Callable[[], None] | None, *, file: str = DATA, shared: bool = False, make: bool = True
) -> int:
    """The descriptor of the data file of an unfinished folder, held by this process alone.

    Of a finished folder, it is that of the unfinished one that it becomes when it is renamed.

    Args:
        part: The folder.
        waiting: Called before waiting for another process; without it, one that is held raises BlockingIOError.
        file: Another file of the folder.
        shared: Whether other processes may hold it too, if they also share it.
        make: Whether to make the folder if need be; otherwise one that is not there raises FileNotFoundError.
    """
    while True:
        if make:
            try:  # not with exist_ok, which raises where another process removes the folder meanwhile
                part.mkdir(parents=True)
            except FileExistsError:
                if not part.parent.is_dir():  # a link to nowhere
                    raise
        try:
            descriptor = opened(part / file, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # another process has just finished or removed it
            if not make:
                raise
            continue
        try:
            _lock(descriptor, waiting, shared)
            if is_still(descriptor, part / file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def is_still(descriptor: int, path: Path) -> bool:
    """Whether a path still names the open file: another process may have finished or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def discard(part: Path) -> None:
    """Removes an unfinished folder that this process has locked, but for what another makes in it at once."""
    for path in sorted(part.iterdir(), key=lambda path: path.name == DATA):  # the lock last
        path.unlink()
    try:
        part.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _lock(descriptor: int, waiting: Callable[[], None] | None, shared: bool) -> None:
    import fcntl  # a store needs a POSIX system; the rest of the package does not

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            raise
        waiting()
        fcntl.flock(descriptor, kind)
