"""The attention explorer as a widget: what is on screen and what Python sees are one state."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import networkx as nx
import traitlets
from torch import Tensor

from grafeat.attention.captured import CapturedAttention
from grafeat.explanations.relevance import METHODS
from grafeat.explanations.report import Dominance
from grafeat.explorer import page, still
from grafeat.explorer.answers import Answers
from grafeat.explorer.effects import Effect, Effects
from grafeat.explorer.knocked import checked
from grafeat.explorer.script import joined
from grafeat.explorer.selection import Direction, Selection
from grafeat.explorer.source import Source
from grafeat.graph import Patch
from grafeat.grids import FeatureGrid, GridSet
from grafeat.measures import write_graphml
from grafeat.models import GridModel
from grafeat.pictures import PictureSet

HERE = Path(__file__).parent
MOST_EDGES = 64
STATE = (
    "picture", "layer", "head", "selected", "pins", "locked", "direction", "compare", "scale", "logarithmic", "opacity",
    "outlines", "edges", "view", "paint", "knocked", "relevance", "target",
)  # fmt: skip
PLACE = traitlets.Tuple(traitlets.Unicode(), traitlets.Int(), traitlets.Int())


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
        report: What `gf.dominance` says of a whole set, whose shares then stand beside the values of each picture.

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
        knocked: What is knocked out, empty for nothing: `["patch", backbone, row, column]`, `["pair", query, key]` or
            `["pair", query, key, layer]` for the cross edges from one backbone to another, `["cross"]` for all of them,
            `["layer", kind, layer]` and `["head", kind, layer, head]` with kind `intra` or `cross`, or `["backbone",
            name]`. The grids show attention with all; `effect` says what becomes of the logits.
        relevance: A method of `gf.relevance` whose values the grids show instead of attention; None for attention.
        target: The class that relevance explains, its number; None for the predicted one.

    Raises:
        ValueError: If the model has no attention layers, there is no picture, pictures and grids differ in number, or
            the report is of other backbones; on setting an attribute, if there is no such picture, layer, head, patch
            or class, or what is to be knocked out is not there.
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
    knocked: Any = traitlets.List().tag(sync=True)
    relevance = traitlets.Enum([None, *METHODS], None, allow_none=True).tag(sync=True)
    target = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        model: GridModel,
        grids: GridSet | Sequence[FeatureGrid],
        pictures: PictureSet | Tensor | None = None,
        *,
        report: Dominance | None = None,
    ) -> None:
        shown = grids if isinstance(grids, GridSet) else GridSet(grids)
        seen = PictureSet(pictures) if isinstance(pictures, Tensor) else pictures
        self._source = Source(model, shown, seen)
        self._effects = Effects(self._source)
        self._answers = Answers(self._source, self._effects)
        facts = self._source.facts() | self._effects.facts(report)
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
    def effect(self) -> Effect | None:
        """What becomes of the logits without what is knocked out; None if nothing is."""
        return self._effects.effect(self.picture, tuple(self.knocked)) if self.knocked else None

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
        self,
        path: str | Path,
        *,
        pictures: Sequence[int] | None = None,
        limit: int = 20_000_000,
        effects: bool = True,
        progress: bool = True,
    ) -> Path:
        """Writes the explorer as one page that works from a file, without kernel or network.

        Args:
            path: The file.
            pictures: Numbers of the pictures that go into it; the first eight, and the one shown, if absent.
            limit: Bytes that the weights may take in the page. If exact weights would take more, only the strongest of
                each row are kept, and the page says which mass they keep.
            effects: Whether the page holds knock-outs (every backbone, pair, layer and head, and all patches or the 32
                that change most), relevance by three methods and values. A picture of a hundred patches takes two
                seconds or three, one of 392 about ten. Above 512 patches ablation is left out, unless it is shown, and
                the 32 are those of the largest integrated gradients; 1,568 patches take most of a minute.
            progress: Whether a bar shows how far it is, if it takes long.

        Returns:
            The path.

        Raises:
            ValueError: If there is no such picture, or even the four strongest weights of each row take too much.
            OSError: If the file cannot be written; names it.
        """
        numbers = self._numbers(pictures)
        computed = self._effects if effects else None
        return page.write(path, self._source, numbers, self.state, limit, self._facts, computed, progress=progress)

    def to_png(self, path: str | Path, *, dpi: int = 200) -> Path:
        """Draws what is selected with matplotlib, as a PNG.

        The weights themselves, whatever `compare`, `relevance` and `knocked` say, with the last pin in brackets;
        opacity and outlines are the figure's own.

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

    def _answer(self, _: Any, question: Mapping[str, Any], __: Sequence[Any]) -> None:
        message, content = self._answers(question)
        self.send({**message, "id": question["id"]}, buffers=content)

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

    @traitlets.validate("knocked")
    def _valid_knocked(self, proposal: Any) -> list[str | int]:
        return list(checked(proposal["value"], self._attention)) if proposal["value"] else []

    @traitlets.validate("relevance")
    def _valid_relevance(self, proposal: Any) -> str | None:
        if proposal["value"] not in (None, *self._effects.methods):
            raise ValueError(
                f"relevance: got {proposal['value']!r} for a single patch; expected one of "
                f"{', '.join(self._effects.methods)}; without its only patch there is no prediction"
            )
        return proposal["value"]

    @traitlets.validate("target")
    def _valid_target(self, proposal: Any) -> int | None:
        if proposal["value"] is None:
            return None
        return self._check_number("target", proposal["value"], len(self._facts["classes"]))

    def _check_number(self, name: str, value: int, count: int) -> int:
        if not 0 <= value < count:
            raise ValueError(f"{name}: got {value}; expected 0 to {count - 1}; count from 0")
        return value
