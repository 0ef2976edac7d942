"""The explorer as one HTML file: the widget's own script and data inline, nothing from anywhere else."""

import base64
import html
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import grafeat
from grafeat.explorer.effects import Effects
from grafeat.explorer.payload import Arrays, Form, Shape, pack, to_bytes
from grafeat.explorer.script import joined
from grafeat.explorer.source import Source, measured
from grafeat.files import size
from grafeat.files import write as write_file

HERE = Path(__file__).parent
MOST_KEPT, FEWEST_KEPT = 64, 4  # weights of each row and kind, where not all can be kept
BASE64 = 4 / 3
PATIENCE = 2  # seconds without a progress bar
Told = tuple[dict[str, Any], Arrays]
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write(
    path: str | Path,
    source: Source,
    pictures: Sequence[int],
    state: Mapping[str, Any],
    limit: int,
    facts: Mapping[str, Any],
    effects: Effects | None,
    *,
    progress: bool = False,
) -> Path:
    """Writes the page; arguments as in `Explorer.to_html`, with the state in which it opens and what always holds."""
    shapes = [Shape.of(source[number].attention) for number in pictures]
    form, k = chosen(min(shapes, key=lambda shape: shape.fine), len(pictures), limit)
    entries, scripts = {}, []
    for number in tqdm(pictures, desc="page", unit="picture", delay=PATIENCE, leave=False, disable=not progress):
        more: Told = ({}, {}) if effects is None else effects.on_page(number, state)
        about, content = _entry(source, number, form, k, more)
        entries[str(number)] = about
        packed = base64.b64encode(zlib.compress(content, 6)).decode()
        scripts.append(f'<script type="text/plain" data-picture="{number}">{packed}</script>')
    told = {
        "facts": facts,
        "state": {**state, "picture": state["picture"] if state["picture"] in pictures else pictures[0]},
        "pictures": entries,
        "thumbnails": {number: base64.b64encode(source.thumbnail(number)).decode() for number in pictures},
    }
    return write_file(path, _document(told, scripts, source))


def chosen(shape: Shape, pictures: int, limit: int) -> tuple[Form, int]:
    """The form in which so many pictures fit, exact if possible, and how many weights of a row it keeps if not.

    Raises:
        ValueError: If not even the strongest few of each row fit.
    """
    exact = shape.smallest()
    room = limit / BASE64 / pictures
    if shape.nbytes(exact) <= room:
        return exact, 0
    k = MOST_KEPT
    while k >= FEWEST_KEPT:
        if shape.nbytes("strongest", k) <= room and shape.vertices < 2**16:
            return "strongest", k
        k //= 2
    whole, least = (
        size(BASE64 * pictures * shape.nbytes(form, FEWEST_KEPT)) for form in (exact, "strongest")
    )
    raise ValueError(
        f"limit: {pictures} pictures would take {whole}, and {least} even with the {FEWEST_KEPT} strongest weights of "
        f"each row, more than the {size(limit)} allowed; pass fewer pictures=, or a higher limit="
    )


def _entry(source: Source, number: int, form: Form, k: int, effects: Told) -> tuple[dict[str, Any], bytes]:
    attention = source[number].attention
    about, arrays = source.describe(number)
    shape = Shape.of(attention)
    arrays |= pack(attention, 0, form, k=k)
    arrays |= measured(attention)
    about, arrays = about | effects[0], arrays | effects[1]
    places, content = to_bytes(arrays)
    return {**about, "form": form, "width": shape.head_width, "k": k, "places": places}, content


def _document(told: Mapping[str, Any], scripts: Sequence[str], source: Source) -> str:
    """The whole file. A tag inside a script could end it, so JSON's `<` is written as its code."""
    names = ", ".join(source.graph.names)
    title = html.escape(f"Attention of {names}")
    inside = json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")
    style, script = (HERE / "explorer.css").read_text(encoding="utf-8"), joined()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="grafeat {grafeat.__version__}">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; background: #ffffff; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111111; }} }}
main {{ max-width: 1240px; margin: 0 auto; padding: 8px 24px 24px; }}
h1 {{ position: absolute; clip-path: inset(50%); }}
{style}</style>
</head>
<body>
<main data-grafeat-page>
<h1>{title}</h1>
<noscript>This page draws with a script of its own, which this browser has turned off.</noscript>
<script type="application/json" class="grafeat-facts">{inside}</script>
{chr(10).join(scripts)}
</main>
<script type="module">
{script}
openPage();
</script>
</body>
</html>
"""
