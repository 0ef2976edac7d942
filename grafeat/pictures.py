"""Pictures with their labels: in memory or in files, checked once, handed out as floats in [0, 1]."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from grafeat.splits import Index, LabelledSet, take

Pictures = Float[Tensor, "b 3 h w"] | list[Float[Tensor, "3 _ _"]]
DEEP = ("PNG", "PPM")  # formats whose whole numbers Pillow brings to 16 bits, whatever it calls them


class UnreadableError(ValueError):
    """A picture file is missing, damaged, or of a kind that is not read: whoever is asked to may leave it out."""


class PictureSet(LabelledSet):
    """Pictures with their labels, kept as they came and handed out as floats in [0, 1] with three channels.

    Args:
        pictures: A tensor (n, 3, H, W) or (n, 1, H, W), or a list of tensors (3, H, W) or (1, H, W) whose
            sizes may differ: uint8 in 0 to 255, or floating point in [0, 1]. Or a list of paths to picture
            files, read whenever they are asked for: upright by their EXIF tag, on white where transparent.
            Of grey, 8 or 16 bits are read; floats and 32-bit numbers do not say how large white is.
        labels: Class numbers (n,), or None.
        classes: Names of the classes; numbered if absent.
        name: What to call the set.
        parts: Where the pictures of the parts `train`, `val` and `test` stand, from 0; as for `with_parts`.
        skip_unreadable: Read every picture file once, now, and leave out those that fail: `skipped` has
            their paths.

    Raises:
        TypeError: If the pictures, the name or the parts are of another type.
        ValueError: If there is none; if their shape or range is another; if labels do not fit.
        IndexError: If a part has a picture that is not there.
    """

    _remembered: UInt8[Tensor, "n 32"] | None = None  # of each row, once `remembering` has been asked

    def __init__(
        self,
        pictures: Tensor | Sequence[Tensor] | Sequence[Path],
        labels: Tensor | Sequence[int] | None = None,
        *,
        classes: Sequence[str] | None = None,
        name: str = "pictures",
        parts: Mapping[str, Index] | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name: got {name!r}; expected a string; leave it out for 'pictures'")
        self.name = name
        self.skipped: tuple[Path, ...] = ()
        self._stored = _stored(pictures)
        self._set_up(len(self._stored), labels, classes, parts)
        if skip_unreadable:
            self._leave_out_unreadable()

    @property
    def pictures(self) -> Pictures:
        """The pictures (b, 3, H, W), float32 in [0, 1], grey repeated; a list of (3, H, W) if sizes vary."""
        kept = self.kept
        return as_floats(kept) if isinstance(kept, Tensor) else [as_floats(picture) for picture in kept]

    @property
    def kept(self) -> Tensor | list[Tensor]:
        """The pictures before they are scaled, to be read only: (b, c, H, W) or a list of (c, H, W), c 1 or 3.

        They are uint8 in 0 to 255, as all files are, or float32 in [0, 1]; `as_floats` makes `pictures` of them.
        """
        if isinstance(self._stored, Tensor):
            return take(self._stored, self._rows)
        decoded = [self._decoded(row) for row in self._rows.tolist()]
        if len({picture.dtype for picture in decoded}) > 1:
            decoded = [as_floats(picture) for picture in decoded]
        if len({picture.shape[-2:] for picture in decoded}) != 1:
            return decoded
        return torch.stack([picture.expand(3, -1, -1) for picture in decoded])

    @property
    def files(self) -> int:
        """How many of the pictures are files; the others lie in memory."""
        if isinstance(self._stored, Tensor):
            return 0
        return sum(isinstance(self._stored[row], Path) for row in self._rows.tolist())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is kept of this set's pictures, in their order; labels are not part of it.

        A file that cannot be opened counts as such, so that the set is another one when it is there again.
        """
        if isinstance(self._stored, Tensor):
            return hashlib.sha256(_content(take(self._stored, self._rows))).hexdigest()
        return hashlib.sha256(self.digests.numpy().tobytes()).hexdigest()

    @property
    def digests(self) -> UInt8[Tensor, "b 32"]:
        """SHA-256 of the content of each picture; of a file, the bytes that are there now, or were remembered."""
        if self._remembered is not None:
            return self._remembered[self._rows]
        stored = (self._stored[row] for row in self._rows.tolist())
        found = (_digest(_read(each) if isinstance(each, Path) else _content(each)) for each in stored)
        return torch.from_numpy(np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32).copy())

    def remembering(self, digests: UInt8[Tensor, "b 32"]) -> Self:
        """The same set, which from now on refuses a file whose content has another digest than it has here.

        Its `pictures` raise a ValueError then that is no `UnreadableError`: such a file is not to be left out. One that
        cannot be opened any more is.
        """
        view = copy.copy(self)
        view._remembered = torch.zeros(len(self._stored), 32, dtype=torch.uint8)
        view._remembered[self._rows] = digests
        return view

    def origin(self, position: int) -> str:
        """Where the picture at a position comes from: its file, or its number in memory."""
        row = int(self._rows[position])
        stored = None if isinstance(self._stored, Tensor) else self._stored[row]
        return str(stored) if isinstance(stored, Path) else f"picture {row} in memory"

    def __repr__(self) -> str:
        parts = ", ".join(f"{count:,} {part}" for part, count in self.parts.items())
        labels = f"{len(self.classes)} classes" if self._store_labels is not None else "no labels"
        skipped = f", {len(self.skipped)} unreadable files skipped" if self.skipped else ""
        pictures = f"{len(self):,} pictures {self._size()}{f' ({parts})' if parts else ''}"
        return f"PictureSet({self.name!r}: {pictures}, {labels}{skipped})"

    def _decoded(self, row: int) -> Tensor:
        stored = self._stored[row]
        if not isinstance(stored, Path):
            return stored
        raw = _read(stored)
        known = None if self._remembered is None else self._remembered[row].numpy().tobytes()
        if known and isinstance(raw, bytes) and _digest(raw) != known:
            raise ValueError(
                f"pictures: {stored} has changed while this run was on; expected the content that it had at first, by "
                "which its features are found again; call again once nothing writes it"
            )
        return _picture(stored, raw)

    def _size(self) -> str:
        in_memory = [picture.shape[-2:] for picture in self._stored if isinstance(picture, Tensor)]
        if len(in_memory) < len(self._stored):
            return "in files"
        return "3 × {} × {}".format(*in_memory[0]) if len(set(in_memory)) == 1 else "of several sizes"

    def _leave_out_unreadable(self) -> None:
        readable = torch.tensor([self._is_readable(row) for row in range(len(self._stored))])
        self.skipped = tuple(path for path, good in zip(self._stored, readable, strict=True) if not good)
        if not readable.any():
            raise ValueError(f"pictures: none of {len(readable):,} can be read, {self.skipped[0]} among them")
        self._rows = self._rows[readable]
        self._parts = {part: rows[readable[rows]] for part, rows in self._parts.items()}

    def _is_readable(self, row: int) -> bool:
        try:
            self._decoded(row)
        except UnreadableError:
            return False
        return True


def read_picture(path: Path) -> UInt8[Tensor, "3 h w"]:
    """A picture file as colours: upright by its EXIF tag, on white where transparent, 16-bit grey cut to 8.

    Raises:
        UnreadableError: If the file is missing, damaged, or no picture; if it holds floats or 32-bit numbers, of which
            nothing says how large white is.
    """
    return _picture(path, _read(path))


def _read(path: Path) -> bytes | Exception:
    """What is in a file, or why it cannot be opened."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        return error


def _digest(content: bytes | Exception) -> bytes:
    """SHA-256; a file that cannot be opened has one, too: who reads the picture names it, or leaves it out."""
    known = content if isinstance(content, bytes) else f"{type(content).__name__}: no picture".encode()
    return hashlib.sha256(known).digest()


def _picture(path: Path, raw: bytes | Exception) -> UInt8[Tensor, "3 h w"]:
    try:
        if isinstance(raw, Exception):
            raise raw
        return torch.from_numpy(_colours(raw)).permute(2, 0, 1)
    except MemoryError:
        raise
    except Exception as error:  # damaged files get every kind of it out of Pillow's readers, by format
        why = "no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise UnreadableError(
            f"pictures: cannot read {path} ({why}); expected a whole picture file; replace it, or pass "
            "skip_unreadable=True to leave such files out"
        ) from error


def _colours(raw: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(BytesIO(raw)) as image:
        if image.mode == "F" or (image.mode == "I" and image.format not in DEEP):
            kind = "floats" if image.mode == "F" else "signed or 32-bit numbers"
            raise ValueError(f"it holds {kind}, and nothing says how large white is; save 8 bits, or 16 of grey")
        return np.array(_in_colours(ImageOps.exif_transpose(image)))


def _in_colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip to white
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def as_floats(pictures: Tensor) -> Float[Tensor, "*b 3 h w"]:
    """Pictures (*b, c, h, w) in float32 and [0, 1] with three channels, alike to the bit on every device.

    They never share the memory of what is given, which a caller could spoil.
    """
    if pictures.dtype == torch.uint8:  # a GPU would not divide by a plain 255, but multiply by its rounded inverse
        scaled = pictures / torch.full((), 255.0, device=pictures.device)
    else:
        scaled = pictures.clone()
    return scaled if scaled.shape[-3] == 3 else scaled.expand(*scaled.shape[:-3], 3, -1, -1)


def _content(picture: Tensor) -> bytes:
    return repr((picture.dtype, tuple(picture.shape))).encode() + picture.contiguous().numpy().tobytes()


def _stored(pictures: Tensor | Sequence[Tensor] | Sequence[Path]) -> Tensor | tuple[Tensor | Path, ...]:
    if isinstance(pictures, Tensor):
        return _checked(pictures, rank=4)
    if not len(pictures):
        raise ValueError("pictures: got none; expected at least one; check where they come from")
    strange = [type(picture).__name__ for picture in pictures if not isinstance(picture, Tensor | Path)]
    if strange:
        raise TypeError(
            f"pictures: got {strange[0]} in the list; expected tensors or pathlib.Path; for arrays pass "
            "torch.from_numpy(array), for file names Path(name)"
        )
    return tuple(picture if isinstance(picture, Path) else _checked(picture, rank=3) for picture in pictures)


def _checked(pictures: Tensor, rank: int) -> Tensor:
    found = f"pictures: got {str(pictures.dtype).removeprefix('torch.')} of shape {tuple(pictures.shape)}"
    if pictures.ndim != rank or 0 in pictures.shape or pictures.shape[-3] not in (1, 3):
        axes = "(n, 3, H, W) or (n, 1, H, W)" if rank == 4 else "(3, H, W) or (1, H, W) for each in a list"
        raise ValueError(f"{found}; expected {axes}; {_shape_remedy(pictures, rank)}")
    if pictures.dtype == torch.uint8:
        return pictures.cpu()
    if not pictures.is_floating_point():
        raise TypeError(f"{found}; expected uint8 in 0 to 255 or floats in [0, 1]; convert: .to(torch.uint8)")
    low, high = (bound.item() for bound in pictures.detach().aminmax())
    if not 0 <= low <= high <= 1:  # false for NaN, too
        remedy = "pass 0 to 255 as uint8, or divide by 255" if high > 1.5 else "mend them, or .clamp(0, 1)"
        raise ValueError(f"{found} with values from {low:.4g} to {high:.4g}; expected [0, 1]; {remedy}")
    return pictures.detach().to("cpu", torch.float32)


def _shape_remedy(pictures: Tensor, rank: int) -> str:
    if pictures.ndim == rank and pictures.shape[-1] in (1, 3):
        return "put the channels first: .movedim(-1, -3)"
    if rank == 4 and pictures.ndim == 3:
        return "one picture needs [None], grey pictures (n, H, W) need [:, None]"
    return "bring them into that shape"
