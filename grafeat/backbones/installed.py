"""Whose code it is: that of installed packages goes by its name, that of a user by what it says."""

import functools
import sys
import sysconfig
from pathlib import Path
from types import FunctionType

FOLDERS = {"site-packages", "dist-packages"}
HEAP_TYPE = 1 << 9  # Python's flag of a class that was made at run time, as all are but those written in C


@functools.cache
def installed(module: str | None) -> bool:
    """Whether a module is grafeat's, Python's own or an installed package's."""
    if not module or module == "__main__":
        return False
    package = module.split(".")[0]
    if package == "grafeat" or package in sys.builtin_module_names:
        return True
    files = (getattr(sys.modules.get(name), "__file__", None) for name in (module, package))
    paths = [Path(file) for file in files if file is not None]
    standard = sysconfig.get_path("stdlib")
    return any(path.is_relative_to(standard) or FOLDERS.intersection(path.parts) for path in paths)


def is_named(thing: object) -> bool:
    """Whether an installed package has a class or function under its own name."""
    home, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(home, str) or not isinstance(name, str) or not installed(home):
        return False
    if isinstance(thing, type) and not thing.__flags__ & HEAP_TYPE:
        return True
    found: object = sys.modules.get(home)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is thing


def is_patch(member: object) -> bool:
    """Whether a member of a class is a function that a user's module defines."""
    home = member.__module__ if isinstance(member, FunctionType) else None
    return home in sys.modules and not installed(home)
