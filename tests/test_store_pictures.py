"""Picture files on their way to the backbones: a bad one is named or left out, other processes decode alike."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_store import SIDE, calls, lite, pictures, same, taken, vit

from grafeat.grids import GridSet
from grafeat.pictures import PictureSet
from grafeat.sharing import Share
from grafeat.store import batches, drafts
from grafeat.store.batches import Batch, Batches, loaded

__all__ = ["calls"]  # a fixture
COUNT = 13


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., PictureSet]:
    """A set of picture files, some of them spoiled: labels are positions, the last four are the test part."""

    def made(*bad: int) -> PictureSet:
        generator, paths = np.random.default_rng(0), []
        for number in range(COUNT):
            paths.append(tmp_path / f"{number:02}.png")
            Image.fromarray(generator.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)).save(paths[-1])
            if number in bad:
                paths[-1].write_bytes(paths[-1].read_bytes()[:99])
        parts = {"train": torch.arange(9), "test": torch.arange(9, COUNT)}
        return PictureSet(paths, torch.arange(COUNT), name="zoo", parts=parts)

    return made


def left_out(shown: PictureSet, store: Path | None = None, **options: object) -> tuple[GridSet, str]:
    with pytest.warns(UserWarning, match="left out") as caught:
        grids = taken([lite(), vit()], shown, store, batch_size=4, skip_unreadable=True, **options)
    (warning,) = caught
    return grids, str(warning.message)


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_that_is_not_there_is_named_or_left_out_like_a_bad_one(
    folder: bool, tmp_path: Path, files: Callable[..., PictureSet]
) -> None:
    shown = files()
    (tmp_path / "05.png").unlink()
    if folder:
        (tmp_path / "05.png").mkdir()
    with pytest.raises(ValueError, match=rf"pictures: cannot read {tmp_path}/05.png .*skip_unreadable=True"):
        taken([lite()], shown, tmp_path / "store", batch_size=4)
    grids, said = left_out(shown, tmp_path / "store")
    assert grids.labels.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12] and "05.png" in said
    without = shown.fingerprint
    if folder:
        (tmp_path / "05.png").rmdir()
    files()
    assert shown.fingerprint != without


def test_a_bad_picture_stops_the_run_and_is_named(tmp_path: Path, files: Callable[..., PictureSet]) -> None:
    for store in (None, tmp_path / "store"):
        with pytest.raises(ValueError, match=rf"pictures: cannot read {tmp_path}/05.png .*skip_unreadable=True"):
            taken([lite()], files(5), store, batch_size=4)


@pytest.mark.parametrize("bad", [(5,), (0, 12), (0, 1, 2, 3), (2, 8, 9, 10, 11, 12)])
def test_bad_pictures_are_left_out_and_all_else_stays_in_step(
    tmp_path: Path, files: Callable[..., PictureSet], bad: tuple[int, ...], calls: list[tuple[str, int]]
) -> None:
    good = [number for number in range(COUNT) if number not in bad]
    expected = taken([lite(), vit()], files()[good], batch_size=4)
    shown = files(*bad)
    for store in (None, tmp_path / "store", tmp_path / "store"):
        calls.clear()
        grids, said = left_out(shown, store)
        assert len(grids) == len(good)
        assert grids.labels.tolist() == good
        assert grids.train.labels.tolist() == [number for number in good if number < 9]
        assert grids.test.labels.tolist() == [number for number in good if number >= 9]
        for name in ("lite", "vit"):
            torch.testing.assert_close(grids[name].features, expected[name].features, atol=2e-3, rtol=2e-3)
        assert re.findall(r"\d\d(?=\.png)", said) == [f"{number:02}" for number in bad]
        assert f"left out {len(bad)} of 13 that cannot be read: {tmp_path}" in said
        kept = shown.leaving_out(list(bad))
        assert said.endswith(f"pictures.leaving_out({list(bad)})")
        assert torch.equal(kept.labels, grids.labels)
        assert torch.equal(kept.test.labels, grids.test.labels)
    assert calls == [("lite", 1), ("vit", 1)]  # the third time all of it was there: two backbones were made, no more
    with pytest.raises(ValueError, match=rf"pictures: cannot read {tmp_path}/{bad[0]:02}.png"):
        taken([lite(), vit()], shown, tmp_path / "store")


def test_a_set_of_bad_pictures_alone_is_refused(tmp_path: Path, files: Callable[..., PictureSet]) -> None:
    for store in (None, tmp_path / "store"):
        with pytest.raises(ValueError, match=rf"pictures: cannot read {tmp_path}/00.png"):
            taken([lite()], files(*range(COUNT)), store, skip_unreadable=True)
    assert list((tmp_path / "store").iterdir()) == []


def test_of_many_bad_pictures_the_first_ten_are_named(tmp_path: Path, files: Callable[..., PictureSet]) -> None:
    bad = list(range(1, COUNT))
    for few, rest in ((10, ""), (11, " and 1 more"), (12, " and 2 more")):
        _, said = left_out(files(*bad[:few]))
        assert re.findall(r"\d\d(?=\.png)", said) == [f"{number:02}" for number in bad[:10]]
        assert (f"{rest}; gf.PictureSet(paths, skip_unreadable=True).skipped lists them all" in said) == bool(rest)
        assert said.endswith(f"pictures.leaving_out({bad[:10]})") == (not rest)


def test_nothing_is_said_where_all_can_be_read(files: Callable[..., PictureSet]) -> None:
    assert same(taken([lite()], files(), skip_unreadable=True), taken([lite()], files()))


def test_other_processes_decode_alike(tmp_path: Path, files: Callable[..., PictureSet]) -> None:
    shown, backbones = files(5), [lite(), vit()]
    expected, _ = left_out(shown)
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match=f"left out 1 of 13 that cannot be read: {tmp_path}/05.png"):
        found = taken(backbones, shown, tmp_path / "store", batch_size=4, skip_unreadable=True, workers=1)
    assert same(found, expected)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.warns(UserWarning, match="left out 1"):  # where nothing is left to decode, none is started
        again = taken(backbones, shown, tmp_path / "store", skip_unreadable=True, workers=10_000)
    assert same(again, expected)


@pytest.mark.parametrize(
    ("change", "options"),
    [("another", {}), ("another", {"workers": 1}), ("damaged", {"skip_unreadable": True})],
)
def test_a_file_that_changes_meanwhile_is_refused_and_named(
    tmp_path: Path,
    files: Callable[..., PictureSet],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    options: dict[str, object],
) -> None:
    shown, known, path = files(), drafts.content, tmp_path / "07.png"
    whole = path.read_bytes()

    def changed(*given: object) -> str:
        found = known(*given)
        path.write_bytes((tmp_path / "06.png").read_bytes() if change == "another" else whole[:99])
        return found

    monkeypatch.setattr(drafts, "content", changed)
    with pytest.raises(ValueError, match=rf"^pictures: {path} has changed while this run was on; .*call again"):
        taken([lite()], shown, tmp_path / "store", batch_size=4, **options)
    monkeypatch.undo()
    path.write_bytes(whole)
    assert same(taken([lite()], shown, tmp_path / "store", batch_size=4), taken([lite()], shown))


def test_a_file_that_goes_meanwhile_is_left_out_and_can_be_repaired(
    tmp_path: Path, files: Callable[..., PictureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, known, path = files(), drafts.content, tmp_path / "07.png"
    away = tmp_path / "away.png"
    monkeypatch.setattr(drafts, "content", lambda *given: (known(*given), path.rename(away))[0])
    _, said = left_out(shown, tmp_path / "store")
    assert re.findall(r"\d\d(?=\.png)", said) == ["07"]
    monkeypatch.undo()
    away.rename(path)
    repaired = taken([lite()], shown, tmp_path / "store", batch_size=4, repair=True)
    assert same(repaired, taken([lite()], shown, batch_size=4))


def test_a_file_that_appears_meanwhile_is_refused(tmp_path: Path, files: Callable[..., PictureSet]) -> None:
    shown, path = files(), tmp_path / "07.png"
    whole = path.read_bytes()
    path.unlink()
    known = drafts.remembered(shown, Share())
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"07\.png has changed"):
        _ = known.pictures
    assert len(shown.pictures) == COUNT and known.fingerprint != shown.fingerprint


def test_a_batch_travels_as_one_tensor_of_bytes(tmp_path: Path) -> None:
    sizes, generator = [(5, 7), (11, 3), (2, 13)], np.random.default_rng(0)
    for number, (h, w) in enumerate(sizes):
        Image.fromarray(generator.integers(256, size=(h, w, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    shown = PictureSet([tmp_path / f"{number}.png" for number in range(3)])
    (batch,) = loaded(Batches(shown, [(0, 3)]), workers=1, device=torch.device("cpu"))
    assert (batch.kept.dtype, batch.kept.numel()) == (torch.uint8, 3 * sum(h * w for h, w in sizes))
    assert [tuple(picture.shape) for picture in batch.pictures] == [(3, *size) for size in sizes]
    assert all(map(torch.equal, batch.pictures, shown.pictures))


def test_pictures_of_several_kinds_in_one_batch_stay_what_they_are() -> None:
    shown = PictureSet([torch.rand(1, 5, 7), torch.full((3, 11, 3), 200, dtype=torch.uint8), torch.rand(3, 5, 7)])
    (batch,) = loaded(Batches(shown, [(0, 3)]), device=torch.device("cpu"))
    assert all(map(torch.equal, batch.pictures, shown.pictures))


def test_no_process_is_started_for_pictures_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "DataLoader", None)
    assert same(taken([lite()], pictures(), workers=2), taken([lite()], pictures()))


def test_batches_are_read_when_they_are_needed(files: Callable[..., PictureSet]) -> None:
    read = loaded(Batches(files(), [(0, 4), (8, 12), (12, 13)]), device=torch.device("cpu"))
    assert next(read).rows == (0, 4)
    assert [batch.rows for batch in read] == [(8, 12), (12, 13)]


class Stream:
    """Says what is done on a GPU, on a machine without one."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record_event(self) -> str:
        return f"event {len(self.log)}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"waits for {event}")


def test_a_batch_is_on_its_way_to_the_gpu_before_the_one_before_is_worked_on(
    monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    log: list[str] = []
    stream = Stream(log)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, working: None)
    monkeypatch.setattr(Batch, "pin_memory", lambda self: self)
    monkeypatch.setattr(Batch, "to", lambda self, device: (log.append(f"sends {self.rows[0]}"), self)[1])
    shown = [Batch((row, row + 1), torch.zeros(1, 3, 2, 2)) for row in range(3)]
    for batch in batches._sent_ahead(iter(shown), torch.device("cuda")):
        log.append(f"works on {batch.rows[0]}")
    assert log == [
        "sends 0", "sends 1", "waits for event 1", "works on 0",
        "sends 2", "waits for event 2", "works on 1",
        "waits for event 5", "works on 2",
    ]  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_gpu_gives_the_same_up_to_rounding(
    tmp_path: Path, files: Callable[..., PictureSet], dtype: torch.dtype
) -> None:
    expected = taken([lite(), vit()], files(), dtype=torch.float32)
    for store in (None, tmp_path / "store"):
        found = taken([lite(), vit()], files(), store, device="cuda", dtype=dtype, batch_size=4)
        for name in ("lite", "vit"):
            near = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 1e-1}[dtype]
            torch.testing.assert_close(found[name].features.float(), expected[name].features, atol=near, rtol=near)
