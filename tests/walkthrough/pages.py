"""Executed notebooks and the index as HTML pages that fetch nothing: no script, font or picture."""

import copy
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jinja2
from latex2mathml import converter
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from . import widgets
from .record import Run

_TEMPLATES = Path(__file__).parent / "templates"
_STYLE = (_TEMPLATES / "style.css").read_text(encoding="utf-8")


def notebook_page(notebook: NotebookNode, run: Run, before: Run | None, after: Run | None) -> str:
    """An executed notebook as one self-contained page.

    nbconvert's own template fetches require.js, MathJax and the widgets' scripts when a page is opened.
    This one has none of them: formulas become MathML, and widgets are frozen as they stood.
    """
    notebook = copy.deepcopy(notebook)
    widgets.freeze(notebook)
    resources = {
        "metadata": {"path": str(run.notebook.parent)},
        "style": _STYLE, "run": run, "before": before, "after": after, "duration": duration,
    }  # fmt: skip
    page, _ = _Exporter().from_notebook_node(notebook, resources)
    return page


def index_page(runs: Sequence[Run]) -> str:
    """The table of contents: each notebook's question, time in this run, and what came of it."""
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    times = [run.seconds or 0 for run in runs]
    return environment.get_template("index.html.j2").render(
        runs=runs, total=sum(times), longest=max(times), duration=duration, machine=_machine(), style=_STYLE
    )


def duration(seconds: float | None) -> str:
    """Seconds as a reader says them: 7 s, 1 min 20 s."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _machine() -> str:
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "timm")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return " · ".join([f"Python {platform.python_version()}", *versions, f"{cores} cores", sys.platform])


class _Exporter(HTMLExporter):
    """nbconvert with our template and our Markdown."""

    def __init__(self) -> None:
        super().__init__(template_name="notebook", extra_template_basedirs=[str(_TEMPLATES)])

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        renderer = _Markdown(
            escape=False,
            embed_images=True,
            path=context["resources"]["metadata"]["path"],
            attachments=context.get("cell", {}).get("attachments", {}),
        )
        return MarkdownWithMath(renderer=renderer).render(source)


class _Markdown(IPythonRenderer):
    """Formulas as MathML; links from notebook to notebook as links from page to page."""

    def inline_math(self, body: str) -> str:
        return converter.convert(body)

    def block_math(self, body: str) -> str:
        return converter.convert(body, display="block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        local = re.sub(r"^(?:\./)?([^/:]+)\.ipynb(?=$|#)", r"\1.html", url)
        return super().link(text, local, title)

    def block_mermaidjs(self, code: str) -> str:
        raise ValueError("a mermaid diagram needs a script from elsewhere; draw it with matplotlib instead")

    def _html_embed_images(self, html: str) -> str:
        """Leaves the rest alone; nbconvert's way closes a <details> whose end comes in a later fragment."""
        source = r'(<img\b[^>]*\bsrc=")([^"]+)'
        return re.sub(source, lambda found: found[1] + self._embed_image_or_attachment(found[2]), html)
