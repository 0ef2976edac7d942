"""What a store's folders will say of each backbone's grids: by it they are found again, and processes agree on it."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from grafeat.backbones.backbone import Backbone
from grafeat.pictures import PictureSet
from grafeat.sharing import Share
from grafeat.store.index import DTYPES, Index, Key

CHUNK = 1000  # pictures that are hashed as one: several processes share the chunks
DELAY = 2  # seconds, after which a bar says that pictures are being read
SAMPLE = 64  # pictures by which processes see that they have the same set


def drafts_of(
    backbones: Sequence[Backbone],
    pictures: PictureSet,
    dtype: torch.dtype,
    share: Share,
    *,
    progress: bool = False,
) -> tuple[dict[str, Index], PictureSet]:
    """The index of each backbone's grids, by its name; their shape is not known yet. And the pictures, remembered.

    Raises:
        ValueError: If a backbone holds what cannot be recognised; if processes have other backbones or pictures.
    """
    known = {backbone.name: backbone.fingerprint for backbone in backbones}  # once, as all weights are read for it
    for backbone in backbones:
        if known[backbone.name] is None:
            raise ValueError(
                f"store: backbone {backbone.name!r} holds {backbone.unrecognised}, which cannot be recognised in a "
                "later run; expected plain values, tensors, dataclasses, and functions of these; keep it outside, or "
                "extract without store="
            )
    said = next(name for name, each in DTYPES.items() if each == dtype)
    if share.processes > 1:
        _check_agreed(known, pictures, said, share)
    pictures = remembered(pictures, share, progress=progress)
    drafts, whole = {}, content(pictures, share)
    for backbone in backbones:
        key = Key(str(known[backbone.name]), whole, said, len(pictures))
        x0, y0, x1, y1 = map(float, backbone.field)
        drafts[backbone.name] = Index(key, backbone.name, pictures.name, (x0, y0, x1, y1), (1, 1, 1))
    return drafts, pictures


def remembered(pictures: PictureSet, share: Share, *, progress: bool = False) -> PictureSet:
    """The same pictures; a file that changes from now on is refused, as its features would be kept under a wrong key.

    Each process reads some chunks of the files. What lies in memory does not change.
    """
    if not pictures.files:
        return pictures
    digests = torch.zeros(len(pictures), hashlib.sha256().digest_size, dtype=torch.uint8)
    own = range(0, len(pictures), CHUNK)[share.process :: share.processes]
    for start in tqdm(own, desc="recognise", unit=f" × {CHUNK:,} pictures", delay=DELAY, disable=not progress):
        digests[start : start + CHUNK] = pictures[start : start + CHUNK].digests
    return pictures.remembering(_sum(digests, share).to(torch.uint8))


def content(pictures: PictureSet, share: Share) -> str:
    """Fingerprint of the pictures' content, in their order, the same for any number of processes.

    Each process hashes some chunks of the pictures.
    """
    starts = range(0, len(pictures), CHUNK)
    found = torch.zeros(len(starts), hashlib.sha256().digest_size)
    for number in range(len(starts))[share.process :: share.processes]:
        found[number] = _numbers(pictures[starts[number] : starts[number] + CHUNK].fingerprint)
    whole = _sum(found, share)  # what another process hashes is zero here
    return hashlib.sha256(whole.to(torch.uint8).numpy().tobytes()).hexdigest()


def _check_agreed(backbones: Mapping[str, str | None], pictures: PictureSet, dtype: str, share: Share) -> None:
    """Raise unless all processes extract the same, so far as it shows without reading all pictures."""
    some = pictures[:: max(1, len(pictures) // SAMPLE)].fingerprint
    models = sorted(backbones.items())
    for argument, own, remedy in (
        ("pictures", f"{len(pictures)} {some}", "pass the whole set, in one order: extract shares it out itself"),
        ("backbones, dtype", f"{models} {dtype}", "load the same weights in every process"),
    ):
        said = _numbers(hashlib.sha256(own.encode()).hexdigest())
        if not torch.equal(_sum(said, share), said * share.processes):
            raise ValueError(
                f"{argument}: process {share.process} of {share.processes} got others than another process; expected "
                f"the same in all; {remedy}"
            )


def _sum(numbers: Tensor, share: Share) -> Tensor:
    if share.engine is None:
        return numbers
    share.wait()  # patiently, which `reduce` is not: another process may have hashed for longer
    total: Tensor = share.engine.reduce(numbers.to(share.engine.device), reduction="sum")
    return total.cpu()


def _numbers(fingerprint: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(fingerprint)), dtype=torch.float32)
