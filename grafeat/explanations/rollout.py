"""Relevance from inside the graph: carried back along attention, read off vertices, or seen when patches go.

In a rollout a relevance matrix R (n, n) starts as the identity, each layer multiplies it from the left, and the
readout's row w reads it: w · R. Here w is carried back through the layers, from the last to the first, which gives the
same row without a product of two n × n matrices. What the readout reads before any message between backbones joins it
there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.attention.layers import Attend, LayerKind, attention_layers
from grafeat.explanations.knockouts import KnockOut, attended_to, knocked_logits, refuse_knocked_out
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import MergeOutput
from grafeat.patchmodel import PatchModel

Row = Float[Tensor, "b n"]
Score = Callable[[Float[Tensor, "b t"]], Float[Tensor, " b"]]
Weights = dict[str, Float[Tensor, "b heads queries keys"]]


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The attention weights of one layer's pass, by the backbone that attends; with their history of gradients.

    Attributes:
        kind: `intra`, `cross` or `joint`.
        weights: Weights (b, heads, own patches, patches attended to); a backbone that attends to none is absent.
    """

    kind: LayerKind
    weights: Weights = field(default_factory=dict)


@contextmanager
def attending(model: PatchModel, attends: Sequence[Attend | None]) -> Iterator[None]:
    """Lets each attention layer, in the order of the pass, turn logits into weights in its own way; None: the usual."""
    layers = attention_layers(model)
    before = [layer.attend for layer in layers]
    try:
        for layer, attend in zip(layers, attends, strict=True):
            layer.attend = attend
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.attend = old


@contextmanager
def kept_weights(model: PatchModel) -> Iterator[list[LayerWeights]]:
    """Keeps the weights of a model's next pass, layer by layer in the order of the pass, edges knocked out or not."""
    layers = attention_layers(model)
    kept = [LayerWeights(layer.kind) for layer in layers]
    pairs = zip(layers, kept, strict=True)
    with attending(model, [_keeping(own.weights, layer.attend or layer.softmax) for layer, own in pairs]):
        yield kept


@torch.no_grad()
def attention_rollout(model: PatchModel, grids: Sequence[FeatureGrid]) -> Row:
    """Attention multiplied through the layers: where the image vector comes from, if messages were all that moved.

    Each layer's weights, mean over heads, are mixed half and half with the identity for the residual path, and the rows
    brought back to sum 1; a backbone without cross edges passes on what it has. The readout's weights, mean over
    queries, read the product of the layers before them: an exchange, which alone reads behind cross layers, counts as
    one query. The values of all patches together sum to 1.

    Args:
        model: The model.
        grids: The pictures' grids.

    Source: Abnar and Zuidema, ACL 2020; there for one set of tokens, here intra and cross layers over the patches of
    all backbones.
    """
    with kept_weights(model) as layers:
        output = model(grids)
    graph = model.patches(tuple(grids))
    means = [{name: block.mean(dim=1) for name, block in layer.weights.items()} for layer in layers]
    reading = {name: block.flatten(2) for name, block in output.reading.items()}

    def through(row: Row, number: int) -> Row:
        row = row / (1 + _row_sums(means[number], row, graph))  # rows of (A + I) / 2, brought to sum 1
        return row + _carried(row, layers[number].kind, means[number], graph)

    return _carried_back(model, _joined(reading, graph), layers, graph, through)


def gradient_rollout(model: PatchModel, grids: Sequence[FeatureGrid], score: Score) -> Row:
    """Attention that raises the score, multiplied through the layers: R ← R + E_heads[(∇A ⊙ A)⁺] · R.

    A is a layer's full matrix over all n patches: intra weights on its diagonal blocks, or cross weights off them. The
    readout's weights, times their gradient, read the result.

    Args:
        model: The model.
        grids: The pictures' grids; features that require a gradient.
        score: What is explained, of the logits.

    Source: Chefer et al., ICCV 2021, eq. 5 to 7, 10 and 11, there for self and co-attention of two sets. Their eq.
    10 normalises the self-attention relevance that co-attention carries on; with the plain product here all rules are
    one matrix product, whatever the number of backbones. The readout takes the place of their class token's row.
    """
    with kept_weights(model) as layers, _states_read(model) as states:
        output = model(grids)
    graph = model.patches(tuple(grids))
    reading = _joined(_reading_relevance(model, output, states, graph, score), graph)
    flat = [weights for layer in layers for weights in layer.weights.values()]
    found = iter(
        torch.autograd.grad(score(output.logits).sum(), flat, materialize_grads=True) if flat else ()
    )
    raised = [
        {
            name: (next(found) * weights).clamp(min=0).mean(dim=1).detach()
            for name, weights in layer.weights.items()
        }
        for layer in layers
    ]

    def through(row: Row, number: int) -> Row:
        return row + _carried(row, layers[number].kind, raised[number], graph)

    return _carried_back(model, reading, layers, graph, through)


def grad_cam(model: PatchModel, grids: Sequence[FeatureGrid], score: Score) -> Row:
    """Gradient times the vertex state that is read, summed over channels and over the places where it is read.

    The state is taken behind the readout's LayerNorm. Before it the product would always be 0, since a state times any
    factor is read alike.

    Args:
        model: The model.
        grids: The pictures' grids; features that require a gradient.
        score: What is explained, of the logits.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, without averaging the gradient over places: Draelos and Carin,
    HiResCAM, arXiv 2011.08891.
    """
    with _states_read(model) as seen:
        logits = model(grids).logits
    slopes = torch.autograd.grad(score(logits).sum(), seen)
    return torch.stack([(slope * state).sum(dim=2) for slope, state in zip(slopes, seen, strict=True)]).sum(dim=0)


@torch.no_grad()
def ablation(model: PatchModel, grids: Sequence[FeatureGrid], score: Score) -> Row:
    """What the score of one picture loses if nothing attends to a patch and the readout does not read it.

    Args:
        model: The model; no edge of it may be knocked out.
        grids: The grids of one picture; two patches or more.
        score: What is explained, of the logits.

    Raises:
        ValueError: If edges are knocked out already, or there is a single patch, so that none would be left.
    """
    refuse_knocked_out(model, "ablation")
    graph = model.patches(tuple(grids))
    if graph.num_vertices == 1:
        raise ValueError(
            "grids: got a single patch; expected two or more for 'ablation'; no patch would be left"
        )
    out = [KnockOut(patch=graph.locate(vertex)) for vertex in range(graph.num_vertices)]
    left = knocked_logits(model, GridSet(grids), out)
    return (score(model(grids).logits) - score(left))[None]


@contextmanager
def _states_read(model: PatchModel) -> Iterator[list[Float[Tensor, "b n d"]]]:
    """Keeps the states that the readout reads in a model's next pass, behind its norm, from each place of the pass."""
    seen: list[Tensor] = []
    hook = model.readout.norm.register_forward_hook(lambda module, given, states: seen.append(states))
    try:
        yield seen
    finally:
        hook.remove()


def _reading_relevance(
    model: PatchModel,
    output: MergeOutput,
    states: Sequence[Float[Tensor, "b n d"]],
    graph: PatchGraph,
    score: Score,
) -> dict[str, Float[Tensor, "b queries patches"]]:
    """Weights of the readout times what the score gains by them, if positive."""
    weights = {name: block.flatten(2).detach().requires_grad_() for name, block in output.reading.items()}
    read = [{name: one.detach()[:, own] for name, own in graph.slices.items()} for one in states]
    gained = torch.autograd.grad(
        score(model.head(model.readout.vector(weights, *read))).sum(), list(weights.values())
    )
    return {
        name: (gain * block).clamp(min=0).detach()
        for (name, block), gain in zip(weights.items(), gained, strict=True)
    }


def _carried_back(
    model: PatchModel,
    reading: Float[Tensor, "b queries n"],
    layers: Sequence[LayerWeights],
    graph: PatchGraph,
    through: Callable[[Row, int], Row],
) -> Row:
    """What the readout reads, mean over queries, through the layers before the place where each query reads."""
    queries, first = reading.shape[1], model.readout.early(graph.names)
    early, row = (part.sum(dim=1) / queries for part in reading.split([first, queries - first], dim=1))
    hears = next((number for number, layer in enumerate(layers) if layer.kind != "intra"), 0)
    for number in reversed(range(len(layers))):
        row = through(row, number)
        if number == hears:
            row = row + early
    return row


def _carried(row: Row, kind: LayerKind, weights: dict[str, Float[Tensor, "b _ keys"]], graph: PatchGraph) -> Row:
    """The row times a layer's matrix (n, n)."""
    found = torch.zeros_like(row)
    for name, block in weights.items():
        found[:, _keys(kind, name, graph)] += (row[:, None, graph.slices[name]] @ block).squeeze(dim=1)
    return found


def _row_sums(weights: dict[str, Float[Tensor, "b _ keys"]], like: Row, graph: PatchGraph) -> Row:
    sums = torch.zeros_like(like)
    for name, block in weights.items():
        sums[:, graph.slices[name]] = block.sum(dim=-1)
    return sums


def _keys(kind: LayerKind, name: str, graph: PatchGraph) -> Int[Tensor, " keys"]:
    """The vertices to which a backbone's patches attend in a layer of this kind."""
    return attended_to(name, kind, graph).nonzero()[:, 0]


def _joined(blocks: dict[str, Float[Tensor, "b queries _"]], graph: PatchGraph) -> Float[Tensor, "b queries n"]:
    return torch.cat([blocks[name] for name in graph.names], dim=2)


def _keeping(kept: Weights, attend: Attend) -> Attend:
    def keep(
        name: str, logits: Float[Tensor, "b heads queries keys"]
    ) -> Float[Tensor, "b heads queries keys"]:
        kept[name] = attend(name, logits)
        return kept[name]

    return keep
