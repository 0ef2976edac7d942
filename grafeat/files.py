"""Files that are written whole or not at all; tensors with a description, read without running anything."""

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

FORMAT = 1
# How torch.save's archives and bare pickles begin. A safetensors file may begin with 0x80, too: the low byte of its
# header's length. Its ninth byte is then the header's brace.
PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05].{6}[^{]", re.DOTALL)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, about: Mapping[str, Any]
) -> Path:
    """Writes tensors and what they are to one file, at once: until it is whole, an old file stays as it was.

    Args:
        path: The file; its folder is made if it is not there.
        tensors: The tensors by name.
        kind: What the file is, such as "model"; `read_tensors` asks for it again.
        about: A description that JSON can hold; it stands in the file's header.

    Raises:
        OSError: If the file cannot be written, say because the disk is full; names the file.
    """
    header = {"grafeat": json.dumps({"kind": kind, "format": FORMAT, **about})}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    nbytes = sum(tensor.nbytes for tensor in whole.values())
    return write(path, lambda scratch: safetensors.torch.save_file(whole, scratch, metadata=header), nbytes)


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
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if callable(content):
            content(scratch)
        else:
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        scratch.chmod(mode)  # safetensors leaves it readable to its owner alone
        _settle(scratch)
        os.replace(scratch, path)
    except (OSError, safetensors.SafetensorError) as error:
        kept = "; the file that was there is unchanged" if path.exists() else ""
        size = nbytes if callable(content) else len(content)
        room = "" if size is None else f" with room for {size / 1e6:,.1f} MB"
        raise OSError(
            f"path: could not write {path} ({error}); expected a writable folder{room}{kept}; free some space or name "
            "another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # an error before this one says more
            scratch.unlink(missing_ok=True)
    return path


def read_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of ours, memory-mapped, and the description in its header.

    Args:
        path: The file.
        kind: What it should be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickle (which is refused, not executed), truncated, foreign, or of another kind.
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
            "expected a safetensors file; save the model anew with gf.save"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        about = json.loads(header.get("grafeat", "{}"))
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(
            f"path: {path} is no whole safetensors file ({error}); it is truncated or foreign; use another copy, or "
            "make it anew"
        ) from error
    about = about if isinstance(about, dict) else {}
    if about.get("kind") != kind or about.get("format") != FORMAT:
        found = (
            f"{about.get('kind')!r} in format {about.get('format')}" if about else "a file of another program"
        )
        raise ValueError(
            f"path: {path} is {found}; expected {kind!r} in format {FORMAT}; name the file that grafeat saved"
        )
    return tensors, about


def _settle(path: Path) -> None:
    """Waits until the bytes are on the disk, so that a power cut cannot leave a new name on an old nothing."""
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
