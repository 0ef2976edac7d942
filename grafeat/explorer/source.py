"""What an explorer shows: some pictures, each passed through the model when it is looked at."""

import io
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.explorer.payload import Arrays
from grafeat.graph import PatchGraph
from grafeat.grids import WHOLE, GridSet
from grafeat.measures import communities, pagerank
from grafeat.models import GridModel, MergeOutput, evaluating
from grafeat.patchmodel import PatchModel, check_patches
from grafeat.pictures import PictureSet
from grafeat.plots.features import ComponentColours
from grafeat.plots.palette import DIVERGING, SEQUENTIAL, backbone_colours

KEPT = 8  # passes that are kept, the last ones
FITTED = 16  # pictures that decide the colours of the vertex states
SIDE, THUMBNAIL = 512, 64  # longest sides, in pixels, of a picture as it is sent


@dataclass(frozen=True, eq=False)
class Pass:
    """What the model did with one picture."""

    attention: CapturedAttention
    output: MergeOutput

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the classes (t,)."""
        return self.output.logits[0].detach().float().softmax(dim=-1).cpu()


@dataclass(eq=False)
class Source:
    """A model, the grids of some pictures, and the pictures themselves if they are at hand.

    Args:
        model: A model with attention layers.
        grids: The grids that it is shown.
        pictures: Their pictures, or None.

    Raises:
        ValueError: If there is no picture, or pictures and grids differ in number.
    """

    model: GridModel
    grids: GridSet
    pictures: PictureSet | None
    _passes: OrderedDict[int, Pass] = field(default_factory=OrderedDict)
    _components: ComponentColours | None = None
    _seen: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.grids):
            raise ValueError("grids: got no picture; expected at least one; slice fewer away")
        if self.pictures is not None and len(self.pictures) != len(self.grids):
            raise ValueError(
                f"pictures: got {len(self.pictures):,} for grids of {len(self.grids):,} pictures; slice them alike, as "
                "in Explorer(model, grids.test, pictures=digits.test)"
            )
        if not self[0].attention.kinds:
            raise ValueError(
                f"grids: got the lone backbone {self.grids.names[0]!r} for a model with cross layers only; expected "
                "two or more; pass the grids of all its backbones"
            )

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def graph(self) -> PatchGraph:
        """The patch graph of every picture."""
        return self[0].attention.graph

    @property
    def weights(self) -> tuple[object, ...]:
        """What is another one after each change of the model's weights, or of where they are."""
        return (
            self.model.device,
            *((tensor.data_ptr(), tensor._version) for tensor in (*self.model.parameters(), *self.model.buffers())),
        )

    def __getitem__(self, picture: int) -> Pass:
        """The model's pass over one picture; the last few are kept, until the model changes."""
        if self._seen != self.weights:
            self._passes.clear()
            self._seen, self._components = self.weights, None
        if picture in self._passes:
            self._passes.move_to_end(picture)
            return self._passes[picture]
        with torch.no_grad(), evaluating(self.model), capture(self.model) as attention:
            output = self.model(self.grids[picture], states=True)
        self._passes[picture] = Pass(attention, output)
        if len(self._passes) > KEPT:
            self._passes.popitem(last=False)
        return self._passes[picture]

    def facts(self) -> dict[str, Any]:
        """What holds for all pictures, in the words that the page's script reads."""
        attention, graph = self[0].attention, self.graph
        colours = backbone_colours(graph.names)
        return {
            "backbones": [
                {
                    "name": name,
                    "rows": rows,
                    "columns": columns,
                    "field": list((graph.fields or {}).get(name, WHOLE)),
                    "colour": colours[name]._asdict(),
                }
                for name, (rows, columns) in graph.shapes.items()
            ],
            "kinds": list(attention.kinds),
            "joint": attention.joint,
            "layers": max(attention.layers(kind) for kind in attention.kinds),
            "steps": [
                {"layer": layer, "kind": kind}
                for layer, kind in _steps(check_patches(self.model))[: len(self[0].output.states) - 1]
            ],
            "heads": attention.heads,
            "classes": list(self.model.classes),
            "pictures": len(self),
            "images": self.pictures is not None,
            "aspect": self.aspect(0),
            "equal": {
                kind: [[self._equal(kind, query, key) for key in graph.names] for query in graph.names]
                for kind in attention.kinds
            },
            "maps": {"sequential": _colours_of(SEQUENTIAL), "diverging": _colours_of(DIVERGING)},
        }

    def _equal(self, kind: str, query: str, key: str) -> float | None:
        """The weight of each patch if all logits were equal."""
        if (kind == "intra") != (query == key):
            return None
        return self[0].attention.uniform(query, key, 0)

    def aspect(self, picture: int) -> float:
        """Height of a picture over its width; of the first grid where there are no pictures."""
        shown = self.picture(picture)
        rows, columns = next(iter(self.graph.shapes.values())) if shown is None else shown.shape[-2:]
        return rows / columns

    def picture(self, number: int) -> Tensor | None:
        """One picture (3, H, W) in [0, 1], if it is at hand."""
        return None if self.pictures is None else self.pictures[number].pictures[0]

    def label(self, picture: int) -> int | None:
        """The number of a picture's true class, if it is known to the model too."""
        labels = self.grids[picture].labels
        if labels is None and self.pictures is not None:
            labels = self.pictures[picture].labels
        return int(labels[0]) if labels is not None and labels[0] < len(self.model.classes) else None

    def describe(self, picture: int) -> tuple[dict[str, Any], Arrays]:
        """What is shown of a picture beside its attention: the picture, what the model says, the vertex states."""
        probabilities = self[picture].probabilities.numpy()
        seen = self.picture(picture)
        logits = self[picture].output.logits[0].detach().float().cpu().numpy()
        arrays = {"probabilities": probabilities, "logits": logits, "states": self._state_colours(picture)}
        if seen is not None:
            arrays["image"] = np.frombuffer(encoded(seen, SIDE), dtype=np.uint8)
        return {"number": picture, "label": self.label(picture), "aspect": self.aspect(picture)}, arrays

    def thumbnail(self, picture: int) -> bytes:
        """A picture, small; where there is none, its first grid's norms."""
        seen = self.picture(picture)
        if seen is None:
            norms = self.grids[picture].grids[0].features[0].float().norm(dim=0)
            seen = (norms / norms.max().clamp(min=1e-12)).expand(3, -1, -1)
        return encoded(seen, THUMBNAIL)

    def _state_colours(self, picture: int) -> np.ndarray:
        """Colours (steps + 1, n, 3) of the vertex states before the first step and after each."""
        states_here = self[picture].output.states
        if self._components is None:
            with torch.no_grad(), evaluating(self.model):
                fitted = self.model(self.grids[: min(FITTED, len(self))], states=True).states
            vectors = torch.cat([_vectors(states) for states in fitted])
            finite = vectors[vectors.isfinite().all(dim=1)]
            self._components = ComponentColours.fit(finite if len(finite) else torch.zeros(3, vectors.shape[1]))
        shown = torch.stack([self._components(_vectors(states)) for states in states_here])
        return (shown.nan_to_num(0.5) * 255).round().to(torch.uint8).numpy()


def measured(attention: CapturedAttention, *, layer: int | None = None, head: int | None = None) -> Arrays:
    """PageRank, relative to even attention, and community of every vertex, (layers, n).

    Of one layer and head; without them, of all layers, on the mean over heads. NaN weights give NaN.
    """
    layers = range(max(map(attention.layers, attention.kinds))) if layer is None else [layer]
    ranks, groups = [], []
    for number in layers:
        if attention.dense(layer=number, head=head).isnan().any():
            ranks.append(np.full(attention.graph.num_vertices, np.nan))
            groups.append(np.zeros(attention.graph.num_vertices))
            continue
        ranks.append(_flat(pagerank(attention, layer=number, head=head, relative=True)))
        groups.append(_flat(communities(attention, layer=number, head=head).labels))
    return {
        "pagerank": np.stack(ranks).astype(np.float32),
        "community": np.stack(groups).astype(np.uint16),
    }


def _flat(values: Mapping[str, Tensor]) -> np.ndarray:
    return torch.cat([grid.flatten() for grid in values.values()]).numpy()


def encoded(picture: Tensor, side: int) -> bytes:
    """A picture (3, H, W) in [0, 1] as PNG or WebP, whichever is smaller, of at most so many pixels a side."""
    scale = side / max(picture.shape[-2:])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in picture.shape[-2:]]
        picture = F.interpolate(picture[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    image = Image.fromarray((picture.movedim(0, -1) * 255).round().to(torch.uint8).numpy())
    files = io.BytesIO(), io.BytesIO()
    image.save(files[0], "PNG", optimize=True)
    image.save(files[1], "WEBP", quality=85)
    return min((file.getvalue() for file in files), key=len)


def _steps(model: PatchModel) -> list[tuple[int, str]]:
    """Of each step the number of its layers, and their kind if other steps are of another one; else no word."""
    found: list[tuple[int, str]] = []
    for number, kinds in enumerate(model.order):
        before = sum(kinds == other for other in model.order[:number])
        found.append((before, kinds[0] if len(set(model.order)) > 1 else ""))
    return found


def _vectors(states: dict[str, Tensor]) -> Tensor:
    """Vertex states (b·n, d), backbone by backbone."""
    return torch.cat([state.detach().float().cpu().flatten(2).mT for state in states.values()], dim=1).flatten(0, 1)


def _colours_of(name: str) -> str:
    """A colour map as 256 colours, in hexadecimal."""
    colours = (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return colours.tobytes().hex()
