"""What the options of a merge do, and which do not go together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import grafeat as gf
from grafeat.attention.joint import JointAttention
from grafeat.attention.layers import CrossAttention, IntraAttention
from grafeat.fusion.budget import learned
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge, MergeConfig
from grafeat.training import fit

SHAPES = {"lite": (13, 2, 3), "vit": (5, 3, 5), "cnn": (7, 4, 1)}  # channels, rows, columns
B, T, WIDTH, DEPTH, HEADS = 11, 3, 12, 2, 3
BACKBONES = tuple((name, shape[0]) for name, shape in SHAPES.items())


def grid(name: str, shape: tuple[int, int, int]) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = GridSet([grid(name, shape) for name, shape in SHAPES.items()], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1])


def built(seed: int = 0, **options: object) -> GraFeatMerge:
    small = {"num_classes": T, "width": WIDTH, "depth": DEPTH, "heads": HEADS, "queries": 2, "components": 5}
    return GraFeatMerge.for_grids(GRIDS, seed=seed, **{**small, **options})


def shuffled(name: str) -> list[FeatureGrid]:
    """The grids, with the patches of one in another order."""
    _, h, w = SHAPES[name]
    order = torch.randperm(h * w, generator=torch.Generator().manual_seed(0))
    mixed = GRIDS[name].features.flatten(2)[:, :, order].unflatten(2, (h, w))
    return [FeatureGrid(name, mixed) if given.name == name else given for given in GRIDS.grids]


def same(first: GraFeatMerge, second: GraFeatMerge) -> set[str]:
    """The names of the tensors that both have, and that are equal."""
    ours, theirs = first.state_dict(), second.state_dict()
    return {name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])}


# The width of the MLPs


def test_hidden_is_the_width_of_every_layers_mlp() -> None:
    model = built(hidden=17)
    layers = [layer for step in model.steps for layer in step.layers.values()]
    assert len(layers) == 2 * DEPTH
    for layer in layers:
        first, norm, _, last = layer.update.layers[0]
        assert (first.out_features, norm.normalized_shape, last.in_features) == (17, (17,), 17)
    each = (2 * WIDTH + 1) + 2 + WIDTH  # a hidden channel: into it, its LayerNorm, out of it
    assert learned(built(hidden=18)) - learned(model) == 2 * DEPTH * each


def test_the_default_is_twice_the_width() -> None:
    assert same(built(hidden=2 * WIDTH), built()) == set(built().state_dict())


# Positions


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"readout": "relation"}, {"readout": "mean"}])
def test_without_positions_the_order_of_patches_does_not_matter(options: dict) -> None:
    placed, blind = built(**options), built(positions=False, **options)
    with torch.no_grad():
        for model in (placed, blind):
            for step in model.steps:
                for layer in step.layers.values():
                    layer.update.layers[0][-1].weight.mul_(30)  # messages that matter
    for name in SHAPES:
        moved = shuffled(name)
        torch.testing.assert_close(blind(moved).logits, blind(GRIDS).logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(placed(moved).logits, placed(GRIDS).logits, atol=1e-3)


def test_without_positions_nothing_of_them_is_learned_and_all_else_starts_alike() -> None:
    placed, blind = built(seed=7), built(seed=7, positions=False)
    gone = set(placed.state_dict()) - set(blind.state_dict())
    assert gone == {"place.weight", "rotary.frequencies", "readout.place", "readout.exchange.place"}
    assert same(placed, blind) == set(blind.state_dict())


# Relations


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"readout": "relation"}])
def test_without_relations_they_stay_as_they_begin(options: dict) -> None:
    model = built(relations=False, cross_drop=0.0, **options)
    fit(model, GRIDS, val=GRIDS, epochs=2, progress=False)
    layers = [layer for step in model.steps for layer in step.layers.values()]
    for layer in layers:
        assert torch.equal(layer.relation, torch.ones(len(layer.relations)))
        if isinstance(layer, JointAttention):
            assert torch.equal(layer.priors, torch.ones(len(layer.relations), HEADS))
    assert model.readout.relation is None and "readout" not in model.relation_embeddings()
    assert not {name for name, _ in model.named_parameters() if "relation" in name or "priors" in name}


def test_without_relations_all_else_starts_alike() -> None:
    learning, fixed = built(seed=7), built(seed=7, relations=False)
    assert set(learning.state_dict()) - set(fixed.state_dict()) == {"readout.relation"}
    assert same(learning, fixed) == set(fixed.state_dict())
    torch.testing.assert_close(learning(GRIDS).logits, fixed(GRIDS).logits)  # they begin equal
    count = sum(len(layer.relations) for step in learning.steps for layer in step.layers.values())
    assert learned(learning) - learned(fixed) == count + len(SHAPES)


# Joint layers


def test_a_joint_step_holds_one_layer() -> None:
    for step in built(joint=True).steps:
        assert list(step.layers) == ["joint"] and isinstance(step.joint, JointAttention)
        assert step.intra is None and step.cross is None
    for step in built(parted=False).steps:
        assert [type(layer) for layer in step.layers.values()] == [IntraAttention, CrossAttention]
    kinds = [[type(layer) for layer in step.layers.values()] for step in built().steps]
    assert kinds == [[IntraAttention]] * DEPTH + [[CrossAttention]] * DEPTH
    assert "2 steps of joint" in repr(built(joint=True))
    assert set(built(joint=True).relation_embeddings()) == {"joint 0", "joint 1", "readout"}
    assert len(built(joint=True).relation_embeddings()["joint 1"]) == 9


def test_balance_reaches_the_joint_layers() -> None:
    assert all(step.joint.balance for step in built(joint=True).steps)
    assert not any(step.joint.balance for step in built(joint=True, balance=False).steps)


def test_a_joint_model_without_a_backbone_never_had_it() -> None:
    model = built(joint=True)
    expected = model([given for given in GRIDS.grids if given.name != "vit"])
    assert torch.equal(model(GRIDS, without={"vit"}).logits, expected.logits)


def test_a_lone_backbone_may_be_joint() -> None:
    alone = GraFeatMerge.for_grids(GRIDS.only("vit"), num_classes=T, width=WIDTH, heads=HEADS, joint=True)
    assert alone(GRIDS.only("vit")).logits.shape == (B, T)


def final(model: GraFeatMerge, grids: list[FeatureGrid]) -> Tensor:
    torch.manual_seed(0)
    return model(grids).vertices["lite"]


def test_in_training_a_joint_layer_drops_the_cross_edges_of_pictures() -> None:
    """With all of them dropped, what others see does not reach a backbone; in eval it does."""
    model = built(joint=True, cross_drop=1 - 1e-9, backbone_drop=0.0)
    other = [GRIDS["lite"], *(FeatureGrid(g.name, g.features.flip(0)) for g in GRIDS.grids[1:])]
    model.train()
    assert torch.equal(final(model, other), final(model, list(GRIDS.grids)))
    model.eval()
    assert not torch.equal(final(model, other), final(model, list(GRIDS.grids)))


# What does not go together


@pytest.mark.parametrize("missing", ["intra", "cross"])
def test_joint_needs_both_kinds(missing: str) -> None:
    with pytest.raises(ValueError, match=f"joint: got True with .*{missing}=False.*; leave joint out for one kind"):
        MergeConfig(BACKBONES, T, joint=True, **{missing: False})


def test_hidden_is_one_or_more() -> None:
    with pytest.raises(ValueError, match="hidden: got 0; expected 1 or more"):
        MergeConfig(BACKBONES, T, hidden=0)


def test_the_kinds_of_edges() -> None:
    assert MergeConfig(BACKBONES, T).kinds == MergeConfig(BACKBONES, T, joint=True).kinds == ("intra", "cross")
    assert MergeConfig(BACKBONES, T, cross=False).kinds == ("intra",)
    assert MergeConfig(BACKBONES, T, intra=False, cross=False).kinds == ()


# Numbers


def test_numbers_of_numpy_become_pythons_own_so_that_a_model_can_be_saved(tmp_path: Path, unchecked: None) -> None:
    model = built(num_classes=np.int64(T), width=np.int32(WIDTH), seed=np.int64(3))
    assert {type(value) for value in (model.config.num_classes, model.config.width)} == {int}
    assert gf.load(gf.save(model, tmp_path / "model.safetensors")).config == model.config


@pytest.mark.parametrize(("name", "value"), [("num_classes", torch.tensor(T)), ("width", 12.0), ("depth", True)])
def test_what_counts_something_is_a_whole_number(name: str, value: object, unchecked: None) -> None:
    with pytest.raises(TypeError, match=f"{name}: got .*; expected a whole number"):
        built(**{name: value})
