"""Relevance against the papers' formulas by hand, the axioms, knock-outs, and what must not change it."""

import copy
import math
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import grafeat as gf
from grafeat.attention.layers import Attend, PatchAttention, attention_layers
from grafeat.explanations.knockouts import KnockOut, knock_out
from grafeat.explanations.relevance import METHODS, Relevance, relevance
from grafeat.graph import Patch, PatchGraph
from grafeat.patchmodel import PatchModel
from grafeat.readout import READOUTS, Interplay, Readout

SHAPES = {"lite": (2, 3), "vit": (1, 5), "cnn": (7, 1)}
CHANNELS, HEADS, DEPTH, B, T = 4, 3, 2, 2, 3
FEW = {"samples": 5}  # enough to compare two runs by
DRAWN = ("integrated_gradients", "gradient_shap", "shapley")


def grids(shapes: dict[str, tuple[int, int]] = SHAPES, b: int = B) -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = {
        name: torch.randn(b, CHANNELS, *shape, generator=generator).double() for name, shape in shapes.items()
    }
    return gf.GridSet([gf.FeatureGrid(name, features) for name, features in listed.items()])


def built(
    shapes: dict[str, tuple[int, int]] = SHAPES, *, heads: int = HEADS, **shaped: object
) -> gf.GraFeatMerge:
    """A model in float64 whose messages matter, standardised on other pictures; it passes as trained."""
    seen = grids(shapes, b=31)
    model = gf.GraFeatMerge.for_grids(
        seen, num_classes=T, width=4 * heads, heads=heads, depth=DEPTH, **shaped
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in attention_layers(model):
            layer.update.layers[0][-1].weight *= 10
            layer.relation += 0.3 * torch.randn(layer.relation.shape, generator=generator)
        model.head.weight *= 30
        if model.readout.relation is not None:
            model.readout.relation += 0.5 * torch.randn(len(shapes), generator=generator)
    model.label_counts.copy_(torch.tensor([2, 5, 13]))
    return model.double()


def few(method: str) -> dict[str, int]:
    return FEW if method in DRAWN else {}


def centred(logits: Tensor, target: int) -> Tensor:
    return logits[:, target] - logits.mean(dim=1)


def same(found: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=atol, rtol=0)


# By hand: two patches of one backbone, three of another, in plain numbers, one loop for each formula

TWO_THREE = {"two": (1, 2), "three": (3, 1)}
OWN = [[0, 1], [2, 3, 4]]


def dense(model: gf.GraFeatMerge, seen: gf.GridSet) -> list[list[np.ndarray]]:
    """The full (5, 5) matrix of each layer and head in order, from captured queries and keys."""
    with gf.capture(model) as attention, torch.no_grad():
        model(seen)
    layers, counts = [], {"intra": 0, "cross": 0}
    for kind in kinds(model):
        number = counts[kind]
        counts[kind] += 1
        heads = [attention.dense(layer=number, head=head).double().numpy().copy() for head in range(2)]
        for matrix in heads:
            for i in range(5):
                for j in range(5):
                    if ((i < 2) == (j < 2)) != (kind == "intra"):
                        matrix[i, j] = 0
        layers.append(heads)
    return layers


def kinds(model: gf.GraFeatMerge) -> list[str]:
    """The layers in the order of the pass: alternating, or all intra layers first where the readout reads twice."""
    return ["intra"] * DEPTH + ["cross"] * DEPTH if model.config.silent else ["intra", "cross"] * DEPTH


def slopes(model: gf.GraFeatMerge, seen: gf.GridSet, target: int) -> list[list[np.ndarray]]:
    """Derivative of the centred logit by every single weight, by differences: no autograd.

    A copy of the picture for each weight that is made larger, and one for each that is made smaller.
    """
    step, found = 1e-5, []
    for number, layer in enumerate(attention_layers(model)):
        intra = kinds(model)[number] == "intra"
        edges = [(i, j) for i in range(5) for j in range(5) if ((i < 2) == (j < 2)) == intra]
        moves = [(h, i, j, sign * step) for sign in (1, -1) for h in range(2) for i, j in edges]
        layer.attend = moved(moves, intra=intra)
        with torch.no_grad():
            scores = centred(model(seen[[0] * len(moves)]).logits, target).numpy()
        layer.attend = None
        heads = [np.zeros((5, 5)), np.zeros((5, 5))]
        for (h, i, j, by), score in zip(moves, scores, strict=True):
            heads[h][i, j] += score / (2 * by)
        found.append(heads)
    return found


@torch.no_grad()
def left_without(model: PatchModel, picture: gf.GridSet, vertex: int) -> Tensor:
    """The logits without a patch, by the definition: its key masked in each layer, and its logit in the readout."""
    graph = model.patches(picture)
    every = torch.arange(graph.num_vertices)
    for layer in attention_layers(model):

        def attend(name: str, logits: Tensor, layer: PatchAttention = layer) -> Tensor:
            keys = torch.cat([every[graph.slices[key]] for key in layer.seen(name, graph)])
            return logits.masked_fill(keys == vertex, -torch.inf).softmax(dim=-1).nan_to_num(0.0)

        layer.attend = attend
    model.readout.without = lambda name, logits: logits.masked_fill(
        (every[graph.slices[name]] == vertex)[:, None], -torch.inf
    )
    found = model(picture).logits[0]
    for layer in attention_layers(model):
        layer.attend = None
    model.readout.without = None
    return found


def moved(moves: list[tuple[int, int, int, float]], *, intra: bool) -> Attend:
    def attend(name: str, logits: Tensor) -> Tensor:
        own, others = OWN if name == "two" else OWN[::-1]
        keys = own if intra else others
        weights = logits.softmax(dim=-1)
        for copy_number, (h, i, j, by) in enumerate(moves):
            if i in own:
                weights[copy_number, h, own.index(i), keys.index(j)] += by
        return weights

    return attend


def read_by_hand(model: gf.GraFeatMerge, seen: gf.GridSet, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The readout's weights (queries, 5), and the derivative of the centred logit by each."""
    with torch.no_grad():
        out = model(seen, states=True)
    weights = np.concatenate([out.reading[name][0].flatten(1).numpy() for name in seen.names], axis=1)
    places = [out.states[DEPTH if model.config.silent else -1], out.vertices]  # before any cross message, at the end
    states = [np.concatenate([place[name][0].flatten(1).T.numpy() for name in seen.names]) for place in places]
    scaled = [normed(place, model.readout.norm) for place in states]

    def score(weights: np.ndarray) -> float:
        logits = model.head.weight.detach().numpy() @ vector_by_hand(model.readout, weights, *scaled)
        logits = logits + model.head.bias.detach().numpy()
        return float(logits[target] - logits.mean())

    assert abs(score(weights) - float(centred(out.logits, target))) < 1e-9  # it is the model's
    step, slope = 1e-5, np.zeros(weights.shape)
    for place in np.ndindex(weights.shape):
        by = np.zeros(weights.shape)
        by[place] = step
        slope[place] = (score(weights + by) - score(weights - by)) / (2 * step)
    return weights, slope


def vector_by_hand(readout: Readout, weights: np.ndarray, before: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The image vector of one picture, given each query's weight of each of the 5 patches."""
    read = [weights[:, own] @ before[own] for own in OWN]  # (queries, d) of each backbone
    layers = readout.value.layers
    said = [layers[m if len(layers) > 1 else 0].weight.detach().numpy() for m in range(2)]
    vector = sum(value @ block[: readout.queries].ravel() for value, block in zip(said, read, strict=True))
    if readout.interplay is None:
        return vector
    heard = [weights[-1, own] @ final[own] for own in OWN]
    together = said_together(readout.interplay, [block[-2] for block in read])
    return vector + together + said_together(readout.exchange, heard)


def said_together(mlp: Interplay, means: list[np.ndarray]) -> np.ndarray:
    norm, _, last = mlp.say
    enters = [layer.weight.detach().numpy() for layer in mlp.enter.layers]
    entered = normed(sum(enter @ mean for enter, mean in zip(enters, means, strict=True)), norm)
    gelu = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in entered])
    return last.weight.detach().numpy() @ gelu


def carried(model: gf.GraFeatMerge, read: np.ndarray, rules: list[np.ndarray]) -> np.ndarray:
    """What each query reads (queries, 5), through the layers before the place where it reads, mean over queries."""
    late = read[-1] @ rules[-1] if model.config.silent else read.sum(axis=0) @ rules[-1]
    early = read[:-1].sum(axis=0) @ rules[DEPTH] if model.config.silent else 0
    return (late + early) / len(read)


def normed(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + norm.eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


@pytest.mark.parametrize("readout", READOUTS)
def test_rollout_by_hand(readout: str) -> None:
    """Abnar and Zuidema: Â = ½ A + ½ I with rows brought to sum 1, R = Â_L … Â_1."""
    model, seen = built(TWO_THREE, heads=2, readout=readout), grids(TWO_THREE)[1]
    rolled = [np.eye(5)]  # after each layer
    for heads in dense(model, seen):
        mixed = 0.5 * sum(heads) / 2 + 0.5 * np.eye(5)
        rolled.append((mixed / mixed.sum(axis=1, keepdims=True)) @ rolled[-1])
    weights, _ = read_by_hand(model, seen, 0)
    found = relevance(model, seen, method="attention_rollout")
    same(found.flat[0], torch.tensor(carried(model, weights, rolled)))
    assert float(found.flat.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("rank", [0, 1])
def test_chefers_rules_by_hand(rank: int, readout: str) -> None:
    """Chefer et al.: Ā = E_heads[(∇A ⊙ A)⁺], eq. 5; R ← R + Ā · R, eq. 6, 7, 11, and 10 without normalising."""
    model, seen = built(TWO_THREE, heads=2, readout=readout), grids(TWO_THREE)[1]
    target = int(model(seen).logits.argsort(descending=True)[0, rank])  # the predicted class, and the next
    rules = [np.eye(5)]  # after each layer
    for heads, gradients in zip(dense(model, seen), slopes(model, seen, target), strict=True):
        positive = (
            sum(np.maximum(slope * weight, 0) for slope, weight in zip(gradients, heads, strict=True)) / 2
        )
        addition = np.zeros((5, 5))
        for i in range(5):
            for j in range(5):
                for p in range(5):
                    addition[i, j] += positive[i, p] * rules[-1][p, j]
        rules.append(rules[-1] + addition)
    weights, slope = read_by_hand(model, seen, target)
    expected = carried(model, np.maximum(weights * slope, 0), rules)
    found = relevance(model, seen, target, method="gradient_rollout").flat[0]
    same(found, torch.tensor(expected))
    assert (
        np.abs(expected - np.maximum(weights * slope, 0).mean(axis=0)).max() > 1e-3
    )  # the layers have a say


# The axioms, and the causal reference


@pytest.mark.parametrize("method", ["integrated_gradients", "shapley"])
def test_values_sum_to_the_change_from_the_mean_patch(method: str) -> None:
    model, seen = built(), grids()
    found = relevance(model, seen, 1, method=method)
    means = [
        gf.FeatureGrid(grid.name, projection.mean[None, :, None, None].expand_as(grid.features).clone())
        for grid, projection in zip(seen.grids, model.projections, strict=True)
    ]
    change = (centred(model(seen).logits, 1) - centred(model(means).logits, 1)).detach()
    assert change.abs().min() > 0.01
    assert bool(((found.flat.sum(dim=1) - change).abs() <= 0.01 * change.abs()).all())


@pytest.mark.parametrize("readout", READOUTS)
def test_ablation_is_what_is_lost_without_each_patch(readout: str) -> None:
    shapes = {**SHAPES, "one": (1, 1)}  # whose only patch leaves an intra softmax without keys
    model, seen = built(shapes, readout=readout), grids(shapes)
    found = relevance(model, seen, [2, 0], method="ablation")
    for picture, target in enumerate([2, 0]):
        left = torch.stack([left_without(model, seen[picture], vertex) for vertex in range(found.flat.shape[1])])
        lost = centred(model(seen[picture]).logits, target) - centred(left, target)
        same(found.flat[picture], lost.detach())


def test_feature_ablation_is_the_loss_by_a_mean_patch() -> None:
    """Its own place and no other: equal numbers in two grids would take two patches out at once."""
    model, seen = built(), grids()
    found = relevance(model, seen, 1, method="feature_ablation")
    for name, row, column in [("lite", 1, 2), ("vit", 0, 3), ("cnn", 6, 0)]:
        changed = {grid.name: grid.features.clone() for grid in seen.grids}
        changed[name][:, :, row, column] = model.projections[seen.names.index(name)].mean
        after = centred(model([gf.FeatureGrid(*part) for part in changed.items()]).logits, 1)
        same(found.maps[name][:, row, column], (centred(model(seen).logits, 1) - after).detach())


def test_gradient_times_input_in_the_backbones_own_features() -> None:
    """Components or channels: the same, since standardising is linear."""
    model, seen = built(components=3), grids()
    leaves = {grid.name: grid.features.clone().requires_grad_() for grid in seen.grids}
    score = centred(model([gf.FeatureGrid(*part) for part in leaves.items()]).logits, 1).sum()
    slope = dict(zip(leaves, torch.autograd.grad(score, list(leaves.values())), strict=True))
    found = relevance(model, seen, 1, method="gradient_x_input")
    for (name, leaf), projection in zip(leaves.items(), model.projections, strict=True):
        same(found.maps[name], (slope[name] * (leaf - projection.mean[:, None, None])).sum(dim=1).detach())


def test_grad_cam_moves_with_the_state_that_is_read() -> None:
    """Gradient times state is the derivative by a common factor on a patch's normalised state, by differences."""
    model, seen = built(), grids()
    found = relevance(model, seen, 1, method="grad_cam").flat
    assert found.abs().max() > 1e-2
    for vertex in (0, 7, 17):
        sides = []
        for factor in (1 + 1e-5, 1 - 1e-5):
            scale = torch.ones(18, 1).double()
            scale[vertex] = factor
            hook = model.readout.norm.register_forward_hook(
                lambda _, given, states, scale=scale: states * scale
            )
            sides.append(centred(model(seen).logits, 1).detach())
            hook.remove()
        same(found[:, vertex], (sides[0] - sides[1]) / 2e-5)


# What must not change it


@pytest.mark.parametrize("method", METHODS)
def test_other_pictures_and_the_order_of_backbones_change_nothing(method: str) -> None:
    model, seen = built(), grids()
    found = relevance(model, seen, [1, 2], method=method, **few(method))
    alone = relevance(model, seen[1], 2, method=method, **few(method))
    turned = relevance(model, seen.only("cnn", "lite", "vit"), [1, 2], method=method, **few(method))
    assert list(turned.maps) == ["cnn", "lite", "vit"]
    for name, values in found.maps.items():
        assert values.shape == (B, *SHAPES[name])
        same(alone.maps[name][0], values[1])
        same(turned.maps[name], values)
    assert found.signed == bool((found.flat < 0).any())


def test_many_pictures_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = built(), grids(b=5)
    whole = relevance(model, seen)
    monkeypatch.setattr(sys.modules["grafeat.explanations.relevance"], "AT_ONCE", 2 * 18)
    same(relevance(model, seen).flat, whole.flat)
    assert whole.target.tolist() == model(seen).logits.argmax(dim=1).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_model_and_the_random_states_are_left_as_they_were(method: str) -> None:
    model = built().train()
    model.steps[0].eval()  # a mixed mode stays mixed
    before = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.no_grad():
        found = relevance(model, grids(), 1, method=method, **few(method))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before[0].items())
    assert [module.training for module in model.modules()] == before[1]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(layer.attend is None for layer in attention_layers(model)) and model.readout.without is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    same(
        relevance(model.eval(), grids(), 1, method=method, **few(method)).flat, found.flat
    )  # nothing was dropped


@pytest.mark.parametrize("method", ["gradient_rollout", "attention_rollout", "gradient_x_input", "grad_cam"])
def test_a_patch_that_is_knocked_out_of_everything_has_none(method: str) -> None:
    model, seen = built(), grids()
    patches = (KnockOut(patch=("vit", 0, 3)), KnockOut(patch=("cnn", 5, 0)))
    with knock_out(model, patches, PatchGraph.of(seen)):
        found = relevance(model, seen, 1, method=method)
    assert found.maps["vit"][:, 0, 3].abs().max() == 0 and found.maps["cnn"][:, 5, 0].abs().max() == 0
    assert found.maps["vit"][:, 0, 2].abs().min() > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("names", "shaped"),
    [(("vit",), {}), (("lite", "vit"), {"cross": False}), (("lite", "vit"), {"intra": False}),
     (("lite", "vit"), {"intra": False, "cross": False})],
)  # fmt: skip
def test_a_lone_backbone_and_layers_that_are_not_there(
    names: tuple[str, ...], shaped: dict[str, bool], method: str
) -> None:
    shapes = {name: SHAPES[name] for name in names}
    found = relevance(built(shapes, **shaped), grids(shapes), 1, method=method, **few(method))
    assert all(values.isfinite().all() and values.any() for values in found.maps.values())


def test_a_backbone_that_is_left_out_is_not_there() -> None:
    found = relevance(built(), grids().without("lite"))
    assert list(found.maps) == ["vit", "cnn"]


def test_any_model_that_standardises_can_be_asked() -> None:
    model = gf.Concat.for_grids(grids(b=31), num_classes=T, width=5).double()
    model.label_counts += 1
    found = relevance(model, grids(), 1, method="integrated_gradients")
    assert found.flat.any()
    with pytest.raises(
        TypeError, match=r"model: got Concat, which has no graph; 'ablation' needs GraFeatMerge"
    ):
        relevance(model, grids(), method="ablation")


# A truth known by construction


@cache
def speaking() -> tuple[gf.GraFeatMerge, gf.GridSet]:
    """One patch of one backbone carries the class as its brightness in channel 0; all else is noise."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(300) % 2
    one, other = 0.3 * torch.randn(2, 300, CHANNELS, 2, 3, generator=generator)
    one[:, 0, 1, 2] += 4 * labels - 2
    seen = gf.GridSet([gf.FeatureGrid("one", one), gf.FeatureGrid("other", other)], labels)
    model = gf.GraFeatMerge.for_grids(seen, num_classes=2, width=12, heads=3, depth=1)
    gf.fit(model, seen, epochs=12, progress=False)
    return model, seen[:4]


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"attention_rollout", "gradient_x_input"}))
def test_the_patch_on_which_the_class_depends_comes_first(method: str) -> None:
    model, held = speaking()
    assert (model(held).logits.argmax(dim=1) == held.labels).all()
    found = relevance(model, held, method=method)
    among = 6 if method == "occlusion" else 1  # a window cannot tell its patches apart
    for picture in range(4):
        assert Patch("one", 1, 2) in [patch for patch, _ in found.top(among, picture=picture)], picture


def test_integrated_gradients_are_complete_where_the_logit_is_saturated() -> None:
    """Where the gradient at the picture itself says next to nothing: gradient times input misses the patch."""
    model, held = speaking()
    found = relevance(model, held, method="integrated_gradients")
    mean = model.projections[0].mean, model.projections[1].mean
    means = [gf.FeatureGrid(g.name, m[None, :, None, None].expand_as(g.features).clone())
             for g, m in zip(held.grids, mean, strict=True)]  # fmt: skip
    whole, none = model(held).logits.detach(), model(means).logits.detach()
    for picture, target in enumerate(found.target.tolist()):
        change = float((centred(whole, target) - centred(none, target))[picture])
        assert float(found.flat[picture].sum()) == pytest.approx(change, rel=0.01)
    local = relevance(model, held, method="gradient_x_input")
    assert float(local.flat.abs().max()) < 0.5 * float(found.flat.max())


# The result, and what is refused


LONE = {"one": (1, 1)}
LISTED = ", ".join(METHODS) + "$"


def by_hand() -> Relevance:
    maps = {
        "a": torch.tensor([[[1.0, -7.0]], [[0.0, 5.0]]]),
        "b": torch.tensor([[[2.0], [0.5]], [[-1.0], [9.0]]]),
    }
    return Relevance(maps, "ablation", True, torch.tensor([0, 2]), PatchGraph({"a": (1, 2), "b": (2, 1)}))


def test_the_strongest_are_ranked_over_all_backbones() -> None:
    assert by_hand().top(2) == [(Patch("b", 0, 0), 2.0), (Patch("a", 0, 0), 1.0)]
    assert by_hand().top(1, picture=1) == [(Patch("b", 1, 0), 9.0)]
    assert [value for _, value in by_hand().top(99)] == [2.0, 1.0, 0.5, -7.0]
    assert "Relevance by ablation (signed), 2 pictures" in repr(by_hand())
    assert "strongest in picture 0: b (0, 0) +2, a (0, 0) +1, b (1, 0) +0.5" in repr(by_hand())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: relevance(built(), grids(), method="mean"), "method: got 'mean'; expected one of " + LISTED),
        (lambda: relevance(built(), grids(), 3), "target: got .3.; expected 0 to 2"),
        (lambda: relevance(built(), grids(), [0, 1, 2]), "target: got 3 for 2 pictures"),
        (lambda: relevance(built(), grids()[:0]), "grids: got no picture"),
        (lambda: relevance(built(), grids({"resnet": (2, 2)})), "backbone 'resnet'; this model knows lite, vit, cnn"),
        (lambda: relevance(built(), holed()), "grids: backbone 'vit' has NaN or infinity"),
        (lambda: relevance(broken(), grids()), "model: its logits hold NaN or infinity"),
        (lambda: relevance(built(), grids(), method="gradient_rollout", samples=3),
         "samples: got 3 for 'gradient_rollout', which draws nothing"),
        (lambda: relevance(built(), grids(), method="shapley", samples=0), "samples: got 0; expected 1 or more"),
        (lambda: relevance(built(LONE), grids(LONE), method="ablation"), "grids: got a single patch"),
        (lambda: by_hand().top(0), "count: got 0; expected 1 or more"),
        (lambda: by_hand().top(picture=2), "picture: got 2; expected 0 to 1"),
    ],
    ids=lambda part: part[:25] if isinstance(part, str) else "",
)  # fmt: skip
def test_what_does_not_fit_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (1.0, TypeError, "target: got float32; expected the class's number, or one for each picture"),
        ([0.9, 1.2], TypeError, "target: got float32"),
        (True, TypeError, "target: got bool"),
        ("cat", TypeError, "target: got 'cat', a str"),
        (torch.tensor([[0, 1]]), ValueError, r"target: got shape \(1, 2\) for 2 pictures"),
        ([], ValueError, "target: got 0 for 2 pictures"),
    ],
)
def test_targets_that_are_no_classes_are_refused(target: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        relevance(built(), grids(), target)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_half_a_sample_is_refused() -> None:
    with pytest.raises(TypeError, match=r"samples: got 2.5; expected a whole number"):
        relevance(built(), grids(), method="shapley", samples=2.5)  # type: ignore[arg-type]


def holed() -> gf.GridSet:
    features = {grid.name: grid.features.clone() for grid in grids().grids}
    features["vit"][1, 2, 0, 3] = torch.nan
    return gf.GridSet([gf.FeatureGrid.trusted(name, part) for name, part in features.items()])


def broken() -> gf.GraFeatMerge:
    model = built()
    with torch.no_grad():
        model.head.bias[1] = torch.nan
    return model


def test_ablation_inside_a_knock_out_is_refused() -> None:
    model, seen = built(), grids()
    with (
        pytest.raises(ValueError, match="edges are knocked out already"),
        knock_out(model, KnockOut("cross"), PatchGraph.of(seen)),
    ):
        relevance(model, seen, method="ablation")


def test_a_model_that_was_never_trained_is_told_of() -> None:
    model = built()
    model.label_counts.zero_()
    with pytest.warns(UserWarning, match="never trained"):
        relevance(model, grids())
