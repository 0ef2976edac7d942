"""Grids of a whole set are computed once and found again by all that shapes them; what looks whole is whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_files import MAPS, full_disk
from torch import Tensor, nn

from grafeat.backbones.backbone import Backbone
from grafeat.backbones.preparation import Crop
from grafeat.grids import WHOLE, GridSet
from grafeat.pictures import PictureSet
from grafeat.store import extract

B, SIDE = 29, 12


class Tiny(nn.Module):
    """One convolution, its output times a factor."""

    def __init__(self, channels: int, side: int, *, seed: int = 0, factor: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, side, stride=side)
        self.wide = nn.Conv2d(channels, channels, 1)
        self.factor = factor
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5

    def forward(self, pictures: Tensor) -> Tensor:
        return self.factor * self.wide(self.conv(pictures))


def lite(**options: object) -> Backbone:
    return Backbone(Tiny(5, 4), **{"name": "lite", "size": SIDE, "tap": "", **options})


def vit(**options: object) -> Backbone:
    return Backbone(Tiny(7, 6, seed=1), **{"name": "vit", "size": SIDE, "tap": "", **options})


def pictures(b: int = B, seed: int = 0, **options: object) -> PictureSet:
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randint(256, (b, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    labels = torch.arange(b) % 3
    parts = {"train": torch.arange(0, b, 2), "val": torch.tensor([1, 5]), "test": torch.tensor([7, 3, 9])}
    return PictureSet(
        stored, **{"labels": labels, "classes": ["cat", "dog", "owl"], "parts": parts, **options}
    )


def taken(
    backbones: list[Backbone], shown: PictureSet, store: Path | None = None, **options: object
) -> GridSet:
    return extract(backbones, shown, store=store, **{"progress": False, **options})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which backbone was shown how many pictures, call by call."""
    seen, call = [], Backbone.__call__

    def note(self: Backbone, shown: Tensor, **options: bool) -> object:
        seen.append((self.name, len(shown)))
        return call(self, shown, **options)

    lite(), vit()  # a size is looked at once, when a backbone is made
    monkeypatch.setattr(Backbone, "__call__", note)
    return seen


def same(found: GridSet, expected: GridSet) -> bool:
    return found.names == expected.names and all(
        torch.equal(found[name].features, expected[name].features)
        and found[name].field == expected[name].field
        for name in expected.names
    )


# What is extracted


def test_grids_are_what_the_backbones_give(tmp_path: Path) -> None:
    shown = pictures()
    for store in (None, tmp_path):
        found = taken([lite(), vit()], shown, store, dtype=torch.float32, batch_size=7)
        assert found.names == ("lite", "vit")
        for backbone in (lite(), vit()):
            expected = backbone(shown.pictures).features
            torch.testing.assert_close(found[backbone.name].features, expected, atol=1e-5, rtol=1e-5)
            assert found[backbone.name].field == WHOLE


def test_by_default_grids_are_kept_in_half_precision() -> None:
    half, whole = (taken([lite()], pictures(), **options) for options in ({}, {"dtype": torch.float32}))
    assert half["lite"].features.dtype == torch.float16
    assert torch.equal(half["lite"].features, whole["lite"].features.half())


def test_with_and_without_a_store_they_are_equal_to_the_bit(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        expected = taken([lite(), vit()], pictures(), dtype=dtype)
        for _ in ("written", "found"):
            assert same(taken([lite(), vit()], pictures(), tmp_path, dtype=dtype), expected)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("side", [SIDE, 4])
def test_grids_whose_channels_lie_last_are_kept_as_others(tmp_path: Path, side: int) -> None:
    """Of one patch each, and of several; convolutions that overlap give such grids on some machines."""

    class Last(Tiny):
        def forward(self, pictures: Tensor) -> Tensor:
            found = super().forward(pictures)
            return torch.empty_like(found, memory_format=torch.channels_last).copy_(found)

    backbone = Backbone(Last(5, side), name="last", size=SIDE, tap="")
    for dtype in (torch.float16, torch.float32):
        expected = taken([backbone], pictures(), dtype=dtype)
        assert same(taken([backbone], pictures(), tmp_path, dtype=dtype), expected)


def test_the_order_of_the_backbones_is_that_asked_for(tmp_path: Path) -> None:
    taken([vit()], pictures(), tmp_path)
    for backbones in ([lite(), vit()], [vit(), lite()]):
        assert taken(backbones, pictures(), tmp_path).names == tuple(backbone.name for backbone in backbones)


def test_labels_classes_and_parts_are_carried(tmp_path: Path) -> None:
    shown = pictures()
    for store in (None, tmp_path, tmp_path):
        found = taken([lite()], shown, store)
        assert found.classes == ("cat", "dog", "owl")
        assert found.parts == {"train": 15, "val": 2, "test": 3}
        assert torch.equal(found.labels, shown.labels)
        for part in ("train", "val", "test"):
            ours, theirs = getattr(found, part), getattr(shown, part)
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(ours["lite"].features, lite()(theirs.pictures).features.half())


@pytest.mark.parametrize(
    "view",
    [
        lambda shown: shown.few_labels(3, seed=1, val=0.4),
        lambda shown: shown.split(val=0.2, test=0.3, seed=1),
        lambda shown: shown.train,
        lambda shown: shown.train.few_labels(2, val=0.5),
        lambda shown: shown[torch.tensor([17, 3, 3, 11])],
    ],
)
def test_views_of_a_set_carry_their_own_parts(
    tmp_path: Path, view: Callable[[PictureSet], PictureSet]
) -> None:
    shown = view(pictures())
    for store in (None, tmp_path, tmp_path):
        found = taken([lite()], shown, store)
        assert found.parts == shown.parts
        assert torch.equal(found.labels, shown.labels)
        assert torch.equal(found["lite"].features, lite()(shown.pictures).features.half())
        for part in shown.parts:
            assert torch.equal(
                getattr(found, part)["lite"].features, lite()(getattr(shown, part).pictures).features.half()
            )


def test_grids_and_pictures_split_alike() -> None:
    shown = pictures(parts=None)
    few = taken([lite()], shown).few_labels(3, seed=5)
    assert torch.equal(
        few.train["lite"].features, lite()(shown.few_labels(3, seed=5).train.pictures).features.half()
    )


def test_a_set_without_labels_gives_grids_without_labels() -> None:
    found = taken([lite()], pictures(labels=None, classes=None, parts=None))
    assert found.labels is None
    assert found.parts == {}


def test_pictures_of_several_sizes_are_brought_to_the_backbones_size() -> None:
    sizes = [(3, 5 + number % 3, 11) for number in range(7)]
    shown = PictureSet([torch.rand(size, generator=torch.Generator().manual_seed(3)) for size in sizes])
    found = taken([lite(), vit()], shown, batch_size=3)
    assert found["lite"].features.shape == (7, 5, 3, 3)
    assert torch.equal(found["vit"][5].features, vit()([shown[5].pictures[0]]).features.half())


def test_the_field_of_a_view_is_found_again(tmp_path: Path) -> None:
    half = Crop(0.0, 0.25, 0.5, 1.0)
    expected = taken([lite(view=half), vit()], pictures())
    assert expected["lite"].field == (0.0, 0.25, 0.5, 1.0)
    for _ in ("written", "found"):
        assert same(taken([lite(view=half), vit()], pictures(), tmp_path), expected)


# What is computed, and what is found


def test_each_picture_is_shown_once_and_never_again(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    backbones = [lite(), vit()]
    calls.clear()
    first = taken(backbones, pictures(), tmp_path, batch_size=11)
    assert calls == [(name, size) for size in (11, 11, 7) for name in ("lite", "vit")]
    again = [lite(), vit()]
    calls.clear()
    assert same(taken(again, pictures(), tmp_path, batch_size=13), first)
    assert calls == []


def test_another_backbone_computes_only_its_own(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    taken([lite()], pictures(), tmp_path)
    backbones = [vit(), lite()]
    calls.clear()
    assert same(taken(backbones, pictures(), tmp_path), taken(backbones, pictures()))
    assert calls[0] == ("vit", B)
    assert len(calls) == 3  # the other two are those without the store


def changed_weights() -> Backbone:
    module = Tiny(5, 4)
    module.wide.bias.data[3] += 1e-3
    return Backbone(module, name="lite", size=SIDE, tap="")


def changed_factor() -> Backbone:
    return Backbone(Tiny(5, 4, factor=2.0), name="lite", size=SIDE, tap="")


def large() -> Backbone:
    return lite(size=2 * SIDE)


@pytest.mark.parametrize(
    ("kept", "changed"),
    [
        (lite, changed_weights),
        (lite, changed_factor),
        (lite, large),
        (lite, lambda: lite(tap="conv")),
        (lite, lambda: lite(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))),
        (lite, lambda: lite(view=Crop(0.0, 0.0, 1.0, 0.5))),
        (lite, lambda: lite(name="twin")),
        (large, lambda: lite(size=2 * SIDE, interpolation="nearest")),
    ],
)
def test_whatever_shapes_the_grids_makes_them_anew(
    tmp_path: Path,
    calls: list[tuple[str, int]],
    kept: Callable[[], Backbone],
    changed: Callable[[], Backbone],
) -> None:
    taken([kept()], pictures(), tmp_path)
    other = changed()
    calls.clear()
    found = taken([other], pictures(), tmp_path)
    assert calls == [(other.name, B)]
    assert same(found, taken([other], pictures()))


def test_other_pictures_make_them_anew_and_other_labels_do_not(
    tmp_path: Path, calls: list[tuple[str, int]]
) -> None:
    backbone = lite()
    first = taken([backbone], pictures(), tmp_path)
    calls.clear()
    turned = taken([backbone], pictures(labels=2 - torch.arange(B) % 3, parts=None), tmp_path)
    assert calls == []
    assert same(turned, first)
    assert turned.parts == {}
    assert torch.equal(turned.labels, 2 - first.labels)
    for other in (pictures(seed=1), pictures()[torch.arange(B).flip(0)], pictures(B - 1), pictures().train):
        assert not same(taken([backbone], other, tmp_path), first)
        assert calls == [("lite", len(other))]
        calls.clear()


def test_another_number_type_is_another_folder(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    backbone = lite()
    taken([backbone], pictures(), tmp_path)
    calls.clear()
    assert (
        taken([backbone], pictures(), tmp_path, dtype=torch.float32)["lite"].features.dtype == torch.float32
    )
    assert len(calls) == 1


def test_pictures_are_read_through_once_for_all_backbones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, fingerprint = [], PictureSet.fingerprint.fget

    def note(self: PictureSet) -> str:
        read.append(len(self))
        return fingerprint(self)

    monkeypatch.setattr(PictureSet, "fingerprint", property(note))
    taken([lite(), vit()], pictures(), tmp_path)
    assert read == [B]
    taken([lite(), vit()], pictures())
    assert read == [B]  # without a store not at all


def test_folders_are_named_after_their_backbone(tmp_path: Path) -> None:
    taken([lite(name="timm/lite.a"), vit(name="../up")], pictures(), tmp_path / "deep" / "er")
    names = sorted(path.name for path in (tmp_path / "deep" / "er").iterdir())
    assert [name[: -len("-0123456789abcdef")] for name in names] == [".._up", "timm_lite.a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


@pytest.mark.skipif(not MAPS.exists(), reason="needs the kernel's list of memory maps")
def test_what_is_found_is_a_memory_map_whose_file_stays_as_it_is(tmp_path: Path) -> None:
    for _ in ("written", "found"):
        grids = taken([lite()], pictures(211), tmp_path)
        (path,) = tmp_path.glob("*/features.safetensors")
        assert str(path) in MAPS.read_text()
        before = path.read_bytes()
        grids["lite"].features.zero_()  # rows of a whole set are no copies
        assert not grids["lite"].features.any()
        assert path.read_bytes() == before
        del grids
    assert taken([lite()], pictures(211), tmp_path)["lite"].features.any()


# Failures


class Spoiled(Tiny):
    """One picture's features are not finite, those of the brightest corner."""

    def __init__(self, value: float) -> None:
        super().__init__(5, 4)
        self.value = value

    def forward(self, pictures: Tensor) -> Tensor:
        features = super().forward(pictures)
        bright = pictures[:, 0, 0, 0] == 1
        features[bright, 3, 1, 2] = self.value
        return features


def with_one_bright_corner() -> PictureSet:
    stored = torch.zeros(B, 3, SIDE, SIDE, dtype=torch.uint8)
    stored[23, 0, 0, 0] = 255
    return PictureSet(stored)


@pytest.mark.parametrize("store", [True, False])
def test_values_too_large_for_half_precision_name_the_backbone_and_the_remedy(
    tmp_path: Path, store: bool
) -> None:
    backbone = Backbone(Spoiled(70_000.0), name="loud", size=SIDE, tap="")
    folder = tmp_path if store else None
    with pytest.raises(
        ValueError, match=r"backbone 'loud' has NaN or infinity \(1 of .*or extract with dtype=torch.float32"
    ):
        taken([lite(), backbone], with_one_bright_corner(), folder, batch_size=7)
    assert all(path.suffix == ".part" for path in tmp_path.iterdir())  # nothing that looks whole
    found = taken([lite(), backbone], with_one_bright_corner(), folder, dtype=torch.float32)
    assert found["loud"].features.max() == 70_000


def test_features_that_are_no_numbers_name_the_backbone() -> None:
    with pytest.raises(ValueError, match="backbone 'broken' has NaN or infinity"):
        taken([Backbone(Spoiled(float("nan")), name="broken", size=SIDE, tap="")], with_one_bright_corner())


def test_two_backbones_of_one_name_and_none_at_all_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"backbones: got lite, lite; expected at least one, and different names; pass"
    ):
        taken([lite(), lite(size=2 * SIDE)], pictures())
    with pytest.raises(ValueError, match="backbones: got none; expected at least one"):
        taken([], pictures())


def test_no_pictures_and_empty_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pictures: got none; expected one or more; check"):
        taken([lite()], pictures()[[]], tmp_path)
    with pytest.raises(ValueError, match=r"batch_size: got 0; expected 1 or more; leave it out"):
        taken([lite()], pictures(), batch_size=0)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"backbones": ["bundled/lite"]}, TypeError, "backbones: got 'bundled/lite'; .*with gf.load_backbone"),
        ({"backbones": "bundled/lite"}, TypeError, "backbones: got 'bundled/lite'; expected one Backbone or several"),
        ({"backbones": Tiny(5, 4)}, TypeError, "backbones: got a Tiny; expected .*, or wrap it in gf.Backbone"),
        ({"backbones": None}, TypeError, "backbones: got None; expected one Backbone or several"),
        ({"pictures": torch.zeros(2, 3, 5, 5)}, TypeError, "pictures: got a Tensor; .*wrap them: gf.PictureSet"),
        ({"batch_size": 2.5}, TypeError, "batch_size: got 2.5; expected a whole number; leave it out"),
        ({"workers": "2"}, TypeError, "workers: got '2'; expected a whole number; leave it out to decode"),
        ({"workers": -1}, ValueError, "workers: got -1; expected 0 or more; leave it out to decode in this process"),
        ({"store": 3}, TypeError, "store: got 3; expected a path or a GridStore; name a folder"),
        ({"store": ""}, ValueError, "store: got an empty name; expected a folder; name one"),
        ({"accelerator": "cpu"}, TypeError, "accelerator: got 'cpu'; expected an accelerate.Accelerator; name a dev"),
        ({"device": "gpu"}, ValueError, "device: got 'gpu', which cannot be used here .*; leave it out for"),
        ({"device": "cuda:99"}, ValueError, "device: got 'cuda:99', which cannot be used here .*; expected a device"),
        ({"device": "meta"}, ValueError, "device: got 'meta', which cannot be used here .*; expected a device"),
        ({"device": 2.5}, ValueError, "device: got 2.5, which cannot be used here .*; expected a device"),
    ],
)
def test_arguments_of_another_kind_say_what_is_expected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchecked: None,
    wrong: dict[str, object],
    error: type[Exception],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"backbones": [lite()], "pictures": pictures(), "store": "store", "progress": False, **wrong}
    with pytest.raises(error, match=text):
        extract(**given)
    assert list(tmp_path.iterdir()) == []


def test_a_single_backbone_needs_no_list(tmp_path: Path) -> None:
    for store in (None, tmp_path):
        assert same(taken(lite(), pictures(), store), taken([lite()], pictures()))
        assert same(taken((one for one in [vit(), lite()]), pictures(), store), taken([vit(), lite()], pictures()))


def test_pictures_of_several_sizes_need_a_size() -> None:
    sizes = [(3, 8, 8)] * 3 + [(3, 8, 12)] * 3
    shown = PictureSet([torch.zeros(size) for size in sizes])
    with pytest.raises(
        ValueError,
        match=r"backbone 'lite' gave \(5, 2, 2\), then \(5, 2, 3\) from picture 3 on, .*give the backbone a size=",
    ):
        taken([lite(size=None)], shown, batch_size=3)
    with pytest.raises(ValueError, match="give the backbone a size="):
        taken([lite(size=None)], shown, batch_size=6)


def test_a_view_that_cannot_be_recognised_again_needs_no_store_and_is_refused_with_one(
    tmp_path: Path,
) -> None:
    secret = object()
    backbone = lite(view=lambda shown: shown.flip(-1) if secret else shown)
    with pytest.raises(
        ValueError, match=r"store: backbone 'lite' holds .*view.*, which cannot be recognised in a later run"
    ):
        taken([vit(), backbone], pictures(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    flipped = taken([backbone], pictures())
    assert torch.equal(flipped["lite"].features, lite()(pictures().pictures.flip(-1)).features.half())


def test_a_full_disk_and_a_folder_that_cannot_be_are_named(tmp_path: Path) -> None:
    with (
        full_disk(),
        pytest.raises(OSError, match=r"store: could not write .* room for 23.1 kB; raise the limit on the length of"),
    ):
        taken([lite()], pictures(211), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=f"store: could not write {tmp_path}/file/lite-.*Not a directory"):
        taken([lite()], pictures(), tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match=f"store: could not write {tmp_path}/link/lite-.*File exists"):
        taken([lite()], pictures(), tmp_path / "link")


# Progress


def test_progress_is_shown_where_something_is_computed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taken([lite()], pictures(), tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")
    taken([lite()], pictures(), tmp_path, progress=True)
    assert capfd.readouterr() == ("", "")  # all of it was there
    taken([vit()], pictures(), tmp_path, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "extract: 100%" in err
    assert "29/29" in err
