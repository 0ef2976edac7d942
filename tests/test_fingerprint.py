"""Fingerprints: equal for what gives equal results, different for all else, absent where that cannot be known."""

import collections
import copy
import enum
import functools
import importlib
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType, ModuleType, SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn

import grafeat as gf
from grafeat.backbones.fingerprint import fingerprint, unrecognised

LEVEL = 0.5
HELPERS: ModuleType  # put there by a test


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


# What modules hold


def patches() -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(3, 5, 4, stride=4)


class Held(nn.Module):
    """Scales by what `held` says, wherever and however that is held."""

    def __init__(self, held: object, gain: Callable[[object], object] = lambda held: held) -> None:
        super().__init__()
        self.body, self.held, self.gain = patches(), held, gain

    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures) * self.gain(self.held)


@dataclass
class Settings:
    gain: float


class Act(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.act = patches(), act

    def forward(self, pictures: Tensor) -> Tensor:
        return self.act(self.body(pictures))


def class_attribute(value: float) -> nn.Module:
    class Own(Held):
        level = value

        def forward(self, pictures: Tensor) -> Tensor:
            return self.body(pictures) * self.level

    return Own(None)


def helper_method(value: float) -> nn.Module:
    class Own(Held):
        def helped(self, pictures: Tensor) -> Tensor:
            return self.body(pictures) * value

        def forward(self, pictures: Tensor) -> Tensor:
            return self.helped(pictures)

    return Own(None)


def property_of_class(value: float) -> nn.Module:
    class Own(Held):
        @property
        def level(self) -> float:
            return value

        def forward(self, pictures: Tensor) -> Tensor:
            return self.body(pictures) * self.level

    return Own(None)


def static_method(value: float) -> nn.Module:
    class Own(Held):
        @staticmethod
        def act(features: Tensor) -> Tensor:
            return features * value

        def forward(self, pictures: Tensor) -> Tensor:
            return self.act(self.body(pictures))

    return Own(None)


def hooked(value: float) -> nn.Module:
    body = patches()
    body.register_forward_hook(lambda body, pictures, features: features * value)
    return body


def hooked_before(value: float) -> nn.Module:
    body = patches()
    body.register_forward_pre_hook(lambda body, pictures: (pictures[0] * value,))
    return body


def default_of_a_method(value: float) -> nn.Module:
    class Own(Held):
        def forward(self, pictures: Tensor, gain: float = value) -> Tensor:
            return self.body(pictures) * gain

    return Own(None)


def parent_class(value: float) -> nn.Module:
    class Own({1.0: Single, 2.0: Double}[value]):
        pass

    return Own(None)


class Single(Held):
    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures)


class Double(Held):
    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures) * 2


def forward_replaced(value: float) -> nn.Module:
    body = patches()
    body.forward = lambda pictures: F.conv2d(pictures, body.weight, stride=4) * value
    return nn.Sequential(body)


def method_bound(value: float) -> nn.Module:
    body = patches()
    body.forward = MethodType(lambda self, pictures: self._conv_forward(pictures, self.weight, self.bias) * value, body)
    return body


HOLDERS: dict[str, Callable[[float], nn.Module]] = {
    "a tensor that is no buffer": lambda value: Held(torch.tensor(value)),
    "a dict": lambda value: Held({"gain": value}, lambda held: held["gain"]),
    "an array": lambda value: Held(np.array([value]), lambda held: float(held[0])),
    "a scalar of numpy": lambda value: Held(np.float32(value), float),
    "a dataclass": lambda value: Held(Settings(value), lambda held: held.gain),
    "a list of tensors": lambda value: Held([torch.tensor(value)], lambda held: held[0]),
    "a configuration object": lambda value: Held(SimpleNamespace(gain=value), lambda held: held.gain),
    "a function": lambda value: Act({1.0: F.relu, 2.0: F.gelu}[value]),
    "a function of torch": lambda value: Act({1.0: torch.relu, 2.0: torch.sin}[value]),
    "a partial": lambda value: Act(functools.partial(F.leaky_relu, negative_slope=value)),
    "a method of an object": lambda value: Act(torch.tensor(value).mul),
    "a class attribute": class_attribute,
    "a helper method": helper_method,
    "a property": property_of_class,
    "a static method": static_method,
    "a default of a method": default_of_a_method,
    "a parent class": parent_class,
    "a forward hook": hooked,
    "a hook before forward": hooked_before,
    "a forward put in place": forward_replaced,
    "a bound method put in place": method_bound,
}


@pytest.mark.parametrize("build", HOLDERS.values(), ids=HOLDERS)
def test_whatever_a_module_holds_counts(build: Callable[[float], nn.Module]) -> None:
    one, alike, other = (gf.Backbone(build(value), name="b", tap="", size=12) for value in (1.0, 1.0, 2.0))
    pictures = torch.rand(2, 3, 12, 12)
    assert torch.equal(one(pictures).features, alike(pictures).features)
    assert not torch.equal(one(pictures).features, other(pictures).features)
    assert one.fingerprint == alike.fingerprint is not None and other.fingerprint not in (one.fingerprint, None)
    assert one.variant().fingerprint == one.fingerprint and one.unrecognised is None


def test_slots_of_a_module_count() -> None:
    class Own(nn.Module):
        __slots__ = ("level",)

    def made(level: float) -> nn.Module:
        own = Own()
        own.level = level
        return own

    assert fingerprint(made(2.0)) == fingerprint(made(2.0)) not in (fingerprint(made(3.0)), None)


def test_a_store_gives_each_module_its_own_grids(tmp_path: Path) -> None:
    pictures = gf.PictureSet(torch.rand(5, 3, 12, 12))
    for value in (1.0, 2.0):
        backbone = gf.Backbone(Held(Settings(value), lambda held: held.gain), name="b", tap="", size=12)
        kept, known = (
            gf.extract([backbone], pictures, store=store, progress=False)["b"].features for store in (tmp_path, None)
        )
        torch.testing.assert_close(kept, known)


def test_what_a_helper_reads_from_around_itself_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Module):
        def helped(self, pictures: Tensor) -> Tensor:
            return pictures * LEVEL

        def forward(self, pictures: Tensor) -> Tensor:
            return self.helped(pictures)

    before = fingerprint(Own())
    monkeypatch.setitem(globals(), "LEVEL", 0.25)
    assert fingerprint(Own()) not in (before, None)


def test_what_a_function_takes_from_a_users_module_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helpers_of_a_user.py").write_text(
        "import helpers_of_a_user as again\nlevel, other = 2, iter([])\ndef scaled(x): return x * again.level\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    helpers = importlib.import_module("helpers_of_a_user")
    monkeypatch.setitem(globals(), "HELPERS", helpers)
    views = (lambda pictures: helpers.scaled(pictures)), (lambda pictures: HELPERS.scaled(pictures))
    before = [fingerprint(view) for view in views]
    assert None not in before and before == [fingerprint(view) for view in views]
    monkeypatch.setattr(helpers, "level", 3)
    assert not {fingerprint(view) for view in views} & {None, *before}
    assert unrecognised(view=lambda pictures: helpers.other) == "view.helpers.other, a list_iterator"


def test_a_method_put_into_a_class_of_a_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(nn.Sequential(nn.ReLU()))
    monkeypatch.setattr(nn.ReLU, "forward", darker)
    assert fingerprint(nn.Sequential(nn.ReLU())) not in (before, None)


class Side(enum.Enum):
    LEFT = "l"
    RIGHT = "r"


class Strength(enum.IntEnum):
    LOW = 1
    HIGH = 2


Point = collections.namedtuple("Point", "x y")


class Configuration:
    """Plain values beside each other, as those of language models."""

    def __init__(self, **settings: object) -> None:
        self.__dict__.update(settings)


class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain: float) -> None:
        self.gain = gain


PAIRS: list[tuple[object, object]] = [
    (2, 3),
    (1 + 2j, 1 + 3j),
    ((2, (3, None)), (2, (3, 0))),
    ([], ()),
    ({"a": 2}, {"a": 3}),
    ({"a": 2}, {"b": 2}),
    ({2, 3}, {2, 5}),
    (collections.OrderedDict(a=2), {"a": 2}),
    (collections.defaultdict(list), collections.defaultdict(dict)),
    (Side.LEFT, Side.RIGHT),
    (Strength.LOW, Strength.HIGH),
    (Strength.LOW, 1),
    (Point(2, 3), Point(2, 5)),
    (torch.Size((2, 3)), (2, 3)),
    (torch.float16, torch.bfloat16),
    (torch.channels_last, torch.contiguous_format),
    (torch.ones(3), torch.ones(3, dtype=torch.int32)),
    (torch.ones(2, dtype=torch.complex64), -torch.ones(2, dtype=torch.complex64)),
    (np.ones(3), np.ones(3, dtype=np.float32)),
    (np.array([None, "a"]), np.array([None, "b"])),
    (np.float64(2), 2.0),
    (slice(2), slice(3)),
    (range(2), range(3)),
    (Path("a"), Path("b")),
    (Slotted(2), Slotted(3)),
    (Configuration(width=7, act="gelu"), Configuration(width=7, act="relu")),
    (Configuration(width=7), SimpleNamespace(width=7)),
    (nn.ReLU, nn.GELU),
    (np.add, np.multiply),
    (F.max_pool2d, F.max_pool1d),
    (logging.getLogger("a"), logging.getLogger("b")),
    (functools.lru_cache(lambda x: x + 1), functools.lru_cache(lambda x: x + 2)),
    (functools.partial(F.relu, inplace=True), functools.partial(F.relu, inplace=False)),
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=range(len(PAIRS)))
def test_an_attribute_of_any_kind_is_told_from_another(one: object, other: object) -> None:
    found = [fingerprint(Scaled(value)) for value in (one, other)]
    assert None not in found and found[0] != found[1]
    assert fingerprint(copy.deepcopy(Scaled(one))) == found[0]


def test_hooks_on_their_own_module_differ_from_hooks_that_are_all_one() -> None:
    def looking(*at: int) -> nn.Module:
        parts = [nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)]
        for part, index in zip(parts, at, strict=True):
            part.register_forward_hook(functools.partial(darker, parts[index]))
        with torch.no_grad():
            [weight.fill_(0.5) for part in parts for weight in part.parameters()]
        return nn.Sequential(*parts)

    assert len({fingerprint(looking(*at)) for at in ((0, 1), (0, 0), (1, 1), (1, 0))}) == 4


# What does not count


def test_where_and_how_a_module_runs_does_not_count() -> None:
    assert fingerprint(Scaled(torch.device("cpu"))) == fingerprint(Scaled(torch.device("cuda")))
    used = module()
    base = fingerprint(used)
    used.requires_grad_(False).compile()
    used.register_full_backward_hook(lambda *given: None)
    used.register_forward_hook(lambda *given: None).remove()
    assert fingerprint(used) == base


def test_a_hooks_number_does_not_count() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.handle = self.register_forward_hook(lambda *given: None)

    assert fingerprint(Own()) == fingerprint(Own()) is not None


def test_what_a_class_works_out_at_its_first_use_does_not_count() -> None:
    class Own(Scaled):
        @functools.cached_property
        def doubled(self) -> float:
            return 2 * self.factor

    used = Own(2.0)
    base = fingerprint(used)
    assert used.doubled == 4 and fingerprint(used) == base is not None


def test_where_weights_came_from_does_not_count() -> None:
    body = timm.create_model("test_resnet", pretrained=False)
    base = fingerprint(body)
    body.pretrained_cfg = body.pretrained_cfg | {"file": "weights.pth"}
    assert fingerprint(body) == base is not None


# What cannot be recognised


class Logging(Scaled):
    lock = threading.Lock()


def generator() -> object:
    yield 0.5


def test_what_is_found_and_where(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as log:
        found = {
            "module.0.factor, a TextIOWrapper": nn.Sequential(Scaled(log)),
            "module.1.factor.settings['logs'][1], a TextIOWrapper": nn.Sequential(
                nn.ReLU(), Scaled(SimpleNamespace(settings={"logs": [None, log]}))
            ),
            "module.factor.level, a generator": Scaled(closed_over(generator())),
            "module.__class__.lock, a lock": Logging(2.0),
            "module.factor, a Tensor": Scaled(torch.zeros(3, device="meta")),
        }
        assert {str(unrecognised(module=thing)): thing for thing in found.values()} == found
        assert {fingerprint(thing) for thing in found.values()} == {None}
        assert unrecognised(module=module(), view=log) == "view, a TextIOWrapper"
    assert unrecognised(module=module(), view=darker) is None


def test_a_backbone_says_what_leaves_it_without_a_fingerprint() -> None:
    view = closed_over(generator())
    backbone = gf.Backbone(module(), name="b", view=view)
    assert backbone.fingerprint is None and backbone.unrecognised == "view.level, a generator"


@pytest.mark.parametrize(
    "thing", [object(), iter([]), closed_over(object()), functools.partial(darker, object()), sys.modules[__name__]]
)
def test_the_unrecognisable_has_none(thing: object) -> None:
    assert fingerprint(thing) is None


# Real backbones

REAL: dict[str, Callable[[], nn.Module]] = {
    **{
        name: functools.partial(timm.create_model, name, pretrained=False)
        for name in ("tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224", "convnext_atto", "levit_128s")
    },
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), pretrained=False),
    "hooks of timm": lambda: timm.create_model("vit_tiny_patch16_224", depth=3, features_only=True, pretrained=False),
    "torchvision": torchvision.models.shufflenet_v2_x0_5,
    "torchvision's swin": lambda: torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [3, 6], [7, 7]),
    "traced": lambda: fx.symbolic_trace(torchvision.models.shufflenet_v2_x0_5()),
    "attention of torch": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(224 * 224, 6), nn.TransformerEncoderLayer(6, 2, 7, activation=F.gelu)
    ),
    "normalised weights": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 5, 7)),
    "small_vit": lambda: gf.backbones.narrow.SmallViT(),
}


@pytest.mark.parametrize("build", REAL.values(), ids=REAL)
def test_real_backbones_have_a_fingerprint_that_use_and_copies_leave_as_it_is(build: Callable[[], nn.Module]) -> None:
    def made(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return copy.deepcopy(build().eval().requires_grad_(False))  # as a backbone does

    used, other = made(0), made(1)
    base = fingerprint(used)
    used(torch.rand(2, 3, 28, 28) if build is REAL["small_vit"] else torch.rand(2, 3, 224, 224))
    assert fingerprint(used) == fingerprint(copy.deepcopy(used)) == fingerprint(made(0)) == base is not None
    assert fingerprint(other) not in (base, None)


def test_no_path_of_this_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    written, packages = [], os.fsencode(Path(timm.__file__).parents[1])
    monkeypatch.setattr("hashlib.sha256", lambda: SimpleNamespace(update=written.append, digest=bytes))
    for name in ("traced", "resnet18", "hooks of timm"):
        fingerprint(REAL[name]())
    fingerprint(gf.load_backbone("bundled/efficientnet_lite0").module)
    assert len(written) > 1000 and not [part for part in written if packages in part]


def test_grafeats_own_part_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gf.Backbone(module(), name="b").fingerprint
    assert gf.Backbone(module(), name="b").fingerprint == before
    monkeypatch.setattr("grafeat.backbones.backbone.FEATURES", 0)
    assert gf.Backbone(module(), name="b").fingerprint not in (before, None)


# Another process

OWN = """
import enum, functools, sys, timm, torch
from dataclasses import dataclass, field
from torch import nn
from grafeat.backbones.fingerprint import fingerprint

class Act(enum.Enum):
    RELU = "relu"

@dataclass
class Settings:
    names: set = field(default_factory=lambda: {"a", "b", "c", "d"})
    act: Act = Act.RELU

class Part(nn.Module):
    kinds = set()
    def __init_subclass__(cls):
        Part.kinds.add(cls)
    def __init__(self):
        super().__init__()
        self.body, self.settings, self.handle = nn.Conv2d(3, 7, 3), Settings(), self.register_forward_hook(self.seen)
        self.shown = {nn.ReLU, nn.GELU, Settings}
    def seen(self, part, given, features):
        return features if "a" in {"a", "b", "c", "d"} else None
    @property
    def act(self):
        return self.settings.act
    def forward(self, pictures):
        return self.body(pictures) * len(self.kinds)

class One(Part): pass
class Two(Part): pass

for number in range(int(sys.argv[1])):
    Part()
torch.manual_seed(0)
print(fingerprint(nn.Sequential(One(), Two()), functools.partial(torch.clamp, min=0.1), torch.rand(5), (1, 2.5, "x")))
print(fingerprint(timm.create_model("test_vit", pretrained=False)))
"""


def test_the_same_in_another_process(tmp_path: Path) -> None:
    runs = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "own.py").write_text(textwrap.dedent(OWN))
        run = subprocess.run(
            [sys.executable, folder / "own.py", seed],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            text=True,
            capture_output=True,
        )
        runs.append(run.stdout)
        assert [len(line) for line in run.stdout.split()] == [64, 64], run.stderr
    assert runs[0] == runs[1]
