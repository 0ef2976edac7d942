"""What a model says of a labelled set, and how sure its accuracy is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grafeat.arguments import whole
from grafeat.grids import GridSet
from grafeat.intervals import wilson_interval
from grafeat.models import GridModel
from grafeat.splits import Rows


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracy on a labelled set.

    Attributes:
        predictions: The most likely class of each picture (b,).
        labels: Its true class (b,).
    """

    predictions: Rows
    labels: Rows

    @property
    def correct(self) -> Bool[Tensor, " b"]:
        """Whether each picture's most likely class is the true one."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Share of pictures that are right, in [0, 1]."""
        return float(self.correct.double().mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval (low, high) of the accuracy over pictures; Wilson, JASA 1927."""
        return wilson_interval(int(self.correct.sum()), len(self.labels))

    def __repr__(self) -> str:
        low, high = self.interval
        return f"accuracy {self.accuracy:.1%} (95% interval {low:.1%} to {high:.1%}, {len(self.labels):,} pictures)"


def evaluate(model: GridModel, grids: GridSet, *, batch_size: int = 256) -> Evaluation:
    """Accuracy of a model on labelled grids, with its 95% interval.

    Args:
        model: The model; put into `eval`.
        grids: Labelled grids that it was not trained on.
        batch_size: Pictures at once.

    Raises:
        ValueError: If the set is empty or has no labels, or has labels beyond the model's classes or by other names; if
            `batch_size` is below 1.
    """
    labels = checked_labels("grids", grids, model)
    return Evaluation(predict(model, grids, batch_size=batch_size).argmax(dim=1), labels)


@torch.no_grad()
def predict(model: GridModel, grids: GridSet, *, batch_size: int = 256) -> Float[Tensor, "b t"]:
    """Class logits of every picture of a set, on the CPU; puts the model into `eval`."""
    model.eval()
    return torch.cat([model(batch).logits.float().cpu() for batch in batches(grids, batch_size)])


def batches(grids: GridSet, batch_size: int, *, shuffle: bool = False) -> Iterator[GridSet]:
    """A set piece by piece, in order or shuffled by the current random state."""
    size = whole("batch_size", batch_size)
    order = torch.randperm(len(grids)) if shuffle else torch.arange(len(grids))
    for rows in order.split(size):
        yield grids[rows]


def checked_labels(argument: str, grids: GridSet, model: GridModel) -> Rows:
    """A set's labels, once they are known to be there and to be classes of the model."""
    labels = grids.required_labels(argument)
    if int(labels.max()) >= model.num_classes:
        raise ValueError(
            f"{argument}: got label {int(labels.max())}, but the model has {model.num_classes} classes, 0 to "
            f"{model.num_classes - 1}; build it with num_classes={int(labels.max()) + 1}"
        )
    check_same_classes(argument, grids, model.classes, of="the model")
    return labels


def check_same_classes(argument: str, grids: GridSet, classes: Sequence[str], *, of: str) -> None:
    """That the classes which a set's labels name are called as in `classes`, where both have names.

    Raises:
        ValueError: If one is called otherwise.
    """
    if _numbered(grids.classes) or _numbered(classes):
        return
    for number in grids.required_labels(argument).unique().tolist():
        if number < len(classes) and grids.classes[number] != classes[number]:
            raise ValueError(
                f"{argument}: class {number} is {grids.classes[number]!r}, but {classes[number]!r} for {of}; expected "
                f"its classes in its order: {', '.join(classes)}; number the labels so"
            )


def _numbered(classes: Sequence[str]) -> bool:
    """Whether classes have no names of their own."""
    return list(classes) == [str(number) for number in range(len(classes))]
