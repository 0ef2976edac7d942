"""Which patches of which backbone speak for a prediction, by any of several methods."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.arguments import whole
from grafeat.explanations import attributions, rollout
from grafeat.explanations.attributions import drawn_from
from grafeat.explanations.game import finite_logits, targets_of
from grafeat.explanations.rollout import Row
from grafeat.explanations.standardised import Subject, frozen, has_projections, in_order, standardised
from grafeat.graph import Patch, PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.patchmodel import PatchModel, as_patches

AT_ONCE = 4096  # vertices of all pictures of one pass


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
        classes: Names of the model's classes; empty if they are not known.
    """

    maps: dict[str, Float[Tensor, "b _ _"]]
    method: str
    signed: bool
    target: Int[Tensor, " b"]
    graph: PatchGraph
    classes: tuple[str, ...] = ()

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
    method: str = "integrated_gradients",
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
    | `grad_cam` | gradient times the patch's vertex state, where it is read |
    | `integrated_gradients` | gradient times features, averaged on the way from the baseline: sums to the change |
    | `gradient_shap` | the same at random places on the way and with noise |
    | `feature_ablation` | what the logit loses if the patch becomes the mean patch |
    | `occlusion` | the same for windows of 3 × 3 patches, averaged over the windows that hold the patch |
    | `shapley` | Shapley value of the patch's cell, 4 × 4 cells a grid, shared out evenly among its patches |
    | `ablation` | what the logit loses if nothing attends to the patch and the readout does not read it |

    Args:
        model: A trained model; the attention methods, `grad_cam` and `ablation` need one whose patches attend to each
            other, such as `GraFeatMerge`.
        grids: The pictures' grids. A model that resamples them (`combo`) is explained on the grid on which it works.
        target: The class to explain, or one for each picture; the predicted classes if absent.
        method: One of the above. The default's values sum to the logit's change, and say what speaks against.
        samples: Points of `integrated_gradients` (50), draws of `gradient_shap` (50) or orders of `shapley` (25).
        seed: Decides what is drawn; the global random states are left as they were.

    Raises:
        TypeError: If the model has no attention for a method that needs it, or no standardisation; if targets or
            `samples` are no whole numbers.
        ValueError: If the method is unknown, there is no picture, features or logits hold NaN or infinity, a target is
            out of range, or the grids are not the model's.

    Warns:
        UserWarning: If the model has never been trained: the values describe an untrained model.

    Source: Abnar and Zuidema, ACL 2020; Chefer et al., ICCV 2021; Draelos and Carin, arXiv 2011.08891 (`grad_cam`
    without averaging gradients over places); all others Captum's (Kokhlikyan et al., arXiv 2009.07896).
    """
    chosen = _chosen(model, method, samples)
    shown = as_patches(model, grids)
    graph = PatchGraph.of(shown)
    if not len(shown):
        raise ValueError("grids: got no picture; expected at least one; slice fewer away")
    if not int(model.label_counts.sum()):
        warnings.warn(
            "model: it was never trained with fit; the values describe an untrained model", stacklevel=2
        )
    at_once = max(1, AT_ONCE // graph.num_vertices)
    with torch.inference_mode(False), torch.enable_grad():
        exact = frozen(model)
        parts = [shown[start : start + at_once] for start in range(0, len(shown), at_once)]
        targets = targets_of(
            target, torch.cat([finite_logits(exact, part) for part in parts]), model.num_classes
        )
        size = 1 if chosen.alone else at_once
        rows = []
        for start in range(0, len(shown), size):
            own = targets[start : start + size]
            draws = samples or chosen.samples
            subject = standardised(exact, shown[start : start + size], own, samples=draws, at_once=at_once)
            with drawn_from(seed):
                rows.append(chosen.compute(subject).detach().float().cpu())
    names = [grid.name for grid in in_order(model, shown)]
    sizes = [graph.sizes[name] for name in names]
    blocks = dict(zip(names, torch.cat(rows).split(sizes, dim=1), strict=True))
    maps = {name: blocks[name].unflatten(1, graph.shapes[name]) for name in graph.names}
    return Relevance(maps, method, chosen.signed, targets, graph, tuple(model.classes))


def _attention_rollout(subject: Subject) -> Row:
    return rollout.attention_rollout(cast(PatchModel, subject.model), subject.grids)


def _gradient_rollout(subject: Subject) -> Row:
    return rollout.gradient_rollout(cast(PatchModel, subject.model), subject.grids, subject.score)


def _grad_cam(subject: Subject) -> Row:
    return rollout.grad_cam(cast(PatchModel, subject.model), subject.grids, subject.score)


def _ablation(subject: Subject) -> Row:
    return rollout.ablation(cast(PatchModel, subject.model), subject.grids, subject.score)


@dataclass(frozen=True)
class _Method:
    compute: Callable[[Subject], Row]
    signed: bool = True
    samples: int = 0  # 0 where nothing is sampled
    graph: bool = False  # whether it needs attention and vertices
    alone: bool = False  # one picture at a time, so that neither draws nor knock-outs are shared


_METHODS = {
    "attention_rollout": _Method(_attention_rollout, signed=False, graph=True),
    "gradient_rollout": _Method(_gradient_rollout, signed=False, graph=True),
    "gradient_x_input": _Method(attributions.gradient_x_input),
    "grad_cam": _Method(_grad_cam, graph=True),
    "integrated_gradients": _Method(attributions.integrated_gradients, samples=50),
    "gradient_shap": _Method(attributions.gradient_shap, samples=50, alone=True),
    "feature_ablation": _Method(attributions.feature_ablation, alone=True),
    "occlusion": _Method(attributions.occlusion, alone=True),
    "shapley": _Method(attributions.shapley, samples=25, alone=True),
    "ablation": _Method(_ablation, graph=True, alone=True),
}
METHODS = tuple(_METHODS)


def _chosen(model: GridModel, method: str, samples: int | None) -> _Method:
    if method not in _METHODS:
        raise ValueError(f"method: got {method!r}; expected one of {', '.join(METHODS)}")
    chosen = _METHODS[method]
    kind = type(model).__name__
    if chosen.graph and not isinstance(model, PatchModel):
        others = ", ".join(name for name, other in _METHODS.items() if not other.graph)
        raise TypeError(
            f"model: got {kind}, which has no graph; {method!r} needs GraFeatMerge, or another whose patches attend to "
            f"each other; or use {others}"
        )
    if not has_projections(model):
        raise TypeError(
            f"model: got {kind}, which has no projections; expected one that standardises its grids"
        )
    if samples is not None and not chosen.samples:
        takes = ", ".join(name for name, other in _METHODS.items() if other.samples)
        raise ValueError(
            f"samples: got {samples} for {method!r}, which draws nothing; leave it out, or use {takes}"
        )
    if samples is not None:
        whole("samples", samples)
    return chosen
