"""A thousand times opened and closed, nothing is left open and nothing grows."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults.jobs import BATCH, backbones, pictures

from grafeat.files import read_tensors, write_tensors
from grafeat.store import GridStore, extract

STATUS, OPEN = Path("/proc/self/status"), Path("/proc/self/fd")
pytestmark = [
    pytest.mark.skipif(not STATUS.exists(), reason="needs the kernel's word on this process"),
    pytest.mark.usefixtures("unchecked"),  # checking shapes takes longer than what is checked
]
TIMES = 1000


def anonymous() -> int:
    """Bytes of memory that are no pages of a file."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def mapped() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def leaks(cycle: Callable[[], object]) -> tuple[int, int, int]:
    """Files, maps and bytes that a thousand cycles leave behind, after some to warm up."""
    for _ in range(50):
        cycle()
    gc.collect()
    before = len(os.listdir(OPEN)), mapped(), anonymous()
    for _ in range(TIMES):
        cycle()
    gc.collect()
    after = len(os.listdir(OPEN)), mapped(), anonymous()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def test_a_store_opened_a_thousand_times(tmp_path: Path) -> None:
    shown, seen = pictures(), backbones()

    def cycle() -> None:
        grids = extract(seen, shown, store=tmp_path, batch_size=BATCH, progress=False)
        assert bool(grids[torch.tensor([7, 130, 7])]["lite"].features.isfinite().all())

    files, maps, memory = leaks(cycle)
    assert files == 0
    assert maps <= 8  # the allocator may take an arena more
    assert memory < 4e6
    assert GridStore(tmp_path).verify() == []


def test_a_damaged_store_refused_a_thousand_times(tmp_path: Path) -> None:
    shown, seen = pictures(), backbones()[:1]
    extract(seen, shown, store=tmp_path, batch_size=BATCH, progress=False)
    (path,) = tmp_path.glob("*/features.safetensors")
    path.write_bytes(path.read_bytes()[:-1])

    def cycle() -> None:
        with pytest.raises(ValueError, match="is damaged"):
            extract(seen, shown, store=tmp_path, batch_size=BATCH, progress=False)

    files, _, memory = leaks(cycle)
    assert files == 0
    assert memory < 4e6


def test_a_saved_file_read_a_thousand_times(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a", {"weights": torch.ones(50_000)}, kind="model", about={})

    def cycle() -> None:
        tensors, _ = read_tensors(path, kind="model")
        assert float(tensors["weights"][-1]) == 1

    files, maps, memory = leaks(cycle)
    assert files == 0
    assert maps <= 8
    assert memory < 4e6
