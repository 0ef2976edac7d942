"""A finished training is read back as it was written, or named and made anew; labels of the test are not in it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grafeat.files import write_tensors
from grafeat.grids import FeatureGrid, GridSet
from grafeat.lab.cells import (
    KIND,
    Cell,
    content,
    content_of_pictures,
    digest,
    now,
    path_of,
    read_cell,
    write_cell,
)
from grafeat.pictures import PictureSet

KEY = {"lab": 1, "way": "single", "seed": 3, "fit": {"epochs": None, "mixup": 0.4}, "train": "abc"}
B, T, V, D = 11, 3, 7, 5


def cell(**changes: object) -> Cell:
    generator = torch.Generator().manual_seed(0)
    made = Cell(
        subsets=(("a", "b"), ("a",), ("b",)),
        logits=torch.randn(3, B, T, generator=generator),
        val_logits=torch.randn(V, T, generator=generator),
        parameters=123,
        seconds=4.5,
        inference=0.25,
        vectors=torch.randn(B, D, generator=generator),
        val_vectors=torch.randn(V, D, generator=generator),
        train_vectors=torch.randn(13, D, generator=generator),
        date="2026-01-02 03:04:05",
        versions="grafeat 7",
    )
    return replace(made, **changes)


def same(one: Cell, other: Cell) -> bool:
    def alike(name: str) -> bool:
        a, b = getattr(one, name), getattr(other, name)
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return all(alike(name) for name in Cell.__dataclass_fields__)


def kept(folder: Path, **changes: object) -> Path:
    path = path_of(folder, KEY)
    write_cell(path, KEY, cell(**changes))
    return path


def test_a_cell_comes_back_to_the_bit(tmp_path: Path) -> None:
    assert same(read_cell(kept(tmp_path), KEY), cell())
    without = {"vectors": None, "val_vectors": None, "train_vectors": None}
    assert same(read_cell(kept(tmp_path, **without), KEY), cell(**without))
    assert repr(cell()) == "Cell: 11 test pictures, 3 classes, 3 subsets of backbones, 123 parameters, trained in 4.5 s"


def test_its_file_says_way_and_seed_and_the_rest_as_a_digest(tmp_path: Path) -> None:
    assert re.fullmatch(r"single-3-[0-9a-f]{20}\.safetensors", path_of(tmp_path, KEY).name)
    assert path_of(tmp_path, KEY | {"way": "my Way/../é"}).parent == tmp_path


@pytest.mark.parametrize("change", [{"seed": 4}, {"lab": 2}, {"train": "abd"}, {"fit": {"epochs": 3}}, {"new": 1}])
def test_whatever_decides_a_cell_changes_its_digest(change: dict[str, object]) -> None:
    assert digest(KEY | change) != digest(KEY)
    assert digest(dict(reversed(KEY.items()))) == digest(KEY)


def test_none_is_there_at_first(tmp_path: Path) -> None:
    assert read_cell(path_of(tmp_path / "none yet", KEY), KEY) is None


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "text", "another key", "another kind", "lacks a tensor"])
def test_what_is_damaged_or_foreign_is_named_and_not_used(tmp_path: Path, harm: str) -> None:
    path = kept(tmp_path)
    whole = path.read_bytes()
    harmed = {
        "flip": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        "cut": whole[:-77],
        "empty": b"",
        "text": b"hello",
    }
    if harm in harmed:
        path.write_bytes(harmed[harm])
    elif harm == "another key":
        write_cell(path, KEY | {"seed": 5}, cell())
    elif harm == "another kind":
        write_tensors(path, {"a": torch.zeros(3)}, kind="model", about={})
    else:
        write_tensors(path, {"logits": torch.zeros(3)}, kind=KIND, about={"key": KEY, "subsets": []})
    with pytest.warns(UserWarning, match=rf"folder: {re.escape(str(path))} cannot be used and is computed anew \("):
        assert read_cell(path, KEY) is None


# Content


def grids(labels: torch.Tensor | None = None) -> GridSet:
    features = torch.randn(B, 2, 3, 1, generator=torch.Generator().manual_seed(1))
    return GridSet([FeatureGrid("a", features)], torch.arange(B) % 3 if labels is None else labels)


def test_content_is_that_of_every_picture() -> None:
    one = grids()
    assert content(one, labels=True) == content(grids(), labels=True)
    for picture in (0, 5, B - 1):
        changed = one["a"].features.clone()
        changed[picture, 1, 2, 0] += 1e-6
        assert content(GridSet([FeatureGrid("a", changed)], one.labels), labels=True) != content(one, labels=True)
    assert content(one[1:], labels=True) != content(one, labels=True)
    renamed = GridSet([FeatureGrid("b", one["a"].features)], one.labels)
    assert content(renamed, labels=True) != content(one, labels=True)


def test_labels_count_where_they_are_learned_and_nowhere_else() -> None:
    other = grids(torch.arange(B).flip(0) % 3)
    assert content(other, labels=True) != content(grids(), labels=True)
    assert content(other, labels=False) == content(grids(), labels=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_and_any_view_has_content(dtype: torch.dtype) -> None:
    cast = GridSet([grid.to(dtype=dtype) for grid in grids().grids])
    assert content(cast, labels=False) != content(grids(), labels=False)
    assert content(cast[[3, 1, 7]], labels=False) == content(cast[[3, 1, 7]], labels=False)


def test_pictures_have_content_too() -> None:
    shown = torch.rand(5, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    one, other = PictureSet(shown, [0, 1, 0, 1, 1]), PictureSet(shown, [1, 1, 0, 1, 1])
    assert content_of_pictures(one, labels=False) == content_of_pictures(other, labels=False)
    assert content_of_pictures(one, labels=True) != content_of_pictures(other, labels=True)
    assert content_of_pictures(one[:4], labels=False) != content_of_pictures(one, labels=False)


def test_the_date_is_written_as_one_sorts_it() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", now())
