"""Where a feature grid leaves a module, and how to read what comes out there as (b, c, h, w).

No family of models has a special case. What the module declares decides (timm's `forward_features`,
`num_features`, `num_prefix_tokens`), or what the caller declares (`tap=`, `layout=`, `prefix_tokens=`);
otherwise the shapes of one trial pass do. Where they allow two readings the answer is an error, not a guess.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from jaxtyping import Float
from torch import Tensor, nn

Layout = Literal["NCHW", "NHWC", "NLC"]
Size = tuple[int, int]
Shape = tuple[int, ...]
Pictures = Float[Tensor, "b _ height width"]

METHODS = ("forward_features", "forward_intermediates")
ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
MOST_PREFIX_TOKENS = 16  # class, distillation and register tokens together
BATCH = 2  # of a trial pass, so that its batch axis differs from an axis of length 1


@dataclass(frozen=True)
class Tap:
    """A place in a module, and the reading of what comes out there.

    Args:
        path: Dotted path of a submodule ("" is the module itself), or one of the module's methods
            `forward_features` and `forward_intermediates`.
        layout: Order of the activation's axes: NCHW, NHWC, or NLC for a row of tokens.
        prefix_tokens: Class and register tokens ahead of the patches (NLC only), which are dropped.
    """

    path: str
    layout: Layout = "NCHW"
    prefix_tokens: int = 0

    def __str__(self) -> str:
        how = {"NCHW": "", "NHWC": " (NHWC)", "NLC": f" (tokens, the first {self.prefix_tokens} dropped)"}
        return (self.path or "output") + how[self.layout]


def find_tap(
    module: nn.Module,
    pictures: Pictures,
    *,
    path: str | None = None,
    layout: Layout | None = None,
    prefix_tokens: int | None = None,
) -> Tap:
    """Find the last spatial map before pooling, or how to read the activation at a given `path`.

    Of a module with `forward_features` (every model of timm) it is what that gives: a map of rank 4 has its
    channels on the axis of length `num_features`; tokens are taken from `forward_intermediates`, which knows
    their grid and drops prefix tokens by timm's own count. Of any other module it is the output of the last
    submodule that gives a map; tokens are patches as far as an earlier submodule gave the same ones as a map.

    Args:
        module: Any module that takes `pictures`; its shapes alone are looked at, so the meta device will do.
        pictures: A batch (b, channels, height, width), prepared as the module wants it.
        path: Where to tap; found if None.
        layout: Order of the axes; found if None.
        prefix_tokens: Tokens ahead of the patches; the module's `num_prefix_tokens`, or found, if None.

    Returns:
        The tap, for `run_tap`.

    Raises:
        ValueError: If there is no map, or not exactly one reading of it.
    """
    if prefix_tokens is None:
        prefix_tokens = getattr(module, "num_prefix_tokens", None)
    reader = _Reader(_size(pictures), layout, prefix_tokens)
    if path is None and hasattr(module, "forward_features"):
        return _declared_tap(module, pictures, reader)
    check_path(module, path)
    if path in METHODS:
        return reader.read(path, _run(module, path, pictures).shape, [])
    calls = _trace(module, pictures, path)
    return _last_tap(calls, reader) if path is None else _tap_at(path, calls, reader)


def run_tap(module: nn.Module, pictures: Pictures, tap: Tap) -> Float[Tensor, "b c h w"]:
    """The feature grid (b, c, h, w) of pictures (b, channels, height, width); nothing runs after the tap."""
    raw = _run(module, tap.path, pictures)
    if tap.layout == "NHWC":
        return raw.permute(0, 3, 1, 2)
    if tap.layout == "NLC":
        patches = raw[:, tap.prefix_tokens :]
        return patches.transpose(1, 2).unflatten(2, token_grid(patches.shape[1], _size(pictures)))
    return raw


def token_grid(patches: int, size: Size) -> Size:
    """The grid (h, w) of a row of square patches that tile a picture of `size` (height, width).

    Raises:
        ValueError: If not exactly one grid of the picture's proportions has so many patches.
    """
    grids = [(h, patches // h) for h in range(1, patches + 1) if patches % h == 0]
    fitting = [grid for grid in grids if _same_proportions(grid, size)]
    if len(fitting) != 1:
        found = " or ".join(f"{h}×{w}" for h, w in fitting) or "no grid"
        raise ValueError(
            f"prefix_tokens: {patches} patches over a picture of {size[0]}×{size[1]} px form {found}; "
            "expected one grid; give the number of class and register tokens as prefix_tokens="
        )
    return fitting[0]


def check_path(module: nn.Module, path: str | None) -> None:
    """Raise unless `path` is None, a submodule or one of `METHODS` that the module has."""
    names = [name for name, _ in module.named_modules()]
    names += [name for name in METHODS if hasattr(module, name)]
    if path is not None and path not in names:
        close = difflib.get_close_matches(path, names, n=3, cutoff=0.4) or names[-3:]
        raise ValueError(
            f"tap: {type(module).__name__} has no submodule {path!r}; expected a dotted path such as "
            f"{', '.join(map(repr, close))}; see its named_modules()"
        )


class _Reached(Exception):
    """Carries the tapped activation out of the pass: what comes after the tap may not even fit."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def _leave(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> NoReturn:
    raise _Reached(output)


def _run(module: nn.Module, path: str, pictures: Tensor) -> Tensor:
    if path == "forward_features":
        return cast(Callable[..., Tensor], module.forward_features)(pictures)
    if path == "forward_intermediates":
        return _last_intermediate(module, pictures)
    handle = module.get_submodule(path).register_forward_hook(_leave)
    try:
        module(pictures)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise ValueError(f"tap: {path!r} was not called; expected what forward() uses; tap another submodule")


def _last_intermediate(module: nn.Module, pictures: Tensor) -> Tensor:
    """The patches after timm's last block on their grid, normalised as `forward_features` normalises them."""
    run = cast(Callable[..., list[Tensor]], module.forward_intermediates)
    try:
        return run(pictures, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[-1]
    except AssertionError:  # how timm refuses norm=True of a model that has no final norm
        return run(pictures, indices=1, norm=False, output_fmt="NCHW", intermediates_only=True)[-1]


@dataclass(frozen=True)
class _Call:
    """What one submodule gave in a trial pass: the shape of its output, None if that is no tensor."""

    path: str
    pools: bool
    shape: Shape | None


@dataclass(frozen=True)
class _Reader:
    """Reads shapes as grids, for pictures of one size and with what is declared of the module."""

    size: Size
    layout: Layout | None
    prefix_tokens: int | None
    channels: int | None = None

    def read(self, path: str, shape: Shape, earlier: list[_Call]) -> Tap:
        """The only reading of an activation; `earlier` calls may tell how many of its tokens are patches."""
        if len(shape) == 4:
            return Tap(path, self._order(path, shape))
        if len(shape) != 3:
            raise ValueError(f"tap: {path!r} gives shape {tuple(shape)}; expected rank 4, or 3 for tokens")
        prefix = self.prefix_tokens
        if prefix is None:
            prefix = self._count_prefix(path, shape[1], earlier)
        token_grid(shape[1] - prefix, self.size)  # raises unless the rest is a grid
        return Tap(path, "NLC", prefix)

    def _order(self, path: str, shape: Shape) -> Layout:
        if self.layout in ("NCHW", "NHWC"):
            return self.layout
        fitting: list[Layout] = []
        if self._fits(shape[1], shape[2:4], oblong=True):
            fitting.append("NCHW")
        if self._fits(shape[3], shape[1:3], oblong=False):
            fitting.append("NHWC")
        if len(fitting) != 1:
            raise ValueError(
                f"layout: {path!r} gives {tuple(shape)} for pictures of {self.size[0]}×{self.size[1]} px: "
                f"{' and '.join(fitting) or 'no grid'}; expected one reading; give layout='NCHW' or 'NHWC'"
            )
        return fitting[0]

    def _fits(self, channels: int, grid: Shape, oblong: bool) -> bool:
        """Whether the declared channels are in place, or else the grid is one of square, or of whole oblong patches."""
        if self.channels is not None:
            return channels == self.channels
        whole = self.size[0] % grid[0] == 0 and self.size[1] % grid[1] == 0
        return _same_proportions((grid[0], grid[1]), self.size) or (oblong and whole)

    def _count_prefix(self, path: str, tokens: int, earlier: list[_Call]) -> int:
        maps = [call.shape for call in earlier if call.shape is not None and len(call.shape) == 4]
        grids = [grid for _, i, j, k in maps for grid in ((i, j), (j, k))]
        patches = {h * w for h, w in grids if _same_proportions((h, w), self.size)}
        counts = [tokens - count for count in patches if 0 <= tokens - count <= MOST_PREFIX_TOKENS]
        if len(counts) != 1:
            raise ValueError(
                f"prefix_tokens: {path!r} gives {tokens} tokens, and no submodule before it tells how many "
                "are patches; give the number of class and register tokens as prefix_tokens= (0 if none)"
            )
        return counts[0]


def _declared_tap(module: nn.Module, pictures: Tensor, reader: _Reader) -> Tap:
    """What `forward_features` gives, or timm's own way from its tokens to their grid."""
    raw: object = cast(Callable[..., object], module.forward_features)(pictures)
    if not isinstance(raw, Tensor):
        raise ValueError(
            f"tap: {type(module).__name__}.forward_features gives {_describe(raw)}; expected one map; name a "
            "submodule that gives the wanted one with tap="
        )
    path, layout = "forward_features", reader.layout
    if raw.ndim == 3 and hasattr(module, "forward_intermediates"):
        path, raw = "forward_intermediates", _run(module, "forward_intermediates", pictures)
    elif layout is None and getattr(module, "output_fmt", None) == "NHWC":
        layout = "NHWC"
    channels = cast(int | None, getattr(module, "num_features", None))
    return _Reader(reader.size, layout, reader.prefix_tokens, channels).read(path, raw.shape, [])


def _trace(module: nn.Module, pictures: Tensor, wanted: str | None) -> list[_Call]:
    """Every call of a submodule in a trial pass, in order of completion."""
    calls: list[_Call] = []

    def note(path: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            calls.append(_Call(path, isinstance(part, ADAPTIVE_POOLS), shape))

        return hook

    handles = [part.register_forward_hook(note(path)) for path, part in module.named_modules()]
    try:
        module(pictures[:1].expand(BATCH, -1, -1, -1))
    except Exception:
        if wanted not in {call.path for call in calls}:  # what comes after the tap need not work
            raise
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tap_at(path: str, calls: list[_Call], reader: _Reader) -> Tap:
    """The reading of the one call of `path`."""
    times = [index for index, call in enumerate(calls) if call.path == path]
    if len(times) != 1:
        raise ValueError(f"tap: {path!r} is called {len(times)} times in a pass; expected once; tap another")
    shape = calls[times[0]].shape
    if shape is None:
        raise ValueError(f"tap: {path!r} gives no single tensor; expected one; tap a submodule inside it")
    return reader.read(path, shape, calls[: times[0]])


def _last_tap(calls: list[_Call], reader: _Reader) -> Tap:
    """The last call that gives a map; anything unclear between it and the pooling is an error."""
    found: Tap | None = None
    doubt: str | None = None
    pooled = False
    for index, call in enumerate(calls):
        if call.pools:
            pooled = True
        elif call.shape is not None and len(call.shape) > 2 and call.shape[0] == BATCH:
            try:
                found, doubt, pooled = _map(call, calls[:index], reader), None, False
            except ValueError as error:
                doubt = doubt if pooled else str(error)
    if found is None or doubt is not None:
        why = doubt or "no submodule gives a map"
        raise ValueError(f"tap: found no clear last map before pooling ({why}); name a submodule with tap=")
    return _tap_at(found.path, calls, reader)


def _map(call: _Call, earlier: list[_Call], reader: _Reader) -> Tap:
    shape = cast(Shape, call.shape)
    if math.prod(shape[1:]) == max(shape[1:]):
        raise ValueError(f"{call.path!r} is down to a single patch: use larger pictures")
    return reader.read(call.path, shape, earlier)


def _same_proportions(grid: Size, size: Size) -> bool:
    """Whether a grid fits a picture, but for rounding by less than one row or column."""
    (h, w), (height, width) = grid, size
    return abs(h * width - w * height) < max(height, width)


def _size(pictures: Tensor) -> Size:
    return pictures.shape[-2], pictures.shape[-1]


def _describe(raw: object) -> str:
    parts = list(raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list | tuple) else [raw])
    shown = (str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__ for part in parts)
    return f"{len(parts)} outputs, {' and '.join(shown)}"
