"""A store says what is in it, whether it is sound, and removes what was asked and nothing else."""

import os
from pathlib import Path

import pytest
import torch
from test_store import B, lite, pictures, same, taken, vit

from grafeat.backbones.backbone import Backbone
from grafeat.pictures import PictureSet
from grafeat.store import GridStore
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
    for words in ("2 sets of grids", "not of the store: notes.txt", "29 zoo", "5 × 3 × 3", "unfinished (55%)"):
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


def test_an_empty_store_and_one_that_is_not_there_hold_nothing(tmp_path: Path) -> None:
    for store in (GridStore(tmp_path), GridStore(tmp_path / "none")):
        assert store.info().entries == ()
        assert repr(store.info()).endswith("0 sets of grids, 0 B")
        assert store.verify() == []
        assert store.prune(unfinished=True).entries == ()
    assert not (tmp_path / "none").exists()


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


def test_nothing_goes_that_was_not_asked(tmp_path: Path) -> None:
    store = GridStore(tmp_path)
    taken([lite()], pictures(), store)
    for nothing in ({}, {"keep": []}, {"pictures": []}, {"keep": [], "unfinished": True}):
        with pytest.raises(ValueError, match="keep, pictures: got none; expected the backbones or the picture sets"):
            store.prune(**nothing)
    (tmp_path / "lite-0123456789abcdef").write_text("a file with the name of a folder")
    (tmp_path / "holiday").mkdir()
    assert store.prune(keep=[vit()]).entries[0].index.name == "lite"
    assert {path.name for path in tmp_path.iterdir()} == {"lite-0123456789abcdef", "holiday"}


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
    store = GridStore(tmp_path)
    taken([lite(), vit()], pictures(), store)
    (first, _) = sorted(tmp_path.iterdir())
    (first / "index.json").write_text("")
    assert store.prune(keep=[lite(), vit()]).entries == ()
    assert [entry.state for entry in store.prune(unfinished=True).entries] == ["damaged"]
    assert names(tmp_path) == {"vit"}


def test_grids_in_use_outlive_their_files(tmp_path: Path) -> None:
    grids, expected = taken([lite()], pictures(), tmp_path), taken([lite()], pictures())
    GridStore(tmp_path).prune(keep=[vit()])
    assert list(tmp_path.iterdir()) == []
    assert same(grids, expected)
