"""Backbones by name: loaded with their own weights and pre-processing, and listed."""

import fnmatch
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple, overload

import torch
from safetensors import SafetensorError
from torch import nn

from grafeat.backbones.backbone import Backbone
from grafeat.backbones.narrow import load_trained
from grafeat.backbones.preparation import View
from grafeat.backbones.sources import NamedModel, find_model, model_names
from grafeat.backbones.taps import Size, find_tap, run_tap
from grafeat.backbones.weights import check_file, no_pickle

SEED = 0  # of random weights
DETAILS = 8  # rows of a list that are worked out
SHOWN = 40  # rows of a list that are shown
HEADINGS = ("name", "family", "channels", "grid", "licence", "MB", "here")
OFFLINE = "bundled/efficientnet_lite0"


def load_backbone(
    model: str,
    *,
    name: str | None = None,
    size: int | Size | None = None,
    tap: str | None = None,
    pretrained: bool = True,
    view: View | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
) -> Backbone:
    """A frozen backbone by the name of its model, with its own pre-processing and its last spatial map as tap.

    Args:
        model: "timm/NAME", also with a tag as "timm/resnet18.a1_in1k"; "torchvision/NAME" of a classifier;
            "bundled/NAME", whose weights ship in packages; "trained/PATH", which `train_backbone` saved.
            `list_backbones` has the names.
        name: What to call the backbone; the model's name without its origin if None.
        size: Input size in pixels, a side or (height, width); that for which the model is meant if None.
        tap: Dotted path of the submodule whose output is the feature grid; the last spatial map if None.
        pretrained: Whether to load pre-trained weights; else they are random, and the same each time.
        view: Applied to the pictures (b, 3, H, W) first, such as a `Crop`.
        download: Whether to fetch pre-trained weights that are not here; unless it is true the network is not used.
        device: Where the backbone runs.

    Returns:
        The backbone.

    Raises:
        ValueError: If the name is unknown, the model does not take the size, or a file of weights is damaged.
        FileNotFoundError: If weights are not here and are not to be downloaded.
    """
    origin, _, bare = model.partition("/")
    if origin == "trained":
        return load_trained(Path(bare), name=name).variant(size=size, tap=tap, view=view).to(device)
    known = find_model(model)
    path = _weights_file(known, download) if pretrained else None
    wanted = known.size if size is None else (size, size) if isinstance(size, int) else size
    weights = known.weights if path is not None else None
    return Backbone(
        _built(known, wanted, path),
        name=name or bare,
        size=wanted,
        tap=tap,
        mean=known.mean,
        std=known.std,
        interpolation=known.interpolation,
        view=view,
        licence=weights.licence if weights else known.licence,
        source=weights.source if weights else f"random (seed {SEED})",
    ).to(device)


def _weights_file(model: NamedModel, download: bool) -> Path:
    """The file of the pre-trained weights, fetched if that is wanted, and checked."""
    weights = model.weights
    if weights is None:
        raise FileNotFoundError(
            f"model: no pre-trained weights of {model.name!r} are known; expected a model that has some; pass "
            f"pretrained=False for random ones, or use {OFFLINE!r}"
        )
    if download and weights.fetch is not None and weights.find() is None:
        try:
            weights.fetch()
        except Exception as error:  # of whichever library downloads
            raise FileNotFoundError(
                f"model: the weights of {model.name!r} could not be downloaded: {error}; expected a way to their host; "
                f"try again, or pass pretrained=False for random ones, or use {OFFLINE!r}, which needs no network"
            ) from error
    path = weights.find()
    if path is None:
        size = weights.megabytes or _outline(model).megabytes
        much = f" (about {size:,.0f} MB)" if size else ""
        raise FileNotFoundError(
            f"model: the weights of {model.name!r}{much} are not in {weights.place}; expected them there; "
            f"{weights.remedy}, or pass pretrained=False for random ones, or use {OFFLINE!r}, which needs no network"
        )
    check_file(path)
    return path


def _built(model: NamedModel, size: Size, path: Path | None) -> nn.Module:
    """The module; random weights are those of one seed, and the global random state stays as it was."""
    try:
        with torch.random.fork_rng(devices=[]), no_pickle():
            torch.default_generator.manual_seed(SEED)
            return model.build(size, path)
    except (RuntimeError, AssertionError, EOFError, SafetensorError, UnpicklingError) as error:
        made = "random weights" if path is None else f"the weights in {path}"
        raise ValueError(
            f"model: {model.name!r} cannot be made for {size[0]}×{size[1]} px with {made}: {error}; leave out size=, "
            "or remove a damaged file and load again with download=True"
        ) from error


@dataclass(frozen=True)
class BackboneRow:
    """One line of `list_backbones`: what a backbone of that name would be, at its own input size.

    Attributes:
        name: For `load_backbone`.
        family: Family of architectures.
        channels: Channels c of its grid; None if not worked out.
        grid: Rows and columns (h, w) of its grid; None if not worked out.
        licence: Licence of the pre-trained weights, as far as it is stated.
        megabytes: Size of the weights; None if not worked out.
        here: Whether pre-trained weights are here; None if there are none anywhere.
    """

    name: str
    family: str
    channels: int | None
    grid: Size | None
    licence: str
    megabytes: float | None
    here: bool | None

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        grid = "" if self.grid is None else f"{self.grid[0]} × {self.grid[1]}"
        size = "" if self.megabytes is None else f"{self.megabytes:,.0f}"
        here = {True: "yes", False: "no", None: "none exist"}[self.here]
        return self.name, self.family, str(self.channels or ""), grid, self.licence, size, here


@dataclass(frozen=True)
class BackboneTable(Sequence[BackboneRow]):
    """Backbones that can be had by name.

    Attributes:
        rows: One for each model.
        note: What is left out, and how to see it.
    """

    rows: tuple[BackboneRow, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> BackboneRow: ...
    @overload
    def __getitem__(self, index: slice) -> "BackboneTable": ...
    def __getitem__(self, index: int | slice) -> "BackboneRow | BackboneTable":
        """A row, or the table of some of the rows."""
        return BackboneTable(self.rows[index], self.note) if isinstance(index, slice) else self.rows[index]

    def __repr__(self) -> str:
        lines = [HEADINGS, *(row.cells() for row in self.rows[:SHOWN])]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (map(str.ljust, line, widths) for line in lines)
        return "\n".join([*("  ".join(cells).rstrip() for cells in padded), *self._notes()])

    def _repr_html_(self) -> str:
        head, *body = [HEADINGS, *(row.cells() for row in self.rows[:SHOWN])]
        left = 'style="text-align:left"'  # JupyterLab's own tables are flush right
        top = "".join(f"<th {left}>{cell}</th>" for cell in head)
        lines = ("".join(f"<td {left}>{_unbroken(cell)}</td>" for cell in line) for line in body)
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f"<table><thead><tr>{top}</tr></thead><tbody>{table}</tbody></table>{notes}"

    def _notes(self) -> list[str]:
        hidden = len(self.rows) - SHOWN
        return [
            note
            for note in (f"… and {hidden:,} more, in slices of this table" * (hidden > 0), self.note)
            if note
        ]


def _unbroken(cell: str) -> str:
    return html.escape(cell).replace(" × ", "&nbsp;×&nbsp;")  # a grid stays on one line


def list_backbones(pattern: str = "*", *, details: int = DETAILS) -> BackboneTable:
    """The models that `load_backbone` knows, nothing downloaded.

    Channels, grid and megabytes are worked out without weights, a fraction of a second for each model, and so only
    for the first few; the table says for which. They hold for the model's own input size.

    Args:
        pattern: What the name must match, with or without its origin: "timm/resnet*", "*vit*", "bundled/*". Small and
            capital letters are the same. Names with a tag are listed if the pattern has a dot.
        details: For how many models to work the details out.

    Returns:
        A table of frozen rows, which shows itself in a notebook.
    """
    names = [name for name in model_names() if _matches(name, pattern)]
    rows = [_row(find_model(name), number < details) for number, name in enumerate(names)]
    note = ""
    if not rows:
        note = f"no model matches {pattern!r}; try '*{pattern.strip('*')}*', or '*' for all"
    elif len(rows) > details:
        note = (
            f"channels, grid and MB are worked out for the first {details} of {len(rows):,} models; narrow the "
            "pattern, or pass details="
        )
    return BackboneTable(tuple(rows), note)


def _matches(name: str, pattern: str) -> bool:
    origin, _, bare = name.lower().partition("/")
    if "." in bare and "." not in pattern:
        return False
    return any(fnmatch.fnmatchcase(text, pattern.lower()) for text in (f"{origin}/{bare}", bare))


class _Outline(NamedTuple):
    channels: int | None = None
    grid: Size | None = None
    megabytes: float | None = None


def _row(model: NamedModel, detailed: bool) -> BackboneRow:
    outline = _outline(model) if detailed else _Outline()
    licence = model.licence if model.weights is None else model.weights.licence
    here = None if model.weights is None else model.weights.find() is not None
    return BackboneRow(
        model.name, model.family, outline.channels, outline.grid, licence, outline.megabytes, here
    )


def _outline(model: NamedModel) -> _Outline:
    """What a model would give, from shapes alone."""
    try:
        with torch.device("meta"):
            module = model.build(model.size, None)
    except NotImplementedError:  # a constructor that computes with tensors
        module = _built(model, model.size, None)
    device = next(module.parameters()).device
    megabytes = sum(tensor.numel() * tensor.itemsize for tensor in module.state_dict().values()) / 1e6
    try:
        with torch.no_grad():
            pictures = torch.zeros(1, 3, *model.size, device=device)
            _, c, h, w = run_tap(module, pictures, find_tap(module.eval(), pictures)).shape
    except (RuntimeError, ValueError):  # no single map, or a pass that needs values
        return _Outline(megabytes=megabytes)
    return _Outline(c, (h, w), megabytes)
