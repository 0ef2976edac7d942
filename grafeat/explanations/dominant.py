"""The few patches that decide a prediction, and the part of the patch graph through which they do."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import networkx as nx
import pandas as pd
import torch

from grafeat.attention.captured import CapturedAttention
from grafeat.attention.capturing import capture
from grafeat.attention.layers import kind_of
from grafeat.explanations.game import centred
from grafeat.explanations.knockouts import KnockOut, Together, knocked_logits
from grafeat.explanations.relevance import relevance
from grafeat.graph import Patch, PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import evaluating
from grafeat.patchmodel import PatchModel, as_patches, check_patches

PREDICTION = "prediction"  # the vertex that stands for the image vector and what is made of it


@dataclass(frozen=True)
class Edge:
    """A way by which a dominant patch acts.

    Attributes:
        source: The patch whose content moves.
        end: The patch that attends to it; None for the readout.
        weight: Its attention weight there, mean over layers and heads; or the readout's, mean over queries.
        change: Change of the centred logit if this edge alone is knocked out, in all layers.
    """

    source: Patch
    end: Patch | None
    weight: float
    change: float


@dataclass(frozen=True)
class DominantPatches:
    """The patches that decide one picture's prediction, strongest first, over all backbones together.

    Attributes:
        patches: The patches.
        values: The relevance of each, by `method`.
        edges: Every edge among them that the model has, and from each to the readout.
        full: The centred logit of the target class with all patches.
        alone: The same with these patches only.
        without: The same with all but these.
        target: Name of the class that is explained.
        method: How patches were ranked.
        graph: The patch graph of the picture.
    """

    patches: tuple[Patch, ...]
    values: tuple[float, ...]
    edges: tuple[Edge, ...]
    full: float
    alone: float
    without: float
    target: str
    method: str
    graph: PatchGraph

    def __len__(self) -> int:
        return len(self.patches)

    def __iter__(self) -> Iterator[Patch]:
        return iter(self.patches)

    def to_frame(self) -> pd.DataFrame:
        """One row for each patch, strongest first."""
        rows = [
            {**patch._asdict(), "relevance": value} for patch, value in zip(self, self.values, strict=True)
        ]
        return pd.DataFrame(rows, index=range(1, len(self) + 1))

    def to_networkx(self) -> nx.DiGraph:
        """The subgraph that carries the prediction.

        Returns:
            A graph of the patches, each a triple (backbone, row, column), and of `"prediction"`. Patches have `rank`,
            `relevance` and `box`, as well as `backbone`, `row` and `column`; edges point the way content moves, with
            the attention `weight` and the `change` of the centred logit if the edge is knocked out.
        """
        graph = nx.DiGraph(
            target=self.target, method=self.method, full=self.full, alone=self.alone, without=self.without
        )
        for rank, (patch, value) in enumerate(zip(self, self.values, strict=True), start=1):
            box = self.graph.box(self.graph.vertex(*patch))
            graph.add_node(tuple(patch), rank=rank, relevance=value, box=box, **patch._asdict())
        graph.add_node(PREDICTION)
        for edge in self.edges:
            end = PREDICTION if edge.end is None else tuple(edge.end)
            graph.add_edge(tuple(edge.source), end, weight=edge.weight, change=edge.change)
        return graph

    def __repr__(self) -> str:
        listed = ", ".join(
            f"{p.backbone} ({p.row}, {p.column}) {v:+.2f}" for p, v in zip(self, self.values, strict=True)
        )
        return (
            f"{self.target!r} by {self.method}: {listed}; centred logit {self.full:+.2f}, "
            f"{self.alone:+.2f} with these alone, {self.without:+.2f} without them"
        )


def dominant(
    model: PatchModel,
    grids: GridSet | Sequence[FeatureGrid],
    target: int | None = None,
    *,
    count: int = 3,
    method: str = "ablation",
) -> DominantPatches:
    """The patches that decide one picture's prediction, and the edges by which they do.

    They are the most relevant of all backbones together. Whether they deserve the name is checked at once: what the
    prediction is with these patches only, and without them.

    Args:
        model: A trained model.
        grids: The grids of one picture.
        target: The class to explain; the predicted one if absent.
        count: How many patches; fewer than there are.
        method: One of the methods of `relevance`.

    Raises:
        TypeError: If the model has no patch graph.
        ValueError: If there are more pictures than one, `count` is out of range, or as `relevance` does.
    """
    shown = as_patches(model, grids)
    if len(shown) != 1:
        raise ValueError(f"grids: got {len(shown)} pictures; expected one; slice it: grids[7]")
    check_patches(model)
    graph = PatchGraph.of(shown)
    if not 1 <= count < graph.num_vertices:
        raise ValueError(
            f"count: got {count} of {graph.num_vertices} patches; expected 1 to {graph.num_vertices - 1}; ask for fewer"
        )
    found = relevance(model, shown, target, method=method)
    top = found.top(count)
    patches = tuple(patch for patch, _ in top)
    others = [
        graph.locate(vertex) for vertex in range(graph.num_vertices) if graph.locate(vertex) not in patches
    ]
    ways = [(source, end) for source in patches for end in (*patches, None) if _acts(model, source, end)]
    outs: list[Together] = [
        tuple(KnockOut(patch=patch) for patch in others),
        tuple(KnockOut(patch=patch) for patch in patches),
        *(
            KnockOut(unread=source) if end is None else KnockOut(query=end, key=source)
            for source, end in ways
        ),
    ]
    with evaluating(model), torch.no_grad():
        full = float(centred(model(shown).logits.cpu(), found.target))
        changed = centred(knocked_logits(model, shown, outs).cpu(), found.target.expand(len(outs)))
        weights = _weights(model, shown, ways)
    alone, without, *rest = changed.tolist()
    edges = [Edge(*way, weight, after - full) for way, weight, after in zip(ways, weights, rest, strict=True)]
    name = model.classes[int(found.target)]
    values = tuple(value for _, value in top)
    return DominantPatches(patches, values, tuple(edges), full, alone, without, name, method, graph)


def _acts(model: PatchModel, source: Patch, end: Patch | None) -> bool:
    """Whether the model has an edge from one to the other; an end of None is the readout."""
    if end is None:
        return True
    return source != end and kind_of(source.backbone, end.backbone) in model.kinds


def _weights(model: PatchModel, grids: GridSet, ways: Sequence[tuple[Patch, Patch | None]]) -> list[float]:
    """How much attention each edge carries."""
    with capture(model) if model.kinds else nullcontext(CapturedAttention()) as attention:
        reading = model(grids).reading
    found = []
    for source, end in ways:
        if end is None:
            found.append(float(reading[source.backbone][0, :, source.row, source.column].mean()))
            continue
        rows = [attention.row(end, layer=layer)[source.backbone] for layer in range(model.depth)]
        found.append(sum(float(row[source.row, source.column]) for row in rows) / len(rows))
    return found
