"""Whatever becomes of a file of a store or of a saved model, it is found: no number is wrong without a word."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faults.jobs import BATCH, backbones, pictures

from grafeat.backbones.narrow import load_trained, train_backbone
from grafeat.checkpoint import load, save
from grafeat.grids import GridSet
from grafeat.merge import GraFeatMerge
from grafeat.pictures import PictureSet
from grafeat.planted import pointer
from grafeat.store import GridStore, extract


def extracted(store: Path, *, repair: bool = False) -> GridSet:
    return extract(backbones(), pictures(), store=store, batch_size=BATCH, progress=False, repair=repair)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    extracted(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model and a saved backbone."""
    folder, grids = tmp_path_factory.mktemp("saved"), pointer(31, shape=(2, 3), channels=(3, 5))
    model = GraFeatMerge.for_grids(grids, num_classes=4, width=12, heads=3, depth=1)
    shown = PictureSet(torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
    train_backbone("small_cnn", shown, epochs=1, save=folder / "backbone", progress=False)
    return {"model": save(model, folder / "model"), "backbone": folder / "backbone"}


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


@pytest.mark.parametrize("kind", ["model", "backbone"])
def test_a_flipped_byte_of_a_saved_file_is_always_found(saved: dict[str, Path], kind: str, flips: int) -> None:
    read = load if kind == "model" else load_trained
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
