"""Whatever becomes of a file of a store or of a saved model, it is found: no number is wrong without a word."""

import itertools
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faults.jobs import BATCH, SIDE, Noted, backbones, pictures
from PIL import Image

from grafeat.backbones.narrow import load_trained, train_backbone
from grafeat.checkpoint import load, save
from grafeat.grids import GridSet
from grafeat.merge import GraFeatMerge
from grafeat.pictures import PictureSet
from grafeat.planted import pointer
from grafeat.store import GridStore, extract
from grafeat.training import fit


def extracted(store: Path, *, repair: bool = False) -> GridSet:
    return extract(backbones(), pictures(), store=store, batch_size=BATCH, progress=False, repair=repair)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    extracted(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model, a saved backbone and the checkpoint of a training."""
    folder, grids = tmp_path_factory.mktemp("saved"), pointer(31, shape=(2, 3), channels=(3, 5))
    model = GraFeatMerge.for_grids(grids, num_classes=4, width=12, heads=3, depth=1)
    shown = PictureSet(torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
    train_backbone("small_cnn", shown, epochs=1, save=folder / "backbone", progress=False)
    read_back(folder / "training")
    return {"model": save(model, folder / "model"), **{name: folder / name for name in ("backbone", "training")}}


def read_back(path: Path) -> None:
    """Trains for one epoch; where the checkpoint is there and whole, nothing is left to do."""
    grids = pointer(31, shape=(2, 3), channels=(3, 5))
    model = GraFeatMerge.for_grids(grids, num_classes=4, width=12, heads=3, depth=1)
    fit(model, grids, epochs=1, checkpoint=path, progress=False)


READ = {"model": load, "backbone": load_trained, "training": read_back}


def flipped(paths: list[Path], times: int) -> Iterator[Path]:
    """A random byte of a random file becomes another, file by file weighed by nothing; then it is as it was."""
    draw = random.Random(0)
    for _ in range(times):
        path = draw.choice(paths)
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        with path.open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ draw.randrange(1, 256)]))
            file.flush()
            yield path
            file.seek(place)
            file.write(whole[place : place + 1])


def test_a_flipped_byte_of_a_store_is_always_found(store: Path, flips: int) -> None:
    paths = sorted(path for path in store.rglob("*") if path.is_file())
    assert len(paths) == 4
    for path in flipped(paths, flips):
        assert [damage.file for damage in GridStore(store).verify()] == [path]
    assert GridStore(store).verify() == []


class Stop(Exception):
    """Ends an extraction in its middle."""


@pytest.mark.filterwarnings("ignore:pictures. left out")
def test_a_flipped_byte_of_what_a_stopped_run_has_left_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flips: int
) -> None:
    """Two of its pictures could not be read, which the journal alone knows."""
    paths = [tmp_path / f"{number:02}.png" for number in range(17)]
    for number, path in enumerate(paths):
        Image.new("RGB", (SIDE, SIDE), (number, 3 * number, 7 * number)).save(path)
    for number in (3, 6):
        paths[number].write_bytes(b"spoiled")
    shown, backbone, store = PictureSet(paths), backbones()[0], tmp_path / "store"
    call, batches = Noted.__call__, iter(range(3))

    def stopping(self: Noted, pictures: torch.Tensor) -> object:
        if next(batches, None) is None:
            raise Stop
        return call(self, pictures)

    def tree() -> dict[str, bytes]:
        extract([backbone], shown, store=store, batch_size=BATCH, progress=False, skip_unreadable=True)
        return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Noted, "__call__", stopping)
        tree()
    shutil.copytree(store, tmp_path / "left")
    expected, (journal,) = tree(), (tmp_path / "left").glob("*/journal")
    for path in flipped([journal, journal.with_name("features.safetensors")], flips // 10):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "left", store)
        assert tree() == expected, path
    raw = journal.read_bytes()
    rows = [match.start(1) for match in re.finditer(rb"\[(\d)\]\]", raw)]  # where it says which they are
    assert len(rows) == 2
    for place, bit in itertools.product(rows, range(4)):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "left", store)
        (store / journal.relative_to(tmp_path / "left")).write_bytes(
            raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]
        )
        assert tree() == expected


@pytest.mark.parametrize("kind", READ)
def test_a_flipped_byte_of_a_saved_file_is_always_found(saved: dict[str, Path], kind: str, flips: int) -> None:
    read = READ[kind]
    for path in flipped([saved[kind]], flips):
        with pytest.raises(ValueError, match=f"path: {path} is "):
            read(path)
    read(saved[kind])


@pytest.mark.parametrize("harm", ["truncate", "zero", "empty", "remove"])
def test_whatever_is_lost_is_found_and_made_anew(tmp_path: Path, store: Path, harm: str) -> None:
    expected = extracted(store)
    draw = random.Random(0)
    for original in sorted(path for path in store.rglob("*") if path.is_file()):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(store, tmp_path / "copy")
        path = tmp_path / "copy" / original.relative_to(store)
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        path.write_bytes({"truncate": whole[:place], "zero": whole[:place] + bytes(len(whole) - place)}.get(harm, b""))
        if harm == "remove":
            path.unlink()
        assert {damage.file for damage in GridStore(tmp_path / "copy").verify()} == {path}
        grids = extracted(tmp_path / "copy", repair=True)
        assert path.read_bytes() == whole
        assert all(torch.equal(grids[name].features, expected[name].features) for name in expected.names)


@pytest.mark.parametrize("file", ["features.safetensors", "index.json"])
def test_two_files_that_were_swapped_are_found(tmp_path: Path, store: Path, file: str) -> None:
    shutil.copytree(store, tmp_path / "copy")
    one, other = sorted((tmp_path / "copy").glob(f"*/{file}"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert {damage.file for damage in GridStore(tmp_path / "copy").verify()} == {one, other}
    extracted(tmp_path / "copy", repair=True)
    assert (one.read_bytes(), other.read_bytes()) == (first, second)


def test_a_truncated_or_zeroed_model_is_found(tmp_path: Path, saved: dict[str, Path]) -> None:
    whole, draw = saved["model"].read_bytes(), random.Random(0)
    path = tmp_path / "model"
    for place in (draw.randrange(len(whole)) for _ in range(50)):
        for content in (whole[:place], whole[:place] + bytes(len(whole) - place), whole + b"\0"):
            path.write_bytes(content)
            if content == whole:  # its last bytes were zeros
                continue
            with pytest.raises(ValueError, match=f"path: {path} is "):
                load(path)
