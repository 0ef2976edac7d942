"""From a backbone's feature grid to vertex states of the model's width."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.arguments import whole
from grafeat.grids import FeatureGrid, GridSet

SAMPLE = 20_000  # feature vectors; enough for the covariance of some thousand channels
MANY = 100 * SAMPLE  # patches, from which on they are drawn one by one
OCTAVES = 4


class Reduction(nn.Module):
    """Standardises and reduces a backbone's channels.

    Wide features overfit where labels are few, and backbones differ in scale by orders of magnitude. So each channel
    is standardised and the vector reduced to its principal components, each brought to unit variance. These
    statistics come from unlabelled pictures (`standardise`) and stay fixed.

    Args:
        channels: Channels c of the backbone.
        components: Principal components k kept, at most c.
    """

    mean: Float[Tensor, " c"]
    basis: Float[Tensor, "c k"]

    def __init__(self, channels: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("basis", torch.eye(channels, components))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b patches k"]:
        """Components of all patches, row by row."""
        return (features.flatten(2).mT - self.mean) @ self.basis

    @torch.no_grad()
    def standardise(self, vectors: Float[Tensor, "n c"]) -> None:
        """Takes mean, scale and principal components from the feature vectors of some patches, one or more."""
        vectors = vectors.double()
        mean, scale = vectors.mean(dim=0), vectors.std(dim=0, correction=0)
        scale = scale + 1e-3 * scale.max().clamp(min=1e-12)  # a channel that is nearly silent stays so
        centred = (vectors - mean) / scale
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        kept = variances.argsort(descending=True)[: self.basis.shape[1]]
        # Fewer patches than components leave some that never varied: a unit variance would blow up what they see later.
        varies = variances[kept] > 1e-6 * variances.max()
        spread = torch.where(varies, variances[kept], torch.inf).sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(axes[:, kept] / scale[:, None] / spread)


class Projection(Reduction):
    """Standardises and reduces a backbone's channels, then projects them to the model's width.

    Only the linear step after the reduction is learned.

    Args:
        channels: Channels c of the backbone.
        width: Channels d of a vertex.
        components: Principal components k kept, at most c.
    """

    def __init__(self, channels: int, width: int, components: int) -> None:
        super().__init__(channels, components)
        self.linear = nn.Linear(components, width)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b patches d"]:
        """Vertex states of all patches, row by row."""
        return self.linear(super().forward(features))


def fourier_features(centres: Float[Tensor, "n 2"]) -> Float[Tensor, "n f"]:
    """Sine and cosine of the places (x, y) in [0, 1] at 1/2, 1, 2 and 4 turns a picture side: (n, 16)."""
    angles = centres[:, :, None] * (math.pi * 2.0 ** torch.arange(OCTAVES).to(centres))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def learned_part(grids: GridSet | Sequence[FeatureGrid]) -> GridSet:
    """The pictures from which a new model may take its standardisation, which looks at no label.

    Of a set with parts, those to learn from, with labels or without.

    Raises:
        ValueError: If it has parts, and none of them is to learn from.
    """
    seen = grids if isinstance(grids, GridSet) else GridSet(grids)
    parts = [part for name, part in seen.part_positions.items() if name in ("train", "unlabelled")]
    if seen.parts and not parts:
        raise ValueError(
            f"grids: got a set with the parts {', '.join(seen.parts)}; expected 'train' or 'unlabelled' among them, to "
            "take mean and scale from; make parts with .split(…), or pass pictures to learn from"
        )
    return seen[torch.cat(parts)] if parts else seen


def standardise(reductions: Iterable[Reduction], grids: GridSet, *, seed: int) -> None:
    """Takes each backbone's statistics from at most 20,000 of its patches; nothing else of the grids is read.

    Args:
        reductions: One for each backbone, in the order of the grids.
        grids: Grids of pictures, labelled or not.
        seed: Decides which patches.

    Raises:
        ValueError: If there is no picture, or one of those patches is not finite.
    """
    for reduce, name in zip(reductions, grids.names, strict=True):
        vectors = _sample(grids, name, seed)
        if not bool(vectors.isfinite().all()):
            raise ValueError(
                f"grids: backbone {name!r} has features that are NaN or infinite; expected finite ones to take mean "
                "and scale from; extract its grids anew"
            )
        reduce.standardise(vectors)


def _sample(grids: GridSet, name: str, seed: int) -> Float[Tensor, "sample c"]:
    patches = len(grids) * math.prod(grids[:1][name].shape)
    if not patches:
        raise ValueError(
            f"grids: got no pictures for backbone {name!r}; expected some to take mean and scale from; pass training "
            "pictures, labelled or not"
        )
    generator = torch.Generator().manual_seed(whole("seed", seed, least=0))
    if patches <= MANY:
        chosen = torch.randperm(patches, generator=generator)[:SAMPLE]
    else:  # memory stays flat, and hardly any patch is drawn twice
        chosen = torch.randint(patches, (SAMPLE,), generator=generator)
    return grids.vectors(name, chosen)


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Initial weights drawn inside depend on the seed alone; the global random state is left as it was.

    Raises:
        TypeError: If the seed is no whole number.
        ValueError: If it is below 0.
    """
    with torch.random.fork_rng(devices=[]):
        number = whole("seed", seed, least=0)
        torch.default_generator.manual_seed(number)  # torch.manual_seed would seed every GPU as well
        yield
