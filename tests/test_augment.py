"""Variants of pictures: in range, each its own, and on the picture's own background."""

import torch

from grafeat.backbones.augment import augment

B, H, W = 53, 23, 19


def _seeded(pictures: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augment(pictures)


def _disc(background: float, ink: float) -> torch.Tensor:
    """A disc with a third of the picture's side as its radius, B times in three channels."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    picture = torch.where(x.square() + y.square() < (2 / 3) ** 2, ink, background)
    return picture.expand(B, 3, H, W)


def test_variants_have_the_shape_and_the_range_of_pictures() -> None:
    pictures = torch.rand(B, 3, H, W)
    variants = _seeded(pictures)
    assert variants.shape == pictures.shape
    assert 0 <= variants.min() < 0.1 and 0.9 < variants.max() <= 1


def test_variants_follow_the_seed_and_differ_within_a_batch() -> None:
    pictures = _disc(0.0, 1.0)
    assert torch.equal(_seeded(pictures), _seeded(pictures))
    assert not torch.equal(_seeded(pictures), _seeded(pictures, seed=1))
    assert len(_seeded(pictures).flatten(1).unique(dim=0)) == B


def test_the_background_is_that_of_the_border() -> None:
    for background, ink in ((0.0, 1.0), (1.0, 0.0)):
        variants = _seeded(_disc(background, ink))
        corners = torch.stack([variants[..., i, j] for i in (0, -1) for j in (0, -1)])
        assert (corners - background).abs().median() < 0.25
        assert corners.sub(background).abs().max() < 0.6  # no black frame on paper


def test_variants_are_shrunk_and_moved_about_the_middle() -> None:
    variants = _seeded(_disc(0.0, 1.0)).mean(dim=1)
    ink = (variants > 0.35).float()
    shrunk = ink.sum(dim=(1, 2)) / (_disc(0.0, 1.0)[:, 0] > 0.5).float().sum(dim=(1, 2))
    assert 0.2 < shrunk.min() < 0.5 and 0.75 < shrunk.max() < 1.2  # 0.6² and 0.95², then thinned and thickened
    rows = (ink.sum(dim=2) * torch.linspace(-1, 1, H)).sum(dim=1) / ink.sum(dim=(1, 2))
    columns = (ink.sum(dim=1) * torch.linspace(-1, 1, W)).sum(dim=1) / ink.sum(dim=(1, 2))
    for middle in (rows, columns):
        assert middle.mean().abs() < 0.06
        assert 0.03 < middle.std() < 0.15
