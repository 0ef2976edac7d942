"""A store says what is in it, whether it is sound, and removes what was asked and nothing else."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from test_store import B, lite, pictures, same, taken, vit

from grafeat.backbones.backbone import Backbone
from grafeat.pictures import PictureSet
from grafeat.sharing import Share
from grafeat.store import GridStore, gridstore
from grafeat.store.contents import is_own
from grafeat.store.drafts import drafts_of
from grafeat.store.lock import locked

FULL = 4096 + B * 5 * 3 * 3 * 2  # header and features of `lite`


class Stop(Exception):
    """Ends an extraction in its middle."""


def stopped(store: Path, backbones: list[Backbone], after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extraction in batches of 8 that ends after so many of them."""
    call, seen = Backbone.__call__, []

    def counted(self: Backbone, shown: torch.Tensor) -> object:
        seen.append(self.name)
        if len(seen) > after:
            raise Stop
        return call(self, shown)

    monkeypatch.setattr(Backbone, "__call__", counted)
    with pytest.raises(Stop):
        taken(backbones, pictures(), store, batch_size=8)
    monkeypatch.setattr(Backbone, "__call__", call)


def names(store: Path) -> set[str]:
    return {path.name.rpartition("-")[0] for path in store.iterdir()}


# What is there


def test_info_lists_what_is_whole_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken([lite()], pictures(name="zoo"), tmp_path)
    stopped(tmp_path, [vit()], 2, monkeypatch)
    (tmp_path / "notes.txt").write_text("mine")
    info = GridStore(tmp_path).info()
    whole, part = info.entries
    assert (whole.index.name, whole.state, whole.done) == ("lite", "whole", B)
    assert (part.index.name, part.state, part.done) == ("vit", "unfinished", 16)
    assert info.foreign == ("notes.txt",)
    assert info.nbytes == whole.nbytes + part.nbytes
    assert whole.nbytes >= FULL
    table = repr(info)
    row = f"lite      {whole.path.name[-16:][:8]}  29 zoo"
    for words in ("2 sets of grids", "not of the store: notes.txt", row, "5 × 3 × 3", "unfinished (55%)"):
        assert words in table
    assert "<td>unfinished (55%)</td>" in info._repr_html_()


def test_info_names_what_is_damaged(tmp_path: Path) -> None:
    taken([lite(), vit()], pictures(), tmp_path)
    first, second = sorted(tmp_path.iterdir())
    (first / "features.safetensors").write_bytes(b"")
    (second / "index.json").write_text("<script>")
    info = GridStore(tmp_path).info()
    assert [entry.state for entry in info.entries] == ["damaged", "damaged"]
    assert second.name in repr(info)
    assert "script" not in info._repr_html_()


def test_what_loses_its_name_while_info_looks_is_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another process repairs it."""
    taken([lite()], pictures(), tmp_path)
    (whole,) = tmp_path.iterdir()
    real = gridstore.read_index
    monkeypatch.setattr(gridstore, "read_index", lambda path: real(whole.rename(f"{whole}.part") and path))
    (entry,) = GridStore(tmp_path).info().entries
    assert (entry.path, entry.state, entry.done) == (Path(f"{whole}.part"), "unfinished", B)


def test_an_empty_store_holds_nothing(tmp_path: Path) -> None:
    store = GridStore(tmp_path)
    assert store.info().entries == ()
    assert repr(store.info()).endswith("0 sets of grids, 0 B")
    assert store.verify() == []
    assert store.prune(unfinished=True).entries == ()


def test_a_folder_that_is_not_there_is_never_called_sound(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "none", tmp_path / "file"):
        store = GridStore(path)
        assert store.info().entries == ()
        for shown in (repr(store.info()), store.info()._repr_html_()):
            assert f"GridStore {path}: there is no such folder" in shown
        for asked in (store.verify, lambda store=store: store.prune(unfinished=True)):
            with pytest.raises(FileNotFoundError, match=f"store: there is no folder {path}; expected one that extract"):
                asked()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", [None, 3, b"grids"])
def test_what_is_no_path_is_refused_as_a_store(name: object, unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"store: got (None|3|a bytes); expected a path or a GridStore; name a folder"):
        GridStore(name)
    with pytest.raises(ValueError, match=r"store: got an empty name; expected a folder; name one, or '\.'"):
        GridStore("")


def test_backbones_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for backbone in (lite(), lite(size=8), lite(tap="conv")):
        taken([backbone], pictures(), tmp_path)
    rows = repr(GridStore(tmp_path).info()).splitlines()[2:]
    assert len({re.match(r"  lite +([0-9a-f]{8})  ", row)[1] for row in rows}) == 3


@pytest.mark.parametrize("name", ["🦉" * 60, "é" * 200, "a" + "🦉" * 15, "\ud800" * 61])
def test_a_long_name_is_cut_to_what_a_file_system_takes(tmp_path: Path, name: str) -> None:
    expected = taken([lite(name=name)], pictures())
    for _ in ("written", "found"):
        assert same(taken([lite(name=name)], pictures(), tmp_path), expected)
    (entry,) = GridStore(tmp_path).info().entries
    assert entry.state == "whole" and entry.index.name == name
    assert len(entry.path.name.encode()) <= 60 + 17


LONG = "vit_base_patch16_clip_224_openai_at_a_high_resolution_of_pixels"


@pytest.mark.parametrize("pair", [("a/b", "a_b"), (f"{LONG}_one", f"{LONG}_two"), ("Lite", "lite"), ("?", "\ud800")])
def test_names_that_are_shortened_to_the_same_have_folders_of_their_own(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Also on a disk that does not tell capitals from small letters."""
    backbones = [lite(name=name) for name in pair]
    drafts = drafts_of(backbones, pictures(), torch.float16, Share())[0].values()
    assert len({draft.folder.lower() for draft in drafts}) == 2
    assert same(taken(backbones, pictures(), tmp_path), taken(backbones, pictures()))


def test_a_store_is_one_whether_named_by_string_path_or_itself(tmp_path: Path) -> None:
    expected = taken([lite()], pictures())
    for store in (str(tmp_path / "s"), tmp_path / "s", GridStore(tmp_path / "s"), GridStore(GridStore(tmp_path / "s"))):
        assert same(taken([lite()], pictures(), store), expected)
    assert len(list((tmp_path / "s").iterdir())) == 1
    assert repr(GridStore("grids")) == "GridStore('grids')"


# What may go


def other() -> PictureSet:
    return pictures(7, seed=3, parts=None)


def test_grids_of_other_backbones_and_of_other_pictures_go(tmp_path: Path) -> None:
    store = GridStore(tmp_path)
    for shown in (pictures(), other()):
        taken([lite(), vit()], shown, store)
    before = store.info()
    dry = store.prune(keep=[vit()], pictures=other(), dry_run=True)
    assert store.info() == before
    pruned = store.prune(keep=[vit()], pictures=[other()])
    assert pruned.entries == dry.entries
    assert len(pruned.entries) == 3
    assert pruned.nbytes == sum(entry.nbytes for entry in before.entries) - store.info().nbytes
    assert repr(dry).startswith("Pruned: would free ")
    assert repr(pruned).startswith("Pruned: freed ")
    (left,) = store.info().entries
    assert (left.index.name, left.index.key.count, left.state) == ("vit", 7, "whole")
    assert same(taken([vit()], other(), store), taken([vit()], other()))


def test_nothing_goes_that_was_not_asked(tmp_path: Path, unchecked: None) -> None:
    store = GridStore(tmp_path)
    taken([lite()], pictures(), store)
    empty = [{argument: none} for argument in ("keep", "pictures") for none in ([], (), {}.values(), iter(()))]
    for nothing in ({}, *empty, {"keep": (), "unfinished": True}):
        with pytest.raises(ValueError, match="keep, pictures: got none; expected the backbones or the picture sets"):
            store.prune(**nothing)
    (tmp_path / "lite-0123456789abcdef").write_text("a file with the name of a folder")
    (tmp_path / "holiday").mkdir()
    assert store.prune(keep=[vit()]).entries[0].index.name == "lite"
    assert {path.name for path in tmp_path.iterdir()} == {"lite-0123456789abcdef", "holiday"}


def test_a_single_backbone_is_kept_and_what_is_none_is_refused(tmp_path: Path, unchecked: None) -> None:
    store, memory = GridStore(tmp_path), object()
    taken([lite(), vit()], pictures(), store)
    for keep, error in ((["vit"], "'vit'"), ("vit", "'vit'"), (3, "3"), ([None], "None"), (vit().module, "a Tiny")):
        with pytest.raises(TypeError, match=f"keep: got {error}; expected one Backbone or several; load it by its"):
            store.prune(keep=keep)
    with pytest.raises(TypeError, match="pictures: got a Tensor; expected one PictureSet or several; wrap the"):
        store.prune(pictures=pictures().pictures)
    with pytest.raises(ValueError, match="keep: backbone 'lite' cannot be recognised, so that no grids are known"):
        store.prune(keep=[vit(), lite(view=lambda shown: shown if memory else 1 - shown)])
    assert names(tmp_path) == {"lite", "vit"}
    assert [entry.index.name for entry in store.prune(keep=vit()).entries] == ["lite"]
    assert names(tmp_path) == {"vit"}


def test_what_a_user_keeps_under_such_a_name_stays(tmp_path: Path) -> None:
    """Alone, or beside files of a store; in a folder, or where a link leads."""
    store = GridStore(tmp_path / "store")
    taken([lite()], pictures(), store)
    (ours,) = store.path.iterdir()
    for ending in ("", ".part", ".parts"):
        alone, beside = (store.path / f"{name}-20240101deadbeef{ending}" for name in ("alone", "beside"))
        alone.mkdir()
        shutil.copytree(ours, beside / "x-0123456789abcdef.part" if ending == ".parts" else beside)
        for folder in (alone, beside):
            (folder / "results").mkdir()
            (folder / "results" / "thesis.txt").write_text("mine")
    (store.path / "v1.0-20240101deadbeef").mkdir()
    shutil.copytree(ours, tmp_path / "aside")
    (store.path / "link-20240101deadbeef").symlink_to(tmp_path / "aside")
    (store.path / "more-20240101deadbeef.parts").mkdir()
    (store.path / "more-20240101deadbeef.parts" / "link-20240101deadbeef.part").symlink_to(tmp_path / "aside")
    before = {path for path in tmp_path.rglob("*") if ours not in (path, path.parent)}
    assert {name.split("-")[0] for name in store.info().foreign} == {"alone", "v1.0"}
    assert [entry.path for entry in store.prune(keep=vit(), unfinished=True).entries] == [ours]
    assert set(tmp_path.rglob("*")) == before
    assert len(list((tmp_path / "aside").iterdir())) == 2


@pytest.mark.parametrize("ending", ["", ".part", ".parts"])
def test_a_file_of_another_program_hides_no_grids_and_keeps_them_from_going(tmp_path: Path, ending: str) -> None:
    store = GridStore(tmp_path)
    taken([lite()], pictures(), store)
    (whole,) = tmp_path.iterdir()
    folder = whole.with_name(f"{whole.name}{ending}")
    inside = folder / f"{whole.name}.part" if ending == ".parts" else folder
    inside.parent.mkdir(exist_ok=True)
    whole.rename(inside)
    (inside / ".DS_Store").write_text("not ours")
    with (inside / "features.safetensors").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x55")
    info = store.info()
    assert ([entry.path for entry in info.entries], info.foreign) == ([folder], ())
    assert len(store.verify()) == (0 if ending else 1)  # what is unfinished is left out
    for dry_run in (True, False):
        assert store.prune(keep=vit(), unfinished=True, dry_run=dry_run).entries == ()
    assert (inside / "features.safetensors").exists()


def test_an_unfinished_folder_beside_the_whole_goes_with_it(tmp_path: Path) -> None:
    store = GridStore(tmp_path)
    taken([lite()], pictures(), store)
    (whole,) = tmp_path.iterdir()
    part = whole.with_name(f"{whole.name}.part")
    for silent in (False, True):
        taken([lite()], pictures(), store)
        shutil.copytree(whole, part)
        if silent:
            (part / "index.json").unlink()
        held = locked(part, None)
        assert store.prune(keep=vit()).entries == () and whole.exists()
        os.close(held)
        assert [entry.path for entry in store.prune(keep=vit()).entries] == [whole, part][: 1 if silent else 2]
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_was_writing_is_the_stores_own(tmp_path: Path) -> None:
    store = GridStore(tmp_path)
    for name in ("index.json", "journal"):
        taken([lite()], pictures(), store)
        (whole,) = tmp_path.iterdir()
        (whole / f".{name}.0123abcd.part").write_text("half")
        assert len(store.prune(keep=vit()).entries) == 1
    (tmp_path / "lite-0123456789abcdef.part").mkdir()
    assert not is_own(tmp_path / "gone-0123456789abcdef.part")
    assert len(store.prune(unfinished=True).entries) == 1
    assert list(tmp_path.iterdir()) == []


def test_unfinished_grids_go_only_if_asked_and_not_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = GridStore(tmp_path)
    stopped(tmp_path, [lite()], 2, monkeypatch)
    assert store.prune(keep=[lite()]).entries == ()
    (part,) = tmp_path.iterdir()
    held = locked(part, None)
    assert store.prune(unfinished=True).entries == ()
    assert part.exists()
    os.close(held)
    (entry,) = store.prune(unfinished=True).entries
    assert entry.done == 16
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_say_what_it_is_goes_with_the_unfinished(tmp_path: Path) -> None:
    """What says it stays, though damaged too: it can be repaired, and goes when its backbone is not in use."""
    store = GridStore(tmp_path)
    taken([lite(), vit()], pictures(), store)
    first, second = sorted(tmp_path.iterdir())
    (first / "index.json").write_text("")
    os.truncate(second / "features.safetensors", (second / "features.safetensors").stat().st_size - 1)
    silent, telling = store.info().entries
    assert (silent.state, silent.index) == ("damaged", None)
    assert (telling.state, telling.index.name, telling.cells[3]) == ("damaged", "vit", "7 × 2 × 2")
    assert store.prune(keep=[lite(), vit()]).entries == ()
    assert store.prune(unfinished=True).entries == (silent,)
    assert names(tmp_path) == {"vit"}
    assert store.prune(keep=[lite()]).entries == (telling,)
    assert names(tmp_path) == set()


def test_grids_in_use_outlive_their_files(tmp_path: Path) -> None:
    grids, expected = taken([lite()], pictures(), tmp_path), taken([lite()], pictures())
    GridStore(tmp_path).prune(keep=[vit()])
    assert list(tmp_path.iterdir()) == []
    assert same(grids, expected)
