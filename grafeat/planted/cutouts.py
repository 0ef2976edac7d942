"""Cut-outs: pictures of single things, whose opacity says where the thing is."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

INSTALLED = Path("/usr/share/tuxpaint/stamps")
FETCHED = Path(__file__).parents[2] / "build" / "stamps"  # by `make stamps`, in a checkout
CATEGORIES = {
    "bird": ("animals/birds",),
    "flower": ("plants/flowers",),
    "food": ("food/fruit", "food/nuts", "food/vegetables"),
    "mammal": ("animals/mammals",),
    "thing": ("hobbies", "household"),
}
NO_PHOTOGRAPHS = ("cartoon", "plastic", "toys")  # folders
DRAWN = ("echidna", "hedgehog")  # drawings outside those folders
SMALLEST = 40  # pixels along the longer side


@dataclass(frozen=True, eq=False)
class CutOuts:
    """Pictures of single things on nothing, by class.

    Attributes:
        pictures: Red, green, blue and opacity (4, h, w) of each, 0 to 255; sizes differ.
        labels: Class number of each.
        classes: Names of the classes.
        names: What each is called.

    Raises:
        ValueError: If there is none, numbers differ, a label is out of range, a picture has no opacity, or nothing in
            it is opaque.
    """

    pictures: tuple[UInt8[Tensor, "4 _ _"], ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = len(self.pictures), len(self.labels), len(self.names)
        if len(set(counts)) > 1 or not self.pictures:
            raise ValueError(
                "pictures, labels, names: got {}, {} and {}; expected one of each for every cut-out, and one cut-out "
                "or more; leave the odd ones out".format(*counts)
            )
        if not all(0 <= label < len(self.classes) for label in self.labels):
            raise ValueError(
                f"labels: got {min(self.labels)} to {max(self.labels)}; expected 0 to {len(self.classes) - 1}, as "
                f"there are {len(self.classes)} classes; correct them"
            )
        for name, picture in zip(self.names, self.pictures, strict=True):
            if picture.ndim != 3 or len(picture) != 4 or int(picture[3].max()) < 128:
                raise ValueError(
                    f"pictures: {name!r} has shape {tuple(picture.shape)}; expected (4, h, w), with opacity of 128 or "
                    "more somewhere in the last channel; leave it out"
                )

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        counts = Counter(self.labels)
        return "CutOuts: " + ", ".join(f"{counts[number]} of {name!r}" for number, name in enumerate(self.classes))


def load_cutouts(root: str | Path | None = None) -> CutOuts:
    """About 210 photographs of birds, flowers, food, mammals and things, cut out of their surroundings.

    They are stamps of the drawing program Tux Paint (GPL-2), in Debian's package `tuxpaint-stamps-default`, which
    `make stamps` fetches. Drawings, toys, mirror images, what is mostly transparent and what is smaller than 40 pixels
    are left out.

    Args:
        root: Folder with the stamps' category folders, such as `animals`; by default `/usr/share/tuxpaint/stamps`, or
            where `make stamps` puts them.

    Raises:
        FileNotFoundError: If they are not there.
    """
    folder = _folder(root)
    found = [
        (path, label)
        for label, places in enumerate(CATEGORIES.values())
        for place in places
        for path in sorted((folder / place).rglob("*.png"))
        if not (set(path.parts) & {*NO_PHOTOGRAPHS} or path.stem in DRAWN or path.stem.endswith("_mirror"))
    ]
    read = [(path.stem, _read(path), label) for path, label in found]
    names, pictures, labels = zip(*[one for one in read if _is_solid(one[1])], strict=True)
    return CutOuts(pictures, labels, tuple(CATEGORIES), names)


def _folder(root: str | Path | None) -> Path:
    places = (INSTALLED, FETCHED) if root is None else (Path(root),)
    wanted = [place for places in CATEGORIES.values() for place in places]
    folder = next((place for place in places if all((place / one).is_dir() for one in wanted)), None)
    if folder is None:
        raise FileNotFoundError(
            f"root: no stamps in {' or '.join(map(str, places))}; expected the folders {', '.join(wanted)}; fetch them "
            "with `make stamps` (161 MB, Debian or Ubuntu), or install the package tuxpaint-stamps-default"
        )
    return folder


def _read(path: Path) -> UInt8[Tensor, "4 h w"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)


def _is_solid(picture: UInt8[Tensor, "4 h w"]) -> bool:
    opaque, visible = (picture[3] >= 128).sum(), (picture[3] > 5).sum()
    return max(picture.shape[1:]) >= SMALLEST and bool(2 * opaque >= visible)
