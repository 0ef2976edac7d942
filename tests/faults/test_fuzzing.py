"""Inputs that are led by which lines of a loader have run find what drawn ones do not: `fuzz.py` in its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.conftest import HARDER

FUZZ = Path(__file__).with_name("fuzz.py")
RUNS = {"journal": 2000, "index": 10_000, "model": 1000, "configuration": 1000, "trained": 4000}
RUNS |= {"checkpoint": 500, "run": 500, "picture": 10_000}
BRIEF = 400  # runs of each


@pytest.mark.parametrize("loaders", RUNS if HARDER > 1 else [",".join(RUNS)])
def test_a_loader_ends_with_no_error_but_those_it_names(loaders: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is none for this system")
    root, runs = FUZZ.parents[2], RUNS.get(loaders, 0) * HARDER or BRIEF
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(FUZZ), loaders, str(tmp_path), f"-runs={runs}", "-seed=1", "-timeout=60"],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stderr.count(f"Done {runs} runs") == len(loaders.split(","))
