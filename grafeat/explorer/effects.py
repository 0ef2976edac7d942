"""What matters for one picture's logits: knock-outs, relevance of the patches, values of the backbones."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grafeat.explanations.dominance import dominance
from grafeat.explanations.game import NotFiniteError
from grafeat.explanations.knockouts import knocked_logits
from grafeat.explanations.relevance import METHODS, Relevance, relevance
from grafeat.explanations.report import Dominance
from grafeat.explorer.knocked import Knocked, described, knock_out_of, structures
from grafeat.explorer.payload import Arrays
from grafeat.explorer.source import Source
from grafeat.grids import GridSet
from grafeat.models import GridModel, evaluating
from grafeat.patchmodel import check_patches

ALL_PATCHES, STRONGEST = 128, 32  # up to so many patches a page holds each one's knock-out; of more, the strongest
ABLATION, QUICK = "ablation", "integrated_gradients"
ON_PAGE = ("gradient_rollout", QUICK, ABLATION)  # relevance of the predicted class in a page
ABLATED = 512  # patches up to which a page holds ablation: it takes as many passes, each dearer the more there are
KEPT = 64  # answers of a kind that are kept, the last ones

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Effect:
    """What the logits of one picture become without a patch, some edges, or a backbone.

    Attributes:
        knocked: What is out, as `Explorer.knocked` says it.
        before: Logits (t,) with all.
        after: Logits (t,) without it.
        classes: Names of the classes.
    """

    knocked: Knocked
    before: Float[Tensor, " t"]
    after: Float[Tensor, " t"]
    classes: tuple[str, ...]

    @property
    def change(self) -> Float[Tensor, " t"]:
        """The logits after minus those before."""
        return self.after - self.before

    def __repr__(self) -> str:
        said, now = int(self.before.argmax()), int(self.after.argmax())
        change = float(self.change[said])
        moved = f"{'gains' if change > 0 else 'loses'} {abs(change):.2f}"
        says = f"still says {self.classes[now]!r}" if now == said else f"now says {self.classes[now]!r}"
        return f"Without {described(self.knocked)}: {self.classes[said]!r} {moved}, {says}"


@torch.no_grad()
def logits_without(model: GridModel, grids: GridSet, many: Sequence[Knocked]) -> Float[Tensor, "k t"]:
    """The logits of one picture without each of many.

    Args:
        model: A model whose patches attend to each other.
        grids: The grids of one picture.
        many: What to knock out, each as `checked` gives it.

    Returns:
        Logits (k, t), one row for each.

    Raises:
        TypeError: If the model has no patch graph.
    """
    model = check_patches(model)
    found = torch.zeros(len(many), model.num_classes)
    with evaluating(model):
        for row, knocked in enumerate(many):
            if knocked[0] == "backbone":
                found[row] = model(grids, without=(str(knocked[1]),)).logits[0].float().cpu()
        edges = [row for row, knocked in enumerate(many) if knocked[0] != "backbone"]
        found[edges] = knocked_logits(model, grids, [knock_out_of(many[row]) for row in edges]).float().cpu()
    return found


@dataclass(eq=False)
class Effects:
    """Knock-outs, relevance and values of an explorer's pictures, each computed when it is asked for and kept.

    What is kept is of the model as it is: after a change of its weights all is computed anew.

    Args:
        source: The model and the pictures.
    """

    source: Source
    _kept: dict[str, OrderedDict[Any, Any]] = field(default_factory=dict)
    _seen: tuple[object, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of relevance that the graph permits: a lone patch cannot be ablated."""
        return tuple(method for method in METHODS if method != ABLATION or self.source.graph.num_vertices > 1)

    @property
    def _cheap(self) -> tuple[str, ...]:
        """The methods of relevance that a page holds, asked for or not."""
        dear = () if self.source.graph.num_vertices <= ABLATED else (ABLATION,)
        return tuple(method for method in ON_PAGE if method in self.methods and method not in dear)

    def effect(self, picture: int, knocked: Knocked) -> Effect:
        """What knocking out does to the logits of a picture."""
        after = self._once(
            "effect",
            (picture, knocked),
            lambda: logits_without(self.source.model, self.source.grids[picture], [knocked])[0],
        )
        return Effect(knocked, self.before(picture), after, self.source.model.classes)

    def before(self, picture: int) -> Float[Tensor, " t"]:
        """The logits of a picture with all."""
        return self.source[picture].output.logits[0].detach().float().cpu()

    def relevant(self, picture: int, method: str, target: int | None = None) -> Relevance:
        """How much each patch of a picture speaks for a class; the predicted one if none is given."""

        def compute() -> Relevance:
            with _untrained_too():
                return relevance(self.source.model, self.source.grids[picture], target, method=method)

        return self._once("relevance", (picture, method, target), compute)

    def values(self, picture: int) -> Dominance:
        """What each backbone is worth to the predicted class of a picture."""

        def compute() -> Dominance:
            with _untrained_too():
                return dominance(self.source.model, self.source.grids[picture], knockouts=False)

        return self._once("values", picture, compute)

    def values_sent(self, picture: int) -> np.ndarray:
        """The same for the page; NaN where features or logits are no numbers."""
        names = self.source.graph.names
        try:
            return values_sent(self.values(picture), names)
        except NotFiniteError:
            return np.full(len(names) + 2, np.nan, dtype=np.float32)

    def facts(self, report: Dominance | None) -> dict[str, Any]:
        """What holds for all pictures, in the words that the page's script reads."""
        return {
            "trained": bool(self.source.model.label_counts.sum()),
            "methods": list(self.methods),
            "report": None if report is None else reported(report, self.source.graph.names),
        }

    def on_page(self, picture: int, state: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
        """All that a page holds of a picture, since it cannot ask: what is asked most, and what its state shows."""
        model, grids = self.source.model, self.source.grids[picture]
        found: dict[str, Any] = {}
        arrays: Arrays = {}
        wanted = [(method, None) for method in self._cheap]
        wanted += [(state["relevance"], state["target"])] if state["relevance"] else []
        for method, target in wanted:
            name = f"{method} {'predicted' if target is None else target}"
            with suppress(NotFiniteError):  # there is nothing to explain
                found[name], arrays[name] = relevance_sent(self.relevant(picture, method, target))
        knocked = [*structures(self.source[picture].attention), *self._patches(picture)]
        if state["knocked"]:
            knocked.append(tuple(state["knocked"]))
        arrays["without"] = logits_without(model, grids, knocked).numpy()
        arrays["values"] = self.values_sent(picture)
        return {"relevance": found, "knocked": [list(one) for one in knocked]}, arrays

    def _patches(self, picture: int) -> list[Knocked]:
        """The patches whose knock-outs a page holds: all if they are few, else those that change most, or seem to."""
        graph = self.source.graph
        chosen = range(graph.num_vertices) if graph.num_vertices > 1 else range(0)
        if len(chosen) <= ALL_PATCHES:
            return [("patch", *graph.locate(vertex)) for vertex in chosen]
        try:
            judge = ABLATION if ABLATION in self._cheap else QUICK
            change = self.relevant(picture, judge).flat[0].abs()
        except NotFiniteError:
            return []
        strongest = change.argsort(descending=True, stable=True)[:STRONGEST]
        return [("patch", *graph.locate(vertex)) for vertex in strongest.tolist()]

    def _once(self, kind: str, key: Any, compute: Callable[[], T]) -> T:
        if self._seen != self.source.weights:
            self._kept.clear()
            self._seen = self.source.weights
        kept = self._kept.setdefault(kind, OrderedDict())
        if key not in kept:
            kept[key] = compute()
        kept.move_to_end(key)
        if len(kept) > KEPT:
            kept.popitem(last=False)
        return kept[key]


def relevance_sent(found: Relevance) -> tuple[dict[str, Any], np.ndarray]:
    """One picture's relevance for the page: whether it is signed, of which class, and the values (n,)."""
    return {"signed": found.signed, "target": int(found.target[0])}, found.flat[0].float().numpy()


def values_sent(found: Dominance, names: Sequence[str]) -> np.ndarray:
    """One picture's values in the graph's order of backbones, then the centred logit without any, and with all."""
    values = [found.values[name] for name in names]
    return np.array([*values, float(found.none[0]), float(found.full[0])], dtype=np.float32)


def reported(report: Dominance, names: Sequence[str]) -> dict[str, Any]:
    """A report over a set of pictures, for the page.

    Raises:
        ValueError: If it is of other backbones.
    """
    if set(report.names) != set(names):
        raise ValueError(
            f"report: got one of {', '.join(report.names)}; expected {', '.join(names)}; pass gf.dominance(model, "
            "grids) of these grids"
        )
    return {
        "pictures": len(report.target),
        "shares": [_number(report.shares[name]) for name in names],
        "intervals": [[_number(end) for end in report.share_intervals[name]] for name in names],
    }


def _number(value: float) -> float | None:
    """A number that JSON can hold."""
    return value if np.isfinite(value) else None


@contextmanager
def _untrained_too() -> Iterator[None]:
    """The page itself says that a model was never trained."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="model: it was never trained", category=UserWarning)
        yield
