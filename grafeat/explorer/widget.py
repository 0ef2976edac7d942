"""The attention explorer as a widget: what is on screen and what Python sees are one state."""

import base64
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anywidget
import networkx as nx
import traitlets
from jaxtyping import Float
from torch import Tensor

from grafeat.captured import CapturedAttention
from grafeat.explorer import page, still
from grafeat.explorer.payload import Arrays, Form, Shape, VertexWeights, pack, to_bytes
from grafeat.explorer.script import joined
from grafeat.explorer.source import Source, measured
from grafeat.graph import Patch
from grafeat.grids import FeatureGrid, GridSet
from grafeat.measures import write_graphml
from grafeat.models import GridModel
from grafeat.pictures import PictureSet

HERE = Path(__file__).parent
MOST_EDGES = 64
LIVE = 64_000_000  # bytes of one picture's attention that a live page is sent at once
STATE = (
    "picture", "layer", "head", "selected", "pins", "locked", "direction", "compare", "scale", "logarithmic", "opacity",
    "outlines", "edges", "view", "paint",
)  # fmt: skip
Direction = Literal["outgoing", "incoming"]
PLACE = traitlets.Tuple(traitlets.Unicode(), traitlets.Int(), traitlets.Int())


@dataclass(frozen=True, eq=False)
class Selection:
    """What an explorer shows.

    Attributes:
        picture: The picture's number.
        layer: The layer, from 0.
        head: The head, from 0; None for the mean over heads.
        patch: The selected patch.
        direction: Whether `weights` are what the patch attends to (`outgoing`) or what attends to it (`incoming`).
        weights: The patch's weights on screen (h, w), by backbone: intra on its own grid, cross on the others. Where
            `compare` subtracts a pin's, these are the weights before that.
    """

    picture: int
    layer: int
    head: int | None
    patch: Patch
    direction: Direction
    weights: Mapping[str, Float[Tensor, "_ _"]]

    def __repr__(self) -> str:
        grids = ", ".join(f"{name} {h} × {w}" for name, (h, w) in ((n, t.shape) for n, t in self.weights.items()))
        head = "mean over heads" if self.head is None else f"head {self.head}"
        return (
            f"Selection: picture {self.picture}, layer {self.layer}, {head}, {self.patch.backbone} "
            f"({self.patch.row}, {self.patch.column}) {self.direction}; weights on {grids}"
        )


class Explorer(anywidget.AnyWidget):
    """Shows the attention of a model on its pictures' own grids, all backbones linked.

    Point at a patch of any backbone, and every grid shows where it looks: intra attention on its own grid, cross
    attention on the others. Everything that is chosen in the widget is an attribute here, to be read, set, observed and
    linked. Attention says where information is routed, not what matters for the prediction.

    Args:
        model: A model with attention layers, such as a trained `GraFeatMerge`.
        grids: Feature grids of the pictures to look at. Each is passed through the model when it is looked at.
        pictures: The pictures themselves: a `PictureSet` or a tensor (b, 3, H, W) in [0, 1]. Any size: patches know
            their place. Without them the heatmaps stand alone.

    Attributes:
        picture: Number of the picture, from 0.
        layer: Layer, from 0.
        head: Head, from 0; None for the mean over heads.
        selected: The selected patch, (backbone, row, column).
        pins: Up to four patches that are kept for comparison.
        locked: Whether the selected patch stays when the pointer moves.
        direction: `outgoing`, what the patch attends to, or `incoming`, what attends to it.
        compare: Whether the weights of the last pin on the same grid are subtracted.
        scale: Whether colours reach to the largest weight of the `row`, of the `head`, or `shared` by all heads.
        logarithmic: Whether colours follow the logarithm of the weights.
        opacity: How far the picture shows through, in [0, 1].
        outlines: Whether the picture's outlines are drawn over the heatmaps.
        edges: How many of the strongest edges are drawn, 0 to 64; of each kind, in the graph view.
        view: `patch`, or `graph` for the strongest edges of the whole layer.
        paint: What colours the patches in the graph view, `communities` or `pagerank`.

    Raises:
        ValueError: If the model has no attention layers, there is no picture, or pictures and grids differ in number;
            on setting an attribute, if there is no such picture, layer, head or patch.
    """

    _esm = joined()
    _css = HERE / "explorer.css"
    _facts = traitlets.Dict().tag(sync=True)
    _twin = traitlets.Unicode().tag(sync=True)
    picture = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(None, allow_none=True).tag(sync=True)
    selected = traitlets.Tuple(traitlets.Unicode(), traitlets.Int(), traitlets.Int()).tag(sync=True)
    pins = traitlets.List(PLACE).tag(sync=True)
    locked = traitlets.Bool(False).tag(sync=True)
    direction = traitlets.Enum(["outgoing", "incoming"], "outgoing").tag(sync=True)
    compare = traitlets.Bool(False).tag(sync=True)
    scale = traitlets.Enum(["row", "head", "shared"], "row").tag(sync=True)
    logarithmic = traitlets.Bool(False).tag(sync=True)
    opacity = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    outlines = traitlets.Bool(True).tag(sync=True)
    edges = traitlets.Int(8).tag(sync=True)
    view = traitlets.Enum(["patch", "graph"], "patch").tag(sync=True)
    paint = traitlets.Enum(["communities", "pagerank"], "communities").tag(sync=True)

    def __init__(
        self,
        model: GridModel,
        grids: GridSet | Sequence[FeatureGrid],
        pictures: PictureSet | Tensor | None = None,
    ) -> None:
        shown = grids if isinstance(grids, GridSet) else GridSet(grids)
        seen = PictureSet(pictures) if isinstance(pictures, Tensor) else pictures
        self._source = Source(model, shown, seen)
        self._vertices: tuple[int, VertexWeights] | None = None
        facts = self._source.facts()
        name, (rows, columns) = next(iter(self._source.graph.shapes.items()))
        middle = (name, rows // 2, columns // 2)
        super().__init__(_facts=facts, _twin=secrets.token_hex(6), selected=middle, layer=facts["layers"] - 1)
        self.on_msg(self._answer)

    # ---- what is on screen

    @property
    def selection(self) -> Selection:
        """What is on screen: the selected patch, and its weights as tensors."""
        direction: Direction = "outgoing" if self.direction == "outgoing" else "incoming"
        read = self._attention.row if direction == "outgoing" else self._attention.column
        patch = Patch(*self.selected)
        weights = read(patch, layer=self.layer, head=self.head)
        return Selection(self.picture, self.layer, self.head, patch, direction, weights)

    @property
    def state(self) -> dict[str, Any]:
        """All that was chosen, for JSON or for another explorer; setting it restores the view."""
        return {name: getattr(self, name) for name in STATE}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        unknown = set(state).difference(STATE)
        if unknown:
            raise ValueError(
                f"state: got {sorted(unknown)[0]!r}; expected some of {', '.join(STATE)}; take it from explorer.state"
            )
        before = self.state
        try:
            self._set(state)
        except Exception:
            self._set(before)  # all of it or nothing
            raise

    def _set(self, state: Mapping[str, Any]) -> None:
        with self.hold_sync():
            for name, value in state.items():
                setattr(self, name, value)

    @property
    def _attention(self) -> CapturedAttention:
        return self._source[self.picture].attention

    # ---- out of the notebook

    def to_networkx(self, k: int | None = None) -> nx.DiGraph:
        """The selected picture, layer and head as a graph with its strongest edges.

        Args:
            k: Edges kept of each kind, intra and cross; all if absent.

        Returns:
            A graph whose vertices carry `backbone`, `row`, `column` and `box`, and whose edges carry `relation`, `kind`
            and `weight`; `graph.graph["kept"]` says which share of each kind's mass its edges keep.
        """
        if k is not None and k < 1:
            raise ValueError(f"k: got {k}; expected 1 or more edges of each kind; leave it out for all")
        return self._source.graph.to_networkx(self._attention, layer=self.layer, head=self.head, top=k)

    def to_graphml(self, path: str | Path, k: int | None = None) -> Path:
        """Writes `to_networkx(k)` as GraphML, for Gephi, Cytoscape or yEd.

        Raises:
            OSError: If the file cannot be written; names it.
        """
        return write_graphml(self.to_networkx(k), path)

    def to_html(
        self, path: str | Path, *, pictures: Sequence[int] | None = None, limit: int = 20_000_000
    ) -> Path:
        """Writes the explorer as one page that works from a file, without kernel or network.

        Args:
            path: The file.
            pictures: Numbers of the pictures that go into it; the first eight, and the one shown, if absent.
            limit: Bytes that the weights may take in the page. If exact weights would take more, only the strongest of
                each row are kept, and the page says which mass they keep.

        Returns:
            The path.

        Raises:
            ValueError: If there is no such picture, or even the four strongest weights of each row take too much.
            OSError: If the file cannot be written; names it.
        """
        numbers = self._numbers(pictures)
        return page.write(path, self._source, numbers, self.state, limit)

    def to_png(self, path: str | Path, *, dpi: int = 200) -> Path:
        """Draws what is selected with matplotlib, as a PNG.

        The weights themselves, whatever `compare` says, with the last pin in brackets; opacity and outlines are the
        figure's own.

        Raises:
            OSError: If the file cannot be written; names it.
        """
        return still.save(self._figure(), path, "png", dpi)

    def to_svg(self, path: str | Path) -> Path:
        """Draws what is selected with matplotlib, as an SVG for papers.

        Raises:
            OSError: If the file cannot be written; names it.
        """
        return still.save(self._figure(), path, "svg")

    def _figure(self) -> still.Figure:
        return still.draw(self._source, self.state)

    def _numbers(self, pictures: Sequence[int] | None) -> list[int]:
        if pictures is None:
            first = list(range(min(len(self._source), 8)))
            return first if self.picture in first else [*first[:7], self.picture]
        numbers = list(dict.fromkeys(int(number) for number in pictures))
        if not numbers:
            raise ValueError("pictures: got none; expected at least one number; pass [explorer.picture]")
        for number in numbers:
            self._check_number("pictures", number, len(self._source))
        return numbers

    def _ipython_display_(self) -> None:
        """Two outputs: a still picture, which the living widget hides, and the widget."""
        from IPython.display import display

        display({"text/html": still.twin(self._figure(), self._twin), "text/plain": repr(self)}, raw=True)
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display(data, metadata=metadata, raw=True)

    def __repr__(self) -> str:
        return f"Explorer: {len(self._source):,} pictures; {self.selection}"

    # ---- what the page asks for

    def _answer(self, _: Any, question: Mapping[str, Any], __: Sequence[Any]) -> None:
        answers: dict[str, Callable[[Mapping[str, Any]], tuple[dict[str, Any], Arrays]]] = {
            "picture": self._answer_picture,
            "vertex": self._answer_vertex,
            "graph": self._answer_graph,
            "thumbnails": self._answer_thumbnails,
        }
        try:
            message, arrays = answers[question["ask"]](question)
        except Exception as error:  # the page says it; a traceback would be lost in the kernel's log
            self.send({"id": question["id"], "error": str(error)})
            return
        places, content = to_bytes(arrays)
        self.send({**message, "places": places, "id": question["id"]}, buffers=[content] if arrays else [])

    def _answer_picture(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
        number = question["number"]
        shape = Shape.of(self._source[number].attention)
        form: Form = shape.smallest()
        if shape.nbytes(form) > LIVE:
            form = "vertices"
        message, arrays = self._source.describe(number)
        packed = pack(self._source[number].attention, 0, form)
        return {**message, "form": form, "width": shape.head_width}, arrays | packed

    def _answer_vertex(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
        number = question["number"]
        if self._vertices is None or self._vertices[0] != number:
            self._vertices = number, VertexWeights(self._source[number].attention, 0)
        return {}, self._vertices[1].arrays(question["vertex"])

    def _answer_graph(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
        attention = self._source[question["number"]].attention
        return {}, measured(attention, layer=question["layer"], head=question["head"])

    def _answer_thumbnails(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
        encoded = [base64.b64encode(self._source.thumbnail(number)).decode() for number in question["numbers"]]
        return {"thumbnails": encoded}, {}

    # ---- checks

    @traitlets.validate("picture")
    def _valid_picture(self, proposal: Any) -> int:
        return self._check_number("picture", proposal["value"], len(self._source))

    @traitlets.validate("layer")
    def _valid_layer(self, proposal: Any) -> int:
        return self._check_number("layer", proposal["value"], self._facts["layers"])

    @traitlets.validate("head")
    def _valid_head(self, proposal: Any) -> int | None:
        if proposal["value"] is None:
            return None
        return self._check_number("head", proposal["value"], self._facts["heads"])

    @traitlets.validate("edges")
    def _valid_edges(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] <= MOST_EDGES:
            raise ValueError(f"edges: got {proposal['value']}; expected 0 to {MOST_EDGES}; to_networkx(k) holds more")
        return proposal["value"]

    @traitlets.validate("selected")
    def _valid_selected(self, proposal: Any) -> tuple[str, int, int]:
        self._source.graph.vertex(*proposal["value"])
        return proposal["value"]

    @traitlets.validate("pins")
    def _valid_pins(self, proposal: Any) -> list[tuple[str, int, int]]:
        if len(proposal["value"]) > 4:
            raise ValueError(f"pins: got {len(proposal['value'])}; expected up to 4; drop the oldest")
        for pin in proposal["value"]:
            self._source.graph.vertex(*pin)
        return proposal["value"]

    def _check_number(self, name: str, value: int, count: int) -> int:
        if not 0 <= value < count:
            raise ValueError(f"{name}: got {value}; expected 0 to {count - 1}; count from 0")
        return value
