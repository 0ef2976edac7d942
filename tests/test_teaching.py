"""Labels and guesses become targets; rows are mixed alike in every grid; a loss is torch's, what it knows by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

import grafeat as gf
from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel, MergeOutput
from grafeat.sharing import Share
from grafeat.teaching import CONFIDENT, SHARPNESS, Taught, guessed, labelled

B, T = 13, 3
LABELS = torch.arange(B) % T
FEATURES = torch.randn(B, 5, 2, 3, generator=torch.Generator().manual_seed(0))
GRIDS = GridSet([FeatureGrid("lite", FEATURES), FeatureGrid("vit", 2 * FEATURES[:, :2])], LABELS)


class Says(GridModel):
    """Says of each picture what its first three features are."""

    def __init__(self) -> None:
        super().__init__({"lite": 5, "vit": 2}, T)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def merge(self, grids: list[FeatureGrid], *, states: bool = False) -> MergeOutput:
        said = grids[0].features[:, :T, 0, 0]
        return MergeOutput(said, said)


def test_labels_smoothed_by_hand() -> None:
    lesson = labelled(GRIDS, T, label_smoothing=0.3, mixup=0, share=Share())
    torch.testing.assert_close(lesson.targets[:2], torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))
    assert lesson.weights.tolist() == pytest.approx([1 / B] * B)
    assert torch.equal(lesson.grids[0].features, FEATURES)


def test_the_loss_is_torchs() -> None:
    logits = torch.randn(B, T)
    lesson = labelled(GRIDS, T, label_smoothing=0.2, mixup=0, share=Share())
    torch.testing.assert_close(lesson.loss(logits), F.cross_entropy(logits, LABELS, label_smoothing=0.2))


def test_mixed_rows_are_mixed_alike_in_grids_and_targets() -> None:
    """Each row is w of one picture and 1 − w of another, w at least one half, the same in both grids and the target."""
    torch.manual_seed(3)
    lesson = labelled(GRIDS, T, label_smoothing=0, mixup=0.4, share=Share())
    lite, vit = (grid.features for grid in lesson.grids)
    torch.testing.assert_close(vit, 2 * lite[:, :2])
    torch.manual_seed(3)
    weight = float(torch.distributions.Beta(0.4, 0.4).sample())
    weight, other = max(weight, 1 - weight), torch.randperm(B)
    assert 0.5 <= weight < 1
    torch.testing.assert_close(lite, weight * FEATURES + (1 - weight) * FEATURES[other])
    hard = F.one_hot(LABELS, T).float()
    torch.testing.assert_close(lesson.targets, weight * hard + (1 - weight) * hard[other])


def test_guesses_by_hand() -> None:
    """The softmax of sharpened logits; those that are not sure weigh nothing."""
    features = torch.zeros(3, 5, 1, 1)
    features[0, 0], features[1, 1], features[2, 2] = 2.0, 0.5, 1.0
    batch = GridSet([FeatureGrid("lite", features), FeatureGrid("vit", features[:, :2])])
    lesson = guessed(Says().eval(), batch, weight=0.6, mixup=0, share=Share())
    expected = (SHARPNESS * features[:, :T, 0, 0]).softmax(dim=-1)
    torch.testing.assert_close(lesson.targets, expected)
    sure = expected.amax(dim=-1) >= CONFIDENT
    assert sure.tolist() == [True, False, False]
    assert lesson.weights.tolist() == pytest.approx([0.2, 0, 0])
    assert not lesson.targets.requires_grad


def test_guesses_are_mixed_like_their_pictures() -> None:
    torch.manual_seed(5)
    lesson = guessed(Says().eval(), GRIDS, weight=1.0, mixup=0.4, share=Share())
    torch.manual_seed(5)
    weight = float(torch.distributions.Beta(0.4, 0.4).sample())
    weight, other = max(weight, 1 - weight), torch.randperm(B)
    guesses = (SHARPNESS * FEATURES[:, :T, 0, 0]).softmax(dim=-1)
    sure = (guesses.amax(dim=-1) >= CONFIDENT).float()
    torch.testing.assert_close(lesson.targets, weight * guesses + (1 - weight) * guesses[other])
    torch.testing.assert_close(lesson.weights, (weight * sure + (1 - weight) * sure[other]) / B)


def test_two_batches_side_by_side_lose_the_sum() -> None:
    first = labelled(GRIDS[:7], T, label_smoothing=0, mixup=0, share=Share())
    second = guessed(Says().eval(), GRIDS[7:], weight=0.7, mixup=0, share=Share())
    both, logits = first.beside(second), torch.randn(B, T)
    torch.testing.assert_close(both.loss(logits), first.loss(logits[:7]) + second.loss(logits[7:]))
    assert both.rows.tolist() == list(range(B)) and both.count == B
    assert torch.equal(both.grids[0].features, FEATURES)


def test_half_precision_stays_and_is_mixed_in_single() -> None:
    half = GridSet([grid.to(dtype=torch.float16) for grid in GRIDS.grids], LABELS)
    assert labelled(half, T, label_smoothing=0, mixup=0, share=Share()).grids[0].features.dtype == torch.float16
    assert labelled(half, T, label_smoothing=0, mixup=0.4, share=Share()).grids[0].features.dtype == torch.float32


def test_the_teachers_labels_are_not_looked_at() -> None:
    lessons = [
        guessed(Says().eval(), GridSet(GRIDS.grids, labels), weight=1.0, mixup=0, share=Share())
        for labels in (LABELS, None)
    ]
    assert torch.equal(lessons[0].targets, lessons[1].targets)
    assert isinstance(lessons[0].grids[0], gf.FeatureGrid)


# What some logits know


def lesson(labels: list[int], weights: list[float] | None = None) -> Taught:
    """So many rows with these labels, told without smoothing."""
    targets = F.one_hot(torch.tensor(labels), T).float()
    count = len(labels)
    weighed = torch.full((count,), 1 / count) if weights is None else torch.tensor(weights)
    return Taught((), targets, weighed, torch.arange(count), count)


def known(taught: Taught, logits: torch.Tensor, counts: list[int]) -> float:
    return float(taught.known(taught.loss(logits)[None], torch.tensor(counts), Share())[0])


def test_what_logits_know_lies_between_the_classes_frequencies_and_the_targets() -> None:
    """By hand: of classes that come 2 : 1 : 1, the frequencies lose 1.5 bits; a loss of 1 bit knows a third of them."""
    labels, counts = [0, 0, 1, 2], [2, 1, 1]
    frequencies = torch.tensor([0.5, 0.25, 0.25]).log().expand(4, -1)
    assert known(lesson(labels), frequencies, counts) == pytest.approx(0, abs=1e-6)
    halved = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]).clamp(min=1e-12).log()
    assert known(lesson(labels), halved, counts) == pytest.approx(1 / 3, abs=1e-6)
    assert known(lesson(labels), 99 * lesson(labels).targets, counts) == pytest.approx(1, abs=1e-6)
    assert known(lesson(labels), -99 * lesson(labels).targets, counts) == 0  # worse than the frequencies
    assert known(lesson(labels), halved, [0, 0, 0]) == pytest.approx(1 - math.log(2) / math.log(3), abs=1e-6)


def test_smoothed_targets_can_be_known_whole_and_rows_without_weight_count_for_nothing() -> None:
    smooth = labelled(GRIDS, T, label_smoothing=0.3, mixup=0.0, share=Share())
    assert known(smooth, smooth.targets.log(), [1] * T) == pytest.approx(1, abs=1e-5)
    halved = torch.tensor([[0.5, 0.5, 0], [0, 0, 1.0]]).clamp(min=1e-12).log()
    one, two = lesson([0], [1.0]), lesson([0, 1], [1.0, 0.0])
    assert known(two, halved, [1, 1, 1]) == pytest.approx(known(one, halved[:1], [1, 1, 1]), abs=1e-6)


def test_nothing_is_known_where_there_is_one_class_to_tell() -> None:
    assert known(lesson([1, 1]), torch.randn(2, T, generator=torch.Generator().manual_seed(0)), [0, 2, 0]) == 0
