"""The explorer's script: modules that import one another, joined into the one that notebooks and pages load."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "script"
MAIN = FOLDER / "main.js"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


def joined(main: Path = MAIN) -> str:
    """One module with all that `main` imports, itself last; it alone still exports.

    All names at the top of the modules then share one scope, so each must be there once.
    """
    parts = [IMPORT.sub("", path.read_text(encoding="utf-8")) for path in ordered(main)]
    return "\n".join([*(EXPORT.sub("", part) for part in parts[:-1]), parts[-1]])


def ordered(path: Path, before: tuple[Path, ...] = ()) -> list[Path]:
    """A module and all it imports, directly or not, each once and after those that it imports.

    Raises:
        ValueError: If modules import one another in a circle.
    """
    if path in before:
        circle = " → ".join(one.name for one in (*before[before.index(path) :], path))
        raise ValueError(f"path: {circle} is a circle; expected none; move what both need into a third module")
    names = IMPORT.findall(path.read_text(encoding="utf-8"))
    needed = [one for name in names for one in ordered(path.parent / name, (*before, path))]
    return [*dict.fromkeys(needed), path]
