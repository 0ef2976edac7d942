"""Which backbone dominates a prediction: values that add up, checked by taking things away."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grafeat.arguments import whole
from grafeat.attention.captured import KINDS
from grafeat.evaluation import batches
from grafeat.explanations.game import Game, centred, known_grids, targets_of
from grafeat.explanations.knockouts import KnockOut, knock_out, refuse_knocked_out
from grafeat.explanations.report import Dominance
from grafeat.explanations.routing import routing
from grafeat.explanations.shapley import interactions, sampled_values, shapley_values
from grafeat.explanations.standardised import frozen
from grafeat.graph import PatchGraph
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel
from grafeat.patchmodel import PatchModel

MOST_EXACT = 10  # backbones whose every subset is computed
ORDERS = 64  # random orders where there are more
AT_ONCE = 65_536  # vertices of all pictures of one pass, at most
WITH_WEIGHTS = 8192  # the same where all attention weights are computed: they need memory for each pair of vertices


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

    A merge with interplay reads what backbones say together only where there are two or more. Of two, each is credited
    with one half of it, even one that knows nothing: `utilisation` tells whether it would be missed.

    Args:
        model: A trained model.
        grids: The pictures' grids: one picture or a whole set.
        target: The class to explain, or one for each picture; the predicted classes if absent.
        knockouts: Whether edges are knocked out, too: all cross edges, each pair of backbones, each layer and head.
        batch_size: Pictures that are computed at once, at most: fewer if their grids are large.
        seed: Decides the bootstrap, and the orders where there are more than ten backbones.

    Returns:
        The report; it displays as a table.

    Raises:
        TypeError: If targets or `batch_size` are no whole numbers.
        ValueError: If there is no picture, the model does not know a backbone, features or logits hold NaN or infinity,
            a target is out of range, or edges are knocked out already.

    Warns:
        UserWarning: If the model has never been trained: the values describe an untrained model.
    """
    whole("batch_size", batch_size)
    shown = known_grids(model, grids if isinstance(grids, GridSet) else GridSet(grids))
    if not len(shown):
        raise ValueError("grids: got no picture; expected at least one; slice fewer away")
    if not int(model.label_counts.sum()):
        warnings.warn("model: it was never trained with fit; its values describe an untrained model", stacklevel=2)
    refuse_knocked_out(model, "dominance")
    vertices = PatchGraph.of(shown[:1]).num_vertices
    several, few = (min(batch_size, max(1, most // vertices)) for most in (AT_ONCE, WITH_WEIGHTS))
    game = Game(frozen(model).double(), shown, shown.names, several)
    targets = targets_of(target, game.logits(game.everyone), model.num_classes)
    values, pairs, errors = _values(game, targets, seed)
    correct, left_out = _right(game, exact=errors is None)
    quick = frozen(model)
    return Dominance(
        names=shown.names,
        target=targets,
        picture_values=values.T,
        picture_interactions=pairs,
        errors=None if errors is None else errors.T,
        none=game.worth(0, targets),
        full=game.worth(game.everyone, targets),
        correct=correct,
        left_out=left_out,
        routing=routing(quick, shown, few) if isinstance(quick, PatchModel) else None,
        knockouts=_knocked(quick, shown, targets, few) if knockouts else {},
        classes=tuple(model.classes),
        seed=seed,
    )


def _values(
    game: Game, targets: Int[Tensor, " b"], seed: int
) -> tuple[Float[Tensor, "m b"], Float[Tensor, "b m m"] | None, Float[Tensor, "m b"] | None]:
    """Values, with their interactions where every subset is computed, and with standard errors where not."""
    if len(game.names) <= MOST_EXACT:
        table = torch.stack([game.worth(number, targets) for number in range(game.everyone + 1)])
        return shapley_values(table), interactions(table).movedim(-1, 0), None
    values, errors = sampled_values(
        lambda number: game.worth(number, targets), len(game.names), orders=ORDERS, seed=seed
    )
    return values, None, errors


def _right(
    game: Game, *, exact: bool
) -> tuple[Bool[Tensor, "subsets b"] | None, Bool[Tensor, "left_out b"] | None]:
    """Whether each subset gets each picture right; and whether all do, and all but each one. None without labels."""
    labels = game.grids.labels
    if labels is None:
        return None, None

    def right(subsets: Sequence[int]) -> Bool[Tensor, "subsets b"]:
        return torch.stack([game.logits(number).argmax(dim=1) == labels for number in subsets])

    without = [game.everyone & ~(1 << m) for m in range(len(game.names))]
    return right(range(game.everyone + 1)) if exact else None, right([game.everyone, *without])


@torch.no_grad()
def _knocked(
    model: GridModel, grids: GridSet, targets: Int[Tensor, " b"], batch_size: int
) -> dict[str, Float[Tensor, " b"]]:
    """Change of the centred logit without all cross edges, each pair, each layer and each head."""
    if not isinstance(model, PatchModel):
        return {}
    graph = model.patches(grids[:1])
    several = len(graph.names) > 1
    pairs = [KnockOut("cross", query=query, key=key) for query, key in graph.relations("cross")]
    layers = [
        KnockOut(kind, layer=layer, head=head)
        for kind in KINDS
        if kind in model.kinds and (several or kind == "intra")
        for layer in range(model.depth)
        for head in (None, *range(model.heads))
    ]
    chosen = [*([KnockOut("cross"), *pairs] if several and "cross" in model.kinds else []), *layers]
    changes: dict[str, list[Tensor]] = {str(one): [] for one in chosen}
    for part, own in zip(batches(grids, batch_size), targets.split(batch_size), strict=True):
        before = centred(model(part).logits.cpu(), own)
        for one in chosen:
            with knock_out(model, one, graph):
                changes[str(one)].append(centred(model(part).logits.cpu(), own) - before)
    return {name: torch.cat(parts) for name, parts in changes.items()}
