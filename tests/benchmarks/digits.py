"""What several benchmarks share: the 5,000 digits before frozen backbones, and what is finished and not run again."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

import grafeat as gf
from grafeat.files import write
from grafeat.lab.cells import LAB
from grafeat.training import RECIPE

LITE = "efficientnet_lite0"
PER_CLASS = 50
CACHE = Path("build/digits")


def feature_grids(small: str) -> gf.GridSet:
    """The grids of EfficientNet-Lite0 and of a small backbone that learned from scikit-learn's 8×8 digits."""
    other = gf.train_backbone(small, gf.load_dataset("digits8x8"), save=CACHE / f"{small}.safetensors")
    backbones = [gf.load_backbone(f"bundled/{LITE}", size=112), other]
    return gf.extract(backbones, gf.load_dataset("mnist5k"), store=CACHE / "grids")


def finished(benchmark: str) -> Path:
    """Folder of what a benchmark has finished; another one once the package comes to train otherwise."""
    return Path("build") / benchmark / f"lab {LAB}, recipe {RECIPE}"


def cached(path: Path, make: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float]:
    """What an earlier, perhaps interrupted, call has left, or else what `make` gives now."""
    if not path.exists():
        start = time.perf_counter()
        made, whole = make(), BytesIO()
        torch.save(made, whole)
        write(path, whole.getvalue())
        print(f"{path.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    return torch.load(path, weights_only=True)
