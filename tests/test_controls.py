"""Controls say what they are said to say, and nothing about the model."""

import copy

import torch

import grafeat as gf
from grafeat.explanations.controls import CONTROLS, control

SHAPES = {"lite": (2, 3), "vit": (5, 1)}
B = 3


def grids() -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    return gf.GridSet(
        [gf.FeatureGrid(name, torch.randn(B, 7, *shape, generator=generator)) for name, shape in SHAPES.items()]
    )


def built() -> gf.GraFeatMerge:
    return gf.GraFeatMerge.for_grids(grids(), num_classes=2, width=12, heads=3, depth=1)


TARGET = torch.zeros(B, dtype=torch.long)


def test_no_control_looks_at_what_was_learned() -> None:
    model = built()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 1
    for method in CONTROLS:
        one, two = (control(which, grids(), TARGET, method=method, seed=5) for which in (model, other))
        assert torch.equal(one.flat, two.flat)
        assert one.method == method and {n: m.shape[1:] for n, m in one.maps.items()} == SHAPES


def test_norm_and_edges_by_hand() -> None:
    model = built()
    projection = model.projections[0]
    states = (grids()["lite"].features.flatten(2).mT - projection.mean) @ projection.basis
    states = states.unflatten(1, SHAPES["lite"])  # (b, 2, 3, k)
    norm = control(model, grids(), TARGET, method="norm").maps["lite"]
    torch.testing.assert_close(norm, states.norm(dim=-1))
    edges = control(model, grids(), TARGET, method="edges").maps["lite"]
    corner = (states[:, 0, 0] - states[:, 0, 1]).square().sum(-1) + (states[:, 0, 0] - states[:, 1, 0]).square().sum(-1)
    torch.testing.assert_close(edges[:, 0, 0], corner.sqrt())


def test_constant_is_constant_and_random_follows_its_seed() -> None:
    flat = control(built(), grids(), TARGET, method="constant").flat
    assert torch.equal(flat, torch.ones(B, 11))
    drawn = [control(built(), grids(), TARGET, method="random", seed=seed).flat for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert float(drawn[0].min()) < 0


def test_maps_follow_the_order_of_the_grids() -> None:
    turned = grids().only("vit", "lite")
    found = control(built(), turned, TARGET, method="norm")
    assert found.graph.names == ("vit", "lite") == tuple(found.maps)
    torch.testing.assert_close(found.maps["vit"], control(built(), grids(), TARGET, method="norm").maps["vit"])
