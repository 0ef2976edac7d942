"""The control that learns from pixels: its own labels only, its seed, its length."""

import pytest
import torch
from test_narrow import N, _bars

from grafeat.backbones.narrow import train_backbone
from grafeat.lab import scratch
from grafeat.lab.scratch import passes, recipe, train_from_scratch


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PICTURES_SHOWN", 16 * N)


def test_its_answers_are_the_heads_of_its_mean_patch() -> None:
    found = train_from_scratch(_bars(), num_classes=5)
    logits, vectors = found.read(_bars(seed=1, count=7), batch_size=3)
    assert (logits.shape, vectors.shape) == ((7, 5), (7, 64))
    torch.testing.assert_close(logits, vectors @ found.head.weight.T + found.head.bias)
    torch.testing.assert_close(found.read(_bars(seed=1, count=7)), (logits, vectors))
    assert found.parameters == sum(p.numel() for p in found.body.parameters()) + 64 * 5 + 5
    assert found.seconds > 0


def test_its_body_is_that_of_the_backbone_trained_alike() -> None:
    """So the control is the same network, the same distortions and the same optimiser."""
    found = train_from_scratch(_bars(), num_classes=3, seed=2)
    backbone = train_backbone("small_cnn", _bars(), seed=2, progress=False)
    pictures = _bars(seed=1, count=7)
    torch.testing.assert_close(found.read(pictures)[1], backbone(pictures.pictures).features.mean(dim=(2, 3)))


def test_it_learns_from_every_label_that_was_paid_for_and_from_no_other_part() -> None:
    parts = {"train": torch.arange(17), "val": torch.arange(17, 20), "test": torch.arange(20, N)}
    whole = _bars()
    shown = type(whole)(whole.pictures, whole.labels, parts=parts)
    other = type(whole)(torch.cat([whole.pictures[:20], 1 - whole.pictures[20:]]), whole.labels, parts=parts)
    first, same, without = (
        train_from_scratch(pictures, num_classes=3).read(whole)[0] for pictures in (shown, other, whole[:17])
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, without)


def test_it_is_right_about_other_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PICTURES_SHOWN", 60 * 97)
    pictures = _bars(seed=3, count=97)
    logits, _ = train_from_scratch(pictures, num_classes=3).read(_bars(seed=4, count=61))
    assert float((logits.argmax(dim=1) == torch.arange(61) % 3).double().mean()) > 0.6


def test_few_pictures_are_seen_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PICTURES_SHOWN", 30_000)
    assert [passes(count) for count in (80, 400, 1797, 50_000)] == [375, 75, 17, 16]
    assert recipe(400, 10) != recipe(401, 11)
