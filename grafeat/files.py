"""Files that are written whole or not at all; tensors with a description, checked and read without running anything."""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

FORMAT = 2  # the first had no checksum
# How torch.save's archives and bare pickles begin. A safetensors file may begin with 0x80, too: the low byte of its
# header's length. Its ninth byte is then the header's brace.
PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05].{6}[^{]", re.DOTALL)
CHECKSUM = re.compile(rb'\\"checksum\\": \\"([0-9a-f]{32})\\"')  # the first in a header, whose text is JSON inside JSON
UNSEALED = "0" * 32
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
HELPS = {  # where a file cannot be written, by the error's number
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space or name another folder"),
    **dict.fromkeys(FORBIDDEN, "make it writable or name another folder"),
    errno.EFBIG: "raise the limit on the length of a file, or name a folder on another disk",
    errno.EIO: "check the disk, or name a folder on another",
    errno.ENAMETOOLONG: "shorten the name",
}
REMEDIES = {"model": "save the model anew with gf.save", "training": "name another file"}  # by kind of file


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, about: Mapping[str, Any]
) -> Path:
    """Writes tensors and what they are to one file, at once: until it is whole, an old file stays as it was.

    The header has a checksum of all other bytes of the file, its own description included.

    Args:
        path: The file; its folder is made if it is not there.
        tensors: The tensors by name.
        kind: What the file is, such as "model"; `read_tensors` asks for it again.
        about: A description that JSON can hold; it stands in the file's header.

    Raises:
        OSError: If the file cannot be written, say because the disk is full; names the file.
    """
    header = {"grafeat": json.dumps({"checksum": UNSEALED, "kind": kind, "format": FORMAT, **about})}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    nbytes = sum(tensor.nbytes for tensor in whole.values())

    def content(scratch: Path) -> None:
        # save_file would write to one more scratch file, which a kill would leave for ever
        scratch.write_bytes(safetensors.torch.save(whole, metadata=header))
        _seal(scratch)

    return write(path, content, nbytes)


def write(path: str | Path, content: bytes | str | Callable[[Path], None], nbytes: int | None = None) -> Path:
    """Writes a file at once: until it is whole, an old file stays as it was.

    Args:
        path: The file; its folder is made if it is not there.
        content: Bytes, text, or a function that writes a file at the path it is given.
        nbytes: How large it will be, for the error message; known for bytes and text.

    Raises:
        OSError: If the file cannot be written, say because the disk is full; names the file.
    """
    path = Path(path)
    with _scratch(path, nbytes if callable(content) else len(content)) as scratch:
        if callable(content):
            content(scratch)
        else:
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        settle(scratch)
        os.replace(scratch, path)
    return path


def check_writable(path: str | Path) -> None:
    """Tries whether a file can be written there, before the work for it begins; a file that is there stays as it is.

    Args:
        path: The file; its folder is made if it is not there.

    Raises:
        OSError: If it cannot, say because the folder is read-only or `path` is itself a folder; names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"path: {path} is a folder; expected a file, there or not; add a name to it")
    with _scratch(path):
        pass


@contextlib.contextmanager
def _scratch(path: Path, nbytes: int | None = None) -> Iterator[Path]:
    """A new file beside the one that is to be written, for as long as that takes."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_remains(path)
        scratch.touch(exist_ok=False)
        with _locked(scratch):  # so that no one takes it for what a killed process has left
            yield scratch
    except OSError as error:
        kept = "; the file that was there is unchanged" if path.is_file() else ""
        room = "" if nbytes is None else f" with room for {nbytes / 1e6:,.1f} MB"
        raise OSError(
            f"path: could not write {path} ({error}); expected a writable folder{room}{kept}; {what_helps(error)}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # an error before this one says more
            scratch.unlink(missing_ok=True)


def _clear_remains(path: Path) -> None:
    """Removes what processes that were killed while they wrote this file left beside it."""
    scratch = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    for part in path.parent.iterdir():
        if scratch.fullmatch(part.name):
            with contextlib.suppress(OSError), _locked(part):
                part.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Meanwhile holds the lock on a file, where there are locks; the system drops it when a process dies.

    Raises:
        BlockingIOError: If another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where a file that is open could not get its final name
        yield
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # not all network drives have them
            pass
        yield


def read_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of ours, memory-mapped, and the description in its header.

    Args:
        path: The file.
        kind: What it should be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickle (which is refused, not executed), truncated, damaged in any of its bytes, foreign,
            or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"path: there is no file {path}; expected one that grafeat saved; check the name"
        )
    with path.open("rb") as file:
        start = file.read(9)
    if PICKLE.match(start):
        raise ValueError(
            f"path: {path} is a pickle, which can run any code when it is read; it was refused and nothing of it ran; "
            f"expected a safetensors file; {REMEDIES.get(kind, 'make it anew')}"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        about = json.loads(header.get("grafeat", "{}"))
    except (safetensors.SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        raise ValueError(
            f"path: {path} is no whole safetensors file ({reason}); it is truncated or foreign; use another copy, or "
            "make it anew"
        ) from error
    about = about if isinstance(about, dict) else {}
    checksum = about.pop("checksum", None)
    if about.get("kind") != kind or about.get("format") != FORMAT:
        found = (
            f"{about.get('kind')!r} in format {about.get('format')}" if about else "a file of another program"
        )
        raise ValueError(
            f"path: {path} is {found}; expected {kind!r} in format {FORMAT}; name the file that grafeat saved"
        )
    if not checksum or checksum != _checksum(path)[0]:
        raise ValueError(
            f"path: {path} is damaged: its checksum is another; expected the bytes that were written; use another "
            "copy, or make it anew"
        )
    return tensors, about


def _seal(path: Path) -> None:
    """Writes the checksum of a file into its header."""
    checksum, place = _checksum(path)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(checksum.encode())


def _checksum(path: Path) -> tuple[str, int]:
    """The first 128 bits of the SHA-256 of a file but for its own checksum, and where in the file that stands."""
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        found = CHECKSUM.search(header)
        if found is None:
            return "", 0
        before, after = header[: found.start(1)], header[found.end(1) :]
        whole = hashlib.sha256(start + before + UNSEALED.encode() + after)
        while piece := file.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()[:32], len(start) + found.start(1)


def what_helps(error: OSError) -> str:
    """The remedy for an error of writing."""
    return HELPS.get(error.errno or 0, "name another folder")


def settle(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk: a power cut cannot leave a name on nothing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size(count: float) -> str:
    """Bytes as a reader says them: 640 B, 12.9 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"
