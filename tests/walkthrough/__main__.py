"""The command behind `make walkthrough`: python tests/walkthrough [--out FOLDER] [NOTEBOOK …]."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Executes the notebooks and tells how it went; 0 if every one ran."""
    from walkthrough.record import ROOT, find_notebooks
    from walkthrough.run import Walkthrough
    from walkthrough.terminal import Progress

    parser = argparse.ArgumentParser("walkthrough", description="Executes notebooks, writes pages.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="which ones (default: all, in order)")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="where to (default: build)")
    options = parser.parse_args()
    walk = Walkthrough(options.notebooks or find_notebooks(), out=options.out)
    progress = Progress(sys.stdout)
    for notebook in walk.notebooks:
        progress.show(walk.run(notebook, on_cell=progress.cell))
    return progress.close(walk)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # Python put this folder there; the package lies one above
    sys.exit(main())
