"""Cut-outs are read with their opacity, drawings left out; where they are not there, it says how to get them."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from walkthrough.record import ROOT

from grafeat.planted import CutOuts, load_cutouts
from grafeat.planted.cutouts import CATEGORIES, FETCHED, INSTALLED

FOLDERS = [folder for folders in CATEGORIES.values() for folder in folders]


def write(path: Path, *, size: tuple[int, int] = (43, 47), opacity: int = 255, mode: str = "RGBA") -> None:
    """A picture of one colour, its left column transparent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 4), (10, 20, 30, opacity), np.uint8)
    pixels[:, 0, 3] = 0
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """One stamp in each folder, and what is to be left out."""
    for folder in FOLDERS:
        write(tmp_path / folder / "one.png")
    birds = tmp_path / "animals/birds"
    write(birds / "inside" / "grey.png", mode="LA")
    write(birds / "cartoon" / "drawn.png")
    write(birds / "one_mirror.png")
    write(birds / "small.png", size=(39, 31))
    write(birds / "ghost.png", opacity=100)
    write(tmp_path / "animals/mammals/hedgehog.png")
    (birds / "one.txt").write_text("A bird.")
    return tmp_path


def test_photographs_are_read_by_category_and_the_rest_is_left_out(stamps: Path) -> None:
    found = load_cutouts(stamps)
    assert found.classes == ("bird", "flower", "food", "mammal", "thing")
    assert list(zip(found.names, found.labels, strict=True)) == [
        ("grey", 0),
        ("one", 0),
        ("one", 1),
        *[("one", 2)] * 3,
        ("one", 3),
        *[("one", 4)] * 2,
    ]
    assert repr(found) == "CutOuts: 2 of 'bird', 1 of 'flower', 3 of 'food', 1 of 'mammal', 2 of 'thing'"


def test_colours_and_opacity_are_those_of_the_file(stamps: Path) -> None:
    picture = load_cutouts(str(stamps)).pictures[1]
    assert picture.shape == (4, 43, 47) and picture.dtype == torch.uint8
    assert picture[:, 11, 13].tolist() == [10, 20, 30, 255]
    assert not picture[3, :, 0].any()


def test_what_is_not_there_comes_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    (tmp_path / "animals/birds").mkdir(parents=True)
    expected = r"root: no stamps in .*; expected the folders animals/birds, .*; fetch them with `make stamps`"
    with pytest.raises(FileNotFoundError, match=expected):
        load_cutouts(tmp_path)


def opaque(*size: int) -> torch.Tensor:
    return torch.full((4, *size), 255, dtype=torch.uint8)


def test_cutouts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="pictures, labels, names: got 1, 2 and 1; expected one of each"):
        CutOuts((opaque(3, 5),), (0, 0), ("a",), ("x",))
    with pytest.raises(ValueError, match=r"got 0, 0 and 0; .* one cut-out or more"):
        CutOuts((), (), ("a",), ())
    with pytest.raises(ValueError, match="labels: got 1 to 1; expected 0 to 0, as there are 1 classes"):
        CutOuts((opaque(3, 5),), (1,), ("a",), ("x",))
    with pytest.raises(ValueError, match=r"pictures: 'x' has shape \(4, 3, 5\); expected .* opacity of 128"):
        CutOuts((opaque(3, 5) // 3,), (0,), ("a",), ("x",))


@pytest.mark.usefixtures("unchecked")
def test_pictures_without_opacity_are_named() -> None:
    with pytest.raises(ValueError, match=r"pictures: 'x' has shape \(3, 3, 5\); expected \(4, h, w\)"):
        CutOuts((opaque(3, 5)[:3],), (0,), ("a",), ("x",))


@pytest.mark.skipif(
    not any((place / "animals").is_dir() for place in (INSTALLED, FETCHED)), reason="no stamps: make stamps"
)
def test_the_stamps_have_enough_of_every_class() -> None:
    found = load_cutouts()
    assert torch.tensor(found.labels).bincount().min() >= 20
    assert len(set(found.names)) > 200
    assert not {"hedgehog", "glass", "edward_bear"} & set(found.names)


APT = """#!/bin/sh
case "$1" in download) echo packed > "$2_1.0_all.deb";; *) exit 1;; esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/share/tuxpaint/stamps/animals" "$3/usr/share/doc/tuxpaint-stamps-default"
cp "$2" "$3/usr/share/tuxpaint/stamps/animals/one.png"
echo noise > "$3/usr/share/tuxpaint/stamps/animals/one.ogg"
echo GPL-2 > "$3/usr/share/doc/tuxpaint-stamps-default/copyright"
"""


def make_stamps(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """`make stamps` in a folder with a space in its path, where no other programs are than these and the plainest."""
    where, tools = folder / "a checkout", folder / "tools"
    where.mkdir(exist_ok=True)
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir()
    shutil.copy(ROOT / "Makefile", where)
    for name in ("sh", "id", "make", "mkdir", "rm", "mv", "cp", "find", "touch"):
        (tools / name).symlink_to(str(shutil.which(name)))
    for name, script in programs.items():
        (tools / name.replace("_", "-")).write_text(script)
        (tools / name.replace("_", "-")).chmod(0o755)
    environment = os.environ | {"PATH": str(tools)}
    return subprocess.run(["make", "stamps"], cwd=where, env=environment, capture_output=True, text=True)


def test_make_stamps_unpacks_pictures_with_their_licence_once(tmp_path: Path) -> None:
    run = make_stamps(tmp_path, apt_get=APT, dpkg=DPKG)
    assert run.returncode == 0, run.stderr
    stamps = tmp_path / "a checkout" / "build" / "stamps"
    assert sorted(path.name for path in stamps.rglob("*")) == ["animals", "copyright", "one.png"]
    assert (stamps / "copyright").read_text() == "GPL-2\n"
    assert [path.name for path in stamps.parent.iterdir()] == ["stamps"]
    assert "Nothing to be done" in make_stamps(tmp_path, apt_get="#!/bin/sh\nexit 1", dpkg=DPKG).stdout


def test_make_stamps_says_what_it_lacks_and_leaves_nothing(tmp_path: Path) -> None:
    run = make_stamps(tmp_path)
    assert run.returncode and "make stamps needs apt-get and dpkg" in run.stderr
    run = make_stamps(tmp_path, apt_get="#!/bin/sh\nexit 100", dpkg=DPKG)
    assert run.returncode and "apt-get does not find tuxpaint-stamps-default" in run.stderr
    assert not list((tmp_path / "a checkout" / "build").iterdir())
