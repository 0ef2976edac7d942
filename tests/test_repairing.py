"""A repair computes anew what is damaged and what could not be read, and nothing else."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from PIL import Image
from test_joining import several
from test_store import B, calls, lite, pictures, same, taken
from test_store_folder import flipped, kept
from test_store_resume import Killed, killed_at

import grafeat.pictures
from grafeat.pictures import PictureSet
from grafeat.store import GridStore, folder, journal, repairing, writer
from grafeat.store.journal import unfinished

__all__ = ["calls"]  # a fixture


def test_what_is_unfinished_beside_a_damaged_whole_goes(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    """As a run leaves it that was killed while another finished."""
    folder, backbone = kept(tmp_path), lite()
    path = folder / "features.safetensors"
    whole = flipped(path, path.stat().st_size - 1)
    shutil.copytree(folder, unfinished(folder))
    (unfinished(folder) / path.name).write_bytes(b"")
    calls.clear()
    taken([backbone], pictures(), tmp_path, batch_size=8, repair=True)
    assert calls == [("lite", 5)]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert path.read_bytes() == whole


def test_of_two_that_find_the_damage_one_computes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
) -> None:
    """Both know of it before either does anything; here as two threads, tests/faults has two processes."""
    path, backbones, meeting = kept(tmp_path) / "features.safetensors", [lite(), lite()], threading.Barrier(2)
    whole = flipped(path, path.stat().st_size - 1)
    real = repairing.damages
    monkeypatch.setattr(repairing, "damages", lambda folder: (real(folder), meeting.wait(60))[0])
    found = []

    def work(number: int) -> None:
        found.append(taken([backbones[number]], pictures(), tmp_path, batch_size=8, repair=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    calls.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert calls == [("lite", 5)]
    assert path.read_bytes() == whole
    assert len(found) == 2 and same(*found)


class Worn:
    """A file of which the disk cannot read what begins between two places."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file, self._start, self._stop = file, start, stop

    def __enter__(self) -> "Worn":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read(self, count: int = -1) -> bytes:
        if self._start <= self._file.tell() < self._stop:
            raise OSError(errno.EIO, "Input/output error")
        return self._file.read(count)


@pytest.mark.parametrize(
    ("file", "worn", "rows", "computed"),
    [
        ("features.safetensors", (4096 + 8 * 90, 4096 + 24 * 90), [(8, 16), (16, 24), (24, 29)], 3),
        ("features.safetensors", (0, 4096), [None], 1),
        ("index.json", (0, 4096), [None], 4),
    ],
)
def test_what_a_disk_cannot_read_is_named_and_computed_anew_in_another_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[str, int]],
    file: str,
    worn: tuple[int, int],
    rows: list[tuple[int, int] | None],
    computed: int,
) -> None:
    """The last batch has another flaw, which is seen all the same."""
    path, backbone = kept(tmp_path) / file, lite()
    data = path.with_name("features.safetensors")
    whole = flipped(data, data.stat().st_size - 1)

    def opening(descriptor: int, mode: str) -> object:
        here = os.path.samestat(os.fstat(descriptor), os.fstat(place.fileno()))
        return Worn(open(descriptor, mode), *worn) if here else open(descriptor, mode)

    for module in (folder, journal):
        monkeypatch.setattr(module, "open", opening, raising=False)
    with path.open("rb") as place:  # which no other file gets as long as it is open
        found = GridStore(tmp_path).verify()
        assert [(damage.file, damage.pictures) for damage in found] == [(path, each) for each in rows]
        assert found[0].reason == "the disk cannot read it"
        calls.clear()
        taken([backbone], pictures(), tmp_path, batch_size=8, repair=True)
        assert len(calls) == computed
        assert not os.path.samestat(path.stat(), os.fstat(place.fileno()))
        assert GridStore(tmp_path).verify() == []
    assert data.read_bytes() == whole


# Pictures that can be read again


@pytest.fixture
def shown(tmp_path: Path) -> PictureSet:
    """Picture files whose labels are their numbers; one is bad for ever."""
    paths = [tmp_path / f"{number:02}.png" for number in range(B)]
    for path, picture in zip(paths, pictures().pictures, strict=True):
        Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy()).save(path)
    paths[18].write_bytes(b"spoiled")
    return PictureSet(paths, torch.arange(B))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Meanwhile a drive fails for two more of them."""
    real = grafeat.pictures._picture

    def flaky(path: Path, raw: bytes) -> torch.Tensor:
        return real(path, OSError("Input/output error") if path.name in ("03.png", "13.png") else raw)

    with monkeypatch.context() as patch:
        patch.setattr(grafeat.pictures, "_picture", flaky)
        yield


OPTIONS = {"batch_size": 8, "skip_unreadable": True}
GOOD = [number for number in range(B) if number != 18]


@pytest.mark.filterwarnings("ignore:pictures. left out")
@pytest.mark.parametrize(("state", "computed"), [("whole", 2), ("unfinished", 3), ("parts", 3)])
def test_pictures_that_can_be_read_again_are_computed_by_a_repair(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[str, int]],
    shown: PictureSet,
    state: str,
    computed: int,
) -> None:
    store, backbone = tmp_path / "store", lite()
    expected = taken([backbone], shown, tmp_path / "expected", **OPTIONS)
    assert expected.labels.tolist() == GOOD
    with failing(monkeypatch):
        if state == "whole":
            assert taken([backbone], shown, store, **OPTIONS).labels.tolist() == [
                number for number in GOOD if number not in (3, 13)
            ]
        else:
            processes = {"unfinished": 1, "parts": 2}[state]
            with killed_at(monkeypatch, writer, "line_of", 4), pytest.raises(Killed):
                several(processes, store, shown, made=lambda process: [backbone], **OPTIONS)
    calls.clear()
    several(1, store, shown, made=lambda process: [backbone], repair=True, **OPTIONS)
    assert len(calls) == computed
    assert same(taken([backbone], shown, store, **OPTIONS), expected)
    assert [path.suffix for path in store.iterdir()] == [""]
    for path in (tmp_path / "expected").rglob("*.*"):
        assert (store / path.relative_to(tmp_path / "expected")).read_bytes() == path.read_bytes()
    calls.clear()
    taken([backbone], shown, store, repair=True, **OPTIONS)
    assert calls == []  # the bad one is still bad


def test_the_remedy_for_a_picture_that_can_be_read_again_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: PictureSet
) -> None:
    few, store = shown[:18], tmp_path / "store"
    with failing(monkeypatch), pytest.warns(UserWarning, match="left out 2 of 18"):
        taken([lite()], few, store, **OPTIONS)
    with pytest.raises(ValueError, match=r"03.png can be read now, but could not before; .*again, with repair=True"):
        taken([lite()], few, store)
    assert taken([lite()], few, store, repair=True).labels.tolist() == list(range(18))
    assert GridStore(store).verify() == []
