"""PictureSet: what is accepted, what comes out, and that pictures are read only when asked for."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from grafeat.pictures import PictureSet, as_floats, read_picture

N, H, W = 7, 5, 3


def _pictures(channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (N, channels, H, W), dtype=torch.uint8, generator=generator)


def _saved(folder: Path, name: str, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(folder / name, **options)
    return folder / name


def _raise(error: Exception) -> None:
    raise error


# What comes out


def test_bytes_become_floats_in_0_to_1() -> None:
    stored = _pictures()
    assert torch.equal(PictureSet(stored).pictures, stored.float() / 255)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_scales_bytes_to_the_same_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_floats(every.cuda()).cpu(), as_floats(every))


def test_floats_stay_and_grey_is_repeated() -> None:
    grey = torch.rand(N, 1, H, W, dtype=torch.float64)
    pictures = PictureSet(grey).pictures
    assert pictures.dtype == torch.float32
    assert pictures.shape == (N, 3, H, W)
    assert all(torch.equal(pictures[:, channel], grey[:, 0].float()) for channel in range(3))


def test_what_a_caller_does_to_the_pictures_leaves_the_set_whole() -> None:
    stored = torch.rand(N, 3, H, W)
    whole = PictureSet(stored)
    before = whole.pictures.clone()
    whole.pictures.zero_()
    assert torch.equal(whole.pictures, before)


def test_pictures_of_one_size_are_stacked_and_of_several_sizes_listed() -> None:
    one, other = torch.rand(3, H, W), torch.rand(1, W, H)
    several = PictureSet([one, other])
    assert [tuple(picture.shape) for picture in several.pictures] == [(3, H, W), (3, W, H)]
    assert torch.equal(several[0].pictures, one[None])
    assert torch.equal(PictureSet([one, one]).pictures, torch.stack([one, one]))


def test_rows_follow_the_index() -> None:
    stored, labels = _pictures(), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    whole = PictureSet(stored, labels)
    for index in (5, slice(1, 6, 2), [4, 0, 4], torch.arange(N) % 2 == 0):
        rows = torch.arange(N)[[index] if isinstance(index, int) else index]
        chosen = whole[index]
        assert torch.equal(chosen.pictures, stored[rows].float() / 255)
        assert torch.equal(chosen.labels, labels[rows])


# The fingerprint


def test_the_fingerprint_follows_content_and_order_only() -> None:
    one, other = PictureSet(_pictures(), name="one"), PictureSet(_pictures(seed=1))
    assert one.fingerprint == PictureSet(_pictures(), [0] * N, name="same").fingerprint
    assert one[2:4].fingerprint == PictureSet(_pictures()[2:4]).fingerprint
    different = [one, other, one[:3], one[[1, 0, 2]], PictureSet(_pictures()[:, :, :3])]
    assert len({pictures.fingerprint for pictures in different}) == len(different)


def test_the_fingerprint_tells_shapes_with_equal_bytes_apart() -> None:
    zeros = torch.zeros(2, 3, H, W)
    assert PictureSet(zeros).fingerprint != PictureSet(zeros.transpose(-1, -2)).fingerprint
    assert PictureSet([*zeros]).fingerprint != PictureSet([*zeros.transpose(-1, -2)]).fingerprint


def test_the_fingerprint_of_files_is_that_of_their_bytes(tmp_path: Path) -> None:
    paths = [_saved(tmp_path, f"{i}.png", np.full((H, W, 3), i, np.uint8)) for i in range(2)]
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    assert PictureSet(paths).fingerprint == hashlib.sha256(b"".join(digests)).hexdigest()


# Reading files


def test_files_are_read_when_asked_for(tmp_path: Path) -> None:
    array = np.arange(H * W * 3, dtype=np.uint8).reshape(H, W, 3)
    late = PictureSet([tmp_path / "late.png"])
    _saved(tmp_path, "late.png", array)
    assert torch.equal(late.pictures, torch.from_numpy(array).permute(2, 0, 1)[None] / 255)


def test_the_exif_tag_turns_a_picture_upright(tmp_path: Path) -> None:
    array = np.arange(H * W * 3, dtype=np.uint8).reshape(H, W, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown a quarter turn clockwise
    path = _saved(tmp_path, "turned.png", array, exif=exif)
    assert np.array_equal(read_picture(path).permute(1, 2, 0).numpy(), np.rot90(array, k=-1))


def test_transparent_parts_lie_on_white(tmp_path: Path) -> None:
    array = np.array([[[200, 0, 100, 0], [200, 0, 100, 255], [200, 0, 100, 102]]], np.uint8)
    read = read_picture(_saved(tmp_path, "clear.png", array))
    half = [round(0.4 * colour + 0.6 * 255) for colour in (200, 0, 100)]  # alpha 102 of 255
    assert read.permute(1, 2, 0).tolist() == [[[255, 255, 255], [200, 0, 100], half]]


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "palette.png", transparency=0)
    assert read_picture(tmp_path / "palette.png")[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]


def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    path = _saved(tmp_path, "deep.png", np.array([[0, 257 * 100, 65535]], np.uint16))
    assert read_picture(path)[:, 0].T.tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_grey_of_16_bits_keeps_its_shades_in_every_format(tmp_path: Path) -> None:
    deep = np.array([[0, 257 * 100, 65535]], np.uint16)
    (tmp_path / "deep.pgm").write_bytes(b"P5 3 1 65535\n" + deep.astype(">u2").tobytes())
    (tmp_path / "twelve.pgm").write_bytes(b"P5 3 1 4095\n" + (deep >> 4).astype(">u2").tobytes())
    for path in (_saved(tmp_path, "deep.tif", deep), tmp_path / "deep.pgm", tmp_path / "twelve.pgm"):
        assert read_picture(path)[0].tolist() == [[0, 100, 255]]


# Errors


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floats"), (np.int32, "signed or 32-bit numbers")])
def test_numbers_whose_white_is_unknown_are_refused(tmp_path: Path, dtype: type, kind: str) -> None:
    path = _saved(tmp_path, "any.tif", np.array([[0, 1, 252]], dtype))
    with pytest.raises(ValueError, match=rf"cannot read .*any\.tif \(it holds {kind}, .*save 8 bits, or 16 of grey"):
        read_picture(path)


@pytest.mark.parametrize("kind", [RuntimeError, EOFError, struct.error, KeyError, ZeroDivisionError])
def test_whatever_pillow_makes_of_a_damaged_file_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    path = _saved(tmp_path, "any.png", np.zeros((H, W, 3), np.uint8))
    monkeypatch.setattr(Image.Image, "load", lambda image: _raise(kind("odd")))
    with pytest.raises(ValueError, match=r"cannot read .*any\.png \(.*odd"):
        read_picture(path)
    monkeypatch.setattr(Image.Image, "load", lambda image: _raise(MemoryError()))
    with pytest.raises(MemoryError):
        read_picture(path)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF here")
def test_a_damaged_avif_is_left_out(tmp_path: Path) -> None:
    good = _saved(tmp_path, "good.avif", np.full((16, 16, 3), 7, np.uint8))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(good.read_bytes()[:-40] + b"\xff" * 40)
    assert PictureSet([good, bad], skip_unreadable=True).skipped == (bad,)


def test_an_unreadable_file_is_named_or_skipped(tmp_path: Path) -> None:
    good = [_saved(tmp_path, f"{i}.png", np.full((11, 13, 3), i, np.uint8)) for i in range(3)]
    whole = good[0].read_bytes()
    cut, text = tmp_path / "cut.png", tmp_path / "text.jpg"
    cut.write_bytes(whole[: len(whole) - 30])
    text.write_text("no picture")
    paths, labels = [good[0], cut, good[1], text, good[2]], [0, 1, 1, 0, 2]
    for index, name in ((1, "cut.png"), (3, "text.jpg")):
        with pytest.raises(ValueError, match=rf"pictures: cannot read .*{name}.*skip_unreadable=True"):
            _ = PictureSet(paths, labels)[index].pictures
    parts = {"train": torch.tensor([0, 1]), "val": torch.tensor([2]), "test": torch.tensor([3, 4])}
    kept = PictureSet(paths, labels, parts=parts, skip_unreadable=True)
    assert kept.skipped == (cut, text)
    assert kept.labels.tolist() == [0, 1, 2]
    assert kept.parts == {"train": 1, "val": 1, "test": 1}
    assert torch.equal(kept.pictures, PictureSet(good).pictures)
    assert "2 unreadable files skipped" in repr(kept)
    with pytest.raises(ValueError, match=r"pictures: none of 2 can be read, .*cut\.png among them"):
        PictureSet([cut, text], skip_unreadable=True)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*gone\.png \(.*No such file"):
        _ = PictureSet([tmp_path / "gone.png"]).pictures


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.rand(N, 3, H, W) * 255, r"float32 of shape \(7, 3, 5, 3\) .*; pass 0 to 255 as uint8"),
        (torch.rand(N, 3, H, W) - 0.5, r"expected \[0, 1\]; mend them, or \.clamp\(0, 1\)"),
        (torch.full((N, 3, H, W), torch.nan), r"with values from nan to nan; expected \[0, 1\]"),
        (torch.full((N, 3, H, W), torch.inf), r"with values from inf to inf; expected \[0, 1\]"),
        (torch.rand(3, H, W), r"of shape \(3, 5, 3\); expected \(n, 3, H, W\).*one picture needs \[None\]"),
        (torch.rand(N, H, W, 3), r"of shape \(7, 5, 3, 3\); .*put the channels first: \.movedim"),
        (torch.rand(N, 2, H, H), r"\(7, 2, 5, 5\); expected \(n, 3, H, W\) or \(n, 1, H, W\); bring"),
        (torch.rand(0, 3, H, W), r"of shape \(0, 3, 5, 3\); expected"),
        ([torch.rand(3, H, W), torch.rand(H, W)], r"of shape \(5, 3\); .*for each in a list"),
        ([], r"pictures: got none; expected at least one"),
    ],
)
def test_pictures_of_another_shape_or_range_are_refused(pictures: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^pictures: .*{message.removeprefix('pictures: ')}"):
        PictureSet(pictures)


def test_pictures_of_another_type_are_refused(unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"got ndarray in the list; .*pass torch\.from_numpy\(array\)"):
        PictureSet([np.zeros((3, H, W))])
    with pytest.raises(TypeError, match=r"got int64 .*; expected uint8 .*; convert: \.to\(torch\.uint8\)"):
        PictureSet(torch.ones(N, 3, H, W, dtype=torch.int64))


def test_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="labels: got 3 at picture 1; expected 0 to 2"):
        PictureSet(_pictures(), [0, 3, 0, 0, 0, 0, 0], classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="labels: got 2 for 7 pictures"):
        PictureSet(_pictures(), [0, 1])
    with pytest.raises(ValueError, match="per_class: got 3, but class '1' has 2 training pictures"):
        PictureSet(_pictures(), [0, 0, 0, 0, 0, 1, 1]).few_labels(3)


def test_parts_are_named_as_an_index_is() -> None:
    stored = _pictures()
    parts = {"train": range(3), "val": [-1], "test": torch.arange(N) % 2 == 0, "unlabelled": slice(5, None)}
    whole = PictureSet(stored, parts=parts)
    assert {part: rows.tolist() for part, rows in whole.part_positions.items()} == {
        "train": [0, 1, 2], "val": [6], "test": [0, 2, 4, 6], "unlabelled": [5, 6]
    }  # fmt: skip
    assert torch.equal(whole.val.pictures, stored[-1:] / 255)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"name": 5}, TypeError, "name: got 5; expected a string"),
        ({"name": None}, TypeError, "name: got None; expected a string"),
        ({"parts": [0, 1]}, TypeError, r"parts: got list; expected the positions of each part; write \{'train':"),
        ({"parts": {"train": [0, 7]}}, IndexError, "parts, 'train': got 7, but the set has 7 pictures"),
        ({"parts": {"val": torch.tensor([0.5])}}, TypeError, "parts, 'val': got torch.float32 .*whole numbers"),
        ({"parts": {"val": "all"}}, TypeError, "parts, 'val': got 'all'; expected whole numbers"),
        ({"parts": {"val": None}}, TypeError, "parts, 'val': got None; expected whole numbers"),
    ],
)
def test_a_name_or_parts_of_another_kind_are_refused_at_once(
    unchecked: None, given: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        PictureSet(_pictures(), **given)


# Printing


def test_it_prints_as_what_it_is(tmp_path: Path) -> None:
    labels = [0, 1, 2, 0, 1, 2, 0]
    seven = PictureSet(_pictures(1), labels, name="seven")
    assert repr(seven) == "PictureSet('seven': 7 pictures 3 × 5 × 3, 3 classes)"
    assert repr(PictureSet([torch.rand(3, H, W), torch.rand(3, W, H)])) == (
        "PictureSet('pictures': 2 pictures of several sizes, no labels)"
    )
    assert "1 pictures in files" in repr(PictureSet([tmp_path / "one.png"]))
