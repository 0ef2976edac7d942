"""How a backbone sees pictures: its view of them, its input size, its normalisation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from grafeat.backbones.taps import Size
from grafeat.grids import Box

View = Callable[[Tensor], Tensor]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
SLACK = 1e-3  # outside [0, 1], for pictures that were kept in half precision


@dataclass(frozen=True)
class Crop:
    """A view that shows a backbone one part of each picture; its grid then covers that part.

    Args:
        x0: Left edge as a fraction of the picture's width.
        y0: Upper edge as a fraction of its height.
        x1: Right edge.
        y1: Lower edge.

    Raises:
        ValueError: Unless 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1):
            raise ValueError(f"{self}: expected 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1, in parts of the picture")

    @property
    def field(self) -> Box:
        """The part that is seen: (x0, y0, x1, y1)."""
        return self.x0, self.y0, self.x1, self.y1

    def __call__(self, pictures: Tensor) -> Tensor:
        """That part of each picture (b, 3, H, W); edges are rounded to whole pixels, at least one is left."""
        height, width = pictures.shape[-2:]
        top, left = min(round(self.y0 * height), height - 1), min(round(self.x0 * width), width - 1)
        bottom, right = max(round(self.y1 * height), top + 1), max(round(self.x1 * width), left + 1)
        return pictures[..., top:bottom, left:right]


@dataclass(frozen=True)
class Preparation:
    """From pictures in [0, 1] to what a module takes: view, then resizing of the whole, then normalisation.

    Args:
        backbone: Whose preparation it is, for messages.
        size: Input size (height, width) in pixels, or None for the pictures' own.
        mean: Channel means, or None for no normalisation.
        std: Channel standard deviations.
        interpolation: "nearest", or "bilinear" or "bicubic" with antialiasing.
        view: Applied to (b, 3, H, W) first, or None.

    Raises:
        ValueError: If a size is not positive, the interpolation unknown, or `mean` and `std` do not go together.
    """

    backbone: str = field(compare=False)
    size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bicubic"
    view: View | None = None

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation: got {self.interpolation!r}; expected {', '.join(INTERPOLATIONS)}; choose one"
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(
                f"size: got {self.size}; expected positive pixels (height, width); give at least 1"
            )
        if len(self.mean or ()) != len(self.std or ()) or 0 in (self.std or ()):
            raise ValueError(
                f"mean, std: got {self.mean} and {self.std}; expected as many of each, std above 0; give both or none"
            )

    def __call__(
        self, pictures: Tensor | Sequence[Tensor], like: Tensor
    ) -> Float[Tensor, "b _ height width"]:
        """Pictures (b, 3, H, W) or a list of (3, H, W), checked and prepared; device and type are those of `like`."""
        if isinstance(pictures, Tensor):
            return self._normalised(self._sized(pictures, like))
        sized = [self._sized(self._single(picture), like) for picture in pictures]
        found = sorted({f"{batch.shape[-2]}×{batch.shape[-1]}" for batch in sized})
        if len(found) != 1:
            raise ValueError(
                f"pictures: got {' and '.join(found) or 'none'} for backbone {self.backbone!r}; expected pictures of "
                "one size in pixels; give the backbone a size=, to which it then brings them all"
            )
        return self._normalised(torch.cat(sized))

    def _single(self, picture: Tensor) -> Tensor:
        return picture[None] if isinstance(picture, Tensor) and picture.ndim == 3 else picture

    def _sized(self, pictures: Tensor, like: Tensor) -> Tensor:
        _check_pictures(pictures, self.backbone)
        pictures = pictures.to(like)
        if self.view is not None:
            pictures = self._viewed(pictures, self.view)
        if self.size is None or pictures.shape[-2:] == self.size:
            return pictures
        antialias = self.interpolation != "nearest"
        grey = pictures.stride(1) == 0 and not pictures.requires_grad  # one channel, shown three times
        different = pictures[:, :1] if grey else pictures
        resized = functional.interpolate(different, self.size, mode=self.interpolation, antialias=antialias)
        return resized.clamp(0, 1).expand(-1, pictures.shape[1], -1, -1)  # bicubic interpolation overshoots

    def _viewed(self, pictures: Tensor, view: View) -> Tensor:
        seen = view(pictures)
        if not isinstance(seen, Tensor) or seen.ndim != 4 or len(seen) != len(pictures):
            got = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
            raise ValueError(
                f"view: gave {got} for pictures {tuple(pictures.shape)} of backbone {self.backbone!r}; expected as "
                "many pictures (b, 3, H, W); view whole batches"
            )
        return seen

    def _normalised(self, pictures: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return pictures
        mean, std = pictures.new_tensor(self.mean), pictures.new_tensor(self.std)
        return (pictures - mean[:, None, None]).div_(std[:, None, None])


def _check_pictures(pictures: object, backbone: str) -> None:
    to = f"for backbone {backbone!r}"
    if not isinstance(pictures, Tensor):
        raise TypeError(
            f"pictures: got {type(pictures).__name__} {to}; expected a tensor; try torch.as_tensor()"
        )
    shape = tuple(pictures.shape)
    if not pictures.is_floating_point():
        raise TypeError(
            f"pictures: got {pictures.dtype} {to}; expected floats in [0, 1]; if they are 0 to 255, use pictures / 255"
        )
    if pictures.ndim != 4 or shape[1] != 3 or 0 in shape:
        remedies = {3: "pictures[None] if it is one", 4: "pictures.expand(-1, 3, -1, -1) if they are grey"}
        remedy = remedies.get(pictures.ndim, "stacking single pictures (3, H, W)")
        raise ValueError(f"pictures: got shape {shape} {to}; expected (b, 3, H, W); try {remedy}")
    low, high = (float(value) for value in pictures.detach().aminmax())
    if not -SLACK <= low <= high <= 1 + SLACK:  # NaN fails too
        got, remedy = f"values from {low:.4g} to {high:.4g}", "give them as they are before normalisation"
        if not (low > -torch.inf and high < torch.inf):
            got, remedy = "NaN or infinity", "look for a division by 0 in what made them"
        elif low >= 0 and high <= 255:
            remedy = "if they are 0 to 255, use pictures / 255"
        raise ValueError(f"pictures: got {got} {to}; expected finite values in [0, 1]; {remedy}")
