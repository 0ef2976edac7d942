"""On a file system with no room left, old data stay whole and the error says what to do."""

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.driver import Driver
from faults.jobs import BATCH, backbones, pictures
from test_files import full_disk

from grafeat.checkpoint import load, save
from grafeat.merge import GraFeatMerge
from grafeat.planted import pointer
from grafeat.store import GridStore, extract

ROOM = 72 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 72 kB, where one may be made."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to make a file system")
    yield folder
    gc.collect()  # the frames of an error hold maps of its files
    subprocess.run(["umount", str(folder)], check=True)


def made(store: Path) -> object:
    return extract(backbones(), pictures(), store=store, batch_size=BATCH, progress=False)


def test_a_store_without_room_is_named_and_leaves_what_was_there(small: Path) -> None:
    """There is room for one of the two backbones."""
    lite, vit = backbones()
    extract([lite], pictures(), store=small, batch_size=BATCH, progress=False)
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match=r"store: could not write .*No space left on device.*; free some space"):
        extract([lite, vit], pictures(), store=small, batch_size=BATCH, progress=False)
    assert {path: path.read_bytes() for path in small.rglob("*") if path.is_file()} == before
    assert GridStore(small).verify() == []


def test_a_model_without_room_leaves_the_old_one_whole(small: Path) -> None:
    grids = pointer(31, shape=(2, 3), channels=(3, 5))
    path = save(GraFeatMerge.for_grids(grids, num_classes=4, width=12, heads=3, depth=1), small / "model")
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"could not write .*; the file that was there is unchanged; free some space"):
        save(GraFeatMerge.for_grids(grids, num_classes=4, width=96, heads=3, depth=2), path)
    assert path.read_bytes() == before
    assert [item.name for item in small.iterdir()] == ["model"]
    load(path)


def test_a_quota_is_a_full_disk_and_the_run_goes_on_once_it_is_lifted(tmp_path: Path, driver: Driver) -> None:
    """The quota on a file's length, at every size between nothing and enough."""
    expected = {path.name: path.read_bytes() for path in sorted(_files(tmp_path / "whole"))}
    for limit in (0, 100, 4096, 5000, 40_000):
        store = tmp_path / str(limit)
        with full_disk(limit), pytest.raises(OSError, match=r"could not write .*; raise the limit on the length of"):
            made(store)
        assert GridStore(store).verify() == []
        assert {path.name: path.read_bytes() for path in sorted(_files(store))} == expected


def _files(store: Path) -> list[Path]:
    made(store)
    return [path for path in store.rglob("*") if path.is_file()]
