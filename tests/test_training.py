"""One seed, one result; the best epoch on validation is kept; the loss is its formula; the test is never seen."""

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

import grafeat as gf
from grafeat import training
from grafeat.evaluation import Evaluation, batches, evaluate, predict
from grafeat.fusion import Concat, mix
from grafeat.grids import FeatureGrid, GridSet
from grafeat.merge import GraFeatMerge
from grafeat.models import GridModel, MergeOutput
from grafeat.planted import pointer
from grafeat.runs import Epoch, History
from grafeat.training import fit, training_loss, warmup_cosine

B, T = 61, 3


def task(b: int = B, seed: int = 0, strength: float = 2.0) -> GridSet:
    """Both backbones say the class, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(T, (b,), generator=generator)
    said = strength * F.one_hot(labels, T).float()[:, :, None, None]
    lite = torch.randn(b, 5, 2, 3, generator=generator)
    vit = torch.randn(b, 7, 1, 5, generator=generator)
    lite[:, :T] += said
    vit[:, T : 2 * T] += said
    return GridSet([FeatureGrid("lite", lite), FeatureGrid("vit", vit)], labels)


GRIDS = task()


def built(seed: int = 0, **options: object) -> GraFeatMerge:
    small = {"width": 12, "heads": 3, "depth": 1, "queries": 2, "components": 4}
    return GraFeatMerge.for_grids(GRIDS, num_classes=T, seed=seed, **{**small, **options})


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first: nn.Module | dict[str, Tensor], second: nn.Module | dict[str, Tensor]) -> bool:
    ours, theirs = (state(given) if isinstance(given, nn.Module) else given for given in (first, second))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def fitted(model: GridModel, grids: GridSet = GRIDS, **options: object) -> History:
    return fit(model, grids, **{"epochs": 2, "batch_size": 17, "progress": False, **options})


# Seeds


def test_the_same_seed_gives_the_same_model_to_the_bit() -> None:
    models = [built() for _ in range(4)]
    histories = [
        fitted(model, val=task(23, 1), seed=seed) for model, seed in zip(models, (3, 3, 5, 7), strict=True)
    ]
    assert equal(models[0], models[1])
    assert histories[0].epochs == histories[1].epochs
    assert not equal(models[0], models[2])
    assert histories[2].epochs != histories[3].epochs


def test_the_global_random_state_neither_matters_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", gpus_seeded.append)
    first, second = built(), built()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    fitted(first)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(13)
    fitted(second)
    assert equal(first, second)
    assert gpus_seeded == [11, 13]  # by this test, not by the training


def test_the_global_random_state_is_given_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "training_loss", fail)
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fitted(built())
    assert torch.equal(torch.get_rng_state(), before)


# Learning


def test_a_small_task_is_learned() -> None:
    """By the merge, from each backbone alone too, and by the rival; not at all from shuffled labels."""
    train, val, test = task(151, 1), task(47, 2), task(211, 3)
    for model in (built(), Concat.for_grids(train, num_classes=T, width=11)):
        fitted(model, train, val=val, epochs=8)
        assert evaluate(model, test).accuracy > 0.9
    alone = GraFeatMerge.for_grids(train.only("vit"), num_classes=T, width=12, heads=3, depth=1)
    fitted(alone, train.only("vit"), epochs=8)
    assert evaluate(alone, test.only("vit")).accuracy > 0.85
    shuffled = GridSet(
        train.grids, train.labels[torch.randperm(151, generator=torch.Generator().manual_seed(0))]
    )
    guessing = built()
    fitted(guessing, shuffled, epochs=8)
    assert evaluate(guessing, test).accuracy < 0.6


def test_mixing_and_dropping_can_be_switched_off() -> None:
    model = built(cross_drop=0.0, backbone_drop=0.0)
    history = fitted(model, mixup=0.0, label_smoothing=0.0, own_loss=0.0, epochs=12, learning_rate=1e-2)
    assert history.epochs[-1].train_loss < 0.1
    assert evaluate(model, GRIDS).accuracy > 0.98


@pytest.mark.parametrize(("many", "mixup"), [(B, 0.0), (B + 1, 0.4)])
def test_many_labelled_pictures_are_not_mixed(many: int, mixup: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MANY", many)
    default, given, other = built(), built(), built()
    fitted(default)
    fitted(given, mixup=mixup)
    fitted(other, mixup=0.4 - mixup)
    assert equal(default, given) and not equal(default, other)


def test_the_best_epoch_on_validation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation with scrambled labels gets worse with training: an early epoch is the best."""
    train = task(101, 1)
    wrong = GridSet(train.grids, (train.labels + 1) % T)
    snapshots, real = [], training._epoch

    def note(model: GridModel, *given: object) -> Epoch:
        row = real(model, *given)
        snapshots.append(state(model))
        return row

    monkeypatch.setattr(training, "_epoch", note)
    monkeypatch.setattr(GraFeatMerge, "calibrate", lambda self, val: None)
    model = built()
    history = fitted(model, train, val=wrong, epochs=7, learning_rate=1e-2)
    losses = [row.val_loss for row in history.epochs]
    assert history.best == losses.index(min(losses)) < 6
    assert equal(model, snapshots[history.best])
    assert not equal(model, snapshots[-1])
    logits = predict(model, wrong)
    row = history.epochs[history.best]
    assert row.val_loss == pytest.approx(float(F.cross_entropy(logits, wrong.labels)), abs=1e-6)
    assert row.val_accuracy == evaluate(model, wrong).accuracy


def test_without_validation_the_last_epoch_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated = []
    monkeypatch.setattr(GraFeatMerge, "calibrate", lambda self, val: calibrated.append(len(val)))
    model = built()
    history = fitted(model, epochs=3)
    assert history.best == 2
    assert [(row.val_loss, row.val_accuracy) for row in history.epochs] == [(None, None)] * 3
    assert not model.training
    assert calibrated == []
    fitted(model, val=GRIDS[:7])
    assert calibrated == [7]


def test_of_equal_epochs_the_later_stays_and_a_loss_that_is_no_number_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter([float("nan"), 0.5, 0.0, 0.0, 0.25, float("nan")])
    monkeypatch.setattr(training, "_epoch", lambda *_: Epoch(1.0, next(losses), 0.5, 0.1))
    assert fitted(built(), val=GRIDS[:7], epochs=6).best == 3


def test_calibration_uses_validation_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training pictures say that both backbones know the class, validation pictures that `vit` does not."""
    train, val = task(101, 1), task(67, 2)
    noise = torch.randn(67, 7, 1, 5, generator=torch.Generator().manual_seed(0))
    model = built()
    fitted(model, train, val=GridSet([val["lite"], FeatureGrid("vit", 2 * noise)], val.labels), epochs=6)
    mass = dict(zip(model.config.names, model.readout.relation.softmax(dim=0).tolist(), strict=True))
    assert mass["lite"] > 0.6


# What is learned from


def test_the_test_part_never_matters() -> None:
    """Neither its labels nor its pictures, even where they are far from all others."""
    whole, parts = (
        task(101, 1),
        {"train": torch.arange(61), "val": torch.arange(61, 71), "test": torch.arange(71, 101)},
    )
    spoiled = [FeatureGrid(grid.name, grid.features.clone()) for grid in whole.grids]
    for grid in spoiled:
        grid.features[71:] = 1e4
    labels = whole.labels.clone()
    labels[71:] = (labels[71:] + 1) % T
    models = []
    for grids in (GridSet(whole.grids, whole.labels, parts=parts), GridSet(spoiled, labels, parts=parts)):
        models.append(GraFeatMerge.for_grids(grids, num_classes=T, width=12, heads=3, depth=1))
        fitted(models[-1], grids.train, val=grids.val)
    assert equal(*models)


def test_of_a_set_with_parts_only_the_part_that_fits_is_looked_at() -> None:
    parts = {"train": torch.arange(31), "val": torch.arange(31, 41), "test": torch.arange(41, B)}
    split = GridSet(GRIDS.grids, GRIDS.labels, parts=parts)
    first, second = built(), built()
    assert fitted(first, split, val=split).epochs == fitted(second, split.train, val=split.val).epochs
    assert equal(first, second)
    assert int(first.label_counts.sum()) == 31


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": ("val", "test")}, "train: this set has the parts val, test; make parts with .split"),
        ({"val": ("train", "test")}, "val: this set has the parts train, test; make parts with .split"),
        ({"unlabelled": ("train", "test")}, r"unlabelled: this set has the parts train, test; .*few_labels\(…, rest="),
    ],
)
def test_a_set_with_parts_but_without_the_one_that_fits_is_refused(
    given: dict[str, tuple[str, str]], words: str
) -> None:
    """Else a test part among them would be learned from."""
    halves = torch.arange(B).split([37, 24])
    made = {name: GRIDS.with_parts(**dict(zip(parts, halves, strict=True))) for name, parts in given.items()}
    with pytest.raises(ValueError, match=words):
        fitted(built(), made.pop("train", GRIDS), **made)


def test_after_a_failure_the_model_is_as_it_was_before_and_can_be_read() -> None:
    model = built()
    before = state(model)
    with pytest.raises(ValueError, match="the loss is no number in epoch"):
        fitted(model, learning_rate=1e30, epochs=7)
    assert equal(model, before) and not model.training
    assert not model.label_counts.any()  # so that what explains it still says that it was never trained


def test_stopped_by_hand_the_model_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, model = [], built()

    def stop(*given: Any, **options: Any) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return training_loss(*given, **options)

    monkeypatch.setattr(training, "training_loss", stop)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        fitted(model)
    assert torch.equal(model(GRIDS).logits, model(GRIDS).logits)  # nothing is dropped
    assert not equal(model, before)


def test_the_frequencies_of_the_training_labels_are_kept() -> None:
    model = built()
    fitted(model, GRIDS[:19], val=GRIDS[19:], epochs=1)
    assert torch.equal(model.label_counts, GRIDS.labels[:19].bincount(minlength=T))
    fitted(model, GridSet(GRIDS[:5].grids, [1] * 5), epochs=1)
    assert model.label_counts.tolist() == [0, 5, 0]


def test_the_statistics_of_the_features_are_not_learned() -> None:
    model = built()
    before = state(model)
    fitted(model)
    same = {name for name, value in state(model).items() if torch.equal(value, before[name])}
    assert same == {f"projections.{m}.{statistic}" for m in range(2) for statistic in ("mean", "basis")}


def test_grids_in_half_precision_are_learned_from() -> None:
    half = GridSet([grid.to(dtype=torch.float16) for grid in task(151, 1).grids], task(151, 1).labels)
    model = built()
    fitted(model, half, val=half[:31], epochs=8)
    assert evaluate(model, half).accuracy > 0.9


# The loss


class Fixed(GridModel):
    """Says what it was told to say, of any grids."""

    def __init__(self, logits: Tensor, own: dict[str, Tensor], apart: Tensor | None = None) -> None:
        super().__init__({"lite": 5, "vit": 7}, T)
        self.logits, self.own, self.apart, self.seen = nn.Parameter(logits), own, apart, []

    def merge(self, grids: list[FeatureGrid], *, states: bool = False) -> MergeOutput:
        self.seen.append(grids)
        return MergeOutput(self.logits, self.logits, own=self.own, apart=self.apart)


def test_the_loss_by_hand() -> None:
    """Logits (ln 2, 0, 0) say 1/2, 1/4, 1/4, and an own reading (ln 8, 0, 0) 8/10, 1/10, 1/10 to pictures of class 0.

    It knows 1 − ln 1.25 / ln 3 of what there is to know where classes are equally frequent; (0, 0, 0) knows nothing.
    """
    logits = torch.tensor([[math.log(2), 0, 0]]).expand(2, -1)
    batch = GridSet(GRIDS[:2].grids, [0, 0])
    told = torch.tensor([[math.log(8), 0, 0]]).expand(2, -1)
    model = Fixed(logits, {"lite": torch.zeros(2, T), "vit": told})
    merged, own = math.log(2), math.log(1.25)
    counted = (1 - own / math.log(3)) * own
    assert training_loss(model, batch).item() == pytest.approx(merged, abs=1e-6)
    assert training_loss(model, batch, own_loss=0.5).item() == pytest.approx(merged + counted / 2 / 2, abs=1e-6)
    model.apart = logits  # what is said without an exchange counts as a backbone's own reading does
    less = (counted + (1 - merged / math.log(3)) * merged) / 3
    assert training_loss(model, batch, own_loss=0.5).item() == pytest.approx(merged + less / 2, abs=1e-6)
    smooth = (math.log(2) + 2 * math.log(4)) / 3  # what a label spread evenly would cost
    assert training_loss(model, batch, label_smoothing=0.3).item() == pytest.approx(
        0.7 * merged + 0.3 * smooth, abs=1e-6
    )


def test_the_loss_is_torchs_cross_entropy_of_merged_and_own_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, lite, vit = torch.randn(3, B, T, generator=generator)
    lite, vit = (said + 2 * F.one_hot(GRIDS.labels, T) for said in (lite, vit))  # both know something
    loss = training_loss(Fixed(logits, {"lite": lite, "vit": vit}), GRIDS, label_smoothing=0.1, own_loss=0.7)
    parts = [F.cross_entropy(said, GRIDS.labels, label_smoothing=0.1) for said in (logits, lite, vit)]
    least = torch.distributions.Categorical(torch.tensor([0.9 + 0.1 / T] + [0.1 / T] * (T - 1))).entropy()
    known = [(math.log(T) - part) / (math.log(T) - least) for part in parts[1:]]
    assert all(0.1 < share < 0.9 for share in known)
    torch.testing.assert_close(loss, parts[0] + 0.7 * (known[0] * parts[1] + known[1] * parts[2]) / 2)


def test_a_lone_backbones_own_reading_is_not_counted_twice() -> None:
    logits = torch.randn(B, T, generator=torch.Generator().manual_seed(0))
    loss = training_loss(Fixed(logits, {"lite": logits}), GRIDS, own_loss=1.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, GRIDS.labels))


def test_the_loss_of_a_model_in_eval_repeats_and_has_gradient() -> None:
    model = built()
    loss = training_loss(model, GRIDS)
    torch.testing.assert_close(loss, F.cross_entropy(model(GRIDS).logits, GRIDS.labels))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_mixup_mixes_grids_and_labels_alike() -> None:
    """The shares are found again in the features, and the loss is that of both labels, weighed by them."""
    labels = torch.arange(B) % T
    coded = FeatureGrid("lite", F.one_hot(torch.arange(B), B).float()[:, :, None, None].expand(-1, -1, 2, 3))
    turned = FeatureGrid("vit", coded.features[..., :1].half(), (0.0, 0.0, 0.5, 1.0))
    batch = GridSet([coded, turned], labels)
    logits = torch.randn(B, T, generator=torch.Generator().manual_seed(0))
    model, shares = Fixed(logits, {}), []
    model.backbones = {"lite": B, "vit": B}
    torch.manual_seed(0)
    for _ in range(30):
        loss = training_loss(model, batch, mixup=0.4)
        lite, vit = model.seen[-1]
        mixed = lite.features[:, :, 0, 0]
        assert vit.field == (0.0, 0.0, 0.5, 1.0)
        torch.testing.assert_close(mixed, vit.features[:, :, 1, 0], atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(B))
        expected = sum(
            mixed[:, other] @ F.cross_entropy(logits, labels[other].expand(B), reduction="none")
            for other in range(B)
        )
        torch.testing.assert_close(loss, expected / B)
        shares.append(float(mixed.diagonal().min()))
    assert min(shares) >= 0.5 - 1e-6  # the picture itself has the larger share
    assert len(set(shares)) == 30
    assert sum(share > 0.9 for share in shares) > 5


def test_mixup_leaves_the_grids_as_they_were() -> None:
    kept = [grid.features.clone() for grid in GRIDS.grids]
    training_loss(built(), GRIDS, mixup=0.4)
    assert all(torch.equal(grid.features, before) for grid, before in zip(GRIDS.grids, kept, strict=True))


def test_options_reach_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], training.training_loss

    def note(model: GridModel, batch: GridSet, **options: float) -> Tensor:
        seen.append((len(batch), model.training, options))
        return real(model, batch, **options)

    monkeypatch.setattr(training, "training_loss", note)
    fitted(built(), mixup=0.3, label_smoothing=0.2, own_loss=0.7, epochs=1, val=GRIDS[:3])
    options = {"mixup": 0.3, "label_smoothing": 0.2, "own_loss": 0.7}
    assert [(size, mode, options | asked) for size, mode, asked in seen] == [
        (size, True, asked) for size, (_, _, asked) in zip((17, 17, 17, 10), seen, strict=True)
    ]


# The learning rate


def test_the_learning_rate_by_hand() -> None:
    """Of 20 steps two rise; the cosine is at one half after 9 of the other 18, and at 0 in the end."""
    found = [warmup_cosine(step, 20) for step in (0, 1, 2, 11, 20)]
    assert found == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert warmup_cosine(0, 1) == 1


@pytest.mark.parametrize("steps", [7, 20, 113])
def test_the_learning_rate_is_that_of_torchs_own_schedulers(steps: int) -> None:
    rise = max(1, round(steps / 10))
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    up = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=1 / rise, total_iters=rise - 1)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps - rise)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [up, down], milestones=[rise])
    for step in range(steps):
        assert warmup_cosine(step, steps) == pytest.approx(schedule.get_last_lr()[0], abs=1e-6)
        optimiser.step()
        schedule.step()


def test_the_schedule_ends_at_zero_with_the_last_step() -> None:
    history = fitted(built(), epochs=5, learning_rate=3e-3)
    rates = [row.learning_rate for row in history.epochs]
    assert rates == pytest.approx([3e-3 * warmup_cosine(4 * epoch, 20) for epoch in range(1, 6)])
    assert rates[-1] == 0


def test_the_optimiser_is_adamw_with_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of torch's AdamW by hand give the same weights."""
    ours = built(cross_drop=0.0, backbone_drop=0.0)
    theirs = copy.deepcopy(ours)
    plain = {"mixup": 0.0, "label_smoothing": 0.0, "own_loss": 0.0, "average": 0.0}
    monkeypatch.setattr(torch, "randperm", torch.arange)  # in order
    fitted(ours, epochs=3, batch_size=B, learning_rate=2e-3, weight_decay=0.3, **plain)
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=2e-3, weight_decay=0.3)
    for step in range(3):
        optimiser.param_groups[0]["lr"] = 2e-3 * warmup_cosine(step, 3)
        optimiser.zero_grad()
        F.cross_entropy(theirs(GRIDS).logits, GRIDS.labels).backward()
        optimiser.step()
    theirs.label_counts.copy_(GRIDS.labels.bincount())
    assert equal(ours, theirs)


@pytest.mark.parametrize(
    ("pictures", "epochs"), [(10, 160), (64, 160), (80, 80), (400, 25), (500, 25), (1000, 20), (2500, 12), (50_000, 12)]
)
def test_a_default_training_shows_about_20_000_pictures_in_160_steps_or_more(pictures: int, epochs: int) -> None:
    assert training._default_epochs(pictures, batch_size=64) == epochs


def test_the_default_length_is_used() -> None:
    assert len(fit(built(), GRIDS[:3], batch_size=1, progress=False).epochs) == 54  # of three steps each


@pytest.mark.parametrize("way", ["merge", "add", "concat", "linear"])
def test_ways_that_settle_later_are_trained_for_longer_unless_told(way: str) -> None:
    model = mix(way, GRIDS, num_classes=T)
    assert model.pace == {"merge": 1, "add": 2, "concat": 3, "linear": 10}[way]
    assert len(fit(model, GRIDS[:3], batch_size=1, progress=False).epochs) == 54 * model.pace
    assert len(fit(model, GRIDS[:3], epochs=2, progress=False).epochs) == 2


# The average, and pictures without labels


def test_the_average_by_hand() -> None:
    """After the first step it is the weights; then a quarter of the way to them in each step."""
    model = built()
    settings = {"epochs": 1, "steps": 3, "learning_rate": 0.1, "weight_decay": 0.0, "average": 0.75}
    run = training._new_run(model, settings)
    expected = None
    for value in (8.0, 4.0, 12.0):
        model.types.data.fill_(value)
        run.averaged.update_parameters(model)
        expected = value if expected is None else 0.75 * expected + 0.25 * value
    torch.testing.assert_close(run.averaged.module.types, torch.full_like(model.types, expected))
    assert expected == 8.25


def test_what_is_kept_and_validated_is_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], training._epoch

    def note(model: GridModel, *given: object) -> Epoch:
        seen.append(state(model))
        return real(model, *given)

    monkeypatch.setattr(training, "_epoch", note)
    averaged, plain = built(), built()
    fitted(averaged, epochs=1, average=0.5)
    fitted(plain, epochs=1, average=0.0)
    assert equal(averaged, seen[0]) and equal(plain, seen[1])
    assert not equal(averaged, plain)


def test_pictures_without_labels_are_taught_from_their_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five epochs of four steps: from the seventh step on, half a batch of them, each before any comes again."""
    seen, real = [], training.training_loss

    def note(model: GridModel, batch: GridSet, **options: Any) -> Tensor:
        more = options.get("unlabelled")
        seen.append(None if more is None else more["lite"].features[:, 0, 0, 0])
        assert more is None or not options["teacher"].training
        return real(model, batch, **options)

    monkeypatch.setattr(training, "training_loss", note)
    fitted(built(), unlabelled=GRIDS[:41], epochs=5)
    assert [part is not None for part in seen] == [False] * 6 + [True] * 14
    last = torch.cat(seen[-4:])
    assert [len(part) for part in seen[-4:]] == [8, 8, 8, 8] and len(last.unique()) == 32


def test_labels_of_pictures_without_labels_never_matter() -> None:
    models = [built(), built()]
    for model, labels in zip(models, (GRIDS.labels, None), strict=True):
        fitted(model, GRIDS[:31], unlabelled=GridSet(GRIDS.grids, labels), epochs=4)
    assert equal(*models)


def test_pictures_without_labels_help_where_labels_are_few() -> None:
    """Three labels a class tell which of the two directions matters less well than a hundred pictures do."""
    found = {}
    for more in (None, task(301, 4)):
        model, few = built(seed=1), task(101, 1).few_labels(2, val=0)
        fit(model, few.train, unlabelled=more, epochs=60, batch_size=16, progress=False)
        found[more is None] = float(F.cross_entropy(predict(model, task(503, 3)), task(503, 3).labels))
    assert found[False] < found[True]


def test_a_committees_members_are_trained_each_by_itself(tmp_path: Path) -> None:
    together = gf.mix("ensemble", GRIDS, num_classes=T)
    history = fit(together, GRIDS, epochs=2, batch_size=17, progress=False, checkpoint=tmp_path / "run.safetensors")
    alone = gf.mix("single", GRIDS.only("vit"), num_classes=T)
    row = fit(alone, GRIDS.only("vit"), epochs=2, batch_size=17, progress=False)
    assert equal(together.members["vit"], alone)
    assert history.members["vit"].epochs == row.epochs and history.epochs == ()
    assert "2 members" in repr(history) and "  vit: History: 2 epochs" in repr(history)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0-lite.safetensors", "run-1-vit.safetensors"]
    assert together.label_counts.tolist() == GRIDS.labels.bincount().tolist()


def test_members_whose_names_hold_slashes_have_checkpoints_too(tmp_path: Path) -> None:
    grids = GridSet([FeatureGrid(f"hub/{grid.name}", grid.features) for grid in GRIDS.grids], GRIDS.labels)
    fit(gf.mix("ensemble", grids, num_classes=T), grids, epochs=1, progress=False, checkpoint=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0-hub_lite", "run-1-hub_vit"]


@pytest.mark.parametrize("argument", ["val", "unlabelled"])
def test_all_sets_have_the_same_backbones(argument: str) -> None:
    with pytest.raises(ValueError, match=rf"{argument}: has the backbones lite, train has lite, vit; expected"):
        fitted(built(), **{argument: GRIDS.only("lite")})


def test_the_training_pictures_are_seen_by_every_backbone_of_the_model() -> None:
    with pytest.raises(ValueError, match=r"train: has the backbones lite; expected 'vit', too"):
        fit(built(), GRIDS.only("lite"), epochs=1, progress=False)


def test_backbones_may_come_in_another_order_without_labels() -> None:
    models = [built(), built()]
    for model, names in zip(models, (("lite", "vit"), ("vit", "lite")), strict=True):
        fitted(model, GRIDS[:31], unlabelled=GRIDS[31:].only(*names), epochs=4)
    assert equal(*models)


def test_pictures_without_labels_have_the_same_grids() -> None:
    narrow = gf.FeatureGrid("vit", GRIDS["vit"].features[..., 1:])
    with pytest.raises(ValueError, match=r"unlabelled: has grids of shape \(.*\) of 'vit', train has \(.*\); expected"):
        fitted(built(), unlabelled=GridSet([GRIDS["lite"], narrow]))


def test_there_must_be_pictures_without_labels_if_they_are_given() -> None:
    with pytest.raises(ValueError, match=r"unlabelled: got no pictures; expected some; leave it out"):
        fitted(built(), unlabelled=GRIDS[:0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"average": 1.5}, ValueError, r"average: got 1.5; expected a share in \[0, 1\)"),
        ({"label_smoothing": 1}, ValueError, r"label_smoothing: got 1; expected a share in \[0, 1\)"),
        ({"learning_rate": 0.0}, ValueError, r"learning_rate: got 0.0; expected a number above 0"),
        ({"weight_decay": -1}, ValueError, r"weight_decay: got -1; expected 0 or more"),
        ({"mixup": float("nan")}, ValueError, r"mixup: got nan; expected 0 or more"),
        ({"own_loss": -1}, ValueError, r"own_loss: got -1; expected 0 or more"),
        ({"unlabelled_loss": "much"}, TypeError, r"unlabelled_loss: got 'much'; expected a number"),
        ({"epochs": 2.5}, TypeError, r"epochs: got 2.5; expected a whole number"),
        ({"epochs": 0}, ValueError, r"epochs: got 0; expected 1 or more"),
        ({"batch_size": 0}, ValueError, r"batch_size: got 0; expected 1 or more"),
        ({"seed": -1}, ValueError, r"seed: got -1; expected 0 or more"),
        ({"device": "nowhere"}, ValueError, r"device: got 'nowhere', which cannot be used here"),
        ({"checkpoint": 5}, TypeError, r"checkpoint: got 5; expected a path"),
        ({"accelerator": "x"}, TypeError, r"accelerator: got 'x'; expected an accelerate.Accelerator"),
        ({"val": [1]}, TypeError, r"val: got a list; expected a GridSet"),
        ({"unlabelled": [1]}, TypeError, r"unlabelled: got a list; expected a GridSet"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_before_anything_is_changed(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = built()
    before = state(model)
    with pytest.raises(error, match=message):
        fitted(model, **options)
    assert equal(model, before)


@pytest.mark.usefixtures("unchecked")
def test_a_model_and_grids_to_learn_from_are_asked_for() -> None:
    with pytest.raises(TypeError, match="model: got a Linear; expected a GridModel"):
        fit(torch.nn.Linear(2, 2), GRIDS)
    with pytest.raises(TypeError, match="train: got a list; expected a GridSet"):
        fit(built(), [1])


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_train_alike_and_a_checkpoint_takes_them(tmp_path: Path) -> None:
    plain, model = built(), built()
    fitted(plain, seed=3, learning_rate=0.25, checkpoint=tmp_path / "a")
    mine = {"seed": np.int64(3), "learning_rate": np.float32(0.25), "epochs": np.int64(2), "batch_size": np.int32(17)}
    fitted(model, **mine, checkpoint=tmp_path / "a")  # which is read back
    assert equal(plain, model)


# Batches


def test_batches_cover_a_set_once() -> None:
    assert [len(batch) for batch in batches(GRIDS, 17)] == [17, 17, 17, 10]
    assert torch.equal(torch.cat([batch.labels for batch in batches(GRIDS, 17)]), GRIDS.labels)
    torch.manual_seed(0)
    shuffled = torch.cat([batch["lite"].features[:, 0, 0, 0] for batch in batches(GRIDS, 17, shuffle=True)])
    again = torch.cat([batch["lite"].features[:, 0, 0, 0] for batch in batches(GRIDS, 17, shuffle=True)])
    values = GRIDS["lite"].features[:, 0, 0, 0]
    assert torch.equal(shuffled.sort().values, values.sort().values)
    assert not torch.equal(shuffled, values)
    assert not torch.equal(shuffled, again)  # another order in each epoch


# Evaluation


def test_predictions_do_not_depend_on_the_batch_size_and_carry_no_gradient() -> None:
    model = built().train()
    found = predict(model, GRIDS, batch_size=7)
    assert not model.training
    assert not found.requires_grad
    torch.testing.assert_close(found, model(GRIDS).logits.detach(), atol=1e-5, rtol=1e-5)
    assert predict(model.double(), GRIDS).dtype == torch.float32


def test_an_evaluation_counts_what_is_right_and_gives_wilsons_interval() -> None:
    found = Evaluation(torch.tensor([0, 2, 1, 1, 0, 2, 2]), torch.tensor([0, 2, 1, 0, 0, 1, 2]))
    assert found.correct.tolist() == [True, True, True, False, True, False, True]
    assert found.accuracy == pytest.approx(5 / 7)
    expected = binomtest(5, 7).proportion_ci(method="wilson")
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert repr(found) == "accuracy 71.4% (95% interval 35.9% to 91.8%, 7 pictures)"


def test_evaluate_compares_the_likeliest_class_with_the_label() -> None:
    model = built()
    fitted(model)
    found = evaluate(model, GRIDS, batch_size=7)
    assert torch.equal(found.labels, GRIDS.labels)
    assert torch.equal(found.predictions, predict(model, GRIDS).argmax(dim=1))


def test_classes_by_other_names_are_not_the_models() -> None:
    """A folder that lacks a class numbers the others anew."""
    named = GridSet(GRIDS.grids, GRIDS.labels, classes=["cat", "dog", "fox"])
    model = GraFeatMerge.for_grids(named, num_classes=T, width=12, heads=3, depth=1)
    rows = (GRIDS.labels != 1).nonzero().flatten()
    fewer = GridSet(named[rows].grids, named[rows].labels.clamp(max=1), classes=["cat", "fox"])
    words = "class 1 is 'fox', but 'dog' for the model; expected its classes in its order: cat, dog, fox; number"
    for call in (partial(evaluate, model), partial(fitted, model)):
        with pytest.raises(ValueError, match=words):
            call(fewer)
    unnamed = GridSet(GRIDS.grids, GRIDS.labels)
    assert evaluate(model, unnamed).accuracy == evaluate(model, named).accuracy
    assert evaluate(built(), fewer).labels.max() == 1  # a model whose classes are numbered takes any names


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_has_a_picture(size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size: got {size}; expected 1 or more"):
        evaluate(built(), GRIDS, batch_size=size)


def test_a_history_prints_the_epoch_that_was_kept() -> None:
    rows = (Epoch(0.9, 0.8, 0.625, 1e-3), Epoch(0.4567, 0.3, 0.875, 5e-4), Epoch(0.2, 0.5, 0.75, 0.0))
    assert repr(History(rows, 1, 12.34)) == (
        "History: 3 epochs in 12.3 s; kept epoch 2: training loss 0.457, validation accuracy 87.5%"
    )
    assert repr(History((Epoch(0.25, None, None, 0.0),), 0, 1.0)).endswith(
        "kept epoch 1: training loss 0.250"
    )


def test_progress_is_shown_unless_it_is_not_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    fitted(built(), val=GRIDS[:7])
    assert capfd.readouterr() == ("", "")
    fitted(built(), val=GRIDS[:7], progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "fit: 100%" in err
    assert "validation accuracy" in err


# What does not fit


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": -3}, {"batch_size": 0}, {"batch_size": -1}])
def test_a_training_of_nothing_is_refused(options: dict[str, int]) -> None:
    model = built()
    before = state(model)
    with pytest.raises(ValueError, match=r"(epochs|batch_size): got (0|-\d); expected 1 or more"):
        fitted(model, **options)
    assert equal(model, before)


def test_sets_that_cannot_be_learned_from_are_named() -> None:
    model, unlabelled, beyond = built(), GridSet(GRIDS.grids), GridSet(GRIDS[:2].grids, [0, 7])
    before = state(model)
    for given, message in (
        (unlabelled, "got a set with no labels; expected labelled pictures; build it with labels="),
        (GRIDS[[]], "got a set with no pictures"),
        (beyond, "got label 7, but the model has 3 classes, 0 to 2; build it with num_classes=8"),
    ):
        with pytest.raises(ValueError, match=f"train: {message}"):
            fitted(model, given)
        with pytest.raises(ValueError, match=f"val: {message}"):
            fitted(model, val=given)
        with pytest.raises(ValueError, match=f"grids: {message}"):
            evaluate(model, given)
    assert equal(model, before)


def test_grids_of_another_model_are_named() -> None:
    with pytest.raises(ValueError, match="got backbone 'classes'; this model knows lite, vit"):
        fitted(built(), pointer(7, num_classes=T))
