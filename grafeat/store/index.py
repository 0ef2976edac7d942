"""What the grids of one backbone say of themselves: an index that vouches for every byte beside it."""

import dataclasses
import hashlib
import json
import struct
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from grafeat.grids import Box

KIND, FORMAT = "feature grids", 3  # the folders of the second were not told apart by all of a name
PAGE = 4096  # the header fills whole pages of memory, so that the features begin on one
DTYPES = {  # of torch, by their names in safetensors
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
Shape = tuple[int, int, int]
Rows = tuple[int, int]  # from, and up to but without


class Piece(NamedTuple):
    """A batch that is on disk: its pictures, and the checksum of its features."""

    start: int
    stop: int
    digest: str


@dataclass(frozen=True)
class Key:
    """All that shapes the grids of one backbone.

    Args:
        backbone: Fingerprint of the backbone: weights, tap, input size, pre-processing, view.
        pictures: Fingerprint of the pictures' content.
        dtype: Number format, by its name in safetensors.
        count: How many pictures there are.
    """

    backbone: str
    pictures: str
    dtype: str
    count: int


@dataclass(frozen=True)
class Index:
    """What the grids of one backbone are, and the checksum of each batch of them.

    Args:
        key: What shapes them.
        name: The backbone's name.
        of: The name of the set of pictures.
        field: The part of the picture that the grids cover.
        shape: Channels, rows and columns (c, h, w).
        pieces: The batches that are there, in the order of the pictures.
        unreadable: Pictures that could not be read, whose features are zeros.
    """

    key: Key
    name: str
    of: str
    field: Box
    shape: Shape
    pieces: tuple[Piece, ...] = ()
    unreadable: tuple[int, ...] = ()

    @property
    def short(self) -> str:
        """The 16 hexadecimal digits that end the folder's name: they differ wherever names do, a cut one included."""
        said = [self.name, self.key.backbone, self.key.pictures, self.key.dtype]
        return digest(json.dumps(said).encode())[:16]

    @property
    def folder(self) -> str:
        """The name of the folder that these grids have in a store: never a path, whatever the backbone is called."""
        name = self.name.replace("/", "_").replace("\0", "_").encode(errors="replace")[:60].decode(errors="ignore")
        return f"{name}-{self.short}"

    @property
    def row_nbytes(self) -> int:
        """Bytes of one picture's features."""
        c, h, w = self.shape
        return c * h * w * DTYPES[self.key.dtype].itemsize

    @property
    def header(self) -> bytes:
        """How the data file begins: the header of a safetensors file with the one tensor `features`."""
        about = {"kind": KIND, "format": FORMAT, "name": self.name, **asdict(self.key)}
        offsets = [0, self.key.count * self.row_nbytes]
        tensor = {"dtype": self.key.dtype, "shape": [self.key.count, *self.shape], "data_offsets": offsets}
        text = json.dumps({"__metadata__": {"grafeat": json.dumps(about)}, "features": tensor}).encode()
        text += b" " * (-(8 + len(text)) % PAGE)
        return struct.pack("<Q", len(text)) + text

    @property
    def nbytes(self) -> int:
        """Bytes of the data file."""
        return len(self.header) + self.key.count * self.row_nbytes

    @property
    def missing(self) -> tuple[Rows, ...]:
        """The pictures that no piece has, in runs."""
        return gaps(self.key.count, self.pieces)

    def with_pieces(self, pieces: Iterable[Piece], unreadable: Iterable[int]) -> "Index":
        """The same with other pieces, in the order of the pictures."""
        rows = tuple(sorted(set(unreadable)))
        return dataclasses.replace(self, pieces=tuple(sorted(pieces)), unreadable=rows)

    def without(self, lost: Container[Piece]) -> "Index":
        """The same without some pieces."""
        kept = [piece for piece in self.pieces if piece not in lost]
        return self.with_pieces(kept, (row for piece in kept for row in self.unreadable_in(piece)))

    def unreadable_in(self, piece: Piece) -> tuple[int, ...]:
        """The pictures of a piece that could not be read."""
        return self.unreadable[slice(*(bisect_left(self.unreadable, row) for row in (piece.start, piece.stop)))]

    def encoded(self) -> bytes:
        """One line of JSON that begins with its own checksum."""
        text = {"kind": KIND, "format": FORMAT, **asdict(self)}
        return json.dumps({"sha256": digest(json.dumps(text).encode()), **text}).encode() + b"\n"


def parsed(raw: bytes) -> Index:
    """The index that some bytes encode, to the byte.

    Raises:
        ValueError: If they are anything else: damaged, crafted, or from another version. It says in a few words what.
    """
    try:
        index = _index(json.loads(raw))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no index: {type(error).__name__} {error}") from error
    if index.encoded() != raw:
        raise ValueError("its checksum is another")
    return index


def digest(data: bytes | memoryview) -> str:
    """The first 128 bits of the SHA-256: as fast as a disk, and no two pieces that anyone has seen share one."""
    return hashlib.sha256(data).hexdigest()[:32]


def gaps(count: int, pieces: Iterable[Piece]) -> tuple[Rows, ...]:
    """What pieces leave of the rows from 0 to `count`, in runs."""
    found, reached = [], 0
    for start, stop, _ in sorted(pieces):
        if start > reached:
            found.append((reached, start))
        reached = max(reached, stop)
    return (*found, (reached, count)) if reached < count else tuple(found)


def _index(said: Mapping[str, Any]) -> Index:
    fields = [field.name for field in dataclasses.fields(Index)]
    if said["kind"] != KIND or said["format"] != FORMAT or set(said) != {"sha256", "kind", "format", *fields}:
        raise ValueError(f"{said['kind']!r} in format {said['format']!r}, not {KIND!r} in format {FORMAT}")
    key, (x0, y0, x1, y1), (c, h, w) = said["key"], said["field"], said["shape"]
    texts = [key[name] for name in ("backbone", "pictures", "dtype")]
    rows = [number for start, stop, _ in said["pieces"] for number in (start, stop)]
    digests = [found for _, _, found in said["pieces"]]
    whole = [c, h, w, key["count"], *rows, *said["unreadable"]]
    good = [
        all(type(text) is str for text in (*texts, said["name"], said["of"], *digests)),
        all(type(number) is int and number >= 0 for number in whole),
        all(type(number) in (int, float) for number in (x0, y0, x1, y1)),
        0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1,
        0 not in (c, h, w, key["count"]) and set(key) == {"backbone", "pictures", "dtype", "count"},
        key["dtype"] in DTYPES,
        all(start < stop for start, stop in zip(rows[::2], rows[1::2], strict=True)),
        rows == sorted(rows) and max(rows, default=0) <= key["count"],
        said["unreadable"] == sorted(set(said["unreadable"])),
        max(said["unreadable"], default=0) < key["count"],
    ]
    if not all(good):
        raise ValueError("its numbers do not fit each other")
    pieces = tuple(Piece(*piece) for piece in said["pieces"])
    unreadable = tuple(said["unreadable"])
    return Index(Key(**key), said["name"], said["of"], (x0, y0, x1, y1), (c, h, w), pieces, unreadable)


def cut(rows: Iterable[Rows], batch_size: int) -> Iterator[Rows]:
    """Runs of pictures, in batches."""
    for start, stop in rows:
        yield from ((begin, min(begin + batch_size, stop)) for begin in range(start, stop, batch_size))
