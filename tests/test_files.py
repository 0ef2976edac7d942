"""A file of ours is whole or not there; a file of others is refused by name, and nothing in it runs."""

import errno
import hashlib
import json
import os
import pickle
import re
import resource
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from grafeat import files
from grafeat.files import check_writable, read_tensors, write_tensors

TENSORS = {
    "weights": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([0.1, -7.0]).half(),
    "counts": torch.tensor([2**40, -11]),
    "empty": torch.empty(0, 13),
    "scalar": torch.tensor(17.0),
}
MAPS = Path("/proc/self/maps")


def written(path: Path, tensors: dict[str, Tensor] = TENSORS, **about: object) -> Path:
    return write_tensors(path, tensors, kind="model", about=about)


# What is written is read


def test_tensors_and_their_description_come_back_to_the_bit(tmp_path: Path) -> None:
    about = {"config": {"width": 64, "classes": ["katze", "犬"]}, "pi": 3.14}
    path = written(tmp_path / "new" / "folder" / "a.safetensors", **about)
    tensors, found = read_tensors(path, kind="model")
    assert found == {"kind": "model", "format": 2, **about}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


def test_numpy_reads_the_same_file(tmp_path: Path) -> None:
    """It is an ordinary safetensors file."""
    found = safetensors.numpy.load_file(written(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(found["weights"], TENSORS["weights"].numpy())


def test_views_and_parameters_are_written_as_they_look(tmp_path: Path) -> None:
    weights = TENSORS["weights"]
    views = {"turned": weights.T, "part": weights[1:, ::2], "learned": torch.nn.Parameter(weights)}
    tensors, _ = read_tensors(written(tmp_path / "a", views), kind="model")
    assert all(torch.equal(tensors[name], view) for name, view in views.items())
    assert not tensors["learned"].requires_grad


def test_names_may_be_strings_or_paths_and_the_path_is_returned(tmp_path: Path) -> None:
    path = write_tensors(str(tmp_path / "a"), TENSORS, kind="model", about={})
    assert path == tmp_path / "a"
    assert read_tensors(str(path), kind="model")[0].keys() == TENSORS.keys()


@pytest.mark.skipif(not MAPS.exists(), reason="needs the kernel's list of memory maps")
def test_tensors_are_memory_mapped_and_writing_to_them_leaves_the_file_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "mapped.safetensors", {"large": torch.ones(1 << 16)})
    before, (tensors, _) = path.read_bytes(), read_tensors(path, kind="model")
    assert "mapped.safetensors" in MAPS.read_text()
    tensors["large"].zero_()
    assert path.read_bytes() == before


def test_any_length_of_the_header_is_read(tmp_path: Path) -> None:
    """The file begins with that length: where its low byte is 0x80, it begins as a pickle does."""
    (shortest,) = struct.unpack("<Q", written(tmp_path / "a", about="").read_bytes()[:8])
    for protocol in (2, 3, 4, 5):
        padding = "x" * (0x80 + 0x100 * protocol - shortest)
        path = written(tmp_path / "a", about=padding)
        assert path.read_bytes()[:2] == bytes([0x80, protocol])
        assert read_tensors(path, kind="model")[1]["about"] == padding


def test_others_may_read_what_one_has_written(tmp_path: Path) -> None:
    """The folder's usual permissions, not those of a scratch file that is its owner's alone."""
    for mask, expected in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            path = written(tmp_path / str(mask))
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == expected


# Nothing is lost when writing fails


@contextmanager
def full_disk(limit: int = 4096) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel refuses it, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors")
    before = path.read_bytes()
    with (
        full_disk(),
        pytest.raises(OSError, match=rf"path: could not write {path} \(.*File too large") as caught,
    ):
        written(path, {"large": torch.ones(100_003)})
    assert str(caught.value).endswith(
        "expected a writable folder with room for 0.4 MB; the file that was there is unchanged; "
        "raise the limit on the length of a file, or name a folder on another disk"
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_full_disk_leaves_no_new_file(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match=r"room for 0\.4 MB; raise the limit on the length of"):
        written(tmp_path / "a.safetensors", {"large": torch.ones(100_003)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or name another folder"),
        (errno.EDQUOT, "free some space or name another folder"),
        (errno.EROFS, "make it writable or name another folder"),
        (errno.EIO, "check the disk, or name a folder on another"),
        (errno.ENOTDIR, "name another folder"),
    ],
)
def test_the_remedy_is_that_for_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=rf"path: could not write .*{os.strerror(number)}.*; {remedy}$"):
        written(tmp_path / "a.safetensors")


KILLED = """
import resource, signal, sys, torch
from grafeat.files import write_tensors

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_tensors(sys.argv[1], {"large": torch.ones(100_003)}, kind="model", about={})
"""


def test_what_a_kill_in_the_midst_of_writing_leaves_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    """The kernel kills the process that writes more than it may."""
    path = written(tmp_path / "a.safetensors")
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    assert path.read_bytes() == before
    (left,) = {name for name in os.listdir(tmp_path) if name != path.name}
    assert re.fullmatch(r"\.a\.safetensors\.[0-9a-f]{8}\.part", left)
    other = tmp_path / ".b.safetensors.01234567.part"
    other.touch()
    written(path)
    assert {*tmp_path.iterdir()} == {path, other}


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    path, inside = tmp_path / "a", []

    def content(scratch: Path) -> None:
        files.write(path, b"meanwhile, by another")
        inside.append(scratch.exists())
        scratch.write_bytes(b"at last")

    files.write(path, content)
    assert inside == [True]
    assert (path.read_bytes(), [*tmp_path.iterdir()]) == (b"at last", [path])


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failing_at_any_step_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = written(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises((OSError, KeyboardInterrupt), match=r"No space left on device|^$"):
        written(path, {"other": torch.ones(7)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_the_file_appears_only_when_it_is_whole_and_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen, settle = tmp_path / "a.safetensors", [], os.fsync

    def note(descriptor: int) -> None:
        (scratch,) = tmp_path.iterdir()
        seen.append((path.exists(), read_tensors(scratch, kind="model")[0].keys()))
        settle(descriptor)

    monkeypatch.setattr(files.os, "fsync", note)
    written(path)
    assert seen == [(False, TENSORS.keys())]
    assert path.exists()


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "a.safetensors", tmp_path / "file" / "b" / "a.safetensors"):
        with pytest.raises(OSError, match=f"path: could not write {path} .*; expected a writable folder"):
            written(path)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_in_the_place_of_the_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="path: could not write"):
        written(tmp_path / "a")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a", "inside"]


def test_trying_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors")
    before = path.read_bytes()
    check_writable(path)
    check_writable(tmp_path / "new" / "b")
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a.safetensors", "new"]
    with pytest.raises(OSError, match=rf"path: could not write {path}/b .*; expected a writable folder; name another"):
        check_writable(path / "b")
    with pytest.raises(IsADirectoryError, match=rf"path: {tmp_path} is a folder; expected a file, .*; add a name"):
        check_writable(tmp_path)


# What is refused


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": 1}, "is 'model' in format 1; expected 'model' in format 2"),  # which had no checksum
        ({"format": 2}, "is damaged: its checksum is another"),
        ({"format": 2, "checksum": ""}, "is damaged: its checksum is another"),
        ({"format": 2, "checksum": 17}, "is damaged: its checksum is another"),
    ],
)
def test_a_file_without_a_checksum_is_refused(tmp_path: Path, about: dict[str, object], message: str) -> None:
    header = {"grafeat": json.dumps({"kind": "model", **about})}
    safetensors.torch.save_file({"one": torch.ones(3)}, tmp_path / "unsealed", metadata=header)
    refused(tmp_path / "unsealed", message)


def test_the_checksum_is_that_of_all_other_bytes(tmp_path: Path) -> None:
    whole = written(tmp_path / "a").read_bytes()
    checksum = re.search(rb"[0-9a-f]{32}", whole)[0]
    expected = hashlib.sha256(whole.replace(checksum, b"0" * 32)).hexdigest()[:32]
    assert checksum.decode() == expected


def test_each_flipped_byte_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "a", {"weights": TENSORS["weights"]})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        refused(path, "is no whole safetensors file|is damaged: its checksum is another|expected 'model' in format 2")


def test_a_description_that_looks_like_a_checksum_is_none(tmp_path: Path) -> None:
    about = {"config": {"checksum": "f" * 32}, "name": '"checksum": "' + "e" * 32}
    assert read_tensors(written(tmp_path / "a", **about), kind="model")[1]["config"] == about["config"]


def refused(path: Path, message: str, kind: str = "model") -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_tensors(path, kind=kind)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "a.safetensors", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=f"path: there is no file {path}; expected one that grafeat saved"
        ):
            read_tensors(path, kind="model")


@pytest.mark.parametrize("length", [0, 1, 5, 7, 8, 9, 50, 199, -300, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "a.safetensors", {"one": torch.randn(101)})
    path.write_bytes(path.read_bytes()[:length])
    refused(
        path, "is no whole safetensors file .*; it is truncated or foreign; use another copy, or make it anew"
    )


@pytest.mark.parametrize("place", [0, 3, 7, 8, 9, 30])
def test_a_flipped_header_is_refused(tmp_path: Path, place: int) -> None:
    path = written(tmp_path / "a.safetensors")
    flipped = bytearray(path.read_bytes())
    flipped[place] ^= 0xFF
    path.write_bytes(flipped)
    refused(path, "is no whole safetensors file")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 97, b"{}", b"hello\n" * 31, b"\x89PNG\r\n\x1a\n" + b"\0" * 50]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", "is no whole safetensors file")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"grafeat": "[1]"}, {"grafeat": "17"}])
def test_safetensors_of_another_program_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"one": torch.ones(3)}, path, metadata=metadata)
    refused(
        path, r"is a file of another program; expected 'model' in format 2; name the file that grafeat saved"
    )


def test_a_header_that_is_no_json_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"one": torch.ones(3)}, tmp_path / "a", metadata={"grafeat": "{'kind'"})
    refused(tmp_path / "a", "is no whole safetensors file")


def test_another_kind_and_another_format_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tensors(tmp_path / "grids", TENSORS, kind="feature grids", about={})
    refused(path, "is 'feature grids' in format 2; expected 'model' in format 2")
    monkeypatch.setattr(files, "FORMAT", 3)
    later = written(tmp_path / "later")
    monkeypatch.undo()
    refused(later, "is 'model' in format 3; expected 'model' in format 2")


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_and_not_executed(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=protocol))
    refused(path, "is a pickle, which can run any code when it is read; it was refused and nothing of it ran")
    assert not (tmp_path / "sprung").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap is a good one


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_a_pickle_and_is_refused(tmp_path: Path, zipped: bool) -> None:
    for content in ({"weights": torch.ones(3)}, Trap(tmp_path / "sprung")):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        refused(tmp_path / "a.pt", "is a pickle, .*save the model anew with gf.save")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("kind", "remedy"), [("training", "name another file"), ("lab cell", "make it anew")])
def test_the_remedy_for_a_pickle_is_that_of_the_kind_of_file(tmp_path: Path, kind: str, remedy: str) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps({"weights": 3}))
    refused(tmp_path / "a", f"is a pickle, .*expected a safetensors file; {remedy}$", kind)


def test_a_pickle_in_letters_is_refused_and_not_executed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=0))
    refused(tmp_path / "a", "is no whole safetensors file")
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    """Nothing of the promised size is ever asked for."""
    header = {"one": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)
    refused(tmp_path / "a", "is no whole safetensors file")
