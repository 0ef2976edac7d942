"""The command behind `make walkthrough`: python tests/walkthrough [--out build] [notebooks/NN_title.ipynb …]."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the folder above holds this package; Python put the package itself

from walkthrough.record import ROOT, find_notebooks
from walkthrough.run import Walkthrough
from walkthrough.terminal import Progress


def main() -> int:
    parser = argparse.ArgumentParser(prog="walkthrough", description="Executes notebooks and writes them as pages.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="which ones (default: all, in order)")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder for the pages (default: build)")
    options = parser.parse_args()
    walk = Walkthrough(options.notebooks or find_notebooks(), out=options.out)
    progress = Progress(sys.stdout)
    for notebook in walk.notebooks:
        progress.show(walk.run(notebook, on_cell=progress.cell))
    return progress.close(walk)


if __name__ == "__main__":
    sys.exit(main())
