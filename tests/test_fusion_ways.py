"""The ways by name: each counted by hand, as large as asked for, refused where it makes no sense."""

import pytest
import torch

import grafeat as gf
from grafeat.fusion import WAYS, list_ways, mix
from grafeat.fusion.budget import learned
from grafeat.grids import FeatureGrid, GridSet

SHAPES = {"lite": (13, 4, 3), "vit": (5, 2, 7)}  # channels, rows, columns
B, T = 11, 3
GRAPH_WAYS = ("single", "cross_only", "intra_only", "joint", "combo", "merge")


def grid(name: str, shape: tuple[int, int, int]) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = GridSet([grid(name, shape) for name, shape in SHAPES.items()], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1])
every = pytest.mark.parametrize("way", WAYS)


def given(way: str) -> GridSet:
    return GRIDS.only("vit") if way == "single" else GRIDS


def built(way: str, **options: int) -> gf.GridModel:
    return mix(way, given(way), **{"num_classes": T, "width": 16, **options})


def test_the_ways_are_those_that_are_promised() -> None:
    assert WAYS == (
        "single", "linear", "add", "multiply", "concat", "gated", "cross_only", "intra_only", "joint", "sva", "combo",
        "ensemble", "voting", "merge",
    )  # fmt: skip
    assert gf.mix is mix and gf.list_ways is list_ways


@every
def test_every_way_gives_the_same_kind_of_output_for_the_same_grids(way: str) -> None:
    model, grids = built(way), given(way)
    out = model(grids)
    assert isinstance(out, gf.MergeOutput) and not model.training
    assert out.logits.shape == (B, T) and out.logits.isfinite().all()
    assert torch.equal(model.embed(grids), out.vector)
    assert model.num_classes == T and tuple(model.backbones) == grids.names


# Parameters


def projections(d: int, *channels: int) -> int:
    return sum(c * d + d for c in channels)


def mlp(inputs: int, hidden: int, outputs: int, *, norm: bool = True) -> int:
    return inputs * hidden + hidden + 2 * hidden * norm + hidden * outputs + outputs


def merge_count(
    d: int, m: int, layers: int, relations: int, queries: int = 8, channels: tuple = (13, 5), parted: bool = False
) -> int:
    """Projections, types, places, frequencies, layers, readout, head; what `GraFeatMerge` is made of."""
    layer = d * 3 * d + 3 * d + mlp(2 * d, 2 * d, d)
    readout = 2 * d + m * queries * d * d + m * d * queries + 16 * queries
    if m > 1:  # relation embeddings, and MLPs: one layer for each backbone, norm, last layer
        readout += m + sum(m * d * h + 2 * h + h * d for h in ((4 * d, 4 * d - 1) if parted else (8 * d,)))
        readout += (m * d + 16) * parted  # the query of the exchange
    return projections(d, *channels) + m * d + 16 * d + d // 4 + layers * layer + relations + readout + d * T + T


D, H = 16, 64  # width, and four times that
COUNTS = {
    "single": merge_count(D, 1, 2, 2 * 1, channels=(5,)),
    "linear": (13 + 5) * T + T,
    "add": projections(D, 13, 5) + 2 + mlp(D, H, D) + D * T + T,
    "multiply": projections(D, 13, 5) + 1 + mlp(D, H, D) + D * T + T,
    "concat": projections(D, 13, 5) + mlp(2 * D, H, D) + D * T + T,
    "gated": projections(D, 13, 5) + (2 * D * 2 + 2) + mlp(D, H, D) + D * T + T,
    "cross_only": merge_count(D, 2, 2, 2 * 2),
    "intra_only": merge_count(D, 2, 2, 2 * 2),
    "joint": merge_count(D, 2, 2, 2 * (4 + 4 * 4)),  # an embedding, and a prior for each head, of each relation
    "sva": projections(D, 13, 5) + 2 * 3 * D + 2 * D  # queries, norm
    + 2 * (4 * D + 4 * D * D + 3 * D + mlp(D, H, D, norm=False)) + (D * D + D) + D * T + T,
    "combo": projections(D, 13, 5) + 2 + 2 * D + 16 * D  # scores, embeddings, places
    + 2 * (4 * D + 3 * D * D + D * D + D + mlp(D, H, D, norm=False))
    + D + 6 * D + 4 * D * D + 3 * D + mlp(D, H, D, norm=False) + D * T + T,
    "merge": merge_count(D, 2, 4, 2 * (2 + 2), parted=True),
}  # fmt: skip
COUNTS["ensemble"] = COUNTS["voting"] = COUNTS["single"] + merge_count(D, 1, 2, 2 * 1, channels=(13,))


@every
def test_parameters_counted_by_hand(way: str) -> None:
    assert learned(built(way)) == COUNTS[way]
    assert learned(built(way)) == sum(parameter.numel() for parameter in built(way).parameters())


@every
@pytest.mark.parametrize("parameters", [COUNTS["merge"], 3 * COUNTS["merge"]])
def test_every_way_with_a_free_width_is_as_large_as_asked_for(way: str, parameters: int) -> None:
    model = built(way, parameters=parameters)
    if way in ("ensemble", "voting"):
        for member in model.members.values():
            assert learned(member) == pytest.approx(parameters, rel=0.02)
    elif way == "linear":
        assert learned(model) == COUNTS["linear"]
    else:
        assert learned(model) == pytest.approx(parameters, rel=0.02)


@every
def test_a_model_at_its_own_size_is_the_model_without_a_size(way: str) -> None:
    if way in ("ensemble", "voting"):
        return
    sized, plain = built(way, parameters=COUNTS[way]), built(way)
    assert torch.equal(sized(given(way)).logits, plain(given(way)).logits)


def test_at_the_default_width_all_ways_meet_the_default_merge() -> None:
    target = learned(mix("merge", GRIDS, num_classes=T))
    assert target == merge_count(64, 2, 4, 2 * (2 + 2), parted=True)
    for way in WAYS:
        if way not in ("linear", "ensemble", "voting"):
            model = mix(way, given(way), num_classes=T, parameters=target)
            assert learned(model) == pytest.approx(target, rel=0.02), way


def test_a_size_out_of_reach_is_named() -> None:
    with pytest.raises(ValueError, match=r"parameters: got 100 for 'merge'; .* the nearest is [\d,]+; ask for that"):
        built("merge", parameters=100)
    assert learned(built("linear", parameters=100)) == COUNTS["linear"]  # it has no width to choose


# The same as built by hand


def same(ours: gf.GridModel, theirs: gf.GridModel) -> bool:
    mine, other = ours.state_dict(), theirs.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("merge", {}),
        ("single", {"cross": False}),
        ("cross_only", {"intra": False}),
        ("intra_only", {"cross": False}),
        ("joint", {"joint": True}),
    ],
)
def test_the_graphs_are_the_merge_with_one_option(way: str, options: dict[str, bool]) -> None:
    for seed in (0, 7):
        theirs = gf.GraFeatMerge.for_grids(given(way), num_classes=T, width=16, seed=seed, **options)
        assert same(built(way, seed=seed), theirs)


def test_concat_is_the_public_one() -> None:
    assert same(built("concat", seed=7), gf.Concat.for_grids(GRIDS, num_classes=T, width=16, seed=7))


@every
def test_only_the_training_part_is_looked_at(way: str) -> None:
    parts = {"train": torch.arange(6), "test": torch.arange(6, B)}
    split = GridSet(given(way).grids, GRIDS.labels, parts=parts)
    assert same(mix(way, split, num_classes=T, width=16), mix(way, given(way)[:6], num_classes=T, width=16))


@every
def test_the_global_random_state_is_left_alone(way: str) -> None:
    before = torch.get_rng_state()
    built(way, parameters=COUNTS[way] if way not in ("ensemble", "voting") else COUNTS["single"])
    assert torch.equal(torch.get_rng_state(), before)


def test_grids_may_come_as_a_list() -> None:
    assert same(mix("add", list(GRIDS.grids), num_classes=T, width=16), built("add"))


# Training


@every
def test_fit_trains_every_way(way: str) -> None:
    model, grids = built(way), given(way)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = gf.fit(model, grids, val=grids, epochs=2, progress=False)
    assert len(history.epochs) == 2 or way in ("ensemble", "voting")  # whose members have epochs of their own
    learnt = {name for name, _ in model.named_parameters()}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    idle = {"readout.relation"}  # settled on validation pictures, which the training pictures do not move
    if way in ("single", "ensemble", "voting"):  # a lone backbone's cross layers hear nothing
        idle |= {name for name in learnt if ".cross.project." in name or ".cross.relation" in name}
    assert changed >= learnt - idle


@pytest.mark.parametrize("way", ["linear", "add", "gated", "joint", "sva", "combo", "voting"])
def test_an_exported_way_takes_any_batch(way: str, unchecked: None) -> None:
    model, grids = built(way), given(way)
    features, batch = tuple(grid.features for grid in grids.grids), torch.export.Dim("batch")
    plain = gf.PlainModel(model, grids)
    program = torch.export.export(plain, features, dynamic_shapes=(tuple({0: batch} for _ in features),))
    found = program.module()(*(part[:5] for part in features))
    torch.testing.assert_close(found, model(grids[:5]).logits, atol=1e-5, rtol=1e-4)


# What makes no sense


def test_an_unknown_way_is_named_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"way: got 'concatt'; expected one of single, .*; did you mean 'concat'\?"):
        built("concatt")
    with pytest.raises(ValueError, match=r"way: got 'xyz'; .*; gf\.list_ways\(\) says what each does"):
        mix("xyz", GRIDS, num_classes=T)


@pytest.mark.parametrize("way", ["add", "multiply", "gated", "cross_only", "ensemble", "voting"])
def test_one_backbone_is_too_few_to_mix(way: str) -> None:
    with pytest.raises(ValueError, match=rf"got only vit for '{way}'; expected two or more .* use mix\('single', …\)"):
        mix(way, GRIDS.only("vit"), num_classes=T)


@pytest.mark.parametrize("way", ["linear", "concat", "intra_only", "joint", "sva", "combo", "merge"])
def test_one_backbone_is_enough_for_the_others(way: str) -> None:
    model = mix(way, GRIDS.only("vit"), num_classes=T, width=16)
    assert model(GRIDS.only("vit")).logits.shape == (B, T)


def test_single_takes_one_backbone() -> None:
    with pytest.raises(ValueError, match=r"grids: got lite, vit for 'single'; .* choose it: grids\.only\('lite'\)"):
        mix("single", GRIDS, num_classes=T)


def test_a_width_that_heads_do_not_divide_is_named() -> None:
    with pytest.raises(ValueError, match="width: got 13 for 4 heads"):
        built("joint", width=13)
    with pytest.raises(ValueError, match="width: got 13 for 4 heads"):
        built("sva", width=13)


# The table


def test_the_table_says_what_each_way_is() -> None:
    table = list_ways()
    assert tuple(row.name for row in table) == WAYS and len(table) == len(WAYS)
    assert tuple(row.name for row in table if row.attention) == GRAPH_WAYS
    assert [row.name for row in table if not row.free] == ["linear"]
    assert [row.name for row in table[2:4]] == ["add", "multiply"]
    for row in table:
        assert row.does and row.source
        assert row.kind.__doc__ and ("Source: " in row.kind.__doc__)


def test_the_table_shows_itself() -> None:
    lines = repr(list_ways()).splitlines()
    assert lines[0].split() == ["way", "what", "it", "does", "source", "attention", "free", "width"]
    assert lines[1].startswith("single") and len(lines) == 1 + len(WAYS)
    assert max(map(len, lines)) <= 120
    html = list_ways()._repr_html_()
    assert html.count("<tr>") == 1 + len(WAYS) and "z = Σ w·x" in html and "<td" in html


@every
def test_attention_is_said_to_be_where_it_is(way: str) -> None:
    row = next(row for row in list_ways() if row.name == way)
    if row.attention:
        with gf.capture(built(way)) as attention:
            pass
        assert "nothing yet" in repr(attention)
    else:
        with pytest.raises(ValueError, match="has no attention layers"), gf.capture(built(way)):
            pass
