"""Which backbone dominates a prediction: values that add up, checked by taking things away."""

import copy
import warnings
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grafeat.captured import KINDS
from grafeat.capturing import capture
from grafeat.explanations.game import Game, batches, centred, targets_of
from grafeat.explanations.knockouts import KnockOut, knock_out
from grafeat.explanations.report import Dominance
from grafeat.explanations.shapley import interactions, sampled_values, shapley_values
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel, evaluating

MOST_EXACT = 10  # backbones whose every subset is computed
ORDERS = 64  # random orders where there are more


def dominance(
    model: GridModel,
    grids: GridSet | Sequence[FeatureGrid],
    target: int | Sequence[int] | Tensor | None = None,
    *,
    knockouts: bool = True,
    batch_size: int = 256,
    seed: int = 0,
) -> Dominance:
    """Which backbone dominates the predictions for some pictures.

    Args:
        model: A trained model.
        grids: The pictures' grids: one picture or a whole set.
        target: The class to explain, or one for each picture; the predicted classes if absent.
        knockouts: Whether edges are knocked out, too: all cross edges, each pair of backbones, each layer and head.
        batch_size: Pictures that are computed at once.
        seed: Decides the bootstrap, and the orders where there are more than ten backbones.

    Returns:
        The report; it displays as a table.

    Raises:
        ValueError: If there is no picture, or a target is out of range.

    Warns:
        UserWarning: If the model has never been trained: the values describe an untrained model.
    """
    shown = grids if isinstance(grids, GridSet) else GridSet(grids)
    if not len(shown):
        raise ValueError("grids: got no picture; expected at least one; slice fewer away")
    if not int(model.label_counts.sum()):
        warnings.warn("model: it was never trained with fit; its values describe an untrained model", stacklevel=2)
    exact = copy.deepcopy(model).double().eval()
    names = tuple(name for name in model.backbones if name in shown.names)
    game = Game(exact, shown, names, batch_size)
    everyone = (1 << len(names)) - 1
    targets = targets_of(target, game.logits(everyone), model.num_classes)
    table, pairs, errors = None, None, None
    if len(names) <= MOST_EXACT:
        table = torch.stack([game.worth(number, targets) for number in range(everyone + 1)])
        values, pairs = shapley_values(table), interactions(table).movedim(-1, 0)
    else:
        values, errors = sampled_values(
            lambda number: game.worth(number, targets), len(names), orders=ORDERS, seed=seed
        )
    labels = shown.labels
    correct = None
    if labels is not None and table is not None:
        correct = torch.stack([game.logits(number).argmax(dim=1) == labels for number in range(everyone + 1)])
    return Dominance(
        names=names,
        target=targets,
        picture_values=values.T,
        picture_interactions=pairs,
        errors=None if errors is None else errors.T,
        none=game.worth(0, targets),
        full=game.worth(everyone, targets),
        correct=correct,
        routing=_routing(model, shown, batch_size),
        knockouts=_knocked(copy.deepcopy(model).eval(), shown, targets, batch_size) if knockouts else {},
        seed=seed,
    )


@torch.no_grad()
def _routing(model: GridModel, grids: GridSet, batch_size: int) -> pd.DataFrame | None:
    """Mass of each backbone's patches in the readout and in each cross layer, beside that of equal logits."""
    if not isinstance(model, GraFeatMerge):
        return None
    rows: dict[tuple[str, str], list[float]] = {}
    even: dict[tuple[str, str], float] = {}
    for part in batches(grids, min(batch_size, 64)):
        with evaluating(model), capture(model) as attention:
            output = model(part)
        for name, weights in output.reading.items():
            rows.setdefault(("readout", name), []).extend(weights.sum(dim=(2, 3)).mean(dim=1).tolist())
            even["readout", name] = 1 / len(output.reading)
        for layer in range(attention.layers("cross") if "cross" in attention.kinds else 0):
            for query, key in attention.graph.relations("cross"):
                where = (f"cross {layer}", f"{query} → {key}")
                mass = attention.cross(query, key, layer).sum(dim=(-2, -1)).mean(dim=(1, 2, 3))
                rows.setdefault(where, []).extend(mass.tolist())
                even[where] = attention.uniform(query, key, layer) * attention.graph.sizes[key]
    return pd.DataFrame(
        [
            {"where": where, "backbone": name, "mass": sum(masses) / len(masses), "even": even[where, name]}
            for (where, name), masses in rows.items()
        ]
    )


@torch.no_grad()
def _knocked(
    model: GridModel, grids: GridSet, targets: Int[Tensor, " b"], batch_size: int
) -> dict[str, Float[Tensor, " b"]]:
    """Change of the centred logit without all cross edges, each pair, each layer and each head."""
    if not isinstance(model, GraFeatMerge):
        return {}
    graph = PatchGraph.of(grids[:1])
    several = len(graph.names) > 1
    pairs = [KnockOut("cross", query=query, key=key) for query, key in graph.relations("cross")]
    layers = [
        KnockOut(kind, layer=layer, head=head)
        for kind in KINDS
        if (model.config.intra if kind == "intra" else model.config.cross and several)
        for layer in range(model.config.depth)
        for head in (None, *range(model.config.heads))
    ]
    chosen = [*([KnockOut("cross"), *pairs] if several and model.config.cross else []), *layers]
    changes: dict[str, list[Tensor]] = {str(one): [] for one in chosen}
    for start in range(0, len(grids), batch_size):
        part, own = grids[start : start + batch_size], targets[start : start + batch_size]
        before = centred(model(part).logits.cpu(), own)
        for one in chosen:
            with knock_out(model, one, graph):
                changes[str(one)].append(centred(model(part).logits.cpu(), own) - before)
    return {name: torch.cat(parts) for name, parts in changes.items()}
