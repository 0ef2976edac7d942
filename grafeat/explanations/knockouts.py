"""Knock-outs: edges taken out of the patch graph before the softmax, so that what is left shares their weight."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.attention.layers import LayerKind, PatchAttention, attention_layers, check_count
from grafeat.graph import Kind, Patch, PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel, Grids
from grafeat.patchmodel import PatchModel, check_patches

End = str | Patch | tuple[str, int, int] | None


@dataclass(frozen=True)
class KnockOut:
    """Some edges of the patch graph. What is absent means any: `KnockOut("cross")` holds all cross edges.

    Attributes:
        kind: `intra` or `cross`.
        query: The backbone, or the patch, that attends.
        key: The backbone, or the patch, that is attended to.
        layer: The layer, from 0.
        head: The head, from 0.
        patch: A patch to take out altogether: nothing attends to it, and the readout does not read it. Goes with none
            of the others.
        unread: A patch that the readout does not read, while others still attend to it. Goes with none of the others.

    Raises:
        ValueError: If `patch` or `unread` comes with another, or the kind is unknown.
    """

    kind: Kind | None = None
    query: End = None
    key: End = None
    layer: int | None = None
    head: int | None = None
    patch: Patch | tuple[str, int, int] | None = None
    unread: Patch | tuple[str, int, int] | None = None

    def __post_init__(self) -> None:
        edges = (self.kind, self.query, self.key, self.layer, self.head)
        for name, other in (("patch", self.unread), ("unread", self.patch)):
            alone = getattr(self, name)
            if alone is not None and any(part is not None for part in (*edges, other)):
                raise ValueError(f"{name}: got {alone} together with edges; expected it alone; use two knock-outs")
        if self.kind not in (None, "intra", "cross"):
            raise ValueError(f"kind: got {self.kind!r}; expected 'intra', 'cross' or None for both")

    def __str__(self) -> str:
        if self.patch is not None:
            return f"patch {_said(self.patch)}"
        if self.unread is not None:
            return f"reading of {_said(self.unread)}"
        ends = f" {_said(self.query) or 'any'} → {_said(self.key) or 'any'}" if self.query or self.key else ""
        where = ", ".join(f"{n} {v}" for n, v in (("layer", self.layer), ("head", self.head)) if v is not None)
        return f"{self.kind or 'all'} edges{ends}{f', {where}' if where else ''}"

    def edges(
        self, graph: PatchGraph, name: str, kind: LayerKind, layer: int, heads: int
    ) -> Bool[Tensor, "#heads #queries keys"]:
        """Which edges from one backbone's patches to those that they attend to in one layer are out.

        One row stands for all queries or all heads where they lose the same.

        Args:
            graph: The patch graph of the pictures.
            name: The backbone that attends.
            kind: The layer's kind; a joint one holds intra and cross edges.
            layer: The layer's number, from 0, among those of its kind.
            heads: How many heads it has.

        Raises:
            ValueError: If it names a backbone, patch or head that is not there.
        """
        seen = attended_to(name, kind, graph)
        key = _vertices(graph, self.patch or self.key)
        if self.patch is not None:
            return key[None, None, seen]
        if self.head is not None and not 0 <= self.head < heads:
            raise ValueError(f"head: got {self.head}; expected 0 to {heads - 1}; count from 0")
        fits = (kind == "joint" or self.kind in (None, kind)) and self.layer in (None, layer)
        query = _vertices(graph, self.query)[graph.slices[name]]
        if self.unread is not None or not fits or not query.any():
            return torch.zeros(1, 1, int(seen.sum()), dtype=torch.bool)
        if self.kind is not None:
            key &= attended_to(name, self.kind, graph)
        out = key[None, None, seen] if query.all() else query[None, :, None] & key[seen]
        return out if self.head is None else out & (torch.arange(heads) == self.head)[:, None, None]


Together = KnockOut | tuple[KnockOut, ...]


@contextmanager
def knock_out(model: PatchModel, knockouts: Together | list[Together], graph: PatchGraph) -> Iterator[None]:
    """Takes edges out of a model's passes while the context is open.

    They are masked before the softmax, so that the rest of a row shares their weight. A patch with no edge left gets a
    zero message. `capture` keeps queries and keys, so that its weights are those before anything is knocked out.

    Args:
        model: The model.
        knockouts: One for all pictures, or a list with one for each. A tuple is taken out together.
        graph: The patch graph of the pictures; `PatchGraph.of(grids)`, or `model.patches(grids)` where a model
            resamples them.

    Raises:
        ValueError: If a knock-out names what the model or the graph does not have, or edges are knocked out already: a
            tuple takes several out together; in the pass, if there are as many as pictures do not come, or the grids
            have another graph.
    """
    many = [_together(one) for one in (knockouts if isinstance(knockouts, list) else [knockouts])]
    for together in many:
        _check(model, together, graph)
    refuse_knocked_out(model, "knock_out")
    layers = attention_layers(model)
    outs = _edges(many, graph, layers, model.device)
    gone = _patches(many, graph).to(model.device)
    checking = model.register_forward_pre_hook(partial(_check_graph, graph), with_kwargs=True)
    try:
        for layer, out in zip(layers, outs, strict=True):
            layer.knocked = out
        if gone.any():
            model.readout.without = _unread(gone, graph)
        yield
    finally:
        checking.remove()
        for layer in layers:
            layer.knocked = {}
        model.readout.without = None


def refuse_knocked_out(model: GridModel, asked: str) -> None:
    """Refuses a model of which edges are out, for what takes edges out itself.

    Args:
        model: The model.
        asked: What needs it whole.

    Raises:
        ValueError: If edges or patches are out.
    """
    unread = isinstance(model, PatchModel) and model.readout.without is not None
    if unread or any(layer.knocked for layer in attention_layers(model)):
        raise ValueError(
            f"model: edges are knocked out already; expected none for {asked!r}; leave knock_out first"
        )


@torch.no_grad()
def knocked_logits(
    model: PatchModel, grids: GridSet, knockouts: Sequence[Together], *, batch_size: int = 16
) -> Float[Tensor, "k t"]:
    """The logits of one picture under many knock-outs.

    Args:
        model: The model.
        grids: The grids of one picture.
        knockouts: The knock-outs.
        batch_size: How many are computed at once.

    Returns:
        Logits (k, t), one row for each knock-out.

    Raises:
        ValueError: If there are more pictures than one, or a knock-out names what is not there.
    """
    if len(grids) != 1:
        raise ValueError(f"grids: got {len(grids)} pictures; expected one; slice it: grids[7]")
    graph = model.patches(grids)
    found = []
    for start in range(0, len(knockouts), batch_size):
        some = list(knockouts[start : start + batch_size])
        with knock_out(model, some, graph):
            found.append(model(grids[[0] * len(some)]).logits)
    return torch.cat(found) if found else torch.zeros(0, model.num_classes)


def _edges(
    many: Sequence[tuple[KnockOut, ...]], graph: PatchGraph, layers: Sequence[PatchAttention], device: torch.device
) -> list[dict[str, Bool[Tensor, "k #heads #queries _"]]]:
    """Which edges of each layer are out, for each set of knock-outs; absent are backbones that lose none."""
    layered = any(one.layer is not None for together in many for one in together)
    found: list[dict[str, Tensor]] = []
    alike: dict[tuple[LayerKind, int], dict[str, Tensor]] = {}  # unless a layer is named, a kind's layers lose the same
    counts: Counter[LayerKind] = Counter()
    for layer in layers:
        number = counts[layer.kind] if layered else 0
        counts[layer.kind] += 1
        if (layer.kind, number) not in alike:
            rows = {name: [_union(one, graph, name, layer, number) for one in many] for name in graph.names}
            alike[layer.kind, number] = {
                name: torch.stack(torch.broadcast_tensors(*each)).to(device)
                for name, each in rows.items()
                if any(bool(row.any()) for row in each)
            }
        found.append(alike[layer.kind, number])
    return found


def _union(
    together: Sequence[KnockOut], graph: PatchGraph, name: str, layer: PatchAttention, number: int
) -> Bool[Tensor, "#heads #queries keys"]:
    """What several knock-outs take out of a layer between them."""
    out = torch.zeros(1, 1, int(attended_to(name, layer.kind, graph).sum()), dtype=torch.bool)
    for one in together:
        out = out | one.edges(graph, name, layer.kind, number, layer.heads)
    return out


def _patches(many: Sequence[tuple[KnockOut, ...]], graph: PatchGraph) -> Bool[Tensor, "k n"]:
    """Which patches the readout does not read, for each set of knock-outs."""
    gone = torch.zeros(len(many), graph.num_vertices, dtype=torch.bool)
    for row, together in enumerate(many):
        for one in together:
            for patch in (one.patch, one.unread):
                if patch is not None:
                    gone[row, graph.vertex(*patch)] = True
    if bool(gone.all(dim=1).any()):
        raise ValueError("knockouts: every patch is out; expected one or more to be left, to be read; keep one")
    return gone


def _unread(gone: Bool[Tensor, "k n"], graph: PatchGraph) -> Callable[[str, Tensor], Tensor]:
    def without(name: str, logits: Float[Tensor, "b patches queries"]) -> Float[Tensor, "b patches queries"]:
        check_count(len(gone), len(logits))
        return logits.masked_fill(gone[:, graph.slices[name], None], -torch.inf)

    return without


def _check_graph(graph: PatchGraph, model: PatchModel, given: tuple[Grids, ...], named: Mapping[str, Any]) -> None:
    """Before a pass: the edges were named in this graph, so the vertices must be the same, in the same order."""
    passed: Grids = given[0] if given else named["grids"]
    here = list(model.patches([passed] if isinstance(passed, FeatureGrid) else passed).shapes.items())
    if here != list(graph.shapes.items()):
        shown = [", ".join(f"{name} {h} × {w}" for name, (h, w) in some) for some in (graph.shapes.items(), here)]
        raise ValueError(
            f"graph: has the patches of {shown[0]}; the pass has those of {shown[1]}; expected the graph of these "
            "grids, in their order; pass model.patches(grids)"
        )


def _vertices(graph: PatchGraph, end: End) -> Bool[Tensor, " n"]:
    """The vertices that one end of an edge may be."""
    chosen = torch.ones(graph.num_vertices, dtype=torch.bool)
    if end is None:
        return chosen
    chosen[:] = False
    if isinstance(end, str):
        if end not in graph.slices:
            raise ValueError(f"query, key: got {end!r}; the graph has {', '.join(graph.names)}; use one of them")
        chosen[graph.slices[end]] = True
    else:
        chosen[graph.vertex(*end)] = True
    return chosen


def attended_to(query: str, kind: LayerKind, graph: PatchGraph) -> Bool[Tensor, " n"]:
    """Which vertices a backbone's patches attend to in a layer of this kind."""
    own = _backbones(graph) == graph.names.index(query)
    return {"intra": own, "cross": ~own, "joint": torch.ones_like(own)}[kind]


def _backbones(graph: PatchGraph) -> Int[Tensor, " n"]:
    """The number of each vertex's backbone."""
    return torch.repeat_interleave(torch.tensor(list(graph.sizes.values())))


def _together(one: Together) -> tuple[KnockOut, ...]:
    return (one,) if isinstance(one, KnockOut) else tuple(one)


def _check(model: PatchModel, knockouts: Sequence[KnockOut], graph: PatchGraph) -> None:
    check_patches(model)
    for one in knockouts:
        if one.layer is not None and not 0 <= one.layer < model.depth:
            raise ValueError(f"layer: got {one.layer}; expected 0 to {model.depth - 1}; count from 0")
        if one.head is not None and not 0 <= one.head < model.heads:
            raise ValueError(f"head: got {one.head}; expected 0 to {model.heads - 1}; count from 0")
        if one.kind is not None and one.kind not in model.kinds:
            raise ValueError(
                f"kind: got {one.kind!r}; this model has {' and '.join(model.kinds) or 'no'} edges; expected one of "
                "these; leave this knock-out away"
            )
        if _contradicts(one):
            raise ValueError(
                f"query, key: got {_backbone(one.query)!r} and {_backbone(one.key)!r} for {one.kind} edges, of which "
                "there are none between these; expected one backbone for 'intra', two for 'cross'; leave kind out"
            )


def _contradicts(one: KnockOut) -> bool:
    """Whether both ends are named, and no edge of the kind joins them."""
    query, key = _backbone(one.query), _backbone(one.key)
    return None not in (one.kind, query, key) and (query == key) != (one.kind == "intra")


def _backbone(end: End) -> str | None:
    return end if end is None or isinstance(end, str) else end[0]


def _said(end: End) -> str:
    if end is None or isinstance(end, str):
        return end or ""
    name, row, column = end
    return f"{name} ({row}, {column})"
