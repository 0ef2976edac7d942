"""One readable training loop for the merge and its rivals."""

import copy
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from grafeat.arguments import real, strange, usable, whole
from grafeat.evaluation import checked_labels, predict
from grafeat.fusion.committee import Committee
from grafeat.grids import GridSet
from grafeat.identity import identity
from grafeat.models import GridModel, MergeOutput
from grafeat.runs import Epoch, History, Run, described
from grafeat.sharing import Engine, Share
from grafeat.splits import Rows
from grafeat.teaching import Taught, guessed, labelled

RECIPE = 2  # goes up when the same settings come to train otherwise; an unfinished run of another recipe is refused
PICTURES_SHOWN = 20_000  # of a default training, each picture counted as often as it is shown
EPOCHS = (12, 25)
STEPS = 160  # of a default training at the least: fewer do not settle
MIXUP = 0.4
MANY = 2000  # labelled pictures, from which on none are mixed
TAUGHT_FROM = 0.3  # share of the steps after which a teacher is worth listening to


def fit(
    model: GridModel,
    train: GridSet,
    *,
    val: GridSet | None = None,
    unlabelled: GridSet | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    mixup: float | None = None,
    own_loss: float = 1.0,
    unlabelled_loss: float = 1.0,
    average: float = 0.95,
    device: torch.device | str | None = None,
    checkpoint: str | Path | None = None,
    accelerator: Engine | None = None,
    progress: bool = True,
) -> History:
    """Trains a model on feature grids and leaves it with the weights of its best epoch on validation, in `eval`.

    A merge then settles on the validation pictures how far each backbone's own reading is believed
    (`GraFeatMerge.calibrate`), so that its figures on them flatter it a little.

    AdamW, warm-up and half a cosine; the weights that count are a moving average. Pictures without labels help where
    labels are few: the average, which sees all backbones of a picture, says what it is, and the model and each
    backbone's own reading learn it from mixed pictures. The same seed gives the same result on the same machine; the
    global random state is left as it was. After an error the model is as it was, too; stopped by hand, it is as the
    last step left it. On CUDA the forward pass runs in bfloat16 where that is safe. Of a committee
    each member is trained by itself.

    Args:
        model: A `GraFeatMerge`, or another way to mix.
        train: Labelled grids to learn from; of a set with parts, only the training part is looked at.
        val: Labelled grids on which the best epoch is chosen, by their loss, and a merge calibrated; without them the
            last epoch stays. Of a set with parts, only the validation part is looked at.
        unlabelled: Grids of more pictures, half a batch of them beside each batch with labels; their labels, if any,
            are not looked at. Of a set with parts, only the part `unlabelled` is looked at, as `few_labels(…,
            rest=True)` makes it.
        seed: Decides shuffling, mixing and dropping.
        epochs: Passes over `train`; by default as many as show about 20,000 pictures, 12 to 25, or more where these are
            fewer than 160 steps; of ways that settle later, several times as many (`GridModel.pace`).
        batch_size: Pictures in a step, those without labels not counted.
        learning_rate: Highest learning rate.
        weight_decay: Of AdamW.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        mixup: Parameter of the Beta distribution by which two pictures' grids and labels are mixed; 0 for none. By
            default 0.4, and none from 2,000 labelled pictures on.
        own_loss: Weight of the loss of what is said by less than all, beside that of the merged logits: each backbone's
            own reading, and all that is said before any message between backbones. Each counts as far as it knows
            something already, so that a backbone is not asked for what it cannot know by itself.
        unlabelled_loss: Weight of the loss on pictures without labels.
        average: How much of the average of the weights stays in a step, in [0, 1); 0 for none.
        device: Where to train; by default where the model is. The model stays there.
        checkpoint: A file that is written after each epoch. If it is there, training goes on from it, and ends as if it
            had never been interrupted; a training that was finished is read back at once. The model must be as it was
            for the first call: made anew, not trained since. Several processes must all see the file. Each member of a
            committee has its own, with a number and its backbone's name added.
        accelerator: An `accelerate.Accelerator`, where several processes train one model: each takes its rows of every
            batch, so that `batch_size` is that of all together.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a set is empty or has no labels, or has labels beyond the model's classes, or by other names; if
            a set has parts and lacks the one that is looked at; if a set lacks one of the model's backbones; if a
            number is out of its range; if there is no such device; if a loss is no number; if the checkpoint is
            damaged, of another run, that is of other settings, pictures or initial weights, or of a version that trains
            otherwise.
        OSError: If the checkpoint cannot be written, which is tried before the first step.

    Source: AdamW: Loshchilov and Hutter, ICLR 2019; mixup: Zhang et al., ICLR 2018, here between feature grids; the
    average as teacher: Tarvainen and Valpola, NeurIPS 2017; see `grafeat.teaching.guessed`. Losses of parts, each with
    a weight of its own: Wang et al., What makes training multi-modal classification networks hard?, CVPR 2020; there
    the weights come from how parts overfit, here from `grafeat.teaching.Taught.known`.
    """
    share = Share(accelerator)
    _check_kinds(model, train, val, unlabelled, checkpoint)
    train = train.train if train.parts else train  # else a test part would be learned
    val = val.val if val is not None and val.parts else val
    unlabelled = unlabelled.unlabelled if unlabelled is not None and unlabelled.parts else unlabelled
    labels = _checked(model, train, val, unlabelled)
    unlabelled = None if unlabelled is None else unlabelled.only(*train.names)  # in the same order
    size = whole("batch_size", batch_size)
    options: dict[str, Any] = {
        "epochs": _default_epochs(len(train), size) * model.pace if epochs is None else whole("epochs", epochs),
        "batch_size": size,
        "learning_rate": real("learning_rate", learning_rate, above=0),
        "weight_decay": real("weight_decay", weight_decay),
        "label_smoothing": real("label_smoothing", label_smoothing, below=1),
        "mixup": (MIXUP if len(train) < MANY else 0.0) if mixup is None else real("mixup", mixup),
        "own_loss": real("own_loss", own_loss),
        "unlabelled_loss": real("unlabelled_loss", unlabelled_loss),
        "average": real("average", average, below=1),
        "seed": whole("seed", seed, least=0),
    }
    model.to(usable(device or (accelerator.device if accelerator else model.device)))
    with _whole_again(model):
        model.label_counts.copy_(labels.bincount(minlength=model.num_classes))
        if isinstance(model, Committee):
            more = {"checkpoint": checkpoint, "accelerator": accelerator, "progress": progress}
            return _each_fitted(model, train, val, unlabelled, {**options, **more})
        return _fitted(model, train, val, unlabelled, options, share, checkpoint, progress)


def _fitted(
    model: GridModel,
    train: GridSet,
    val: GridSet | None,
    unlabelled: GridSet | None,
    options: Mapping[str, Any],
    share: Share,
    checkpoint: str | Path | None,
    progress: bool,
) -> History:
    """One model, trained on checked sets."""
    called = share.wrapped(model)  # with the first process's weights in all
    settings = {"recipe": RECIPE, **options, "steps": math.ceil(len(train) / options["batch_size"])}
    if checkpoint is not None:
        settings |= {"model": described(model), **identity(model, train, val, unlabelled)}
    start, run = time.perf_counter(), _new_run(model, settings)
    with _seeded(options["seed"], model.device), tqdm(
        total=options["epochs"], desc="fit", unit="epoch", disable=not progress or share.process > 0
    ) as bar:
        if checkpoint is not None:
            bar.update(run.go_on(Path(checkpoint), share))
            start -= run.seconds  # of the pieces before this one
        while len(run.rows) < options["epochs"]:
            train_loss = _trained(run, called, train, unlabelled, share)
            run.add(_epoch(run.teacher, train_loss, val, float(run.schedule.get_last_lr()[0])))
            run.seconds = time.perf_counter() - start
            if checkpoint is not None and share.process == 0:
                run.save(checkpoint)
            share.wait()
            bar.update()
            bar.set_postfix_str("" if val is None else f"validation accuracy {run.rows[-1].val_accuracy:.1%}")
    if run.best is None:
        raise ValueError("val: the loss was no number in any epoch; expected finite grids; check them for NaN")
    model.load_state_dict(run.kept)
    if val is not None:
        model.calibrate(val)
    return History(tuple(run.rows), run.best, time.perf_counter() - start)


def _each_fitted(
    model: Committee, train: GridSet, val: GridSet | None, unlabelled: GridSet | None, options: Mapping[str, Any]
) -> History:
    """The members of a committee, each trained on what its own backbone sees."""
    histories = {}
    for number, (name, member) in enumerate(model.members.items()):
        own = [None if grids is None else grids.only(name) for grids in (val, unlabelled)]
        said = dict(options)
        if options["checkpoint"] is not None:
            path = Path(options["checkpoint"])
            plain = re.sub(r"[^\w.-]", "_", name)  # a name may hold slashes
            said["checkpoint"] = path.with_name(f"{path.stem}-{number}-{plain}{path.suffix}")
        histories[name] = fit(member, train.only(name), val=own[0], unlabelled=own[1], **said)
    model.eval()
    return History((), -1, sum(history.seconds for history in histories.values()), histories)


def _trained(
    run: Run, called: Callable[..., MergeOutput], train: GridSet, unlabelled: GridSet | None, share: Share
) -> float:
    """One pass over the training pictures; the mean loss."""
    names = ("label_smoothing", "mixup", "own_loss", "unlabelled_loss")
    options = {name: run.settings[name] for name in names}
    batches = torch.randperm(len(train)).split(run.settings["batch_size"])
    more = None if unlabelled is None else _drawn(len(unlabelled), len(batches), run.settings["batch_size"] // 2)
    begins = TAUGHT_FROM * run.settings["epochs"] * run.settings["steps"]
    losses = []
    run.model.train()
    for number, rows in enumerate(batches):
        if more is not None and run.schedule.last_epoch >= begins:
            assert unlabelled is not None
            options |= {"teacher": run.teacher.eval(), "unlabelled": unlabelled[more[number]]}
        loss = training_loss(run.model, train[rows], share=share, called=called, **options)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        run.optimiser.step()
        run.schedule.step()
        run.averaged.update_parameters(run.model)
        losses.append(loss.detach())
    means = share.mean(torch.stack(losses)).tolist()  # now, as a GPU is waited for each time that a number is asked for
    return sum(loss * len(rows) for loss, rows in zip(means, batches, strict=True)) / len(train)


def _drawn(count: int, batches: int, size: int) -> list[Rows]:
    """Pictures for each batch of a pass, all of them before any comes again."""
    size = max(1, size)
    orders = [torch.randperm(count) for _ in range(math.ceil(batches * size / count))]
    return list(torch.cat(orders)[: batches * size].split(size))


def _new_run(model: GridModel, settings: Mapping[str, Any]) -> Run:
    steps = int(settings["epochs"]) * int(settings["steps"])
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, steps))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings["average"]))
    return Run(model, averaged, optimiser, schedule, settings)


def training_loss(
    model: GridModel,
    batch: GridSet,
    *,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    own_loss: float = 0.0,
    teacher: GridModel | None = None,
    unlabelled: GridSet | None = None,
    unlabelled_loss: float = 1.0,
    share: Share | None = None,
    called: Callable[..., MergeOutput] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the merged logits plus `own_loss` times the mean one of what is said by less than all, in nats.

    Less than all are the backbones' own readings and, where there is an exchange, the logits without it. In the mean,
    each counts as far as it knows something; see `grafeat.teaching.Taught.known`.

    With a teacher, the same on pictures without labels, against what it is sure of, `unlabelled_loss` times. With
    `share`, of this process's rows of the batch, so that the mean over the processes is the loss of all rows.
    """
    share = share or Share()
    half = model.device.type == "cuda"
    taught = labelled(batch, model.num_classes, label_smoothing=label_smoothing, mixup=mixup, share=share)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        if teacher is not None and unlabelled is not None:
            taught = taught.beside(guessed(teacher, unlabelled, weight=unlabelled_loss, mixup=mixup, share=share))
        out = _said(model, taught, share, called or model)
    loss = taught.loss(out.logits)
    if own_loss and len(out.own) > 1:  # a lone backbone's own reading is the merged one
        less = [*out.own.values(), *([] if out.apart is None else [out.apart])]
        losses = torch.stack([taught.loss(logits) for logits in less])
        loss = loss + own_loss * (taught.known(losses, model.label_counts, share) * losses).mean()
    return loss


def _said(model: GridModel, taught: Taught, share: Share, called: Callable[..., MergeOutput]) -> MergeOutput:
    model.part = (taught.rows, taught.count) if share.processes > 1 else None
    try:
        return called(taught.grids)
    finally:
        model.part = None


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


def _check_kinds(
    model: object, train: object, val: object, unlabelled: object, checkpoint: object
) -> None:
    if not isinstance(model, GridModel):
        raise strange("model", model, "a GridModel", "make one with gf.mix or GraFeatMerge.for_grids")
    for argument, grids in (("train", train), ("val", val), ("unlabelled", unlabelled)):
        if not isinstance(grids, GridSet) and (grids is not None or argument == "train"):
            raise strange(argument, grids, "a GridSet", "make one: gf.extract(…), or gf.GridSet(grids, labels)")
    if not isinstance(checkpoint, str | Path | None):
        raise strange("checkpoint", checkpoint, "a path", "name a file, or leave it out")


def _checked(model: GridModel, train: GridSet, val: GridSet | None, unlabelled: GridSet | None) -> Rows:
    """The training labels, once all sets are known to fit the model and each other."""
    labels = checked_labels("train", train, model)
    lacking = [name for name in model.backbones if name not in train.names]
    if lacking and set(train.names) < set(model.backbones):  # others are refused by the model itself
        raise ValueError(
            f"train: has the backbones {', '.join(train.names)}; expected {lacking[0]!r}, too, since the model would "
            "learn nothing of it; extract with it, or make the model for these grids"
        )
    if val is not None:
        checked_labels("val", val, model)
    for argument, grids in (("val", val), ("unlabelled", unlabelled)):
        if grids is not None and set(grids.names) != set(train.names):
            raise ValueError(
                f"{argument}: has the backbones {', '.join(grids.names)}, train has {', '.join(train.names)}; expected "
                "the same; take both from one set"
            )
    if unlabelled is not None:
        _check_unlabelled(train, unlabelled)
    return labels


def _check_unlabelled(train: GridSet, unlabelled: GridSet) -> None:
    if not len(unlabelled):
        raise ValueError("unlabelled: got no pictures; expected some; leave it out where there are none")
    given = {grid.name: grid for grid in unlabelled[:1].grids}
    for grid in train[:1].grids:
        found, expected = (tuple(one.features.shape[1:]) for one in (given[grid.name], grid))
        if found != expected:
            raise ValueError(
                f"unlabelled: has grids of shape {found} of {grid.name!r}, train has {expected}; expected the same; "
                "extract both with the same backbones"
            )


@contextmanager
def _whole_again(model: GridModel) -> Iterator[None]:
    """Leaves the model in `eval`, and after an error as it was before."""
    before = copy.deepcopy(model.state_dict())
    try:
        yield
    except Exception:
        model.load_state_dict(before)
        raise
    finally:
        model.eval()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        for own in cuda:
            with torch.cuda.device(own):
                torch.cuda.manual_seed(seed)
        yield


def _default_epochs(pictures: int, batch_size: int) -> int:
    shown = min(EPOCHS[1], max(EPOCHS[0], round(PICTURES_SHOWN / pictures)))
    return max(shown, math.ceil(STEPS / math.ceil(pictures / batch_size)))

