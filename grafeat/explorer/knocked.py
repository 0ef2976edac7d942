"""What is knocked out in the explorer, in words that JSON holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grafeat.attention.captured import CapturedAttention
from grafeat.explanations.knockouts import KnockOut

FORMS: Mapping[str, Mapping[str, type]] = {
    "patch": {"backbone": str, "row": int, "column": int},
    "pair": {"query": str, "key": str},  # of all layers, or of the one that follows
    "cross": {},
    "layer": {"kind": str, "layer": int},
    "head": {"kind": str, "layer": int, "head": int},
    "backbone": {"backbone": str},
}

Knocked = tuple[str | int, ...]


def described(knocked: Knocked) -> str:
    """What is knocked out, in words."""
    form, *rest = knocked
    if form == "patch":
        return f"patch {rest[0]} ({rest[1]}, {rest[2]})"
    if form == "pair":
        return f"edges {rest[0]} → {rest[1]}" + (f", layer {rest[2]}" if len(rest) > 2 else "")
    if form in ("layer", "head"):
        return f"{rest[0]} edges, layer {rest[1]}" + (f", head {rest[2]}" if form == "head" else "")
    return "all cross edges" if form == "cross" else f"backbone {rest[0]}"


def checked(knocked: Sequence[Any], attention: CapturedAttention) -> Knocked:
    """What is to be knocked out, if it is there.

    Raises:
        ValueError: If it is none of the forms, or names what is not there, or nothing would be left.
    """
    form, *rest = knocked
    _check_form(form, rest, knocked)
    graph, names = attention.graph, attention.graph.names
    if form == "patch":
        graph.vertex(*rest)
        _check(graph.num_vertices > 1, knocked, "two patches or more", "nothing would be left")
    elif form == "backbone":
        _check(rest[0] in names, knocked, " or ".join(names), "use one of them")
        _check(len(names) > 1, knocked, "two backbones or more", "nothing would be left")
    elif form in ("layer", "head"):
        _check(rest[0] in attention.kinds, knocked, f"kind {' or '.join(attention.kinds)}", "the model has no other")
        _check_number("layer", rest[1], attention.layers(rest[0]), knocked)
        if form == "head":
            _check_number("head", rest[2], attention.heads, knocked)
    else:
        _check("cross" in attention.kinds, knocked, "a graph with cross edges", "knock out a patch instead")
        if form == "pair":
            ends = set(rest[:2])
            _check(ends <= set(names) and len(ends) == 2, knocked, f"two of {', '.join(names)}", "query first")
            _check_number("layer", rest[2] if rest[2:] else 0, attention.layers("cross"), knocked)
    return (form, *rest)


def knock_out_of(knocked: Knocked) -> KnockOut:
    """The edges, or the patch, to take out; not for a backbone, which is left out of the grids."""
    form, *rest = knocked
    made: Mapping[str, Callable[..., KnockOut]] = {
        "patch": lambda *patch: KnockOut(patch=patch),
        "pair": lambda query, key, layer=None: KnockOut("cross", query=query, key=key, layer=layer),
        "cross": lambda: KnockOut("cross"),
        "layer": lambda kind, layer: KnockOut(kind, layer=layer),
        "head": lambda kind, layer, head: KnockOut(kind, layer=layer, head=head),
    }
    return made[str(form)](*rest)


def structures(attention: CapturedAttention) -> list[Knocked]:
    """All that can be knocked out beside single patches: backbones, cross edges, pairs, layers and heads."""
    names = attention.graph.names
    found: list[Knocked] = [("backbone", name) for name in names] if len(names) > 1 else []
    if "cross" in attention.kinds:
        layers = range(attention.layers("cross"))
        pairs = [(query, key) for query, key in attention.graph.relations("cross")]
        found += [("cross",), *(("pair", *pair) for pair in pairs)]
        found += [("pair", *pair, layer) for pair in pairs for layer in layers]
    for kind in attention.kinds:
        for layer in range(attention.layers(kind)):
            found += [("layer", kind, layer), *(("head", kind, layer, head) for head in range(attention.heads))]
    return found


def _check_form(form: Any, rest: Sequence[Any], knocked: Sequence[Any]) -> None:
    types = tuple(type(part) for part in rest)
    fits = form in FORMS and types in [tuple(FORMS[form].values()), (str, str, int) if form == "pair" else ()]
    if not fits or (form != "cross" and not rest):
        forms = ", ".join(str([name, *parts]) for name, parts in FORMS.items())
        raise ValueError(f"knocked: got {list(knocked)}; expected one of {forms}; or [] for nothing")


def _check(fits: bool, knocked: Sequence[Any], expected: str, remedy: str) -> None:
    if not fits:
        raise ValueError(f"knocked: got {list(knocked)}; expected {expected}; {remedy}")


def _check_number(name: str, value: Any, count: int, knocked: Sequence[Any]) -> None:
    _check(0 <= value < count, knocked, f"{name} 0 to {count - 1}", "count from 0")
