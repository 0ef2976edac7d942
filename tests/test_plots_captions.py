"""Words above and below the maps, by hand."""

import pytest
import torch

from grafeat.graph import Patch
from grafeat.grids import WHOLE
from grafeat.plots.captions import caption_lines, panel_details
from grafeat.plots.palette import backbone_colours
from grafeat.plots.rows import AttentionRow, Direction, strongest_edges

COLOURS = backbone_colours(["a", "b", "a_backbone_with_a_name_that_fills_more_than_half_of_a_line.in1k"])


def row(kind: str, name: str, weights: list[float], equal: float) -> AttentionRow:
    return AttentionRow(kind, name, torch.tensor([weights]), equal, WHOLE)  # type: ignore[arg-type]


INTRA, ONE, TWO = (
    row("intra", "a", [0.5, 0.5], 0.5),
    row("cross", "b", [0.3, 0.2], 0.2),
    row("cross", "c", [0.5], 0.6),
)
BROKEN = row("cross", "b", [0.3, float("nan")], 0.2)


def lines(
    rows: tuple[AttentionRow, ...],
    asked: int = 0,
    *,
    direction: Direction = "outgoing",
    pin: Patch | None = None,
    width: float = 400.0,
) -> list[str]:
    edges = strongest_edges(rows, asked)
    written = caption_lines(
        rows, edges, asked=asked, direction=direction, pin=pin, colours=COLOURS, width=width
    )
    return [" ".join(part[0] for part in line) for line in written]


def test_headers_by_hand() -> None:
    rows = (INTRA, ONE, TWO)
    assert [panel_details(row, rows, "outgoing")[0] for row in rows] == [
        "intra",
        "cross 50%, uniform 40%",
        "cross 50%, uniform 60%",
    ]
    assert panel_details(ONE, (INTRA, ONE), "outgoing") == ("cross 50%", "1 × 2")
    joint = (row("intra", "a", [0.3, 0.2], 0.2), row("cross", "b", [0.4, 0.1], 0.3))
    assert [panel_details(row, joint, "outgoing")[0] for row in joint] == [
        "intra 50%, uniform 40%",
        "cross 50%, uniform 60%",
    ]
    assert [panel_details(row, rows, "incoming")[0] for row in rows] == [
        "intra 1.0× even",
        "cross 1.2× even",
        "cross 0.8× even",
    ]
    assert panel_details(row("cross", "b", [3.0], 0.25), rows, "incoming")[0] == "cross 12× even"
    assert (
        panel_details(BROKEN, rows, "incoming")[0]
        == "cross NaN"
        == panel_details(BROKEN, rows, "outgoing")[0]
    )


def test_nothing_is_said_without_reason() -> None:
    assert lines((INTRA, ONE, TWO)) == []


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        ((INTRA, ONE, TWO), 2, "2 strongest edges keep 80% of the cross mass; width follows weight"),
        ((INTRA, ONE, TWO), 1, "the strongest edge keeps 50% of the cross mass; width follows weight"),
        ((INTRA, ONE, TWO), 9, "all 3 edges, the whole cross mass; width follows weight"),
        (
            (row("cross", "b", [1.0, 0.0], 0.5),),
            1,
            "the strongest edge keeps >99% of the cross mass; width follows weight",
        ),
        ((INTRA,), 9, "no edges: nothing but intra attention was captured"),
    ],
)
def test_what_edges_keep(rows: tuple[AttentionRow, ...], asked: int, said: str) -> None:
    assert lines(rows, asked) == [said]


def test_incoming_mass_is_received() -> None:
    assert lines((INTRA, ONE, TWO), 2, direction="incoming", width=330.0) == [
        "2 strongest edges keep 80% of the cross mass received"
    ]


def test_nan_is_said() -> None:
    assert lines((INTRA, BROKEN, TWO), 1, width=300.0) == [
        "the strongest edge keeps 62% of the cross mass, NaN left out",
        "hatched: 1 of 5 weights are NaN",
    ]
    assert lines((row("cross", "b", [float("nan")], 1.0),), 1)[0] == "no edges: all cross weights are NaN"


def test_the_pin_is_said_with_its_weight() -> None:
    assert lines((INTRA, ONE), pin=Patch("b", 0, 1)) == [
        "in brackets: patch (0, 1) of b weighs 0.20, 1.0× uniform"
    ]
    assert lines((INTRA, BROKEN), pin=Patch("b", 0, 1))[0] == "in brackets: patch (0, 1) of b weighs NaN"
    assert lines((INTRA,), pin=Patch("b", 0, 1)) == ["in brackets: patch (0, 1) of b "]
    long = next(name for name in COLOURS if len(name) > 9)
    (said,) = lines((row("cross", long, [0.3], 0.2),), pin=Patch(long, 0, 0))
    assert "…" in said and said.endswith("1.5× uniform")
