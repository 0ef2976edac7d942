"""Fingerprints: equal for what gives equal results, different for all else, absent where that cannot be known."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from grafeat.backbones.fingerprint import fingerprint

LEVEL = 0.5


def module(seed: int = 0, width: int = 7, kernel: int = 3, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, kernel, **options), nn.BatchNorm2d(width))


class Scaled(nn.Module):
    """A user's module with a setting that neither its repr nor its weights show."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures * self.factor


class Shifted(Scaled):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures + self.factor


@dataclass(frozen=True)
class Half:
    side: str
    comment: str = field(default="", compare=False)

    def __call__(self, pictures: Tensor) -> Tensor:
        return pictures


def darker(pictures: Tensor) -> Tensor:
    return pictures * LEVEL


def closed_over(level: float) -> object:
    return lambda pictures: pictures * level


def countdown(steps: int) -> int:
    return steps and countdown(steps - 1)


def test_modules() -> None:
    base = fingerprint(module())
    assert base is not None and len(base) == 64
    assert fingerprint(module()) == base
    changed = module()
    changed[1].running_mean[3] += 1e-7
    others = [
        module(1),
        module(width=5),
        module(padding=1),
        module(stride=2),
        module().double(),
        changed,
        nn.Identity(),
    ]
    assert len({base, *map(fingerprint, others)}) == 1 + len(others)


def test_use_leaves_no_trace() -> None:
    used = module()
    base = fingerprint(used)
    used.to(memory_format=torch.channels_last).eval()(torch.rand(1, 3, 8, 8))
    assert fingerprint(used) == base


def test_settings_and_code_of_users_modules() -> None:
    found = [fingerprint(Scaled(2.0)), fingerprint(Scaled(3.0)), fingerprint(Shifted(2.0))]
    assert None not in found and len(set(found)) == 3
    assert fingerprint(Scaled(2.0)) == found[0]


def test_values_differ_from_what_prints_alike() -> None:
    things = [
        None,
        "None",
        0,
        0.0,
        False,
        "0",
        (0,),
        [0],
        ((0,),),
        (0, 0),
        {0: 0},
        torch.zeros(1),
        torch.zeros(1, 1),
        b"0",
    ]
    assert len({fingerprint(thing) for thing in things}) == len(things)
    assert fingerprint("a", "bc") != fingerprint("ab", "c")


def test_dataclasses() -> None:
    assert (
        fingerprint(Half("left"))
        == fingerprint(Half("left", comment="the same"))
        != fingerprint(Half("right"))
    )


def test_functions_with_what_they_take_from_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(darker)
    assert before is not None
    monkeypatch.setitem(globals(), "LEVEL", 0.25)
    assert fingerprint(darker) not in (before, None)
    assert fingerprint(closed_over(0.5)) == fingerprint(closed_over(0.5)) != fingerprint(closed_over(0.25))
    assert fingerprint(lambda pictures: pictures[..., :7]) != fingerprint(lambda pictures: pictures[..., :5])
    assert fingerprint(functools.partial(torch.clamp, min=0.1)) != fingerprint(
        functools.partial(torch.clamp, min=0.2)
    )
    assert fingerprint(countdown) is not None


@pytest.mark.parametrize(
    "thing", [object(), iter([]), closed_over(object()), functools.partial(darker, object())]
)
def test_the_unrecognisable_has_none(thing: object) -> None:
    assert fingerprint(thing) is None


def test_the_same_in_another_process() -> None:
    code = (
        "import torch; from grafeat.backbones.fingerprint import fingerprint as f; torch.manual_seed(0); "
        "view = lambda pictures: pictures if 'a' in {'a', 'b', 'c', 'd'} else None; "
        "print(f(torch.nn.Conv2d(3, 7, 3), torch.rand(5), (1, 2.5, 'x'), view))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            text=True,
            capture_output=True,
        )
        for seed in ("1", "2")
    ]
    assert len(runs[0].stdout.strip()) == 64, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
