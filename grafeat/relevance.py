"""Which patches of which backbone speak for a prediction, by any of several methods."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from grafeat.attention import PatchAttention
from grafeat.game import centred, targets_of
from grafeat.graph import Patch, PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel
from grafeat.projection import Projection
from grafeat.rollout import Row, ablation, attention_rollout, grad_cam, gradient_rollout

AT_ONCE = 4096  # vertices of all pictures of one pass
WINDOW = 3  # patches along a side of the window that occlusion slides
CELLS = 4  # cells along a side of a grid, the players of Shapley values
MOST_EXACT = 5  # players whose every order is tried: 120 orders
NOISE = 0.1  # of gradient SHAP, in standard deviations of a component
SEVERAL = 16  # changed copies of a picture that are computed at once, at least where they fit


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each patch of each backbone speaks for a class, by one method.

    Attributes:
        maps: Values (b, h, w) of each backbone's patches, by name, on the backbone's own grid. The values of all
            backbones are in the same unit, so that they may be ranked together.
        method: How they were computed.
        signed: Whether values below 0 speak against the class; an unsigned method cannot tell.
        target: The class that is explained, for each picture (b,).
        graph: The patches; `graph.box(graph.vertex(*patch))` is a patch's place in the picture.
    """

    maps: dict[str, Float[Tensor, "b _ _"]]
    method: str
    signed: bool
    target: Int[Tensor, " b"]
    graph: PatchGraph

    @property
    def flat(self) -> Row:
        """The values of all patches (b, n), numbered as in `graph`."""
        return torch.cat([self.maps[name].flatten(1) for name in self.graph.names], dim=1)

    def top(self, count: int = 3, *, picture: int = 0) -> list[tuple[Patch, float]]:
        """The patches that speak most for the class, over all backbones together, strongest first.

        Args:
            count: How many; all of them if there are fewer.
            picture: Which picture of the batch, from 0.

        Raises:
            ValueError: If `count` is below 1, or there is no such picture.
        """
        if count < 1:
            raise ValueError(f"count: got {count}; expected 1 or more; ask for at least one patch")
        if not 0 <= picture < len(self.target):
            raise ValueError(f"picture: got {picture}; expected 0 to {len(self.target) - 1}; count from 0")
        values = self.flat[picture]
        best = values.argsort(descending=True, stable=True)[:count]
        return [(self.graph.locate(vertex), float(values[vertex])) for vertex in best.tolist()]

    def __repr__(self) -> str:
        wide = max(len(name) for name in self.maps)
        sign = "signed" if self.signed else "unsigned"
        lines = [f"Relevance by {self.method} ({sign}), {len(self.target):,} pictures"]
        for name, values in self.maps.items():
            h, w = values.shape[1:]
            mean = values.sum(dim=(1, 2)).mean()
            lines.append(
                f"  {name:<{wide}}  {h} × {w}, sum {float(mean):+.3g}, largest {float(values.max()):+.3g}"
            )
        strongest = ", ".join(f"{p.backbone} ({p.row}, {p.column}) {value:+.3g}" for p, value in self.top(3))
        return "\n".join([*lines, f"  strongest in picture 0: {strongest}"])


def relevance(
    model: GridModel,
    grids: GridSet | Sequence[FeatureGrid],
    target: int | Sequence[int] | Tensor | None = None,
    *,
    method: str = "gradient_rollout",
    samples: int | None = None,
    seed: int = 0,
) -> Relevance:
    """How much each patch of each backbone speaks for a class.

    What is explained is the centred logit of the class: the logit minus the mean over classes. Where a method compares
    with a baseline, that is the mean patch of each backbone, which its standardisation turns into zeros. The model is
    left as it was.

    | method | value of a patch |
    |---|---|
    | `attention_rollout` | routing: attention multiplied through layers and readout; the same for every class |
    | `gradient_rollout` | attention that raises the logit, multiplied through layers and readout |
    | `gradient_x_input` | gradient times standardised features |
    | `grad_cam` | gradient times the patch's final vertex state |
    | `integrated_gradients` | gradient times features, averaged on the way from the baseline: sums to the change |
    | `gradient_shap` | the same at random places on the way and with noise |
    | `feature_ablation` | what the logit loses if the patch becomes the mean patch |
    | `occlusion` | the same for windows of 3 × 3 patches, averaged over the windows that hold the patch |
    | `shapley` | Shapley value of the patch's cell, 4 × 4 cells a grid, shared out evenly among its patches |
    | `ablation` | what the logit loses if nothing attends to the patch and the readout does not read it |

    Args:
        model: A trained model; the attention methods, `grad_cam` and `ablation` need a `GraFeatMerge`.
        grids: The pictures' grids.
        target: The class to explain, or one for each picture; the predicted classes if absent.
        method: One of the above.
        samples: Points of `integrated_gradients` (50), draws of `gradient_shap` (50) or orders of `shapley` (25).
        seed: Decides what is drawn; the global random states are left as they were.

    Raises:
        TypeError: If the model has no attention for a method that needs it, or no standardisation.
        ValueError: If the method is unknown, there is no picture, features or logits hold NaN or infinity, a target is
            out of range, or the grids are not the model's.

    Warns:
        UserWarning: If the model has never been trained: the values describe an untrained model.

    Source: Abnar and Zuidema, ACL 2020; Chefer et al., ICCV 2021; Draelos and Carin, arXiv 2011.08891 (`grad_cam`
    without averaging gradients over places); all others Captum's (Kokhlikyan et al., arXiv 2009.07896).
    """
    chosen = _chosen(model, method, samples)
    shown = grids if isinstance(grids, GridSet) else GridSet(grids)
    graph = PatchGraph.of(shown)
    if not len(shown):
        raise ValueError("grids: got no picture; expected at least one; slice fewer away")
    if not int(model.label_counts.sum()):
        warnings.warn(
            "model: it was never trained with fit; the values describe an untrained model", stacklevel=2
        )
    at_once = max(1, AT_ONCE // graph.num_vertices)
    with torch.inference_mode(False), torch.enable_grad():
        exact = _frozen(model)
        parts = [shown[start : start + at_once] for start in range(0, len(shown), at_once)]
        targets = targets_of(target, torch.cat([_logits(exact, part) for part in parts]), model.num_classes)
        size = 1 if chosen.alone else at_once
        rows = []
        for start in range(0, len(shown), size):
            own = targets[start : start + size].to(model.device)
            asked = _asked(exact, shown[start : start + size], own, samples or chosen.samples, at_once)
            with _drawn_from(seed):
                rows.append(chosen.compute(asked).detach().float().cpu())
    names = [grid.name for grid in _in_order(model, shown)]
    sizes = [graph.sizes[name] for name in names]
    blocks = dict(zip(names, torch.cat(rows).split(sizes, dim=1), strict=True))
    maps = {name: blocks[name].unflatten(1, graph.shapes[name]) for name in graph.names}
    return Relevance(maps=maps, method=method, signed=chosen.signed, target=targets, graph=graph)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a method gets: a model whose standardisation is done, and standardised grids in the model's order."""

    model: GridModel
    grids: tuple[FeatureGrid, ...]
    targets: Int[Tensor, " b"]
    samples: int
    at_once: int

    @property
    def features(self) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        return tuple(grid.features for grid in self.grids)

    def score(self, logits: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
        return centred(logits, self.targets.expand(len(logits)))

    def score_of(self, *features: Tensor) -> Float[Tensor, " b"]:
        """The centred logit for changed features; the last argument holds the targets, as Captum repeats them."""
        named = zip(self.grids, features[:-1], strict=True)
        changed = [FeatureGrid.trusted(grid.name, part, grid.field) for grid, part in named]
        return centred(self.model(changed).logits, features[-1])


def _attention_rollout(asked: _Asked) -> Row:
    return attention_rollout(cast(GraFeatMerge, asked.model), asked.grids)


def _gradient_rollout(asked: _Asked) -> Row:
    return gradient_rollout(cast(GraFeatMerge, asked.model), asked.grids, asked.score)


def _gradient_x_input(asked: _Asked) -> Row:
    score = asked.score(asked.model(asked.grids).logits).sum()
    gradients = torch.autograd.grad(score, asked.features, materialize_grads=True)
    return _summed([slope * part for slope, part in zip(gradients, asked.features, strict=True)])


def _grad_cam(asked: _Asked) -> Row:
    return grad_cam(cast(GraFeatMerge, asked.model), asked.grids, asked.score)


def _ablation(asked: _Asked) -> Row:
    return ablation(cast(GraFeatMerge, asked.model), asked.grids, asked.score)


def _integrated_gradients(asked: _Asked) -> Row:
    from captum.attr import IntegratedGradients  # brings matplotlib along, so only where it is used

    explained = IntegratedGradients(asked.score_of).attribute(
        asked.features,
        additional_forward_args=(asked.targets,),
        n_steps=asked.samples,
        internal_batch_size=max(len(asked.targets), min(SEVERAL, asked.at_once)),
    )
    return _summed(explained)


def _gradient_shap(asked: _Asked) -> Row:
    from captum.attr import GradientShap

    explained = GradientShap(asked.score_of).attribute(
        asked.features,
        baselines=tuple(torch.zeros_like(part) for part in asked.features),
        additional_forward_args=(asked.targets,),
        n_samples=asked.samples,
        stdevs=NOISE,
    )
    return _summed(explained)


def _feature_ablation(asked: _Asked) -> Row:
    from captum.attr import FeatureAblation

    return _of_patches(FeatureAblation(asked.score_of), asked, feature_mask=_numbered(asked, math.inf))


def _occlusion(asked: _Asked) -> Row:
    from captum.attr import Occlusion

    windows = tuple(
        (part.shape[1], *(min(WINDOW, side) for side in part.shape[2:])) for part in asked.features
    )
    return _of_patches(Occlusion(asked.score_of), asked, sliding_window_shapes=windows)


def _shapley(asked: _Asked) -> Row:
    from captum.attr import ShapleyValues, ShapleyValueSampling

    cells = _numbered(asked, CELLS)
    numbers = torch.cat([part.flatten() for part in cells])
    if int(numbers.max()) < MOST_EXACT:
        values = _of_patches(ShapleyValues(asked.score_of), asked, feature_mask=cells)
    else:
        sampled = ShapleyValueSampling(asked.score_of)
        values = _of_patches(sampled, asked, feature_mask=cells, n_samples=asked.samples)
    return values / numbers.bincount()[numbers].to(values)


def _of_patches(method: Any, asked: _Asked, **options: Any) -> Row:
    """What a method of Captum's says when patches become the mean patch: the same of each of their channels."""
    with torch.no_grad():
        explained = method.attribute(
            tuple(part.detach() for part in asked.features),
            additional_forward_args=(asked.targets,),
            perturbations_per_eval=min(SEVERAL, asked.at_once),
            **options,
        )
    return torch.cat([part[:, 0].flatten(1) for part in explained], dim=1)


def _numbered(asked: _Asked, most: float) -> tuple[Int[Tensor, "1 1 _ _"], ...]:
    """The number of each patch's cell, at most so many along a side of a grid.

    Captum takes equal numbers in two grids out together: so no number is there twice.
    """
    found, first = [], 0
    for part in asked.features:
        (h, w), device = part.shape[2:], part.device
        rows, columns = int(min(h, most)), int(min(w, most))
        row = torch.arange(h, device=device) * rows // h
        column = torch.arange(w, device=device) * columns // w
        found.append((first + row[:, None] * columns + column)[None, None])
        first += rows * columns
    return tuple(found)


def _summed(products: Sequence[Float[Tensor, "b _ _ _"]]) -> Row:
    return torch.cat([part.sum(dim=1).flatten(1) for part in products], dim=1)


@dataclass(frozen=True)
class _Method:
    compute: Callable[[_Asked], Row]
    signed: bool = True
    samples: int = 0  # 0 where nothing is sampled
    graph: bool = False  # whether it needs attention and vertices
    alone: bool = False  # one picture at a time, so that neither draws nor knock-outs are shared


_METHODS = {
    "attention_rollout": _Method(_attention_rollout, signed=False, graph=True),
    "gradient_rollout": _Method(_gradient_rollout, signed=False, graph=True),
    "gradient_x_input": _Method(_gradient_x_input),
    "grad_cam": _Method(_grad_cam, graph=True),
    "integrated_gradients": _Method(_integrated_gradients, samples=50),
    "gradient_shap": _Method(_gradient_shap, samples=50, alone=True),
    "feature_ablation": _Method(_feature_ablation, alone=True),
    "occlusion": _Method(_occlusion, alone=True),
    "shapley": _Method(_shapley, samples=25, alone=True),
    "ablation": _Method(_ablation, graph=True, alone=True),
}
METHODS = tuple(_METHODS)


def _chosen(model: GridModel, method: str, samples: int | None) -> _Method:
    if method not in _METHODS:
        raise ValueError(f"method: got {method!r}; expected one of {', '.join(METHODS)}")
    chosen = _METHODS[method]
    kind = type(model).__name__
    if chosen.graph and not isinstance(model, GraFeatMerge):
        others = ", ".join(name for name, other in _METHODS.items() if not other.graph)
        raise TypeError(
            f"model: got {kind}, which has no graph; {method!r} needs GraFeatMerge; or use {others}"
        )
    if not isinstance(getattr(model, "projections", None), nn.ModuleList):
        raise TypeError(
            f"model: got {kind}, which has no projections; expected one that standardises its grids"
        )
    if samples is not None and not chosen.samples:
        takes = ", ".join(name for name, other in _METHODS.items() if other.samples)
        raise ValueError(
            f"samples: got {samples} for {method!r}, which draws nothing; leave it out, or use {takes}"
        )
    if samples is not None and samples < 1:
        raise ValueError(f"samples: got {samples}; expected 1 or more; leave it out for {chosen.samples}")
    return chosen


def _frozen(model: GridModel) -> GridModel:
    """A copy that may be changed: nothing dropped, no gradient of any parameter, no recording."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    for module in frozen.modules():
        if isinstance(module, PatchAttention):
            module.recorder = None
    return frozen


@torch.no_grad()
def _logits(model: GridModel, grids: GridSet) -> Float[Tensor, "b t"]:
    for grid in grids.grids:
        if not bool(torch.isfinite(grid.features).all()):
            raise ValueError(
                f"grids: backbone {grid.name!r} has NaN or infinity; expected finite numbers; extract anew"
            )
    logits = model(grids).logits.cpu()
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "model: its logits hold NaN or infinity; expected finite numbers; train or load it anew"
        )
    return logits


def _in_order(model: GridModel, grids: GridSet) -> tuple[FeatureGrid, ...]:
    """In the model's order of backbones, so that what is drawn does not depend on that of the grids."""
    return tuple(grids[name] for name in model.backbones if name in grids.names)


def _asked(
    model: GridModel, grids: GridSet, targets: Int[Tensor, " b"], samples: int, at_once: int
) -> _Asked:
    """Standardises the grids once and for all: the rest is linear, so relevance of patches is the same."""
    reduced, ready, dtype = copy.deepcopy(model), [], next(model.parameters()).dtype
    numbers = {name: number for number, name in enumerate(model.backbones)}
    for grid in _in_order(model, grids):
        projection = cast(Projection, cast(nn.ModuleList, reduced.projections)[numbers[grid.name]])
        flat = grid.features.to(model.device, dtype).flatten(2).mT
        features = ((flat - projection.mean) @ projection.basis).mT.unflatten(2, grid.shape)
        k = features.shape[1]
        projection.mean, projection.basis = torch.zeros(k).to(flat), torch.eye(k).to(flat)
        reduced.backbones[grid.name] = k
        ready.append(
            FeatureGrid.trusted(grid.name, features.contiguous().detach().requires_grad_(), grid.field)
        )
    return _Asked(reduced, tuple(ready), targets, samples, at_once)


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """What Captum draws from the global random states, it draws from this seed; they are left as they were."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)
