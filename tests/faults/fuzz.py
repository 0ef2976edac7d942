"""Fuzzes loaders, led by which lines of them have run: `python tests/faults/fuzz.py model,run build/fuzz -runs=1000`.

The inputs are files that the loader reads, and what becomes of them by mutation. Any error but the documented
ValueError ends the run with a status other than 0 and leaves its input in the folder. Other arguments are libFuzzer's.
"""

import contextlib
import copy
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["grafeat", "PIL"]):
    from PIL import Image, features

    Image.init()  # its readers, one for each format

    from grafeat.backbones.narrow import load_trained
    from grafeat.checkpoint import load, save
    from grafeat.files import read_tensors, write_tensors
    from grafeat.merge import GraFeatMerge
    from grafeat.models import MEANING
    from grafeat.pictures import read_picture
    from grafeat.planted import pointer
    from grafeat.store.index import FORMAT, Index, Key, Piece, digest, parsed
    from grafeat.store.journal import HEAD, read_unfinished
    from grafeat.training import fit

GRIDS = pointer(31, shape=(2, 3), channels=(3, 5))
MODEL = GraFeatMerge.for_grids(GRIDS, num_classes=4, width=12, heads=3, depth=1)
CALL = {"kind": "small_cnn", "seed": 0, "epochs": 1, "pictures": "p", "count": 7, "content": "c", "recipe": "r"}
INDEX = Index(Key("b", "p", "F16", 31), "lite", "digits", (0, 0, 1, 1), (3, 2, 5), (Piece(0, 31, "d"),), (7,))
Loader = Callable[[bytes, Path], object]


def model(data: bytes, folder: Path) -> None:
    """A saved model, and bytes in its place."""
    (folder / "a").write_bytes(data)
    load(folder / "a")


def configuration(data: bytes, folder: Path) -> None:
    """A saved model that says anything of itself; its checksum is right, as a careful attacker would write it."""
    load(write_tensors(folder / "a", MODEL.state_dict(), kind="model", about={"meaning": MEANING, **dictionary(data)}))


def checkpoint(data: bytes, folder: Path) -> None:
    """The checkpoint of a training, and bytes in its place."""
    (folder / "a").write_bytes(data)
    read_back(folder / "a")


def run(data: bytes, folder: Path) -> None:
    """A checkpoint that says anything of its training; its checksum is right."""
    tensors, _ = read_tensors(finished(folder), kind="training")
    read_back(write_tensors(folder / "a", tensors, kind="training", about=dictionary(data)))


def trained(data: bytes, folder: Path) -> None:
    """A trained backbone that says anything of itself."""
    tensors = {"mean": MODEL.types.detach()}
    load_trained(write_tensors(folder / "a", tensors, kind="trained backbone", about=dictionary(data)))


def index(data: bytes, folder: Path) -> None:
    """An index of the store whose checksum is right."""
    said = dictionary(data)
    parsed(json.dumps({"sha256": digest(json.dumps(said).encode()), **said}).encode() + b"\n")


def journal(data: bytes, folder: Path) -> None:
    """What an unfinished run has noted, behind lines that are right; each line gets a checksum that is right."""
    noted = [b'["%b", %b\n' % (digest(line).encode(), line[1:]) for line in data.splitlines()]
    (folder / "journal").write_bytes(b"".join([HEAD, INDEX.with_pieces([], []).encoded(), *noted]))
    with contextlib.suppress(FileNotFoundError):  # documented: a journal that says nothing, and no index beside it
        read_unfinished(folder)


def picture(data: bytes, folder: Path) -> None:
    """A picture file, of any format that Pillow knows by its content."""
    (folder / "a").write_bytes(data)
    read_picture(folder / "a")


LOADERS: dict[str, Loader] = {
    each.__name__: each for each in (model, configuration, checkpoint, run, trained, index, journal, picture)
}


def read_back(path: Path) -> None:
    """Goes on from the checkpoint of a training of one epoch: if it is whole, there is nothing left to do."""
    fit(copy.deepcopy(MODEL), GRIDS, val=GRIDS[:7], epochs=1, checkpoint=path, progress=False)


@functools.cache
def finished(folder: Path) -> Path:
    """The checkpoint of a training that was finished."""
    read_back(folder / "finished")
    return folder / "finished"


def dictionary(data: bytes) -> dict[str, object]:
    """What the bytes say as JSON."""
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError("no dictionary")
    return said


def seeds(folder: Path) -> Iterator[tuple[str, bytes]]:
    """For each loader inputs that it reads without an error."""
    yield "model", save(MODEL, folder / "whole").read_bytes()
    yield "configuration", json.dumps({"config": asdict(MODEL.config)}).encode()
    yield "checkpoint", finished(folder).read_bytes()
    yield "run", json.dumps(read_tensors(finished(folder), kind="training")[1]).encode()
    yield "trained", json.dumps({"call": CALL}).encode()
    yield "index", json.dumps({"kind": "feature grids", "format": FORMAT, **asdict(INDEX)}).encode()
    yield "journal", b'[0, 4, "d", [3]]\n[4, 8, "e", []]\n'
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", *(["AVIF"] if features.check("avif") else [])):
        file = io.BytesIO()
        Image.linear_gradient("L").resize((13, 17)).convert("RGB").save(file, kind, exif=exif)
        yield "picture", file.getvalue()


def main() -> None:
    """Fuzzes the loaders that are named, one after the other, each in its own folder of the one that is named."""
    names, folder, *options = sys.argv[1:]
    for name in names.split(","):
        child = os.fork()  # a fuzzer ends its process; to import all anew takes longer than a brief run
        if not child:
            fuzz(name, Path(folder) / name, options)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{name}: its input lies in {folder}/{name}")


def fuzz(name: str, work: Path, options: list[str]) -> None:
    """Fuzzes one loader, and ends the process."""
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    Image.MAX_IMAGE_PIXELS = 10**6  # so that a size that is a lie costs no time
    for number, (whose, data) in enumerate(seeds(work)):
        if whose == name:
            (corpus / f"seed{number}").write_bytes(data)

    def once(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            LOADERS[name](data, work)

    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={work}/", *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
