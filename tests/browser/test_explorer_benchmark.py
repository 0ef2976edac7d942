"""The benchmark of exported explorers goes with today's page: it is run on a small one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from .page import MISSING, find_browser

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(find_browser() is None, reason=MISSING)
def test_a_small_page_is_measured_and_its_weights_are_those_in_python(tmp_path: Path) -> None:
    path = tmp_path / "explorer.csv"
    asked = ["tests/benchmarks/explorer.py", "--sides", "3", "--without-bertviz", "--write", str(path)]
    done = subprocess.run([sys.executable, *asked], cwd=ROOT, capture_output=True, timeout=300, text=True)
    assert done.returncode == 0, done.stderr
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["patches"] == "18"
    times = [float(row[f"{what} ms"]) for what in ("first paint", "hover", "navigator", "layer switch")]
    assert all(0 < time < 60_000 for time in times)
    assert 0 < float(row["written s"]) < 300
    assert float(row["largest error"]) < 1 / 255
