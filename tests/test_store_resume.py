"""Wherever a run stops, the next one goes on from there, and what it leaves is the same to the byte."""

import errno
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_files import full_disk
from test_store import B, calls, lite, pictures, same, taken, vit

from grafeat.pictures import PictureSet
from grafeat.store import GridStore, lock, writer
from grafeat.store.extraction import extract
from grafeat.store.index import digest
from grafeat.store.journal import HEAD, journal_of, read_unfinished
from grafeat.store.lock import locked

__all__ = ["calls"]  # a fixture
BATCHES = [8, 8, 8, 5]


class Killed(BaseException):
    """What no handler may mend: everything after it is left as it is."""


def tree(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, what: object, name: str, number: int) -> Iterator[list[int]]:
    """From the chosen call of a function on, nothing more reaches the disk."""
    seen, real = [0], getattr(what, name)

    def counted(*arguments: object, **options: object) -> object:
        seen[0] += 1
        if seen[0] >= number:
            raise Killed
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(what, name, counted)
        patch.setattr(writer, "discard", lambda part: None)
        yield seen


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The store as it is when nothing stops."""
    taken([lite(), vit()], pictures(), tmp_path / "whole", batch_size=8)
    return tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("what", "name", "count"),
    [
        (os, "pwrite", 10),  # a header and four batches each
        (os, "write", 8),
        (os, "rename", 2),
        (os, "fsync", 4),
        (os, "posix_fallocate", 2),
        (writer, "digest", 8),
        (writer, "write", 4),  # journals and indexes
        (writer, "settle", 4),
        (Path, "unlink", 2),
        (Path, "mkdir", 2),
    ],
)
def test_a_run_that_stops_at_any_step_is_resumed_to_the_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    what: object,
    name: str,
    count: int,
) -> None:
    for number in range(1, count + 1):
        store = tmp_path / str(number)
        with killed_at(monkeypatch, what, name, number), pytest.raises(Killed):
            taken([lite(), vit()], pictures(), store, batch_size=8)
        finished = [path for path in store.glob("*/index.json") if path.parent.suffix != ".part"]
        assert not store.exists() or GridStore(store).verify() == []
        assert all(whole[str(path.relative_to(store))] == path.read_bytes() for path in finished)
        taken([lite(), vit()], pictures(), store, batch_size=8)
        assert tree(store) == whole


@pytest.mark.parametrize("number", range(1, 9))
def test_at_most_one_batch_is_computed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]], number: int
) -> None:
    backbones = [lite(), vit()]
    calls.clear()
    with killed_at(monkeypatch, writer, "line_of", number), pytest.raises(Killed):
        taken(backbones, pictures(), tmp_path, batch_size=8)
    taken(backbones, pictures(), tmp_path, batch_size=8)
    assert len(calls) == 2 * len(BATCHES) + 1  # the one whose note was not written


def test_what_a_stopped_run_has_left_does_not_count_as_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
) -> None:
    backbone = lite()
    with killed_at(monkeypatch, writer, "line_of", 3), pytest.raises(Killed):
        taken([backbone], pictures(), tmp_path, batch_size=8)
    (part,) = tmp_path.iterdir()
    assert part.suffix == ".part"
    calls.clear()
    assert same(taken([backbone], pictures(), tmp_path, batch_size=8), taken([backbone], pictures(), batch_size=8))
    assert calls[:2] == [("lite", 8), ("lite", 5)]


def test_another_batch_size_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_at(monkeypatch, writer, "line_of", 3), pytest.raises(Killed):
        taken([lite()], pictures(), tmp_path, batch_size=7)
    found = taken([lite(), vit()], pictures(), tmp_path, batch_size=5)
    expected = taken([lite(), vit()], pictures(), dtype=torch.float32)
    for name in ("lite", "vit"):
        torch.testing.assert_close(found[name].features.float(), expected[name].features, atol=2e-3, rtol=2e-3)
    assert GridStore(tmp_path).verify() == []


@pytest.mark.parametrize(
    "noted",
    [
        [8, 16, "d", [9, ""]],
        [8, 16, "d", [9.0]],
        [8.0, 16, "d", []],
        [8, 16, 5, []],
        [8, 16, "d", [7]],
        [8, 16, "d", [16]],
        [8, 30, "d", []],
        [16, 8, "d", []],
    ],
)
def test_a_line_of_a_journal_of_other_types_or_of_other_rows_ends_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: list[object]
) -> None:
    """Its checksum is right, as a careful attacker would write it."""
    with killed_at(monkeypatch, writer, "line_of", 2), pytest.raises(Killed):
        taken([lite()], pictures(), tmp_path, batch_size=8)
    (path,) = tmp_path.glob("*/journal")
    line = json.dumps([digest(json.dumps(noted).encode()), *noted])
    path.write_bytes(path.read_bytes() + f"{line}\n".encode())
    assert [piece[:2] for piece in read_unfinished(path.parent).pieces] == [(0, 8)]  # the line above it
    assert same(taken([lite()], pictures(), tmp_path, batch_size=8), taken([lite()], pictures(), batch_size=8))


@pytest.mark.parametrize("file", ["features.safetensors", "journal"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "zeros", "longer"])
def test_what_is_damaged_meanwhile_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], file: str, harm: str
) -> None:
    """As after a power cut, when notes had settled and batches had not, or the other way round."""
    store = tmp_path / "store"
    with killed_at(monkeypatch, writer, "line_of", 6), pytest.raises(Killed):
        taken([lite(), vit()], pictures(), store, batch_size=8)
    for path in store.glob(f"*/{file}"):
        content = path.read_bytes()
        place = len(content) // 2
        harmed = {
            "flip": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
            "cut": content[:-77],
            "empty": b"",
            "zeros": bytes(len(content)),
            "longer": content + b"[0, 8",
        }
        path.unlink()
        if harm != "gone":
            path.write_bytes(harmed[harm])
    taken([lite(), vit()], pictures(), store, batch_size=8)
    assert tree(store) == whole


def test_a_journal_whose_lines_have_no_checksums_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
) -> None:
    """As an earlier version wrote it."""
    backbone = lite()
    with killed_at(monkeypatch, writer, "line_of", 3), pytest.raises(Killed):
        taken([backbone], pictures(), tmp_path, batch_size=8)
    (path,) = tmp_path.glob("*/journal")
    first, *lines = path.read_bytes().removeprefix(HEAD).splitlines()
    old = [first, *(json.dumps(json.loads(line)[1:]).encode() for line in lines)]
    path.write_bytes(b"\n".join([*old, b""]))
    (entry,) = GridStore(tmp_path).info().entries
    assert (len(lines), entry.state, entry.done) == (2, "unfinished", 0)
    calls.clear()
    found = taken([backbone], pictures(), tmp_path, batch_size=8)
    assert [size for _, size in calls] == BATCHES
    assert same(found, taken([backbone], pictures(), batch_size=8))


def left_in_another_shape(store: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]) -> None:
    """Two batches, of which the journal says that their grids have some shape."""
    with killed_at(monkeypatch, writer, "line_of", 3), pytest.raises(Killed):
        taken([lite()], pictures(), store, batch_size=8)
    (part,) = store.iterdir()
    (part / "journal").write_bytes(journal_of(replace(read_unfinished(part), shape=shape)))


def test_grids_that_were_left_in_another_shape_are_named_and_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_in_another_shape(tmp_path, monkeypatch, (9, 5, 1))
    said = r"gave \(9, 5, 1\) in a run that was stopped, and now \(5, 3, 3\) from picture 16 on"
    with pytest.raises(ValueError, match=rf"{said}.*prune\(unfinished=True\)"):
        taken([lite()], pictures(), tmp_path, batch_size=8)
    assert len(GridStore(tmp_path).prune(unfinished=True).entries) == 1
    assert same(taken([lite()], pictures(), tmp_path, batch_size=8), taken([lite()], pictures(), batch_size=8))


def test_a_journal_of_another_shape_of_which_no_batch_is_there_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    """Nor does it ask for room: of this shape all would take 261 TB."""
    left_in_another_shape(tmp_path / "store", monkeypatch, (5, 3, 300_000_000_000))
    taken([lite(), vit()], pictures(), tmp_path / "store", batch_size=8)
    assert tree(tmp_path / "store") == whole


def test_pictures_of_several_sizes_are_refused_again(tmp_path: Path) -> None:
    shown = PictureSet([torch.zeros(3, 8, 8)] * 3 + [torch.zeros(3, 8, 12)] * 3)
    for said in (r"\(5, 2, 2\), then", r"\(5, 2, 2\) in a run that was stopped, and now"):
        with pytest.raises(ValueError, match=rf"gave {said} \(5, 2, 3\) from picture 3 on.*give the backbone a size="):
            taken([lite(size=None)], shown, tmp_path, batch_size=3)


def test_a_journal_of_other_grids_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for store, backbone in ((tmp_path / "a", lite()), (tmp_path / "b", vit())):
        with killed_at(monkeypatch, writer, "line_of", 3), pytest.raises(Killed):
            taken([backbone], pictures(), store, batch_size=8)
    ((ours,), (theirs,)) = ((tmp_path / "a").iterdir(), (tmp_path / "b").iterdir())
    for name in ("journal", "features.safetensors"):
        (ours / name).write_bytes((theirs / name).read_bytes())
    found = taken([lite()], pictures(), tmp_path / "a", batch_size=8)
    assert same(found, taken([lite()], pictures(), batch_size=8))


# A disk that fails


def test_a_disk_that_fills_up_in_the_middle_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    real, done = os.pwrite, []

    def full(descriptor: int, data: bytes, offset: int) -> int:
        done.append(offset)
        if len(done) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"No space left.*; free some space or name another.* are there are kept"):
        taken([lite(), vit()], pictures(), tmp_path / "store", batch_size=8)
    done.clear()
    monkeypatch.setattr(os, "pwrite", lambda *data: (done.append(1), real(*data))[1])
    taken([lite(), vit()], pictures(), tmp_path / "store", batch_size=8)
    assert len(done) == (8 - 3) + 2  # all but the three batches that were there, and both headers again
    assert tree(tmp_path / "store") == whole


def test_a_disk_that_reports_its_failure_late_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writer.os, "fsync", broken)
    with pytest.raises(OSError, match=r"store: could not write .*Input/output error"):
        taken([lite()], pictures(), tmp_path, batch_size=8)


def test_a_disk_that_fails_while_a_run_resumes_costs_nothing_of_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
) -> None:
    backbone = lite()
    with killed_at(monkeypatch, writer, "line_of", 3), pytest.raises(Killed):
        taken([backbone], pictures(), tmp_path, batch_size=8)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"Input/output error.* are kept"):
        patch.setattr(writer, "damaged", broken)
        taken([backbone], pictures(), tmp_path, batch_size=8)
    calls.clear()
    taken([backbone], pictures(), tmp_path, batch_size=8)
    assert [size for _, size in calls] == BATCHES[2:]


def test_room_is_asked_for_before_anything_is_computed_twice(
    tmp_path: Path, calls: list[tuple[str, int]]
) -> None:
    """Of 29 pictures one batch is shown, and then the whole file is asked for."""
    backbone = lite()
    calls.clear()
    with full_disk(5000), pytest.raises(OSError, match=r"with room for 6.71 kB; raise the limit on the length"):
        taken([backbone], pictures(), tmp_path, batch_size=8)
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


@contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """As one who may read a temporary folder but owns nothing in it."""
    temporary = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        if temporary in each.parents:
            each.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("closed", ["", "*", "*/index.json", "*/features.safetensors"])
def test_a_store_that_one_may_not_read_is_named(tmp_path: Path, closed: str) -> None:
    store = tmp_path / "store"
    expected = taken([lite()], pictures(), store)
    (path,) = store.glob(closed) if closed else [store]
    path.chmod(0o700 if path.is_dir() else 0o600)
    with another_user(tmp_path):
        for read in (
            lambda: taken([lite()], pictures(), store),
            lambda: taken([lite()], pictures(), store, repair=True),
            GridStore(store).verify,
            GridStore(store).info,
            lambda: GridStore(store).prune(keep=lite()),
        ):
            with pytest.raises(OSError, match=rf"store: could not read {store}.*Permission denied.*; make it readable"):
                read()
    assert same(taken([lite()], pictures(), store), expected)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_store_that_one_may_only_read_is_read(tmp_path: Path) -> None:
    store = tmp_path / "store"
    expected = taken([lite()], pictures(), store)
    with another_user(tmp_path):
        assert same(taken([lite()], pictures(), store), expected)
        assert GridStore(store).verify() == []
        for write in (
            lambda: taken([lite(), vit()], pictures(), store),
            lambda: GridStore(store).prune(keep=[vit()]),
        ):
            with pytest.raises(OSError, match=r"store: could not write .*Permission denied.*; make it writable or"):
                write()
    assert sorted(path.name for path in store.rglob("*.*")) == ["features.safetensors", "index.json"]


# Two at once


def test_the_second_waits_for_the_first_and_finds_what_it_made(
    tmp_path: Path, calls: list[tuple[str, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Here as two threads; tests/faults has two processes."""
    backbones, found = [lite(), vit()], []
    calls.clear()

    def work(names: list[int]) -> None:
        chosen = [backbones[name] for name in names]
        found.append(extract(chosen, pictures(), store=tmp_path, batch_size=1, progress=False))

    threads = [threading.Thread(target=work, args=(names,)) for names in ([0, 1], [1, 0], [1], [0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(calls) == 2 * B
    assert len(found) == 4
    assert len(list(tmp_path.iterdir())) == 2
    expected = taken([lite(), vit()], pictures(), batch_size=1)
    assert all(same(grids, expected.only(*grids.names)) for grids in found)


def test_waiting_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = next(path.name for path in (taken([lite()], pictures(), tmp_path / "a"), *(tmp_path / "a").iterdir())[1:])
    held = locked(tmp_path / "b" / f"{name}.part", None)
    thread = threading.Thread(target=lambda: extract([lite()], pictures(), store=tmp_path / "b"))
    thread.start()
    said = wait_for(lambda: capfd.readouterr().err, "waiting for another process")
    assert str(tmp_path / "b") in said
    assert not (tmp_path / "b" / name).exists()
    os.close(held)
    thread.join(60)
    assert (tmp_path / "b" / name).exists()


def wait_for(read: Callable[[], str], words: str) -> str:
    said = ""
    for _ in range(1000):
        said += read()
        if words in said:
            return said
        threading.Event().wait(0.01)
    raise AssertionError(said)


def test_the_lock_goes_to_who_finds_the_same_file(tmp_path: Path) -> None:
    """One that was finished or removed while another waited is not taken for the lock."""
    part = tmp_path / "a.part"
    held = locked(part, None)
    with pytest.raises(BlockingIOError):
        locked(part, None)
    taken_over: list[int] = []
    thread = threading.Thread(target=lambda: taken_over.append(locked(part, lambda: None)))
    thread.start()
    threading.Event().wait(0.05)
    lock.discard(part)
    os.close(held)
    thread.join(60)
    assert os.path.samestat(os.fstat(taken_over[0]), (part / "features.safetensors").stat())
    os.close(taken_over[0])


def test_a_folder_that_another_process_removes_or_makes_between_two_steps_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, mkdir, rmdir = tmp_path / "a.part", os.mkdir, os.rmdir

    def removed_meanwhile(path: Path, *mode: int) -> None:
        try:
            mkdir(path, *mode)
        except FileExistsError:
            if path == part:
                rmdir(part)
            raise

    def made_meanwhile(path: Path) -> None:
        (part / "features.safetensors").touch()
        rmdir(path)

    part.mkdir()
    monkeypatch.setattr(os, "mkdir", removed_meanwhile)
    held = locked(part, None)
    monkeypatch.setattr(os, "rmdir", made_meanwhile)
    lock.discard(part)
    os.close(held)
    assert [path.name for path in part.iterdir()] == ["features.safetensors"]
