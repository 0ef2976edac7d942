"""A backbone's channels become standardised components, as scikit-learn has them, and only then vertex states."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from grafeat import projection
from grafeat.grids import WHOLE, FeatureGrid, GridSet
from grafeat.projection import Projection, fourier_features, learned_part, standardise, weights_from

B, C, H, W = 23, 7, 3, 5  # 345 patches
K, D = 5, 11


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixed(b: int = B, c: int = C) -> Tensor:
    """Correlated channels of standard deviation 1, none of them centred."""
    free = drawn(b, H, W, c) @ drawn(c, c, seed=1)
    return (free / free.flatten(0, 2).std(dim=0) + 3).permute(0, 3, 1, 2)


def rows(features: Tensor) -> Tensor:
    """Feature vectors (b · h · w, c)."""
    return features.movedim(1, -1).flatten(0, -2)


def standardised(features: Tensor, components: int = K, seed: int = 0) -> Projection:
    made = Projection(features.shape[1], D, components)
    standardise([made], GridSet([FeatureGrid("lite", features)]), seed=seed)
    return made


def components(made: Projection, features: Tensor) -> Tensor:
    """What stands before the learned linear step, (b · h · w, k)."""
    return (rows(features).float() - made.mean) @ made.basis


def close(found: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=atol, rtol=atol)


# What the components are


@pytest.mark.parametrize("scales", [torch.ones(C), torch.logspace(-1, 1, C)])
def test_components_have_mean_0_variance_1_and_no_correlation(scales: Tensor) -> None:
    features = mixed() * scales[:, None, None]
    seen = components(standardised(features), features)
    close(seen.mean(dim=0), torch.zeros(K))
    close(seen.T.cov(correction=0), torch.eye(K))


@pytest.mark.parametrize("k", [K, C])
def test_components_are_those_of_scikit_learn(k: int) -> None:
    """StandardScaler, then PCA with whitening; only the sign of a component is free."""
    features = mixed()
    scaled = StandardScaler().fit_transform(rows(features).double().numpy())
    whitened = torch.from_numpy(PCA(k, whiten=True).fit_transform(scaled))
    whitened *= ((B * H * W) / (B * H * W - 1)) ** 0.5  # scikit-learn divides by one less
    found = components(standardised(features, k), features)
    close(found, whitened * (found * whitened).sum(dim=0).sign(), atol=1e-3)


def test_units_of_the_channels_do_not_matter() -> None:
    plain, scaled = mixed(), mixed() * torch.logspace(0, 1, C)[:, None, None]
    found, expected = (components(standardised(features), features) for features in (scaled, plain))
    close(found, expected * (found * expected).sum(dim=0).sign(), atol=0.1)


def test_what_most_channels_say_comes_first() -> None:
    """By hand: four channels say one thing, two another, one a third, in units that must not matter."""
    said = drawn(3, B, H, W)
    features = said[[1, 0, 2, 0, 0, 1, 0]].movedim(0, 1) * torch.logspace(0, 2, C)[:, None, None]
    found = components(standardised(features, components=3), features)
    correlation = torch.corrcoef(torch.cat([found.T, said.flatten(1)]))[:3, 3:].abs()
    assert correlation.diagonal().min() > 0.97
    assert (correlation - correlation.diagonal().diag()).max() < 0.25


def test_a_lone_channel_by_hand() -> None:
    """Values 2, 4, 6, 8: mean 5, standard deviation √5, and the offset of a thousandth to it leaves no trace."""
    made = standardised(torch.tensor([2.0, 4, 6, 8]).view(4, 1, 1, 1), components=1)
    made.linear.load_state_dict({"weight": torch.full((D, 1), 7.0), "bias": torch.arange(D) * 1.0})
    states = made(torch.tensor([[[[5.0, 5.0 + math.sqrt(5)]]]]))
    sign = made.basis.sign().item()
    close(states[0], torch.stack([torch.arange(D) * 1.0, torch.arange(D) + 7.0 * sign]))


def test_patches_come_row_by_row() -> None:
    features, made = mixed(), standardised(mixed())
    states = made(features)
    assert states.shape == (B, H * W, D)
    for row, column in ((0, 0), (1, 3), (2, 4)):
        alone = made(features[:, :, row : row + 1, column : column + 1])
        close(states[:, row * W + column], alone[:, 0], atol=1e-5)


def test_before_standardising_features_pass_as_they_are() -> None:
    made, features = Projection(C, D, K), mixed()
    assert torch.equal(components(made, features), rows(features)[:, :K])


# Channels and components that say nothing


def test_silent_channels_stay_silent() -> None:
    """A channel that is constant, or flickers a millionth, must not become noise of variance 1."""
    features = mixed()
    features[:, 2] = 13.0
    features[:, 4] = 17 + 1e-6 * drawn(B, H, W)
    made = standardised(features)
    assert made.basis[2].abs().max() < 1e-6
    assert (made.basis[4].abs() * 1e-6).max() < 2e-3
    rest = [0, 1, 3, 5, 6]
    seen, alone = components(made, features), components(standardised(features[:, rest]), features[:, rest])
    close(seen.abs(), alone.abs(), atol=1e-2)


def test_components_beyond_the_rank_give_zeros() -> None:
    """Eleven pictures of one patch span ten directions: what other pictures say in the rest is not blown up."""
    few, others = drawn(11, 53, 1, 1), drawn(97, 53, 1, 1, seed=2)
    made = standardised(few, components=17)
    seen = components(made, few)
    close(seen[:, :10].T.cov(correction=0), torch.eye(10))
    assert torch.count_nonzero(made.basis[:, 10:]) == 0
    assert components(made, others).abs().max() < 5


@pytest.mark.parametrize("features", [torch.full((5, C, 1, 1), 0.1), mixed(b=1)[:, :, :1, :1]])
def test_a_backbone_that_never_varied_says_nothing_and_breaks_nothing(features: Tensor) -> None:
    made = standardised(features)
    assert torch.equal(components(made, mixed()), torch.zeros(B * H * W, K))
    assert torch.equal(made(mixed())[3, 2], made.linear.bias)


def test_grids_in_half_precision_give_the_statistics_of_their_values() -> None:
    """In the hundreds with a spread of 1, where sums in float16 would be lost."""
    features = (mixed() + 300).half()
    half, whole = standardised(features), standardised(features.float())
    assert torch.equal(half.basis, whole.basis)
    assert half.mean.dtype == half.basis.dtype == torch.float32
    close(components(half, features).T.cov(correction=0), torch.eye(K), atol=1e-3)


# The sample


def test_at_most_the_sample_is_looked_at_and_the_seed_decides_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "SAMPLE", 31)
    features = mixed()
    first, again, other = (standardised(features, seed=seed) for seed in (3, 3, 5))
    assert torch.equal(first.basis, again.basis)
    assert torch.equal(first.mean, again.mean)
    assert not torch.equal(first.mean, other.mean)
    chosen = torch.randperm(B * H * W, generator=torch.Generator().manual_seed(3))[:31]
    close(first.mean, rows(features)[chosen].mean(dim=0))


def test_of_very_many_patches_no_list_of_all_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bytes for each of them would be gigabytes for a million pictures."""
    monkeypatch.setattr(projection, "SAMPLE", 331)
    monkeypatch.setattr(projection, "MANY", B * H * W - 1)
    monkeypatch.delattr(torch, "randperm")
    features = mixed()
    first, again, other = (standardised(features, seed=seed) for seed in (3, 3, 5))
    assert torch.equal(first.basis, again.basis)
    assert not torch.equal(first.mean, other.mean)
    expected, spread = rows(features).mean(dim=0), rows(features).std(dim=0) / math.sqrt(331)
    assert ((first.mean - expected).abs() < 4 * spread).all()


def test_all_patches_count_where_they_are_few() -> None:
    first, other = (standardised(mixed(), seed=seed) for seed in (3, 5))
    close(first.mean, rows(mixed()).mean(dim=0))
    close(first.mean, other.mean)


def test_the_global_random_state_is_left_alone() -> None:
    made, before = Projection(C, D, K), torch.get_rng_state()
    standardise([made], GridSet([FeatureGrid("lite", mixed())]), seed=7)
    assert torch.equal(torch.get_rng_state(), before)


# Statistics are fixed, the linear step is learned


def test_only_the_linear_step_is_learned_and_the_statistics_are_saved() -> None:
    made = standardised(mixed())
    assert {name for name, _ in made.named_parameters()} == {"linear.weight", "linear.bias"}
    assert {"mean", "basis"} < made.state_dict().keys()
    features = mixed().requires_grad_()
    made(features).sum().backward()
    assert features.grad.abs().sum() > 0


def test_no_pictures_are_an_error() -> None:
    with pytest.raises(ValueError, match="grids: got no pictures for backbone 'lite'; expected some"):
        standardised(mixed()[:0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_named(bad: float) -> None:
    spoiled = FeatureGrid.trusted("lite", mixed().index_fill(0, torch.tensor([3]), bad), WHOLE)
    with pytest.raises(ValueError, match="grids: backbone 'lite' has features that are NaN or infinite; expected"):
        standardise([Projection(C, D, K)], GridSet([spoiled]), seed=0)


# Places


def test_fourier_features_by_hand() -> None:
    """At x = 1/2 the angles are π/2, π, 2π and 4π; at y = 0 they are all 0."""
    found = fourier_features(torch.tensor([[0.5, 0.0]]))
    sines, cosines = torch.tensor([[1.0, 0, 0, 0], [0.0] * 4]), torch.tensor([[0.0, -1, 1, 1], [1.0] * 4])
    close(found, torch.cat([sines, cosines], dim=-1).view(1, 16), atol=1e-6)


def test_fourier_features_tell_all_places_of_a_fine_grid_apart() -> None:
    places = torch.cartesian_prod(*[(torch.arange(29) + 0.5) / 29] * 2)
    distance = torch.cdist(fourier_features(places), fourier_features(places)) + 9 * torch.eye(29**2)
    assert distance.min() > 0.2


def test_fourier_features_keep_the_number_type_of_the_places() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        assert fourier_features(torch.rand(3, 2, dtype=dtype)).dtype == dtype


def test_a_set_whose_parts_are_none_to_learn_from_is_refused() -> None:
    held = GridSet([FeatureGrid("lite", mixed())]).with_parts(val=range(11), test=range(11, B))
    with pytest.raises(ValueError, match="grids: got a set with the parts val, test; expected 'train' or 'unlabelled'"):
        learned_part(held)
    assert len(learned_part(held.with_parts(train=range(7), unlabelled=range(7, 10), test=range(10, B)))) == 10


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, "seed: got -1; expected 0 or more"), (0.5, "seed: got 0.5; expected a whole number")]
)
def test_a_seed_is_a_whole_number(seed: object, error: str, unchecked: None) -> None:
    with pytest.raises((TypeError, ValueError), match=error), weights_from(seed):
        pass
    with weights_from(np.int64(5)):
        ours = torch.rand(3)
    with weights_from(5):
        assert torch.equal(torch.rand(3), ours)
