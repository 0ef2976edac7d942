"""What the explorer shows, drawn with matplotlib: for papers, and for where no widget can live."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grafeat.attention.captured import KINDS, CapturedAttention
from grafeat.explorer.payload import pack
from grafeat.explorer.source import Source
from grafeat.files import write
from grafeat.graph import Kind, Patch
from grafeat.measures import annotate, communities, pagerank
from grafeat.plots.attention import attention_maps
from grafeat.plots.graphs import draw_graph

TWIN_DPI = 110


def draw(source: Source, state: Mapping[str, Any]) -> Figure:
    """The patch view or the graph view, in the state that the explorer is in."""
    import matplotlib.pyplot as plt

    figure = _patch_view(source, state) if state["view"] == "patch" else _graph_view(source, state)
    plt.close(figure)  # a notebook would show it a second time
    return figure


def save(figure: Figure, path: str | Path, ending: Literal["png", "svg"], dpi: int = TWIN_DPI) -> Path:
    """Writes the figure, whole or not at all."""
    return write(path, rendered(figure, ending, dpi))


def rendered(figure: Figure, ending: Literal["png", "svg"], dpi: int = TWIN_DPI) -> bytes:
    """The figure as the content of a file; an SVG keeps its text as text."""
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format=ending, dpi=dpi, metadata={"Date": None} if ending == "svg" else None)
    return file.getvalue()


def twin(figure: Figure, name: str) -> str:
    """The figure as HTML that the living widget of this name hides."""
    alternative = html.escape("Attention of the selected patch on the grids of all backbones; drawn, not live")
    picture = base64.b64encode(rendered(figure, "png")).decode()
    return (
        f'<img data-grafeat-twin="{name}" alt="{alternative}" style="max-width: 100%" '
        f'src="data:image/png;base64,{picture}">'
    )


def _patch_view(source: Source, state: Mapping[str, Any]) -> Figure:
    attention = source[state["picture"]].attention
    return attention_maps(
        attention,
        Patch(*state["selected"]),
        source.picture(state["picture"]),
        layer=state["layer"],
        head=state["head"],
        direction=state["direction"],
        edges=state["edges"],
        log=state["logarithmic"],
        limits=_limits(attention, state),
        pin=Patch(*state["pins"][-1]) if state["pins"] else None,
    )


def _limits(attention: CapturedAttention, state: Mapping[str, Any]) -> dict[Kind, tuple[float, float]] | None:
    """The ends of the colours where they reach to the largest weight of the head, or of all heads."""
    if state["scale"] == "row":
        return None
    top = pack(attention, 0, "vertices")["top"]  # (layers, heads and their mean, kinds)
    head = -1 if state["head"] is None else state["head"]
    of = top[state["layer"], head] if state["scale"] == "head" else top[:, :-1].max(axis=(0, 1))
    lows = {kind: _even(attention, kind) / 10 if state["logarithmic"] else 0.0 for kind in attention.kinds}
    highs = {kind: float(high) for kind, high in zip(KINDS, of, strict=True)}
    return {kind: (low, highs[kind]) for kind, low in lows.items() if highs[kind] > low}


def _even(attention: CapturedAttention, kind: Kind) -> float:
    """The smallest weight that a patch would have if all logits were equal."""
    return min(attention.uniform(query, key, 0) for query, key in attention.graph.relations(kind))


def _graph_view(source: Source, state: Mapping[str, Any]) -> Figure:
    attention = source[state["picture"]].attention
    where = {"layer": state["layer"], "head": state["head"]}
    graph = source.graph.to_networkx(attention, **where, top=max(state["edges"], 1), self_loops=False)
    if state["paint"] == "pagerank":
        graph = annotate(graph, pagerank=pagerank(attention, **where))
    else:
        graph = annotate(graph, communities=communities(attention, **where))
    paint: Literal["pagerank", "community"] = "pagerank" if state["paint"] == "pagerank" else "community"
    figure = draw_graph(graph, source.picture(state["picture"]), paint=paint).get_figure(root=True)
    return cast(Figure, figure)
