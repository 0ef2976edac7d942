"""Several processes extract, killed or not, the bytes that one would have written, and leave nothing else."""

import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_sharing import Engine
from test_store import SIDE, B, Tiny, calls, lite, pictures, same, taken, vit
from test_store_resume import Killed, killed_at

from grafeat.backbones.backbone import Backbone
from grafeat.grids import GridSet
from grafeat.pictures import PictureSet
from grafeat.sharing import Share
from grafeat.store import GridStore, drafts, extraction, writer
from grafeat.store.drafts import content
from grafeat.store.joining import BLOCKS, blocks, in_use, remove_parts

__all__ = ["calls"]  # a fixture
PART, BATCHES = 4, 16  # of both backbones


@given(st.integers(1, 400), st.integers(1, 9))
def test_blocks_share_all_pictures_in_whole_batches(count: int, batch_size: int) -> None:
    found = blocks(count, batch_size)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(count))
    assert all(start % batch_size == 0 for start, _ in found) and len(found) <= BLOCKS
    batches = [-(-(stop - start) // batch_size) for start, stop in found]
    assert min(batches) >= 1 and max(batches) - min(batches) <= 1


SCRIPT = """
    import sys
    sys.path[:0] = {path!r}
    import torch
    from accelerate import Accelerator
    from test_store import lite, pictures, taken, vit
    torch.set_num_threads(1)
    taken([lite(), vit()], pictures(), sys.argv[1], batch_size=4, accelerator=Accelerator(cpu=True))
"""


def launched(processes: int, store: Path) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        number = port.getsockname()[1]
    code = textwrap.dedent(SCRIPT).format(path=[str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(number)}
    shared |= {"WORLD_SIZE": str(processes), "ACCELERATE_USE_CPU": "true"}
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]
    for child in several:
        _, said = child.communicate(timeout=300)
        assert child.returncode == 0, said.decode()


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_two_processes_write_what_one_would_have_written(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = taken([lite(), vit()], pictures(), tmp_path / "one", batch_size=PART)
    torch.set_num_threads(threads)
    launched(2, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    again = taken([lite(), vit()], pictures(), tmp_path / "two", batch_size=PART)
    assert len(again) == B and torch.equal(again["vit"].features, expected["vit"].features)


def test_several_processes_need_a_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"store: got None for 2 processes; expected a folder that all of them see"):
        taken([lite()], pictures(), accelerator=Engine(0, 2))


def test_one_process_with_an_accelerator_is_as_without(tmp_path: Path) -> None:
    one = taken([lite()], pictures(), tmp_path, accelerator=Engine(0, 1))
    assert torch.equal(one["lite"].features, taken([lite()], pictures())["lite"].features)


# Threads in the place of processes: each with its own locks, and all meet as processes do


class Met(Engine):
    """One of several threads, which sum when all are there."""

    def __init__(self, process: int, meeting: threading.Barrier, said: dict[int, torch.Tensor]) -> None:
        super().__init__(process, meeting.parties)
        self._meeting, self._said = meeting, said

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        self._said[self.process_index] = tensor
        self._meeting.wait(60)
        total = torch.stack(list(self._said.values())).sum(dim=0)
        self._meeting.wait(60)
        return total


@cache
def pair(process: int) -> list[Backbone]:
    """One process's backbones; made once, so that no call of theirs counts but those of the extraction."""
    assert process < 3
    return [lite(), vit()]


def several(
    processes: int,
    store: Path,
    shown: PictureSet | list[PictureSet] | None = None,
    *,
    made: Callable[[int], list[Backbone]] = pair,
    **options: object,
) -> list[GridSet]:
    """What each of several processes gets; where some fail, all end. Each may be given other pictures."""
    meeting, said = threading.Barrier(processes), {}
    given = shown if isinstance(shown, list) else [shown or pictures()] * processes

    def work(process: int) -> GridSet:
        asked = {"batch_size": PART, "accelerator": Met(process, meeting, said), **options}
        try:
            return taken(made(process), given[process], store, **asked)
        except BaseException:
            meeting.abort()
            raise

    with patch.object(Share, "wait", lambda self: meeting.wait(60)), ThreadPoolExecutor(processes) as pool:
        running = [pool.submit(work, process) for process in range(processes)]
    errors = [one.exception() for one in running]
    for error in sorted(filter(None, errors), key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [one.result() for one in running]


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The store as one process writes it."""
    taken(pair(0), pictures(), tmp_path / "whole", batch_size=PART)
    pair(1), pair(2)
    return contents(tmp_path / "whole")


def folders(store: Path) -> list[str]:
    return sorted(path.suffix for path in store.iterdir())


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_writes_what_one_would_have_written(
    tmp_path: Path, whole: dict[str, bytes], calls: list[tuple[str, int]], processes: int
) -> None:
    calls.clear()
    found = several(processes, tmp_path / "store")
    assert len(calls) == BATCHES
    assert contents(tmp_path / "store") == whole and folders(tmp_path / "store") == ["", ""]
    expected = taken(pair(0), pictures(), tmp_path / "whole")
    assert all(same(one, expected) for one in found)
    assert all(same(one, expected) for one in several(processes, tmp_path / "store"))


def killed(processes: int, store: Path, monkeypatch: pytest.MonkeyPatch, notes: int, **options: object) -> None:
    """So many processes, of which each stops when so many batches are noted in all."""
    with killed_at(monkeypatch, writer, "line_of", notes), pytest.raises(Killed):
        several(processes, store, **options)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(("first", "notes"), [(2, 2), (2, 8), (3, 11), (2, 18), (1, 7)])
def test_any_number_goes_on_with_what_another_has_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    calls: list[tuple[str, int]],
    first: int,
    notes: int,
    processes: int,
) -> None:
    """At most the batch that each was at is computed twice, and nothing is left behind."""
    calls.clear()
    killed(first, tmp_path / "store", monkeypatch, notes)
    several(processes, tmp_path / "store")
    assert BATCHES <= len(calls) <= BATCHES + first
    assert contents(tmp_path / "store") == whole and folders(tmp_path / "store") == ["", ""]


def test_one_that_was_killed_alone_goes_on_with_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], calls: list[tuple[str, int]]
) -> None:
    noted, real = [], writer.line_of

    def note(*arguments: object) -> bytes:
        noted.append(threading.get_ident())
        if noted.count(noted[0]) == 4 and noted[-1] == noted[0]:
            raise Killed
        return real(*arguments)

    calls.clear()
    with monkeypatch.context() as one, pytest.raises(Killed):
        one.setattr(writer, "line_of", note)
        several(2, tmp_path / "store")
    assert len(calls) == BATCHES // 2 + 4
    several(2, tmp_path / "store")
    assert len(calls) == BATCHES + 1
    assert contents(tmp_path / "store") == whole


def test_what_is_left_after_the_whole_was_there_is_removed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], calls: list[tuple[str, int]]
) -> None:
    for processes in (1, 2):
        store = tmp_path / str(processes)
        with killed_at(monkeypatch, extraction, "remove_parts", 1), pytest.raises(Killed):
            several(2, store)
        assert folders(store) == ["", "", ".parts", ".parts"]
        calls.clear()
        several(processes, store)
        assert contents(store) == whole and folders(store) == ["", ""]
        assert calls == []


def test_another_batch_size_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
) -> None:
    calls.clear()
    killed(2, tmp_path, monkeypatch, 9)
    calls.clear()
    found = several(3, tmp_path, batch_size=5)
    assert sum(count for _, count in calls) <= 2 * B - 8 * PART + 6  # eight notes, of which two may have a single one
    assert folders(tmp_path) == ["", ""] and GridStore(tmp_path).verify() == []
    expected = taken(pair(0), pictures(), dtype=torch.float32)
    for name in ("lite", "vit"):
        torch.testing.assert_close(found[1][name].features.float(), expected[name].features, atol=2e-3, rtol=2e-3)


def test_a_part_that_is_damaged_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], calls: list[tuple[str, int]]
) -> None:
    killed(2, tmp_path / "store", monkeypatch, 13)
    parts = sorted((tmp_path / "store").glob("*.parts/*/features.safetensors"))
    content = bytearray(parts[0].read_bytes())
    content[-1] ^= 1
    parts[0].write_bytes(content)
    parts[1].unlink()
    (parts[2].parent / "journal").write_text("17")
    assert len(parts) >= 6
    several(2, tmp_path / "store")
    assert contents(tmp_path / "store") == whole and folders(tmp_path / "store") == ["", ""]


@pytest.mark.parametrize("file", ["features.safetensors", "index.json"])
def test_several_repair_what_is_damaged(
    tmp_path: Path, whole: dict[str, bytes], calls: list[tuple[str, int]], file: str
) -> None:
    """What shows without reading every byte, and what does not."""
    for offset, computed in ((-1, 1 if file == "features.safetensors" else 8), (0, None)):
        (path,) = (tmp_path / "whole").glob(f"lite*/{file}")
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)
        calls.clear()
        several(2, tmp_path / "whole", repair=True)
        assert contents(tmp_path / "whole") == whole
        assert computed in (None, len(calls)) and GridStore(tmp_path / "whole").verify() == []


def files(folder: Path, count: int, *bad: int) -> PictureSet:
    """A set of picture files, some of them spoiled."""
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        paths.append(folder / f"{number:02}.png")
        Image.fromarray(generator.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)).save(paths[-1])
        if number in bad:
            paths[-1].write_bytes(paths[-1].read_bytes()[:99])
    return PictureSet(paths, torch.arange(count))


@pytest.mark.parametrize("bad", [range(8), range(8, 16), (*range(4, 8), *range(12, 16)), range(1, 16), [5]])
def test_a_process_that_can_read_none_of_its_pictures_leaves_them_out(tmp_path: Path, bad: list[int]) -> None:
    shown = files(tmp_path, 16, *bad)
    for processes in (1, 2):
        with pytest.warns(UserWarning, match=f"left out {len(bad)} of 16"):
            found = several(processes, tmp_path / str(processes), shown, skip_unreadable=True)
        assert [one.labels.tolist() for one in found] == processes * [[row for row in range(16) if row not in bad]]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    with pytest.raises(ValueError, match=rf"pictures: cannot read {tmp_path}/{min(bad):02}.png"):
        several(2, tmp_path / "2", shown)


def test_pictures_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"pictures: cannot read {tmp_path}/00.png"):
        several(2, tmp_path / "store", files(tmp_path, 16, *range(16)), skip_unreadable=True)


@pytest.mark.parametrize(("processes", "shared"), [(1, [7, 7, 7, 7, 1]), (2, [4, 4]), (3, [4, 4, 4])])
def test_the_processes_share_the_pictures_to_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, shared: list[int]
) -> None:
    """Each reads a few more, by which they see that they have the same set."""
    monkeypatch.setattr(drafts, "CHUNK", 7)
    monkeypatch.setattr(drafts, "SAMPLE", 3)
    expected = content(pictures(), Share())
    seen, real = [], PictureSet.fingerprint.fget
    monkeypatch.setattr(PictureSet, "fingerprint", property(lambda self: (seen.append(len(self)), real(self))[1]))
    several(processes, tmp_path)
    chunks = [7, 7, 7, 7, 1]
    assert sorted(seen) == sorted(chunks if processes == 1 else chunks + shared)
    assert {entry.index.key.pictures for entry in GridStore(tmp_path).info().entries} == {expected}


def test_a_process_knows_the_files_that_another_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = files(tmp_path, 16)
    monkeypatch.setattr(drafts, "CHUNK", 3)
    known: list[PictureSet] = []
    monkeypatch.setattr(drafts, "content", lambda found, share: (known.append(found), content(found, share))[1])
    several(2, tmp_path / "store", shown)
    assert [torch.equal(found.digests, shown.digests) for found in known] == [True, True]
    assert len({content(found, Share()) for found in (shown, *known)}) == 1


def test_what_is_known_of_pictures_is_their_content_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "CHUNK", 7)
    whole, swapped = pictures(), torch.arange(B)
    swapped[[6, 7]] = torch.tensor([7, 6])  # of two chunks
    others = [whole[swapped], whole[swapped.flip(0)], whole[:-1], whole[1:], pictures(seed=1)]
    assert len({content(shown, Share()) for shown in (whole, *others)}) == 6
    assert content(pictures(labels=None, parts=None, classes=None, name="other"), Share()) == content(whole, Share())


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_were_given_a_part_of_the_pictures_each_are_told_so(tmp_path: Path, processes: int) -> None:
    whole = pictures(processes * 5)
    shuffled = [whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))] for seed in range(3)]
    for split in ([whole[process::processes] for process in range(processes)], shuffled[:processes]):
        meant = rf"pictures: process \d of {processes} got others than another .*: extract shares it out itself"
        with pytest.raises(ValueError, match=meant):
            several(processes, tmp_path / "store", split)
        assert not (tmp_path / "store").exists()


def test_processes_whose_backbones_differ_are_told_so(tmp_path: Path) -> None:
    def made(process: int) -> list[Backbone]:
        return [Backbone(Tiny(5, 4, seed=process), name="lite", size=SIDE, tap="")]

    with pytest.raises(ValueError, match=r"backbones, dtype: process \d of 2 got others .*; load the same weights"):
        several(2, tmp_path / "store", made=made)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("first", [0, 1])
def test_grids_of_two_shapes_are_refused_whichever_process_meets_them(tmp_path: Path, first: int) -> None:
    sizes = [SIDE] * 4 + [SIDE + 6] * 4
    shown = PictureSet([torch.rand(3, side, side) for side in (sizes if first else sizes[::-1])])
    built = [[Backbone(Tiny(5, 6), name="lite", tap="")] for _ in range(2)]
    with pytest.raises(ValueError, match=r"pictures: backbone 'lite' gave .*, then .* as the pictures differ in size"):
        several(2, tmp_path, shown, made=built.__getitem__)


# The folder of the parts


def test_info_shows_the_parts_of_a_whole_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(2, tmp_path, monkeypatch, 9)
    info = GridStore(tmp_path).info()
    assert info.foreign == () and {entry.state for entry in info.entries} == {"unfinished"}
    assert {entry.index.key.count for entry in info.entries} == {B}
    assert 8 * PART - 6 <= sum(entry.done for entry in info.entries) <= 8 * PART
    assert re.search(r"29 noise|29 pictures", repr(info)) and info.nbytes > 0
    assert GridStore(tmp_path).verify() == []


@pytest.mark.parametrize("options", [{"unfinished": True}, {"keep": vit()}])
def test_nothing_is_pruned_of_what_processes_are_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    """Nor the blocks that each has finished."""
    call, seen, pruned = Backbone.__call__, [], []

    def note(self: Backbone, shown: torch.Tensor) -> object:
        seen.append(self.name)
        if len(seen) == BATCHES - 2:
            before = GridStore(tmp_path).info()
            assert sum(entry.done for entry in before.entries) > B
            pruned.append(GridStore(tmp_path).prune(**options))
            assert all(entry.path.exists() for entry in before.entries)
        return call(self, shown)

    pair(0), pair(1)
    monkeypatch.setattr(Backbone, "__call__", note)
    several(2, tmp_path)
    assert pruned[0].entries == () and len(seen) == BATCHES
    assert folders(tmp_path) == ["", ""]


def test_parts_are_pruned_as_what_they_are_parts_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(2, tmp_path, monkeypatch, 9)
    store = GridStore(tmp_path)
    assert store.prune(pictures=pictures(), keep=pair(0)).entries == ()
    assert len(store.prune(keep=[lite()]).entries) == 1
    assert len(store.prune(unfinished=True).entries) == 1
    assert list(tmp_path.iterdir()) == []


def test_parts_stay_as_long_as_any_process_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(2, tmp_path, monkeypatch, 9)
    parts = next(tmp_path.glob("lite*.parts"))
    there = sorted(parts.iterdir())
    with in_use(parts, pytest.fail), in_use(parts, pytest.fail):
        assert not remove_parts(parts) and sorted(parts.iterdir()) == there
    with in_use(parts, pytest.fail):
        assert not remove_parts(parts) and sorted(parts.iterdir()) == there
    assert remove_parts(parts) and not parts.exists()
    assert remove_parts(parts)


def test_a_folder_of_parts_in_which_nothing_was_written_goes(tmp_path: Path) -> None:
    parts = tmp_path / "lite-0123456789abcdef.parts"
    with in_use(parts, pytest.fail):
        with in_use(parts, pytest.fail):
            assert [path.name for path in parts.iterdir()] == ["lock"]
        assert parts.exists()
    assert not parts.exists()


def test_a_link_in_the_place_of_parts_is_refused(tmp_path: Path, whole: dict[str, bytes]) -> None:
    (folder,) = (tmp_path / "whole").glob("lite*")
    aside, link = tmp_path / "aside", folder.with_name(f"{folder.name}.parts")
    aside.mkdir()
    (aside / "mine.part").mkdir()
    link.symlink_to(aside)
    assert len(taken(pair(0), pictures(), tmp_path / "whole")) == B
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(ValueError, match="a link, which could lead to any file out of the store, is refused"):
        several(2, tmp_path / "whole")
    assert (aside / "mine.part").exists()
