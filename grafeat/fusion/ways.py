"""The ways to mix, by name: made for given grids, and listed."""

import difflib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast, overload

import torch

from grafeat.config import MergeConfig
from grafeat.fusion.aligned import Add, Multiply
from grafeat.fusion.budget import learned, solved
from grafeat.fusion.combo import Combo
from grafeat.fusion.committee import Committee, Ensemble, Voting
from grafeat.fusion.mixer import MixConfig, Mixer, check_several
from grafeat.fusion.pooled import Concat, Gated, Linear
from grafeat.fusion.sva import Sva
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel
from grafeat.projection import learned_part

HEADINGS = ("way", "what it does", "source", "attention", "free width")


@dataclass(frozen=True)
class Way:
    """One line of `list_ways`.

    Attributes:
        name: For `mix`.
        does: What it does.
        source: Whose idea it is; what differs stands in the class's docstring.
        kind: The class of the model.
        options: What is set in its configuration.
        attention: Whether patches attend to each other, so that there is something to capture, knock out and explore.
        free: Whether there is a width by which its number of parameters can be chosen.
        least: Backbones that it needs.
    """

    name: str
    does: str
    source: str
    kind: type[GridModel]
    options: Mapping[str, bool] = field(default_factory=dict)
    attention: bool = False
    free: bool = True
    least: int = 1

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        attention, free = ("yes" if said else "no" for said in (self.attention, self.free))
        return self.name, self.does, self.source, attention, free


_ROWS = (
    Way("single", "one backbone under the same head", "–", GraFeatMerge, {"cross": False}, attention=True),
    Way("linear", "pooled components side by side, linear probe", "Alain and Bengio 2017", Linear, free=False),
    Way("add", "z = Σ w·x, place by place, MLP", "OmniFusion 2024", Add, least=2),
    Way("multiply", "z = w·(x × x), place by place, MLP", "OmniFusion 2024", Multiply, least=2),
    Way("concat", "pooled, side by side, MLP", "Vary 2023, Eagle 2024", Concat),
    Way("gated", "pooled, weighted by gates of each picture, MLP", "Shazeer et al. 2017", Gated, least=2),
    Way("cross_only", "merge without intra layers", "–", GraFeatMerge, {"intra": False}, attention=True, least=2),
    Way("intra_only", "merge without cross layers", "–", GraFeatMerge, {"cross": False}, attention=True),
    Way("joint", "merge with one softmax over all patches", "HGT 2020", GraFeatMerge, {"joint": True}, attention=True),
    Way("sva", "learned queries, each reading its region of all grids", "Cambrian-1 2024", Sva),
    Way("combo", "transformer over all patches, read by a class token", "ComBo 2025", Combo, attention=True),
    Way("ensemble", "mean logits of singles, each trained by itself", "Hansen and Salamon 1990", Ensemble, least=2),
    Way("voting", "votes of the same singles", "Hansen and Salamon 1990", Voting, least=2),
    Way("merge", "intra and cross attention, the default model", "this project", GraFeatMerge, attention=True),
)
_WAYS = {way.name: way for way in _ROWS}
WAYS = tuple(_WAYS)


def mix(
    way: str,
    grids: GridSet | Sequence[FeatureGrid],
    *,
    num_classes: int,
    parameters: int | None = None,
    width: int = 64,
    seed: int = 0,
) -> GridModel:
    """A new model that mixes these grids in one of several ways, all behind one interface.

    The features are standardised and reduced alike for all ways. `list_ways()` says what each does; `fit` trains them
    all.

    Args:
        way: One of `list_ways()`.
        grids: Feature grids; of a set with parts, only those to learn from are looked at, with labels or without.
        num_classes: Classes t of the task.
        parameters: How many learned parameters the model should have, within 2%; its own number if absent. Ways
            without a free width have their own number in any case; of `ensemble` and `voting` each member is
            as large as this.
        width: Channels d of a vertex, or of a projection, and of the image vector.
        seed: Decides the initial weights; the global random state is left as it was.

    Returns:
        The model in `eval`, so that nothing is dropped.

    Raises:
        ValueError: If the way is unknown, a value is out of its range, there are too few backbones or, for `single`,
            too many, there is no picture, or no width comes within 2% of `parameters`.
    """
    chosen, seen = _fitting(way, grids)
    if issubclass(chosen.kind, Committee):
        parts = [seen.only(name) for name in seen.names]
        single = _chosen("single")
        singles = [_made(single, _sized(single, part, num_classes, width, parameters), part, seed) for part in parts]
        return chosen.kind(dict(zip(seen.names, cast(list[GraFeatMerge], singles), strict=True)))
    return _made(chosen, _sized(chosen, seen, num_classes, width, parameters), seen, seed)


def outline(
    way: str,
    grids: GridSet | Sequence[FeatureGrid],
    *,
    num_classes: int,
    parameters: int | None = None,
    width: int = 64,
) -> GridModel:
    """What `mix` would make, as shapes alone, on the meta device: to count and to compare, at no cost.

    Args:
        way, grids, num_classes, parameters, width: As for `mix`.

    Raises:
        ValueError: As `mix` does.
    """
    chosen, seen = _fitting(way, grids)
    if not issubclass(chosen.kind, Committee):
        config = _sized(chosen, seen, num_classes, width, parameters)
        with torch.device("meta"):
            return _made(chosen, config)
    members = {
        name: outline("single", seen.only(name), num_classes=num_classes, parameters=parameters, width=width)
        for name in seen.names
    }
    with torch.device("meta"):
        return chosen.kind(cast(dict[str, GraFeatMerge], members))


def _fitting(way: str, grids: GridSet | Sequence[FeatureGrid]) -> tuple[Way, GridSet]:
    """The way and the grids to learn from, once they are known to fit."""
    chosen, seen = _chosen(way), learned_part(grids)
    check_several(repr(way), seen.names, chosen.least)
    if way == "single" and len(seen.names) > 1:
        raise ValueError(
            f"grids: got {', '.join(seen.names)} for 'single'; expected one backbone; choose it: "
            f"grids.only({seen.names[0]!r})"
        )
    return chosen, seen


def _chosen(way: str) -> Way:
    if way not in _WAYS:
        close = difflib.get_close_matches(way, WAYS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "gf.list_ways() says what each does"
        raise ValueError(f"way: got {way!r}; expected one of {', '.join(WAYS)}; {hint}")
    return _WAYS[way]


def _sized(
    way: Way, grids: GridSet, num_classes: int, width: int, parameters: int | None
) -> MergeConfig | MixConfig:
    """The configuration of a model for these grids that has this number of parameters, where it has a free width."""
    config = _config(way, grids, num_classes, width)
    if parameters is None or not way.free:
        return config
    return replace(config, hidden=solved(partial(_count, way, config), parameters, way=way.name))


def _config(way: Way, grids: GridSet, num_classes: int, width: int) -> MergeConfig | MixConfig:
    if not issubclass(way.kind, GraFeatMerge):
        return MixConfig.for_grids(grids, num_classes, width=width)
    backbones = tuple((grid.name, grid.channels) for grid in grids[:1].grids)
    classes = grids.classes if len(grids.classes) == num_classes else ()
    return MergeConfig(
        backbones,
        num_classes,
        width,
        intra=way.options.get("intra", True),
        cross=way.options.get("cross", True),
        joint=way.options.get("joint", False),
        classes=classes,
    )


def _made(way: Way, config: MergeConfig | MixConfig, grids: GridSet | None = None, seed: int = 0) -> GridModel:
    if isinstance(config, MergeConfig):
        return GraFeatMerge.of(config, grids, seed=seed)
    return cast(type[Mixer], way.kind).of(config, grids, seed=seed)


def _count(way: Way, config: MergeConfig | MixConfig, hidden: int) -> int:
    with torch.device("meta"):  # shapes are enough
        return learned(_made(way, replace(config, hidden=hidden)))


@dataclass(frozen=True)
class WayTable(Sequence[Way]):
    """The ways to mix.

    Attributes:
        rows: One for each way.
    """

    rows: tuple[Way, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Way: ...
    @overload
    def __getitem__(self, index: slice) -> "WayTable": ...
    def __getitem__(self, index: int | slice) -> "Way | WayTable":
        """A row, or the table of some of the rows."""
        return WayTable(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __repr__(self) -> str:
        lines = [HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'  # JupyterLab's own tables are flush right
        top = "".join(f"<th {left}>{cell}</th>" for cell in HEADINGS)
        lines = (
            "".join(f"<td {left}>{html.escape(cell)}</td>" for cell in row.cells()) for row in self.rows
        )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def list_ways() -> WayTable:
    """The ways to mix that `mix` knows: what each does, whose idea it is, and what it has.

    Attention means attention between patches: what `capture` keeps, and what can be knocked out and explored.
    """
    return WayTable(_ROWS)
