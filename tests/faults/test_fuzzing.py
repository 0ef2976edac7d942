"""Inputs that are led by which lines of a loader have run find what drawn ones do not: `fuzz.py` in its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.conftest import HARDER

FUZZ = Path(__file__).with_name("fuzz.py")
LOADERS = ("journal", "index", "model", "configuration", "checkpoint", "run", "trained")
RUNS = {"journal": 2000, "index": 10_000, "model": 1000, "configuration": 1000, "trained": 4000}
RUNS |= {"checkpoint": 500, "run": 500}


@pytest.mark.parametrize("loader", LOADERS if HARDER > 1 else LOADERS[:1])
def test_a_loader_ends_with_no_error_but_those_it_names(loader: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is none for this system")
    root = FUZZ.parents[2]
    options = [f"-runs={RUNS[loader] * HARDER}", "-seed=1", "-timeout=60"]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(FUZZ), loader, str(tmp_path / loader), *options],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert f"Done {RUNS[loader] * HARDER} runs" in ended.stderr
