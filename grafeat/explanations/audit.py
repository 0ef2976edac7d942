"""Whether an explanation can be trusted: tests that a true one must pass, and a plain verdict on each."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.arguments import whole
from grafeat.evaluation import batches
from grafeat.explanations.controls import CONTROLS, control
from grafeat.explanations.faithfulness import complexity, rank_correlation, sign_agreement
from grafeat.explanations.game import finite_logits, known_grids, targets_of
from grafeat.explanations.relevance import METHODS, Relevance, relevance
from grafeat.explanations.removal import taken_apart
from grafeat.explanations.standardised import frozen
from grafeat.explanations.verdict import Audit
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.patchmodel import PatchModel, as_patches

# What explains pictures: a function like `relevance` with its method and options filled in.
Explainer = Callable[[GridModel, GridSet, Tensor], Relevance]


def audit(
    model: GridModel,
    grids: GridSet | Sequence[FeatureGrid],
    target: int | Sequence[int] | Tensor | None = None,
    *,
    method: str | Sequence[str] | Mapping[str, Explainer] = "integrated_gradients",
    batch_size: int = 64,
    seed: int = 0,
) -> Audit:
    """Can this explanation of a model's predictions be trusted?

    Patches are taken out in cells of about equal area in every backbone, so that grids of unequal size can be compared.
    Deletion makes them the mean patch of their backbone; insertion puts them into another picture's features, so that
    the two do not share one baseline. `thresholds()` lists what is measured and what each test asks for.

    Args:
        model: A trained model.
        grids: Grids of the pictures whose predictions are explained: two or more, better fifty.
        target: The class that is explained, or one for each picture; the predicted classes if absent.
        method: One of `relevance`'s methods, a control (`constant`, `random`, `edges`, `norm`), several of them, or
            your own by name: functions like `partial(gf.relevance, method="shapley", samples=100)`. They get a frozen
            copy of the model, the grids in the model's order of backbones, and the targets.
        batch_size: Pictures that are computed at once.
        seed: Decides random orders, which other picture is put into, shuffled parameters and the bootstrap.

    Raises:
        TypeError: If the model has no attention for a method that needs it, or no standardisation; if an explainer of
            your own gives something else than a `Relevance`.
        ValueError: If a method is unknown, there are fewer than two pictures, or as `relevance` does; if what an
            explainer of your own gives does not fit the grids, or holds NaN or infinity.

    Warns:
        UserWarning: If the model has never been trained.

    Source: Petsiuk et al., BMVC 2018 (deletion, insertion); Wu et al., CVPR 2024 (SaCo); Adebayo et al., NeurIPS 2018
    (shuffled parameters); Hedström et al., arXiv 2401.06465 (complexity); Sundararajan et al., ICML 2017
    (completeness).
    """
    whole("batch_size", batch_size)
    explainers = _explainers(method, seed)
    given = as_patches(model, grids)
    if len(given) < 2:
        raise ValueError(
            f"grids: got {len(given)} pictures; expected 2 or more, better fifty; slice more: grids[:50]"
        )
    given = known_grids(model, given)
    exact = frozen(model)
    logits = torch.cat([finite_logits(exact, part) for part in batches(given, batch_size)])
    targets = targets_of(target, logits, model.num_classes)
    explained = {name: explain(exact, given, targets) for name, explain in explainers.items()}
    values = {name: _values(found, given, name) for name, found in explained.items()}
    removals = taken_apart(exact, given, targets, values, batch_size=batch_size, seed=seed)
    reference = "ablation" if isinstance(model, PatchModel) else "feature_ablation"
    ablated = _values(relevance(exact, given, targets, method=reference), given, reference)
    untrained = shuffled(exact, seed)
    measured = {}
    for name, explain in explainers.items():
        own, other = values[name], _values(explain(untrained, given, targets), given, name)
        measured[name] = removals[name].tests() | {
            "sign": sign_agreement(own, ablated),
            "randomised, similarity": rank_correlation(own, other),
            "randomised, complexity": complexity(other) - complexity(own),
            "completeness": removals[name].gap(own),
        }
        signed, itself = explained[name].signed, explained[name].method == reference
        without = ("sign", "completeness") if not signed else ("sign",) if itself else ()
        measured[name] |= dict.fromkeys(without, torch.full((len(given),), torch.nan, dtype=torch.float64))
    curves = {
        name: {"deletion": found.deletion.means(-1), "insertion": found.insertion.means(1)}
        for name, found in removals.items()
    }
    return Audit(measured, curves, targets, seed)


@torch.no_grad()
def shuffled(model: GridModel, seed: int) -> GridModel:
    """A copy whose parameters are shuffled, each tensor within itself: what a model that has learned nothing would be.

    Their distribution stays, and with it the scale of all that is computed; so do the statistics of the features.
    """
    copied, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for parameter in copied.parameters():
        mixed = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[mixed].view_as(parameter))
    return copied


def _explainers(method: str | Sequence[str] | Mapping[str, Explainer], seed: int) -> dict[str, Explainer]:
    if not method:
        raise ValueError("method: got none; expected one or more; leave it out for integrated_gradients")
    if isinstance(method, Mapping):
        return dict(method)
    found: dict[str, Explainer] = {}
    for name in [method] if isinstance(method, str) else method:
        if name not in METHODS and name not in CONTROLS:
            raise ValueError(
                f"method: got {name!r}; expected some of {', '.join((*METHODS, *CONTROLS))}; or pass your own as "
                "{'name': function}"
            )
        found[name] = partial(relevance if name in METHODS else control, method=name, seed=seed)
    return found


def _values(found: Relevance, grids: GridSet, name: str) -> Float[Tensor, "b n"]:
    """An explanation's values of all patches in the order of these grids, once they are known to fit them."""
    if not isinstance(found, Relevance):
        raise TypeError(f"method: {name!r} gave {type(found).__name__}; expected a gf.Relevance; wrap its maps")
    if set(found.maps) != set(grids.names):
        raise ValueError(
            f"method: {name!r} gave maps of {', '.join(found.maps) or 'nothing'}; expected {', '.join(grids.names)}; "
            "give one for each backbone"
        )
    for grid in grids[:1].grids:
        shape, wanted = tuple(found.maps[grid.name].shape), (len(grids), *grid.shape)
        if shape != wanted:
            raise ValueError(
                f"method: {name!r} gave shape {shape} for backbone {grid.name!r}; expected {wanted}: pictures, rows "
                "and columns; give one value for each patch"
            )
    values = torch.cat([found.maps[name].detach().cpu().double().flatten(1) for name in grids.names], dim=1)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"method: {name!r} gave NaN or infinity; expected finite numbers; check what it divides by")
    return values
