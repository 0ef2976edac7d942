"""Whatever a file holds, a loader reads it or raises the errors it names; nothing in it runs."""

import contextlib
import copy
import json
import math
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import safetensors.torch
import torch
from faults.jobs import BATCH, backbones, pictures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_files import Trap

from grafeat import files
from grafeat.backbones import zoo
from grafeat.backbones.narrow import load_trained
from grafeat.checkpoint import load, save
from grafeat.files import read_tensors, write_tensors
from grafeat.merge import GraFeatMerge
from grafeat.models import MEANING
from grafeat.planted import pointer
from grafeat.runs import KIND, Run
from grafeat.store import GridStore, extract
from grafeat.store.index import digest, parsed
from grafeat.store.journal import HEAD
from grafeat.training import fit

GRIDS = pointer(31, shape=(2, 3), channels=(3, 5))
MODEL = GraFeatMerge.for_grids(GRIDS, num_classes=4, width=12, heads=3, depth=1)
CONFIG = json.loads(json.dumps(vars(MODEL.config)))
CALL = ("kind", "seed", "epochs", "pictures", "count", "content", "recipe")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
fuzzed = settings(settings.get_profile("faults"), suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True, scope="module")
def unchecked_for_all() -> Iterator[None]:
    """As for a user: the package's own errors must catch what is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def reads_or_refuses(read: object, path: Path) -> None:
    with contextlib.suppress(ValueError):
        read(path)


# Saved models and backbones


@fuzzed
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    for read in (load, load_trained, lambda path: read_tensors(path, kind="model")):
        with pytest.raises(ValueError, match=f"path: {re.escape(str(path))} is "):
            read(path)


@fuzzed
@given(header=JSON, rest=st.binary(max_size=40))
def test_any_header(tmp_path: Path, header: object, rest: bytes) -> None:
    """A length that fits, and JSON."""
    text = json.dumps(header).encode()
    (tmp_path / "any").write_bytes(len(text).to_bytes(8, "little") + text + rest)
    reads_or_refuses(load, tmp_path / "any")


TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "F4", "C64", "U16", "?"]),
        "shape": st.lists(st.integers(-1, 9), max_size=3),
        "data_offsets": st.lists(st.integers(0, 99), min_size=2, max_size=2),
    }
)


@fuzzed
@given(tensors=st.dictionaries(st.text(max_size=3), TENSOR, max_size=3), rest=st.binary(max_size=99))
def test_any_tensors(tmp_path: Path, tensors: dict[str, object], rest: bytes) -> None:
    about = json.dumps({"checksum": files.UNSEALED, "kind": "model", "format": files.FORMAT, "config": CONFIG})
    text = json.dumps({"__metadata__": {"grafeat": about}, **tensors}).encode()
    (tmp_path / "any").write_bytes(len(text).to_bytes(8, "little") + text + rest)
    files._seal(tmp_path / "any")
    reads_or_refuses(load, tmp_path / "any")


@fuzzed
@given(name=st.sampled_from(sorted(CONFIG)), value=JSON, gone=st.booleans())
def test_any_configuration(tmp_path: Path, name: str, value: object, gone: bool) -> None:
    """Its checksum is right, as a careful attacker would write it."""
    config = {**CONFIG, name: value}
    if gone:
        del config[name]
    about = {"meaning": MEANING, "config": config}
    reads_or_refuses(load, write_tensors(tmp_path / "a", MODEL.state_dict(), kind="model", about=about))


@fuzzed
@given(about=st.dictionaries(st.sampled_from(["config", "call", "kind", "format", "checksum", "x"]), JSON))
def test_any_description(tmp_path: Path, about: dict[str, object]) -> None:
    said = {"meaning": MEANING, **about}
    path = write_tensors(tmp_path / "a", {"mean": torch.zeros(3)}, kind="model", about=said)
    reads_or_refuses(load, path)
    path = write_tensors(tmp_path / "a", {"mean": torch.zeros(3)}, kind="trained backbone", about=about)
    reads_or_refuses(load_trained, path)


@fuzzed
@given(name=st.sampled_from(CALL), value=JSON)
def test_any_call_of_a_trained_backbone(tmp_path: Path, name: str, value: object) -> None:
    for kind in ("small_vit", "small_cnn"):
        about = {"call": {**dict.fromkeys(CALL, 0), "kind": kind, name: value}}
        path = write_tensors(tmp_path / "a", {"mean": torch.zeros(3)}, kind="trained backbone", about=about)
        with pytest.raises(ValueError, match=r"is damaged or from another version .*train it"):
            load_trained(path)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_in_place_of_weights_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    trap, path = Trap(tmp_path / "sprung"), tmp_path / "a"
    for content in (pickle.dumps(trap, protocol), pickle.dumps({"weights": trap}, protocol)):
        path.write_bytes(content)
        for read in (load, load_trained):
            with pytest.raises(ValueError, match=f"path: {path} is "):
                read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["timm/resnet10t.c3_in1k", "bundled/efficientnet_lite0"])
def test_a_pickle_in_place_of_pretrained_weights_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, load_anything = tmp_path / "weights.pth", torch.load
    torch.save({"weights": Trap(tmp_path / "sprung")}, path)
    monkeypatch.setattr(zoo, "_weights_file", lambda model, download: path)
    # as a loader would that trusts its file, such as one of an older release of timm
    trusting = lambda file, **options: load_anything(file, **{**options, "weights_only": False})  # noqa: E731
    monkeypatch.setattr(torch, "load", trusting)
    with pytest.raises(ValueError, match=rf"model: '{name}' cannot be made .* with the weights in {path}"):
        zoo.load_backbone(name)
    assert not (tmp_path / "sprung").exists()
    load_anything(path, weights_only=False)
    assert (tmp_path / "sprung").exists()  # the trap is a good one


# The checkpoint of a training


class Stopped(Exception):
    """Ends a training after an epoch."""


def gone_on(path: Path) -> None:
    """Two epochs of one step each, or what is left of them."""
    fit(copy.deepcopy(MODEL), GRIDS, val=GRIDS[:7], epochs=2, checkpoint=path, progress=False)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a training has kept that was stopped after the first epoch."""
    path, save_run = tmp_path_factory.mktemp("training") / "run", Run.save

    def stopping(run: Run, path: Path) -> None:
        save_run(run, path)
        raise Stopped

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Run, "save", stopping)
        gone_on(path)
    tensors, about = read_tensors(path, kind=KIND)
    return tensors, {name: value for name, value in about.items() if name not in ("kind", "format")}


Halved = tuple[dict[str, torch.Tensor], dict[str, Any]]
ROWS = st.lists(st.lists(st.floats() | st.none() | st.integers(), min_size=3, max_size=5), max_size=3)


def test_the_fuzzing_of_checkpoints_starts_from_what_is_gone_on_with(tmp_path: Path, halved: Halved) -> None:
    tensors, about = halved
    gone_on(write_tensors(tmp_path / "a", tensors, kind=KIND, about=about))
    assert len(read_tensors(tmp_path / "a", kind=KIND)[1]["rows"]) == 2


@fuzzed
@given(name=st.sampled_from(["settings", "rows", "seconds", "kind", "format", "checksum"]), value=JSON | ROWS)
def test_any_description_of_a_training(tmp_path: Path, halved: Halved, name: str, value: object) -> None:
    tensors, about = halved
    reads_or_refuses(gone_on, write_tensors(tmp_path / "a", tensors, kind=KIND, about={**about, name: value}))


@fuzzed
@given(which=st.integers(0, 10**6), value=JSON)
def test_any_setting_of_a_training(tmp_path: Path, halved: Halved, which: int, value: object) -> None:
    tensors, about = halved
    name = sorted(about["settings"])[which % len(about["settings"])]
    said = {**about, "settings": {**about["settings"], name: value}}
    path = write_tensors(tmp_path / "a", tensors, kind=KIND, about=said)
    if value == about["settings"][name]:
        gone_on(path)
    else:
        with pytest.raises(ValueError, match=r"is of a run|is from another version"):
            gone_on(path)


@fuzzed
@given(
    which=st.integers(0, 10**6),
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
)
def test_any_form_of_a_tensor_of_a_training(
    tmp_path: Path, halved: Halved, which: int, shape: list[int], dtype: torch.dtype
) -> None:
    tensors, about = halved
    name = sorted(tensors)[which % len(tensors)]
    replaced = {**tensors, name: torch.zeros(shape, dtype=dtype)}
    reads_or_refuses(gone_on, write_tensors(tmp_path / "a", replaced, kind=KIND, about=about))


@fuzzed
@given(which=st.integers(0, 10**6), number=st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -1.0, 0.0, 255.0]))
def test_any_number_in_a_tensor_of_a_training(tmp_path: Path, halved: Halved, which: int, number: float) -> None:
    tensors, about = halved
    name = sorted(tensors)[which % len(tensors)]
    floating = tensors[name].is_floating_point()
    replaced = {**tensors, name: torch.full_like(tensors[name], number if floating else 255)}
    reads_or_refuses(gone_on, write_tensors(tmp_path / "a", replaced, kind=KIND, about=about))


# The store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    extract(backbones(), pictures(), store=folder, batch_size=BATCH, progress=False)
    return folder


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


@fuzzed
@given(content=st.binary(max_size=99) | JSON.map(lambda said: json.dumps(said).encode()))
def test_any_bytes_in_place_of_an_index(store: Path, content: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(content)
    path = next(store.glob("*/index.json"))
    with replaced(path, content):
        assert [damage.file for damage in GridStore(store).verify()] == [path]
        repr(GridStore(store).info())


FIELDS = ("key", "name", "of", "field", "shape", "pieces", "unreadable", "kind", "format", "file")


@fuzzed
@given(
    field=st.sampled_from(FIELDS),
    value=JSON | st.lists(st.integers(-1, 99)) | st.lists(st.tuples(st.integers(), st.integers(), st.text())),
)
def test_any_value_in_an_index_whose_checksum_is_right(store: Path, field: str, value: object) -> None:
    path = next(store.glob("*/index.json"))
    said = {name: content for name, content in json.loads(path.read_bytes()).items() if name != "sha256"}
    same = json.dumps(said.get(field, ...), default=str) == json.dumps(value)
    said[field] = value
    with replaced(path, json.dumps({"sha256": digest(json.dumps(said).encode()), **said}).encode() + b"\n"):
        found = GridStore(store).verify()
        assert same or found or field in ("of", "unreadable")  # neither shapes a number
        repr(GridStore(store).info())
        with contextlib.suppress(ValueError):
            extract(backbones(), pictures(), store=store, batch_size=BATCH, progress=False)


def journal_lines(lines: list[list[object]]) -> bytes:
    """Lines of a journal that say anything; their checksums are right."""
    return b"".join(json.dumps([digest(json.dumps(said).encode()), *said]).encode() + b"\n" for said in lines)


ROW = st.integers(-1, 140)
NOTED = st.tuples(ROW, ROW, st.text(max_size=5), st.lists(ROW, max_size=3)).map(list)


@settings(fuzzed, max_examples=fuzzed.max_examples // 5)
@given(journal=st.binary(max_size=200) | st.lists(st.lists(JSON) | NOTED, max_size=4).map(journal_lines))
def test_any_journal_of_an_unfinished_run(store: Path, tmp_path: Path, journal: bytes) -> None:
    """Also one that begins well, and one whose checksums are right."""
    whole = next(store.glob("lite-*"))
    start = json.loads((whole / "index.json").read_bytes())
    del start["sha256"]
    start["pieces"] = []
    first = HEAD + json.dumps({"sha256": digest(json.dumps(start).encode()), **start}).encode() + b"\n"
    for content in (journal, first + journal):
        part = tmp_path / f"{whole.name}.part"
        part.mkdir()
        (part / "journal").write_bytes(content)
        (part / "features.safetensors").write_bytes(journal)
        extract(backbones()[:1], pictures(), store=tmp_path, batch_size=BATCH, progress=False)
        finished = tmp_path / whole.name
        for name in os.listdir(whole):
            assert (finished / name).read_bytes() == (whole / name).read_bytes()
            (finished / name).unlink()
        finished.rmdir()


def test_the_fuzzing_starts_from_what_is_read(tmp_path: Path) -> None:
    about = {"meaning": MEANING, "config": CONFIG}
    assert torch.equal(
        load(write_tensors(tmp_path / "a", MODEL.state_dict(), kind="model", about=about))(GRIDS).logits,
        load(save(MODEL, tmp_path / "b"))(GRIDS).logits,
    )
    assert safetensors.torch.load_file(tmp_path / "a").keys() == MODEL.state_dict().keys()
