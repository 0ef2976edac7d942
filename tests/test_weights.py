"""Files of weights in caches laid out as their owners lay them out; nothing but weights is ever unpickled."""

import hashlib
import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import EntryNotFoundError

from grafeat.backbones.weights import check_file, hub_weights, no_pickle, url_weights

CONTENT = b"some weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


def put_in_hub(folder: Path, repository: str, file: str, content: bytes, revision: str = "main") -> Path:
    """A file in the cache of Hugging Face's client: a link, named by its revision, to a blob, named by its content."""
    home = folder / "hf" / f"models--{repository.replace('/', '--')}"
    blob, link = home / "blobs" / hashlib.sha256(content).hexdigest(), home / "snapshots" / ("c" * 40) / file
    for path in (blob, link, home / "refs" / revision):
        path.parent.mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text("c" * 40)
    blob.write_bytes(content)
    link.symlink_to(blob)
    return link


def test_a_repository_of_the_hub(hub: Path) -> None:
    weights = hub_weights("s", "MIT", "owner/name", None)
    assert weights.find() is None and weights.place == str(hub / "hf")
    binary = put_in_hub(hub, "owner/name", "pytorch_model.bin", b"older")
    assert weights.find() == binary
    tensors = put_in_hub(hub, "owner/name", "model.safetensors", CONTENT)
    assert weights.find() == tensors
    assert hub_weights("s", "MIT", "owner/name@v2", None).find() is None
    assert hub_weights("s", "MIT", "owner/name", "other.bin").find() is None


def test_what_is_asked_of_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str, revision: str | None) -> None:
        asked.append((repository, file, revision))
        if file.endswith("safetensors"):
            raise EntryNotFoundError(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    hub_weights("s", "MIT", "owner/name@v2", None).fetch()
    assert asked == [("owner/name", file, "v2") for file in ("model.safetensors", "pytorch_model.bin")]
    with pytest.raises(EntryNotFoundError):
        hub_weights("s", "MIT", "owner/name", "model.safetensors").fetch()


def test_a_url_is_downloaded_and_checked(hub: Path) -> None:
    origin = hub / f"net-{DIGEST[:8]}.pth"
    origin.write_bytes(CONTENT)
    weights = url_weights("s", "MIT", origin.as_uri(), 5.5)  # torch's own download, from this disk
    assert weights.find() is None and weights.place == str(hub / "torch" / "checkpoints")
    weights.fetch()
    assert weights.find() == hub / "torch" / "checkpoints" / origin.name
    assert weights.find().read_bytes() == CONTENT
    check_file(weights.find())


def test_a_damaged_download_is_not_kept(hub: Path) -> None:
    origin = hub / "net-00000000.pth"
    origin.write_bytes(CONTENT)
    weights = url_weights("s", "MIT", origin.as_uri())
    with pytest.raises(RuntimeError, match="invalid hash value"):
        weights.fetch()
    assert weights.find() is None


def test_content_against_names(hub: Path) -> None:
    check_file(put_in_hub(hub, "owner/name", "model.safetensors", CONTENT))
    nameless = hub / "model.pth"
    nameless.write_bytes(b"promises nothing")
    check_file(nameless)
    damaged = put_in_hub(hub, "owner/other", "model.safetensors", b"whole")
    damaged.resolve().write_bytes(b"who")
    broken = hub / "net-deadbeef.pth"
    broken.write_bytes(CONTENT)
    for path in (damaged, broken):
        with pytest.raises(
            ValueError, match=rf"model: the file {path} has the SHA-256 .*expected .*; delete it"
        ):
            check_file(path)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_is_refused_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with no_pickle(), pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # so the file would have done it
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("before", [None, "0"])
def test_the_guard_leaves_no_trace(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(switch, raising=False)
    if before is not None:
        monkeypatch.setenv(switch, before)
    with pytest.raises(KeyError), no_pickle():
        raise KeyError
    assert os.environ.get(switch) == before
