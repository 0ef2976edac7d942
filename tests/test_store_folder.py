"""A folder of grids vouches for each of its bytes; what is damaged or crafted is named, and never leads elsewhere."""

import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_store import B, calls, lite, pictures, same, taken, vit

from grafeat.backbones.preparation import Crop
from grafeat.store import GridStore, folder
from grafeat.store.folder import DamageError, damages, mapped
from grafeat.store.index import Index, Key, Piece, digest, gaps, parsed
from grafeat.store.journal import journal_of, read_unfinished, unfinished

__all__ = ["calls"]  # a fixture
KEY = Key("b" * 64, "p" * 64, "F16", 11)
WHOLE = (0.0, 0.0, 1.0, 1.0)
PIECES = (Piece(0, 7, "a" * 32), Piece(7, 11, "c" * 32))
INDEX = Index(KEY, "lite", "digits", WHOLE, (5, 3, 2), PIECES, (2, 9))


def kept(store: Path) -> Path:
    """The folder of one backbone's grids, four batches of them."""
    taken([lite()], pictures(), store, batch_size=8)
    (folder,) = store.iterdir()
    return folder


def flipped(path: Path, place: int) -> bytes:
    """Flips a byte, and gives the file as it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    return whole


# What is on disk


def test_it_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    """Two readers that nobody here wrote give the same numbers."""
    folder = kept(tmp_path)
    expected = lite()(pictures().pictures).features.half()
    assert torch.equal(safetensors.torch.load_file(folder / "features.safetensors")["features"], expected)
    found = safetensors.numpy.load_file(folder / "features.safetensors")["features"]
    assert (found == expected.numpy()).all()
    with safetensors.safe_open(folder / "features.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["grafeat"])["name"] == "lite"
    assert sorted(path.name for path in folder.iterdir()) == ["features.safetensors", "index.json"]


def test_the_index_says_what_the_grids_are(tmp_path: Path) -> None:
    taken([lite(view=Crop(0, 0.25, 0.5, 1))], pictures(name="zoo"), tmp_path, batch_size=8)
    (path,) = tmp_path.glob("*/index.json")
    said = json.loads(path.read_text())
    assert (said["name"], said["of"], said["key"]["count"], said["key"]["dtype"]) == ("lite", "zoo", B, "F16")
    assert (said["shape"], said["field"], said["unreadable"]) == ([5, 3, 3], [0.0, 0.25, 0.5, 1.0], [])
    assert [piece[:2] for piece in said["pieces"]] == [[0, 8], [8, 16], [16, 24], [24, 29]]
    data = (path.parent / "features.safetensors").read_bytes()[-B * 5 * 3 * 3 * 2 :]
    assert said["pieces"][1][2] == hashlib.sha256(data[8 * 90 : 16 * 90]).hexdigest()[:32]


def test_features_begin_on_a_page_of_memory() -> None:
    for name in ("a", "a" * 500, "犬"):
        assert len(replace(INDEX, name=name).header) % 4096 == 0


@given(
    name=st.text(max_size=9),
    of=st.text(max_size=9),
    shape=st.tuples(*[st.integers(1, 2**40)] * 3),
    unreadable=st.sets(st.integers(0, 10)),
)
def test_an_index_comes_back_to_the_byte(
    name: str, of: str, shape: tuple[int, int, int], unreadable: set[int]
) -> None:
    index = replace(INDEX, name=name, of=of, shape=shape).with_pieces(reversed(PIECES), unreadable)
    assert parsed(index.encoded()) == index
    assert len(Path("store", index.folder).parts) == 2  # whatever the backbone is called


def test_without_some_batches_their_unreadable_pictures_are_gone_too() -> None:
    first, second = PIECES
    assert INDEX.without([]) == INDEX
    assert (INDEX.unreadable_in(first), INDEX.unreadable_in(second)) == ((2,), (9,))
    assert INDEX.without([first]) == replace(INDEX, pieces=(second,), unreadable=(9,))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9))))
def test_what_pieces_leave_is_what_a_set_of_rows_leaves(runs: list[tuple[int, int]]) -> None:
    pieces = [Piece(start, min(31, start + length), "") for start, length in runs]
    missing = {row for start, stop in gaps(31, pieces) for row in range(start, stop)}
    assert missing == set(range(31)) - {row for start, stop, _ in pieces for row in range(start, stop)}


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs the kernel's word on the machine's memory")
def test_a_store_larger_than_the_machine_is_mapped(tmp_path: Path) -> None:
    """A sparse file of a terabyte: nothing is read, and no memory is set aside for it."""
    count = 2**40 // 2000
    index = replace(INDEX, key=replace(KEY, count=count), shape=(1000, 1, 1), pieces=(Piece(0, count, ""),))
    with (tmp_path / "features.safetensors").open("wb") as file:
        file.write(index.header)
        file.truncate(index.nbytes)
    features = mapped(tmp_path, index)
    assert features.shape == (count, 1000, 1, 1)
    assert not features[[0, count // 2, count - 1]].any()


# Damage


@pytest.mark.parametrize("file", ["features.safetensors", "index.json"])
def test_a_flipped_byte_is_found_named_and_computed_anew(tmp_path: Path, file: str) -> None:
    path, expected = kept(tmp_path) / file, taken([lite()], pictures())
    places = [0, 8, 31, 4095, -1, -200] if file.startswith("features") else [0, 1, 77, 300, -1, -40]
    for place in places:
        whole = flipped(path, place % path.stat().st_size)
        (damage,) = GridStore(tmp_path).verify()
        assert damage.file == path
        assert str(damage).startswith(str(path))
        assert same(taken([lite()], pictures(), tmp_path, batch_size=8, repair=True), expected)
        assert path.read_bytes() == whole
        assert GridStore(tmp_path).verify() == []


def test_only_the_damaged_batch_is_computed_anew(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    path, backbone = kept(tmp_path) / "features.safetensors", lite()
    whole = flipped(path, len(path.read_bytes()) - 90 * (B - 17))  # the first byte of picture 17
    (damage,) = GridStore(tmp_path).verify()
    assert damage.pictures == (16, 24)
    assert str(damage) == f"{path} (pictures 16 to 23): its checksum is another"
    calls.clear()
    taken([backbone], pictures(), tmp_path, batch_size=8)
    assert calls == []  # a plain run reads nothing that is not asked of it
    taken([backbone], pictures(), tmp_path, batch_size=8, repair=True)
    assert calls == [("lite", 8)]
    assert path.read_bytes() == whole


def test_a_plain_run_sees_what_costs_nothing_to_see(tmp_path: Path) -> None:
    folder = kept(tmp_path)
    data, index = folder / "features.safetensors", folder / "index.json"
    for path, content, reason in (
        (data, data.read_bytes()[:-1], "it has 6,705 bytes, expected 6,706"),
        (data, b"", "it has 0 bytes"),
        (data, b"\x80\x04" + data.read_bytes()[2:], "its header is not what the index says"),
        (index, index.read_bytes()[:-1], "its checksum is another"),
        (index, b"", "Expecting value"),
        (index, b"[" * 100_000, "no index: RecursionError"),
        (index, b"17", "no index: Type"),
        (index, b"\xff", "can't decode"),
    ):
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"store: {path} is damaged.*{reason}.*pass repair=True"):
            taken([lite()], pictures(), tmp_path)
        assert same(taken([lite()], pictures(), tmp_path, batch_size=8, repair=True), taken([lite()], pictures()))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("file", ["features.safetensors", "index.json"])
def test_a_missing_file_is_named_and_made_anew(tmp_path: Path, file: str) -> None:
    path = kept(tmp_path) / file
    whole = path.read_bytes()
    path.unlink()
    assert [str(damage) for damage in GridStore(tmp_path).verify()] == [f"{path} (all pictures): it is missing"]
    with pytest.raises(ValueError, match=f"{path} is damaged.*it is missing"):
        taken([lite()], pictures(), tmp_path)
    taken([lite()], pictures(), tmp_path, batch_size=8, repair=True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("step", "back"), [("check_header", False), ("check_header", True), ("pieces", False)])
def test_what_another_process_is_repairing_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, back: bool
) -> None:
    """It takes a folder's name at some step of a verification, and may give it back before the next."""
    path, real = kept(tmp_path), getattr(folder, step)
    taking = iter([lambda: path.rename(unfinished(path))])

    def meanwhile(*arguments: object) -> object:
        for take in taking:
            take()
        try:
            return real(*arguments)
        finally:
            if back and not path.exists():
                unfinished(path).rename(path)

    monkeypatch.setattr(folder, step, meanwhile)
    assert GridStore(tmp_path).verify() == []
    assert path.exists() == back and unfinished(path).exists() != back


def test_a_flipped_bit_of_a_journal_says_less_and_never_anything_else(tmp_path: Path) -> None:
    """Every single bit: what it says is what it said before some line, or nothing."""
    pieces = (Piece(0, 4, "a" * 32), Piece(4, 8, "b" * 32), Piece(8, 11, "c" * 32))
    whole = replace(INDEX, pieces=pieces, unreadable=(3, 5, 6, 9))
    less = [whole.without(pieces[count:]) for count in range(len(pieces))]
    path, raw = tmp_path / "journal", journal_of(whole)
    path.write_bytes(raw)
    assert read_unfinished(tmp_path) == whole
    for place in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :])
            try:
                assert read_unfinished(tmp_path) in less
            except FileNotFoundError:  # there is no index beside it
                assert place <= raw.index(b"\n[")


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


@pytest.mark.parametrize("file", ["features.safetensors", "index.json", ""])
def test_two_backbones_that_were_swapped_are_found(tmp_path: Path, file: str) -> None:
    """They differ in name alone, so that everything else fits."""
    backbones = [lite(), lite(name="twin", view=Crop(0, 0, 1, 1))]
    taken(backbones, pictures(), tmp_path)
    one, other = sorted(tmp_path.iterdir())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    swap(one / file, other / file)
    assert len(GridStore(tmp_path).verify()) == 2
    with pytest.raises(ValueError, match=r"is damaged, crafted or from another version"):
        taken(backbones, pictures(), tmp_path)
    assert same(taken(backbones, pictures(), tmp_path, repair=True), taken(backbones, pictures()))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_pieces_that_were_swapped_and_zeros_are_found(tmp_path: Path) -> None:
    folder = kept(tmp_path)
    path = folder / "features.safetensors"
    whole, batch = path.read_bytes(), 8 * 5 * 3 * 3 * 2
    assert damages(folder) == []
    start = len(whole) - B * 90
    first, second = whole[start : start + batch], whole[start + batch : start + 2 * batch]
    path.write_bytes(whole[:start] + second + first + whole[start + 2 * batch :])
    assert [damage.pictures for damage in damages(folder)] == [(0, 8), (8, 16)]
    path.write_bytes(whole[:-200] + bytes(200))
    assert [damage.pictures for damage in damages(folder)] == [(24, 29)]


# Crafted


def crafted(folder: Path, **changes: object) -> None:
    """An index whose checksum is right, as an attacker would write it."""
    said = {name: value for name, value in json.loads((folder / "index.json").read_text()).items() if name != "sha256"}
    said |= changes
    text = {"sha256": digest(json.dumps(said).encode()), **said}
    (folder / "index.json").write_text(json.dumps(text) + "\n")


def test_an_index_that_was_written_again_as_it_was_is_sound(tmp_path: Path) -> None:
    crafted(kept(tmp_path))
    assert GridStore(tmp_path).verify() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../../etc/passwd"},
        {"name": "../../up"},
        {"name": 17},
        {"of": None},
        {"key": {"backbone": "b", "pictures": "p", "dtype": "F16", "count": B}},
        {"key": {}},
        {"key": 7},
        {"shape": [5, 3, 3, 1]},
        {"shape": [5, 3, -3]},
        {"shape": [5, 3, True]},
        {"shape": [5, 3, 3.0]},
        {"shape": [10**30, 3, 3]},
        {"shape": [1, 1, 1]},
        {"field": [0.0, 0.0, 0.0, 1.0]},
        {"field": ["0", 0, 1, 1]},
        {"field": [float("nan")] * 4},
        {"pieces": []},
        {"pieces": [[0, B, "ff"]]},
        {"pieces": [[0, 20, "a"], [10, B, "b"]]},
        {"pieces": [[0, 10**9, "a"]]},
        {"pieces": [[0, B]]},
        {"pieces": [[0, B, 5]]},
        {"pieces": 3},
        {"unreadable": [B]},
        {"unreadable": [-1]},
        {"unreadable": ["0"]},
        {"unreadable": [3, 2]},
        {"unreadable": [2, 2]},
        {"kind": "model"},
        {"format": 1},
        {"format": [[]]},
    ],
)
def test_a_crafted_index_is_refused(tmp_path: Path, changes: dict[str, object], unchecked: None) -> None:
    folder = kept(tmp_path)
    crafted(folder, **changes)
    assert len(GridStore(tmp_path).verify()) == 1
    if changes != {"pieces": [[0, B, "ff"]]}:  # that one is seen only when every byte is read
        with pytest.raises(DamageError, match=f"store: {folder}"):
            taken([lite()], pictures(), tmp_path)


@pytest.mark.parametrize("what", ["features.safetensors", "index.json", ""])
def test_a_link_out_of_the_store_is_refused(tmp_path: Path, what: str) -> None:
    folder = kept(tmp_path / "store")
    aside = tmp_path / "aside"
    (folder / what).rename(aside)
    (folder / what).symlink_to(aside)
    with pytest.raises(ValueError, match="a link, which could lead to any file out of the store, is refused"):
        taken([lite()], pictures(), tmp_path / "store")
    (damage,) = GridStore(tmp_path / "store").verify()
    assert "a link" in damage.reason


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """An unfinished folder whose data file leads to a file of the user's."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    name = kept(tmp_path / "other").name
    part = tmp_path / "store" / f"{name}.part"
    part.mkdir(parents=True)
    (part / "features.safetensors").symlink_to(precious)
    with pytest.raises(ValueError, match=r"a link, .* is refused"):
        taken([lite()], pictures(), tmp_path / "store")
    assert precious.read_text() == "mine"


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    path = kept(tmp_path) / "index.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="it is no plain file"):
        taken([lite()], pictures(), tmp_path)


def test_files_of_an_earlier_version_are_neither_harmed_nor_mistaken(tmp_path: Path) -> None:
    old = tmp_path / "lite-0123456789abcdef.safetensors"
    old.write_bytes(struct.pack("<Q", 2) + b"{}")
    taken([lite(), vit()], pictures(), tmp_path)
    info = GridStore(tmp_path).info()
    assert info.foreign == (old.name,)
    assert "not of the store: lite-0123456789abcdef.safetensors" in repr(info)
    assert GridStore(tmp_path).verify() == []
    GridStore(tmp_path).prune(keep=[vit()])
    assert old.read_bytes() == struct.pack("<Q", 2) + b"{}"
