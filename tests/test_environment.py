"""The environment table agrees with what the project declares, and says how to mend what is wrong."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from walkthrough.record import ROOT

from grafeat import environment
from grafeat.environment import Environment, Need, check_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [*map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["vit"]])]


def test_names_python_and_every_declared_package_once() -> None:
    found = check_environment().needs
    assert [need.package for need in found] == ["python", *(r.name for r in DECLARED)]
    assert found[0].bounds == PROJECT["requires-python"]
    assert [Requirement(f"x{need.bounds}").specifier for need in found[1:]] == [r.specifier for r in DECLARED]


def test_every_package_has_a_purpose_and_no_purpose_is_left_over() -> None:
    assert set(environment.PURPOSES) == {"python", *(r.name for r in DECLARED)}


def test_what_runs_these_tests_is_ready() -> None:
    found = check_environment()
    assert found.ok, found
    assert {need.package: need.version for need in found.needs[1:]} == {
        r.name: metadata.version(r.name) for r in DECLARED
    }
    assert repr(found).splitlines()[-1] == "Ready: everything that is needed is here."
    assert len(repr(found).splitlines()) == len(DECLARED) + 2


@pytest.mark.parametrize("version", ["1.9.9", "2.6", "2.6.0", "2.10.1+cu126", "3", "3.0.0", "3.0.1rc1", "2.5.9", "11"])
def test_bounds_mean_what_packaging_says(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(environment, "_installed", lambda package: version)
    torch = next(need for need in check_environment().needs if need.package == "torch")
    fits = Requirement("torch>=2.6,<3").specifier.contains(Version(version).public, prereleases=True)
    assert torch.bounds == ">=2.6,<3"
    assert (torch.state == "ok") == fits
    assert torch.state == ("ok" if fits else "too old" if Version(version) < Version("2.6") else "too new")


def test_a_missing_package_comes_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment._installed
    monkeypatch.setattr(environment, "_installed", lambda name: None if name in ("mlxtend", "onnx") else here(name))
    found = check_environment()
    assert not found.ok
    assert [need.package for need in found.wrong] == ["mlxtend"]
    lacks = found.wrong[0]
    assert (lacks.version, lacks.state) == (None, "missing")
    assert lacks.remark == f'pip install "mlxtend{lacks.bounds}", then restart the kernel'
    assert "Not ready: fix mlxtend." in repr(found)
    onnx = next(need for need in found.needs if need.package == "onnx")
    assert onnx.state == "optional"
    assert f'pip install "onnx{onnx.bounds}"' in onnx.remark


def test_an_old_python_is_said_to_be_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.platform, "python_version", lambda: "3.10.14")
    found = check_environment()
    assert [need.package for need in found.wrong] == ["python"]
    assert "install Python >=3.11" in found.wrong[0].remark


def test_without_its_repository_the_installed_record_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "grafeat-7.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: grafeat\nVersion: 7.0\nRequires-Python: >=3.2\nRequires-Dist: numpy<9,>=1.5\n"
        "Requires-Dist: nowhere<2,>=1; extra == 'vit'\nRequires-Dist: ruff<1; extra == 'test'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "grafeat" / "environment.py"))
    assert check_environment().needs == (
        Need("python", ">=3.2", environment.platform.python_version(), "ok"),
        Need("numpy", "<9,>=1.5", metadata.version("numpy"), "ok"),
        Need("nowhere", "<2,>=1", None, "optional"),
    )


def test_it_answers_where_nothing_is_installed() -> None:
    alone = "import sys; sys.path.insert(0, 'grafeat'); import environment; print(environment.check_environment())"
    done = subprocess.run([sys.executable, "-S", "-I", "-c", alone], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout
    assert "Not ready: fix torch, " in done.stdout


def test_html_escapes_and_shows_what_is_wrong_in_bold() -> None:
    table = Environment((Need("torch", ">=2,<3", "1.0", "too old"), Need("numpy", ">=2", "2.1", "ok")))._repr_html_()
    _, wrong, right, _ = table.split("</tr>")
    assert "font-weight:bold" in wrong and "✕ too old" in wrong
    assert "pip install &quot;torch&gt;=2,&lt;3&quot;" in wrong
    assert "font-weight:bold" not in right and "✓ ok" in right
    assert table.startswith("<details open><summary>Not ready: fix torch.")


def test_a_table_of_good_news_is_folded() -> None:
    table = Environment((Need("numpy", ">=2", "2.1", "ok"),))._repr_html_()
    assert table.startswith("<details><summary>Ready: everything that is needed is here.</summary><table>")
