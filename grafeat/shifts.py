"""Pictures as a model meets them that was trained on clean ones: turned, noisy, partly hidden, or blurred."""

import difflib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import functional

from grafeat.pictures import PictureSet

Picture = Float[Tensor, "c h w"]
GREY = 0.5  # of what hides a part of a picture


@dataclass(frozen=True)
class Shift:
    """One kind of shift.

    Attributes:
        apply: The shifted picture, from a picture, the strength and a generator of random numbers.
        strength: The strength by default.
        top: The largest strength that makes sense.
    """

    apply: Callable[[Picture, float, torch.Generator], Picture]
    strength: float
    top: float


def shifted(pictures: PictureSet, kind: str, *, seed: int = 0, strength: float | None = None) -> PictureSet:
    """The same pictures, labels and parts, shifted.

    - `rotation`: turned about the middle by an angle drawn evenly between -`strength` and `strength` degrees (45); the
      corners continue the border.
    - `noise`: normal noise of standard deviation `strength` (0.3) on every pixel and colour; grey stays grey.
    - `occlusion`: a grey square at a random place inside; its side is `strength` (0.4) of the picture's shorter side.
    - `blur`: a Gaussian of standard deviation `strength` (0.06) of the shorter side; nothing is random.

    What is drawn depends on the seed and on the picture's own content, so that a picture is shifted alike in every
    subset and order.

    Args:
        pictures: Pictures, of one size or several.
        kind: One of the above.
        seed: Decides the draws.
        strength: How strong; 0 leaves the pictures as they are.

    Returns:
        Pictures in memory, with 8 bits for each colour.

    Raises:
        ValueError: If the kind is unknown, or the strength is not between 0 and the largest: 180 degrees, a deviation
            of 1, the whole shorter side.

    Source: the kinds follow Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations", ICLR 2019; the square is that of Zeiler and Fergus, ECCV 2014.
    """
    shift = _known(kind)
    strength = shift.strength if strength is None else strength
    if not 0 <= strength <= shift.top:
        raise ValueError(
            f"strength: got {strength} for {kind!r}; expected 0 to {shift.top:g}; leave it out for {shift.strength:g}"
        )
    each = [_shifted_one(pictures[row], kind, seed, strength) for row in range(len(pictures))]
    whole = torch.stack(each) if len({picture.shape for picture in each}) == 1 else each
    return PictureSet(
        whole,
        pictures.labels,
        classes=pictures.classes or None,
        name=f"{pictures.name}, {kind}",
        parts=pictures.part_positions,
    )


def _known(kind: str) -> Shift:
    if kind not in SHIFTS:
        closest = difflib.get_close_matches(kind, SHIFTS, n=1, cutoff=0.0)[0]
        raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(SHIFTS)}; the closest is {closest!r}")
    return SHIFTS[kind]


def _shifted_one(one: PictureSet, kind: str, seed: int, strength: float) -> UInt8[Tensor, "3 h w"]:
    picture = one.pictures[0]
    content = hashlib.sha256(f"{kind} {seed} {tuple(picture.shape)}".encode() + picture.contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(content.digest()[:8], "big", signed=True))
    if strength > 0:
        grey = bool((picture == picture[:1]).all())
        changed = SHIFTS[kind].apply(picture[:1] if grey else picture, strength, generator)
        picture = changed.expand_as(picture)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def _rotation(picture: Picture, strength: float, generator: torch.Generator) -> Picture:
    turn = math.radians(strength * (2 * float(torch.rand((), generator=generator)) - 1))
    cos, sin = math.cos(turn), math.sin(turn)
    h, w = picture.shape[1:]
    # In units of half a side, so that a picture that is no square is turned and not sheared.
    where = torch.tensor([[[cos, -sin * h / w, 0.0], [sin * w / h, cos, 0.0]]])
    places = F.affine_grid(where, [1, 1, h, w], align_corners=False)
    return F.grid_sample(picture[None], places, mode="bilinear", padding_mode="border", align_corners=False)[0]


def _noise(picture: Picture, strength: float, generator: torch.Generator) -> Picture:
    return picture + strength * torch.randn(picture.shape, generator=generator)


def _occlusion(picture: Picture, strength: float, generator: torch.Generator) -> Picture:
    h, w = picture.shape[1:]
    side = max(1, round(strength * min(h, w)))
    top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in (h, w))
    hidden = picture.clone()
    hidden[:, top : top + side, left : left + side] = GREY
    return hidden


def _blur(picture: Picture, strength: float, _: torch.Generator) -> Picture:
    deviation = strength * min(picture.shape[1:])
    reach = min(max(1, math.ceil(3 * deviation)), min(picture.shape[1:]) - 1)  # the border is mirrored once
    if reach < 1:
        return picture
    return functional.gaussian_blur(picture, [2 * reach + 1] * 2, [deviation] * 2)


SHIFTS = {
    "rotation": Shift(_rotation, 45.0, 180.0),
    "noise": Shift(_noise, 0.3, 1.0),
    "occlusion": Shift(_occlusion, 0.4, 1.0),
    "blur": Shift(_blur, 0.06, 1.0),
}
