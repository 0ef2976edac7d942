"""One readable training loop for the merge and its rivals."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta
from tqdm.auto import tqdm

from grafeat.evaluation import checked_labels, predict
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel, MergeOutput
from grafeat.runs import Epoch, History, Run, clear_remains, described, fingerprint
from grafeat.sharing import Engine, Share
from grafeat.splits import Rows

PICTURES_SHOWN = 20_000  # of a default training, each picture counted as often as it is shown
EPOCHS = (8, 40)
Target = list[tuple[float, Rows]]


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
    checkpoint: str | Path | None = None,
    accelerator: Engine | None = None,
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
        checkpoint: A file that is written after each epoch. If it is there, training goes on from it, and ends as if it
            had never been interrupted; a training that was finished is read back at once. Several processes must all
            see it.
        accelerator: An `accelerate.Accelerator`, where several processes train one model: each takes its rows of every
            batch, so that `batch_size` is that of all together.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If a set is empty or has no labels, or has labels beyond the model's classes; if `epochs` or
            `batch_size` is below 1; if the checkpoint is damaged, or of another run.
        OSError: If the checkpoint cannot be written.

    Source: AdamW: Loshchilov and Hutter, ICLR 2019; mixup: Zhang et al., ICLR 2018, here between feature grids.
    """
    train = train.train if "train" in train.parts else train  # else a test part would be learned
    labels = checked_labels("train", train, model)
    if val is not None:
        val = val.val if "val" in val.parts else val
        checked_labels("val", val, model)
    epochs = _default_epochs(len(train)) if epochs is None else epochs
    _check_positive(epochs=epochs, batch_size=batch_size)
    model.to(device or (accelerator.device if accelerator else model.device))
    model.label_counts.copy_(labels.bincount(minlength=model.num_classes))
    steps = math.ceil(len(train) / batch_size)
    settings: dict[str, Any] = {
        "epochs": epochs, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "weight_decay": weight_decay, "label_smoothing": label_smoothing, "mixup": mixup, "own_loss": own_loss,
        "seed": seed,
    }  # fmt: skip
    if checkpoint is not None:
        settings |= {"model": described(model), "pictures": fingerprint(train)}
        settings["validation pictures"] = None if val is None else fingerprint(val)
    start, run, share = time.perf_counter(), _new_run(model, settings), Share(accelerator)
    called = share.wrapped(model)
    with _seeded(seed, model.device), tqdm(
        total=epochs, desc="fit", unit="epoch", disable=not progress or share.process > 0
    ) as bar:
        if checkpoint is not None:
            bar.update(_gone_on(run, Path(checkpoint), share))
        while len(run.rows) < epochs:
            train_loss = _trained(run, called, train, share)
            run.add(_epoch(model, train_loss, val, float(run.schedule.get_last_lr()[0])))
            if checkpoint is not None and share.process == 0:
                run.save(checkpoint)
            share.wait()
            bar.update()
            bar.set_postfix_str("" if val is None else f"validation accuracy {run.rows[-1].val_accuracy:.1%}")
    if not run.kept:
        raise ValueError("val: the loss was no number in any epoch; expected finite grids; check them for NaN")
    model.load_state_dict(run.kept)
    model.eval()
    if val is not None:
        model.calibrate(val)
    return History(tuple(run.rows), run.best, time.perf_counter() - start)


def _trained(run: Run, called: Callable[..., MergeOutput], train: GridSet, share: Share) -> float:
    """One pass over the training pictures; the mean loss."""
    options = {name: run.settings[name] for name in ("label_smoothing", "mixup", "own_loss")}
    total = 0.0
    run.model.train()
    for rows in torch.randperm(len(train)).split(run.settings["batch_size"]):
        loss = training_loss(run.model, train[rows], share=share, called=called, **options)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        run.optimiser.step()
        run.schedule.step()
        total += share.mean(loss.detach()) * len(rows)
    return total / len(train)


def _gone_on(run: Run, checkpoint: Path, share: Share) -> int:
    """Goes on from a checkpoint, if there is one; how many epochs it had."""
    if share.process == 0:
        clear_remains(checkpoint)
    if checkpoint.exists():
        run.restore(checkpoint)
    epochs = len(run.rows)  # the mean comes when all have read what the first is to write anew
    if share.mean(torch.tensor(float(epochs), device=run.model.device)) != epochs:
        raise ValueError(
            f"checkpoint: process {share.process} found {epochs} epochs in {checkpoint}, others another number; "
            "expected one file that all processes see; put it into a folder that they share"
        )
    return epochs


def _new_run(model: GridModel, settings: Mapping[str, Any]) -> Run:
    steps = int(settings["epochs"]) * int(settings["steps"])
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, steps))
    return Run(model, optimiser, schedule, settings)


def training_loss(
    model: GridModel,
    batch: GridSet,
    *,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    own_loss: float = 0.0,
    share: Share | None = None,
    called: Callable[..., MergeOutput] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the merged logits plus `own_loss` times the mean one of the backbones' own readings, in nats.

    With `share`, of this process's rows of the batch, so that the mean over the processes is the loss of all rows.
    """
    share = share or Share()
    own = share.rows(torch.arange(len(batch)))
    grids, target = _mixed(batch, own, mixup) if mixup else _plain(batch, own)
    model.part = (own, len(batch)) if share.processes > 1 else None
    try:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.device.type == "cuda"):
            out = (called or model)(grids)
    finally:
        model.part = None
    loss = _cross_entropy(out.logits, target, label_smoothing)
    if own_loss and len(out.own) > 1:  # a lone backbone's own reading is the merged one
        readings = [_cross_entropy(logits, target, label_smoothing) for logits in out.own.values()]
        loss = loss + own_loss * torch.stack(readings).mean()
    return loss * share.weight(len(batch))


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


def _plain(batch: GridSet, own: Rows) -> tuple[Sequence[FeatureGrid], Target]:
    part = batch[own]
    return part.grids, [(1.0, part.required_labels("batch"))]


def _mixed(batch: GridSet, own: Rows, mixup: float) -> tuple[Sequence[FeatureGrid], Target]:
    """Each row mixed with another of the batch; what is drawn is drawn for all rows."""
    weight = float(Beta(mixup, mixup).sample())
    weight = max(weight, 1 - weight)
    other = torch.randperm(len(batch))[own]
    needed, at = torch.cat([own, other]).unique(return_inverse=True)  # each picture is read once
    first, second = at.split(len(own))
    part, grids = batch[needed], []
    labels = part.required_labels("batch")
    for grid in part.grids:
        features = grid.features.float()
        mixed = features[first].lerp(features[second], 1 - weight)
        grids.append(FeatureGrid.trusted(grid.name, mixed, grid.field))
    return grids, [(weight, labels[first]), (1 - weight, labels[second])]


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
