"""Pictures taken apart begin and end where they must, whatever the batches."""

import pytest
import torch

import grafeat as gf
from grafeat.explanations.game import centred
from grafeat.explanations.removal import Curves, Removal, taken_apart
from grafeat.explanations.standardised import frozen

SHAPES = {"lite": (2, 3), "vit": (4, 6), "cnn": (5, 1)}
B, T = 7, 3


def grids() -> gf.GridSet:
    generator = torch.Generator().manual_seed(0)
    listed = [torch.randn(B, 5, *shape, generator=generator).double() for shape in SHAPES.values()]
    return gf.GridSet([gf.FeatureGrid(name, part) for name, part in zip(SHAPES, listed, strict=True)])


def built() -> gf.GraFeatMerge:
    model = gf.GraFeatMerge.for_grids(grids(), num_classes=T, width=12, heads=3, depth=2)
    with torch.no_grad():
        model.head.weight *= 30
    return frozen(model.double())


TARGETS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def values(seed: int = 1) -> torch.Tensor:
    return torch.randn(B, 35, generator=torch.Generator().manual_seed(seed)).double()


def taken(batch_size: int = 3, seed: int = 0) -> Removal:
    return taken_apart(built(), grids(), TARGETS, {"own": values()}, batch_size=batch_size, seed=seed)["own"]


def mean_patches(model: gf.GraFeatMerge) -> gf.GridSet:
    """Pictures of which every patch is the mean patch of its backbone."""
    means = [projection.mean for projection in model.projections]
    return gf.GridSet(
        [
            gf.FeatureGrid(name, mean.view(1, -1, 1, 1).expand(B, -1, *shape).contiguous())
            for (name, shape), mean in zip(SHAPES.items(), means, strict=True)
        ]
    )


def test_curves_go_from_the_whole_picture_to_the_mean_patches() -> None:
    model, found = built(), taken()
    whole = centred(model(grids()).logits, TARGETS)
    nothing = centred(model(mean_patches(model)).logits, TARGETS)
    for name in ("own", "inverse", "random"):
        torch.testing.assert_close(getattr(found.deletion, name)[:, 0], whole)
        torch.testing.assert_close(getattr(found.deletion, name)[:, -1], nothing)
        torch.testing.assert_close(getattr(found.insertion, name)[:, -1], whole)


def test_insertion_begins_with_another_picture() -> None:
    logits = built()(grids()).logits
    begin = taken().insertion.own[:, 0]
    for row in range(B):
        others = [centred(logits[other : other + 1], TARGETS[row : row + 1]) for other in range(B) if other != row]
        assert min(abs(float(begin[row] - other)) for other in others) < 1e-9


def test_batches_change_nothing() -> None:
    one, other = taken(batch_size=2), taken(batch_size=B)
    for way in ("deletion", "insertion"):
        for name in ("own", "inverse", "random"):
            torch.testing.assert_close(getattr(getattr(one, way), name), getattr(getattr(other, way), name))
    torch.testing.assert_close(one.agreement, other.agreement)


def test_an_explanation_by_the_effects_themselves_agrees_with_them() -> None:
    """Of a score that is additive in patches, SaCo is 1, and deletion finds the best order."""
    worth = values(3)

    def score(kept: torch.Tensor) -> torch.Tensor:
        return (kept * worth).sum(dim=1)

    from grafeat.explanations.removal import _Runs

    drawn = [torch.rand(B, 35, generator=torch.Generator().manual_seed(k)).argsort(dim=1) for k in range(4)]
    runs = _Runs(score, score, torch.arange(35), drawn)
    places = worth.argsort(dim=1, descending=True).argsort(dim=1)
    best = runs.removal(places, worth)
    torch.testing.assert_close(best.agreement, torch.ones(B).double())
    assert (best.deletion.own <= best.deletion.random + 1e-9).all()
    assert (best.insertion.own >= best.insertion.random - 1e-9).all()


def test_gains_and_means_by_hand() -> None:
    own, inverse, random = (torch.tensor([row]) for row in ([4.0, 0, 0], [4.0, 4, 0], [4.0, 2, 0]))
    curves = Curves(own, inverse, random)
    assert curves.gains(-1) == {"random": pytest.approx(0.25), "inverse": pytest.approx(0.5)}
    assert curves.means(-1) == {"own": [1, 0, 0], "inverse": [1, 1, 0], "random": [1, 0.5, 0]}


@pytest.mark.parametrize("score", [1.0, -1.0])
def test_mean_curves_run_from_all_to_none_even_where_all_is_lower(score: float) -> None:
    points = score * torch.tensor([[4.0, 1, 0]])
    deleted, inserted = Curves(points, points, points), Curves(points.flip(1), points.flip(1), points.flip(1))
    assert deleted.means(-1)["own"] == [1, 0.25, 0]
    assert inserted.means(1)["own"] == [0, 0.25, 1]


def test_the_gap_to_completeness_by_hand() -> None:
    straight = Curves(*(torch.tensor([[4.0, 0.0], [3.0, 1.0]]) for _ in range(3)))
    found = Removal(straight, straight, torch.zeros(2))
    assert found.gap(torch.tensor([[3.0, 1.0], [1.0, 2.5]])).tolist() == pytest.approx([0, 1.5 / 3])
