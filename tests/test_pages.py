"""Rows of a file that is mapped cost the disk what they take, and no more."""

import os
from pathlib import Path

import pytest
import torch

from grafeat.grids import FeatureGrid
from grafeat.pages import ask_for
from grafeat.splits import take
from grafeat.store.folder import mapped
from grafeat.store.index import Index, Key, Piece

COUNT = 4099
INDEX = Index(Key("b", "p", "F16", COUNT), "b", "noise", (0.0, 0.0, 1.0, 1.0), (61, 7, 7), (Piece(0, COUNT, "a"),))


def read_from_disk() -> int:
    """Bytes that this process has made the disk read."""
    path = Path("/proc/self/io")
    if not path.exists():
        pytest.skip("needs the kernel's word on what was read")
    return int(dict(line.split(": ") for line in path.read_text().splitlines())["read_bytes"])


def dropped(path: Path) -> None:
    """Takes a file out of memory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def test_a_few_random_rows_of_a_cold_file_read_little_more_than_themselves(tmp_path: Path) -> None:
    path, begun = tmp_path / "features.safetensors", read_from_disk()
    path.write_bytes(INDEX.header + os.urandom(INDEX.nbytes - len(INDEX.header)))
    rows = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))[:23]
    grid = FeatureGrid.trusted("b", mapped(tmp_path, INDEX))
    dropped(path)
    path.read_bytes()
    if read_from_disk() - begun < INDEX.nbytes:
        pytest.skip("needs a disk")
    dropped(path)
    before = read_from_disk()
    _ = grid[rows].features
    assert read_from_disk() - before <= len(rows) * (INDEX.row_nbytes + 2 * 4096)


def test_asking_changes_nothing() -> None:
    """Of tensors in memory, in any order of their axes, or without memory of their own."""
    stored = torch.rand(11, 3, 5)
    rows = torch.tensor([7, 2, 2, 10])
    for one in (stored, stored.transpose(1, 2), stored.flip(0), stored.to("meta"), stored[:, :0]):
        ask_for(one, rows)
        ask_for(one, rows[:0])
    assert torch.equal(take(stored, rows), stored[rows])
