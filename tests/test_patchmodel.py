"""Capture, knock-outs, explanations and explorer: alike in every way to mix whose patches attend to each other."""

import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from test_relevance import left_without
from torch import Tensor

import grafeat as gf
from grafeat.attention.captured import CapturedAttention
from grafeat.attention.layers import attention_layers
from grafeat.explanations.attributions import drawn_from
from grafeat.explanations.dominant import dominant
from grafeat.explanations.knockouts import KnockOut, knock_out, knocked_logits
from grafeat.explanations.relevance import METHODS, relevance
from grafeat.fusion import WAYS, Combo, mix
from grafeat.graph import Patch, PatchGraph
from grafeat.measures import strongest_paths
from grafeat.patchmodel import PatchModel, as_patches, check_patches

SHAPES = {"lite": (4, 3), "vit": (2, 3), "cnn": (2, 5)}  # rows, columns
B, T, HEADS, DEPTH = 7, 3, 4, 2
ATTENTIVE = ("single", "cross_only", "intra_only", "joint", "combo", "merge")
JOINT = ("joint", "combo")
attentive = pytest.mark.parametrize("way", ATTENTIVE)
joint = pytest.mark.parametrize("way", JOINT)

pytestmark = pytest.mark.usefixtures("seeded_on_one_thread")


def grids(shapes: dict[str, tuple[int, int]] = SHAPES, b: int = B) -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = {name: torch.randn(b, 5, *shape, generator=generator).double() for name, shape in shapes.items()}
    return gf.GridSet([gf.FeatureGrid(*one) for one in listed.items()], [number % T for number in range(b)])


def built(way: str, shapes: dict[str, tuple[int, int]] = SHAPES) -> gf.GridModel:
    """A model in float64 whose messages matter, whose relations differ; it passes as trained."""
    model = mix(way, seen(way, shapes), num_classes=T, width=16).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in attention_layers(model) if isinstance(model, PatchModel) else []:
            layer.project.layers[0].weight *= 4
            if isinstance(model, gf.GraFeatMerge):
                layer.update.layers[0][-1].weight *= 10
                for name in ("relation", "priors"):
                    if hasattr(layer, name):
                        values = getattr(layer, name)
                        values += 0.5 * torch.rand(values.shape, generator=generator)
        for part in model.modules():
            if isinstance(part, torch.nn.Linear) and part.out_features == T:
                part.weight *= 30
    model.label_counts.copy_(torch.tensor([2, 5, 13]))
    return model


def seen(way: str, shapes: dict[str, tuple[int, int]] = SHAPES) -> gf.GridSet:
    whole = grids(shapes)
    return whole.only(whole.names[0]) if way == "single" else whole


def centred(logits: Tensor, target: int) -> Tensor:
    return (logits[:, target] - logits.mean(dim=1)).detach()


def close(found: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=atol, rtol=0)


def captured(way: str, picture: int = 2) -> tuple[PatchModel, CapturedAttention]:
    model = built(way)
    with gf.capture(model) as attention, torch.no_grad():
        model(seen(way)[picture])
    return model, attention


# What a model says of itself


@attentive
def test_a_model_says_what_there_is(way: str) -> None:
    model, attention = captured(way)
    assert (model.depth, model.heads) == (DEPTH, HEADS) == (attention.layers(model.kinds[0]), attention.heads)
    kinds = {"single": ("intra",), "intra_only": ("intra",), "cross_only": ("cross",)}.get(way, ("intra", "cross"))
    assert attention.kinds == kinds
    assert attention.joint is (way in JOINT)
    assert model.patches(seen(way)).shapes == attention.graph.shapes
    if way in JOINT:
        assert "2 joint layers of 4 heads" in repr(attention)
        assert attention.nbytes == DEPTH * 2 * attention.graph.num_vertices * 16 * 8  # each layer once, float64


@attentive
def test_rows_are_whole_whatever_the_head(way: str) -> None:
    _, attention = captured(way)
    for head in (None, 0, 3):
        dense = attention.dense(layer=1, head=head)
        softmaxes = 1 if attention.joint else len(attention.kinds)
        close(dense.sum(dim=1), torch.full((len(dense),), float(softmaxes)))
        for name in attention.graph.names:
            patch = (name, 1, 2)
            row, column = attention.row(patch, layer=1, head=head), attention.column(patch, layer=1, head=head)
            at = attention.graph.vertex(*patch)
            for other, own in attention.graph.slices.items():
                if other in row:
                    close(row[other].flatten(), dense[at, own])
                    close(column[other].flatten(), dense[own, at])


@joint
def test_logits_and_what_normalises_them_give_the_weights(way: str) -> None:
    _, attention = captured(way)
    for name in attention.graph.names:
        for kind in ("intra", "cross"):
            logits, whole = attention.logits(kind, name, layer=1)
            others = [key for key in attention.graph.names if (key == name) == (kind == "intra")]
            blocks = [attention.intra(name, 1)] if kind == "intra" else [attention.cross(name, k, 1) for k in others]
            expected = torch.cat([block[0].flatten(3).flatten(1, 2) for block in blocks], dim=2)
            close((logits - whole[..., None]).exp(), expected)


@joint
def test_priors_and_biases_are_those_of_the_layers(way: str) -> None:
    model, attention = captured(way)
    priors = attention.priors("cross", 1)
    assert priors.shape == (HEADS, 3, 3)
    assert bool((priors == 1).all()) is (way == "combo")
    layer = attention_layers(model)[1]
    if way == "joint":
        close(priors[2, 0, 1], layer.prior("lite", "vit")[2, 0, 0].detach())
    even = attention.uniform("lite", "cnn", 1)
    sizes = attention.graph.sizes
    assert even == pytest.approx(1 / 3 / sizes["cnn"] if way == "joint" else 1 / sum(sizes.values()))


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ATTENTIVE])
def test_where_patches_do_not_attend_it_is_said(way: str) -> None:
    model, pictures = built(way), seen(way)
    with pytest.raises(ValueError, match="has no attention layers"), gf.capture(model):
        pass
    with pytest.raises(ValueError, match="has no attention layers"):
        gf.Explorer(model, pictures)
    said = "which has no patch graph; expected GraFeatMerge"
    with pytest.raises(TypeError, match=said):
        check_patches(model)
    for method in ("attention_rollout", "gradient_rollout", "grad_cam", "ablation"):
        with pytest.raises(TypeError, match=rf"has no graph; '{method}' needs GraFeatMerge, or another whose patches"):
            relevance(model, pictures, method=method)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ATTENTIVE])
def test_where_patches_do_not_attend_nothing_is_knocked_out(way: str, unchecked: None) -> None:
    model, pictures = built(way), seen(way)
    with pytest.raises(TypeError, match="no patch graph"), knock_out(model, KnockOut("cross"), PatchGraph.of(pictures)):
        pass
    with pytest.raises(TypeError, match="no patch graph"):
        dominant(model, pictures[:1])


# Knock-outs


def by_mask(model: PatchModel, pictures: gf.GridSet, gone: Tensor, layers: tuple[int, ...] = (0, 1)) -> Tensor:
    """The logits where edges (n, n) are out of these joint layers: −∞ before the softmax, 0 where a row has none."""
    graph = model.patches(pictures)
    for number in layers:

        def attend(name: str, logits: Tensor) -> Tensor:
            out = gone[graph.slices[name]]
            rows = logits.masked_fill(out, -torch.inf).softmax(dim=-1)
            return rows.nan_to_num(0.0)

        attention_layers(model)[number].attend = attend
    found = model(pictures).logits.detach()
    for layer in attention_layers(model):
        layer.attend = None
    return found


@joint
def test_edges_out_of_a_joint_softmax_leave_their_weight_to_all_others(way: str) -> None:
    model, pictures = built(way), seen(way)[:1]
    graph = model.patches(pictures)
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(list(graph.sizes.values())))
    same = owner[:, None] == owner
    cases = {
        KnockOut("cross"): ~same,
        KnockOut("intra"): same,
        KnockOut(): torch.ones_like(same),
        KnockOut("cross", query="vit", key="lite"): (owner[:, None] == 1) & (owner == 0),
    }
    vertex = graph.vertex("cnn", 1, 2)
    one = torch.zeros_like(same)
    one[graph.vertex("vit", 0, 1), vertex] = True
    cases[KnockOut(query=("vit", 0, 1), key=("cnn", 1, 2))] = one
    for knockout, gone in cases.items():
        close(knocked_logits(model, pictures, [knockout])[0], by_mask(model, pictures, gone)[0], 1e-10)
        moved = (knocked_logits(model, pictures, [knockout]) - model(pictures).logits).abs().max()
        assert float(moved.detach()) > 1e-6, str(knockout)
    layered = knocked_logits(model, pictures, [KnockOut("cross", layer=1)])
    close(layered, by_mask(model, pictures, ~same, layers=(1,)), 1e-10)


@joint
def test_one_head_of_a_joint_layer(way: str) -> None:
    """All heads one after the other differ; all together are the layer."""
    model, pictures = built(way), seen(way)[:1]
    heads = [KnockOut("cross", layer=0, head=head) for head in range(HEADS)]
    together, whole = knocked_logits(model, pictures, [tuple(heads), KnockOut("cross", layer=0)])
    close(together, whole, 1e-12)
    alone = knocked_logits(model, pictures, heads)
    assert (alone.diff(dim=0).abs().amax(dim=1) > 1e-9).all()


@attentive
def test_all_patches_of_a_backbone_out_is_a_graph_without_it(way: str) -> None:
    if way == "single":
        return
    model, pictures = built(way), seen(way)
    graph = model.patches(pictures)
    out = tuple(KnockOut(patch=graph.locate(v)) for v in range(*graph.slices["vit"].indices(99)))
    with knock_out(model, out, graph):
        found = model(pictures).logits
    close(found, model(pictures, without={"vit"}).logits.detach(), 1e-10)


def test_a_graph_of_other_patches_than_the_models_is_refused() -> None:
    model, pictures = built("combo"), seen("combo")
    said, graph = r"graph: has .* lite 4 × 3.*the pass .* lite 2 × 3.*; pass model\.patches", PatchGraph.of(pictures)
    with pytest.raises(ValueError, match=said), knock_out(model, KnockOut("cross"), graph):
        model(pictures)


# Rollouts of joint layers, by hand: one loop for each formula, no autograd

TWO_THREE = {"two": (1, 2), "three": (1, 3)}


def small(way: str) -> tuple[PatchModel, gf.GridSet]:
    shapes = TWO_THREE if way == "joint" else {"two": (1, 2), "three": (1, 2)}
    return built(way, shapes), seen(way, shapes)[4]


def matrices(model: PatchModel, picture: gf.GridSet) -> list[list[np.ndarray]]:
    """The full matrix of each layer and head."""
    with gf.capture(model) as attention, torch.no_grad():
        model(picture)
    return [
        [attention.dense(layer=layer, head=head).double().numpy() for head in range(HEADS)] for layer in range(DEPTH)
    ]


def slopes(model: PatchModel, picture: gf.GridSet, target: int) -> list[list[np.ndarray]]:
    """Derivative of the centred logit by every single weight, by differences."""
    step, n, found = 1e-5, model.patches(picture).num_vertices, []
    own = model.patches(picture).slices
    for layer in attention_layers(model):
        moves = [(h, i, j, s * step) for s in (1, -1) for h in range(HEADS) for i in range(n) for j in range(n)]

        def attend(name: str, logits: Tensor, moves: list = moves) -> Tensor:
            weights = logits.softmax(dim=-1)
            for copy, (h, i, j, by) in enumerate(moves):
                if own[name].start <= i < own[name].stop:
                    weights[copy, h, i - own[name].start, j] += by
            return weights

        layer.attend = attend
        with torch.no_grad():
            scores = centred(model(picture[[0] * len(moves)]).logits, target).numpy()
        layer.attend = None
        heads = [np.zeros((n, n)) for _ in range(HEADS)]
        for (h, i, j, by), score in zip(moves, scores, strict=True):
            heads[h][i, j] += score / (2 * by)
        found.append(heads)
    return found


def read(model: PatchModel, picture: gf.GridSet, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The readout's weights (queries, n), and the derivative of the centred logit by each, by differences."""
    with torch.no_grad():
        out = model(picture)
        names = picture.names
        weights = torch.cat([out.reading[name].flatten(2) for name in names], dim=2)  # (1, queries, n)
        sizes = [out.reading[name][0, 0].numel() for name in names]
        states = {name: model.readout.norm(out.vertices[name].flatten(2).mT) for name in names}

        def score(rows: Tensor) -> float:
            parts = dict(zip(names, rows.split(sizes, dim=2), strict=True))
            return float(centred(model.head(model.readout.vector(parts, states)), target))

        assert score(weights) == pytest.approx(float(centred(out.logits, target)), abs=1e-9)
        slope = torch.zeros_like(weights)
        for index in np.ndindex(*weights.shape):
            moved = torch.zeros_like(weights)
            moved[index] = 1e-5
            slope[index] = (score(weights + moved) - score(weights - moved)) / 2e-5
    return weights[0].numpy(), slope[0].numpy()


@joint
def test_rollout_of_joint_layers_by_hand(way: str) -> None:
    model, picture = small(way)
    rolled = np.eye(model.patches(picture).num_vertices)
    for heads in matrices(model, picture):
        mixed = 0.5 * sum(heads) / HEADS + 0.5 * np.eye(len(rolled))
        rolled = (mixed / mixed.sum(axis=1, keepdims=True)) @ rolled
    weights, _ = read(model, picture, 0)
    found = relevance(model, picture, method="attention_rollout")
    close(found.flat[0], torch.tensor(weights.mean(axis=0) @ rolled))


@joint
def test_chefers_rules_for_joint_layers_by_hand(way: str) -> None:
    model, picture = small(way)
    target = int(model(picture).logits.argmax())
    rules = np.eye(model.patches(picture).num_vertices)
    for heads, gradients in zip(matrices(model, picture), slopes(model, picture, target), strict=True):
        positive = sum(np.maximum(s * w, 0) for s, w in zip(gradients, heads, strict=True)) / HEADS
        rules = rules + positive @ rules
    weights, slope = read(model, picture, target)
    first = np.maximum(weights * slope, 0).mean(axis=0)
    found = relevance(model, picture, target, method="gradient_rollout").flat[0]
    close(found, torch.tensor(first @ rules), 1e-5)
    assert np.abs(first @ rules - first).max() > 1e-4  # the layers have a say


# Relevance


@attentive
def test_every_method_explains_every_way(way: str) -> None:
    model, pictures = built(way), seen(way)[:2]
    graph = model.patches(pictures)
    for method in METHODS:
        samples = {"samples": 3} if method in ("integrated_gradients", "gradient_shap", "shapley") else {}
        found = relevance(model, pictures, 1, method=method, **samples)
        assert found.graph.shapes == graph.shapes and found.flat.shape == (2, graph.num_vertices)
        assert found.flat.isfinite().all() and found.flat.abs().max() > 0, method


@attentive
def test_ablation_is_what_is_lost_without_each_patch(way: str) -> None:
    model, picture = built(way), seen(way)[3]
    left = torch.stack([left_without(model, picture, v) for v in range(model.patches(picture).num_vertices)])
    lost = centred(model(picture).logits, 2) - centred(left, 2)
    close(relevance(model, picture, 2, method="ablation").flat[0], lost)


@pytest.mark.parametrize("way", WAYS)
def test_integrated_gradients_sum_to_the_change_from_the_mean_patch(way: str) -> None:
    model, pictures = built(way), seen(way)[:2]
    found = relevance(model, pictures, 1, samples=100)
    means = [
        gf.FeatureGrid(grid.name, part.mean[None, :, None, None].expand_as(grid.features).clone())
        for grid, part in zip(pictures.grids, model.projections, strict=True)
    ]
    if way == "voting":  # whose votes are steps
        return
    change = centred(model(pictures).logits, 1) - centred(model(means).logits, 1)
    assert ((found.flat.sum(dim=1) - change).abs() <= 0.02 * change.abs() + 1e-3).all()


def test_a_way_that_resamples_is_explained_on_the_grid_on_which_it_works() -> None:
    model, pictures = built("combo"), seen("combo")[:2]
    assert as_patches(model, pictures).grids[0].shape == (2, 3)
    found = relevance(model, pictures, 1, method="gradient_x_input")
    resampled = relevance(model, model.on_patches(pictures), 1, method="gradient_x_input")
    close(found.flat, resampled.flat)
    assert as_patches(built("joint"), pictures) is pictures


# Dominance, the few patches, the audit


@pytest.mark.parametrize("way", WAYS)
def test_values_add_up_in_every_way(way: str) -> None:
    model, pictures = built(way), seen(way)
    report = gf.dominance(model, pictures, 1)
    change = (report.full - report.none).mean()
    assert sum(report.values.values()) == pytest.approx(float(change), abs=1e-6)
    assert (report.routing is not None) is (way in ATTENTIVE)
    said = {"single": 0, "intra_only": 0, "cross_only": 1 + 6, "combo": 1 + 6, "joint": 1 + 6, "merge": 1 + 6}
    layers = len(model.kinds) * DEPTH * (1 + HEADS) if isinstance(model, PatchModel) else 0
    assert len(report.knockouts) == said.get(way, 0) + layers


@joint
def test_routing_of_joint_layers_is_the_mass_of_each_relation(way: str) -> None:
    model, pictures = built(way), seen(way)[:3]
    table = gf.dominance(model, pictures, 1).routing.set_index(["where", "backbone"])
    with gf.capture(model.float()) as attention, torch.no_grad():
        model(pictures)
    for layer in range(DEPTH):
        for query, key in attention.graph.relations():
            block = attention.intra(query, layer) if query == key else attention.cross(query, key, layer)
            mass = float(block.sum(dim=(-1, -2)).mean())
            row = table.loc[(f"joint {layer}", f"{query} → {key}")]
            assert row["mass"] == pytest.approx(mass, abs=1e-5)
            assert row["even"] == pytest.approx(attention.uniform(query, key, layer) * attention.graph.sizes[key])
    read = table.loc["readout"]
    assert read["mass"].sum() == pytest.approx(1, abs=1e-5) and read["even"].sum() == pytest.approx(1, abs=1e-5)


@attentive
def test_the_few_patches_that_decide(way: str) -> None:
    found = dominant(built(way), seen(way)[3:4], 1, count=2)
    assert len(tuple(found)) == 2 and found.without != found.full
    assert nx.number_of_nodes(found.to_networkx()) == 3


@joint
def test_an_audit_of_a_joint_model(way: str) -> None:
    with drawn_from(0):
        report = gf.audit(built(way), seen(way)[:2], 1, method=("gradient_x_input", "ablation"))
    assert "gradient_x_input" in repr(report) and "ablation" in repr(report)


# The graph of attention


@joint
def test_paths_through_joint_layers_hop_once_a_layer(way: str) -> None:
    """Against all paths of two layers, one by one."""
    _, attention = captured(way)
    graph = attention.graph
    first, second = (attention.dense(layer=layer).double().fill_diagonal_(1) for layer in range(DEPTH))
    start, end = graph.vertex("lite", 1, 2), graph.vertex("cnn", 0, 1)
    products = [float(first[via, start] * second[end, via]) for via in range(graph.num_vertices)]
    found = strongest_paths(attention, ("lite", 1, 2), ("cnn", 0, 1), count=5)
    assert [route.weight for route in found] == pytest.approx(sorted(products, reverse=True)[:5])
    for route in found:
        assert [hop.layer for hop in route.hops] in ([0], [1], [0, 1])
        assert all((hop.kind == "intra") == (hop.start.backbone == hop.end.backbone) for hop in route.hops)


@joint
def test_the_graph_says_which_share_of_each_kinds_mass_its_edges_keep(way: str) -> None:
    _, attention = captured(way)
    dense = attention.dense(layer=1)
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(list(attention.graph.sizes.values())))
    same = owner[:, None] == owner
    graph = attention.graph.to_networkx(attention, layer=1, top=5)
    for kind, part in (("intra", same), ("cross", ~same)):
        expected = dense[part].topk(5).values.sum() / dense[part].sum()
        assert graph.graph["kept"][kind] == pytest.approx(float(expected), rel=1e-5)
    whole = attention.graph.to_networkx(attention, layer=1)
    assert whole.graph["kept"] == pytest.approx({"intra": 1, "cross": 1})


# The explorer


@attentive
def test_the_explorer_opens_on_every_way(way: str) -> None:
    model, pictures = built(way), seen(way)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explorer = gf.Explorer(model, pictures)
    assert explorer._facts["joint"] is (way in JOINT)
    explorer.selected = ("lite", 1, 2)
    total = sum(float(part.sum()) for part in explorer.selection.weights.values())
    assert total == pytest.approx(1 if way in JOINT else len(explorer._facts["kinds"]), abs=1e-5)
    explorer.knocked = ["patch", "lite", 0, 1]
    expected = knocked_logits(model, pictures[0], [KnockOut(patch=Patch("lite", 0, 1))])[0]
    close(explorer.effect.after, expected.detach(), 1e-4)
    explorer.relevance = "ablation"
    names = [backbone["name"] for backbone in explorer._facts["backbones"]]
    assert names == list(pictures.names)


def test_the_explorer_shows_the_one_grid_of_a_way_that_resamples() -> None:
    explorer = gf.Explorer(built("combo"), seen("combo"))
    assert isinstance(explorer._source.model, Combo)
    assert {(one["rows"], one["columns"]) for one in explorer._facts["backbones"]} == {(2, 3)}
