"""Rows are what was captured of one patch; the strongest edges are the largest of their cross weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grafeat.attention.capturing import capture
from grafeat.attention.layers import CrossAttention, RotaryPositions
from grafeat.graph import Patch, PatchGraph
from grafeat.grids import WHOLE
from grafeat.plots.rows import AttentionRow, attention_rows, kept_share, strongest_edges


def row(name: str, weights: list[list[float]], *, kind: str = "cross", equal: float = 0.1) -> AttentionRow:
    return AttentionRow(kind, name, torch.tensor(weights), equal, WHOLE)  # type: ignore[arg-type]


ROWS = (
    row("a", [[0.9, 0.1]], kind="intra", equal=0.5),
    row("b", [[0.05, 0.3, 0.0], [0.1, 0.15, 0.0]]),
    row("c", [[0.25], [0.15]]),
)


def test_the_strongest_edges_by_hand() -> None:
    edges = strongest_edges(ROWS, 4)
    assert [edge.other for edge in edges] == [("b", 0, 1), ("c", 0, 0), ("b", 1, 1), ("c", 1, 0)]
    assert [edge.weight for edge in edges] == pytest.approx([0.3, 0.25, 0.15, 0.15])
    assert kept_share(edges, ROWS) == pytest.approx(0.85)


def test_there_are_no_more_edges_than_cross_weights_and_intra_ones_do_not_count() -> None:
    assert len(strongest_edges(ROWS, 99)) == 8 and kept_share(
        strongest_edges(ROWS, 99), ROWS
    ) == pytest.approx(1)
    assert strongest_edges(ROWS[:1], 3) == () == strongest_edges(ROWS, 0)
    assert kept_share((), ROWS[:1]) == 0


def test_nan_is_no_edge_and_is_left_out_of_the_mass() -> None:
    rows = (row("b", [[float("nan"), 0.2, 0.3]]), row("c", [[float("nan")]]))
    edges = strongest_edges(rows, 9)
    assert [edge.other for edge in edges] == [("b", 0, 2), ("b", 0, 1)]
    assert kept_share(edges[:1], rows) == pytest.approx(0.6)
    assert rows[0].missing.tolist() == [[True, False, False]] and rows[0].mass != rows[0].mass


@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6), st.integers(0, 7))
def test_no_other_edges_keep_more(values: list[float], count: int) -> None:
    weights = torch.tensor(values)
    rows = (row("b", weights[:4].view(2, 2).tolist()), row("c", weights[4:].view(1, 2).tolist()))
    most = float(weights.topk(min(count, 6)).values.double().sum())
    kept = sum(edge.weight for edge in strongest_edges(rows, count))
    assert kept == pytest.approx(most)


def test_multiples_of_uniform() -> None:
    assert torch.equal(ROWS[0].shown(True), torch.tensor([[0.9, 0.1]]) / 0.5)
    assert ROWS[0].shown(False) is ROWS[0].weights and ROWS[1].equal_mass == pytest.approx(0.6)


class Captured:
    """Hand-made weights with the names of `CapturedAttention`."""

    graph = PatchGraph({"a": (1, 2), "b": (3, 1)}, {"b": (0.0, 0.5, 1.0, 1.0)})

    def row(self, patch: Patch, *, layer: int, head: int | None, picture: int) -> dict[str, Tensor]:
        return {"a": torch.full((1, 2), 0.25), "b": torch.tensor([[0.2], [0.3], [0.5]])}

    def column(self, patch: Patch, *, layer: int, head: int | None, picture: int) -> dict[str, Tensor]:
        return {
            name: 2 * weights
            for name, weights in self.row(patch, layer=layer, head=head, picture=picture).items()
        }

    def uniform(self, query: str, key: str, layer: int) -> float:
        return {"aa": 0.5, "ab": 1 / 3, "ba": 0.7, "bb": 0.9}[query + key]


@pytest.mark.parametrize(
    ("direction", "factor", "equal"), [("outgoing", 1, [0.9, 0.7]), ("incoming", 2, [0.9, 1 / 3])]
)
def test_rows_put_the_patchs_own_grid_first(
    direction: str, factor: int, equal: list[float], unchecked: None
) -> None:
    own, other = attention_rows(Captured(), Patch("b", 2, 0), layer=0, direction=direction)  # type: ignore[arg-type]
    assert (own.kind, own.backbone, other.kind, other.backbone) == ("intra", "b", "cross", "a")
    assert torch.equal(own.weights, factor * torch.tensor([[0.2], [0.3], [0.5]]))
    assert [own.equal, other.equal] == equal and own.field == (0.0, 0.5, 1.0, 1.0) and other.field == WHOLE


def test_a_lone_backbone_without_intra_layers_is_named() -> None:
    graph, layer = PatchGraph({"a": (1, 2)}), CrossAttention(("a", "b"), 8, 2)
    with capture(layer) as attention, torch.no_grad():
        layer(torch.randn(1, 2, 8), graph, RotaryPositions(4)(graph.centres))
    with pytest.raises(ValueError, match="attention: got cross layers only and the lone backbone 'a'"):
        attention_rows(attention, Patch("a", 0, 0), layer=0)
