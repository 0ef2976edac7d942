"""What the project needs is declared once, bounded, named alike for pip and conda, and installed by make."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from walkthrough.record import ROOT

import grafeat

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [*map(Requirement, lines)] for name, lines in PROJECT["optional-dependencies"].items()}
ALL = [*CORE, *(requirement for extra in EXTRAS.values() for requirement in extra)]


def named(requirements: list[Requirement]) -> dict[str, str]:
    return {canonicalize_name(r.name): f"{r.specifier}; {r.marker}" for r in requirements}


def test_conda_and_pip_name_the_same_things() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python, pip, through_pip = conda
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    assert through_pip["pip"][-1] == "-e ."
    assert named([Requirement(line) for line in through_pip["pip"][:-1]]) == named(ALL)


@pytest.mark.parametrize("requirement", ALL, ids=lambda r: r.name)
def test_each_dependency_is_bounded_installed_and_explained(requirement: Requirement) -> None:
    assert sorted(part.operator for part in requirement.specifier) == ["<", ">="]
    if requirement.marker is None or requirement.marker.evaluate():
        assert metadata.version(requirement.name) in requirement.specifier
    assert re.search(rf'"{requirement.name}[^"]*",  # \w', (ROOT / "pyproject.toml").read_text())


def test_no_dependency_is_named_twice() -> None:
    assert len(named(ALL)) == len(ALL)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"grafeat"}


@pytest.mark.parametrize("path", sorted((ROOT / "grafeat").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_imports_only_what_it_declares(path: Path) -> None:
    owners = metadata.packages_distributions()
    declared = set(named([*CORE, *EXTRAS["vit"]]))
    undeclared = {
        name for name in imported(path) if not declared & {canonicalize_name(d) for d in owners.get(name, ())}
    }
    assert undeclared == set()


def test_the_version_is_in_one_place() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert str(Version(grafeat.__version__)) == grafeat.__version__


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder, with a space in its path, in which make would find a finished environment."""
    folder = tmp_path / "a fresh clone"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("bin/python", ".lab", ".test"):
        (folder / ".venv" / name).touch()
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("target", ["lab", "walkthrough", "test"])
def test_make_installs_again_only_when_pyproject_changes(clone: Path, target: str) -> None:
    def installs() -> bool:
        return "pip install" in make(clone, "-n", target).stdout

    assert not installs()
    (clone / ".venv" / (".test" if target == "test" else ".lab")).unlink()
    assert installs()


def test_make_sees_that_pyproject_changed(clone: Path) -> None:
    later = (clone / ".venv" / ".test").stat().st_mtime + 5
    os.utime(clone / "pyproject.toml", (later, later))
    assert "pip install" in make(clone, "-n", "lab").stdout
    assert '--editable ".[test,vit]"' in make(clone, "-n", "test").stdout


def test_make_refuses_an_old_python(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    old = clone.parent / "python3.10"
    old.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec "{sys.executable}" -c "'
                   'import sys; sys.version_info = (3, 10); exec(sys.argv[1])" "$2"\nexit 9\n')  # fmt: skip
    old.chmod(0o755)
    done = make(clone, "lab", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (clone / ".venv").exists()


def test_make_alone_lists_the_commands(clone: Path) -> None:
    done = make(clone)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("make ")] == [
        "lab",
        "walkthrough",
        "test",
        "faults",
        "results",
        "stamps",
        "fashion",
        "mnist",
        "clean",
    ]
