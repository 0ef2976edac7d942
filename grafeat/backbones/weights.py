"""Files of pre-trained weights: where others keep them, how they get there, and whether to trust them."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub.utils import EntryNotFoundError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """Pre-trained weights: whose they are, and how to get at them.

    Args:
        source: What to call their origin.
        licence: Their licence, as far as it is stated.
        place: Where they would be.
        find: Gives their file, or None if they are not here. Never uses the network.
        fetch: Brings the file here; None if that takes an installation.
        remedy: What a caller can do if they are not here.
        megabytes: Size of the file, if that is known without having it.
    """

    source: str
    licence: str
    place: str
    find: Callable[[], Path | None]
    fetch: Callable[[], None] | None = None
    remedy: str = "pass download=True to fetch them"
    megabytes: float | None = None


def url_weights(source: str, licence: str, url: str, megabytes: float | None = None) -> Weights:
    """Weights in the cache folder of torch's hub, where timm and torchvision look for them."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    return Weights(
        source=source,
        licence=licence,
        place=str(folder),
        find=lambda: path if path.is_file() else None,
        fetch=partial(_fetch_url, url, path),
        megabytes=megabytes,
    )


def _fetch_url(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path), hash_prefix=_promised_digest(path))


def hub_weights(source: str, licence: str, repository: str, file: str | None) -> Weights:
    """Weights of a Hugging Face repository, "owner/name" or "owner/name@revision", in the cache of its client."""
    name, _, revision = repository.partition("@")
    files = HUB_FILES if file is None else (file,)
    return Weights(
        source=source,
        licence=licence,
        place=huggingface_hub.constants.HF_HUB_CACHE,
        find=partial(_find_in_hub, name, revision or None, files),
        fetch=partial(_fetch_from_hub, name, revision or None, files),
    )


def _find_in_hub(repository: str, revision: str | None, files: tuple[str, ...]) -> Path | None:
    for file in files:
        found = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _fetch_from_hub(repository: str, revision: str | None, files: tuple[str, ...]) -> None:
    for file in files:
        try:
            huggingface_hub.hf_hub_download(repository, file, revision=revision)
            return
        except EntryNotFoundError:  # older repositories have no safetensors
            if file == files[-1]:
                raise


@contextmanager
def no_pickle() -> Iterator[None]:
    """Meanwhile torch.load takes nothing but weights, though torchvision asks it to run whatever a file says."""
    switch, before = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ[switch] = "1"
    try:
        yield
    finally:
        del os.environ[switch]
        os.environ |= {} if before is None else {switch: before}


def check_file(path: Path) -> None:
    """Raise unless a cached file has the content that its name promises: a download may have broken off.

    Raises:
        ValueError: If its SHA-256 is another.
    """
    promised = _promised_digest(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if promised is not None and not found.startswith(promised):
        raise ValueError(
            f"model: the file {path} has the SHA-256 {found[:8]}…; expected {promised[:8]}…; delete it, and load "
            "again with download=True"
        )


def _promised_digest(path: Path) -> str | None:
    """The SHA-256 by a file's name: its start in torch's hub (name-digest.pth), all of it for a Hugging Face blob."""
    blob = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        return blob
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return found and found[1]
