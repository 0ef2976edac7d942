"""Frozen feature extractors behind one call: pictures in, a feature grid out."""

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.arguments import is_whole, strange
from grafeat.backbones.fingerprint import fingerprint, unrecognised
from grafeat.backbones.preparation import Crop as Crop
from grafeat.backbones.preparation import Preparation, View
from grafeat.backbones.taps import Layout, Size, Tap, check_path, find_tap, run_tap
from grafeat.grids import WHOLE, Box, FeatureGrid

FEATURES = 1  # goes up when the same module and settings come to give other features; a store then makes its grids anew


class Backbone:
    """A frozen feature extractor with its own pre-processing and a declared tap.

    It holds a copy of the module, in `eval` and without gradients: training the original later changes nothing
    here. The *whole* picture is resized to the backbone's size, with no centre crop, so that the grids of all
    backbones cover the same field.

    Args:
        module: Any module that takes pictures (b, 3, H, W).
        name: What to call it, not empty. Backbones that are merged differ in name.
        tap: Dotted path of the submodule whose output is the feature grid. If None, the last spatial map before
            pooling is found (`grafeat.backbones.taps`): now if `size` is given, else at the first call.
        size: Input size in pixels, a side or (height, width). If None, pictures keep their own size.
        mean: Channel means for pictures in [0, 1]. If None, with `std`, they are not normalised.
        std: Channel standard deviations.
        view: Applied to the pictures (b, 3, H, W) before anything else. If it has an attribute `field`, (x0, y0,
            x1, y1) as that of `Crop`, the grid covers only that part of the picture.
        interpolation: How pictures are resized: "nearest", or "bilinear" or "bicubic" with antialiasing.
        licence: Licence of the weights.
        source: Where the weights came from.
        prefix_tokens: Class and register tokens ahead of the patches, if neither declared nor found.
        layout: Axes of the tapped activation, "NCHW" or "NHWC", if its shape leaves that open.

    Raises:
        TypeError: If the module is none; if `name` or `size` is of another type.
        ValueError: If an argument does not fit the module, or no clear last spatial map is found.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        tap: str | None = None,
        size: int | Size | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        view: View | None = None,
        interpolation: str = "bicubic",
        licence: str = "unknown",
        source: str = "given",
        prefix_tokens: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module: got {type(module).__name__}; expected a torch.nn.Module; build one first"
            )
        if not isinstance(name, str):
            raise strange("name", name, "a string", "write what to call the backbone")
        if not name:
            raise ValueError("name: got an empty one; expected text, by which its grids are known; name the backbone")
        check_path(module, tap)
        self.name, self.licence, self.source = name, licence, source
        means, stds = (None if given is None else tuple(given) for given in (mean, std))
        self.preparation = Preparation(name, _pair(size), means, stds, interpolation, view)
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._asked = (tap, layout, prefix_tokens)
        self._found: Tap | None = None
        self._shapes: dict[Size, tuple[int, int, int]] = {}
        self.to(self.device)
        if self.size is not None:
            self._shape(self.size)

    def __call__(self, pictures: Tensor | Sequence[Tensor], *, gradients: bool = False) -> FeatureGrid:
        """The feature grid of some pictures.

        Args:
            pictures: Floats in [0, 1]: (b, 3, H, W), or a list of (3, H, W), of unequal sizes if `size` is set.
            gradients: Whether gradients flow back to the pictures; the weights never get any.

        Returns:
            Features (b, c, h, w), on the backbone's device.

        Raises:
            TypeError: If the pictures are not floating-point tensors.
            ValueError: If their rank, range or size is wrong, or a feature is not finite.
        """
        with torch.set_grad_enabled(gradients):
            like = next(self._weights(), torch.empty(0))
            features = self._features(self.preparation(pictures, like))
        return FeatureGrid(self.name, features, field=self.field)

    def __repr__(self) -> str:
        grid = "grid follows the picture"
        if self.size is not None:
            grid = f"{' × '.join(map(str, self._shape(self.size)))} at {self.size[0]} × {self.size[1]} px"
        seen = "" if self.view is None else f", view {getattr(self.view, '__qualname__', self.view)}"
        return f"Backbone({self.name!r}: {grid}, tap {self.tap}{seen}, licence {self.licence}, weights {self.source})"

    @property
    def size(self) -> Size | None:
        """Input size (height, width) in pixels; None if pictures keep their own."""
        return self.preparation.size

    @property
    def view(self) -> View | None:
        """What is applied to the pictures first."""
        return self.preparation.view

    @property
    def field(self) -> Box:
        """The part of the picture that the grid covers: (x0, y0, x1, y1) in [0, 1]."""
        return getattr(self.view, "field", WHOLE)

    @property
    def tap(self) -> str:
        """Where the features come from."""
        return str(self._found or self._asked[0] or "found at the first call")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._weights(), torch.empty(0)).device

    @property
    def channels(self) -> int:
        """Channels c of the feature grid.

        Raises:
            ValueError: If the backbone has no size and was asked for no grid yet.
        """
        known = next(iter(self._shapes.values()), None)
        return (known or self._shape(self.size))[0]

    def grid(self, size: int | Size | None = None) -> Size:
        """Rows and columns (h, w) of the grid of pictures of `size` pixels, a side or (height, width).

        A backbone with an input size of its own gives the same grid for every picture.

        Raises:
            ValueError: If neither has a size.
        """
        _, h, w = self._shape(self.size or _pair(size))
        return h, w

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the weights and of all else that shapes the features, as they are now, or None.

        It is None if the module or `view` holds something that cannot be recognised again; `unrecognised` names it.
        Plain values, containers, tensors, dataclasses, modules and configuration objects can be, and functions and
        classes that refer only to such things and to installed packages.
        """
        return fingerprint(FEATURES, self.module, self.preparation, self._asked, self.size and self.tap)

    @property
    def unrecognised(self) -> str | None:
        """What leaves the backbone without a fingerprint, as "module.0.log, a TextIOWrapper"; None if it has one."""
        return unrecognised(module=self.module, view=self.view)

    def to(self, device: torch.device | str) -> Self:
        """Moves the weights to a device, where features are made from now on."""
        convolutions = (part for part in self.module.modules() if isinstance(part, nn.Conv2d))
        overlapping = any(conv.kernel_size > conv.stride for conv in convolutions)
        # On a CPU such convolutions take 0.3 to 0.8 of the time with channels last.
        fast = overlapping and torch.device(device).type == "cpu"
        self._memory = torch.channels_last if fast else torch.contiguous_format
        self.module.to(device).to(memory_format=self._memory)
        return self

    def variant(
        self,
        *,
        name: str | None = None,
        size: int | Size | None = None,
        tap: str | None = None,
        view: View | None = None,
    ) -> Self:
        """The same module once more, so that it can stand twice; what is given differs, the rest is the same."""
        asked, layout, prefix_tokens = self._asked
        return type(self)(
            self.module,
            name=name or self.name,
            tap=asked if tap is None else tap,
            size=self.size if size is None else size,
            mean=self.preparation.mean,
            std=self.preparation.std,
            view=view or self.view,
            interpolation=self.preparation.interpolation,
            licence=self.licence,
            source=self.source,
            prefix_tokens=prefix_tokens,
            layout=layout,
        )

    def _weights(self) -> Iterator[Tensor]:
        state = chain(self.module.parameters(), self.module.buffers())
        return (tensor for tensor in state if tensor.is_floating_point())

    def _shape(self, size: Size | None) -> tuple[int, int, int]:
        """The (c, h, w) of pictures of one size."""
        if size is None:
            raise ValueError(
                f"size: backbone {self.name!r} has none; expected pixels; ask for grid(size) first"
            )
        if size not in self._shapes:
            c, h, w = self(torch.zeros(1, 3, *size)).features.shape[1:]
            self._shapes[size] = (c, h, w)
        return self._shapes[size]

    def _features(self, pictures: Float[Tensor, "b _ height width"]) -> Float[Tensor, "b c h w"]:
        size = (pictures.shape[-2], pictures.shape[-1])
        pictures = pictures.contiguous(memory_format=self._memory)
        try:
            _check_patches(self.module, size)
            if self._found is None:
                path, layout, prefix = self._asked
                self._found = find_tap(
                    self.module, pictures[:1], path=path, layout=layout, prefix_tokens=prefix
                )
            return run_tap(self.module, pictures, self._found).contiguous()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            where = f"backbone {self.name!r} on pictures of {size[0]}×{size[1]} px"
            raise ValueError(f"{where}: {error}") from error


def _check_patches(module: nn.Module, size: Size) -> None:
    """Raise if a module that cuts pictures into patches would leave a rest of them unseen."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or any(first.padding):
        return
    if size[0] % first.stride[0] or size[1] % first.stride[1]:
        cut = [
            (side // step * step, -(-side // step) * step)
            for side, step in zip(size, first.stride, strict=True)
        ]
        nearest = [f"{h}×{w}" for h, w in zip(*cut, strict=True) if h and w]
        raise ValueError(
            f"size: {size[0]}×{size[1]} px is no multiple of its patches of {first.stride[0]}×{first.stride[1]} px; "
            f"expected whole patches; nearest are {' and '.join(nearest)}: give size="
        )


def _pair(size: int | Size | None) -> Size | None:
    sides: object = (size, size) if is_whole(size) else size
    if sides is None:
        return None
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(is_whole, sides)):
        raise TypeError(
            f"size: got {size!r}; expected whole pixels, a side or (height, width); write 224 or (224, 224)"
        )
    return int(sides[0]), int(sides[1])
