"""Attribution by Captum's methods, and by gradient times input, on the standardised grids of all backbones together."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.explanations.rollout import Row
from grafeat.explanations.standardised import Subject

WINDOW = 3  # patches along a side of the window that occlusion slides
CELLS = 4  # cells along a side of a grid, the players of Shapley values
MOST_EXACT = 5  # players whose every order is tried: 120 orders
NOISE = 0.1  # of gradient SHAP, in standard deviations of a component
SEVERAL = 16  # changed copies of a picture that are computed at once, at least where they fit


def gradient_x_input(subject: Subject) -> Row:
    """Gradient times standardised features, summed over channels."""
    score = subject.score(subject.model(subject.grids).logits).sum()
    gradients = torch.autograd.grad(score, subject.features, materialize_grads=True)
    return _summed([slope * part for slope, part in zip(gradients, subject.features, strict=True)])


def integrated_gradients(subject: Subject) -> Row:
    """Gradient times features, averaged on the straight way from the mean patches: sums to the change of the logit."""
    from captum.attr import IntegratedGradients  # brings matplotlib along, so only where it is used

    explained = IntegratedGradients(subject.score_of).attribute(
        subject.features,
        additional_forward_args=(subject.targets,),
        n_steps=subject.samples,
        internal_batch_size=max(len(subject.targets), min(SEVERAL, subject.at_once)),
    )
    return _summed(explained)


def gradient_shap(subject: Subject) -> Row:
    """Gradient times features at random places on the way from the mean patches, with noise."""
    from captum.attr import GradientShap

    explained = GradientShap(subject.score_of).attribute(
        subject.features,
        baselines=tuple(torch.zeros_like(part) for part in subject.features),
        additional_forward_args=(subject.targets,),
        n_samples=subject.samples,
        stdevs=NOISE,
    )
    return _summed(explained)


def feature_ablation(subject: Subject) -> Row:
    """What the logit loses if a patch becomes the mean patch."""
    from captum.attr import FeatureAblation

    ablated = FeatureAblation(subject.score_of)
    return _of_patches(ablated, subject, feature_mask=_numbered(subject, math.inf))


def occlusion(subject: Subject) -> Row:
    """What the logit loses if a window of patches becomes mean, averaged over the windows that hold a patch."""
    from captum.attr import Occlusion

    windows = tuple(
        (part.shape[1], *(min(WINDOW, side) for side in part.shape[2:])) for part in subject.features
    )
    return _of_patches(Occlusion(subject.score_of), subject, sliding_window_shapes=windows)


def shapley(subject: Subject) -> Row:
    """Shapley values of a grid's cells, each shared out evenly among its patches."""
    from captum.attr import ShapleyValues, ShapleyValueSampling

    cells = _numbered(subject, CELLS)
    numbers = torch.cat([part.flatten() for part in cells])
    if int(numbers.max()) < MOST_EXACT:
        values = _of_patches(ShapleyValues(subject.score_of), subject, feature_mask=cells)
    else:
        sampled = ShapleyValueSampling(subject.score_of)
        values = _of_patches(sampled, subject, feature_mask=cells, n_samples=subject.samples)
    return values / numbers.bincount()[numbers].to(values)


def _of_patches(method: Any, subject: Subject, **options: Any) -> Row:
    """What a method of Captum's says when patches become the mean patch: the same of each of their channels."""
    with torch.no_grad():
        explained = method.attribute(
            tuple(part.detach() for part in subject.features),
            additional_forward_args=(subject.targets,),
            perturbations_per_eval=min(SEVERAL, subject.at_once),
            **options,
        )
    return torch.cat([part[:, 0].flatten(1) for part in explained], dim=1)


def _numbered(subject: Subject, most: float) -> tuple[Int[Tensor, "1 1 _ _"], ...]:
    """The number of each patch's cell, at most so many along a side of a grid.

    Captum takes equal numbers in two grids out together: so no number is there twice.
    """
    found, first = [], 0
    for part in subject.features:
        (h, w), device = part.shape[2:], part.device
        rows, columns = int(min(h, most)), int(min(w, most))
        row = torch.arange(h, device=device) * rows // h
        column = torch.arange(w, device=device) * columns // w
        found.append((first + row[:, None] * columns + column)[None, None])
        first += rows * columns
    return tuple(found)


def _summed(products: Sequence[Float[Tensor, "b _ _ _"]]) -> Row:
    return torch.cat([part.sum(dim=1).flatten(1) for part in products], dim=1)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """What Captum draws from the global random states, it draws from this seed; they are left as they were."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)
