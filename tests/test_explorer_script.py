"""The script's modules are modules, for node and editors, and join into one that shares a scope."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from grafeat.explorer.script import EXPORT, FOLDER, MAIN, joined, ordered

MODULES = sorted(FOLDER.glob("*.js"))
DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|class|const) (\w+|\[[^\]]*\])", re.MULTILINE)
NODE = shutil.which("node")


def declared(text: str) -> list[str]:
    return [name for names in DECLARED.findall(text) for name in re.findall(r"\w+", names)]


def checked(script: str) -> str:
    return subprocess.run(
        [str(NODE), "--input-type=module", "--check"], input=script, capture_output=True, text=True
    ).stderr


def test_all_modules_are_in_the_whole() -> None:
    assert sorted(ordered(MAIN)) == MODULES
    assert ordered(MAIN)[-1] == MAIN


def test_the_whole_fetches_nothing_and_exports_what_its_readers_need() -> None:
    whole = joined()
    assert not re.search(r"^import ", whole, re.MULTILINE)
    assert re.findall(r"^export (?:default|function \w+)", whole, re.MULTILINE) == [
        "export default",
        "export function openPage",
    ]
    names = declared(whole)
    assert len(set(names)) == len(names)  # one scope


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_imports_what_is_exported(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for names, source in re.findall(r'^import \{ ([^}]*) \} from "\./(\w+\.js)";$', text, re.MULTILINE):
        other = (path.parent / source).read_text(encoding="utf-8")
        offered = declared("\n".join(line for line in other.splitlines() if EXPORT.match(line)))
        for name in names.split(", "):
            assert name in offered, f"{source} does not export {name}"
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used"


@pytest.mark.skipif(NODE is None, reason="no node here")
@pytest.mark.parametrize("path", [*MODULES, None], ids=lambda path: path.name if path else "whole")
def test_node_reads_it(path: Path | None) -> None:
    assert checked(path.read_text(encoding="utf-8") if path else joined()) == ""


def test_modules_come_after_what_they_import(tmp_path: Path) -> None:
    files = {"a": 'import { b } from "./b.js";\nimport { c } from "./c.js";\nexport const a = b + c;\n',
             "b": 'import { c } from "./c.js";\nexport const b = c;\n', "c": "export const c = 2;\n"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name}.js").write_text(text)
    assert joined(tmp_path / "a.js") == "const c = 2;\n\nconst b = c;\n\nexport const a = b + c;\n"


def test_a_circle_is_refused(tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        (tmp_path / f"{name}.js").write_text(f'import {{ {other} }} from "./{other}.js";\n')
    with pytest.raises(ValueError, match=r"path: a.js → b.js → a.js is a circle"):
        ordered(tmp_path / "a.js")
