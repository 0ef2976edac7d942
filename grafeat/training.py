"""One readable training loop for the merge and its rivals, and the evaluation with its interval."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Beta
from tqdm.auto import tqdm

from grafeat.grids import FeatureGrid, GridSet
from grafeat.intervals import wilson_interval
from grafeat.models import GridModel
from grafeat.splits import Rows

PICTURES_SHOWN = 20_000  # of a default training, each picture counted as often as it is shown
EPOCHS = (8, 40)
Target = list[tuple[float, Rows]]


@dataclass(frozen=True)
class Epoch:
    """One row of a `History`.

    Attributes:
        train_loss: Mean training loss, in nats.
        val_loss: Cross-entropy on the validation pictures, in nats; None without them.
        val_accuracy: Accuracy on the validation pictures, in [0, 1]; None without them.
        learning_rate: Learning rate at the end of the epoch.
    """

    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class History:
    """What `fit` saw.

    Attributes:
        epochs: One row for each epoch.
        best: The epoch, from 0, whose weights the model now has.
        seconds: Duration of the training.
    """

    epochs: tuple[Epoch, ...]
    best: int
    seconds: float

    def __repr__(self) -> str:
        row = self.epochs[self.best]
        val = "" if row.val_accuracy is None else f", validation accuracy {row.val_accuracy:.1%}"
        return (
            f"History: {len(self.epochs)} epochs in {self.seconds:.1f} s; kept epoch {self.best + 1}: "
            f"training loss {row.train_loss:.3f}{val}"
        )


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


def fit(
    model: GridModel,
    train: GridSet,
    *,
    val: GridSet | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    mixup: float = 0.4,
    own_loss: float = 1.0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> History:
    """Trains a model on feature grids and leaves it with the weights of its best epoch on validation, in `eval`.

    AdamW, warm-up and half a cosine. The same seed gives the same result on the same machine; the global random state
    is left as it was. On CUDA the forward pass runs in bfloat16 where that is safe.

    Args:
        model: A `GraFeatMerge`, or another way to mix.
        train: Labelled grids to learn from; of a set with parts, only the training part is looked at.
        val: Labelled grids on which the best epoch is chosen, by their loss; without them the last one stays. Of a set
            with parts, only the validation part is looked at.
        seed: Decides shuffling, mixing and dropping.
        epochs: Passes over `train`; by default as many as show about 20,000 pictures, 8 to 40.
        batch_size: Pictures in a step.
        learning_rate: Highest learning rate.
        weight_decay: Of AdamW.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        mixup: Parameter of the Beta distribution by which two pictures' grids and labels are mixed; 0 for none.
        own_loss: Weight of the loss of each backbone's own reading, beside that of the merged one.
        device: Where to train; by default where the model is. The model stays there.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If a set is empty or has no labels, or has labels beyond the model's classes; if `epochs` or
            `batch_size` is below 1.

    Source: AdamW: Loshchilov and Hutter, ICLR 2019; mixup: Zhang et al., ICLR 2018, here between feature grids.
    """
    train = train.train if "train" in train.parts else train  # else a test part would be learned
    labels = _checked_labels("train", train, model)
    if val is not None:
        val = val.val if "val" in val.parts else val
        _checked_labels("val", val, model)
    epochs = _default_epochs(len(train)) if epochs is None else epochs
    _check_positive(epochs=epochs, batch_size=batch_size)
    model.to(device or model.device)
    model.label_counts.copy_(labels.bincount(minlength=model.num_classes))
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = epochs * math.ceil(len(train) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, steps))
    start, rows, best, lowest, kept = time.perf_counter(), [], 0, math.inf, copy.deepcopy(model.state_dict())
    with (
        _seeded(seed, model.device),
        tqdm(range(epochs), desc="fit", unit="epoch", disable=not progress) as bar,
    ):
        for _ in bar:
            total = 0.0
            model.train()
            for batch in batches(train, batch_size, shuffle=True):
                loss = training_loss(
                    model, batch, label_smoothing=label_smoothing, mixup=mixup, own_loss=own_loss
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                total += float(loss.detach()) * len(batch)
            rows.append(_epoch(model, total / len(train), val, float(schedule.get_last_lr()[0])))
            score = math.inf if rows[-1].val_loss is None else rows[-1].val_loss
            if score <= lowest:  # without validation the last epoch stays
                best, lowest, kept = len(rows) - 1, score, copy.deepcopy(model.state_dict())
            bar.set_postfix_str("" if val is None else f"validation accuracy {rows[-1].val_accuracy:.1%}")
    model.load_state_dict(kept)
    model.eval()
    if val is not None:
        model.calibrate(val)
    return History(tuple(rows), best, time.perf_counter() - start)


def evaluate(model: GridModel, grids: GridSet, *, batch_size: int = 256) -> Evaluation:
    """Accuracy of a model on labelled grids, with its 95% interval.

    Args:
        model: The model; put into `eval`.
        grids: Labelled grids that it was not trained on.
        batch_size: Pictures at once.

    Raises:
        ValueError: If the set is empty or has no labels, or has labels beyond the model's classes.
    """
    labels = _checked_labels("grids", grids, model)
    return Evaluation(predict(model, grids, batch_size=batch_size).argmax(dim=1), labels)


@torch.no_grad()
def predict(model: GridModel, grids: GridSet, *, batch_size: int = 256) -> Float[Tensor, "b t"]:
    """Class logits of every picture of a set, on the CPU; puts the model into `eval`."""
    model.eval()
    return torch.cat([model(batch).logits.float().cpu() for batch in batches(grids, batch_size)])


def training_loss(
    model: GridModel,
    batch: GridSet,
    *,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    own_loss: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of the merged logits plus `own_loss` times the mean one of the backbones' own readings, in nats."""
    grids, target = _mixed(batch, mixup) if mixup else (batch.grids, [(1.0, batch.required_labels("batch"))])
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.device.type == "cuda"):
        out = model(grids)
    loss = _cross_entropy(out.logits, target, label_smoothing)
    if not own_loss or len(out.own) < 2:  # a lone backbone's own reading is the merged one
        return loss
    own = [_cross_entropy(logits, target, label_smoothing) for logits in out.own.values()]
    return loss + own_loss * torch.stack(own).mean()


def batches(grids: GridSet, batch_size: int, *, shuffle: bool = False) -> Iterator[GridSet]:
    """A set piece by piece, in order or shuffled by the current random state."""
    order = torch.randperm(len(grids)) if shuffle else torch.arange(len(grids))
    for rows in order.split(batch_size):
        yield grids[rows]


def warmup_cosine(step: int, steps: int, *, warmup: float = 0.1) -> float:
    """Factor on the learning rate: up in a line over the first tenth of the steps, then down half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _epoch(model: GridModel, train_loss: float, val: GridSet | None, learning_rate: float) -> Epoch:
    if val is None:
        return Epoch(train_loss, None, None, learning_rate)
    logits, labels = predict(model, val), val.required_labels("val")
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    return Epoch(train_loss, float(F.cross_entropy(logits, labels)), accuracy, learning_rate)


def _mixed(batch: GridSet, mixup: float) -> tuple[list[FeatureGrid], Target]:
    share = float(Beta(mixup, mixup).sample())
    share = max(share, 1 - share)
    other, labels, grids = torch.randperm(len(batch)), batch.required_labels("batch"), []
    for grid in batch.grids:
        features = grid.features.float()
        grids.append(FeatureGrid.trusted(grid.name, features.lerp(features[other], 1 - share), grid.field))
    return grids, [(share, labels), (1 - share, labels[other])]


def _cross_entropy(logits: Float[Tensor, "b t"], target: Target, label_smoothing: float) -> Float[Tensor, ""]:
    parts = [
        share * F.cross_entropy(logits.float(), labels.to(logits.device), label_smoothing=label_smoothing)
        for share, labels in target
    ]
    return torch.stack(parts).sum()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        for own in cuda:
            with torch.cuda.device(own):
                torch.cuda.manual_seed(seed)
        yield


def _default_epochs(pictures: int) -> int:
    return min(EPOCHS[1], max(EPOCHS[0], round(PICTURES_SHOWN / pictures)))


def _check_positive(*, epochs: int, batch_size: int) -> None:
    for argument, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{argument}: got {value}; expected 1 or more; leave it out for the default")


def _checked_labels(argument: str, grids: GridSet, model: GridModel) -> Rows:
    labels = grids.required_labels(argument)
    if int(labels.max()) >= model.num_classes:
        raise ValueError(
            f"{argument}: got label {int(labels.max())}, but the model has {model.num_classes} classes, 0 to "
            f"{model.num_classes - 1}; build it with num_classes={int(labels.max()) + 1}"
        )
    return labels
