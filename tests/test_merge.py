"""The merge takes any backbones on any grids, in any order; leaving one out is as if it had never been there."""

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from grafeat import merge
from grafeat.attention.capturing import capture
from grafeat.attention.layers import PatchAttention, PerBackbone
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge, MergeConfig
from grafeat.models import MergeOutput
from grafeat.readout import READOUTS, ReadoutKind

SHAPES = {"lite": (13, 2, 3), "vit": (5, 1, 7), "cnn": (3, 5, 1)}  # channels, rows, columns
NAMES = tuple(SHAPES)
B, T, WIDTH, HEADS, DEPTH, QUERIES = 7, 3, 12, 3, 2, 2


def grid(name: str, shape: tuple[int, int, int], b: int = B, **options: tuple[float, ...]) -> FeatureGrid:
    seed = sum(name.encode()) + sum(shape)
    return FeatureGrid(name, torch.randn(b, *shape, generator=torch.Generator().manual_seed(seed)), **options)


GRIDS = [grid(name, shape) for name, shape in SHAPES.items()]


def built(
    grids: Sequence[FeatureGrid] | GridSet = GRIDS, *, stirred: bool = True, **options: object
) -> GraFeatMerge:
    """A small model; its messages and relation embeddings matter, unless it is left as it starts."""
    small = {
        "width": WIDTH,
        "heads": HEADS,
        "depth": DEPTH,
        "queries": QUERIES,
        "components": 5,
        "shared": False,
    }
    model = GraFeatMerge.for_grids(grids, num_classes=T, **{**small, **options})
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if stirred and (name.endswith("relation") or ".update." in name):
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def close(found: Tensor, expected: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def same(found: MergeOutput, expected: MergeOutput, *, atol: float = 2e-5) -> None:
    """All that two outputs say is the same, whatever the order of their backbones."""
    close(found.logits, expected.logits, atol)
    close(found.vector, expected.vector, atol)
    for part in ("vertices", "own", "reading"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        for name in ours:
            close(ours[name], theirs[name], atol)


# Order


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("readout", READOUTS)
def test_the_order_of_backbones_does_not_matter(readout: ReadoutKind, shared: bool) -> None:
    model = built(readout=readout, shared=shared)
    expected = model(GRIDS)
    for order in ((2, 0, 1), (1, 0, 2)):
        same(model([GRIDS[m] for m in order]), expected)


@pytest.mark.parametrize("readout", READOUTS)
def test_the_order_of_vertices_does_not_matter(readout: ReadoutKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches are shuffled on each grid and keep their places: no more than the numbers of the vertices changes."""
    model, expected = built(readout=readout), built(readout=readout)(GRIDS)
    graph = PatchGraph.of(GRIDS)
    orders = [
        torch.randperm(size, generator=torch.Generator().manual_seed(3)) for size in graph.sizes.values()
    ]
    moved = torch.cat([own.start + order for own, order in zip(graph.slices.values(), orders, strict=True)])
    graph.__dict__["centres"] = graph.centres[moved]
    monkeypatch.setattr(merge.PatchGraph, "of", lambda grids: graph)
    shuffled = [
        FeatureGrid(grid.name, grid.features.flatten(2)[..., order].unflatten(-1, grid.shape))
        for grid, order in zip(GRIDS, orders, strict=True)
    ]
    found = model(shuffled)
    close(found.logits, expected.logits)
    for name, order in zip(NAMES, orders, strict=True):
        close(found.vertices[name].flatten(2), expected.vertices[name].flatten(2)[..., order])
        close(found.reading[name].flatten(2), expected.reading[name].flatten(2)[..., order])


def test_a_picture_is_judged_by_itself_whatever_stands_beside_it() -> None:
    model, together = built(), built()(GRIDS)
    alone = model([grid[4] for grid in GRIDS])
    close(alone.logits, together.logits[4:5])
    close(alone.vertices["vit"], together.vertices["vit"][4:5])


# Places


def test_a_patch_is_known_by_its_place() -> None:
    """Mirrored features are another picture; so are the same features on another part of the picture."""
    model, here = built(), built()(GRIDS).logits
    mirrored = [FeatureGrid(grid.name, grid.features.flip(3)) for grid in GRIDS]
    elsewhere = [FeatureGrid(GRIDS[0].name, GRIDS[0].features, (0.5, 0.0, 1.0, 0.5)), *GRIDS[1:]]
    for other in (mirrored, elsewhere):
        assert (model(other).logits - here).abs().max() > 1e-2


# Backbones left out


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("gone", [{"vit"}, {"lite", "vit"}, {"cnn", "lite"}])
def test_without_equals_a_graph_that_never_had_it_to_the_bit(gone: set[str], readout: ReadoutKind) -> None:
    model = built(readout=readout)
    left = [grid for grid in GRIDS if grid.name not in gone]
    found, expected = model(GRIDS, without=gone), model(left)
    assert torch.equal(found.logits, expected.logits)
    assert set(found.vertices) == set(found.own) == set(found.reading) == set(NAMES) - gone
    close(
        sum(weights.flatten(2).sum(dim=2) for weights in found.reading.values()),
        torch.ones(B, len(found.reading["cnn" if "cnn" not in gone else "vit"][0])),
    )


def never_had(model: GraFeatMerge, kept: tuple[str, ...]) -> GraFeatMerge:
    """A model of these backbones alone, built from another seed, with the other's parameters for them."""
    backbones = tuple((name, channels) for name, channels in model.config.backbones if name in kept)
    torch.manual_seed(5)
    cross = len(kept) > 1 or not model.config.silent  # it is read before its cross layers, so it needs none
    smaller = GraFeatMerge(dataclasses.replace(model.config, backbones=backbones, cross=cross)).eval()
    places = [NAMES.index(name) for name in kept]
    for path, ours in smaller.named_modules():
        if isinstance(ours, PerBackbone):
            theirs = model.get_submodule(path)
            for m, layer in enumerate(ours.layers):
                layer.load_state_dict(theirs.layers[0 if theirs.shared else places[m]].state_dict())
        elif isinstance(ours, PatchAttention):
            theirs = model.get_submodule(path)
            numbers = [theirs.relations.index(relation) for relation in ours.relations]
            ours.relation.data = theirs.relation.data[numbers]
    for ours, place in zip(smaller.projections, places, strict=True):
        ours.load_state_dict(model.projections[place].state_dict())
    smaller.types.data = model.types.data[places]
    if smaller.readout.relation is not None:
        smaller.readout.relation.data = model.readout.relation.data[places]
    if smaller.readout.place is not None:
        smaller.readout.place.data = model.readout.place.data
    both = ("readout.interplay.say", "readout.exchange.say") if smaller.readout.interplay else ()
    if smaller.readout.exchange is not None:
        smaller.readout.exchange.place.data = model.readout.exchange.place.data
    for part in ("place", "rotary", "head", "readout.norm", *both):
        smaller.get_submodule(part).load_state_dict(model.get_submodule(part).state_dict())
    return smaller


def of_kind(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kept", [("lite", "cnn"), ("vit",)])
def test_without_equals_a_model_built_without(
    kept: tuple[str, ...], readout: ReadoutKind, shared: bool
) -> None:
    model = built(readout=readout, shared=shared)
    found = model(GRIDS, without=set(NAMES) - set(kept))
    expected = never_had(model, kept)([grid for grid in GRIDS if grid.name in kept])
    same(found, expected, atol=0)


# Any number of backbones, any grids


@pytest.mark.parametrize("count", range(1, 9))
def test_one_to_eight_backbones_on_unequal_and_rectangular_grids(count: int) -> None:
    grids = [grid(f"b{m}", (2 + m, 1 + m % 3, 1 + (m * 2) % 5), b=2) for m in range(count)]
    model = built(grids, depth=1, cross_drop=0.0, backbone_drop=0.0)
    out = model.train()(grids)
    assert out.logits.shape == (2, T)
    assert out.vector.shape == (2, WIDTH)
    assert {name: tuple(state.shape) for name, state in out.vertices.items()} == {
        grid.name: (2, WIDTH, *grid.shape) for grid in grids
    }
    assert {name: tuple(weights.shape) for name, weights in out.reading.items()} == {
        grid.name: (2, QUERIES + 2 * (count > 1), *grid.shape) for grid in grids
    }
    assert {name: tuple(logits.shape) for name, logits in out.own.items()} == {
        grid.name: (2, T) for grid in grids
    }
    out.logits.sum().backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None
    )


def test_other_grid_sizes_than_those_trained_on() -> None:
    model = built()
    finer = [grid(name, (channels, 2 * h + 1, w + 4)) for name, (channels, h, w) in SHAPES.items()]
    out = model(finer)
    assert {name: tuple(state.shape) for name, state in out.vertices.items()} == {
        "lite": (B, WIDTH, 5, 7), "vit": (B, WIDTH, 3, 11), "cnn": (B, WIDTH, 11, 5)
    }  # fmt: skip
    close(sum(weights.sum(dim=(2, 3)) for weights in out.reading.values()), torch.ones(B, QUERIES + 2))


@pytest.mark.parametrize("balance", [True, False])
def test_balance_reaches_every_cross_layer(balance: bool) -> None:
    steps = built(balance=balance).steps
    assert [step.cross.balance for step in steps if step.cross is not None] == [balance] * DEPTH


# What is shown


def test_capture_changes_no_bit_of_the_output() -> None:
    model = built()
    before = model(GRIDS)
    with capture(model) as attention:
        during = model(GRIDS)
    after = model(GRIDS)
    for out in (during, after):
        assert torch.equal(out.logits, before.logits)
        assert all(torch.equal(out.vertices[name], before.vertices[name]) for name in NAMES)
    assert attention.intra("lite", layer=DEPTH - 1, head=0).shape == (B, 2, 3, 2, 3)
    cross = [attention.cross("lite", key, layer=0).flatten(4).sum(dim=4) for key in ("vit", "cnn")]
    close(sum(cross), torch.ones(B, HEADS, 2, 3))


def test_states_are_those_before_and_after_every_step() -> None:
    model = built(depth=3)
    out = model(GRIDS, states=True)
    assert len(out.states) == 1 + 3 + 3
    assert len(built(depth=3, parted=False)(GRIDS, states=True).states) == 4
    for name in NAMES:
        assert torch.equal(out.states[-1][name], out.vertices[name])
    for before, after in itertools.pairwise(out.states):
        assert all((before[name] - after[name]).abs().max() > 1e-3 for name in NAMES)
    assert model(GRIDS).states == ()
    x = torch.cat([state.flatten(2).mT for state in out.states[0].values()], dim=1)
    graph = PatchGraph.of(GRIDS)
    stepped = model.steps[0](x, graph, model.rotary(graph.centres))
    close(stepped[:, graph.slices["cnn"]].mT.unflatten(-1, (5, 1)), out.states[1]["cnn"])


def test_a_vertex_starts_as_its_features_its_place_and_its_backbone() -> None:
    model = built()
    start = model(GRIDS, states=True).states[0]
    number = NAMES.index("vit")
    projected = model.projections[number](GRIDS[number].features)  # (b, patches, d), row by row
    places = merge.fourier_features(GRIDS[number].centres) @ model.place.weight.T
    close(start["vit"].flatten(2).mT, projected + places + model.types[number])


def test_reading_weights_sum_to_one_over_all_backbones() -> None:
    for readout in READOUTS:
        reading = built(readout=readout)(GRIDS).reading
        total = sum(weights.sum(dim=(2, 3)) for weights in reading.values())
        close(total, torch.ones(B, {"each": QUERIES + 2, "mean": 1}.get(readout, QUERIES)))


def test_without_an_interplay_it_starts_as_the_average_of_what_the_backbones_say_alone() -> None:
    out = built(stirred=False, interplay=False, parted=False)(GRIDS)
    close(out.logits, torch.stack(list(out.own.values())).mean(dim=0))


def of_others(model: GraFeatMerge) -> MergeOutput:
    """The output where all backbones but `lite` see other pictures."""
    return model([GRIDS[0], *(FeatureGrid(grid.name, grid.features.flip(0)) for grid in GRIDS[1:])])


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"interplay": False}, {"depth": 1}], ids=str)
def test_what_a_backbone_says_by_itself_is_read_before_it_hears_of_others(options: dict) -> None:
    """To the bit, although its vertices have heard of them in the end; without the parting it has, too."""
    model = built(**options)
    out, other = model(GRIDS), of_others(model)
    assert torch.equal(other.own["lite"], out.own["lite"])
    assert (other.vertices["lite"] - out.vertices["lite"]).abs().max() > 1e-3
    assert (other.logits - out.logits).abs().max() > 1e-3
    whole = built(**options, parted=False)
    assert (of_others(whole).own["lite"] - whole(GRIDS).own["lite"]).abs().max() > 1e-3


def test_apart_is_what_is_said_without_the_exchange() -> None:
    """Cross layers do not change it, and the exchange is all that is added to it."""
    model = built()
    out = model(GRIDS)
    with torch.no_grad():
        for step in model.steps[DEPTH:]:
            step.cross.update.layers[0][-1].weight.mul_(7)
    louder = model(GRIDS)
    assert torch.equal(louder.apart, out.apart)
    assert (louder.logits - out.logits).abs().max() > 1e-2
    with torch.no_grad():
        model.readout.exchange.say[2].weight.zero_()
    close(model(GRIDS).logits, out.apart)
    lone = model(GRIDS, without={"lite", "vit"})
    assert lone.apart is None
    close(lone.logits, lone.own["cnn"])


@pytest.mark.parametrize(
    "options",
    [{"parted": False}, {"readout": "relation"}, {"cross": False}, {"intra": False}, {"joint": True}],
    ids=str,
)
def test_without_an_exchange_there_is_nothing_apart(options: dict) -> None:
    model = built(**options)
    assert not model.config.silent and model.readout.exchange is None
    assert model(GRIDS).apart is None
    kinds = ["joint"] if model.config.joint else list(model.kinds)
    assert [list(step.layers) for step in model.steps] == [kinds] * DEPTH


@pytest.mark.parametrize("width", [12, 24, 60])
def test_interplay_and_exchange_are_together_as_large_as_an_interplay_alone(width: int) -> None:
    """So that a merge without cross layers is as large as one that has an exchange, but for those layers."""

    def size(part: nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    both, alone = built(width=width).readout, built(width=width, cross=False).readout
    assert size(both.interplay) + size(both.exchange) == pytest.approx(size(alone.interplay), rel=0.02)
    assert both.interplay.enter.layers[0].out_features == 4 * width


def test_the_vector_is_public_and_the_head_reads_it() -> None:
    model = built()
    out = model(GRIDS)
    assert torch.equal(model.embed(GRIDS), out.vector)
    assert torch.equal(model.embed(GRIDS, without={"vit"}), model(GRIDS, without={"vit"}).vector)
    assert torch.equal(model.head(out.vector), out.logits)


def test_a_model_prints_what_it_is() -> None:
    model = built()
    learned = sum(parameter.numel() for parameter in model.parameters())
    assert repr(model) == "\n".join(
        [
            "GraFeatMerge: 3 backbones → 2 steps of intra, then 2 of cross → readout 'each' → 3 classes",
            "  lite  13 channels",
            "  vit   5 channels",
            "  cnn   3 channels",
            f"  width 12, 3 heads, own layers, {learned:,} parameters",
        ]
    )
    assert "2 steps of intra + cross" in repr(built(parted=False))
    assert "2 steps of no attention" in repr(built(intra=False, cross=False))
    assert "2 steps of cross → readout 'mean'" in repr(built(intra=False, readout="mean"))
    assert "shared layers" in repr(built(shared=True))


# Seeds


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (built(stirred=False, seed=seed).state_dict() for seed in (3, 3, 5))
    assert all(torch.equal(first[name], again[name]) for name in first)
    differ = {name for name in first if not torch.equal(first[name], other[name])}
    assert {"types", "place.weight", "rotary.frequencies", "head.weight", "readout.place"} < differ
    assert "projections.0.basis" not in differ  # few patches: all of them are looked at, whatever the seed


def test_making_a_model_leaves_the_global_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    built(seed=3, stirred=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == [11]  # by the test itself, not by the model


def test_a_model_is_made_from_a_sample_and_one_picture_of_each_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others stay where they are: a million pictures' grids are no matter of memory."""
    taken, split = [], GridSet(GRIDS, torch.arange(B) % T).split(val=0.2, test=0.3)
    monkeypatch.setattr(
        "grafeat.grids.take", lambda features, rows: taken.append(len(rows)) or features[rows]
    )
    whole = GraFeatMerge.for_grids(split, num_classes=T, seed=3)
    assert set(taken) == {1}
    monkeypatch.undo()
    same = GraFeatMerge.for_grids(list(split.train.grids), num_classes=T, seed=3)
    for name, value in same.state_dict().items():
        torch.testing.assert_close(whole.state_dict()[name], value, rtol=0, atol=0)


def test_statistics_come_from_the_training_part_alone() -> None:
    parts = {"train": torch.arange(3), "val": torch.tensor([3]), "test": torch.tensor([4, 5, 6])}
    model = built(GridSet(GRIDS, [0, 1, 2, 0, 1, 2, 0], parts=parts))
    expected = built([grid[:3] for grid in GRIDS])
    whole = built()
    for m in range(len(NAMES)):
        assert torch.equal(model.projections[m].mean, expected.projections[m].mean)
        assert torch.equal(model.projections[m].basis, expected.projections[m].basis)
        assert not torch.equal(model.projections[m].mean, whole.projections[m].mean)


def test_classes_come_from_the_set_where_they_fit() -> None:
    labels = [0, 1, 2, 0, 1, 2, 0]
    assert built(GridSet(GRIDS, labels, classes=["cat", "dog", "owl"])).classes == ("cat", "dog", "owl")
    assert built(GridSet(GRIDS, labels, classes=["cat", "dog", "owl", "yak"])).classes == ("0", "1", "2")
    assert built().config.classes == ()


def test_components_are_no_more_than_channels() -> None:
    model = built(components=5)
    assert [tuple(part.basis.shape) for part in model.projections] == [(13, 5), (5, 5), (3, 3)]


def test_options_reach_the_configuration() -> None:
    """Every option of MergeConfig is one of for_grids, with the same default."""
    options = {
        "width": 20, "depth": 1, "heads": 5, "readout": "relation", "queries": 3, "components": 2, "shared": True,
        "intra": False, "cross": False, "balance": False, "cross_drop": 0.3, "backbone_drop": 0.7,
        "hidden": 7, "positions": False, "relations": False, "joint": False,
        "interplay": False, "parted": False,
    }  # fmt: skip
    given = {"backbones", "num_classes", "classes"}
    assert options.keys() | given == {field.name for field in dataclasses.fields(MergeConfig)}
    config = GraFeatMerge.for_grids(GRIDS, num_classes=T, **options).config
    assert {name: getattr(config, name) for name in options} == options
    assert config.backbones == (("lite", 13), ("vit", 5), ("cnn", 3))
    default = GraFeatMerge.for_grids(GRIDS, num_classes=T).config
    assert default == MergeConfig(backbones=default.backbones, num_classes=T)


@pytest.mark.parametrize("shared", [True, False])
def test_attention_layers_are_shared_or_each_backbones_own(shared: bool) -> None:
    blocks = of_kind(built(shared=shared).steps, PerBackbone)
    assert [len(block.layers) for block in blocks] == [1 if shared else len(NAMES)] * 4 * DEPTH


@pytest.mark.parametrize(("intra", "cross"), [(True, False), (False, True), (False, False)])
def test_layers_may_be_absent(intra: bool, cross: bool) -> None:
    model = built(intra=intra, cross=cross)
    kinds = [layer.kind for layer in of_kind(model, PatchAttention)]
    assert kinds == (["intra"] * intra + ["cross"] * cross) * DEPTH
    alone, together = model(GRIDS, without={"lite", "cnn"}), model(GRIDS)
    heard = (alone.vertices["vit"] - together.vertices["vit"]).abs().max()
    assert (heard > 1e-3) == cross  # without cross layers no vertex hears of another backbone
    if not (intra or cross):
        close(model(GRIDS, states=True).states[0]["vit"], together.vertices["vit"], atol=0)


# Training


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("count", [2, 3])
def test_every_parameter_receives_gradient_in_training(count: int, readout: ReadoutKind) -> None:
    """As it starts; every single relation embedding above all."""
    model = built(GRIDS[:count], stirred=False, readout=readout, cross_drop=0.0, backbone_drop=0.0).train()
    torch.manual_seed(0)
    (model(GRIDS[:count]).logits * torch.randn(B, T)).sum().backward()
    relations = 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("relation"):
            relations += len(parameter)
            assert parameter.grad.abs().min() > 1e-7, name
        else:
            assert parameter.grad.abs().max() > 1e-7, name
    in_readout = count if readout in ("each", "relation") else 0
    assert relations == DEPTH * (count + count * (count - 1)) + in_readout


def test_cross_messages_are_dropped_picture_by_picture_in_training_alone() -> None:
    b = 211
    grids = [grid(name, shape, b) for name, shape in SHAPES.items()]
    model = built(cross_drop=0.7, backbone_drop=0.0)
    deaf = built(cross_drop=0.7, backbone_drop=0.0)
    for step in deaf.steps[DEPTH:]:
        step.cross.relation.data.zero_()
    torch.manual_seed(0)
    with torch.no_grad():
        heard, unheard, trained = model(grids).logits, deaf(grids).logits, model.train()(grids).logits
        again = model.eval()(grids).logits
    assert torch.equal(again, heard)
    dropped = (trained - unheard).abs().amax(dim=1) < 1e-5
    kept = (trained - heard).abs().amax(dim=1) < 1e-5
    assert bool((dropped ^ kept).all())
    assert 0.6 < dropped.double().mean() < 0.8


def test_whole_backbones_are_dropped_in_training_alone() -> None:
    model = built(depth=1, cross_drop=0.0, backbone_drop=0.5)
    small = [grid[:1] for grid in GRIDS]
    torch.manual_seed(0)
    with torch.no_grad():
        assert all(set(model(small).vertices) == set(NAMES) for _ in range(20))
        seen = [model.train()(small) for _ in range(60)]
        gone = [set(NAMES) - set(out.vertices) for out in seen]
        assert all(set(model([small[1]]).vertices) == {"vit"} for _ in range(20))  # the last one stays
        model.eval()
        for out, names in zip(seen[:20], gone, strict=False):
            close(out.logits, model(small, without=names).logits)
    assert max(map(len, gone)) == 1
    assert set().union(*gone) == set(NAMES)
    assert 18 < sum(map(len, gone)) < 42


def test_a_new_model_drops_nothing_until_it_is_trained() -> None:
    model = GraFeatMerge.for_grids(GRIDS, num_classes=T, width=WIDTH, heads=HEADS, backbone_drop=0.9)
    assert not model.training
    assert all(set(model(GRIDS).vertices) == set(NAMES) for _ in range(9))


def test_calibration_moves_the_readout_to_the_better_backbone() -> None:
    """Over more pictures than one batch of it holds."""
    labels = torch.arange(301) % T
    said = F.one_hot(labels, 5).float()[:, :, None, None]
    lite, vit = grid("lite", (5, 2, 3), 301), grid("vit", (5, 1, 2), 301)
    grids = GridSet([lite, FeatureGrid("vit", vit.features / 5 + 3 * said)], labels)
    model = built(grids, depth=1, intra=False, cross=False)
    with torch.no_grad():  # a head that reads the class out of `vit`, whatever it says of `lite`
        vectors = model(grids.only("vit")).vector
        model.head.weight.copy_(3 * torch.linalg.lstsq(vectors, F.one_hot(labels, T).float()).solution.T)
    model.train().calibrate(grids)
    assert not model.training  # nothing was dropped meanwhile
    assert model.readout.relation.detach().softmax(dim=0)[1] > 0.7


def test_relation_embeddings_are_reported_by_relation_and_centred() -> None:
    model = built()
    found = model.relation_embeddings()
    assert list(found) == ["intra 0", "intra 1", "cross 0", "cross 1", "readout"]
    alternating = built(parted=False).relation_embeddings()
    assert list(alternating) == ["intra 0", "cross 0", "intra 1", "cross 1", "readout"]
    assert set(found["intra 1"]) == set(found["readout"]) == {(name, name) for name in NAMES}
    assert set(found["cross 0"]) == set(itertools.permutations(NAMES, 2))
    layer = model.steps[DEPTH + 1].cross
    for relation, value in found["cross 1"].items():
        expected = layer.relation[layer.relations.index(relation)] - layer.relation.mean()
        assert value == pytest.approx(expected.item(), abs=1e-6)
    assert all(sum(layer.values()) == pytest.approx(0, abs=1e-5) for layer in found.values())
    assert list(built(GRIDS[:1]).relation_embeddings()) == ["intra 0", "intra 1"]
    assert list(built(readout="mean", intra=False).relation_embeddings()) == ["cross 0", "cross 1"]


# Number types


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("readout", READOUTS)
def test_a_model_works_in_other_number_types(readout: ReadoutKind, dtype: torch.dtype, atol: float) -> None:
    expected = built(readout=readout)(GRIDS).logits
    found = built(readout=readout).to(dtype)(GRIDS).logits
    assert found.dtype == dtype
    close(found.float(), expected, atol=atol)


# Attribution: captum as an oracle


def test_integrated_gradients_go_through_the_model_and_are_complete() -> None:
    model = built().double()
    features = tuple(grid.features.double() for grid in GRIDS)
    baselines = tuple(torch.zeros_like(part) for part in features)

    def logits(*parts: Tensor) -> Tensor:
        return model([FeatureGrid(name, part) for name, part in zip(NAMES, parts, strict=True)]).logits

    attributions, gap = IntegratedGradients(logits).attribute(
        features, baselines, target=1, n_steps=64, return_convergence_delta=True
    )
    with torch.no_grad():
        moved = (logits(*features) - logits(*baselines))[:, 1]
    assert gap.abs().max() < 1e-4
    total = sum(part.sum(dim=(1, 2, 3)) for part in attributions)
    torch.testing.assert_close(total, moved, atol=1e-4, rtol=1e-4)
    assert all(
        part.shape == feature.shape and part.any()
        for part, feature in zip(attributions, features, strict=True)
    )
    assert moved.abs().max() > 1e-2


# What does not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width: got 0; expected 1 or more"),
        ({"depth": 0}, "depth: got 0; expected 1 or more"),
        ({"heads": -1}, "heads: got -1; expected 1 or more"),
        ({"queries": 0}, "queries: got 0; expected 1 or more"),
        ({"components": 0}, "components: got 0; expected 1 or more"),
        ({"width": 16, "heads": 3}, "width: got 16 for 3 heads; expected a multiple of 6.*use 18$"),
        ({"width": 12, "heads": 4}, "width: got 12 for 4 heads; expected a multiple of 8.*use 16$"),
        ({"width": 1, "heads": 2}, "width: got 1 for 2 heads; expected a multiple of 4.*use 4$"),
        ({"cross_drop": 1.0}, r"cross_drop: got 1.0; expected a share in \[0, 1\)"),
        ({"cross_drop": float("nan")}, "cross_drop: got nan"),
        ({"backbone_drop": -0.1}, r"backbone_drop: got -0.1; expected a share in \[0, 1\)"),
        ({"num_classes": 1}, "num_classes: got 1; expected 2 or more"),
    ],
)
def test_values_out_of_range_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraFeatMerge.for_grids(GRIDS, **{"num_classes": T, **options})


def test_an_unknown_readout_is_named(unchecked: None) -> None:
    with pytest.raises(
        ValueError, match="readout: got 'max'; expected one of each, relation, attention, mean"
    ):
        GraFeatMerge.for_grids(GRIDS, num_classes=T, readout="max")


def test_two_backbones_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="grids: the name 'lite' is there twice"):
        GraFeatMerge.for_grids([GRIDS[0], GRIDS[0]], num_classes=T)
    with pytest.raises(ValueError, match="backbones: got lite, lite; expected different names; use name="):
        MergeConfig(backbones=(("lite", 3), ("lite", 5)), num_classes=T)


def test_no_backbones_and_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="grids: got none; expected at least one FeatureGrid"):
        GraFeatMerge.for_grids([], num_classes=T)
    with pytest.raises(ValueError, match="backbones: got none"):
        GraFeatMerge(MergeConfig(backbones=(), num_classes=T))
    with pytest.raises(ValueError, match="grids: got no pictures for backbone 'lite'; expected some"):
        GraFeatMerge.for_grids([grid[:0] for grid in GRIDS], num_classes=T)


def test_features_that_are_not_finite_name_their_backbone() -> None:
    spoiled = GRIDS[1].features.clone()
    spoiled[3, 2, 0, 4] = float("nan")
    with pytest.raises(ValueError, match="features: backbone 'vit' has NaN or infinity"):
        built()([GRIDS[0], FeatureGrid("vit", spoiled), GRIDS[2]])
