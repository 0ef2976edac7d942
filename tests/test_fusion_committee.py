"""A committee is its members, put together by mean or by vote; nothing else is learned."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grafeat.attention.capturing import capture
from grafeat.fusion import Committee, Ensemble, Voting, mix
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge

SHAPES = {"lite": (13, 2, 3), "vit.v2": (5, 1, 7), "cnn": (3, 5, 1)}  # channels, rows, columns; one name with a dot
NAMES = tuple(SHAPES)
B, T, WIDTH = 11, 5, 8
both = pytest.mark.parametrize("way", ["ensemble", "voting"])


def grid(name: str, shape: tuple[int, int, int]) -> FeatureGrid:
    seed = sum(name.encode())
    return FeatureGrid(name, torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed)))


GRIDS = GridSet([grid(name, shape) for name, shape in SHAPES.items()], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0])


def built(way: str = "ensemble", grids: GridSet = GRIDS) -> Committee:
    committee = mix(way, grids, num_classes=T, width=WIDTH, seed=3)
    with torch.no_grad():
        for member in committee.members.values():
            member.head.weight.mul_(9)  # members that differ in what they say
    return committee


def test_the_mean_of_the_members_logits() -> None:
    ensemble = built()
    alone = torch.stack([member(GRIDS.only(name)).logits for name, member in ensemble.members.items()])
    out = ensemble(GRIDS)
    assert torch.equal(out.logits, alone.mean(dim=0))
    assert list(out.own) == list(NAMES)
    assert all(torch.equal(own, logits) for own, logits in zip(out.own.values(), alone, strict=True))


def test_a_member_left_out_has_no_part_in_the_mean() -> None:
    ensemble = built()
    out, whole = ensemble(GRIDS, without={"vit.v2"}), ensemble(GRIDS)
    assert torch.equal(out.logits, torch.stack([whole.own["lite"], whole.own["cnn"]]).mean(dim=0))
    assert list(out.own) == ["lite", "cnn"]


@both
def test_the_vector_is_the_members_vectors_side_by_side(way: str) -> None:
    committee = built(way)
    vectors = [member.embed(GRIDS.only(name)) for name, member in committee.members.items()]
    assert torch.equal(committee.embed(GRIDS), torch.cat(vectors, dim=1))
    vectors[1] = torch.zeros_like(vectors[1])
    assert torch.equal(committee.embed(GRIDS, without={"vit.v2"}), torch.cat(vectors, dim=1))


@both
def test_members_are_the_singles(way: str) -> None:
    committee = mix(way, GRIDS, num_classes=T, width=WIDTH, seed=3)
    assert list(committee.members) == list(NAMES)
    for name, member in committee.members.items():
        single = mix("single", GRIDS.only(name), num_classes=T, width=WIDTH, seed=3)
        assert member.config == single.config
        assert torch.equal(member(GRIDS.only(name)).logits, single(GRIDS.only(name)).logits)


@both
def test_nothing_is_learned_beside_the_members(way: str) -> None:
    committee = built(way)
    members = [parameter for member in committee.members.values() for parameter in member.parameters()]
    assert {id(parameter) for parameter in committee.parameters()} == {id(parameter) for parameter in members}


@both
def test_it_can_be_put_together_from_trained_singles(way: str) -> None:
    kind = {"ensemble": Ensemble, "voting": Voting}[way]
    members = built(way).members
    for member in members.values():
        member.label_counts.copy_(torch.tensor([7, 5, 3, 2, 1]))
    committee = kind(members)
    assert committee.members["cnn"] is members["cnn"]
    assert committee.label_counts.tolist() == [7, 5, 3, 2, 1]
    assert not committee.training and not any(member.training for member in members.values())
    assert torch.equal(committee(GRIDS).logits, built(way)(GRIDS).logits)


def test_votes_by_hand() -> None:
    """One vote for class 0, two for class 1; then one each, and the second's voter is surer."""
    logs = torch.tensor([[[0.6, 0.3, 0.1]], [[0.2, 0.5, 0.3]], [[0.1, 0.8, 0.1]]]).log()
    mean = torch.tensor([0.3, 1.6 / 3, 0.5 / 3])
    voting = mix("voting", GRIDS, num_classes=3, width=WIDTH)
    expected = ((torch.tensor([1, 2, 0]) + mean) / 4).log()
    torch.testing.assert_close(voting.agreed(logs)[0], expected, atol=1e-6, rtol=0)
    tied = torch.tensor([[[0.6, 0.3, 0.1]], [[0.1, 0.8, 0.1]]]).log()
    assert int(voting.agreed(tied).argmax()) == 1
    assert torch.equal(voting.agreed(tied).argmax(), voting.agreed(tied.flip(0)).argmax())


VOTING = mix("voting", GRIDS, num_classes=4, width=WIDTH)
logits = st.lists(st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4), min_size=2, max_size=5)


@given(logits)
def test_the_winner_has_the_most_votes_and_of_these_the_highest_mean_probability(drawn: list) -> None:
    given_logits = torch.tensor(drawn)[:, None]
    found = VOTING.agreed(given_logits)[0]
    exact = given_logits[:, 0].double().numpy()
    votes = np.bincount(exact.argmax(axis=1), minlength=4)
    shares = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    first = np.lexsort((-shares.mean(axis=0), -votes))[0]
    best = (votes[first], shares.mean(axis=0)[first])
    winner = int(found.argmax())
    assert votes[winner] == best[0] and shares.mean(axis=0)[winner] == pytest.approx(best[1], abs=1e-12)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_close_probabilities_do_not_turn_a_vote_by_rounding() -> None:
    """The second is surer by less than float32 can tell in the sum of votes and probability."""
    sure = torch.tensor([[[9.0, 0.0, 0.0, 0.0]], [[0.0, 9.0001, 0.0, 0.0]]])
    assert int(VOTING.agreed(sure).argmax()) == 1
    assert int(VOTING.agreed(sure[..., [1, 0, 2, 3]]).argmax()) == 0


def test_a_vote_is_no_mean() -> None:
    """Two lukewarm members outvote a sure one."""
    said = torch.tensor([[[0.0, 9.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]]])
    assert int(VOTING.agreed(said).argmax()) == 0
    assert int(said.mean(dim=0).argmax()) == 1


@both
def test_reading_sums_to_one(way: str) -> None:
    out = built(way)(GRIDS, without={"cnn"})
    total = sum(weights.sum(dim=(2, 3)) for weights in out.reading.values())
    torch.testing.assert_close(total, torch.ones_like(total))
    assert list(out.reading) == ["lite", "vit.v2"]


def test_it_works_in_half_precision() -> None:
    out = built("voting").to(torch.bfloat16)(GRIDS)
    assert out.logits.dtype == torch.bfloat16 and out.logits.isfinite().all()


@both
def test_it_prints_its_members(way: str) -> None:
    said = repr(built(way))
    assert said.startswith(f"{way.title()}: 3 models of one backbone each → ")
    assert said.count("GraFeatMerge: 1 backbones") == 3 and "vit.v2  5 channels" in said


@both
def test_there_is_nothing_to_capture_but_in_its_members(way: str) -> None:
    committee = built(way)
    said = r"has no attention layers .*; capture one of its members, as model\.members\['lite'\]"
    with pytest.raises(ValueError, match=said), capture(committee):
        pass
    with capture(committee.members["lite"]) as attention:
        committee(GRIDS)
    assert attention.kinds == ("intra",) and attention.graph.names == ("lite",)


def member(name: str, num_classes: int = T) -> GraFeatMerge:
    return GraFeatMerge.for_grids(GRIDS.only(name), num_classes=num_classes, width=WIDTH)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="backbones: got only lite for Ensemble; expected two or more to mix"):
        Ensemble({"lite": member("lite")})
    with pytest.raises(ValueError, match=r"members: 'cnn' is a model of lite; .* build it from grids\.only\('cnn'\)"):
        Voting({"lite": member("lite"), "cnn": member("lite")})
    with pytest.raises(ValueError, match="members: 'cnn' tells 3 classes apart, another 5"):
        Voting({"lite": member("lite"), "cnn": member("cnn", 3)})
    with pytest.raises(ValueError, match=r"this model knows lite, vit\.v2, cnn"):
        built()([FeatureGrid("swin", torch.zeros(1, 2, 2, 2))])


def test_its_weights_are_its_members_weights() -> None:
    assert {name.split(".")[0] for name in built().state_dict()} == {"singles", "label_counts"}
