"""Whether an explanation can be trusted: tests that a true one must pass, and a plain verdict on each."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from grafeat.explanations.controls import CONTROLS, control
from grafeat.explanations.faithfulness import complexity, rank_correlation, sign_agreement
from grafeat.explanations.game import batches, targets_of
from grafeat.explanations.relevance import METHODS, Relevance, relevance
from grafeat.explanations.removal import taken_apart
from grafeat.explanations.standardised import finite_logits, frozen
from grafeat.explanations.verdict import Audit
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel

# What explains pictures: a function like `relevance` with its method and options filled in.
Explainer = Callable[[GridModel, GridSet, Tensor], Relevance]


def audit(
    model: GridModel,
    grids: GridSet | Sequence[FeatureGrid],
    target: int | Sequence[int] | Tensor | None = None,
    *,
    method: str | Sequence[str] | Mapping[str, Explainer] = "gradient_rollout",
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
            your own by name: functions like `partial(gf.relevance, method="shapley", samples=100)`.
        batch_size: Pictures that are computed at once.
        seed: Decides random orders, which other picture is put into, shuffled parameters and the bootstrap.

    Raises:
        TypeError: If the model has no attention for a method that needs it, or no standardisation.
        ValueError: If a method is unknown, there are fewer than two pictures, or as `relevance` does.

    Warns:
        UserWarning: If the model has never been trained.

    Source: Petsiuk et al., BMVC 2018 (deletion, insertion); Wu et al., CVPR 2024 (SaCo); Adebayo et al., NeurIPS 2018
    (shuffled parameters); Hedström et al., arXiv 2401.06465 (complexity); Sundararajan et al., ICML 2017
    (completeness).
    """
    explainers = _explainers(method, seed)
    given = grids if isinstance(grids, GridSet) else GridSet(grids)
    if len(given) < 2:
        raise ValueError(
            f"grids: got {len(given)} pictures; expected 2 or more, better fifty; slice more: grids[:50]"
        )
    given = given.only(*(name for name in model.backbones if name in given.names))
    exact = frozen(model)
    logits = torch.cat([finite_logits(exact, part) for part in batches(given, batch_size)])
    targets = targets_of(target, logits, model.num_classes)
    explained = {name: explain(model, given, targets) for name, explain in explainers.items()}
    values = {name: found.flat.double() for name, found in explained.items()}
    removals = taken_apart(exact, given, targets, values, batch_size=batch_size, seed=seed)
    reference = "ablation" if isinstance(model, GraFeatMerge) else "feature_ablation"
    ablated = relevance(model, given, targets, method=reference).flat.double()
    untrained = shuffled(exact, seed)
    measured = {}
    for name, explain in explainers.items():
        own, other = values[name], explain(untrained, given, targets).flat.double()
        measured[name] = removals[name].tests() | {
            "sign": sign_agreement(own, ablated),
            "randomised, similarity": rank_correlation(own, other),
            "randomised, complexity": complexity(other) - complexity(own),
            "completeness": removals[name].gap(own),
        }
        if not explained[name].signed:
            nothing = torch.full((len(given),), torch.nan, dtype=torch.float64)
            measured[name] |= {"sign": nothing, "completeness": nothing}
    curves = {
        name: {"deletion": found.deletion.means(), "insertion": found.insertion.means()}
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
    if isinstance(method, Mapping):
        return dict(method)
    names = [method] if isinstance(method, str) else list(method)
    found: dict[str, Explainer] = {}
    for name in names:
        if name not in METHODS and name not in CONTROLS:
            raise ValueError(
                f"method: got {name!r}; expected some of {', '.join((*METHODS, *CONTROLS))}; or pass your own as "
                "{'name': function}"
            )
        found[name] = partial(relevance if name in METHODS else control, method=name, seed=seed)
    if not found:
        raise ValueError("method: got none; expected one or more; leave it out for gradient_rollout")
    return found
