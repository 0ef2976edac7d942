"""The runner of the notebooks, on small notebooks of its own and in real kernels."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from walkthrough import run as runner
from walkthrough.fetches import fetched_parts
from walkthrough.record import ROOT, describe
from walkthrough.run import Walkthrough, execute

# 192.0.2.0/24 and 2001:db8::/32 are set aside for examples: nothing is there.
KNOCKS = """
import asyncio, json, socket, threading, urllib.request, _socket

def knock(attempt):
    try:
        return f"came through: {attempt()!r}"
    except OSError as error:
        return str(error)

udp = socket.socket(type=socket.SOCK_DGRAM)
knocks = {
    "connect": lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    "connect_ex": lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    "below socket": lambda: _socket.socket().connect(("192.0.2.1", 80)),
    "IPv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    "UDP": lambda: udp.sendto(b"x", ("192.0.2.1", 53)),
    "name": lambda: socket.gethostbyname("example.org"),
    "urllib": lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=1),
    "asyncio": lambda: asyncio.new_event_loop().run_until_complete(asyncio.open_connection("192.0.2.1", 80)),
    "all interfaces": lambda: socket.socket().bind(("0.0.0.0", 0)),
}
answers = {}
for name, attempt in knocks.items():
    thread = threading.Thread(target=lambda: answers.update({name: knock(attempt)}))
    thread.start(); thread.join()
print(json.dumps(answers))
"""
AT_HOME = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
left, right = socket.socketpair()
left.send(b"hello")
print(client.getpeername()[0], right.recv(5).decode())
"""


def write(folder: Path, name: str, *cells: str) -> Path:
    """A notebook: the first cell is Markdown, and so is each that starts with #."""
    kinds = [new_markdown_cell(cell) if cell.startswith("#") else new_code_cell(cell) for cell in cells]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=kinds), path)
    return path


def executed(tmp_path: Path, *cells: str) -> tuple[nbformat.NotebookNode, runner.Failure | None]:
    notebook = nbformat.read(write(tmp_path, "00_one", *cells), as_version=4)
    return notebook, execute(notebook, tmp_path, lambda at: None)


def page_of(tmp_path: Path, *cells: str) -> str:
    path = write(tmp_path, "00_one", "# A page?", *cells)
    walk = Walkthrough([path], out=tmp_path / "build")
    assert walk.run(path).failure is None
    return (tmp_path / "build" / "00_one.html").read_text(encoding="utf-8")


def command(tmp_path: Path, *notebooks: Path) -> subprocess.CompletedProcess[str]:
    walkthrough = [sys.executable, ROOT / "tests" / "walkthrough", "--out", tmp_path / "build"]
    return subprocess.run([*walkthrough, *notebooks], capture_output=True, text=True, timeout=300)


def text_of(page: str) -> str:
    return " ".join(BeautifulSoup(page, "html.parser").body.get_text(" ").split())


def test_network_is_closed_in_a_real_kernel_and_loopback_is_open(tmp_path: Path) -> None:
    notebook, failure = executed(tmp_path, KNOCKS, AT_HOME)
    assert failure is None
    answers = json.loads(notebook.cells[0].outputs[0].text)
    assert len(answers) == 9
    assert [name for name, answer in answers.items() if "network closed" not in answer] == []
    assert notebook.cells[1].outputs[0].text == "127.0.0.1 hello\n"


def test_kernel_imports_the_package_beside_the_notebooks_and_draws_inline(tmp_path: Path) -> None:
    notebook, _ = executed(
        tmp_path,
        "import importlib.util; print(importlib.util.find_spec('grafeat').origin)",
        "import matplotlib.pyplot as plt\nplt.plot([2, 3, 5]);",
    )
    assert notebook.cells[0].outputs[0].text.strip() == str(ROOT / "grafeat" / "__init__.py")
    assert "image/png" in notebook.cells[1].outputs[0].data


def test_each_notebook_has_a_fresh_kernel(tmp_path: Path) -> None:
    executed(tmp_path, "left_behind = 7")
    notebook, _ = executed(tmp_path, "print('left_behind' in globals())")
    assert notebook.cells[0].outputs[0].text == "False\n"


def test_failing_notebook_is_reported_and_its_page_kept(tmp_path: Path) -> None:
    cells = ("print('so far')", "size = 5\n{}['tap']", "print('never')")
    first, second = write(tmp_path, "00_first", "# Why?", *cells), write(tmp_path, "01_second", "'fine'")
    done = command(tmp_path, first, second)

    assert done.returncode == 1, done.stderr
    assert "FAILED at cell 3" in done.stdout
    assert "    size = 5\n    {}['tap']" in done.stdout
    assert "KeyError: 'tap'" in done.stdout
    assert "2 notebooks, 1 failed" in done.stdout
    page = text_of((tmp_path / "build" / "00_first.html").read_text())
    assert "Stopped at cell 3 . KeyError: 'tap'" in page
    assert "so far" in page
    assert "Traceback" in page
    index = text_of((tmp_path / "build" / "index.html").read_text())
    assert "1 stopped." in index
    assert "KeyError: 'tap'" in index
    assert "fine" in (tmp_path / "build" / "01_second.html").read_text()


def test_command_succeeds_when_every_notebook_does(tmp_path: Path) -> None:
    done = command(tmp_path, write(tmp_path, "00_first", "# Why?", "6 * 7"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "42" in (tmp_path / "build" / "00_first.html").read_text()


def test_hanging_cell_and_dying_kernel_are_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, died = executed(tmp_path, "1", "import os; os._exit(3)")
    assert died is not None
    assert died.cell == 2
    assert died.reason.startswith("DeadKernelError")

    monkeypatch.setattr(runner, "CELL_SECONDS", 1)
    notebook, hung = executed(tmp_path, "1", "import time; time.sleep(60)", "2")
    assert hung is not None
    assert hung.cell == 2
    assert hung.reason.startswith("CellTimeoutError")
    assert notebook.cells[1].outputs[-1].output_type == "error"


WIDGETS = """
from ipywidgets import IntSlider, VBox, interactive_output

slider = IntSlider(3, 0, 6)
shown = interactive_output(lambda x: print(x), {"x": slider})
slider.value = 5
VBox([slider, shown])
"""


def test_what_widgets_say_does_not_hide_the_kernels_answers(tmp_path: Path) -> None:
    """In a process of its own: with nbclient's client it may wait for ever, in spite of the cell's time limit."""
    done = command(tmp_path, write(tmp_path, "00_first", "# Why?", *[WIDGETS] * 40))
    assert (done.returncode, done.stderr) == (0, "")


SLOW = """
import time
from ipywidgets import Widget

handle = Widget._handle_msg
Widget._handle_msg = lambda widget, message: (time.sleep(0.5), handle(widget, message))
"""


def test_kernel_is_not_stopped_before_it_has_heard_what_widgets_say(tmp_path: Path) -> None:
    done = command(tmp_path, write(tmp_path, "00_first", "# Why?", SLOW, WIDGETS, WIDGETS))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_that_a_cell_announces_is_no_failure(tmp_path: Path) -> None:
    path = write(tmp_path, "00_one", "# Why?", "1 / 0")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    assert execute(notebook, tmp_path, lambda at: None) is None
    assert notebook.cells[1].outputs[0].ename == "ZeroDivisionError"


def test_index_is_true_after_each_notebook(tmp_path: Path) -> None:
    first = write(tmp_path, "00_start_here", "# 00 · Where to start?\n\n**Downloads** none · 1 minute", "1")
    second = write(tmp_path, "01_patch_graph", "# Which patch is where?", "2")
    walk = Walkthrough([first, second], out=tmp_path / "build")
    walk.run(first)
    index = text_of((tmp_path / "build" / "index.html").read_text())
    assert "1 of 2 notebooks executed" in index
    assert "00 Where to start? Start here · downloads: none" in index
    assert "01 Which patch is where? Patch graph – waiting" in index
    walk.run(second)
    index = (tmp_path / "build" / "index.html").read_text()
    assert "waiting" not in text_of(index)
    assert [link["href"] for link in BeautifulSoup(index, "html.parser").find_all("a")] == [
        "00_start_here.html",
        "01_patch_graph.html",
    ]
    assert fetched_parts(index) == []


@pytest.mark.parametrize(
    ("cell", "question", "downloads"),
    [
        ("# What is a patch?\n\nDownloads: none.", "What is a patch?", "none"),
        ("text\n# 03 What now?\n**Downloads:** 98 MB, once", "What now?", "98 MB, once"),
        ("no heading", "05_name", ""),
    ],
)
def test_a_notebook_describes_itself(tmp_path: Path, cell: str, question: str, downloads: str) -> None:
    path = tmp_path / "05_name.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell(cell)]), path)
    about = describe(path)
    assert (about.question, about.downloads) == (question, downloads)


def test_widgets_are_frozen_with_what_they_drew(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        "import ipywidgets as w\nimport matplotlib.pyplot as plt\n"
        "def draw(temperature=0.7, head='mean', log=True):\n"
        "    plt.plot([temperature, 2]); plt.show(); print('drawn at', temperature)\n"
        "w.interact(draw, temperature=(0.1, 3.0, 0.1), head=['mean', 'first']);",
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(11), desc='kept'): pass\n"
        "for _ in tqdm(range(13), desc='gone', leave=False): pass",
    )
    soup, text = BeautifulSoup(page, "html.parser"), text_of(page)
    slider = soup.find("input", type="range")
    assert (slider["min"], slider["max"], slider["value"]) == ("0.1", "3.0", "0.7")
    assert "temperature 0.7" in text
    assert soup.select_one("select option").text == "mean"
    assert soup.find("input", type="checkbox").has_attr("checked")
    assert "drawn at 0.7" in text
    assert soup.select_one("figure img")["src"].startswith("data:image/png;base64,")
    assert "11/11" in text
    assert "13" not in [bar["max"] for bar in soup.find_all("progress")]
    assert "interactive(children" not in text
    assert fetched_parts(page) == []


def test_a_still_picture_stands_in_for_the_explorer(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        "import torch, grafeat as gf, ipywidgets as w\n"
        "grids = [gf.FeatureGrid(name, torch.randn(2, 5, 3, 2)) for name in 'ab']\n"
        "model = gf.GraFeatMerge.for_grids(grids, num_classes=2, width=8, heads=2)\n"
        "explorer = gf.Explorer(model, grids)\nexplorer",
        "w.VBox([gf.Explorer(model, grids), w.IntSlider(3)])",
    )
    soup, text = BeautifulSoup(page, "html.parser"), text_of(page)
    (picture,) = soup.select("[data-grafeat-twin]")
    assert picture["src"].startswith("data:image/png;base64,")
    assert text.count("live in JupyterLab only") == 1  # in the box, where no picture stands
    assert fetched_parts(page) == []


def test_formulas_folded_answers_and_links(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        "# Sum\n\nEach $a_{ij}$ of\n\n$$\\sum_j a_{ij} = 1$$\n\n"
        "<details><summary>Answer</summary>\n\nThey **sum** to 1.\n\n</details>\n\n"
        "[next](01_patch_graph.ipynb#two), [source](../grafeat/graph.py)",
    )
    soup = BeautifulSoup(page, "html.parser")
    assert [formula["display"] for formula in soup.find_all("math")] == ["inline", "block"]
    assert "$" not in text_of(page)
    assert soup.find("details").find("strong").text == "sum"
    links = [link["href"] for link in soup.select("section a:not(.anchor-link)")]
    assert links == ["01_patch_graph.html#two", "../grafeat/graph.py"]


def test_pages_fetch_nothing_where_nbconverts_own_do(tmp_path: Path) -> None:
    cells = ["# Picture\n\n![a dot](dot.png) and $x$", "import pandas\npandas.DataFrame({'a': [2, 3]})"]
    dot = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
        "3a7e9b550000000a49444154789c63600000000200014898e5630000000049454e44ae426082"
    )
    (tmp_path / "dot.png").write_bytes(dot)
    page = page_of(tmp_path, *cells)
    assert 'src="data:image/png' in page
    assert fetched_parts(page) == []

    plain, _ = HTMLExporter().from_filename(str(tmp_path / "00_one.ipynb"))
    fetched = fetched_parts(plain)
    assert any("require" in part for part in fetched)
    assert "dot.png" in fetched


@pytest.mark.parametrize(
    "part",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="x.css">',
        "<style>@import 'https://cdn.example/x.css';</style>",
        "<style>p { background: url(//cdn.example/x.png) }</style>",
        '<p style="background: url(x.png)"></p>',
        '<script type="module">import a from "https://cdn.example/a.js"</script>',
        '<iframe src="https://example.org/"></iframe>',
    ],
)
def test_what_a_page_fetches_is_seen(part: str) -> None:
    assert len(fetched_parts(f"<html><a href='https://example.org/'>a link</a>{part}</html>")) == 1
