"""What a living page asks of its kernel, and what it is told."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from grafeat.attention.captured import CapturedAttention
from grafeat.explorer.effects import Effects, relevance_sent
from grafeat.explorer.knocked import checked
from grafeat.explorer.payload import Arrays, Form, Shape, VertexWeights, pack, to_bytes
from grafeat.explorer.source import Source, measured

LIVE = 64_000_000  # bytes of one picture's attention that a living page is sent at once

Question = Mapping[str, Any]
Answer = tuple[dict[str, Any], Arrays]


class Answers:
    """Answers a page's questions about its pictures.

    Args:
        source: The model and the pictures.
        effects: What matters for their logits.
    """

    def __init__(self, source: Source, effects: Effects) -> None:
        self.source, self.effects = source, effects
        self.vertices: tuple[CapturedAttention, VertexWeights] | None = None

    def __call__(self, question: Question) -> tuple[dict[str, Any], list[bytes]]:
        """A message that JSON can hold, and the arrays that go with it as bytes."""
        known: dict[str, Callable[[Question], Answer]] = {
            "picture": self.picture,
            "vertex": self.vertex,
            "graph": self.graph,
            "thumbnails": self.thumbnails,
            "effect": self.effect,
            "relevance": self.relevance,
            "values": self.values,
        }
        try:
            message, arrays = known[question["ask"]](question)
        except Exception as error:  # the page says it; a traceback would be lost in the kernel's log
            return {"error": str(error)}, []
        places, content = to_bytes(arrays)
        return {**message, "places": places}, [content] if arrays else []

    def picture(self, question: Question) -> Answer:
        """A picture and its attention, in the smallest form that is exact."""
        number = question["number"]
        shape = Shape.of(self.source[number].attention)
        form: Form = shape.smallest()
        if shape.nbytes(form) > LIVE:
            form = "vertices"
        message, arrays = self.source.describe(number)
        packed = pack(self.source[number].attention, 0, form)
        return {**message, "form": form, "width": shape.head_width}, arrays | packed

    def vertex(self, question: Question) -> Answer:
        """One vertex's rows and columns."""
        attention = self.source[question["number"]].attention
        if self.vertices is None or self.vertices[0] is not attention:
            self.vertices = attention, VertexWeights(attention, 0)
        return {}, self.vertices[1].arrays(question["vertex"])

    def graph(self, question: Question) -> Answer:
        """PageRank and communities of one layer and head."""
        attention = self.source[question["number"]].attention
        return {}, measured(attention, layer=question["layer"], head=question["head"])

    def thumbnails(self, question: Question) -> Answer:
        """Some pictures, small."""
        encoded = [base64.b64encode(self.source.thumbnail(number)).decode() for number in question["numbers"]]
        return {"thumbnails": encoded}, {}

    def effect(self, question: Question) -> Answer:
        """The logits without what is knocked out."""
        number = question["number"]
        found = self.effects.effect(number, checked(question["knocked"], self.source[number].attention))
        return {}, {"after": found.after.numpy()}

    def relevance(self, question: Question) -> Answer:
        """How much each patch speaks for a class, by one method."""
        found = self.effects.relevant(question["number"], question["method"], question["target"])
        message, values = relevance_sent(found)
        return message, {"relevance": values}

    def values(self, question: Question) -> Answer:
        """What each backbone is worth to the predicted class."""
        return {}, {"values": self.effects.values_sent(question["number"])}
